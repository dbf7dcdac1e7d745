//! A server that plays systemd, for tests: says what the test tells it to, on a socket of its own.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::fd::OwnedFd;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketType};

use super::message::tests::{received, sent};
use super::message::{self, Body};

/// How long the tests wait for an answer that does not come.
pub(super) const SHORT: Duration = Duration::from_millis(200);

/// The server, and its socket; both end with this value.
pub(super) struct Fake {
    path: PathBuf,
    thread: Option<JoinHandle<()>>,
    held: Vec<OwnedFd>,
}

impl Fake {
    /// Serves one connection.
    pub(super) fn new(serve: impl FnOnce(&mut Server) + Send + 'static) -> Fake {
        let path = unique_path();
        let listener = UnixListener::bind(&path).unwrap();
        let thread = std::thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            serve(&mut Server { stream });
        });
        Fake {
            path,
            thread: Some(thread),
            held: Vec::new(),
        }
    }

    /// Listens, takes no connection, and has no room for one more to wait.
    pub(super) fn full() -> Fake {
        let path = unique_path();
        let name = SocketAddrUnix::new(&path).unwrap();
        let socket = || rustix::net::socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
        let (listener, waiting) = (socket(), socket());
        rustix::net::bind(&listener, &name).unwrap();
        rustix::net::listen(&listener, 0).unwrap();
        rustix::net::connect(&waiting, &name).unwrap();
        Fake {
            path,
            thread: None,
            held: vec![listener, waiting],
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.held.clear();
        // One whose client never came would wait for it; its own connection wakes it.
        drop(UnixStream::connect(&self.path));
        let ended = self.thread.take().map(JoinHandle::join);
        let _ = std::fs::remove_file(&self.path);
        if let (Some(ended), false) = (ended, std::thread::panicking()) {
            ended.expect("the server was asked what it did not expect");
        }
    }
}

fn unique_path() -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let name = format!("parhelion-bus-{}-{number}", std::process::id());
    std::env::temp_dir().join(name)
}

/// The server's side of a connection.
pub(super) struct Server {
    pub(super) stream: UnixStream,
}

impl Server {
    /// What the client says, up to the end of the line.
    pub(super) fn line(&mut self) -> String {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            let mut byte = [0];
            self.stream.read_exact(&mut byte).unwrap();
            line.push(byte[0]);
        }
        String::from_utf8(line).unwrap()
    }

    /// The whole of the authentication.
    pub(super) fn greet(&mut self) {
        assert_eq!(self.line(), "\0AUTH EXTERNAL\r\n");
        assert_eq!(self.line(), "DATA\r\n");
        assert_eq!(self.line(), "BEGIN\r\n");
        self.stream
            .write_all(b"DATA\r\nOK 0123456789abcdef\r\n")
            .unwrap();
    }

    /// The next call: its method and number.
    pub(super) fn call(&mut self) -> (String, u32) {
        let mut bytes = vec![0; 16];
        self.stream.read_exact(&mut bytes).unwrap();
        bytes.resize(message::length(&bytes).unwrap().unwrap(), 0);
        self.stream.read_exact(&mut bytes[16..]).unwrap();
        received(&bytes)
    }

    /// Answers the next call with text; which method it was.
    pub(super) fn answer(&mut self, text: &str) -> String {
        let (member, serial) = self.call();
        self.answer_to(serial, text);
        member
    }

    pub(super) fn answer_to(&mut self, serial: u32, text: &str) {
        self.send(&sent(2, serial, "", Body::default().text(text)));
    }

    /// Answers the next call with a property.
    pub(super) fn property(&mut self, text: &str) -> String {
        let (member, serial) = self.call();
        self.send(&sent(2, serial, "", Body::default().variant(text)));
        member
    }

    /// Refuses the next call.
    pub(super) fn refuse(&mut self, name: &str, text: &str) -> String {
        let (member, serial) = self.call();
        self.send(&sent(3, serial, name, Body::default().text(text)));
        member
    }

    pub(super) fn job_ended(&mut self, job: &str, result: &str) {
        let body = Body::default()
            .number(1)
            .text(job)
            .text("x.scope")
            .text(result);
        self.send(&sent(4, 0, "JobRemoved", body));
    }

    /// Says nothing more, until the client has gone.
    pub(super) fn wait_for_close(&mut self) {
        let mut byte = [0; 4096];
        while matches!(self.stream.read(&mut byte), Ok(1..)) {}
    }

    fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }
}
