//! Rules of one task.

use std::collections::BTreeSet;

use oci_spec::runtime::LinuxSeccomp;
use serde::Deserialize;
use serde_json::Value;

use super::text::{VOLUME_NAME, absolute};
use super::{Checker, health};
use crate::job::{
    Cpu, Io, Job, Resources, Seccomp, Size, Source, Task, Thousandths, Tmpfs, Volume, render,
};

/// Options of a file system in memory that are words.
const WORDS: [&str; 12] = [
    "atime",
    "dev",
    "exec",
    "noatime",
    "nodev",
    "noexec",
    "nosuid",
    "relatime",
    "ro",
    "rw",
    "strictatime",
    "suid",
];

/// Those that have a number (tmpfs(5)).
const NUMBERS: [&str; 3] = ["gid", "nr_inodes", "uid"];

pub(super) fn check(job: &Job, task: &Task, checker: &mut Checker) {
    let bundle = task.bundle.to_str().unwrap_or_default();
    checker.inside("bundle", |c| path(bundle, c));
    if let Some(words) = &task.command {
        checker.inside("command", |c| command(words, c));
    }
    checker.inside("env", |c| {
        for (name, value) in &task.env {
            c.inside(name, |c| {
                let fits = !name.is_empty() && !name.contains(['=', '\0']) && !value.contains('\0');
                c.require(fits, || {
                    "must have a name without =, and no byte 0".to_owned()
                });
            });
        }
    });
    if let Some(directory) = &task.working_directory {
        checker.inside("workingDirectory", |c| path(directory, c));
    }
    checker.inside("resources", |c| resources(&task.resources, c));
    mounts(job, task, checker);
    let sets = [
        ("add", &task.capabilities.add),
        ("drop", &task.capabilities.drop),
    ];
    checker.inside("capabilities", |c| {
        for (key, names) in sets {
            c.inside(key, |c| capabilities(names, c));
        }
    });
    if let Some(Seccomp::Profile(profile)) = &task.seccomp {
        let read = LinuxSeccomp::deserialize(Value::Object(profile.clone()));
        if let Err(error) = read {
            checker.inside("seccomp", |c| c.problem(error.to_string()));
        }
    }
    let names = [("apparmor", &task.apparmor), ("selinux", &task.selinux)];
    for (key, name) in names {
        let fits = name
            .as_ref()
            .is_none_or(|name| !name.is_empty() && !name.contains(char::is_control));
        checker.inside(key, |c| c.require(fits, || "must be one line".to_owned()));
    }
    health::check(job, task, checker);
}

/// A program and its arguments.
pub(super) fn command(words: &[String], checker: &mut Checker) {
    let named = words.first().is_some_and(|program| !program.is_empty());
    checker.require(named || !checker.knows_here(&[]), || {
        "must name the program to run".to_owned()
    });
    checker.each(words, |word, c| {
        c.require(!word.contains('\0'), || "must have no byte 0".to_owned());
    });
}

fn path(path: &str, checker: &mut Checker) {
    if let Some(message) = absolute(path) {
        checker.problem(message);
    }
}

fn resources(resources: &Resources, checker: &mut Checker) {
    let largest = Size(1 << 60);
    checker.range("memory", resources.memory, Size(1), largest);
    let is_known = checker.knows_here(&["memory"]);
    if let Some(swap) = resources.memory_swap {
        checker.inside("memorySwap", |c| match resources.memory {
            None => c.require(!is_known, || "needs memory, which it counts too".to_owned()),
            Some(memory) => c.require(swap >= memory, || {
                format!("must be at least memory, {memory}, which it counts too, is {swap}")
            }),
        });
    }
    // What a kernel's pid_t can count.
    checker.range("pids", resources.pids, 1, i32::MAX as u32);
    checker.inside("cpu", |c| cpu(&resources.cpu, c));
    checker.inside("io", |c| io(&resources.io, c));
}

fn cpu(cpu: &Cpu, checker: &mut Checker) {
    let cores = cpu.cores.map(Thousandths::number);
    checker.range("cores", cores, 0.01, 10_000.0);
    checker.range("shares", cpu.shares, 2, 262_144);
    if let Some(set) = &cpu.cpuset {
        let number = |text: &str| text.parse::<u16>().ok().filter(|n| *n < 8192);
        let range = |part: &str| match part.split_once('-') {
            None => number(part).is_some(),
            Some((first, last)) => match (number(first), number(last)) {
                (Some(first), Some(last)) => first <= last,
                _ => false,
            },
        };
        checker.inside("cpuset", |c| {
            c.require(set.split(',').all(range), || {
                format!("must be numbers and ranges as \"0-3,8\", is {set:?}")
            });
        });
    }
}

fn io(io: &Io, checker: &mut Checker) {
    checker.range("weight", io.weight, 10, 1000);
    checker.inside("devices", |c| {
        for (numbers, device) in &io.devices {
            c.inside(numbers, |c| {
                c.require(render::device_numbers(numbers).is_some(), || {
                    "must be the numbers of a disk as \"8:0\": lsblk tells them".to_owned()
                });
                let given = device != &crate::job::IoDevice::default();
                c.require(given || !c.knows_here(&[]), || {
                    "must have a limit".to_owned()
                });
                let largest = Size(1 << 60);
                c.range("readBytes", device.read_bytes, Size(1), largest);
                c.range("writeBytes", device.write_bytes, Size(1), largest);
                c.range("readOperations", device.read_operations, 1, u32::MAX);
                c.range("writeOperations", device.write_operations, 1, u32::MAX);
            });
        }
    });
}

fn mounts(job: &Job, task: &Task, checker: &mut Checker) {
    let reserved = |inside: &str| {
        let hosts = inside == "/etc/hosts" && !job.add_hosts.is_empty();
        let dns = inside == "/etc/resolv.conf" && job.dns.is_some();
        let by = if hosts { "addHosts" } else { "dns" };
        (hosts || dns).then(|| format!("is made by {by}: one of both"))
    };
    let place = |inside: &str, c: &mut Checker| {
        path(inside, c);
        c.require(inside != "/", || "must not be the root".to_owned());
        if let Some(message) = reserved(inside) {
            c.problem(message);
        }
    };
    checker.inside("volumes", |c| {
        for (inside, volume) in &task.volumes {
            c.inside(inside, |c| {
                place(inside, c);
                source(volume, c);
            });
        }
    });
    checker.inside("tmpfs", |c| {
        for (inside, tmpfs) in &task.tmpfs {
            c.inside(inside, |c| {
                place(inside, c);
                c.require(!task.volumes.contains_key(inside), || {
                    "is a volume too: one of both".to_owned()
                });
                memory(tmpfs, c);
            });
        }
    });
}

fn source(volume: &Volume, checker: &mut Checker) {
    match volume.source() {
        None => {
            let is_so = !checker.knows_here(&[]);
            checker.require(is_so, || {
                "must have exactly one of host, name and instance".to_owned()
            });
        }
        Some(Source::Host(host)) => checker.inside("host", |c| {
            path(host.to_str().unwrap_or_default(), c);
        }),
        Some(Source::Name(name)) => checker.inside("name", |c| c.matches(name, &VOLUME_NAME)),
        Some(Source::Instance(name)) => {
            checker.inside("instance", |c| c.matches(name, &VOLUME_NAME));
        }
    }
}

fn memory(tmpfs: &Tmpfs, checker: &mut Checker) {
    checker.range("size", tmpfs.size, Size(1), Size(1 << 60));
    if let Some(mode) = &tmpfs.mode {
        let octal = (3..=5).contains(&mode.len())
            && mode.bytes().all(|digit| (b'0'..=b'7').contains(&digit))
            && u32::from_str_radix(mode, 8).is_ok_and(|mode| mode <= 0o7777);
        checker.inside("mode", |c| {
            c.require(octal, || format!("must be as \"0755\", is {mode:?}"));
        });
    }
    checker.inside("options", |c| {
        c.each(&tmpfs.options, |option, c| {
            let number = option.split_once('=').is_some_and(|(name, number)| {
                NUMBERS.contains(&name) && number.parse::<u32>().is_ok()
            });
            c.require(number || WORDS.contains(&option.as_str()), || {
                let known = WORDS.join(", ");
                let numbers = NUMBERS.join("=N, ");
                format!("must be one of {known}, {numbers}=N, is {option:?}")
            });
        });
    });
}

fn capabilities(names: &BTreeSet<String>, checker: &mut Checker) {
    for name in names {
        let known = !render::named_capabilities(name).is_empty();
        checker.require(known, || {
            format!("{name:?} is no capability: they are in capabilities(7), or ALL")
        });
    }
}
