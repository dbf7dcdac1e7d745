//! A connection to systemd: over its private socket, or over a message bus.
//!
//! One call at a time, and every wait has an end: systemd may be busy, stopped or gone, and the bus
//! with it. Why this is not a library's is told in docs/decisions/0009.

use std::fmt;
use std::os::fd::OwnedFd;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use nix::sys::signal::SigSet;
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{RecvFlags, SendFlags};

use super::address::Address;
use super::message::{self, Body, Call, Message, Reader};
use crate::cgroups::events::Deadline;
use crate::sys::signals::REQUESTS_TO_END;
use crate::sys::{Call as _, Errno};

/// How long systemd may take for one thing it is asked. A reload of its configuration stops it for
/// some seconds on a large host.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

const SYSTEMD: &str = "org.freedesktop.systemd1";
const MANAGER_PATH: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const BUS: &str = "org.freedesktop.DBus";

/// The only signal that is waited for: a job has come to its end.
const JOB_REMOVED: &str = "JobRemoved";

/// A refusal in systemd's words; what a caller branches on is its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refused {
    pub name: String,
    text: String,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Refused { name, text } = self;
        match text.trim_end_matches('.') {
            "" => f.write_str(name),
            text => write!(f, "{text} ({name})"),
        }
    }
}

impl std::error::Error for Refused {}

/// Whether a wait ends with a signal that asks this process to end and is blocked. It is left to whoever
/// has blocked it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Signals {
    Heeded,
    /// What is done must be done to its end, or they are not blocked.
    LeftAlone,
}

impl Signals {
    /// Readable when such a signal has come.
    fn descriptor(self) -> Result<Option<SignalFd>> {
        if self == Signals::LeftAlone {
            return Ok(None);
        }
        let blocked = SigSet::thread_get_mask().context("rt_sigprocmask()")?;
        let requests = REQUESTS_TO_END.into_iter();
        let requests: SigSet = requests.filter(|s| blocked.contains(*s)).collect();
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        let fd = SignalFd::with_flags(&requests, flags).context("signalfd4()")?;
        Ok(Some(fd))
    }
}

/// An open connection.
#[derive(Debug)]
pub(super) struct Bus {
    socket: OwnedFd,
    /// Readable when there is no time left for a wait.
    stop: Option<SignalFd>,
    address: Address,
    serial: u32,
    patience: Duration,
    end: Deadline,
    /// Received and not yet read as a message.
    received: Vec<u8>,
    /// Jobs that came to their end, with how, since the connection was made.
    ended_jobs: Vec<(String, String)>,
}

impl Bus {
    /// Connects to the first of `addresses` that answers.
    ///
    /// # Errors
    ///
    /// None does; each is named with the reason.
    pub(super) fn connect(
        addresses: &[Address],
        patience: Duration,
        signals: Signals,
    ) -> Result<Bus> {
        let mut reasons = Vec::new();
        for address in addresses {
            match Bus::open(address, patience, signals) {
                Ok(bus) => return Ok(bus),
                Err(error) => reasons.push(crate::error::in_words(&error)),
            }
        }
        if reasons.is_empty() {
            bail!("no socket of systemd or of a message bus is known");
        }
        Err(anyhow!(reasons.join("; ")))
    }

    fn open(address: &Address, patience: Duration, signals: Signals) -> Result<Bus> {
        let end = Deadline::after(patience);
        let socket = address
            .connect(patience)
            .call(|| format!("connect({address})"))?;
        let mut bus = Bus {
            socket,
            stop: signals.descriptor()?,
            address: address.clone(),
            serial: 0,
            patience,
            end,
            received: Vec::new(),
            ended_jobs: Vec::new(),
        };
        bus.authenticate()?;
        if !address.direct {
            bus.ask(BUS, "/org/freedesktop/DBus", BUS, "Hello", Body::default())?;
            // The private socket sends every signal without being asked.
            let rule = format!(
                "type='signal',sender='{SYSTEMD}',path='{MANAGER_PATH}',interface='{MANAGER}',\
                 member='{JOB_REMOVED}'"
            );
            let rule = Body::default().text(&rule);
            bus.ask(BUS, "/org/freedesktop/DBus", BUS, "AddMatch", rule)?;
        }
        Ok(bus)
    }

    /// From now on no signal ends a wait.
    pub(super) fn leave_signals_alone(&mut self) {
        self.stop = None;
    }

    /// Calls a method of systemd's manager.
    ///
    /// # Errors
    ///
    /// [`Refused`] with systemd's words; or why there is no answer.
    pub(super) fn call(&mut self, method: &str, body: Body) -> Result<Reader> {
        self.ask(SYSTEMD, MANAGER_PATH, MANAGER, method, body)
    }

    /// A property of systemd's manager that is text.
    ///
    /// # Errors
    ///
    /// As for [`Self::call`].
    pub(super) fn property(&mut self, name: &str) -> Result<String> {
        const PROPERTIES: &str = "org.freedesktop.DBus.Properties";
        let body = Body::default().text(MANAGER).text(name);
        self.ask(SYSTEMD, MANAGER_PATH, PROPERTIES, "Get", body)?
            .text_in_variant()
    }

    /// Calls a method that starts a job and waits until that has come to its end; how: "done" if
    /// it went well.
    ///
    /// # Errors
    ///
    /// As for [`Self::call`].
    pub(super) fn job(&mut self, method: &str, body: Body) -> Result<String> {
        let job = self.call(method, body)?.text()?;
        loop {
            if let Some((_, result)) = self.ended_jobs.iter().find(|(ended, _)| *ended == job) {
                return Ok(result.clone());
            }
            let message = self
                .receive()
                .with_context(|| format!("{method}: waiting for the end of {job}"))?;
            self.note(message)?;
        }
    }

    fn ask(
        &mut self,
        destination: &str,
        path: &str,
        interface: &str,
        member: &str,
        body: Body,
    ) -> Result<Reader> {
        self.serial += 1;
        self.end = Deadline::after(self.patience);
        let call = Call {
            destination,
            path,
            interface,
            member,
            body,
        };
        self.send(&call.encode(self.serial))
            .context(member.to_owned())?;
        loop {
            match self.receive().context(member.to_owned())? {
                Message::Return { to, body } if to == self.serial => return Ok(body),
                Message::Error { to, name, text } if to == self.serial => {
                    return Err(Refused { name, text }).context(member.to_owned());
                }
                other @ (Message::Return { .. }
                | Message::Error { .. }
                | Message::Signal { .. }
                | Message::Other) => self.note(other)?,
            }
        }
    }

    /// Keeps what a later wait will look for.
    fn note(&mut self, message: Message) -> Result<()> {
        match message {
            Message::Signal {
                interface,
                member,
                mut body,
            } if interface == MANAGER && member == JOB_REMOVED => {
                body.u32()?; // the job's number, which its path has in it
                let job = body.text()?;
                let _unit = body.text()?;
                self.ended_jobs.push((job, body.text()?));
            }
            Message::Signal { .. }
            | Message::Return { .. }
            | Message::Error { .. }
            | Message::Other => {}
        }
        Ok(())
    }

    /// Says who we are: the kernel tells the other side, so nothing is claimed. (A user id that is
    /// claimed would be that of our user namespace, and be refused.)
    ///
    /// All of it at once: a call that reaches systemd in one piece with BEGIN is read with it, and
    /// left lying until more comes. When the answers are here, BEGIN has been read.
    fn authenticate(&mut self) -> Result<()> {
        const WHAT: &str = "authentication";
        self.send(b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n")
            .context(WHAT)?;
        for expected in ["DATA", "OK"] {
            let answer = self.line().context(WHAT)?;
            if answer.split(' ').next() != Some(expected) {
                bail!("{}: {WHAT}: it answers {answer:?}", self.address);
            }
        }
        Ok(())
    }

    fn line(&mut self) -> Result<String> {
        /// No line of the protocol is longer.
        const LONGEST: usize = 16 * 1024;
        loop {
            if let Some(end) = self.received.windows(2).position(|two| two == b"\r\n") {
                let line: Vec<u8> = self.received.drain(..end + 2).collect();
                return Ok(String::from_utf8_lossy(&line[..end]).into_owned());
            }
            if self.received.len() > LONGEST {
                bail!("{}: what answers there is no D-Bus server", self.address);
            }
            self.fill()?;
        }
    }

    fn receive(&mut self) -> Result<Message> {
        loop {
            let length = message::length(&self.received).context(self.address.to_string())?;
            if let Some(length) = length.filter(|&length| length <= self.received.len()) {
                let bytes: Vec<u8> = self.received.drain(..length).collect();
                return message::decode(&bytes).context(self.address.to_string());
            }
            self.fill()?;
        }
    }

    /// Waits for more bytes.
    fn fill(&mut self) -> Result<()> {
        loop {
            let Some(left) = self.end.left() else {
                return Err(self.no_answer());
            };
            let mut fds = vec![PollFd::new(&self.socket, PollFlags::IN)];
            fds.extend(self.stop.iter().map(|fd| PollFd::new(fd, PollFlags::IN)));
            match poll(&mut fds, Some(&left)) {
                Ok(0) | Err(Errno::INTR) => continue,
                Ok(_) if fds[0].revents().is_empty() => {
                    bail!("ended by a signal while {} had not answered", self.address)
                }
                Ok(_) => {}
                Err(errno) => return Ok(Err(errno).call(|| format!("poll({})", self.address))?),
            }
            let mut part = [0; 4096];
            match rustix::net::recv(&self.socket, &mut part, RecvFlags::DONTWAIT) {
                // Reset: it had not read all that we said.
                Ok((0, _)) | Err(Errno::CONNRESET) => {
                    bail!("{} closed the connection", self.address)
                }
                Ok((length, _)) => {
                    self.received.extend_from_slice(&part[..length]);
                    return Ok(());
                }
                Err(Errno::INTR | Errno::AGAIN) => {}
                Err(errno) => return Ok(Err(errno).call(|| format!("recv({})", self.address))?),
            }
        }
    }

    /// The socket has a time limit for sending.
    fn send(&self, bytes: &[u8]) -> Result<()> {
        let mut rest = bytes;
        while !rest.is_empty() {
            match rustix::net::send(&self.socket, rest, SendFlags::NOSIGNAL) {
                Ok(length) => rest = &rest[length..],
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Err(self.no_answer()),
                Err(Errno::PIPE | Errno::CONNRESET) => {
                    bail!("{} closed the connection", self.address)
                }
                Err(errno) => return Ok(Err(errno).call(|| format!("send({})", self.address))?),
            }
        }
        Ok(())
    }

    fn no_answer(&self) -> anyhow::Error {
        let Bus {
            address, patience, ..
        } = self;
        anyhow!(
            "no answer from {address} in {patience:?}: `systemctl is-system-running` tells more"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Fake, SHORT};
    use super::*;
    use std::io::Write as _;

    fn error_of(addresses: &[Address]) -> String {
        format!(
            "{:#}",
            Bus::connect(addresses, SHORT, Signals::LeftAlone).unwrap_err()
        )
    }

    #[test]
    fn a_socket_that_is_not_there_is_named() {
        let addresses = [Address::private("/no/private"), Address::bus("/no/bus")];
        let error = error_of(&addresses);
        let expected = "connect(/no/private): no such file or directory; \
                        connect(/no/bus): no such file or directory";
        assert_eq!(error, expected);
        assert!(error_of(&[]).contains("no socket"), "{}", error_of(&[]));
    }

    #[test]
    fn who_takes_no_connection_any_more_does_not_hold_us_up() {
        let fake = Fake::full();
        let error = error_of(&[Address::private(fake.path())]);
        assert!(error.ends_with("connection timed out"), "{error}");
    }

    #[test]
    fn who_says_nothing_is_not_waited_for_longer_than_our_patience() {
        let fake = Fake::new(|server| server.wait_for_close());
        let error = error_of(&[Address::private(fake.path())]);
        let told = format!(
            "authentication: no answer from {} in 200ms: ",
            fake.path().display()
        );
        assert!(error.starts_with(&told), "{error}");
    }

    #[test]
    fn who_stops_to_answer_after_the_greeting_is_not_waited_for_either() {
        let fake = Fake::new(|server| {
            server.greet();
            server.call();
            server.wait_for_close();
        });
        let mut bus =
            Bus::connect(&[Address::private(fake.path())], SHORT, Signals::LeftAlone).unwrap();
        let error = bus.job("StopUnit", Body::default()).unwrap_err();
        let error = format!("{error:#}");
        assert!(error.starts_with("StopUnit: no answer from"), "{error}");
    }

    #[test]
    fn a_job_without_an_end_is_not_waited_for_for_ever() {
        let fake = Fake::new(|server| {
            server.greet();
            server.answer("/job/1");
            server.job_ended("/job/2", "done");
            server.wait_for_close();
        });
        let mut bus =
            Bus::connect(&[Address::private(fake.path())], SHORT, Signals::LeftAlone).unwrap();
        let error = format!("{:#}", bus.job("StopUnit", Body::default()).unwrap_err());
        let expected = "StopUnit: waiting for the end of /job/1: no answer from";
        assert!(error.starts_with(expected), "{error}");
    }

    #[test]
    fn who_hangs_up_or_refuses_us_or_is_no_server_is_told() {
        for (said, told) in [
            (&b""[..], "closed the connection"),
            (b"REJECTED EXTERNAL\r\n", "it answers \"REJECTED EXTERNAL\""),
            (&[b'x'; 20_000], "is no D-Bus server"),
        ] {
            let fake = Fake::new(move |server| {
                server.line();
                // The other side may have heard enough.
                let _ = server.stream.write_all(said);
            });
            let error = error_of(&[Address::private(fake.path())]);
            assert!(error.contains(told), "{error}");
        }
    }

    #[test]
    fn what_is_no_message_is_told() {
        let fake = Fake::new(|server| {
            server.greet();
            server.call();
            server
                .stream
                .write_all(b"HTTP/1.1 400 Bad Request")
                .unwrap();
        });
        let mut bus =
            Bus::connect(&[Address::private(fake.path())], SHORT, Signals::LeftAlone).unwrap();
        let error = format!("{:#}", bus.property("Version").unwrap_err());
        assert!(error.contains("is not D-Bus"), "{error}");
    }

    #[test]
    fn the_end_of_a_job_counts_also_when_it_comes_before_the_answer() {
        let fake = Fake::new(|server| {
            server.greet();
            let serial = server.call().1;
            server.job_ended("/job/8", "canceled");
            server.job_ended("/job/7", "done");
            server.answer_to(serial, "/job/7");
            server.answer("/job/8");
            server.wait_for_close();
        });
        let mut bus =
            Bus::connect(&[Address::private(fake.path())], SHORT, Signals::LeftAlone).unwrap();
        assert_eq!(
            bus.job("StartTransientUnit", Body::default()).unwrap(),
            "done"
        );
        assert_eq!(bus.job("StopUnit", Body::default()).unwrap(), "canceled");
    }

    #[test]
    fn over_a_bus_we_say_hello_and_ask_for_the_signal() {
        let fake = Fake::new(|server| {
            server.greet();
            assert_eq!(server.answer(":1.5"), "Hello");
            assert_eq!(server.answer(""), "AddMatch");
            assert_eq!(server.property("257.9"), "Get");
            server.wait_for_close();
        });
        let mut bus =
            Bus::connect(&[Address::bus(fake.path())], SHORT, Signals::LeftAlone).unwrap();
        assert_eq!(bus.property("Version").unwrap(), "257.9");
    }

    #[test]
    fn a_refusal_keeps_its_name() {
        let fake = Fake::new(|server| {
            server.greet();
            server.refuse("a.b.NoSuchUnit", "Unit x not loaded.");
        });
        let mut bus =
            Bus::connect(&[Address::private(fake.path())], SHORT, Signals::LeftAlone).unwrap();
        let error = bus.call("StopUnit", Body::default()).unwrap_err();
        assert_eq!(
            error.downcast_ref::<Refused>().unwrap().name,
            "a.b.NoSuchUnit"
        );
        let text = format!("{error:#}");
        assert_eq!(text, "StopUnit: Unit x not loaded (a.b.NoSuchUnit)");
    }
}
