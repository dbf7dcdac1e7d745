//! What of a container is the host's: bind mounts above all.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use libtest_mimic::Trial;
use serde_json::json;

use super::{checkpoint, counter, restore};
use crate::inside::Inside;
use crate::support::{Bundle, needs_systemd, tests};

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    let mut all = tests![
        bind_mounts_are_there_again_with_their_options,
        what_is_mounted_below_a_bind_mount_is_there_again,
        missing_mount_points_are_made,
        a_container_in_a_user_namespace_goes_on,
        the_cgroup_mount_of_the_host_is_there_again,
        locks_on_files_hold_again_where_they_are_asked_for,
        a_name_that_was_removed_is_there_again_where_it_is_asked_for,
    ];
    all.extend(needs_systemd(tests![
        a_container_in_a_scope_of_systemd_goes_on
    ]));
    all
}

/// A folder of the host with a file in it.
fn folder(bundle: &Bundle, name: &str) -> PathBuf {
    let folder = bundle.folder.join(name);
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("file"), name).unwrap();
    folder
}

fn mount(bundle: &Bundle, source: &std::path::Path, destination: &str, options: &[&str]) {
    bundle.edit(|config| {
        let mounts = config["mounts"].as_array_mut().unwrap();
        mounts.push(
            json!({"destination": destination, "source": source, "type": "bind",
            "options": options}),
        );
    });
}

fn bind_mounts_are_there_again_with_their_options() {
    let bundle = counter();
    mount(
        &bundle,
        &folder(&bundle, "data"),
        "/data",
        &["bind", "ro", "nosuid"],
    );
    let file = folder(&bundle, "one").join("file");
    mount(&bundle, &file, "/data2/inner/file", &["bind", "rw"]);
    // Through a link of the image, and on a file system of the container's own.
    std::os::unix::fs::symlink("tmp", bundle.folder.join("rootfs/link")).unwrap();
    mount(
        &bundle,
        &folder(&bundle, "linked"),
        "/link/place",
        &["rbind"],
    );
    mount(&bundle, &folder(&bundle, "shm"), "/dev/shm/host", &["bind"]);
    let mut inside = Inside::of(bundle);
    let table = "busybox grep -E ' /(data|data2/inner/file|tmp/place|dev/shm/host) ' \
        /proc/self/mountinfo | busybox cut -d ' ' -f 4-6 | busybox sort";
    let look = "cat /data/file /data2/inner/file /tmp/place/file /dev/shm/host/file; \
        touch /data/file; echo more >>/data2/inner/file";
    let before = (inside.ask(table), inside.ask(look));
    assert_eq!(before.0.lines().count(), 4, "{}", before.0);
    checkpoint(&inside.bundle, &[]).success();
    restore(&inside.bundle, &[]).success();
    assert_eq!(inside.ask(table), before.0);
    let after = inside.ask(look);
    assert_eq!(after, before.1.replacen("one", "onemore\n", 1));
    assert!(after.contains("Read-only file system"), "{after}");
    assert_eq!(fs::read_to_string(file).unwrap(), "onemore\nmore\n");
}

fn what_is_mounted_below_a_bind_mount_is_there_again() {
    let bundle = counter();
    let data = folder(&bundle, "data");
    let below = data.join("below");
    fs::create_dir(&below).unwrap();
    let none = None::<&str>;
    nix::mount::mount(
        Some("none"),
        &below,
        Some("tmpfs"),
        nix::mount::MsFlags::empty(),
        none,
    )
    .unwrap();
    fs::write(below.join("file"), "below").unwrap();
    mount(&bundle, &data, "/data", &["rbind"]);
    let mut inside = Inside::of(bundle);
    let look = "cat /data/below/file";
    assert_eq!(inside.ask(look), "below");
    checkpoint(&inside.bundle, &[]).success();
    restore(&inside.bundle, &[]).success();
    let after = inside.ask(look);
    inside
        .bundle
        .parhelion(&["delete", "--force", &inside.bundle.id])
        .success();
    nix::mount::umount(&below).unwrap();
    assert_eq!(after, "below");
}

fn missing_mount_points_are_made() {
    let bundle = counter();
    mount(&bundle, &folder(&bundle, "data"), "/new/data", &["bind"]);
    let nested = folder(&bundle, "nested");
    mount(&bundle, &nested, "/new/data/nested", &["bind"]);
    let mut inside = Inside::of(bundle);
    checkpoint(&inside.bundle, &[]).success();
    // As in an image that was unpacked anew.
    let rootfs = inside.bundle.folder.join("rootfs");
    fs::remove_dir_all(rootfs.join("new")).unwrap();
    fs::remove_dir(inside.bundle.folder.join("data/nested")).unwrap();
    for empty in ["proc", "sys", "dev"] {
        fs::remove_dir(rootfs.join(empty)).unwrap();
    }
    restore(&inside.bundle, &[]).success();
    let look = "cat /new/data/file /new/data/nested/file; echo; ls -d /proc/1";
    assert_eq!(inside.ask(look), "datanested\n/proc/1\n");
}

fn a_container_in_a_user_namespace_goes_on() {
    let bundle = counter();
    bundle.edit(|config| {
        let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.push(json!({"type": "user"}));
        for map in ["uidMappings", "gidMappings"] {
            config["linux"][map] = json!([{"containerID": 0, "hostID": 200_000, "size": 65536}]);
        }
    });
    let rootfs = bundle.folder.join("rootfs");
    let chown = Command::new("chown")
        .args(["-R", "200000:200000"])
        .arg(rootfs)
        .status();
    assert!(chown.unwrap().success());
    let mut inside = Inside::of(bundle);
    // Files are opened anew, by the container's own root.
    let output = inside.bundle.folder.join("output");
    fs::set_permissions(output, fs::Permissions::from_mode(0o666)).unwrap();
    let look = "cat /proc/self/uid_map; id -u; ls -l /dev/null";
    let before = inside.ask(look);
    checkpoint(&inside.bundle, &[]).success();
    // And so are the images read.
    let images = super::images(&inside.bundle);
    fs::set_permissions(images, fs::Permissions::from_mode(0o711)).unwrap();
    restore(&inside.bundle, &[]).success();
    assert_eq!(inside.ask(look), before);
    assert!(before.contains("200000"), "{before}");
}

fn a_container_in_a_scope_of_systemd_goes_on() {
    let mut inside = super::counting();
    checkpoint(&inside.bundle, &[]).success();
    let bundle = &inside.bundle;
    let images = super::images(bundle);
    let arguments = [
        "--systemd-cgroup",
        "restore",
        "--detach",
        "--image-path",
        &images,
        "--bundle",
        bundle.path(),
        &bundle.id,
    ];
    let output = fs::File::create(bundle.folder.join("output")).unwrap();
    let mut restore = crate::caller::command(bundle, &arguments);
    let restore = restore.stdin(std::process::Stdio::null());
    let restored = restore
        .stdout(output.try_clone().unwrap())
        .stderr(output)
        .status();
    let told = fs::read_to_string(bundle.folder.join("output")).unwrap();
    assert!(restored.unwrap().success(), "{told}");
    assert_eq!(inside.ask("echo $i"), "2\n");
    let pid = crate::caller::init_pid(&inside.bundle);
    let cgroup = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let scope = format!("0::/system.slice/parhelion-{}.scope\n", inside.bundle.id);
    assert_eq!(cgroup, scope);
}

fn the_cgroup_mount_of_the_host_is_there_again() {
    let bundle = counter();
    bundle.edit(|config| {
        let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|entry| entry["type"] != "cgroup");
    });
    let mut inside = Inside::of(bundle);
    let own = format!("/sys/fs/cgroup/parhelion/{}", inside.bundle.id);
    let look = format!("cat /proc/1/cgroup; ls -d {own} {own}/*");
    let before = inside.ask(&look);
    assert!(
        before.contains(&format!("{own}/cgroup.procs\n")),
        "{before}"
    );
    checkpoint(&inside.bundle, &[]).success();
    restore(&inside.bundle, &[]).success();
    assert_eq!(inside.ask(&look), before);
}

/// flock(1) of the host, which the image does not have.
const FLOCK: &str =
    "/data/lib64/ld-linux-x86-64.so.2 --library-path /data/lib/x86_64-linux-gnu /data/bin/flock";

fn locks_on_files_hold_again_where_they_are_asked_for() {
    let bundle = counter();
    let usr = std::path::Path::new("/usr");
    mount(&bundle, usr, "/data", &["bind", "ro", "rprivate"]);
    let mut inside = Inside::of(bundle);
    // Who holds the lock waits for what never comes.
    inside.ask("busybox mkfifo /tmp/never");
    let hold = format!("{FLOCK} 5; echo >/tmp/held; read line <&6");
    inside.ask(&format!(
        "(exec 5>/tmp/locked 6<>/tmp/never 3>&- 4>&-; {hold}) </dev/null >/dev/null 2>&1 &"
    ));
    inside.ask("until test -e /tmp/held; do :; done");
    let taken = format!("{FLOCK} --nonblock /tmp/locked busybox true; echo $?");
    assert_eq!(inside.ask(&taken), "1\n");
    checkpoint(&inside.bundle, &["--file-locks"]).success();
    restore(&inside.bundle, &["--file-locks"]).success();
    assert_eq!(inside.ask(&taken), "1\n");
    let error = checkpoint(&inside.bundle, &[]).failure();
    assert!(error.contains("--file-locks"), "{error}");
}

/// The file has another name, so that CRIU can not make it anew.
fn a_name_that_was_removed_is_there_again_where_it_is_asked_for() {
    let bundle = counter();
    mount(&bundle, &folder(&bundle, "own"), "/data", &["bind", "rw"]);
    let mut inside = Inside::of(bundle);
    inside.ask("busybox mkfifo /tmp/go; busybox ln /data/file /data/other");
    let hold = "rm /data/file; echo >/tmp/held; read line <&6; cat <&5 >/tmp/said";
    inside.ask(&format!(
        "(exec 5</data/file 6<>/tmp/go 3>&- 4>&-; {hold}) </dev/null >/dev/null 2>&1 &"
    ));
    inside.ask("until test -e /tmp/held; do :; done");
    let error = checkpoint(&inside.bundle, &[]).failure();
    assert!(error.contains("link-remap"), "{error}");
    checkpoint(&inside.bundle, &["--link-remap"]).success();
    restore(&inside.bundle, &[]).success();
    let said = inside.ask("echo >/tmp/go; until test -s /tmp/said; do :; done; cat /tmp/said");
    assert_eq!(said, "own");
}
