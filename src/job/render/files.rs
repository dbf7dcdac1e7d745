//! Files that the containers of an instance share, and how JSON is written.

use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::path::Path;

use anyhow::Result;
use serde_json::Value;

use super::{Files, Place};
use crate::job::Job;

/// Where the containers' /etc/hosts is in the instance's directory.
pub(super) const HOSTS: &str = "etc/hosts";

/// Where the containers' /etc/resolv.conf is in the instance's directory.
pub(super) const RESOLV_CONF: &str = "etc/resolv.conf";

/// JSON for people to read.
pub(super) fn json(value: &Value) -> Result<Vec<u8>> {
    let mut text = serde_json::to_vec_pretty(value)?;
    text.push(b'\n');
    Ok(text)
}

/// What there is once an instance.
pub(super) fn common(job: &Job, place: &Place<'_>, rendered: &mut Files) {
    if has_hosts(job, place) {
        let text = hosts(job, place);
        rendered.files.insert(HOSTS.into(), text.into_bytes());
    }
    if has_resolv_conf(job, place) {
        let text = resolv_conf(job, place);
        rendered.files.insert(RESOLV_CONF.into(), text.into_bytes());
    }
    if !rendered.files.is_empty() {
        rendered.directories.insert(Path::new("etc").to_owned());
    }
}

/// Whether the containers have an /etc/hosts of the instance.
pub(super) fn has_hosts(job: &Job, place: &Place<'_>) -> bool {
    !job.add_hosts.is_empty() || place.network.is_some()
}

/// Whether the containers have an /etc/resolv.conf of the instance.
pub(super) fn has_resolv_conf(job: &Job, place: &Place<'_>) -> bool {
    job.dns.is_some() || place.network.is_some()
}

/// hosts(5): the machine itself, then what the job says.
fn hosts(job: &Job, place: &Place<'_>) -> String {
    let own = job.hostname.as_deref().unwrap_or(place.host);
    let address = place.network.map(|network| network.address);
    let address = address.unwrap_or(Ipv4Addr::new(127, 0, 1, 1));
    let mut text =
        format!("127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n{address} {own}\n");
    for (name, address) in &job.add_hosts {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{address} {name}");
    }
    text
}

/// resolv.conf(5).
fn resolv_conf(job: &Job, place: &Place<'_>) -> String {
    let Some(dns) = &job.dns else {
        let host = place.network.map(|network| network.resolv_conf);
        return host.unwrap_or_default().to_owned();
    };
    let servers = dns.servers.iter();
    let mut text: String = servers
        .map(|server| format!("nameserver {server}\n"))
        .collect();
    for (word, list) in [("search", &dns.search), ("options", &dns.options)] {
        if !list.is_empty() {
            let _ = writeln!(text, "{word} {}", list.join(" "));
        }
    }
    text
}
