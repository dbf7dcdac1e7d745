//! `linux.resources` alone, as `update` is given it: read and checked as in config.json.
//!
//! The same rows of the table decide; what a value means for the cgroup is left to its plan.

use anyhow::{Result, anyhow, bail};
use oci_spec::runtime::LinuxResources;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::report::{Place, Report};
use super::{fields, fit, read, walk};

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
pub fn check_resources(mut object: Map<String, Value>) -> Result<(LinuxResources, Vec<String>)> {
    let mut report = Report::default();
    let row = fields::row_of(RESOURCES)
        .ok_or_else(|| anyhow!("{RESOURCES} is no row of the table of fields"))?;
    let linux = Place::key(None, "linux");
    let place = Place::key(Some(&linux), "resources");
    walk::walk_at(&mut object, row, &place, &mut report);
    report.refuse_problems()?;
    let mut linux = Map::from_iter([("resources".to_owned(), Value::Object(object))]);
    fit::linux_values(&mut linux);
    let resources = LinuxResources::deserialize(&linux["resources"])
        .map_err(|error| anyhow!("{error}: this is a bug of the runtime, please report it"))?;
    Ok((resources, report.into_warnings()))
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
}
