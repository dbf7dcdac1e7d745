//! The daemon itself: its version, whether it works, its figures, its description.

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::Shared;
use crate::api::{Problem, Version};
use crate::control::metrics;
use crate::control::problem::Refusal;

/// The daemon's version.
#[utoipa::path(get, path = "/v1/version", responses((status = 200, body = Version)))]
pub async fn version(State(control): Shared) -> Json<Version> {
    Json(Version {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        api: "v1".to_owned(),
        host: control.host.clone(),
    })
}

/// Whether the store answers and what is wanted reaches the agent.
#[utoipa::path(get, path = "/healthz", responses((status = 200, body = String, content_type = "text/plain"), (status = 503, body = Problem)))]
pub async fn healthz(State(control): Shared) -> Result<&'static str, Refusal> {
    control.deployments().await?;
    match control.health.fault() {
        None => Ok("ok\n"),
        Some(fault) => Err(Refusal::new(
            StatusCode::SERVICE_UNAVAILABLE,
            format!("what is wanted does not reach the agent: {fault}"),
            "instances run on as they are; it is tried again by itself",
        )),
    }
}

/// Figures for Prometheus.
#[utoipa::path(get, path = "/metrics", responses((status = 200, body = String, content_type = "application/openmetrics-text")))]
pub async fn metrics(State(control): Shared) -> Result<Response, Refusal> {
    let deployments = control.deployments().await?;
    let snapshot = control.agent.snapshots().borrow().clone();
    let reaches = control.health.fault().is_none();
    let text = metrics::text(&snapshot, &deployments, &control.counts, reaches);
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
