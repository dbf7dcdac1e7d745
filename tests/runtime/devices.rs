//! /dev: default and extra devices, links, and who may use what.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown, symlink};
use std::os::unix::net::UnixListener;

use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::support::{Bundle, tests, wait_until_gone};

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    tests![
        the_default_devices_have_their_numbers_and_modes,
        the_default_devices_work,
        an_inherited_null_device_is_the_containers_own,
        the_links_of_dev_lead_where_they_should,
        a_terminal_can_be_opened_through_ptmx,
        extra_devices_have_their_numbers_modes_and_owners,
        an_extra_device_replaces_a_default_one,
        a_device_takes_the_place_of_what_the_image_has_there,
        a_device_of_the_host_that_is_bound_stays_as_it_is,
        a_link_for_dev_stays_inside_the_root,
        a_bound_dev_is_left_alone,
        a_user_namespace_has_the_hosts_devices,
        a_user_namespace_has_extra_devices_of_the_host_only,
        devices_without_sense_are_refused,
        the_console_is_the_containers_terminal,
    ]
}

fn devices(bundle: &Bundle, list: Value) {
    bundle.edit(|config| config["linux"]["devices"] = list);
}

const DEFAULT: &str = "null zero full tty random urandom";

fn the_default_devices_have_their_numbers_and_modes() {
    let bundle = Bundle::new(&format!(
        "cd /dev; stat -c '%n %F %t:%T %a %u:%g' {DEFAULT}; echo *"
    ));
    assert_eq!(
        bundle.run().success(),
        "null character special file 1:3 666 0:0\n\
         zero character special file 1:5 666 0:0\n\
         full character special file 1:7 666 0:0\n\
         tty character special file 5:0 666 0:0\n\
         random character special file 1:8 666 0:0\n\
         urandom character special file 1:9 666 0:0\n\
         core fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero\n"
    );
}

const USE_THEM: &str = "echo gone > /dev/null && cat /dev/null; \
    busybox head -c 4 /dev/zero | busybox od -An -tx1; \
    echo x > /dev/full || echo full; \
    busybox head -c 8 /dev/urandom | busybox wc -c; \
    busybox head -c 8 /dev/random | busybox wc -c";

fn the_default_devices_work() {
    let seen = Bundle::new(USE_THEM).run().success();
    assert_eq!(seen, " 00 00 00 00\nfull\n8\n8\n");
}

fn an_inherited_null_device_is_the_containers_own() {
    let script = "stat -L -c %d:%i /dev/null /proc/self/fd/0; cat; echo dropped >&2";
    let seen = Bundle::new(script).run().success();
    let (own, inherited) = seen.trim().split_once('\n').unwrap();
    assert_eq!(own, inherited, "standard input is the host's");
}

fn the_links_of_dev_lead_where_they_should() {
    let bundle = Bundle::new(
        "cd /dev; for l in fd stdin stdout stderr core ptmx; do busybox readlink $l; done; \
         echo through > /dev/stdout; echo fd > /dev/fd/1",
    );
    assert_eq!(
        bundle.run().success(),
        "/proc/self/fd\n/proc/self/fd/0\n/proc/self/fd/1\n/proc/self/fd/2\n/proc/kcore\npts/ptmx\n\
         through\nfd\n"
    );
}

fn a_terminal_can_be_opened_through_ptmx() {
    // An open multiplexer makes a terminal, for as long as it is open.
    let bundle = Bundle::new("exec 3<> /dev/ptmx; ls /dev/pts; stat -c %t /dev/pts/0");
    assert_eq!(bundle.run().success(), "0\nptmx\n88\n");
}

fn extra_devices_have_their_numbers_modes_and_owners() {
    let bundle = Bundle::new(
        "cd /dev; stat -c '%n %F %t:%T %a %u:%g' fuse below/disk fifo plain unbuffered; \
         stat -c %a below",
    );
    devices(
        &bundle,
        json!([
            {"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 0o640,
                "uid": 5, "gid": 6},
            {"path": "/dev/below/disk", "type": "b", "major": 259, "minor": 300, "fileMode": 0o7,
                "uid": 7},
            {"path": "/dev/fifo", "type": "p", "fileMode": 0o622, "gid": 8},
            {"path": "/dev/plain", "type": "c", "major": 1, "minor": 3},
            {"path": "/dev/unbuffered", "type": "u", "major": 1, "minor": 5, "fileMode": 0o20600},
        ]),
    );
    assert_eq!(
        bundle.run().success(),
        "fuse character special file a:e5 640 5:6\n\
         below/disk block special file 103:12c 7 7:0\n\
         fifo fifo 0:0 622 0:8\n\
         plain character special file 1:3 666 0:0\n\
         unbuffered character special file 1:5 600 0:0\n755\n"
    );
}

fn an_extra_device_replaces_a_default_one() {
    let bundle =
        Bundle::new("stat -c '%t:%T %a %u' /dev/null /dev/zero; busybox readlink /dev/ptmx");
    devices(
        &bundle,
        json!([
            {"path": "/dev/null", "type": "c", "major": 1, "minor": 3, "fileMode": 0o600, "uid": 9},
            {"path": "/dev//zero", "type": "c", "major": 1, "minor": 5, "fileMode": 0o606},
            {"path": "/dev/ptmx", "type": "c", "major": 5, "minor": 2},
        ]),
    );
    assert_eq!(bundle.run().success(), "1:3 600 9\n1:5 606 0\npts/ptmx\n");
}

/// Without the tmpfs at /dev, so that devices are made in the image's own folder.
fn without_dev(bundle: &Bundle) {
    bundle.edit(|config| {
        let mounts = config["mounts"].as_array_mut().unwrap();
        mounts.retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/dev"));
        config["root"]["readonly"] = json!(false);
    });
}

fn a_device_takes_the_place_of_what_the_image_has_there() {
    let bundle = Bundle::new("stat -c '%t:%T %a' /dev/null /dev/zero /dev/full; cat /etc/target");
    without_dev(&bundle);
    let rootfs = bundle.folder.join("rootfs");
    fs::write(rootfs.join("dev/null"), "a trap").unwrap();
    fs::write(rootfs.join("etc/target"), "kept\n").unwrap();
    symlink("/etc/target", rootfs.join("dev/zero")).unwrap();
    symlink("/dev/null", rootfs.join("dev/full")).unwrap();
    let expected = "1:3 666\n1:5 666\n1:7 666\nkept\n";
    let mode = || fs::metadata(rootfs.join("etc/target")).unwrap().mode();
    let before = mode();
    assert_eq!(bundle.run().success(), expected);
    assert_eq!(mode(), before);
    // A second start finds the devices of the first.
    assert_eq!(bundle.run().success(), expected);
}

fn a_device_of_the_host_that_is_bound_stays_as_it_is() {
    use nix::sys::stat::{Mode, SFlag, makedev, mknod};
    let bundle = Bundle::new("stat -c '%t:%T %a %u' /dev/null");
    let node = bundle.folder.join("node");
    let mode = Mode::from_bits_retain(0o600);
    mknod(&node, SFlag::S_IFCHR, mode, makedev(1, 3)).unwrap();
    chown(&node, Some(12), Some(13)).unwrap();
    bundle.edit(|config| {
        let mounts = config["mounts"].as_array_mut().unwrap();
        mounts.push(json!({"destination": "/dev/null", "source": "node", "options": ["bind"]}));
    });
    assert_eq!(bundle.run().success(), "1:3 600 12\n");
    let after = fs::metadata(&node).unwrap();
    assert_eq!((after.uid(), after.gid()), (12, 13));
    assert_eq!(after.mode() & 0o7777, 0o600);
}

fn a_link_for_dev_stays_inside_the_root() {
    let bundle = Bundle::new("stat -c '%t:%T' /dev/null; ls -d /dev/fd");
    without_dev(&bundle);
    let rootfs = bundle.folder.join("rootfs");
    let outside = bundle.folder.join("outside");
    fs::create_dir(&outside).unwrap();
    fs::remove_dir(rootfs.join("dev")).unwrap();
    let target = format!("../../../../../..{}", outside.display());
    symlink(target, rootfs.join("dev")).unwrap();
    assert_eq!(bundle.run().success(), "1:3\n/dev/fd\n");
    assert_eq!(
        fs::read_dir(&outside).unwrap().count(),
        0,
        "made on the host"
    );
}

fn a_bound_dev_is_left_alone() {
    let bundle = Bundle::new("ls /dev");
    without_dev(&bundle);
    let dev = bundle.folder.join("own");
    fs::create_dir(&dev).unwrap();
    fs::write(dev.join("mine"), "").unwrap();
    bundle.edit(|config| {
        let mounts = config["mounts"].as_array_mut().unwrap();
        mounts.push(json!({"destination": "/dev/", "source": "own", "options": ["rbind"]}));
    });
    assert_eq!(bundle.run().success(), "mine\n");
    assert_eq!(fs::read_dir(&dev).unwrap().count(), 1);
}

fn user_namespace(bundle: &Bundle) {
    bundle.edit(|config| {
        let linux = &mut config["linux"];
        let namespaces = linux["namespaces"].as_array_mut().unwrap();
        namespaces.push(json!({"type": "user"}));
        let map = json!([{"containerID": 0, "hostID": 100_000, "size": 1000}]);
        linux["uidMappings"] = map.clone();
        linux["gidMappings"] = map;
    });
    let rootfs = bundle.folder.join("rootfs");
    chown(rootfs, Some(100_000), Some(100_000)).unwrap();
}

fn a_user_namespace_has_the_hosts_devices() {
    let bundle = Bundle::new(&format!(
        "cd /dev; stat -c '%n %t:%T' {DEFAULT}; {USE_THEM}; busybox readlink ptmx"
    ));
    user_namespace(&bundle);
    assert_eq!(
        bundle.run().success(),
        "null 1:3\nzero 1:5\nfull 1:7\ntty 5:0\nrandom 1:8\nurandom 1:9\n \
         00 00 00 00\nfull\n8\n8\npts/ptmx\n"
    );
}

fn a_user_namespace_has_extra_devices_of_the_host_only() {
    let script = "busybox readlink /dev/ptmx; stat -c '%t:%T' /dev/null; \
        stat -c '%F %a %u:%g' /dev/fifo";
    let bundle = Bundle::new(script);
    user_namespace(&bundle);
    devices(
        &bundle,
        json!([
            {"path": "/dev/null", "type": "c", "major": 1, "minor": 3},
            {"path": "/dev/ptmx", "type": "c", "major": 5, "minor": 2},
            {"path": "/dev/fifo", "type": "p", "fileMode": 0o620, "uid": 1, "gid": 2},
        ]),
    );
    assert_eq!(bundle.run().success(), "pts/ptmx\n1:3\nfifo 620 1:2\n");
    devices(
        &bundle,
        json!([
            {"path": "/dev/null", "type": "c", "major": 1, "minor": 5},
            {"path": "/dev/no-such", "type": "c", "major": 1, "minor": 3},
            {"path": "/dev/zero", "type": "b", "major": 1, "minor": 5},
        ]),
    );
    let error = bundle.create().failure();
    for (i, device) in ["c 1:5", "c 1:3", "b 1:5"].iter().enumerate() {
        let place = format!("linux.devices[{i}].path: ");
        let reason = format!("of the host is not the device {device}");
        assert!(error.contains(&place) && error.contains(&reason), "{error}");
    }
}

fn devices_without_sense_are_refused() {
    let bundle = Bundle::new("true");
    devices(
        &bundle,
        json!([
            {"path": "dev/relative", "type": "c", "major": 1, "minor": 3},
            {"path": "/dev/x", "type": "x", "major": 1, "minor": 3},
            {"path": "/dev/y", "type": "b"},
            {"path": "/dev/z", "type": "c", "major": 5000, "minor": -1},
        ]),
    );
    let error = bundle.create().failure();
    for expected in [
        "linux.devices[0].path: must be an absolute path",
        "linux.devices[1].type: ",
        "linux.devices[2].major: is required",
        "linux.devices[3].major: must be from 0 to 4095, is 5000",
        "linux.devices[3].minor: must be from 0 to 1048575, is -1",
    ] {
        assert!(error.contains(expected), "{expected:?} is not in {error}");
    }
}

fn the_console_is_the_containers_terminal() {
    let bundle = Bundle::new(
        "stat -c '%F %t' /dev/console > /seen; \
         busybox grep ' /dev/console ' /proc/self/mountinfo >> /seen; \
         [ $(stat -c %t:%T /dev/console) = $(stat -L -c %t:%T /proc/self/fd/0) ] && echo same >> /seen; \
         echo > /dev/console && echo works >> /seen",
    );
    bundle.edit(|config| {
        config["process"]["terminal"] = json!(true);
        config["root"]["readonly"] = json!(false);
    });
    let socket = bundle.folder.join("console.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let socket = socket.to_str().unwrap();
    let create = [
        "create",
        "--console-socket",
        socket,
        "--bundle",
        bundle.path(),
        &bundle.id,
    ];
    bundle.parhelion(&create).success();
    let _terminal = receive_terminal(&listener);
    let pid = bundle.pid();
    bundle.verb("start").success();
    wait_until_gone(pid);
    let seen = fs::read_to_string(bundle.folder.join("rootfs/seen")).unwrap();
    let lines: Vec<&str> = seen.lines().collect();
    assert_eq!(lines[0], "character special file 88", "{seen}");
    assert!(lines[1].contains(" - devpts "), "{seen}");
    assert_eq!(lines[2..], ["same", "works"], "{seen}");
}

/// The terminal that the runtime sends: held open, as what is written to it has to go somewhere.
fn receive_terminal(listener: &UnixListener) -> Vec<rustix::fd::OwnedFd> {
    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
    let (stream, _) = listener.accept().unwrap();
    let mut bytes = [0; 4096];
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut slices = [std::io::IoSliceMut::new(&mut bytes)];
    recvmsg(&stream, &mut slices, &mut control, RecvFlags::CMSG_CLOEXEC).unwrap();
    let mut received = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(fds) = message {
            received.extend(fds);
        }
    }
    assert_eq!(received.len(), 1, "no terminal came");
    received
}
