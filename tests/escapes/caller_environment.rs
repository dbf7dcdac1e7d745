//! What the caller of the runtime knows, a container does not learn: variables such as credentials of a daemon, and command
//! lines.

use libtest_mimic::Trial;

use crate::caller::start;
use crate::subject::Subject;
use crate::support::{Ran, tests};

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    tests![
        no_variable_and_no_argument_of_the_caller_is_visible_inside,
        variables_of_the_caller_would_be_visible_inside,
    ]
}

/// What is to be seen inside of the container's own program, and of one that joins it.
fn seen(subject: Subject) -> [String; 2] {
    let show = "cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline | busybox tr '\\0' '\\n'";
    let own = subject.bundle(show);
    let mut run = own.command();
    run.args(["run", "--bundle", own.path(), &own.id]);
    let other = subject.bundle("sleep 100000");
    start(&other);
    let mut exec = other.command();
    exec.args(["exec", &other.id, "/bin/sh", "-c", show]);
    [run, exec]
        .map(|mut command| Ran(command.env("OF_THE_CALLER", "secret").output().unwrap()).success())
}

fn no_variable_and_no_argument_of_the_caller_is_visible_inside() {
    for seen in seen(Subject::Real) {
        assert!(seen.contains("PATH="), "{seen}");
        for word in ["secret", "--bundle", "exec", "/tmp/parhelion"] {
            assert!(!seen.contains(word), "{word} in {seen}");
        }
    }
}

fn variables_of_the_caller_would_be_visible_inside() {
    for seen in seen(Subject::Without("environment")) {
        assert!(seen.contains("OF_THE_CALLER=secret"), "{seen}");
    }
}
