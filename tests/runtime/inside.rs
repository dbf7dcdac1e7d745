//! A container that runs and is asked what it sees: a shell that evaluates the lines it is given.

use std::fs::File;
use std::io::{Read, Write};

use rustix::fs::{CWD, Mode, OFlags, mkfifoat};
use serde_json::Value;

use crate::caller::{start, wait_readable};
use crate::support::Bundle;

/// What such a container runs.
pub const SCRIPT: &str = "exec 3<>/tmp/ask 4<>/tmp/answer
    while read -r line <&3; do (eval \"$line\") >&4 2>&1; echo . >&4; done";

/// The container, with the fifos by which it is asked and answers.
pub struct Inside {
    pub bundle: Bundle,
    asks: File,
    answers: File,
}

impl Inside {
    /// Starts it with a changed config.json.
    pub fn start(change: impl FnOnce(&mut Value)) -> Inside {
        let bundle = Inside::bundle();
        bundle.edit(change);
        Inside::of(bundle)
    }

    /// The bundle, for [`Self::of`] when more than config.json is to be changed.
    pub fn bundle() -> Bundle {
        Bundle::new(SCRIPT)
    }

    /// Starts the container of such a bundle.
    pub fn of(bundle: Bundle) -> Inside {
        Inside::started(bundle, start)
    }

    /// As [`Self::of`], for one that is started in another way.
    pub fn started(bundle: Bundle, start: impl FnOnce(&Bundle)) -> Inside {
        let fifo = |name: &str| {
            let path = bundle.folder.join("rootfs/tmp").join(name);
            mkfifoat(CWD, &path, Mode::from(0o666)).unwrap();
            // For users of the container that are others on the host, whatever the umask is.
            rustix::fs::chmod(&path, Mode::from(0o666)).unwrap();
            // For both, so that neither side waits for the other or reads an end.
            let flags = OFlags::RDWR | OFlags::CLOEXEC;
            File::from(rustix::fs::open(&path, flags, Mode::empty()).unwrap())
        };
        let (asks, answers) = (fifo("ask"), fifo("answer"));
        start(&bundle);
        Inside {
            bundle,
            asks,
            answers,
        }
    }

    /// What a line of shell prints in the container.
    pub fn ask(&mut self, line: &str) -> String {
        self.say(line);
        self.hear()
    }

    /// Has a line of shell evaluated, for [`Self::hear`].
    pub fn say(&mut self, line: &str) {
        self.asks.write_all(format!("{line}\n").as_bytes()).unwrap();
    }

    /// What the line of [`Self::say`] has printed, when it has ended.
    pub fn hear(&mut self) -> String {
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
}
