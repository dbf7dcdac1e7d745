//! /etc/resolv.conf for a network of its own: the host's, as far as its servers can be reached from there.

use std::fs;
use std::net::IpAddr;

/// The host's file.
const HOST: &str = "/etc/resolv.conf";

/// The servers behind the local one of systemd-resolved(8).
const RESOLVED: &str = "/run/systemd/resolve/resolv.conf";

/// The host's, without servers that are not there for an instance.
#[must_use]
pub fn resolv_conf() -> String {
    let host = fs::read_to_string(HOST).unwrap_or_default();
    reachable(&host, || fs::read_to_string(RESOLVED).unwrap_or_default())
}

fn reachable(host: &str, behind: impl FnOnce() -> String) -> String {
    let kept = without_local(host);
    if has_server(&kept) {
        return kept;
    }
    let kept = without_local(&behind());
    if has_server(&kept) {
        return kept;
    }
    format!(
        "# The servers of this host are only for itself: say dns in the job.\n{}",
        without_local(host)
    )
}

fn without_local(text: &str) -> String {
    let lines = text.lines().filter(|line| {
        server(line).is_none_or(|address| address.is_some_and(|address| is_reachable(&address)))
    });
    lines.map(|line| format!("{line}\n")).collect()
}

fn has_server(text: &str) -> bool {
    text.lines().any(|line| server(line).is_some())
}

/// Instances have IPv4 only.
fn is_reachable(address: &IpAddr) -> bool {
    address.is_ipv4() && !address.is_loopback() && !address.is_unspecified()
}

/// The server that a line names, if it names one: None in it when that is no address.
fn server(line: &str) -> Option<Option<IpAddr>> {
    let mut words = line.split_whitespace();
    (words.next() == Some("nameserver")).then(|| words.next().and_then(|word| word.parse().ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_of_the_host_alone_are_left_out() {
        let host = "search a.example\nnameserver 127.0.0.1\nnameserver 192.0.2.53\nnameserver ::1\noptions ndots:2\n";
        let text = reachable(host, || panic!("there is one"));
        assert_eq!(
            text,
            "search a.example\nnameserver 192.0.2.53\noptions ndots:2\n"
        );
    }

    #[test]
    fn behind_systemds_resolver_are_the_real_ones() {
        let behind = || "nameserver 192.0.2.1\nsearch b.example\n".to_owned();
        let text = reachable("nameserver 127.0.0.53\noptions edns0\n", behind);
        assert_eq!(text, "nameserver 192.0.2.1\nsearch b.example\n");
    }

    #[test]
    fn where_there_is_none_the_file_says_what_to_do() {
        let text = reachable(
            "search x\nnameserver 127.0.0.1\nnameserver fe80::1%eth0\n",
            String::new,
        );
        assert!(
            text.starts_with("# ") && text.ends_with("search x\n"),
            "{text}"
        );
        assert!(!has_server(&text));
    }
}
