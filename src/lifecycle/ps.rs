//! Which processes are inside: `ps`.
//!
//! The cgroup knows them, or their pid namespace where there is no cgroup; ps(1) of the host describes
//! them.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::freeze::NO_CGROUP;
use super::id::ContainerId;
use super::query;
use super::record::Snapshot;

/// The pids of all processes inside, in the runtime's pid namespace; none when it has stopped.
///
/// # Errors
///
/// [`crate::error::Kind::NotFound`]; what the cgroup file system answered; that nothing tells them from
/// others.
pub fn pids(root: &Path, id: &ContainerId) -> Result<Vec<i32>> {
    let container = Snapshot::read(root, id)?;
    match (query::cgroup(&container)?, &container.facts.cgroup) {
        (Some(cgroup), _) => cgroup.pids(),
        (None, Some(_gone)) => Ok(Vec::new()),
        (None, None) => Namespace::of(&container)?.map_or(Ok(Vec::new()), |inside| inside.pids()),
    }
}

/// The pid namespace of a container that has no cgroup, which is the container's alone: its link in /proc.
pub(super) struct Namespace(PathBuf);

impl Namespace {
    /// None when the container has stopped.
    ///
    /// # Errors
    ///
    /// It shares its pid namespace with others; or its init does not let itself be looked into.
    pub fn of(container: &Snapshot) -> Result<Option<Namespace>> {
        if !container.facts.own_pid_namespace {
            bail!("{NO_CGROUP}; and it shares its pid namespace");
        }
        let Some(init) = &container.init else {
            return Ok(None);
        };
        let Some(_alive) = init.open()? else {
            return Ok(None);
        };
        let own =
            link(init.pid).context("the pid namespace of the container's init can not be seen")?;
        Ok(Some(Namespace(own)))
    }

    /// Whether the process is inside. One that is gone, or is somebody else's and does not let itself be
    /// looked into, is not.
    pub fn has(&self, pid: i32) -> bool {
        link(pid).is_some_and(|link| link == self.0)
    }

    /// Its processes, in the order of their pids.
    ///
    /// # Errors
    ///
    /// /proc can not be read.
    pub fn pids(&self) -> Result<Vec<i32>> {
        let pid = |entry: std::io::Result<std::fs::DirEntry>| {
            let pid = entry.ok()?.file_name().to_str()?.parse().ok()?;
            self.has(pid).then_some(pid)
        };
        let all = std::fs::read_dir("/proc").context("/proc")?;
        let mut pids: Vec<i32> = all.filter_map(pid).collect();
        pids.sort_unstable();
        Ok(pids)
    }
}

fn link(pid: i32) -> Option<PathBuf> {
    std::fs::read_link(format!("/proc/{pid}/ns/pid")).ok()
}

/// What ps(1) prints with these options (`-ef` without any), but only the container's processes.
///
/// # Errors
///
/// As [`pids`]; and when ps(1) is missing, fails, or prints no column `PID`.
pub fn table(root: &Path, id: &ContainerId, options: &[String]) -> Result<String> {
    let pids = pids(root, id)?;
    let all = ["-ef".to_owned()];
    let options = if options.is_empty() {
        &all[..]
    } else {
        options
    };
    let output = Command::new("ps")
        .args(options)
        .output()
        .context("run ps(1)")?;
    if !output.status.success() {
        bail!(
            "ps(1): {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    filter(&String::from_utf8_lossy(&output.stdout), &pids)
}

/// The header and the lines of these processes.
fn filter(table: &str, pids: &[i32]) -> Result<String> {
    let mut lines = table.lines().filter(|line| !line.trim().is_empty());
    let header = lines.next().context("ps(1) printed nothing")?;
    let column = header.split_whitespace().position(|name| name == "PID");
    let column =
        column.context("ps(1) printed no column PID: choose options that make it do so")?;
    let mut kept = format!("{header}\n");
    for line in lines {
        let pid = line
            .split_whitespace()
            .nth(column)
            .and_then(|field| field.parse().ok());
        let pid: i32 = pid.with_context(|| format!("ps(1): no pid in {line:?}"))?;
        if pids.contains(&pid) {
            kept.push_str(line);
            kept.push('\n');
        }
    }
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str =
        "UID  PID PPID CMD\nroot   1    0 init\nroot  12    1 web 13\nwww   13   12 web\n";

    #[test]
    fn only_lines_whose_pid_is_inside_are_kept() {
        let kept = filter(TABLE, &[12, 13]).unwrap();
        assert_eq!(
            kept,
            "UID  PID PPID CMD\nroot  12    1 web 13\nwww   13   12 web\n"
        );
        assert_eq!(filter(TABLE, &[]).unwrap(), "UID  PID PPID CMD\n");
    }

    #[test]
    fn a_table_without_pids_is_refused() {
        let error = filter("CMD\nweb\n", &[1]).unwrap_err().to_string();
        assert!(error.contains("no column PID"), "{error}");
        assert!(filter("", &[1]).is_err());
        assert!(filter("PID\nx\n", &[1]).is_err());
    }
}
