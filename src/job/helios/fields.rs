//! The table of fields, and the simple ones.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{Import, Options, health, mounts, network, security};
use crate::job::{Moment, Size, Time};

/// Reads one field.
type Read = fn(&mut Import, &Options);

/// Every field of Job.java, what it becomes, and who reads it, in an order in which each finds what it needs.
pub(super) const FIELDS: &[(&str, &str, Read)] = &[
    ("id", "`name` and `version`; the hash is another one", id),
    (
        "image",
        "`tasks.main.bundle`, which is named with `--bundle`; kept in `metadata`",
        image,
    ),
    ("command", "`tasks.main.command`", command),
    ("env", "`tasks.main.env`", env),
    ("hostname", "`hostname`", hostname),
    ("resources", "`tasks.main.resources`", resources),
    ("networkMode", "`network`", network::mode),
    ("ports", "`ports`", network::ports),
    ("registration", "`registration`", network::registration),
    (
        "registrationDomain",
        "`registration[].domain`",
        network::domain,
    ),
    ("gracePeriod", "`stop.delay`", network::grace_period),
    ("volumes", "`tasks.main.volumes`", mounts::volumes),
    ("ramdisks", "`tasks.main.tmpfs`", mounts::ramdisks),
    (
        "healthCheck",
        "`tasks.main.health.startup`",
        health::health_check,
    ),
    (
        "securityOpt",
        "`seccomp`, `apparmor`, `selinux`, `noNewPrivileges` of `tasks.main`",
        security::options,
    ),
    (
        "addCapabilities",
        "`tasks.main.capabilities.add`",
        add_capabilities,
    ),
    (
        "dropCapabilities",
        "`tasks.main.capabilities.drop`",
        drop_capabilities,
    ),
    ("secondsToWaitBeforeKill", "`stop.grace`", seconds_to_wait),
    ("expires", "`expires`", expires),
    ("token", "`token`", token),
    ("labels", "`labels`", labels),
    ("metadata", "`metadata`", metadata),
    ("created", "kept in `metadata`", created),
    ("creatingUser", "kept in `metadata`", creating_user),
    ("rolloutOptions", "kept in `metadata`", rollout_options),
    ("runtime", "nothing: Parhelion is the runtime", runtime),
];

fn id(import: &mut Import, options: &Options) {
    let given = import.text("id");
    let read = given.as_ref().and_then(|id| {
        let mut parts = id.split(':');
        let id = (parts.next()?.to_owned(), parts.next()?.to_owned());
        (parts.count() <= 1).then_some(id)
    });
    match options.id.clone().or(read) {
        Some((name, version)) => (import.job.name, import.job.version) = (name, version),
        None => {
            let told = match &given {
                Some(id) => format!("is {id:?}"),
                None => "is missing".to_owned(),
            };
            import.problem("id", format!("must be as \"name:version\", {told}"));
        }
    }
    if let Some(id) = given {
        import.note(
            "id",
            "the hash of Helios is kept in metadata: a job's identity is another digest here",
        );
        import.keep("id", id);
    }
}

fn image(import: &mut Import, options: &Options) {
    let image = import.text("image");
    match (&options.bundle, &image) {
        (Some(bundle), _) => import.task.bundle.clone_from(bundle),
        (None, Some(image)) => import.problem(
            "image",
            format!(
                "{image:?} can not be pulled: name the bundle that was made from it with --bundle"
            ),
        ),
        (None, None) => import.problem("image", "is missing: name a bundle with --bundle"),
    }
    if let Some(image) = image {
        import.keep("image", image);
    }
}

fn command(import: &mut Import, _options: &Options) {
    let command = import.take::<Vec<String>>("command");
    import.task.command = command.filter(|words| !words.is_empty());
    if import.task.command.is_some() {
        import.note(
            "command",
            "is all of the program's words: an ENTRYPOINT of the image does not come before it",
        );
    }
}

fn env(import: &mut Import, _options: &Options) {
    import.task.env = import.take("env").unwrap_or_default();
}

fn hostname(import: &mut Import, _options: &Options) {
    import.job.hostname = import.text("hostname");
}

fn resources(import: &mut Import, _options: &Options) {
    let Some(mut given) = import.take::<BTreeMap<String, Value>>("resources") else {
        return;
    };
    let mut number = |key: &str, import: &mut Import| {
        let value = given.remove(key).filter(|value| !value.is_null())?;
        import.read::<i64>(&format!("resources.{key}"), value)
    };
    let memory = number("memory", import).filter(|bytes| *bytes > 0);
    let swap = number("memorySwap", import).filter(|bytes| *bytes != 0);
    let shares = number("cpuShares", import).filter(|shares| *shares > 0);
    let size = |bytes: i64| Size(bytes.unsigned_abs());
    let to = &mut import.task.resources;
    to.memory = memory.map(size);
    to.cpu.shares = shares.map(|shares| u32::try_from(shares).unwrap_or(u32::MAX));
    match (memory, swap) {
        (Some(memory), None) => {
            to.memory_swap = Some(size(memory.saturating_mul(2)));
            import.note(
                "resources.memorySwap",
                "twice the memory, as Docker does where it is not given",
            );
        }
        (_, Some(swap)) if swap < 0 => {
            import.note("resources.memorySwap", "without a limit");
        }
        (_, swap) => to.memory_swap = swap.map(size),
    }
    if let Some(set) = given.remove("cpuset").filter(|set| !set.is_null()) {
        let set = import.read::<String>("resources.cpuset", set);
        import.task.resources.cpu.cpuset = set.filter(|set| !set.is_empty());
    }
    for key in given.keys() {
        import.note(
            format!("resources.{key}"),
            "is no field of Helios, which ignores it: so it is here",
        );
    }
}

fn add_capabilities(import: &mut Import, _options: &Options) {
    import.task.capabilities.add = names(import, "addCapabilities");
}

fn drop_capabilities(import: &mut Import, _options: &Options) {
    import.task.capabilities.drop = names(import, "dropCapabilities");
}

fn names(import: &mut Import, field: &str) -> BTreeSet<String> {
    let names: BTreeSet<String> = import.take(field).unwrap_or_default();
    if !names.is_empty() {
        import.note(
            field,
            "changes the bundle's capabilities, where Docker changes its own list",
        );
    }
    names
}

fn seconds_to_wait(import: &mut Import, _options: &Options) {
    let seconds = import.take::<u32>("secondsToWaitBeforeKill");
    if seconds.is_none() {
        import.note(
            "secondsToWaitBeforeKill",
            "120 seconds, as Helios waits where it is not given",
        );
    }
    import.job.stop.grace = Time::from_secs(seconds.map_or(120, u64::from));
}

/// Milliseconds since 1970, or ISO 8601 as Jackson reads it.
fn expires(import: &mut Import, _options: &Options) {
    let Some(value) = import.take::<Value>("expires") else {
        return;
    };
    let moment = match &value {
        Value::Number(number) => number.as_i64().and_then(Moment::from_unix_millis),
        Value::String(text) => iso8601(text),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    };
    if moment.is_none() {
        let message = "must be a moment as \"2030-01-31T12:00:00Z\", or milliseconds since 1970";
        import.problem("expires", format!("{message}, is {value}"));
    }
    import.job.expires = moment;
}

fn iso8601(text: &str) -> Option<Moment> {
    if let Ok(moment) = text.parse() {
        return Some(moment);
    }
    // A day alone, and a zone without a colon.
    let zone = text
        .len()
        .checked_sub(5)
        .filter(|at| text.is_char_boundary(*at));
    let colon = zone.map(|at| text.split_at(at)).map(|(before, zone)| {
        let (hours, minutes) = zone.split_at_checked(3).unwrap_or((zone, ""));
        format!("{before}{hours}:{minutes}")
    });
    let day = format!("{text}T00:00:00Z");
    colon
        .and_then(|text| text.parse().ok())
        .or(day.parse().ok())
}

fn token(import: &mut Import, _options: &Options) {
    import.job.token = import.text("token");
}

fn labels(import: &mut Import, _options: &Options) {
    import.job.labels = import.take("labels").unwrap_or_default();
}

fn metadata(import: &mut Import, _options: &Options) {
    let given: BTreeMap<String, String> = import.take("metadata").unwrap_or_default();
    import.job.metadata.extend(given);
}

fn created(import: &mut Import, _options: &Options) {
    if let Some(created) = import.take::<i64>("created") {
        import.keep("created", created.to_string());
    }
}

fn creating_user(import: &mut Import, _options: &Options) {
    if let Some(user) = import.text("creatingUser") {
        import.keep("creatingUser", user);
    }
}

fn rollout_options(import: &mut Import, _options: &Options) {
    if let Some(options) = import.take::<serde_json::Map<String, Value>>("rolloutOptions") {
        import.note(
            "rolloutOptions",
            "are kept in metadata: nothing rolls out groups of hosts yet",
        );
        import.keep("rolloutOptions", Value::from(options).to_string());
    }
}

fn runtime(import: &mut Import, _options: &Options) {
    let Some(runtime) = import.text("runtime") else {
        return;
    };
    if ["runc", "crun", "youki", "parhelion"].contains(&runtime.as_str()) {
        import.note("runtime", format!("is Parhelion, instead of {runtime}"));
    } else {
        let message = format!(
            "{runtime:?} does more than run containers, which Parhelion does not: leave it out"
        );
        import.problem("runtime", message);
    }
}
