//! A create that fails leaves nothing, and says why: one line for people, one for callers.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::process::{Command, ExitStatus, Stdio};

use libtest_mimic::Trial;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::{Value, json};

use super::{in_a_thread, remains};
use crate::support::{Bundle, needs_controllers, program, tests};

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    let mut all = tests![
        a_missing_rootfs_is_named,
        a_mount_that_fails_is_named,
        an_unknown_program_is_named_with_the_path_tried,
        a_program_that_can_not_be_executed_is_named,
        a_hook_that_fails_is_named,
        a_namespace_that_can_not_be_joined_is_named,
        a_sysctl_that_the_kernel_refuses_is_named,
        a_cgroup_file_that_the_kernel_refuses_is_named,
        a_cgroup_with_processes_of_others_is_refused_and_kept,
        sockets_and_files_that_are_not_there_are_named,
        without_descriptors_nothing_is_left,
        without_space_for_state_nothing_is_left,
        on_a_read_only_state_directory_nothing_is_left,
    ];
    all.extend(needs_controllers(
        &["cpu", "memory", "pids"],
        tests![a_limit_that_the_kernel_refuses_is_named],
    ));
    all
}

/// A bundle for creates that fail.
pub struct Failing(pub Bundle);

impl Failing {
    pub fn new(change: impl FnOnce(&mut Value)) -> Failing {
        let bundle = Bundle::new("true");
        bundle.edit(change);
        Failing(bundle)
    }

    pub fn path(&self, name: &str) -> String {
        let path = self.0.folder.join(name);
        path.to_str().unwrap().to_owned()
    }

    /// The words of `create` with these options.
    pub fn create(&self, options: &[&str]) -> Vec<String> {
        let (root, log) = (self.path("state"), self.path("log"));
        let global = ["--root", &root, "--log", &log, "--log-format", "json"];
        let create = ["create", "--bundle", self.0.path()];
        let words = global.iter().chain(&create).chain(options);
        let words = words.copied().chain([self.0.id.as_str()]);
        words.map(str::to_owned).collect()
    }

    fn run(&self, mut command: Command) -> ExitStatus {
        let output = File::create(self.path("output")).unwrap();
        command
            .stdin(Stdio::null())
            .stderr(output.try_clone().unwrap());
        command.stdout(output).status().unwrap()
    }

    /// Creates it, which must fail with a line that has all of `words`, and leave nothing.
    fn fails(&self, options: &[&str], words: &[&str]) {
        let mounts = mounts();
        let mut command = Command::new(program());
        command.args(self.create(options));
        assert!(
            !self.run(command).success(),
            "it did not fail: {options:?}, {words:?}"
        );
        let line = self.told_once();
        for word in words {
            assert!(line.contains(word), "{word:?} is not in {line:?}");
        }
        self.nothing_is_left();
        let left: Vec<_> = self::mounts().difference(&mounts).cloned().collect();
        let ours = |mount: &&String| mount.contains(&self.0.id);
        assert_eq!(left.iter().filter(ours).count(), 0, "{left:?}");
    }

    /// The one line for people, which is the one for callers too.
    pub fn told_once(&self) -> String {
        let output = fs::read_to_string(self.path("output")).unwrap();
        let [line] = output.lines().collect::<Vec<_>>()[..] else {
            panic!("not one line: {output:?}");
        };
        let start = format!("create {:?}: ", self.0.id);
        assert!(
            line.starts_with(&start),
            "{line:?} does not name the verb and the id"
        );
        let reason = &line[start.len()..];
        assert!(!reason.starts_with(char::is_uppercase), "{line}");
        assert!(!reason.contains("os error"), "{line}");
        let log = fs::read_to_string(self.path("log")).unwrap();
        fs::remove_file(self.path("log")).unwrap();
        let errors = log
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap());
        let errors: Vec<_> = errors.filter(|line| line["level"] == "error").collect();
        assert_eq!(errors.len(), 1, "{log}");
        assert_eq!(errors[0]["msg"], line);
        line.to_owned()
    }

    pub fn nothing_is_left(&self) {
        let states = fs::read_dir(self.path("state")).map_or(0, Iterator::count);
        assert_eq!(states, 0, "state is left");
        let cgroup = format!("/sys/fs/cgroup/parhelion/{}", self.0.id);
        assert!(!fs::exists(cgroup).unwrap(), "a cgroup is left");
        remains::nothing_is_left(&self.0.folder, &self.0.id);
    }
}

fn mounts() -> BTreeSet<String> {
    let table = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
    table.lines().map(str::to_owned).collect()
}

fn a_missing_rootfs_is_named() {
    let failing = Failing::new(|config| config["root"]["path"] = json!("nowhere"));
    failing.fails(&[], &["root.path: ", "nowhere\" does not exist"]);
}

fn a_mount_that_fails_is_named() {
    let mounts = [
        (json!({"type": "nofs", "source": "x"}), "/a", "\"nofs\""),
        (
            json!({"type": "tmpfs", "source": "x", "options": ["size=1q"]}),
            "/a",
            "\"1q\"",
        ),
        (
            json!({"type": "tmpfs", "source": "x"}),
            "/bin/sh/a",
            "not a directory",
        ),
        (
            json!({"type": "proc", "source": "x"}),
            "/bin/sh",
            "not a directory",
        ),
        (
            json!({"type": "bind", "source": "/etc", "options": ["bind"]}),
            "/bin/sh",
            "\"/bin/sh\"",
        ),
    ];
    for (mut mount, destination, word) in mounts {
        mount["destination"] = json!(destination);
        let failing = Failing::new(|config| {
            config["mounts"].as_array_mut().unwrap().insert(2, mount);
        });
        let place = format!("mount 3 of 8 (mounts[2], to {destination:?})");
        failing.fails(&[], &[&place, word]);
    }
    let bind = json!({"destination": "/a", "source": "/no/such", "options": ["bind"]});
    let failing = Failing::new(|config| config["mounts"][2] = bind);
    failing.fails(&[], &["mounts[2].source: \"/no/such\" does not exist"]);
}

fn an_unknown_program_is_named_with_the_path_tried() {
    let failing = Failing::new(|config| {
        config["process"]["args"] = json!(["nothing"]);
        config["process"]["env"] = json!(["PATH=/bin:/usr/local/bin"]);
    });
    failing.fails(
        &[],
        &[
            "\"nothing\"",
            "executable file not found in $PATH (/bin:/usr/local/bin",
        ],
    );
}

fn a_program_that_can_not_be_executed_is_named() {
    for (args, word) in [
        (json!(["/no/such"]), "no such file or directory"),
        (json!(["/etc"]), "is a directory"),
        (json!(["/etc/plain"]), "permission denied"),
    ] {
        let failing = Failing::new(|config| config["process"]["args"] = args.clone());
        fs::write(failing.path("rootfs/etc/plain"), "x").unwrap();
        failing.fails(&[], &[args[0].as_str().unwrap(), word]);
    }
}

fn a_hook_that_fails_is_named() {
    let hook = json!({"path": "/bin/sh", "args": ["sh", "-c", "echo no luck; exit 3"]});
    for name in ["prestart", "createRuntime", "createContainer"] {
        let good = json!({"path": "/bin/true"});
        let failing = Failing::new(|config| config["hooks"] = json!({ name: [good, hook] }));
        let place = format!("hooks.{name}[1] (");
        failing.fails(&[], &[&place, "/bin/sh", "exit status 3: no luck"]);
    }
    let failing = Failing::new(|config| {
        config["hooks"] = json!({"createRuntime": [{"path": "/no/hook"}]});
    });
    failing.fails(
        &[],
        &[
            "hooks.createRuntime[0] (/no/hook)",
            "no such file or directory",
        ],
    );
}

fn a_namespace_that_can_not_be_joined_is_named() {
    let paths = [
        (
            "/no/such",
            "linux.namespaces[1].path: stat(\"/no/such\"): no such file or directory",
        ),
        (
            "/etc/passwd",
            "linux.namespaces[1].path: \"/etc/passwd\" is no namespace",
        ),
        (
            "/proc/self/ns/uts",
            "linux.namespaces[1].path: \"/proc/self/ns/uts\" is",
        ),
    ];
    for (path, words) in paths {
        let failing = Failing::new(|config| {
            assert_eq!(config["linux"]["namespaces"][1]["type"], "network");
            config["linux"]["namespaces"][1]["path"] = json!(path);
        });
        failing.fails(&[], &[words]);
    }
}

fn a_sysctl_that_the_kernel_refuses_is_named() {
    for (name, value, word) in [
        ("net.ipv4.ip_forward", "many", "invalid argument"),
        ("net.ipv4.no_such_thing", "1", "no such file or directory"),
    ] {
        let failing = Failing::new(|config| config["linux"]["sysctl"] = json!({ name: value }));
        failing.fails(&[], &["linux.sysctl", &name.replace('.', "/"), word]);
    }
}

fn a_cgroup_file_that_the_kernel_refuses_is_named() {
    let failing = Failing::new(|config| {
        config["linux"]["resources"]["unified"] = json!({"cgroup.max.depth": "deep"});
    });
    failing.fails(
        &[],
        &[
            "linux.resources.unified",
            "cgroup.max.depth",
            "invalid argument",
        ],
    );
}

fn a_limit_that_the_kernel_refuses_is_named() {
    for (field, limits, word) in [
        (
            "linux.resources.blockIO.throttleReadBpsDevice[0]",
            json!({"blockIO": {"throttleReadBpsDevice": [{"major": 250, "minor": 250, "rate": 1}]}}),
            "io.max",
        ),
        (
            "linux.resources.unified",
            json!({"unified": {"memory.high": "much"}}),
            "memory.high",
        ),
        (
            "linux.resources.unified",
            json!({"unified": {"pids.max": "few"}}),
            "pids.max",
        ),
    ] {
        let failing = Failing::new(|config| config["linux"]["resources"] = limits);
        failing.fails(&[], &[field, word]);
    }
}

fn a_cgroup_with_processes_of_others_is_refused_and_kept() {
    let failing = Failing::new(|_| {});
    let name = format!("/parhelion-{}-others", failing.0.id);
    failing
        .0
        .edit(|config| config["linux"]["cgroupsPath"] = json!(name));
    let cgroup = format!("/sys/fs/cgroup{name}");
    fs::create_dir(&cgroup).unwrap();
    let script = format!("echo $$ > {cgroup}/cgroup.procs && echo in && exec sleep 100000");
    let mut other = Command::new("sh");
    other.args(["-c", &script]).stdout(Stdio::piped());
    let mut other = other.spawn().unwrap();
    let mut ready = [0; 3];
    std::io::Read::read_exact(other.stdout.as_mut().unwrap(), &mut ready).unwrap();
    failing.fails(
        &[],
        &["has processes of others in it", &other.id().to_string()],
    );
    let inside = fs::read_to_string(format!("{cgroup}/cgroup.procs")).unwrap();
    other.kill().unwrap();
    other.wait().unwrap();
    fs::remove_dir(&cgroup).unwrap();
    assert_eq!(
        inside.trim(),
        other.id().to_string(),
        "the other's cgroup was touched"
    );
}

fn sockets_and_files_that_are_not_there_are_named() {
    let failing = Failing::new(|_| {});
    let absent = "no such file or directory";
    failing.fails(
        &["--pid-file", "/no/such/pid"],
        &["--pid-file /no/such/pid", absent],
    );
    failing.fails(
        &["--pid-file", "/proc/pid"],
        &["--pid-file /proc/pid", absent],
    );
    failing.fails(
        &["--pidfd-socket", "/no/socket"],
        &["connect(\"/no/socket\")", absent],
    );
    // What was written before the step that fails is taken back.
    let (file, socket) = (failing.path("pid"), "/no/socket");
    failing.fails(&["--pid-file", &file, "--pidfd-socket", socket], &[absent]);
    assert!(!fs::exists(file).unwrap(), "the pid file is left");
    failing.fails(&["--preserve-fds", "2"], &["descriptor 3 is not open"]);
    failing
        .0
        .edit(|config| config["process"]["terminal"] = json!(true));
    failing.fails(
        &["--console-socket", socket],
        &["connect(\"/no/socket\")", absent],
    );
    failing.fails(&[], &["process.terminal", "--console-socket"]);
}

fn without_descriptors_nothing_is_left() {
    let failing = Failing::new(|_| {});
    // One more each time, until there are enough.
    for limit in 5..64 {
        let mut command = Command::new("sh");
        let script = format!("ulimit -S -n {limit} && exec \"$@\"");
        command
            .args(["-c", &script, "sh"])
            .arg(program())
            .args(failing.create(&[]));
        if failing.run(command).success() {
            assert!(limit > 8, "{limit} descriptors can not be enough");
            return;
        }
        let line = failing.told_once();
        assert!(line.contains("too many open files"), "with {limit}: {line}");
        failing.nothing_is_left();
    }
    panic!("64 descriptors were not enough");
}

/// A file system of its own for the state, mounted for this thread only, and as long as it lives.
struct StateOnTmpfs(String);

impl StateOnTmpfs {
    fn mount(failing: &Failing, flags: MsFlags, options: &str) -> StateOnTmpfs {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
        let root = failing.path("state");
        fs::create_dir_all(&root).unwrap();
        let none = Some("none");
        mount(none, root.as_str(), Some("tmpfs"), flags, Some(options)).unwrap();
        StateOnTmpfs(root)
    }
}

impl Drop for StateOnTmpfs {
    fn drop(&mut self) {
        umount2(self.0.as_str(), MntFlags::MNT_DETACH).unwrap();
    }
}

fn without_space_for_state_nothing_is_left() {
    // The root of the file system is an inode too.
    for options in [
        "nr_inodes=1",
        "nr_inodes=2",
        "nr_inodes=3",
        "nr_inodes=4",
        "size=4k",
    ] {
        in_a_thread(move || {
            let failing = Failing::new(|_| {});
            let _mount = StateOnTmpfs::mount(&failing, MsFlags::empty(), options);
            failing.fails(&[], &[&failing.path("state"), "no space left on device"]);
        });
    }
}

fn on_a_read_only_state_directory_nothing_is_left() {
    in_a_thread(|| {
        let failing = Failing::new(|_| {});
        let _mount = StateOnTmpfs::mount(&failing, MsFlags::MS_RDONLY, "size=1m");
        failing.fails(&[], &[&failing.path("state"), "read-only file system"]);
    });
}
