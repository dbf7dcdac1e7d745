//! A newer program takes over in this process: with its socket, its process id, and all that runs.
//!
//! Connections that come meanwhile wait in the socket's queue; none is refused.

use std::convert::Infallible;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context, Result, bail};

use super::socket;

/// The program that takes over: the one at the path from which this one was started.
#[derive(Debug, Clone)]
pub struct Successor {
    program: PathBuf,
}

impl Successor {
    /// Remembers where this program is. To be called at its beginning: later another file may be there.
    ///
    /// # Errors
    ///
    /// procfs is not mounted.
    pub fn new() -> Result<Successor> {
        let program = std::env::current_exe().context("the path of this program")?;
        Ok(Successor { program })
    }

    /// Refuses a program that can not even tell its version: then this one goes on.
    ///
    /// # Errors
    ///
    /// Why it can not.
    pub async fn check(&self) -> Result<()> {
        let program = &self.program;
        let mut command = tokio::process::Command::new(program);
        command.arg("--version").stdin(Stdio::null());
        let told = command.output().await;
        let told = told.with_context(|| format!("{program:?}"))?;
        let text = String::from_utf8_lossy(&told.stdout);
        if !told.status.success() || !text.starts_with("parheliond ") {
            bail!("{program:?} --version ends with {}", told.status);
        }
        Ok(())
    }

    /// Becomes that program. Everything that is to be closed must be.
    ///
    /// # Errors
    ///
    /// Why it could not be executed.
    pub fn exec(self, listener: &OwnedFd) -> Result<Infallible> {
        let number = socket::keep(listener)?;
        let mut command = std::process::Command::new(&self.program);
        command.args(std::env::args_os().skip(1));
        let failed = command.env(socket::KEPT, number).exec();
        Err(failed).with_context(|| format!("execve({:?})", self.program))
    }
}
