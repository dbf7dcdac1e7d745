//! `update`: what changes, what stays, what is refused before anything changes, and what is undone.

mod devices;
mod limits;
mod refusals;

use std::fs;
use std::io::{Read, Write};
use std::process::Stdio;

use libtest_mimic::Trial;
use rustix::fs::{CWD, Mode, OFlags, mkfifoat};
use serde_json::{Value, json};

use crate::caller::{command, start, wait_readable};
use crate::support::{Bundle, Ran};

/// The tests of this folder.
pub fn all() -> Vec<Trial> {
    [devices::all(), limits::all(), refusals::all()]
        .into_iter()
        .flatten()
        .collect()
}

/// A container that runs, and answers what it sees.
struct Inside {
    bundle: Bundle,
    answers: fs::File,
    /// Held open, so that the container's shell never reads an end of file.
    asks: fs::File,
}

impl Inside {
    /// Starts a container with these resources. It evaluates each line that it is asked in a shell.
    fn start(resources: &Value) -> Inside {
        let bundle = Bundle::new(
            "exec 3<>/tmp/ask 4<>/tmp/answer
            while read -r line <&3; do (eval \"$line\") >&4 2>&1; echo . >&4; done",
        );
        bundle.edit(|config| {
            let all = config["linux"]["resources"].as_object_mut().unwrap();
            all.extend(resources.as_object().unwrap().clone());
            // Numbers that no driver has.
            let device = |n: u32| json!({"type": "c", "path": format!("/dev/x{n}"), "major": 4000, "minor": n});
            config["linux"]["devices"] = [1, 2, 3].map(device).into_iter().collect();
            let mounts = config["mounts"].as_array_mut().unwrap();
            mounts.push(json!({"destination": "/sys/fs/cgroup", "type": "cgroup",
                "source": "cgroup", "options": ["ro"]}));
        });
        let fifo = |name: &str| {
            let path = bundle.folder.join("rootfs/tmp").join(name);
            mkfifoat(CWD, &path, Mode::from(0o666)).unwrap();
            let flags = OFlags::RDWR | OFlags::CLOEXEC;
            fs::File::from(rustix::fs::open(&path, flags, Mode::empty()).unwrap())
        };
        let (asks, answers) = (fifo("ask"), fifo("answer"));
        start(&bundle);
        Inside {
            bundle,
            answers,
            asks,
        }
    }

    /// What a line of shell prints in the container.
    fn ask(&mut self, line: &str) -> String {
        self.say(line);
        self.hear()
    }

    /// Has a line of shell evaluated, for [`Self::hear`].
    fn say(&mut self, line: &str) {
        self.asks.write_all(format!("{line}\n").as_bytes()).unwrap();
    }

    fn hear(&mut self) -> String {
        let mut told = String::new();
        while !told.ends_with(".\n") {
            wait_readable(&self.answers);
            let mut part = [0; 4096];
            let length = self.answers.read(&mut part).unwrap();
            told.push_str(std::str::from_utf8(&part[..length]).unwrap());
        }
        told.truncate(told.len() - 2);
        told
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
