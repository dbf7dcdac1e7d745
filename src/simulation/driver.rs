//! The agent's driver: directories with their ports and addresses, keepers, and what those tell.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::people::{job_of, jobs};
use super::{Due, Invariant, Weakness, World};
use crate::agent::Told;
use crate::agent::reconcile::{Action, Event, Name, Stage};
use crate::job::Network;
use crate::keeper::Request;
use crate::keeper::policy::Event as Asked;
use crate::keeper::status::{Faults, Status, Task};

/// The addresses that there are: few, so that each is soon taken again.
const SUBNET: &str = "10.0.0.0/28";

impl World {
    /// What the agent has begun comes to its end.
    pub fn act(&mut self, action: Action) {
        let fails = self.fails();
        if let (Some(daemon), Action::Make(name) | Action::Keep(name, _) | Action::Delete(name)) =
            (&mut self.daemon, &action)
        {
            daemon.busy.remove(name);
        }
        let why = || "no luck".to_owned();
        match action {
            Action::Make(name) if fails || self.disk_refuses => {
                self.tell(Event::NotMade(name, why()));
            }
            Action::Make(name) => self.make(name),
            Action::Keep(name, _)
                if fails || self.no_keepers || !self.places.contains_key(&name) =>
            {
                self.tell(Event::NotKept(name, why()));
            }
            Action::Keep(name, begin) => {
                self.keeper_begins(&name, begin);
                self.tell(Event::Kept(name.clone()));
                self.report(&name);
            }
            Action::Ask(name, request) => self.ask(&name, request),
            Action::Delete(name) if fails || self.disk_refuses => {
                self.tell(Event::NotDeleted(name, why()));
            }
            Action::Delete(name) => {
                self.places.remove(&name);
                if let Some(daemon) = &mut self.daemon {
                    daemon.ports.release(&name);
                    daemon.pool.release(&name);
                }
                self.tell(Event::Deleted(name));
            }
        }
    }

    fn make(&mut self, name: Name) {
        let there = self.places.get(&name);
        let exists = there.is_some();
        let had = there.map(|place| (place.ports.clone(), place.address));
        let (had_ports, had_address) = match self.weakness {
            Weakness::RecordsUnread => Default::default(),
            _ => had.clone().unwrap_or_default(),
        };
        let runs = there.is_some_and(|place| !place.containers.is_empty());
        let others = self
            .places
            .iter()
            .filter(|(other, place)| **other != name && !place.containers.is_empty());
        let bound: BTreeSet<u16> = others
            .flat_map(|(_, place)| place.ports.values().copied())
            .collect();
        let is_free =
            |(_, port): (_, u16)| runs || !self.squatted.contains(&port) && !bound.contains(&port);
        let is_lost = self.lost_bundles.contains(&job_of(&name));
        let Some(daemon) = &mut self.daemon else {
            return;
        };
        let taken = match daemon.jobs.get(&name) {
            Some(job) => daemon
                .ports
                .take(&name, &job.ports, &had_ports, &is_free)
                .and_then(|ports| {
                    let subnet = SUBNET.parse().unwrap();
                    let own = job.network == Network::Bridge;
                    let address = own.then(|| daemon.pool.take(&name, had_address, &subnet));
                    Ok((ports, address.transpose()?))
                }),
            None => Err(anyhow::anyhow!("nobody knows its job any more")),
        };
        match taken {
            Ok((ports, address)) if !is_lost => {
                let has_gone = |port: &u16| self.squatted.contains(port) || bound.contains(port);
                let is_same = had.is_none_or(|(had, was)| {
                    was == address && (had == ports || had.values().any(has_gone))
                });
                self.must(!exists || is_same, Invariant::ReachedAsBefore, || {
                    format!("{name} has other ports or another address")
                });
                let place = self.places.entry(name.clone()).or_default();
                (place.ports, place.address) = (ports.clone(), address);
                self.tell(Event::Made(name, ports, address));
            }
            Ok(_) => self.tell(Event::NotMade(name, "no bundle".to_owned())),
            Err(error) => self.tell(Event::NotMade(name, error.to_string())),
        }
    }

    fn ask(&mut self, name: &Name, request: Request) {
        let event = match request {
            Request::Start => Asked::Start,
            Request::Stop => Asked::Stop,
            Request::Restart => Asked::Restart,
            Request::Unhealthy { .. } => Asked::Unhealthy,
            Request::Status | Request::Watch | Request::Exec(_) | Request::Halt { .. } => return,
        };
        let keepers = self.places.get(name).map(|place| &place.keepers);
        if let Some(keeper) = keepers.and_then(|keepers| keepers.first()) {
            let id = keeper.id;
            self.keeper_hears(name, id, event);
        }
    }

    pub fn is_kept(&self, name: &Name) -> bool {
        let daemon = self.daemon.as_ref();
        let slot = daemon.and_then(|daemon| daemon.state.slots.get(name));
        slot.is_some_and(|slot| matches!(slot.stage, Stage::Kept { .. }))
    }

    /// A keeper tells the agent, if that listens.
    pub fn report(&mut self, name: &Name) {
        let Some(place) = self.places.get(name).filter(|_| self.is_kept(name)) else {
            return;
        };
        let Some(keeper) = place.keepers.first() else {
            return;
        };
        let tasks = jobs()[job_of(name)].1.tasks.keys();
        let alone = tasks.len() == 1;
        let task = |label: &String| Task {
            name: (!alone).then(|| label.clone()),
            ..Task::default()
        };
        let status = Status {
            tasks: tasks.clone().map(task).collect(),
            root: "/run".into(),
            boot: String::new(),
            keeper: 1,
            state: keeper.state.clone(),
            flapping: false,
            next_attempt: None,
            attempts: Vec::new(),
            faults: Faults::default(),
        };
        let mut report = Told::new(status, "main").report;
        for (number, label) in tasks.enumerate() {
            let mut live = place.containers.iter();
            let live = live.find(|one| one.task == number);
            if let Some(task) = report.tasks.get_mut(label) {
                task.pid = live.map(|one| one.id as i32);
            }
        }
        let at = self.delay_of_report(name);
        let told = Event::Told(name.clone(), Arc::new(report));
        let number = self.daemon.as_ref().unwrap().number;
        self.after(at - self.now, Due::Tell(number, told));
    }
}
