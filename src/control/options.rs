//! What parheliond is told on its command line.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Parser;

use crate::agent;
use crate::network;

/// The supervisor: keeps jobs running on this host, and answers parctl.
#[derive(Debug, Clone, Parser)]
#[command(name = "parheliond", version)]
pub struct Options {
    /// Name of this host; by default the kernel's
    #[arg(long, value_name = "NAME")]
    pub host: Option<String>,
    /// Directory of everything that is to survive: what should run, and what is known of instances
    #[arg(long, value_name = "DIR", default_value = "/var/lib/parhelion")]
    pub state: PathBuf,
    /// Unix socket at which parctl asks; for its owner only
    #[arg(
        long,
        value_name = "PATH",
        default_value = "/run/parhelion/parheliond.sock"
    )]
    pub socket: PathBuf,
    /// The runtime; by default the parhelion beside this program, or else the one on PATH
    #[arg(long, value_name = "PROGRAM")]
    pub runtime: Option<PathBuf>,
    /// Directory of the containers' state, as for parhelion --root
    #[arg(long, value_name = "DIR", default_value = "/run/parhelion/containers")]
    pub root: PathBuf,
    /// Cgroup below which those of instances are made
    #[arg(long, value_name = "CGROUP", default_value = "/parhelion")]
    pub cgroup_parent: String,
    /// Bridge that is made for jobs with network = "bridge", and table in nftables
    #[arg(long, value_name = "NAME", default_value = network::BRIDGE)]
    pub bridge: String,
    /// Network of that bridge; one that this host has no route to
    #[arg(long, value_name = "NETWORK", default_value = network::SUBNET)]
    pub subnet: network::Subnet,
    /// Start no daemon, but end all instances: the host is going down. Seconds after which they are killed whose grace is longer
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, require_equals = true, default_missing_value = "90")]
    pub halt: Option<u32>,
    /// Tell every decision on stderr
    #[arg(long)]
    pub debug: bool,
}

impl Options {
    /// The host's name.
    ///
    /// # Errors
    ///
    /// It can be no part of a key or of a file's name.
    pub fn host(&self) -> Result<String> {
        let name = match &self.host {
            Some(name) => name.clone(),
            None => rustix::system::uname().nodename().to_string_lossy().into(),
        };
        let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        let begins = name.starts_with(|c: char| c.is_ascii_alphanumeric());
        if !begins || name.len() > 63 || !name.chars().all(allowed) {
            bail!(
                "--host {name:?}: must be 1 to 63 letters, digits, -, _ and ., the first one a letter or digit"
            );
        }
        Ok(name)
    }

    /// What the agent is told.
    ///
    /// # Errors
    ///
    /// Something of it is none.
    pub fn agent(&self) -> Result<agent::Options> {
        Ok(agent::Options {
            host: self.host()?,
            state: self.state.join("agent"),
            runtime: self.runtime()?,
            root: self.root.clone(),
            cgroup_parent: self.cgroup_parent.clone(),
            network: self.network()?,
        })
    }

    /// The networks that are made.
    ///
    /// # Errors
    ///
    /// The bridge's name is none.
    pub fn network(&self) -> Result<network::Options> {
        let network = network::Options {
            bridge: self.bridge.clone(),
            subnet: self.subnet,
        };
        network.check()?;
        Ok(network)
    }

    /// The runtime's program, absolute.
    ///
    /// # Errors
    ///
    /// There is none.
    pub fn runtime(&self) -> Result<PathBuf> {
        if let Some(given) = &self.runtime {
            let path = std::path::absolute(given);
            let path = path.with_context(|| format!("--runtime {given:?}"))?;
            if !path.is_file() {
                bail!("--runtime {path:?}: there is no such program");
            }
            return Ok(path);
        }
        let own = std::env::current_exe().context("the path of this program")?;
        let path = std::env::var_os("PATH").unwrap_or_default();
        let beside = own.parent().map(PathBuf::from);
        let found = beside
            .into_iter()
            .chain(std::env::split_paths(&path))
            .map(|folder| folder.join("parhelion"))
            .find(|program| program.is_file());
        found.context("there is no parhelion beside this program or on PATH: give --runtime")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(name: &str) -> Result<String> {
        Options::parse_from(["parheliond", "--host", name]).host()
    }

    #[test]
    fn a_hosts_name_fits_into_keys() {
        assert_eq!(host("web-1.example").unwrap(), "web-1.example");
        for wrong in ["", "a/b", "-a", ".", "a b", &"a".repeat(64)] {
            let options = Options::parse_from(["parheliond", &format!("--host={wrong}")]);
            assert!(options.host().is_err(), "{wrong}");
        }
    }

    #[test]
    fn every_option_is_documented() {
        use clap::CommandFactory as _;
        for option in Options::command().get_arguments() {
            assert!(option.get_help().is_some(), "{}", option.get_id());
        }
    }
}
