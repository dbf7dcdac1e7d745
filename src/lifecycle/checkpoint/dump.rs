//! `checkpoint`: a container's processes become images, and end or go on.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, Result, bail};
use rustix::fs::OFlags;

use super::images::Images;
use super::{CheckpointRequest, outside, require_root, streams};
use crate::bundle::Bundle;
use crate::cgroups::Hierarchy;
use crate::criu::{Criu, Feature, Flag, Kind, Notice, Number, Options, Request, Text};
use crate::error::Problems;
use crate::lifecycle::id::ContainerId;
use crate::lifecycle::record::Record;
use crate::lifecycle::{Verb, delete, freeze, notify, permit, plans, query};
use crate::sys::command::Start;
use crate::sys::rights::Rights;
use crate::sys::{Call, fd};
use crate::{namespaces, seccomp};

/// The name of CRIU's log.
const LOG: &str = "dump.log";

/// CRIU's word for: pages can be asked for now.
const READY: &str = "status-ready";

/// Writes a container's processes to images. It is deleted then, as its processes have ended, unless
/// they are to go on.
///
/// # Errors
///
/// [`crate::error::Kind::NotFound`], [`crate::error::Kind::WrongStatus`]; what CRIU can not write down:
/// the container goes on then.
pub fn checkpoint(root: &Path, id: &ContainerId, request: &CheckpointRequest) -> Result<()> {
    require_root()?;
    let record = Record::open(root, id)?;
    let status = query::status(&record)?;
    permit(Verb::Checkpoint, id, &status)?;
    let pid = status.pid().context("the container's init has ended")?;
    let mut ready = request.status_fd.map(status_fd).transpose()?;
    let criu = Criu::find(request.images.criu.as_deref())?;
    if request.pre_dump {
        criu.require(Feature::TrackMemory)?;
    }
    if request.images.lazy_pages {
        criu.require(Feature::LazyPages)?;
    }
    if let Some(lock) = request.network_lock {
        criu.require_lock(lock).context("--network-lock")?;
    }
    let facts = &record.facts;
    let bundle = Bundle::load(&facts.bundle, facts.config.as_deref())?;
    let images = Images::make(&request.images, request.parent.as_deref())?;
    let options = options(&record, &bundle, &images, request, pid)?;
    let session = criu.start(Start::default())?;
    let kind = match request.pre_dump {
        true => Kind::PreDump,
        false => Kind::Dump,
    };
    let served = Request {
        kind,
        options: &options,
        log: &images.log(LOG),
    };
    session.serve(&served, &|_socket| Ok(()), &mut |notice, _no_fd| {
        say_ready(notice, &mut ready)
    })?;
    match request.leave_running || request.pre_dump {
        true => record.keep(),
        false => delete::destroy(record)?,
    }
    Ok(())
}

fn options(
    record: &Record,
    bundle: &Bundle,
    images: &Images,
    request: &CheckpointRequest,
    pid: i32,
) -> Result<Options> {
    let hierarchy = Hierarchy::find()?;
    let mut problems = Problems::default();
    let namespaces = namespaces::Plan::new(&bundle.spec, Rights::Host, &mut problems);
    let mut rootfs = plans::rootfs(
        bundle,
        (&namespaces, Rights::Host),
        &hierarchy,
        false,
        &mut problems,
    );
    outside::check(&bundle.spec, &namespaces, &mut problems);
    problems
        .into_result()
        .with_context(|| format!("{:?}", bundle.config))?;
    if let Some(plan) = seccomp::Plan::new(&bundle.spec, &mut Problems::default())
        && plan.listener().is_some()
    {
        bail!("linux.seccomp: who is asked about calls (SCMP_ACT_NOTIFY) can not be brought back");
    }
    let mut options = images.options(&request.images, &record.facts, LOG);
    images.name(&mut options);
    options.number(Number::Pid, pid.unsigned_abs());
    let root = record
        .facts
        .rootfs
        .to_str()
        .context("root.path: is not UTF-8")?;
    options.text(Text::Root, root);
    request.set_flags(&mut options);
    if let Some((address, port)) = &request.page_server {
        options.page_server(address, *port);
    }
    if let Some(parent) = &request.parent {
        let parent = parent.to_str().context("--parent-path: is not UTF-8")?;
        options.text(Text::Parent, parent);
        options.flag(Flag::TrackMemory, true);
    }
    let cgroup = freeze::present_cgroup(record)?;
    let frozen = hierarchy.mount_point().join(cgroup.path());
    let frozen = frozen.to_str().context("linux.cgroupsPath: is not UTF-8")?;
    options.text(Text::FreezeCgroup, frozen);
    outside::dump_namespaces(bundle, pid, &mut options)?;
    if !request.pre_dump {
        rootfs.mounts.extend(notify::mount_of(record));
        outside::dump_mounts(&rootfs, pid, &mut options)?;
        let shell_job = request.images.shell_job;
        streams::dump(&record.facts, shell_job, images, &mut options)?;
    }
    Ok(options)
}

impl CheckpointRequest {
    fn set_flags(&self, options: &mut Options) {
        options.flag(Flag::LeaveRunning, self.leave_running);
        options.flag(Flag::TcpSkipInFlight, self.tcp_skip_in_flight);
        options.flag(Flag::LinkRemap, self.link_remap);
        if let Some(lock) = self.network_lock {
            options.number(Number::NetworkLock, lock as u32);
        }
    }
}

/// The caller's descriptor of `--status-fd`.
fn status_fd(number: i32) -> Result<OwnedFd> {
    let context = || format!("--status-fd {number}");
    let opened = fd::from_command_line(number).with_context(context)?;
    let flags = rustix::fs::fcntl_getfl(&opened).call(|| format!("fcntl({number}, F_GETFL)"))?;
    if !flags.intersects(OFlags::WRONLY | OFlags::RDWR) {
        bail!("--status-fd {number}: it can not be written to");
    }
    // CRIU is not to hold it open.
    let flags = rustix::io::FdFlags::CLOEXEC;
    rustix::io::fcntl_setfd(&opened, flags).call(|| format!("fcntl({number}, F_SETFD)"))?;
    Ok(opened)
}

/// Tells whoever waits for it that pages can be asked for.
fn say_ready(notice: &Notice, ready: &mut Option<OwnedFd>) -> Result<()> {
    if notice.step != READY {
        return Ok(());
    }
    if let Some(fd) = ready.take() {
        rustix::io::write(&fd, &[0]).call(|| format!("--status-fd: write({})", fd.as_raw_fd()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lifecycle::checkpoint::NetworkLock;
    use crate::lifecycle::checkpoint::testing::{only, request};

    #[test]
    fn each_flag_of_a_checkpoint_is_handed_to_criu() {
        let set = |change: fn(&mut CheckpointRequest)| {
            let mut request = CheckpointRequest {
                images: request(),
                parent: None,
                leave_running: false,
                tcp_skip_in_flight: false,
                network_lock: None,
                link_remap: false,
                status_fd: None,
                page_server: None,
                pre_dump: false,
            };
            change(&mut request);
            let mut options = Options::default();
            request.set_flags(&mut options);
            options
        };
        assert_eq!(set(|_| {}), Options::default());
        assert_eq!(set(|r| r.leave_running = true), only(Flag::LeaveRunning));
        assert_eq!(set(|r| r.link_remap = true), only(Flag::LinkRemap));
        let skips = set(|r| r.tcp_skip_in_flight = true);
        assert_eq!(skips, only(Flag::TcpSkipInFlight));
        let locks = set(|r| r.network_lock = Some(NetworkLock::Nftables));
        let mut expected = Options::default();
        expected.number(Number::NetworkLock, 2);
        assert_eq!(locks, expected);
    }
}
