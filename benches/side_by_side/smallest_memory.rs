//! `--smallest-memory`: the smallest `memory.max` under which each runtime starts a program of a few
//! kilobytes. Needs a host with the memory controller on v2, as the virtual one of the tests.
//!
//! A limit counts as enough when three containers of three are created, started, end well and are
//! deleted; the search halves the interval down to the step below.

use crate::contestant::{Contestant, Shape};
use crate::host::Host;
use crate::table;
use anyhow::{Result, ensure};
use serde_json::{Value, json};
use std::io::Write;

/// Finer differences are below the noise of the kernel's batched charging.
const STEP: u64 = 16 << 10;
const HIGHEST: u64 = 64 << 20;
const TRIES: usize = 3;

pub fn measure(host: &Host, found: &[Contestant], notes: &[String], json: bool) -> Result<()> {
    ensure!(
        host.has_controller("memory")?,
        "this host has no memory controller on cgroup v2"
    );
    let mut rows = vec![vec![
        "runtime".to_owned(),
        "smallest limit KiB".into(),
        "version".into(),
    ]];
    let mut values = Vec::new();
    for contestant in found.iter().filter(|contestant| !contestant.is_floor()) {
        let smallest = search(host, contestant)?.map(|limit| limit >> 10);
        let shown = smallest.map_or(format!("over {}", HIGHEST >> 10), |kib| kib.to_string());
        rows.push(vec![
            contestant.name.clone(),
            shown,
            contestant.version.clone(),
        ]);
        values.push(json!({ "name": contestant.name, "kib": smallest }));
    }
    let mut out = std::io::stdout().lock();
    if json {
        let all = json!({ "smallest_memory": Value::Array(values), "notes": notes });
        writeln!(out, "{all:#}")?;
        return Ok(());
    }
    writeln!(
        out,
        "\nsmallest memory limit that starts a static program ({TRIES} of {TRIES})\n"
    )?;
    table::write_aligned(&mut out, &rows)?;
    for note in notes {
        writeln!(out, "note: {note}")?;
    }
    Ok(())
}

/// None when even the highest limit is too small.
fn search(host: &Host, contestant: &Contestant) -> Result<Option<u64>> {
    if !enough(host, contestant, HIGHEST)? {
        return Ok(None);
    }
    let (mut too_small, mut enough_steps) = (0, HIGHEST / STEP);
    while enough_steps - too_small > 1 {
        let middle = (too_small + enough_steps) / 2;
        if enough(host, contestant, middle * STEP)? {
            enough_steps = middle;
        } else {
            too_small = middle;
        }
    }
    Ok(Some(enough_steps * STEP))
}

fn enough(host: &Host, contestant: &Contestant, limit: u64) -> Result<bool> {
    contestant.limit_memory(host, limit)?;
    for _ in 0..TRIES {
        if contestant.measure(host, Shape::CreateStartDelete)?.is_err() {
            return Ok(false);
        }
    }
    Ok(true)
}
