//! What is wanted where: deployed, started, stopped, restarted, undeployed.

use hyper::Method;

use super::arguments::{Deploy, Goal, Restart, Undeploy, Wait};
use super::connection::{Client, quoted};
use super::failure::Failure;
use super::pick;
use super::show::Output;
use super::wait::{self, Until};
use crate::api::{self, Deployment, Instance, Patch};

/// Where a job on a host is asked about.
pub fn path(host: &str, job: &str) -> String {
    format!("/v1/hosts/{}/jobs/{}", quoted(host), quoted(job))
}

/// Runs a job.
pub async fn deploy(client: &Client, output: &Output, deploy: Deploy) -> Result<(), Failure> {
    let host = pick::host(client, deploy.wait.host.clone()).await?;
    let wish = api::Deploy {
        goal: match deploy.stopped {
            true => api::Goal::Stop,
            false => api::Goal::Start,
        },
        count: deploy.count,
    };
    let path = path(&host, &deploy.job);
    let deployment: Deployment = client.ask(Method::PUT, &path, &wish).await?;
    let until = match wish.goal {
        api::Goal::Start => Until::Ready(wish.count),
        api::Goal::Stop => Until::Stopped,
    };
    done(client, output, &deployment, "deployed", until, &deploy.wait).await
}

/// Tells what was done, after waiting for it if that is wanted.
async fn done(
    client: &Client,
    output: &Output,
    deployment: &Deployment,
    what: &str,
    until: Until,
    wait: &Wait,
) -> Result<(), Failure> {
    if wait.wait {
        wait::wait(client, output, &deployment.job, until, wait.timeout).await?;
    }
    if output.json {
        return output.line(deployment);
    }
    let (job, host) = (deployment.job.short(), &deployment.host);
    output.say(&format!(
        "{what} {job} on {host}, {} instances",
        deployment.count
    ))
}

/// Stops and removes a job's instances.
pub async fn undeploy(client: &Client, output: &Output, undeploy: Undeploy) -> Result<(), Failure> {
    let host = pick::host(client, undeploy.wait.host.clone()).await?;
    let path = path(&host, &undeploy.job);
    let deployment: Deployment = client.ask(Method::DELETE, &path, &()).await?;
    let wait = &undeploy.wait;
    done(client, output, &deployment, "undeployed", Until::Gone, wait).await
}

async fn set(client: &Client, goal: &Goal, wanted: api::Goal) -> Result<Deployment, Failure> {
    let host = pick::host(client, goal.wait.host.clone()).await?;
    let patch = Patch {
        goal: Some(wanted),
        count: None,
    };
    client
        .ask(Method::PATCH, &path(&host, &goal.job), &patch)
        .await
}

/// Starts a deployed job's instances.
pub async fn start(client: &Client, output: &Output, goal: Goal) -> Result<(), Failure> {
    let deployment = set(client, &goal, api::Goal::Start).await?;
    let until = Until::Ready(deployment.count);
    done(client, output, &deployment, "started", until, &goal.wait).await
}

/// Stops a deployed job's instances.
pub async fn stop(client: &Client, output: &Output, goal: Goal) -> Result<(), Failure> {
    let deployment = set(client, &goal, api::Goal::Stop).await?;
    done(
        client,
        output,
        &deployment,
        "stopped",
        Until::Stopped,
        &goal.wait,
    )
    .await
}

/// Restarts instances, one after the other: the next one when the last may be used again.
pub async fn restart(client: &Client, output: &Output, restart: Restart) -> Result<(), Failure> {
    for before in pick::named(client, &restart.what).await? {
        let mut path = format!("/v1/instances/{}/restart", quoted(&before.name));
        if let Some(reason) = &restart.reason {
            path.push_str(&format!("?reason={}", quoted(reason)));
        }
        let asked: Instance = client.ask(Method::POST, &path, &()).await?;
        wait::another(client, output, &before, restart.timeout).await?;
        match output.json {
            true => output.line(&asked)?,
            false => output.say(&format!("restarted {}", before.name))?,
        }
    }
    Ok(())
}
