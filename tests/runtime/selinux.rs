//! Labels of SELinux, in a virtual host that has it: `make test-selinux`, with the policy tests/vhost/selinux.conf.

use std::fs;
use std::path::Path;

use libtest_mimic::Trial;
use serde_json::json;

use crate::caller::init_pid;
use crate::checkpoint::{checkpoint, counter, is_gone, restore};
use crate::inside::Inside;
use crate::support::{Bundle, tests};

/// The tests of this file, where there is SELinux with their policy; elsewhere they are said to be left out.
pub fn all() -> Vec<Trial> {
    let all = tests![
        the_program_runs_under_its_label,
        a_label_that_the_policy_does_not_know_is_told,
        a_process_that_joins_has_the_label_of_the_container_or_its_own,
        new_file_systems_have_the_label_of_mounts,
        the_kind_of_the_label_of_mounts_can_be_chosen,
        a_restore_without_its_label_is_refused,
        a_restore_gives_mounts_their_label_or_another,
    ];
    let enabled = Path::new("/sys/fs/selinux/enforce").exists();
    if std::env::var_os("PARHELION_TEST_SELINUX").is_some() {
        assert!(
            enabled,
            "SELinux is not enabled, and these tests are to run"
        );
        return all;
    }
    let count = all.len();
    println!(
        "NOT HERE: {count} tests, as they need SELinux: make test runs them in a virtual host with it"
    );
    Vec::new()
}

const WEB: &str = "test_u:test_r:web_t";
const BATCH: &str = "test_u:test_r:batch_t";
const FILES: &str = "test_u:test_r:web_file_t";
const OTHER_FILES: &str = "test_u:test_r:batch_file_t";
const HOST: &str = "test_u:test_r:host_t";

/// A label as the kernel tells it, which ends it as C does.
fn told(text: &str) -> &str {
    text.trim_end_matches(['\0', '\n'])
}

fn the_program_runs_under_its_label() {
    for (no_new_privileges, uid) in [(false, 0), (true, 0), (true, 1000)] {
        let bundle = Bundle::new("");
        bundle.edit(|config| {
            let process = &mut config["process"];
            process["args"] = json!(["/bin/cat", "/proc/self/attr/current"]);
            process["selinuxLabel"] = json!(WEB);
            process["noNewPrivileges"] = json!(no_new_privileges);
            process["user"] = json!({"uid": uid, "gid": uid});
        });
        assert_eq!(told(&bundle.run().success()), WEB);
    }
    // Without one it is that of the caller.
    let bundle = Bundle::new("cat /proc/self/attr/current");
    assert_eq!(told(&bundle.run().success()), HOST);
    assert_eq!(
        told(&fs::read_to_string("/proc/self/attr/current").unwrap()),
        HOST
    );
}

fn a_label_that_the_policy_does_not_know_is_told() {
    for label in ["test_u:test_r:none_t", "no label"] {
        let bundle = Bundle::new("true");
        bundle.edit(|config| config["process"]["selinuxLabel"] = json!(label));
        let error = bundle.run().failure();
        let told = "process.selinuxLabel: write(\"/proc/thread-self/attr/keycreate\"";
        assert!(
            error.contains(told) && error.contains("invalid argument"),
            "{error}"
        );
        let bundle = Bundle::new("true");
        bundle.edit(|config| config["linux"]["mountLabel"] = json!(label));
        let error = bundle.run().failure();
        assert!(
            error.contains("mounts[1]") && error.contains(label),
            "{error}"
        );
    }
}

/// A container with both labels that runs, and is asked.
fn labelled(bundle: Bundle) -> Inside {
    bundle.edit(|config| {
        config["process"]["selinuxLabel"] = json!(WEB);
        config["linux"]["mountLabel"] = json!(FILES);
    });
    Inside::of(bundle)
}

fn a_process_that_joins_has_the_label_of_the_container_or_its_own() {
    let mut inside = labelled(Inside::bundle());
    assert_eq!(told(&inside.ask("cat /proc/1/attr/current")), WEB);
    let exec = |flags: &[&str]| {
        let shown = [inside.bundle.id.as_str(), "cat", "/proc/self/attr/current"];
        inside
            .bundle
            .parhelion(&[&["exec"], flags, &shown].concat())
    };
    assert_eq!(told(&exec(&[]).success()), WEB);
    assert_eq!(told(&exec(&["--process-label", BATCH]).success()), BATCH);
    let error = exec(&["--process-label", "test_u:test_r:none_t"]).failure();
    assert!(error.contains("process.selinuxLabel: write("), "{error}");
}

/// The label of a path, as the container's first process has it, from the host.
fn label_of(bundle: &Bundle, path: &str) -> String {
    let path = format!("/proc/{}/root{path}", init_pid(bundle));
    let mut label = [0_u8; 256];
    let length = rustix::fs::getxattr(&path, "security.selinux", &mut label[..]).unwrap();
    told(std::str::from_utf8(&label[..length]).unwrap()).to_owned()
}

/// The options of the file systems at these targets.
fn options(mounts: &str, target: &str) -> String {
    let line = mounts
        .lines()
        .find(|line| line.split(' ').nth(1) == Some(target));
    line.unwrap_or_else(|| panic!("{target} in {mounts}"))
        .to_owned()
}

fn new_file_systems_have_the_label_of_mounts() {
    let mut inside = labelled(Inside::bundle());
    let mounts = inside.ask("cat /proc/self/mounts; touch /dev/shm/made /dev/made");
    for target in ["/dev", "/dev/shm", "/dev/pts"] {
        let line = options(&mounts, target);
        // Quoted by the kernel where a colon or comma is in it.
        let option = line.contains(&format!("context={FILES}"));
        assert!(
            option || line.contains(&format!("context=\"{FILES}\"")),
            "{line}"
        );
    }
    for path in [
        "/dev",
        "/dev/null",
        "/dev/shm",
        "/dev/shm/made",
        "/dev/made",
        "/dev/mqueue",
    ] {
        assert_eq!(label_of(&inside.bundle, path), FILES, "{path}");
    }
    // What the kernel labels itself, and what is the host's.
    for path in ["/proc/version", "/sys/kernel", "/bin/busybox"] {
        let label = label_of(&inside.bundle, path);
        assert!(label.ends_with(":host_t"), "{path}: {label}");
    }
}

fn the_kind_of_the_label_of_mounts_can_be_chosen() {
    let bundle = Inside::bundle();
    bundle.edit(|config| {
        config["annotations"]["run.oci.mount_context_type"] = json!("rootcontext");
    });
    let mut inside = labelled(bundle);
    inside.ask("touch /dev/shm/made");
    assert_eq!(label_of(&inside.bundle, "/dev/shm"), FILES);
    // A file gets its label by the rules of the policy: of its folder's type, for an object.
    let made = label_of(&inside.bundle, "/dev/shm/made");
    assert!(made.ends_with(":object_r:web_file_t"), "{made}");
}

fn a_restore_without_its_label_is_refused() {
    let mut inside = labelled(counter());
    assert_eq!(inside.ask("echo $i"), "1\n");
    checkpoint(&inside.bundle, &[]).success();
    // Debian's CRIU is built without libselinux: it says nothing, and would leave the process with our label.
    let error = restore(&inside.bundle, &[]).failure();
    let told = format!(
        "process.selinuxLabel: criu has restored the process under {HOST:?}, and not {WEB:?}: a criu that was \
         built with libselinux is needed"
    );
    assert!(error.contains(&told), "{error}");
    assert!(is_gone(&inside.bundle));
    // One that is asked for by its flag, CRIU refuses itself.
    let profile = format!("selinux:{BATCH}");
    let error = restore(&inside.bundle, &["--lsm-profile", &profile]).failure();
    assert!(error.contains("selinux not supported"), "{error}");
    assert!(is_gone(&inside.bundle));
}

fn a_restore_gives_mounts_their_label_or_another() {
    let bundle = counter();
    bundle.edit(|config| config["linux"]["mountLabel"] = json!(FILES));
    let mut inside = Inside::of(bundle);
    assert_eq!(inside.ask("echo $i"), "1\n");
    checkpoint(&inside.bundle, &[]).success();
    for (flags, label) in [
        (&[][..], FILES),
        (&["--lsm-mount-context", OTHER_FILES], OTHER_FILES),
    ] {
        restore(&inside.bundle, flags).success();
        inside.ask("true");
        assert_eq!(label_of(&inside.bundle, "/dev/shm"), label);
        let delete = ["delete", "--force", &inside.bundle.id];
        inside.bundle.parhelion(&delete).success();
    }
}
