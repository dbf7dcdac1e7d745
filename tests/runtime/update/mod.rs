//! `update`: what changes, what stays, what is refused before anything changes, and what is undone.

mod devices;
mod limits;
mod refusals;

use std::io::Write;
use std::ops::{Deref, DerefMut};
use std::process::Stdio;

use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::caller::command;
use crate::inside::Inside;
use crate::support::Ran;

/// The tests of this folder.
pub fn all() -> Vec<Trial> {
    [devices::all(), limits::all(), refusals::all()]
        .into_iter()
        .flatten()
        .collect()
}

/// A container that runs with these resources, sees its cgroup, and has three devices.
struct Limited(Inside);

impl Limited {
    fn start(resources: &Value) -> Limited {
        Limited(Inside::start(|config| {
            let all = config["linux"]["resources"].as_object_mut().unwrap();
            all.extend(resources.as_object().unwrap().clone());
            // Numbers that no driver has.
            let device = |n: u32| json!({"type": "c", "path": format!("/dev/x{n}"), "major": 4000, "minor": n});
            config["linux"]["devices"] = [1, 2, 3].map(device).into_iter().collect();
            let mounts = config["mounts"].as_array_mut().unwrap();
            mounts.push(json!({"destination": "/sys/fs/cgroup", "type": "cgroup",
                "source": "cgroup", "options": ["ro"]}));
        }))
    }

    /// The text of a file of the container's cgroup, as the container sees it.
    fn see(&mut self, file: &str) -> String {
        let text = self.ask(&format!("cat /sys/fs/cgroup/{file}"));
        text.trim_end().to_owned()
    }

    fn update(&self, flags: &[&str]) -> Ran {
        self.bundle
            .parhelion(&[&["update"], flags, &[&self.bundle.id]].concat())
    }

    /// `update --resources -` with this object.
    fn update_by(&self, resources: &Value) -> Ran {
        let mut update = command(&self.bundle, &["update", "-r", "-", &self.bundle.id]);
        let piped = update.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut update = piped.stderr(Stdio::piped()).spawn().unwrap();
        let mut stdin = update.stdin.take().unwrap();
        stdin.write_all(resources.to_string().as_bytes()).unwrap();
        drop(stdin);
        Ran(update.wait_with_output().unwrap())
    }
}

impl Deref for Limited {
    type Target = Inside;

    fn deref(&self) -> &Inside {
        &self.0
    }
}

impl DerefMut for Limited {
    fn deref_mut(&mut self) -> &mut Inside {
        &mut self.0
    }
}
