//! Where a container's cgroup is: what `linux.cgroupsPath` means to whoever makes it.
//!
//! An absolute path counts from the root of the hierarchy. A relative one counts from a folder of ours
//! there, or for somebody without rights over the whole tree from the cgroup that was handed over.

use std::path::{Path, PathBuf};

use oci_spec::runtime::Spec;

use super::systemd::{self, Manager};

/// The folder of all cgroups whose path the configuration does not give from the root on.
const HOME: &str = "parhelion";

/// The path of container `id`'s cgroup below the mount point; None where `manager` makes none, or knows it
/// itself.
///
/// # Errors
///
/// What is wrong with `linux.cgroupsPath`.
pub(super) fn of(manager: &Manager, spec: &Spec, id: &str) -> Result<Option<PathBuf>, String> {
    let linux = spec.linux().as_ref();
    let configured = linux.and_then(|linux| linux.cgroups_path().as_deref());
    match manager {
        Manager::Files => path(configured, id, Path::new(HOME)).map(Some),
        Manager::Below(cgroup) => {
            let named = configured.is_some_and(|path| !path.as_os_str().is_empty());
            let name = format!("{HOME}-{id}");
            path(configured.filter(|_| named), &name, cgroup).map(Some)
        }
        // What is wrong with it is told nevertheless.
        Manager::Nobody | Manager::Disabled => {
            path(configured, id, Path::new(HOME)).map(|_unused| None)
        }
        Manager::Delegated(unit) => systemd::delegated_path(unit, spec, id).map(Some),
        Manager::Systemd(_) => Ok(None), // the scope's
    }
}

/// The cgroup's path below the mount point; a relative one counts from `home`, and is `name` where none
/// is configured.
fn path(configured: Option<&Path>, name: &str, home: &Path) -> Result<PathBuf, String> {
    let Some(text) = configured.map_or(Some(name), Path::to_str) else {
        return Err("must be text in UTF-8".to_owned());
    };
    let text = if text.is_empty() { name } else { text };
    if !text.starts_with('/') && text.contains(':') {
        return Err(format!(
            "{text:?} has the form slice:prefix:name, which needs --systemd-cgroup; without it \
             give a path"
        ));
    }
    let parts: Vec<&str> = text
        .split('/')
        .filter(|part| !matches!(*part, "" | "."))
        .collect();
    // The kernel refuses a newline too (/proc/<pid>/cgroup could not be read any more), but late.
    if parts
        .iter()
        .any(|part| *part == ".." || part.chars().any(char::is_control))
    {
        return Err(format!(
            "must not have \"..\" or control characters in it, is {text:?}"
        ));
    }
    if parts.is_empty() {
        return Err("must name a cgroup below the root".to_owned());
    }
    let home = (!text.starts_with('/')).then_some(home);
    let parts = parts.into_iter().map(Path::new);
    Ok(home.into_iter().chain(parts).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path_of(configured: &str) -> Result<PathBuf, String> {
        path(Some(Path::new(configured)), "web", Path::new(HOME))
    }

    #[test]
    fn relative_paths_are_below_parhelion_and_absolute_ones_below_the_root() {
        assert_eq!(
            path(None, "web", Path::new(HOME)),
            Ok("parhelion/web".into())
        );
        assert_eq!(path_of("a/b"), Ok("parhelion/a/b".into()));
        assert_eq!(path_of("/a//./b/"), Ok("a/b".into()));
        assert_eq!(path_of("/a:b"), Ok("a:b".into()));
        assert_eq!(path_of(""), Ok("parhelion/web".into()));
    }

    #[test]
    fn paths_that_lead_elsewhere_are_refused() {
        for wrong in ["/", "//.", "a/../b", "/..", "/a\nb"] {
            assert!(path_of(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_user_has_cgroups_below_the_one_that_was_handed_over() {
        let path = |configured: &str| {
            let json =
                format!(r#"{{"ociVersion": "1.3.0", "linux": {{"cgroupsPath": "{configured}"}}}}"#);
            let spec = serde_json::from_str(&json).unwrap();
            of(&Manager::Below("user/a".into()), &spec, "web")
        };
        assert_eq!(path(""), Ok(Some("user/a/parhelion-web".into())));
        assert_eq!(path("b/c"), Ok(Some("user/a/b/c".into())));
        assert_eq!(path("/b/c"), Ok(Some("b/c".into())));
        assert!(path("a.slice:b:c").is_err());
    }
}
