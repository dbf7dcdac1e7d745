//! How an agent begins: with its lock, what is on disk, and the keepers that are there.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::sync::{Semaphore, watch};

use super::troubles::Troubles;
use super::wanted::plan;
use super::{Driver, Flatten as _, Host, Inbox, disk, events, ports, reaper};
use crate::agent::health::{Checks, Keepers, Teller};
use crate::agent::reconcile::{Event, State};
use crate::agent::{Options, Origin, Snapshot, Wanted};
use crate::error;
use crate::keeper::{Now, client, clock};
use crate::network::Network;

/// How often it is looked whether networks are as they should be.
const REPAIR: Duration = Duration::from_secs(10);

/// What callers of an agent get.
#[derive(Debug)]
pub struct Started {
    /// Where requests are put in.
    pub inbox: Inbox,
    /// What there is.
    pub snapshots: watch::Receiver<Arc<Snapshot>>,
    /// What has happened.
    pub events: events::Reader,
    /// Its place.
    pub host: Arc<Host>,
}

/// Takes the lock, reads what is there, and begins; with the end of everything within a time, if the host is going down.
///
/// # Errors
///
/// Another agent is there; or the directory can not be used.
pub async fn start(options: Options, halting: Option<Duration>) -> Result<Started> {
    let state = options.state.clone();
    fs::create_dir_all(&state).with_context(|| format!("make {state:?}"))?;
    // Keepers' annotations have its path, and have to be the same when it is started elsewhere.
    let state = fs::canonicalize(&state).with_context(|| format!("find {state:?}"))?;
    let options = Options { state, ..options };
    let lock = disk::lock(&options.state)?;
    let host = Arc::new(prepare(options)?);
    let (log, told) = events::Log::open(&host.options.state, &host.options.host)?;
    let (inbox, outbox) = Inbox::new();
    let snapshots = watch::Sender::new(Arc::default());
    let checks = checks(&host, inbox.clone());
    let mut driver = Driver {
        state: State::new(clock::now().as_nanos() as u64 ^ u64::from(std::process::id())),
        origin: None,
        jobs: HashMap::new(),
        links: HashMap::new(),
        pipes: HashMap::new(),
        inbox,
        outbox,
        views: BTreeMap::new(),
        snapshots,
        log,
        told,
        checks,
        is_looking: false,
        host: host.clone(),
        _lock: lock,
    };
    let started = Started {
        inbox: driver.inbox.clone(),
        snapshots: driver.snapshots.subscribe(),
        events: driver.log.reader(),
        host,
    };
    if let Some(within) = halting {
        driver.step(Event::Halt(within));
    }
    driver.begin()?;
    tokio::spawn(repair(driver.host.clone()));
    tokio::spawn(reaper::watch(driver.host.clone(), driver.inbox.clone()));
    driver.look();
    driver.publish();
    tokio::spawn(driver.run());
    Ok(started)
}

/// Health checks of its instances, which tell it what they find.
fn checks(host: &Host, inbox: Inbox) -> Checks {
    let tell: Teller = Box::new(move |told| {
        inbox.event(Event::Checked(
            told.instance.into(),
            told.health,
            told.reason,
        ));
    });
    let memory = host.options.state.join("health.json");
    Checks::start(Arc::new(Keepers(host.instances.clone())), memory, tell)
}

/// Looks after the networks: at once, as an agent that has died may have left something, and then from time to time,
/// as others change rules and tell nobody.
async fn repair(host: Arc<Host>) {
    let mut last = String::new();
    loop {
        let network = host.clone();
        let repaired = tokio::task::spawn_blocking(move || network.network.repair()).await;
        let told = match repaired.context("repair networks").flatten_() {
            Ok(done) => {
                done.iter().for_each(|line| error::warn(line));
                String::new()
            }
            Err(error) => error::in_words(&error),
        };
        if told != last && !told.is_empty() {
            error::warn(&told);
        }
        last = told;
        loop {
            tokio::time::sleep(REPAIR).await;
            if host.network.is_used() {
                break;
            }
        }
    }
}

fn prepare(options: Options) -> Result<Host> {
    let (instances, volumes) = (
        options.state.join("instances"),
        options.state.join("volumes"),
    );
    for folder in [&instances, &volumes] {
        fs::create_dir_all(folder).with_context(|| format!("make {folder:?}"))?;
    }
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let sum = disk::checksum(options.state.as_os_str().as_encoded_bytes());
    let parent = options.cgroup_parent.trim_end_matches('/');
    Ok(Host {
        instances,
        volumes,
        cgroup_parent: format!("{parent}/agent-{:.8}", sum),
        ports: Mutex::new(ports::Ports::default()),
        network: Network::new(options.network.clone(), &options.state),
        recorded: Mutex::new(None),
        troubles: Troubles::default(),
        beginning: Arc::new(Semaphore::new(2 * processors)),
        writing: Arc::new(Semaphore::new(2 * processors)),
        open_files: raise_limit(),
        options,
    })
}

/// An instance takes some descriptors: as many as the system allows. What the limit was, for keepers.
fn raise_limit() -> Rlimit {
    let before = getrlimit(Resource::Nofile);
    let all = Rlimit {
        current: before.maximum,
        ..before
    };
    if let Err(errno) = setrlimit(Resource::Nofile, all) {
        error::warn(&format!("setrlimit(NOFILE): {errno}"));
    }
    before
}

impl Driver {
    /// Tells `step` what there is.
    fn begin(&mut self) -> Result<()> {
        let mut found = self.host.find()?;
        self.host.claim_networks(&found);
        for one in &mut found {
            let mut ports = self
                .host
                .ports
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            ports.claim(&one.name, &one.ports);
            drop(ports);
            one.kept = is_kept(&self.host.directory(&one.name));
        }
        let want = match self.read_wanted() {
            Some(wanted) => {
                let (jobs, want) = plan(&wanted)?;
                self.jobs = jobs;
                self.origin = Some(Origin::of(&wanted));
                self.host.reserve(&wanted);
                Some(want)
            }
            None => None,
        };
        let actions = self.state.step(Event::Begun { found, want }, clock::now());
        let names: Vec<_> = self.state.slots.keys().cloned().collect();
        names.iter().for_each(|name| self.view(name));
        actions.into_iter().for_each(|action| self.act(action));
        Ok(())
    }

    /// What was wanted last. A file that is damaged ends nothing: what runs goes on.
    fn read_wanted(&mut self) -> Option<Wanted> {
        match disk::read_wanted(&self.host.options.state) {
            Ok(wanted) => wanted,
            Err(error) => {
                let why = format!(
                    "{}: everything goes on as it is until control says what is wanted",
                    error::in_words(&error)
                );
                error::warn(&why);
                self.note_fault(why);
                None
            }
        }
    }
}

fn is_kept(directory: &Path) -> bool {
    // One that is stuck is one all the same, and nobody waits for it here.
    client::find_now(directory).is_ok_and(|found| !matches!(found, Now::Nobody))
}

#[cfg(any(test, feature = "fuzzing"))]
#[allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]
pub mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::network;

    /// A host in a directory of its own, which the test removes.
    pub fn host(name: &str) -> (PathBuf, Host) {
        let folder = std::env::temp_dir().join(format!("agent-{name}-{}", std::process::id()));
        let options = Options {
            host: "host".into(),
            state: folder.join("agent"),
            runtime: "/nonexistent".into(),
            root: folder.join("root"),
            cgroup_parent: "/parhelion".into(),
            network: network::Options::default(),
        };
        let host = prepare(options).unwrap();
        (folder, host)
    }
}
