//! Jobs: created, listed, looked at, removed.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use serde::Deserialize;
use utoipa::IntoParams;

use super::{Shared, token};
use crate::api::{Created, JobInfo, Problem};
use crate::control::caller::{Who, by};
use crate::control::find::Meant;
use crate::control::jobs::Stored;
use crate::control::problem::Refusal;
use crate::job;

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct CreateQuery {
    /// What the client takes the job's identity for; another one is refused.
    id: Option<String>,
}

/// Keeps a job; it is deployed by another request.
#[utoipa::path(post, path = "/v1/jobs", params(CreateQuery), request_body(content = Object, description = "A job file in JSON"),
    responses((status = 201, body = Created), (status = 400, body = Problem), (status = 409, body = Problem, description = "It is there already")))]
pub async fn create(
    State(control): Shared,
    Query(query): Query<CreateQuery>,
    who: Who,
    body: Bytes,
) -> Result<(StatusCode, Json<Created>), Refusal> {
    let text = std::str::from_utf8(&body)
        .map_err(|problem| Refusal::bad(format!("a job file: {problem}"), "send JSON in UTF-8"))?;
    let job = job::parse(text, job::Format::Json).map_err(|refusal| {
        let hint = "parctl schema prints what a job file may say";
        let mut bad = Refusal::bad(refusal.to_string(), hint);
        bad.problem.faults = refusal.faults().cloned().collect();
        bad
    })?;
    let id = job.id();
    if let Some(claimed) = query.id.filter(|claimed| *claimed != id.to_string()) {
        return Err(Refusal::bad(
            format!("the job's id is {id}, and not {claimed:?}"),
            "leave ?id= away, or send the job as it was when its id was made",
        ));
    }
    let id = control.create(job).await?;
    control.agent.note(&id, "created", by(&who));
    Ok((StatusCode::CREATED, Json(Created { id })))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListQuery {
    /// Jobs with this name only.
    name: Option<String>,
    /// Jobs whose id contains this text only.
    contains: Option<String>,
    /// Jobs that are, or are not, deployed only.
    deployed: Option<bool>,
    /// Jobs with this label only: NAME or NAME=VALUE.
    label: Option<String>,
}

/// The jobs that there are.
#[utoipa::path(get, path = "/v1/jobs", params(ListQuery), responses((status = 200, body = Vec<JobInfo>)))]
pub async fn list(
    State(control): Shared,
    Query(query): Query<ListQuery>,
) -> Result<Json<Vec<JobInfo>>, Refusal> {
    let prefix = query.name.map(|name| format!("{name}:"));
    let jobs = control.jobs(&prefix.unwrap_or_default()).await?;
    let deployments = control.deployments().await?;
    let mut told = Vec::new();
    for job in jobs {
        let id = job.id.to_string();
        let contains = query.contains.as_ref();
        let label = query.label.as_ref();
        let info = job.info(&deployments)?;
        let is_deployed = !info.deployments.is_empty();
        if contains.is_none_or(|text| id.contains(text))
            && query.deployed.is_none_or(|wanted| wanted == is_deployed)
            && label.is_none_or(|label| has_label(&job.record.job, label))
        {
            told.push(info);
        }
    }
    Ok(Json(told))
}

fn has_label(job: &job::Job, wanted: &str) -> bool {
    match wanted.split_once('=') {
        Some((name, value)) => job.labels.get(name).is_some_and(|has| has == value),
        None => job.labels.contains_key(wanted),
    }
}

/// One job. `{job}` is NAME, NAME:VERSION or NAME:VERSION:DIGEST, of which some first digits do.
#[utoipa::path(get, path = "/v1/jobs/{job}", params(("job" = String, Path)),
    responses((status = 200, body = JobInfo), (status = 404, body = Problem), (status = 409, body = Problem, description = "More than one may be meant")))]
pub async fn inspect(
    State(control): Shared,
    Path(job): Path<String>,
) -> Result<Json<JobInfo>, Refusal> {
    let job = control.job(&Meant::parse(&job)?).await?;
    let deployments = control.deployments().await?;
    job.info(&deployments).map(Json)
}

/// Removes a job that is deployed nowhere.
#[utoipa::path(delete, path = "/v1/jobs/{job}", params(("job" = String, Path)),
    responses((status = 200, body = Created), (status = 403, body = Problem), (status = 404, body = Problem), (status = 409, body = Problem, description = "It is deployed")))]
pub async fn remove(
    State(control): Shared,
    Path(job): Path<String>,
    who: Who,
    headers: HeaderMap,
) -> Result<Json<Created>, Refusal> {
    let meant = Meant::parse(&job)?;
    let may = |job: &Stored| job.check_token(token(&headers));
    let id = control.remove(&meant, may).await?;
    control.agent.note(&id, "removed", by(&who));
    Ok(Json(Created { id }))
}
