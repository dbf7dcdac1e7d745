//! Namespaces: new ones, joined ones and the host's; user maps; clocks.

use libtest_mimic::Trial;
use serde_json::json;

use crate::support::{Bundle, tests};

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    tests![
        the_program_sees_its_own_namespaces,
        a_user_namespace_maps_ids,
    ]
}

fn the_program_sees_its_own_namespaces() {
    let bundle = Bundle::new(
        "hostname; echo pid $$; cat /proc/self/cgroup | grep ^0; ip addr show lo; ls /",
    );
    bundle.edit(|config| config["hostname"] = json!("inside"));
    let seen = bundle.run().success();
    for expected in ["inside", "pid 1", "127.0.0.1", "0::/\n"] {
        assert!(seen.contains(expected), "{expected:?} is not in {seen}");
    }
}

fn a_user_namespace_maps_ids() {
    let bundle = Bundle::new("id -u; cat /proc/self/uid_map; stat -c %u /proc/self/status");
    bundle.edit(|config| {
        let linux = &mut config["linux"];
        linux["namespaces"]
            .as_array_mut()
            .unwrap()
            .push(json!({"type": "user"}));
        let map = json!([{"containerID": 0, "hostID": 100_000, "size": 10},
            {"containerID": 10, "hostID": 200_000, "size": 5}]);
        linux["uidMappings"] = map.clone();
        linux["gidMappings"] = map;
    });
    std::os::unix::fs::chown(bundle.folder.join("rootfs"), Some(100_000), Some(100_000)).unwrap();
    let seen = bundle.run().success();
    let words: Vec<&str> = seen.split_whitespace().collect();
    assert_eq!(words, ["0", "0", "100000", "10", "10", "200000", "5", "0"]);
}
