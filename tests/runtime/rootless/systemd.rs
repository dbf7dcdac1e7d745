//! A user's own systemd: scopes of it, units that it hands over, and no word to it in those.

use std::fs;
use std::path::{Path, PathBuf};

use libtest_mimic::Trial;
use serde_json::json;

use super::{HOST, Rootless};
use crate::support::{needs_systemd, program, tests};
use crate::systemd::user::UserSystemd;

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    needs_systemd(tests![
        a_container_of_a_user_is_in_a_scope_of_its_systemd,
        limits_hold_in_a_scope_that_a_user_was_handed,
        in_a_divided_unit_of_its_own_a_user_needs_no_systemd,
    ])
}

/// A bundle of a user who has a systemd.
fn managed(script: &str) -> (Rootless, UserSystemd) {
    let mut rootless = Rootless::new(script);
    let systemd = UserSystemd::start(&rootless.bundle);
    rootless.runtime_folder.clone_from(&systemd.folder);
    rootless.edit(|config| {
        config["linux"]["resources"] =
            json!({"memory": {"limit": 67_108_864}, "pids": {"limit": 30}});
    });
    (rootless, systemd)
}

/// The cgroup of a process, from the host's root on.
fn cgroup_of(pid: &str) -> PathBuf {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    Path::new(HOST).join(text.trim_end().trim_start_matches("0::/"))
}

fn read(folder: &Path, file: &str) -> String {
    fs::read_to_string(folder.join(file))
        .unwrap()
        .trim_end()
        .to_owned()
}

const LIMITS: &str = "cd /sys/fs/cgroup; read -r a < memory.max; read -r b < pids.max; echo $a $b";

fn a_container_of_a_user_is_in_a_scope_of_its_systemd() {
    let (rootless, systemd) = managed("sleep 1000");
    let create = [
        "--systemd-cgroup",
        "create",
        "--bundle",
        rootless.bundle.path(),
        rootless.id(),
    ];
    rootless.parhelion(&create).success();
    rootless.verb("start").success();
    let scope = format!("parhelion-{}.scope", rootless.id());
    let cgroup = cgroup_of(&rootless.pid().to_string());
    let place = format!("{HOST}/system.slice/{}/user.slice/{scope}", systemd.service);
    assert_eq!(cgroup, Path::new(&place));
    assert_eq!(
        (read(&cgroup, "memory.max"), read(&cgroup, "pids.max")),
        ("67108864".into(), "30".into())
    );
    assert_eq!(
        systemd.show(&rootless.bundle, &scope, "MemoryMax"),
        "67108864"
    );
    // This caller is where no user may clone anything into it, and goes to its own systemd first.
    let joined = rootless.exec("read -r own < /proc/self/cgroup; echo $own");
    assert_eq!(joined.stderr(), "");
    assert_eq!(joined.success(), "0::/\n");
    rootless
        .parhelion(&["update", "--memory", "128m", rootless.id()])
        .success();
    assert_eq!(
        systemd.show(&rootless.bundle, &scope, "MemoryMax"),
        "134217728"
    );
    rootless.verb("pause").success();
    assert_eq!(rootless.status(), "paused");
    rootless.verb("resume").success();
    rootless
        .parhelion(&["delete", "--force", rootless.id()])
        .success();
    assert_eq!(
        systemd.show(&rootless.bundle, &scope, "LoadState"),
        "not-found"
    );
    assert!(!cgroup.exists());
    rootless.nothing_is_left();
}

fn limits_hold_in_a_scope_that_a_user_was_handed() {
    let (mut rootless, _systemd) = managed(LIMITS);
    let scope = [
        "systemd-run",
        "--quiet",
        "--user",
        "--scope",
        "-pDelegate=yes",
    ];
    rootless.prefix = scope.map(str::to_owned).to_vec();
    assert_eq!(rootless.run().success(), "67108864 30\n");
    rootless.nothing_is_left();
}

fn in_a_divided_unit_of_its_own_a_user_needs_no_systemd() {
    let (rootless, systemd) = managed(LIMITS);
    let (program, state) = (program(), rootless.state_folder());
    let ran = rootless.run_command(&[
        "systemd-run",
        "--quiet",
        "--user",
        "--wait",
        "--pipe",
        "--collect",
        "-pDelegate=yes",
        "-pDelegateSubgroup=main",
        "env",
        "-u",
        "DBUS_SESSION_BUS_ADDRESS",
        "XDG_RUNTIME_DIR=/nowhere",
        program.to_str().unwrap(),
        "--root",
        state.to_str().unwrap(),
        "--systemd-cgroup",
        "run",
        "--bundle",
        rootless.bundle.path(),
        rootless.id(),
    ]);
    assert_eq!(ran.success(), "67108864 30\n");
    let scope = format!("parhelion-{}.scope", rootless.id());
    assert_eq!(
        systemd.show(&rootless.bundle, &scope, "LoadState"),
        "not-found"
    );
    rootless.nothing_is_left();
}
