//! Forwarding that others forbid: Docker, ufw and other firewalls have packets that they do not know dropped in the
//! chain FORWARD of iptables, and what one chain drops no other one can let pass.
//!
//! Two rules in that chain let pass what comes from or goes to the bridge; what is not published the own table drops.
//! They are made only where the chain is not empty, and are looked for again after others have changed it.

use std::path::Path;

use anyhow::{Context, Result};

use super::programs;

/// How long the lock of others is waited for.
const WAIT: [&str; 2] = ["-w", "5"];

/// Has the bridge's packets pass.
///
/// # Errors
///
/// A rule that is needed can not be made.
pub fn ensure(bridge: &str) -> Result<()> {
    let Some((program, listing)) = chain() else {
        return Ok(());
    };
    for rule in missing(&listing, bridge) {
        change(&program, "-I", &rule)?;
    }
    Ok(())
}

/// Takes the rules away.
///
/// # Errors
///
/// One can not be removed.
pub fn remove(bridge: &str) -> Result<()> {
    let Some((program, listing)) = chain() else {
        return Ok(());
    };
    let there = rules(bridge).into_iter();
    for rule in there.filter(|rule| listing.lines().any(|line| line == line_of(rule))) {
        change(&program, "-D", &rule)?;
    }
    Ok(())
}

/// The program, and what is in the chain; None where the kernel or the host has no iptables.
fn chain() -> Option<(std::path::PathBuf, String)> {
    let program = programs::find("iptables")?;
    let words: Vec<&str> = WAIT.into_iter().chain(["-S", "FORWARD"]).collect();
    let listing = programs::run(&program, &words, "").ok()?;
    Some((program, listing))
}

fn change(program: &Path, how: &str, rule: &[String; 4]) -> Result<()> {
    let words = WAIT.into_iter().chain([how, "FORWARD"]);
    let words: Vec<&str> = words.chain(rule.iter().map(String::as_str)).collect();
    let done = programs::run(program, &words, "");
    done.map(drop)
        .context("let packets of the bridge pass the chain FORWARD")
}

fn rules(bridge: &str) -> [[String; 4]; 2] {
    ["-i", "-o"].map(|way| [way, bridge, "-j", "ACCEPT"].map(str::to_owned))
}

fn line_of(rule: &[String; 4]) -> String {
    format!("-A FORWARD {}", rule.join(" "))
}

/// The rules that are needed beside these and are not there.
fn missing(listing: &str, bridge: &str) -> Vec<[String; 4]> {
    if listing.trim() == "-P FORWARD ACCEPT" {
        return Vec::new();
    }
    let all = rules(bridge).into_iter();
    all.filter(|rule| !listing.lines().any(|line| line == line_of(rule)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_needed_where_a_firewall_is_and_only_once() {
        assert!(missing("-P FORWARD ACCEPT\n", "b0").is_empty());
        let docker = "-P FORWARD DROP\n-A FORWARD -j DOCKER-USER\n";
        let needed = missing(docker, "b0");
        let lines: Vec<String> = needed.iter().map(line_of).collect();
        assert_eq!(
            lines,
            ["-A FORWARD -i b0 -j ACCEPT", "-A FORWARD -o b0 -j ACCEPT"]
        );
        let there = format!("{docker}{}\n", lines[1]);
        assert_eq!(missing(&there, "b0").len(), 1);
        assert_eq!(missing(&there, "b").len(), 2);
    }
}
