//! The process: what to execute, as whom, with which limits.
//! config.md, "Process", "POSIX process", "Linux Process", "User".

use std::collections::HashMap;

use serde_json::Value;

use super::idmaps::is_mapped;
use super::items;
use super::namespaces::{Namespace, namespace};
use crate::bundle::report::{Report, quote};

/// Rows and columns of a terminal are 16 bits in the kernel (`struct winsize`).
const MAX_SIDE: u64 = u16::MAX as u64;

/// All rules on `process`.
pub(super) fn check(config: &Value, report: &mut Report) {
    let process = &config["process"];
    arguments(process, report);
    environment(&process["env"], "process.env", report);
    console(process, report);
    limits(process, report);
    ids(config, report);
}

fn arguments(process: &Value, report: &mut Report) {
    let Some(args) = process["args"].as_array() else {
        return;
    };
    let command = args.first();
    if command.is_none() {
        report.problem("process.args", "must name the program to run");
    } else if command.and_then(Value::as_str) == Some("") {
        report.problem("process.args[0]", "must name the program to run, is \"\"");
    }
}

/// Rules of `environ`: each entry is NAME=VALUE.
pub(super) fn environment(env: &Value, path: &str, report: &mut Report) {
    for (i, entry) in items(env) {
        let Some(text) = entry.as_str() else { continue };
        if !text.contains('=') || text.starts_with('=') {
            let message = format_args!("must have the form NAME=VALUE, is {}", quote(text));
            report.problem(format_args!("{path}[{i}]"), message);
        }
    }
}

fn console(process: &Value, report: &mut Report) {
    let size = &process["consoleSize"];
    if !size.is_object() {
        return;
    }
    if process["terminal"] != Value::Bool(true) {
        // config.md: "MUST ignore consoleSize if terminal is false or unset".
        report.warning(
            "process.consoleSize",
            "ignored, as process.terminal is not true",
        );
        return;
    }
    for side in ["height", "width"] {
        let value = size[side].as_u64().unwrap_or(0);
        if value > MAX_SIDE {
            let message = format_args!("must be at most {MAX_SIDE}, is {value}");
            report.problem(format_args!("process.consoleSize.{side}"), message);
        }
    }
}

fn limits(process: &Value, report: &mut Report) {
    let mut seen = HashMap::new();
    for (i, limit) in items(&process["rlimits"]) {
        let path = format!("process.rlimits[{i}]");
        if let (Some(soft), Some(hard)) = (limit["soft"].as_u64(), limit["hard"].as_u64())
            && soft > hard
        {
            let message = format_args!("must be at most hard ({hard}), is {soft}");
            report.problem(format_args!("{path}.soft"), message);
        }
        let Some(name) = limit["type"].as_str() else {
            continue;
        };
        if let Some(first) = seen.insert(name, i) {
            let message = format_args!("{name} is in process.rlimits[{first}] already");
            report.problem(format_args!("{path}.type"), message);
        }
    }
}

/// In a new user namespace only mapped ids exist: setuid and setgroups refuse others.
fn ids(config: &Value, report: &mut Report) {
    if !matches!(namespace(config, "user"), Namespace::New) {
        return;
    }
    let (user, linux) = (&config["process"]["user"], &config["linux"]);
    let mut check = |id: &Value, path: &str, list: &str| {
        if let Some(id) = id.as_u64()
            && is_mapped(&linux[list], id) == Some(false)
        {
            report.problem(path, format_args!("{id} is not mapped by linux.{list}"));
        }
    };
    check(&user["uid"], "process.user.uid", "uidMappings");
    check(&user["gid"], "process.user.gid", "gidMappings");
    for (i, id) in items(&user["additionalGids"]) {
        check(
            id,
            &format!("process.user.additionalGids[{i}]"),
            "gidMappings",
        );
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::bundle::tests::{base, problems, warnings, with};

    #[test]
    fn the_process_is_checked() {
        let mut config = with(base(), "/process/args", json!([""]));
        config = with(
            config,
            "/process/env",
            json!(["A=", "=B", "C", "", "D=e=f"]),
        );
        config = with(
            config,
            "/process/consoleSize",
            json!({ "height": 65536, "width": 80 }),
        );
        config = with(
            config,
            "/process/rlimits",
            json!([
                { "type": "RLIMIT_CORE", "soft": 2, "hard": 1 },
                { "type": "RLIMIT_NICE", "soft": 1, "hard": u64::MAX },
                { "type": "RLIMIT_CORE", "soft": 0, "hard": 0 },
            ]),
        );
        assert_eq!(
            problems(config),
            "process.args[0]: must name the program to run, is \"\"\n\
         process.env[1]: must have the form NAME=VALUE, is \"=B\"\n\
         process.env[2]: must have the form NAME=VALUE, is \"C\"\n\
         process.env[3]: must have the form NAME=VALUE, is \"\"\n\
         process.consoleSize.height: must be at most 65535, is 65536\n\
         process.rlimits[0].soft: must be at most hard (1), is 2\n\
         process.rlimits[2].type: RLIMIT_CORE is in process.rlimits[0] already"
        );
        let config = with(base(), "/process/args", json!([]));
        assert_eq!(
            problems(config),
            "process.args: must name the program to run"
        );
    }

    #[test]
    fn a_console_size_without_terminal_is_ignored_with_a_warning() {
        let mut config = with(base(), "/process/terminal", json!(false));
        config = with(
            config,
            "/process/consoleSize",
            json!({ "height": 70000, "width": 80 }),
        );
        assert_eq!(
            warnings(config),
            "process.consoleSize: ignored, as process.terminal is not true"
        );
    }
}
