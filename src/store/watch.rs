//! Waiting for changes without a runtime: by polling, as a future, or by a thread that waits.

use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

use super::error::Result;
use super::key_value::Change;

/// The changes below a prefix from a revision on, one revision at a time.
pub trait Watch: Send {
    /// The next change; or the context's waker is woken when there may be one.
    ///
    /// In a daemon: `std::future::poll_fn(|context| watch.poll_next(context)).await`. After an error
    /// it answers the same error again.
    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Result<Change>>;
}

/// Wakes a thread that is parked.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

impl dyn Watch {
    /// The next change, for which the thread waits.
    ///
    /// # Errors
    ///
    /// [`super::Error::Compacted`], [`super::Error::Closed`].
    pub fn wait(&mut self) -> Result<Change> {
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        let mut context = Context::from_waker(&waker);
        loop {
            if let Poll::Ready(change) = self.poll_next(&mut context) {
                return change;
            }
            thread::park();
        }
    }

    /// The next change, if there is one already.
    ///
    /// # Errors
    ///
    /// As for [`wait`](Self::wait).
    pub fn try_next(&mut self) -> Result<Option<Change>> {
        match self.poll_next(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(change) => change.map(Some),
            Poll::Pending => Ok(None),
        }
    }
}
