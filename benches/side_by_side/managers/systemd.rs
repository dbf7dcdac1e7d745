//! systemd's services, as they are, and with what a container has of namespaces and a root of its own.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::stage::{INSIDE, Stage};
use super::{Manager, keepers};
use crate::host::Host;

/// A service with a cgroup, and nothing else.
pub const PLAIN: &str = "systemd";
/// One with the namespaces of a container and its root.
pub const APART: &str = "systemd+ns";

const TEMPLATE: &str = "/run/systemd/system/parhelion-bench@.service";

pub struct Systemd {
    name: &'static str,
    count: usize,
}

impl Systemd {
    pub fn find(name: &'static str) -> Result<Systemd> {
        let first = fs::read_to_string("/proc/1/comm").unwrap_or_default();
        ensure!(
            first.trim() == "systemd" && Path::new("/run/systemd/system").is_dir(),
            "process 1 is {:?} here; the virtual host has systemd",
            first.trim()
        );
        Ok(Systemd { name, count: 0 })
    }

    fn units(&self) -> Vec<String> {
        let units = 0..self.count;
        units
            .map(|n| format!("parhelion-bench@{n}.service"))
            .collect()
    }
}

impl Manager for Systemd {
    fn name(&self) -> &str {
        self.name
    }

    fn good_run(&self) -> Duration {
        // With StartLimitIntervalSec=0 it makes no difference; as long as for keepers.
        keepers::GOOD_RUN
    }

    fn start(&mut self, host: &Host, stage: &Stage, count: usize) -> Result<()> {
        let bundle = keepers::bundle(host, stage, "stamp", None)?;
        let root = bundle.with_file_name("rootfs");
        let folder = stage.folder.display();
        let service = match self.name {
            PLAIN => format!("ExecStart={}/bin/stamp {folder}/socket\n", root.display()),
            _ => format!(
                "ExecStart=/bin/stamp {}\nRootDirectory={}\nBindPaths={folder}:{INSIDE}\nMountAPIVFS=yes\n\
                 PrivateNetwork=yes\nPrivateIPC=yes\nPrivatePIDs=yes\nPrivateDevices=yes\nProtectHostname=yes\n\
                 NoNewPrivileges=yes\n",
                Stage::inside(),
                root.display()
            ),
        };
        let unit = format!(
            "[Unit]\nStartLimitIntervalSec=0\n[Service]\nRestart=always\nRestartSec=0\nKillSignal=KILL\n{service}"
        );
        fs::write(TEMPLATE, unit).with_context(|| TEMPLATE.to_owned())?;
        systemctl(&["daemon-reload"])?;
        self.count = count;
        let units = self.units();
        let words = ["start", "--no-block"].into_iter();
        let words: Vec<&str> = words.chain(units.iter().map(String::as_str)).collect();
        systemctl(&words)
    }

    fn processes(&self) -> Result<Vec<i32>> {
        Ok(vec![1])
    }

    fn daemon(&self) -> Option<i32> {
        Some(1)
    }

    fn stop(&mut self, _: &Host) {
        // The virtual host does not outlive this by much.
        let _stopped = systemctl(&["stop", "parhelion-bench@*.service"]);
        let _gone = fs::remove_file(TEMPLATE);
        let _reloaded = systemctl(&["daemon-reload"]);
        self.count = 0;
    }
}

fn systemctl(words: &[&str]) -> Result<()> {
    let ran = Command::new("systemctl")
        .args(words)
        .stdin(Stdio::null())
        .output()?;
    let told = String::from_utf8_lossy(&ran.stderr);
    ensure!(
        ran.status.success(),
        "systemctl {}: {}",
        words[0],
        told.trim()
    );
    Ok(())
}
