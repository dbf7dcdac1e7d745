//! The terminal of a container in the foreground: bytes both ways between it and our own streams.
//!
//! Decides when to read and write, never waits itself: [`super::foreground`] has the one loop.
//! Our streams may be shared with the shell that started us, so their flags stay as they are and a
//! write to them never asks for more than they take at once.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use anyhow::Result;
use rustix::event::PollFlags;
use rustix::fs::{Mode, OFlags};
use rustix::pty::OpenptFlags;
use rustix::termios::{
    LocalModes, OptionalActions, OutputModes, SpecialCodeIndex, Termios, isatty, tcgetattr,
    tcgetwinsize, tcsetattr, tcsetwinsize,
};

use crate::sys::{Call, Errno, SysError, SysResult};

/// How much is copied at once: what a pipe that poll calls writable takes without blocking.
const CHUNK: usize = 4096;

/// A container's terminal, connected to our stdin and stdout. Our own terminal is as it was before
/// when this value goes, also in a panic.
#[derive(Debug)]
pub struct Relay {
    master: OwnedFd,
    /// The other end, held open: without any open end the master hangs up, and a container may
    /// close its last one and open another later.
    _peer: Option<OwnedFd>,
    /// False once the master hung up, where the other end could not be held.
    connected: bool,
    host: Host,
    input: Input,
    /// `None` once nobody reads it: what comes after is read and dropped, so that the container
    /// does not stop for it.
    output: Option<OwnedFd>,
    to_container: Pending,
    to_host: Pending,
}

/// Our stdin.
#[derive(Debug)]
enum Input {
    /// What was read last ended with a newline, or nothing was read yet.
    AtLineStart(OwnedFd),
    /// What was read last did not.
    InLine(OwnedFd),
    /// Its end was passed on, or it failed.
    Ended,
}

/// Our own terminal.
#[derive(Debug)]
struct Host {
    /// Where its size is asked, if there is any.
    terminal: Option<OwnedFd>,
    /// Held while it passes on every key.
    _raw: Option<RawMode>,
}

/// The descriptors that the loop should watch for the relay, and for what.
#[derive(Debug, Default)]
pub struct Interests<'a> {
    /// Our stdin.
    pub input: Option<(BorrowedFd<'a>, PollFlags)>,
    /// The container's terminal.
    pub master: Option<(BorrowedFd<'a>, PollFlags)>,
    /// Our stdout.
    pub output: Option<(BorrowedFd<'a>, PollFlags)>,
}

/// Which of them poll has named.
#[derive(Debug, Clone, Copy, Default)]
pub struct Ready {
    /// Our stdin.
    pub input: bool,
    /// The container's terminal.
    pub master: bool,
    /// Our stdout.
    pub output: bool,
}

impl Relay {
    /// Connects the container's terminal. Call it before the program starts, so that it finds the
    /// size and modes that will stay.
    ///
    /// # Errors
    ///
    /// When `master` is no terminal, or ours does not let its modes be changed.
    pub fn begin(master: OwnedFd) -> Result<Relay> {
        let (stdin, stdout, stderr) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
        let streams = [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()];
        let terminal = match streams.into_iter().find(|stream| isatty(stream)) {
            Some(stream) => Some(own(stream, OFlags::RDWR)?),
            None => None,
        };
        // Raw only where the keys are read: on a terminal that only shows the output, Ctrl-C
        // would then reach neither us nor the container.
        let raw = if isatty(&stdin) {
            Some(RawMode::enter(own(stdin.as_fd(), OFlags::RDWR)?)?)
        } else {
            None
        };
        let host = Host {
            terminal,
            _raw: raw,
        };
        let input = own(stdin.as_fd(), OFlags::RDONLY)?;
        Relay::connect(master, input, own(stdout.as_fd(), OFlags::WRONLY)?, host)
    }

    fn connect(master: OwnedFd, input: OwnedFd, output: OwnedFd, host: Host) -> Result<Relay> {
        rustix::io::ioctl_fionbio(&master, true).call(|| "ioctl(FIONBIO)".into())?;
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let peer = rustix::pty::ioctl_tiocgptpeer(&master, flags).ok();
        // Our terminal turns a newline into its two characters; twice would be wrong in a file.
        let mut modes = tcgetattr(&master).call(|| "ioctl(TCGETS)".into())?;
        modes.output_modes.remove(OutputModes::ONLCR);
        tcsetattr(&master, OptionalActions::Now, &modes).call(|| "ioctl(TCSETS)".into())?;
        let relay = Relay {
            master,
            _peer: peer,
            connected: true,
            host,
            input: Input::AtLineStart(input),
            output: Some(output),
            to_container: Pending::default(),
            to_host: Pending::default(),
        };
        relay.resize();
        Ok(relay)
    }

    /// Gives the container's terminal the size of ours.
    pub fn resize(&self) {
        let Some(terminal) = &self.host.terminal else {
            return;
        };
        // Ours may be gone or have no size; the container's then keeps what it has.
        if let Ok(size) = tcgetwinsize(terminal) {
            let _ = tcsetwinsize(&self.master, size);
        }
    }

    /// What to wait for now: only where something can be done, so that no answer comes twice.
    pub fn interests(&self) -> Interests<'_> {
        let input = match &self.input {
            Input::AtLineStart(fd) | Input::InLine(fd) if self.to_container.is_empty() => {
                Some((fd.as_fd(), PollFlags::IN))
            }
            Input::AtLineStart(_) | Input::InLine(_) | Input::Ended => None,
        };
        let mut flags = PollFlags::empty();
        flags.set(PollFlags::IN, self.to_host.is_empty());
        flags.set(PollFlags::OUT, !self.to_container.is_empty());
        let master = self.connected && !flags.is_empty();
        let output = self.output.as_ref().filter(|_| !self.to_host.is_empty());
        Interests {
            input,
            master: master.then(|| (self.master.as_fd(), flags)),
            output: output.map(|fd| (fd.as_fd(), PollFlags::OUT)),
        }
    }

    /// Copies what can be copied without waiting.
    ///
    /// # Errors
    ///
    /// When the container's terminal fails in an unexpected way.
    pub fn serve(&mut self, ready: Ready) -> Result<()> {
        if ready.input {
            self.read_input();
        }
        if ready.master {
            self.write_master()?;
            self.read_master()?;
        }
        if ready.output {
            self.write_output();
        }
        Ok(())
    }

    /// Reads what the container has written so far; false when there is no more. After its end
    /// that is all there will be: the kernel hands over what is in flight before it says so.
    ///
    /// # Errors
    ///
    /// When the container's terminal fails in an unexpected way.
    pub fn read_rest(&mut self) -> Result<bool> {
        if self.to_host.is_empty() && self.connected {
            self.read_master()?;
        }
        Ok(!self.to_host.is_empty())
    }

    fn read_input(&mut self) {
        let fd = match std::mem::replace(&mut self.input, Input::Ended) {
            Input::AtLineStart(fd) | Input::InLine(fd) => fd,
            Input::Ended => return,
        };
        let mid_line = self.to_container.last().is_some_and(|byte| byte != b'\n');
        match self.to_container.fill(fd.as_fd()) {
            Ok(0) => self.end_input(mid_line),
            Ok(_) if self.to_container.last() == Some(b'\n') => self.input = Input::AtLineStart(fd),
            Ok(_) => self.input = Input::InLine(fd),
            Err(Errno::AGAIN | Errno::INTR) if mid_line => self.input = Input::InLine(fd),
            Err(Errno::AGAIN | Errno::INTR) => self.input = Input::AtLineStart(fd),
            // Our terminal is gone, or we read it from the background: no end that was meant.
            Err(_) => {}
        }
    }

    /// Passes the end of our stdin on, as the character that means it. A program that reads keys
    /// one by one gets none: to it that would be a key.
    fn end_input(&mut self, mid_line: bool) {
        let Ok(modes) = tcgetattr(&self.master) else {
            return;
        };
        if modes.local_modes.contains(LocalModes::ICANON) {
            let end = modes.special_codes[SpecialCodeIndex::VEOF];
            // In the middle of a line the first one only hands over that line.
            let count = if mid_line { 2 } else { 1 };
            self.to_container.set(&[end, end][..count]);
        }
    }

    fn write_master(&mut self) -> Result<()> {
        match self.to_container.empty_into(self.master.as_fd()) {
            Ok(()) | Err(Errno::AGAIN | Errno::INTR) => Ok(()),
            Err(Errno::IO) => {
                self.connected = false;
                Ok(())
            }
            Err(errno) => Err(SysError::new("write(terminal)", errno).into()),
        }
    }

    fn read_master(&mut self) -> Result<()> {
        if !self.to_host.is_empty() {
            return Ok(());
        }
        match self.to_host.fill(self.master.as_fd()) {
            Ok(0) | Err(Errno::IO) => self.connected = false,
            Ok(_) if self.output.is_none() => self.to_host.clear(),
            Ok(_) | Err(Errno::AGAIN | Errno::INTR) => {}
            Err(errno) => return Err(SysError::new("read(terminal)", errno).into()),
        }
        Ok(())
    }

    fn write_output(&mut self) {
        let Some(output) = &self.output else { return };
        match self.to_host.empty_into(output.as_fd()) {
            Ok(()) | Err(Errno::AGAIN | Errno::INTR) => {}
            Err(_) => {
                self.output = None;
                self.to_host.clear();
            }
        }
    }
}

/// Bytes that were read and not written yet.
#[derive(Debug, Default)]
struct Pending {
    bytes: Vec<u8>,
    written: usize,
}

impl Pending {
    fn is_empty(&self) -> bool {
        self.written == self.bytes.len()
    }

    /// The last byte that was read, written or not.
    fn last(&self) -> Option<u8> {
        self.bytes.last().copied()
    }

    fn clear(&mut self) {
        self.written = self.bytes.len();
    }

    fn set(&mut self, bytes: &[u8]) {
        self.bytes.clear();
        self.bytes.extend_from_slice(bytes);
        self.written = 0;
    }

    /// Reads once; how much, 0 at the end. Keeps what it has when there is nothing.
    fn fill(&mut self, from: BorrowedFd<'_>) -> Result<usize, Errno> {
        let mut chunk = [0; CHUNK];
        let length = rustix::io::read(from, &mut chunk)?;
        if length > 0 {
            self.set(&chunk[..length]);
        }
        Ok(length)
    }

    /// Writes once, as much as is taken.
    fn empty_into(&mut self, to: BorrowedFd<'_>) -> Result<(), Errno> {
        if !self.is_empty() {
            self.written += rustix::io::write(to, &self.bytes[self.written..])?;
        }
        Ok(())
    }
}

/// One of our streams under a descriptor of our own. A terminal is opened anew, which makes it
/// non-blocking for us alone; anything else is shared, files because of their position.
fn own(stream: BorrowedFd<'_>, access: OFlags) -> SysResult<OwnedFd> {
    use rustix::fd::AsRawFd;
    if isatty(stream) {
        let path = format!("/proc/self/fd/{}", stream.as_raw_fd());
        let flags = access | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        // It may belong to somebody else (su, sudo); then it is shared as well.
        if let Ok(own) = rustix::fs::open(path, flags, Mode::empty()) {
            return Ok(own);
        }
    }
    rustix::io::fcntl_dupfd_cloexec(stream, 3).call(|| "fcntl(F_DUPFD)".into())
}

/// Our terminal while it passes on every key, Ctrl-C included. Undone on drop and in a panic,
/// which in a release ends the program without dropping anything.
#[derive(Debug)]
struct RawMode {
    terminal: OwnedFd,
    before: Termios,
}

impl RawMode {
    fn enter(terminal: OwnedFd) -> Result<RawMode> {
        let before = tcgetattr(&terminal).call(|| "ioctl(TCGETS)".into())?;
        let mut raw = before.clone();
        raw.make_raw();
        // Newlines are still completed here, because the container's terminal no longer does.
        raw.output_modes.insert(OutputModes::OPOST);
        tcsetattr(&terminal, OptionalActions::Now, &raw).call(|| "ioctl(TCSETS)".into())?;
        if let Ok(copy) = terminal.try_clone() {
            let (modes, told) = (before.clone(), std::panic::take_hook());
            std::panic::set_hook(Box::new(move |panic| {
                // The panic is what must be told.
                let _ = tcsetattr(&copy, OptionalActions::Now, &modes);
                told(panic);
            }));
        }
        Ok(RawMode { terminal, before })
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            drop(std::panic::take_hook());
        }
        // Fails only when the terminal is gone.
        let _ = tcsetattr(&self.terminal, OptionalActions::Now, &self.before);
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use rustix::pty::{openpt, unlockpt};
    use rustix::termios::Winsize;
    use std::fs::File;
    use std::io::{PipeReader, PipeWriter};

    /// A master and its other end.
    pub fn pty() -> (OwnedFd, OwnedFd) {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = openpt(flags).unwrap();
        unlockpt(&master).unwrap();
        let peer = rustix::pty::ioctl_tiocgptpeer(&master, flags).unwrap();
        (master, peer)
    }

    /// A relay between a terminal and two pipes, and their far ends.
    pub fn relay(master: OwnedFd) -> (Relay, PipeWriter, PipeReader) {
        let (input, keys) = std::io::pipe().unwrap();
        let (screen, output) = std::io::pipe().unwrap();
        let host = Host {
            terminal: None,
            _raw: None,
        };
        let relay = Relay::connect(master, input.into(), output.into(), host).unwrap();
        (relay, keys, screen)
    }

    #[test]
    fn raw_mode_ends_with_its_value_and_newlines_stay_complete() {
        let (_master, peer) = pty();
        let before = tcgetattr(&peer).unwrap();
        let raw = RawMode::enter(peer.try_clone().unwrap()).unwrap();
        let during = tcgetattr(&peer).unwrap();
        assert!(!during.local_modes.contains(LocalModes::ICANON));
        assert!(
            during
                .output_modes
                .contains(OutputModes::OPOST | OutputModes::ONLCR)
        );
        drop(raw);
        let after = tcgetattr(&peer).unwrap();
        assert_eq!(
            (after.local_modes, after.input_modes),
            (before.local_modes, before.input_modes)
        );
        assert_eq!(after.output_modes, before.output_modes);
    }

    #[test]
    fn raw_mode_ends_in_a_panic() {
        let (_master, peer) = pty();
        let before = tcgetattr(&peer).unwrap();
        let terminal = peer.try_clone().unwrap();
        let raw = RawMode::enter(terminal).unwrap();
        // The hook runs before the panic unwinds or aborts; the value itself is never dropped.
        std::mem::forget(raw);
        let panicked = std::thread::spawn(|| panic!("meant by this test")).join();
        assert!(panicked.is_err());
        assert_eq!(tcgetattr(&peer).unwrap().local_modes, before.local_modes);
        drop(std::panic::take_hook());
    }

    #[test]
    fn the_containers_terminal_gets_the_size_of_ours() {
        let (_host_master, host) = pty();
        let size = Winsize {
            ws_row: 33,
            ws_col: 99,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&host, size).unwrap();
        let (master, peer) = pty();
        let null = || {
            OwnedFd::from(
                File::options()
                    .read(true)
                    .write(true)
                    .open("/dev/null")
                    .unwrap(),
            )
        };
        let host = Host {
            terminal: Some(host),
            _raw: None,
        };
        let _relay = Relay::connect(master, null(), null(), host).unwrap();
        assert_eq!(
            (
                tcgetwinsize(&peer).unwrap().ws_row,
                tcgetwinsize(&peer).unwrap().ws_col
            ),
            (33, 99)
        );
    }

    #[test]
    fn a_reader_that_went_away_does_not_stop_the_container() {
        let (master, peer) = pty();
        let (mut relay, _keys, screen) = relay(master);
        drop(screen);
        for _ in 0..100 {
            rustix::io::write(&peer, &[b'x'; 1000]).unwrap();
            // What was written may be in flight for a moment; a reader that is gone is found by
            // the first write.
            while relay.read_rest().unwrap() {
                relay.write_output();
            }
        }
        assert!(relay.output.is_none());
    }
}
