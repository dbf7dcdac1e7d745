//! Mounts whose ids are mapped.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};

use libtest_mimic::Trial;
use nix::mount::MsFlags;
use serde_json::{Value, json};

use super::{HostMount, add};
use crate::support::{Bundle, tests};

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    tests![
        a_mount_has_its_own_maps,
        idmap_takes_the_maps_of_the_container,
        idmap_takes_the_maps_of_a_joined_user_namespace,
        idmap_concerns_one_mount_and_ridmap_all,
        a_map_may_have_several_ranges,
        an_option_tells_a_map_of_its_own,
        a_map_of_an_option_counts_from_the_containers_ids,
        maps_without_sense_are_refused,
    ]
}

fn range(container: u32, host: u32, size: u32) -> Value {
    json!({"containerID": container, "hostID": host, "size": size})
}

/// A tmpfs of the host with files of these owners, and another below it.
fn files(bundle: &Bundle, owners: &[u32]) -> [HostMount; 2] {
    let top = HostMount::tmpfs(&bundle.folder.join("files"), MsFlags::empty());
    let below = HostMount::tmpfs(&top.0.join("sub"), MsFlags::empty());
    for folder in [&top.0, &below.0] {
        for owner in owners {
            let file = folder.join(owner.to_string());
            fs::write(&file, "").unwrap();
            chown(&file, Some(*owner), Some(*owner)).unwrap();
        }
    }
    [below, top]
}

pub fn user_namespace(bundle: &Bundle, ranges: &Value) {
    bundle.edit(|config| {
        let linux = &mut config["linux"];
        let namespaces = linux["namespaces"].as_array_mut().unwrap();
        namespaces.push(json!({"type": "user"}));
        linux["uidMappings"] = ranges.clone();
        linux["gidMappings"] = ranges.clone();
    });
    let root = ranges[0]["hostID"].as_u64().unwrap() as u32;
    chown(bundle.folder.join("rootfs"), Some(root), Some(root)).unwrap();
}

fn a_mount_has_its_own_maps() {
    let bundle =
        Bundle::new("stat -c '%u %g' /files/0; echo > /files/made; stat -c '%u %g' /files/made");
    let _host = files(&bundle, &[0]);
    add(
        &bundle,
        json!({"destination": "/files", "source": "files", "options": ["bind"],
        "uidMappings": [range(0, 1000, 10), range(70_000, 0, 1)],
        "gidMappings": [range(0, 2000, 10), range(80_000, 0, 1)]}),
    );
    assert_eq!(bundle.run().success(), "1000 2000\n0 0\n");
    let made = fs::metadata(bundle.folder.join("files/made")).unwrap();
    assert_eq!((made.uid(), made.gid()), (70_000, 80_000), "the way back");
}

fn idmap_takes_the_maps_of_the_container() {
    let script = "stat -c '%u %g' /plain/0 /mapped/0 /mapped/5; echo > /mapped/made";
    let bundle = Bundle::new(script);
    let _host = files(&bundle, &[0, 5]);
    user_namespace(&bundle, &json!([range(0, 100_000, 1000)]));
    let tree = |destination: &str, options: Value| {
        add(
            &bundle,
            json!({"destination": destination, "source": "files", "options": options}),
        );
    };
    tree("/plain", json!(["bind"]));
    tree("/mapped", json!(["bind", "idmap"]));
    assert_eq!(bundle.run().success(), "65534 65534\n0 0\n5 5\n");
    assert_eq!(
        fs::metadata(bundle.folder.join("files/made"))
            .unwrap()
            .uid(),
        0
    );
}

fn idmap_takes_the_maps_of_a_joined_user_namespace() {
    let holder = Bundle::new("true");
    user_namespace(&holder, &json!([range(0, 300_000, 1000)]));
    holder.create().success();
    let bundle = Bundle::new("stat -c '%u %g' /mapped/7");
    let _host = files(&bundle, &[7]);
    chown(bundle.folder.join("rootfs"), Some(300_000), Some(300_000)).unwrap();
    let path = format!("/proc/{}/ns/user", holder.pid());
    bundle.edit(|config| {
        let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.push(json!({"type": "user", "path": path}));
    });
    add(
        &bundle,
        json!({"destination": "/mapped", "source": "files", "options": ["bind", "idmap"]}),
    );
    assert_eq!(bundle.run().success(), "7 7\n");
}

fn idmap_concerns_one_mount_and_ridmap_all() {
    let bundle = Bundle::new("stat -c %u /one/3 /one/sub/3 /all/3 /all/sub/3");
    let _host = files(&bundle, &[3]);
    user_namespace(&bundle, &json!([range(0, 100_000, 1000)]));
    for (destination, word) in [("/one", "idmap"), ("/all", "ridmap")] {
        add(
            &bundle,
            json!({"destination": destination, "source": "files", "options": ["rbind", word]}),
        );
    }
    assert_eq!(bundle.run().success(), "3\n65534\n3\n3\n");
}

fn a_map_may_have_several_ranges() {
    let bundle = Bundle::new("stat -c %u /files/0 /files/5 /files/20 /files/99");
    let _host = files(&bundle, &[0, 5, 20, 99]);
    let ranges = json!([range(0, 1000, 1), range(5, 2000, 1), range(20, 3000, 10)]);
    add(
        &bundle,
        json!({"destination": "/files", "source": "files", "options": ["bind"],
        "uidMappings": ranges, "gidMappings": ranges}),
    );
    assert_eq!(bundle.run().success(), "1000\n2000\n3000\n65534\n");
}

fn an_option_tells_a_map_of_its_own() {
    let bundle = Bundle::new(
        "stat -c '%u %g' /files/0 /files/20 /files/99; echo > /files/made; stat -c '%u %g' /files/made",
    );
    let _host = files(&bundle, &[0, 20, 99]);
    let map = "idmap=uids=0-1000-10#20-3000-10#70000-0-1;gids=0-2000-30#80000-0-1";
    add(
        &bundle,
        json!({"destination": "/files", "source": "files", "options": ["bind", map]}),
    );
    assert_eq!(
        bundle.run().success(),
        "1000 2000\n3000 2020\n65534 65534\n0 0\n"
    );
    let made = fs::metadata(bundle.folder.join("files/made")).unwrap();
    assert_eq!((made.uid(), made.gid()), (70_000, 80_000), "the way back");
}

fn a_map_of_an_option_counts_from_the_containers_ids() {
    let bundle = Bundle::new("stat -c '%u %g' /files/5");
    let _host = files(&bundle, &[5]);
    user_namespace(&bundle, &json!([range(0, 100_000, 1000)]));
    // 5 on disk is 7 of the container, which is 100007 of the host; the group by its host's number.
    let map = "idmap=uids=@5-7-1;gids=5-100009-1";
    add(
        &bundle,
        json!({"destination": "/files", "source": "files", "options": ["bind", map]}),
    );
    assert_eq!(bundle.run().success(), "7 9\n");
}

fn maps_without_sense_are_refused() {
    let bundle = Bundle::new("true");
    add(
        &bundle,
        json!({"destination": "/a", "source": "/etc", "options": ["bind", "idmap"]}),
    );
    add(
        &bundle,
        json!({"destination": "/b", "source": "/etc", "options": ["bind"],
        "uidMappings": [range(0, 0, 1)]}),
    );
    add(
        &bundle,
        json!({"destination": "/c", "type": "tmpfs",
        "uidMappings": [range(0, 0, 1)], "gidMappings": [range(0, 0, 1)]}),
    );
    let error = bundle.create().failure();
    for expected in [
        "mounts[7].options: idmap needs uidMappings and gidMappings",
        "mounts[8].gidMappings: is required with uidMappings",
        "mounts[9].options: mapped ids need a bind mount",
    ] {
        assert!(error.contains(expected), "{expected:?} is not in {error}");
    }
    let bundle = Bundle::new("true");
    for (options, mapped) in [
        (json!(["bind", "idmap=uids=0-1"]), false),
        (json!(["bind", "idmap=uids=@0-0-1;gids=0-0-1"]), false),
        (json!(["bind", "idmap=uids=0-0-1;gids=0-0-1"]), true),
        (json!(["idmap=uids=0-0-1;gids=0-0-1"]), false),
    ] {
        let mut entry = json!({"destination": "/a", "source": "/etc", "options": options});
        if mapped {
            entry["uidMappings"] = json!([range(0, 0, 1)]);
            entry["gidMappings"] = json!([range(0, 0, 1)]);
        }
        add(&bundle, entry);
    }
    bundle.edit(|config| config["mounts"][10]["type"] = json!("tmpfs"));
    let error = bundle.create().failure();
    for expected in [
        "mounts[7].options: \"idmap=uids=0-1\": \"0-1\" is not three numbers, as 0-1000-10",
        "mounts[8].options: \"idmap=uids=@0-0-1;gids=0-0-1\": \"@0-0-1\" does not lie within one of \
         the container's mappings in linux",
        "mounts[9].options: \"idmap=uids=0-0-1;gids=0-0-1\": two maps",
        "mounts[10]: ids can be mapped on a bind mount only",
    ] {
        assert!(error.contains(expected), "{expected:?} is not in {error}");
    }
}
