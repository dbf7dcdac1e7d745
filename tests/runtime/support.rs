//! A bundle of busybox and the runtime's program, for tests against the real kernel.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use libtest_mimic::Trial;
use serde_json::{Value, json};

/// Trials named after the functions, each with the file it is in: `mounts::a_bind_mount_is_read_only`.
macro_rules! tests {
    ($($test:ident),* $(,)?) => {
        vec![$($crate::support::trial(
            concat!(module_path!(), "::", stringify!($test)), $test
        )),*]
    };
}
pub(crate) use tests;

/// One trial; use `tests!`.
pub fn trial(path: &str, test: fn()) -> Trial {
    let name = path.trim_start_matches("runtime::");
    Trial::test(name, move || {
        test();
        Ok(())
    })
}

/// Where a hybrid host has its v1 hierarchies, these tests see a pure v2 tree: in a mount namespace
/// of their own, so that the host's is not touched.
pub fn enter_private_namespace() {
    use nix::mount::{MntFlags, MsFlags, mount, umount2};
    use nix::sched::{CloneFlags, unshare};
    assert!(
        nix::unistd::geteuid().is_root(),
        "these tests need root: sudo make test"
    );
    unshare(CloneFlags::CLONE_NEWNS).expect("unshare");
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).expect("private");
    if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        return;
    }
    // Only what lies below is hidden; the first call that finds nothing more to take away ends it.
    while umount2("/sys/fs/cgroup", MntFlags::MNT_DETACH).is_ok() {}
    mount(
        Some("none"),
        "/sys/fs/cgroup",
        Some("cgroup2"),
        MsFlags::empty(),
        none,
    )
    .expect("cgroup2");
}

/// The times of hooks, in the order in which they run.
pub const HOOKS: [&str; 6] = [
    "prestart",
    "createRuntime",
    "createContainer",
    "startContainer",
    "poststart",
    "poststop",
];

/// A bundle, a state directory of its own, and what was created in it; removed on drop.
pub struct Bundle {
    pub folder: PathBuf,
    pub id: String,
    /// What is called for it.
    pub program: PathBuf,
    /// Mitigations that this program does without, if it is one that can (tests/escapes).
    pub without: &'static str,
}

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// The program under test: this build's, or PARHELION where it was built elsewhere.
pub fn program() -> PathBuf {
    std::env::var_os("PARHELION").map_or_else(
        || PathBuf::from(env!("CARGO_BIN_EXE_parhelion")),
        PathBuf::from,
    )
}

/// `trials`, if this host has what they need; otherwise what it `lacks` is said loudly, and where all tests
/// are to run, that is the end.
pub fn only_where(has: bool, lacks: &str, trials: Vec<Trial>) -> Vec<Trial> {
    if has || trials.is_empty() {
        return trials;
    }
    let all = std::env::var_os("PARHELION_TEST_ALL").is_some();
    assert!(!all, "on this host all tests are to run, and {lacks}");
    let count = trials.len();
    println!("NOT HERE: {count} tests, as {lacks}: make test runs them in the virtual host");
    Vec::new()
}

/// `trials`, if this host's cgroup v2 tree has the controllers; said loudly where it has not.
pub fn needs_controllers(names: &[&str], trials: Vec<Trial>) -> Vec<Trial> {
    let offered = fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap();
    let offers = |name: &&&str| offered.split_whitespace().any(|offered| offered == **name);
    let missing: Vec<&&str> = names.iter().filter(|name| !offers(name)).collect();
    let lacks = format!("cgroup v2 has no controller {missing:?}");
    only_where(missing.is_empty(), &lacks, trials)
}

/// The busybox of all bundles.
///
/// Written once, before there is a second thread: a file that is open for writing is not executed
/// (ETXTBSY), and a process that another thread forks meanwhile has it open until its own execve.
pub struct Busybox(());

impl Busybox {
    pub fn prepare() -> Busybox {
        let busybox = ["/bin/busybox", "/usr/bin/busybox"]
            .iter()
            .find(|p| Path::new(p).exists());
        let busybox = busybox.expect("busybox is missing: apt-get install busybox-static");
        fs::copy(busybox, busybox_copy()).unwrap();
        Busybox(())
    }
}

impl Drop for Busybox {
    fn drop(&mut self) {
        // The bundles have gone, or say themselves what they left.
        let _ = fs::remove_file(busybox_copy());
    }
}

fn busybox_copy() -> PathBuf {
    std::env::temp_dir().join(format!("parhelion-busybox-{}", std::process::id()))
}

/// The programs that the image has.
const PROGRAMS: &[&str] = &[
    "cat", "echo", "env", "false", "hostname", "id", "ip", "ls", "mount", "sh", "sleep", "stat",
    "true", "touch", "pwd", "kill",
];

impl Bundle {
    /// A bundle that runs `script` in a shell.
    pub fn new(script: &str) -> Bundle {
        Bundle::of(program(), "", script)
    }

    /// As [`Bundle::new`], for another program.
    pub fn of(program: PathBuf, without: &'static str, script: &str) -> Bundle {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let id = format!("test-{}-{number}", std::process::id());
        let folder = std::env::temp_dir().join(format!("parhelion-{id}"));
        let bin = folder.join("rootfs/bin");
        fs::create_dir_all(&bin).unwrap();
        for below in ["proc", "sys", "dev", "tmp", "etc"] {
            fs::create_dir_all(folder.join("rootfs").join(below)).unwrap();
        }
        fs::hard_link(busybox_copy(), bin.join("busybox")).unwrap();
        for program in PROGRAMS {
            symlink("busybox", bin.join(program)).unwrap();
        }
        let bundle = Bundle {
            folder,
            id,
            program,
            without,
        };
        bundle
            .parhelion(&["spec", "--bundle", bundle.path()])
            .success();
        bundle.edit(|config| {
            config["process"]["terminal"] = json!(false);
            config["process"]["args"] = json!(["/bin/sh", "-c", script]);
        });
        bundle
    }

    pub fn path(&self) -> &str {
        self.folder.to_str().unwrap()
    }

    /// Changes config.json.
    pub fn edit(&self, change: impl FnOnce(&mut Value)) {
        let path = self.folder.join("config.json");
        let mut config = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        change(&mut config);
        fs::write(&path, serde_json::to_vec_pretty(&config).unwrap()).unwrap();
    }

    /// The program, with this bundle's state directory.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        if !self.without.is_empty() {
            command.env("PARHELION_WEAKENED", self.without);
        }
        command.arg("--root").arg(self.folder.join("state"));
        command
    }

    /// Runs the program with `arguments`, in this bundle's state directory.
    pub fn parhelion(&self, arguments: &[&str]) -> Ran {
        let output = self
            .command()
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        Ran(output)
    }

    pub fn run(&self) -> Ran {
        self.parhelion(&["run", "--bundle", self.path(), &self.id])
    }

    pub fn create(&self) -> Ran {
        // Not through `output`: init keeps the pipes open for as long as it waits.
        let log = fs::File::create(self.folder.join("output")).unwrap();
        let status = self
            .command()
            .args(["create", "--bundle", self.path(), &self.id])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .status()
            .unwrap();
        let stderr = fs::read(self.folder.join("output")).unwrap();
        Ran(Output {
            status,
            stdout: Vec::new(),
            stderr,
        })
    }

    pub fn verb(&self, verb: &str) -> Ran {
        self.parhelion(&[verb, &self.id])
    }

    pub fn status(&self) -> String {
        let state: Value = serde_json::from_str(&self.verb("state").success()).unwrap();
        state["status"].as_str().unwrap().to_owned()
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        self.parhelion(&["delete", "--force", &self.id]);
        // A test that failed is told already; a folder left behind is not worth a second panic.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// What a command answered.
pub struct Ran(pub Output);

impl Ran {
    /// Its output; it must have ended well.
    pub fn success(&self) -> String {
        assert!(
            self.0.status.success(),
            "{:?}: {}",
            self.0.status,
            self.stderr()
        );
        String::from_utf8_lossy(&self.0.stdout).into_owned()
    }

    /// Its error; it must have failed.
    pub fn failure(&self) -> String {
        assert!(!self.0.status.success(), "it did not fail");
        self.stderr()
    }

    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.0.stderr).into_owned()
    }

    pub fn code(&self) -> Option<i32> {
        self.0.status.code()
    }
}

impl Bundle {
    /// The process id of the container's first process.
    pub fn pid(&self) -> i32 {
        let state: Value = serde_json::from_str(&self.verb("state").success()).unwrap();
        i32::try_from(state["pid"].as_i64().unwrap()).unwrap()
    }
}

/// Waits until process `pid` has ended, which its pidfd tells.
pub fn wait_until_gone(pid: i32) {
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    let Ok(pidfd) = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()) else {
        return; // gone already
    };
    let mut events = [rustix::event::PollFd::new(
        &pidfd,
        rustix::event::PollFlags::IN,
    )];
    let patience = rustix::event::Timespec {
        tv_sec: 60,
        tv_nsec: 0,
    };
    let ready = rustix::event::poll(&mut events, Some(&patience)).unwrap();
    assert_eq!(ready, 1, "process {pid:?} has not ended in a minute");
}

/// Whether systemd manages this host.
pub fn has_systemd() -> bool {
    Path::new("/run/systemd/system").is_dir() && Path::new("/run/systemd/private").exists()
}

/// `trials`, if systemd manages this host; said loudly where it does not.
pub fn needs_systemd(trials: Vec<Trial>) -> Vec<Trial> {
    only_where(has_systemd(), "systemd does not run", trials)
}
