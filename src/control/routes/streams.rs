//! What has happened, what happens, and how instances change: lists, and streams of lines of JSON.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::response::Response;
use serde::Deserialize;
use utoipa::IntoParams;

use super::Shared;
use crate::agent::Snapshot;
use crate::api::{Change, Event, Instance, Problem};
use crate::control::door;
use crate::control::feed::{Feed, Gone};
use crate::control::find::Meant;
use crate::control::problem::Refusal;
use crate::store::Range;

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct HistoryQuery {
    /// How many of the latest events; all that are kept by default.
    limit: Option<usize>,
}

/// What events are asked for.
#[derive(Debug, Default)]
struct Filter {
    job: Option<Meant>,
    instance: Option<String>,
}

impl Filter {
    fn takes(&self, event: &Event) -> bool {
        let job = |meant: &Meant| event.job.as_ref().is_some_and(|job| meant.is(job));
        let instance = |name: &String| event.instance.as_ref() == Some(name);
        self.job.as_ref().is_none_or(job) && self.instance.as_ref().is_none_or(instance)
    }
}

async fn history(
    control: &crate::control::Control,
    filter: &Filter,
    limit: Option<usize>,
) -> Vec<Event> {
    let mut events = control.agent.events(0);
    let mut past = door::past(&mut *events).await;
    past.retain(|event| filter.takes(event));
    let left_out = past.len().saturating_sub(limit.unwrap_or(usize::MAX));
    past.drain(..left_out);
    past
}

/// What has happened to a job, the oldest first, with causes; also to one that was removed.
#[utoipa::path(get, path = "/v1/jobs/{job}/history", params(("job" = String, Path), HistoryQuery),
    responses((status = 200, body = Vec<Event>), (status = 400, body = Problem)))]
pub async fn job_history(
    State(control): Shared,
    Path(job): Path<String>,
    Query(query): Query<HistoryQuery>,
) -> Result<Json<Vec<Event>>, Refusal> {
    let filter = Filter {
        job: Some(Meant::parse(&job)?),
        instance: None,
    };
    Ok(Json(history(&control, &filter, query.limit).await))
}

/// What has happened to an instance, the oldest first, with causes.
#[utoipa::path(get, path = "/v1/instances/{name}/history", params(("name" = String, Path), HistoryQuery),
    responses((status = 200, body = Vec<Event>)))]
pub async fn instance_history(
    State(control): Shared,
    Path(name): Path<String>,
    Query(query): Query<HistoryQuery>,
) -> Json<Vec<Event>> {
    let filter = Filter {
        job: None,
        instance: Some(name),
    };
    Json(history(&control, &filter, query.limit).await)
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct EventsQuery {
    /// Events from this number on only.
    #[serde(default)]
    from: u64,
    /// Whether what happens is told too, until the client ends it.
    #[serde(default)]
    follow: bool,
    /// Events of this job only: NAME[:VERSION[:DIGEST]].
    job: Option<String>,
    /// Events of this instance only.
    instance: Option<String>,
}

/// What has happened, and what happens: a line of JSON each.
#[utoipa::path(get, path = "/v1/events", params(EventsQuery), responses((status = 200, body = Event, content_type = "application/x-ndjson")))]
pub async fn events(
    State(control): Shared,
    Query(query): Query<EventsQuery>,
) -> Result<Response, Refusal> {
    let filter = Filter {
        job: query.job.as_deref().map(Meant::parse).transpose()?,
        instance: query.instance,
    };
    let mut events = control.agent.events(query.from);
    let (mut feed, answer) = Feed::json(control.stop.clone());
    tokio::spawn(async move {
        if !query.follow {
            for event in door::past(&mut *events).await {
                if filter.takes(&event) && feed.line(&event).await.is_err() {
                    return;
                }
            }
            return;
        }
        loop {
            let event = tokio::select! {
                event = events.next() => event,
                () = feed.gone() => None,
            };
            let Some(event) = event else { return };
            if filter.takes(&event) && feed.line(&event).await.is_err() {
                return;
            }
        }
    });
    Ok(answer)
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct WatchQuery {
    /// Instances of this job only: NAME[:VERSION[:DIGEST]].
    job: Option<String>,
}

/// The instances now, then each change: a line of JSON each. Who is slow sees the latest state and not every one in
/// between. What was wanted before the request has reached the instances that are told first, unless it can not.
#[utoipa::path(get, path = "/v1/watch", params(WatchQuery), responses((status = 200, body = Change, content_type = "application/x-ndjson")))]
pub async fn watch(
    State(control): Shared,
    Query(query): Query<WatchQuery>,
) -> Result<Response, Refusal> {
    let meant = query.job.as_deref().map(Meant::parse).transpose()?;
    let none = Range::Key(b"/".to_vec());
    let wanted = control.store(move |store| store.get(&none)).await?.revision;
    let mut snapshots = control.agent.snapshots();
    let (mut feed, answer) = Feed::json(control.stop.clone());
    tokio::spawn(async move {
        let is_taken = |now: &Arc<Snapshot>| now.revision.is_some_and(|taken| taken >= wanted.0);
        tokio::select! {
            taken = snapshots.wait_for(is_taken) => if taken.is_err() { return },
            () = control.health.fails() => {}
            () = feed.gone() => return,
        }
        let mut told = Told::default();
        loop {
            let snapshot = snapshots.borrow_and_update().clone();
            for change in told.changes(&snapshot, meant.as_ref()) {
                if let Err(Gone) = feed.line(&change).await {
                    return;
                }
            }
            tokio::select! {
                changed = snapshots.changed() => if changed.is_err() { return },
                () = feed.gone() => return,
            }
        }
    });
    Ok(answer)
}

/// What a watcher knows.
#[derive(Debug, Default)]
struct Told(Option<BTreeMap<String, Arc<Instance>>>);

impl Told {
    /// What it has to be told so that it knows this.
    fn changes(&mut self, snapshot: &Snapshot, meant: Option<&Meant>) -> Vec<Change> {
        let wanted = snapshot.instances.iter();
        let wanted = wanted.filter(|one| meant.is_none_or(|meant| meant.is(&one.job)));
        let now: BTreeMap<String, Arc<Instance>> = wanted
            .map(|one| (one.name.clone(), Arc::clone(one)))
            .collect();
        let changes = match &self.0 {
            None => vec![Change::Snapshot {
                instances: now.values().map(|one| (**one).clone()).collect(),
            }],
            Some(before) => {
                let gone = before.keys().filter(|name| !now.contains_key(*name));
                let gone = gone.map(|name| Change::Removed { name: name.clone() });
                let is_new = |(name, one): &(&String, &Arc<Instance>)| {
                    before.get(*name).is_none_or(|other| other != *one)
                };
                let new = now.iter().filter(is_new).map(|(_, one)| Change::Changed {
                    instance: Box::new((**one).clone()),
                });
                gone.chain(new).collect()
            }
        };
        self.0 = Some(now);
        changes
    }
}
