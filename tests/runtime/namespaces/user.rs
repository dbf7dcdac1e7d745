//! User namespaces: maps, owners of files, groups.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};

use libtest_mimic::Trial;
use serde_json::{Value, json};

use super::{enter, give_root, keep_mounts, leave};
use crate::support::{Bundle, tests};

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    tests![
        a_user_namespace_maps_ids,
        files_have_their_owners_on_both_sides,
        groups_can_be_set,
        the_program_runs_as_a_mapped_user,
        as_many_ranges_as_the_kernel_takes_work,
        a_map_that_the_kernel_does_not_take_is_refused,
        a_user_namespace_works_beside_the_hosts_others,
    ]
}

fn maps(bundle: &Bundle, uids: &Value, gids: &Value) {
    enter(bundle, "user", None);
    bundle.edit(|config| {
        config["linux"]["uidMappings"] = uids.clone();
        config["linux"]["gidMappings"] = gids.clone();
    });
    let root = uids[0]["hostID"].as_u64().unwrap();
    give_root(bundle, u32::try_from(root).unwrap());
}

fn a_user_namespace_maps_ids() {
    let bundle = Bundle::new(
        "id -u; id -g; cat /proc/self/uid_map; cat /proc/self/gid_map; \
         stat -c %u:%g /proc/self/status",
    );
    let uids = json!([{"containerID": 0, "hostID": 100_000, "size": 10},
        {"containerID": 10, "hostID": 200_000, "size": 5}]);
    let gids = json!([{"containerID": 0, "hostID": 300_000, "size": 1},
        {"containerID": 5, "hostID": 300_001, "size": 3},
        {"containerID": 100, "hostID": 400_000, "size": 7}]);
    maps(&bundle, &uids, &gids);
    let seen = bundle.run().success();
    let words: Vec<&str> = seen.split_whitespace().collect();
    let expected = "0 0 0 100000 10 10 200000 5 0 300000 1 5 300001 3 100 400000 7 0:0";
    assert_eq!(words.join(" "), expected);
}

fn files_have_their_owners_on_both_sides() {
    let bundle = Bundle::new(
        "stat -c '%u:%g' /etc/root /etc/user /etc/stranger; touch /data/made; \
         busybox chown 12:5 /data/made; echo x > /etc/stranger || echo refused",
    );
    let uids = json!([{"containerID": 0, "hostID": 100_000, "size": 10},
        {"containerID": 10, "hostID": 200_000, "size": 5}]);
    let gids = json!([{"containerID": 0, "hostID": 100_000, "size": 10}]);
    maps(&bundle, &uids, &gids);
    let etc = bundle.folder.join("rootfs/etc");
    let owners = [
        ("root", 100_000, 100_000),
        ("user", 200_001, 100_003),
        ("stranger", 0, 0),
    ];
    for (name, uid, gid) in owners {
        fs::write(etc.join(name), "").unwrap();
        chown(etc.join(name), Some(uid), Some(gid)).unwrap();
    }
    let data = bundle.folder.join("data");
    fs::create_dir(&data).unwrap();
    chown(&data, Some(100_000), Some(100_000)).unwrap();
    bundle.edit(|config| {
        config["root"]["readonly"] = json!(false);
        let mounts = config["mounts"].as_array_mut().unwrap();
        mounts.push(json!({"destination": "/data", "source": "data", "options": ["bind"]}));
        for set in ["bounding", "effective", "permitted"] {
            let set = config["process"]["capabilities"][set].as_array_mut();
            set.unwrap().push(json!("CAP_CHOWN"));
        }
    });
    assert_eq!(bundle.run().success(), "0:0\n11:3\n65534:65534\nrefused\n");
    let made = fs::metadata(data.join("made")).unwrap();
    assert_eq!((made.uid(), made.gid()), (200_002, 100_005));
}

fn groups_can_be_set() {
    let bundle = Bundle::new("cat /proc/self/setgroups; id -G");
    enter(&bundle, "user", None);
    bundle.edit(|config| config["process"]["user"]["additionalGids"] = json!([5, 60_000]));
    assert_eq!(bundle.run().success(), "allow\n0 5 60000\n");
}

fn the_program_runs_as_a_mapped_user() {
    let bundle = Bundle::new("id -u; id -g; busybox grep ^CapEff /proc/self/status");
    enter(&bundle, "user", None);
    bundle.edit(|config| {
        let process = &mut config["process"];
        process["user"] = json!({"uid": 1000, "gid": 1001});
        process["capabilities"] = json!({});
    });
    let expected = "1000\n1001\nCapEff:\t0000000000000000\n";
    assert_eq!(bundle.run().success(), expected);
    bundle.edit(|config| config["process"]["user"]["uid"] = json!(65_536));
    let error = bundle.create().failure();
    let expected = "process.user.uid: 65536 is not mapped by linux.uidMappings";
    assert!(error.contains(expected), "{error}");
}

/// `count` ranges of one id each, `stride` apart, which the kernel can not see as one.
fn ranges(count: u64, first: u64, stride: u64) -> Value {
    let range = |i| json!({"containerID": i, "hostID": first + i * stride, "size": 1});
    (0..count).map(range).collect()
}

fn as_many_ranges_as_the_kernel_takes_work() {
    let bundle =
        Bundle::new("busybox wc -l < /proc/self/uid_map; busybox tail -n 1 /proc/self/gid_map");
    let many = ranges(340, 1000, 2);
    maps(&bundle, &many, &many);
    let seen = bundle.run().success();
    let words: Vec<&str> = seen.split_whitespace().collect();
    assert_eq!(words, ["340", "339", "1678", "1"]);
}

fn a_map_that_the_kernel_does_not_take_is_refused() {
    let bundle = Bundle::new("true");
    maps(
        &bundle,
        &ranges(341, 1000, 2),
        &ranges(340, 1_000_000_000, 20),
    );
    let error = bundle.create().failure();
    for expected in [
        "linux.uidMappings: must have at most 340 ranges, has 341",
        "linux.gidMappings: must have less than 4096 bytes as lines of the kernel's map, has ",
    ] {
        assert!(error.contains(expected), "{expected:?} is not in {error}");
    }
}

fn a_user_namespace_works_beside_the_hosts_others() {
    let bundle = Bundle::new("id -u; hostname; ls /sys/class > /dev/null && echo sysfs");
    for kind in ["uts", "ipc", "network", "cgroup"] {
        leave(&bundle, kind);
    }
    // The kernel gives a user namespace no sysfs of the host's network, no queues of its ipc.
    keep_mounts(&bundle, |mount| {
        !["sysfs", "mqueue", "cgroup"].contains(&mount["type"].as_str().unwrap())
    });
    bundle.edit(|config| {
        let mounts = config["mounts"].as_array_mut().unwrap();
        mounts.push(json!({"destination": "/sys", "source": "/sys", "options": ["rbind", "ro"]}));
    });
    enter(&bundle, "user", None);
    let hostname = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    assert_eq!(bundle.run().success(), format!("0\n{hostname}sysfs\n"));
}
