//! The daemon itself: its version, whether it works, its figures, its description.

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::Shared;
use crate::api::{Problem, Version};
use crate::control::problem::Refusal;
use crate::control::{faults, metrics};

/// The daemon's version.
#[utoipa::path(get, path = "/v1/version", responses((status = 200, body = Version)))]
pub async fn version(State(control): Shared) -> Json<Version> {
    Json(Version {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        api: "v1".to_owned(),
        host: control.host.clone(),
    })
}

/// Whether the store can be read and written, what is wanted reaches the agent, the agent can write its state, and
/// its loop turns; and the host is not going down.
#[utoipa::path(get, path = "/healthz", responses((status = 200, body = String, content_type = "text/plain"), (status = 503, body = Problem, description = "All that does not work, with reasons; instances run on")))]
pub async fn healthz(State(control): Shared) -> Result<&'static str, Refusal> {
    control.deployments().await?;
    let faults = control.faults(faults::TURN * 2).await;
    let (Some(first), Some(words)) = (faults.first(), faults::in_words(&faults)) else {
        return Ok("ok\n");
    };
    let status = StatusCode::SERVICE_UNAVAILABLE;
    Err(Refusal::new(status, words, first.hint()))
}

/// Figures for Prometheus.
#[utoipa::path(get, path = "/metrics", responses((status = 200, body = String, content_type = "application/openmetrics-text")))]
pub async fn metrics(State(control): Shared) -> Result<Response, Refusal> {
    let deployments = control.deployments().await?;
    let snapshot = control.agent.snapshots().borrow().clone();
    let faults = control.faults(faults::MOMENT).await;
    let text = metrics::text(&snapshot, &deployments, &control.counts, &faults);
    let text = text.map_err(|problem| {
        let status = StatusCode::INTERNAL_SERVER_ERROR;
        Refusal::new(status, problem.to_string(), "see the log of parheliond")
    })?;
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, kind)], text).into_response())
}

/// The document that describes this API.
#[utoipa::path(get, path = "/openapi.json", responses((status = 200, body = Object)))]
pub async fn document() -> Result<Response, Refusal> {
    let text = super::open_api().map_err(|problem| {
        let status = StatusCode::INTERNAL_SERVER_ERROR;
        Refusal::new(status, problem.to_string(), "see the log of parheliond")
    })?;
    Ok(([(header::CONTENT_TYPE, "application/json")], text).into_response())
}
