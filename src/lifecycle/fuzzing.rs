//! The door for fuzz targets and property tests: from the bytes of a config.json to every plan, and from
//! the bytes of a record to what `state` says, without an effect on the host.
//!
//! Decides nothing: it calls what `create` calls, in its order, and looks at what comes out.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::symlink;
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::fs::OFlags;

use super::filters::Filters;
use super::id::ContainerId;
use super::plans::{Plans, facts};
use super::{CreateRequest, ManagerChoice, duration, query, record};
use crate::bundle::Bundle;
use crate::cgroups::{Hierarchy, Manager};
use crate::error::{self, Level, Log, LogFormat, Problems};
use crate::rootfs::{self, HostTree, Node, OpenTree};
use crate::sys::confined::{ContainerPath, Root};
use crate::sys::fd::Inheritance;
use crate::sys::rights::Rights;
use crate::{init, namespaces};

/// A bundle's directory with a hostile root in it, and a folder for records; removed on drop.
#[derive(Debug)]
pub struct Place {
    dir: PathBuf,
    hierarchy: Hierarchy,
    root: OwnedFd,
}

/// What was planned for a configuration that is not refused.
#[derive(Debug)]
pub struct Planned {
    /// The namespaces.
    pub namespaces: namespaces::Plan,
    /// The file system.
    pub rootfs: rootfs::Plan<HostTree>,
    /// What init gets.
    pub init: init::plan::Plan,
}

/// Where links of the hostile root lead: out of it, if they were followed as the host does.
const LINKS: [(&str, &str); 5] = [
    ("a", "/"),
    ("etc", "/etc"),
    ("up", "../../.."),
    ("proc", "/proc/1/root"),
    ("dev/shm", "../../../../tmp"),
];

impl Place {
    /// A place for a target of fuzz/: warnings about millions of inputs are of no use to anybody.
    #[must_use]
    pub fn in_silence() -> Place {
        error::set_log(Log {
            destination: None,
            format: LogFormat::Text,
            level: Level::Error,
        });
        Place::new()
    }

    /// Makes one below the folder for temporary files.
    ///
    /// # Panics
    ///
    /// It can not be made.
    #[must_use]
    pub fn new() -> Place {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("parhelion-fuzz-{}-{number}", std::process::id());
        let dir = std::env::temp_dir().join(name);
        let rootfs = dir.join("rootfs");
        let made = fs::create_dir_all(rootfs.join("dev"))
            .and_then(|()| fs::create_dir_all(dir.join("records/web")))
            .and_then(|()| {
                let mut links = LINKS.iter();
                links.try_for_each(|(link, target)| symlink(target, rootfs.join(link)))
            })
            .and_then(|()| fs::canonicalize(&dir));
        let dir = made.expect("a folder for temporary files is there");
        let root = File::open(dir.join("rootfs")).expect("it was made above");
        let controllers = [
            "cpu", "cpuset", "hugetlb", "io", "memory", "misc", "pids", "rdma",
        ];
        Place {
            dir,
            hierarchy: Hierarchy::offering(&controllers),
            root: root.into(),
        }
    }

    /// Everything that `create` decides for this config.json, whose root is `rootfs`; None where it is
    /// refused. `host` chooses among the rights and the managers of cgroups that there are.
    ///
    /// # Panics
    ///
    /// A plan names a path that is not inside its root, or is not read again as it was written.
    #[must_use]
    pub fn plan(&self, config: &[u8], host: u8) -> Option<Planned> {
        let bundle = Bundle::of_bytes(&self.dir, config).ok()?;
        let (rights, manager) = caller(host);
        let request = self.request(host);
        let mut problems = Problems::default();
        let namespaces = namespaces::Plan::new(&bundle.spec, rights, &mut problems);
        let host = (&self.hierarchy, &manager, rights);
        let mut filters = Filters::below(&request.root);
        let bundle_and_filters = (&bundle, &mut filters);
        let plans = Plans::new(bundle_and_filters, &request, namespaces, host, problems).ok()?;
        self.check(&plans);
        check_record(&bundle, &plans, &request);
        let init = build(&bundle, &plans, &request)?;
        for sysctl in &init.sysctls {
            assert!(is_below(Path::new(&sysctl.file)), "{sysctl:?}");
        }
        Some(Planned {
            namespaces: plans.namespaces,
            rootfs: plans.rootfs,
            init,
        })
    }

    fn request(&self, host: u8) -> CreateRequest {
        CreateRequest {
            root: self.dir.join("records"),
            id: ContainerId::parse("web").expect("an id"),
            bundle: self.dir.clone(),
            config: None,
            console_socket: None,
            pid_file: None,
            pidfd_socket: None,
            preserve_fds: 0,
            no_pivot: host & 0x80 != 0,
            no_new_keyring: host & 0x40 != 0,
            cgroup_manager: ManagerChoice::Files,
            rootless: None,
            annotations: BTreeMap::new(),
            joins: Vec::new(),
        }
    }

    /// Each path of the plans, by its type.
    fn check(&self, plans: &Plans) {
        let rootfs = &plans.rootfs;
        let mounts = rootfs.mounts.iter().map(|mount| &mount.target);
        let nodes = rootfs.nodes.iter().map(|node| match node {
            Node::Device(device) => &device.path,
            Node::Bound { path, .. } | Node::Link { path, .. } => path,
        });
        let lists = rootfs.masked_paths.iter().chain(&rootfs.read_only_paths);
        for path in mounts.chain(nodes).chain(lists) {
            self.check_inside(path);
        }
        if let Some(path) = plans.cgroup.path() {
            assert!(is_below(path), "cgroup {path:?}");
        }
        if let Some(plan) = &plans.resctrl {
            let groups = serde_json::to_value(plan.groups()).expect("groups are JSON");
            for (_, path) in groups.as_object().into_iter().flatten() {
                let path = path.as_str().map(Path::new);
                let outside =
                    path.filter(|path| path.components().any(|c| c == Component::ParentDir));
                assert_eq!(outside, None, "resctrl");
            }
        }
        // Each line of a plan is printed for `--log-level debug`.
        let _ = format!("{}{}{}", plans.namespaces, plans.cgroup, plans.rootfs);
        let _ = plans.seccomp.as_ref().map(ToString::to_string);
    }

    /// That the path is relative, and that what it leads to in the hostile root is in that root.
    fn check_inside(&self, path: &ContainerPath) {
        let text = path.as_str();
        assert!(!text.starts_with('/') && !text.is_empty(), "{text:?}");
        let Ok(found) = Root::new(self.root.as_fd()).open(path, OFlags::PATH) else {
            return;
        };
        let link = format!("/proc/self/fd/{}", found.as_raw_fd());
        let place = fs::read_link(link).expect("procfs is mounted");
        assert!(place.starts_with(self.dir.join("rootfs")), "{place:?}");
    }

    /// What `state` says of a container with this record; what is no record is an error. The text of a
    /// record that was read is read again as the same.
    ///
    /// # Panics
    ///
    /// It is not.
    pub fn state(&self, text: &[u8]) -> Option<String> {
        if let Ok((facts, init)) = record::parse(text) {
            let again = record::text("web", facts.clone(), init.clone()).expect("records are JSON");
            let again = record::parse(&again).expect("what was written is read");
            assert_eq!(again, (facts, init));
        }
        let root = self.dir.join("records");
        fs::write(root.join("web/state.json"), text).expect("the folder was made");
        let id = ContainerId::parse("web").expect("an id");
        let state = query::state(&root, &id).ok()?;
        serde_json::to_string(&state).ok()
    }
}

impl Default for Place {
    fn default() -> Place {
        Place::new()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Left behind at worst, among temporary files.
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// The time that `text` names, as the command line takes it.
#[must_use]
pub fn duration(text: &str) -> Option<Duration> {
    duration::parse(text)
}

fn caller(host: u8) -> (Rights, Manager) {
    let rights = match host % 3 {
        0 => Rights::Host,
        1 => Rights::Namespace,
        _ => Rights::User,
    };
    let manager = match host / 3 % 5 {
        0 => Manager::Files,
        1 => Manager::Below("user/a".into()),
        2 => Manager::Nobody,
        3 => Manager::Disabled,
        _ => Manager::Delegated("user.slice/a.scope".into()),
    };
    (rights, manager)
}

/// Relative, and without a way up.
fn is_below(path: &Path) -> bool {
    let normal = |part| matches!(part, Component::Normal(_));
    path.components().all(normal) && path.components().next().is_some()
}

/// What the record would say is what is read from it.
fn check_record(bundle: &Bundle, plans: &Plans, request: &CreateRequest) {
    let facts = facts(bundle, plans, request);
    let text = record::text("web", facts.clone(), None).expect("records are JSON");
    let read = record::parse(&text).expect("what was written is read");
    assert_eq!(read, (facts, None));
}

/// Init's plan, with no tree of the host opened.
fn build(bundle: &Bundle, plans: &Plans, request: &CreateRequest) -> Option<init::plan::Plan> {
    let mut inheritance = Inheritance::default();
    let mut give = || {
        let file = File::open("/dev/null").expect("/dev/null is there");
        inheritance.give(file.into())
    };
    let (root, lock) = (give(), give());
    let planned = &plans.rootfs;
    let rootfs = rootfs::Plan {
        root: OpenTree {
            fd: root,
            directory: true,
            onto_link: false,
        },
        entry: planned.entry,
        hidden: Vec::new(),
        host_propagation: planned.host_propagation,
        mounts: Vec::new(),
        nodes: Vec::new(),
        propagation: planned.propagation,
        read_only_paths: planned.read_only_paths.clone(),
        masked_paths: planned.masked_paths.clone(),
        label: planned.label.clone(),
        read_only: planned.read_only,
    };
    let wanted = init::Request {
        spec: &bundle.spec,
        bundle: &bundle.dir,
        id: request.id.as_str(),
        namespaces: &plans.namespaces,
        rootfs,
        seccomp: plans.seccomp.as_ref(),
        keyring: !request.no_new_keyring,
        groups_are_fixed: false,
        gate: None,
        lock,
        preserved: 0,
        listening: 0,
        creating: [String::new(), String::new()],
        created: [String::new(), String::new()],
    };
    let (plan, _warnings) = init::build(wanted, &mut inheritance).ok()?;
    let sent = postcard::to_allocvec(&plan).expect("a plan is sent");
    let read: init::plan::Plan = postcard::from_bytes(&sent).expect("a plan is read by init");
    let again = postcard::to_allocvec(&read).expect("a plan is sent");
    assert_eq!(again, sent, "init reads another plan");
    Some(plan)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use proptest::prelude::*;
    use proptest::test_runner::TestRunner;
    use serde_json::Value;

    use super::*;
    use crate::bundle::tests::mutated;
    use crate::lifecycle::process::{Mark, Process};
    use crate::lifecycle::testing;

    /// What the fuzz target begins with: nearly every field of which a host without LSMs can plan something.
    const RICH: &[u8] = include_bytes!("../../fuzz/seeds/config/rich.json");
    const SEEDS: [&[u8]; 3] = [
        include_bytes!("../../fuzz/seeds/config/default.json"),
        include_bytes!("../../fuzz/seeds/config/default-rootless.json"),
        RICH,
    ];

    #[test]
    fn what_the_fuzz_target_begins_with_is_planned() {
        let place = Place::new();
        for (i, seed) in SEEDS.iter().enumerate() {
            assert!(place.plan(seed, 0).is_some(), "seed {i} is refused");
        }
    }

    #[test]
    fn no_config_makes_a_plan_panic_or_name_a_path_outside_its_root() {
        const CASES: u32 = 300;
        let (place, planned) = (Place::new(), Cell::new(0));
        let rich: Value = serde_json::from_slice(RICH).unwrap();
        let hosts = prop_oneof![2 => Just(0), 1 => any::<u8>()];
        let mut runner = TestRunner::new(ProptestConfig::with_cases(CASES));
        let result = runner.run(&(mutated(rich), hosts), |(config, host)| {
            // Refused is right as well; a panic fails the test.
            let config = serde_json::to_vec(&config).unwrap();
            planned.set(planned.get() + u32::from(place.plan(&config, host).is_some()));
            Ok(())
        });
        result.unwrap();
        // Were nearly all refused, little would have been looked at.
        assert!(
            planned.get() > CASES / 8,
            "only {} were planned",
            planned.get()
        );
    }

    #[test]
    fn paths_that_lead_up_or_through_links_stay_inside() {
        let place = Place::new();
        let names = proptest::sample::select(vec![
            "..", ".", "", "up", "etc", "proc", "dev", "shm", "passwd", "a",
        ]);
        let path = proptest::collection::vec(names, 0..8).prop_map(|names| names.join("/"));
        let mut runner = TestRunner::new(ProptestConfig::with_cases(500));
        let result = runner.run(&path, |path| {
            place.check_inside(&ContainerPath::new(&path));
            Ok(())
        });
        result.unwrap();
    }

    #[test]
    fn a_record_is_told_and_what_is_none_is_not() {
        let place = Place::new();
        let init = Process {
            pid: -1,
            mark: Mark::StartTime(8),
            boot: "b".into(),
        };
        let text = record::text("web", testing::facts(), Some(init)).unwrap();
        let told = place.state(&text).unwrap();
        assert!(told.contains("\"status\":\"stopped\""), "{told}");
        assert_eq!(place.state(b"{"), None);
    }
}
