//! `keep` and `keeper`: an instance is held, whatever happens to its program and to its keeper.

mod adoption;
mod door;
mod groups;
mod life;
mod logs;
mod refusals;
mod stop;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use rustix::fs::inotify;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde_json::{Value, json};

use crate::caller::{Fifo, Running, command, wait_for_exit, wait_readable};
use crate::support::Bundle;

/// The tests of this folder.
pub fn all() -> Vec<Trial> {
    [
        adoption::all(),
        door::all(),
        groups::all(),
        life::all(),
        logs::all(),
        refusals::all(),
        stop::all(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// How long a state is waited for: the virtual host is slow.
const PATIENCE: Duration = Duration::from_secs(120);

/// An instance of a bundle. Its keeper ends before the bundle goes.
struct Instance {
    keeper: Option<Running>,
    bundle: Bundle,
}

impl Instance {
    /// One whose program is a shell's `script`, with `changes` in keeper.json. It has no keeper yet.
    fn new(script: &str, changes: Value) -> Instance {
        Instance::of(Bundle::new(script), changes)
    }

    fn of(bundle: Bundle, changes: Value) -> Instance {
        bundle.edit(|config| config["root"]["readonly"] = json!(false));
        let mut spec = json!({ "id": bundle.id, "bundle": bundle.path() });
        for (name, value) in changes.as_object().unwrap() {
            spec[name] = value.clone();
        }
        let instance = Instance {
            keeper: None,
            bundle,
        };
        fs::create_dir_all(instance.folder()).unwrap();
        fs::write(instance.file("keeper.json"), spec.to_string()).unwrap();
        instance
    }

    /// As [`Instance::new`], and its program runs.
    fn running(script: &str, changes: Value) -> Instance {
        let mut instance = Instance::new(script, changes);
        instance.keep();
        instance.until(runs);
        instance
    }

    fn folder(&self) -> PathBuf {
        self.bundle.folder.join("instance")
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder().join(name)
    }

    fn path(&self) -> String {
        self.folder().to_str().unwrap().to_owned()
    }

    /// Starts a keeper, and waits until it answers.
    fn keep(&mut self) {
        self.keep_by(&["keep"]);
    }

    /// As [`Instance::keep`], with these words before the directory.
    fn keep_by(&mut self, words: &[&str]) {
        self.keeper = Some(self.keeper_begins_by(words));
        // Its socket is the last thing that it makes before it looks at the instance.
        while !self.asked(&["status"]).0.status.success() {
            let keeper = self.keeper.as_mut().unwrap();
            if keeper.ends_within(Duration::from_millis(10)) {
                panic!("the keeper has ended: {:?}", keeper.end());
            }
        }
    }

    fn keeper_begins(&self) -> Running {
        self.keeper_begins_by(&["keep"])
    }

    fn keeper_begins_by(&self, words: &[&str]) -> Running {
        let path = self.path();
        let arguments: Vec<&str> = words.iter().copied().chain([path.as_str()]).collect();
        Running::spawn(&mut command(&self.bundle, &arguments), Stdio::null())
    }

    /// Kills the keeper, as nobody should: what it has said to stderr.
    fn lose_keeper(&mut self) -> String {
        let mut keeper = self.keeper.take().unwrap();
        keeper.signal(Signal::KILL);
        keeper.end().2
    }

    fn asked(&self, words: &[&str]) -> crate::support::Ran {
        let path = self.path();
        let words: Vec<&str> = ["keeper"]
            .into_iter()
            .chain(words.iter().copied())
            .chain([path.as_str()])
            .collect();
        self.bundle.parhelion(&words)
    }

    /// Asks the keeper for something that it does.
    fn ask(&self, words: &[&str]) {
        self.asked(words).success();
    }

    fn status(&self) -> Value {
        serde_json::from_str(&self.asked(&["status"]).success()).unwrap()
    }

    /// Waits for a status of which this holds; not for ever, also where something changes all the time.
    #[allow(clippy::disallowed_methods, reason = "a test has an end")]
    fn until(&self, holds: impl Fn(&Value) -> bool) -> Value {
        let arguments = ["keeper", "watch", &self.path()];
        let mut last = Value::Null;
        let watching = Running::spawn(&mut command(&self.bundle, &arguments), Stdio::null());
        let begun = Instant::now();
        loop {
            assert!(
                begun.elapsed() < PATIENCE,
                "what was waited for has not come; now it is {last:#}"
            );
            let line = watching.try_line();
            let line = line.unwrap_or_else(|| panic!("nothing has changed since {last:#}"));
            last = serde_json::from_str(&line).unwrap();
            if holds(&last) {
                return last;
            }
        }
    }

    /// Waits for this phase.
    fn until_phase(&self, name: &str) -> Value {
        self.until(|status| phase(status) == name)
    }

    /// The container's first process.
    fn pid(&self) -> i32 {
        pid(&self.status())
    }

    /// Lets the program's end come from outside.
    fn kill_program(&self) {
        kill(self.pid());
    }

    fn log(&self) -> String {
        fs::read_to_string(self.file("log")).unwrap_or_default()
    }

    /// Texts of the log's lines, without moment, stream and tag.
    fn texts(&self) -> Vec<String> {
        let text = |line: &str| line.splitn(4, ' ').nth(3).unwrap().to_owned();
        self.log().lines().map(text).collect()
    }

    /// Waits until this holds of the log's texts.
    fn until_texts(&self, holds: impl Fn(&[String]) -> bool) {
        until_in_folder(&self.folder(), || holds(&self.texts()));
    }

    /// Waits until the log has this line.
    fn until_line(&self, line: &str) {
        self.until_texts(|texts| texts.iter().any(|text| text == line));
    }

    /// Asserts that nobody finds a container any more.
    fn container_is_gone(&self) {
        let gone = self.bundle.verb("state").failure();
        assert!(gone.contains("does not exist"), "{gone}");
    }

    /// Lets the making of the container stand still, each time, until it is told to go on.
    fn held_while_made(&self) -> Held {
        let folder = &self.bundle.folder;
        let fifo = |name| Fifo::at(&folder.join(name));
        let held = Held {
            begun: fifo("begun"),
            go: fifo("go"),
        };
        let folder = folder.display();
        let script = format!("echo begun > {folder}/begun; read code < {folder}/go; exit $code");
        self.bundle.edit(|config| {
            let hook = json!({ "path": "/bin/sh", "args": ["sh", "-c", script] });
            config["hooks"] = json!({ "prestart": [hook] });
        });
        held
    }
}

/// A hook that waits while the container is made.
struct Held {
    begun: Fifo,
    go: Fifo,
}

impl Held {
    /// Waits until the making stands still.
    fn until_begun(&mut self) {
        assert_eq!(self.begun.hear(), "begun\n");
    }

    fn go_on(&mut self) {
        self.go.say("0");
    }

    /// Lets the making fail.
    fn fail(&mut self) {
        self.go.say("1");
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        drop(self.keeper.take());
    }
}

/// Waits until this holds of files in a folder.
pub fn until_in_folder(folder: &Path, holds: impl Fn() -> bool) {
    use inotify::{CreateFlags, WatchFlags};
    let changes = inotify::init(CreateFlags::CLOEXEC).unwrap();
    let kinds = WatchFlags::CREATE | WatchFlags::MODIFY;
    inotify::add_watch(&changes, folder, kinds).unwrap();
    while !holds() {
        wait_readable(&changes);
        rustix::io::read(&changes, &mut [0; 4096]).unwrap();
    }
}

/// Numbers below `limit`, the same in every run.
fn random(seed: &mut u64, limit: u64) -> u64 {
    *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
    (*seed >> 33) % limit
}

pub fn kill(pid: i32) {
    let pidfd = pidfd_open(Pid::from_raw(pid).unwrap(), PidfdFlags::empty()).unwrap();
    pidfd_send_signal(&pidfd, Signal::KILL).unwrap();
    wait_for_exit(pid);
}

fn pid(status: &Value) -> i32 {
    let pid = status["container"]["process"]["pid"].as_i64();
    pid.unwrap_or_else(|| panic!("{status:#}"))
        .try_into()
        .unwrap()
}

fn phase(status: &Value) -> &str {
    let phase = status["state"]["phase"].as_object().unwrap();
    phase.keys().next().unwrap()
}

fn runs(status: &Value) -> bool {
    phase(status) == "running"
}

/// Why an instance rests.
fn rests(status: &Value) -> &str {
    status["state"]["phase"]["resting"]["why"]
        .as_str()
        .unwrap_or("")
}

fn attempts(status: &Value) -> u64 {
    status["state"]["counts"]["attempts"].as_u64().unwrap()
}

/// The attempt with this number.
fn attempt(status: &Value, number: u64) -> Value {
    let attempts = status["attempts"].as_array().unwrap();
    let found = attempts.iter().find(|attempt| attempt["number"] == number);
    found.unwrap_or_else(|| panic!("{status:#}")).clone()
}
