//! `--managers`: what keeps services running, beside each other: how long a program that was killed is away, and what
//! each instance costs.
//!
//! Decides how it is measured: of each manager so many instances of benches/stamp.c are started, and one after the other
//! is killed. The time begins before kill(2) and ends with the replacement's first instruction, which is a look at
//! CLOCK_MONOTONIC; so it is the same for all, whatever they say themselves. Then they are left alone, for their memory and
//! their processor time.
//!
//! Environment: PARHELION, PARHELIOND, PARCTL, FLOOR (stamp lies beside it), BENCH_INSTANCES ("1,100,1000"),
//! BENCH_PEERS ("1,10": of Docker and Podman, whose start takes long), BENCH_KILLS (200), BENCH_SECONDS (600: none is begun after).

mod away;
mod containers;
mod daemon;
mod inside;
mod keepers;
mod logs;
mod processes;
mod stage;
mod systemd;

use std::io::Write as _;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::host::{Host, number_from_env};
use crate::{os, progress, table};
use away::Away;
use processes::Cost;
use stage::Stage;

/// How long nothing happens, for the processor time; less where others wait for their turn.
const IDLE: Duration = Duration::from_secs(10);
const IDLE_BESIDE: Duration = Duration::from_secs(3);

/// What starts a program again when it has ended.
trait Manager {
    fn name(&self) -> &str;

    /// Instances to measure with.
    fn counts<'a>(&self, all: &'a Counts) -> &'a [usize] {
        &all.ours
    }

    /// How long a program has to run before its next end is met without a wait that grows.
    fn good_run(&self) -> Duration;

    /// Starts so many instances; they say themselves when they run.
    fn start(&mut self, host: &Host, stage: &Stage, count: usize) -> Result<()>;

    /// The processes that it needs, with those of all instances.
    fn processes(&self) -> Result<Vec<i32>>;

    /// The one among them that has the others, where there is one.
    fn daemon(&self) -> Option<i32>;

    /// What comes at last, of one that can be asked for it.
    fn end(&mut self, _: &Host, _count: usize) -> Result<Option<daemon::Ends>> {
        Ok(None)
    }

    /// Removes everything, whatever state it is in.
    fn stop(&mut self, host: &Host);
}

type Managers = Vec<Box<dyn Manager>>;

/// How many instances are measured.
struct Counts {
    ours: Vec<usize>,
    peers: Vec<usize>,
}

/// A manager with so many instances.
struct Line {
    name: String,
    count: usize,
    /// Until all ran, from nothing.
    up: Duration,
    away: Away,
    cost: Cost,
    ends: Option<daemon::Ends>,
}

pub fn measure(host: &Host, restarts_only: bool, json: bool) -> Result<()> {
    let counts = Counts {
        ours: numbers_from_env("BENCH_INSTANCES", "1,100,1000")?,
        peers: numbers_from_env("BENCH_PEERS", "1,10")?,
    };
    let kills = number_from_env("BENCH_KILLS", 200)?;
    let (managers, mut notes) = find(host)?;
    let idle = if restarts_only { IDLE_BESIDE } else { IDLE };
    let lines = measure_all(host, managers, &counts, (kills, idle), &mut notes)?;
    progress("\r\x1b[K")?;
    if json {
        return print_json(host, restarts_only, &lines, &notes);
    }
    print(&lines, &notes)?;
    if restarts_only {
        return Ok(());
    }
    logs::print(&logs::measure(host)?)?;
    inside::measure(host)?.print()
}

/// Everybody with the first count, then with the second: what there is no time for is told.
#[allow(clippy::disallowed_methods, reason = "it measures")]
fn measure_all(
    host: &Host,
    mut managers: Managers,
    counts: &Counts,
    how: (usize, Duration),
    notes: &mut Vec<String>,
) -> Result<Vec<Line>> {
    let limit = number_from_env("BENCH_SECONDS", 600)?;
    let begun = Instant::now();
    let mut lines: Vec<Line> = Vec::new();
    for turn in 0..counts.ours.len().max(counts.peers.len()) {
        for manager in &mut managers {
            let Some(&count) = manager.counts(counts).get(turn) else {
                continue;
            };
            let name = manager.name().to_owned();
            if begun.elapsed().as_secs() > limit as u64 {
                notes.push(format!(
                    "{name} x {count}: left out, {limit} s are over (BENCH_SECONDS)"
                ));
                continue;
            }
            progress(&format!("\r\x1b[K{name} x {count}"))?;
            let measured = measure_one(host, manager.as_mut(), count, how);
            manager.stop(host);
            os::reap_leftovers();
            match measured {
                Ok(line) => lines.push(line),
                Err(error) => notes.push(format!("{name} x {count}: {error:#}")),
            }
        }
    }
    Ok(lines)
}

fn print_json(host: &Host, restarts_only: bool, lines: &[Line], notes: &[String]) -> Result<()> {
    let lines: Vec<Value> = lines.iter().map(Line::to_json).collect();
    let mut all = json!({ "managers": lines, "notes": notes });
    if !restarts_only {
        let logs = logs::measure(host)?;
        all["logs"] = logs.iter().map(logs::Line::to_json).collect();
        all["commands"] = inside::measure(host)?.to_json();
    }
    writeln!(std::io::stdout(), "{all:#}")?;
    Ok(())
}

/// Those that can be measured here, and why others can not.
fn find(host: &Host) -> Result<(Managers, Vec<String>)> {
    let mut found: Managers = vec![
        Box::new(keepers::Keepers::new()?),
        Box::new(daemon::Daemon::new()?),
    ];
    let mut notes = Vec::new();
    for name in [systemd::PLAIN, systemd::APART] {
        match systemd::Systemd::find(name) {
            Ok(manager) => found.push(Box::new(manager)),
            Err(why) => notes.push(format!("{name}: not measured here: {why:#}")),
        }
    }
    for name in ["docker", "podman"] {
        match containers::Containers::find(host, name) {
            Ok(manager) => found.push(Box::new(manager)),
            Err(why) => notes.push(format!("{name}: not measured here: {why:#}")),
        }
    }
    if found.iter().any(|manager| manager.name() == "docker") {
        notes.push(
            "docker: it waits 100 ms before a restart, twice as long each time, and from the beginning after a run of \
             10 s, which each program gets here"
                .to_owned(),
        );
    }
    Ok((found, notes))
}

fn numbers_from_env(name: &str, default: &str) -> Result<Vec<usize>> {
    let text = std::env::var(name).unwrap_or_else(|_| default.to_owned());
    let numbers = text.split(',').map(|word| word.trim().parse());
    numbers
        .collect::<Result<_, _>>()
        .with_context(|| format!("{name}={text:?}: must be numbers, separated by commas"))
}

#[allow(clippy::disallowed_methods, reason = "it measures")]
fn measure_one(
    host: &Host,
    manager: &mut dyn Manager,
    count: usize,
    (kills, idle): (usize, Duration),
) -> Result<Line> {
    let stage = Stage::new(host)?;
    let begun = Instant::now();
    manager.start(host, &stage, count)?;
    let all = stage.until_all_run(count)?;
    let up = begun.elapsed();
    let away = away::measure(&stage, all, manager.good_run(), kills)?;
    let cost = processes::cost(|| manager.processes(), manager.daemon(), idle)?;
    Ok(Line {
        name: manager.name().to_owned(),
        count,
        up,
        away,
        cost,
        ends: manager.end(host, count)?,
    })
}

fn print(lines: &[Line], notes: &[String]) -> Result<()> {
    const HEAD: [&str; 12] = [
        "manager",
        "instances",
        "median ms",
        "p99",
        "most",
        "x keeper",
        "all up s",
        "PSS kB each",
        "private kB",
        "daemon MB",
        "idle ms/s",
        "failed",
    ];
    let mut rows = vec![HEAD.map(String::from).to_vec()];
    rows.extend(lines.iter().map(|line| line.row(lines)));
    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "\nfrom kill(2) to the replacement's first instruction; what each instance costs\n"
    )?;
    table::write_aligned(&mut out, &rows)?;
    writeln!(
        out,
        "\nMemory is that of all processes of a manager, divided by its instances, without the programs themselves.\n\
         A daemon's is its resident set; idle is the processor time of all of them together while nothing happens.\n\
         systemd's services have no container; systemd+ns ones have the namespaces and the root that a container has."
    )?;
    for line in lines {
        if let Some(ends) = &line.ends {
            let [known, removed] = [ends.known, ends.removed].map(|time| time.as_secs_f64());
            let (name, count) = (&line.name, line.count);
            writeln!(
                out,
                "{name} x {count}: killed, and its successor knows all after {known:.2} s; all removed in {removed:.2} s"
            )?;
        }
    }
    for note in notes {
        writeln!(out, "note: {note}")?;
    }
    Ok(())
}

impl Line {
    fn row(&self, all: &[Line]) -> Vec<String> {
        let ms = |part: f64| {
            self.away
                .at(part)
                .map_or("-".into(), |ms| format!("{ms:.1}"))
        };
        let keeper = all
            .iter()
            .find(|one| one.name == keepers::NAME && one.count == self.count);
        let ratio = || Some(self.away.at(0.5)? / keeper?.away.at(0.5)?);
        let each = |kib: u64| format!("{:.0}", kib as f64 / self.count as f64);
        vec![
            self.name.clone(),
            self.count.to_string(),
            ms(0.5),
            ms(0.99),
            ms(1.0),
            ratio().map_or("-".into(), |ratio| format!("{ratio:.2}")),
            format!("{:.2}", self.up.as_secs_f64()),
            each(self.cost.pss_kib),
            each(self.cost.private_kib),
            self.cost
                .daemon_kib
                .map_or("-".into(), |kib| format!("{:.1}", kib as f64 / 1024.0)),
            format!("{:.2}", self.cost.idle * 1e3),
            format!("{}/{}", self.away.failures, self.away.tried()),
        ]
    }

    fn to_json(&self) -> Value {
        json!({
            "name": self.name, "instances": self.count, "up_s": self.up.as_secs_f64(),
            "median_ms": self.away.at(0.5), "p99_ms": self.away.at(0.99), "most_ms": self.away.at(1.0),
            "tried": self.away.tried(), "failures": self.away.failures,
            "pss_kib": self.cost.pss_kib, "private_kib": self.cost.private_kib,
            "daemon_kib": self.cost.daemon_kib, "idle": self.cost.idle,
            "successor_knows_s": self.ends.as_ref().map(|ends| ends.known.as_secs_f64()),
            "removed_s": self.ends.as_ref().map(|ends| ends.removed.as_secs_f64()),
        })
    }
}
