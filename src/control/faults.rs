//! What keeps this daemon from taking changes: told to whoever asks how it is, and mended when that can be done.
//!
//! Known from what the disk has refused, and looked for where nothing was written for long: whether there is room, and
//! whether it may be written at all. Whatever it is, instances run on.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{StatVfsMountFlags, statvfs};
use tokio::time::{sleep, timeout};

use super::Control;
use crate::error;

/// How long the agent's loop may take to turn.
const TURN: Duration = Duration::from_secs(5);

/// When the store is tried again that its disk has refused.
const AGAIN: Duration = Duration::from_secs(5);

/// How many bytes have to be free on a disk that is to take changes.
const ROOM: u64 = 64 << 10;

/// What a fault is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// What should run can not be written.
    Store,
    /// What the agent keeps on disk can not be written.
    Agent,
    /// What is wanted does not reach the agent.
    Wanted,
    /// The agent's loop does not turn.
    Loop,
}

impl Part {
    /// All of them.
    pub const ALL: [Part; 4] = [Part::Store, Part::Agent, Part::Wanted, Part::Loop];

    /// Its name in the metrics.
    pub fn name(self) -> &'static str {
        match self {
            Part::Store => "store",
            Part::Agent => "agent",
            Part::Wanted => "wanted",
            Part::Loop => "loop",
        }
    }
}

/// Something that does not work.
#[derive(Debug, Clone)]
pub struct Fault {
    /// Of what.
    pub part: Part,
    /// Why.
    pub why: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.part {
            Part::Store => "what should run can not be changed",
            Part::Agent => "the agent's state can not be written",
            Part::Wanted => "what is wanted does not reach the agent",
            Part::Loop => "the agent does not answer",
        };
        write!(to, "{what}: {}", self.why)
    }
}

impl Fault {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self.part {
            Part::Store | Part::Agent => {
                "make room on the disk of --state, or make it writable: it is tried again by itself, and instances run on"
            }
            Part::Wanted => "instances run on as they are; it is tried again by itself",
            Part::Loop => {
                "see the log of parheliond; it can be restarted, instances run on meanwhile"
            }
        }
    }
}

/// All faults as one text.
pub fn in_words(faults: &[Fault]) -> Option<String> {
    let words: Vec<String> = faults.iter().map(Fault::to_string).collect();
    (!words.is_empty()).then(|| words.join("; "))
}

/// The directories in which is written.
#[derive(Debug)]
pub struct Places {
    /// The store's.
    pub store: PathBuf,
    /// The agent's.
    pub agent: PathBuf,
}

impl Control {
    /// All that does not work now.
    pub(super) async fn faults(&self) -> Vec<Fault> {
        let turned = timeout(TURN, self.agent.turns()).await;
        let turns = match turned {
            Ok(Ok(())) => None,
            Ok(Err(problem)) => Some(error::in_words(&problem)),
            Err(_) => Some(format!("its loop has not turned within {TURN:?}")),
        };
        let store = Arc::clone(&self.store);
        let places = Arc::clone(&self.places);
        let looked = tokio::task::spawn_blocking(move || {
            let refused = store.fault().map(|fault| fault.to_string());
            (refused.or_else(|| full(&places.store)), full(&places.agent))
        });
        let (store, full) = looked.await.unwrap_or_default();
        let found = [
            (Part::Store, store),
            (Part::Agent, self.agent.fault().or(full)),
            (Part::Wanted, self.health.fault()),
            (Part::Loop, turns),
        ];
        let found = found.into_iter();
        let found = found.filter_map(|(part, why)| Some(Fault { part, why: why? }));
        found.collect()
    }
}

/// Why nothing can be written in a directory, as its file system tells; None where it can.
fn full(directory: &Path) -> Option<String> {
    let told = match statvfs(directory) {
        Ok(told) => told,
        Err(errno) => return Some(format!("statvfs({directory:?}): {errno}")),
    };
    // Some of it is for root alone.
    let free = match rustix::process::geteuid().is_root() {
        true => told.f_bfree,
        false => told.f_bavail,
    };
    // Where there are no blocks, they are not counted; likewise inodes.
    let has_room = told.f_blocks == 0 || free.saturating_mul(told.f_frsize) >= ROOM;
    let has_inodes = told.f_files == 0 || told.f_ffree > 0;
    if told.f_flag.contains(StatVfsMountFlags::RDONLY) {
        Some(format!("{directory:?} is on a read-only file system"))
    } else if !has_room {
        Some(format!("{directory:?} is on a file system without room"))
    } else if !has_inodes {
        Some(format!("{directory:?} is on a file system without inodes"))
    } else {
        None
    }
}

/// Mends the store whenever its disk has refused something, for ever.
pub async fn mend(control: Arc<Control>) {
    loop {
        let faulty = control.store_fault().await;
        match faulty {
            None => control.refused.notified().await,
            Some(fault) => {
                error::warn(&format!("the store, tried again in {AGAIN:?}: {fault}"));
                if mend_once(&control).await {
                    error::warn("the store takes changes again");
                }
            }
        }
    }
}

impl Control {
    async fn store_fault(&self) -> Option<crate::store::Error> {
        let store = Arc::clone(&self.store);
        let told = tokio::task::spawn_blocking(move || store.fault()).await;
        told.unwrap_or_default()
    }
}

/// Tries until there is no fault any more; whether it was this that has mended it.
async fn mend_once(control: &Control) -> bool {
    loop {
        sleep(AGAIN).await;
        let store = Arc::clone(&control.store);
        let mended = tokio::task::spawn_blocking(move || store.mend()).await;
        match mended {
            Ok(Ok(())) => return true,
            Ok(Err(_)) => {}
            // The daemon ends.
            Err(_) => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::testing::World;
    use std::sync::atomic::Ordering;

    #[tokio::test]
    async fn whoever_asks_is_told_all_that_does_not_work() {
        let world = World::new();
        assert_eq!(world.get("/healthz").await.0, 200);
        *world.agent.fault.lock().unwrap() = Some("write \"events\": no room".to_owned());
        world.agent.stands_still.store(true, Ordering::Relaxed);
        let (status, told) = world.get("/healthz").await;
        assert_eq!(status, 503);
        let error = told["error"].as_str().unwrap();
        for words in [
            "state can not be written: write \"events\"",
            "has not turned within",
        ] {
            assert!(error.contains(words), "{error}");
        }
        assert!(told["hint"].as_str().unwrap().contains("--state"), "{told}");
        let (_, hosts) = world.get("/v1/hosts").await;
        assert_eq!(hosts[0]["fault"], told["error"]);
        let (_, text) = world.get("/metrics").await;
        let text = text.as_str().unwrap();
        for (part, fault) in [("store", 0), ("agent", 1), ("wanted", 0), ("loop", 1)] {
            let line = format!("parhelion_fault{{of=\"{part}\"}} {fault}\n");
            assert!(text.contains(&line), "{line}: {text}");
        }
        *world.agent.fault.lock().unwrap() = None;
        world.agent.stands_still.store(false, Ordering::Relaxed);
        assert_eq!(world.get("/healthz").await.0, 200);
    }

    #[test]
    fn a_place_that_takes_nothing_is_seen_without_writing() {
        assert_eq!(full(&std::env::temp_dir()), None);
        let gone = full(Path::new("/nonexistent/place")).unwrap();
        assert!(gone.contains("/nonexistent/place"), "{gone}");
    }
}
