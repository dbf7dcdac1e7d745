//! The embedded store: one process, one directory, everything in memory and every change on disk before
//! it is acknowledged (docs/decisions/0015).
//!
//! Whoever writes queues its request. The first one leads: it writes everything that is queued as one
//! unit, with one fdatasync(2), and hands on to the first that came meanwhile. So there is no thread of
//! its own, one caller waits for one write, and any number of callers together for two. Readers and
//! watches see a change when it is safe. [`Embedded::expire`] is to be called when the time has come:
//! the only thing that the store does not do by itself.

mod batch;
mod log;
mod medium;
mod record;
mod state;
mod unit;

use std::collections::VecDeque;
use std::mem;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::task::{Context, Poll, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

use super::error::{Error, Result};
use super::key_value::{Change, Event, Found, Lease, LeaseId, Range, Revision};
use super::txn::{Txn, TxnResponse};
use super::watch::Watch;
use super::{Clock, Store};
use batch::{Batch, Effects};
use log::Log;
use state::State;

pub use log::Torn;
pub use medium::{Directory, File, Medium};

/// How many requests are written as one unit at most: 64 of the largest are some 64 MiB.
const BATCH: usize = 64;

/// An open embedded store.
pub struct Embedded {
    clock: Arc<dyn Clock>,
    /// What is to be written next, in its order.
    queue: Mutex<Queue>,
    /// Held while requests are answered and written.
    log: Mutex<Log>,
    feed: Arc<Feed>,
    torn: Option<Torn>,
}

#[derive(Default)]
struct Queue {
    requests: VecDeque<Request>,
    /// Whether somebody leads. If not, nothing is queued.
    led: bool,
}

/// What a caller wants.
struct Request {
    ask: Ask,
    turn: Arc<Turn>,
}

/// Answers a request within a batch, and says how the caller hears of it when the batch is safe or failed.
type Ask = Box<dyn FnOnce(&mut Batch<'_>) -> Reply + Send>;
type Reply = Box<dyn FnOnce(Result<()>) + Send>;

/// A caller that waits, parked, for its answer or to lead.
struct Turn {
    thread: Thread,
    leads: AtomicBool,
}

/// What is safe, and who waits for more of it.
struct Feed {
    /// None when the store was closed.
    state: RwLock<Option<State>>,
    wakers: Mutex<Vec<Waker>>,
}

impl Embedded {
    /// Opens the store in a directory, and makes both when there is no such directory.
    ///
    /// # Errors
    ///
    /// [`Error::Locked`], [`Error::Damaged`], [`Error::Missing`], [`Error::Version`], or what the
    /// operating system refused. A store that can be read but not be written anew is opened, and answers
    /// [`Error::ReadOnly`] to writes until [`Store::mend`] succeeds.
    pub fn open(directory: &Path, clock: Arc<dyn Clock>) -> Result<Embedded> {
        Embedded::on(Box::new(Directory::open(directory)?), clock)
    }

    /// The same for a directory that is opened already, or stands in for one.
    ///
    /// # Errors
    ///
    /// As for [`open`](Self::open).
    pub fn on(medium: Box<dyn Medium>, clock: Arc<dyn Clock>) -> Result<Embedded> {
        let (state, torn) = match log::load(&*medium, clock.now())? {
            Some(loaded) => (loaded.state, loaded.torn),
            None => (State::default(), None),
        };
        let log = Log::begin(medium, &state)?;
        let feed = Feed {
            state: RwLock::new(Some(state)),
            wakers: Mutex::default(),
        };
        Ok(Embedded {
            clock,
            queue: Mutex::default(),
            log: Mutex::new(log),
            feed: Arc::new(feed),
            torn,
        })
    }

    /// The unfinished write that was found at the end of the file when it was opened, for the log:
    /// nothing that was acknowledged.
    pub fn torn(&self) -> Option<Torn> {
        self.torn
    }

    /// Ends the leases whose time is over, each as one revision, and returns after which time to call
    /// again (unless another lease is granted before); None when there is no lease.
    ///
    /// # Errors
    ///
    /// Those of [`Store::txn`] about the disk; the leases are there until it succeeds, and their keys.
    pub fn expire(&self) -> Result<Option<Duration>> {
        let next = self.submit(|batch| batch.expire())?;
        lock(&self.log).seal();
        Ok(next.map(|next| next.saturating_sub(self.clock.now())))
    }

    /// Has a request answered and written, together with those of other callers.
    fn submit<T, F>(&self, request: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&mut Batch<'_>) -> Result<T> + Send + 'static,
    {
        let slot = Arc::new(Mutex::new(None));
        let place = Arc::clone(&slot);
        let ask: Ask = Box::new(move |batch| {
            let answer = request(batch);
            Box::new(move |written| *lock(&place) = Some(written.and(answer)))
        });
        let turn = self.queue(ask);
        loop {
            if turn.leads.swap(false, Ordering::Acquire) {
                self.lead();
            }
            if let Some(answer) = lock(&slot).take() {
                return answer;
            }
            thread::park();
        }
    }

    fn queue(&self, ask: Ask) -> Arc<Turn> {
        let mut queue = lock(&self.queue);
        let turn = Arc::new(Turn {
            thread: thread::current(),
            leads: AtomicBool::new(!queue.led),
        });
        queue.led = true;
        let request = Request {
            ask,
            turn: Arc::clone(&turn),
        };
        queue.requests.push_back(request);
        turn
    }

    /// Answers the first requests, the leader's own before others, and hands on.
    fn lead(&self) {
        let mut log = lock(&self.log);
        let requests: Vec<_> = {
            let mut queue = lock(&self.queue);
            let count = queue.requests.len().min(BATCH);
            queue.requests.drain(..count).collect()
        };
        self.feed.commit(&mut log, requests, self.clock.now());
        drop(log);
        let mut queue = lock(&self.queue);
        match queue.requests.front() {
            Some(next) => {
                next.turn.leads.store(true, Ordering::Release);
                next.turn.thread.unpark();
            }
            None => queue.led = false,
        }
    }
}

impl Feed {
    /// Answers requests, makes their changes safe, and shows them.
    fn commit(&self, log: &mut Log, requests: Vec<Request>, now: Duration) {
        let answered = self.read(|state| {
            let mut batch = Batch::new(state, now);
            let ask = |request: Request| ((request.ask)(&mut batch), request.turn);
            let replies: Vec<_> = requests.into_iter().map(ask).collect();
            (replies, batch.into_effects())
        });
        // It is closed by its owner alone, who can not be here at the same time.
        let Ok((replies, effects)) = answered else {
            return;
        };
        let written = match effects.records.as_slice() {
            [] => Ok(()),
            records => log.append(records),
        };
        if written.is_ok() {
            self.show(effects, now);
        }
        for (reply, turn) in replies {
            reply(written.clone());
            turn.thread.unpark();
        }
    }

    /// Makes what is safe visible.
    fn show(&self, effects: Effects, now: Duration) {
        self.change(|state| {
            let Some(state) = state else {
                return;
            };
            for record in effects.records {
                let follows = state.apply(record, now);
                debug_assert!(follows, "a batch makes records that follow each other");
            }
            for id in effects.renewed {
                state.renew(id, now);
            }
        });
    }

    /// Changes what is to be seen, and then wakes who waits for it: a waker may read at once.
    fn change(&self, change: impl FnOnce(&mut Option<State>)) {
        change(&mut self.state.write().unwrap_or_else(PoisonError::into_inner));
        let wakers = mem::take(&mut *lock(&self.wakers));
        wakers.into_iter().for_each(Waker::wake);
    }

    fn read<T>(&self, look: impl FnOnce(&State) -> T) -> Result<T> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        state.as_ref().map(look).ok_or(Error::Closed)
    }
}

/// A lock is never held where somebody else's code might panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Store for Embedded {
    fn get(&self, range: &Range) -> Result<Found> {
        if *range == Range::Key(Vec::new()) {
            return Err(Error::Invalid(
                "an empty key: each key has a name".to_owned(),
            ));
        }
        self.feed.read(|state| state.find(range))
    }

    fn txn(&self, txn: Txn) -> Result<TxnResponse> {
        txn.check()?;
        self.submit(move |batch| batch.txn(&txn))
    }

    fn watch(&self, prefix: &[u8], from: Revision) -> Result<Box<dyn Watch>> {
        Ok(Box::new(FeedWatch {
            feed: Arc::clone(&self.feed),
            prefix: prefix.to_owned(),
            next: from,
        }))
    }

    fn grant(&self, ttl: Duration) -> Result<Lease> {
        if ttl.is_zero() {
            return Err(Error::Invalid(
                "a lease without any time: give it some".to_owned(),
            ));
        }
        // Whole milliseconds are written.
        let milliseconds = u64::try_from(ttl.as_nanos().div_ceil(1_000_000));
        let ttl = Duration::from_millis(milliseconds.unwrap_or(u64::MAX));
        self.submit(move |batch| Ok(batch.grant(ttl)))
    }

    fn keep_alive(&self, id: LeaseId) -> Result<Duration> {
        self.submit(move |batch| batch.keep_alive(id))
    }

    fn revoke(&self, id: LeaseId) -> Result<Revision> {
        self.submit(move |batch| batch.revoke(id))
    }

    fn fault(&self) -> Option<Error> {
        lock(&self.log).fault()
    }

    fn mend(&self) -> Result<()> {
        let mut log = lock(&self.log);
        self.feed.read(|state| log.mend(state))?
    }

    fn compact(&self, revision: Revision) -> Result<()> {
        let mut log = lock(&self.log);
        self.feed.read(|state| {
            let (oldest, newest) = (state.oldest(), state.revision());
            if revision <= oldest {
                Err(Error::Compacted { oldest })
            } else if revision > newest {
                let asked = revision;
                Err(Error::FutureRevision { asked, newest })
            } else {
                log.compact(state, revision)
            }
        })??;
        self.feed.change(|state| {
            if let Some(state) = state {
                state.forget_before(revision);
            }
        });
        Ok(())
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        lock(&self.log).close();
        self.feed.change(|state| *state = None);
    }
}

/// A place in the kept changes.
struct FeedWatch {
    feed: Arc<Feed>,
    prefix: Vec<u8>,
    /// What was not looked at yet.
    next: Revision,
}

impl FeedWatch {
    /// The next change that is there.
    fn advance(&mut self, state: &State) -> Result<Option<Change>> {
        let oldest = state.oldest();
        if self.next < oldest {
            return Err(Error::Compacted { oldest });
        }
        for change in state.changes_from(self.next) {
            self.next = change.revision.next();
            let below = |event: &&Event| event.key().starts_with(&self.prefix);
            let events: Vec<_> = change.events.iter().filter(below).cloned().collect();
            if !events.is_empty() {
                let revision = change.revision;
                return Ok(Some(Change { revision, events }));
            }
        }
        Ok(None)
    }
}

impl Watch for FeedWatch {
    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Result<Change>> {
        let feed = Arc::clone(&self.feed);
        let found = feed.read(|state| {
            let found = self.advance(state).transpose();
            if found.is_none() {
                // While the state is held: who changes it wakes afterwards.
                let mut wakers = lock(&feed.wakers);
                if !wakers.iter().any(|waker| waker.will_wake(context.waker())) {
                    wakers.push(context.waker().clone());
                }
            }
            found
        });
        match found {
            Ok(Some(change)) => Poll::Ready(change),
            Ok(None) => Poll::Pending,
            Err(closed) => Poll::Ready(Err(closed)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::txn::Operation;
    use super::*;

    struct Stopped;

    impl Clock for Stopped {
        fn now(&self) -> Duration {
            Duration::ZERO
        }
    }

    #[test]
    fn callers_who_wait_share_one_write() {
        let place = std::env::temp_dir().join(format!("parhelion-store-{}", std::process::id()));
        let store = Embedded::open(&place, Arc::new(Stopped)).unwrap();
        let before = lock(&store.log).units();
        thread::scope(|scope| {
            let log = lock(&store.log);
            for caller in 0..BATCH {
                let key = caller.to_string().into_bytes();
                let (value, lease) = (vec![], None);
                let then = vec![Operation::Put { key, value, lease }];
                let compare = vec![];
                let store = &store;
                scope.spawn(move || store.txn(Txn { compare, then }).unwrap());
            }
            while lock(&store.queue).requests.len() < BATCH {
                thread::yield_now();
            }
            drop(log);
        });
        assert_eq!(lock(&store.log).units(), before.map(|units| units + 1));
        let found = store.get(&Range::Prefix(vec![])).unwrap();
        assert_eq!(found.keys.len(), BATCH);
        assert_eq!(found.revision, Revision(1 + BATCH as u64));
        drop(store);
        std::fs::remove_dir_all(&place).unwrap();
    }
}
