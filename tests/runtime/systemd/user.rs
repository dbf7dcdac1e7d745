//! A user's own systemd (`systemd --user`): scopes without privileges.
//!
//! The runtime is called as Podman calls it: as root of a user namespace that is the user's.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use libtest_mimic::Trial;
use serde_json::json;

use super::{HOST, cgroup_of, read, systemd};
use crate::support::{Bundle, Ran, needs_systemd, program, tests};

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    if user().is_none() {
        // needs_systemd says the rest: the host that has all has this user as well.
        return needs_systemd(Vec::new());
    }
    needs_systemd(tests![
        a_user_has_scopes_with_limits_of_its_own_systemd,
        a_user_without_a_systemd_of_its_own_is_told_how_to_get_one,
    ])
}

/// The unprivileged user of the virtual host, who has a range of ids.
fn user() -> Option<String> {
    std::env::var("VHOST_USER").ok()
}

/// Runs a command as the user, with its output in files: a container keeps pipes open.
fn as_user(bundle: &Bundle, environment: &[String], command: &[&str]) -> Ran {
    let [out, err] = ["user-out", "user-err"].map(|name| bundle.folder.join(name));
    let user = user().unwrap();
    let status = Command::new("setpriv")
        .args([
            "--reuid",
            &user,
            "--regid",
            &user,
            "--clear-groups",
            "env",
            "-i",
        ])
        .arg("PATH=/usr/sbin:/usr/bin:/sbin:/bin")
        .args(environment)
        .args(command)
        .stdin(Stdio::null())
        .stdout(std::fs::File::create(&out).unwrap())
        .stderr(std::fs::File::create(&err).unwrap())
        .status()
        .unwrap();
    let [stdout, stderr] = [out, err].map(|path| std::fs::read(path).unwrap());
    Ran(std::process::Output {
        status,
        stdout,
        stderr,
    })
}

/// A `systemd --user`, as a service; stopped with the test.
pub struct UserSystemd {
    pub service: String,
    /// Its XDG_RUNTIME_DIR.
    pub folder: PathBuf,
}

impl UserSystemd {
    pub fn start(bundle: &Bundle) -> UserSystemd {
        let service = format!("{}-user.service", bundle.id);
        let folder = Path::new("/run").join(&bundle.id);
        let unit = format!("--unit={service}");
        let who = format!("-pUser={}", user().unwrap());
        let directory = format!("-pRuntimeDirectory={}", bundle.id);
        let variable = format!("--setenv=XDG_RUNTIME_DIR={}", folder.display());
        systemd(&[
            "systemd-run",
            "--quiet",
            "--collect",
            &unit,
            "-pType=notify",
            "-pDelegate=yes",
            &who,
            &directory,
            &variable,
            "/usr/lib/systemd/systemd",
            "--user",
        ]);
        UserSystemd { service, folder }
    }

    fn environment(&self) -> [String; 1] {
        [format!("XDG_RUNTIME_DIR={}", self.folder.display())]
    }

    /// Runs the program as root of a user namespace of the user's.
    fn parhelion(&self, bundle: &Bundle, arguments: &[&str]) -> Ran {
        let program = program();
        let state = self.folder.join("state");
        let mut command = vec![
            "unshare",
            "--user",
            "--map-root-user",
            "--map-auto",
            "--mount",
        ];
        command.extend([program.to_str().unwrap(), "--root", state.to_str().unwrap()]);
        command.extend(arguments);
        as_user(bundle, &self.environment(), &command)
    }

    pub fn show(&self, bundle: &Bundle, unit: &str, property: &str) -> String {
        let property = format!("--property={property}");
        let command = ["systemctl", "--user", "show", "--value", &property, unit];
        let shown = as_user(bundle, &self.environment(), &command);
        shown.success().trim().to_owned()
    }
}

impl Drop for UserSystemd {
    fn drop(&mut self) {
        let _ = Command::new("systemctl")
            .args(["stop", &self.service])
            .output();
    }
}

fn a_user_has_scopes_with_limits_of_its_own_systemd() {
    let bundle = Bundle::new("read -r line < /proc/self/cgroup; echo $line; sleep 1000");
    let mine = UserSystemd::start(&bundle);
    let own_range = json!([{"containerID": 0, "hostID": 0, "size": 1}]);
    bundle.edit(|config| {
        // The group of terminals is none of the ids that there are.
        for mount in config["mounts"].as_array_mut().unwrap() {
            if let Some(options) = mount["options"].as_array_mut() {
                options.retain(|option| option != "gid=5");
            }
        }
        let linux = &mut config["linux"];
        linux["namespaces"]
            .as_array_mut()
            .unwrap()
            .push(json!({"type": "user"}));
        linux["uidMappings"] = own_range.clone();
        linux["gidMappings"] = own_range;
        // A filter of devices needs privileges; a user can open no device by number anyway.
        linux["resources"] = json!({"devices": [{"allow": true, "access": "rwm"}],
            "memory": {"limit": 67_108_864}, "pids": {"limit": 30}, "cpu": {"shares": 512}});
    });
    let create = [
        "--systemd-cgroup",
        "create",
        "--bundle",
        bundle.path(),
        &bundle.id,
    ];
    mine.parhelion(&bundle, &create).success();
    mine.parhelion(&bundle, &["start", &bundle.id]).success();

    let scope = super::scope(&bundle);
    let place = format!("/system.slice/{}/user.slice/{scope}", mine.service);
    assert_eq!(mine.show(&bundle, &scope, "ControlGroup"), place);
    let directory = Path::new(HOST).join(place.trim_start_matches('/'));
    let pid: i32 = read(&directory, "cgroup.procs")
        .lines()
        .next()
        .unwrap()
        .parse()
        .unwrap();
    assert_eq!(cgroup_of(pid), place);
    for (file, value, property, told) in [
        ("memory.max", "67108864", "MemoryMax", "67108864"),
        ("pids.max", "30", "TasksMax", "30"),
        ("cpu.weight", "59", "CPUWeight", "59"),
    ] {
        assert_eq!(read(&directory, file), value, "{file}");
        assert_eq!(mine.show(&bundle, &scope, property), told, "{property}");
    }

    mine.parhelion(&bundle, &["delete", "--force", &bundle.id])
        .success();
    assert_eq!(mine.show(&bundle, &scope, "LoadState"), "not-found");
    assert!(!directory.exists());
}

fn a_user_without_a_systemd_of_its_own_is_told_how_to_get_one() {
    let bundle = Bundle::new("true");
    let program = program();
    let state = bundle.folder.join("user-state");
    let mut command = vec![program.to_str().unwrap(), "--root", state.to_str().unwrap()];
    command.extend([
        "--systemd-cgroup",
        "run",
        "--bundle",
        bundle.path(),
        &bundle.id,
    ]);
    let none = as_user(&bundle, &[], &command).failure();
    assert!(
        none.contains("no socket of systemd or of a message bus is known ("),
        "{none}"
    );
    assert!(none.contains("loginctl enable-linger"), "{none}");
    let elsewhere = as_user(&bundle, &["XDG_RUNTIME_DIR=/nowhere".to_owned()], &command).failure();
    let tried = "connect(/nowhere/systemd/private): no such file or directory; \
                 connect(/nowhere/bus): no such file or directory (";
    assert!(elsewhere.contains(tried), "{elsewhere}");
}
