//! What the table of fields cannot say: rules between fields, and rules on a value's inside.
//!
//! Runs on the walked value, also when the walk found problems, so that a person sees everything
//! at once: what is null here was reported there and is passed over. A check that needs to know
//! the namespaces is silent when their list itself has a problem.

mod annotations;
mod filesystem;
mod hooks;
mod idmaps;
mod interfaces;
mod namespaces;
mod process;
mod seccomp;
mod settings;
mod sysctl;

use std::path::{Path, PathBuf};

use serde_json::Value;

pub use annotations::ANNOTATIONS_OF_CRUN;

use super::read::os_error;
use super::report::{Report, quote};

/// All checks on the configuration alone, in the order of the specification's text.
pub(super) fn check(config: &Value, report: &mut Report) {
    version(config, report);
    filesystem::mounts(config, report);
    process::check(config, report);
    settings::check(config, report);
    namespaces::names(config, report);
    hooks::check(config, report);
    namespaces::check(config, report);
    interfaces::check(config, report);
    idmaps::check(config, report);
    filesystem::devices(config, report);
    sysctl::check(config, report);
    seccomp::check(config, report);
    annotations::check(config, report);
}

/// The checks of `mounts` alone.
pub(super) fn mounts(config: &Value, report: &mut Report) {
    filesystem::mounts(config, report);
}

/// The elements of an array with their index; nothing when it is none.
fn items(value: &Value) -> impl Iterator<Item = (usize, &Value)> {
    value.as_array().into_iter().flatten().enumerate()
}

/// config.md, "Specification version": semantic versioning, compatible within a major version.
fn version(config: &Value, report: &mut Report) {
    let Some(text) = config["ociVersion"].as_str() else {
        return;
    };
    let wanted = "must be a version from 1.0.0 up to, not including, 2.0.0";
    if !is_supported(text) {
        report.problem("ociVersion", format_args!("{wanted}, is {}", quote(text)));
    }
}

/// A version of major 1, at or after 1.0.0 in the order of semver.org.
fn is_supported(version: &str) -> bool {
    let (rest, build) = split(version, '+');
    let (core, pre) = split(rest, '-');
    let numbers: Vec<&str> = core.split('.').collect();
    let is_number = |text: &&str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        digits && (text.len() == 1 || !text.starts_with('0'))
    };
    let is_suffix = |text: Option<&str>| {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        let part = |part: &str| !part.is_empty() && part.bytes().all(allowed);
        text.is_none_or(|text| text.split('.').all(part))
    };
    // 1.0.0-rc1 comes before 1.0.0, and was another format.
    let too_early = core == "1.0.0" && pre.is_some();
    let is_version = numbers.len() == 3 && numbers.iter().all(is_number);
    is_version && numbers[0] == "1" && !too_early && is_suffix(pre) && is_suffix(build)
}

fn split(text: &str, separator: char) -> (&str, Option<&str>) {
    match text.split_once(separator) {
        Some((before, after)) => (before, Some(after)),
        None => (text, None),
    }
}

/// The root directory that `root.path` names, as an absolute path without symbolic links.
///
/// config.md, "Root": a directory must exist there; a relative path starts at the bundle.
pub(super) fn root(config: &Value, bundle: &Path, report: &mut Report) -> Option<PathBuf> {
    let wanted = config["root"]["path"]
        .as_str()
        .filter(|path| !path.is_empty())?;
    let path = bundle.join(wanted);
    match std::fs::canonicalize(&path) {
        Ok(found) if found.is_dir() => return Some(found),
        Ok(_) => report.problem("root.path", format_args!("{path:?} is not a directory")),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let advice = "put the container's files there, or correct the path";
            report.problem(
                "root.path",
                format_args!("{path:?} does not exist: {advice}"),
            );
        }
        Err(error) => report.problem("root.path", os_error("realpath", &path, error)),
    }
    None
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::bundle::tests::{base, problems, with};

    #[test]
    fn the_version_must_be_1_0_0_or_a_later_one_of_the_same_major() {
        for good in [
            "1.0.0",
            "1.0.2-dev",
            "1.3.0",
            "1.3.0+dev",
            "1.10.0-rc.1+a-b",
            "1.99.99",
        ] {
            assert_eq!(
                problems(with(base(), "/ociVersion", json!(good))),
                "",
                "{good}"
            );
        }
        for bad in [
            "0.9.0",
            "1.0.0-rc5",
            "2.0.0",
            "1",
            "1.0",
            "1.0.0.0",
            "1.00.0",
            "v1.0.0",
            "1.1.0-",
        ] {
            assert_eq!(
                problems(with(base(), "/ociVersion", json!(bad))),
                format!(
                    "ociVersion: must be a version from 1.0.0 up to, not including, 2.0.0, is {bad:?}"
                )
            );
        }
    }
}
