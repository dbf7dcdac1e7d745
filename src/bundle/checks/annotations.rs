//! Annotations that change what the runtime does: crun's `run.oci.*`, as Podman passes them on.
//!
//! One row each. What is not honoured is refused where a container without it would be another one
//! than was asked for, and else told. docs/annotations.md says the same to people.

use serde_json::Value;

use super::items;
use crate::bundle::report::{Place, Report, quote};

/// What all of them begin with.
pub const ANNOTATIONS_OF_CRUN: &str = "run.oci.";

/// What becomes of an annotation.
enum Fate {
    /// It has its effect.
    Honoured,
    /// Refused, with what to do instead.
    Refused(&'static str),
}

use Fate::{Honoured, Refused};

/// crun's annotations, in alphabetical order.
const KNOWN: &[(&str, Fate)] = &[
    ("run.oci.delegate-cgroup", Honoured),
    (
        "run.oci.handler",
        Refused("not supported: this runtime executes programs of this machine only"),
    ),
    ("run.oci.hooks.stderr", Honoured),
    ("run.oci.hooks.stdout", Honoured),
    ("run.oci.keep_original_groups", Honoured),
    ("run.oci.mount_context_type", Honoured),
    ("run.oci.pidfd_receiver", Honoured),
    (
        "run.oci.seccomp.plugins",
        Refused("not supported: name a listener by linux.seccomp.listenerPath"),
    ),
    ("run.oci.seccomp.receiver", Honoured),
    ("run.oci.seccomp_bpf_data", Honoured),
    ("run.oci.seccomp_fail_unknown_syscall", Honoured),
    (
        "run.oci.systemd.force_cgroup_v1",
        Refused("not supported: there is only cgroup v2"),
    ),
    ("run.oci.systemd.subgroup", Honoured),
];

/// Those that name a path.
const PATHS: [&str; 4] = [
    "run.oci.hooks.stderr",
    "run.oci.hooks.stdout",
    "run.oci.pidfd_receiver",
    "run.oci.seccomp.receiver",
];

/// All rules on `annotations`.
pub(super) fn check(config: &Value, report: &mut Report) {
    let Some(annotations) = config["annotations"].as_object() else {
        return;
    };
    let all = Place::key(None, "annotations");
    for (name, value) in annotations {
        if !name.starts_with(ANNOTATIONS_OF_CRUN) {
            continue;
        }
        let place = Place::key(Some(&all), name);
        match KNOWN.iter().find(|(known, _)| known == name) {
            Some((_, Honoured)) => {}
            // Empty asks for nothing.
            Some(_) if value.as_str() == Some("") => {}
            Some((_, Refused(reason))) => report.problem(place, reason),
            None => report.warning(place, "unknown annotation, ignored"),
        }
    }
    for name in PATHS {
        path(name, annotations.get(name), &all, report);
    }
    groups(config, report);
}

fn path(name: &str, value: Option<&Value>, all: &Place<'_>, report: &mut Report) {
    let Some(path) = value.and_then(Value::as_str) else {
        return;
    };
    if !path.starts_with('/') || path.contains('\0') {
        let message = format_args!("must be an absolute path, is {}", quote(path));
        report.problem(Place::key(Some(all), name), message);
    }
}

/// Whoever keeps the caller's groups gets no others.
fn groups(config: &Value, report: &mut Report) {
    let kept = &config["annotations"]["run.oci.keep_original_groups"];
    let kept = kept.as_str().is_some_and(|value| value != "0");
    if kept && items(&config["process"]["user"]["additionalGids"]).count() > 0 {
        let message = "not set: run.oci.keep_original_groups keeps those of the caller";
        report.warning("process.user.additionalGids", message);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::bundle::tests::{base, problems, warnings, with};

    #[test]
    fn the_table_is_sorted() {
        assert!(KNOWN.is_sorted_by_key(|(name, _)| *name));
    }

    #[test]
    fn what_would_make_another_container_is_refused() {
        let asked = json!({"run.oci.handler": "krun",
            "run.oci.seccomp.plugins": "", "org.example.handler": "wasm",
            "run.oci.pidfd_receiver": "x"});
        assert_eq!(
            problems(with(base(), "/annotations", asked)),
            "annotations[\"run.oci.handler\"]: not supported: this runtime executes programs of \
             this machine only\n\
             annotations[\"run.oci.pidfd_receiver\"]: must be an absolute path, is \"x\""
        );
    }

    #[test]
    fn what_makes_no_difference_is_told() {
        let asked = json!({"run.oci.new": "1", "run.oci.keep_original_groups": "1"});
        let config = with(base(), "/annotations", asked);
        assert_eq!(
            warnings(with(config, "/process/user/additionalGids", json!([5]))),
            "annotations[\"run.oci.new\"]: unknown annotation, ignored\n\
             process.user.additionalGids: not set: run.oci.keep_original_groups keeps those of the \
             caller"
        );
    }
}
