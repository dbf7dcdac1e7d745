//! What is left of a command and its container anywhere on the host: processes, and the files in memory that they hold.
//!
//! A file in memory (memfd_create(2)) lives as long as a process has it open, mapped or executes it. So every process on
//! the host is looked at. A process is this container's when it is in its cgroup, has something of the bundle's open, as its
//! output or its working directory, or has a hook's input with the container's id: so others that run beside are not counted.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use libtest_mimic::Trial;
use rustix::fs::{MemfdFlags, memfd_create};

use crate::support::{Bundle, tests};

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    tests![
        a_process_of_the_bundle_is_seen_with_its_memory_files,
        a_hook_that_only_has_its_input_is_seen,
        a_program_in_memory_is_seen,
    ]
}

/// How long what has been killed may take to end.
const TRIES: usize = 6000;
const PAUSE: Duration = Duration::from_millis(5);

/// How the kernel calls the files in memory that the program makes.
const MEMORY_FILE: &str = "/memfd:";

/// Nothing of the container `id`, of the bundle in `folder`, runs or is held in memory.
pub fn nothing_is_left(folder: &Path, id: &str) {
    for _ in 0..TRIES {
        if find(folder, id).is_empty() {
            return;
        }
        // No event tells of the end of a process that nobody knows.
        std::thread::sleep(PAUSE);
    }
    panic!("there are still {:?}", find(folder, id));
}

/// A line for each process of this container but the caller's own.
fn find(folder: &Path, id: &str) -> Vec<String> {
    let own = std::process::id().to_string();
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let names = processes.filter_map(|entry| entry.file_name().into_string().ok());
    let others = names.filter(|name| name.parse::<u32>().is_ok() && *name != own);
    others.filter_map(|pid| look_at(&pid, folder, id)).collect()
}

/// What the process `pid` has of the container; None for one that has nothing, or has ended.
fn look_at(pid: &str, folder: &Path, id: &str) -> Option<String> {
    let place = Path::new("/proc").join(pid);
    let link = |name: &str| {
        let link = fs::read_link(place.join(name)).ok()?;
        Some(link.to_string_lossy().into_owned())
    };
    let executes = link("exe")?; // one that has ended executes nothing
    if Path::new(&executes) == std::env::current_exe().ok()? {
        return None; // another test's command, which is about to execute something and loses these files then
    }
    let numbers = fs::read_dir(place.join("fd")).ok()?.flatten();
    let numbers = numbers.filter_map(|entry| entry.file_name().into_string().ok());
    let numbers: Vec<String> = numbers.map(|number| format!("fd/{number}")).collect();
    let open = numbers.iter().map(String::as_str).chain(["cwd", "root"]);
    let held: Vec<_> = open.filter_map(|name| Some((name, link(name)?))).collect();
    let cgroups = fs::read_to_string(place.join("cgroup")).unwrap_or_default();
    let in_cgroup = cgroups
        .lines()
        .any(|line| line.split('/').any(|part| part == id));
    let has_files = held
        .iter()
        .any(|(_, path)| Path::new(path).starts_with(folder));
    let has_state = || {
        let in_memory = held
            .iter()
            .filter(|(_, path)| path.starts_with("/memfd:hook-state"));
        in_memory.into_iter().any(|(name, _)| {
            let state = fs::read_to_string(place.join(name)).unwrap_or_default();
            state.contains(&format!("\"id\":\"{id}\""))
        })
    };
    if !(in_cgroup || has_files || has_state()) {
        return None;
    }
    let maps = fs::read_to_string(place.join("maps")).unwrap_or_default();
    let mapped = maps
        .lines()
        .filter_map(|line| line.find(MEMORY_FILE).map(|at| line[at..].to_owned()));
    let open = held
        .iter()
        .filter(|(_, path)| path.starts_with(MEMORY_FILE));
    let open = open.map(|(_, path)| path.clone());
    let executed = Some(executes.clone()).filter(|path| path.starts_with(MEMORY_FILE));
    let memory: BTreeSet<String> = mapped.chain(open).chain(executed).collect();
    Some(format!(
        "process {pid}, which executes {executes:?} and holds {memory:?}"
    ))
}

/// What is found while `command` runs, which sleeps; and nothing of it afterwards.
fn while_it_runs(bundle: &Bundle, command: &mut Command) -> Vec<String> {
    assert_eq!(find(&bundle.folder, &bundle.id), [""; 0]);
    let mut child = command.spawn().unwrap();
    let found = find(&bundle.folder, &bundle.id);
    child.kill().unwrap();
    child.wait().unwrap();
    nothing_is_left(&bundle.folder, &bundle.id);
    found
}

fn sleeping() -> Command {
    let mut command = Command::new("sleep");
    command.arg("100000").current_dir("/");
    command
}

fn memory_file(name: &str, content: &str) -> File {
    let mut file = File::from(memfd_create(name, MemfdFlags::CLOEXEC).unwrap());
    file.write_all(content.as_bytes()).unwrap();
    file
}

fn a_process_of_the_bundle_is_seen_with_its_memory_files() {
    let bundle = Bundle::new("true");
    let output = File::create(bundle.folder.join("output")).unwrap();
    let mut command = sleeping();
    command.stdin(memory_file("hook-output", "")).stdout(output);
    let found = while_it_runs(&bundle, &mut command);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(
        found[0].contains("{\"/memfd:hook-output (deleted)\"}"),
        "{found:?}"
    );
    let mut command = sleeping();
    command.current_dir(&bundle.folder).stdin(Stdio::null());
    assert_eq!(while_it_runs(&bundle, &mut command).len(), 1);
}

fn a_hook_that_only_has_its_input_is_seen() {
    let bundle = Bundle::new("true");
    let state = |id: &str| format!("{{\"ociVersion\":\"1.3.0\",\"id\":\"{id}\"}}");
    let mut command = sleeping();
    command.stdin(memory_file("hook-state", &state(&bundle.id)));
    let found = while_it_runs(&bundle, &mut command);
    assert!(found[0].contains("/memfd:hook-state"), "{found:?}");
    // Another container's is not this one's.
    let mut command = sleeping();
    command.stdin(memory_file("hook-state", &state("another")));
    assert_eq!(while_it_runs(&bundle, &mut command).len(), 0);
}

fn a_program_in_memory_is_seen() {
    let bundle = Bundle::new("sleep 100000");
    bundle.create().success();
    let found = find(&bundle.folder, &bundle.id);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(
        found[0].contains("executes \"/memfd:parhelion-init (deleted)\""),
        "{found:?}"
    );
    bundle
        .parhelion(&["delete", "--force", &bundle.id])
        .success();
    nothing_is_left(&bundle.folder, &bundle.id);
}
