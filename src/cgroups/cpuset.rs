//! On which processors and memory nodes a container runs: `cpus` and `mems` of
//! `linux.resources.cpu`.

use oci_spec::runtime::LinuxResources;

use super::Controller;
use super::plan::Draft;

/// Row of `CONTROLLERS`.
pub(super) struct Cpuset;

impl Controller for Cpuset {
    fn name(&self) -> &'static str {
        "cpuset"
    }

    fn plan(&self, resources: &LinuxResources, draft: &mut Draft<'_>) {
        let Some(cpu) = resources.cpu() else { return };
        list("cpu.cpus", "cpuset.cpus", cpu.cpus().as_deref(), draft);
        list("cpu.mems", "cpuset.mems", cpu.mems().as_deref(), draft);
    }
}

/// An empty list sets nothing, as in runc.
fn list(field: &str, file: &str, list: Option<&str>, draft: &mut Draft<'_>) {
    match list {
        None | Some("") => {}
        Some(list) if is_list(list) => draft.limit(field, file, list),
        Some(list) => {
            let text = format!("must be numbers and ranges as \"0-3,7\", is {list:?}");
            draft.refuse(field, text);
        }
    }
}

/// The form that the specification gives, without the kernel's extensions (cpuset(7)).
fn is_list(list: &str) -> bool {
    let number = |text: &str| match text.bytes().all(|byte| byte.is_ascii_digit()) {
        true => text.parse::<u16>().ok(),
        false => None,
    };
    list.split(',').all(|part| match part.split_once('-') {
        None => number(part).is_some(),
        Some((first, last)) => number(first).zip(number(last)).is_some_and(|(f, l)| f <= l),
    })
}

#[cfg(test)]
mod tests {
    use super::super::plan::tests::{lines, problems};
    use super::*;

    #[test]
    fn lists_are_written_as_they_are() {
        let json = r#"{"cpu": {"cpus": "0-3,7", "mems": "0"}}"#;
        assert_eq!(
            lines(json),
            ["write    cpuset.cpus 0-3,7", "write    cpuset.mems 0"]
        );
    }

    #[test]
    fn a_list_has_numbers_and_rising_ranges_only() {
        for good in ["0", "0-0", "1,3-5,2", "1023"] {
            assert!(is_list(good), "{good}");
        }
        for bad in [
            "", ",", "1,", "-1", "1-", "3-2", "+1", "a", "0 1", "0\n1", "99999", "0-7:2/4",
        ] {
            assert!(!is_list(bad), "{bad}");
        }
        assert_eq!(
            problems(r#"{"cpu": {"mems": "0,\n1"}}"#),
            [r#"linux.resources.cpu.mems: must be numbers and ranges as "0-3,7", is "0,\n1""#]
        );
    }
}
