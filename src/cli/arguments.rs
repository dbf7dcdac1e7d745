//! What can be said to each verb, with runc's flags and their meaning.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;

use super::Cgroups;
use crate::lifecycle::CreateRequest;
use crate::lifecycle::id::ContainerId;

#[derive(Debug, Args)]
pub(super) struct Container {
    pub(super) id: String,
}

#[derive(Debug, Args)]
pub(super) struct Nothing {}

#[derive(Debug, Args)]
pub(super) struct Mounting {
    #[arg(value_parser = ["add", "remove"])]
    pub(super) action: String,
    pub(super) id: String,
    /// JSON array as mounts of config.json, or - for standard input; remove reads destinations only
    pub(super) file: PathBuf,
}

#[derive(Debug, Args)]
pub(super) struct Running {
    #[command(flatten)]
    pub(super) creation: Creation,
    /// Return when the program was executed
    #[arg(long, short)]
    pub(super) detach: bool,
    /// Leave the stopped container for state and delete
    #[arg(long)]
    pub(super) keep: bool,
}

#[derive(Debug, Args)]
pub(super) struct Killing {
    /// To all processes of the container
    #[arg(long, short)]
    pub(super) all: bool,
    /// To all containers whose id matches the regular expression ID
    #[arg(long, short)]
    pub(super) regex: bool,
    pub(super) id: String,
    /// Name or number
    #[arg(default_value = "TERM")]
    pub(super) signal: String,
}

#[derive(Debug, Args)]
pub(super) struct Deletion {
    /// Also one that runs; that there is none is no error
    #[arg(long, short)]
    pub(super) force: bool,
    /// All containers whose id matches the regular expression ID
    #[arg(long, short)]
    pub(super) regex: bool,
    pub(super) id: String,
}

#[derive(Debug, Args)]
pub(super) struct Listing {
    #[arg(long, short, default_value = "table", value_parser = ["table", "json"])]
    pub(super) format: String,
    /// Only ids
    #[arg(long, short)]
    pub(super) quiet: bool,
    /// Only containers whose id matches this regular expression
    #[arg(long, short, allow_hyphen_values = true)]
    pub(super) regex: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct Specification {
    /// For a user without privileges
    #[arg(long)]
    pub(super) rootless: bool,
    /// The bundle's directory
    #[arg(long, short, default_value = ".")]
    pub(super) bundle: PathBuf,
    /// Write to this file instead of config.json, also over what is there; a path counts from the bundle
    #[arg(long, short)]
    pub(super) file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct Watching {
    /// Time from one line of stats to the next; 0: no stats
    #[arg(long, value_name = "TIME", default_value = "5s")]
    pub(super) interval: String,
    /// Print stats once
    #[arg(long)]
    pub(super) stats: bool,
    /// Tell when processes stall so long within a window, as memory=200ms/2s or io:full=1s/10s; or none
    #[arg(long, value_name = "THRESHOLD")]
    pub(super) pressure: Vec<String>,
    pub(super) id: String,
}

#[derive(Debug, Args)]
pub(super) struct Processes {
    #[arg(long, short, default_value = "table", value_parser = ["table", "json"])]
    pub(super) format: String,
    /// The container's id, then options for ps(1)
    #[arg(value_names = ["ID", "PS-OPTIONS"], num_args = 1.., required = true)]
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(super) id_and_options: Vec<String>,
}

impl Processes {
    /// What follows the id is ps(1)'s, also what could be a flag of ours.
    pub(super) fn id(&self) -> &str {
        self.id_and_options.first().map_or("", String::as_str)
    }
}

// What `create` and `run` have in common. (A doc comment would be the verb's line in the help.)
#[derive(Debug, Args)]
pub(super) struct Creation {
    /// The bundle's directory
    #[arg(long, short, default_value = ".")]
    pub(super) bundle: PathBuf,
    /// File of the configuration; config.json is the bundle's, another path counts from here
    #[arg(long, short = 'f', value_name = "FILE", default_value = OWN)]
    pub(super) config: PathBuf,
    /// Unix socket that receives the terminal
    #[arg(long)]
    pub(super) console_socket: Option<PathBuf>,
    /// File that receives the process id
    #[arg(long)]
    pub(super) pid_file: Option<PathBuf>,
    /// Unix socket that receives the pidfd
    #[arg(long)]
    pub(super) pidfd_socket: Option<PathBuf>,
    /// How many descriptors after stderr the program gets
    #[arg(long, default_value_t = 0)]
    pub(super) preserve_fds: u32,
    /// Mount over / instead of pivot_root, on a ramdisk
    #[arg(long)]
    pub(super) no_pivot: bool,
    /// Stay in the caller's session keyring
    #[arg(long)]
    pub(super) no_new_keyring: bool,
    /// Leave the container's orphans to the host; create does so in any case
    #[arg(long)]
    pub(super) no_subreaper: bool,
    pub(super) id: String,
}

/// The configuration that belongs to the bundle, wherever that is.
const OWN: &str = "config.json";

impl Creation {
    /// What `create` and `run` are asked to do.
    pub(super) fn request(self, root: PathBuf, cgroups: Cgroups) -> Result<CreateRequest> {
        let bundle = std::path::absolute(&self.bundle)
            .with_context(|| format!("--bundle {:?}", self.bundle))?;
        let config = match self.config.as_os_str() == OWN {
            true => None,
            false => Some(
                std::path::absolute(&self.config)
                    .with_context(|| format!("--config {:?}", self.config))?,
            ),
        };
        Ok(CreateRequest {
            root,
            id: ContainerId::parse(&self.id)?,
            bundle,
            config,
            console_socket: self.console_socket,
            pid_file: self.pid_file,
            pidfd_socket: self.pidfd_socket,
            preserve_fds: self.preserve_fds,
            no_pivot: self.no_pivot,
            no_new_keyring: self.no_new_keyring,
            cgroup_manager: cgroups.manager,
            rootless: cgroups.rootless,
            annotations: BTreeMap::new(),
            joins: Vec::new(),
        })
    }
}
