//! Parts of config.json that a verb is given by themselves: `linux.resources` for `update`, `mounts`
//! for `mounts`. Read and checked as in config.json, by the same rows of the table.

use anyhow::{Result, anyhow, bail};
use oci_spec::runtime::{LinuxResources, Spec};
use serde_json::{Map, Value, json};

use super::report::{Place, Report};
use super::{SPECIFICATION, checks, fields, fit, read, walk};

/// The place in config.json, which the path of every problem begins with.
pub const RESOURCES: &str = "linux.resources";

/// The JSON object in these bytes.
///
/// # Errors
///
/// Line and column of what is no JSON; or that it is no object.
pub fn parse_resources(bytes: &[u8]) -> Result<Map<String, Value>> {
    let Value::Object(object) = read::parse(bytes)? else {
        bail!("must be a JSON object");
    };
    Ok(object)
}

/// The resources that a JSON object asks for, and what a person should know of it.
///
/// # Errors
///
/// The [`Problems`](crate::error::Problems), all at once.
pub fn check_resources(object: Map<String, Value>) -> Result<(LinuxResources, Vec<String>)> {
    let mut report = Report::default();
    let linux = Place::key(None, "linux");
    let place = Place::key(Some(&linux), "resources");
    let mut value = Value::Object(object);
    hold(&mut value, RESOURCES, &place, &mut report)?;
    report.refuse_problems()?;
    let mut linux = Map::from_iter([("resources".to_owned(), value)]);
    fit::linux_values(&mut linux);
    let spec = fit::typed(&json!({"ociVersion": SPECIFICATION, "linux": linux}))?;
    let linux = spec.linux().as_ref();
    let resources = linux.and_then(|linux| linux.resources().clone());
    Ok((resources.unwrap_or_default(), report.into_warnings()))
}

/// A configuration with the mounts that a JSON array asks for, in a container that has a user namespace of its own or
/// not; and what a person should know of it.
///
/// # Errors
///
/// What is no JSON, with its place; or the [`Problems`](crate::error::Problems), all at once.
pub fn read_mounts(bytes: &[u8], user_namespace: bool) -> Result<(Spec, Vec<String>)> {
    let mut list = read::parse_any(bytes)?;
    if !list.is_array() {
        bail!("must be a JSON array, as mounts of config.json is");
    }
    let mut report = Report::default();
    hold(
        &mut list,
        "mounts",
        &Place::key(None, "mounts"),
        &mut report,
    )?;
    let mut namespaces = vec![json!({"type": "mount"})];
    if user_namespace {
        namespaces.push(json!({"type": "user"}));
    }
    let linux = json!({ "namespaces": namespaces });
    let config = json!({"ociVersion": SPECIFICATION, "mounts": list, "linux": linux});
    checks::mounts(&config, &mut report);
    report.refuse_problems()?;
    Ok((fit::typed(&config)?, report.into_warnings()))
}

/// Holds a value against the row at `path`.
fn hold(value: &mut Value, path: &str, place: &Place, report: &mut Report) -> Result<()> {
    let row = fields::row_of(path);
    let row = row.ok_or_else(|| anyhow!("{path} is no row of the table of fields"))?;
    walk::property(value, row, place, report);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(json: &str) -> String {
        let object = parse_resources(json.as_bytes()).unwrap();
        let error = check_resources(object).unwrap_err();
        error.to_string()
    }

    #[test]
    fn the_rows_of_config_json_decide() {
        assert_eq!(
            problems(r#"{"memory": {"limit": "1g"}, "pids": 5, "devices": [{"type": "x"}]}"#),
            "linux.resources.devices[0].allow: is required; \
             linux.resources.devices[0].type: must be a, b or c, is \"x\"; \
             linux.resources.memory.limit: must be a whole number from -9223372036854775808 to \
             9223372036854775807, is \"1g\"; linux.resources.pids: must be an object, is 5"
        );
    }

    #[test]
    fn what_is_unknown_is_a_warning_and_what_is_null_is_absent() {
        let json = r#"{"memory": {"limit": 4096, "swap": null}, "cpus": {}, "pids": {}}"#;
        let (resources, warnings) =
            check_resources(parse_resources(json.as_bytes()).unwrap()).unwrap();
        let memory = resources.memory().unwrap();
        assert_eq!((memory.limit(), memory.swap()), (Some(4096), None));
        assert!(resources.pids().is_none());
        assert_eq!(
            warnings,
            ["linux.resources.cpus: unknown property, ignored"]
        );
    }

    #[test]
    fn only_an_object_can_be_read() {
        let error = parse_resources(b"[1]").unwrap_err().to_string();
        assert_eq!(error, "line 1: must be a JSON object, is an array");
        let error = parse_resources(b"{\"memory\": }").unwrap_err().to_string();
        assert!(error.starts_with("line 1 column 12: "), "{error}");
    }

    #[test]
    fn mounts_are_checked_as_those_of_config_json() {
        let read = |text: &str, user| read_mounts(text.as_bytes(), user);
        let (spec, warnings) = read(
            r#"[{"destination": "data", "source": "/srv", "options": ["bind"]}]"#,
            false,
        )
        .unwrap();
        assert_eq!(spec.mounts().as_ref().unwrap().len(), 1);
        assert_eq!(warnings.len(), 1);
        let idmap = r#"[{"destination": "/a", "source": "/b", "options": ["bind", "idmap"]}]"#;
        assert!(read(idmap, true).is_ok());
        let told = read(idmap, false).unwrap_err().to_string();
        assert!(told.starts_with("mounts[0].options: idmap needs"), "{told}");
        let told = read(r#"[{"options": ["bind"]}, 5]"#, false).unwrap_err();
        assert_eq!(
            told.to_string(),
            "mounts[0].destination: is required; mounts[1]: must be an object, is 5; \
             mounts[0].source: is required for a bind mount"
        );
        for (text, words) in [("{}", "must be a JSON array"), ("[", "line 1 column 1")] {
            let told = read(text, false).unwrap_err().to_string();
            assert!(told.contains(words), "{told}");
        }
    }
}
