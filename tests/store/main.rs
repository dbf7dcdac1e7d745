//! The store: what every backend must do, and what the embedded one does when processes die and disks fail.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]
#![allow(clippy::print_stdout, reason = "how many cases were tried")]
#![allow(missing_docs, reason = "the names of tests are sentences")]
#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "what is not expected is a surprise"
)]

mod contract;
mod crash;
mod disk;
mod faults;
mod kill;
mod model;
mod random;
#[allow(dead_code, reason = "shared with tests/runtime")]
#[path = "../runtime/support.rs"]
mod support;

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use contract::{Backend, committed, contract, put};
use libtest_mimic::{Arguments, Trial};
use model::Model;
use parhelion::store::embedded::Embedded;
use parhelion::store::{Clock, Error, Range, Revision, Store};
use support::tests;

fn main() {
    let words: Vec<_> = std::env::args().skip(1).collect();
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    if kill::is_child(&words) {
        return;
    }
    let trials = [
        contract("the model", model),
        contract("the embedded store", embedded),
        all(),
        crash::all(),
        faults::all(),
        kill::all(),
        random::all(),
    ];
    libtest_mimic::run(
        &Arguments::from_args(),
        trials.into_iter().flatten().collect(),
    )
    .exit();
}

/// The tests of this file.
fn all() -> Vec<Trial> {
    tests![
        expire_says_when_to_come_again,
        an_idle_store_writes_nothing,
        a_watch_ends_with_its_store,
        who_is_woken_may_read_at_once,
    ]
}

/// A clock that goes when it is told to.
#[derive(Default)]
struct Virtual(Mutex<Duration>);

impl Virtual {
    fn pass(&self, time: Duration) {
        *self.0.lock().unwrap() += time;
    }
}

impl Clock for Virtual {
    fn now(&self) -> Duration {
        *self.0.lock().unwrap()
    }
}

/// A directory for a test's files, removed when it is over.
struct Scratch(std::path::PathBuf);

impl Scratch {
    fn new(name: &str) -> Scratch {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{name}-{}-{count}", std::process::id());
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::create_dir_all(&path).unwrap();
        Scratch(path)
    }

    fn store(&self) -> std::path::PathBuf {
        self.0.join("store")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

struct ModelBackend(Model, Arc<Virtual>);

impl Backend for ModelBackend {
    fn store(&self) -> &dyn Store {
        &self.0
    }

    fn pass(&self, time: Duration) {
        self.1.pass(time);
        self.0.expire();
    }
}

struct EmbeddedBackend(
    Embedded,
    Arc<Virtual>,
    #[allow(dead_code, reason = "kept until the end")] Scratch,
);

impl Backend for EmbeddedBackend {
    fn store(&self) -> &dyn Store {
        &self.0
    }

    fn pass(&self, time: Duration) {
        self.1.pass(time);
        self.0.expire().unwrap();
    }
}

fn model() -> Box<dyn Backend> {
    let clock = Arc::new(Virtual::default());
    Box::new(ModelBackend(Model::new(clock.clone()), clock))
}

fn embedded() -> Box<dyn Backend> {
    let clock = Arc::new(Virtual::default());
    let scratch = Scratch::new("contract");
    let store = Embedded::open(&scratch.store(), clock.clone()).unwrap();
    Box::new(EmbeddedBackend(store, clock, scratch))
}

fn expire_says_when_to_come_again() {
    let clock = Arc::new(Virtual::default());
    let disk = disk::Disk::empty();
    let store = Embedded::on(disk.medium(), clock.clone()).unwrap();
    let seconds = |seconds| Some(Duration::from_secs(seconds));
    assert_eq!(store.expire().unwrap(), None);
    let long = store.grant(Duration::from_secs(5)).unwrap();
    let short = store.grant(Duration::from_secs(3)).unwrap();
    assert_eq!(store.expire().unwrap(), seconds(3));
    clock.pass(Duration::from_secs(2));
    assert_eq!(store.expire().unwrap(), seconds(1));
    store.keep_alive(short.id).unwrap();
    assert_eq!(store.expire().unwrap(), seconds(3));
    clock.pass(Duration::from_secs(3));
    assert_eq!(store.expire().unwrap(), None);
    assert!(store.revoke(long.id).is_err() && store.revoke(short.id).is_err());
}

fn an_idle_store_writes_nothing() {
    let clock = Arc::new(Virtual::default());
    let disk = disk::Disk::empty();
    let store = Embedded::on(disk.medium(), clock.clone()).unwrap();
    let lease = store.grant(Duration::from_secs(5)).unwrap();
    store.expire().unwrap();
    let calls = disk.len();
    for _ in 0..10 {
        clock.pass(Duration::from_secs(1));
        store.keep_alive(lease.id).unwrap();
        store.expire().unwrap();
    }
    assert_eq!(disk.len(), calls);
}

fn a_watch_ends_with_its_store() {
    let clock = Arc::new(Virtual::default());
    let disk = disk::Disk::empty();
    let store = Embedded::on(disk.medium(), clock).unwrap();
    let mut watch = store.watch(b"", Revision(2)).unwrap();
    assert!(watch.try_next().unwrap().is_none());
    std::thread::scope(|scope| {
        let waiting = scope.spawn(move || watch.wait());
        drop(store);
        let ended = waiting.join().unwrap();
        assert!(matches!(ended, Err(Error::Closed)), "{ended:?}");
    });
}

/// Reads the store in the moment in which it is woken.
struct Reader(Arc<Embedded>, Sender<Revision>);

impl Wake for Reader {
    fn wake(self: Arc<Self>) {
        let found = self.0.get(&Range::Prefix(vec![])).unwrap();
        self.1.send(found.revision).unwrap();
    }
}

fn who_is_woken_may_read_at_once() {
    let disk = disk::Disk::empty();
    let store = Embedded::on(disk.medium(), Arc::new(Virtual::default())).unwrap();
    let store = Arc::new(store);
    let (sender, read) = channel();
    let waker = Waker::from(Arc::new(Reader(store.clone(), sender)));
    let mut watch = store.watch(b"", Revision(2)).unwrap();
    assert!(
        watch
            .poll_next(&mut Context::from_waker(&waker))
            .is_pending()
    );
    // In a thread that is left behind if it hangs.
    std::thread::spawn(move || committed(&*store, vec![], vec![put("a", "1")]));
    let revision = read.recv_timeout(Duration::from_secs(60));
    assert_eq!(revision, Ok(Revision(2)));
}
