//! Containers of many kinds, and how each of them is followed.

use std::fs::{self, File};
use std::os::unix::fs::chown;
use std::process::Command;

use serde_json::{Value, json};

use super::trace::{Trace, follow};
use crate::caller::{self, Socket};
use crate::subject::Subject;
use crate::support::{Bundle, HOOKS};

/// The first user of the host that is root in a user namespace of these tests, and how many there are.
pub const OWNER: u32 = 3_000_000;
const IDS: u32 = 65_536;

/// A bundle with hooks of all times, mounts of many kinds, parameters of the kernel and paths to hide. Its program is
/// executed by an absolute path.
pub fn bundle(subject: Subject) -> Bundle {
    let bundle = subject.bundle("");
    let volume = bundle.folder.join("volume");
    fs::create_dir(&volume).unwrap();
    fs::create_dir(bundle.folder.join("rootfs/tmp/copied")).unwrap();
    bundle.edit(|config| {
        config["process"]["args"] = json!(["/bin/busybox", "true", "word"]);
        config["process"]["cwd"] = json!("/tmp");
        config["linux"]["sysctl"] = json!({"net.ipv4.ip_forward": "1"});
        let mounts = config["mounts"].as_array_mut().unwrap();
        let options = json!(["rbind", "ro"]);
        mounts.push(
            json!({"destination": "/a/new/folder", "type": "bind", "source": volume,
            "options": options}),
        );
        mounts.push(
            json!({"destination": "/tmp", "type": "tmpfs", "source": "tmpfs",
            "options": ["tmpcopyup"]}),
        );
        config["root"]["readonly"] = json!(false);
        config["hooks"] = json!({});
        for name in HOOKS {
            let hook = json!({"path": "/bin/true", "args": ["true", name], "env": ["OF=hook"]});
            config["hooks"][name] = json!([hook]);
        }
    });
    bundle
}

/// In a user namespace.
pub fn in_user_namespace(bundle: &Bundle) {
    chown(bundle.folder.join("rootfs"), Some(OWNER), Some(OWNER)).unwrap();
    bundle.edit(|config| {
        let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.push(json!({"type": "user"}));
        let map = json!([{"containerID": 0, "hostID": OWNER, "size": IDS}]);
        config["linux"]["uidMappings"] = map.clone();
        config["linux"]["gidMappings"] = map;
    });
}

/// A filter of system calls that allows all but one.
pub fn filter() -> Value {
    json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls":
        [{"names": ["sched_yield"], "action": "SCMP_ACT_ERRNO"}]})
}

/// A file for what is printed, which is told when the command fails.
fn output(bundle: &Bundle) -> File {
    File::create(bundle.folder.join("output")).unwrap()
}

fn ended_well(bundle: &Bundle, trace: Trace) -> Trace {
    assert!(
        trace.status.success(),
        "{:?}: {}",
        trace.status,
        caller::output(bundle)
    );
    trace
}

/// How the program is called: with the words after the flags that all verbs have.
pub type Call<'a> = &'a dyn Fn(&Bundle, &[&str]) -> Command;

/// `run` in the foreground, called as `call` does with the words after the verb.
pub fn run_as(bundle: &Bundle, flags: &[&str], call: Call<'_>) -> Trace {
    let words = [&["run"], flags, &["--bundle", bundle.path(), &bundle.id]].concat();
    let trace = follow(&call(bundle, &words), &output(bundle), None);
    ended_well(bundle, trace)
}

/// `run` in the foreground.
pub fn run(bundle: &Bundle, flags: &[&str]) -> Trace {
    run_as(bundle, flags, &|bundle, words| {
        caller::command(bundle, words)
    })
}

/// `create`, with a terminal, and `start`.
pub fn create(bundle: &Bundle, flags: &[&str]) -> Trace {
    bundle.edit(|config| config["process"]["terminal"] = json!(true));
    let console = Socket::new(bundle, "console.sock");
    let words = [
        "create",
        "--bundle",
        bundle.path(),
        "--console-socket",
        &console.path,
    ];
    let words = [&words[..], flags, &[&bundle.id]].concat();
    let mut start = caller::command(bundle, &["start", &bundle.id]);
    let command = caller::command(bundle, &words);
    let trace = follow(&command, &output(bundle), Some(&mut start));
    ended_well(bundle, trace)
}

/// `exec` in a container that runs, called as `call` does.
pub fn exec_as(bundle: &Bundle, flags: &[&str], call: Call<'_>) -> Trace {
    bundle.edit(|config| config["process"]["args"] = json!(["/bin/busybox", "sleep", "100000"]));
    caller::start(bundle);
    let program = ["/bin/busybox", "true", "word"];
    let words = [&["exec"], flags, &[&bundle.id], &program].concat();
    let trace = follow(&call(bundle, &words), &output(bundle), None);
    ended_well(bundle, trace)
}

/// `exec` in a container that runs.
pub fn exec(bundle: &Bundle, flags: &[&str]) -> Trace {
    exec_as(bundle, flags, &|bundle, words| {
        caller::command(bundle, words)
    })
}
