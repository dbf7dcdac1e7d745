//! `linux.resources.unified`: files of the cgroup by name, written after everything else.
//!
//! A file that the kernel does not have is found out only by writing it. What is sure beforehand
//! is checked: the name is that of a file here, its controller is offered, and it is none of the
//! files by which the runtime itself works.

use oci_spec::runtime::LinuxResources;

use super::plan::Draft;

/// The files of the cgroup core that set a limit. The others move, kill and freeze processes or
/// change what kind of cgroup this is.
const CORE_FILES: [&str; 3] = [
    "cgroup.max.depth",
    "cgroup.max.descendants",
    "cgroup.pressure",
];

/// Adds one write for each line of each value, as runc does: io.max and rdma.max take a line a
/// time.
pub(super) fn plan(resources: &LinuxResources, draft: &mut Draft<'_>) {
    let mut files: Vec<_> = resources.unified().iter().flatten().collect();
    files.sort_unstable();
    for (file, value) in files {
        let field = format!("unified[{file:?}]");
        if let Err(problem) = check_name(file).and_then(|()| check_value(value)) {
            draft.refuse(&field, problem);
        } else if value.is_empty() {
            // A write of no bytes would not reach the kernel; an empty line empties a list.
            draft.limit(&field, file, "\n");
        } else {
            for line in value.lines().filter(|line| !line.is_empty()) {
                draft.limit(&field, file, line);
            }
        }
    }
}

fn check_name(file: &str) -> Result<(), &'static str> {
    let is_plain = |c: char| c.is_ascii_graphic() && c != '/';
    match file.split_once('.') {
        _ if !file.chars().all(is_plain) => Err("must be the plain name of a file"),
        Some((controller, rest)) if !controller.is_empty() && !rest.is_empty() => {
            match controller == "cgroup" && !CORE_FILES.contains(&file) {
                true => Err("is not a limit: the runtime itself uses this file"),
                false => Ok(()),
            }
        }
        Some(_) | None => Err("must have the form controller.parameter"),
    }
}

fn check_value(value: &str) -> Result<(), &'static str> {
    match value.chars().any(|c| c.is_control() && c != '\n') {
        true => Err("has a control character in its value"),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::plan::tests::{lines, problems};

    #[test]
    fn every_line_is_a_write_after_the_others() {
        let json = r#"{"unified": {
            "io.max": "259:0 rbps=2097152 wiops=120\n253:0 rbps=2097152\n",
            "memory.high": "1048576", "cgroup.max.descendants": "5", "cpu.weight": "7"},
            "cpu": {"shares": 1024}, "memory": {"limit": 4096}}"#;
        assert_eq!(
            lines(json),
            [
                "write    cpu.weight 100",
                "write    memory.max 4096",
                "write    cgroup.max.descendants 5",
                "write    cpu.weight 7",
                "write    io.max 259:0 rbps=2097152 wiops=120",
                "write    io.max 253:0 rbps=2097152",
                "write    memory.high 1048576",
            ]
        );
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        let wrong = r#"{"unified": {"../cpu.max": "1", "cgroup.procs": "1", "memory": "1", "": "1",
            "a.b\nc": "1", "pids.max": "1\u0000", "cgroup.kill": "1"}}"#;
        assert_eq!(
            problems(wrong),
            [
                "linux.resources.unified[\"\"]: must have the form controller.parameter",
                "linux.resources.unified[\"../cpu.max\"]: must be the plain name of a file",
                "linux.resources.unified[\"a.b\\nc\"]: must be the plain name of a file",
                "linux.resources.unified[\"cgroup.kill\"]: is not a limit: the runtime itself uses this file",
                "linux.resources.unified[\"cgroup.procs\"]: is not a limit: the runtime itself uses this file",
                "linux.resources.unified[\"memory\"]: must have the form controller.parameter",
                "linux.resources.unified[\"pids.max\"]: has a control character in its value",
            ]
        );
    }

    #[test]
    fn an_unknown_controller_is_a_problem() {
        let found = problems(r#"{"unified": {"other.max": "1"}}"#);
        assert!(
            found[0]
                .starts_with("linux.resources.unified[\"other.max\"]: needs the controller other")
        );
    }
}
