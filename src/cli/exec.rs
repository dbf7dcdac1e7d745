//! The arguments of `exec`, with runc's names and meaning.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Args;

use crate::lifecycle::described::{Changes, Given};
use crate::lifecycle::exec::ExecRequest;
use crate::lifecycle::id::ContainerId;

#[derive(Debug, Args)]
pub(super) struct Execution {
    /// Unix socket that receives the terminal
    #[arg(long)]
    console_socket: Option<PathBuf>,
    /// Unix socket that receives the pidfd
    #[arg(long)]
    pidfd_socket: Option<PathBuf>,
    /// Working directory inside
    #[arg(long)]
    cwd: Option<String>,
    /// Added to the environment
    #[arg(long, short, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// With a terminal
    #[arg(long, short)]
    tty: bool,
    /// User and group by number
    #[arg(long, short, value_name = "UID[:GID]")]
    user: Option<String>,
    /// Further groups by number
    #[arg(long, short = 'g', value_name = "GID", value_delimiter = ',')]
    additional_gids: Vec<u32>,
    /// File that describes the process, as config.json does
    #[arg(long, short, value_name = "FILE")]
    process: Option<PathBuf>,
    /// Return when the program was executed
    #[arg(long, short)]
    detach: bool,
    /// File that receives the process id
    #[arg(long)]
    pid_file: Option<PathBuf>,
    /// SELinux label
    #[arg(long, value_name = "LABEL")]
    process_label: Option<String>,
    /// AppArmor profile
    #[arg(long, value_name = "PROFILE")]
    apparmor: Option<String>,
    /// Privileges can not be raised
    #[arg(long)]
    no_new_privs: bool,
    /// Capability that is added, as CAP_KILL
    #[arg(long, short, value_name = "NAME")]
    cap: Vec<String>,
    /// How many descriptors after stderr the program gets
    #[arg(long, default_value_t = 0)]
    preserve_fds: u32,
    /// Cgroup below the container's
    #[arg(long, value_name = "PATH")]
    cgroup: Option<PathBuf>,
    /// Also in a paused container
    #[arg(long)]
    ignore_paused: bool,
    pub(super) id: String,
    /// The program and its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

impl Execution {
    pub(super) fn request(self, root: PathBuf) -> Result<ExecRequest> {
        let id = ContainerId::parse(&self.id)?;
        if self.process.is_none() && self.command.is_empty() {
            bail!("a program is needed: after the id, or described by --process");
        }
        let process = match self.process {
            Some(file) => Given::File(file),
            None => Given::Changed(Changes {
                args: self.command,
                cwd: self.cwd,
                env: self.env,
                terminal: self.tty,
                user: self.user.as_deref().map(user).transpose()?,
                additional_gids: self.additional_gids,
                capabilities: self.cap,
                no_new_privileges: self.no_new_privs,
                apparmor: self.apparmor,
                label: self.process_label,
            }),
        };
        Ok(ExecRequest {
            root,
            id,
            process,
            detach: self.detach,
            console_socket: self.console_socket,
            pid_file: self.pid_file,
            pidfd_socket: self.pidfd_socket,
            preserve_fds: self.preserve_fds,
            cgroup: self.cgroup,
            ignore_paused: self.ignore_paused,
        })
    }
}

pub(super) fn user(text: &str) -> Result<(u32, Option<u32>)> {
    let (uid, gid) = match text.split_once(':') {
        Some((uid, gid)) => (uid, Some(gid)),
        None => (text, None),
    };
    match (number(uid), gid.map(number)) {
        (Some(uid), None) => Ok((uid, None)),
        (Some(uid), Some(Some(gid))) => Ok((uid, Some(gid))),
        (None, _) | (_, Some(None)) => {
            bail!("--user {text:?}: must be UID or UID:GID, in numbers")
        }
    }
}

/// Digits and nothing else: what is read as another number than was meant is another user.
fn number(text: &str) -> Option<u32> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_a_number_or_two() {
        assert_eq!(user("5").unwrap(), (5, None));
        assert_eq!(user("0:7").unwrap(), (0, Some(7)));
        for wrong in [
            "",
            ":",
            "5:",
            ":5",
            "+5",
            "-1",
            "1:2:3",
            "root",
            " 1",
            "4294967296",
            "0x1",
        ] {
            assert!(user(wrong).is_err(), "{wrong:?}");
        }
    }
}
