//! The mount options src-nofollow and dest-nofollow: a symbolic link is mounted itself, or mounted over.

use std::fs;
use std::os::unix::fs::symlink;

use libtest_mimic::Trial;
use serde_json::{Value, json};

use super::add;
use super::idmaps::user_namespace;
use crate::inside::Inside;
use crate::support::{Bundle, tests};

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    tests![
        a_link_of_the_host_is_mounted_itself,
        a_link_of_the_image_is_mounted_over,
        both_work_in_a_user_namespace,
        what_is_no_link_is_mounted_as_ever,
        a_link_that_leads_out_of_the_root_is_mounted_over_where_it_is,
        links_of_the_kernels_file_systems_are_not_mounted_over,
        what_can_not_be_meant_is_refused,
        both_are_added_to_a_container_that_runs_and_removed,
        a_container_with_them_is_not_checkpointed,
    ]
}

/// A bundle with links in the image and on the host, which lead to a file of each.
fn with_links(script: &str) -> Bundle {
    let bundle = Bundle::new(script);
    bundle.edit(|config| config["root"]["readonly"] = json!(false));
    lay(&bundle);
    bundle
}

fn lay(bundle: &Bundle) {
    let host = bundle.folder.join("host");
    fs::create_dir(&host).unwrap();
    fs::write(host.join("file"), "of the host\n").unwrap();
    symlink("file", host.join("link")).unwrap();
    symlink("/no/such", host.join("dangling")).unwrap();
    let image = bundle.folder.join("rootfs/etc");
    fs::write(image.join("file"), "of the image\n").unwrap();
    symlink("file", image.join("link")).unwrap();
    symlink("nowhere", image.join("dangling")).unwrap();
}

fn entry(name: &str, destination: &str, options: &[&str]) -> Value {
    let options = [&["bind"], options].concat();
    json!({"destination": destination, "source": format!("host/{name}"), "options": options})
}

/// Says what links are there and where they lead.
const LOOK: &str = "busybox readlink /etc/link; cat /etc/link";

fn a_link_of_the_host_is_mounted_itself() {
    // Onto a file: what leads there goes on to where the link says, in the container.
    let bundle = with_links(
        "busybox readlink /etc/place; cat /etc/place; busybox readlink /etc/lost; \
         busybox grep -c -e /etc/place -e /etc/lost /proc/self/mountinfo",
    );
    add(&bundle, entry("link", "/etc/place", &["src-nofollow"]));
    add(&bundle, entry("dangling", "/etc/lost", &["src-nofollow"]));
    assert_eq!(bundle.run().success(), "file\nof the image\n/no/such\n2\n");
    // Without the word the link is followed on the host.
    let bundle = with_links("cat /etc/place");
    add(&bundle, entry("link", "/etc/place", &[]));
    assert_eq!(bundle.run().success(), "of the host\n");
}

fn a_link_of_the_image_is_mounted_over() {
    let told = |options: &[&str]| {
        let bundle = with_links(&format!("{LOOK}; cat /etc/file"));
        add(&bundle, entry("link", "/etc/link", options));
        bundle.run().success()
    };
    // The file that the host's link leads to, in the place of the image's link.
    assert_eq!(told(&["dest-nofollow"]), "of the host\nof the image\n");
    // The host's link in that place: it says the same, and leads to the image's file.
    let both = ["dest-nofollow", "src-nofollow"];
    assert_eq!(told(&both), "file\nof the image\nof the image\n");
    // Without the words the file that the image's link leads to is covered.
    assert_eq!(told(&[]), "file\nof the host\nof the host\n");
    // A link that leads nowhere stays so: nothing is made where it leads.
    let bundle = with_links("cat /etc/dangling; ls /etc/nowhere 2>/dev/null || echo none");
    add(&bundle, entry("file", "/etc/dangling", &["dest-nofollow"]));
    assert_eq!(bundle.run().success(), "of the host\nnone\n");
    let image = bundle.folder.join("rootfs/etc/dangling");
    assert_eq!(fs::read_link(image).unwrap().to_str(), Some("nowhere"));
}

fn both_work_in_a_user_namespace() {
    for (options, told) in [
        (&["dest-nofollow"][..], "of the host\n"),
        (&["dest-nofollow", "src-nofollow"], "file\nof the image\n"),
    ] {
        let bundle = with_links(LOOK);
        let map = json!([{"containerID": 0, "hostID": 100_000, "size": 1000}]);
        user_namespace(&bundle, &map);
        add(&bundle, entry("link", "/etc/link", options));
        assert_eq!(bundle.run().success(), told);
    }
}

fn what_is_no_link_is_mounted_as_ever() {
    let bundle =
        with_links("cat /etc/file /new/folder/file; ls /mnt; echo x >/etc/file || echo ro");
    let both = ["ro", "src-nofollow", "dest-nofollow"];
    add(&bundle, entry("file", "/etc/file", &both));
    // What is missing is made, with all folders on the way.
    add(&bundle, entry("file", "/new/folder/file", &both));
    add(&bundle, entry(".", "/mnt", &both));
    assert_eq!(
        bundle.run().success(),
        "of the host\nof the host\ndangling\nfile\nlink\nro\n"
    );
    let bundle = with_links("true");
    add(&bundle, entry("none", "/etc/file", &["src-nofollow"]));
    let error = bundle.run().failure();
    assert!(
        error.contains("host/none\" does not exist on the host"),
        "{error}"
    );
}

fn a_link_that_leads_out_of_the_root_is_mounted_over_where_it_is() {
    let bundle = with_links("cat /etc/out /in/out");
    let outside = bundle.folder.join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("out"), "outside\n").unwrap();
    let rootfs = bundle.folder.join("rootfs");
    symlink(outside.join("out"), rootfs.join("etc/out")).unwrap();
    // On the way a link is followed as ever, inside the root.
    symlink(&outside, rootfs.join("in")).unwrap();
    add(&bundle, entry("file", "/etc/out", &["dest-nofollow"]));
    add(&bundle, entry("file", "/in/out", &["dest-nofollow"]));
    assert_eq!(bundle.run().success(), "of the host\nof the host\n");
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains("outside"), "{mounts}");
    assert_eq!(
        fs::read_to_string(outside.join("out")).unwrap(),
        "outside\n"
    );
}

fn links_of_the_kernels_file_systems_are_not_mounted_over() {
    for destination in ["/proc/self", "/proc/self/exe", "/sys/fs"] {
        let bundle = with_links("true");
        let both = ["src-nofollow", "dest-nofollow"];
        let name = if destination == "/sys/fs" {
            "."
        } else {
            "link"
        };
        add(&bundle, entry(name, destination, &both));
        let error = bundle.run().failure();
        let told =
            format!("\"{destination}\" is of proc, sysfs or devpts: operation not permitted");
        assert!(error.contains(&told), "{error}");
    }
}

fn what_can_not_be_meant_is_refused() {
    let bundle = with_links("true");
    let tmpfs = |options: Value| json!({"destination": "/mnt", "type": "tmpfs", "source": "x", "options": options});
    add(&bundle, tmpfs(json!(["src-nofollow"])));
    add(&bundle, tmpfs(json!(["dest-nofollow"])));
    add(
        &bundle,
        entry("file", "/mnt", &["remount", "dest-nofollow"]),
    );
    add(
        &bundle,
        entry("link", "/etc/link", &["copy-symlink", "src-nofollow"]),
    );
    let error = bundle.run().failure();
    for told in [
        "mounts[7].options: src-nofollow needs a bind mount",
        "mounts[8].options: dest-nofollow needs a bind mount",
        "mounts[9].options: dest-nofollow needs a bind mount",
        "mounts[10].options: src-nofollow and copy-symlink exclude each other",
    ] {
        assert!(error.contains(told), "{told:?} is not in {error}");
    }
    // A folder does not go onto a link.
    let bundle = with_links("true");
    add(&bundle, entry(".", "/etc/link", &["dest-nofollow"]));
    let error = bundle.run().failure();
    let told = "(mounts[7], to \"/etc/link\"): \"/etc/link\" is no folder, and what is mounted there is one";
    assert!(error.contains(told), "{error}");
}

fn both_are_added_to_a_container_that_runs_and_removed() {
    let bundle = Inside::bundle();
    bundle.edit(|config| config["root"]["readonly"] = json!(false));
    lay(&bundle);
    let mut inside = Inside::of(bundle);
    let both = ["src-nofollow", "dest-nofollow"];
    let mounts = json!([
        entry("link", "/etc/place", &["src-nofollow"]),
        entry("file", "/etc/link", &["dest-nofollow"]),
        entry("dangling", "/etc/dangling", &both),
    ]);
    let file = inside.bundle.folder.join("mounts.json");
    fs::write(&file, mounts.to_string()).unwrap();
    let id = inside.bundle.id.clone();
    let before = inside.ask("cat /proc/self/mounts");
    let change = |inside: &Inside, action: &str| {
        let arguments = ["mounts", action, &id, file.to_str().unwrap()];
        inside.bundle.parhelion(&arguments).success();
    };
    change(&inside, "add");
    let look = "busybox readlink /etc/place; cat /etc/link; busybox readlink /etc/dangling";
    assert_eq!(inside.ask(look), "file\nof the host\n/no/such\n");
    // The links that are mounted go, and not what they lead to.
    change(&inside, "remove");
    assert_eq!(inside.ask("cat /proc/self/mounts"), before);
    assert_eq!(inside.ask("busybox readlink /etc/dangling"), "nowhere\n");
}

fn a_container_with_them_is_not_checkpointed() {
    for word in ["src-nofollow", "dest-nofollow"] {
        let bundle = Inside::bundle();
        lay(&bundle);
        add(&bundle, entry("file", "/etc/file", &[word]));
        let mut inside = Inside::of(bundle);
        let id = inside.bundle.id.clone();
        let error = inside.bundle.parhelion(&["checkpoint", &id]).failure();
        let told = "mounts[7].options: criu can not mount a symbolic link, nor onto one";
        assert!(error.contains(told), "{error}");
        // It goes on.
        assert_eq!(inside.ask("cat /etc/file"), "of the host\n");
    }
}
