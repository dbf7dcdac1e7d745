//! The program's terminal, or its three streams when it has none.
//!
//! The terminal comes from the container's own devpts, through descriptors only: its slave side is
//! asked for from the master (TIOCGPTPEER), so no path that the image controls is opened
//! (CVE-2025-52565).

use alloc::format;
use alloc::string::ToString;
use core::cell::LazyCell;

use anyhow::{Context as _, Result, bail};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{FileType, OFlags, Stat, Uid, makedev};
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;

use super::handshake::{self, FromInit};
use super::plan;
use crate::sys::channel::Channel;
use crate::sys::confined::{ContainerPath, Missing, Root};
use crate::sys::weakened::{Mitigation, is_off};
use crate::sys::{Call, Errno, SysResult, fd, mount, process};

/// Both sides of the terminal.
pub(super) struct Terminal {
    master: OwnedFd,
    slave: OwnedFd,
}

/// Makes the terminal and puts it at /dev/console.
pub(super) fn make(
    plan: &plan::Plan,
    root: Root<'_>,
    host_proc: BorrowedFd<'_>,
) -> Result<Option<Terminal>> {
    let Some(size) = plan.terminal else {
        return Ok(None);
    };
    let terminal = open(size, plan.identity.uid, root, host_proc)?;
    let console = root.ensure(&ContainerPath::new("dev/console"), Missing::File)?;
    let tree = mount::copy_tree(terminal.slave.as_fd(), "", false)?;
    mount::attach(tree.as_fd(), console.as_fd()).context("/dev/console")?;
    Ok(Some(terminal))
}

/// Opens a terminal of the container's own devpts.
pub(super) fn open(
    size: plan::Terminal,
    uid: u32,
    root: Root<'_>,
    host_proc: BorrowedFd<'_>,
) -> Result<Terminal> {
    let place = root
        .open(&ContainerPath::new("dev/pts/ptmx"), OFlags::PATH)
        .context("process.terminal: needs a devpts mount at /dev/pts")?;
    let stat = rustix::fs::fstat(&place).call(|| "fstat(ptmx)".to_string())?;
    if !is_device(&stat, 5, 2) {
        bail!("process.terminal: /dev/pts/ptmx is no terminal multiplexer");
    }
    let flags = OFlags::RDWR | OFlags::NOCTTY;
    let master = fd::reopen(host_proc, place.as_fd(), flags).context("process.terminal")?;
    rustix::pty::unlockpt(&master).call(|| "ioctl(TIOCSPTLCK)".to_string())?;
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let slave = match is_off(Mitigation::TerminalPeer) {
        true => by_name(&master, root)?,
        false => rustix::pty::ioctl_tiocgptpeer(&master, flags)
            .call(|| "ioctl(TIOCGPTPEER)".to_string())?,
    };
    if size.rows != 0 || size.columns != 0 {
        let size = Winsize {
            ws_row: size.rows,
            ws_col: size.columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        rustix::termios::tcsetwinsize(&slave, size).call(|| "ioctl(TIOCSWINSZ)".to_string())?;
    }
    rustix::fs::fchown(&slave, Some(Uid::from_raw(uid)), None)
        .call(|| format!("fchown(terminal, {uid})"))?;
    Ok(Terminal { master, slave })
}

/// The terminal by its name, in a build for tests that does not ask the multiplexer for it.
fn by_name(master: &OwnedFd, root: Root<'_>) -> Result<OwnedFd> {
    let name =
        rustix::pty::ptsname(master, alloc::vec::Vec::new()).call(|| "ptsname()".to_string())?;
    let path = ContainerPath::new(name.to_str().unwrap_or_default());
    Ok(root.open(&path, OFlags::RDWR | OFlags::NOCTTY)?)
}

/// Hands the master to the runtime and makes the slave this session's terminal and streams.
pub(super) fn take_over(talk: &Channel, terminal: Terminal) -> Result<()> {
    handshake::send_with(talk, &FromInit::Terminal, &[terminal.master.as_fd()])?;
    process::set_controlling_terminal(terminal.slave.as_fd())?;
    for number in 0..=2 {
        process::duplicate_onto(terminal.slave.as_fd(), number)?;
    }
    Ok(())
}

/// The container's own /dev/null, if it has one: a place, not opened yet.
pub(super) fn null_device(root: Root<'_>) -> Option<OwnedFd> {
    let place = root
        .open(&ContainerPath::new("dev/null"), OFlags::PATH)
        .ok()?;
    let stat = rustix::fs::fstat(&place).ok()?;
    (is_device(&stat, 1, 3) || is_off(Mitigation::StreamDevice)).then_some(place)
}

/// A character device of this number.
pub(super) fn is_device(stat: &Stat, major: u32, minor: u32) -> bool {
    let kind = FileType::from_raw_mode(stat.st_mode);
    kind == FileType::CharacterDevice && stat.st_rdev == makedev(major, minor)
}

/// Makes the program's user the owner of the streams it inherits, so that it can open
/// /dev/stdout and the like again. The host's /dev/null becomes `null`, the container's: whoever
/// is root of the host's user namespace inside could change the mode of the host's by a descriptor.
pub(super) fn give_streams(
    uid: u32,
    null: Option<OwnedFd>,
    host_proc: BorrowedFd<'_>,
) -> SysResult<()> {
    let flags = OFlags::RDWR | OFlags::NOCTTY;
    let opens = |place: &OwnedFd| fd::reopen(host_proc, place.as_fd(), flags).ok();
    let null = LazyCell::new(|| null.as_ref().and_then(opens));
    for number in 0..=2 {
        let stream = process::standard_stream(number);
        let Ok(stat) = rustix::fs::fstat(stream) else {
            continue; // closed by whoever called the runtime
        };
        if is_device(&stat, 1, 3) {
            // The host's own stays root's, whatever is switched off.
            let Some(null) = &*null else { continue };
            process::duplicate_onto(null.as_fd(), number)?;
            if !is_off(Mitigation::StreamDevice) {
                continue;
            }
        }
        if stat.st_uid == uid {
            continue;
        }
        match rustix::fs::fchown(stream, Some(Uid::from_raw(uid)), None) {
            // A file on a read-only or foreign file system, or of an owner that is not mapped,
            // works as a stream all the same.
            Err(Errno::PERM | Errno::ROFS | Errno::INVAL) => {}
            result => result.call(|| format!("fchown({number}, {uid})"))?,
        }
    }
    Ok(())
}
