//! A newer program takes over in this process: with its socket, its process id, and all that runs.
//!
//! Connections that come meanwhile wait in the socket's queue; none is refused.

use std::convert::Infallible;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::socket;

/// How long another program may take to tell its version; nothing else is done meanwhile.
const ANSWER: Duration = Duration::from_secs(5);

/// The program that takes over: the one at the path from which this one was started.
#[derive(Debug, Clone)]
pub struct Successor {
    program: PathBuf,
    /// How many files this process might have open when it was started: whatever it starts gets that, and not
    /// what it has raised its own to.
    open_files: Rlimit,
}

impl Successor {
    /// Remembers where this program is. To be called at its beginning: later another file may be there.
    ///
    /// # Errors
    ///
    /// procfs is not mounted.
    pub fn new() -> Result<Successor> {
        let program = std::env::current_exe().context("the path of this program")?;
        let open_files = getrlimit(Resource::Nofile);
        Ok(Successor {
            program,
            open_files,
        })
    }

    /// How many files a program that this daemon starts may have open.
    pub fn open_files(&self) -> Rlimit {
        self.open_files
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
        command.kill_on_drop(true);
        let told = tokio::time::timeout(ANSWER, command.output()).await;
        let told = told
            .with_context(|| format!("{program:?} --version has not ended within {ANSWER:?}"))?
            .with_context(|| format!("{program:?}"))?;
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
        // It raises its own again; keepers and containers are to have what this one was started with.
        setrlimit(Resource::Nofile, self.open_files).context("setrlimit(NOFILE)")?;
        let failed = command.env(socket::KEPT, number).exec();
        Err(failed).with_context(|| format!("execve({:?})", self.program))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[tokio::test]
    async fn a_program_that_never_tells_its_version_is_not_waited_for() {
        let name = format!("parhelion-successor-{}", std::process::id());
        let program = std::env::temp_dir().join(name);
        std::fs::write(&program, "#!/bin/sh\nexec sleep 1000\n").unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let open_files = getrlimit(Resource::Nofile);
        let successor = Successor {
            program,
            open_files,
        };
        let checked = tokio::time::timeout(ANSWER * 4, successor.check()).await;
        std::fs::remove_file(&successor.program).unwrap();
        let told = checked.unwrap().unwrap_err().to_string();
        assert!(told.contains("has not ended"), "{told}");
    }
}
