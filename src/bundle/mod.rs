//! config.json, checked or refused before any effect.
//!
//! A bundle that loads is one whose every field this release honours; one that does not is
//! refused with everything that is wrong with it, each problem with its JSON path. Nothing has
//! changed on the host by then. What a value means for cgroups, mounts or namespaces, beyond the
//! specification's own rules, is left to the plans of these modules.

mod checks;
mod default;
mod fields;
mod fit;
mod parts;
mod read;
mod report;
mod strict;
mod walk;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use oci_spec::runtime::{
    LinuxDevice, LinuxIdMapping, LinuxNamespace, LinuxNamespaceType, Mount, Spec,
};
use serde_json::Value;

pub use checks::ANNOTATIONS_OF_CRUN;
pub use default::{Owner, default_config, overwrite_default, write_default};
pub use fields::{FIELDS, Field, Kind, Platform, Support};
pub use fit::capability_names;
pub use parts::{RESOURCES, check_resources, parse_resources, read_mounts};
use report::Report;

/// The version of runtime-spec that is implemented.
pub const SPECIFICATION: &str = "1.3.0";

/// The first version whose configurations are taken.
pub const SPECIFICATION_FIRST: &str = "1.0.0";

/// What annotations begin with that have a say in the filter, whatever `linux.seccomp` says.
const ABOUT_FILTERS: &str = "run.oci.seccomp";

/// A bundle whose configuration passed every check.
#[derive(Debug, Clone)]
pub struct Bundle {
    /// The bundle's directory, absolute and without symbolic links.
    pub dir: PathBuf,
    /// The file of the configuration: config.json in that directory, or another.
    pub config: PathBuf,
    /// The configuration. Absent is absent: no field has a value that config.json does not give,
    /// and an empty optional string, like null, counts as absent. `process`, `root` and
    /// `process.args[0]` are there; mappings are sound; `fileMode` has no file type in it.
    pub spec: Spec,
    /// The directory `root.path`, absolute and without symbolic links.
    pub rootfs: PathBuf,
    /// The text of `linux.seccomp`, if that decides on the filter by itself, has nothing that a person should
    /// know, and was not known: for whoever keeps what comes of it.
    pub profile: Option<String>,
    /// What a person should know though the container runs, each with its JSON path, for the
    /// log at warning level.
    pub warnings: Vec<String>,
}

impl Bundle {
    /// Reads the bundle in `dir`, with the configuration in the file `config` if it is not the bundle's
    /// own config.json, and checks all of it.
    ///
    /// # Errors
    ///
    /// One line that names the path when there is no JSON object to check; else the
    /// [`Problems`](crate::error::Problems) of the configuration, all at once.
    pub fn load(dir: &Path, config: Option<&Path>) -> Result<Bundle> {
        Bundle::load_known(dir, config, |_profile| false)
    }

    /// Reads the bundle as [`Bundle::load`]. Where `known` says of the text of `linux.seccomp` that it was
    /// found right before, and what comes of it, this is left out of `spec`.
    ///
    /// # Errors
    ///
    /// As for [`Bundle::load`].
    pub fn load_known(
        dir: &Path,
        config: Option<&Path>,
        known: impl FnOnce(&str) -> bool,
    ) -> Result<Bundle> {
        Bundle::load_changed(dir, config, known, "", |_config| Ok(()))
    }

    /// Reads the bundle as [`Bundle::load_known`], with another `process`, which `change` makes of its own, as
    /// for `exec`. All of it is checked; what is wrong is told with the name of the file and `origin`,
    /// where the process comes from.
    ///
    /// # Errors
    ///
    /// As for [`Bundle::load`], and what `change` says.
    pub fn load_with(
        dir: &Path,
        config: Option<&Path>,
        known: impl FnOnce(&str) -> bool,
        origin: &str,
        change: impl FnOnce(&mut Value) -> Result<()>,
    ) -> Result<Bundle> {
        let change = |config: &mut Value| change(&mut config["process"]);
        Bundle::load_changed(dir, config, known, origin, change)
    }

    /// Reads the bundle as [`Bundle::load_known`], as if its configuration were what `change` makes of it, which
    /// comes from `origin`.
    ///
    /// # Errors
    ///
    /// As for [`Bundle::load`], and what `change` says.
    pub fn load_changed(
        dir: &Path,
        config: Option<&Path>,
        known: impl FnOnce(&str) -> bool,
        origin: &str,
        change: impl FnOnce(&mut Value) -> Result<()>,
    ) -> Result<Bundle> {
        let dir = read::directory(dir)?;
        let file = config.map_or_else(|| read::config_path(&dir), Path::to_path_buf);
        let bytes = read::config(&file)?;
        let parsed = Parsed::new(&bytes, known).with_context(|| format!("{file:?}"))?;
        Bundle::checked(dir, file, parsed, origin, change)
    }

    /// Checks the bundle in `dir` as if these bytes were its config.json.
    ///
    /// # Errors
    ///
    /// As for [`Bundle::load`].
    #[cfg(any(test, feature = "fuzzing"))]
    #[doc(hidden)]
    pub fn of_bytes(dir: &Path, bytes: &[u8]) -> Result<Bundle> {
        let file = read::config_path(dir);
        let parsed = Parsed::new(bytes, |_profile| false)?;
        Bundle::checked(dir.to_owned(), file, parsed, "", |_config| Ok(()))
    }

    fn checked(
        dir: PathBuf,
        file: PathBuf,
        parsed: Parsed<'_>,
        origin: &str,
        change: impl FnOnce(&mut Value) -> Result<()>,
    ) -> Result<Bundle> {
        let Parsed {
            mut config,
            profile,
        } = parsed;
        change(&mut config)?;
        let mut report = Report::default();
        examine(&mut config, &mut report);
        let rootfs = checks::root(&config, &dir, &mut report);
        let context = || format!("{file:?}{origin}");
        report.refuse_problems().with_context(context)?;
        let spec = fit::fit(&mut config, &mut report).with_context(context)?;
        // A missing path was a problem, hence refused above.
        let rootfs = rootfs.context("root.path: is required")?;
        let warnings = report.into_warnings();
        let tells = |warning: &String| warning.starts_with("linux.seccomp");
        let profile = profile.filter(|_| !warnings.iter().any(tells));
        Ok(Bundle {
            dir,
            config: file,
            spec,
            rootfs,
            profile: profile.map(str::to_owned),
            warnings,
        })
    }

    /// The entry of `linux.namespaces` for this type; None when the container is to be in the
    /// runtime's own (config-linux.md, "Namespaces").
    pub fn namespace(&self, kind: LinuxNamespaceType) -> Option<&LinuxNamespace> {
        let list = self.spec.linux().as_ref()?.namespaces().as_ref()?;
        list.iter().find(|entry| entry.typ() == kind)
    }

    /// True when a new namespace of this type is to be made: listed, and without a path.
    pub fn is_new(&self, kind: LinuxNamespaceType) -> bool {
        self.namespace(kind)
            .is_some_and(|entry| entry.path().is_none())
    }

    /// `mounts` in the order in which they are to be made (config.md, "Mounts").
    pub fn mounts(&self) -> &[Mount] {
        self.spec.mounts().as_deref().unwrap_or_default()
    }

    /// `linux.devices`, without the default devices (config-linux.md, "Devices").
    pub fn devices(&self) -> &[LinuxDevice] {
        let linux = self.spec.linux().as_ref();
        linux
            .and_then(|linux| linux.devices().as_deref())
            .unwrap_or_default()
    }

    /// `linux.uidMappings`; not to be applied when the user namespace is joined by path
    /// (config-linux.md, "User namespace mappings").
    pub fn uid_mappings(&self) -> &[LinuxIdMapping] {
        let linux = self.spec.linux().as_ref();
        linux
            .and_then(|linux| linux.uid_mappings().as_deref())
            .unwrap_or_default()
    }

    /// `linux.gidMappings`, as [`Bundle::uid_mappings`].
    pub fn gid_mappings(&self) -> &[LinuxIdMapping] {
        let linux = self.spec.linux().as_ref();
        linux
            .and_then(|linux| linux.gid_mappings().as_deref())
            .unwrap_or_default()
    }
}

/// config.json as a value, without a `linux.seccomp` that is known.
struct Parsed<'a> {
    config: Value,
    /// The text of a `linux.seccomp` that is not.
    profile: Option<&'a str>,
}

impl<'a> Parsed<'a> {
    fn new(bytes: &'a [u8], known: impl FnOnce(&str) -> bool) -> Result<Parsed<'a>> {
        let (mut config, profile) = read::parse_apart(bytes)?;
        let Some(text) = profile else {
            return Ok(Parsed { config, profile });
        };
        let has_a_say = |annotations: &serde_json::Map<String, Value>| {
            annotations
                .keys()
                .any(|name| name.starts_with(ABOUT_FILTERS))
        };
        let alone = !config["annotations"].as_object().is_some_and(has_a_say);
        if alone && known(text) {
            let profile = None;
            return Ok(Parsed { config, profile });
        }
        match strict::from_str(text) {
            Ok(value) => config["linux"]["seccomp"] = value,
            // Where in the whole file, that is to be told.
            Err(_) => config = read::parse(bytes)?,
        }
        let profile = profile.filter(|_| alone);
        Ok(Parsed { config, profile })
    }
}

/// The JSON object in a file, as for a `process` that does not stand in config.json.
///
/// # Errors
///
/// One line that names the path.
pub fn read_object(path: &Path) -> Result<Value> {
    read::object(path)
}

/// Everything that can be said without the bundle's directory: the table, then the checks.
fn examine(config: &mut Value, report: &mut Report) {
    if let Some(fields) = config.as_object_mut() {
        walk::walk(fields, report);
    }
    checks::check(config, report);
}

#[cfg(test)]
pub(crate) mod tests;
