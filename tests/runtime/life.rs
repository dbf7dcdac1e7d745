//! A container's life: run, create, start, kill, pause, delete, and what is told of each step.

use libtest_mimic::Trial;

use crate::support::{Bundle, tests};

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    tests![
        run_ends_with_the_code_of_the_program,
        run_answers_128_and_the_signal,
        a_container_goes_through_its_life,
        pause_freezes_and_resume_thaws,
        init_is_a_sealed_copy_while_created,
    ]
}

fn run_ends_with_the_code_of_the_program() {
    assert_eq!(Bundle::new("exit 7").run().code(), Some(7));
}

fn run_answers_128_and_the_signal() {
    // The first process of a pid namespace is spared by its own signals: a host pid namespace.
    let bundle = Bundle::new("kill -USR1 $$; sleep 5");
    bundle.edit(|config| {
        let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|namespace| namespace["type"] != "pid");
    });
    assert_eq!(bundle.run().code(), Some(128 + 10));
}

fn a_container_goes_through_its_life() {
    let bundle = Bundle::new("sleep 100");
    bundle.create().success();
    assert_eq!(bundle.status(), "created");
    bundle.verb("start").success();
    assert_eq!(bundle.status(), "running");
    let refused = bundle.verb("delete").failure();
    assert!(
        refused.contains("that is not stopped: running"),
        "{refused}"
    );
    assert!(bundle.create().failure().contains("already exists"));
    bundle
        .parhelion(&["delete", "--force", &bundle.id])
        .success();
    assert!(bundle.verb("state").failure().contains("does not exist"));
}

fn pause_freezes_and_resume_thaws() {
    let bundle = Bundle::new("sleep 100");
    bundle.create().success();
    bundle.verb("start").success();
    bundle.verb("pause").success();
    assert_eq!(bundle.status(), "paused");
    bundle.verb("resume").success();
    assert_eq!(bundle.status(), "running");
}

fn init_is_a_sealed_copy_while_created() {
    let bundle = Bundle::new("sleep 100");
    bundle.create().success();
    let state: serde_json::Value = serde_json::from_str(&bundle.verb("state").success()).unwrap();
    let exe = std::fs::read_link(format!("/proc/{}/exe", state["pid"])).unwrap();
    assert!(
        exe.to_string_lossy().starts_with("/memfd:parhelion-init"),
        "{exe:?}"
    );
}
