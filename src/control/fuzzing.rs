//! The door for fuzz targets: what a stranger sends, given to every handler, over a store and an agent that does nothing.
//!
//! Decides nothing: it looks whether answers are as docs/api.md says.
#![allow(clippy::unwrap_used, reason = "a failure is what is looked for")]

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, Request, StatusCode};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use super::testing::{World, instance};

/// After so many requests that have changed something, the store begins anew.
const CHANGES: u32 = 64;

/// A daemon's handlers.
pub struct Door {
    runtime: Runtime,
    world: World,
    changes: u32,
}

impl Default for Door {
    fn default() -> Door {
        Door::new()
    }
}

impl Door {
    /// With two jobs, of which one has a token, one is deployed, and one instance runs.
    ///
    /// # Panics
    ///
    /// There is no directory for temporary files.
    #[must_use]
    pub fn new() -> Door {
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }.enable_all().build().unwrap();
        let world = runtime.block_on(world());
        Door {
            runtime,
            world,
            changes: 0,
        }
    }

    /// Answers a request that is written as HTTP/1.1 has it, but for the version; what is none is left out.
    ///
    /// # Panics
    ///
    /// The answer is not one that a client understands, or says that the daemon has failed.
    pub fn send(&mut self, text: &[u8]) {
        let Some(request) = request(text) else { return };
        let changes = request.method() != "GET";
        let target = request.uri().to_string();
        let asked = self.world.ask_whole(request);
        let (status, body) = self.runtime.block_on(asked);
        check(&target, status, &body);
        if changes && status.is_success() {
            self.changes += 1;
            if self.changes >= CHANGES {
                (self.world, self.changes) = (self.runtime.block_on(world()), 0);
            }
        }
    }
}

async fn world() -> World {
    let world = World::new();
    let open = world.job("1", &json!({ "labels": { "a": "b" } })).await;
    world.job("2", &json!({ "token": "secret" })).await;
    let (status, told) = world
        .send("PUT", "/v1/hosts/here/jobs/web:1", &json!({}))
        .await;
    assert_eq!(status, StatusCode::CREATED, "{told}");
    let mut shown = instance(&open);
    "web".clone_into(&mut shown.name);
    world.show(vec![shown]);
    std::fs::write(&world.agent.log, "").unwrap();
    world
}

/// `METHOD TARGET`, lines of headers, an empty line, a body.
fn request(text: &[u8]) -> Option<Request<Body>> {
    let end = text.windows(2).position(|two| two == b"\n\n");
    let (head, body) = match end {
        Some(end) => (&text[..end], &text[end + 2..]),
        None => (text, &[][..]),
    };
    let mut lines = head.split(|byte| *byte == b'\n');
    let first = std::str::from_utf8(lines.next()?).ok()?;
    let (method, target) = first.split_once(' ')?;
    let mut request = Request::builder().method(method).uri(target);
    for line in lines {
        let at = line.iter().position(|byte| *byte == b':')?;
        let name = HeaderName::from_bytes(&line[..at]).ok()?;
        let value = HeaderValue::from_bytes(line[at + 1..].trim_ascii()).ok()?;
        request = request.header(name, value);
    }
    // What hyper gives to a request that asks for an upgrade.
    let upgrade = hyper::upgrade::on(Request::new(()));
    let request = request.extension(upgrade);
    request.body(Body::from(body.to_vec())).ok()
}

/// An error is JSON with what is wrong and what to do next; and none is the daemon's own.
fn check(target: &str, status: StatusCode, body: &str) {
    let told = format!("{target} {status} {body}");
    assert!(!status.is_server_error(), "{told}");
    if !status.is_client_error() {
        return;
    }
    let problem: Value = serde_json::from_str(body).unwrap_or_else(|_| panic!("{told}"));
    for field in ["error", "hint"] {
        let text = problem[field].as_str();
        assert!(text.is_some_and(|text| !text.is_empty()), "{field}: {told}");
    }
}
