//! Memory in several goes: before the checkpoint, to a page server, and after the restore.

use std::fs;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use libtest_mimic::Trial;

use super::{checkpoint, counting, images, restore, restore_as};
use crate::caller::{command, init_pid, wait_readable};
use crate::support::{Bundle, tests};

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    tests![
        a_pre_dump_leaves_less_for_the_checkpoint,
        a_page_server_gets_the_pages,
        lazy_pages_come_when_they_are_used,
    ]
}

/// The size of all pages among the images in a directory.
fn pages(directory: &str) -> u64 {
    let entries = fs::read_dir(directory).unwrap().map(Result::unwrap);
    let pages = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("pages-"));
    pages.map(|entry| entry.metadata().unwrap().len()).sum()
}

fn a_pre_dump_leaves_less_for_the_checkpoint() {
    let mut inside = counting();
    let pid = init_pid(&inside.bundle);
    let first = format!("{}/first", inside.bundle.path());
    let id = inside.bundle.id.clone();
    let arguments = ["checkpoint", "--pre-dump", "--image-path", &first, &id];
    inside.bundle.parhelion(&arguments).success();
    assert_eq!(init_pid(&inside.bundle), pid);
    assert_eq!(inside.ask("echo $i"), "2\n");
    let error = checkpoint(&inside.bundle, &["--parent-path", &first]).failure();
    assert!(error.contains("--parent-path"), "{error}");
    assert!(error.contains("must be relative"), "{error}");
    checkpoint(
        &inside.bundle,
        &["--parent-path", "../first", "--auto-dedup"],
    )
    .success();
    let (before, after) = (pages(&first), pages(&images(&inside.bundle)));
    assert!(after > 0 && after < before, "{before} bytes, then {after}");
    restore(&inside.bundle, &[]).success();
    assert_eq!(inside.ask("echo $i"), "3\n");
}

/// A server of criu; killed on drop.
struct Server(Child);

impl Server {
    fn start(arguments: &[&str]) -> Server {
        let criu = Command::new("criu")
            .args(arguments)
            .stdin(Stdio::null())
            .spawn();
        Server(criu.unwrap())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended with its work.
        let _ended = self.0.kill();
        let _reaped = self.0.wait();
    }
}

/// Waits until somebody listens at a TCP port of this host.
fn wait_for_listener(port: u16) {
    let wanted = format!(":{port:04X} 00000000:0000 0A ");
    for _ in 0..600 {
        let table = fs::read_to_string("/proc/net/tcp").unwrap();
        if table.contains(&wanted) {
            return;
        }
        // The kernel has no event for it.
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    panic!("nobody listens at port {port}");
}

fn a_page_server_gets_the_pages() {
    let mut inside = counting();
    let images = images(&inside.bundle);
    let remote = format!("{}/remote", inside.bundle.path());
    fs::create_dir(&remote).unwrap();
    let server = Server::start(&[
        "page-server",
        "--images-dir",
        &remote,
        "--address",
        "127.0.0.1",
        "--port",
        "4711",
    ]);
    wait_for_listener(4711);
    checkpoint(&inside.bundle, &["--page-server", "127.0.0.1:4711"]).success();
    drop(server);
    assert_eq!(pages(&images), 0);
    assert!(pages(&remote) > 0);
    for entry in fs::read_dir(&remote).unwrap().map(Result::unwrap) {
        let name = entry.file_name();
        if name.to_string_lossy().ends_with(".img") {
            fs::copy(entry.path(), Path::new(&images).join(name)).unwrap();
        }
    }
    restore(&inside.bundle, &[]).success();
    assert_eq!(inside.ask("echo $i"), "2\n");
}

/// `checkpoint --lazy-pages`, which goes on as the server of the pages; returns when they can be asked for.
fn serving(bundle: &Bundle, port: &str) -> Server {
    let images = images(bundle);
    let (ready, told) = std::io::pipe().unwrap();
    let number = told.as_raw_fd().to_string();
    let address = format!("127.0.0.1:{port}");
    rustix::io::fcntl_setfd(&told, rustix::io::FdFlags::empty()).unwrap();
    let arguments = [
        "checkpoint",
        "--lazy-pages",
        "--page-server",
        &address,
        "--status-fd",
        &number,
        "--image-path",
        &images,
        &bundle.id,
    ];
    let log = fs::File::create(bundle.folder.join("serving")).unwrap();
    let mut command = command(bundle, &arguments);
    let child = command
        .stdin(Stdio::null())
        .stderr(log.try_clone().unwrap())
        .stdout(log)
        .spawn();
    let server = Server(child.unwrap());
    drop(told);
    wait_readable(&ready);
    let mut byte = [1];
    let length = std::io::Read::read(&mut &ready, &mut byte).unwrap();
    let said = fs::read_to_string(bundle.folder.join("serving")).unwrap();
    assert_eq!((length, byte), (1, [0]), "{said}");
    server
}

fn lazy_pages_come_when_they_are_used() {
    let mut inside = counting();
    let images = images(&inside.bundle);
    let mut server = serving(&inside.bundle, "4712");
    let work = format!("{}/work", inside.bundle.path());
    fs::create_dir(&work).unwrap();
    let _lazy = Server::start(&[
        "lazy-pages",
        "--page-server",
        "--address",
        "127.0.0.1",
        "--port",
        "4712",
        "--images-dir",
        &images,
        "--work-dir",
        &work,
    ]);
    while !Path::new(&work).join("lazy-pages.socket").exists() {
        // Nothing tells of it but the file.
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    let other = format!("{}-other", inside.bundle.id);
    restore_as(
        &inside.bundle,
        &other,
        &["--lazy-pages", "--work-path", &work],
    )
    .success();
    assert_eq!(inside.ask("echo $i"), "2\n");
    // All pages are given out: the checkpoint has ended, and the container with it.
    let status = server.0.wait().unwrap();
    let said = fs::read_to_string(inside.bundle.folder.join("serving")).unwrap();
    assert!(status.success(), "{said}");
    let told = inside.bundle.verb("state").failure();
    assert!(told.contains("does not exist"), "{told}");
    inside
        .bundle
        .parhelion(&["delete", "--force", &other])
        .success();
}
