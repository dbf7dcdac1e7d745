//! What the benchmark prints: medians, spread, ratios, failures. Pure but for the printing.

use crate::SHAPES;
use crate::contestant::{Contestant, FLOOR, FLOOR_WITH_LIBC, Outcomes, Sample, Shape};
use anyhow::Result;
use serde_json::{Value, json};
use std::io::Write;
use std::time::Duration;

const HEAD: [&str; 10] = [
    "runtime",
    "median ms",
    "p10",
    "p90",
    "CPU ms",
    "peak KiB",
    "x floor",
    "x floor+libc",
    "x crun",
    "failed",
];

/// Stands in place of "x floor" where a filter is loaded: more than without it.
const MORE: &str = "more ms";

/// One line of a table; figures are missing when nothing succeeded.
struct Line {
    name: String,
    figures: Option<Figures>,
    /// Median of the same without a filter, where there is one.
    bare: Option<f64>,
    tried: usize,
    failures: usize,
}

struct Figures {
    median: f64,
    p10: f64,
    p90: f64,
    cpu: f64,
    peak_kib: u64,
}

pub fn print_text(contestants: &[Contestant], notes: &[String], rounds: usize) -> Result<()> {
    let mut out = std::io::stdout().lock();
    for shape in SHAPES {
        writeln!(out, "\n{} ({rounds} rounds, random order)\n", title(shape))?;
        let able = contestants.iter().filter(|c| c.can(shape));
        let lines: Vec<Line> = able.map(|c| Line::new(c, shape)).collect();
        let mut head = HEAD.map(String::from).to_vec();
        if shape == Shape::RunFiltered {
            head[6] = MORE.to_owned();
        }
        let mut rows = vec![head];
        rows.extend(lines.iter().map(|line| row(line, &lines)));
        write_aligned(&mut out, &rows)?;
    }
    writeln!(out, "\nVersions:")?;
    for contestant in contestants.iter().filter(|c| !c.is_floor()) {
        writeln!(out, "  {}: {}", contestant.name, contestant.version)?;
    }
    writeln!(
        out,
        "\nCPU is user + system, of the runtime and of the container. Peak is the largest resident\n\
         set of the runtime's processes; in `run` also of the container's, which it waits for."
    )?;
    for note in notes {
        writeln!(out, "note: {note}")?;
    }
    Ok(())
}

pub fn print_json(contestants: &[Contestant], notes: &[String]) -> Result<()> {
    let lines_of = |contestant: &Contestant| -> Value {
        let run = Line::new(contestant, Shape::Run).to_json();
        let create = Line::new(contestant, Shape::CreateStartDelete).to_json();
        let filtered = Line::new(contestant, Shape::RunFiltered).to_json();
        json!({
            "name": contestant.name, "version": contestant.version,
            "run": run, "create_start_delete": create, "run_filtered": filtered,
        })
    };
    let all: Vec<Value> = contestants.iter().map(lines_of).collect();
    writeln!(
        std::io::stdout(),
        "{:#}",
        json!({ "contestants": all, "notes": notes })
    )?;
    Ok(())
}

/// Columns as wide as their widest cell; the first to the left, numbers to the right.
pub fn write_aligned(out: &mut impl Write, rows: &[Vec<String>]) -> Result<()> {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    for row in rows {
        let mut text = format!("{:<1$}", row[0], widths[0]);
        for (cell, width) in row.iter().zip(&widths).skip(1) {
            text.push_str(&format!("  {cell:>width$}"));
        }
        writeln!(out, "{}", text.trim_end())?;
    }
    Ok(())
}

fn title(shape: Shape) -> &'static str {
    match shape {
        Shape::Run => "run of /bin/true",
        Shape::CreateStartDelete => "create + start + delete of /bin/true",
        Shape::RunFiltered => "run of /bin/true under Docker's seccomp profile",
    }
}

fn row(line: &Line, all: &[Line]) -> Vec<String> {
    let failed = format!("{}/{}", line.failures, line.tried);
    let Some(figures) = &line.figures else {
        let mut cells = vec!["-".to_owned(); HEAD.len()];
        cells[0].clone_from(&line.name);
        cells[HEAD.len() - 1] = failed;
        return cells;
    };
    let ratio = |name: &str| {
        let other = all.iter().find(|other| other.name == name);
        let other = other.and_then(|other| other.figures.as_ref());
        other.map_or("-".into(), |other| {
            format!("{:.2}", figures.median / other.median)
        })
    };
    let ms = |number: f64| format!("{number:.2}");
    vec![
        line.name.clone(),
        ms(figures.median),
        ms(figures.p10),
        ms(figures.p90),
        ms(figures.cpu),
        figures.peak_kib.to_string(),
        line.bare
            .map_or_else(|| ratio(FLOOR), |bare| ms(figures.median - bare)),
        ratio(FLOOR_WITH_LIBC),
        ratio("crun"),
        failed,
    ]
}

impl Line {
    fn new(contestant: &Contestant, shape: Shape) -> Self {
        let outcomes = contestant.outcomes(shape);
        let bare = match shape {
            Shape::Run | Shape::CreateStartDelete => None,
            Shape::RunFiltered => Figures::new(contestant.outcomes(Shape::Run)),
        };
        Self {
            bare: bare.map(|figures| figures.median),
            name: contestant.name.clone(),
            figures: Figures::new(outcomes),
            tried: outcomes.good.len() + outcomes.failures,
            failures: outcomes.failures,
        }
    }

    fn to_json(&self) -> Value {
        let figures = self.figures.as_ref().map(|f| {
            json!({
                "median_ms": f.median, "p10_ms": f.p10, "p90_ms": f.p90, "cpu_ms": f.cpu,
                "peak_kib": f.peak_kib,
            })
        });
        json!({ "figures": figures, "tried": self.tried, "failures": self.failures })
    }
}

impl Figures {
    fn new(outcomes: &Outcomes) -> Option<Self> {
        let sorted = |time: fn(&Sample) -> Duration| {
            let mut all: Vec<Duration> = outcomes.good.iter().map(time).collect();
            all.sort();
            all
        };
        let (wall, cpu) = (sorted(|s| s.wall), sorted(|s| s.cpu));
        Some(Self {
            median: percentile(&wall, 50)?,
            p10: percentile(&wall, 10)?,
            p90: percentile(&wall, 90)?,
            cpu: percentile(&cpu, 50)?,
            peak_kib: outcomes.good.iter().map(|s| s.peak_kib).max()?,
        })
    }
}

fn percentile(sorted: &[Duration], percent: usize) -> Option<f64> {
    let index = (sorted.len().checked_sub(1)? * percent + 50) / 100;
    Some(sorted.get(index)?.as_secs_f64() * 1000.0)
}
