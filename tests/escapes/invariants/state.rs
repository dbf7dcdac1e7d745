//! What a process is at a stop, as /proc tells it.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;

use nix::libc;

/// The five sets of capabilities, as bits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Capabilities {
    pub inheritable: u64,
    pub permitted: u64,
    pub effective: u64,
    pub bounding: u64,
    pub ambient: u64,
}

/// /proc/PID/status, as far as it is about rights and signals.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Status {
    /// Real, effective, saved, of the file system; as the test's user namespace sees them.
    pub uids: Vec<u32>,
    pub gids: Vec<u32>,
    pub groups: Vec<u32>,
    pub capabilities: Capabilities,
    pub no_new_privileges: bool,
    /// 0, or 2 for a filter.
    pub seccomp: u32,
    pub umask: u32,
    pub blocked: u64,
    pub ignored: u64,
    pub caught: u64,
}

/// What a process executes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Executable {
    pub device: u64,
    pub inode: u64,
    pub name: String,
    /// Those of fcntl(2), F_GET_SEALS; None for a file that takes none.
    pub seals: Option<u32>,
}

/// An open descriptor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descriptor {
    pub number: i32,
    pub leads_to: String,
    pub close_on_exec: bool,
}

/// All of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    pub status: Status,
    pub executable: Executable,
    /// It is in another mount namespace than the test.
    pub own_mounts: bool,
    pub descriptors: Vec<Descriptor>,
    pub environment: Vec<String>,
    pub arguments: Vec<String>,
    pub working_directory: String,
}

impl State {
    /// That of a stopped process; None when it has been killed.
    pub fn of(pid: i32) -> Option<State> {
        let read = |file: &str| fs::read(format!("/proc/{pid}/{file}")).ok();
        let link = |file: &str| link(&format!("/proc/{pid}/{file}"));
        Some(State {
            status: Status::of(&pid.to_string())?,
            executable: executable(pid, link("exe")?)?,
            own_mounts: link("ns/mnt")? != self::link("/proc/thread-self/ns/mnt")?,
            descriptors: descriptors(pid)?,
            environment: strings(&read("environ")?),
            arguments: strings(&read("cmdline")?),
            working_directory: link("cwd")?,
        })
    }
}

fn link(path: &str) -> Option<String> {
    let link = fs::read_link(path).ok()?;
    Some(link.to_string_lossy().into_owned())
}

impl Status {
    /// That of a process, by its name in /proc; None for one that has been killed.
    pub fn of(process: &str) -> Option<Status> {
        let text = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            Some(line?.strip_prefix(':')?.trim())
        };
        let ids = |name: &str| -> Option<Vec<u32>> {
            let words = field(name)?.split_whitespace();
            Some(words.map(|word| word.parse().unwrap()).collect())
        };
        let bits = |name: &str| Some(u64::from_str_radix(field(name)?, 16).unwrap());
        Some(Status {
            uids: ids("Uid")?,
            gids: ids("Gid")?,
            groups: ids("Groups")?,
            capabilities: Capabilities {
                inheritable: bits("CapInh")?,
                permitted: bits("CapPrm")?,
                effective: bits("CapEff")?,
                bounding: bits("CapBnd")?,
                ambient: bits("CapAmb")?,
            },
            no_new_privileges: field("NoNewPrivs")? == "1",
            seccomp: field("Seccomp")?.parse().unwrap(),
            umask: u32::from_str_radix(field("Umask")?, 8).unwrap(),
            blocked: bits("SigBlk")?,
            ignored: bits("SigIgn")?,
            caught: bits("SigCgt")?,
        })
    }
}

fn executable(pid: i32, name: String) -> Option<Executable> {
    let path = format!("/proc/{pid}/exe");
    let found = fs::metadata(&path).ok()?;
    let seals = rustix::fs::fcntl_get_seals(File::open(&path).ok()?).ok();
    Some(Executable {
        device: found.dev(),
        inode: found.ino(),
        name,
        seals: seals.map(|seals| seals.bits()),
    })
}

fn descriptors(pid: i32) -> Option<Vec<Descriptor>> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).ok()?;
    let descriptor = |number: String| {
        let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{number}")).ok()?;
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:"))?;
        let flags = i32::from_str_radix(flags.trim(), 8).unwrap();
        Some(Descriptor {
            number: number.parse().unwrap(),
            leads_to: link(&format!("/proc/{pid}/fd/{number}"))?,
            close_on_exec: flags & libc::O_CLOEXEC != 0,
        })
    };
    let names = entries.map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut all: Vec<Descriptor> = names.map(|name| descriptor(name?)).collect::<Option<_>>()?;
    all.sort_by_key(|descriptor| descriptor.number);
    Some(all)
}

fn strings(bytes: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(bytes);
    let strings = text.split_terminator('\0');
    strings.map(str::to_owned).collect()
}
