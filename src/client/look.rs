//! Looking: at instances, hosts, services, what has happened, what was printed.

use hyper::Method;

use super::arguments::{Events, History, Logs, Status, StoreVerb, Watch};
use super::connection::{Client, quoted};
use super::failure::Failure;
use super::pick;
use super::show::{self, Cell, Colour, Output};
use crate::api::{Accept, Change, Event, Host, JobInfo, LogLine, Service, Version};

/// Lists instances.
pub async fn status(client: &Client, output: &Output, status: Status) -> Result<(), Failure> {
    let instances = pick::instances(client, status.job.as_deref()).await?;
    if output.json {
        return output.value(&instances);
    }
    // What is known of instances is told also where nothing is known of hosts.
    let hosts: Vec<Host> = client.get("/v1/hosts").await.unwrap_or_default();
    for host in hosts {
        if let Some(fault) = host.fault {
            output.note(&format!("host {}: {fault}", host.name));
        }
    }
    if instances.is_empty() {
        output.note("no instance is here: parctl deploy JOB runs one, parctl jobs lists jobs");
        return Ok(());
    }
    let rows: Vec<_> = instances.iter().map(show::row).collect();
    output.table(&show::INSTANCES, &rows)
}

/// What is wrong with a host, or this word.
fn state(host: &Host, well: &str) -> Cell {
    match &host.fault {
        None => Cell::new(well.to_owned(), Colour::Green),
        Some(fault) => Cell::new(fault.clone(), Colour::Red),
    }
}

/// Lists hosts.
pub async fn hosts(client: &Client, output: &Output) -> Result<(), Failure> {
    let hosts: Vec<Host> = client.get("/v1/hosts").await?;
    if output.json {
        return output.value(&hosts);
    }
    let row = |host: &Host| {
        let state = state(host, "up");
        vec![
            host.name.clone().into(),
            state,
            host.jobs.to_string().into(),
            format!("{} of {} running", host.running, host.instances).into(),
            host.version.clone().into(),
        ]
    };
    let rows: Vec<Vec<Cell>> = hosts.iter().map(row).collect();
    output.table(&["HOST", "STATE", "JOBS", "INSTANCES", "VERSION"], &rows)
}

/// Prints which store there is, or makes it the truth.
pub async fn store(client: &Client, output: &Output, verb: StoreVerb) -> Result<(), Failure> {
    let hosts: Vec<Host> = match verb {
        StoreVerb::Show => client.get("/v1/hosts").await?,
        StoreVerb::Accept { store, host } => {
            let host = pick::host(client, host).await?;
            let path = format!("/v1/hosts/{}/accept", quoted(&host));
            let accept = Accept { store };
            vec![client.ask(Method::POST, &path, &accept).await?]
        }
    };
    if output.json {
        return output.value(&hosts);
    }
    let row = |host: &Host| {
        let state = state(host, "followed");
        let store = host.store.clone().unwrap_or_else(|| "none yet".to_owned());
        vec![host.name.clone().into(), store.into(), state]
    };
    let rows: Vec<Vec<Cell>> = hosts.iter().map(row).collect();
    output.table(&["HOST", "STORE", "STATE"], &rows)
}

/// Prints what has happened to a job or an instance.
pub async fn history(client: &Client, output: &Output, history: History) -> Result<(), Failure> {
    let what = quoted(&history.what);
    let limit = history.limit.map(|limit| format!("?limit={limit}"));
    let limit = limit.unwrap_or_default();
    let of_instance = format!("/v1/instances/{what}/history{limit}");
    let mut events: Vec<Event> = client.get(&of_instance).await?;
    if events.is_empty() {
        events = client
            .get(&format!("/v1/jobs/{what}/history{limit}"))
            .await?;
    }
    if output.json {
        return output.value(&events);
    }
    if events.is_empty() {
        let hint = "parctl jobs and parctl status list jobs and instances";
        return Err(Failure::new(
            format!("nothing has happened to {:?}", history.what),
            hint,
        ));
    }
    let rows: Vec<Vec<Cell>> = events.iter().map(event).collect();
    output.table(&["TIME", "WHAT", "OF", "WHY"], &rows)
}

fn event(event: &Event) -> Vec<Cell> {
    let colour = match event.kind.as_str() {
        "ready" | "started" | "running" => Colour::Green,
        "ended" | "unhealthy" | "flapping" | "failed" | "broken" => Colour::Red,
        _ => Colour::Plain,
    };
    let job = event.job.as_ref().map(crate::job::JobId::short);
    let of = event.instance.clone().or(job).unwrap_or_default();
    vec![
        Cell::new(event.time.chars().take(23).collect::<String>(), Colour::Dim),
        Cell::new(event.kind.clone(), colour),
        of.into(),
        event.cause.clone().into(),
    ]
}

/// Prints what an instance has printed.
pub async fn logs(client: &Client, output: &Output, logs: Logs) -> Result<(), Failure> {
    let instance = pick::one(client, &logs.what).await?;
    let mut query = vec![
        format!("follow={}", logs.follow),
        format!("timestamps={}", logs.timestamps),
        format!("json={}", output.json),
    ];
    let more = [("task", &logs.task), ("stream", &logs.stream)];
    for (name, value) in more {
        if let Some(value) = value {
            query.push(format!("{name}={}", quoted(value)));
        }
    }
    if let Some(tail) = logs.tail {
        query.push(format!("tail={tail}"));
    }
    let name = quoted(&instance.name);
    let path = format!("/v1/instances/{name}/logs?{}", query.join("&"));
    let mut stream = client.stream(&path).await?;
    while output.json
        && let Some(line) = stream.line::<LogLine>().await?
    {
        output.line(&line)?;
    }
    while let Some(piece) = stream.piece().await? {
        output.text(&piece)?;
    }
    Ok(())
}

/// Prints all that is known of something.
pub async fn inspect(client: &Client, output: &Output, what: &str) -> Result<(), Failure> {
    let name = quoted(what);
    let instances = pick::instances(client, None).await?;
    if let Some(instance) = instances.iter().find(|one| one.name == what) {
        return output.value(instance);
    }
    let hosts: Vec<Host> = client.get("/v1/hosts").await?;
    let job: Result<JobInfo, Failure> = client.get(&format!("/v1/jobs/{name}")).await;
    match (job, hosts.iter().find(|host| host.name == what)) {
        (Ok(job), _) => output.value(&job),
        (Err(_), Some(host)) => output.value(host),
        (Err(failure), None) => Err(failure),
    }
}

/// Prints instances and every change of them.
pub async fn watch(client: &Client, output: &Output, watch: Watch) -> Result<(), Failure> {
    let job = watch.job.map(|job| format!("?job={}", quoted(&job)));
    let path = format!("/v1/watch{}", job.unwrap_or_default());
    let mut stream = client.stream(&path).await?;
    while let Some(change) = stream.line::<Change>().await? {
        if output.json {
            output.line(&change)?;
            continue;
        }
        match change {
            Change::Snapshot { instances } => {
                let rows: Vec<_> = instances.iter().map(show::row).collect();
                output.table(&show::INSTANCES, &rows)?;
            }
            Change::Changed { instance } => output.table(&[], &[show::row(&instance)])?,
            Change::Removed { name } => output.say(&format!("{name}  removed"))?,
        }
    }
    Err(Failure::new(
        "the daemon has ended",
        "instances run on; watch again when it is back",
    ))
}

/// Prints what has happened, and what happens.
pub async fn events(client: &Client, output: &Output, events: Events) -> Result<(), Failure> {
    let mut path = format!("/v1/events?from={}&follow={}", events.from, events.follow);
    if let Some(job) = &events.job {
        path.push_str(&format!("&job={}", quoted(job)));
    }
    let mut stream = client.stream(&path).await?;
    while let Some(one) = stream.line::<Event>().await? {
        match output.json {
            true => output.line(&one)?,
            false => output.table(&[], &[event(&one)])?,
        }
    }
    Ok(())
}

/// Lists services.
pub async fn services(client: &Client, output: &Output) -> Result<(), Failure> {
    let services: Vec<Service> = client.get("/v1/services").await?;
    if output.json {
        return output.value(&services);
    }
    let mut rows: Vec<Vec<Cell>> = Vec::new();
    for service in &services {
        for one in &service.endpoints {
            rows.push(vec![
                service.name.clone().into(),
                format!("{}:{}", one.host, one.port).into(),
                one.protocol.clone().into(),
                one.instance.clone().into(),
            ]);
        }
        if service.endpoints.is_empty() {
            let none = Cell::new("no instance is ready".to_owned(), Colour::Red);
            rows.push(vec![service.name.clone().into(), none]);
        }
    }
    output.table(&["SERVICE", "ENDPOINT", "PROTOCOL", "INSTANCE"], &rows)
}

/// Prints both versions.
pub async fn version(client: &Client, output: &Output) -> Result<(), Failure> {
    let own = env!("CARGO_PKG_VERSION");
    let daemon: Result<Version, Failure> = client.get("/v1/version").await;
    if output.json {
        let known = daemon.as_ref().ok();
        output.value(&serde_json::json!({ "parctl": own, "parheliond": known }))?;
        return daemon.map(drop);
    }
    output.say(&format!("parctl      {own}"))?;
    let daemon = daemon?;
    let (version, api, host) = (daemon.version, daemon.api, daemon.host);
    output.say(&format!("parheliond  {version}, API {api}, on {host}"))
}
