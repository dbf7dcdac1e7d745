//! What the tests of this folder share: a root of their own, ids, facts, a child to watch.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::facts::Facts;
use super::id::ContainerId;
use super::process::{Mark, Process, wait_for_exit};

/// A directory for one test, removed with it.
#[derive(Debug)]
pub struct Root(PathBuf);

impl Root {
    pub fn new() -> Root {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("parhelion-test-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        Root(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        // Left behind at worst; the test has said what it had to say.
        let _ = fs::remove_dir_all(&self.0);
    }
}

pub fn id(text: &str) -> ContainerId {
    ContainerId::parse(text).unwrap()
}

/// Facts of a container whose cgroup does not exist.
pub fn facts() -> Facts {
    Facts {
        oci_version: "1.3.0".into(),
        bundle: "/srv/web".into(),
        rootfs: "/srv/web/rootfs".into(),
        cgroup: Some("/parhelion-test/no-such-cgroup".into()),
        annotations: [("a".to_owned(), "b".to_owned())].into(),
        created: "2026-01-02T03:04:05.67Z".into(),
        own_pid_namespace: true,
        ..Facts::default()
    }
}

/// A child that sleeps until the test ends it; killed and reaped on drop.
#[derive(Debug)]
pub struct Sleeper(Child);

impl Sleeper {
    pub fn new() -> Sleeper {
        Sleeper(Command::new("sleep").arg("1000").spawn().unwrap())
    }

    pub fn process(&self) -> Process {
        process_of(&self.0)
    }

    /// Kills it and waits until it is a zombie.
    pub fn end_without_reaping(&self) {
        let pidfd = self.process().open().unwrap().unwrap();
        pidfd_send_signal(&pidfd, Signal::KILL).unwrap();
        assert!(wait_for_exit(pidfd.as_fd(), None).unwrap());
    }

    /// Reaps it, once something has ended it, and says which signal that was.
    pub fn ended_by(mut self) -> Option<i32> {
        self.0.wait().unwrap().signal()
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        // It may have been ended and reaped by the test.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The process of a child that is not reaped yet.
pub fn process_of(child: &Child) -> Process {
    let pid = Pid::from_raw(child.id().try_into().unwrap()).unwrap();
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).unwrap();
    Process::of(pid, pidfd.as_fd()).unwrap()
}

/// One that had the same pid earlier in this boot.
pub fn earlier(process: Process) -> Process {
    let mark = match process.mark {
        Mark::PidfdInode(inode) => Mark::PidfdInode(inode - 1),
        Mark::StartTime(ticks) => Mark::StartTime(ticks - 1),
    };
    Process { mark, ..process }
}
