//! `kill -9` at every step in turn: of the runtime, and of init before the program.
//!
//! A step is a system call; before each one in turn the runtime, or init, is killed. What is left
//! must end by itself or be a container like any other, and `delete --force` must remove all of it.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use libtest_mimic::Trial;
use nix::libc;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::{Value, json};

use super::tracer::{self, Ended, Step, Whose};
use crate::support::{Bundle, program, tests};

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    tests![
        create_killed_at_every_step_leaves_nothing,
        create_of_a_bundle_with_all_the_trimmings_killed_at_every_step_leaves_nothing,
        create_in_joined_namespaces_killed_at_every_step_leaves_nothing,
        create_killed_at_every_step_of_init_leaves_nothing,
        create_with_trimmings_killed_at_every_step_of_init_leaves_nothing,
        create_in_joined_namespaces_killed_at_every_step_of_init_leaves_nothing,
        create_whose_init_is_killed_at_every_step_fails_and_leaves_nothing,
        create_in_joined_namespaces_whose_init_is_killed_at_every_step_leaves_nothing,
        create_with_trimmings_whose_init_is_killed_at_every_step_leaves_nothing,
        run_killed_at_every_step_leaves_nothing,
        run_in_the_foreground_killed_at_every_step_leaves_nothing,
        pause_killed_at_every_step_leaves_nothing,
        resume_killed_at_every_step_leaves_nothing,
        start_killed_at_every_step_leaves_nothing,
        kill_killed_at_every_step_leaves_nothing,
        delete_killed_at_every_step_leaves_nothing,
    ]
}

/// How long a process may take to notice that it is alone.
const LIMIT: Duration = Duration::from_secs(30);

/// Which steps are taken: all of them; in the virtual host, where a step takes ten times as long,
/// some, others with each boot, and that is said.
fn steps(test: &str) -> impl Iterator<Item = usize> {
    let emulated = std::env::var_os("PARHELION_TEST_ALL").is_some();
    let stride: usize = if emulated { 16 } else { 1 };
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let offset = usize::from_str_radix(&boot[..2], 16).unwrap() % stride;
    if stride > 1 {
        println!("{test}: only steps {offset}, {}, ... here", offset + stride);
    }
    (offset..).step_by(stride)
}

/// A bundle whose container is made and killed again and again.
struct Subject {
    bundle: Bundle,
    /// Arguments of create and run before the id.
    options: Vec<String>,
    /// Takes terminals, if the container has one.
    console: Option<UnixListener>,
    /// Whose namespaces are joined.
    _others: Option<Others>,
}

impl Subject {
    fn plain() -> Subject {
        Subject::running("sleep 1000")
    }

    fn running(script: &str) -> Subject {
        let bundle = Bundle::new(script);
        let options = vec!["--bundle".to_owned(), bundle.path().to_owned()];
        Subject {
            bundle,
            options,
            console: None,
            _others: None,
        }
    }

    /// Hooks, a terminal, and user and time namespaces beside the usual ones.
    fn with_trimmings() -> Subject {
        let mut subject = Subject::plain();
        let folder = &subject.bundle.folder;
        std::os::unix::fs::chown(folder.join("rootfs"), Some(100_000), Some(100_000)).unwrap();
        subject.bundle.edit(|config| {
            let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
            namespaces.extend([json!({"type": "user"}), json!({"type": "time"})]);
            config["linux"]["timeOffsets"] = json!({"boottime": {"secs": 1000}});
            own_ids(config);
            hooks(config);
            config["process"]["terminal"] = json!(true);
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

    /// A pid and a network namespace of others, and a new user namespace: init is cloned by a
    /// process in between.
    fn in_joined_namespaces() -> Subject {
        let mut subject = Subject::plain();
        let others = Others::new();
        let rootfs = subject.bundle.folder.join("rootfs");
        std::os::unix::fs::chown(rootfs, Some(100_000), Some(100_000)).unwrap();
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
            own_ids(config);
            hooks(config);
            // procfs and sysfs belong to the joined namespaces, which the new user does not own.
            config["mounts"] = json!([{"destination": "/dev", "type": "tmpfs", "source": "tmpfs"}]);
        });
        subject._others = Some(others);
        subject
    }

    fn id(&self) -> &str {
        &self.bundle.id
    }

    fn root(&self) -> String {
        self.bundle
            .folder
            .join("state")
            .to_str()
            .unwrap()
            .to_owned()
    }

    /// The program with a verb, the verb's options, and the id.
    fn command(&self, verb: &[&str]) -> Command {
        let mut command = Command::new(program());
        command.args(["--root", &self.root()]).arg(verb[0]);
        if ["create", "run"].contains(&verb[0]) {
            command.args(&self.options);
        }
        command.args(&verb[1..]);
        let after = if verb[0] == "kill" {
            &["KILL"][..]
        } else {
            &[]
        };
        command.arg(self.id()).args(after);
        command
    }

    fn do_it(&self, verb: &[&str]) {
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
    fn output(&self) -> File {
        File::create(self.bundle.folder.join("output")).unwrap()
    }

    fn told(&self) -> String {
        fs::read_to_string(self.bundle.folder.join("output")).unwrap()
    }

    fn cgroup(&self) -> String {
        format!("/sys/fs/cgroup/parhelion/{}", self.id())
    }

    /// The processes in the container's cgroup.
    fn processes(&self) -> Vec<u32> {
        let procs = fs::read_to_string(self.cgroup() + "/cgroup.procs").unwrap_or_default();
        procs.lines().map(|pid| pid.parse().unwrap()).collect()
    }

    /// Waits until nothing of the container moves any more: its processes have ended, or it waits
    /// for its start, or its program runs.
    fn settle(&self) {
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
    fn nothing_is_left_after_delete(&self, ended: &Ended, step: Step) {
        let delete = self.bundle.parhelion(&["delete", "--force", self.id()]);
        let told = delete.stderr();
        assert!(
            delete.0.status.success(),
            "{step:?}: {told}; {}",
            self.told()
        );
        self.nothing_is_left(ended, step);
    }

    fn nothing_is_left(&self, ended: &Ended, step: Step) {
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
    }
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

fn own_ids(config: &mut Value) {
    let map = json!([{"containerID": 0, "hostID": 100_000, "size": 1000}]);
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
    fn new() -> Others {
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

    fn file(&self, name: &str) -> String {
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

/// Runs `verb` again and again, killed one step later each time, until it gets through. `before`
/// makes what it needs; `after` looks at what is left.
fn at_every_step(
    subject: &Subject,
    verb: &[&str],
    (whose, victim): (Whose, Whose),
    before: impl Fn(),
    after: impl Fn(&Ended, Step),
) {
    // Mounts are looked at in a mount namespace that no other test changes.
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
    let mounts = mounts();
    for (taken, number) in steps(verb[0]).enumerate() {
        let step = Step {
            whose,
            number,
            victim,
        };
        before();
        let ended = tracer::run(&subject.command(verb), &subject.output(), step);
        after(&ended, step);
        assert_eq!(self::mounts(), mounts, "mounts after {step:?}");
        if !ended.killed {
            assert!(taken > 0, "it was never killed");
            return;
        }
    }
}

fn mounts() -> BTreeSet<String> {
    let table = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
    table.lines().map(str::to_owned).collect()
}

/// Everything that is traced and mounted is so in a thread of its own.
fn in_a_thread(test: impl FnOnce() + Send + 'static) {
    if let Err(panic) = std::thread::spawn(test).join() {
        std::panic::resume_unwind(panic);
    }
}

fn killed(status: ExitStatus) -> bool {
    std::os::unix::process::ExitStatusExt::signal(&status) == Some(9)
}

/// The runtime is killed at each step of `whose`.
fn kill_create(make: fn() -> Subject, whose: Whose) {
    in_a_thread(move || {
        let subject = make();
        let after = |ended: &Ended, step| {
            // At init's last steps the runtime may have ended well at the same moment.
            let through = ended.status.success();
            assert!(killed(ended.status) || through, "{}", subject.told());
            assert!(ended.killed || ended.status.success(), "{}", subject.told());
            subject.settle();
            if !subject.processes().is_empty() {
                // It was killed when all was said; that it can be started is all that is left.
                assert_eq!(subject.bundle.status(), "created", "{step:?}");
            }
            subject.nothing_is_left_after_delete(ended, step);
        };
        at_every_step(&subject, &["create"], (whose, Whose::Runtime), || (), after);
    });
}

fn create_killed_at_every_step_leaves_nothing() {
    kill_create(Subject::plain, Whose::Runtime);
}

fn create_of_a_bundle_with_all_the_trimmings_killed_at_every_step_leaves_nothing() {
    kill_create(Subject::with_trimmings, Whose::Runtime);
}

fn create_in_joined_namespaces_killed_at_every_step_leaves_nothing() {
    kill_create(Subject::in_joined_namespaces, Whose::Runtime);
}

fn create_killed_at_every_step_of_init_leaves_nothing() {
    kill_create(Subject::plain, Whose::Init);
}

fn create_with_trimmings_killed_at_every_step_of_init_leaves_nothing() {
    kill_create(Subject::with_trimmings, Whose::Init);
}

fn create_in_joined_namespaces_killed_at_every_step_of_init_leaves_nothing() {
    kill_create(Subject::in_joined_namespaces, Whose::Init);
}

/// The runtime sees that init is gone, and removes everything itself.
fn kill_init(make: fn() -> Subject) {
    in_a_thread(move || {
        let subject = make();
        let after = |ended: &Ended, step| {
            assert!(
                !killed(ended.status),
                "{step:?}: create hung: {}",
                subject.told()
            );
            if ended.status.success() {
                // Init was killed at its last steps, when create was done with it.
                subject.settle();
                return subject.nothing_is_left_after_delete(ended, step);
            }
            assert!(ended.killed, "{}", subject.told());
            // Init itself, the process that clones it, or a hook inside.
            let said = subject.told();
            let words = [
                "was killed",
                "killed by signal 9",
                "init has ended meanwhile",
            ];
            assert!(words.iter().any(|words| said.contains(words)), "{said}");
            subject.nothing_is_left(ended, step);
        };
        let whom = (Whose::Init, Whose::Init);
        at_every_step(&subject, &["create"], whom, || (), after);
    });
}

fn create_whose_init_is_killed_at_every_step_fails_and_leaves_nothing() {
    kill_init(Subject::plain);
}

fn create_with_trimmings_whose_init_is_killed_at_every_step_leaves_nothing() {
    kill_init(Subject::with_trimmings);
}

fn run_killed_at_every_step_leaves_nothing() {
    kill_run(&["run", "--detach"], "sleep 1000");
}

fn run_in_the_foreground_killed_at_every_step_leaves_nothing() {
    kill_run(&["run"], "true");
}

fn kill_run(verb: &'static [&'static str], script: &'static str) {
    in_a_thread(move || {
        let subject = Subject::running(script);
        let after = |ended: &Ended, step| {
            subject.settle();
            subject.nothing_is_left_after_delete(ended, step);
        };
        let whom = (Whose::Runtime, Whose::Runtime);
        at_every_step(&subject, verb, whom, || (), after);
    });
}

fn create_in_joined_namespaces_whose_init_is_killed_at_every_step_leaves_nothing() {
    kill_init(Subject::in_joined_namespaces);
}

/// `verb` on a container that `before` has made.
fn kill_verb(verb: &'static [&'static str], before: &'static [&'static str]) {
    in_a_thread(move || {
        let subject = Subject::plain();
        let make = || before.iter().for_each(|verb| subject.do_it(&[verb]));
        let after = |ended: &Ended, step| {
            assert_eq!(ended.killed, killed(ended.status), "{}", subject.told());
            assert!(ended.killed || ended.status.success(), "{}", subject.told());
            subject.settle();
            subject.nothing_is_left_after_delete(ended, step);
        };
        let whom = (Whose::Runtime, Whose::Runtime);
        at_every_step(&subject, verb, whom, make, after);
    });
}

fn start_killed_at_every_step_leaves_nothing() {
    kill_verb(&["start"], &["create"]);
}

fn pause_killed_at_every_step_leaves_nothing() {
    kill_verb(&["pause"], &["create", "start"]);
}

fn resume_killed_at_every_step_leaves_nothing() {
    kill_verb(&["resume"], &["create", "start", "pause"]);
}

fn kill_killed_at_every_step_leaves_nothing() {
    kill_verb(&["kill"], &["create", "start"]);
}

fn delete_killed_at_every_step_leaves_nothing() {
    kill_verb(&["delete", "--force"], &["create", "start"]);
}
