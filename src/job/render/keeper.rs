//! keeper.json of an instance (docs/keeper.md).

use serde_json::{Value, json};

use super::{Place, container_id};
use crate::job::{Curve, Job};

/// What the keeper of an instance reads.
pub(super) fn keeper(job: &Job, place: &Place<'_>) -> Value {
    let restart = &job.restart;
    let mut keeper = json!({
        "restart": {
            "policy": restart.policy,
            "successCodes": restart.success_codes,
            "goodRun": restart.good_run,
            "crash": curve(&restart.crash),
            "unhealthy": curve(&restart.unhealthy),
            "image": curve(&restart.image),
        },
        "stop": { "signal": job.stop.signal, "grace": job.stop.grace },
        "log": {
            "maxSize": job.log.max_size.0,
            "maxFiles": job.log.max_files,
            "whenFull": job.log.when_full,
        },
    });
    if !job.stop.delay.is_zero() {
        keeper["stop"]["delay"] = json!(job.stop.delay);
    }
    let bundle = |task: &str| format!("tasks/{task}");
    if let Some((task, _)) = job.tasks.first_key_value().filter(|_| job.tasks.len() == 1) {
        keeper["id"] = container_id(place.instance, task).into();
        keeper["bundle"] = bundle(task).into();
    } else {
        // The first one has the namespaces that the others share.
        let tasks = job.tasks.keys().enumerate().map(|(i, name)| {
            let mut task = json!({
                "name": name,
                "id": container_id(place.instance, name),
                "bundle": bundle(name),
            });
            if i > 0 && !job.share.is_empty() {
                task["share"] = json!(job.share);
            }
            task
        });
        keeper["tasks"] = tasks.collect();
    }
    keeper
}

fn curve(curve: &Curve) -> Value {
    json!({
        "base": curve.base,
        "factor": curve.factor,
        "cap": curve.cap,
        "jitter": curve.jitter,
    })
}
