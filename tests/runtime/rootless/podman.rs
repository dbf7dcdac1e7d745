//! Podman of an ordinary user, with this program as its runtime: root of Podman's user namespace calls it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use libtest_mimic::Trial;

use super::{Rootless, needs_program};
use crate::support::{Ran, needs_systemd, program, tests};
use crate::systemd::user::UserSystemd;

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    needs_program(
        "podman",
        needs_systemd(tests![
            podman_of_a_user_makes_cgroups_itself,
            podman_of_a_user_leaves_cgroups_to_systemd,
        ]),
    )
}

const IMAGE: &str = "localhost/busybox";

/// Podman of a user who has a systemd, with a home of its own and an image.
struct Podman {
    rootless: Rootless,
    manager: &'static str,
    _systemd: UserSystemd,
}

impl Podman {
    fn new(manager: &'static str) -> Podman {
        let mut rootless = Rootless::new("true");
        let systemd = UserSystemd::start(&rootless.bundle);
        rootless.runtime_folder.clone_from(&systemd.folder);
        let home = rootless.bundle.folder.join("home");
        fs::create_dir(&home).unwrap();
        super::give(&home);
        rootless.environment = vec![
            format!("HOME={}", home.display()),
            format!(
                "DBUS_SESSION_BUS_ADDRESS=unix:path={}/bus",
                systemd.folder.display()
            ),
        ];
        // What networks of users are made with.
        for device in ["/dev/net/tun", "/dev/fuse"] {
            fs::set_permissions(device, fs::Permissions::from_mode(0o666)).unwrap();
        }
        let podman = Podman {
            rootless,
            manager,
            _systemd: systemd,
        };
        let archive = podman.rootless.bundle.folder.join("image.tar");
        let root = podman.rootless.bundle.folder.join("rootfs");
        // The image's programs are links to one file, which another test may have given to its user.
        let packed = Command::new("tar")
            .args(["--owner=0", "--group=0"])
            .arg("-C")
            .arg(root)
            .arg("-cf")
            .arg(&archive)
            .arg(".")
            .status();
        assert!(packed.unwrap().success());
        podman
            .call(&["import", "--quiet", archive.to_str().unwrap(), IMAGE])
            .success();
        podman
    }

    fn call(&self, arguments: &[&str]) -> Ran {
        let manager = format!("--cgroup-manager={}", self.manager);
        let program = program();
        let mut command = vec!["podman", "--runtime", program.to_str().unwrap(), &manager];
        command.extend(arguments);
        self.rootless.run_command(&command)
    }

    /// What a container of its own prints.
    fn seen(&self, options: &[&str], script: &str) -> String {
        let run = [
            &["run", "--rm", "--network=none"],
            options,
            &[IMAGE, "sh", "-c", script],
        ]
        .concat();
        self.call(&run).success()
    }

    /// A container that goes on, with what is asked of one that does.
    fn is_handled(&self) {
        let start = [
            "run",
            "--detach",
            "--name=web",
            "--network=none",
            "--init=false",
            IMAGE,
            "sleep",
            "1000",
        ];
        self.call(&start).success();
        let runtime = self.call(&[
            "inspect",
            "--format={{.OCIRuntime}} {{.State.Status}}",
            "web",
        ]);
        assert_eq!(
            runtime.success(),
            format!("{} running\n", program().display())
        );
        assert_eq!(
            self.call(&[
                "exec",
                "web",
                "sh",
                "-c",
                "id -u; echo $$ > /tmp/x; cat /tmp/x | busybox wc -l"
            ])
            .success(),
            "0\n1\n"
        );
        assert_eq!(
            self.call(&["exec", "--user=5:6", "web", "id", "-u"])
                .success(),
            "5\n"
        );
        assert_eq!(
            self.call(&["exec", "web", "sh", "-c", "exit 5"]).code(),
            Some(5)
        );
        let shared = ["network", "pid", "ipc", "uts"].map(|kind| format!("--{kind}=container:web"));
        let mut beside = vec!["run", "--rm"];
        beside.extend(shared.iter().map(String::as_str));
        // Its own line has the words apart.
        let script = "busybox ps | busybox grep -c 'sleep 100[0]'";
        beside.extend([IMAGE, "sh", "-c", script]);
        assert_eq!(self.call(&beside).success(), "1\n");
        let top = self.call(&["top", "web", "args"]).success();
        assert!(top.contains("sleep 1000"), "{top}");
        self.call(&["stop", "--time=0", "web"]).success();
        self.call(&["start", "web"]).success();
        self.call(&["rm", "--force", "--time=0", "web"]).success();
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        self.call(&["rm", "--all", "--force", "--time=0"]);
        // Ends the process that holds Podman's user namespace.
        self.call(&["system", "migrate"]);
    }
}

fn podman_of_a_user_makes_cgroups_itself() {
    let podman = Podman::new("cgroupfs");
    assert_eq!(
        podman.seen(
            &[],
            "id -u; cat /proc/self/setgroups; echo x > /dev/null; stat -c %t:%T /dev/full"
        ),
        "0\nallow\n1:7\n"
    );
    let user = podman.seen(&["--userns=keep-id"], "id -u");
    assert_eq!(user, format!("{}\n", super::user()));
    assert_eq!(podman.seen(&["--user=7:8"], "id -u; id -g"), "7\n8\n");
    podman.is_handled();
}

fn podman_of_a_user_leaves_cgroups_to_systemd() {
    let podman = Podman::new("systemd");
    let limits = ["--memory=64m", "--pids-limit=30"];
    let seen = podman.seen(
        &limits,
        "cd /sys/fs/cgroup; read -r a < memory.max; read -r b < pids.max; echo $a $b",
    );
    assert_eq!(seen, "67108864 30\n");
    let network = ["run", "--rm", IMAGE, "ls", "/sys/class/net"];
    assert_eq!(
        podman.call(&network).success().lines().count(),
        2,
        "lo and one more"
    );
    podman.is_handled();
    let start = [
        "run",
        "--detach",
        "--name=web",
        "--network=none",
        IMAGE,
        "sleep",
        "1000",
    ];
    podman.call(&start).success();
    podman.call(&["pause", "web"]).success();
    podman.call(&["unpause", "web"]).success();
    podman.call(&["update", "--memory=128m", "web"]).success();
    let memory = podman
        .call(&["exec", "web", "cat", "/sys/fs/cgroup/memory.max"])
        .success();
    assert_eq!(memory, "134217728\n");
    let stats = podman
        .call(&["stats", "--no-stream", "--format={{.PIDs}}", "web"])
        .success();
    assert_eq!(stats.trim(), "1");
}
