//! Jobs: read from files, kept, listed, removed.

use std::io::Read as _;
use std::path::Path;

use hyper::Method;

use super::arguments::{Create, JobFile, Jobs, Remove};
use super::connection::{Client, quoted};
use super::failure::Failure;
use super::show::{Cell, Colour, Output};
use crate::api::{Created, Deployment, JobInfo, Problem};
use crate::error;
use crate::job::{self, Job};

/// Keeps a job.
pub async fn create(client: &Client, output: &Output, create: Create) -> Result<(), Failure> {
    let job = read(&create.job, output)?;
    if create.dry_run {
        return output.value(&job);
    }
    let created = send(client, &job).await?;
    match output.json {
        true => output.line(&created),
        false => {
            output.say(&created.id.to_string())?;
            output.note(&format!("run it: parctl deploy {}", created.id.short()));
            Ok(())
        }
    }
}

/// Has a job kept.
pub async fn send(client: &Client, job: &Job) -> Result<Created, Failure> {
    let path = format!("/v1/jobs?id={}", quoted(&job.id().to_string()));
    client.ask(Method::POST, &path, job).await
}

/// The job that a command line describes.
pub fn read(said: &JobFile, output: &Output) -> Result<Job, Failure> {
    let mut job = match (&said.file, &said.helios) {
        (Some(file), _) => parse(file)?,
        (None, Some(file)) => helios(said, file, output)?,
        (None, None) => {
            return Err(Failure::new(
                "there is no job file",
                "name one, or - for standard input",
            ));
        }
    };
    change(&mut job, said)?;
    Ok(job)
}

fn parse(file: &Path) -> Result<Job, Failure> {
    let text = text(file)?;
    let format = job::Format::of(file, &text);
    job::parse(&text, format).map_err(|refusal| {
        Failure::from(Problem {
            error: format!("{}: {refusal}", file.display()),
            hint: "parctl schema prints what a job file may say".to_owned(),
            candidates: Vec::new(),
            faults: refusal.faults().cloned().collect(),
        })
    })
}

/// A Helios job config as a job; what became of each field that changed is told.
fn helios(said: &JobFile, file: &Path, output: &Output) -> Result<Job, Failure> {
    let text = text(file)?;
    let id = said.name.clone().zip(said.job_version.clone());
    let bundle = said.bundle.as_ref().map(std::path::absolute).transpose();
    let bundle = bundle.map_err(|e| Failure::new(format!("--bundle: {e}"), "write its path"))?;
    let options = job::helios::Options { bundle, id };
    let (job, notes) = job::helios::import(&text, &options).map_err(|problem| {
        let error = format!("{}: {}", file.display(), error::in_words(&problem));
        Failure::new(error, "docs/helios-jobs.md says what becomes of each field")
    })?;
    for note in notes {
        output.note(&format!("{}: {}", note.field, note.message));
    }
    Ok(job)
}

/// A file's text; - is standard input.
fn text(file: &Path) -> Result<String, Failure> {
    let unreadable = |error: &std::io::Error| {
        let hint = "name a job file in TOML or JSON, or - for standard input";
        Failure::new(format!("{}: {error}", file.display()), hint)
    };
    if file == Path::new("-") {
        let mut text = String::new();
        let read = std::io::stdin().read_to_string(&mut text);
        return read.map(|_| text).map_err(|error| unreadable(&error));
    }
    std::fs::read_to_string(file).map_err(|error| unreadable(&error))
}

fn changed(what: &str, given: &str) -> Failure {
    Failure::new(
        format!("{what} {given:?}"),
        format!("write {what} NAME=VALUE"),
    )
}

/// What the command line says otherwise than the file.
fn change(job: &mut Job, said: &JobFile) -> Result<(), Failure> {
    if let Some(name) = &said.name {
        job.name.clone_from(name);
    }
    if let Some(version) = &said.job_version {
        job.version.clone_from(version);
    }
    for given in &said.env {
        let (name, value) = given
            .split_once('=')
            .ok_or_else(|| changed("--env", given))?;
        let (task, name) = match name.split_once(':') {
            Some((task, name)) => (Some(task), name),
            None => (None, name),
        };
        if let Some(task) = task.filter(|task| !job.tasks.contains_key(*task)) {
            let names: Vec<_> = job.tasks.keys().cloned().collect();
            let hint = format!("its tasks are {}", names.join(", "));
            return Err(Failure::new(
                format!("--env {given:?}: there is no task {task:?}"),
                hint,
            ));
        }
        for (key, one) in &mut job.tasks {
            if task.is_none_or(|task| task == key) {
                one.env.insert(name.to_owned(), value.to_owned());
            }
        }
    }
    for given in &said.label {
        let (name, value) = given
            .split_once('=')
            .ok_or_else(|| changed("--label", given))?;
        job.labels.insert(name.to_owned(), value.to_owned());
    }
    if let Some(expires) = &said.expires {
        let moment = expires.parse().map_err(|problem: String| {
            Failure::new(
                format!("--expires: {problem}"),
                "write it in UTC, or with its zone",
            )
        })?;
        job.expires = Some(moment);
    }
    // As the daemon will: what was changed may not fit.
    let text = serde_json::to_string(job).map_err(Failure::strange)?;
    job::parse(&text, job::Format::Json)
        .map(drop)
        .map_err(|refusal| {
            let paths: Vec<String> = refusal
                .faults()
                .map(|one| format!("{}: {}", one.path, one.message))
                .collect();
            Failure::new(paths.join("; "), "give other options, or change the file")
        })
}

/// Lists jobs.
pub async fn list(client: &Client, output: &Output, list: Jobs) -> Result<(), Failure> {
    let mut query = Vec::new();
    if let Some(text) = &list.contains {
        query.push(format!("contains={}", quoted(text)));
    }
    if let Some(label) = &list.label {
        query.push(format!("label={}", quoted(label)));
    }
    match (list.deployed, list.undeployed) {
        (true, _) => query.push("deployed=true".to_owned()),
        (false, true) => query.push("deployed=false".to_owned()),
        (false, false) => {}
    }
    let jobs: Vec<JobInfo> = client.get(&format!("/v1/jobs?{}", query.join("&"))).await?;
    if output.json {
        return output.value(&jobs);
    }
    if list.quiet {
        for job in &jobs {
            output.say(&job.id.to_string())?;
        }
        return Ok(());
    }
    let rows: Vec<Vec<Cell>> = jobs
        .iter()
        .map(|info| {
            let hosts: Vec<String> = info.deployments.iter().map(deployed).collect();
            vec![
                info.id.name.clone().into(),
                info.id.version.clone().into(),
                Cell::new(
                    info.id.digest.chars().take(7).collect::<String>(),
                    Colour::Dim,
                ),
                hosts.join(", ").into(),
                info.created.chars().take(19).collect::<String>().into(),
            ]
        })
        .collect();
    if rows.is_empty() {
        output.note("there is no such job: parctl create FILE makes one");
        return Ok(());
    }
    output.table(&["NAME", "VERSION", "DIGEST", "DEPLOYED", "CREATED"], &rows)
}

fn deployed(deployment: &Deployment) -> String {
    let goal = match deployment.goal {
        crate::api::Goal::Start => "",
        crate::api::Goal::Stop => ", stopped",
    };
    format!("{} x{}{goal}", deployment.host, deployment.count)
}

/// Removes jobs.
pub async fn remove(client: &Client, output: &Output, remove: Remove) -> Result<(), Failure> {
    for job in &remove.jobs {
        let path = format!("/v1/jobs/{}", quoted(job));
        if remove.undeploy {
            let info: JobInfo = client.get(&path).await?;
            for deployment in info.deployments {
                let host = quoted(&deployment.host);
                let path = format!("/v1/hosts/{host}/jobs/{}", quoted(&info.id.to_string()));
                let _gone: Deployment = client.ask(Method::DELETE, &path, &()).await?;
            }
        }
        let removed: Created = client.ask(Method::DELETE, &path, &()).await?;
        match output.json {
            true => output.line(&removed)?,
            false => output.say(&format!("removed {}", removed.id))?,
        }
    }
    Ok(())
}

/// Prints the schema of job files.
pub fn schema(output: &Output) -> Result<(), Failure> {
    output.value(&job::schema())
}
