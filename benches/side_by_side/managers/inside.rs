//! What a command inside a container costs, by the keeper's door and by `parhelion exec`.

use std::io::Write as _;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use parhelion::keeper::client;
use parhelion::keeper::door::Command;
use parhelion::keeper::policy::Exit;
use rustix::process::getpid;
use serde_json::{Value, json};

use super::Manager as _;
use super::keepers::{self, Keepers};
use super::processes::with_children;
use super::stage::Stage;
use crate::host::Host;
use crate::table;

const ROUNDS: usize = 200;

/// A command's times, sorted, and the processor time of one, with that of all that is waited for.
struct Way {
    name: &'static str,
    times: Vec<Duration>,
    spent: Duration,
}

pub struct Ways([Way; 2]);

pub fn measure(host: &Host) -> Result<Ways> {
    let mut keepers = Keepers::new()?;
    let ways = both(host, &mut keepers);
    keepers.stop(host);
    ways
}

fn both(host: &Host, keepers: &mut Keepers) -> Result<Ways> {
    let stage = Stage::new(host)?;
    let bundle = keepers::bundle(host, &stage, "stamp-0", None)?;
    keepers.keep(host, &bundle, 0, &Value::Null)?;
    stage.until_all_run(1)?;
    let directory = keepers::directory(host, 0);
    // The program may say that it runs before the keeper has heard of it.
    while client::status(&directory)?.tasks[0].container.is_none() {
        thread::sleep(Duration::from_millis(1));
    }
    let keeper = keepers.processes()?[0];
    let door = way("door", keeper, || {
        let command = Command {
            task: None,
            args: vec!["/bin/true".into()],
            timeout_ms: 10_000,
        };
        let ran = client::check(&directory, command)?.end()?;
        ensure!(ran.exit == Exit::Code(0), "{ran:?}");
        Ok(())
    })?;
    let id = keepers::id(host, 0);
    let exec = way("exec", getpid().as_raw_nonzero().get(), || {
        let mut command = keepers.command(host);
        let status = command
            .args(["exec", &id, "/bin/true"])
            .stderr(Stdio::null())
            .status()?;
        ensure!(status.success(), "exec: {status}");
        Ok(())
    })?;
    Ok(Ways([door, exec]))
}

#[allow(clippy::disallowed_methods, reason = "it measures")]
fn way(name: &'static str, who: i32, mut command: impl FnMut() -> Result<()>) -> Result<Way> {
    let before = with_children(who).context("its processor time")?;
    let mut times = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        command()?;
        times.push(begun.elapsed());
    }
    times.sort_unstable();
    let spent = with_children(who).context("its processor time")? - before;
    let spent = spent / u32::try_from(ROUNDS)?;
    Ok(Way { name, times, spent })
}

impl Way {
    fn at(&self, part: f64) -> f64 {
        let index = ((ROUNDS - 1) as f64 * part).round() as usize;
        self.times[index].as_secs_f64() * 1e3
    }
}

impl Ways {
    pub fn print(&self) -> Result<()> {
        let mut rows = vec![
            ["/bin/true by", "median ms", "p99", "CPU ms"]
                .map(String::from)
                .to_vec(),
        ];
        rows.extend(self.0.iter().map(|way| {
            let spent = way.spent.as_secs_f64() * 1e3;
            let figures = [way.at(0.5), way.at(0.99), spent].map(|ms| format!("{ms:.2}"));
            [&[way.name.to_owned()], &figures[..]].concat()
        }));
        let mut out = std::io::stdout().lock();
        writeln!(
            out,
            "\na command inside: by the keeper's door, and by a program\n"
        )?;
        table::write_aligned(&mut out, &rows)
    }

    pub fn to_json(&self) -> Value {
        let ways = self.0.iter().map(|way| {
            json!({ "name": way.name, "median_ms": way.at(0.5), "p99_ms": way.at(0.99),
                "cpu_ms": way.spent.as_secs_f64() * 1e3 })
        });
        ways.collect()
    }
}
