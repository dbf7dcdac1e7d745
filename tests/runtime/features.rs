//! `features` does not lie: each thing that it claims is tried, and what it denies is refused.

use std::fs;

use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::support::{Bundle, tests};

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    tests![
        both_versions_are_taken,
        each_hook_runs,
        each_mount_option_is_taken,
        each_namespace_is_made,
        each_capability_is_known,
        what_is_not_enabled_is_refused_and_what_is_enabled_is_not,
        the_managers_of_cgroups_are_those_that_work,
        a_checkpoint_is_claimed_where_there_are_the_verbs,
        each_architecture_and_each_supported_flag_is_taken,
        each_annotation_that_is_told_acts,
        the_document_is_complete,
    ]
}

fn features() -> Value {
    let text = Bundle::new("true").parhelion(&["features"]).success();
    serde_json::from_str(&text).unwrap()
}

fn strings(value: &Value) -> Vec<String> {
    let list = value.as_array().unwrap().iter();
    list.map(|item| item.as_str().unwrap().to_owned()).collect()
}

fn both_versions_are_taken() {
    let features = features();
    for key in ["ociVersionMin", "ociVersionMax"] {
        let bundle = Bundle::new("echo taken");
        bundle.edit(|config| config["ociVersion"] = features[key].clone());
        assert_eq!(bundle.run().success(), "taken\n");
    }
    let version = Bundle::new("").parhelion(&["--version"]).success();
    let max = features["ociVersionMax"].as_str().unwrap();
    assert!(version.contains(&format!("\nspec: {max}\n")), "{version}");
}

fn each_hook_runs() {
    let hooks = strings(&features()["hooks"]);
    let bundle = Bundle::new("true");
    let outside = bundle.folder.join("seen");
    bundle.edit(|config| {
        config["root"]["readonly"] = json!(false);
        for name in &hooks {
            // The only one that sees the container's files and not the host's.
            let file = match name.as_str() {
                "startContainer" => "/tmp/seen",
                _ => outside.to_str().unwrap(),
            };
            let script = format!("echo {name} >> {file}");
            config["hooks"][name] = json!([{"path": "/bin/sh", "args": ["sh", "-c", script]}]);
        }
    });
    bundle.run().success();
    let mut seen = fs::read_to_string(outside).unwrap();
    seen += &fs::read_to_string(bundle.folder.join("rootfs/tmp/seen")).unwrap();
    let mut seen: Vec<&str> = seen.lines().collect();
    seen.sort_unstable();
    let mut hooks: Vec<&str> = hooks.iter().map(String::as_str).collect();
    hooks.sort_unstable();
    assert_eq!(seen, hooks);
}

/// One mount for each, that the container sees. What a file system itself can not do it refuses by
/// name: an option that no table knows, so that being taken says something, and "noacl", as a tmpfs
/// can not be without.
fn each_mount_option_is_taken() {
    let mut options = strings(&features()["mountOptions"]);
    options.retain(|option| option != "noacl");
    let bundle = Bundle::new("cat /proc/self/mounts");
    let source = bundle.folder.join("source");
    fs::create_dir(&source).unwrap();
    let map = json!([{"containerID": 0, "hostID": 0, "size": 1000}]);
    bundle.edit(|config| {
        config["root"]["readonly"] = json!(false);
        let mounts = config["mounts"].as_array_mut().unwrap();
        for option in &options {
            let destination = format!("/mnt/{option}");
            let tmpfs = |options: Value| {
                json!({"destination": destination, "type": "tmpfs", "source": "x", "options": options})
            };
            let bind = |options: Value| {
                json!({"destination": destination, "source": source, "options": options})
            };
            let mut mount = match option.as_str() {
                "bind" | "rbind" => bind(json!([option])),
                "copy-symlink" | "src-nofollow" | "dest-nofollow" => bind(json!(["bind", option])),
                "idmap" | "ridmap" => bind(json!(["rbind", option])),
                "remount" => {
                    mounts.push(tmpfs(json!([])));
                    tmpfs(json!(["remount", "ro"]))
                }
                _ => tmpfs(json!([option])),
            };
            if option.ends_with("idmap") {
                mount["uidMappings"] = map.clone();
                mount["gidMappings"] = map.clone();
            }
            mounts.push(mount);
        }
    });
    let seen = bundle.run().success();
    for option in &options {
        let place = format!(" /mnt/{option} ");
        assert!(seen.contains(&place), "{option}: {seen}");
    }
    for refused in ["no-such-option", "noacl"] {
        let bundle = Bundle::new("true");
        bundle.edit(|config| {
            let mounts = config["mounts"].as_array_mut().unwrap();
            mounts.push(json!({"destination": "/tmp", "type": "tmpfs", "options": [refused]}));
        });
        let told = bundle.run().failure();
        assert!(
            told.contains(&format!("fsconfig(tmpfs, \"{refused}\")")),
            "{told}"
        );
    }
}

fn each_namespace_is_made() {
    let namespaces = strings(&features()["linux"]["namespaces"]);
    let bundle =
        Bundle::new("for file in /proc/self/ns/*; do echo $file $(busybox readlink $file); done");
    bundle.edit(|config| {
        let map = json!([{"containerID": 0, "hostID": 0, "size": 65536}]);
        config["linux"]["uidMappings"] = map.clone();
        config["linux"]["gidMappings"] = map;
        config["linux"]["namespaces"] = namespaces
            .iter()
            .map(|name| json!({"type": name}))
            .collect();
    });
    let seen = bundle.run().success();
    for name in &namespaces {
        let file = match name.as_str() {
            "mount" => "mnt",
            "network" => "net",
            other => other,
        };
        let path = format!("/proc/self/ns/{file}");
        let own = fs::read_link(&path).unwrap();
        let line = seen
            .lines()
            .find(|line| line.starts_with(&format!("{path} ")));
        let line = line.unwrap_or_else(|| panic!("{name}: {seen}"));
        assert!(!line.ends_with(own.to_str().unwrap()), "{name}: {seen}");
    }
}

/// CapBnd of a /proc/PID/status.
fn bounding(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("CapBnd:"));
    u64::from_str_radix(line.unwrap().trim(), 16).unwrap()
}

fn each_capability_is_known() {
    let names = strings(&features()["linux"]["capabilities"]);
    let bundle = Bundle::new("cat /proc/self/status");
    bundle.edit(|config| {
        for set in ["bounding", "permitted", "effective"] {
            config["process"]["capabilities"][set] = json!(names);
        }
    });
    let ran = bundle.run();
    let inside = bounding(&ran.success());
    assert!(
        !ran.stderr().contains("unknown capability"),
        "{}",
        ran.stderr()
    );
    // All that this host's root has, no more and no less, and no other number has a name.
    let own = bounding(&fs::read_to_string("/proc/self/status").unwrap());
    assert_eq!(inside, own, "{inside:x} {own:x}");
    assert_eq!(u64::from(inside.ilog2()) + 1, names.len() as u64);
}

fn what_is_not_enabled_is_refused_and_what_is_enabled_is_not() {
    let features = features();
    let linux = &features["linux"];
    let fields = [
        (
            &linux["seccomp"],
            "linux",
            "seccomp",
            json!({"defaultAction": "SCMP_ACT_ALLOW"}),
        ),
        (
            &linux["apparmor"],
            "process",
            "apparmorProfile",
            json!("unconfined"),
        ),
        (
            &linux["selinux"],
            "process",
            "selinuxLabel",
            json!("a_u:b_r:c_t:s0"),
        ),
        (
            &linux["intelRdt"],
            "linux",
            "intelRdt",
            json!({"closID": "parhelion-test"}),
        ),
        (
            &linux["netDevices"],
            "linux",
            "netDevices",
            json!({"no-such-link": {}}),
        ),
    ];
    for (claim, section, field, value) in fields {
        let bundle = Bundle::new("true");
        bundle.edit(|config| config[section][field] = value);
        let ran = bundle.run();
        let refused = ran
            .stderr()
            .contains(&format!("{section}.{field}: not supported yet"));
        let enabled = claim["enabled"].as_bool().unwrap();
        assert_eq!(refused, !enabled, "{field}: {}", ran.stderr());
    }
    let bundle = Bundle::new("true");
    bundle.edit(|config| config["linux"]["memoryPolicy"] = json!({"mode": "MPOL_LOCAL"}));
    let refused = bundle
        .run()
        .stderr()
        .contains("memoryPolicy: not supported yet");
    assert_eq!(refused, linux["memoryPolicy"].is_null());
}

fn the_managers_of_cgroups_are_those_that_work() {
    let cgroup = &features()["linux"]["cgroup"];
    let bundle = Bundle::new("true");
    let run = ["run", "--bundle", bundle.path(), &bundle.id];
    let ran = bundle.parhelion(&[&["--systemd-cgroup"][..], &run].concat());
    let works = match crate::support::has_systemd() {
        true => ran.code() == Some(0),
        false => ran.stderr().contains("systemd can not be reached"),
    };
    assert_eq!(json!(works), cgroup["systemd"], "{}", ran.stderr());
    assert_eq!(
        (&cgroup["v1"], &cgroup["v2"]),
        (&json!(false), &json!(true))
    );
    bundle.run().success();
}

fn a_checkpoint_is_claimed_where_there_are_the_verbs() {
    let claim = &features()["annotations"]["org.opencontainers.runc.checkpoint.enabled"];
    let bundle = Bundle::new("true");
    let known = |verb| bundle.parhelion(&[verb, "--help"]).code() == Some(0);
    let verbs = known("checkpoint") && known("restore");
    assert_eq!(*claim, json!(verbs.to_string()));
}

fn each_architecture_and_each_supported_flag_is_taken() {
    let seccomp = &features()["linux"]["seccomp"];
    let (known, taken) = (&seccomp["knownFlags"], &seccomp["supportedFlags"]);
    let (known, taken) = (strings(known), strings(taken));
    assert!(taken.contains(&"SECCOMP_FILTER_FLAG_LOG".to_owned()));
    assert!(taken.iter().all(|flag| known.contains(flag)), "{taken:?}");
    for flag in known {
        let bundle = Bundle::new("echo ran");
        bundle.edit(|config| {
            config["linux"]["seccomp"] =
                json!({"defaultAction": "SCMP_ACT_ALLOW", "flags": [flag]});
        });
        let ran = bundle.run();
        // What only concerns notifications is left out where there are none.
        let works = ran.code() == Some(0) || flag.contains("WAIT_KILLABLE");
        assert_eq!(works, taken.contains(&flag), "{flag}: {}", ran.stderr());
    }
    let archs = strings(&seccomp["archs"]);
    assert!(archs.contains(&"SCMP_ARCH_S390X".to_owned()), "{archs:?}");
    for arch in archs {
        // One whose calls this kernel never gets takes nothing from what is held of its own.
        let bundle = Bundle::new("busybox mount -t tmpfs none /tmp 2> /dev/null || echo refused");
        bundle.edit(|config| {
            config["linux"]["seccomp"] =
                json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": [arch],
                    "syscalls": [{"names": ["mount"], "action": "SCMP_ACT_ERRNO"}]});
            config["process"]["capabilities"]["bounding"] = json!(["CAP_SYS_ADMIN"]);
            config["process"]["capabilities"]["permitted"] = json!(["CAP_SYS_ADMIN"]);
            config["process"]["capabilities"]["effective"] = json!(["CAP_SYS_ADMIN"]);
        });
        assert_eq!(bundle.run().success(), "refused\n", "{arch}");
    }
}

fn each_annotation_that_is_told_acts() {
    let told = strings(&features()["potentiallyUnsafeConfigAnnotations"]);
    // One of each, with a value that its rule refuses.
    let acting = [
        ("dev.parhelion.landlock", "dev.parhelion.landlock"),
        ("run.oci.", "run.oci.handler"),
        (
            "org.systemd.property.",
            "org.systemd.property.SuccessAction",
        ),
    ];
    // It acts at a checkpoint: checkpoint::failures::options_of_the_annotations_file_are_taken.
    assert!(told.contains(&"org.criu.config".to_owned()), "{told:?}");
    assert_eq!(told.len(), acting.len() + 1, "{told:?}");
    for (prefix, name) in acting {
        assert!(told.contains(&prefix.to_owned()), "{told:?}");
        let bundle = Bundle::new("true");
        bundle.edit(|config| config["annotations"] = json!({name: "[}"}));
        let run = ["run", "--bundle", bundle.path(), &bundle.id];
        let refused = match prefix {
            "org.systemd.property." => {
                bundle.run().success(); // it is for who makes the unit alone
                bundle.parhelion(&[&["--systemd-cgroup"][..], &run].concat())
            }
            _ => bundle.parhelion(&run),
        };
        let told = match prefix == "org.systemd.property." && !crate::support::has_systemd() {
            true => "systemd can not be reached",
            false => name,
        };
        assert!(refused.failure().contains(told), "{}", refused.stderr());
    }
}

/// What features.md names; what a runtime does not say counts as unknown.
fn the_document_is_complete() {
    let features = features();
    for place in [
        "/hooks",
        "/mountOptions",
        "/annotations",
        "/potentiallyUnsafeConfigAnnotations",
        "/linux/namespaces",
        "/linux/capabilities",
        "/linux/cgroup/v1",
        "/linux/cgroup/v2",
        "/linux/cgroup/systemd",
        "/linux/cgroup/systemdUser",
        "/linux/cgroup/rdma",
        "/linux/seccomp/enabled",
        "/linux/apparmor/enabled",
        "/linux/selinux/enabled",
        "/linux/intelRdt/enabled",
        "/linux/intelRdt/schemata",
        "/linux/intelRdt/monitoring",
        "/linux/mountExtensions/idmap/enabled",
        "/linux/netDevices/enabled",
    ] {
        assert!(
            features
                .pointer(place)
                .is_some_and(|found| !found.is_null()),
            "{place}"
        );
    }
    if features["linux"]["seccomp"]["enabled"] == true {
        for list in [
            "actions",
            "operators",
            "archs",
            "knownFlags",
            "supportedFlags",
        ] {
            assert!(features["linux"]["seccomp"][list].is_array(), "{list}");
        }
    }
}
