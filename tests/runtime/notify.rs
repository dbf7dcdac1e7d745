//! NOTIFY_SOCKET: what the program says of itself reaches whoever started it.
//!
//! busybox has no client for such a socket. So the tests themselves send, to the socket that the
//! container's first process sees under the name it was told (/proc/PID/root), while the program
//! waits at a FIFO.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use libtest_mimic::Trial;
use nix::sys::stat::Mode;
use rustix::net::{RecvAncillaryBuffer, RecvFlags};
use serde_json::json;

use crate::support::{Bundle, program, tests};

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    tests![
        run_in_the_foreground_passes_on_what_the_program_says,
        run_detached_returns_when_the_program_is_ready,
        start_returns_when_the_program_is_ready,
        start_returns_when_the_program_has_ended_without_being_ready,
        other_verbs_do_not_wait_for_a_program_that_is_not_ready,
        a_user_of_a_user_namespace_may_write_to_the_socket,
        without_the_variable_there_is_no_socket,
        a_callers_socket_that_is_none_is_a_warning,
    ]
}

const PATIENCE: Duration = Duration::from_secs(60);

/// The caller's side, as systemd is it elsewhere, and a container whose program says where its
/// socket is, waits to be told that it may end, and ends.
struct Service {
    bundle: Bundle,
    manager: UnixDatagram,
    path: PathBuf,
}

impl Service {
    fn new() -> Service {
        let bundle = Bundle::new("echo $NOTIFY_SOCKET > /started; cat /done");
        for name in ["started", "done"] {
            let path = bundle.folder.join("rootfs").join(name);
            nix::unistd::mkfifo(&path, Mode::S_IRWXU).unwrap();
        }
        let path = bundle.folder.join("host.sock");
        let manager = UnixDatagram::bind(&path).unwrap();
        manager.set_read_timeout(Some(PATIENCE)).unwrap();
        Service {
            bundle,
            manager,
            path,
        }
    }

    /// Starts the program with this service's socket as its caller's.
    fn spawn(&self, arguments: &[&str]) -> Child {
        let log = fs::File::create(self.bundle.folder.join("output")).unwrap();
        let bundle = ["--bundle", self.bundle.path()];
        let bundle = match arguments[0] {
            "start" => &[][..],
            _ => &bundle[..],
        };
        Command::new(program())
            .arg("--root")
            .arg(self.bundle.folder.join("state"))
            .args(arguments)
            .args(bundle)
            .arg(&self.bundle.id)
            .env("NOTIFY_SOCKET", &self.path)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap()
    }

    /// Waits for the program; its process id, and a socket that says what it would say.
    fn started(&self) -> (i32, UnixDatagram) {
        let told = fs::read_to_string(self.bundle.folder.join("rootfs/started")).unwrap();
        assert_eq!(told, "/run/notify/notify.sock\n");
        let pid = self.bundle.pid();
        let socket = UnixDatagram::unbound().unwrap();
        let seen = format!("/proc/{pid}/root{}", told.trim_end());
        socket.connect(Path::new(&seen)).unwrap();
        (pid, socket)
    }

    /// The next message; a descriptor that comes with it is closed, which ends a barrier.
    fn next(&self) -> String {
        let mut text = [0; 1000];
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let parts = &mut [std::io::IoSliceMut::new(&mut text)];
        let flags = RecvFlags::CMSG_CLOEXEC;
        let got = rustix::net::recvmsg(&self.manager, parts, &mut control, flags).unwrap();
        control.drain().for_each(drop);
        String::from_utf8(text[..got.bytes].to_vec()).unwrap()
    }

    fn nothing_was_said(&self) {
        self.manager.set_nonblocking(true).unwrap();
        let said = self.manager.recv(&mut [0; 100]);
        assert!(said.is_err(), "{said:?}");
    }

    fn end_program(&self) {
        fs::write(self.bundle.folder.join("rootfs/done"), "").unwrap();
    }

    /// What the command printed, when it has ended well.
    fn success(&self, mut child: Child) {
        let status = child.wait().unwrap();
        let output = fs::read_to_string(self.bundle.folder.join("output")).unwrap();
        assert!(status.success(), "{output}");
    }
}

fn run_in_the_foreground_passes_on_what_the_program_says() {
    let service = Service::new();
    let run = service.spawn(&["run"]);
    let (_, says) = service.started();
    says.send(b"STATUS=warm").unwrap();
    assert_eq!(service.next(), "STATUS=warm\n");
    // The runtime stands for the service: a process of the container can not say which it is.
    says.send(b"FDSTORE=1\nREADY=1\nMAINPID=1").unwrap();
    assert_eq!(service.next(), format!("READY=1\nMAINPID={}\n", run.id()));
    says.send(b"RELOADING=1\nMONOTONIC_USEC=7").unwrap();
    assert_eq!(service.next(), "RELOADING=1\nMONOTONIC_USEC=7\n");
    says.send(b"READY=1").unwrap();
    assert_eq!(service.next(), "READY=1\n");
    service.end_program();
    service.success(run);
    let state = fs::read_dir(service.bundle.folder.join("state")).unwrap();
    assert_eq!(state.count(), 0, "the socket was not removed");
}

/// `child` goes on until the program, which it has started, is ready.
fn waits_for_readiness(service: &Service, mut child: Child) {
    let (pid, says) = service.started();
    says.send(b"STATUS=warm").unwrap();
    assert_eq!(service.next(), "STATUS=warm\n");
    assert!(child.try_wait().unwrap().is_none(), "it did not wait");
    says.send(b"READY=1").unwrap();
    assert_eq!(service.next(), format!("READY=1\nMAINPID={pid}\n"));
    assert!(
        child.try_wait().unwrap().is_none(),
        "nobody has read it yet"
    );
    assert_eq!(service.next(), "BARRIER=1");
    service.success(child);
    assert_eq!(service.bundle.status(), "running");
    service.end_program();
}

fn run_detached_returns_when_the_program_is_ready() {
    let service = Service::new();
    let run = service.spawn(&["run", "--detach"]);
    waits_for_readiness(&service, run);
}

fn start_returns_when_the_program_is_ready() {
    let service = Service::new();
    service.success(service.spawn(&["create"]));
    let start = service.spawn(&["start"]);
    waits_for_readiness(&service, start);
}

fn start_returns_when_the_program_has_ended_without_being_ready() {
    let service = Service::new();
    service.success(service.spawn(&["create"]));
    let start = service.spawn(&["start"]);
    let (_, says) = service.started();
    says.send(b"something else").unwrap();
    service.end_program();
    service.success(start);
    service.nothing_was_said();
}

fn other_verbs_do_not_wait_for_a_program_that_is_not_ready() {
    let service = Service::new();
    service.success(service.spawn(&["create"]));
    let start = service.spawn(&["start"]);
    let _started = service.started();
    service.bundle.verb("pause").success();
    assert_eq!(service.bundle.status(), "paused");
    service.bundle.verb("resume").success();
    service
        .bundle
        .parhelion(&["delete", "--force", &service.bundle.id])
        .success();
    service.success(start);
}

fn a_user_of_a_user_namespace_may_write_to_the_socket() {
    let service = Service::new();
    service.bundle.edit(|config| {
        let script =
            "[ -w $NOTIFY_SOCKET ] && stat -c '%F' $NOTIFY_SOCKET && ! touch /run/notify/x";
        config["process"]["args"] = json!(["/bin/sh", "-c", script]);
        config["process"]["user"] = json!({"uid": 5, "gid": 5});
        let map = json!([{"containerID": 0, "hostID": 100_000, "size": 1000}]);
        config["linux"]["uidMappings"] = map.clone();
        config["linux"]["gidMappings"] = map;
        let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.push(json!({"type": "user"}));
    });
    let rootfs = service.bundle.folder.join("rootfs");
    std::os::unix::fs::chown(rootfs, Some(100_000), Some(100_000)).unwrap();
    service.success(service.spawn(&["run"]));
    let seen = fs::read_to_string(service.bundle.folder.join("output")).unwrap();
    assert!(seen.starts_with("socket\n"), "{seen}");
    assert!(seen.contains("touch: /run/notify/x: "), "{seen}");
}

fn without_the_variable_there_is_no_socket() {
    let bundle = Bundle::new("echo =$NOTIFY_SOCKET=; ls /run");
    for value in [None, Some("")] {
        let mut command = Command::new(program());
        command.arg("--root").arg(bundle.folder.join("state"));
        command.args(["run", "--bundle", bundle.path(), &bundle.id]);
        match value {
            None => command.env_remove("NOTIFY_SOCKET"),
            Some(value) => command.env("NOTIFY_SOCKET", value),
        };
        let output = command.output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "==\n");
    }
}

fn a_callers_socket_that_is_none_is_a_warning() {
    let service = Service::new();
    fs::remove_file(&service.path).unwrap();
    let run = service.spawn(&["run"]);
    let told = fs::read_to_string(service.bundle.folder.join("rootfs/started")).unwrap();
    assert_eq!(told, "/run/notify/notify.sock\n");
    service.end_program();
    service.success(run);
    let told = fs::read_to_string(service.bundle.folder.join("output")).unwrap();
    let socket = &service.path;
    let words = format!("NOTIFY_SOCKET={socket:?}: connect(): no such file or directory\n");
    assert!(told.ends_with(&words), "{told}");
}
