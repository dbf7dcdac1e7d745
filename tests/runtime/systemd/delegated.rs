//! A caller whose own cgroup was handed over to it: no word to systemd, or one after all.

use std::process::Command;

use libtest_mimic::Trial;
use serde_json::{Value, json};

use super::{cgroups_path, is_loaded, scope};
use crate::support::{Bundle, needs_systemd, program, tests};

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    needs_systemd(tests![
        in_a_divided_unit_of_its_own_the_caller_needs_no_systemd,
        a_slice_that_is_named_is_where_the_container_goes,
        a_unit_with_processes_of_its_own_gets_a_scope,
        a_unit_that_was_not_handed_over_gets_a_scope,
    ])
}

/// Where no systemd answers.
const NOWHERE: &str = "--setenv=DBUS_SYSTEM_BUS_ADDRESS=unix:path=/nowhere";

/// Creates the container from within a service with these options of systemd-run(1); where its
/// first process is, and the service's cgroup.
fn created_from(bundle: &Bundle, options: &[&str]) -> (String, String) {
    let service = format!("{}-caller.service", bundle.id);
    let mut command = Command::new("systemd-run");
    command.args([
        "--quiet",
        "--wait",
        "--pipe",
        "--collect",
        "--unit",
        &service,
        "-pKillMode=process",
    ]);
    command.args(options).arg(program()).arg("--root");
    command.arg(bundle.folder.join("state"));
    command.args([
        "--systemd-cgroup",
        "create",
        "--bundle",
        bundle.path(),
        &bundle.id,
    ]);
    let log = std::fs::File::create(bundle.folder.join("log")).unwrap();
    let status = command
        .stdin(std::process::Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .status()
        .unwrap();
    let told = std::fs::read_to_string(bundle.folder.join("log")).unwrap();
    assert!(status.success(), "{told}");
    let record = std::fs::read(
        bundle
            .folder
            .join("state")
            .join(&bundle.id)
            .join("state.json"),
    );
    let record: Value = serde_json::from_slice(&record.unwrap()).unwrap();
    let cgroup = record["facts"]["cgroup"].as_str().unwrap().to_owned();
    assert_eq!(super::cgroup_of(bundle.pid()), format!("/{cgroup}"));
    assert_eq!(
        record["facts"]["unit"].is_null(),
        !cgroup.ends_with(".scope")
    );
    (cgroup, format!("system.slice/{service}"))
}

fn in_a_divided_unit_of_its_own_the_caller_needs_no_systemd() {
    let bundle = Bundle::new("sleep 1000");
    super::resources(&bundle, &json!({"pids": {"limit": 50}}));
    let divided = ["-pDelegate=yes", "-pDelegateSubgroup=main", NOWHERE];
    let (cgroup, service) = created_from(&bundle, &divided);
    let directory = std::path::Path::new(super::HOST).join(&cgroup);
    assert_eq!(super::read(&directory, "pids.max"), "50");
    assert_eq!(cgroup, format!("{service}/parhelion-{}", bundle.id));
    assert!(!is_loaded(&scope(&bundle)));
    bundle
        .parhelion(&["delete", "--force", &bundle.id])
        .success();
    assert!(!directory.exists());
}

fn a_slice_that_is_named_is_where_the_container_goes() {
    let bundle = Bundle::new("sleep 1000");
    cgroups_path(&bundle, &format!("system.slice:named:{}", bundle.id));
    let divided = ["-pDelegate=yes", "-pDelegateSubgroup=main"];
    let (cgroup, _) = created_from(&bundle, &divided);
    assert_eq!(cgroup, format!("system.slice/named-{}.scope", bundle.id));
}

fn a_unit_with_processes_of_its_own_gets_a_scope() {
    let bundle = Bundle::new("sleep 1000");
    let (cgroup, _) = created_from(&bundle, &["-pDelegate=yes"]);
    assert_eq!(cgroup, format!("system.slice/{}", scope(&bundle)));
}

fn a_unit_that_was_not_handed_over_gets_a_scope() {
    let bundle = Bundle::new("sleep 1000");
    let (cgroup, _) = created_from(&bundle, &[]);
    assert_eq!(cgroup, format!("system.slice/{}", scope(&bundle)));
}
