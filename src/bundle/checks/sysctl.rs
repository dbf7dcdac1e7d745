//! Kernel parameters: only those of a namespace that the container has for itself.
//! config-linux.md, "Sysctl".
//!
//! A parameter that is not listed here belongs to the host, or would change the host. The list
//! is what runc takes too; a name can be written with dots or with slashes, as by sysctl(8).

use std::collections::HashMap;

use serde_json::Value;

use super::namespaces::shared_with_host;
use crate::bundle::report::{Place, Report, quote};

/// Parameters of the ipc namespace under `kernel.`.
const IPC: [&str; 8] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shm_rmid_forced",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
];

/// The types of namespaces that have parameters.
const KINDS: [&str; 4] = ["ipc", "network", "user", "uts"];

/// All rules on `linux.sysctl`.
pub(super) fn check(config: &Value, report: &mut Report) {
    let Some(settings) = config["linux"]["sysctl"].as_object() else {
        return;
    };
    if settings.is_empty() {
        return;
    }
    let shared = KINDS.map(|kind| (kind, shared_with_host(config, kind)));
    let linux = Place::key(None, "linux");
    let above = Place::key(Some(&linux), "sysctl");
    let mut seen: HashMap<String, &str> = HashMap::new();
    for (key, value) in settings {
        let place = Place::key(Some(&above), key);
        // A line break could carry a second setting past whoever joins or logs them.
        if let Some(text) = value.as_str().filter(|text| text.contains('\n')) {
            report.problem(
                place,
                format_args!("must not have a line break, is {}", quote(text)),
            );
        }
        let Some(name) = dotted(key) else {
            // The walk has reported an empty name.
            if !key.is_empty() {
                report.problem(
                    place,
                    "must be the name of a parameter, as net.core.somaxconn",
                );
            }
            continue;
        };
        match owner(&name) {
            Err(reason) => report.problem(place, reason),
            Ok(kind) => {
                let found = shared.iter().find(|(name, _)| *name == kind);
                if let Some((_, Some(reason))) = found {
                    report.problem(place, reason);
                }
            }
        }
        if let Some(first) = seen.insert(name, key) {
            report.problem(
                place,
                format_args!("is the same parameter as {}", quote(first)),
            );
        }
    }
}

/// The type of namespace that has this parameter, or why it cannot be set.
fn owner(name: &str) -> Result<&'static str, &'static str> {
    if IPC.contains(&name) || name.starts_with("fs.mqueue.") {
        Ok("ipc")
    } else if name.starts_with("net.") {
        Ok("network")
    } else if name.starts_with("user.") {
        Ok("user")
    } else if name == "kernel.domainname" {
        Ok("uts")
    } else if name == "kernel.hostname" {
        Err("cannot be set here: use the field hostname")
    } else {
        Err("belongs to no namespace: it would change the host")
    }
}

/// The name in its form with dots, in which a slash stands for a dot inside a part: both
/// `net/ipv4/conf/eno2.100/rp_filter` and `net.ipv4.conf.eno2/100.rp_filter` are taken.
fn dotted(key: &str) -> Option<String> {
    let first = key.find(['.', '/'])?;
    let with_dots = key.as_bytes()[first] == b'.';
    let swap = |letter: char| match letter {
        '.' => '/',
        '/' => '.',
        other => other,
    };
    let name: String = if with_dots {
        key.to_owned()
    } else {
        key.chars().map(swap).collect()
    };
    let is_part = |part: &str| {
        // "/" and "//" are the file names "." and "..".
        !matches!(part, "" | "/" | "//") && part.bytes().all(|byte| byte.is_ascii_graphic())
    };
    name.split('.').all(is_part).then_some(name)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::bundle::tests::{base, problems, with};

    #[test]
    fn a_parameter_has_one_name_with_dots() {
        for (key, name) in [
            ("net.core.somaxconn", Some("net.core.somaxconn")),
            ("net/core/somaxconn", Some("net.core.somaxconn")),
            (
                "net/ipv4/conf/eno2.100/rp_filter",
                Some("net.ipv4.conf.eno2/100.rp_filter"),
            ),
            (
                "net.ipv4.conf.eno2/100.rp_filter",
                Some("net.ipv4.conf.eno2/100.rp_filter"),
            ),
        ] {
            assert_eq!(dotted(key).as_deref(), name);
        }
    }

    #[test]
    fn a_name_cannot_lead_out_of_its_directory() {
        for key in [
            "net/../kernel/core_pattern",
            "net.//.kernel.core_pattern",
            "net./.core",
            "net/./core",
            "net//core",
            "net..core",
            "/net/core",
            ".net.core",
            "net.",
            "net/core/",
            "net.core\n.x",
            "net. .x",
            "hostname",
            "",
        ] {
            assert_eq!(dotted(key), None, "{key:?}");
        }
    }

    #[test]
    fn only_parameters_of_the_containers_namespaces_can_be_set() {
        let settings = json!({
            "kernel.shmmax": "1", "fs.mqueue.msg_max": "1", "net/ipv4/ip_forward": "1",
            "net.ipv4.ip_forward": "0", "kernel.domainname": "d", "kernel.hostname": "h",
            "kernel.core_pattern": "|/x", "user.max_user_namespaces": "1", "vm/../net/x": "1",
            "net.core.somaxconn": "1\nkernel.core_pattern=|/x",
        });
        assert_eq!(
            problems(with(base(), "/linux/sysctl", settings)),
            "linux.sysctl[\"kernel.core_pattern\"]: belongs to no namespace: it would change the \
         host\n\
         linux.sysctl[\"kernel.hostname\"]: cannot be set here: use the field hostname\n\
         linux.sysctl[\"net.core.somaxconn\"]: must not have a line break, is \
         \"1\\nkernel.core_pattern=|/x\"\n\
         linux.sysctl[\"net/ipv4/ip_forward\"]: is the same parameter as \
         \"net.ipv4.ip_forward\"\n\
         linux.sysctl[\"user.max_user_namespaces\"]: needs a namespace of type user: add \
         {\"type\": \"user\"} to linux.namespaces\n\
         linux.sysctl[\"vm/../net/x\"]: must be the name of a parameter, as net.core.somaxconn"
        );
    }
}
