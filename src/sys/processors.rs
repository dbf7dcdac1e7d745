//! Which processors the runtime, the seed and init use: beside each other, not one after the other
//! (sched_setaffinity(2)).
//!
//! A scheduler that keeps a new process on its parent's processor, as that of a virtual machine may,
//! would have it wait there until the parent sleeps. Nothing depends on this, and nothing of it that
//! fails is told: for more processors than a set has room for, or by a security module's veto.

use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_getaffinity, sched_getcpu, sched_setaffinity};

use super::attributes::set_affinity;
use super::bitmap::Bitmap;

/// Has `child`, which has not run yet, begin on another processor than this process, if there is one.
pub fn send_away(child: Pid) {
    if let Ok(mut others) = sched_getaffinity(None) {
        others.unset(sched_getcpu());
        if others.count() > 0 {
            let _stays = sched_setaffinity(Some(child), &others);
        }
    }
}

/// Binds `process`, or this one, to the processor that this one is on.
pub fn bring_here(process: Option<Pid>) {
    let mut here = CpuSet::new();
    here.set(sched_getcpu());
    let _stays = sched_setaffinity(process, &here);
}

/// Lets this process, and what it clones, run on every processor of its cpuset (cpuset(7)): also where
/// the caller was bound to some, as a service that starts containers may be.
pub fn run_everywhere() {
    let _stays = set_affinity(None, &Bitmap::full());
}
