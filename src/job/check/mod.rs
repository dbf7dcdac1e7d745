//! The rules that a job keeps beyond the types of its fields. All that is wrong is found at once.
//!
//! A field that can have no effect where it stands is refused: nothing is accepted and ignored.

mod health;
mod limits;
mod task;
mod text;

use std::collections::{BTreeMap, BTreeSet};

use super::parse::{Step, written};
use super::{Job, Network, Port, Service, Shared, render};
use crate::error::Problems;
use text::{HOST_NAME, NAME, TASK_NAME, WORD};

/// The most tasks that one keeper holds (docs/keeper.md).
const MAX_TASKS: usize = 16;

/// What labels may not begin with: the runtime does something about such annotations (docs/annotations.md).
const RESERVED: [&str; 5] = [
    "dev.parhelion.",
    "org.criu.",
    "org.parhelion.",
    "org.systemd.",
    "run.oci.",
];

/// A problem: where, and what.
type Problem = (Vec<Step>, String);

impl Job {
    /// Holds it against every rule.
    ///
    /// # Errors
    ///
    /// All that is wrong, each with the path of its field.
    pub fn check(&self) -> Result<(), Problems> {
        let mut all = Problems::default();
        for (path, message) in problems(self, Vec::new()) {
            all.add(written(&path), message);
        }
        all.into_result()
    }
}

/// What a job file says, and is not in the job that is checked, because it could not be read or is missing.
#[derive(Debug)]
pub(super) struct Lost {
    /// Where.
    pub path: Vec<Step>,
    /// What it may be.
    pub meant: Meant,
}

/// What something lost may be.
#[derive(Debug, Clone)]
pub(super) enum Meant {
    /// What it is called.
    Itself,
    /// A field that nobody knows: this one beside it.
    Beside(String),
    /// A field that nobody knows: any one beside it.
    AnyBeside,
}

impl Lost {
    /// Whether a value may be another one than the file says: it, or one of its members, or what may be meant to be it.
    fn may_be(&self, path: &[Step]) -> bool {
        let is_member = self.path.len() == path.len() + 1 && self.path.starts_with(path);
        if path.starts_with(&self.path) || is_member {
            return true;
        }
        let (Some((_, above)), Some((last, beside))) = (self.path.split_last(), path.split_last())
        else {
            return false;
        };
        let fits = match &self.meant {
            Meant::Itself => false,
            Meant::Beside(name) => *last == Step::Key(name.clone()),
            Meant::AnyBeside => true,
        };
        fits && above == beside
    }
}

/// All that is wrong with a job, but for what follows from what was lost.
pub(super) fn problems(job: &Job, lost: Vec<Lost>) -> Vec<Problem> {
    let mut checker = Checker {
        lost,
        ..Checker::default()
    };
    checker.inside("name", |c| c.matches(&job.name, &NAME));
    checker.inside("version", |c| c.matches(&job.version, &NAME));
    checker.inside("tasks", |c| tasks(job, c));
    checker.inside("share", |c| {
        job.share.iter().for_each(|kind| shared(job, *kind, c));
    });
    checker.inside("ports", |c| ports(job, c));
    network(job, &mut checker);
    limits::check(job, &mut checker);
    checker.inside("registration", |c| registration(job, c));
    checker.inside("labels", |c| {
        for label in job.labels.keys() {
            c.inside(label, |c| words(label, &job.labels[label], c));
            if let Some(reserved) = RESERVED.iter().find(|start| label.starts_with(**start)) {
                let advice = "annotations of the bundle's config.json may";
                c.inside(label, |c| {
                    c.problem(format!("must not begin with {reserved:?}: {advice}"));
                });
            }
        }
    });
    checker.inside("metadata", |c| {
        for (key, value) in &job.metadata {
            c.inside(key, |c| words(key, value, c));
        }
    });
    if job.token.as_deref() == Some("") {
        checker.inside("token", |c| c.problem("must not be empty"));
    }
    checker.problems
}

/// Collects problems, and knows where it is.
#[derive(Default)]
struct Checker {
    at: Vec<Step>,
    lost: Vec<Lost>,
    problems: Vec<Problem>,
}

impl Checker {
    fn problem(&mut self, message: impl Into<String>) {
        if !self.lost.iter().any(|lost| self.at.starts_with(&lost.path)) {
            self.problems.push((self.at.clone(), message.into()));
        }
    }

    /// Whether a value of the job is what the file says: a rule between it and another one can be told of.
    fn knows(&self, path: &[&str]) -> bool {
        let path: Vec<Step> = path
            .iter()
            .map(|key| Step::Key((*key).to_owned()))
            .collect();
        !self.lost.iter().any(|lost| lost.may_be(&path))
    }

    /// The same of a value from here on.
    fn knows_here(&self, path: &[&str]) -> bool {
        let path = path.iter().map(|key| Step::Key((*key).to_owned()));
        let path: Vec<Step> = self.at.iter().cloned().chain(path).collect();
        !self.lost.iter().any(|lost| lost.may_be(&path))
    }

    /// Notes the problem if there is one.
    fn require(&mut self, holds: bool, message: impl FnOnce() -> String) {
        if !holds {
            self.problem(message());
        }
    }

    fn step(&mut self, step: Step, check: impl FnOnce(&mut Checker)) {
        self.at.push(step);
        check(self);
        self.at.pop();
    }

    fn inside(&mut self, key: &str, check: impl FnOnce(&mut Checker)) {
        self.step(Step::Key(key.to_owned()), check);
    }

    fn each<'a, T>(&mut self, list: &'a [T], mut check: impl FnMut(&'a T, &mut Checker)) {
        for (i, element) in list.iter().enumerate() {
            self.step(Step::Index(i), |c| check(element, c));
        }
    }

    fn matches(&mut self, text: &str, form: &text::Form) {
        if let Some(message) = form.refuses(text) {
            self.problem(message);
        }
    }

    /// A number of these, if it is given.
    fn range<T: Copy + PartialOrd + std::fmt::Display>(
        &mut self,
        key: &str,
        value: Option<T>,
        least: T,
        most: T,
    ) {
        if let Some(value) = value
            && !(least..=most).contains(&value)
        {
            let message = format!("must be from {least} to {most}, is {value}");
            self.inside(key, |c| c.problem(message));
        }
    }
}

/// A name and what belongs to it: neither empty nor with bytes that end text in C.
fn words(key: &str, value: &str, checker: &mut Checker) {
    let whole = !key.is_empty() && !key.contains('\0') && !value.contains('\0');
    checker.require(whole, || "must have a name, and no byte 0".to_owned());
}

fn tasks(job: &Job, checker: &mut Checker) {
    let count = job.tasks.len();
    let fits = (1..=MAX_TASKS).contains(&count) || !checker.knows_here(&[]);
    checker.require(fits, || format!("must be 1 to {MAX_TASKS}, are {count}"));
    for (name, task) in &job.tasks {
        checker.inside(name, |c| {
            c.matches(name, &TASK_NAME);
            task::check(job, task, c);
        });
    }
}

fn shared(job: &Job, kind: Shared, checker: &mut Checker) {
    let word = format!("{kind:?}").to_ascii_lowercase();
    checker.require(job.tasks.len() > 1 || !checker.knows(&["tasks"]), || {
        format!("{word}: there is only one task")
    });
    let one = match job.network {
        Network::None => None,
        Network::Host => Some("the host's"),
        Network::Bridge => Some("that of its instance"),
    };
    if let Some(one) = one.filter(|_| kind == Shared::Network && checker.knows(&["network"])) {
        checker.problem(format!(
            "{word}: every task has {one}: leave it out, or say network = \"none\""
        ));
    }
}

fn ports(job: &Job, checker: &mut Checker) {
    let mut variables: BTreeMap<String, &str> = BTreeMap::new();
    let mut numbers: BTreeMap<_, &str> = BTreeMap::new();
    for (name, port) in &job.ports {
        checker.inside(name, |c| {
            c.matches(name, &text::PORT_NAME);
            c.require(job.network != Network::None, || {
                "can not be reached: the job's network is \"none\"".to_owned()
            });
            inside(job.network, port, c);
            let variable = render::port_variable(name);
            if let Some(other) = variables.insert(variable.clone(), name) {
                c.problem(format!("would be {variable}, as port {other:?} is"));
            }
            let Port {
                external, protocol, ..
            } = port;
            if let Some(number) = external {
                if *number == 0 {
                    c.inside("external", |c| c.problem("must be from 1 to 65535, is 0"));
                } else if let Some(other) = numbers.insert((*number, *protocol), name) {
                    let message = format!("{number} is that of port {other:?}");
                    c.inside("external", |c| c.problem(message));
                }
            }
        });
    }
}

/// What a port says of the network of an instance's own.
fn inside(network: Network, port: &Port, checker: &mut Checker) {
    let own = network == Network::Bridge;
    if let Some(number) = port.port {
        checker.inside("port", |c| {
            c.require(number > 0, || "must be from 1 to 65535, is 0".to_owned());
            let other = own || network == Network::None || !c.knows(&["network"]);
            c.require(other, || {
                "the program listens at the host's port itself: say external, or network = \"bridge\""
                    .to_owned()
            });
        });
    }
    if let Some(address) = port.address.filter(|address| own && address.is_ipv6()) {
        checker.inside("address", |c| {
            c.problem(format!(
                "must be an IPv4 address, as ports of a bridge are published there only, is {address}"
            ));
        });
    }
}

fn network(job: &Job, checker: &mut Checker) {
    if let Some(hostname) = &job.hostname {
        checker.inside("hostname", |c| c.matches(hostname, &HOST_NAME));
    }
    checker.inside("addHosts", |c| {
        for name in job.add_hosts.keys() {
            c.inside(name, |c| c.matches(name, &HOST_NAME));
        }
    });
    let Some(dns) = &job.dns else { return };
    checker.inside("dns", |c| {
        let count = dns.servers.len();
        // MAXNS of resolv.h.
        c.inside("servers", |c| {
            let fits = (1..=3).contains(&count) || !c.knows_here(&[]);
            c.require(fits, || {
                format!("must be 1 to 3, as further ones are never asked, are {count}")
            });
        });
        for (key, list) in [("search", &dns.search), ("options", &dns.options)] {
            c.inside(key, |c| c.each(list, |word, c| c.matches(word, &WORD)));
        }
    });
}

fn registration(job: &Job, checker: &mut Checker) {
    let mut seen = BTreeSet::new();
    checker.each(&job.registration, |service, c| {
        let Service {
            service: name,
            port,
            protocol,
            tags,
            domain,
        } = service;
        c.inside("service", |c| c.matches(name, &text::PORT_NAME));
        c.inside("port", |c| {
            let is_one = job.ports.contains_key(port) || !c.knows(&["ports"]);
            c.require(is_one, || format!("{port:?} is none of the job's ports"));
        });
        c.inside("protocol", |c| c.matches(protocol, &WORD));
        c.inside("tags", |c| c.each(tags, |tag, c| c.matches(tag, &WORD)));
        if let Some(domain) = domain {
            c.inside("domain", |c| c.matches(domain, &WORD));
        }
        let new = seen.insert((name, port, protocol, domain));
        c.require(new || !c.knows_here(&[]), || "is there twice".to_owned());
    });
}
