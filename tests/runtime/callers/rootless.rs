//! Podman of an ordinary user as after a login, with the runtime as its default: a terminal, and pods.
//!
//! What a single container of such a user can and can not is in `rootless/podman.rs`.

use std::fs;
use std::process::Command;
use std::sync::OnceLock;

use libtest_mimic::Trial;

use super::{IMAGE, archive, ask, cgroup_of, host, limit, setting, start};
use crate::support::{Ran, tests};
use crate::terminal::Pty;

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    tests![
        a_users_podman_maps_ids_and_takes_a_terminal,
        a_pod_of_a_users_podman_shares_and_goes,
    ]
}

/// The ordinary user of the virtual host, by name.
fn user() -> String {
    std::env::var("VHOST_USER").expect("VHOST_USER")
}

/// The user's systemd, Podman's settings as the documentation has them, and the image; once.
fn prepare() {
    static READY: OnceLock<()> = OnceLock::new();
    READY.get_or_init(|| {
        // Not wanted at each boot of the virtual host, and what udev would do to the node.
        ask(&["systemctl", "unmask", "systemd-logind.service"]);
        ask(&["chmod", "666", "/dev/net/tun"]);
        let service: &'static str = format!("user@{}.service", uid()).leak();
        start(&[service]);
        let folder = format!("/home/{}/.config/containers/containers.conf.d", user());
        as_user(&["mkdir", "-p", &folder]).success();
        let settings = setting("/etc/containers/containers.conf.d/parhelion.conf");
        fs::write(format!("{folder}/parhelion.conf"), settings).unwrap();
        podman(&["load", "--quiet", "--input", archive().to_str().unwrap()]);
    });
}

fn uid() -> String {
    ask(&["id", "-u", &user()])
}

/// A command of the user's, as in a login.
fn command_of_user(words: &[&str]) -> Command {
    let (user, runtime) = (user(), format!("/run/user/{}", uid()));
    let bus = format!("DBUS_SESSION_BUS_ADDRESS=unix:path={runtime}/bus");
    let who = [
        "setpriv",
        "--reuid",
        &user,
        "--regid",
        &user,
        "--init-groups",
    ];
    let home = format!("HOME=/home/{user}");
    let runtime = format!("XDG_RUNTIME_DIR={runtime}");
    let path = "PATH=/usr/sbin:/usr/bin:/sbin:/bin";
    let environment = ["env", "--chdir=/", "-i", &home, &runtime, &bus, path];
    host(&[&who[..], &environment, words].concat())
}

fn as_user(words: &[&str]) -> Ran {
    Ran(command_of_user(words).output().unwrap())
}

/// What the user's `podman` prints; it must end well.
fn podman(words: &[&str]) -> String {
    let ran = as_user(&[&["podman"], words].concat());
    assert_eq!(ran.code(), Some(0), "{words:?}: {}", ran.stderr());
    ran.success().trim_end().to_owned()
}

/// A pod, removed on drop.
struct Pod(&'static str);

impl Drop for Pod {
    fn drop(&mut self) {
        as_user(&["podman", "pod", "rm", "--force", "--time", "0", self.0]);
    }
}

fn a_users_podman_maps_ids_and_takes_a_terminal() {
    prepare();
    let run = [
        "podman",
        "run",
        "--rm",
        "--network",
        "none",
        "-it",
        "--userns",
        "keep-id",
    ];
    let script = "busybox tty; id -u; busybox awk '{ print $1, $3 }' /proc/self/uid_map; exit 3";
    let pty = Pty::new();
    let mut podman = pty.start(&command_of_user(
        &[&run[..], &[IMAGE, "sh", "-c", script]].concat(),
    ));
    let uid = uid();
    assert_eq!(pty.line(), "/dev/pts/0");
    assert_eq!(pty.line(), uid);
    // The user's own id as it is, and the range of subordinate ids around it.
    assert_eq!(pty.line(), format!("0 {uid}"));
    assert_eq!(pty.line(), format!("{uid} 1"));
    let next = uid.parse::<u32>().unwrap() + 1;
    assert!(pty.line().starts_with(&format!("{next} ")));
    assert_eq!(podman.code(), Some(3));
}

fn a_pod_of_a_users_podman_shares_and_goes() {
    prepare();
    let pod = Pod("ours");
    let infra = ["--infra-image", IMAGE, "--infra-command", "sleep 100000"];
    podman(
        &[
            &["pod", "create", "--name", "ours", "--hostname", "shared"],
            &infra[..],
        ]
        .concat(),
    );
    let run = [
        "run", "--detach", "--pod", "ours", "--name", "server", "--memory", "50m", IMAGE, "sh",
        "-c",
    ];
    podman(
        &[
            &run[..],
            &["busybox nc -l -p 80 -e echo heard; exec sleep 1000"],
        ]
        .concat(),
    );
    let script = "hostname; until busybox nc 127.0.0.1 80; do :; done";
    let told = podman(&["run", "--rm", "--pod", "ours", IMAGE, "sh", "-c", script]);
    assert_eq!(told, "shared\nheard");

    let told = podman(&[
        "inspect",
        "--format",
        "{{.OCIRuntime}} {{.State.Pid}}",
        "server",
    ]);
    let (runtime, pid) = told.split_once(' ').unwrap();
    assert_eq!(runtime, "parhelion");
    let uid = uid();
    let owner = ask(&["stat", "--format", "%u", &format!("/proc/{pid}")]);
    assert_eq!(owner, uid);
    let slice = podman(&["pod", "inspect", "--format", "{{.CgroupPath}}", "ours"]);
    assert!(slice.contains(&format!("user@{uid}.service")), "{slice}");
    let cgroup = cgroup_of(pid);
    assert!(
        cgroup.to_str().unwrap().contains(&slice),
        "{slice} {cgroup:?}"
    );
    assert_eq!(limit(pid, "memory.max"), "52428800");

    podman(&["pod", "pause", "ours"]);
    assert_eq!(limit(pid, "cgroup.freeze"), "1");
    podman(&["pod", "unpause", "ours"]);
    drop(pod);
    assert_eq!(
        podman(&["ps", "--all", "--quiet", "--filter", "name=server"]),
        ""
    );
}
