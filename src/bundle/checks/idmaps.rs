//! Maps of user and group ids: those of a new user namespace, and those of mounts.
//! config-linux.md, "User namespace mappings"; config.md, "POSIX-platform Mounts";
//! user_namespaces(7) for the kernel's rules.

use serde_json::Value;

use super::items;
use super::namespaces::{Namespace, namespace};
use crate::bundle::report::Report;

/// Ranges that the kernel takes in one map (`UID_GID_MAP_MAX_EXTENTS`).
const MAX_RANGES: usize = 340;
/// The kernel takes a map in one write of less than a page (user_namespaces(7)), and no page is
/// smaller than this.
const MAX_BYTES: usize = 4096;

const LISTS: [&str; 2] = ["uidMappings", "gidMappings"];

/// All rules on maps.
pub(super) fn check(config: &Value, report: &mut Report) {
    let linux = &config["linux"];
    for name in LISTS {
        ranges(&linux[name], &format!("linux.{name}"), report);
    }
    match namespace(config, "user") {
        Namespace::New => {
            new_user_namespace(linux, report);
            for (i, mount) in items(&config["mounts"]) {
                ids_of_options(linux, i, mount, report);
                owned_file_system(config, i, mount, report);
            }
        }
        Namespace::Host => unused(linux, report),
        Namespace::Joined { .. } => joined(linux, report),
        Namespace::Unclear => {}
    }
    for (i, mount) in items(&config["mounts"]) {
        for name in LISTS {
            ranges(&mount[name], &format!("mounts[{i}].{name}"), report);
        }
    }
}

/// True when the list covers the id, None when the list has a problem of its own.
pub(super) fn is_mapped(list: &Value, id: u64) -> Option<bool> {
    let mut unclear = list.is_null();
    for (_, entry) in items(list) {
        match range(entry) {
            Some(range) if range.container <= id && id < range.container + range.size => {
                return Some(true);
            }
            Some(_) => {}
            None => unclear = true,
        }
    }
    (!unclear).then_some(false)
}

/// Without a map the namespace has no ids at all, and without 0 no root to set it up with.
fn new_user_namespace(linux: &Value, report: &mut Report) {
    for name in LISTS {
        let list = &linux[name];
        let absent = linux.get(name).is_none();
        if absent || list.as_array().is_some_and(Vec::is_empty) {
            let reason = "is required, as linux.namespaces asks for a new user namespace";
            report.problem(format_args!("linux.{name}"), reason);
        } else if is_mapped(list, 0) == Some(false) {
            let reason = "must map the id 0 of the container";
            report.problem(format_args!("linux.{name}"), reason);
        }
    }
}

/// File systems whose options name ids, which the kernel takes only if the namespace has them.
const WITH_IDS: [&str; 2] = ["devpts", "tmpfs"];

fn ids_of_options(linux: &Value, i: usize, mount: &Value, report: &mut Report) {
    if !mount["type"]
        .as_str()
        .is_some_and(|t| WITH_IDS.contains(&t))
    {
        return;
    }
    for (j, option) in items(&mount["options"]) {
        for (key, name) in ["uid=", "gid="].into_iter().zip(LISTS) {
            let text = option.as_str().unwrap_or_default();
            let id = text.strip_prefix(key).and_then(|id| id.parse().ok());
            if id.and_then(|id| is_mapped(&linux[name], id)) == Some(false) {
                let reason = "is an id that linux.";
                let message = format_args!("{text:?} {reason}{name} does not map: leave it out");
                report.problem(format_args!("mounts[{i}].options[{j}]"), message);
            }
        }
    }
}

/// File systems that show a namespace, which has to belong to the user namespace: one beside that.
const SHOWING: [(&str, &str); 3] = [("proc", "pid"), ("mqueue", "ipc"), ("sysfs", "network")];

fn owned_file_system(config: &Value, i: usize, mount: &Value, report: &mut Report) {
    let Some(fstype) = mount["type"].as_str() else {
        return;
    };
    let elsewhere = |word: &Value| {
        ["bind", "rbind", "remount"]
            .map(Some)
            .contains(&word.as_str())
    };
    let shown = SHOWING.iter().find(|(known, _)| *known == fstype);
    let Some((_, kind)) = shown.filter(|_| !items(&mount["options"]).any(|(_, w)| elsewhere(w)))
    else {
        return;
    };
    if matches!(namespace(config, kind), Namespace::Host) {
        let place = if *kind == "network" { "/sys" } else { "/proc" };
        let advice = match *kind {
            "ipc" => String::new(),
            _ => format!(
                ", or bind the host's instead: {{\"type\": \"bind\", \"source\": \"{place}\", \
                 \"options\": [\"rbind\"]}}"
            ),
        };
        let article = if *kind == "ipc" { "an" } else { "a" };
        let message = format_args!(
            "\"{fstype}\" can be mounted in a user namespace only beside {article} {kind} namespace of its \
             own: add {{\"type\": \"{kind}\"}} to linux.namespaces{advice}"
        );
        report.problem(format_args!("mounts[{i}].type"), message);
    }
}

fn unused(linux: &Value, report: &mut Report) {
    for name in LISTS {
        if linux[name].as_array().is_some_and(|list| !list.is_empty()) {
            let reason = "needs a user namespace: add {\"type\": \"user\"} to linux.namespaces";
            report.problem(format_args!("linux.{name}"), reason);
        }
    }
}

/// containerd and CRI-O give the path of the pod's namespace together with its map, as runc once
/// asked for both. The map of the namespace is what holds; it cannot be set again.
fn joined(linux: &Value, report: &mut Report) {
    for name in LISTS {
        if linux[name].as_array().is_some_and(|list| !list.is_empty()) {
            let reason = "not applied: a joined user namespace has its map already";
            report.warning(format_args!("linux.{name}"), reason);
        }
    }
}

/// One range of a map, and where it is in its list.
#[derive(Debug, Clone, Copy)]
struct Range {
    container: u64,
    host: u64,
    size: u64,
}

fn range(entry: &Value) -> Option<Range> {
    Some(Range {
        container: entry["containerID"].as_u64()?,
        host: entry["hostID"].as_u64()?,
        size: entry["size"].as_u64()?,
    })
}

fn ranges(list: &Value, path: &str, report: &mut Report) {
    let count = list.as_array().map_or(0, Vec::len);
    if count > MAX_RANGES {
        report.problem(
            path,
            format_args!("must have at most {MAX_RANGES} ranges, has {count}"),
        );
        return;
    }
    let bytes: usize = items(list)
        .filter_map(|(_, entry)| range(entry))
        .map(|r| format!("{} {} {}\n", r.container, r.host, r.size).len())
        .sum();
    if bytes >= MAX_BYTES {
        let message = format_args!(
            "must have less than {MAX_BYTES} bytes as lines of the kernel's map, has {bytes}"
        );
        report.problem(path, message);
    }
    let mut inside = Vec::new();
    let mut outside = Vec::new();
    for (i, entry) in items(list) {
        let Some(range) = range(entry) else { continue };
        for (side, first) in [("containerID", range.container), ("hostID", range.host)] {
            // Ids end before 4294967295, which means "none".
            if first + range.size > u64::from(u32::MAX) {
                let message = format_args!(
                    "goes beyond the last id, 4294967294: {side} {first}, size {}",
                    range.size
                );
                report.problem(format_args!("{path}[{i}]"), message);
            }
        }
        inside.push((range.container, range.size, i));
        outside.push((range.host, range.size, i));
    }
    overlaps(inside, path, "containerID", report);
    overlaps(outside, path, "hostID", report);
}

/// The kernel refuses a map in which an id appears twice on a side.
fn overlaps(mut ranges: Vec<(u64, u64, usize)>, path: &str, side: &str, report: &mut Report) {
    ranges.sort_unstable();
    for pair in ranges.windows(2) {
        let [(first, size, earlier), (next, _, later)] = [pair[0], pair[1]];
        if next < first + size {
            let (earlier, later) = (earlier.min(later), earlier.max(later));
            let message = format_args!("overlaps {path}[{earlier}] by {side}");
            report.problem(format_args!("{path}[{later}]"), message);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::bundle::tests::{base, one_range, problems, warnings, with};

    /// The default config in a new user namespace.
    fn with_user_namespace(uids: Value, gids: Value) -> Value {
        let mut config = with(base(), "/linux/uidMappings", uids);
        config = with(config, "/linux/gidMappings", gids);
        config["linux"]["namespaces"]
            .as_array_mut()
            .unwrap()
            .push(json!({ "type": "user" }));
        config
    }

    #[test]
    fn a_new_user_namespace_needs_sound_maps() {
        let sound = || json!([one_range(0, 1000, 1), one_range(1, 100_000, 65536)]);
        assert_eq!(problems(with_user_namespace(sound(), sound())), "");
        assert_eq!(
            problems(with_user_namespace(json!([]), json!([one_range(1, 0, 10)]))),
            "process.user.uid: 0 is not mapped by linux.uidMappings\n\
         process.user.gid: 0 is not mapped by linux.gidMappings\n\
         linux.uidMappings: is required, as linux.namespaces asks for a new user namespace\n\
         linux.gidMappings: must map the id 0 of the container"
        );
        let uids = json!([
            one_range(0, 100, 10),
            one_range(10, 109, 10),
            one_range(5, 4_294_967_290, 5),
            one_range(4_294_967_294, 4_294_967_290, 2),
            one_range(20, 30, 0),
        ]);
        let mut config = with_user_namespace(uids, sound());
        config = with(
            config,
            "/process/user/additionalGids",
            json!([65536, 65537]),
        );
        assert_eq!(
            problems(config),
            "linux.uidMappings[4].size: must be a whole number from 1 to 4294967295, is 0\n\
         process.user.additionalGids[1]: 65537 is not mapped by linux.gidMappings\n\
         linux.uidMappings[3]: goes beyond the last id, 4294967294: containerID 4294967294, \
         size 2\n\
         linux.uidMappings[2]: overlaps linux.uidMappings[0] by containerID\n\
         linux.uidMappings[1]: overlaps linux.uidMappings[0] by hostID\n\
         linux.uidMappings[3]: overlaps linux.uidMappings[2] by hostID"
        );
        let many = Value::Array((0..341).map(|i| one_range(i, i, 1)).collect());
        assert_eq!(
            problems(with_user_namespace(many, sound())),
            "linux.uidMappings: must have at most 340 ranges, has 341"
        );
    }

    #[test]
    fn maps_of_a_joined_user_namespace_are_taken_with_a_warning() {
        let list = json!([one_range(0, 1000, 1)]);
        let mut config = with_user_namespace(list, json!([]));
        let last = config["linux"]["namespaces"].as_array().unwrap().len() - 1;
        let pointer = format!("/linux/namespaces/{last}/path");
        config = with(config, &pointer, json!("/proc/self/ns/user"));
        assert_eq!(
            warnings(config),
            "linux.uidMappings: not applied: a joined user namespace has its map already"
        );
    }
}
