//! What is refused, and that each refusal says what to do next.

use std::os::unix::fs::PermissionsExt as _;

use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::host::Host;
use crate::support::tests;

pub fn all() -> Vec<Trial> {
    tests![
        a_second_daemon_is_refused_and_the_first_one_goes_on,
        the_socket_is_for_its_owner_only,
        refusals_say_what_to_do_next,
        a_job_that_may_be_two_is_told_with_both,
        nothing_is_coloured_in_a_pipe,
        a_state_that_others_own_or_can_write_is_refused,
    ]
}

fn a_second_daemon_is_refused_and_the_first_one_goes_on() {
    let host = Host::new("sleep 1000");
    let second = host.command().output().unwrap();
    assert!(!second.status.success());
    let told = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(told.contains("is open in another process"), "{told}");
    host.parctl(&["version"]).success();
}

fn the_socket_is_for_its_owner_only() {
    let host = Host::new("sleep 1000");
    let mode = |name: &str| host.path(name).metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("socket"), mode("supervisor")), (0o600, 0o700));
}

fn refusals_say_what_to_do_next() {
    let host = Host::new("sleep 1000");
    let file = host.job("1", &json!({}));
    host.parctl(&["create", &file]).success();
    let wrong = host.job("2", &json!({ "hostnaem": "x" }));
    for (words, error, hint) in [
        (&["create", &file][..], "is there already", "parctl deploy"),
        (&["create", "/nowhere"], "/nowhere", "name a job file"),
        (&["create", &wrong], "hostname", "parctl schema"),
        (&["deploy", "other"], "no job \"other\"", "parctl create"),
        (&["deploy", "web", "--host", "x"], "no host", "here"),
        (
            &["deploy", "web", "--count", "0"],
            "from 1 to",
            "parctl undeploy",
        ),
        (
            &["undeploy", "web"],
            "no job \"web\" deployed on here",
            "parctl",
        ),
        (&["logs", "web"], "no instance", "parctl deploy"),
        (&["inspect", "never"], "no job", "parctl"),
    ] {
        let told = host.parctl(words).failure();
        assert!(
            told.contains(error) && told.contains(hint),
            "{words:?}: {told}"
        );
        let all: Vec<&str> = ["--json"]
            .into_iter()
            .chain(words.iter().copied())
            .collect();
        let told: Value = serde_json::from_str(&host.parctl(&all).failure()).unwrap();
        assert!(told["error"].as_str().unwrap().contains(error), "{told}");
        assert!(!told["hint"].as_str().unwrap().is_empty());
    }
    let told = host.parctl(&["history", "never"]).failure();
    assert!(told.contains("nothing has happened to \"never\""), "{told}");
    assert_eq!(host.json(&["history", "never"]), json!([]));
    host.parctl(&["deploy", "web"]).success();
    let told = host.parctl(&["remove", "web"]).failure();
    assert!(
        told.contains("is deployed on here") && told.contains("parctl undeploy"),
        "{told}"
    );
    host.parctl(&["remove", "--undeploy", "web"]).success();
}

fn a_job_that_may_be_two_is_told_with_both() {
    let host = Host::new("sleep 1000");
    let file = host.job("1", &json!({}));
    let first = host.json(&["create", &file])["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let second = host.json(&["create", &file, "--env", "A=b"])["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let told: Value =
        serde_json::from_str(&host.parctl(&["--json", "deploy", "web"]).failure()).unwrap();
    let mut expected = [&first[..13], &second[..13]];
    expected.sort_unstable();
    assert_eq!(told["candidates"], json!(expected));
    host.parctl(&["deploy", &second[..13]]).success();
}

fn nothing_is_coloured_in_a_pipe() {
    let host = Host::new("sleep 1000");
    host.deploy(&json!({}));
    let told = host.parctl(&["status"]);
    assert!(!told.success().contains('\x1b') && told.stderr().is_empty());
}

fn a_state_that_others_own_or_can_write_is_refused() {
    use std::os::unix::fs::{PermissionsExt as _, chown};
    let host = Host::without_daemon("sleep 1000");
    let state = host.path("supervisor");
    std::fs::create_dir(&state).unwrap();
    let refused = || {
        let ended = host.command().output().unwrap();
        assert!(!ended.status.success());
        assert!(
            std::fs::read_dir(&state).unwrap().next().is_none(),
            "it was used"
        );
        String::from_utf8(ended.stderr).unwrap()
    };
    for mode in [0o770, 0o707, 0o777] {
        std::fs::set_permissions(&state, std::fs::Permissions::from_mode(mode)).unwrap();
        let told = refused();
        assert!(
            told.contains("--state") && told.contains("others than its owner"),
            "{told}"
        );
        assert!(
            told.contains(&format!("mode {mode:04o}")) && told.contains("chmod 700"),
            "{told}"
        );
    }
    std::fs::set_permissions(&state, std::fs::Permissions::from_mode(0o700)).unwrap();
    chown(&state, Some(65_534), None).unwrap();
    let told = refused();
    assert!(
        told.contains("belongs to user 65534") && told.contains("chown 0"),
        "{told}"
    );
    chown(&state, Some(0), None).unwrap();
    let mut host = host;
    host.start();
}
