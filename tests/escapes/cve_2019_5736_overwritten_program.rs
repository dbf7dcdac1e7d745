//! CVE-2019-5736 (runc, crun): the container opens the runtime's own file while it runs inside, and writes to it when
//! nobody executes it any more. The next call on the host is the attacker's.
//!
//! The way in: a program in the image that says `#!/proc/self/exe`. To execute it is to execute what joins the container
//! once more, as its own interpreter: as an ordinary program now, which root inside may look into.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;

use libtest_mimic::Trial;
use rustix::fs::{CWD, Mode, mkfifoat};
use serde_json::json;

use crate::inside::{self, Inside};
use crate::subject::{Subject, copy, wait_until};
use crate::support::{Bundle, tests};

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    tests![
        the_program_can_not_be_overwritten_from_inside,
        a_file_of_the_hosts_that_ran_inside_would_be_overwritten,
        what_runs_inside_loads_nothing_from_the_image,
        the_program_as_the_containers_own_program_is_the_copy,
    ]
}

/// The bundle, with a copy of the program for the attacker to harm.
fn bundle(subject: Subject, script: &str) -> Bundle {
    let mut bundle = subject.bundle(script);
    let folder = bundle.folder.join("program");
    fs::create_dir(&folder).unwrap();
    bundle.program = folder.join("parhelion");
    copy(&subject.program(), &bundle.program);
    // Its own first use, so that all files are there that it may make.
    bundle
        .parhelion(&["run", "--bundle", "/nonexistent", "none"])
        .failure();
    bundle
}

/// The content of the files in the program's folder.
fn contents(bundle: &Bundle) -> BTreeMap<String, Vec<u8>> {
    let files = fs::read_dir(bundle.folder.join("program")).unwrap();
    let read = |path: &Path| (path.display().to_string(), fs::read(path).unwrap());
    files.map(|file| read(&file.unwrap().path())).collect()
}

/// A pipe that takes nothing more: who writes to it waits.
fn full_pipe() -> (std::io::PipeReader, std::io::PipeWriter) {
    let (reader, mut writer) = std::io::pipe().unwrap();
    rustix::io::ioctl_fionbio(writer.as_fd(), true).unwrap();
    while writer.write(&[b' '; 4096]).is_ok() {}
    rustix::io::ioctl_fionbio(writer.as_fd(), false).unwrap();
    (reader, writer)
}

/// Opens what a process executes whose command line begins with this, keeps it open, and says whose it is.
const OPEN: &str = "for p in /proc/[0-9]*; do \
    read -r line < $p/cmdline || [ -n \"$line\" ] || continue; \
    case \"$line\" in /proc/self/exe*) readlink $p/exe; exec 5< $p/exe; echo opened; break;; esac; done 2>/dev/null";

/// Writes to it, when nobody executes it any more.
const WRITE: &str =
    "echo evil >> /proc/self/fd/5; echo evil > /proc/self/fd/5; busybox head -c 5 /proc/self/fd/5";

/// What the attacker is told, and whether a file of the host's has changed.
fn overwrite(subject: Subject) -> (String, bool) {
    let bundle = bundle(subject, inside::SCRIPT);
    bundle.edit(|config| config["root"]["readonly"] = json!(false));
    let evil = bundle.folder.join("rootfs/bin/evil");
    fs::write(&evil, "#!/proc/self/exe\n").unwrap();
    fs::set_permissions(&evil, PermissionsExt::from_mode(0o755)).unwrap();
    std::os::unix::fs::symlink("busybox", bundle.folder.join("rootfs/bin/readlink")).unwrap();
    let go = bundle.folder.join("rootfs/tmp/go");
    mkfifoat(CWD, &go, Mode::from(0o600)).unwrap();
    let before = contents(&bundle);

    let mut inside = Inside::of(bundle);
    let (mut reader, writer) = full_pipe();
    let mut exec = {
        let mut command = inside.bundle.command();
        command.args(["exec", &inside.bundle.id, "/bin/evil"]);
        let streams = command.stdin(Stdio::null()).stdout(Stdio::null());
        streams.stderr(writer).spawn().unwrap()
    };
    // It is its own interpreter when it has something to complain about, which nobody reads yet.
    let id = &inside.bundle.id;
    let procs = format!("/sys/fs/cgroup/parhelion/{id}/cgroup.procs");
    wait_until(|| {
        let all = fs::read_to_string(&procs).unwrap();
        let command = |pid: &str| fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        all.lines()
            .any(|pid| command(pid).starts_with(b"/proc/self/exe"))
    });
    let opened = inside.bundle.folder.join("rootfs/tmp/opened");
    inside.say(&format!(
        "{OPEN}; echo > /tmp/opened; read -r go < /tmp/go; {WRITE}"
    ));
    wait_until(|| opened.exists());
    let mut complaint = String::new();
    reader.read_to_string(&mut complaint).unwrap();
    exec.wait().unwrap();
    fs::write(inside.bundle.folder.join("rootfs/tmp/go"), "").unwrap();
    let told = inside.hear();
    (told, contents(&inside.bundle) != before)
}

fn the_program_can_not_be_overwritten_from_inside() {
    let (told, harmed) = overwrite(Subject::Real);
    assert!(told.contains("opened"), "the attack did not begin: {told}");
    assert!(told.contains("memfd:parhelion-init"), "{told}");
    assert!(!harmed, "a file of the host's has changed: {told}");
    let refusals = told.matches("Operation not permitted").count();
    assert_eq!(refusals, 2, "{told}");
}

fn a_file_of_the_hosts_that_ran_inside_would_be_overwritten() {
    let (told, harmed) = overwrite(Subject::Without("sealed-copy"));
    assert!(harmed, "{told}");
    assert!(told.ends_with("evil\n"), "{told}");
}

/// runc's file was dynamic: with `/proc/self/exe` as the program, a library of the image's ran in its place.
fn what_runs_inside_loads_nothing_from_the_image() {
    let bundle = bundle(Subject::Real, "");
    bundle.edit(|config| {
        config["process"]["args"] = json!(["/proc/self/exe"]);
        config["process"]["env"] = json!(["LD_PRELOAD=/evil.so", "LD_LIBRARY_PATH=/"]);
    });
    fs::write(bundle.folder.join("rootfs/evil.so"), "").unwrap();
    let ran = bundle.run();
    // By the same entry as always, which finds nobody to speak with.
    assert_eq!(ran.code(), Some(1));
    let words = "parhelion-init: is started by parhelion alone";
    assert!(ran.stderr().starts_with(words), "{}", ran.stderr());
}

fn the_program_as_the_containers_own_program_is_the_copy() {
    let bundle = bundle(Subject::Real, "");
    let before = contents(&bundle);
    // A descriptor of the container's own in the place of the runtime's conversation.
    bundle.edit(|config| config["process"]["args"] = json!(["/proc/self/exe", "0"]));
    let ran = bundle.run();
    assert_eq!(ran.code(), Some(1), "{}", ran.stderr());
    assert!(contents(&bundle) == before);
}
