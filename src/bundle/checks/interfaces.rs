//! Network interfaces that are moved into the container: config-linux.md, "Network Devices".

use std::collections::HashMap;

use serde_json::Value;

use super::namespaces::shared_with_host;
use crate::bundle::report::{Place, Report, quote};

/// The kernel's longest name of an interface.
const MAX_NAME: usize = 15;

/// All rules on `linux.netDevices`.
pub(super) fn check(config: &Value, report: &mut Report) {
    let Some(devices) = config["linux"]["netDevices"].as_object() else {
        return;
    };
    let linux = Place::key(None, "linux");
    let all = Place::key(Some(&linux), "netDevices");
    if let Some(reason) = shared_with_host(config, "network").filter(|_| !devices.is_empty()) {
        report.problem(all, reason);
    }
    let mut inside = HashMap::new();
    for (host, device) in devices {
        let place = Place::key(Some(&all), host);
        if let Some(reason) = problem(host, Numbers::None) {
            report.problem(
                place,
                format_args!("is no name of an interface: it {reason}"),
            );
        }
        let named = Place::key(Some(&place), "name");
        let name = device["name"].as_str();
        if let Some(reason) = name.and_then(|name| problem(name, Numbers::Template)) {
            report.problem(
                named,
                format_args!("{reason}, is {}", quote(name.unwrap_or(""))),
            );
        }
        let name = name.unwrap_or(host);
        match inside.insert(name, host) {
            Some(other) if !name.contains('%') => {
                let message = format_args!("\"{name}\" is the name of {} too", quote(other));
                report.problem(named, message);
            }
            Some(_) | None => {}
        }
    }
}

/// Whether a name may have `%d` in it, for a number that the kernel would choose.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Numbers {
    None,
    Template,
}

/// Why the kernel would not take a name (`dev_valid_name`).
fn problem(name: &str, numbers: Numbers) -> Option<&'static str> {
    let rest = name.replacen("%d", "", usize::from(numbers == Numbers::Template));
    if name.len() > MAX_NAME {
        return Some("must have at most 15 bytes");
    }
    if name == "." || name == ".." {
        return Some("must not be \".\" or \"..\"");
    }
    if name.contains(|c: char| c == '/' || c == ':' || c.is_ascii_whitespace() || c == '\x0b') {
        return Some("must not have a slash, a colon or a blank");
    }
    match (rest.contains('%'), numbers) {
        (true, Numbers::None) => Some("must not have a \"%\""),
        (true, Numbers::Template) => Some("must not have a \"%\" but in one \"%d\""),
        (false, _) => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::bundle::tests::{base, problems, with};

    #[test]
    fn names_are_those_that_the_kernel_takes() {
        let config = with(
            base(),
            "/linux/netDevices",
            json!({
                "a": {}, "b": { "name": "eth0.1" }, "c": { "name": "eth%d" }, "d": { "name": "eth%d" },
                "sixteen_bytes_xx": {}, "e f": {}, "g%d": {},
                "h": { "name": "a/b" }, "i": { "name": ".." }, "j": { "name": "x%s" },
                "k": { "name": "%d%d" }, "l": { "name": "a" },
            }),
        );
        assert_eq!(
            problems(config),
            "linux.netDevices[\"e f\"]: is no name of an interface: it must not have a slash, a \
             colon or a blank\n\
             linux.netDevices[\"g%d\"]: is no name of an interface: it must not have a \"%\"\n\
             linux.netDevices.h.name: must not have a slash, a colon or a blank, is \"a/b\"\n\
             linux.netDevices.i.name: must not be \".\" or \"..\", is \"..\"\n\
             linux.netDevices.j.name: must not have a \"%\" but in one \"%d\", is \"x%s\"\n\
             linux.netDevices.k.name: must not have a \"%\" but in one \"%d\", is \"%d%d\"\n\
             linux.netDevices.l.name: \"a\" is the name of \"a\" too\n\
             linux.netDevices.sixteen_bytes_xx: is no name of an interface: it must have at most \
             15 bytes"
        );
    }

    #[test]
    fn interfaces_need_a_network_namespace() {
        let mut config = with(base(), "/linux/netDevices", json!({ "eth0": {} }));
        let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|entry| entry["type"] != "network");
        assert_eq!(
            problems(config),
            "linux.netDevices: needs a namespace of type network: add {\"type\": \"network\"} to \
             linux.namespaces"
        );
    }
}
