//! What `create` decides before its first effect: the plans, what the record will say, and whether
//! the terminal has somebody at its other end.

use anyhow::{Context, Result, bail};
use oci_spec::runtime::Spec;
use rustix::process::geteuid;

use super::CreateRequest;
use super::create::Start;
use super::record::{Facts, now};
use crate::bundle::Bundle;
use crate::cgroups::{self, Hierarchy, Manager};
use crate::error::{self, Problems};
use crate::namespaces::{self, Kind};
use crate::rootfs::{self, HostTree};

/// What is decided before the first effect.
pub(super) struct Plans {
    pub namespaces: namespaces::Plan,
    pub cgroup: cgroups::Plan,
    pub rootfs: rootfs::Plan<HostTree>,
}

impl Plans {
    pub fn new(
        bundle: &Bundle,
        request: &CreateRequest,
        namespaces: namespaces::Plan,
        (hierarchy, manager): (&Hierarchy, &Manager),
        mut problems: Problems,
    ) -> Result<Plans> {
        let id = request.id.as_str();
        let cgroup = cgroups::Plan::managed(&bundle.spec, id, hierarchy, manager, &mut problems);
        let context = rootfs::Context {
            bundle: &bundle.dir,
            rootfs: &bundle.rootfs,
            cgroup_tree: hierarchy.mount_point(),
            mount_namespace: mount_namespace(&namespaces),
            user_namespace: namespaces.is_own(Kind::User),
            joined_user_namespace: namespaces.joined(Kind::User),
            cgroup_namespace: namespaces.is_own(Kind::Cgroup),
            no_pivot: request.no_pivot,
        };
        let rootfs = rootfs::Plan::new(&bundle.spec, context, &mut problems);
        problems
            .into_result()
            .with_context(|| format!("{:?}", bundle.dir.join("config.json")))?;
        error::debug(|| format!("plan:\n{namespaces}{cgroup}{rootfs}"));
        Ok(Plans {
            namespaces,
            cgroup,
            rootfs,
        })
    }
}

fn mount_namespace(namespaces: &namespaces::Plan) -> rootfs::MountNamespace {
    if namespaces.is_new(Kind::Mount) {
        rootfs::MountNamespace::New
    } else if namespaces.is_own(Kind::Mount) {
        rootfs::MountNamespace::Joined
    } else {
        rootfs::MountNamespace::Host
    }
}

/// A terminal needs somebody at its other end, and a socket for one needs a terminal.
pub(super) fn check_terminal(spec: &Spec, request: &CreateRequest, start: Start) -> Result<()> {
    let wanted = spec
        .process()
        .as_ref()
        .and_then(|p| p.terminal())
        .unwrap_or(false);
    match (wanted, &request.console_socket, start) {
        (true, None, Start::Later | Start::Detached) => bail!(
            "process.terminal: a container in the background needs --console-socket for its terminal"
        ),
        (false, Some(_), _) => bail!(
            "--console-socket: there is no terminal to send; set process.terminal, or leave it out"
        ),
        (true, Some(_), _) | (true, None, Start::Foreground) | (false, None, _) => Ok(()),
    }
}

pub(super) fn facts(bundle: &Bundle, plans: &Plans) -> Facts {
    let spec = &bundle.spec;
    let hooks = spec.hooks().as_ref();
    let list = |list: Option<&Vec<_>>| list.cloned().unwrap_or_default();
    Facts {
        oci_version: spec.version().clone(),
        bundle: bundle.dir.clone(),
        rootfs: bundle.rootfs.clone(),
        cgroup: Some(plans.cgroup.path().to_path_buf()),
        unit: plans.cgroup.unit().cloned(),
        annotations: spec
            .annotations()
            .clone()
            .unwrap_or_default()
            .into_iter()
            .collect(),
        created: now(),
        owner: geteuid().as_raw(),
        device_rules: plans.cgroup.device_rules(),
        own_pid_namespace: plans.namespaces.is_new(Kind::Pid),
        poststart: list(hooks.and_then(|h| h.poststart().as_ref())),
        poststop: list(hooks.and_then(|h| h.poststop().as_ref())),
    }
}
