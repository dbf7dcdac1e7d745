//! The JSON value against the table of fields: shape, range, presence, support.
//!
//! One pass reports every deviation. It also clears away what has no meaning, so that the later
//! steps see only what counts: absent is absent, however the author wrote it. After the walk
//!
//! - a property that is null is gone, and so is an optional string that is empty: Go's decoder,
//!   by which every writer of bundles measures, makes no difference between these and absence;
//! - an unknown property is gone, with a warning;
//! - a value that has a problem is null, so that `checks` does not look at it twice, and so is a
//!   field for another platform that asks for nothing.

use serde_json::{Map, Value};

use super::fields::{self, Field, Kind, Row, Rows, Support};
use super::report::{Place, Report, list, quote, show};

/// Holds the config against the table, from the top.
pub(super) fn walk(config: &mut Map<String, Value>, report: &mut Report) {
    properties(config, fields::top(), None, false, report);
}

fn properties(
    object: &mut Map<String, Value>,
    rows: Rows,
    above: Option<&Place>,
    closed: bool,
    report: &mut Report,
) {
    let mut known = 0;
    for row in rows {
        let place = Place::key(above, row.name());
        let absent = match object.get_mut(row.name()) {
            None => true,
            Some(value) if means_absent(value, row.field()) => {
                object.remove(row.name());
                true
            }
            Some(value) => {
                known += 1;
                property(value, row, &place, report);
                false
            }
        };
        if absent && row.field().required {
            report.problem(place, "is required");
        }
    }
    if known < object.len() {
        remove_unknown(object, rows, above, closed, report);
    }
}

/// Null, and for an optional string "", as Go writes and reads them.
fn means_absent(value: &Value, field: &Field) -> bool {
    let is_word = match field.kind {
        Kind::Text | Kind::Free | Kind::Path | Kind::Words(_) => true,
        Kind::Object | Kind::Closed | Kind::Map => false,
        Kind::Array | Kind::Bool | Kind::Int { .. } => false,
    };
    value.is_null() || (is_word && !field.required && value.as_str() == Some(""))
}

/// Holds one value against its row; what is refused becomes null.
pub(super) fn property(value: &mut Value, row: Row, place: &Place, report: &mut Report) {
    let refusal = match row.field().support {
        Support::Honoured => return check(value, row, place, report),
        Support::OtherPlatform(_) if asks_for_nothing(value) => None,
        Support::OtherPlatform(other) => {
            Some(format!("is for {}, not for Linux: remove it", other.name()))
        }
    };
    if let Some(refusal) = refusal {
        report.problem(place, refusal);
    }
    *value = Value::Null;
}

fn asks_for_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(members) => members.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

fn check(value: &mut Value, row: Row, place: &Place, report: &mut Report) {
    match row.field().kind {
        Kind::Object | Kind::Closed => {
            if let Value::Object(object) = value {
                let closed = row.field().kind == Kind::Closed;
                return properties(object, row.children(), Some(place), closed, report);
            }
        }
        Kind::Map => {
            if let Value::Object(map) = value {
                return members(map, row, place, report);
            }
        }
        Kind::Array => {
            if let Value::Array(items) = value {
                return elements(items, row, place, report);
            }
        }
        Kind::Bool | Kind::Int { .. } | Kind::Text | Kind::Free | Kind::Path | Kind::Words(_) => {}
    }
    if let Some(problem) = own_problem(value, row.field()) {
        report.problem(place, problem);
        *value = Value::Null;
    }
}

fn elements(items: &mut [Value], row: Row, place: &Place, report: &mut Report) {
    for (index, item) in items.iter_mut().enumerate() {
        check(item, row.element(), &Place::index(place, index), report);
    }
}

fn members(map: &mut Map<String, Value>, row: Row, place: &Place, report: &mut Report) {
    for (key, value) in map.iter_mut() {
        let place = Place::key(Some(place), key);
        if key.is_empty() {
            report.problem(place, "must not have an empty name");
        } else if key.contains('\0') {
            report.problem(place, "must not have a zero byte in its name");
        } else {
            check(value, row.element(), &place, report);
        }
    }
}

/// What is wrong with a scalar, or with a value that is none of what the field asks for.
fn own_problem(value: &Value, field: &Field) -> Option<String> {
    let text = value.as_str();
    let fits = match field.kind {
        // These went on to their parts when the value was one.
        Kind::Object | Kind::Closed | Kind::Map | Kind::Array => false,
        Kind::Bool => value.is_boolean(),
        Kind::Int { min, max } => integer(value)
            .is_some_and(|number| i128::from(min) <= number && number <= i128::from(max)),
        Kind::Text | Kind::Free => text.is_some(),
        Kind::Path => text.is_some_and(|text| text.starts_with('/')),
        Kind::Words(words) => text.is_some_and(|text| words.contains(&text)),
    };
    if !fits {
        return Some(format!(
            "must be {}, is {}",
            expected(field.kind),
            show(value)
        ));
    }
    match text {
        Some("") if field.required => Some("must not be empty".to_owned()),
        // The kernel's strings end at a zero byte: it would see another value than the author.
        Some(text) if field.kind != Kind::Free && text.contains('\0') => {
            Some(format!("must not have a zero byte, is {}", quote(text)))
        }
        Some(_) | None => None,
    }
}

fn expected(kind: Kind) -> String {
    match kind {
        Kind::Object | Kind::Closed | Kind::Map => "an object".to_owned(),
        Kind::Array => "an array".to_owned(),
        Kind::Bool => "true or false".to_owned(),
        Kind::Int { min, max } => format!("a whole number from {min} to {max}"),
        Kind::Text | Kind::Free => "a string".to_owned(),
        Kind::Path => "an absolute path".to_owned(),
        Kind::Words(words) => list(words),
    }
}

/// A number that was written as a whole one; 1.0 and 1e3 are refused as by Go.
fn integer(value: &Value) -> Option<i128> {
    let number = value.as_number()?;
    let unsigned = number.as_u64().map(i128::from);
    unsigned.or_else(|| number.as_i64().map(i128::from))
}

fn remove_unknown(
    object: &mut Map<String, Value>,
    rows: Rows,
    above: Option<&Place>,
    closed: bool,
    report: &mut Report,
) {
    let is_known = |key: &str| rows.clone().any(|row| row.name() == key);
    let unknown: Vec<String> = object
        .keys()
        .filter(|key| !is_known(key))
        .cloned()
        .collect();
    for key in unknown {
        let place = Place::key(above, &key);
        if closed {
            let names: Vec<_> = rows.map(|row| row.name()).collect();
            report.problem(place, format_args!("unknown name: use {}", list(&names)));
        } else {
            // config.md, "Extensibility": must be ignored, may be logged.
            report.warning(place, "unknown property, ignored");
        }
        object.remove(&key);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::bundle::tests::{base, convert, problems, warnings, with};

    #[test]
    fn null_and_empty_optional_strings_are_absent() {
        let mut config = with(base(), "/hostname", json!(""));
        config = with(config, "/mounts/0/source", Value::Null);
        config = with(config, "/linux/rootfsPropagation", json!(""));
        config = with(config, "/linux/namespaces/0/path", json!(""));
        config = with(config, "/linux/resources", Value::Null);
        let (spec, warnings) = convert(config).unwrap();
        assert_eq!(warnings, [""; 0]);
        let linux = spec.linux().as_ref().unwrap();
        assert_eq!(spec.hostname(), &None);
        assert_eq!(spec.mounts().as_ref().unwrap()[0].source(), &None);
        assert_eq!(linux.rootfs_propagation(), &None);
        assert_eq!(linux.namespaces().as_ref().unwrap()[0].path(), &None);
        assert_eq!(linux.resources(), &None);
    }

    #[test]
    fn a_wrong_type_is_reported_with_its_path() {
        let mut config = with(base(), "/process/args", json!("sh"));
        config = with(config, "/process/terminal", json!("yes"));
        config = with(config, "/mounts/1/options/0", json!(null));
        config = with(config, "/mounts/2", json!([]));
        config = with(config, "/linux/resources/devices/0/allow", json!(0));
        config = with(
            config,
            "/annotations",
            json!({ "org.example.a": null, "b": 1.5, "": "x" }),
        );
        assert_eq!(
            problems(config),
            "mounts[1].options[0]: must be a string, is null\n\
         mounts[2]: must be an object, is an array\n\
         process.terminal: must be true or false, is \"yes\"\n\
         process.args: must be an array, is \"sh\"\n\
         annotations[\"\"]: must not have an empty name\n\
         annotations.b: must be a string, is 1.5\n\
         annotations[\"org.example.a\"]: must be a string, is null\n\
         linux.resources.devices[0].allow: must be true or false, is 0"
        );
    }

    #[test]
    fn a_number_out_of_range_is_reported_with_the_range() {
        let mut config = with(base(), "/process/user/uid", json!(4_294_967_295_u32));
        config = with(config, "/process/user/gid", json!(-1));
        config = with(config, "/process/user/umask", json!(0o1000));
        config = with(
            config,
            "/process/user/additionalGids",
            json!([1, 1.0, "1", 1e3]),
        );
        config = with(config, "/process/oomScoreAdj", json!(1001));
        config = with(
            config,
            "/linux/resources/memory",
            json!({ "limit": u64::MAX }),
        );
        config = with(
            config,
            "/linux/resources/blockIO",
            json!({ "weight": 65536 }),
        );
        assert_eq!(
            problems(config),
            "process.oomScoreAdj: must be a whole number from -1000 to 1000, is 1001\n\
         process.user.uid: must be a whole number from 0 to 4294967294, is 4294967295\n\
         process.user.gid: must be a whole number from 0 to 4294967294, is -1\n\
         process.user.umask: must be a whole number from 0 to 511, is 512\n\
         process.user.additionalGids[1]: must be a whole number from 0 to 4294967294, is 1.0\n\
         process.user.additionalGids[2]: must be a whole number from 0 to 4294967294, is \"1\"\n\
         process.user.additionalGids[3]: must be a whole number from 0 to 4294967294, is 1000.0\n\
         linux.resources.memory.limit: must be a whole number from -9223372036854775808 to \
         9223372036854775807, is 18446744073709551615\n\
         linux.resources.blockIO.weight: must be a whole number from 0 to 65535, is 65536"
        );
    }

    #[test]
    fn what_is_missing_is_reported() {
        assert_eq!(
            problems(json!({})),
            "ociVersion: is required\nroot: is required\nprocess: is required"
        );
        let mut config = with(base(), "/process", json!({ "cwd": "" }));
        config = with(config, "/root", json!({ "path": "" }));
        config = with(config, "/mounts/0", json!({ "destination": "" }));
        config = with(config, "/linux/namespaces/0", json!({ "path": null }));
        assert_eq!(
            problems(config),
            "root.path: must not be empty\n\
         mounts[0].destination: must not be empty\n\
         process.cwd: must be an absolute path, is \"\"\n\
         process.args: is required\n\
         process.user: is required\n\
         linux.namespaces[0].type: is required"
        );
    }

    #[test]
    fn an_unknown_word_is_reported_with_the_known_ones() {
        let mut config = with(base(), "/linux/namespaces/0/type", json!("net"));
        config = with(config, "/linux/rootfsPropagation", json!("public"));
        config = with(
            config,
            "/linux/devices",
            json!([{ "type": "a", "path": "dev/x" }]),
        );
        assert_eq!(
            problems(config),
            "linux.namespaces[0].type: must be pid, network, mount, ipc, uts, user, cgroup or time, \
         is \"net\"\n\
         linux.devices[0].type: must be c, b, u or p, is \"a\"\n\
         linux.devices[0].path: must be an absolute path, is \"dev/x\"\n\
         linux.rootfsPropagation: must be shared, slave, private, unbindable, rshared, rslave, \
         rprivate or runbindable, is \"public\""
        );
        let config = with(base(), "/process/rlimits/0/type", json!("RLIMIT_FOO"));
        assert!(problems(config).starts_with("process.rlimits[0].type: must be RLIMIT_AS, "));
    }

    #[test]
    fn a_field_of_another_platform_is_refused() {
        let mut config = with(base(), "/windows", json!({ "layerFolders": ["c:\\"] }));
        config = with(config, "/solaris", json!({ "milestone": "x" }));
        config = with(config, "/vm", json!({ "kernel": { "path": "/k" } }));
        config = with(config, "/zos", json!({ "namespaces": [{ "type": "pid" }] }));
        config = with(config, "/freebsd", json!({ "jail": { "parent": "j" } }));
        config = with(config, "/process/commandLine", json!("cmd"));
        config = with(config, "/process/user/username", json!("me"));
        assert_eq!(
            problems(config),
            "process.commandLine: is for Windows, not for Linux: remove it\n\
         process.user.username: is for Windows, not for Linux: remove it\n\
         solaris: is for Solaris, not for Linux: remove it\n\
         windows: is for Windows, not for Linux: remove it\n\
         vm: is for virtual machines, not for Linux: remove it\n\
         zos: is for z/OS, not for Linux: remove it\n\
         freebsd: is for FreeBSD, not for Linux: remove it"
        );
    }

    #[test]
    fn a_refused_field_that_asks_for_nothing_is_fine() {
        let mut config = with(base(), "/linux/netDevices", json!({}));
        config = with(config, "/linux/mountLabel", json!(""));
        config = with(config, "/process/selinuxLabel", json!(""));
        config = with(config, "/process/apparmorProfile", json!(""));
        config = with(config, "/process/scheduler", json!(null));
        config = with(config, "/process/user/username", json!(""));
        config = with(config, "/windows", json!({}));
        let (spec, warnings) = convert(config).unwrap();
        assert_eq!(warnings, [""; 0]);
        assert_eq!(spec.windows(), &None);
    }

    #[test]
    fn an_unknown_property_is_a_warning_whatever_its_value() {
        let mut config = with(base(), "/uidMappings", json!(5));
        config = with(config, "/process/Args", json!(["x"]));
        config = with(config, "/mounts/0/a.b\n", json!({ "c": 1 }));
        config = with(config, "/linux/resources/cpu", json!({ "weight": 1 }));
        assert_eq!(
            warnings(config),
            "mounts[0][\"a.b\\n\"]: unknown property, ignored\n\
         process.Args: unknown property, ignored\n\
         linux.resources.cpu.weight: unknown property, ignored\n\
         uidMappings: unknown property, ignored"
        );
    }

    #[test]
    fn a_zero_byte_is_refused_in_every_string_that_reaches_the_kernel() {
        let mut config = with(base(), "/process/args/0", json!("s\0h"));
        config = with(config, "/process/cwd", json!("/\0"));
        config = with(config, "/hostname", json!("a\0"));
        config = with(
            config,
            "/linux/sysctl",
            json!({ "net.a\0b": "1", "net.core.x": "\0" }),
        );
        config = with(config, "/annotations", json!({ "a": "\0" }));
        assert_eq!(
            problems(config),
            "process.cwd: must not have a zero byte, is \"/\\0\"\n\
         process.args[0]: must not have a zero byte, is \"s\\0h\"\n\
         hostname: must not have a zero byte, is \"a\\0\"\n\
         linux.sysctl[\"net.a\\0b\"]: must not have a zero byte in its name\n\
         linux.sysctl[\"net.core.x\"]: must not have a zero byte, is \"\\0\"\n\
         linux.sysctl[\"net.a\\0b\"]: must be the name of a parameter, as net.core.somaxconn"
        );
    }
}
