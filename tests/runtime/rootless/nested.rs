//! Root of a user namespace: as Podman calls a runtime, and as a container inside a container.

use libtest_mimic::Trial;
use serde_json::json;

use super::{Rootless, user};
use crate::support::tests;

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    tests![
        root_of_a_user_namespace_runs_a_container_in_it,
        root_of_a_user_namespace_makes_one_below_it,
        root_without_a_mount_namespace_of_its_own_opens_trees_inside,
        a_container_inside_a_container_of_a_user_runs,
    ]
}

/// A bundle that is run by root of a user namespace, without one of its own.
fn nested(script: &str, unshare: &[&str]) -> Rootless {
    let mut rootless = Rootless::new(script);
    let unshare = [&["unshare", "--user", "--map-root-user"], unshare].concat();
    rootless.prefix = unshare.iter().map(|&word| word.to_owned()).collect();
    rootless
}

fn without_user_namespace(rootless: &Rootless) {
    rootless.leave_out_user_namespace();
    rootless.edit(|config| {
        let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.push(json!({"type": "network"}));
    });
}

const SCRIPT: &str = "id -u; cat /proc/self/uid_map; stat -c %t:%T /dev/null; echo x > /dev/null; \
    ls /sys/class/net";

fn root_of_a_user_namespace_runs_a_container_in_it() {
    let rootless = nested(SCRIPT, &["--mount"]);
    without_user_namespace(&rootless);
    let seen = rootless.run().success();
    let words: Vec<&str> = seen.split_whitespace().collect();
    let user = user().to_string();
    assert_eq!(words[..5], ["0", "0", &user, "1", "1:3"]);
    rootless.nothing_is_left();
}

fn root_of_a_user_namespace_makes_one_below_it() {
    let rootless = nested(SCRIPT, &["--mount"]);
    // Ids are those of the namespace above.
    rootless.edit(|config| {
        config["linux"]["uidMappings"] = super::one(0);
        config["linux"]["gidMappings"] = super::one(0);
    });
    let seen = rootless.run().success();
    let words: Vec<&str> = seen.split_whitespace().collect();
    assert_eq!(words[..5], ["0", "0", "0", "1", "1:3"]);
    rootless.edit(|config| config["linux"]["uidMappings"][0]["hostID"] = json!(1));
    let error = rootless.run().failure();
    assert!(error.contains("uid_map of process"), "{error}");
    rootless.nothing_is_left();
}

fn root_without_a_mount_namespace_of_its_own_opens_trees_inside() {
    let rootless = nested(SCRIPT, &[]);
    without_user_namespace(&rootless);
    let seen = rootless.run().success();
    assert!(seen.starts_with("0\n"), "{seen}");
    rootless.nothing_is_left();
}

fn a_container_inside_a_container_of_a_user_runs() {
    // The program, which is static, and the bundle's own root below it, are mounted into the outer one.
    let rootless = Rootless::new(
        "cd /bundle && mkdir -p /tmp/state && /parhelion --root /tmp/state run inner",
    );
    let inner = rootless.bundle.folder.join("inner");
    std::fs::create_dir(&inner).unwrap();
    super::give(&inner);
    rootless
        .parhelion(&["spec", "--rootless", "--bundle", inner.to_str().unwrap()])
        .success();
    let path = inner.join("config.json");
    let mut config: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    config["process"]["terminal"] = json!(false);
    config["process"]["args"] = json!(["sh", "-c", "echo deeper; cat /proc/self/uid_map"]);
    config["root"] = json!({"path": "/bundle/rootfs", "readonly": true});
    for list in ["uidMappings", "gidMappings"] {
        config["linux"][list] = super::one(0);
    }
    std::fs::write(&path, config.to_string()).unwrap();
    rootless.edit(|config| {
        let program = crate::support::program();
        let rootfs = rootless.bundle.folder.join("rootfs");
        config["mounts"].as_array_mut().unwrap().extend([
            json!({"destination": "/bundle", "type": "tmpfs", "source": "tmpfs"}),
            json!({"destination": "/bundle/config.json", "source": path, "options": ["bind", "ro"]}),
            json!({"destination": "/bundle/rootfs", "source": rootfs, "options": ["rbind"]}),
            json!({"destination": "/parhelion", "source": program, "options": ["bind", "ro"]}),
            json!({"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"}),
        ]);
        // A program that was built for tests is linked to libraries.
        for place in ["/lib", "/lib64", "/usr"] {
            let host = json!({"destination": place, "source": place, "options": ["rbind", "ro"]});
            if std::path::Path::new(place).exists() {
                config["mounts"].as_array_mut().unwrap().push(host);
            }
        }
        // The kernel mounts proc in a namespace only where one can be seen as a whole.
        for list in ["maskedPaths", "readonlyPaths"] {
            config["linux"].as_object_mut().unwrap().remove(list);
        }
        config["process"]["capabilities"] = json!({});
        for set in ["bounding", "effective", "permitted"] {
            config["process"]["capabilities"][set] = all_capabilities();
        }
        config["process"]["noNewPrivileges"] = json!(false);
    });
    let seen = rootless.run();
    let out = String::from_utf8_lossy(&seen.0.stdout).into_owned();
    let words: Vec<&str> = out.split_whitespace().collect();
    assert_eq!(words, ["deeper", "0", "0", "1"], "{}", seen.stderr());
}

fn all_capabilities() -> serde_json::Value {
    json!([
        "CAP_SYS_ADMIN",
        "CAP_SETUID",
        "CAP_SETGID",
        "CAP_CHOWN",
        "CAP_DAC_OVERRIDE",
        "CAP_SYS_CHROOT",
        "CAP_SETPCAP",
        "CAP_MKNOD",
        "CAP_FOWNER",
        "CAP_KILL",
        "CAP_AUDIT_WRITE",
        "CAP_NET_BIND_SERVICE",
        "CAP_NET_ADMIN",
        "CAP_SYS_PTRACE",
        "CAP_SETFCAP"
    ])
}
