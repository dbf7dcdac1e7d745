//! Jobs that have an end: undeployed and removed when it has come.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::Control;
use super::find::Meant;
use super::jobs::TRIES;
use super::problem::Refusal;
use crate::error;
use crate::job::{JobId, Moment};

/// How long it sleeps at most: a clock that is set forward brings ends nearer, and sleep does not see that.
const LONGEST: Duration = Duration::from_secs(30);

/// Sees to it that jobs end when they are to, for ever.
#[allow(clippy::disallowed_methods, reason = "the daemon looks at the clock")]
pub async fn follow(control: Arc<Control>) {
    loop {
        let next = match control.expire(SystemTime::now()).await {
            Ok(next) => next,
            Err(refusal) => {
                let what = &refusal.problem.error;
                error::warn(&format!(
                    "jobs that have expired are not removed yet: {what}"
                ));
                LONGEST
            }
        };
        tokio::select! {
            () = tokio::time::sleep(next.min(LONGEST)) => {}
            () = control.created.notified() => {}
        }
    }
}

/// How long it is until a job's end; None when that has come.
pub fn left(expires: &Moment, now: SystemTime) -> Option<Duration> {
    let left = expires.system_time().duration_since(now).ok();
    left.filter(|left| !left.is_zero())
}

impl Control {
    /// Ends the jobs whose time is over; answers when the next one's is.
    pub(super) async fn expire(&self, now: SystemTime) -> Result<Duration, Refusal> {
        let mut next = LONGEST;
        for job in self.jobs("").await? {
            let Some(expires) = &job.record.job.expires else {
                continue;
            };
            match left(expires, now) {
                Some(left) => next = next.min(left),
                None => {
                    let end = error::rfc3339(expires.system_time());
                    let why = format!("as its end was {end}");
                    self.end(&job.id, &why).await?;
                    error::debug(|| format!("job {} has expired and is removed", job.id));
                }
            }
        }
        Ok(next)
    }

    /// Undeploys a job everywhere and removes it.
    async fn end(&self, id: &JobId, why: &str) -> Result<(), Refusal> {
        let meant = Meant::parse(&id.to_string())?;
        for _ in 0..TRIES {
            for (deployment, revision) in self.deployments_of(id).await? {
                if self.delete_deployment(&deployment, revision).await? {
                    self.note_unwanted(&deployment, why);
                }
            }
            match self.remove(&meant, |_| Ok(())).await {
                // Somebody has deployed it meanwhile.
                Err(refusal) if refusal.status == 409 => {}
                Err(refusal) if refusal.status == 404 => return Ok(()),
                done => {
                    let removed = done?;
                    self.agent
                        .note(&removed, "expired", format!("it is removed, {why}"));
                    return Ok(());
                }
            }
        }
        Err(Refusal::raced(&id.short()))
    }
}
