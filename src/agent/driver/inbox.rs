//! What comes to the driver's loop, from keepers, callers and work that has ended.

use std::time::Duration;

use anyhow::Result;
use tokio::sync::{mpsc, oneshot};

use super::{link, reaper, wanted};
use crate::agent::reconcile::{Event, Name};
use crate::agent::report::Told;
use crate::agent::{Origin, Wanted};
use crate::job::JobId;
use crate::keeper::Request;

/// What comes to the loop.
#[derive(Debug)]
pub enum Input {
    /// Something for `step`.
    Event(Event),
    /// A keeper answers; its instance's pipes.
    Kept(Name, link::Pipes),
    /// What a keeper tells.
    Told(Name, Box<Told>),
    /// Something new has these names, in our cgroup or below the root.
    Appeared(Vec<String>),
    /// It is time to look for what nobody knows.
    Look,
    /// What was reaped.
    Reaped(reaper::Reaped),
    /// Somebody wants this, and whatever store or revision it is from if so.
    Want(Wanted, bool, wanted::Answer),
    /// That is on disk.
    Recorded(wanted::Plan, Origin, wanted::Answer),
    /// Somebody asks an instance's keeper, and why.
    Ask(String, Request, String, oneshot::Sender<Result<()>>),
    /// Something was done with a job: which word says what, and why.
    Note(JobId, &'static str, String),
    /// The host is going down: everything has to end within this time.
    Halt(Duration, oneshot::Sender<()>),
    /// Somebody asks whether the loop turns.
    Ping(oneshot::Sender<()>),
    /// Somebody asks the agent to end.
    Stop(oneshot::Sender<()>),
}

/// Where what comes to the loop is put in.
#[derive(Debug, Clone)]
pub struct Inbox(mpsc::UnboundedSender<Input>);

impl Inbox {
    /// An inbox, and what comes out of it.
    pub fn new() -> (Inbox, mpsc::UnboundedReceiver<Input>) {
        let (sender, outbox) = mpsc::unbounded_channel();
        (Inbox(sender), outbox)
    }

    /// Puts it in. Nobody hears it when the agent ends.
    pub fn send(&self, input: Input) {
        let _ends = self.0.send(input);
    }

    /// Puts in an event for `step`.
    pub fn event(&self, event: Event) {
        self.send(Input::Event(event));
    }
}
