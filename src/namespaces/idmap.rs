//! The id maps of a new user namespace, written from outside by the runtime (user_namespaces(7)).

use std::fmt;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use oci_spec::runtime::LinuxIdMapping;
use rustix::process::Pid;

/// What stands in /proc/PID/uid_map and gid_map.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IdMaps {
    uids: String,
    gids: String,
}

impl IdMaps {
    /// The maps of `linux.uidMappings` and `linux.gidMappings`, which were checked before.
    #[must_use]
    pub fn new(uids: &Option<Vec<LinuxIdMapping>>, gids: &Option<Vec<LinuxIdMapping>>) -> Self {
        let lines = |mappings: &Option<Vec<LinuxIdMapping>>| {
            let line =
                |m: &LinuxIdMapping| format!("{} {} {}\n", m.container_id(), m.host_id(), m.size());
            mappings.iter().flatten().map(line).collect()
        };
        IdMaps {
            uids: lines(uids),
            gids: lines(gids),
        }
    }

    /// Gives the namespace of process `pid` these maps. Each file takes one write, once.
    ///
    /// # Errors
    ///
    /// `EPERM` for ids that the caller does not hold, `EINVAL` for ranges that overlap.
    pub fn write(&self, pid: Pid) -> Result<()> {
        let folder = PathBuf::from(format!("/proc/{}", pid.as_raw_nonzero()));
        for (file, lines) in [("uid_map", &self.uids), ("gid_map", &self.gids)] {
            std::fs::write(folder.join(file), lines)
                .with_context(|| format!("{file} of process {}", pid.as_raw_nonzero()))?;
        }
        Ok(())
    }
}

impl fmt::Display for IdMaps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, lines) in [("uids", &self.uids), ("gids", &self.gids)] {
            writeln!(
                f,
                "{name}   {}",
                lines.lines().collect::<Vec<_>>().join(", ")
            )?;
        }
        Ok(())
    }
}
