//! A neighbour in a shared volume that exchanges a folder and a link all the time, while containers are made.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustix::fs::{CWD, RenameFlags, renameat_with};

/// How many containers are made beside it, for a program that is to withstand it: fewer in the virtual host, where one
/// processor emulates all and the neighbour hardly gets in between.
pub fn rounds() -> u32 {
    match std::env::var_os("PARHELION_TEST_ALL") {
        Some(_) => 15,
        None => 60,
    }
}

/// How many at most for a build that is not to: it mostly needs a few.
pub const AT_MOST: u32 = 600;

/// Exchanges `one` and `other` for as long as `work` takes.
pub fn while_swapping<T>(one: &Path, other: &Path, work: impl FnOnce() -> T) -> T {
    let end = AtomicBool::new(false);
    let swaps = AtomicU64::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !end.load(Ordering::Relaxed) {
                renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE).unwrap();
                swaps.fetch_add(1, Ordering::Relaxed);
            }
        });
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        end.store(true, Ordering::Relaxed);
        assert!(swaps.load(Ordering::Relaxed) > 0, "nothing was exchanged");
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
