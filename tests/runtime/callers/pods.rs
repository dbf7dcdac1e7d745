//! Podman's pods, as root: containers that share namespaces and a cgroup.

use libtest_mimic::Trial;

use super::podman::{Container, podman, prepare};
use super::{IMAGE, call, cgroup_of, limit};
use crate::support::tests;

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    tests![a_pod_of_podman_shares_pauses_stops_and_starts]
}

/// A pod, removed on drop with what is in it.
struct Pod(&'static str);

impl Drop for Pod {
    fn drop(&mut self) {
        call(&["podman", "pod", "rm", "--force", "--time", "0", self.0]);
    }
}

fn a_pod_of_podman_shares_pauses_stops_and_starts() {
    prepare();
    // The image that Podman itself would build for this has catatonit, a package of its own.
    let infra = ["--infra-image", IMAGE, "--infra-command", "sleep 100000"];
    let pod = Pod("pod");
    podman(
        &[
            &["pod", "create", "--name", "pod", "--hostname", "ours"],
            &infra[..],
        ]
        .concat(),
    );
    let web = Container::start(
        "web",
        &["--pod", "pod"],
        "busybox nc -l -p 80 -e echo heard; exec sleep 1000",
    );
    let script = "hostname; until busybox nc 127.0.0.1 80; do :; done";
    let told = podman(&["run", "--rm", "--pod", "pod", IMAGE, "sh", "-c", script]);
    assert_eq!(told, "ours\nheard");

    let pid = web.inspect("{{.State.Pid}}");
    let slice = podman(&["pod", "inspect", "--format", "{{.CgroupPath}}", "pod"]);
    let cgroup = cgroup_of(&pid);
    assert!(
        cgroup.starts_with(format!("/sys/fs/cgroup/{}", slice.trim_start_matches('/'))),
        "{cgroup:?}"
    );
    let stats = podman(&[
        "pod",
        "stats",
        "--no-stream",
        "--format",
        "{{.Name}} {{.PIDS}}",
        "pod",
    ]);
    assert!(stats.lines().any(|line| line == "web 1"), "{stats}");

    podman(&["pod", "pause", "pod"]);
    assert_eq!(limit(&pid, "cgroup.freeze"), "1");
    podman(&["pod", "unpause", "pod"]);
    assert_eq!(limit(&pid, "cgroup.freeze"), "0");
    podman(&["pod", "stop", "--time", "0", "pod"]);
    assert_eq!(web.inspect("{{.State.Status}}"), "exited");
    podman(&["pod", "start", "pod"]);
    assert_eq!(web.inspect("{{.State.Status}}"), "running");
    drop(pod);
    assert_eq!(
        podman(&["ps", "--all", "--quiet", "--filter", "name=web"]),
        ""
    );
}
