//! Docker and Podman, with their own runtimes and `--restart=always`.

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::stage::{INSIDE, Stage};
use super::{Counts, Manager, keepers, processes};
use crate::bundle;
use crate::host::Host;

const IMAGE: &str = "parhelion-bench";

pub struct Containers {
    program: &'static str,
    ids: Vec<String>,
    has_image: bool,
}

impl Containers {
    /// One that answers. Docker's daemon is started where systemd can do so.
    pub fn find(_: &Host, program: &'static str) -> Result<Containers> {
        if program == "docker" && fs::read_to_string("/proc/1/comm")?.trim() == "systemd" {
            let started = Command::new("systemctl")
                .args(["start", "docker"])
                .status()?;
            ensure!(started.success(), "systemctl start docker failed");
        }
        let this = Containers {
            program,
            ids: Vec::new(),
            has_image: false,
        };
        this.ask(&["info"])?;
        Ok(this)
    }

    fn ask(&self, words: &[&str]) -> Result<String> {
        let program = self.program;
        let ran = Command::new(program)
            .args(words)
            .stdin(Stdio::null())
            .output();
        let ran = ran.with_context(|| format!("{program} is not on PATH"))?;
        let told = String::from_utf8_lossy(&ran.stderr);
        let last = told.trim().lines().last().unwrap_or_default();
        ensure!(ran.status.success(), "{program} {}: {last}", words[0]);
        Ok(String::from_utf8_lossy(&ran.stdout).trim().to_owned())
    }

    /// An image of stamp.c alone.
    fn import(&mut self, host: &Host, stage: &Stage) -> Result<()> {
        if self.has_image {
            return Ok(());
        }
        keepers::bundle(host, stage, "stamp", None)?;
        let archive = host.folder.join("image.tar");
        let packed = Command::new("tar")
            .arg("-cf")
            .arg(&archive)
            .arg("-C")
            .arg(bundle::rootfs(host)?)
            .args(["bin/stamp", "bench"])
            .status()?;
        ensure!(packed.success(), "tar failed");
        self.ask(&["import", &archive.to_string_lossy(), IMAGE])?;
        self.has_image = true;
        Ok(())
    }
}

impl Manager for Containers {
    fn name(&self) -> &str {
        self.program
    }

    fn counts<'a>(&self, all: &'a Counts) -> &'a [usize] {
        &all.peers
    }

    fn good_run(&self) -> Duration {
        match self.program {
            // Its wait grows until a program has run for ten seconds.
            "docker" => Duration::from_millis(10_500),
            _ => keepers::GOOD_RUN,
        }
    }

    fn start(&mut self, host: &Host, stage: &Stage, count: usize) -> Result<()> {
        self.import(host, stage)?;
        let volume = format!("{}:{INSIDE}", stage.folder.display());
        let inside = Stage::inside();
        let words = [
            "run",
            "--detach",
            "--restart=always",
            "--network=none",
            "--volume",
            &volume,
        ];
        for _ in 0..count {
            let all = [&words[..], &[IMAGE, "/bin/stamp", &inside]].concat();
            self.ids.push(self.ask(&all)?);
        }
        Ok(())
    }

    fn processes(&self) -> Result<Vec<i32>> {
        Ok(match self.program {
            "docker" => processes::named(&["dockerd", "containerd", "containerd-shim"]),
            _ => processes::named(&["conmon"]),
        })
    }

    fn daemon(&self) -> Option<i32> {
        processes::named(&["dockerd"])
            .first()
            .copied()
            .filter(|_| self.program == "docker")
    }

    fn stop(&mut self, _: &Host) {
        if !self.ids.is_empty() {
            let ids = std::mem::take(&mut self.ids);
            let words = ["rm", "--force"].into_iter();
            let words: Vec<&str> = words.chain(ids.iter().map(String::as_str)).collect();
            // The virtual host does not outlive this by much.
            let _removed = self.ask(&words);
        }
    }
}
