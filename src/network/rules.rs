//! The table in nftables: written whole from what is wanted, and replaced whole, in one transaction (nft(8)).
//!
//! Its name is the bridge's. Other tables are others' affair: what they accept this one may still drop, and the other way
//! round (see `forward`).

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::{Context, Result};

use super::{Attached, Options, Protocol, programs};

/// The table, as nft reads it.
pub fn text(options: &Options, instances: &BTreeMap<String, Attached>) -> String {
    let Options { bridge, subnet } = options;
    let (all, at) = maps(instances);
    format!(
        r#"table inet {bridge}
delete table inet {bridge}
table inet {bridge} {{
  map ports {{
    type inet_proto . inet_service : ipv4_addr . inet_service{all}
  }}
  map ports_at {{
    type inet_proto . ipv4_addr . inet_service : ipv4_addr . inet_service{at}
  }}
  chain spoofed {{ # the bridge may route to 127.0.0.0/8, which is not for instances
    type filter hook prerouting priority -300; policy accept;
    iifname "{bridge}" ip daddr 127.0.0.0/8 drop
  }}
  chain arriving {{
    type nat hook prerouting priority -100; policy accept;
    {PUBLISHED}
  }}
  chain local {{
    type nat hook output priority -100; policy accept;
    {PUBLISHED}
  }}
  chain leaving {{
    type nat hook postrouting priority 100; policy accept;
    ip saddr {subnet} oifname != "{bridge}" masquerade
    oifname "{bridge}" ct status dnat ip saddr {{ 127.0.0.0/8, {subnet} }} masquerade
  }}
  chain passing {{
    type filter hook forward priority 0; policy accept;
    iifname != "{bridge}" oifname "{bridge}" ct state established,related accept
    iifname != "{bridge}" oifname "{bridge}" ct status dnat accept
    iifname != "{bridge}" oifname "{bridge}" drop
  }}
}}
"#
    )
}

/// What arrives at a port of the host's goes to its instance.
const PUBLISHED: &str =
    "fib daddr type local dnat ip to meta l4proto . ip daddr . th dport map @ports_at
    fib daddr type local dnat ip to meta l4proto . th dport map @ports";

/// The elements of both maps: ports at every address of the host, and at one.
fn maps(instances: &BTreeMap<String, Attached>) -> (String, String) {
    let (mut all, mut at) = (String::new(), String::new());
    for has in instances.values() {
        for port in &has.published {
            let protocol = match port.protocol {
                Protocol::Tcp => "tcp",
                Protocol::Udp => "udp",
            };
            let to = format!("{} . {}", has.address, port.internal);
            // Writing to a String cannot fail.
            let _ = match port.at {
                None => write!(all, "{protocol} . {} : {to}, ", port.external),
                Some(host) => write!(at, "{protocol} . {host} . {} : {to}, ", port.external),
            };
        }
    }
    (elements(&all), elements(&at))
}

fn elements(list: &str) -> String {
    match list.is_empty() {
        true => String::new(),
        false => format!("\n    elements = {{ {} }}", list.trim_end_matches(", ")),
    }
}

/// Replaces the table, or makes it.
///
/// # Errors
///
/// The kernel has no nf_tables, or not all of it; the table before stays.
pub fn replace(text: &str) -> Result<()> {
    let done = programs::run(&programs::nft()?, &["-f", "-"], text);
    done.map(drop).context(
        "rules of nftables, which network = \"bridge\" needs: with nft_nat, nft_masq, nft_fib_inet in the kernel",
    )
}

/// The table as the kernel has it; empty when it is not there.
///
/// # Errors
///
/// There is no nft.
pub fn list(bridge: &str) -> Result<String> {
    let words = ["list", "table", "inet", bridge];
    Ok(programs::run(&programs::nft()?, &words, "").unwrap_or_default())
}

/// Removes the table if it is there.
///
/// # Errors
///
/// What the kernel refuses.
pub fn remove(bridge: &str) -> Result<()> {
    let text = format!("table inet {bridge}\ndelete table inet {bridge}\n");
    programs::run(&programs::nft()?, &["-f", "-"], &text).map(drop)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::super::Published;
    use super::*;

    #[test]
    fn the_table_says_each_port_once() {
        let port = |protocol, at, external| Published {
            protocol,
            at,
            external,
            internal: 8080,
        };
        let loopback = Some(Ipv4Addr::LOCALHOST);
        let published = vec![
            port(Protocol::Tcp, None, 80),
            port(Protocol::Udp, None, 53),
            port(Protocol::Tcp, loopback, 81),
        ];
        let address = Ipv4Addr::new(10, 213, 0, 2);
        let mut instances = BTreeMap::new();
        instances.insert("web".to_owned(), Attached { address, published });
        let text = text(&Options::default(), &instances);
        let all = "elements = { tcp . 80 : 10.213.0.2 . 8080, udp . 53 : 10.213.0.2 . 8080 }";
        assert!(text.contains(all), "{text}");
        let at = "elements = { tcp . 127.0.0.1 . 81 : 10.213.0.2 . 8080 }";
        assert!(text.contains(at), "{text}");
        assert!(text.starts_with("table inet parhelion0\ndelete table inet parhelion0\n"));
    }

    #[test]
    fn without_ports_a_map_has_no_elements() {
        let text = text(&Options::default(), &BTreeMap::new());
        assert!(!text.contains("elements"), "{text}");
        assert!(text.contains("ip saddr 10.213.0.0/20 oifname != \"parhelion0\" masquerade"));
    }
}
