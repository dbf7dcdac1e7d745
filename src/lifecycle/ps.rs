//! Which processes are inside: `ps`.
//!
//! The cgroup knows them; ps(1) of the host describes them.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::id::ContainerId;
use super::query;
use super::record::Snapshot;

/// The pids of all processes inside, in the runtime's pid namespace; none when it has stopped.
///
/// # Errors
///
/// [`crate::error::Kind::NotFound`]; or what the cgroup file system answered.
pub fn pids(root: &Path, id: &ContainerId) -> Result<Vec<i32>> {
    let container = Snapshot::read(root, id)?;
    match query::cgroup(&container)? {
        Some(cgroup) => cgroup.pids(),
        None => Ok(Vec::new()),
    }
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
