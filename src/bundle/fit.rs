//! From the checked JSON value to the types of the crate oci-spec.
//!
//! What passed the table and the checks must fit; this file takes care of the places where the
//! crate's reading differs from the specification's text:
//!
//! - a capability that it does not know fails the whole document, and names in other forms pass:
//!   config.md wants a warning, and the capability not granted;
//! - `resources.pids` without `limit` becomes a limit of 0, that is no process at all;
//! - a huge page limit is 63 bits there and 64 in the specification;
//! - two flags of the scheduler have other names there, and lists of processors no blanks;
//! - `linux.devices[].fileMode` may carry the file's type, which mknod(2) gets from `type`.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::str::FromStr;

use oci_spec::runtime::{Capability, LinuxCapabilities, Spec};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::report::{Place, Report, quote};
use crate::sys::bitmap::Bitmap;

/// The five sets of capabilities, in the specification's order.
const SETS: [&str; 5] = [
    "effective",
    "bounding",
    "inheritable",
    "permitted",
    "ambient",
];

/// Turns a checked configuration into the crate's types.
pub(super) fn fit(config: &mut Value, report: &mut Report) -> anyhow::Result<Spec> {
    if let Some(sets) = config.pointer_mut("/process/capabilities") {
        known_capabilities(sets, report);
    }
    process_values(&mut config["process"]);
    if let Some(linux) = config.get_mut("linux").and_then(Value::as_object_mut) {
        linux_values(linux);
    }
    let mut spec = typed(config)?;
    if let Some(process) = spec.process_mut()
        && let Some(mut capabilities) = process.capabilities().clone()
    {
        drop_what_cannot_be_granted(&mut capabilities, report);
        process.set_capabilities(Some(capabilities));
    }
    Ok(spec)
}

/// The crate's reading of what must fit. In one place: it is a tenth of the program.
pub(super) fn typed(config: &Value) -> anyhow::Result<Spec> {
    Spec::deserialize(config).map_err(|error| {
        anyhow::anyhow!(
            "{}: {error}: this is a bug of the runtime, please report it",
            place(config)
        )
    })
}

/// The capabilities that can be granted, by number: all of capabilities(7).
pub fn capability_names() -> Vec<String> {
    let mut all: Vec<_> = caps::all().into_iter().collect();
    all.sort_unstable_by_key(|capability| capability.index());
    all.iter().map(ToString::to_string).collect()
}

/// Keeps the names that capabilities(7) lists, with one warning for each other.
fn known_capabilities(sets: &mut Value, report: &mut Report) {
    for set in SETS {
        let Some(names) = sets.get_mut(set).and_then(Value::as_array_mut) else {
            continue;
        };
        let mut index = 0;
        names.retain(|name| {
            let name = name.as_str().unwrap_or_default();
            let known = caps::Capability::from_str(name).is_ok();
            if !known {
                let message = format_args!("unknown capability {}, not granted", quote(name));
                report.warning(format_args!("process.capabilities.{set}[{index}]"), message);
            }
            index += 1;
            known
        });
    }
}

/// Flags of the scheduler, and what the crate calls them.
pub(super) const SCHEDULER_FLAGS: [(&str, &str); 2] = [
    ("SCHED_FLAG_RESET_ON_FORK", "SCHED_RESET_ON_FORK"),
    ("SCHED_FLAG_DL_OVERRUN", "SCHED_FLAG_D_L_OVERRUN"),
];

fn process_values(process: &mut Value) {
    let flags = process.pointer_mut("/scheduler/flags");
    for flag in flags.and_then(Value::as_array_mut).into_iter().flatten() {
        let other = SCHEDULER_FLAGS.iter().find(|(name, _)| flag == name);
        if let Some((_, theirs)) = other {
            *flag = (*theirs).into();
        }
    }
    for when in ["/execCPUAffinity/initial", "/execCPUAffinity/final"] {
        let Some(list) = process.pointer_mut(when) else {
            continue;
        };
        // Checked before; a list without numbers is none.
        let set = list.as_str().and_then(|text| Bitmap::parse(text).ok());
        *list = match set.filter(|set| !set.is_empty()) {
            Some(set) => set.to_list().into(),
            None => Value::Null,
        };
    }
}

/// The places of `linux` where the crate reads otherwise.
pub(super) fn linux_values(linux: &mut Map<String, Value>) {
    for device in linux
        .get_mut("devices")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
    {
        if let Some(mode) = device["fileMode"].as_u64() {
            device["fileMode"] = (mode & 0o7777).into();
        }
    }
    if linux
        .get("seccomp")
        .is_some_and(|s| s.get("defaultAction").is_none())
    {
        linux.remove("seccomp"); // `checks` has seen that it asks for nothing
    }
    let Some(resources) = linux.get_mut("resources").and_then(Value::as_object_mut) else {
        return;
    };
    if resources
        .get("pids")
        .is_some_and(|pids| pids.get("limit").is_none())
    {
        resources.remove("pids");
    }
    let limits = resources
        .get_mut("hugepageLimits")
        .and_then(Value::as_array_mut);
    for limit in limits.into_iter().flatten() {
        // The kernel's largest limit is smaller than either: both mean "no limit".
        let bytes = limit["limit"].as_u64().unwrap_or_default();
        limit["limit"] = bytes.min(i64::MAX as u64).into();
    }
}

/// Drops, with a warning, what capset(2) and prctl(2) refuse whatever the runtime may do.
///
/// config.md: what cannot be granted is a warning and should not be an error.
fn drop_what_cannot_be_granted(sets: &mut LinuxCapabilities, report: &mut Report) {
    let bounding = sets.bounding().clone().unwrap_or_default();
    let permitted = sets.permitted().clone().unwrap_or_default();
    let effective = sets
        .effective()
        .clone()
        .map(|wanted| keep("effective", wanted, &[("permitted", &permitted)], report));
    sets.set_effective(effective);
    let inheritable = sets
        .inheritable()
        .clone()
        .map(|wanted| keep("inheritable", wanted, &[("bounding", &bounding)], report));
    let granted = inheritable.clone().unwrap_or_default();
    sets.set_inheritable(inheritable);
    let ambient = sets.ambient().clone().map(|wanted| {
        let needs = [("permitted", &permitted), ("inheritable", &granted)];
        keep("ambient", wanted, &needs, report)
    });
    sets.set_ambient(ambient);
}

/// Of the wanted capabilities those that all the other sets have.
fn keep(
    set: &str,
    wanted: HashSet<Capability>,
    needs: &[(&str, &HashSet<Capability>)],
    report: &mut Report,
) -> HashSet<Capability> {
    // A set has no order, a person reads better with one.
    let mut dropped: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    let mut granted = HashSet::new();
    for capability in wanted {
        match needs.iter().find(|(_, other)| !other.contains(&capability)) {
            None => drop(granted.insert(capability)),
            Some((missing, _)) => {
                let names = dropped.entry(missing).or_default();
                names.insert(format!("CAP_{capability}"));
            }
        }
    }
    for (missing, names) in dropped {
        let verb = if names.len() == 1 { "is" } else { "are" };
        let names: Vec<String> = names.into_iter().collect();
        let names = names.join(", ");
        let message = format_args!("{names} {verb} not in {missing}, hence not granted");
        report.warning(format_args!("process.capabilities.{set}"), message);
    }
    granted
}

/// Which part of the config the crate does not take, as its errors do not tell.
fn place(config: &Value) -> String {
    let Some(fields) = config.as_object() else {
        return "config.json".to_owned();
    };
    let found = fields.iter().find(|(name, value)| {
        let mut alone = Map::new();
        alone.insert((*name).clone(), (*value).clone());
        Spec::deserialize(&Value::Object(alone)).is_err()
    });
    found.map_or_else(
        || "config.json".to_owned(),
        |(name, _)| Place::key(None, name).to_string(),
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::bundle::tests::{base, convert, rich, with};
    use crate::bundle::{FIELDS, Kind, Support};

    #[test]
    fn absent_stays_absent() {
        let config = json!({
            "ociVersion": "1.0.0", "root": { "path": "rootfs" },
            "process": { "cwd": "/", "args": ["sh"], "user": { "uid": 0, "gid": 0 } },
        });
        let (spec, _) = convert(config.clone()).unwrap();
        assert_eq!(serde_json::to_value(&spec).unwrap(), config);
    }

    #[test]
    fn capabilities_that_cannot_be_granted_are_dropped_with_a_warning() {
        let sets = json!({
            "bounding": ["CAP_KILL", "CAP_CHOWN", "CAP_NEW", "cap_kill", "CAP_CAP_KILL"],
            "permitted": ["CAP_KILL", "CAP_CHOWN"],
            "effective": ["CAP_KILL", "CAP_SYS_ADMIN"],
            "inheritable": ["CAP_CHOWN", "CAP_MKNOD"],
            "ambient": ["CAP_KILL", "CAP_CHOWN", "CAP_MKNOD"],
        });
        let (spec, warnings) = convert(with(base(), "/process/capabilities", sets)).unwrap();
        assert_eq!(
            warnings.join("\n"),
            "process.capabilities.bounding[2]: unknown capability \"CAP_NEW\", not granted\n\
         process.capabilities.bounding[3]: unknown capability \"cap_kill\", not granted\n\
         process.capabilities.bounding[4]: unknown capability \"CAP_CAP_KILL\", not granted\n\
         process.capabilities.effective: CAP_SYS_ADMIN is not in permitted, hence not granted\n\
         process.capabilities.inheritable: CAP_MKNOD is not in bounding, hence not granted\n\
         process.capabilities.ambient: CAP_KILL is not in inheritable, hence not granted\n\
         process.capabilities.ambient: CAP_MKNOD is not in permitted, hence not granted"
        );
        let process = spec.process().as_ref().unwrap();
        let granted = process.capabilities().as_ref().unwrap();
        let only = |capability| Some([capability].into());
        assert_eq!(granted.effective(), &only(Capability::Kill));
        assert_eq!(granted.inheritable(), &only(Capability::Chown));
        assert_eq!(granted.ambient(), &only(Capability::Chown));
    }

    #[test]
    fn values_outside_the_crates_types_keep_their_meaning() {
        let mut config = with(base(), "/linux/resources/pids", json!({}));
        let limits =
            json!([{ "pageSize": "2MB", "limit": u64::MAX }, { "pageSize": "1GB", "limit": 5 }]);
        config = with(config, "/linux/resources/hugepageLimits", limits);
        let (spec, warnings) = convert(config).unwrap();
        assert_eq!(warnings, [""; 0]);
        let resources = spec.linux().as_ref().unwrap().resources().clone().unwrap();
        assert_eq!(resources.pids(), &None);
        let limits: Vec<_> = resources
            .hugepage_limits()
            .as_ref()
            .unwrap()
            .iter()
            .collect();
        assert_eq!(
            limits.iter().map(|limit| limit.limit()).collect::<Vec<_>>(),
            [i64::MAX, 5]
        );
    }

    #[test]
    fn every_word_of_the_table_is_one_of_the_crate() {
        for field in &FIELDS {
            let Kind::Words(words) = field.kind else {
                continue;
            };
            if field.support != Support::Honoured {
                continue;
            }
            let pointer = format!("/{}", field.path.replace("[]", "/0").replace('.', "/"));
            for word in words {
                // A word that only the table knows would not convert, hence panic.
                let _ = convert(with(rich(), &pointer, json!(word)));
            }
        }
    }
}
