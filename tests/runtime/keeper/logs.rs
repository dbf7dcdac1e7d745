//! What a program prints is in its log, whole, or it is said how much is missing.

use std::fs;
use std::path::Path;

use libtest_mimic::Trial;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::{Value, json};

use super::{Instance, rests, runs};
use crate::caller::Fifo;
use crate::support::tests;

pub fn all() -> Vec<Trial> {
    tests![
        both_streams_are_in_the_format_of_cri,
        a_long_line_is_in_parts_and_a_last_one_needs_no_end,
        a_burst_of_500_megabytes_arrives_whole,
        full_files_make_room_and_the_oldest_goes,
        lines_are_dropped_where_that_is_asked_for_and_counted,
        a_full_disk_is_told_and_nothing_is_lost,
        a_full_disk_drops_lines_where_that_is_asked_for,
        a_program_without_privileges_can_open_its_streams_again,
    ]
}

/// Runs a program once, and waits for its end.
fn once(script: &str, log: Value) -> Instance {
    let mut instance = Instance::new(
        script,
        json!({ "restart": { "policy": "never" }, "log": log }),
    );
    instance.keep();
    instance.until(|status| !rests(status).is_empty());
    instance
}

fn both_streams_are_in_the_format_of_cri() {
    let instance = once(
        "echo out; sleep 0.1; echo error >&2; sleep 0.1; echo; echo more",
        json!({}),
    );
    let log = instance.log();
    let lines: Vec<Vec<&str>> = log
        .lines()
        .map(|line| line.splitn(4, ' ').collect())
        .collect();
    let rest: Vec<&[&str]> = lines.iter().map(|line| &line[1..]).collect();
    let expected: [&[&str]; 4] = [
        &["stdout", "F", "out"],
        &["stderr", "F", "error"],
        &["stdout", "F", ""],
        &["stdout", "F", "more"],
    ];
    assert_eq!(rest, expected);
    for line in &lines {
        // 2026-01-01T00:00:00.000000000Z
        let shape: String = line[0]
            .chars()
            .map(|c| if c.is_ascii_digit() { '0' } else { c })
            .collect();
        assert_eq!(shape, "0000-00-00T00:00:00.000000000Z");
    }
    assert!(lines[0][0] < lines[1][0] && lines[1][0] < lines[2][0]);
}

fn a_long_line_is_in_parts_and_a_last_one_needs_no_end() {
    let script = "i=0; x=; while [ $i -lt 4000 ]; do x=${x}0123456789; i=$((i+1)); done; \
                  echo $x; printf end";
    let instance = once(script, json!({}));
    let log = instance.log();
    let parts: Vec<(&str, usize)> = log
        .lines()
        .map(|line| {
            let parts: Vec<&str> = line.splitn(4, ' ').collect();
            (parts[2], parts[3].len())
        })
        .collect();
    let part = 16 << 10;
    assert_eq!(
        parts,
        [("P", part), ("P", part), ("F", 40_000 - 2 * part), ("F", 3)]
    );
    let whole: String = instance.texts()[..3].concat();
    assert_eq!(whole, "0123456789".repeat(4000));
}

/// A file in the bundle's root with `count` numbered lines of 100 bytes.
fn with_lines(instance: &Instance, count: usize) {
    let lines: String = (0..count).map(|number| format!("{number:099}\n")).collect();
    fs::write(instance.bundle.folder.join("rootfs/lines"), lines).unwrap();
}

fn numbers(path: &Path) -> Vec<usize> {
    let text = fs::read_to_string(path).unwrap();
    assert!(text.ends_with('\n'));
    let number = |line: &str| {
        let text = line.splitn(4, ' ').nth(3).unwrap();
        assert_eq!(text.len(), 99, "{line:?}");
        text.parse().unwrap()
    };
    text.lines().map(number).collect()
}

/// Waits for the program's end, for as long as the virtual host takes to write what it prints.
fn while_bytes_come(instance: &Instance) -> Value {
    let (mut last, mut in_vain) = (0, 0);
    while in_vain < 600 {
        let status = instance.status();
        if rests(&status) == "completed" {
            return status;
        }
        let bytes = status["log"]["bytes"].as_u64().unwrap();
        in_vain = if bytes == last { in_vain + 1 } else { 0 };
        last = bytes;
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    panic!("after {last} bytes it does not go on")
}

fn a_burst_of_500_megabytes_arrives_whole() {
    const LINES: usize = 100_000;
    const TIMES: usize = 50;
    let script = format!("i=0; while [ $i -lt {TIMES} ]; do cat /lines; i=$((i+1)); done");
    let restart =
        json!({ "restart": { "policy": "never" }, "log": { "maxSize": 64 << 20, "maxFiles": 2 } });
    let mut instance = Instance::new(&script, restart);
    with_lines(&instance, LINES);
    instance.keep();
    let status = while_bytes_come(&instance);
    assert_eq!(status["log"]["bytes"], LINES * 100 * TIMES);
    assert_eq!(status["log"]["droppedBytes"], 0);
    // Each line has 139 bytes in the log; the last two files are there, and follow each other.
    let (old, new) = (
        numbers(&instance.file("log.1")),
        numbers(&instance.file("log")),
    );
    assert_eq!(*new.last().unwrap(), LINES - 1);
    assert!(old.len() > 400_000, "{}", old.len());
    let all: Vec<usize> = old.into_iter().chain(new).collect();
    assert!(all.windows(2).all(|two| two[1] == (two[0] + 1) % LINES));
}

fn full_files_make_room_and_the_oldest_goes() {
    const LIMIT: u64 = 128 << 10;
    let restart =
        json!({ "restart": { "policy": "never" }, "log": { "maxSize": LIMIT, "maxFiles": 3 } });
    let mut instance = Instance::new("cat /lines", restart);
    with_lines(&instance, 10_000);
    instance.keep();
    let status = instance.until(|status| rests(status) == "completed");
    let files = ["log.2", "log.1", "log"].map(|name| instance.file(name));
    let all: Vec<usize> = files.iter().flat_map(|file| numbers(file)).collect();
    assert!(all.windows(2).all(|two| two[1] == two[0] + 1));
    assert_eq!(*all.last().unwrap(), 9_999);
    for file in &files {
        assert!(fs::metadata(file).unwrap().len() <= LIMIT, "{file:?}");
    }
    assert!(!instance.file("log.3").exists());
    assert!(status["log"]["rotations"].as_u64() > Some(8), "{status:#}");
    // One file only: it is begun anew.
    let restart =
        json!({ "restart": { "policy": "never" }, "log": { "maxSize": LIMIT, "maxFiles": 1 } });
    let mut instance = Instance::new("cat /lines", restart);
    with_lines(&instance, 5_000);
    instance.keep();
    instance.until(|status| rests(status) == "completed");
    assert_eq!(*numbers(&instance.file("log")).last().unwrap(), 4_999);
    assert!(!instance.file("log.1").exists());
}

/// Lines that are in the log, and that it says are missing.
fn kept_and_dropped(texts: &[String]) -> (u64, u64) {
    let (mut kept, mut dropped) = (0, 0);
    for text in texts {
        match text.strip_prefix("[parhelion: ") {
            Some(note) => dropped += note.split(' ').next().unwrap().parse::<u64>().unwrap(),
            None => kept += 1,
        }
    }
    (kept, dropped)
}

/// Holds the keeper up until it has dropped lines, in turns that get longer: what prints has to be fast enough to fill the pipe.
fn hold_up(instance: &Instance) {
    let keeper = instance.keeper.as_ref().unwrap();
    for turn in 1..100 {
        keeper.signal(rustix::process::Signal::STOP);
        std::thread::sleep(std::time::Duration::from_millis(20 * turn));
        keeper.signal(rustix::process::Signal::CONT);
        if instance.status()["log"]["droppedLines"] != 0 {
            return;
        }
    }
    panic!("nothing was dropped: {:#}", instance.status());
}

fn lines_are_dropped_where_that_is_asked_for_and_counted() {
    const LINES: usize = 100_000;
    const TIMES: usize = 20;
    let script = format!(
        "read go </tmp/go; i=0; while [ $i -lt {TIMES} ]; do cat /lines; i=$((i+1)); done; \
         read go </tmp/go; echo last"
    );
    let log = json!({ "maxSize": 1 << 30, "whenFull": "drop" });
    let changes = json!({ "restart": { "policy": "never" }, "log": log });
    let mut instance = Instance::new(&script, changes);
    with_lines(&instance, LINES);
    let mut go = Fifo::new(&instance.bundle, "go");
    // A disk on which writing takes longer than printing: a fifo that is read slowly would block, so the
    // keeper is stopped for some moments, and the pipe is full when it goes on.
    instance.keep();
    instance.until(runs);
    go.say("go");
    hold_up(&instance);
    let mut tries = 0;
    while instance.status()["log"]["bytes"] != LINES * 100 * TIMES {
        tries += 1;
        assert!(tries < 6000, "{:#}", instance.status());
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    // There is room in the pipe again: this one is kept.
    go.say("go");
    let status = instance.until(|status| rests(status) == "completed");
    let (kept, dropped) = kept_and_dropped(&instance.texts());
    assert!(dropped > 0);
    assert_eq!(kept + dropped, (LINES * TIMES + 1) as u64);
    assert_eq!(status["log"]["droppedLines"], dropped);
    assert_eq!(instance.texts().last().unwrap(), "last");
}

/// A small disk for the instance's directory.
struct SmallDisk(std::path::PathBuf);

impl SmallDisk {
    fn under(instance: &Instance) -> SmallDisk {
        let folder = instance.folder();
        let spec = fs::read(folder.join("keeper.json")).unwrap();
        let options = Some("size=512k");
        mount(
            Some("small"),
            &folder,
            Some("tmpfs"),
            MsFlags::empty(),
            options,
        )
        .unwrap();
        fs::write(folder.join("keeper.json"), spec).unwrap();
        SmallDisk(folder)
    }

    /// Leaves no room at all.
    fn fill(&self) {
        let mut file = fs::File::create(self.0.join("filler")).unwrap();
        while std::io::Write::write_all(&mut file, &[0; 4096]).is_ok() {}
    }

    fn free(&self) {
        fs::remove_file(self.0.join("filler")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Its keeper may still be there.
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

const COUNTS: &str = "i=0; while :; do i=$((i+1)); echo line $i; sleep 0.01; done";

fn a_full_disk_is_told_and_nothing_is_lost() {
    let mut instance = Instance::new(COUNTS, json!({}));
    let disk = SmallDisk::under(&instance);
    instance.keep();
    let before = super::pid(&instance.until(runs));
    disk.fill();
    let full = instance.until(|status| status["faults"]["log"].is_string());
    assert!(
        full["faults"]["log"].to_string().contains("no space left"),
        "{full:#}"
    );
    // The status can not be written either, which its keeper says where it can.
    let full = instance.until(|status| status["faults"]["status"].is_string());
    assert!(
        full["faults"]["status"]
            .to_string()
            .contains("no space left"),
        "{full:#}"
    );
    assert_eq!(super::pid(&full), before);
    assert_eq!(instance.bundle.status(), "running");
    disk.free();
    let well = json!({ "status": null, "log": null, "container": null });
    let healed = instance.until(|status| status["faults"] == well);
    assert_eq!(super::pid(&healed), before);
    let count = instance.texts().len();
    instance.until_texts(|texts| texts.len() >= count + 10);
    for (number, text) in (1..).zip(instance.texts()) {
        assert_eq!(text, format!("line {number}"));
    }
    let written: Value =
        serde_json::from_slice(&fs::read(instance.file("status.json")).unwrap()).unwrap();
    assert_eq!(super::pid(&written), before);
}

fn a_full_disk_drops_lines_where_that_is_asked_for() {
    let mut instance = Instance::new(COUNTS, json!({ "log": { "whenFull": "drop" } }));
    let disk = SmallDisk::under(&instance);
    instance.keep();
    let before = super::pid(&instance.until(runs));
    disk.fill();
    instance.until(|status| status["log"]["droppedLines"].as_u64() > Some(0));
    disk.free();
    let healed = instance.until(|status| status["faults"]["log"].is_null());
    assert_eq!(super::pid(&healed), before);
    instance.until_texts(|texts| kept_and_dropped(texts).1 > 0);
    // Each line is there, or counted where it is missing.
    let mut number = 0;
    for text in instance.texts() {
        match text.strip_prefix("[parhelion: ") {
            Some(note) => number += note.split(' ').next().unwrap().parse::<u64>().unwrap(),
            None => {
                number += 1;
                assert_eq!(text, format!("line {number}"));
            }
        }
    }
}

fn a_program_without_privileges_can_open_its_streams_again() {
    let mut instance = Instance::new(
        "echo again > /proc/self/fd/1; echo too > /proc/self/fd/2",
        json!({ "restart": { "policy": "never" } }),
    );
    instance.bundle.edit(|config| {
        config["process"]["user"] = json!({ "uid": 1000, "gid": 1000 });
    });
    instance.keep();
    instance.until(|status| rests(status) == "completed");
    let mut texts = instance.texts();
    texts.sort();
    assert_eq!(texts, ["again", "too"]);
}
