//! `checkpoint` and `restore`: a container's processes as files, and as processes again, by CRIU.
//!
//! Both tell CRIU what of the container is not its own: mounts, namespaces and streams of the host
//! ([`outside`], [`streams`]). `restore` makes what `create` makes around the processes (record, cgroup,
//! mounts as CRIU finds them in [`stage`]), and CRIU the processes, as children of the runtime.

mod dump;
mod images;
mod labels;
mod outside;
mod restore;
mod stage;
pub(super) mod streams;
#[cfg(test)]
mod testing;

use std::ffi::OsString;
use std::path::PathBuf;

use super::{CreateRequest, RunOptions};

use anyhow::{Result, bail};

pub use crate::criu::{CgroupsMode, NetworkLock};
use crate::sys::rights::Rights;
pub use dump::checkpoint;
pub(super) use images::OPTIONS_OF_CRIU;
pub use restore::restore;

/// What both are asked for; runc's flags of these names say more.
#[derive(Debug, Clone)]
pub struct ImagesRequest {
    /// The program, by its path, or by its name on PATH; None: criu on PATH.
    pub criu: Option<OsString>,
    /// The directory of the images, absolute.
    pub images: PathBuf,
    /// CRIU's working directory, with its log: that of the images without one.
    pub work: Option<PathBuf>,
    /// TCP connections that are established.
    pub tcp_established: bool,
    /// Unix sockets may have their other end outside.
    pub external_unix_sockets: bool,
    /// Its terminal is the caller's.
    pub shell_job: bool,
    /// Locks on files.
    pub file_locks: bool,
    /// Give back in earlier images what later ones replace.
    pub auto_dedup: bool,
    /// Memory comes later, when it is asked for.
    pub lazy_pages: bool,
    /// What becomes of cgroups below the container's.
    pub cgroups: CgroupsMode,
}

/// What `checkpoint` is asked for.
#[derive(Debug, Clone)]
pub struct CheckpointRequest {
    /// What it has in common with `restore`.
    pub images: ImagesRequest,
    /// Earlier images, relative to the directory of these.
    pub parent: Option<PathBuf>,
    /// The container goes on.
    pub leave_running: bool,
    /// TCP connections that are not accepted yet are left out.
    pub tcp_skip_in_flight: bool,
    /// How the network is locked, if not in CRIU's own way.
    pub network_lock: Option<NetworkLock>,
    /// Files that were unlinked get a name for as long as the checkpoint is kept.
    pub link_remap: bool,
    /// A descriptor of the caller that gets a zero byte when lazy pages can be asked for.
    pub status_fd: Option<i32>,
    /// Where pages go to, or with `lazy_pages`, where they are asked for: an address and a port.
    pub page_server: Option<(String, u16)>,
    /// Memory only; the container goes on.
    pub pre_dump: bool,
}

/// What `restore` is asked for.
#[derive(Debug, Clone)]
pub struct RestoreRequest {
    /// The container that is made.
    pub create: CreateRequest,
    /// Who stands for it.
    pub options: RunOptions,
    /// What it has in common with `checkpoint`.
    pub images: ImagesRequest,
    /// TCP connections that were established are closed.
    pub tcp_close: bool,
    /// `TYPE:LABEL` for the processes, instead of the one that they had.
    pub lsm_profile: Option<String>,
    /// The SELinux context of mounts that had one.
    pub lsm_mount_context: Option<String>,
}

/// CRIU reads and writes what belongs to the host's root.
fn require_root() -> Result<()> {
    if !Rights::find().are_the_hosts() {
        bail!("criu needs the rights of the host's root, also for a user's own container");
    }
    Ok(())
}
