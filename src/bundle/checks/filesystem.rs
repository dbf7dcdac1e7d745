//! Mounts, devices, and what needs mounts of the container's own.
//! config.md, "Mounts"; config-linux.md, "Devices", "Rootfs Mount Propagation", "Masked Paths".
//!
//! What an option means, and which go together, is for the plan of the root file system.

use std::collections::HashMap;

use serde_json::Value;

use super::items;
use super::namespaces::{Namespace, namespace, shared_with_host};
use crate::bundle::report::Report;

/// Bits of a device number in the kernel (`MINORBITS`).
const MAX_MAJOR: i64 = (1 << 12) - 1;
const MAX_MINOR: i64 = (1 << 20) - 1;

/// The type of a file in its mode, and the bits that can be chosen.
const TYPE_BITS: u64 = 0o170_000;
const MODE_BITS: u64 = 0o7777;

/// `mounts`, and what else needs mounts of the container's own.
pub(super) fn mounts(config: &Value, report: &mut Report) {
    for (i, mount) in items(&config["mounts"]) {
        if let Some(path) = mount["destination"].as_str()
            && !path.starts_with('/')
        {
            let reason = "is relative, which is deprecated: taken as relative to /";
            report.warning(format_args!("mounts[{i}].destination"), reason);
        }
        let has_option = |wanted: &[&str]| {
            let mut options = items(&mount["options"]).filter_map(|(_, option)| option.as_str());
            options.any(|option| wanted.contains(&option))
        };
        let bind = has_option(&["bind", "rbind"]);
        if bind && !has_option(&["remount"]) && mount.get("source").is_none() {
            let reason = "is required for a bind mount";
            report.problem(format_args!("mounts[{i}].source"), reason);
        }
        id_maps(
            config,
            mount,
            i,
            bind,
            has_option(&["idmap", "ridmap"]),
            report,
        );
    }
    let Some(reason) = shared_with_host(config, "mount") else {
        return;
    };
    let is_filled = |value: &Value| value.as_array().is_some_and(|list| !list.is_empty());
    if is_filled(&config["mounts"]) {
        report.problem("mounts", &reason);
    }
    if config["root"]["readonly"] == Value::Bool(true) {
        report.problem("root.readonly", &reason);
    }
    for name in ["maskedPaths", "readonlyPaths"] {
        if is_filled(&config["linux"][name]) {
            report.problem(format_args!("linux.{name}"), &reason);
        }
    }
    if config["linux"]["rootfsPropagation"].is_string() {
        report.problem("linux.rootfsPropagation", &reason);
    }
}

/// Rules on mapped mounts; config.md: both maps or none, and `idmap` needs some map.
fn id_maps(config: &Value, mount: &Value, i: usize, bind: bool, option: bool, report: &mut Report) {
    let absent = |name: &str| match mount.get(name) {
        None => true,
        Some(list) => list.as_array().is_some_and(Vec::is_empty),
    };
    let without = (absent("uidMappings"), absent("gidMappings"));
    match without {
        (true, false) => {
            report.problem(
                format_args!("mounts[{i}].uidMappings"),
                "is required with gidMappings",
            );
        }
        (false, true) => {
            report.problem(
                format_args!("mounts[{i}].gidMappings"),
                "is required with uidMappings",
            );
        }
        (true, true) if option && matches!(namespace(config, "user"), Namespace::Host) => {
            let reason = "idmap needs uidMappings and gidMappings, or a user namespace";
            report.problem(format_args!("mounts[{i}].options"), reason);
        }
        (true, true) | (false, false) => {}
    }
    // The kernel could map some other mounts too, but only bind mounts are defined to be.
    if (option || without != (true, true)) && !bind {
        let reason = "mapped ids need a bind mount: add bind or rbind";
        report.problem(format_args!("mounts[{i}].options"), reason);
    }
}

/// `linux.devices`.
pub(super) fn devices(config: &Value, report: &mut Report) {
    let mut seen: HashMap<&str, (usize, &Value)> = HashMap::new();
    for (i, device) in items(&config["linux"]["devices"]) {
        let Some(kind) = device["type"].as_str() else {
            continue;
        };
        if kind != "p" {
            number(device, "major", MAX_MAJOR, i, report);
            number(device, "minor", MAX_MINOR, i, report);
        }
        file_mode(device, kind, i, report);
        let Some(path) = device["path"].as_str() else {
            continue;
        };
        let Some((first, other)) = seen.insert(path, (i, device)) else {
            continue;
        };
        let place = format!("linux.devices[{i}].path");
        if ["type", "major", "minor"]
            .iter()
            .all(|name| device[*name] == other[*name])
        {
            report.warning(place, format_args!("is in linux.devices[{first}] already"));
        } else {
            let message = format_args!("is another device in linux.devices[{first}]");
            report.problem(place, message);
        }
    }
}

fn number(device: &Value, name: &str, max: i64, i: usize, report: &mut Report) {
    let place = format_args!("linux.devices[{i}].{name}").to_string();
    match (device.get(name), device[name].as_i64()) {
        (None, _) => report.problem(place, "is required, as type is not p"),
        (Some(_), Some(number)) if !(0..=max).contains(&number) => {
            report.problem(place, format_args!("must be from 0 to {max}, is {number}"));
        }
        (Some(_), _) => {}
    }
}

/// Some tools (CDI generators) give the mode as stat(2) does, with the file's type in it: taken
/// when it says the same as `type`.
fn file_mode(device: &Value, kind: &str, i: usize, report: &mut Report) {
    let Some(mode) = device["fileMode"].as_u64() else {
        return;
    };
    let expected = match kind {
        "b" => 0o060_000,
        "p" => 0o010_000,
        _ => 0o020_000,
    };
    let file_type = mode & TYPE_BITS;
    if mode & !(TYPE_BITS | MODE_BITS) != 0 || (file_type != 0 && file_type != expected) {
        let message = format_args!("must be at most 4095 (0o7777), is {mode} (0o{mode:o})");
        report.problem(format_args!("linux.devices[{i}].fileMode"), message);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::bundle::tests::{base, convert, one_range, problems, warnings, with};

    #[test]
    fn mounts_are_checked() {
        let list = json!([one_range(0, 1000, 1)]);
        let mut config = base();
        config["mounts"] = json!([
            { "destination": "data", "type": "tmpfs" },
            { "destination": "/a", "options": ["rbind"] },
            { "destination": "/b", "source": "/b", "options": ["bind", "idmap"] },
            { "destination": "/c", "source": "/c", "options": ["bind"], "uidMappings": list },
            { "destination": "/d", "source": "/d", "uidMappings": list, "gidMappings": [] },
            { "destination": "/e", "source": "/e", "options": ["bind"], "uidMappings": list,
              "gidMappings": [one_range(5, 6, 7), one_range(11, 0, 1)] },
        ]);
        assert_eq!(
            problems(config.clone()),
            "mounts[1].source: is required for a bind mount\n\
         mounts[2].options: idmap needs uidMappings and gidMappings, or a user namespace\n\
         mounts[3].gidMappings: is required with uidMappings\n\
         mounts[4].gidMappings: is required with uidMappings\n\
         mounts[4].options: mapped ids need a bind mount: add bind or rbind\n\
         mounts[5].gidMappings[1]: overlaps mounts[5].gidMappings[0] by containerID"
        );
        config["mounts"].as_array_mut().unwrap().truncate(1);
        assert_eq!(
            warnings(config),
            "mounts[0].destination: is relative, which is deprecated: taken as relative to /"
        );
    }

    #[test]
    fn devices_are_checked() {
        let devices = json!([
            { "type": "c", "path": "/dev/a", "major": 10, "minor": 229, "fileMode": 0o20666 },
            { "type": "b", "path": "/dev/b", "minor": 1 << 20, "fileMode": 0o20666 },
            { "type": "p", "path": "/dev/c", "fileMode": 0x200_01b6 },
            { "type": "c", "path": "/dev/a", "major": 10, "minor": 228 },
            { "type": "u", "path": "/dev/d", "major": -1, "minor": 0 },
        ]);
        assert_eq!(
            problems(with(base(), "/linux/devices", devices)),
            "linux.devices[1].major: is required, as type is not p\n\
         linux.devices[1].minor: must be from 0 to 1048575, is 1048576\n\
         linux.devices[1].fileMode: must be at most 4095 (0o7777), is 8630 (0o20666)\n\
         linux.devices[2].fileMode: must be at most 4095 (0o7777), is 33554870 (0o200000666)\n\
         linux.devices[3].path: is another device in linux.devices[0]\n\
         linux.devices[4].major: must be from 0 to 4095, is -1"
        );
        let device =
            json!({ "type": "c", "path": "/a", "major": 1, "minor": 3, "fileMode": 0o20600 });
        let config = with(base(), "/linux/devices", json!([device, device]));
        let (spec, warnings) = convert(config).unwrap();
        assert_eq!(
            warnings,
            ["linux.devices[1].path: is in linux.devices[0] already"]
        );
        let devices = spec.linux().as_ref().unwrap().devices().clone().unwrap();
        assert_eq!(devices[0].file_mode(), Some(0o600));
    }
}
