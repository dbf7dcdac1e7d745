//! Hosts and what is deployed on them.

use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};

use super::{Shared, token};
use crate::api::{Accept, Deploy, Deployment, Halt, Host, Patch, Phase, Problem};
use crate::control::caller::{Who, by};
use crate::control::find::Meant;
use crate::control::problem::Refusal;
use crate::control::{Control, faults};
use crate::error;

/// How long the end of all instances is waited for before it is answered.
const HALTING: Duration = Duration::from_secs(20);

/// The hosts that there are.
#[utoipa::path(get, path = "/v1/hosts", responses((status = 200, body = Vec<Host>)))]
pub async fn list(State(control): Shared) -> Result<Json<Vec<Host>>, Refusal> {
    Ok(Json(vec![here(&control).await?]))
}

/// One host.
#[utoipa::path(get, path = "/v1/hosts/{host}", params(("host" = String, Path)),
    responses((status = 200, body = Host), (status = 404, body = Problem)))]
pub async fn inspect(
    State(control): Shared,
    Path(host): Path<String>,
) -> Result<Json<Host>, Refusal> {
    control.check_host(&host)?;
    here(&control).await.map(Json)
}

async fn here(control: &Control) -> Result<Host, Refusal> {
    let jobs = control.deployments().await?.len();
    let snapshot = control.agent.snapshots().borrow().clone();
    let runs = |one: &&std::sync::Arc<crate::api::Instance>| one.phase == Phase::Running;
    Ok(Host {
        name: control.host.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        fault: faults::in_words(&control.faults(faults::MOMENT).await),
        jobs,
        instances: snapshot.instances.len(),
        running: snapshot.instances.iter().filter(runs).count(),
        store: control.identity().await?,
        halting: snapshot.halting,
    })
}

/// Ends all instances of a host that is going down, each by its own stop, all at once. Nothing is started any more until
/// the daemon is, and what is wanted stays so. Answers when all have ended, or soon with how many have not: ask again.
#[utoipa::path(post, path = "/v1/hosts/{host}/halt", params(("host" = String, Path)), request_body = Halt,
    responses((status = 200, body = Host), (status = 404, body = Problem)))]
pub async fn halt(
    State(control): Shared,
    Path(host): Path<String>,
    who: Who,
    Json(wish): Json<Halt>,
) -> Result<Json<Host>, Refusal> {
    control.check_host(&host)?;
    let mut snapshots = control.agent.snapshots();
    if snapshots.borrow().halting.is_none() {
        let by = by(&who);
        error::warn(&format!("the host is going down, all instances end: {by}"));
    }
    let halted = control.agent.halt(Duration::from_secs(wish.within.into()));
    halted.await.map_err(|problem| {
        let status = StatusCode::INTERNAL_SERVER_ERROR;
        let hint = "see the log of parheliond";
        Refusal::new(status, error::in_words(&problem), hint)
    })?;
    let ended = snapshots.wait_for(|snapshot| snapshot.halting == Some(0));
    // Who has waited so long is told how many are left.
    drop(tokio::time::timeout(HALTING, ended).await);
    here(&control).await.map(Json)
}

/// Makes what the store says the truth for a host, whatever was wanted of that before: the store is another one than the one
/// that its agent has followed, or an older one, and is meant. What it does not want ends.
#[utoipa::path(post, path = "/v1/hosts/{host}/accept", params(("host" = String, Path)), request_body = Accept,
    responses((status = 200, body = Host), (status = 404, body = Problem), (status = 409, body = Problem, description = "The store has another name")))]
pub async fn accept(
    State(control): Shared,
    Path(host): Path<String>,
    who: Who,
    Json(wish): Json<Accept>,
) -> Result<Json<Host>, Refusal> {
    control.check_host(&host)?;
    let store = control.accept(&wish.store).await?;
    let by = by(&who);
    error::warn(&format!(
        "what store {store} says is the truth from now on: {by}"
    ));
    here(&control).await.map(Json)
}

/// Wants a job on a host. The same once more changes nothing; another count or goal takes the place of the last.
#[utoipa::path(put, path = "/v1/hosts/{host}/jobs/{job}", params(("host" = String, Path), ("job" = String, Path)), request_body = Deploy,
    responses((status = 201, body = Deployment), (status = 200, body = Deployment, description = "It was deployed before"), (status = 403, body = Problem), (status = 404, body = Problem)))]
pub async fn deploy(
    State(control): Shared,
    Path((host, job)): Path<(String, String)>,
    who: Who,
    headers: HeaderMap,
    Json(wish): Json<Deploy>,
) -> Result<(StatusCode, Json<Deployment>), Refusal> {
    let meant = Meant::parse(&job)?;
    let (deployment, new) = control
        .deploy(&host, &meant, wish, token(&headers), &by(&who))
        .await?;
    let status = match new {
        true => StatusCode::CREATED,
        false => StatusCode::OK,
    };
    Ok((status, Json(deployment)))
}

/// Changes how a job is wanted on a host.
#[utoipa::path(patch, path = "/v1/hosts/{host}/jobs/{job}", params(("host" = String, Path), ("job" = String, Path)), request_body = Patch,
    responses((status = 200, body = Deployment), (status = 403, body = Problem), (status = 404, body = Problem)))]
pub async fn patch(
    State(control): Shared,
    Path((host, job)): Path<(String, String)>,
    who: Who,
    headers: HeaderMap,
    Json(patch): Json<Patch>,
) -> Result<Json<Deployment>, Refusal> {
    let meant = Meant::parse(&job)?;
    let patched = control
        .patch(&host, &meant, patch, token(&headers), &by(&who))
        .await;
    patched.map(Json)
}

/// Wants a job on a host no longer: its instances are stopped and removed.
#[utoipa::path(delete, path = "/v1/hosts/{host}/jobs/{job}", params(("host" = String, Path), ("job" = String, Path)),
    responses((status = 200, body = Deployment), (status = 403, body = Problem), (status = 404, body = Problem)))]
pub async fn undeploy(
    State(control): Shared,
    Path((host, job)): Path<(String, String)>,
    who: Who,
    headers: HeaderMap,
) -> Result<Json<Deployment>, Refusal> {
    let meant = Meant::parse(&job)?;
    let undeployed = control
        .undeploy(&host, &meant, token(&headers), &by(&who))
        .await;
    undeployed.map(Json)
}

/// All deployments.
#[utoipa::path(get, path = "/v1/deployments", responses((status = 200, body = Vec<Deployment>)))]
pub async fn deployments(State(control): Shared) -> Result<Json<Vec<Deployment>>, Refusal> {
    control.deployments().await.map(Json)
}
