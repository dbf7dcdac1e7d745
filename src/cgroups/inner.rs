//! Cgroups below a container's own in which its processes begin: crun's annotations
//! `run.oci.systemd.subgroup` and `run.oci.delegate-cgroup`.
//!
//! Limits and the device filter stay on the container's own cgroup, and so does whatever concerns all of
//! its processes. The first of the two is the root of the tree that the container sees in a cgroup namespace
//! of its own; the second is below that, belongs to the container's root, and is for it to divide.

use std::fmt;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use oci_spec::runtime::{LinuxNamespaceType, Spec};
use rustix::fs::Mode;
use rustix::process::Pid;
use serde::{Deserialize, Serialize};

use super::systemd::Manager;
use super::{Cgroup, Hierarchy, create, owner, tree, without};
use crate::error::Problems;
use crate::sys::Call;

/// The annotations.
const SUBGROUP: &str = "run.oci.systemd.subgroup";
const DELEGATED: &str = "run.oci.delegate-cgroup";

/// Where below a container's cgroup its first process begins. Either path may be empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inner {
    /// What the container sees as the root of its tree, below its cgroup.
    subgroup: PathBuf,
    /// What is handed over to it, below that.
    delegated: PathBuf,
}

impl Inner {
    /// Where processes begin, for a container whose own cgroup is `own`.
    #[must_use]
    pub fn place(&self, own: &Path) -> PathBuf {
        // An empty part adds nothing, not even a slash at the end.
        own.iter()
            .chain(self.subgroup.iter())
            .chain(self.delegated.iter())
            .collect()
    }

    /// The root of the tree that the container sees.
    #[must_use]
    pub fn root(&self, own: &Path) -> PathBuf {
        own.iter().chain(self.subgroup.iter()).collect()
    }
}

/// The cgroups below, as data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct InnerPlan {
    pub(super) place: Inner,
    /// The host's id of the container's root, to whom the delegated one goes.
    owner: Option<u32>,
    /// A cgroup namespace is made for the container: it has for its root where its first process is then.
    namespace: bool,
}

impl InnerPlan {
    /// What the annotations ask for; None for nothing. What is wrong with them goes to `problems`.
    pub(super) fn new(
        spec: &Spec,
        manager: &Manager,
        problems: &mut Problems,
    ) -> Option<InnerPlan> {
        let mut path = |name| below(spec, name, manager, problems);
        let (subgroup, delegated) = (path(SUBGROUP), path(DELEGATED));
        if subgroup.is_none() && delegated.is_none() {
            return None;
        }
        let namespaces = spec.linux().as_ref()?.namespaces().as_deref();
        let cgroup = |entry: &&oci_spec::runtime::LinuxNamespace| {
            entry.typ() == LinuxNamespaceType::Cgroup && entry.path().is_none()
        };
        Some(InnerPlan {
            owner: owner::of_root(spec),
            namespace: namespaces.unwrap_or_default().iter().any(|e| cgroup(&e)),
            place: Inner {
                subgroup: subgroup.unwrap_or_default(),
                delegated: delegated.unwrap_or_default(),
            },
        })
    }

    fn is_delegated(&self) -> bool {
        !self.place.delegated.as_os_str().is_empty()
    }
}

/// The annotation that asks for a cgroup below the container's, if one does.
#[must_use]
pub fn inner_annotation(spec: &Spec) -> Option<&'static str> {
    [SUBGROUP, DELEGATED]
        .into_iter()
        .find(|name| value(spec, name).is_some())
}

fn value<'a>(spec: &'a Spec, name: &str) -> Option<&'a str> {
    let value = spec.annotations().as_ref()?.get(name)?;
    (!value.is_empty()).then_some(value)
}

/// The path in an annotation, below a cgroup whatever it begins with.
fn below(spec: &Spec, name: &str, manager: &Manager, problems: &mut Problems) -> Option<PathBuf> {
    let text = value(spec, name)?;
    let field = format!("annotations[{name:?}]");
    if matches!(manager, Manager::Nobody | Manager::Disabled) {
        problems.add(field, without::reason(manager));
        return None;
    }
    let parts = text.split('/').filter(|part| !matches!(*part, "" | "."));
    let path: PathBuf = parts.collect();
    let leads_away = path.iter().any(|part| part == "..");
    if path.as_os_str().is_empty() || leads_away || text.chars().any(char::is_control) {
        let message = format!(
            "must name a cgroup below the container's, without \"..\" or control characters, is {text:?}"
        );
        problems.add(field, message);
        return None;
    }
    Some(path)
}

impl fmt::Display for InnerPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner {
            subgroup,
            delegated,
        } = &self.place;
        if !subgroup.as_os_str().is_empty() {
            writeln!(f, "below    {}", subgroup.display())?;
        }
        if self.is_delegated() {
            let owner = self.owner.unwrap_or_default();
            writeln!(f, "below    {} for {owner}", delegated.display())?;
        }
        Ok(())
    }
}

/// The cgroups below, made.
#[derive(Debug)]
pub(super) struct Made {
    /// The root of the tree that the container sees.
    root: Cgroup,
    /// What is handed over, if anything is.
    delegated: Option<Cgroup>,
    /// Init has to be in `root` when its cgroup namespace is made, and in `delegated` later.
    moves: bool,
}

impl Made {
    /// The directory that belongs to the container's user, if any of the container's does.
    pub(super) fn root(&self) -> BorrowedFd<'_> {
        self.root.fd()
    }
}

impl Cgroup {
    /// Makes the planned cgroups below this one, which goes with them.
    pub(super) fn make_inner(&mut self, plan: &InnerPlan) -> Result<()> {
        let root = self.make_path(&plan.place.subgroup)?;
        let delegated = match plan.is_delegated() {
            true => Some(root.make_path(&plan.place.delegated)?),
            false => None,
        };
        if let (Some(cgroup), Some(owner)) = (&delegated, plan.owner) {
            let given = owner::give(cgroup.fd(), owner);
            given.call(|| format!("chown({:?}, {owner})", cgroup.place("")))?;
        }
        self.inner = Some(Box::new(Made {
            root,
            moves: plan.namespace && delegated.is_some(),
            delegated,
        }));
        Ok(())
    }

    /// Makes a cgroup below this one, for somebody who is not of the container.
    ///
    /// # Errors
    ///
    /// There is one of this name, or the kernel refuses it.
    pub fn make_below(&self, name: &str) -> Result<Cgroup> {
        let mut made = self.make_path(Path::new(name))?;
        made.made = 1;
        Ok(made)
    }

    /// Makes the directories of `path` below this one; the last of them.
    fn make_path(&self, path: &Path) -> Result<Cgroup> {
        let (mut below, mut at) = (PathBuf::new(), self.path.clone());
        for part in path {
            below.push(part);
            at.push(part);
            rustix::fs::mkdirat(self.fd(), &below, Mode::from_raw_mode(0o755))
                .call(|| format!("mkdir({:?})", self.mount_point.join(&at)))?;
        }
        let opened = match below.as_os_str().is_empty() {
            true => tree::open(self.fd(), "."),
            false => tree::open(self.fd(), &below),
        };
        Ok(Cgroup {
            directory: opened.call(|| format!("open({:?})", self.mount_point.join(&at)))?,
            mount_point: self.mount_point.clone(),
            path: at,
            made: 0,
            scope: None,
            inner: None,
        })
    }

    /// The directory of the cgroup into which init is cloned: this one, or one below.
    #[must_use]
    pub fn birthplace(&self) -> BorrowedFd<'_> {
        match self.inner.as_deref() {
            Some(Made {
                delegated: Some(delegated),
                moves: false,
                ..
            }) => delegated.fd(),
            Some(made) => made.root.fd(),
            None => self.fd(),
        }
    }

    /// Puts init where it stays, and hands controllers on down to there. To be called when it was cloned
    /// and nobody else is in this cgroup any more; nothing where there are no cgroups below.
    ///
    /// The one process that is ever moved: its cgroup namespace has to have another root than the place
    /// where it is, and a new namespace has the place of its first process.
    ///
    /// # Errors
    ///
    /// The kernel does not take it there: init has ended, or the way there is threaded.
    pub fn settle(&self, init: Pid) -> Result<()> {
        let Some(made) = self.inner.as_deref() else {
            return Ok(());
        };
        let last = made.delegated.as_ref().unwrap_or(&made.root);
        if made.moves {
            last.write("cgroup.procs", &init.as_raw_nonzero().to_string())?;
        }
        // No limit needs them there; what a user may not hand on, the container does not have.
        create::enable(last, &[], &Hierarchy::find()?).context("handing controllers on")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(annotations: &str, manager: &Manager) -> (String, String) {
        let json = format!(
            r#"{{"ociVersion": "1.3.0", "annotations": {annotations}, "linux": {{
            "namespaces": [{{"type": "cgroup"}}, {{"type": "user"}}],
            "uidMappings": [{{"containerID": 0, "hostID": 70000, "size": 10}}]}}}}"#
        );
        let spec = serde_json::from_str(&json).unwrap();
        let mut problems = Problems::default();
        let plan = InnerPlan::new(&spec, manager, &mut problems);
        let text = plan.map(|plan| plan.to_string()).unwrap_or_default();
        (text, problems.to_string())
    }

    #[test]
    fn annotations_name_cgroups_below_the_containers() {
        let files = &Manager::Files;
        assert_eq!(plan("{}", files), (String::new(), String::new()));
        let empty = r#"{"run.oci.systemd.subgroup": "", "run.oci.delegate-cgroup": ""}"#;
        assert_eq!(plan(empty, files), (String::new(), String::new()));
        let both = r#"{"run.oci.systemd.subgroup": "main", "run.oci.delegate-cgroup": "/a//./b"}"#;
        let text = "below    main\nbelow    a/b for 70000\n";
        assert_eq!(plan(both, files), (text.into(), String::new()));
    }

    #[test]
    fn what_leads_elsewhere_is_refused() {
        for wrong in ["..", "a/../b", "/", ".", "a\\nb"] {
            let json = format!(r#"{{"run.oci.delegate-cgroup": "{wrong}"}}"#);
            let (_, problems) = plan(&json, &Manager::Files);
            let told = "annotations[\"run.oci.delegate-cgroup\"]: must name a cgroup below";
            assert!(problems.starts_with(told), "{wrong:?}: {problems}");
        }
        let (_, problems) = plan(r#"{"run.oci.systemd.subgroup": "a"}"#, &Manager::Disabled);
        let told = "annotations[\"run.oci.systemd.subgroup\"]: needs a cgroup";
        assert!(problems.starts_with(told), "{problems}");
    }

    #[test]
    fn an_empty_part_is_no_place() {
        let inner = |subgroup: &str, delegated: &str| Inner {
            subgroup: subgroup.into(),
            delegated: delegated.into(),
        };
        let own = Path::new("a/b");
        assert_eq!(inner("", "d").place(own).to_str(), Some("a/b/d"));
        assert_eq!(inner("s", "").place(own).to_str(), Some("a/b/s"));
        assert_eq!(inner("s", "d/e").place(own).to_str(), Some("a/b/s/d/e"));
        assert_eq!(inner("", "d").root(own).to_str(), Some("a/b"));
    }
}
