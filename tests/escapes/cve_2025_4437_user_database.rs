//! CVE-2025-4437 (CRI-O): the image's /etc/passwd is so large that reading it takes the host's memory. And it may never end, be
//! no file at all, or lead to the host's. It is read for HOME, where the environment has none.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::Path;

use libtest_mimic::Trial;
use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
use serde_json::json;

use crate::caller::start;
use crate::subject::Subject;
use crate::support::{Bundle, tests};

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    tests![
        a_user_database_of_the_image_takes_neither_memory_nor_time,
        a_user_database_of_the_image_is_read,
        the_hosts_user_database_is_not_read,
    ]
}

/// The home directory in a file of the host's that looks like one.
const HOST: &str = "root:x:0:0::/home-of-the-host:/bin/sh\n";

/// A bundle whose image has what `plant` makes as /etc/passwd.
fn bundle(script: &str, plant: &dyn Fn(&Path)) -> Bundle {
    let bundle = Subject::Real.bundle(script);
    let etc = bundle.folder.join("rootfs/etc");
    fs::create_dir_all(&etc).unwrap();
    plant(&etc.join("passwd"));
    bundle.edit(|config| {
        let env = config["process"]["env"].as_array_mut().unwrap();
        env.retain(|entry| !entry.as_str().unwrap().starts_with("HOME="));
        config["process"]["user"] = json!({"uid": 0, "gid": 0});
    });
    bundle
}

/// The program's home, in a new container and by exec.
fn homes(plant: &dyn Fn(&Path)) -> [String; 2] {
    let new = bundle("echo $HOME", plant).run().success();
    let joined = bundle("exec sleep 100000", plant);
    start(&joined);
    let exec = ["exec", &joined.id, "/bin/sh", "-c", "echo $HOME"];
    [new, joined.parhelion(&exec).success()]
}

fn a_user_database_of_the_image_takes_neither_memory_nor_time() {
    // Of 1 TiB, without an end, without a writer, no text, and nothing.
    let huge = |file: &Path| File::create(file).unwrap().set_len(1 << 40).unwrap();
    let device = |file: &Path| {
        let mode = Mode::from_raw_mode(0o666);
        mknodat(CWD, file, FileType::CharacterDevice, mode, makedev(1, 5)).unwrap();
    };
    let fifo = |file: &Path| {
        let mode = Mode::from_raw_mode(0o666);
        mknodat(CWD, file, FileType::Fifo, mode, 0).unwrap();
    };
    let loops = |file: &Path| symlink("passwd", file).unwrap();
    let bytes = |file: &Path| fs::write(file, [0xff; 4096]).unwrap();
    let many: &[&dyn Fn(&Path)] = &[&huge, &device, &fifo, &loops, &bytes, &|_| {}];
    for (number, plant) in many.iter().enumerate() {
        assert_eq!(homes(plant), ["/\n", "/\n"], "{number}");
    }
}

/// What is looked for is found where it is: also in front of a hole of 1 TiB.
fn a_user_database_of_the_image_is_read() {
    let text = "root:x:0:0::/of-the-image:/bin/sh\n";
    let small = |file: &Path| fs::write(file, text).unwrap();
    let huge = |file: &Path| {
        small(file);
        File::options()
            .write(true)
            .open(file)
            .unwrap()
            .set_len(1 << 40)
            .unwrap();
    };
    let link = |file: &Path| {
        small(&file.with_file_name("users"));
        symlink("/etc/users", file).unwrap();
    };
    let many: &[&dyn Fn(&Path)] = &[&small, &huge, &link];
    for (number, plant) in many.iter().enumerate() {
        assert_eq!(homes(plant), ["/of-the-image\n"; 2], "{number}");
    }
}

fn the_hosts_user_database_is_not_read() {
    let host = Subject::Real.bundle("true");
    let file = host.folder.join("passwd");
    fs::write(&file, HOST).unwrap();
    let link = |planted: &Path| symlink(&file, planted).unwrap();
    assert_eq!(homes(&link), ["/\n", "/\n"]);
}
