//! Processes that write and are killed: at random moments, and at every call to the disk.
//!
//! The child is this program once more, with words that say what to do in place of the tests.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use libtest_mimic::Trial;
use nix::sys::signal::{Signal, raise};
use parhelion::store::embedded::{Directory, Embedded, File, Medium};
use parhelion::store::{Event, Range, Revision, Store};
use parhelion::sys::SysResult;

use super::contract::{committed, put};
use super::crash::{Seen, deeds, oldest, report, written};
use super::support::tests;
use super::{Scratch, Virtual};

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    tests![kill_at_random_moments, kill_at_every_call,]
}

const WRITES: &str = "writes-until-it-is-killed";
const DIES: &str = "does-its-deeds-until-a-call";

/// Does what a child is to do; false when this is no child.
pub fn is_child(words: &[&str]) -> bool {
    match words {
        [WRITES, place] => writes_until_it_is_killed(Path::new(place)),
        [DIES, place, halves] => {
            does_its_deeds_until_a_call(Path::new(place), halves.parse().unwrap());
        }
        _ => return false,
    }
    true
}

fn child(words: &[&str]) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(words)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// The numbers behind "ack" in what a child says, as they come.
fn acknowledged(child: &mut Child) -> impl Iterator<Item = [u64; 3]> + use<> {
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    lines.map_while(Result::ok).filter_map(|line| {
        // The last one may be half a line, which has no end.
        let words = line.strip_prefix("ack ")?.strip_suffix(" .")?.split(' ');
        let numbers: Vec<_> = words.map(|word| word.parse().unwrap()).collect();
        numbers.try_into().ok()
    })
}

const THREADS: u64 = 4;

/// The child of [`kill_at_random_moments`].
fn writes_until_it_is_killed(place: &Path) {
    let store = Embedded::open(place, Arc::new(Virtual::default())).unwrap();
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let store = &store;
            scope.spawn(move || {
                for number in 0.. {
                    let value = number.to_string();
                    let then = ["a", "b"].map(|half| put(&format!("{half}/{thread}"), &value));
                    let revision = committed(store, vec![], then.to_vec());
                    report(&format!("ack {thread} {number} {revision} ."));
                    if revision.0.is_multiple_of(64) {
                        // Another thread may have been faster.
                        let _ = store.compact(Revision(revision.0 - 8));
                    }
                }
            });
        }
    });
}

fn kill_at_random_moments() {
    let scratch = Scratch::new("kill");
    let (mut acks, mut torn, mut newest) = (0, 0, Revision(1));
    for round in 0..60u64 {
        let mut writer = child(&[WRITES, scratch.store().to_str().unwrap()]);
        let mut says = acknowledged(&mut writer);
        let patience = round.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 57;
        let mut last: Vec<_> = says.by_ref().take(patience as usize).collect();
        writer.kill().unwrap();
        last.extend(says);
        writer.wait().unwrap();
        acks += last.len();

        let store = Embedded::open(&scratch.store(), Arc::new(Virtual::default())).unwrap();
        torn += usize::from(store.torn().is_some());
        let found = store.get(&Range::Prefix(vec![])).unwrap();
        assert!(found.revision >= newest);
        newest = found.revision;
        let value = |half: &str, thread: u64| {
            let key = format!("{half}/{thread}");
            let pair = found.keys.iter().find(|pair| *pair.key == *key.as_bytes());
            pair.map(|pair| (pair.value.clone(), pair.mod_revision))
        };
        for thread in 0..THREADS {
            assert_eq!(value("a", thread), value("b", thread), "half a transaction");
            let acked = last.iter().filter(|ack| ack[0] == thread);
            if let Some([_, number, revision]) = acked.max() {
                let (value, at) = value("a", thread).unwrap();
                let value: u64 = String::from_utf8_lossy(&value).parse().unwrap();
                assert!(
                    value >= *number && at.0 >= *revision,
                    "thread {thread} lost {number}"
                );
            }
        }
        assert_each_is_kept(&store, &last);
    }
    assert!(acks > 1000, "{acks}");
    report(&format!(
        "killed 60 times, {acks} acknowledged, torn {torn}"
    ));
}

/// Every acknowledged revision that is still kept says what was acknowledged.
fn assert_each_is_kept(store: &Embedded, acks: &[[u64; 3]]) {
    let oldest = oldest(store).0;
    for [thread, number, revision] in acks.iter().filter(|ack| ack[2] >= oldest) {
        let mut watch = store.watch(b"a/", Revision(*revision)).unwrap();
        let change = watch.try_next().unwrap().expect("it was acknowledged");
        assert_eq!(change.revision, Revision(*revision));
        let [Event::Put(pair)] = change.events.as_slice() else {
            panic!("{change:?}");
        };
        assert_eq!(*pair.key, *format!("a/{thread}").as_bytes());
        assert_eq!(*pair.value, *number.to_string().as_bytes());
    }
}

/// A directory that kills its process at one of its calls.
struct Deadly {
    inner: Directory,
    /// What is left to do before, in halves: with an odd number it dies in the middle of a write, or right
    /// after another call.
    left: Arc<AtomicUsize>,
}

/// Counts a call; true when it is the last one.
fn count(left: &AtomicUsize) -> bool {
    match left.fetch_sub(2, Ordering::SeqCst) {
        0 => raise(Signal::SIGKILL).map(|()| false).unwrap(),
        1 => true,
        _ => false,
    }
}

/// Does a call, if it is to be done, and dies if it was the last.
fn counted<T>(left: &AtomicUsize, call: impl FnOnce() -> T) -> T {
    let last = count(left);
    let answer = call();
    if last {
        raise(Signal::SIGKILL).unwrap();
    }
    answer
}

impl Medium for Deadly {
    fn path(&self) -> &Path {
        self.inner.path()
    }

    fn is_new(&self) -> bool {
        self.inner.is_new()
    }

    fn read(&self, name: &str) -> SysResult<Option<Vec<u8>>> {
        self.inner.read(name)
    }

    fn create(&self, name: &str) -> SysResult<Box<dyn File>> {
        let file = counted(&self.left, || self.inner.create(name))?;
        Ok(Box::new(DeadlyFile(file, Arc::clone(&self.left))))
    }

    fn rename(&self, from: &str, to: &str) -> SysResult<()> {
        counted(&self.left, || self.inner.rename(from, to))
    }

    fn remove(&self, name: &str) -> SysResult<()> {
        counted(&self.left, || self.inner.remove(name))
    }

    fn sync(&self) -> SysResult<()> {
        counted(&self.left, || self.inner.sync())
    }

    fn publish(&mut self) -> SysResult<()> {
        counted(&self.left, || self.inner.publish())
    }
}

struct DeadlyFile(Box<dyn File>, Arc<AtomicUsize>);

impl File for DeadlyFile {
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> SysResult<()> {
        if count(&self.1) {
            self.0.write_at(&bytes[..bytes.len() / 2], offset)?;
            raise(Signal::SIGKILL).unwrap();
        }
        self.0.write_at(bytes, offset)
    }

    fn truncate(&mut self, length: u64) -> SysResult<()> {
        counted(&self.1, || self.0.truncate(length))
    }

    fn sync(&mut self) -> SysResult<()> {
        counted(&self.1, || self.0.sync())
    }
}

/// The child of [`kill_at_every_call`].
fn does_its_deeds_until_a_call(place: &Path, halves: usize) {
    let left = Arc::new(AtomicUsize::new(halves));
    let inner = Directory::open(place).unwrap();
    let clock = Arc::new(Virtual::default());
    let store = Embedded::on(Box::new(Deadly { inner, left }), clock.clone()).unwrap();
    report("ack 0 0 0 .");
    for (number, deed) in (1..).zip(deeds()) {
        deed.apply(&store, &clock).unwrap();
        report(&format!("ack {number} 0 0 ."));
    }
}

fn kill_at_every_call() {
    let (_, seen) = written();
    let states: Vec<_> = seen.into_iter().map(|(_, seen)| seen).collect();
    for halves in 0.. {
        let scratch = Scratch::new("every");
        let place = scratch.store();
        let mut child = child(&[DIES, place.to_str().unwrap(), &halves.to_string()]);
        let done = acknowledged(&mut child).last().map(|ack| ack[0] as usize);
        let status = child.wait().unwrap();
        let store = Embedded::open(&scratch.store(), Arc::new(Virtual::default())).unwrap();
        if done.is_none_or(|done| done == 0) {
            // Nothing, or nothing but the first deed, a compaction of an empty store.
            assert_eq!(
                store.get(&Range::Prefix(vec![])).unwrap().revision,
                Revision(1)
            );
            continue;
        }
        let done = done.unwrap();
        let got = Seen::of(&store);
        let allowed = &states[done - 1..(done + 1).min(states.len())];
        assert!(allowed.contains(&got), "{halves}: after {done}: {got:#?}");
        if status.success() {
            assert_eq!(done, states.len());
            assert!(halves > 150, "{halves}");
            report(&format!("killed at {halves} places"));
            break;
        }
    }
}
