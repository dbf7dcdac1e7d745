//! Annotations that change what the runtime does: crun's, as Podman passes them on.

use std::fs;

use libtest_mimic::Trial;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::json;

use crate::caller::{Socket, from_shell};
use crate::support::{Bundle, HOOKS, Ran, tests};

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    tests![
        the_groups_of_the_caller_are_kept_when_asked,
        the_pidfd_goes_to_the_receiver_that_an_annotation_names,
        an_annotation_that_asks_for_another_runtime_is_refused,
        an_annotation_without_effect_is_a_warning,
        what_hooks_print_goes_to_the_files_that_annotations_name,
        a_file_for_hooks_that_can_not_be_made_is_told,
    ]
}

/// The groups of the program, when its caller has 7001 and 7002.
fn groups(bundle: &Bundle) -> String {
    let script = r#"exec setpriv --groups 7001,7002 "$@""#;
    let run = ["run", "--bundle", bundle.path(), &bundle.id];
    let seen = Ran(from_shell(bundle, script, &run).output().unwrap()).success();
    let line = seen.lines().find(|line| line.starts_with("Groups:"));
    line.unwrap()["Groups:".len()..].trim().to_owned()
}

fn the_groups_of_the_caller_are_kept_when_asked() {
    let bundle = Bundle::new("cat /proc/self/status");
    for (value, expected) in [("0", "5"), ("1", "7001 7002")] {
        bundle.edit(|config| {
            config["annotations"] = json!({"run.oci.keep_original_groups": value});
            config["process"]["user"] = json!({"uid": 5, "gid": 5, "additionalGids": [5]});
        });
        assert_eq!(groups(&bundle), expected, "{value}");
    }
}

fn the_pidfd_goes_to_the_receiver_that_an_annotation_names() {
    let bundle = Bundle::new("sleep 1000");
    let socket = Socket::new(&bundle, "receiver.sock");
    bundle.edit(|config| {
        config["annotations"] = json!({"run.oci.pidfd_receiver": socket.path});
    });
    bundle.create().success();
    let (_, pidfd) = socket.receive();
    let told = fs::read_link(format!("/proc/self/fd/{}", {
        use std::os::fd::AsRawFd;
        pidfd.as_raw_fd()
    }));
    assert!(told.unwrap().to_str().unwrap().contains("pidfd"));
    bundle
        .parhelion(&["delete", "--force", &bundle.id])
        .success();
    let mut events = [PollFd::new(&pidfd, PollFlags::IN)];
    let patience = Timespec {
        tv_sec: 60,
        tv_nsec: 0,
    };
    assert_eq!(poll(&mut events, Some(&patience)), Ok(1), "it lives on");
}

fn an_annotation_that_asks_for_another_runtime_is_refused() {
    let bundle = Bundle::new("true");
    bundle.edit(|config| config["annotations"] = json!({"run.oci.handler": "krun"}));
    let refused = bundle.run().failure();
    assert!(
        refused.contains("annotations[\"run.oci.handler\"]: not supported: "),
        "{refused}"
    );
}

fn an_annotation_without_effect_is_a_warning() {
    let bundle = Bundle::new("echo runs");
    bundle.edit(|config| config["annotations"] = json!({"run.oci.unheard-of": "1"}));
    let ran = bundle.run();
    assert!(
        ran.stderr()
            .contains("annotations[\"run.oci.unheard-of\"]: unknown annotation, ignored"),
        "{}",
        ran.stderr()
    );
    assert_eq!(ran.success(), "runs\n");
}

fn what_hooks_print_goes_to_the_files_that_annotations_name() {
    let bundle = Bundle::new("true");
    bundle.edit(|config| {
        config["annotations"] = json!({"run.oci.hooks.stdout": bundle.folder.join("out"),
            "run.oci.hooks.stderr": bundle.folder.join("err")});
        for list in HOOKS {
            let script = format!("echo {list}; echo not {list} >&2");
            let args = json!(["sh", "-c", script]);
            config["hooks"][list] = json!([{"path": "/bin/sh", "args": args}]);
        }
    });
    fs::write(bundle.folder.join("out"), "before\n").unwrap();
    bundle.run().success();
    let read = |name| fs::read_to_string(bundle.folder.join(name)).unwrap();
    assert_eq!(read("out"), format!("before\n{}\n", HOOKS.join("\n")));
    assert_eq!(read("err"), format!("not {}\n", HOOKS.join("\nnot ")));
}

fn a_file_for_hooks_that_can_not_be_made_is_told() {
    let bundle = Bundle::new("true");
    bundle.edit(|config| {
        config["annotations"] = json!({"run.oci.hooks.stdout": "/no/such/file"});
    });
    let refused = bundle.run().failure();
    assert!(
        refused.contains(
            "annotations[\"run.oci.hooks.stdout\"]: open(\"/no/such/file\"): no such file"
        ),
        "{refused}"
    );
}
