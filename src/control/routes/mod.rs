//! The API, version 1: which request is answered by what.
//!
//! Every answer that is not what was asked for is a [`Problem`] in JSON with what to do next.

mod about;
mod hosts;
mod instances;
mod jobs;
mod streams;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use utoipa::OpenApi;

use super::Control;
use super::problem::Refusal;
use crate::api::{self, Problem};

/// How much a request may send: half of what the store takes at once.
const BODY: usize = 512 << 10;

/// How long it may take until an answer begins.
const LIMIT: Duration = Duration::from_secs(60);

type Shared = State<Arc<Control>>;

/// The document that describes the API.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "parheliond",
        description = "Jobs, deployments and instances of a host: HTTP with JSON on a unix socket.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    servers((url = "/")),
    paths(
        jobs::create,
        jobs::list,
        jobs::inspect,
        jobs::remove,
        hosts::list,
        hosts::inspect,
        hosts::halt,
        hosts::accept,
        hosts::deploy,
        hosts::patch,
        hosts::undeploy,
        hosts::deployments,
        instances::list,
        instances::inspect,
        instances::restart,
        instances::logs,
        instances::exec,
        instances::services,
        streams::job_history,
        streams::instance_history,
        streams::events,
        streams::watch,
        about::version,
        about::healthz,
        about::metrics,
        about::document,
    ),
    components(schemas(
        Problem,
        api::Accept,
        api::Change,
        api::Created,
        api::Deploy,
        api::Deployment,
        api::Event,
        api::Exec,
        api::Halt,
        api::Host,
        api::Instance,
        api::JobInfo,
        api::LogLine,
        api::Patch,
        api::Service,
        api::Version,
    ))
)]
struct Document;

/// The document that describes the API, as JSON.
///
/// # Errors
///
/// None in practice: it can be written.
pub fn open_api() -> Result<String, serde_json::Error> {
    let mut text = serde_json::to_string_pretty(&Document::openapi())?;
    text.push('\n');
    Ok(text)
}

/// All routes with their limits.
pub fn router(control: Arc<Control>) -> Router {
    let v1 = Router::new()
        .route("/jobs", get(jobs::list).post(jobs::create))
        .route("/jobs/{job}", get(jobs::inspect).delete(jobs::remove))
        .route("/jobs/{job}/history", get(streams::job_history))
        .route("/hosts", get(hosts::list))
        .route("/hosts/{host}", get(hosts::inspect))
        .route("/hosts/{host}/halt", post(hosts::halt))
        .route("/hosts/{host}/accept", post(hosts::accept))
        .route(
            "/hosts/{host}/jobs/{job}",
            put(hosts::deploy)
                .patch(hosts::patch)
                .delete(hosts::undeploy),
        )
        .route("/deployments", get(hosts::deployments))
        .route("/instances", get(instances::list))
        .route("/instances/{name}", get(instances::inspect))
        .route("/instances/{name}/restart", post(instances::restart))
        .route("/instances/{name}/logs", get(instances::logs))
        .route("/instances/{name}/exec", post(instances::exec))
        .route("/instances/{name}/history", get(streams::instance_history))
        .route("/services", get(instances::services))
        .route("/events", get(streams::events))
        .route("/watch", get(streams::watch))
        .route("/version", get(about::version));
    Router::new()
        .nest("/v1", v1)
        .route("/healthz", get(about::healthz))
        .route("/metrics", get(about::metrics))
        .route("/openapi.json", get(about::document))
        .fallback(nowhere)
        .method_not_allowed_fallback(other_method)
        .layer(DefaultBodyLimit::max(BODY))
        .layer(middleware::from_fn_with_state(Arc::clone(&control), guard))
        .with_state(control)
}

async fn nowhere(request: Request) -> Refusal {
    let error = format!("there is nothing at {}", request.uri().path());
    Refusal::missing(error, "GET /openapi.json lists what there is")
}

async fn other_method(request: Request) -> Refusal {
    let (method, path) = (request.method(), request.uri().path());
    Refusal::new(
        StatusCode::METHOD_NOT_ALLOWED,
        format!("{method} is not for {path}"),
        "GET /openapi.json lists what there is",
    )
}

/// What holds for every request: the versions fit, an answer begins in time, and every error is a [`Problem`].
async fn guard(State(control): Shared, request: Request, next: Next) -> Response {
    let fits = check_version(request.headers());
    let answer = match fits {
        Ok(()) => match tokio::time::timeout(LIMIT, next.run(request)).await {
            Ok(answer) => answer,
            Err(_) => Refusal::new(
                StatusCode::GATEWAY_TIMEOUT,
                format!("it was not done within {LIMIT:?}, and may still be"),
                "look whether it was: parctl status; the log of parheliond may say why it is slow",
            )
            .into_response(),
        },
        Err(refusal) => refusal.into_response(),
    };
    let status = answer.status();
    let failed = status.is_client_error() || status.is_server_error();
    control.counts.answered(!failed);
    let is_json = answer
        .headers()
        .get("content-type")
        .is_some_and(|kind| kind == "application/json");
    if failed && !is_json {
        return in_json(answer).await;
    }
    answer
}

/// What axum refuses itself, as text, in the form of all errors.
async fn in_json(answer: Response) -> Response {
    let status = answer.status();
    let text = axum::body::to_bytes(answer.into_body(), 64 << 10).await;
    let text = String::from_utf8_lossy(&text.unwrap_or_default()).into_owned();
    let hint = match status {
        StatusCode::PAYLOAD_TOO_LARGE => format!("send at most {BODY} bytes"),
        _ => "GET /openapi.json says what is asked for here".to_owned(),
    };
    Refusal::new(status, text, hint).into_response()
}

fn check_version(headers: &HeaderMap) -> Result<(), Refusal> {
    let own = env!("CARGO_PKG_VERSION");
    let Some(told) = headers.get(api::VERSION_HEADER) else {
        return Ok(());
    };
    let told = told.to_str().unwrap_or_default();
    let major = |version: &str| version.split('.').next().map(str::to_owned);
    if major(told) == major(own) {
        return Ok(());
    }
    Err(Refusal::bad(
        format!("the client has version {told:?}, and this daemon {own}: they do not fit"),
        format!("use parctl {own}"),
    ))
}

/// The token that came with a request.
fn token(headers: &HeaderMap) -> Option<&str> {
    headers.get(api::TOKEN_HEADER)?.to_str().ok()
}
