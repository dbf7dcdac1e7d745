//! Why a container can not be joined, when its end or its owner is the reason.

use std::io::ErrorKind;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use rustix::process::Pid;

use super::process::wait_for_exit;
use crate::init::Killed;

/// Why a container that could be joined can not be joined now.
pub(super) const ENDED: &str = "the container has ended meanwhile";

/// Why a user can not join a container of its own whose init waits for `start`: until the program is
/// executed nobody but root looks into it, so that nothing inside does.
const UNSEEN: &str = "this user may not look into the container's first process, as is so until it is \
     started; or the container is another user's";

/// So long init may take to end after a process of the same container was killed. Where it goes on,
/// only the message about that process comes later.
const KILLED_TOGETHER: Duration = Duration::from_millis(100);

/// Whatever went wrong, it did because the container ended, if it has: its init has left its namespaces
/// some time before it counts as ended.
pub(super) fn explain(init: Pid, pidfd: BorrowedFd<'_>, error: anyhow::Error) -> anyhow::Error {
    // Where all processes of a container are killed, its init is not always the first to end.
    let patience = match error.downcast_ref::<Killed>() {
        Some(_) => KILLED_TOGETHER,
        None => Duration::ZERO,
    };
    let has_ended = wait_for_exit(pidfd, Some(patience)).unwrap_or(false);
    let namespace = format!("/proc/{}/ns/mnt", init.as_raw_nonzero());
    let seen = std::fs::metadata(namespace).map_err(|error| error.kind());
    match (has_ended, seen) {
        (false, Ok(_)) => error,
        (false, Err(ErrorKind::PermissionDenied)) => error.context(UNSEEN),
        (true, _) | (false, Err(_)) => error.context(ENDED),
    }
}
