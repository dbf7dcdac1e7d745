//! Shares of caches and memory bandwidth, by groups of the resctrl file system (config-linux.md,
//! "IntelRdt").
//!
//! A group is a directory, as a cgroup is; unlike in one, processes are moved in. Which groups a
//! container needs is decided before any effect. What it made itself is removed with it, and what
//! `closID` names stays.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use oci_spec::runtime::{LinuxIntelRdt, Spec};
use serde::{Deserialize, Serialize};

use crate::error::Problems;
use crate::sys::{Errno, SysError};

/// Where config.json asks for it.
const FIELD: &str = "linux.intelRdt";

/// The groups of a container, as its record holds them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Groups {
    /// The directory of the group that its processes are in.
    control: PathBuf,
    /// The directory of its monitoring group.
    monitoring: Option<PathBuf>,
    /// The group was made for this container alone.
    own: bool,
}

/// What is done for a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    groups: Groups,
    /// The group is there already: these lines must hold in it.
    compare: Vec<String>,
    /// What is written, in one piece; empty: nothing.
    write: String,
    /// The group has to be made.
    make: bool,
}

impl Plan {
    /// The plan for `spec`; None when it asks for nothing. What can not be done is noted in
    /// `problems`.
    pub fn new(spec: &Spec, id: &str, problems: &mut Problems) -> Option<Plan> {
        let linux = spec.linux().as_ref();
        let asked = linux.and_then(|linux| linux.intel_rdt().as_ref())?;
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let Some(root) = mount_point(&table) else {
            let message = "needs the resctrl file system: mount -t resctrl resctrl /sys/fs/resctrl";
            problems.add(FIELD, message);
            return None;
        };
        Plan::below(&root, asked, id, problems)
    }

    /// The same, with the file system at `root`.
    fn below(
        root: &Path,
        asked: &LinuxIntelRdt,
        id: &str,
        problems: &mut Problems,
    ) -> Option<Plan> {
        let closid = asked.clos_id().as_deref();
        let control = match closid {
            Some("/") => root.to_path_buf(),
            Some(name) => root.join(name),
            None => root.join(id),
        };
        let old = [asked.l3_cache_schema(), asked.mem_bw_schema()];
        let old: Vec<String> = old.into_iter().flatten().cloned().collect();
        let lines = asked.schemata().clone().unwrap_or_default();
        let there = control.is_dir();
        if closid.is_none() && there {
            let message = format!("{control:?} is a group already: name it by closID to use it");
            problems.add(FIELD, message);
            return None;
        }
        if closid.is_some() && !there && old.is_empty() && lines.is_empty() {
            let message = format!("{control:?} is no group, and no schema is given to make it");
            problems.add(format!("{FIELD}.closID"), message);
            return None;
        }
        let monitoring = asked.enable_monitoring().unwrap_or(false);
        let (compare, written) = match there {
            true => (old, lines),
            false => (Vec::new(), [old, lines].concat()),
        };
        Some(Plan {
            groups: Groups {
                monitoring: monitoring.then(|| control.join("mon_groups").join(id)),
                control,
                own: closid.is_none(),
            },
            compare,
            write: written.iter().map(|line| format!("{line}\n")).collect(),
            make: !there,
        })
    }

    /// The groups, to be noted before they are made.
    #[must_use]
    pub fn groups(&self) -> &Groups {
        &self.groups
    }

    /// Makes the groups, and leaves nothing of its own when that fails.
    ///
    /// # Errors
    ///
    /// A schema that does not hold in the group that is there, or that the kernel refuses; no more
    /// groups (`ENOSPC`).
    pub fn carry_out(&self) -> Result<()> {
        let done = self.try_carry_out().context(FIELD);
        if done.is_err() {
            // The failure is what is told; what could not be removed either was never made.
            let _removed = self.groups.remove();
        }
        done
    }

    fn try_carry_out(&self) -> Result<()> {
        let control = &self.groups.control;
        if !self.compare.is_empty() {
            let held = fs::read_to_string(control.join("schemata"))
                .with_context(|| format!("{control:?}"))?;
            for line in &self.compare {
                if !holds(&held, line) {
                    bail!("{control:?} is a group already, in which \"{line}\" does not hold");
                }
            }
        }
        if self.make {
            self.make_directory(control)?;
        }
        if !self.write.is_empty() {
            let file = control.join("schemata");
            told(control, fs::write(&file, &self.write), || {
                format!("write({file:?}, {:?})", self.write)
            })?;
        }
        match &self.groups.monitoring {
            Some(monitoring) => self.make_directory(monitoring),
            None => Ok(()),
        }
    }

    fn make_directory(&self, directory: &Path) -> Result<()> {
        told(&self.groups.control, fs::create_dir(directory), || {
            format!("mkdir({directory:?})")
        })
    }
}

impl Groups {
    /// Moves the process `pid` in; its children follow.
    ///
    /// # Errors
    ///
    /// `ESRCH` when it has ended.
    pub fn join(&self, pid: i32) -> Result<()> {
        // A monitoring group takes only who is in the group that it belongs to.
        for group in [Some(&self.control), self.monitoring.as_ref()]
            .into_iter()
            .flatten()
        {
            let file = group.join("tasks");
            fs::write(&file, pid.to_string())
                .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
                .map_err(|errno| SysError::new(format!("write({file:?}, {pid})"), errno))
                .context(FIELD)?;
        }
        Ok(())
    }

    /// Writes other schemata into the group, in one piece: the kernel takes all of it or nothing. Returns
    /// what [`Groups::change`] is given to have the ones before.
    ///
    /// # Errors
    ///
    /// A schema that the kernel refuses, with its words.
    pub fn change(&self, schemata: &str) -> Result<String> {
        let file = self.control.join("schemata");
        let before = fs::read_to_string(&file).with_context(|| format!("{file:?}"))?;
        let call = || format!("write({file:?}, {schemata:?})");
        told(&self.control, fs::write(&file, schemata), call)?;
        Ok(before)
    }

    /// Removes what was made for the container alone.
    ///
    /// # Errors
    ///
    /// What the kernel answered; that it is gone already is none.
    pub fn remove(&self) -> Result<()> {
        // With a group go the monitoring groups in it.
        let directory = match (self.own, &self.monitoring) {
            (true, _) => &self.control,
            (false, Some(monitoring)) => monitoring,
            (false, None) => return Ok(()),
        };
        match fs::remove_dir(directory) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
                Err(SysError::new(format!("rmdir({directory:?})"), errno)).context(FIELD)
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

/// Adds to a failure the call, and what the kernel says of the last command in the file system of `group`.
fn told(group: &Path, done: std::io::Result<()>, call: impl FnOnce() -> String) -> Result<()> {
    let Err(error) = done else { return Ok(()) };
    let said = group.ancestors().take(2);
    let said = said.map(|root| fs::read_to_string(root.join("info/last_cmd_status")));
    let said = said.flatten().next().unwrap_or_default();
    let mut call = call();
    if !said.trim().is_empty() && said.trim() != "ok" {
        call = format!("{call} [{}]", said.trim());
    }
    Err(SysError::new(call, Errno::from_io_error(&error).unwrap_or(Errno::IO)).into())
}

/// Where resctrl is mounted, in a table of mounts (proc(5), mountinfo).
fn mount_point(table: &str) -> Option<PathBuf> {
    table.lines().find_map(|line| {
        let (mount, file_system) = line.split_once(" - ")?;
        let found = file_system.split(' ').next() == Some("resctrl");
        found.then(|| mount.split(' ').nth(4).map(PathBuf::from))?
    })
}

/// Whether what a line like `L3:0=f;1=f0` asks for is what the schemata of a group say: the kernel
/// writes zeros before numbers, its own order, and caches that the line does not name.
fn holds(schemata: &str, line: &str) -> bool {
    let parse = |line: &str| {
        let (name, values) = line.split_once(':')?;
        let values = values.split(';').filter(|part| !part.trim().is_empty());
        let values: Option<Vec<(String, String)>> = values.map(assignment).collect();
        Some((name.trim().to_owned(), values?))
    };
    let Some((name, wanted)) = parse(line) else {
        return false;
    };
    let mut held = schemata.lines().filter_map(parse);
    held.any(|(found, values)| found == name && wanted.iter().all(|one| values.contains(one)))
}

/// `0=00f` as its parts, without what makes no difference.
fn assignment(text: &str) -> Option<(String, String)> {
    let (cache, value) = text.split_once('=')?;
    let plain = |text: &str| {
        let text = text.trim().to_ascii_lowercase();
        let digits = text
            .strip_prefix("0x")
            .unwrap_or(&text)
            .trim_start_matches('0');
        digits.to_owned()
    };
    Some((plain(cache), plain(value)))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use serde_json::{Value, json};

    use super::*;

    /// A directory that looks like resctrl, but that no kernel fills new groups.
    struct Tree(PathBuf);

    impl Tree {
        fn new() -> Tree {
            static COUNT: AtomicU32 = AtomicU32::new(0);
            let number = COUNT.fetch_add(1, Ordering::Relaxed);
            let name = format!("parhelion-resctrl-{}-{number}", std::process::id());
            let root = std::env::temp_dir().join(name);
            fs::create_dir_all(root.join("shared/mon_groups")).unwrap();
            fs::create_dir_all(root.join("info")).unwrap();
            fs::write(
                root.join("shared/schemata"),
                "    MB:0=100;1= 70\n    L3:0=000f0;1=fffff\n",
            )
            .unwrap();
            fs::write(
                root.join("info/last_cmd_status"),
                "mask f is not consecutive\n",
            )
            .unwrap();
            Tree(root)
        }

        fn plan(&self, asked: Value) -> Result<Plan, String> {
            let asked = serde_json::from_value(asked).unwrap();
            let mut problems = Problems::default();
            Plan::below(&self.0, &asked, "web", &mut problems)
                .ok_or_else(|| self.short(&problems.to_string()))
        }

        fn read(&self, file: &str) -> String {
            fs::read_to_string(self.0.join(file)).unwrap_or_else(|_| "none".into())
        }

        fn short(&self, text: &str) -> String {
            text.replace(self.0.to_str().unwrap(), "/r")
        }
    }

    impl Drop for Tree {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    #[test]
    fn a_group_is_made_for_the_container_and_removed_with_it() {
        let tree = Tree::new();
        let plan = tree
            .plan(json!({"memBwSchema": "MB:0=20", "l3CacheSchema": "L3:0=f", "schemata": ["L2:0=1"]}))
            .unwrap();
        plan.carry_out().unwrap();
        assert_eq!(tree.read("web/schemata"), "L3:0=f\nMB:0=20\nL2:0=1\n");
        plan.groups().join(42).unwrap();
        assert_eq!(tree.read("web/tasks"), "42");
        // The kernel removes the files of a group with it.
        fs::remove_file(tree.0.join("web/tasks")).unwrap();
        fs::remove_file(tree.0.join("web/schemata")).unwrap();
        plan.groups().remove().unwrap();
        assert!(!tree.0.join("web").exists());
        plan.groups().remove().unwrap();
        tree.plan(json!({})).unwrap().carry_out().unwrap();
        assert_eq!(tree.read("web/schemata"), "none", "nothing to write");
        assert_eq!(
            tree.plan(json!({})).unwrap_err(),
            "linux.intelRdt: \"/r/web\" is a group already: name it by closID to use it"
        );
    }

    #[test]
    fn a_group_that_is_there_is_used_when_its_schemata_hold() {
        let tree = Tree::new();
        let before = tree.read("shared/schemata");
        let good = json!({"closID": "shared", "l3CacheSchema": "L3:1=0xfffff;0=f0",
            "memBwSchema": "MB:1=70"});
        let plan = tree.plan(good).unwrap();
        plan.carry_out().unwrap();
        plan.groups().remove().unwrap();
        assert_eq!(
            tree.read("shared/schemata"),
            before,
            "neither written nor removed"
        );
        let bad = json!({"closID": "shared", "l3CacheSchema": "L3:0=ff"});
        let error = tree.plan(bad).unwrap().carry_out().unwrap_err();
        assert_eq!(
            tree.short(&format!("{error:#}")),
            "linux.intelRdt: \"/r/shared\" is a group already, in which \"L3:0=ff\" does not hold"
        );
        let lines = json!({"closID": "shared", "schemata": ["MB:0=10"]});
        tree.plan(lines).unwrap().carry_out().unwrap();
        assert_eq!(tree.read("shared/schemata"), "MB:0=10\n");
    }

    #[test]
    fn a_group_that_is_not_there_needs_a_schema() {
        let tree = Tree::new();
        assert_eq!(
            tree.plan(json!({"closID": "new"})).unwrap_err(),
            "linux.intelRdt.closID: \"/r/new\" is no group, and no schema is given to make it"
        );
        let plan = tree
            .plan(json!({"closID": "new", "memBwSchema": "MB:0=20"}))
            .unwrap();
        plan.carry_out().unwrap();
        plan.groups().remove().unwrap();
        assert_eq!(
            tree.read("new/schemata"),
            "MB:0=20\n",
            "stays: others may use it"
        );
        let plan = tree.plan(json!({"closID": "/"})).unwrap();
        plan.carry_out().unwrap();
        plan.groups().join(7).unwrap();
        assert_eq!(tree.read("tasks"), "7");
    }

    #[test]
    fn a_monitoring_group_is_removed_alone() {
        let tree = Tree::new();
        let plan = tree
            .plan(json!({"closID": "shared", "enableMonitoring": true}))
            .unwrap();
        plan.carry_out().unwrap();
        plan.groups().join(42).unwrap();
        assert_eq!(tree.read("shared/tasks"), "42");
        assert_eq!(tree.read("shared/mon_groups/web/tasks"), "42");
        fs::remove_file(tree.0.join("shared/mon_groups/web/tasks")).unwrap();
        plan.groups().remove().unwrap();
        assert_eq!(
            fs::read_dir(tree.0.join("shared/mon_groups"))
                .unwrap()
                .count(),
            0
        );
        assert!(tree.0.join("shared/schemata").exists());
    }

    #[test]
    fn a_refusal_has_the_kernels_words_and_leaves_nothing() {
        let tree = Tree::new();
        // As when all groups are taken: no monitoring group can be made.
        fs::remove_dir(tree.0.join("shared/mon_groups")).unwrap();
        let plan = tree
            .plan(json!({"closID": "shared", "enableMonitoring": true}))
            .unwrap();
        let error = plan.carry_out().unwrap_err();
        assert_eq!(
            tree.short(&format!("{error:#}")),
            "linux.intelRdt: mkdir(\"/r/shared/mon_groups/web\") [mask f is not consecutive]: no \
             such file or directory"
        );
        let plan = tree.plan(json!({"enableMonitoring": true})).unwrap();
        assert!(plan.carry_out().is_err());
        assert!(!tree.0.join("web").exists());
    }

    #[test]
    fn other_schemata_replace_those_of_a_group_and_can_be_undone() {
        let tree = Tree::new();
        let groups = tree
            .plan(json!({"closID": "shared"}))
            .unwrap()
            .groups()
            .clone();
        let before = tree.read("shared/schemata");
        assert_eq!(groups.change("L3:0=f\nMB:0=10\n").unwrap(), before);
        assert_eq!(tree.read("shared/schemata"), "L3:0=f\nMB:0=10\n");
        groups.change(&before).unwrap();
        assert_eq!(tree.read("shared/schemata"), before);
        fs::remove_file(tree.0.join("shared/schemata")).unwrap();
        let gone = format!("{:#}", groups.change("L3:0=f\n").unwrap_err());
        assert_eq!(
            tree.short(&gone),
            "\"/r/shared/schemata\": No such file or directory (os error 2)"
        );
    }

    #[test]
    fn the_mount_is_found_wherever_it_is() {
        let table = "22 1 0:21 / /proc rw - proc proc rw\n\
            23 1 0:22 / /sys/fs/resctrl rw,relatime shared:5 - resctrl resctrl rw\n";
        assert_eq!(mount_point(table), Some("/sys/fs/resctrl".into()));
        assert_eq!(mount_point("22 1 0:21 / /proc rw - proc proc rw\n"), None);
    }
}
