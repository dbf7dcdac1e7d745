//! What keeps this daemon from taking changes: told to whoever asks how it is, and mended when that can be done.
//!
//! Known from what the disk has refused, and looked for where nothing was written for long: whether there is room, and
//! whether it may be written at all. Whatever it is, instances run on.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{StatVfsMountFlags, statvfs};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::{Agent, Control};
use crate::error;

/// How long the agent's loop may take to turn. Who asks how the daemon is waits so long at most.
pub const TURN: Duration = Duration::from_secs(2);

/// How long who asks for something else waits for the loop.
pub const MOMENT: Duration = Duration::from_millis(200);

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
    /// The agent does not take it from this store.
    Identity,
    /// The agent's loop does not turn.
    Loop,
    /// The host is going down.
    Host,
}

impl Part {
    /// All of them.
    pub const ALL: [Part; 6] = [
        Part::Store,
        Part::Agent,
        Part::Wanted,
        Part::Identity,
        Part::Loop,
        Part::Host,
    ];

    /// Its name in the metrics.
    pub fn name(self) -> &'static str {
        match self {
            Part::Store => "store",
            Part::Agent => "agent",
            Part::Wanted => "wanted",
            Part::Identity => "identity",
            Part::Loop => "loop",
            Part::Host => "host",
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
            Part::Identity => "what is wanted is not taken from this store",
            Part::Loop => "the agent does not answer",
            Part::Host => "this host is going down",
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
            Part::Identity => {
                "instances run on as they are. Stop the daemon and put the store back that was there; or, if this one is meant, \
                 parctl store accept takes what it says, and ends what it does not want"
            }
            Part::Loop => {
                "see the log of parheliond; it can be restarted, instances run on meanwhile"
            }
            Part::Host => {
                "what is wanted runs again after the next boot, or when the daemon is started again"
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

/// Whether the agent's loop turns: it is asked once, however many ask here.
#[derive(Debug, Default, PartialEq, Eq)]
pub enum Turn {
    /// It did when it was asked last.
    #[default]
    Turned,
    /// It was asked, not long ago.
    Asked,
    /// It has not, and why that is known.
    Stands(String),
}

/// Asks the agent's loop; `turn` tells what comes of it.
async fn ask(agent: Arc<dyn Agent>, turn: Arc<watch::Sender<Turn>>) {
    let mut turns = agent.turns();
    let turned = match timeout(TURN, &mut turns).await {
        Ok(turned) => turned,
        Err(_) => {
            turn.send_replace(Turn::Stands(format!(
                "its loop has not turned within {TURN:?}"
            )));
            turns.await
        }
    };
    turn.send_replace(match turned {
        Ok(()) => Turn::Turned,
        Err(problem) => Turn::Stands(error::in_words(&problem)),
    });
}

impl Control {
    /// Why the agent's loop does not turn, if that is known within this time.
    async fn stands(&self, patience: Duration) -> Option<String> {
        let is_first = self.turn.send_if_modified(|turn| {
            let is_first = *turn == Turn::Turned;
            if is_first {
                *turn = Turn::Asked;
            }
            is_first
        });
        if is_first {
            tokio::spawn(ask(Arc::clone(&self.agent), Arc::clone(&self.turn)));
        }
        let mut turns = self.turn.subscribe();
        let known = timeout(patience, turns.wait_for(|turn| *turn != Turn::Asked)).await;
        match &*known.ok()?.ok()? {
            Turn::Stands(why) => Some(why.clone()),
            Turn::Turned | Turn::Asked => None,
        }
    }

    /// All that does not work now, as far as it is known within this time; after [`TURN`] all is.
    pub(super) async fn faults(&self, patience: Duration) -> Vec<Fault> {
        let turns = self.stands(patience).await;
        let halting = self.agent.snapshots().borrow().halting;
        let halting = halting.map(|left| format!("{left} of its instances have not ended"));
        let store = Arc::clone(&self.store);
        let places = Arc::clone(&self.places);
        let looked = tokio::task::spawn_blocking(move || {
            let refused = store.fault().map(|fault| fault.to_string());
            (refused.or_else(|| full(&places.store)), full(&places.agent))
        });
        let (store, full) = looked.await.unwrap_or_default();
        let failure = self.health.fault();
        let wanted = failure.map(|failure| {
            let part = match failure.refused {
                true => Part::Identity,
                false => Part::Wanted,
            };
            (part, Some(failure.why))
        });
        let found = [
            (Part::Store, store),
            (Part::Agent, self.agent.fault().or(full)),
            wanted.unwrap_or((Part::Wanted, None)),
            (Part::Loop, turns),
            (Part::Host, halting),
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
        // Who asks again does not wait: that it stands still is known.
        let at_once = tokio::time::timeout(TURN / 2, world.get("/v1/hosts")).await;
        assert_eq!(at_once.unwrap().1[0]["fault"], told["error"]);
        let (_, text) = world.get("/metrics").await;
        let text = text.as_str().unwrap();
        for (part, fault) in [
            ("store", 0),
            ("agent", 1),
            ("wanted", 0),
            ("loop", 1),
            ("host", 0),
        ] {
            let line = format!("parhelion_fault{{of=\"{part}\"}} {fault}\n");
            assert!(text.contains(&line), "{line}: {text}");
        }
        *world.agent.fault.lock().unwrap() = None;
        world.agent.go_on();
        let mut turn = world.control.turn.subscribe();
        turn.wait_for(|turn| *turn == Turn::Turned).await.unwrap();
        assert_eq!(world.get("/healthz").await.0, 200);
    }

    #[tokio::test]
    async fn figures_come_while_the_agent_stands_still() {
        let world = World::new();
        world.agent.stands_still.store(true, Ordering::Relaxed);
        let came = tokio::time::timeout(TURN, world.get("/metrics")).await;
        let (status, text) = came.unwrap();
        assert_eq!(status, 200);
        assert!(text.as_str().unwrap().contains("parhelion_requests"));
    }

    #[tokio::test]
    async fn a_host_that_goes_down_is_not_well_and_says_so() {
        let world = World::new();
        let body = serde_json::json!({ "within": 90 });
        let (status, host) = world.send("POST", "/v1/hosts/here/halt", &body).await;
        assert_eq!(
            (status.as_u16(), &host["halting"]),
            (200, &0.into()),
            "{host}"
        );
        let (status, told) = world.get("/healthz").await;
        assert_eq!(status, 503);
        assert!(
            told["error"].as_str().unwrap().contains("going down"),
            "{told}"
        );
        let (_, text) = world.get("/metrics").await;
        assert!(
            text.as_str()
                .unwrap()
                .contains("parhelion_fault{of=\"host\"} 1\n")
        );
    }

    #[test]
    fn a_place_that_takes_nothing_is_seen_without_writing() {
        assert_eq!(full(&std::env::temp_dir()), None);
        let gone = full(Path::new("/nonexistent/place")).unwrap();
        assert!(gone.contains("/nonexistent/place"), "{gone}");
    }
}
