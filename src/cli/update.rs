//! The flags of `update`, with runc's names.

use std::path::PathBuf;

use clap::{Arg, ArgMatches, Args, Command, FromArgMatches};

use crate::lifecycle::update::{FLAGS, UpdateRequest};

#[derive(Debug, Args)]
pub(super) struct Updating {
    /// File with the JSON object linux.resources, or - for standard input; other flags are ignored
    #[arg(long, short, value_name = "FILE")]
    resources: Option<PathBuf>,
    #[command(flatten)]
    values: Values,
    pub(super) id: String,
}

/// Name and help of each flag that takes a value; without help it is hidden.
const VALUES: &[(&str, &str)] = &[
    ("blkio-weight", "Share of block device access, 10 to 1000"),
    (
        "cpu-burst",
        "Microseconds beyond the quota that may be saved up",
    ),
    (
        "cpu-idle",
        "1: run only when nobody else wants the processor; 0: as usual",
    ),
    ("cpu-period", "Microseconds in which the quota is given"),
    (
        "cpu-quota",
        "Microseconds of processor time in a period; -1: no limit",
    ),
    (
        "cpu-rt-period",
        "Period of real-time processes: cgroup v1 only",
    ),
    (
        "cpu-rt-runtime",
        "Processor time of real-time processes: cgroup v1 only",
    ),
    ("cpu-share", "Share of processor time, 2 to 262144"),
    ("cpuset-cpus", "Processors, as 0-3,7"),
    ("cpuset-mems", "Memory nodes, as 0,1"),
    ("kernel-memory", ""),
    ("kernel-memory-tcp", ""),
    ("l3-cache-schema", "Intel RDT's L3 cache schema"),
    ("mem-bw-schema", "Intel RDT's memory bandwidth schema"),
    ("memory", "Memory in bytes, or as 512m; -1: no limit"),
    (
        "memory-reservation",
        "Memory that is reclaimed only when nothing else is left",
    ),
    (
        "memory-swap",
        "Memory and swap together; -1: no limit of swap",
    ),
    ("pids-limit", "Processes and threads; -1: no limit"),
];

/// The flags of [`VALUES`] that were given.
#[derive(Debug)]
struct Values(Vec<(&'static str, String)>);

impl Args for Values {
    fn augment_args(command: Command) -> Command {
        let flag = |(name, help): &(&'static str, &'static str)| {
            let flag = Arg::new(*name).long(*name).value_name("VALUE");
            let flag = flag.allow_hyphen_values(true);
            if help.is_empty() {
                flag.hide(true)
            } else {
                flag.help(*help)
            }
        };
        command.args(VALUES.iter().map(flag))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Values::augment_args(command)
    }
}

impl FromArgMatches for Values {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = |(name, _): &(&'static str, _)| {
            let value = matches.get_one::<String>(name)?;
            Some((*name, value.clone()))
        };
        Ok(Values(VALUES.iter().filter_map(given).collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Values::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Updating {
    /// What `update` is asked to do.
    pub(super) fn request(self) -> UpdateRequest {
        let is_field = |name: &str| FLAGS.iter().any(|(flag, _, _)| *flag == name);
        let (flags, rdt) = self
            .values
            .0
            .into_iter()
            .partition(|(name, _)| is_field(name));
        UpdateRequest {
            resources: self.resources,
            flags,
            rdt,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flag_that_sets_a_field_can_be_given() {
        let command = Updating::augment_args(Command::new("update"));
        let flags: Vec<_> = command
            .get_arguments()
            .filter_map(|a| a.get_long())
            .collect();
        for (flag, _, _) in FLAGS {
            assert!(flags.contains(flag), "{flag}");
        }
        let others: Vec<_> = flags
            .iter()
            .filter(|name| !FLAGS.iter().any(|(flag, _, _)| flag == *name))
            .collect();
        assert_eq!(others, [&"resources", &"l3-cache-schema", &"mem-bw-schema"]);
    }
}
