//! How long an instance waits before its next attempt, by how often it has failed and why.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Why an attempt has ended, or why there is a new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// The program ended by itself.
    Crash,
    /// It was found to be unhealthy and was stopped.
    Unhealthy,
    /// The container could not be made: its bundle, and later its image, is missing or was refused.
    Image,
    /// Somebody has asked for it, which waits for nothing.
    Asked,
}

/// How the wait grows: none before the first attempt after a good run, then `base`, and `factor` times as
/// long each time, up to `cap`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Curve {
    /// The wait after the second failure in a row.
    pub base: Duration,
    /// How many times longer the next one is; at least 1.
    pub factor: f64,
    /// The longest wait.
    pub cap: Duration,
    /// By which part of itself a wait may be shorter, from 0 to 1, so that instances which failed together
    /// do not all come back together.
    pub jitter: f64,
}

impl Curve {
    /// The wait after the `nth` failure in a row, counted from 1.
    #[must_use]
    pub fn delay(&self, nth: u32, seed: &mut u64) -> Duration {
        let Some(grown) = nth.checked_sub(2) else {
            return Duration::ZERO;
        };
        let cap = self.cap.as_secs_f64();
        // The power is infinite at some time, and the smaller one is taken then.
        let exponent = i32::try_from(grown).unwrap_or(i32::MAX);
        let full = (self.base.as_secs_f64() * self.factor.powi(exponent)).min(cap);
        let part = self.jitter * fraction(next_random(seed));
        Duration::from_secs_f64(full * (1.0 - part))
    }
}

/// A curve for each cause that has one.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Curves {
    /// For programs that end by themselves.
    pub crash: Curve,
    /// For those that were found to be unhealthy.
    pub unhealthy: Curve,
    /// For containers that could not be made.
    pub image: Curve,
}

impl Curves {
    /// The curve of this cause.
    #[must_use]
    pub fn of(&self, cause: Cause) -> &Curve {
        match cause {
            // What was asked for never waits, so any curve is right.
            Cause::Crash | Cause::Asked => &self.crash,
            Cause::Unhealthy => &self.unhealthy,
            Cause::Image => &self.image,
        }
    }
}

/// Failures in a row, by cause: each curve grows by its own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InARow {
    /// Ends of the program by itself.
    pub crash: u32,
    /// Stops because it was unhealthy.
    pub unhealthy: u32,
    /// Containers that could not be made.
    pub image: u32,
}

impl InARow {
    /// Counts one more, and returns how many they are now.
    pub(super) fn add(&mut self, cause: Cause) -> u32 {
        let count = match cause {
            Cause::Crash => &mut self.crash,
            Cause::Unhealthy => &mut self.unhealthy,
            Cause::Image => &mut self.image,
            Cause::Asked => return 0,
        };
        *count = count.saturating_add(1);
        *count
    }

    /// The longest row.
    #[must_use]
    pub fn worst(self) -> u32 {
        self.crash.max(self.unhealthy).max(self.image)
    }
}

/// What has happened to an instance since the beginning.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Counts {
    /// Attempts to make a container.
    pub attempts: u64,
    /// Ends of the program by itself without a success code.
    pub crashes: u64,
    /// Ends of the program with a success code.
    pub completed: u64,
    /// Times that it was found to be unhealthy and was stopped.
    pub unhealthy: u64,
    /// Containers that could not be made.
    pub not_made: u64,
}

/// The next number after `seed` (splitmix64, public domain, by Sebastiano Vigna).
pub(super) fn next_random(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *seed;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// A number in [0, 1).
fn fraction(random: u64) -> f64 {
    (random >> 11) as f64 / (1_u64 << 53) as f64
}
