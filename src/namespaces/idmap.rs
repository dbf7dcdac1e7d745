//! The id maps of a new user namespace, written from outside by the runtime (user_namespaces(7)).
//!
//! Root, of the host or of a user namespace, writes them itself. The kernel lets a user map its own id
//! only, and its own group if setgroups(2) is given up before. For all else there are newuidmap(1) and
//! newgidmap(1), which are privileged and look up what was allotted to the user.

use std::fmt;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, anyhow, bail};
use oci_spec::runtime::LinuxIdMapping;
use rustix::process::Pid;

use crate::sys::attributes::effective_uid;

/// One of the two maps: its file in /proc/PID, who else writes it, what those look up, and where
/// config.json has it.
struct Kind {
    file: &'static str,
    helper: &'static str,
    allotted: &'static str,
    json_path: &'static str,
}

const UIDS: Kind = Kind {
    file: "uid_map",
    helper: "newuidmap",
    allotted: "/etc/subuid",
    json_path: "linux.uidMappings",
};

const GIDS: Kind = Kind {
    file: "gid_map",
    helper: "newgidmap",
    allotted: "/etc/subgid",
    json_path: "linux.gidMappings",
};

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
    /// `EPERM` for ids that the caller does not hold, `EINVAL` for ranges that overlap; that newuidmap(1)
    /// or newgidmap(1) is needed and missing, or refuses.
    pub fn write(&self, pid: Pid) -> Result<()> {
        let user = effective_uid();
        if user == 0 {
            write(pid, UIDS.file, &self.uids)?;
            return write(pid, GIDS.file, &self.gids);
        }
        match is_only(&self.uids, user) {
            true => write(pid, UIDS.file, &self.uids)?,
            false => ask(&UIDS, pid, &self.uids)?,
        }
        if !is_only(&self.gids, rustix::process::getegid().as_raw()) {
            return ask(&GIDS, pid, &self.gids);
        }
        write(pid, "setgroups", "deny")?;
        write(pid, GIDS.file, &self.gids)
    }
}

/// Whether the map is of this one id of the host.
fn is_only(lines: &str, id: u32) -> bool {
    let id = id.to_string();
    let mut words = lines.split_whitespace().skip(1);
    words.next() == Some(&id) && words.next() == Some("1") && words.next().is_none()
}

fn write(pid: Pid, file: &str, text: &str) -> Result<()> {
    let folder = PathBuf::from(format!("/proc/{}", pid.as_raw_nonzero()));
    std::fs::write(folder.join(file), text)
        .with_context(|| format!("{file} of process {}", pid.as_raw_nonzero()))
}

/// Has the map written by who may.
fn ask(kind: &Kind, pid: Pid, lines: &str) -> Result<()> {
    let Kind {
        helper, json_path, ..
    } = kind;
    let run = Command::new(helper)
        .arg(pid.as_raw_nonzero().to_string())
        .args(lines.split_whitespace())
        .stdin(Stdio::null())
        .output();
    let ended = run.map_err(|error| match error.kind() == ErrorKind::NotFound {
        true => anyhow!(
            "{json_path}: needs {helper}(1), as these are more than the user's own id, and there is \
             none in PATH: install it (Debian's package uidmap), or map that one id alone"
        ),
        false => anyhow!(error).context(format!("{json_path}: run {helper}(1)")),
    })?;
    if ended.status.success() {
        return Ok(());
    }
    let (allotted, status) = (kind.allotted, ended.status);
    let said = String::from_utf8_lossy(&ended.stderr);
    let said = said.trim().trim_start_matches(&format!("{helper}: "));
    bail!(
        "{json_path}: {helper}(1): {said} ({status}; {allotted} says what ranges a user has, and it \
         needs its set-user-ID bit or file capabilities in effect)"
    )
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_of_ones_own_id_needs_no_help() {
        assert!(is_only("0 1000 1\n", 1000));
        assert!(is_only("1000 1000 1\n", 1000));
        for other in ["0 1000 2\n", "0 1001 1\n", "0 1000 1\n1 100000 65536\n", ""] {
            assert!(!is_only(other, 1000), "{other:?}");
        }
    }
}
