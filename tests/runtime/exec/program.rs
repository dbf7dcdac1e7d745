//! Which program is executed: arguments, exit code, working directory, environment.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Stdio;

use libtest_mimic::Trial;
use serde_json::json;

use super::{changed, exec, refusal, running, sh};
use crate::caller::from_shell;
use crate::support::{Bundle, Ran, tests};

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    tests![
        what_follows_the_id_is_the_programs,
        two_hyphens_may_stand_before_the_program,
        the_exit_code_is_the_programs,
        a_program_that_can_not_be_executed_is_told_with_255,
        without_a_program_nothing_is_executed,
        a_program_is_looked_up_in_the_path_of_its_own_environment,
        the_working_directory_is_that_of_config_json_unless_another_is_asked_for,
        a_working_directory_that_is_not_there_is_refused,
        a_working_directory_behind_a_link_stays_inside,
        no_descriptor_leads_to_a_working_directory_outside,
        variables_are_added_and_the_last_value_counts,
        home_comes_from_the_images_passwd_file,
    ]
}

fn what_follows_the_id_is_the_programs() {
    let bundle = running();
    let arguments = ["-t", "--env", "A=1", "--", "-d", "--help", "a b", ""];
    let program = [&["/bin/busybox", "printf", "<%s>\n"], &arguments[..]].concat();
    let expected: String = arguments.iter().map(|one| format!("<{one}>\n")).collect();
    assert_eq!(exec(&bundle, &[], &program).success(), expected);
}

/// As people write it who know kubectl; runc would look for a program of this name.
fn two_hyphens_may_stand_before_the_program() {
    let bundle = running();
    assert_eq!(
        exec(&bundle, &[], &["--", "/bin/echo", "--", "-n"]).success(),
        "-- -n\n"
    );
}

fn the_exit_code_is_the_programs() {
    let bundle = running();
    for (script, code) in [
        ("exit 0", 0),
        ("exit 7", 7),
        ("exit 255", 255),
        ("kill -9 $$", 128 + 9),
        ("kill -TERM $$", 128 + 15),
        ("kill -USR1 $$", 128 + 10),
    ] {
        let ran = exec(&bundle, &[], &["/bin/sh", "-c", script]);
        assert_eq!(
            (ran.code(), ran.stderr()),
            (Some(code), String::new()),
            "{script}"
        );
    }
    assert_eq!(bundle.status(), "running");
}

/// containerd, Docker and Podman make exit codes 126 and 127 of these words.
fn a_program_that_can_not_be_executed_is_told_with_255() {
    let bundle = changed(|config| config["process"]["env"] = json!(["PATH=/bin:/etc"]));
    let etc = bundle.folder.join("rootfs/etc");
    fs::write(etc.join("plain"), "#!/bin/sh\n").unwrap();
    fs::copy(etc.join("plain"), etc.join("strange")).unwrap();
    fs::write(etc.join("strange"), "no format\n").unwrap();
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(etc.join("strange"), executable).unwrap();
    for (program, words) in [
        ("/no/such", "exec: \"/no/such\": no such file or directory"),
        (
            "./no-such",
            "exec: \"./no-such\": no such file or directory",
        ),
        ("/etc/plain", "exec: \"/etc/plain\": permission denied"),
        ("/etc/plain/x", "exec: \"/etc/plain/x\": not a directory"),
        ("/etc", "exec: \"/etc\": is a directory"),
        ("plain", "exec: \"/etc/plain\": permission denied"),
        (
            "/etc/strange",
            "execve(\"/etc/strange\"): exec format error",
        ),
        (
            "absent",
            "exec: \"absent\": executable file not found in $PATH (/bin:/etc)",
        ),
    ] {
        for flags in [&[][..], &["--detach"]] {
            let error = refusal(&exec(&bundle, flags, &[program]));
            assert!(error.contains(words), "{error}");
            assert!(
                error.starts_with(&format!("exec {:?}: ", bundle.id)),
                "{error}"
            );
        }
    }
}

fn without_a_program_nothing_is_executed() {
    let bundle = running();
    for program in [&[][..], &["--"], &[""]] {
        refusal(&exec(&bundle, &[], program));
    }
}

fn a_program_is_looked_up_in_the_path_of_its_own_environment() {
    let bundle = running();
    let folder = bundle.folder.join("rootfs/opt");
    fs::create_dir(&folder).unwrap();
    symlink("/bin/busybox", folder.join("uname")).unwrap();
    refusal(&exec(&bundle, &[], &["uname"]));
    exec(&bundle, &["--env", "PATH=/nowhere:/opt"], &["uname"]).success();
}

fn the_working_directory_is_that_of_config_json_unless_another_is_asked_for() {
    let bundle = changed(|config| config["process"]["cwd"] = json!("/etc"));
    assert_eq!(sh(&bundle, &[], "pwd"), "/etc\n");
    assert_eq!(sh(&bundle, &["--cwd", "/tmp"], "pwd"), "/tmp\n");
    assert_eq!(sh(&bundle, &["--cwd=/tmp"], "pwd"), "/tmp\n");
}

fn a_working_directory_that_is_not_there_is_refused() {
    let bundle = changed(|config| config["root"]["readonly"] = json!(false));
    fs::write(bundle.folder.join("rootfs/etc/plain"), "").unwrap();
    for (cwd, words) in [
        (
            "/no/such",
            "process.cwd: chdir(\"/no/such\"): no such file or directory",
        ),
        (
            "/etc/plain",
            "process.cwd: chdir(\"/etc/plain\"): not a directory",
        ),
        ("tmp", "process.cwd: must be an absolute path, is \"tmp\""),
    ] {
        let error = refusal(&exec(&bundle, &["--cwd", cwd], &["/bin/true"]));
        assert!(error.contains(words), "{error}");
    }
    assert!(!bundle.folder.join("rootfs/no").exists(), "exec makes none");
}

fn a_working_directory_behind_a_link_stays_inside() {
    let bundle = running();
    let rootfs = bundle.folder.join("rootfs");
    symlink("../../../../../../../../etc", rootfs.join("up")).unwrap();
    symlink(&bundle.folder, rootfs.join("outside")).unwrap();
    let inode = "stat -c %i .";
    let etc = std::os::unix::fs::MetadataExt::ino(&fs::metadata(rootfs.join("etc")).unwrap());
    assert_eq!(sh(&bundle, &["--cwd", "/up"], inode), format!("{etc}\n"));
    let error = refusal(&exec(&bundle, &["--cwd", "/outside"], &["/bin/true"]));
    assert!(error.contains("no such file or directory"), "{error}");
}

/// CVE-2024-21626: a descriptor that the runtime left open became the working directory.
fn no_descriptor_leads_to_a_working_directory_outside() {
    let bundle = running();
    for number in 0..64 {
        let cwd = format!("/proc/self/fd/{number}");
        let error = refusal(&exec(&bundle, &["--cwd", &cwd], &["/bin/true"]));
        assert!(error.contains("process.cwd: chdir("), "{cwd}: {error}");
    }
    // Not even one that the caller passes on.
    let flags = ["exec", "--preserve-fds", "1", "--cwd", "/proc/self/fd/3"];
    let arguments = [&flags[..], &[&bundle.id, "/bin/true"]].concat();
    let mut command = from_shell(&bundle, "exec 3</; exec \"$@\"", &arguments);
    let ran = Ran(command.stdin(Stdio::null()).output().unwrap());
    let error = refusal(&ran);
    assert!(error.contains("is outside the container's root"), "{error}");
}

fn environment(bundle: &Bundle, flags: &[&str]) -> Vec<String> {
    let seen = exec(bundle, flags, &["/bin/env"]).success();
    seen.lines().map(str::to_owned).collect()
}

fn variables_are_added_and_the_last_value_counts() {
    let bundle = changed(|config| config["process"]["env"] = json!(["A=1", "B=2", "HOME=/h"]));
    assert_eq!(environment(&bundle, &[]), ["A=1", "B=2", "HOME=/h"]);
    // A program that finds two values takes the first one, as getenv(3) does: so there is one.
    let flags = ["-e", "C=3", "--env", "A=x=y", "--env=C=", "-e", "D=a b"];
    assert_eq!(
        environment(&bundle, &flags),
        ["A=x=y", "B=2", "HOME=/h", "C=", "D=a b"]
    );
    for (wrong, words) in [("NAME", "NAME=VALUE"), ("=x", "process.env[3]")] {
        let error = refusal(&exec(&bundle, &["-e", wrong], &["/bin/true"]));
        assert!(
            error.contains(words) && error.contains("process.env[3]"),
            "{error}"
        );
    }
}

fn home_comes_from_the_images_passwd_file() {
    let bundle = running();
    let passwd = "root:x:0:0::/root:/bin/sh\nweb:x:1000:1000::/srv/web:/bin/sh\n";
    fs::write(bundle.folder.join("rootfs/etc/passwd"), passwd).unwrap();
    let home = |flags: &[&str]| sh(&bundle, flags, "echo $HOME");
    assert_eq!(home(&[]), "/root\n");
    assert_eq!(home(&["--user", "1000"]), "/srv/web\n");
    assert_eq!(home(&["--user", "7"]), "/\n");
    assert_eq!(home(&["--user", "1000", "-e", "HOME=/mine"]), "/mine\n");
}
