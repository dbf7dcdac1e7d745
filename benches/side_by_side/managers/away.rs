//! How long programs that are killed are away.

use std::collections::VecDeque;
use std::thread;
use std::time::Duration;

use anyhow::Result;
use rustix::process::{Signal, kill_process};

use super::stage::{Said, Stage, now};

/// All runs must be as long as a manager wants them, so that fewer are killed where that is long.
const AT_MOST: Duration = Duration::from_secs(60);

#[derive(Default)]
pub struct Away {
    /// In nanoseconds, sorted.
    times: Vec<u64>,
    pub failures: usize,
}

impl Away {
    pub fn tried(&self) -> usize {
        self.times.len() + self.failures
    }

    /// In milliseconds.
    pub fn at(&self, part: f64) -> Option<f64> {
        let last = self.times.len().checked_sub(1)?;
        let time = self.times.get((last as f64 * part).round() as usize)?;
        Some(*time as f64 / 1e6)
    }
}

/// After so many that did not come back the others would not either.
const ENOUGH: usize = 3;

/// Kills one after the other, the one that has run longest first, and waits for each.
pub fn measure(stage: &Stage, all: Vec<Said>, good_run: Duration, kills: usize) -> Result<Away> {
    let mut away = Away::default();
    let mut all = VecDeque::from(all);
    let begun = now();
    while away.tried() < kills && away.failures < ENOUGH {
        let Some(victim) = all.pop_front() else { break };
        let since = now().saturating_sub(victim.executed);
        thread::sleep(good_run.saturating_sub(Duration::from_nanos(since)));
        let killed = now();
        if u128::from(killed - begun) > AT_MOST.as_nanos() && away.tried() > 0 {
            break;
        }
        if kill_process(victim.pid, Signal::KILL).is_err() {
            away.failures += 1;
            continue;
        }
        match stage.next()? {
            Some(said) => {
                away.times.push(said.executed.saturating_sub(killed));
                all.push_back(said);
            }
            None => away.failures += 1,
        }
    }
    away.times.sort_unstable();
    Ok(away)
}
