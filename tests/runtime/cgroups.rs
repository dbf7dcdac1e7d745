//! cgroup v2: each limit as the kernel has it, the device filter, and what is killed and removed.

use libtest_mimic::Trial;

use crate::support::needs_controllers;

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    needs_controllers(&["cpu", "cpuset", "io", "memory", "pids"], Vec::new())
}
