//! Namespaces: which are new, which are joined, and what may only be set in one of its own.
//! config-linux.md, "Namespaces", "Offset for Time Namespace"; config.md, "Hostname".

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde_json::Value;

use super::items;
use crate::bundle::read::os_error;
use crate::bundle::report::Report;

/// The kernel's longest host and domain name, `__NEW_UTS_LEN`.
const MAX_NAME: usize = 64;

/// What the configuration says about one type of namespace.
#[derive(Debug, Clone, Copy)]
pub(super) enum Namespace<'a> {
    /// Not listed: the runtime's own, that is the host's.
    Host,
    /// Listed without a path.
    New,
    /// Listed with a path.
    Joined {
        /// Where in `linux.namespaces`.
        index: usize,
        /// The namespace's file.
        path: &'a str,
    },
    /// The list has a problem of its own, so that nothing can be said.
    Unclear,
}

/// What the configuration says about the type `kind`, in the specification's words.
pub(super) fn namespace<'a>(config: &'a Value, kind: &str) -> Namespace<'a> {
    let null_linux = config.get("linux").is_some_and(Value::is_null);
    let list = &config["linux"]["namespaces"];
    if null_linux
        || config["linux"]
            .get("namespaces")
            .is_some_and(Value::is_null)
    {
        return Namespace::Unclear;
    }
    let mut unclear = false;
    for (index, entry) in items(list) {
        unclear |= entry["type"].is_null();
        if entry["type"] != kind {
            continue;
        }
        return match (entry.get("path"), entry["path"].as_str()) {
            (None, _) => Namespace::New,
            (Some(_), Some(path)) => Namespace::Joined { index, path },
            (Some(_), None) => Namespace::Unclear,
        };
    }
    if unclear {
        Namespace::Unclear
    } else {
        Namespace::Host
    }
}

/// Why the container has no namespace `kind` of its own; None when it has, or when it is unclear.
///
/// A joined namespace is the container's own unless it is the very one of the runtime.
pub(super) fn shared_with_host(config: &Value, kind: &str) -> Option<String> {
    match namespace(config, kind) {
        Namespace::New | Namespace::Unclear => None,
        Namespace::Host => Some(format!(
            "needs a namespace of type {kind}: add {{\"type\": \"{kind}\"}} to linux.namespaces"
        )),
        Namespace::Joined { index, path } if is_own(path, kind) => Some(format!(
            "needs a namespace of type {kind} other than the host's, \
             which linux.namespaces[{index}].path is"
        )),
        Namespace::Joined { .. } => None,
    }
}

/// True when the file is the namespace in which the runtime itself runs.
fn is_own(path: &str, kind: &str) -> bool {
    let file = match kind {
        "mount" => "mnt",
        "network" => "net",
        other => other,
    };
    let identity = |path: &str| {
        std::fs::metadata(path)
            .ok()
            .map(|info| (info.dev(), info.ino()))
    };
    let own = identity(&format!("/proc/self/ns/{file}"));
    own.is_some() && own == identity(path)
}

/// `hostname` and `domainname`.
pub(super) fn names(config: &Value, report: &mut Report) {
    for field in ["hostname", "domainname"] {
        let Some(name) = config[field].as_str() else {
            continue;
        };
        if name.len() > MAX_NAME {
            let message = format_args!("must have at most {MAX_NAME} bytes, has {}", name.len());
            report.problem(field, message);
        }
        if let Some(reason) = shared_with_host(config, "uts") {
            report.problem(field, reason);
        }
    }
}

/// `linux.namespaces` and `linux.timeOffsets`.
pub(super) fn check(config: &Value, report: &mut Report) {
    let mut seen = HashMap::new();
    for (i, entry) in items(&config["linux"]["namespaces"]) {
        if let Some(path) = entry["path"].as_str()
            && let Err(error) = std::fs::metadata(path)
        {
            let place = format_args!("linux.namespaces[{i}].path");
            report.problem(place, os_error("stat", Path::new(path), error));
        }
        let Some(kind) = entry["type"].as_str() else {
            continue;
        };
        if let Some(first) = seen.insert(kind, i) {
            let message = format_args!("{kind} is in linux.namespaces[{first}] already");
            report.problem(format_args!("linux.namespaces[{i}].type"), message);
        }
    }
    time_offsets(config, report);
}

fn time_offsets(config: &Value, report: &mut Report) {
    let offsets = config["linux"]["timeOffsets"].as_object();
    if offsets.is_none_or(|offsets| offsets.is_empty()) {
        return;
    }
    // The kernel takes offsets only until a first process is in the namespace.
    match namespace(config, "time") {
        Namespace::New | Namespace::Unclear => {}
        Namespace::Host => report.problem(
            "linux.timeOffsets",
            "needs a namespace of type time: add {\"type\": \"time\"} to linux.namespaces",
        ),
        Namespace::Joined { index, .. } => report.problem(
            "linux.timeOffsets",
            format_args!(
                "cannot change the clocks of a joined namespace: \
                 remove them, or linux.namespaces[{index}].path"
            ),
        ),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::bundle::tests::{base, one_range, problems, with};

    #[test]
    fn namespaces_are_checked() {
        let mut config = with(base(), "/linux/namespaces/0", json!({ "type": "ipc" }));
        config = with(config, "/linux/namespaces/1/path", json!("/nonexistent/ns"));
        config = with(config, "/linux/namespaces/3/path", json!("run/uts"));
        config = with(config, "/linux/uidMappings", json!([one_range(0, 0, 1)]));
        config = with(
            config,
            "/linux/timeOffsets",
            json!({ "monotonic": { "secs": 1 } }),
        );
        assert_eq!(
            problems(config),
            "linux.namespaces[3].path: must be an absolute path, is \"run/uts\"\n\
         linux.namespaces[1].path: stat(\"/nonexistent/ns\"): no such file or directory\n\
         linux.namespaces[2].type: ipc is in linux.namespaces[0] already\n\
         linux.timeOffsets: needs a namespace of type time: add {\"type\": \"time\"} to \
         linux.namespaces\n\
         linux.uidMappings: needs a user namespace: add {\"type\": \"user\"} to linux.namespaces"
        );
    }

    #[test]
    fn what_changes_the_host_is_refused_without_a_namespace() {
        let mut config = with(base(), "/linux/namespaces", json!([{ "type": "pid" }]));
        config = with(config, "/domainname", json!("d".repeat(65)));
        config = with(config, "/linux/rootfsPropagation", json!("rslave"));
        config = with(
            config,
            "/linux/sysctl",
            json!({ "net.core.somaxconn": "1" }),
        );
        let needs = |kind: &str| {
            format!(
                "needs a namespace of type {kind}: add {{\"type\": \"{kind}\"}} to linux.namespaces"
            )
        };
        let (mount, uts, network) = (needs("mount"), needs("uts"), needs("network"));
        assert_eq!(
            problems(config),
            format!(
                "mounts: {mount}\nroot.readonly: {mount}\nlinux.maskedPaths: {mount}\n\
             linux.readonlyPaths: {mount}\nlinux.rootfsPropagation: {mount}\nhostname: {uts}\n\
             domainname: must have at most 64 bytes, has 65\ndomainname: {uts}\n\
             linux.sysctl[\"net.core.somaxconn\"]: {network}"
            )
        );
    }

    #[test]
    fn a_joined_namespace_that_is_the_hosts_does_not_count_as_the_containers_own() {
        let mut config = with(
            base(),
            "/linux/namespaces/1/path",
            json!("/proc/self/ns/net"),
        );
        config = with(
            config,
            "/linux/namespaces/3/path",
            json!("/proc/self/ns/uts"),
        );
        config = with(
            config,
            "/linux/sysctl",
            json!({ "net.core.somaxconn": "1" }),
        );
        assert_eq!(
            problems(config),
            "hostname: needs a namespace of type uts other than the host's, which \
         linux.namespaces[3].path is\n\
         linux.sysctl[\"net.core.somaxconn\"]: needs a namespace of type network other than the \
         host's, which linux.namespaces[1].path is"
        );
        // Any other file is taken; that it is a namespace of this type is seen when it is joined.
        let config = with(
            base(),
            "/linux/namespaces/3/path",
            json!("/proc/self/ns/net"),
        );
        assert_eq!(problems(config), "");
    }

    #[test]
    fn a_broken_list_of_namespaces_causes_no_further_problems() {
        let expected = "linux.namespaces: must be an array, is \"pid\"";
        assert_eq!(
            problems(with(base(), "/linux/namespaces", json!("pid"))),
            expected
        );
        assert_eq!(
            problems(with(base(), "/linux", json!(7))),
            "linux: must be an object, is 7"
        );
    }

    #[test]
    fn clocks_are_moved_only_in_a_new_time_namespace() {
        let mut config = with(base(), "/linux/namespaces/0", json!({ "type": "time" }));
        config = with(
            config,
            "/linux/timeOffsets",
            json!({ "boottime": { "nanosecs": 1 } }),
        );
        assert_eq!(problems(config.clone()), "");
        config = with(
            config,
            "/linux/namespaces/0/path",
            json!("/proc/self/ns/time"),
        );
        config = with(
            config,
            "/linux/timeOffsets",
            json!({ "boottime": { "nanosecs": 1_000_000_000 }, "realtime": { "secs": 1 } }),
        );
        assert_eq!(
            problems(config),
            "linux.timeOffsets.boottime.nanosecs: must be a whole number from 0 to 999999999, \
         is 1000000000\n\
         linux.timeOffsets.realtime: unknown name: use boottime or monotonic\n\
         linux.timeOffsets: cannot change the clocks of a joined namespace: remove them, or \
         linux.namespaces[0].path"
        );
    }
}
