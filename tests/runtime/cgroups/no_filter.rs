//! Devices that are denied where no cgroup filters them: they are kept out by mounts, or the container is
//! refused.

use std::fs;
use std::path::Path;

use libtest_mimic::Trial;
use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
use serde_json::{Value, json};

use crate::inside::Inside;
use crate::support::{Bundle, Ran, tests};

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    tests![
        denied_devices_are_kept_out_wherever_they_come_from,
        what_keeps_them_out_can_not_be_undone_inside,
        a_device_that_is_allowed_can_be_used,
        what_could_not_be_held_to_is_refused,
        a_dev_that_is_not_made_for_the_container_is_refused,
        a_process_that_joins_gets_no_capability_to_make_devices,
        a_mount_that_is_added_brings_no_device,
        nothing_is_kept_out_where_every_device_is_allowed,
    ]
}

/// The node of a device that a container has in any case, /dev/zero, made anew. With it goes what is about
/// the place and not about the device.
fn node(path: &Path) {
    let mode = Mode::from(0o666);
    let device = makedev(1, 5);
    mknodat(CWD, path, FileType::CharacterDevice, mode, device).unwrap();
    rustix::fs::chmod(path, mode).unwrap();
}

/// A bundle with Podman's rules, and nodes in its image and in a folder beside it.
fn denying(script: &str) -> Bundle {
    let bundle = Bundle::new(script);
    lay(&bundle);
    bundle
}

fn lay(bundle: &Bundle) {
    bundle.edit(|config| {
        config["linux"]["resources"] = json!({"devices": [{"allow": false, "access": "rwm"}]});
        config["linux"]
            .as_object_mut()
            .unwrap()
            .remove("cgroupsPath");
        config["root"]["readonly"] = json!(false);
    });
    node(&bundle.folder.join("rootfs/node"));
    fs::create_dir(bundle.folder.join("volume")).unwrap();
    node(&bundle.folder.join("volume/node"));
}

fn add(bundle: &Bundle, entry: Value) {
    bundle.edit(|config| config["mounts"].as_array_mut().unwrap().push(entry));
}

fn run(bundle: &Bundle) -> Ran {
    let run = ["--cgroup-manager=disabled", "run", "--bundle"];
    bundle.parhelion(&[&run[..], &[bundle.path(), &bundle.id]].concat())
}

/// Opens each, and says whether that could be done.
fn open(paths: &[&str]) -> String {
    let one = |path: &&str| format!("(: <{path}) 2>/tmp/e && echo yes || echo no {path};");
    paths.iter().map(one).collect()
}

fn denied_devices_are_kept_out_wherever_they_come_from() {
    let bundle = denying(&format!(
        "{} cat /tmp/e; stat -c %F /node /volume/node",
        open(&[
            "/dev/zero",
            "/dev/null",
            "/dev/pts/ptmx",
            "/node",
            "/volume/node",
            "/one"
        ])
    ));
    add(
        &bundle,
        json!({"destination": "/volume", "source": "volume", "options": ["rbind", "dev"]}),
    );
    add(
        &bundle,
        json!({"destination": "/one", "source": "volume/node", "options": ["bind"]}),
    );
    add(
        &bundle,
        json!({"destination": "/volume", "options": ["bind", "remount", "dev"]}),
    );
    let ran = run(&bundle);
    let told = ran.success();
    let expected = "yes\nyes\nyes\nno /node\nno /volume/node\nno /one\n";
    assert!(told.starts_with(expected), "{told}");
    assert!(told.contains("/one: Permission denied"), "{told}");
    assert!(
        told.ends_with("character special file\ncharacter special file\n"),
        "{told}"
    );
    assert_eq!(ran.stderr(), "");
    // And of the host's own nothing has changed.
    assert!(fs::File::open(bundle.folder.join("volume/node")).is_ok());
    assert!(fs::File::open(bundle.folder.join("rootfs/node")).is_ok());
}

fn what_keeps_them_out_can_not_be_undone_inside() {
    let bundle = denying(&format!(
        "busybox mknod /tmp/made c 1 5 2>&1; \
         busybox mount -o remount,bind,dev / 2>&1; \
         busybox mv /node /dev/moved 2>&1; \
         busybox unshare -U -r -m busybox mount -o remount,bind,dev / 2>&1; \
         busybox unshare -U -r -m busybox mknod /tmp/made c 1 5 2>&1; {}",
        open(&["/node", "/tmp/made", "/dev/moved"])
    ));
    let told = run(&bundle).success();
    assert!(
        told.ends_with("no /node\nno /tmp/made\nno /dev/moved\n"),
        "{told}"
    );
    assert_eq!(
        told.matches("ermitted").count() + told.matches("denied").count(),
        5,
        "{told}"
    );
}

fn a_device_that_is_allowed_can_be_used() {
    let bundle = denying(&open(&["/dev/more", "/node"]));
    bundle.edit(|config| {
        // The messages of the kernel; it asks for this to let them be read.
        for set in ["bounding", "effective", "permitted"] {
            let set = config["process"]["capabilities"][set].as_array_mut();
            set.unwrap().push(json!("CAP_SYSLOG"));
        }
        config["linux"]["devices"] =
            json!([{"path": "/dev/more", "type": "c", "major": 1, "minor": 11, "fileMode": 438}]);
        let rules = config["linux"]["resources"]["devices"]
            .as_array_mut()
            .unwrap();
        rules.push(json!({"allow": true, "type": "c", "major": 1, "minor": 11, "access": "rw"}));
    });
    let told = run(&bundle).success();
    assert_eq!(told, "yes\nno /node\n");
}

/// Refuses a bundle that `change` has changed, and says what would be needed.
fn refused(what: &str, change: impl FnOnce(&mut Value)) {
    let bundle = denying("true");
    bundle.edit(change);
    let error = run(&bundle).failure();
    let told = format!(
        "linux.resources.devices: without a cgroup there is no filter, and mounts without devices keep \
         out what is denied: that takes {what}; or allow every device"
    );
    assert!(error.contains(&told), "{error}");
    assert!(!bundle.folder.join("state").join(&bundle.id).exists());
}

fn what_could_not_be_held_to_is_refused() {
    for name in ["CAP_MKNOD", "CAP_SYS_ADMIN"] {
        refused(&format!("process.capabilities without {name}"), |config| {
            let bounding = &mut config["process"]["capabilities"]["bounding"];
            bounding.as_array_mut().unwrap().push(json!(name));
        });
    }
    refused("a new pid namespace", |config| {
        let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|namespace| namespace["type"] != "pid");
    });
    let shared = json!({"destination": "/mnt", "source": "/tmp", "options": ["rbind", "rslave"]});
    refused(
        "private mounts, and that at /mnt shares with the host",
        |config| {
            config["mounts"].as_array_mut().unwrap().push(shared);
        },
    );
    let device = |path: &str| json!([{"path": path, "type": "c", "major": 1, "minor": 11}]);
    refused("rules that allow the use of /dev/kmsg", |config| {
        config["linux"]["devices"] = device("/dev/kmsg");
    });
    refused("every device in /dev, and /kmsg is not", |config| {
        config["linux"]["devices"] = device("/kmsg");
    });
}

fn a_dev_that_is_not_made_for_the_container_is_refused() {
    let what = "a tmpfs at /dev, without tmpcopyup";
    refused(what, |config| {
        let mounts = config["mounts"].as_array_mut().unwrap();
        mounts.retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/dev"));
    });
    refused(what, |config| {
        let mounts = config["mounts"].as_array_mut().unwrap();
        let dev = mounts
            .iter_mut()
            .find(|mount| mount["destination"] == "/dev");
        dev.unwrap()["options"]
            .as_array_mut()
            .unwrap()
            .push(json!("tmpcopyup"));
    });
    refused(what, |config| {
        let host = json!({"destination": "/dev", "source": "/dev", "options": ["rbind"]});
        config["mounts"].as_array_mut().unwrap().push(host);
    });
}

/// Such a container that runs and is asked.
fn inside() -> Inside {
    let bundle = Inside::bundle();
    lay(&bundle);
    Inside::started(bundle, |bundle| {
        let create = ["--cgroup-manager=disabled", "create", "--bundle"];
        let arguments = [&create[..], &[bundle.path(), &bundle.id]].concat();
        crate::caller::quietly(&mut crate::caller::command(bundle, &arguments));
        bundle.verb("start").success();
    })
}

fn a_process_that_joins_gets_no_capability_to_make_devices() {
    let inside = inside();
    let id = &inside.bundle.id;
    for capability in ["CAP_MKNOD", "CAP_SYS_ADMIN"] {
        let error = inside
            .bundle
            .parhelion(&["exec", "--cap", capability, id, "true"]);
        let told = format!("process.capabilities: {capability} would undo what keeps devices out");
        let error = error.failure();
        assert!(error.contains(&told), "{error}");
    }
    let exec = ["exec", "--cap", "CAP_NET_RAW", id, "sh", "-c"];
    let script = open(&["/dev/zero", "/node"]);
    let told = inside.bundle.parhelion(&[&exec[..], &[&script]].concat());
    assert_eq!(told.success(), "yes\nno /node\n");
}

fn a_mount_that_is_added_brings_no_device() {
    let mut inside = inside();
    let file = inside.bundle.folder.join("mounts.json");
    let source = inside.bundle.folder.join("volume");
    let change = |options: Value| {
        let mounts = json!([{"destination": "/mnt", "source": source, "options": options}]);
        fs::write(&file, mounts.to_string()).unwrap();
        let arguments = ["mounts", "add", &inside.bundle.id, file.to_str().unwrap()];
        inside.bundle.parhelion(&arguments)
    };
    let error = change(json!(["rbind", "rshared"])).failure();
    assert!(
        error.contains("takes private mounts, and that at /mnt shares"),
        "{error}"
    );
    change(json!(["rbind", "dev"])).success();
    assert_eq!(
        inside.ask(&open(&["/mnt/node", "/dev/zero"])),
        "no /mnt/node\nyes\n"
    );
}

fn nothing_is_kept_out_where_every_device_is_allowed() {
    let bundle = denying(&open(&["/dev/zero", "/node"]));
    bundle.edit(|config| {
        config["linux"]["resources"] = json!({"devices": [{"allow": true, "access": "rwm"}]});
    });
    assert_eq!(run(&bundle).success(), "yes\nyes\n");
}
