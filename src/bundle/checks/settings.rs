//! How the process is scheduled, where its memory is and how much of a cache it has: config.md,
//! "Linux Process", and config-linux.md, "Memory policy" and "IntelRdt". The rules are those of sched_setattr(2) and set_mempolicy(2).

use serde_json::Value;

use super::items;
use crate::bundle::report::{Report, quote};
use crate::sys::bitmap::Bitmap;

/// The kernel counts runtimes in steps of so many nanoseconds (`DL_SCALE`).
const SHORTEST_RUNTIME: u64 = 1024;

/// The kernel needs the highest bit of a deadline or period to compare times.
const LONGEST: u64 = i64::MAX as u64;

/// All rules.
pub(super) fn check(config: &Value, report: &mut Report) {
    let process = &config["process"];
    scheduler(&process["scheduler"], report);
    for when in ["initial", "final"] {
        let path = format!("process.execCPUAffinity.{when}");
        let _checked = list(&process["execCPUAffinity"][when], &path, report);
    }
    memory_policy(&config["linux"]["memoryPolicy"], report);
    cache(&config["linux"]["intelRdt"], report);
}

fn scheduler(scheduler: &Value, report: &mut Report) {
    let Some(policy) = scheduler["policy"].as_str() else {
        return;
    };
    let mut problem = |field: &str, message: String| {
        report.problem(format_args!("process.scheduler.{field}"), message);
    };
    if policy == "SCHED_ISO" {
        problem(
            "policy",
            "SCHED_ISO is a policy that Linux lacks".to_owned(),
        );
    }
    if let Some(nice) = scheduler["nice"]
        .as_i64()
        .filter(|n| !(-20..=19).contains(n))
    {
        problem("nice", format!("must be from -20 to 19, is {nice}"));
    }
    let priority = scheduler["priority"].as_i64().unwrap_or(0);
    let real_time = policy == "SCHED_FIFO" || policy == "SCHED_RR";
    if real_time && !(1..=99).contains(&priority) {
        problem(
            "priority",
            format!("must be from 1 to 99 for {policy}, is {priority}"),
        );
    } else if !real_time && priority != 0 {
        problem(
            "priority",
            format!("is for SCHED_FIFO and SCHED_RR, not for {policy}"),
        );
    }
    if policy == "SCHED_DEADLINE" {
        deadline(scheduler, &mut problem);
        return;
    }
    for field in ["runtime", "deadline", "period"] {
        if scheduler[field].as_u64().unwrap_or(0) != 0 {
            problem(field, format!("is for SCHED_DEADLINE, not for {policy}"));
        }
    }
}

/// A runtime within a deadline within a period; a period of 0 is the deadline.
fn deadline(scheduler: &Value, problem: &mut impl FnMut(&str, String)) {
    let number = |field: &str| scheduler[field].as_u64().unwrap_or(0);
    let (runtime, deadline, period) = (number("runtime"), number("deadline"), number("period"));
    for (field, value) in [("deadline", deadline), ("period", period)] {
        if value > LONGEST {
            problem(field, format!("must be at most {LONGEST}, is {value}"));
        }
    }
    if runtime < SHORTEST_RUNTIME {
        problem(
            "runtime",
            format!("must be at least {SHORTEST_RUNTIME}, is {runtime}"),
        );
    }
    if runtime > deadline {
        problem(
            "deadline",
            format!("must be at least runtime ({runtime}), is {deadline}"),
        );
    }
    if period != 0 && period < deadline {
        problem(
            "period",
            format!("must be at least deadline ({deadline}), is {period}"),
        );
    }
}

/// The set that a list stands for; None without a list, and for one that is a problem.
fn list(value: &Value, path: &str, report: &mut Report) -> Option<Bitmap> {
    match Bitmap::parse(value.as_str()?) {
        Ok(set) => Some(set),
        Err(reason) => {
            report.problem(path, reason);
            None
        }
    }
}

/// Lines for resctrl, each one line, and the group they are for.
fn cache(asked: &Value, report: &mut Report) {
    let reserved = ["", ".", "..", "info", "mon_data", "mon_groups"];
    if let Some(name) = asked["closID"].as_str() {
        let inside = name != "/" && name.contains('/');
        if inside || name.contains('\n') || reserved.contains(&name) {
            let message = format_args!("must be the name of a group or \"/\", is {}", quote(name));
            report.problem("linux.intelRdt.closID", message);
        }
    }
    let mut line = |value: &Value, path: String, start: &str| {
        if let Some(text) = value.as_str()
            && (text.contains('\n') || !text.starts_with(start) || text.is_empty())
        {
            let start = if start.is_empty() {
                ""
            } else {
                " that begins with "
            }
            .to_owned()
                + start;
            let message = format_args!("must be one line{start}, is {}", quote(text));
            report.problem(format_args!("linux.intelRdt.{path}"), message);
        }
    };
    line(&asked["l3CacheSchema"], "l3CacheSchema".to_owned(), "L3");
    line(&asked["memBwSchema"], "memBwSchema".to_owned(), "MB:");
    for (i, value) in items(&asked["schemata"]) {
        line(value, format!("schemata[{i}]"), "");
    }
}

fn memory_policy(policy: &Value, report: &mut Report) {
    let Some(mode) = policy["mode"].as_str() else {
        return;
    };
    let path = "linux.memoryPolicy";
    let given = !policy["nodes"].is_null();
    let nodes = list(&policy["nodes"], &format!("{path}.nodes"), report);
    let empty = nodes.as_ref().is_none_or(Bitmap::is_empty);
    let unread = given && nodes.is_none();
    match mode {
        _ if unread => {}
        "MPOL_DEFAULT" | "MPOL_LOCAL" if !empty => {
            report.problem(
                format_args!("{path}.nodes"),
                format_args!("must be empty for {mode}"),
            );
        }
        "MPOL_DEFAULT" | "MPOL_LOCAL" | "MPOL_PREFERRED" => {}
        _ if empty => {
            let message = format_args!("must name a node for {mode}");
            report.problem(format_args!("{path}.nodes"), message);
        }
        _ => {}
    }
    let has = |flag: &str| items(&policy["flags"]).any(|(_, word)| word == flag);
    let modifies = has("MPOL_F_STATIC_NODES") || has("MPOL_F_RELATIVE_NODES");
    if has("MPOL_F_STATIC_NODES") && has("MPOL_F_RELATIVE_NODES") {
        let message = "must not have both MPOL_F_STATIC_NODES and MPOL_F_RELATIVE_NODES";
        report.problem(format_args!("{path}.flags"), message);
    }
    if modifies && (mode == "MPOL_DEFAULT" || mode == "MPOL_LOCAL") {
        let message = format_args!("how nodes are meant says nothing for {mode}, which has none");
        report.problem(format_args!("{path}.flags"), message);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::bundle::tests::{base, problems, with};

    fn scheduler(value: Value) -> String {
        problems(with(base(), "/process/scheduler", value))
    }

    fn memory_policy(value: Value) -> String {
        problems(with(base(), "/linux/memoryPolicy", value))
    }

    #[test]
    fn each_policy_has_its_own_numbers() {
        for good in [
            json!({"policy": "SCHED_OTHER", "nice": -20, "priority": 0, "runtime": 0}),
            json!({"policy": "SCHED_IDLE"}),
            json!({"policy": "SCHED_FIFO", "priority": 99}),
            json!({"policy": "SCHED_DEADLINE", "runtime": 1024, "deadline": 1024}),
            json!({"policy": "SCHED_DEADLINE", "runtime": 1024, "deadline": 2000, "period": 2000}),
        ] {
            assert_eq!(scheduler(good.clone()), "", "{good}");
        }
        for (bad, told) in [
            (
                json!({"policy": "SCHED_BATCH", "nice": 20, "priority": 1}),
                "nice: must be from -20 to 19, is 20\n\
                process.scheduler.priority: is for SCHED_FIFO and SCHED_RR, not for SCHED_BATCH",
            ),
            (
                json!({"policy": "SCHED_RR"}),
                "priority: must be from 1 to 99 for SCHED_RR, is 0",
            ),
            (
                json!({"policy": "SCHED_OTHER", "period": 1}),
                "period: is for SCHED_DEADLINE, not for SCHED_OTHER",
            ),
            (
                json!({"policy": "SCHED_ISO"}),
                "policy: SCHED_ISO is a policy that Linux lacks",
            ),
            (
                json!({"policy": "SCHED_DEADLINE", "runtime": 1, "deadline": 0, "period": u64::MAX}),
                "period: must be at most 9223372036854775807, is 18446744073709551615\n\
                process.scheduler.runtime: must be at least 1024, is 1\n\
                process.scheduler.deadline: must be at least runtime (1), is 0",
            ),
            (
                json!({"policy": "SCHED_DEADLINE", "runtime": 1024, "deadline": 9000, "period": 8000}),
                "period: must be at least deadline (9000), is 8000",
            ),
        ] {
            assert_eq!(scheduler(bad), format!("process.scheduler.{told}"));
        }
    }

    #[test]
    fn processors_and_nodes_are_lists() {
        let affinity = json!({"initial": "0-", "final": "2-1"});
        assert_eq!(
            problems(with(base(), "/process/execCPUAffinity", affinity)),
            "process.execCPUAffinity.initial: must list numbers and ranges, as \"0-3,7\", is \"0-\"\n\
            process.execCPUAffinity.final: \"2-1\" ends before it begins"
        );
        let loose = json!({"initial": " 0 - 1,, 3", "final": ""});
        assert_eq!(
            problems(with(base(), "/process/execCPUAffinity", loose)),
            ""
        );
    }

    #[test]
    fn schemata_are_lines_of_a_group() {
        let bad = json!({"closID": "a/b", "l3CacheSchema": "0=f", "memBwSchema": "MB:0=1\n",
            "schemata": ["L2:0=1", "", "a\nb"]});
        assert_eq!(
            problems(with(base(), "/linux/intelRdt", bad)),
            "linux.intelRdt.closID: must be the name of a group or \"/\", is \"a/b\"\n\
            linux.intelRdt.l3CacheSchema: must be one line that begins with L3, is \"0=f\"\n\
            linux.intelRdt.memBwSchema: must be one line that begins with MB:, is \"MB:0=1\\n\"\n\
            linux.intelRdt.schemata[1]: must be one line, is \"\"\n\
            linux.intelRdt.schemata[2]: must be one line, is \"a\\nb\""
        );
        let good = json!({"closID": "/", "l3CacheSchema": "L3DATA:0=f", "memBwSchema": "MB:0=1"});
        assert_eq!(problems(with(base(), "/linux/intelRdt", good)), "");
    }

    #[test]
    fn each_mode_has_nodes_or_none() {
        for good in [
            json!({"mode": "MPOL_DEFAULT"}),
            json!({"mode": "MPOL_PREFERRED"}),
            json!({"mode": "MPOL_PREFERRED", "nodes": "0"}),
            json!({"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_NUMA_BALANCING"]}),
        ] {
            assert_eq!(memory_policy(good.clone()), "", "{good}");
        }
        for (bad, told) in [
            (
                json!({"mode": "MPOL_LOCAL", "nodes": "0"}),
                "nodes: must be empty for MPOL_LOCAL",
            ),
            (
                json!({"mode": "MPOL_INTERLEAVE"}),
                "nodes: must name a node for MPOL_INTERLEAVE",
            ),
            (
                json!({"mode": "MPOL_BIND", "nodes": "x"}),
                "nodes: must list numbers and ranges, as \"0-3,7\", is \"x\"",
            ),
            (
                json!({"mode": "MPOL_DEFAULT",
                    "flags": ["MPOL_F_STATIC_NODES", "MPOL_F_RELATIVE_NODES"]}),
                "flags: must not have both MPOL_F_STATIC_NODES and MPOL_F_RELATIVE_NODES\n\
                linux.memoryPolicy.flags: how nodes are meant says nothing for MPOL_DEFAULT, \
                which has none",
            ),
        ] {
            assert_eq!(memory_policy(bad), format!("linux.memoryPolicy.{told}"));
        }
    }
}
