//! Where the scope is and what it is called: `linux.cgroupsPath`, and properties by annotation.

use std::path::Path;

use libtest_mimic::Trial;
use serde_json::json;

use super::{
    HOST, cgroup_of, cgroups_path, is_loaded, make, properties, property, scope, sleeper, start,
};
use crate::support::{Bundle, needs_systemd, tests};

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    needs_systemd(tests![
        a_container_has_a_scope_of_its_own_in_the_systems_slice,
        a_path_names_slice_prefix_and_name,
        a_slice_with_dashes_lies_in_others,
        a_path_of_another_form_is_refused,
        an_annotation_sets_a_property,
        an_annotation_for_others_than_the_unit_is_refused,
        a_name_that_no_unit_can_have_is_escaped,
        the_scope_is_reached_over_the_bus_as_well,
    ])
}

fn a_container_has_a_scope_of_its_own_in_the_systems_slice() {
    let bundle = sleeper();
    let scope = scope(&bundle);
    let place = format!("/system.slice/{scope}");
    assert_eq!(cgroup_of(bundle.pid()), place);
    let procs = super::read(&super::cgroup(&bundle), "cgroup.procs");
    assert_eq!(procs, bundle.pid().to_string());
    let names = [
        "ActiveState",
        "CollectMode",
        "ControlGroup",
        "DefaultDependencies",
        "Delegate",
        "Description",
        "Slice",
    ];
    let found = properties(&scope, &names);
    let description = format!("container {}", bundle.id);
    let expected = [
        "active",
        "inactive-or-failed",
        &place,
        "no",
        "yes",
        &description,
        "system.slice",
    ];
    assert_eq!(found.values().collect::<Vec<_>>(), expected);
}

fn a_path_names_slice_prefix_and_name() {
    let bundle = Bundle::new("sleep 1000");
    cgroups_path(&bundle, &format!("user.slice:libpod:{}x", bundle.id));
    start(&bundle);
    let scope = format!("libpod-{}x.scope", bundle.id);
    assert_eq!(cgroup_of(bundle.pid()), format!("/user.slice/{scope}"));
    assert_eq!(property(&scope, "Slice"), "user.slice");
}

fn a_slice_with_dashes_lies_in_others() {
    let bundle = Bundle::new("sleep 1000");
    let top = bundle.id.replace('-', "_");
    cgroups_path(&bundle, &format!("{top}-b-c.slice:pod:web"));
    start(&bundle);
    let place = format!("/{top}.slice/{top}-b.slice/{top}-b-c.slice/pod-web.scope");
    assert_eq!(cgroup_of(bundle.pid()), place);
    bundle
        .parhelion(&["delete", "--force", &bundle.id])
        .success();
    assert!(!Path::new(&format!("{HOST}{place}")).exists());
}

fn a_path_of_another_form_is_refused() {
    let bundle = Bundle::new("true");
    for (path, problem) in [
        (
            "/pods/web",
            "must have the form slice:prefix:name with --systemd-cgroup",
        ),
        ("pods:x:web", "its first part must be a slice"),
        ("a--b.slice:x:web", "can not be a slice's name"),
    ] {
        cgroups_path(&bundle, path);
        let error = make(&bundle, "create").failure();
        assert!(error.contains("linux.cgroupsPath: "), "{error}");
        assert!(error.contains(problem), "{error}");
        assert!(bundle.verb("state").failure().contains("does not exist"));
    }
}

fn an_annotation_sets_a_property() {
    let bundle = Bundle::new("sleep 1000");
    bundle.edit(|config| {
        config["annotations"] = json!({
            "org.systemd.property.TimeoutStopUSec": "uint64 7000000",
            "org.systemd.property.KillSignal": "10",
            "org.systemd.property.Description": "'the web server'",
            "org.systemd.property.RuntimeMaxSec": "86400",
            "org.systemd.property.After": "['network.target']",
        });
    });
    start(&bundle);
    let names = [
        "After",
        "Description",
        "KillSignal",
        "RuntimeMaxUSec",
        "TimeoutStopUSec",
    ];
    let found = properties(&scope(&bundle), &names);
    assert!(found["After"].contains("network.target"), "{found:?}");
    let rest: Vec<_> = names[1..]
        .iter()
        .map(|name| found[*name].as_str())
        .collect();
    assert_eq!(rest, ["the web server", "10", "1d", "7s"]);
}

fn an_annotation_for_others_than_the_unit_is_refused() {
    let bundle = Bundle::new("true");
    bundle.edit(|config| {
        config["annotations"] = json!({
            "org.systemd.property.SuccessAction": "'reboot'",
            "org.systemd.property.KillSignal": "'TERM'",
        });
    });
    let error = make(&bundle, "create").failure();
    for problem in [
        "annotations[\"org.systemd.property.SuccessAction\"]: an annotation may not set the property",
        "annotations[\"org.systemd.property.KillSignal\"]: must be a signal's number, as 15",
    ] {
        assert!(error.contains(problem), "{error}");
    }
    assert!(!is_loaded(&scope(&bundle)));
    // Without systemd they are annotations like others.
    bundle.run().success();
}

fn a_name_that_no_unit_can_have_is_escaped() {
    let bundle = Bundle::new("sleep 1000");
    cgroups_path(&bundle, &format!(":p:{}+x", bundle.id));
    start(&bundle);
    let scope = format!("p-{}\\x2bx.scope", bundle.id);
    assert_eq!(cgroup_of(bundle.pid()), format!("/system.slice/{scope}"));
    assert!(is_loaded(&scope));
    bundle
        .parhelion(&["delete", "--force", &bundle.id])
        .success();
    assert!(!is_loaded(&scope));
}

fn the_scope_is_reached_over_the_bus_as_well() {
    let bundle = Bundle::new("echo inside");
    let bus = "unix:path=/run/dbus/system_bus_socket";
    let ran = super::make_with(&bundle, "run", &[("DBUS_SYSTEM_BUS_ADDRESS", bus)]);
    assert_eq!(ran.success(), "inside\n");
    assert!(!is_loaded(&scope(&bundle)));
}
