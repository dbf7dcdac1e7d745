//! Options together: what a bind mount keeps of its source, which word counts, remounts, copies.

use libtest_mimic::Trial;
use serde_json::json;

use super::options::Trees;
use super::{add, at, lines};
use crate::support::{Bundle, tests};

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    tests![
        a_bind_mount_without_options_keeps_what_its_source_has,
        a_bind_mount_with_an_option_has_exactly_what_it_asks_for,
        words_that_a_bind_mount_has_no_use_for_are_told,
        only_a_tmpfs_is_filled_with_what_it_covers,
        the_last_word_counts,
        a_remount_changes_what_is_there,
        a_remount_of_a_file_system_changes_its_options,
        an_empty_option_asks_for_nothing,
        tmpcopyup_fills_the_new_file_system,
        tmpcopyup_leaves_the_mode_and_owner_that_an_option_sets,
    ]
}

fn bind(bundle: &Bundle, destination: &str, options: &[&str]) {
    let source = bundle.folder.join("all");
    add(
        bundle,
        json!({"destination": destination, "type": "bind", "source": source, "options": options}),
    );
}

fn a_bind_mount_without_options_keeps_what_its_source_has() {
    let bundle = Bundle::new("cat /proc/self/mountinfo");
    let _trees = Trees::new(&bundle);
    bind(&bundle, "/kept", &["rbind", "rprivate"]);
    bind(&bundle, "/single", &["bind"]);
    let inside = lines(&bundle.run().success());
    for target in ["/kept", "/kept/sub", "/single"] {
        for word in [
            "ro",
            "nosuid",
            "nodev",
            "noexec",
            "noatime",
            "nodiratime",
            "nosymfollow",
        ] {
            assert!(at(&inside, target).has(word), "{word} at {target}");
        }
    }
    assert!(
        !inside.iter().any(|line| line.target == "/single/sub"),
        "bind is not rbind"
    );
}

fn a_bind_mount_with_an_option_has_exactly_what_it_asks_for() {
    let bundle = Bundle::new("cat /proc/self/mountinfo");
    let _trees = Trees::new(&bundle);
    bind(&bundle, "/read", &["bind", "ro"]);
    bind(&bundle, "/write", &["bind", "rw", "nodev"]);
    bind(&bundle, "/time", &["bind", "noexec", "relatime"]);
    let inside = lines(&bundle.run().success());
    // Access times stay as they were while no word is about them.
    assert_eq!(
        at(&inside, "/read").attributes,
        ["ro", "noatime", "nodiratime"]
    );
    assert_eq!(
        at(&inside, "/write").attributes,
        ["rw", "nodev", "noatime", "nodiratime"]
    );
    assert_eq!(
        at(&inside, "/time").attributes,
        ["rw", "noexec", "relatime"]
    );
}

/// As mount(2) has it; the container is the one that was asked for.
fn words_that_a_bind_mount_has_no_use_for_are_told() {
    let bundle = Bundle::new("cat /a/word");
    std::fs::create_dir(bundle.folder.join("source")).unwrap();
    std::fs::write(bundle.folder.join("source/word"), "there\n").unwrap();
    let options = ["bind", "mode=755", "size=1m", "sync", "async"];
    add(
        &bundle,
        json!({"destination": "/a", "source": "source", "options": options}),
    );
    let ran = bundle.run();
    assert_eq!(ran.success(), "there\n");
    let told = |word: &str| {
        let expected =
            format!("warning: mounts[7].options: \"{word}\" has no effect on a bind mount\n");
        ran.stderr().contains(&expected)
    };
    assert!(told("mode=755") && told("size=1m"), "{}", ran.stderr());
    assert!(!told("sync") && !told("async"), "{}", ran.stderr());
}

fn only_a_tmpfs_is_filled_with_what_it_covers() {
    let bundle = Bundle::new("true");
    for mount in [
        json!({"destination": "/b", "source": "/etc", "options": ["bind", "tmpcopyup"]}),
        json!({"destination": "/c", "type": "proc", "options": ["tmpcopyup"]}),
    ] {
        add(&bundle, mount);
    }
    let error = bundle.create().failure();
    for expected in [
        "mounts[7].options: tmpcopyup needs a mount of type tmpfs",
        "mounts[8].options: tmpcopyup needs a mount of type tmpfs",
    ] {
        assert!(error.contains(expected), "{expected:?} is not in {error}");
    }
}

fn the_last_word_counts() {
    let bundle = Bundle::new("cat /proc/self/mountinfo");
    let mount = |destination: &str, options: &[&str]| {
        add(
            &bundle,
            json!({"destination": destination, "type": "tmpfs", "options": options}),
        );
    };
    mount(
        "/a",
        &[
            "ro",
            "rw",
            "nosuid",
            "suid",
            "dev",
            "nodev",
            "noatime",
            "strictatime",
        ],
    );
    mount(
        "/b",
        &["rw", "ro", "async", "sync", "strictatime", "noatime"],
    );
    let inside = lines(&bundle.run().success());
    assert_eq!(at(&inside, "/a").attributes, ["rw", "nodev"]);
    assert_eq!(at(&inside, "/b").attributes, ["ro", "noatime"]);
    assert!(at(&inside, "/b").options.contains(&"sync".to_owned()));
}

fn a_remount_changes_what_is_there() {
    let bundle = Bundle::new("cat /proc/self/mountinfo");
    let _trees = Trees::new(&bundle);
    bind(&bundle, "/a", &["rbind", "nosuid", "nodev"]);
    let remount = ["bind", "remount", "ro", "noexec"];
    add(
        &bundle,
        json!({"destination": "/a", "type": "none", "options": remount}),
    );
    let inside = lines(&bundle.run().success());
    assert_eq!(
        at(&inside, "/a").attributes,
        ["ro", "noexec", "noatime", "nodiratime"]
    );
    let nothing = Bundle::new("true");
    add(
        &nothing,
        json!({"destination": "/etc", "type": "none", "options": ["bind", "remount", "ro"]}),
    );
    let error = nothing.create().failure();
    assert!(error.contains("(mounts[7], to \"/etc\")"), "{error}");
}

fn a_remount_of_a_file_system_changes_its_options() {
    let bundle = Bundle::new("cat /proc/self/mountinfo");
    let options = ["size=1m", "sync", "nosuid"];
    add(
        &bundle,
        json!({"destination": "/a", "type": "tmpfs", "options": options}),
    );
    let options = ["remount", "size=2m", "async", "ro"];
    add(
        &bundle,
        json!({"destination": "/a", "type": "tmpfs", "options": options}),
    );
    let inside = lines(&bundle.run().success());
    let seen = at(&inside, "/a");
    assert_eq!(seen.attributes, ["ro", "relatime"]);
    for expected in ["ro", "size=2048k"] {
        assert!(seen.options.iter().any(|o| o == expected), "{seen:?}");
    }
    assert!(!seen.options.iter().any(|o| o == "sync"), "{seen:?}");
}

fn an_empty_option_asks_for_nothing() {
    let bundle = Bundle::new("stat -c %a /new; ls /etc");
    std::fs::write(bundle.folder.join("rootfs/etc/seen"), "").unwrap();
    for (destination, kind, options) in [
        ("/new", "tmpfs", json!(["", "mode=700", ""])),
        ("/etc", "bind", json!(["rbind", ""])),
    ] {
        let source = bundle.folder.join("rootfs/etc");
        let mount =
            json!({"destination": destination, "type": kind, "source": source, "options": options});
        add(&bundle, mount);
    }
    assert_eq!(bundle.run().success(), "700\nseen\n");
}

fn tmpcopyup_fills_the_new_file_system() {
    let bundle = Bundle::new(
        "cd /var; cat file folder/deep; ls -l link; stat -c '%a %u:%g %n' . file folder fifo; \
         echo new > file; stat -f -c %T .",
    );
    let var = bundle.folder.join("rootfs/var");
    std::fs::create_dir_all(var.join("folder")).unwrap();
    std::fs::write(var.join("file"), "kept\n").unwrap();
    std::fs::write(var.join("folder/deep"), "below\n").unwrap();
    std::os::unix::fs::symlink("folder/deep", var.join("link")).unwrap();
    nix::unistd::mkfifo(
        &var.join("fifo"),
        nix::sys::stat::Mode::from_bits_retain(0o600),
    )
    .unwrap();
    let mode = |path: &std::path::Path, mode| {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    mode(&var, 0o750);
    mode(&var.join("file"), 0o4711);
    mode(&var.join("folder"), 0o1777);
    std::os::unix::fs::chown(var.join("folder"), Some(7), Some(8)).unwrap();
    let options = ["tmpcopyup", "size=1m"];
    add(
        &bundle,
        json!({"destination": "/var", "type": "tmpfs", "options": options}),
    );
    let seen = bundle.run().success();
    for expected in [
        "kept\nbelow\n",
        "link -> folder/deep",
        "750 0:0 .\n4711 0:0 file\n1777 7:8 folder\n600 0:0 fifo\n",
        "tmpfs",
    ] {
        assert!(seen.contains(expected), "{expected:?} is not in {seen}");
    }
    assert_eq!(
        std::fs::read_to_string(var.join("file")).unwrap(),
        "kept\n",
        "the image is untouched"
    );
}

fn tmpcopyup_leaves_the_mode_and_owner_that_an_option_sets() {
    let bundle = Bundle::new("cat /var/file; stat -c '%a %u:%g' /var /other");
    for folder in ["var", "other"] {
        let folder = bundle.folder.join("rootfs").join(folder);
        std::fs::create_dir_all(&folder).unwrap();
        std::os::unix::fs::chown(&folder, Some(7), Some(8)).unwrap();
        std::fs::write(folder.join("file"), "kept\n").unwrap();
    }
    for (destination, options) in [
        ("/var", ["tmpcopyup", "mode=1711"]),
        ("/other", ["tmpcopyup", "uid=5"]),
    ] {
        let mount = json!({"destination": destination, "type": "tmpfs", "options": options});
        add(&bundle, mount);
    }
    let seen = bundle.run().success();
    assert_eq!(seen, "kept\n1711 7:8\n755 5:8\n");
}
