//! What whoever called `create` or `run` wants of this process besides the container.

use std::collections::BTreeMap;
use std::os::fd::AsFd as _;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use oci_spec::runtime::Spec;

use super::descriptors::Passed;
use super::interrupt::Interrupt;
use super::pid_file::PidFile;
use super::{CreateRequest, handover};
use crate::init::Init;

/// crun's annotation that names a socket for the pidfd, as `--pidfd-socket` does.
const PIDFD_RECEIVER: &str = "run.oci.pidfd_receiver";

/// Who says that the program is to be executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// A later `start`.
    Later,
    /// This process, which then ends.
    Detached,
    /// This process, which then stands for the container.
    Foreground,
}

/// What whoever called this process wants of it besides the container.
pub struct Caller {
    pub start: Start,
    pub passed: Passed,
    pub interrupt: Interrupt,
}

/// A terminal needs somebody at its other end, and a socket for one needs a terminal.
pub fn check_terminal(spec: &Spec, request: &CreateRequest, start: Start) -> Result<()> {
    let wanted = spec
        .process()
        .as_ref()
        .and_then(|p| p.terminal())
        .unwrap_or(false);
    match (wanted, &request.console_socket, start) {
        (true, None, Start::Later | Start::Detached) => bail!(
            "process.terminal: a container in the background needs --console-socket for its terminal"
        ),
        (false, Some(_), _) => bail!(
            "--console-socket: there is no terminal to send; set process.terminal, or leave it out"
        ),
        (true, Some(_), _) | (true, None, Start::Foreground) | (false, None, _) => Ok(()),
    }
}

/// The sockets at which somebody waits for the pidfd of a container's init.
pub fn pidfd_sockets<'a>(
    request: &'a CreateRequest,
    annotations: &'a BTreeMap<String, String>,
) -> impl Iterator<Item = &'a Path> {
    let receiver = annotations.get(PIDFD_RECEIVER).map(Path::new);
    request.pidfd_socket.as_deref().into_iter().chain(receiver)
}

/// Tells whoever asked which process it is.
///
/// # Errors
///
/// When nobody listens at a socket, or the file can not be written.
pub fn announce<'a>(
    init: &Init,
    sockets: impl Iterator<Item = &'a Path>,
    pid_file: Option<&Path>,
) -> Result<Option<PidFile>> {
    let pid = init.pid().as_raw_nonzero().get();
    for socket in sockets {
        handover::send_pidfd(socket, init.pidfd().as_fd())?;
    }
    let write = |path: &Path| {
        PidFile::write(path, pid).with_context(|| format!("--pid-file {}", path.display()))
    };
    pid_file.map(write).transpose()
}
