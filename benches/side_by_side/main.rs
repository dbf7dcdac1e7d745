//! `make bench`: parhelion, crun, runc, youki and the kernel floor side by side.
//!
//! Decides what is measured: `run` of /bin/true, create, start and delete of the same bundle, and `run`
//! under Docker's default seccomp profile, all contestants in turn in an order drawn anew for each
//! round, so that noise hits all alike.
//! With `--smallest-memory`: the smallest memory limit under which each runtime starts a container.
//! With `--managers`: what keeps services running, and how long one that is killed is away (`managers/`);
//! and `--restarts-only`: without logs and commands, which have nobody beside them.
//! How a contestant is called is `contestant.rs`; what it is given, `bundle.rs` and `host.rs`.
//!
//! Environment: FLOOR (the program of floor.c; floor-libc and stopwatch lie beside it), PARHELION,
//! BUSYBOX (static), BENCH_ROUNDS, BENCH_TIMEOUT_MS. `--json` prints JSON in place of tables.

mod bundle;
mod contestant;
mod host;
mod managers;
mod os;
mod smallest_memory;
mod table;

use anyhow::{Result, bail};
use contestant::{Contestant, Shape};
use host::Host;
use std::io::{IsTerminal, Write};

/// What a round measures; each is a table of its own.
const SHAPES: [Shape; 3] = [Shape::Run, Shape::CreateStartDelete, Shape::RunFiltered];
/// Before the first round that counts: page cache, and dentries of rootfs and cgroup.
const WARM_UP_ROUNDS: usize = 3;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let has = |name: &str| arguments.iter().any(|argument| argument == name);
    // cargo bench passes --bench to every benchmark.
    let known = [
        "--bench",
        "--json",
        "--smallest-memory",
        "--managers",
        "--restarts-only",
    ];
    if let Some(unknown) = arguments.iter().find(|a| !known.contains(&a.as_str())) {
        bail!("unknown argument {unknown:?}; known: {}", known.join(" "));
    }
    let host = Host::prepare()?;
    host.end_on_request()?;
    if has("--managers") {
        return managers::measure(&host, has("--restarts-only"), has("--json"));
    }
    let (contestants, notes) = contestant::find(&host)?;
    if has("--smallest-memory") {
        return smallest_memory::measure(&host, &contestants, &notes, has("--json"));
    }
    side_by_side(&host, contestants, &notes, has("--json"))
}

fn side_by_side(
    host: &Host,
    mut contestants: Vec<Contestant>,
    notes: &[String],
    json: bool,
) -> Result<()> {
    let rounds = host::number_from_env("BENCH_ROUNDS", 60)?;
    let mut dice = Dice::new();
    for round in 0..WARM_UP_ROUNDS + rounds {
        progress(&format!(
            "\rround {}/{}",
            round + 1,
            WARM_UP_ROUNDS + rounds
        ))?;
        for shape in SHAPES {
            for index in dice.order(contestants.len()) {
                if !contestants[index].can(shape) {
                    continue;
                }
                let outcome = contestants[index].measure(host, shape)?;
                if round >= WARM_UP_ROUNDS {
                    contestants[index].keep(shape, outcome);
                }
            }
        }
    }
    progress("\n")?;
    if json {
        table::print_json(&contestants, notes)
    } else {
        table::print_text(&contestants, notes, rounds)
    }
}

/// Progress goes to standard error, so that the tables can be redirected, and to a terminal only.
fn progress(text: &str) -> Result<()> {
    let mut stderr = std::io::stderr();
    if stderr.is_terminal() {
        stderr.write_all(text.as_bytes())?;
    }
    Ok(())
}

/// Draws the order of each round (xorshift; nothing here needs more).
struct Dice(u64);

impl Dice {
    fn new() -> Self {
        Self(u64::from(std::process::id()) << 20 | 1)
    }

    fn order(&mut self, count: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..count).collect();
        for last in (1..count).rev() {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            let other = usize::try_from(self.0 % (last as u64 + 1)).unwrap_or(0);
            order.swap(last, other);
        }
        order
    }
}
