//! What is named and tuned for the container alone: host name, kernel parameters, annotations, keys.

use std::fs;

use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::caller::state;
use crate::support::{Bundle, tests};

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    tests![
        host_and_domain_name_are_the_containers_alone,
        a_host_name_without_a_namespace_for_it_is_refused,
        parameters_of_the_containers_namespaces_are_set_and_the_hosts_stay,
        parameters_of_the_host_are_refused_each_with_its_path,
        parameters_of_a_namespace_that_is_shared_are_refused,
        a_parameter_that_the_kernel_refuses_is_named_with_its_value,
        annotations_are_kept_in_the_state,
        the_session_keyring_is_the_containers_own_unless_asked_otherwise,
    ]
}

fn without_namespace(config: &mut Value, kind: &str) {
    let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
    namespaces.retain(|namespace| namespace["type"] != kind);
}

fn kernel(parameter: &str) -> String {
    fs::read_to_string(format!("/proc/sys/{parameter}")).unwrap()
}

fn host_and_domain_name_are_the_containers_alone() {
    let names = ["kernel/hostname", "kernel/domainname"].map(kernel);
    let bundle = Bundle::new("hostname; cat /proc/sys/kernel/domainname");
    bundle.edit(|config| {
        config["hostname"] = json!("inside-host");
        config["domainname"] = json!("inside.domain");
    });
    assert_eq!(bundle.run().success(), "inside-host\ninside.domain\n");
    assert_eq!(["kernel/hostname", "kernel/domainname"].map(kernel), names);
}

fn a_host_name_without_a_namespace_for_it_is_refused() {
    let bundle = Bundle::new("");
    bundle.edit(|config| {
        without_namespace(config, "uts");
        config["hostname"] = json!("a");
        config["domainname"] = json!("b");
    });
    let error = bundle.create().failure();
    for path in ["hostname: ", "domainname: "] {
        assert!(error.contains(path), "{path} in {error}");
    }
}

fn parameters_of_the_containers_namespaces_are_set_and_the_hosts_stay() {
    let settings = [
        ("kernel.msgmax", "kernel/msgmax", "12345"),
        ("kernel.shm_rmid_forced", "kernel/shm_rmid_forced", "1"),
        ("kernel.sem", "kernel/sem", "250\t32000\t32\t77"),
        ("fs.mqueue.msg_max", "fs/mqueue/msg_max", "7"),
        ("net.ipv4.ip_forward", "net/ipv4/ip_forward", "1"),
        ("net/core/somaxconn", "net/core/somaxconn", "77"),
        ("kernel.domainname", "kernel/domainname", "by.parameter"),
    ];
    let files = settings.map(|(_, file, _)| file);
    let before = files.map(kernel);
    let bundle = Bundle::new(&format!("cd /proc/sys; cat {}", files.join(" ")));
    bundle.edit(|config| {
        config["linux"]["sysctl"] = settings
            .iter()
            .map(|(name, _, value)| ((*name).to_owned(), json!(value)))
            .collect();
    });
    let seen = bundle.run().success();
    let expected = settings.map(|(_, _, value)| value);
    assert_eq!(seen.lines().collect::<Vec<_>>(), expected);
    assert_eq!(files.map(kernel), before);
}

fn parameters_of_the_host_are_refused_each_with_its_path() {
    let before = kernel("kernel/pid_max");
    let bundle = Bundle::new("");
    bundle.edit(|config| {
        config["linux"]["sysctl"] = json!({
            "kernel.pid_max": "1000", "vm.swappiness": "1", "fs.file-max": "1",
            "kernel.core_pattern": "|/bin/sh", "net/../kernel/pid_max": "1000",
        });
    });
    let error = bundle.create().failure();
    for name in [
        "kernel.pid_max",
        "vm.swappiness",
        "fs.file-max",
        "kernel.core_pattern",
        "net/../kernel/pid_max",
    ] {
        let path = format!("linux.sysctl[\"{name}\"]: ");
        assert!(error.contains(&path), "{path} in {error}");
    }
    assert_eq!(kernel("kernel/pid_max"), before);
    assert!(bundle.verb("state").failure().contains("does not exist"));
}

fn parameters_of_a_namespace_that_is_shared_are_refused() {
    let bundle = Bundle::new("");
    let file = bundle.folder.join("config.json");
    let original = fs::read(&file).unwrap();
    for (namespace, name) in [
        ("network", "net.ipv4.ip_forward"),
        ("ipc", "kernel.shmmax"),
        ("ipc", "fs.mqueue.msg_max"),
        ("uts", "kernel.domainname"),
    ] {
        for path in [None, Some("/proc/self/ns")] {
            fs::write(&file, &original).unwrap();
            bundle.edit(|config| {
                without_namespace(config, namespace);
                config.as_object_mut().unwrap().remove("hostname");
                if let Some(folder) = path {
                    // The host's, named by its path.
                    let file = if namespace == "network" {
                        "net"
                    } else {
                        namespace
                    };
                    let joined = json!({"type": namespace, "path": format!("{folder}/{file}")});
                    let namespaces = config["linux"]["namespaces"].as_array_mut();
                    namespaces.unwrap().push(joined);
                }
                config["linux"]["sysctl"] = json!({ name: "1" });
            });
            let error = bundle.create().failure();
            let words = format!("linux.sysctl[\"{name}\"]: ");
            assert!(error.contains(&words), "{path:?}: {error}");
        }
    }
}

fn a_parameter_that_the_kernel_refuses_is_named_with_its_value() {
    let bundle = Bundle::new("");
    let setting = |name: &str| {
        bundle.edit(|config| config["linux"]["sysctl"] = json!({ name: "x" }));
        bundle.create().failure()
    };
    let error = setting("net.ipv4.ip_forward");
    let words = "write(\"/proc/sys/net/ipv4/ip_forward\", \"x\"): invalid argument";
    assert!(error.contains(words), "{error}");
    let error = setting("net.no.such");
    let words = "linux.sysctl: openat2(\"/proc/sys/net/no/such\"): no such file or directory";
    assert!(error.contains(words), "{error}");
}

fn annotations_are_kept_in_the_state() {
    let bundle = Bundle::new("");
    let annotations = json!({"com.example.a": "b", "empty": "", "text": "{\"x\": \"ü\"}"});
    bundle.edit(|config| config["annotations"] = annotations.clone());
    bundle.create().success();
    assert_eq!(state(&bundle)["annotations"], annotations);
}

fn the_session_keyring_is_the_containers_own_unless_asked_otherwise() {
    let bundle = Bundle::new("cat /proc/keys");
    bundle.edit(|config| config["linux"]["maskedPaths"] = json!([]));
    let own = format!("_ses.{}", bundle.id);
    let arguments = [
        "run",
        "--no-new-keyring",
        "--bundle",
        bundle.path(),
        &bundle.id,
    ];
    let seen = bundle.parhelion(&arguments).success();
    assert!(!seen.contains(&own), "{own} in {seen}");
    let seen = bundle.run().success();
    assert!(seen.contains(&own), "{own} in {seen}");
}
