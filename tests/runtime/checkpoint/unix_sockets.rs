//! Unix sockets whose other end is outside of the container, in the same network namespace.

use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixStream};

use libtest_mimic::Trial;
use serde_json::json;

use super::{checkpoint, counter, restore};
use crate::caller::{from_shell, wait_readable};
use crate::inside::Inside;
use crate::support::{Bundle, tests};

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    tests![
        a_datagram_socket_leads_out_again_where_it_is_allowed_to,
        a_stream_socket_that_leads_out_is_told_and_the_container_goes_on,
    ]
}

/// A container with the host's network that has this socket as its descriptor 5.
fn holding(bundle: Bundle, socket: impl Into<OwnedFd>) -> Inside {
    bundle.edit(|config| {
        let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|entry| entry["type"] != "network");
    });
    Inside::started(bundle, |bundle| {
        let script = "exec 3</dev/null 4</dev/null 5<&0 </dev/null; exec \"$@\"";
        let create = ["create", "--preserve-fds", "3", "--bundle", bundle.path()];
        let create = [&create[..], &[&bundle.id]].concat();
        let mut create = from_shell(bundle, script, &create);
        let output = std::fs::File::create(bundle.folder.join("output")).unwrap();
        let create = create.stdin(socket.into());
        let ended = create
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .status();
        assert!(
            ended.unwrap().success(),
            "{}",
            crate::caller::output(bundle)
        );
        bundle.verb("start").success();
    })
}

fn a_datagram_socket_leads_out_again_where_it_is_allowed_to() {
    let bundle = counter();
    let folder = bundle.folder.join("outside");
    std::fs::create_dir(&folder).unwrap();
    let server = UnixDatagram::bind(folder.join("socket")).unwrap();
    let client = UnixDatagram::unbound().unwrap();
    client.connect(folder.join("socket")).unwrap();
    // CRIU connects it again by the name that the other end has.
    bundle.edit(|config| {
        let mounts = config["mounts"].as_array_mut().unwrap();
        mounts.push(
            json!({"destination": folder, "source": folder, "type": "bind", "options": ["bind"]}),
        );
    });
    let mut inside = holding(bundle, client);
    let says = |inside: &mut Inside, words: &str| {
        inside.ask(&format!("echo {words} >&5"));
        wait_readable(&server);
        let mut data = [0; 64];
        let length = server.recv(&mut data).unwrap();
        assert_eq!(&data[..length], format!("{words}\n").as_bytes());
    };
    says(&mut inside, "first");
    let error = checkpoint(&inside.bundle, &[]).failure();
    assert!(error.contains("External socket is used"), "{error}");
    says(&mut inside, "still");
    checkpoint(&inside.bundle, &["--ext-unix-sk"]).success();
    restore(&inside.bundle, &["--ext-unix-sk"]).success();
    says(&mut inside, "again");
}

fn a_stream_socket_that_leads_out_is_told_and_the_container_goes_on() {
    let (outside, end) = UnixStream::pair().unwrap();
    let mut inside = holding(counter(), end);
    for flags in [&[][..], &["--ext-unix-sk"]] {
        let error = checkpoint(&inside.bundle, flags).failure();
        assert!(error.contains("unix"), "{error}");
    }
    inside.ask("echo hello >&5");
    wait_readable(&outside);
    let mut data = [0; 6];
    std::io::Read::read_exact(&mut &outside, &mut data).unwrap();
    assert_eq!(&data, b"hello\n");
}
