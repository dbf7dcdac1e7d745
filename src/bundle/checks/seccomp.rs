//! The filter of system calls: whether there is one at all.
//!
//! What its parts mean to each other is in `seccomp`, which has to know the calls for that.

use serde_json::Value;

use crate::bundle::report::Report;

/// The rules on `linux.seccomp`: without a default action and without a call it asks for nothing, as
/// it does with runc; a call without a default action is half a profile.
pub(super) fn check(config: &Value, report: &mut Report) {
    let seccomp = &config["linux"]["seccomp"];
    let Some(members) = seccomp.as_object() else {
        return;
    };
    let asks = |value: &Value| value.as_array().is_none_or(|list| !list.is_empty());
    if members.contains_key("defaultAction") || !members.values().any(asks) {
        return;
    }
    if members.get("syscalls").is_some_and(asks) {
        report.problem("linux.seccomp.defaultAction", "is required");
    } else {
        let message = "ignored, as it has neither a defaultAction nor syscalls";
        report.warning("linux.seccomp", message);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::bundle::tests::{base, convert, problems, with};

    #[test]
    fn a_profile_without_a_default_is_none_unless_it_names_calls() {
        for nothing in [json!({}), json!({ "syscalls": [], "flags": [] })] {
            let (spec, warnings) = convert(with(base(), "/linux/seccomp", nothing)).unwrap();
            assert_eq!(warnings, [""; 0]);
            assert_eq!(spec.linux().as_ref().unwrap().seccomp(), &None);
        }
        let config = with(base(), "/linux/seccomp", json!({ "defaultErrnoRet": 1 }));
        assert_eq!(
            convert(config).unwrap().1.join("\n"),
            "linux.seccomp: ignored, as it has neither a defaultAction nor syscalls"
        );
        let call = json!({ "names": ["read"], "action": "SCMP_ACT_ALLOW" });
        let config = with(base(), "/linux/seccomp", json!({ "syscalls": [call] }));
        assert_eq!(problems(config), "linux.seccomp.defaultAction: is required");
    }
}
