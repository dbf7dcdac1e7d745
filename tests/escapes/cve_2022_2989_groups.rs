//! CVE-2022-2989 (Podman), CVE-2022-2990 (Buildah), CVE-2022-2995 (CRI-O), CVE-2022-36109 (Moby), CVE-2023-25173
//! (containerd): the program has groups that it should not have, or lacks one that denies it a file.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};

use libtest_mimic::Trial;
use serde_json::json;

use crate::caller::from_shell;
use crate::subject::Subject;
use crate::support::{Bundle, Ran, tests};

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    tests![
        files_of_the_callers_groups_can_not_be_read,
        files_of_the_callers_groups_would_be_read_by_who_keeps_them,
        a_file_that_a_group_may_not_read_is_denied_to_each_of_its_members,
    ]
}

/// A group of whoever calls the runtime, as `disk` or `docker`.
const OF_CALLER: u32 = 7001;
/// A group whose members may read less than others.
const DENIED: u32 = 7002;

/// Prints the caller's file, which its group may read, and the denied one, which all but its group may.
const PRINT: &str = "cat /volume/of-caller; cat /volume/denied; true";

/// An ordinary user's container with a volume of the host's that has both files.
fn bundle(script: &str) -> Bundle {
    let bundle = Subject::Real.bundle(script);
    let volume = bundle.folder.join("volume");
    fs::create_dir(&volume).unwrap();
    fs::set_permissions(&volume, fs::Permissions::from_mode(0o755)).unwrap();
    for (name, group, mode) in [("of-caller", OF_CALLER, 0o640), ("denied", DENIED, 0o604)] {
        let file = volume.join(name);
        fs::write(&file, format!("{name}\n")).unwrap();
        chown(&file, Some(0), Some(group)).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
    }
    bundle.edit(|config| {
        let mount = json!({"destination": "/volume", "source": volume, "type": "bind", "options": ["bind"]});
        config["mounts"].as_array_mut().unwrap().push(mount);
        config["process"]["user"] = json!({"uid": 1000, "gid": 1000});
        config["process"]["capabilities"] = json!({});
    });
    bundle
}

/// What a command prints whose caller has further groups.
fn called(bundle: &Bundle, words: &[&str]) -> String {
    let script = format!(r#"exec setpriv --groups {OF_CALLER},0 "$@""#);
    Ran(from_shell(bundle, &script, words).output().unwrap()).success()
}

fn run(bundle: &Bundle) -> String {
    called(bundle, &["run", "--bundle", bundle.path(), &bundle.id])
}

/// The same by exec, with these flags.
fn exec(flags: &[&str]) -> String {
    let bundle = bundle("exec sleep 100000");
    crate::caller::start(&bundle);
    let program = [&bundle.id, "/bin/sh", "-c", PRINT];
    called(&bundle, &[&["exec"], flags, &program].concat())
}

fn files_of_the_callers_groups_can_not_be_read() {
    assert_eq!(run(&bundle(PRINT)), "denied\n");
    assert_eq!(exec(&[]), "denied\n");
    assert_eq!(exec(&["--user", "1001:1001"]), "denied\n");
}

fn files_of_the_callers_groups_would_be_read_by_who_keeps_them() {
    let bundle = bundle(PRINT);
    bundle.edit(|config| {
        config["annotations"] = json!({"run.oci.keep_original_groups": "1"});
    });
    assert_eq!(run(&bundle), "of-caller\ndenied\n");
}

fn a_file_that_a_group_may_not_read_is_denied_to_each_of_its_members() {
    let users = [
        json!({"uid": 1000, "gid": DENIED}),
        json!({"uid": 1000, "gid": 1000, "additionalGids": [DENIED]}),
        json!({"uid": 1000, "gid": DENIED, "additionalGids": [1000]}),
    ];
    for user in users {
        let bundle = bundle(PRINT);
        bundle.edit(|config| config["process"]["user"] = user.clone());
        assert_eq!(run(&bundle), "", "{user}");
    }
    let group = DENIED.to_string();
    assert_eq!(exec(&["--user", &format!("1000:{group}")]), "");
    assert_eq!(exec(&["--additional-gids", &group]), "");
    // In no such group it is read, as the tests above show.
}
