//! Mounts, their options, and the root.

mod added;
mod combined;
mod hidden;
mod idmaps;
mod links;
mod nofollow;
mod options;
mod propagation;
mod root;
mod targets;
mod types;

use std::path::{Path, PathBuf};

use libtest_mimic::Trial;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::{Value, json};

use crate::support::{Bundle, tests};

/// The tests of this folder.
pub fn all() -> Vec<Trial> {
    let here = tests![a_mount_that_fails_says_which_and_leaves_nothing,];
    let folders = [
        added::all(),
        combined::all(),
        hidden::all(),
        idmaps::all(),
        links::all(),
        nofollow::all(),
        options::all(),
        propagation::all(),
        root::all(),
        targets::all(),
        types::all(),
    ];
    here.into_iter()
        .chain(folders.into_iter().flatten())
        .collect()
}

/// Adds an entry to `mounts`.
pub fn add(bundle: &Bundle, entry: Value) {
    bundle.edit(|config| config["mounts"].as_array_mut().unwrap().push(entry));
}

/// Gives root in the container what mount(2) takes.
pub fn allow_mounting(bundle: &Bundle) {
    bundle.edit(|config| {
        for set in ["bounding", "effective", "permitted"] {
            let set = config["process"]["capabilities"][set].as_array_mut();
            set.unwrap().push(json!("CAP_SYS_ADMIN"));
        }
    });
}

/// A mount of this host, unmounted with all below it on drop.
pub struct HostMount(pub PathBuf);

impl HostMount {
    /// A tmpfs with `flags` at `path`, which is made.
    pub fn tmpfs(path: &Path, flags: MsFlags) -> HostMount {
        std::fs::create_dir_all(path).unwrap();
        let none = None::<&str>;
        mount(Some("tmpfs"), path, Some("tmpfs"), flags, none).unwrap();
        HostMount(path.to_owned())
    }

    /// Changes its attributes or propagation.
    pub fn change(&self, flags: MsFlags) {
        let none = None::<&str>;
        mount(none, &self.0, none, flags, none).unwrap();
    }
}

impl Drop for HostMount {
    fn drop(&mut self) {
        // One that a test has unmounted already is no surprise.
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

/// One line of a mountinfo file (proc(5)).
#[derive(Debug)]
pub struct Line {
    pub target: String,
    pub attributes: Vec<String>,
    /// `shared:1`, `master:2`, `unbindable`.
    pub propagation: String,
    pub fstype: String,
    pub options: Vec<String>,
}

impl Line {
    pub fn has(&self, attribute: &str) -> bool {
        self.attributes.iter().any(|a| a == attribute)
    }
}

/// The lines of a mountinfo file.
pub fn lines(text: &str) -> Vec<Line> {
    let words = |list: &str| list.split(',').map(str::to_owned).collect();
    let line = |line: &str| {
        let (mount, file_system) = line.split_once(" - ").unwrap_or_else(|| panic!("{line:?}"));
        let fields: Vec<&str> = mount.split(' ').collect();
        let last: Vec<&str> = file_system.split(' ').collect();
        Line {
            target: fields[4].to_owned(),
            attributes: words(fields[5]),
            propagation: fields[6..].join(" "),
            fstype: last[0].to_owned(),
            options: words(last[2]),
        }
    };
    text.lines().map(line).collect()
}

/// The topmost mount at `target`.
pub fn at<'a>(lines: &'a [Line], target: &str) -> &'a Line {
    let found = lines.iter().rev().find(|line| line.target == target);
    found.unwrap_or_else(|| panic!("nothing is mounted at {target}: {lines:#?}"))
}

fn a_mount_that_fails_says_which_and_leaves_nothing() {
    let bundle = Bundle::new("true");
    let bad = json!({"destination": "/bad", "type": "tmpfs", "options": ["size=1q"]});
    add(&bundle, bad);
    let error = bundle.create().failure();
    let total = "mount 8 of 8 (mounts[7], to \"/bad\")";
    assert!(
        error.contains(total) && error.contains("size") && error.contains("1q"),
        "{error}"
    );
    assert!(bundle.verb("state").failure().contains("does not exist"));
    let cgroup = format!("/sys/fs/cgroup/parhelion/{}", bundle.id);
    assert!(!Path::new(&cgroup).exists());
}
