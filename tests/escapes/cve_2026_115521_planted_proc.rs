//! CVE-2026-115521 (crun): what is to be made read-only is looked up as /proc/self/fd/N, which is the image's: another mount gets
//! read-only, and the root or a volume can be written to.

use std::fs;
use std::os::unix::fs::symlink;

use libtest_mimic::Trial;
use serde_json::json;

use crate::subject::Subject;
use crate::support::tests;

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    tests![
        what_is_read_only_or_hidden_is_so_whatever_the_image_has_at_proc,
        what_is_not_asked_to_be_read_only_would_be_written,
    ]
}

/// Places that can be written to, and the hidden file if it can be read.
const PROBE: &str = "for place in / /volume /kept; do
        if (echo x > $place/written) 2>/dev/null; then echo $place; fi
    done
    cat /secret";

/// What the probe tells, in an image whose links in the place of procfs all lead elsewhere.
fn told(subject: Subject, read_only: bool) -> String {
    let bundle = subject.bundle(PROBE);
    let rootfs = bundle.folder.join("rootfs");
    let volume = bundle.folder.join("volume");
    for folder in [&volume, &rootfs.join("kept"), &rootfs.join("elsewhere")] {
        fs::create_dir(folder).unwrap();
    }
    fs::write(rootfs.join("secret"), "secret\n").unwrap();
    let own = rootfs.join("proc/self");
    let folders = ["fd", "task/1/fd", "attr"].map(|name| own.join(name));
    for folder in &folders {
        fs::create_dir_all(folder).unwrap();
        for number in 0..256 {
            symlink("/elsewhere", folder.join(number.to_string())).unwrap();
        }
    }
    symlink("self", rootfs.join("proc/thread-self")).unwrap();
    symlink("self", rootfs.join("proc/1")).unwrap();
    bundle.edit(|config| {
        let mounts = config["mounts"].as_array_mut().unwrap();
        mounts.retain(|mount| mount["destination"] != "/proc");
        let word = if read_only { "ro" } else { "rw" };
        mounts.push(
            json!({"destination": "/volume", "source": volume, "type": "bind",
            "options": ["bind", word]}),
        );
        config["root"]["readonly"] = json!(read_only);
        config["linux"]["maskedPaths"] = json!(["/secret"]);
        config["linux"]["readonlyPaths"] = json!(["/kept"]);
    });
    bundle.run().success()
}

fn what_is_read_only_or_hidden_is_so_whatever_the_image_has_at_proc() {
    assert_eq!(told(Subject::Real, true), "");
}

fn what_is_not_asked_to_be_read_only_would_be_written() {
    let weakened = Subject::Without("read-only-paths,masked-paths");
    assert_eq!(told(weakened, false), "/\n/volume\n/kept\nsecret\n");
}
