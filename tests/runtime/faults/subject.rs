//! A bundle whose container is made and killed again and again, and what is looked for afterwards.

use std::ffi::OsString;
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use nix::libc;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::{Value, json};

use super::remains;
use super::tracer::{Ended, Step};
use crate::rootless;
use crate::support::{Bundle, program};

/// How long a process may take to notice that it is alone.
const LIMIT: Duration = Duration::from_secs(30);

/// How many users a container has.
const IDS: u32 = 1000;

/// So many keys a user may have left before more are made: a hundred below what is allowed as a rule
/// (keyrings(7), /proc/sys/kernel/keys/maxkeys).
const KEYS: usize = 100;

/// A bundle whose container is made and killed again and again.
pub struct Subject {
    pub bundle: Bundle,
    /// What goes before the program on the command line.
    prefix: Vec<String>,
    /// Arguments of create and run before the id.
    options: Vec<String>,
    /// Takes terminals, if the container has one.
    console: Option<UnixListener>,
    /// Whose namespaces are joined.
    _others: Option<Others>,
    /// Whose the container's keyring is, on the host.
    owner: u32,
}

impl Subject {
    pub fn plain() -> Subject {
        Subject::running("sleep 1000")
    }

    pub fn running(script: &str) -> Subject {
        let bundle = Bundle::new(script);
        let options = vec!["--bundle".to_owned(), bundle.path().to_owned()];
        Subject {
            bundle,
            prefix: Vec::new(),
            options,
            console: None,
            _others: None,
            owner: 0,
        }
    }

    /// An ordinary user's, with hooks.
    pub fn of_a_user() -> Subject {
        let mut subject = Subject::plain();
        let user = rootless::user();
        subject.owner = user;
        subject.bundle.edit(|config| {
            let linux = config["linux"].as_object_mut().unwrap();
            linux.remove("resources");
            linux.insert("uidMappings".to_owned(), rootless::one(user));
            linux.insert("gidMappings".to_owned(), rootless::one(user));
            let namespaces = linux["namespaces"].as_array_mut().unwrap();
            namespaces.push(json!({"type": "user"}));
            config["mounts"][2]["options"]
                .as_array_mut()
                .unwrap()
                .retain(|option| option != "gid=5");
            hooks(config);
        });
        fs::create_dir(subject.root()).unwrap();
        rootless::give(&subject.bundle.folder);
        let user = user.to_string();
        let setpriv = [
            "setpriv",
            "--reuid",
            &user,
            "--regid",
            &user,
            "--clear-groups",
        ];
        subject.prefix = setpriv.map(str::to_owned).to_vec();
        subject
    }

    /// Hooks, a terminal, cgroups below its own, and user and time namespaces beside the usual ones.
    pub fn with_trimmings() -> Subject {
        let mut subject = Subject::plain();
        let folder = &subject.bundle.folder;
        let owner = another_owner();
        std::os::unix::fs::chown(folder.join("rootfs"), Some(owner), Some(owner)).unwrap();
        subject.owner = owner;
        subject.bundle.edit(|config| {
            let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
            namespaces.extend([json!({"type": "user"}), json!({"type": "time"})]);
            config["linux"]["timeOffsets"] = json!({"boottime": {"secs": 1000}});
            own_ids(config, owner);
            hooks(config);
            config["process"]["terminal"] = json!(true);
            config["annotations"] = json!({
                "run.oci.systemd.subgroup": "main", "run.oci.delegate-cgroup": "mine"
            });
        });
        let socket = folder.join("console.sock");
        let console = UnixListener::bind(&socket).unwrap();
        console.set_nonblocking(true).unwrap();
        let socket = socket.to_str().unwrap().to_owned();
        subject
            .options
            .extend(["--console-socket".to_owned(), socket]);
        subject.console = Some(console);
        subject
    }

    /// A pid and a network namespace of others, and a new user namespace.
    pub fn in_joined_namespaces() -> Subject {
        let mut subject = Subject::plain();
        let others = Others::new();
        let rootfs = subject.bundle.folder.join("rootfs");
        let owner = another_owner();
        std::os::unix::fs::chown(rootfs, Some(owner), Some(owner)).unwrap();
        subject.owner = owner;
        subject.bundle.edit(|config| {
            for namespace in config["linux"]["namespaces"].as_array_mut().unwrap() {
                match namespace["type"].as_str() {
                    Some("pid") => namespace["path"] = json!(others.file("pid_for_children")),
                    Some("network") => namespace["path"] = json!(others.file("net")),
                    _ => {}
                }
            }
            let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
            namespaces.push(json!({"type": "user"}));
            own_ids(config, owner);
            hooks(config);
            // procfs and sysfs belong to the joined namespaces, which the new user does not own.
            config["mounts"] = json!([{"destination": "/dev", "type": "tmpfs", "source": "tmpfs"}]);
        });
        subject._others = Some(others);
        subject
    }

    pub fn id(&self) -> &str {
        &self.bundle.id
    }

    pub fn root(&self) -> String {
        self.bundle
            .folder
            .join("state")
            .to_str()
            .unwrap()
            .to_owned()
    }

    /// The program with a verb, the verb's options, and the id.
    pub fn command(&self, verb: &[&str]) -> Command {
        let program = program().into_os_string();
        let mut words = self.prefix.iter().map(OsString::from).chain([program]);
        let mut command = Command::new(words.next().unwrap());
        command.args(words);
        command.args(["--root", &self.root()]).arg(verb[0]);
        if ["create", "run"].contains(&verb[0]) {
            command.args(&self.options);
        }
        command.args(&verb[1..]);
        let after = match verb {
            ["kill"] => &["KILL"][..],
            ["exec"] => &["/bin/true"],
            ["exec", "--detach"] => &["/bin/sleep", "1000"],
            _ => &[],
        };
        command.arg(self.id()).args(after);
        command
    }

    pub fn do_it(&self, verb: &[&str]) {
        let output = self.output();
        let status = self
            .command(verb)
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .status()
            .unwrap();
        assert!(status.success(), "{verb:?}: {}", self.told());
    }

    /// The file for the command's words: a container keeps a pipe open.
    pub fn output(&self) -> File {
        File::create(self.bundle.folder.join("output")).unwrap()
    }

    pub fn told(&self) -> String {
        fs::read_to_string(self.bundle.folder.join("output")).unwrap()
    }

    pub fn cgroup(&self) -> String {
        format!("/sys/fs/cgroup/parhelion/{}", self.id())
    }

    /// The processes in the container's cgroup, and in those below it that it may have.
    pub fn processes(&self) -> Vec<u32> {
        let procs = |below: &str| {
            let file = self.cgroup() + below + "/cgroup.procs";
            fs::read_to_string(file).unwrap_or_default()
        };
        let all = ["", "/main", "/main/mine"].map(procs).concat();
        all.lines().map(|pid| pid.parse().unwrap()).collect()
    }

    /// Waits until nothing of the container moves any more: its processes have ended, or it waits
    /// for its start, or its program runs.
    pub fn settle(&self) {
        let tries = LIMIT.as_millis() / 2;
        for _ in 0..tries {
            if self.processes().into_iter().all(is_settled) {
                return;
            }
            // No event tells that a process has come to wait in accept(2).
            std::thread::sleep(Duration::from_millis(2));
        }
        let left: Vec<_> = self.processes().into_iter().map(describe).collect();
        panic!("after {LIMIT:?} there are still {left:?}; {}", self.told());
    }

    /// Removes what is left by `delete --force`, and looks whether it is all.
    pub fn nothing_is_left_after_delete(&self, ended: &Ended, step: Step) {
        let delete = self
            .command(&["delete", "--force"])
            .stdin(Stdio::null())
            .output();
        let delete = delete.unwrap();
        let told = String::from_utf8_lossy(&delete.stderr);
        assert!(delete.status.success(), "{step:?}: {told}; {}", self.told());
        self.nothing_is_left(ended, step);
    }

    pub fn nothing_is_left(&self, ended: &Ended, step: Step) {
        let place = || format!("after {step:?}: {:?}: {}", ended.status, self.told());
        let states = fs::read_dir(self.root()).map_or(0, Iterator::count);
        assert_eq!(states, 0, "state is left {}", place());
        assert!(
            !fs::exists(self.cgroup()).unwrap(),
            "a cgroup is left {}",
            place()
        );
        for other in &ended.others {
            let limit = Timespec {
                tv_sec: LIMIT.as_secs().try_into().unwrap(),
                tv_nsec: 0,
            };
            let mut fds = [PollFd::from_borrowed_fd(other.as_fd(), PollFlags::IN)];
            let gone = poll(&mut fds, Some(&limit)).unwrap();
            assert_eq!(gone, 1, "a process is left {}", place());
        }
        if let Some(console) = &self.console {
            while console.accept().is_ok() {}
        }
        remains::nothing_is_left(&self.bundle.folder, self.id());
        self.keyrings_are_given_back();
    }

    /// The kernel takes back keyrings that nobody holds some time later, and counts them until then.
    fn keyrings_are_given_back(&self) {
        if self.owner == 0 {
            return;
        }
        let tries = LIMIT.as_millis() / 2;
        for _ in 0..tries {
            if keys_of(self.owner) < KEYS {
                return;
            }
            // No event tells of it.
            std::thread::sleep(Duration::from_millis(2));
        }
        panic!("user {} has still {} keys", self.owner, keys_of(self.owner));
    }
}

/// The keys that count against a user's quota (proc(5), /proc/key-users).
fn keys_of(user: u32) -> usize {
    let users = fs::read_to_string("/proc/key-users").unwrap();
    let start = format!("{user}:");
    let line = users
        .lines()
        .find(|line| line.trim_start().starts_with(&start));
    let quota = line.map(|line| line.split_whitespace().nth(3).unwrap());
    quota.map_or(0, |quota| quota.split('/').next().unwrap().parse().unwrap())
}

/// True for a process that waits for its start or runs the program, and is not ending.
fn is_settled(pid: u32) -> bool {
    match describe(pid) {
        None => false,
        Some((exe, call)) if exe.rsplit('/').next().unwrap().contains("parhelion") => {
            call.starts_with(&format!("{} ", libc::SYS_accept4))
        }
        Some(_) => true,
    }
}

/// What a process executes, and which system call it is in.
fn describe(pid: u32) -> Option<(String, String)> {
    let exe = fs::read_link(format!("/proc/{pid}/exe")).ok()?;
    let call = fs::read_to_string(format!("/proc/{pid}/syscall")).ok()?;
    Some((exe.to_string_lossy().into_owned(), call))
}

/// A user of the host whom no other test uses.
fn another_owner() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(1_000_000);
    NEXT.fetch_add(IDS, Ordering::Relaxed)
}

fn own_ids(config: &mut Value, owner: u32) {
    let map = json!([{"containerID": 0, "hostID": owner, "size": IDS}]);
    config["linux"]["uidMappings"] = map.clone();
    config["linux"]["gidMappings"] = map;
}

fn hooks(config: &mut Value) {
    let host = json!([{"path": "/bin/true"}]);
    let inside = json!([{"path": "/bin/true", "args": ["true"]}]);
    config["hooks"] = json!({
        "prestart": host, "createRuntime": host, "createContainer": host,
        "startContainer": inside, "poststart": host, "poststop": host,
    });
}

/// A process in namespaces of its own, for others to join.
struct Others(Child);

impl Others {
    pub fn new() -> Others {
        let mut command = Command::new("unshare");
        command.args([
            "--pid",
            "--net",
            "--fork",
            "--kill-child",
            "sleep",
            "1000000",
        ]);
        let others = Others(command.spawn().unwrap());
        // The namespace has a file when its first process is there, of which no event tells.
        for _ in 0..LIMIT.as_millis() / 2 {
            if fs::metadata(others.file("pid_for_children")).is_ok() {
                return others;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        panic!("unshare made no pid namespace");
    }

    pub fn file(&self, name: &str) -> String {
        format!("/proc/{}/ns/{name}", self.0.id())
    }
}

impl Drop for Others {
    fn drop(&mut self) {
        // It sleeps for longer than any test takes.
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}
