//! A device of the host's, made inside by its number: the cgroup's filter decides on opening it, whatever the node says.

use std::fs::{File, Metadata};
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use libtest_mimic::Trial;
use rustix::fs::{major, minor};
use serde_json::json;

use crate::subject::Subject;
use crate::support::tests;

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    tests![
        a_device_of_the_hosts_can_not_be_opened_by_its_number,
        a_device_of_the_hosts_would_be_opened_by_its_number,
    ]
}

/// A disk, or where the host's root may not open one, what makes loop devices.
fn device() -> Metadata {
    let names = ["vda", "sda", "nvme0n1", "loop-control"];
    let open = |name: &&str| File::open(format!("/dev/{name}")).ok();
    let file = names
        .iter()
        .find_map(open)
        .expect("no device can be opened");
    file.metadata().unwrap()
}

/// How a node of the device's number can be opened inside, with the right to make one. Nothing is read or written.
fn opened(subject: Subject) -> String {
    let device = device();
    let kind = if device.file_type().is_block_device() {
        'b'
    } else {
        'c'
    };
    let (major, minor) = (major(device.rdev()), minor(device.rdev()));
    let bundle = subject.bundle(&format!(
        "busybox mknod /tmp/device {kind} {major} {minor} && echo made
        {{ (exec 3< /tmp/device) && echo read; (exec 3>> /tmp/device) && echo write; }} 2>&-; true"
    ));
    bundle.edit(|config| {
        config["root"]["readonly"] = json!(false);
        for set in ["bounding", "effective", "permitted"] {
            config["process"]["capabilities"][set] = json!(["CAP_MKNOD"]);
        }
        let devices = &mut config["linux"]["resources"]["devices"];
        let nodes = json!({"allow": true, "access": "m"});
        devices.as_array_mut().unwrap().push(nodes);
    });
    bundle.run().success()
}

fn a_device_of_the_hosts_can_not_be_opened_by_its_number() {
    assert_eq!(opened(Subject::Real), "made\n");
}

fn a_device_of_the_hosts_would_be_opened_by_its_number() {
    let without = Subject::Without("device-filter");
    assert_eq!(opened(without), "made\nread\nwrite\n");
}
