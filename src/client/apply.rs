//! A job file made true: kept, deployed, and in the place of every older version of the same name.

use hyper::Method;

use super::arguments::{Apply, Order};
use super::connection::{Client, quoted};
use super::failure::Failure;
use super::show::Output;
use super::wait::{self, Until};
use super::{deploy, jobs, pick};
use crate::api::{self, Deployment, JobInfo};
use crate::job::{Job, JobId};

/// What is to be done, worked out before anything is.
struct Plan {
    host: String,
    id: JobId,
    count: u32,
    order: Order,
    older: Vec<Deployment>,
}

/// Makes a job file true.
pub async fn apply(client: &Client, output: &Output, apply: Apply) -> Result<(), Failure> {
    let job = jobs::read(&apply.job, output)?;
    let plan = plan(client, &apply, &job).await?;
    keep(client, output, &job).await?;
    let replaced = match plan.order {
        Order::StartFirst => start_first(client, output, &apply, &plan).await,
        Order::StopFirst => stop_first(client, output, &apply, &plan).await,
    };
    if let Err(failure) = replaced {
        output.progress_ends();
        return Err(back(client, output, &plan, failure).await);
    }
    let older: Vec<String> = plan.older.iter().map(|one| one.job.short()).collect();
    if output.json {
        return output.line(&serde_json::json!({
            "id": plan.id, "host": plan.host, "count": plan.count, "replaced": older,
        }));
    }
    let instead = match older.is_empty() {
        true => String::new(),
        false => format!(", in the place of {}", older.join(", ")),
    };
    let (job, host) = (plan.id.short(), &plan.host);
    output.say(&format!(
        "{job} runs on {host}, {} instances{instead}",
        plan.count
    ))
}

async fn plan(client: &Client, apply: &Apply, job: &Job) -> Result<Plan, Failure> {
    let host = pick::host(client, apply.host.clone()).await?;
    let id = job.id();
    let path = format!("/v1/jobs?name={}", quoted(&job.name));
    let kept: Vec<JobInfo> = client.get(&path).await?;
    let all = kept.into_iter().flat_map(|info| info.deployments);
    let (own, older): (Vec<_>, Vec<_>) = all
        .filter(|deployment| deployment.host == host)
        .partition(|deployment| deployment.job == id);
    let most = own.iter().chain(&older).map(|one| one.count).max();
    let chosen = job.ports.values().any(|port| port.external.is_some());
    Ok(Plan {
        host,
        id,
        count: apply.count.or(most).unwrap_or(1),
        order: apply.order.unwrap_or(match chosen {
            true => Order::StopFirst,
            false => Order::StartFirst,
        }),
        older,
    })
}

/// Keeps the job, unless it is kept already.
async fn keep(client: &Client, output: &Output, job: &Job) -> Result<(), Failure> {
    let id = job.id().to_string();
    let all: Vec<JobInfo> = client
        .get(&format!("/v1/jobs?name={}", quoted(&job.name)))
        .await?;
    if all.iter().any(|info| info.id.to_string() == id) {
        return Ok(());
    }
    output.progress(&format!("{}: creating", job.id().short()));
    jobs::send(client, job).await.map(drop)
}

async fn put(client: &Client, plan: &Plan) -> Result<(), Failure> {
    let path = deploy::path(&plan.host, &plan.id.to_string());
    let wish = api::Deploy {
        goal: api::Goal::Start,
        count: plan.count,
    };
    let _put: Deployment = client.ask(Method::PUT, &path, &wish).await?;
    Ok(())
}

async fn take(client: &Client, deployment: &Deployment) -> Result<(), Failure> {
    let path = deploy::path(&deployment.host, &deployment.job.to_string());
    let _taken: Deployment = client.ask(Method::DELETE, &path, &()).await?;
    Ok(())
}

async fn start_first(
    client: &Client,
    output: &Output,
    apply: &Apply,
    plan: &Plan,
) -> Result<(), Failure> {
    put(client, plan).await?;
    let until = Until::Ready(plan.count);
    wait::wait(client, output, &plan.id, until, apply.timeout).await?;
    for older in &plan.older {
        take(client, older).await?;
        wait::wait(client, output, &older.job, Until::Gone, apply.timeout).await?;
    }
    Ok(())
}

async fn stop_first(
    client: &Client,
    output: &Output,
    apply: &Apply,
    plan: &Plan,
) -> Result<(), Failure> {
    for older in &plan.older {
        take(client, older).await?;
        wait::wait(client, output, &older.job, Until::Gone, apply.timeout).await?;
    }
    put(client, plan).await?;
    let until = Until::Ready(plan.count);
    wait::wait(client, output, &plan.id, until, apply.timeout).await
}

/// Puts back what ran before, if something did; the failure with what was done about it.
async fn back(client: &Client, output: &Output, plan: &Plan, failure: Failure) -> Failure {
    let Failure::Told(mut problem) = failure else {
        return failure;
    };
    if plan.older.is_empty() {
        let job = plan.id.short();
        problem.hint = format!("{}; or give it up: parctl undeploy {job}", problem.hint);
        return Failure::Told(problem);
    }
    output.progress("putting the older version back");
    let mut faults = Vec::new();
    for older in &plan.older {
        let path = deploy::path(&older.host, &older.job.to_string());
        let wish = api::Deploy {
            goal: older.goal,
            count: older.count,
        };
        let put: Result<Deployment, Failure> = client.ask(Method::PUT, &path, &wish).await;
        if let Err(Failure::Told(fault)) = put {
            faults.push(fault.error);
        }
    }
    let path = deploy::path(&plan.host, &plan.id.to_string());
    let taken: Result<Deployment, Failure> = client.ask(Method::DELETE, &path, &()).await;
    if let Err(Failure::Told(fault)) = taken {
        faults.push(fault.error);
    }
    output.progress_ends();
    let done = match faults.is_empty() {
        true => "the older version was put back".to_owned(),
        false => format!("the older version was not put back: {}", faults.join("; ")),
    };
    problem.error = format!("{}; {done}", problem.error);
    Failure::Told(problem)
}
