//! What is written for callers: config.json, the pid file, the pidfd.

use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::Stdio;

use libtest_mimic::Trial;
use rustix::process::{Signal, pidfd_send_signal};
use serde_json::{Value, json};

use crate::caller::{Socket, command, init_pid, wait_readable};
use crate::support::{Bundle, tests};

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    tests![
        spec_writes_a_configuration_that_runs,
        spec_rootless_maps_the_caller_and_runs,
        spec_does_not_write_over_a_configuration,
        spec_writes_over_a_file_that_is_named,
        the_pid_file_names_the_first_process,
        the_pidfd_socket_receives_a_descriptor_of_the_first_process,
    ]
}

/// Takes a configuration that `spec` wrote, which wants a terminal, and runs a script with it.
fn runs(bundle: &Bundle) {
    bundle.edit(|config| {
        assert_eq!(config["process"]["terminal"], json!(true));
        assert_eq!(config["process"]["args"], json!(["sh"]));
        config["process"]["terminal"] = json!(false);
        config["process"]["args"] = json!(["sh", "-c", "id -u; echo $PATH; hostname"]);
    });
    let seen = bundle.run().success();
    let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let lines: Vec<&str> = seen.lines().collect();
    assert_eq!(lines[..2], ["0", path], "{seen}");
    assert_eq!(lines.len(), 3);
}

fn spec_writes_a_configuration_that_runs() {
    let bundle = Bundle::new("");
    let file = bundle.folder.join("config.json");
    fs::remove_file(&file).unwrap();
    bundle.parhelion(&["spec", "-b", bundle.path()]).success();
    let long = fs::read(&file).unwrap();
    fs::remove_file(&file).unwrap();
    // Without the flag it is the working directory's.
    let mut spec = command(&bundle, &["spec"]);
    assert!(spec.current_dir(&bundle.folder).status().unwrap().success());
    assert_eq!(fs::read(&file).unwrap(), long);
    runs(&bundle);
}

fn spec_rootless_maps_the_caller_and_runs() {
    let bundle = Bundle::new("");
    fs::remove_file(bundle.folder.join("config.json")).unwrap();
    bundle
        .parhelion(&["spec", "--rootless", "--bundle", bundle.path()])
        .success();
    bundle.edit(|config| {
        let map = json!([{"containerID": 0, "hostID": 0, "size": 1}]);
        assert_eq!(config["linux"]["uidMappings"], map);
        assert_eq!(config["linux"]["gidMappings"], map);
        let namespaces = config["linux"]["namespaces"].as_array().unwrap();
        assert!(namespaces.contains(&json!({"type": "user"})));
    });
    runs(&bundle);
}

fn spec_does_not_write_over_a_configuration() {
    let bundle = Bundle::new("");
    let file = bundle.folder.join("config.json");
    let before = fs::read(&file).unwrap();
    let error = bundle
        .parhelion(&["spec", "--bundle", bundle.path()])
        .failure();
    assert!(error.contains("config.json\" exists: remove it"), "{error}");
    assert_eq!(fs::read(&file).unwrap(), before);
    let error = bundle
        .parhelion(&["spec", "--bundle", "/no/such"])
        .failure();
    assert!(error.contains("/no/such/config.json"), "{error}");
    assert!(error.contains("no such file or directory"), "{error}");
}

fn spec_writes_over_a_file_that_is_named() {
    let bundle = Bundle::new("");
    let own = fs::read(bundle.folder.join("config.json")).unwrap();
    let spec = |arguments: &[&str]| {
        let flags = ["spec", "--bundle", bundle.path()];
        bundle.parhelion(&[&flags, arguments].concat())
    };
    // A path counts from the bundle.
    for flag in ["--file", "-f"] {
        fs::write(bundle.folder.join("other.json"), "x".repeat(10_000)).unwrap();
        spec(&[flag, "other.json"]).success();
        let written = fs::read_to_string(bundle.folder.join("other.json")).unwrap();
        assert_eq!(written, spec(&["--file", "/dev/stdout"]).success());
        let written: Value = serde_json::from_str(&written).unwrap();
        assert_eq!(written["process"]["args"], json!(["sh"]));
    }
    assert_eq!(fs::read(bundle.folder.join("config.json")).unwrap(), own);
    let rootless = spec(&["--rootless", "-f", "/dev/stdout"]).success();
    assert!(rootless.contains("uidMappings"), "{rootless}");
    let error = spec(&["-f", "/no/such"]).failure();
    assert!(error.contains("open(\"/no/such\")"), "{error}");
}

fn the_pid_file_names_the_first_process() {
    let bundle = Bundle::new("sleep 1000");
    let file = bundle.folder.join("pid");
    for verb in [&["create"][..], &["run", "--detach"]] {
        let flags = [
            "--pid-file",
            file.to_str().unwrap(),
            "--bundle",
            bundle.path(),
            &bundle.id,
        ];
        let mut create = command(&bundle, &[verb, &flags].concat());
        let null = || Stdio::null();
        let created = create.stdin(null()).stdout(null()).stderr(null()).status();
        assert!(created.unwrap().success());
        let text = fs::read_to_string(&file).unwrap();
        assert_eq!(text, init_pid(&bundle).to_string());
        bundle
            .parhelion(&["delete", "--force", &bundle.id])
            .success();
    }
    let error = bundle.parhelion(&[
        "create",
        "--pid-file",
        "/no/such/pid",
        "-b",
        bundle.path(),
        &bundle.id,
    ]);
    let error = error.failure();
    assert!(error.contains("--pid-file /no/such/pid"), "{error}");
    assert!(error.contains("no such file or directory"), "{error}");
    assert!(bundle.verb("state").failure().contains("does not exist"));
}

fn the_pidfd_socket_receives_a_descriptor_of_the_first_process() {
    let bundle = Bundle::new("sleep 1000");
    let socket = Socket::new(&bundle, "pidfd.sock");
    let flags = [
        "--pidfd-socket",
        &socket.path,
        "--bundle",
        bundle.path(),
        &bundle.id,
    ];
    let mut create = command(&bundle, &[&["create"][..], &flags].concat());
    let null = || Stdio::null();
    let created = create.stdin(null()).stdout(null()).stderr(null()).status();
    assert!(created.unwrap().success());
    let (_name, pidfd): (String, OwnedFd) = socket.receive();
    let facts = fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd())).unwrap();
    let line = format!("Pid:\t{}", init_pid(&bundle));
    assert!(
        facts.lines().any(|found| found == line),
        "{line} in {facts}"
    );
    bundle.verb("start").success();
    pidfd_send_signal(&pidfd, Signal::KILL).unwrap();
    wait_readable(&pidfd);
    assert_eq!(bundle.status(), "stopped");
}
