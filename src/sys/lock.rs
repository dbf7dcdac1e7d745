//! Locks of files (flock(2)) for callers that can not just wait for one.

use std::thread::sleep;
use std::time::Duration;

/// How soon a lock is tried again.
const AGAIN: Duration = Duration::from_millis(5);

/// Lets a moment pass before a lock that somebody has is tried again, for who has to do something meanwhile or
/// gives up at some time.
///
/// There is no event to wait for instead. A flock(2) that waits ends with the lock or a signal and never looks
/// up. What tells of its owner's close, inotify(7), does so before the kernel gives up the lock that goes with
/// it (fs/file_table.c, `__fput`); and the owner's end is not the lock's, which copies of its descriptor keep.
pub fn wait_a_moment() {
    sleep(AGAIN);
}
