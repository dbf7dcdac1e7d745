//! Which ids are mapped, by whom, and what follows for groups.

use libtest_mimic::Trial;
use serde_json::{Value, json};

use super::{PATH, Rootless, needs_program, one, user};
use crate::support::tests;

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    let mut all = tests![
        ones_own_id_may_be_another_inside,
        groups_that_can_not_be_set_are_refused,
        a_range_without_a_helper_names_the_helper,
        an_option_with_an_id_that_is_not_mapped_is_refused,
    ];
    all.extend(needs_program(
        "newuidmap",
        tests![
            ranges_are_mapped_by_newuidmap,
            a_range_that_is_not_allotted_is_refused,
            one_group_goes_with_many_users,
            who_joins_becomes_a_user_of_the_range,
        ],
    ));
    all
}

/// The user as root, and its allotted range behind.
fn range(size: u32) -> Value {
    json!([{"containerID": 0, "hostID": user(), "size": 1},
        {"containerID": 1, "hostID": 100_000, "size": size}])
}

fn map(rootless: &Rootless, uids: &Value, gids: &Value) {
    rootless.edit(|config| {
        config["linux"]["uidMappings"] = uids.clone();
        config["linux"]["gidMappings"] = gids.clone();
    });
}

fn ones_own_id_may_be_another_inside() {
    let rootless = Rootless::new("true");
    map(&rootless, &one(0), &one(user()));
    // Root's id is not the user's to map.
    let error = rootless.run_command(&[
        "env",
        "PATH=/nowhere",
        program().as_str(),
        "run",
        "--bundle",
        rootless.bundle.path(),
        rootless.id(),
    ]);
    assert!(
        error
            .failure()
            .contains("linux.uidMappings: needs newuidmap(1)")
    );
    rootless.nothing_is_left();
}

fn program() -> String {
    crate::support::program().to_str().unwrap().to_owned()
}

fn groups_that_can_not_be_set_are_refused() {
    let rootless = Rootless::new("true");
    rootless.edit(|config| config["process"]["user"]["additionalGids"] = json!([0]));
    let error = rootless.run().failure();
    let expected =
        "process.user.additionalGids: the kernel refuses setgroups(2) where a user has mapped";
    assert!(error.contains(expected), "{error}");
    rootless.nothing_is_left();
    rootless.edit(|config| {
        config["process"]["user"]
            .as_object_mut()
            .unwrap()
            .remove("additionalGids");
        config["process"]["args"] = json!(["sleep", "1000"]);
    });
    rootless.start();
    let exec = ["exec", "--additional-gids", "0", rootless.id(), "true"];
    let error = rootless.parhelion(&exec).failure();
    assert!(error.contains(expected), "{error}");
}

fn a_range_without_a_helper_names_the_helper() {
    let rootless = Rootless::new("true");
    map(&rootless, &one(user()), &range(10));
    let arguments = ["env", "-i", "PATH=/nowhere"];
    let root = rootless.state_folder();
    let program = program();
    let rest = [
        program.as_str(),
        "--root",
        root.to_str().unwrap(),
        "run",
        "--bundle",
        rootless.bundle.path(),
        rootless.id(),
    ];
    let error = rootless
        .run_command(&[&arguments[..], &rest].concat())
        .failure();
    let expected = "linux.gidMappings: needs newgidmap(1), as these are more than the user's own id, and \
        there is none in PATH: install it (Debian's package uidmap)";
    assert!(error.contains(expected), "{PATH}: {error}");
    rootless.nothing_is_left();
}

fn an_option_with_an_id_that_is_not_mapped_is_refused() {
    let rootless = Rootless::new("true");
    rootless.edit(|config| {
        config["mounts"][2]["options"]
            .as_array_mut()
            .unwrap()
            .push(json!("gid=5"));
        config["mounts"][3]["options"]
            .as_array_mut()
            .unwrap()
            .push(json!("uid=1"));
    });
    let error = rootless.run().failure();
    for expected in [
        "mounts[2].options[5]: \"gid=5\" is an id that linux.gidMappings does not map",
        "mounts[3].options[5]: \"uid=1\" is an id that linux.uidMappings does not map",
    ] {
        assert!(error.contains(expected), "{error}");
    }
    rootless.nothing_is_left();
}

fn ranges_are_mapped_by_newuidmap() {
    let rootless = Rootless::new(
        "id -u; id -g; id -G; cat /proc/self/uid_map /proc/self/gid_map /proc/self/setgroups; \
         stat -c %u:%g /proc/1/status",
    );
    map(&rootless, &range(65_536), &range(65_536));
    rootless.edit(|config| {
        config["process"]["user"] = json!({"uid": 5, "gid": 6, "additionalGids": [7, 8]});
    });
    let seen = rootless.run().success();
    let words: Vec<&str> = seen.split_whitespace().collect();
    let map = format!("0 {} 1 1 100000 65536", user());
    assert_eq!(words[..5].join(" "), "5 6 6 7 8");
    assert_eq!(words[5..17].join(" "), format!("{map} {map}"));
    assert_eq!(words[17..].join(" "), "allow 5:6");
    rootless.nothing_is_left();
}

fn a_range_that_is_not_allotted_is_refused() {
    let rootless = Rootless::new("true");
    map(&rootless, &range(65_537), &range(65_537));
    let error = rootless.run().failure();
    for expected in [
        "linux.uidMappings: newuidmap(1): uid range [1-65538) -> [100000-165537) not allowed",
        "/etc/subuid",
    ] {
        assert!(error.contains(expected), "{error}");
    }
    rootless.nothing_is_left();
    map(&rootless, &range(65_536), &range(65_537));
    let error = rootless.run().failure();
    for expected in ["linux.gidMappings: newgidmap(1): gid range", "/etc/subgid"] {
        assert!(error.contains(expected), "{error}");
    }
    rootless.nothing_is_left();
}

fn one_group_goes_with_many_users() {
    let rootless = Rootless::new("id -u; id -g; cat /proc/self/setgroups");
    map(&rootless, &range(10), &one(user()));
    rootless.edit(|config| config["process"]["user"]["uid"] = json!(10));
    assert_eq!(rootless.run().success(), "10\n0\ndeny\n");
}

fn who_joins_becomes_a_user_of_the_range() {
    let rootless = Rootless::new("sleep 1000");
    map(&rootless, &range(1000), &range(1000));
    rootless.start();
    let exec = [
        "exec",
        "--user",
        "20:30",
        "--additional-gids",
        "40",
        rootless.id(),
        "sh",
        "-c",
        "id -u; id -g; id -G",
    ];
    assert_eq!(rootless.parhelion(&exec).success(), "20\n30\n30 40\n");
}
