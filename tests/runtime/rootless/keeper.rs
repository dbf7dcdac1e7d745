//! A keeper of an ordinary user: an instance, and a group that shares a user namespace.

use std::fs;
use std::path::Path;
use std::process::Stdio;

use libtest_mimic::Trial;
use rustix::process::Signal;
use serde_json::{Value, json};

use super::{Rootless, give};
use crate::caller::Running;
use crate::support::{program, tests};

pub fn all() -> Vec<Trial> {
    tests![
        a_users_instance_is_kept_adopted_and_stopped,
        a_users_group_shares_its_first_tasks_user_namespace,
    ]
}

/// A user's instance; what it has made is gone with its keeper.
struct Kept {
    keeper: Option<Running>,
    rootless: Rootless,
}

impl Kept {
    fn new(script: &str, spec: impl FnOnce(&Rootless) -> Value) -> Kept {
        let rootless = Rootless::new(script);
        let folder = rootless.bundle.folder.join("instance");
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("keeper.json"), spec(&rootless).to_string()).unwrap();
        give(&rootless.bundle.folder);
        Kept {
            keeper: None,
            rootless,
        }
    }

    fn folder(&self) -> String {
        let folder = self.rootless.bundle.folder.join("instance");
        folder.to_str().unwrap().to_owned()
    }

    fn keep(&mut self) {
        let program = program();
        let words = [program.to_str().unwrap(), "keep", &self.folder()];
        let keeper = Running::spawn(&mut self.rootless.command(&words), Stdio::null());
        self.keeper = Some(keeper);
        while !self.ask("status").0.status.success() {
            let keeper = self.keeper.as_mut().unwrap();
            if keeper.ends_within(std::time::Duration::from_millis(10)) {
                panic!("the keeper has ended: {:?}", keeper.end());
            }
        }
    }

    fn ask(&self, action: &str) -> crate::support::Ran {
        self.rootless.parhelion(&["keeper", action, &self.folder()])
    }

    /// Waits for a status of which this holds.
    fn until(&self, holds: impl Fn(&Value) -> bool) -> Value {
        let program = program();
        let words = [program.to_str().unwrap(), "keeper", "watch", &self.folder()];
        let watching = Running::spawn(&mut self.rootless.command(&words), Stdio::null());
        loop {
            let status = serde_json::from_str(&watching.line()).unwrap();
            if holds(&status) {
                return status;
            }
        }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        if self.keeper.is_some() {
            // A test that has failed has said why.
            self.ask("stop");
        }
    }
}

fn attempts(status: &Value) -> u64 {
    status["state"]["counts"]["attempts"].as_u64().unwrap()
}

fn runs(status: &Value) -> bool {
    !status["state"]["phase"]["running"].is_null()
}

fn pid(task: &Value) -> i32 {
    let pid = task["container"]["process"]["pid"].as_i64();
    pid.unwrap_or_else(|| panic!("{task:#}"))
        .try_into()
        .unwrap()
}

fn a_users_instance_is_kept_adopted_and_stopped() {
    let mut kept = Kept::new(
        "echo mine; exec sleep 1000",
        |rootless| json!({ "id": rootless.id(), "bundle": rootless.bundle.path(), "stop": { "grace": "0" } }),
    );
    kept.keep();
    let before = pid(&kept.until(runs));
    let log = format!("{}/log", kept.folder());
    let lines = || fs::read_to_string(&log).unwrap_or_default().lines().count();
    crate::keeper::until_in_folder(Path::new(&kept.folder()), || lines() == 1);
    crate::keeper::kill(before);
    let status = kept.until(|status| runs(status) && attempts(status) == 2);
    let now = pid(&status);
    assert_eq!(status["attempts"][0]["exit"], json!({ "signal": 9 }));
    let mut keeper = kept.keeper.take().unwrap();
    keeper.signal(Signal::KILL);
    keeper.end();
    kept.keep();
    assert_eq!(pid(&kept.until(runs)), now);
    crate::keeper::until_in_folder(Path::new(&kept.folder()), || lines() == 2);
    kept.ask("stop").success();
    let log = fs::read_to_string(&log).unwrap();
    assert_eq!(log.matches(" stdout F mine\n").count(), 2, "{log}");
    assert_eq!(
        fs::read_dir(kept.rootless.state_folder()).unwrap().count(),
        0
    );
}

fn a_users_group_shares_its_first_tasks_user_namespace() {
    let mut kept = Kept::new("exec sleep 1000", |rootless| {
        let task = |name: &str, share: &[&str]| {
            json!({ "name": name, "id": format!("{}-{name}", rootless.id()),
                "bundle": rootless.bundle.path(), "share": share })
        };
        let tasks = [task("web", &[]), task("side", &["user", "network", "pid"])];
        json!({ "tasks": tasks, "stop": { "grace": "0" } })
    });
    kept.keep();
    let status = kept.until(runs);
    let [web, side] = [0, 1].map(|task| pid(&status["tasks"][task]));
    let link = |pid: i32, name: &str| fs::read_link(format!("/proc/{pid}/ns/{name}")).unwrap();
    for name in ["user", "net", "pid"] {
        assert_eq!(link(web, name), link(side, name), "{name}");
    }
    assert_ne!(link(web, "ipc"), link(side, "ipc"));
    crate::keeper::kill(side);
    let status = kept.until(|status| runs(status) && attempts(status) == 2);
    assert_ne!(pid(&status["tasks"][0]), web);
    kept.ask("stop").success();
    assert_eq!(
        fs::read_dir(kept.rootless.state_folder()).unwrap().count(),
        0
    );
}
