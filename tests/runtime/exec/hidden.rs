//! What the container can reach of the process that joins it, and of the runtime: nothing.

use std::fs;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::process::Stdio;

use libtest_mimic::Trial;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use serde_json::{Value, json};

use super::{cgroup_of, exec, exec_command, in_user_namespace, leave, processes, running, sh};
use crate::caller::{Running, init_pid};
use crate::support::{Bundle, program, tests};

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    tests![
        no_descriptor_of_the_runtime_is_open_in_the_program,
        nobody_inside_looks_into_a_process_that_is_ready,
        nobody_inside_looks_into_processes_that_join,
        what_joins_is_a_sealed_copy_and_never_the_runtimes_file,
    ]
}

fn no_descriptor_of_the_runtime_is_open_in_the_program() {
    for bundle in [running(), in_user_namespace(|_config| {})] {
        for flags in [&[][..], &["--detach"]] {
            let script = "ls /proc/$$/fd; ls -l /proc/$$/fd; :";
            let mut command = exec_command(&bundle, flags, &["/bin/sh", "-c", script]);
            let (mut words, theirs) = std::io::pipe().unwrap();
            let streams = command.stdin(Stdio::null()).stderr(Stdio::null());
            assert!(streams.stdout(theirs).status().unwrap().success());
            drop(command);
            let mut seen = String::new();
            words.read_to_string(&mut seen).unwrap();
            assert!(seen.starts_with("0\n1\n2\ntotal"), "{seen}");
            for foreign in ["socket:", "memfd:", "cgroup", "pidfd", "/ns/", "state"] {
                assert!(!seen.contains(foreign), "{seen}");
            }
        }
    }
}

/// A listener at which one connection waits already, and so the next one does not come through.
struct Full {
    listener: OwnedFd,
    path: String,
    _first: UnixStream,
}

impl Full {
    fn new(bundle: &Bundle) -> Full {
        let path = bundle.folder.join("full.sock");
        let (unix, stream) = (AddressFamily::UNIX, SocketType::STREAM);
        let flags = SocketFlags::CLOEXEC;
        let listener = rustix::net::socket_with(unix, stream, flags, None).unwrap();
        rustix::net::bind(&listener, &SocketAddrUnix::new(&path).unwrap()).unwrap();
        rustix::net::listen(&listener, 0).unwrap();
        let first = UnixStream::connect(&path).unwrap();
        Full {
            listener,
            path: path.to_str().unwrap().to_owned(),
            _first: first,
        }
    }

    /// Takes both connections.
    fn open(&self) -> [OwnedFd; 2] {
        let accept = || rustix::net::accept_with(&self.listener, SocketFlags::CLOEXEC);
        [accept().unwrap(), accept().unwrap()]
    }
}

/// A process that has joined, is ready, and waits for a runtime that is held up.
struct Held {
    command: Running,
    gate: Full,
    pid: i32,
}

impl Held {
    fn new(bundle: &Bundle) -> Held {
        let before = processes(&cgroup_of(bundle));
        let gate = Full::new(bundle);
        let flags = ["--pidfd-socket", &gate.path];
        let mut command = exec_command(bundle, &flags, &["/bin/echo", "ran"]);
        let command = Running::spawn(&mut command, Stdio::null());
        let joined = || {
            let now = processes(&cgroup_of(bundle));
            now.into_iter().find(|pid| !before.contains(pid))
        };
        // It is ready when it waits in recvmsg(2) and the runtime in connect(2).
        let waits = |pid: i32, call: i64| {
            let text = fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap_or_default();
            text.starts_with(&format!("{call} "))
        };
        let connect = nix::libc::SYS_connect;
        super::wait_until(|| waits(command.pid(), connect) && joined().is_some());
        let pid = joined().unwrap();
        Held { command, gate, pid }
    }

    fn end(mut self) {
        let _connections = self.gate.open();
        assert_eq!(self.command.line(), "ran");
        self.command.ends_with(0);
    }
}

/// Containers in which root passes by the modes of files, and sees every process of the container, or
/// of the host. Not with CAP_SYS_PTRACE or CAP_SYS_ADMIN over the host: the kernel shows those any
/// process.
fn curious() -> [Bundle; 3] {
    let all = |config: &mut Value| {
        for set in ["bounding", "effective", "permitted"] {
            let names = ["CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_KILL"];
            config["process"]["capabilities"][set] = json!(names);
        }
    };
    let with_ptrace = |config: &mut Value| {
        all(config);
        for set in ["bounding", "effective", "permitted"] {
            let names = config["process"]["capabilities"][set]
                .as_array_mut()
                .unwrap();
            names.push(json!("CAP_SYS_PTRACE"));
        }
    };
    [
        super::changed(all),
        super::changed(|config| {
            all(config);
            leave(config, "pid");
        }),
        // Over what belongs to its own user namespace.
        in_user_namespace(with_ptrace),
    ]
}

/// Looks into every process that joins, which its command line tells. It is still the same when the
/// command line has not changed, so what was opened in between was its own.
const LOOK: &str = r#"
look() {
    before= after=
    read -r before < $1/cmdline || [ -n "$before" ] || return
    case "$before" in parhelion-init*) ;; *) return ;; esac
    echo met
    found=
    for file in exe cwd root ns/mnt; do [ -e $1/$file ] && found="$found $file"; done
    for file in mem environ maps auxv syscall io; do
        (busybox head -c 1 < $1/$file > /dev/null) && found="$found $file"
    done
    for file in $1/fd/*; do [ -e $file ] && found="$found $file"; done
    read -r after < $1/cmdline
    [ "$before" = "$after" ] && [ -n "$found" ] && echo "leak:$found"
} 2>/dev/null
"#;

fn nobody_inside_looks_into_a_process_that_is_ready() {
    for bundle in curious() {
        let held = Held::new(&bundle);
        let script = format!("{LOOK} for process in /proc/[0-9]*; do look $process; done; true");
        let seen = sh(&bundle, &[], &script);
        assert!(seen.contains("met"), "it was not seen: {seen}");
        assert!(!seen.contains("leak"), "{seen}");
        held.end();
    }
}

fn nobody_inside_looks_into_processes_that_join() {
    for (bundle, meets) in curious().into_iter().zip([true, false, true]) {
        let script = format!(
            "{LOOK} while [ ! -e /dev/shm/end ]; do
                for process in /proc/[0-9]*; do look $process; done
            done; echo over"
        );
        let mut command = exec_command(&bundle, &[], &["/bin/sh", "-c", &script]);
        let mut looking = Running::spawn(&mut command, Stdio::null());
        let mut met = 0;
        for _ in 0..60 {
            exec(&bundle, &[], &["/bin/true"]).success();
        }
        sh(&bundle, &[], "echo > /dev/shm/end");
        loop {
            match looking.line().as_str() {
                "met" => met += 1,
                "over" => break,
                other => panic!("{other}"),
            }
        }
        // Among all processes of the host it comes too late as a rule; the test before does not.
        assert!(met > 0 || !meets, "it met nobody");
        looking.ends_with(0);
    }
}

fn what_joins_is_a_sealed_copy_and_never_the_runtimes_file() {
    for bundle in [running(), in_user_namespace(|_config| {})] {
        let held = Held::new(&bundle);
        let exe = format!("/proc/{}/exe", held.pid);
        let name = fs::read_link(&exe).unwrap();
        assert!(name.to_str().unwrap().starts_with("/memfd:"), "{name:?}");
        let (copy, file) = (
            fs::metadata(&exe).unwrap(),
            fs::metadata(program()).unwrap(),
        );
        assert_ne!((copy.dev(), copy.ino()), (file.dev(), file.ino()));
        let seals = fs::File::open(&exe).unwrap();
        let seals = rustix::fs::fcntl_get_seals(&seals).unwrap();
        assert!(seals.contains(rustix::fs::SealFlags::WRITE), "{seals:?}");
        // What it maps is of the copy too.
        let maps = fs::read_to_string(format!("/proc/{}/maps", held.pid)).unwrap();
        let files = maps
            .lines()
            .filter_map(|line| line.split_whitespace().nth(5));
        for file in files.filter(|file| file.starts_with('/')) {
            assert!(file.starts_with("/memfd:parhelion-init"), "{file}");
        }
        let init = fs::read_link(format!("/proc/{}/root", init_pid(&bundle))).unwrap();
        let own = fs::read_link(format!("/proc/{}/root", held.pid)).unwrap();
        assert_eq!(own, init);
        held.end();
    }
}
