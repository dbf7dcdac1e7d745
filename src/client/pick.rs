//! Which host and which instance is meant.

use super::connection::{Client, quoted};
use super::failure::Failure;
use crate::api::{Host, Instance};

/// The host that is named, or the only one.
pub async fn host(client: &Client, named: Option<String>) -> Result<String, Failure> {
    if let Some(named) = named {
        return Ok(named);
    }
    let hosts: Vec<Host> = client.get("/v1/hosts").await?;
    match &hosts[..] {
        [only] => Ok(only.name.clone()),
        _ => {
            let names: Vec<_> = hosts.into_iter().map(|host| host.name).collect();
            let hint = format!("name one: --host {}", names.join(" or --host "));
            Err(Failure::new("there is more than one host", hint))
        }
    }
}

/// Instances of a job, or all.
pub async fn instances(client: &Client, job: Option<&str>) -> Result<Vec<Instance>, Failure> {
    match job {
        None => client.get("/v1/instances").await,
        Some(job) => {
            client
                .get(&format!("/v1/instances?job={}", quoted(job)))
                .await
        }
    }
}

/// The instances that are meant: the one of this name, or those of this job.
pub async fn named(client: &Client, what: &str) -> Result<Vec<Instance>, Failure> {
    let all = instances(client, None).await?;
    let exact: Vec<Instance> = all.into_iter().filter(|one| one.name == what).collect();
    if !exact.is_empty() {
        return Ok(exact);
    }
    let found = instances(client, Some(what)).await?;
    if found.is_empty() {
        return Err(Failure::new(
            format!("there is no instance of {what:?}"),
            "parctl status lists instances, parctl jobs the jobs; parctl deploy JOB runs one",
        ));
    }
    Ok(found)
}

/// The one instance that is meant.
pub async fn one(client: &Client, what: &str) -> Result<Instance, Failure> {
    let mut found = named(client, what).await?;
    match (found.pop(), found.is_empty()) {
        (Some(one), true) => Ok(one),
        (last, _) => {
            let names: Vec<_> = found.into_iter().chain(last).map(|one| one.name).collect();
            let hint = format!("name one of them: {}", names.join(", "));
            Err(Failure::new(
                format!("{what} has {} instances", names.len()),
                hint,
            ))
        }
    }
}
