//! What `create` decides before its first effect: the plans, and what the record will say.

use std::path::Path;

use anyhow::{Context, Result};

use super::checkpoint::streams;
use super::facts::{Facts, now};
use super::filters::Filters;
use super::{CreateRequest, devices};
use crate::bundle::Bundle;
use crate::cgroups::{self, Hierarchy, Manager, resctrl};
use crate::error::{self, Problems};
use crate::init;
use crate::namespaces::{self, Kind};
use crate::rootfs::{self, HostTree};
use crate::seccomp;
use crate::sys::attributes::effective_uid;
use crate::sys::rights::Rights;

/// What is decided before the first effect.
pub(super) struct Plans {
    pub namespaces: namespaces::Plan,
    pub cgroup: cgroups::Plan,
    pub resctrl: Option<resctrl::Plan>,
    pub rootfs: rootfs::Plan<HostTree>,
    pub seccomp: Option<seccomp::Plan>,
}

impl Plans {
    pub fn new(
        (bundle, filters): (&Bundle, &mut Filters),
        request: &CreateRequest,
        namespaces: namespaces::Plan,
        (hierarchy, manager, rights): (&Hierarchy, &Manager, Rights),
        mut problems: Problems,
    ) -> Result<Plans> {
        let id = request.id.as_str();
        let resctrl = resctrl::Plan::new(&bundle.spec, id, &mut problems);
        warn_without_cgroup(bundle, manager);
        let manager = (manager, rights.are_the_hosts());
        let cgroup = cgroups::Plan::managed(&bundle.spec, id, hierarchy, manager, &mut problems);
        check_rights(rights, &namespaces, &cgroup, &mut problems);
        let mut rootfs = rootfs(
            bundle,
            (&namespaces, rights),
            hierarchy,
            request.no_pivot,
            &mut problems,
        );
        devices::keep_out(
            &bundle.spec,
            &namespaces,
            &cgroup,
            &mut rootfs,
            &mut problems,
        );
        init::landlock::check_landlock(&bundle.spec, &mut problems);
        init::labels::check_labels(&bundle.spec, &mut problems);
        let seccomp = filters.plan(&bundle.spec, &mut problems);
        problems
            .into_result()
            .with_context(|| format!("{:?}", bundle.config))?;
        error::debug(|| {
            let seccomp = seccomp.as_ref().map(ToString::to_string);
            let seccomp = seccomp.unwrap_or_default();
            format!("plan:\n{namespaces}{cgroup}{rootfs}{seccomp}")
        });
        Ok(Plans {
            namespaces,
            cgroup,
            resctrl,
            rootfs,
            seccomp,
        })
    }
}

/// What is about a cgroup that nobody is to make: its place, and a mount that shows the caller's instead.
fn warn_without_cgroup(bundle: &Bundle, manager: &Manager) {
    if !matches!(manager, Manager::Disabled) {
        return;
    }
    let linux = bundle.spec.linux().as_ref();
    if linux.is_some_and(|linux| linux.cgroups_path().is_some()) {
        error::warn("linux.cgroupsPath: has no effect: --cgroup-manager disabled makes no cgroup");
    }
    for (i, mount) in bundle.mounts().iter().enumerate() {
        let shows_cgroups = matches!(mount.typ().as_deref(), Some("cgroup" | "cgroup2"));
        let mut options = mount.options().iter().flatten();
        if shows_cgroups && !options.any(|option| option == "ro" || option == "rro") {
            error::warn(&format!(
                "mounts[{i}]: is not \"ro\": with --cgroup-manager disabled the container's root can \
                 change the caller's own cgroup there, and end what is in it"
            ));
        }
    }
}

/// What somebody without the host's rights can not have, or not know.
fn check_rights(
    rights: Rights,
    namespaces: &namespaces::Plan,
    cgroup: &cgroups::Plan,
    problems: &mut Problems,
) {
    if rights == Rights::User && !namespaces.is_own(Kind::User) {
        let advice = "an ordinary user needs a user namespace: add {\"type\": \"user\"} and \
            linux.uidMappings and linux.gidMappings, as `parhelion spec --rootless` writes them";
        problems.add("linux.namespaces", advice);
    }
    if cgroup.path().is_none() && !namespaces.is_new(Kind::Pid) {
        error::warn(
            "linux.namespaces: without a cgroup and a new pid namespace, processes that outlive the \
             container's first one can not be found to be ended",
        );
    }
}

/// What is done to the file system of a container.
pub(super) fn rootfs(
    bundle: &Bundle,
    (namespaces, rights): (&namespaces::Plan, Rights),
    hierarchy: &Hierarchy,
    no_pivot: bool,
    problems: &mut Problems,
) -> rootfs::Plan<HostTree> {
    let context = rootfs::Context {
        bundle: &bundle.dir,
        rootfs: &bundle.rootfs,
        cgroup_tree: hierarchy.mount_point(),
        mount_namespace: mount_namespace(namespaces),
        binds_devices: namespaces.is_own(Kind::User) || !rights.are_the_hosts(),
        joined_user_namespace: namespaces.joined(Kind::User),
        cgroup_namespace: namespaces.is_own(Kind::Cgroup),
        no_pivot,
    };
    rootfs::Plan::new(&bundle.spec, context, problems)
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

/// What the record says of a container that is planned.
pub(super) fn facts(bundle: &Bundle, plans: &Plans, request: &CreateRequest) -> Facts {
    let spec = &bundle.spec;
    let hooks = spec.hooks().as_ref();
    let list = |list: Option<&Vec<_>>| list.cloned().unwrap_or_default();
    Facts {
        oci_version: spec.version().clone(),
        bundle: bundle.dir.clone(),
        config: request.config.clone(),
        rootfs: bundle.rootfs.clone(),
        cgroup: plans.cgroup.path().map(Path::to_path_buf),
        inner: plans.cgroup.inner().cloned(),
        resctrl: plans.resctrl.as_ref().map(|plan| plan.groups().clone()),
        unit: plans.cgroup.unit().cloned(),
        annotations: spec
            .annotations()
            .clone()
            .unwrap_or_default()
            .into_iter()
            .chain(request.annotations.clone())
            .collect(),
        created: now(),
        owner: effective_uid(),
        keyring: !request.no_new_keyring,
        device_rules: plans.cgroup.device_rules(),
        own_pid_namespace: plans.namespaces.is_new(Kind::Pid),
        streams: streams::inherited(spec),
        poststart: list(hooks.and_then(|h| h.poststart().as_ref())),
        poststop: list(hooks.and_then(|h| h.poststop().as_ref())),
    }
}
