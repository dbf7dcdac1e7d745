//! Plans as text, one step per line.

use std::path::Path;

use serde_json::{Value, json};

use super::{Context, MountNamespace};
use crate::error::Problems;
use crate::rootfs::{HostTree, Plan};

fn plan(config: Value, binds_devices: bool) -> (Plan<HostTree>, String) {
    let mut config = config;
    config["ociVersion"] = json!("1.3.0");
    let context = Context {
        bundle: Path::new("/proc/self"),
        rootfs: Path::new("/srv/web/rootfs"),
        cgroup_tree: Path::new("/sys/fs/cgroup"),
        mount_namespace: MountNamespace::New,
        binds_devices,
        joined_user_namespace: None,
        cgroup_namespace: false,
        no_pivot: false,
    };
    let mut problems = Problems::default();
    let spec = serde_json::from_value(config).unwrap();
    let plan = Plan::new(&spec, context, &mut problems);
    (plan, problems.to_string())
}

#[test]
fn a_plan_prints_one_step_per_line() {
    let (plan, problems) = plan(
        json!({
            "root": {"path": "rootfs", "readonly": true},
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                {"destination": "/dev", "type": "bind", "source": "/dev", "options": ["rbind"]},
                {"destination": "/data", "source": "ns", "options":
                    ["bind", "ro", "nosuid", "rnodev", "rexec", "noatime", "rslave"]},
                {"destination": "/sys/fs/cgroup", "type": "cgroup", "options": ["ro"]},
                {"destination": "/tmp", "type": "tmpfs", "options":
                    ["size=1m", "tmpcopyup", "sync", "async", "lazytime"]},
                {"destination": "/tmp", "options": ["remount", "rw", "noexec", "size=2m"]},
            ],
            "linux": {"maskedPaths": ["/proc/kcore"], "readonlyPaths": ["/proc/sys"]},
        }),
        false,
    );
    assert_eq!(problems, "");
    assert_eq!(
        plan.to_string(),
        "root   /srv/web/rootfs by Pivot\n\
         proc   proc -> proc\n\
         rbind  /dev -> dev\n\
         bind   /proc/self/ns -> data ro nosuid noatime rnodev rexec rslave\n\
         bind   /sys/fs/cgroup -> sys/fs/cgroup ro\n\
         tmpfs  - -> tmp size=1m lazytime tmpcopyup\n\
         remount -> tmp noexec size=2m rw\n\
         ro     proc/sys\n\
         mask   proc/kcore\n\
         ro     .\n"
    );
}

#[test]
fn new_file_systems_get_the_label_of_mounts() {
    let config = |annotations: Value| {
        json!({
            "annotations": annotations,
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue"},
                {"destination": "/data", "source": "ns", "options": ["bind"]},
                {"destination": "/tmp", "type": "tmpfs", "options": ["size=1m"]},
            ],
            "linux": {"mountLabel": "u:r:t:s0:c1,c2"},
        })
    };
    let (labelled, problems) = plan(config(json!({})), false);
    assert_eq!(problems, "");
    assert!(
        labelled.to_string().contains(
            "proc   proc -> proc\n\
             mqueue mqueue -> dev/mqueue label=u:r:t:s0:c1,c2\n\
             bind   /proc/self/ns -> data\n\
             tmpfs  - -> tmp size=1m context=u:r:t:s0:c1,c2\n"
        ),
        "{labelled}"
    );
    let kind = json!({"run.oci.mount_context_type": "rootcontext"});
    let (other, _) = plan(config(kind), false);
    assert!(other.to_string().contains(" rootcontext=u:r:t"), "{other}");
    let (_, problems) = plan(config(json!({"run.oci.mount_context_type": "x"})), false);
    assert_eq!(
        problems,
        "annotations[\"run.oci.mount_context_type\"]: must be context, fscontext, defcontext or \
         rootcontext, is \"x\""
    );
}

#[test]
fn devices_of_a_user_namespace_are_bound() {
    let devices = json!([{"path": "/dev/fifo", "type": "p"}]);
    let config = json!({"linux": {"devices": devices}});
    let (made, _) = plan(config.clone(), false);
    assert!(
        made.to_string()
            .contains("mknod  dev/null c 1:3 0o666 0:0\n")
    );
    let (bound, problems) = plan(config, true);
    let text = bound.to_string();
    assert!(text.contains("bind   /dev/null -> dev/null\n"), "{text}");
    assert!(text.contains("mknod  dev/fifo p 0:0 0o666 0:0\n"), "{text}");
    assert!(text.contains("link   dev/ptmx -> pts/ptmx\n"), "{text}");
    assert_eq!(problems, "");
}
