//! The clocks that the keeper's loop looks at.

use std::time::{Duration, SystemTime};

use rustix::time::{ClockId, clock_gettime};

use super::policy::Moment;
use crate::error::rfc3339;

/// The present moment of the policy: the time since the host has booted.
pub fn now() -> Moment {
    let time = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or_default())
}

/// A moment of the policy for people.
#[allow(clippy::disallowed_methods, reason = "the keeper's loop is a driver")]
pub fn in_words(moment: Moment) -> String {
    rfc3339(SystemTime::now() + moment.saturating_sub(now()))
}
