//! Descriptors that the caller passes on to the program: `--preserve-fds` and socket activation.

use anyhow::{Result, bail};

use crate::sys::process;
use crate::sys::weakened::{Mitigation, is_off};

/// How many descriptors after standard error the program gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Passed {
    listening: u32,
    preserved: u32,
}

impl Passed {
    /// Finds what the caller passes, and makes everything else it left open invisible to any
    /// process that is executed later.
    ///
    /// # Errors
    ///
    /// One of them is not open: its number would be taken by a descriptor of the runtime.
    pub(super) fn find(preserved: u32) -> Result<Passed> {
        let passed = Passed {
            listening: listening(),
            preserved,
        };
        for number in 3..3_u32.saturating_add(passed.total()) {
            if process::keep_on_exec(number as i32).is_err() {
                bail!(
                    "descriptor {number} is not open: --preserve-fds {preserved} with \
                    LISTEN_FDS {} needs 3 to {}",
                    passed.listening,
                    passed.total().saturating_add(2)
                );
            }
        }
        if !is_off(Mitigation::Descriptors) {
            process::close_on_exec_from(3)?;
        }
        Ok(passed)
    }

    /// All of them.
    pub(super) fn total(self) -> u32 {
        self.listening.saturating_add(self.preserved)
    }

    /// Those of socket activation, which come first (sd_listen_fds(3)).
    pub(super) fn listening(self) -> u32 {
        self.listening
    }
}

/// `LISTEN_FDS`, when it is meant for this process.
fn listening() -> u32 {
    let number = |name| {
        std::env::var(name)
            .ok()
            .and_then(|text| text.parse::<u32>().ok())
    };
    match (number("LISTEN_PID"), number("LISTEN_FDS")) {
        // Callers such as Podman's monitor pass on the count without a pid of ours.
        (Some(pid), Some(_)) if pid != std::process::id() && pid != 1 => 0,
        (_, Some(count)) => count,
        (_, None) => 0,
    }
}
