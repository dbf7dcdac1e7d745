//! Namespaces of one container that others are made in, as those of a group: held open, so that they are
//! there for whoever joins them though their first process may have ended.

use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::record::Snapshot;
use crate::namespaces::{self, Kind};

/// A namespace that a container is made in, whatever its configuration says of that kind.
#[derive(Debug, Clone)]
pub struct Join {
    kind: Kind,
    /// The namespace's file.
    path: PathBuf,
}

/// Namespaces of a container that are held open.
#[derive(Debug)]
pub struct Held(Vec<(Kind, OwnedFd)>);

impl Held {
    /// Opens namespaces of a container by their names in config.json.
    ///
    /// # Errors
    ///
    /// It has no process; what the kernel answered.
    pub fn of(container: &Snapshot, names: &[&str]) -> Result<Held> {
        let process = container.init.as_ref().context("it has no process")?;
        let open = |name: &&str| {
            let kind = Kind::named(name).with_context(|| format!("{name} is no namespace"))?;
            Ok((kind, namespaces::open_of(process.pid, kind)?))
        };
        let held: Result<Vec<_>> = names.iter().map(open).collect();
        let held = Held(held?);
        // The pid was this process' all the time, if it lives now.
        process.open()?.context("its process has ended")?;
        Ok(held)
    }

    /// What a container joins that is to be in those of these names. Valid while this value lives.
    #[must_use]
    pub fn join(&self, names: &[&str]) -> Vec<Join> {
        let asked = self
            .0
            .iter()
            .filter(|(kind, _)| names.contains(&kind.name()));
        let join = |(kind, fd): &(Kind, OwnedFd)| Join {
            kind: *kind,
            path: PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd())),
        };
        asked.map(join).collect()
    }
}

impl Join {
    /// Makes a configuration one of a container in this namespace. What belongs to the namespace is its
    /// owner's: host name, id mappings and clocks of the configuration are left out.
    ///
    /// # Errors
    ///
    /// It names another one by its path.
    pub(super) fn apply(&self, config: &mut Value) -> Result<()> {
        let name = self.kind.name();
        if let Some(fields) = config.as_object_mut() {
            if self.kind == Kind::Uts {
                fields.retain(|field, _| field != "hostname" && field != "domainname");
            }
            fields.entry("linux").or_insert_with(|| json!({}));
        }
        let Some(linux) = config.get_mut("linux").and_then(Value::as_object_mut) else {
            return Ok(()); // as the checks will say
        };
        match self.kind {
            Kind::User => linux.retain(|field, _| field != "uidMappings" && field != "gidMappings"),
            Kind::Time => linux.retain(|field, _| field != "timeOffsets"),
            Kind::Mount | Kind::Pid | Kind::Network | Kind::Ipc | Kind::Uts | Kind::Cgroup => {}
        }
        let list = linux.entry("namespaces").or_insert_with(|| json!([]));
        let Some(list) = list.as_array_mut() else {
            return Ok(());
        };
        let joined = json!({ "type": name, "path": self.path });
        match list.iter().position(|entry| entry["type"] == name) {
            Some(i) if !list[i]["path"].is_null() => {
                bail!(
                    "linux.namespaces[{i}].path: it is in its group's {name} namespace: remove this"
                )
            }
            Some(i) => list[i] = joined,
            None => list.push(joined),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_has_the_namespace_instead_of_one_of_its_own() {
        let join = |kind| Join {
            kind,
            path: "/proc/self/fd/9".into(),
        };
        let mut config = json!({"hostname": "h", "linux": {"uidMappings": [],
            "namespaces": [{"type": "uts"}, {"type": "ipc", "path": "/run/ipc"}]}});
        for kind in [Kind::Uts, Kind::User] {
            join(kind).apply(&mut config).unwrap();
        }
        let expected = json!({"linux": {"namespaces": [
            {"type": "uts", "path": "/proc/self/fd/9"}, {"type": "ipc", "path": "/run/ipc"},
            {"type": "user", "path": "/proc/self/fd/9"}]}});
        assert_eq!(config, expected);
        let told = join(Kind::Ipc).apply(&mut config).unwrap_err().to_string();
        assert!(told.starts_with("linux.namespaces[1].path: "), "{told}");
        let mut nothing = json!({});
        join(Kind::Pid).apply(&mut nothing).unwrap();
        assert_eq!(nothing["linux"]["namespaces"][0]["type"], "pid");
        for wrong in [json!({"linux": 1}), json!({"linux": {"namespaces": "x"}})] {
            let mut config = wrong.clone();
            join(Kind::Pid).apply(&mut config).unwrap();
            assert_eq!(config, wrong);
        }
    }
}
