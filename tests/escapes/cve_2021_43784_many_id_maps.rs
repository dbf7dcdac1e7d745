//! CVE-2021-43784 (runc): so many id mappings that their length overflows, and what follows is taken for other settings. Here
//! they are lines of a file, of which the kernel takes 340.

use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::subject::Subject;
use crate::support::{Ran, tests};

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    tests![mappings_without_end_make_no_container]
}

/// Runs a container with so many mappings, which shows whose root it has.
fn run(count: u32) -> Ran {
    let bundle = Subject::Real.bundle("cat /proc/self/uid_map | busybox wc -l");
    let map = |number| json!({"containerID": number, "hostID": 100_000 + 2 * number, "size": 1});
    let maps: Vec<Value> = (0..count).map(map).collect();
    std::os::unix::fs::chown(bundle.folder.join("rootfs"), Some(100_000), Some(100_000)).unwrap();
    bundle.edit(|config| {
        let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.push(json!({"type": "user"}));
        config["linux"]["uidMappings"] = json!(maps);
        config["linux"]["gidMappings"] = json!(maps);
    });
    bundle.run()
}

fn mappings_without_end_make_no_container() {
    assert_eq!(run(300).success(), "300\n");
    // 65,536 bytes and some more are the length that was cut to 16 bits.
    for count in [341, 5_000, 20_000] {
        let ran = run(count);
        let words = format!("at most 340 ranges, has {count}");
        assert!(ran.failure().contains(&words), "{}", ran.stderr());
        assert!(ran.0.stdout.is_empty());
    }
}
