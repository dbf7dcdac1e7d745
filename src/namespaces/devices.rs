//! Network interfaces of the host that become the container's (config-linux.md, "Network Devices").
//!
//! The runtime moves them, with the host's privileges, when init's namespaces are there and before
//! init gets its plan, which may set their sysctls. What can be known beforehand is asked before
//! the first one is moved: the kernel destroys most interfaces with the namespace that they are in.
//! None is moved back: their lifecycle is the namespace's.

use std::fs::File;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use oci_spec::runtime::Spec;
use rustix::fd::AsFd as _;
use rustix::process::Pid;

use super::{Kind, Plan, open};
use crate::error::Problems;
use crate::sys::netlink::{Address, NAME_LIMIT, Netlink};

/// What stands for a number that is free, in a name inside.
const TEMPLATE: &str = "%d";

/// One interface, in the order of the names on the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Its name on the host.
    pub host: String,
    /// Its name inside; a number takes the place of `%d`.
    pub inside: String,
}

/// An interface with what is lost when it is moved.
struct Found<'a> {
    device: &'a Device,
    index: u32,
    inside: String,
    addresses: Vec<Address>,
}

/// The interfaces that `spec` asks for. One that the host lacks is a problem.
pub(super) fn plan(spec: &Spec, problems: &mut Problems) -> Vec<Device> {
    let linux = spec.linux().as_ref();
    let wanted = linux.and_then(|linux| linux.net_devices().as_ref());
    let mut devices: Vec<Device> = wanted
        .into_iter()
        .flatten()
        .map(|(host, device)| Device {
            host: host.clone(),
            inside: device.name().clone().unwrap_or_else(|| host.clone()),
        })
        .collect();
    devices.sort_by(|a, b| a.host.cmp(&b.host));
    for Device { host, .. } in &devices {
        match Netlink::open().and_then(|netlink| netlink.interface(host)) {
            Ok(Some(_)) => {}
            Ok(None) => problems.add(json_path(host), "the host has no such interface"),
            Err(error) => problems.add(json_path(host), error.to_string()),
        }
    }
    devices
}

fn json_path(host: &str) -> String {
    format!("linux.netDevices.{host}")
}

/// Moves the interfaces of `plan` into the network namespace of init, the process `pid`.
///
/// # Errors
///
/// An interface that is gone, a name that is taken inside, what the kernel answered; the field is
/// named.
pub fn move_devices(plan: &Plan, pid: Pid) -> Result<()> {
    if plan.devices.is_empty() {
        return Ok(());
    }
    // Init may still be on its way into a namespace that it joins.
    let path = match plan.joined(Kind::Network) {
        Some(path) => path.to_path_buf(),
        None => PathBuf::from(format!("/proc/{}/ns/net", pid.as_raw_nonzero())),
    };
    let namespace = open(&path).context("network namespace")?;
    let outside = Netlink::open()?;
    let inside = Netlink::open_in(namespace.as_fd())?;
    let mut found: Vec<Found<'_>> = Vec::new();
    for device in &plan.devices {
        let taken: Vec<&str> = found.iter().map(|found| found.inside.as_str()).collect();
        let next = find(device, &outside, &inside, &taken);
        found.push(next.with_context(|| json_path(&device.host))?);
    }
    for found in found {
        move_one(&found, &outside, &inside, &namespace)
            .with_context(|| json_path(&found.device.host))?;
    }
    Ok(())
}

fn find<'a>(
    device: &'a Device,
    outside: &Netlink,
    inside: &Netlink,
    taken: &[&str],
) -> Result<Found<'a>> {
    let Some(index) = outside.interface(&device.host)? else {
        bail!("the host has no such interface");
    };
    let addresses = outside.addresses(index)?;
    Ok(Found {
        device,
        index,
        inside: free_name(&device.inside, inside, taken)?,
        addresses,
    })
}

/// The name inside: of a template the lowest number that is free, as the kernel chooses.
fn free_name(wanted: &str, inside: &Netlink, taken: &[&str]) -> Result<String> {
    let is_free = |name: &str| -> Result<bool> {
        Ok(!taken.contains(&name) && inside.interface(name)?.is_none())
    };
    let Some((before, after)) = wanted.split_once(TEMPLATE) else {
        if is_free(wanted)? {
            return Ok(wanted.to_owned());
        }
        let advice = "end the name with %d for a number that is free";
        bail!("the container has an interface \"{wanted}\" already: {advice}");
    };
    let numbered = (0..).map(|number: u32| format!("{before}{number}{after}"));
    for name in numbered.take_while(|name| name.len() <= NAME_LIMIT) {
        if is_free(&name)? {
            return Ok(name);
        }
    }
    bail!("the container has an interface under each name of \"{wanted}\"")
}

fn move_one(found: &Found<'_>, outside: &Netlink, inside: &Netlink, to: &File) -> Result<()> {
    outside.move_interface(found.index, to.as_fd(), &found.inside)?;
    // It may have another index there.
    let Some(index) = inside.interface(&found.inside)? else {
        bail!("it is not there after its move");
    };
    let kept = |address: &&Address| address.is_permanent_and_global();
    for address in found.addresses.iter().filter(kept) {
        inside.add_address(index, address)?;
    }
    inside.set_up(index)?;
    Ok(())
}
