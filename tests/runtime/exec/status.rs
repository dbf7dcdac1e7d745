//! In which containers a process can be executed.

use std::fs;
use std::process::Stdio;

use libtest_mimic::Trial;
use serde_json::json;

use super::{
    cgroup_of, exec, exec_command, in_user_namespace, processes, refusal, running, sh, sleeping,
};
use crate::caller::{Running, command, output, wait_for_end};
use crate::support::{Bundle, tests};

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    tests![
        a_container_that_waits_for_its_start_takes_a_process,
        a_stopped_container_is_refused_in_runcs_words,
        a_paused_container_is_refused_in_runcs_words,
        in_a_paused_container_it_can_be_asked_to_wait,
        an_unknown_container_is_named,
        a_container_that_is_being_created_is_not_entered,
        an_id_that_is_none_is_refused,
    ]
}

fn a_container_that_waits_for_its_start_takes_a_process() {
    for in_user in [false, true] {
        let bundle = Bundle::new("echo started; cat /dev/shm/made");
        if in_user {
            let rootfs = bundle.folder.join("rootfs");
            bundle.edit(|config| super::own_user_namespace(config, &rootfs));
        }
        bundle.create().success();
        assert_eq!(
            sh(&bundle, &[], "echo before > /dev/shm/made; id -u"),
            "0\n"
        );
        assert_eq!(bundle.status(), "created");
        bundle.verb("start").success();
        wait_for_end(&bundle);
        assert_eq!(output(&bundle), "started\nbefore\n");
    }
}

fn a_stopped_container_is_refused_in_runcs_words() {
    let bundle = running();
    bundle.parhelion(&["kill", &bundle.id, "KILL"]).success();
    wait_for_end(&bundle);
    for flags in [&[][..], &["--ignore-paused"], &["--detach"]] {
        let error = refusal(&exec(&bundle, flags, &["/bin/true"]));
        assert!(
            error.contains("cannot exec in a stopped container"),
            "{error}"
        );
    }
}

fn a_paused_container_is_refused_in_runcs_words() {
    let bundle = running();
    bundle.verb("pause").success();
    let error = refusal(&exec(&bundle, &[], &["/bin/true"]));
    let words = "cannot exec in a paused container (use --ignore-paused to override)";
    assert!(error.contains(words), "{error}");
    assert_eq!(processes(&cgroup_of(&bundle)).len(), 1);
}

fn in_a_paused_container_it_can_be_asked_to_wait() {
    for bundle in [running(), in_user_namespace(|_config| {})] {
        bundle.verb("pause").success();
        let program = ["/bin/sh", "-c", "echo ran; exit 6"];
        let mut command = exec_command(&bundle, &["--ignore-paused"], &program);
        let mut held = Running::spawn(&mut command, Stdio::null());
        super::wait_until(|| processes(&cgroup_of(&bundle)).len() == 2);
        assert!(!held.has_line());
        bundle.verb("resume").success();
        assert_eq!(held.line(), "ran");
        held.ends_with(6);
        // Also one that is never resumed goes with the container.
        bundle.verb("pause").success();
        let mut held = Running::spawn(&mut command, Stdio::null());
        super::wait_until(|| processes(&cgroup_of(&bundle)).len() == 2);
        bundle
            .parhelion(&["delete", "--force", &bundle.id])
            .success();
        let (status, _, error) = held.end();
        assert_eq!(status.code(), Some(255), "{error}");
        // On a busy machine init ends some time later.
        let words = ["the container has ended meanwhile", "was killed"];
        assert!(words.iter().any(|words| error.contains(words)), "{error}");
    }
}

fn an_unknown_container_is_named() {
    let bundle = Bundle::new("");
    let error = refusal(&exec(&bundle, &[], &["/bin/true"]));
    assert!(error.contains("does not exist"), "{error}");
}

fn an_id_that_is_none_is_refused() {
    let bundle = Bundle::new("");
    for id in ["a/b", "..", ""] {
        refusal(&bundle.parhelion(&["exec", id, "/bin/true"]));
    }
}

/// Its init has the namespaces already, and the host's root still.
fn a_container_that_is_being_created_is_not_entered() {
    let bundle = sleeping();
    let path = |name: &str| bundle.folder.join(name);
    for name in ["begun", "go"] {
        nix::unistd::mkfifo(&path(name), nix::sys::stat::Mode::S_IRWXU).unwrap();
    }
    let folder = bundle.path();
    let script = format!("echo $$ > {folder}/begun; read x < {folder}/go");
    bundle.edit(|config| {
        let hook = json!({"path": "/bin/sh", "args": ["sh", "-c", script]});
        config["hooks"] = json!({ "createContainer": [hook] });
    });
    let create = ["create", "--bundle", bundle.path(), &bundle.id];
    let output = fs::File::create(path("output")).unwrap();
    let mut create = command(&bundle, &create);
    let streams = create.stdin(Stdio::null()).stderr(Stdio::null());
    let mut create = streams.stdout(output).spawn().unwrap();
    fs::read_to_string(path("begun")).unwrap();
    let error = refusal(&exec(&bundle, &[], &["/bin/cat", "/proc/self/mountinfo"]));
    fs::write(path("go"), "on\n").unwrap();
    assert!(create.wait().unwrap().success());
    assert!(error.contains("container not running"), "{error}");
    assert_eq!(sh(&bundle, &[], "echo later"), "later\n");
}
