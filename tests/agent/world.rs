//! A host for an agent: a bundle, a directory, and whatever was started in it, which ends with the test.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::caller::{Running, wait_for_exit};
use crate::support::{Bundle, program};
use crate::victims::{self, try_kill};

/// How long something is waited for: the virtual host is slow.
const PATIENCE: Duration = Duration::from_secs(180);

/// A host. What runs in it ends with it.
pub struct World {
    pub bundle: Bundle,
    agent: Option<Running>,
    stdin: Option<std::process::ChildStdin>,
    revision: u64,
    seen: Value,
}

/// Runs until it is told to end, and then ends at once.
pub const OBEDIENT: &str = "trap 'exit 0' TERM; while :; do sleep 1000 & wait; done";

impl World {
    /// A host whose containers run a shell's `script`, with an agent.
    pub fn new(script: &str) -> World {
        let mut world = World::without_agent(script);
        world.start();
        world
    }

    pub fn without_agent(script: &str) -> World {
        let bundle = Bundle::new(script);
        bundle.edit(|config| {
            config["process"]["args"] = json!(["/bin/sh", "-c", script]);
            // A job is on the host's network by default.
            let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
            namespaces.retain(|one| one["type"] != "network");
        });
        World {
            bundle,
            agent: None,
            stdin: None,
            revision: 0,
            seen: Value::Null,
        }
    }

    /// Starts the agent, which has to begin.
    pub fn start(&mut self) {
        assert_eq!(self.try_start(), json!("ready"));
    }

    /// Starts the agent: its first word.
    pub fn try_start(&mut self) -> Value {
        let (mut agent, word) = self.another();
        self.stdin = Some(agent.stdin());
        self.agent = Some(agent);
        self.seen = Value::Null;
        word
    }

    /// Another agent in the same directory: its first word.
    pub fn another(&self) -> (Running, Value) {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.env("AGENT_DIRECTORY", &self.bundle.folder);
        command.env("AGENT_RUNTIME", program());
        let agent = Running::spawn(&mut command, Stdio::piped());
        let word = serde_json::from_str(&agent.line()).unwrap();
        (agent, word)
    }

    /// Kills the agent, as nobody should.
    pub fn lose_agent(&mut self) {
        drop(self.stdin.take());
        let mut agent = self.agent.take().unwrap();
        agent.signal(Signal::KILL);
        agent.end();
    }

    pub fn agent_pid(&self) -> i32 {
        self.agent.as_ref().unwrap().pid()
    }

    /// Tells the agent something: its answer.
    pub fn tell(&mut self, line: &str) -> Value {
        use std::io::Write as _;
        writeln!(self.stdin.as_mut().unwrap(), "{line}").unwrap();
        let answer = self.agent.as_ref().unwrap().line();
        serde_json::from_str(&answer).unwrap()
    }

    /// A job of this host's bundle.
    pub fn job(&self, name: &str, changes: Value) -> Value {
        let mut job = json!({
            "name": name, "version": "1",
            "tasks": { "web": { "bundle": self.bundle.folder } },
            "stop": { "grace": "1s" },
        });
        for (name, value) in changes.as_object().unwrap() {
            job[name] = value.clone();
        }
        job
    }

    /// Says what is wanted: jobs, how many, and `start` or `stop`.
    pub fn want(&mut self, jobs: &[(Value, u32, &str)]) {
        self.revision += 1;
        let revision = self.revision;
        assert_eq!(self.want_as(revision, jobs), json!("done"));
    }

    pub fn want_as(&mut self, revision: u64, jobs: &[(Value, u32, &str)]) -> Value {
        let jobs = jobs
            .iter()
            .map(|(job, count, goal)| json!({ "job": job, "goal": goal, "count": count }));
        let wanted = json!({ "revision": revision, "jobs": jobs.collect::<Vec<_>>() });
        self.tell(&format!("want {wanted}"))
    }

    /// Waits for a state of all instances of which this holds.
    #[allow(clippy::disallowed_methods, reason = "a test has an end")]
    pub fn until(&mut self, holds: impl Fn(&[Value]) -> bool) -> Vec<Value> {
        let begun = Instant::now();
        loop {
            let number = self.seen["number"].as_u64().unwrap_or(0);
            if !self.seen.is_null() {
                let instances = self.seen["instances"].as_array().unwrap();
                if holds(instances) {
                    return instances.clone();
                }
                assert!(
                    begun.elapsed() < PATIENCE,
                    "it has not come; now it is {:#}",
                    self.seen
                );
            }
            self.seen = self.tell(&format!("snapshot {number}"));
        }
    }

    /// Waits until there are so many instances, and all run.
    pub fn until_running(&mut self, count: usize) -> Vec<Value> {
        self.until(|all| all.len() == count && all.iter().all(runs))
    }

    /// Waits for an event of which this holds, from the first one that is kept.
    pub fn until_event(&mut self, holds: impl Fn(&Value) -> bool) -> Value {
        let mut from = 1;
        loop {
            let event = self.tell(&format!("event {from}"));
            if holds(&event) {
                return event;
            }
            from = event["number"].as_u64().unwrap() + 1;
        }
    }

    pub fn instances(&self) -> PathBuf {
        self.bundle.folder.join("agent/instances")
    }

    /// What the keeper of an instance has written last.
    pub fn status(&self, name: &str) -> Value {
        let text = fs::read(self.instances().join(name).join("status.json")).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }

    /// The keepers' processes, by their instances.
    pub fn keepers(&self) -> BTreeMap<String, i32> {
        victims::keepers(&self.instances())
    }

    /// The containers below the root.
    pub fn containers(&self) -> Vec<String> {
        let entries = fs::read_dir(self.bundle.folder.join("state"))
            .into_iter()
            .flatten()
            .flatten();
        let mut names: Vec<_> = entries
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        names.retain(|name| !name.starts_with('.'));
        names.sort();
        names
    }

    /// The agent's own cgroup.
    pub fn cgroup(&self) -> PathBuf {
        let path = self.bundle.folder.join("agent");
        let path = fs::canonicalize(path).unwrap();
        let sum = sha2_hex(path.to_str().unwrap());
        PathBuf::from("/sys/fs/cgroup/parhelion-test").join(format!("agent-{}", &sum[..8]))
    }
}

fn sha2_hex(text: &str) -> String {
    use sha2::Digest as _;
    sha2::Sha256::digest(text)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

impl Drop for World {
    fn drop(&mut self) {
        drop(self.stdin.take());
        drop(self.agent.take());
        // No keeper starts another container when all have gone; one may just have been started.
        for _ in 0..3 {
            for pid in self.keepers().into_values() {
                try_kill(pid);
                wait_for_exit(pid);
            }
        }
        for container in self.containers() {
            self.bundle.parhelion(&["delete", "--force", &container]);
        }
        let cgroup = self.cgroup();
        let _ = fs::remove_dir(&cgroup);
        let _ = fs::remove_dir(cgroup.parent().unwrap());
    }
}

/// Whether an instance's program runs.
pub fn runs(instance: &Value) -> bool {
    instance["phase"] == "running"
}

pub fn name(instance: &Value) -> String {
    instance["name"].as_str().unwrap().to_owned()
}

/// The program's process.
pub fn pid(instance: &Value) -> i32 {
    let pid = instance["tasks"]["web"]["pid"].as_i64();
    i32::try_from(pid.unwrap_or_else(|| panic!("{instance:#}"))).unwrap()
}

/// The programs' processes, by their instances.
pub fn pids(instances: &[Value]) -> BTreeMap<String, i32> {
    instances.iter().map(|one| (name(one), pid(one))).collect()
}

/// Kills a process, and waits for its end.
pub fn kill(pid: i32) {
    assert!(try_kill(pid), "{pid} has ended before");
    wait_for_exit(pid);
}
