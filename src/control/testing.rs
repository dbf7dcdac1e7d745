//! A fake agent and a store in a directory of its own, for tests of what stands on both.
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]
#![cfg_attr(
    feature = "fuzzing",
    allow(dead_code, reason = "shared with the tests")
)]

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Result, bail};
use axum::body::Body;
use axum::http::{Request, StatusCode};
use axum::response::Response;
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::{Agent, Answer, Control, Events, exec, faults, metrics, routes, wanted};
use crate::agent::{Origin, Snapshot, Wanted};
use crate::api::{Event, Goal, Health, Instance, Phase, TaskStatus};
use crate::job::JobId;
use crate::store::Clock;
use crate::store::embedded::Embedded;

/// An agent that does what a test says.
pub struct Fake {
    pub wanted: watch::Sender<Option<Wanted>>,
    /// What it has followed before.
    pub followed: Mutex<Option<Origin>>,
    pub snapshots: watch::Sender<Arc<Snapshot>>,
    pub events: Mutex<Vec<Event>>,
    pub restarted: Mutex<Vec<String>>,
    pub fault: Mutex<Option<String>>,
    pub stands_still: AtomicBool,
    /// Told when it goes on.
    pub goes_on: tokio::sync::Notify,
    pub log: PathBuf,
}

impl Agent for Fake {
    fn want(&self, wanted: Wanted) -> Answer<'_, Result<()>> {
        let followed = self.followed.lock().unwrap();
        if let Err(refused) = Origin::of(&wanted).check(followed.as_ref()) {
            return Box::pin(std::future::ready(Err(refused.into())));
        }
        self.wanted.send_replace(Some(wanted));
        Box::pin(async { Ok(()) })
    }

    fn accept(&self, wanted: Wanted) -> Answer<'_, Result<()>> {
        *self.followed.lock().unwrap() = Some(Origin::of(&wanted));
        self.want(wanted)
    }

    fn halt(&self, _within: Duration) -> Answer<'_, Result<()>> {
        self.snapshots.send_modify(|snapshot| {
            let halting = Some(0);
            *snapshot = Arc::new(Snapshot {
                halting,
                ..Snapshot::clone(snapshot)
            });
        });
        Box::pin(async { Ok(()) })
    }

    fn fault(&self) -> Option<String> {
        self.fault.lock().unwrap().clone()
    }

    fn turns(&self) -> Answer<'_, Result<()>> {
        match self.stands_still.load(Ordering::Relaxed) {
            true => Box::pin(async {
                self.goes_on.notified().await;
                Ok(())
            }),
            false => Box::pin(async { Ok(()) }),
        }
    }

    fn snapshots(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.snapshots.subscribe()
    }

    fn events(&self, from: u64) -> Box<dyn Events> {
        let mut events = self.events.lock().unwrap().clone();
        events.retain(|event| event.number >= from);
        Box::new(Past(events))
    }

    fn note(&self, job: &JobId, kind: &'static str, cause: String) {
        let mut events = self.events.lock().unwrap();
        let number = events.len() as u64 + 1;
        events.push(Event {
            number,
            time: crate::lifecycle::facts::now(),
            host: "here".to_owned(),
            job: Some(job.clone()),
            instance: None,
            kind: kind.to_owned(),
            cause,
        });
    }

    fn restart<'a>(&'a self, instance: &'a str, reason: &'a str) -> Answer<'a, Result<()>> {
        let told = format!("{instance}: {reason}");
        self.restarted.lock().unwrap().push(told);
        Box::pin(async { Ok(()) })
    }

    fn log(&self, _instance: &str, _task: &str) -> Result<PathBuf> {
        Ok(self.log.clone())
    }

    fn container(&self, instance: &str, _task: &str) -> Result<(PathBuf, String)> {
        bail!("{instance} has no container")
    }
}

impl Fake {
    /// It stands still no longer.
    pub fn go_on(&self) {
        self.stands_still.store(false, Ordering::Relaxed);
        self.goes_on.notify_one();
    }
}

/// Events of which none comes any more.
struct Past(Vec<Event>);

impl Events for Past {
    fn next(&mut self) -> Answer<'_, Option<Event>> {
        let next = (!self.0.is_empty()).then(|| self.0.remove(0));
        Box::pin(async {
            match next {
                Some(event) => Some(event),
                None => std::future::pending().await,
            }
        })
    }
}

struct Still;

impl Clock for Still {
    fn now(&self) -> Duration {
        Duration::ZERO
    }
}

/// Control over a fake agent; its directory goes with it.
pub struct World {
    pub control: Arc<Control>,
    pub agent: Arc<Fake>,
    pub folder: PathBuf,
    pub stop: watch::Sender<bool>,
}

impl Drop for World {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.folder).unwrap();
    }
}

impl World {
    pub fn new() -> World {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("parhelion-control-{}-{number}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir(&folder).unwrap();
        let store = Embedded::open(&folder.join("store"), Arc::new(Still)).unwrap();
        let agent = Arc::new(Fake {
            wanted: watch::Sender::new(None),
            followed: Mutex::default(),
            snapshots: watch::Sender::new(Arc::default()),
            events: Mutex::default(),
            restarted: Mutex::default(),
            fault: Mutex::default(),
            stands_still: AtomicBool::new(false),
            goes_on: tokio::sync::Notify::new(),
            log: folder.join("log"),
        });
        let (stop, stopped) = watch::channel(false);
        let (door, _) = exec::door();
        let control = Arc::new(Control {
            store: Arc::new(store),
            agent: Arc::clone(&agent) as Arc<dyn Agent>,
            host: "here".to_owned(),
            exec: door,
            sessions: Arc::new(tokio::sync::Semaphore::new(exec::SESSIONS)),
            health: wanted::Health::default(),
            accepted: tokio::sync::Notify::new(),
            turn: Arc::new(watch::Sender::default()),
            places: Arc::new(faults::Places {
                store: folder.join("store"),
                agent: folder.clone(),
            }),
            refused: tokio::sync::Notify::new(),
            counts: metrics::Counts::default(),
            created: tokio::sync::Notify::new(),
            stop: stopped,
        });
        World {
            control,
            agent,
            folder,
            stop,
        }
    }

    /// What a request is answered; of an answer that comes in pieces, and may have no end, its head.
    #[cfg(feature = "fuzzing")]
    pub async fn ask_whole(&self, request: Request<Body>) -> (StatusCode, String) {
        let answer = self.answer(request).await;
        match hyper::body::Body::size_hint(answer.body()).exact() {
            Some(_) => whole(answer).await,
            None => (answer.status(), String::new()),
        }
    }

    /// What a request is answered.
    pub async fn ask(&self, request: Request<Body>) -> (StatusCode, String) {
        whole(self.answer(request).await).await
    }

    async fn answer(&self, request: Request<Body>) -> Response {
        let router = routes::router(Arc::clone(&self.control));
        let router = TowerToHyperService::new(router);
        router.call(request).await.unwrap()
    }

    pub async fn send(&self, method: &str, path: &str, body: &Value) -> (StatusCode, Value) {
        self.send_with(method, path, body, &[]).await
    }

    pub async fn send_with(
        &self,
        method: &str,
        path: &str,
        body: &Value,
        headers: &[(&str, &str)],
    ) -> (StatusCode, Value) {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.header("content-type", "application/json");
        let body = match body.is_null() {
            true => Body::empty(),
            false => Body::from(body.to_string()),
        };
        let (status, text) = self.ask(request.body(body).unwrap()).await;
        let value = serde_json::from_str(&text);
        (status, value.unwrap_or(Value::String(text)))
    }

    pub async fn get(&self, path: &str) -> (StatusCode, Value) {
        self.send("GET", path, &Value::Null).await
    }

    /// Creates a job with these further fields; its id.
    pub async fn job(&self, version: &str, more: &Value) -> JobId {
        let (status, created) = self.send("POST", "/v1/jobs", &job(version, more)).await;
        assert_eq!(status, 201, "{created}");
        created["id"].as_str().unwrap().parse().unwrap()
    }

    /// Shows instances.
    pub fn show(&self, instances: Vec<Instance>) {
        self.agent.snapshots.send_modify(|snapshot| {
            *snapshot = Arc::new(Snapshot {
                number: snapshot.number + 1,
                revision: Some(u64::MAX),
                halting: None,
                instances: instances.into_iter().map(Arc::new).collect(),
            });
        });
    }
}

async fn whole(answer: Response) -> (StatusCode, String) {
    let status = answer.status();
    let body = axum::body::to_bytes(answer.into_body(), 1 << 20).await;
    (status, String::from_utf8(body.unwrap().to_vec()).unwrap())
}

/// A job as a client sends it.
pub fn job(version: &str, more: &Value) -> Value {
    let mut job = json!({
        "name": "web",
        "version": version,
        "tasks": { "main": { "bundle": "/srv/web" } },
    });
    for (name, value) in more.as_object().unwrap() {
        job[name] = value.clone();
    }
    job
}

/// The first instance of a job, which runs.
pub fn instance(id: &JobId) -> Instance {
    let task = TaskStatus {
        container: "web".to_owned(),
        pid: Some(1),
        last_exit: None,
    };
    Instance {
        name: format!("{}.{}.{:.7}.0", id.name, id.version, id.digest),
        job: id.clone(),
        host: "here".to_owned(),
        index: 0,
        goal: Some(Goal::Start),
        phase: Phase::Running,
        health: Health::Unknown,
        flapping: false,
        restarts: 0,
        next_attempt: None,
        since: None,
        address: None,
        ports: [("http".to_owned(), 20_000)].into(),
        tasks: [("main".to_owned(), task)].into(),
        fault: None,
    }
}
