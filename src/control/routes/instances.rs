//! Instances: what they are, their logs, programs inside them, and the services that they answer for.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use hyper::upgrade::OnUpgrade;
use serde::Deserialize;
use tokio::sync::OwnedSemaphorePermit;
use utoipa::IntoParams;

use super::{BODY, Shared, token};
use crate::api::exec::PROTOCOL;
use crate::api::{Exec, Instance, Phase, Problem, Service};
use crate::control::caller::{Who, by};
use crate::control::exec::{SESSIONS, Session};
use crate::control::feed::Feed;
use crate::control::find::Meant;
use crate::control::problem::Refusal;
use crate::control::{Control, follow, services};
use crate::error;

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListQuery {
    /// Instances of this job only: NAME[:VERSION[:DIGEST]].
    job: Option<String>,
}

/// The instances that there are.
#[utoipa::path(get, path = "/v1/instances", params(ListQuery), responses((status = 200, body = Vec<Instance>)))]
pub async fn list(
    State(control): Shared,
    Query(query): Query<ListQuery>,
) -> Result<Json<Vec<Instance>>, Refusal> {
    let meant = query.job.as_deref().map(Meant::parse).transpose()?;
    let snapshot = control.agent.snapshots().borrow().clone();
    let is_meant = |one: &&Arc<Instance>| meant.as_ref().is_none_or(|meant| meant.is(&one.job));
    let found = snapshot.instances.iter().filter(is_meant);
    Ok(Json(found.map(|one| (**one).clone()).collect()))
}

impl Control {
    fn instance(&self, name: &str) -> Result<Arc<Instance>, Refusal> {
        let snapshot = self.agent.snapshots().borrow().clone();
        let found = snapshot.instances.iter().find(|one| one.name == name);
        found.cloned().ok_or_else(|| {
            let error = format!("there is no instance {name:?}");
            Refusal::missing(error, "parctl status lists those that there are")
        })
    }
}

impl Control {
    /// Refuses who does not know the token of an instance's job. That of a job that is not kept any more was needed
    /// to remove it: nobody can be asked for it.
    async fn check_token(&self, instance: &Instance, given: Option<&str>) -> Result<(), Refusal> {
        let meant = Meant::parse(&instance.job.to_string())?;
        match self.job(&meant).await {
            Ok(job) => job.check_token(given),
            Err(refusal) if refusal.status == StatusCode::NOT_FOUND => Ok(()),
            Err(refusal) => Err(refusal),
        }
    }
}

/// The task that is meant: the only one where none is named.
fn task(instance: &Instance, named: Option<String>) -> Result<String, Refusal> {
    let names = || instance.tasks.keys().cloned().collect::<Vec<_>>();
    let hint = || format!("name one of its tasks: {}", names().join(", "));
    match named {
        Some(name) if instance.tasks.contains_key(&name) => Ok(name),
        Some(name) => {
            let error = format!("{} has no task {name:?}", instance.name);
            Err(Refusal::missing(error, hint()).with(names()))
        }
        None => match &names()[..] {
            [only] => Ok(only.clone()),
            _ => {
                let error = format!("{} has {} tasks", instance.name, instance.tasks.len());
                Err(Refusal::bad(error, hint()).with(names()))
            }
        },
    }
}

/// One instance.
#[utoipa::path(get, path = "/v1/instances/{name}", params(("name" = String, Path)),
    responses((status = 200, body = Instance), (status = 404, body = Problem)))]
pub async fn inspect(
    State(control): Shared,
    Path(name): Path<String>,
) -> Result<Json<Instance>, Refusal> {
    let instance = control.instance(&name)?;
    Ok(Json((*instance).clone()))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct RestartQuery {
    /// Why, for the history.
    reason: Option<String>,
}

/// Stops an instance and starts it at once.
#[utoipa::path(post, path = "/v1/instances/{name}/restart", params(("name" = String, Path), RestartQuery),
    responses((status = 200, body = Instance), (status = 403, body = Problem), (status = 404, body = Problem), (status = 409, body = Problem)))]
pub async fn restart(
    State(control): Shared,
    Path(name): Path<String>,
    Query(query): Query<RestartQuery>,
    who: Who,
    headers: HeaderMap,
) -> Result<Json<Instance>, Refusal> {
    let instance = control.instance(&name)?;
    control.check_token(&instance, token(&headers)).await?;
    let by = by(&who);
    let reason = match query.reason {
        Some(reason) => format!("{reason}, {by}"),
        None => format!("asked {by}"),
    };
    let restarted = control.agent.restart(&name, &reason).await;
    restarted.map_err(|problem| {
        let hint = format!("parctl history {name} says what has happened to it");
        Refusal::conflict(error::in_words(&problem), hint)
    })?;
    let instance = control.instance(&name)?;
    Ok(Json((*instance).clone()))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct LogsQuery {
    /// The task; not needed where there is one only.
    task: Option<String>,
    /// How many of the last lines; all that are kept by default.
    tail: Option<usize>,
    /// Whether what comes is told too, until the client ends it.
    #[serde(default)]
    follow: bool,
    /// `stdout` or `stderr` only.
    stream: Option<String>,
    /// Whether each line's moment stands before it.
    #[serde(default)]
    timestamps: bool,
    /// Whether each line is told as JSON, with its moment and stream: a LogLine.
    #[serde(default)]
    json: bool,
}

/// What a task has printed.
#[utoipa::path(get, path = "/v1/instances/{name}/logs", params(("name" = String, Path), LogsQuery),
    responses((status = 200, body = String, content_type = "text/plain"), (status = 404, body = Problem)))]
pub async fn logs(
    State(control): Shared,
    Path(name): Path<String>,
    Query(query): Query<LogsQuery>,
) -> Result<Response, Refusal> {
    let instance = control.instance(&name)?;
    let task = task(&instance, query.task)?;
    let known = query.stream.as_deref();
    if known.is_some_and(|stream| stream != "stdout" && stream != "stderr") {
        return Err(Refusal::bad(
            "stream is stdout or stderr",
            "leave it away for both",
        ));
    }
    let path = control.agent.log(&name, &task).map_err(|problem| {
        Refusal::missing(error::in_words(&problem), "look again: parctl status")
    })?;
    let wish = follow::Wish {
        tail: query.tail,
        follow: query.follow,
        stream: query.stream,
        timestamps: query.timestamps,
        json: query.json,
    };
    let kind = match query.json {
        true => "application/x-ndjson",
        false => "text/plain; charset=utf-8",
    };
    let (feed, answer) = Feed::new(kind, control.stop.clone());
    tokio::spawn(follow::tell(path, wish, feed));
    Ok(answer)
}

/// Runs a further program inside a task. The request asks for an upgrade to `parhelion-exec`; frames follow
/// (docs/api.md).
#[utoipa::path(post, path = "/v1/instances/{name}/exec", params(("name" = String, Path)), request_body = Exec,
    responses((status = 101, description = "Frames follow"), (status = 400, body = Problem), (status = 403, body = Problem), (status = 404, body = Problem), (status = 409, body = Problem, description = "It does not run"), (status = 503, body = Problem, description = "There are too many")))]
pub async fn exec(
    State(control): Shared,
    Path(name): Path<String>,
    mut request: Request,
) -> Result<Response, Refusal> {
    let asked = request.headers().get(header::UPGRADE).cloned();
    let upgrade = request.extensions_mut().remove::<OnUpgrade>();
    let upgrade = upgrade.filter(|_| asked.is_some_and(|asked| asked == PROTOCOL));
    let upgrade = upgrade.ok_or_else(|| {
        let hint = format!("send Connection: Upgrade and Upgrade: {PROTOCOL}, or use parctl exec");
        Refusal::new(StatusCode::UPGRADE_REQUIRED, "exec needs an upgrade", hint)
    })?;
    let instance = control.instance(&name)?;
    control
        .check_token(&instance, token(request.headers()))
        .await?;
    let body = axum::body::to_bytes(request.into_body(), BODY).await;
    let body = body.map_err(|problem| Refusal::bad(problem.to_string(), "send less"))?;
    let exec: Exec = serde_json::from_slice(&body).map_err(|problem| {
        Refusal::bad(problem.to_string(), "GET /openapi.json says what Exec is")
    })?;
    let task = task(&instance, exec.task.clone())?;
    if exec.command.is_empty() {
        return Err(Refusal::bad(
            "there is no program to run",
            "name one: parctl exec INSTANCE sh",
        ));
    }
    if instance.phase != Phase::Running {
        let phase = serde_json::to_value(instance.phase).unwrap_or_default();
        let error = format!(
            "{name} does not run: it is {}",
            phase.as_str().unwrap_or_default()
        );
        let hint = format!("wait until it does: parctl watch; or see why: parctl history {name}");
        return Err(Refusal::conflict(error, hint));
    }
    let (root, id) = control.agent.container(&name, &task).map_err(|problem| {
        Refusal::conflict(error::in_words(&problem), "look again: parctl status")
    })?;
    let place = Arc::clone(&control.sessions).try_acquire_owned();
    let place = place.map_err(|_| {
        let error = format!("there are {SESSIONS} programs inside instances for clients already");
        Refusal::new(
            StatusCode::SERVICE_UNAVAILABLE,
            error,
            "end one of them, and try again",
        )
    })?;
    let session = session(&exec, &root.to_string_lossy(), id, upgrade, place);
    let sent = control.exec.try_send(session);
    sent.map_err(|_| {
        let error = "too many programs are being started inside instances";
        Refusal::new(StatusCode::SERVICE_UNAVAILABLE, error, "try again")
    })?;
    let headers = [
        (header::CONNECTION, HeaderValue::from_static("upgrade")),
        (header::UPGRADE, HeaderValue::from_static(PROTOCOL)),
    ];
    Ok((StatusCode::SWITCHING_PROTOCOLS, headers).into_response())
}

fn session(
    exec: &Exec,
    root: &str,
    id: String,
    upgrade: OnUpgrade,
    place: OwnedSemaphorePermit,
) -> Session {
    let mut before = vec!["--root".to_owned(), root.to_owned(), "exec".to_owned()];
    for (name, value) in &exec.env {
        before.push(format!("--env={name}={value}"));
    }
    if let Some(cwd) = &exec.cwd {
        before.push(format!("--cwd={cwd}"));
    }
    if let Some(user) = &exec.user {
        before.push(format!("--user={user}"));
    }
    // A program's name that begins with a dash is none of the runtime's options.
    let mut after = vec!["--".to_owned(), id];
    after.extend(exec.command.iter().cloned());
    Session {
        before,
        after,
        terminal: exec.terminal,
        upgrade,
        place,
    }
}

/// The services of ready instances.
#[utoipa::path(get, path = "/v1/services", responses((status = 200, body = Vec<Service>)))]
pub async fn services(State(control): Shared) -> Result<Json<Vec<Service>>, Refusal> {
    let jobs = control.jobs("").await?;
    let jobs = jobs
        .into_iter()
        .map(|job| (job.id, job.record.job))
        .collect();
    let snapshot = control.agent.snapshots().borrow().clone();
    Ok(Json(services::services(&snapshot, &jobs)))
}
