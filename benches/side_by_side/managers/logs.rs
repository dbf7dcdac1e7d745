//! How fast a program can print under a keeper, and what is in its log then.
//!
//! Beside `cat`, which writes the same to a file and adds nothing to it. All lines are looked for afterwards.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use parhelion::keeper::client;
use serde_json::{Value, json};

use super::Manager as _;
use super::keepers::{self, Keepers};
use super::stage::Stage;
use crate::host::{Host, number_from_env};
use crate::table;

/// How long a line is (stamp.c).
const LINE: usize = 100;

/// What became of what a program has printed.
pub struct Line {
    name: &'static str,
    lines: usize,
    time: Duration,
    written: usize,
    dropped: usize,
}

pub fn measure(host: &Host) -> Result<Vec<Line>> {
    let lines = number_from_env("BENCH_LINES", 5_000_000)?;
    let mut all = vec![cat(host, lines)?];
    for (name, mode) in [("keeper, wait", "wait"), ("keeper, drop", "drop")] {
        let mut keepers = Keepers::new()?;
        let line = keep(host, &mut keepers, (name, mode), lines);
        keepers.stop(host);
        all.push(line?);
    }
    Ok(all)
}

fn cat(host: &Host, lines: usize) -> Result<Line> {
    let stage = Stage::new(host)?;
    let path = host.folder.join("printed");
    let mut program = Command::new(host.stopwatch.with_file_name("stamp"))
        .arg(stage.folder.join("socket"))
        .arg(lines.to_string())
        .stdout(Stdio::piped())
        .spawn()?;
    let pipe = program.stdout.take().context("its pipe")?;
    let mut cat = Command::new("cat")
        .stdin(pipe)
        .stdout(File::create(&path)?)
        .spawn()?;
    let said = stage
        .next()?
        .context("the program that prints has failed")?;
    program.kill()?;
    program.wait()?;
    cat.wait()?;
    let written = count(&path, 0)?;
    fs::remove_file(&path)?;
    Ok(Line {
        name: "cat",
        lines,
        time: Duration::from_nanos(said.printed[1] - said.printed[0]),
        written,
        dropped: 0,
    })
}

fn keep(
    host: &Host,
    keepers: &mut Keepers,
    (name, mode): (&'static str, &str),
    lines: usize,
) -> Result<Line> {
    let stage = Stage::new(host)?;
    let bundle = keepers::bundle(host, &stage, "stamp-0", Some(lines))?;
    let log = json!({ "log": { "maxSize": 1_u64 << 40, "whenFull": mode } });
    keepers.keep(host, &bundle, 0, &log)?;
    let said = stage
        .next()?
        .context("the program that prints has failed")?;
    let directory = keepers::directory(host, 0);
    let counts = loop {
        let counts = client::status(&directory)?.tasks[0].log;
        if counts.bytes >= (lines * LINE) as u64 {
            break counts;
        }
        thread::sleep(Duration::from_millis(10));
    };
    Ok(Line {
        name,
        lines,
        time: Duration::from_nanos(said.printed[1] - said.printed[0]),
        written: count(&directory.join("log"), 3)?,
        dropped: usize::try_from(counts.dropped_lines)?,
    })
}

/// How many numbered lines are in a file, after so many words; they have to be whole, each once and in order.
fn count(path: &Path, words: usize) -> Result<usize> {
    let mut file = BufReader::with_capacity(1 << 20, File::open(path)?);
    let (mut count, mut next) = (0, 0);
    let mut line = String::new();
    while file.read_line(&mut line)? > 0 {
        let text = line
            .trim_end()
            .splitn(words + 1, ' ')
            .last()
            .unwrap_or_default();
        // What the keeper says of lines that are missing.
        if !text.starts_with("[parhelion:") {
            ensure!(text.len() == LINE - 1, "{path:?}: not a line: {line:?}");
            let number: usize = text[..12]
                .parse()
                .with_context(|| format!("{path:?}: {line:?}"))?;
            ensure!(number >= next, "{path:?}: line {number} after {next}");
            (count, next) = (count + 1, number + 1);
        }
        line.clear();
    }
    Ok(count)
}

pub fn print(lines: &[Line]) -> Result<()> {
    const HEAD: [&str; 7] = [
        "log of",
        "MB/s",
        "x cat",
        "lines",
        "in the log",
        "dropped, counted",
        "missing",
    ];
    let mut rows = vec![HEAD.map(String::from).to_vec()];
    rows.extend(lines.iter().map(|line| {
        vec![
            line.name.to_owned(),
            format!("{:.0}", line.rate()),
            format!("{:.2}", line.rate() / lines[0].rate()),
            line.lines.to_string(),
            line.written.to_string(),
            line.dropped.to_string(),
            line.missing().to_string(),
        ]
    }));
    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "\na program that prints lines of {LINE} bytes as fast as they are taken\n"
    )?;
    table::write_aligned(&mut out, &rows)
}

impl Line {
    fn rate(&self) -> f64 {
        (self.lines * LINE) as f64 / 1e6 / self.time.as_secs_f64()
    }

    /// Neither in the log nor counted.
    fn missing(&self) -> i64 {
        self.lines as i64 - (self.written + self.dropped) as i64
    }

    pub fn to_json(&self) -> Value {
        json!({
            "name": self.name, "megabytes_a_second": self.rate(), "lines": self.lines,
            "written": self.written, "dropped": self.dropped, "missing": self.missing(),
        })
    }
}
