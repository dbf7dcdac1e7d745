//! config.json of a task: the bundle's, with what the job says instead, or besides.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value, json};

use super::{Place, container_id, mounts};
use crate::bundle::capability_names;
use crate::job::{Job, Network, Resources, Seccomp, Task};

/// The time, in microseconds, in which a number of cores is a part of the processors' time; the kernel's default.
const PERIOD: u64 = 100_000;

/// What is at `key`, an object: made where it is missing or null.
fn object<'a>(parent: &'a mut Map<String, Value>, key: &str) -> Result<&'a mut Map<String, Value>> {
    let value = parent.entry(key).or_insert(Value::Null);
    if value.is_null() {
        *value = json!({});
    }
    value
        .as_object_mut()
        .with_context(|| format!("{key}: must be an object"))
}

/// The configuration of a task's container.
pub(super) fn config(
    job: &Job,
    name: &str,
    task: &Task,
    place: &Place<'_>,
    mut base: Value,
) -> Result<Value> {
    let Some(config) = base.as_object_mut() else {
        bail!("must be a JSON object");
    };
    root(config, task)?;
    process(job, task, place, config)?;
    let bundles = list(config.remove("mounts"), "mounts")?;
    let bundles = bundles.into_iter().map(|mount| absolute(mount, task));
    let all = mounts::mounts(job, task, place, bundles.collect());
    config.insert("mounts".to_owned(), all.into());
    if let Some(hostname) = &job.hostname {
        config.insert("hostname".to_owned(), hostname.as_str().into());
    }
    if !job.labels.is_empty() {
        let annotations = object(config, "annotations")?;
        for (label, value) in &job.labels {
            annotations.insert(label.clone(), value.as_str().into());
        }
    }
    let id = container_id(place.instance, name);
    let cgroup = format!("{}/{id}", place.cgroup_parent);
    linux(job, task, place, &cgroup, config)?;
    Ok(base)
}

fn list(value: Option<Value>, key: &str) -> Result<Vec<Value>> {
    match value {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(list)) => Ok(list),
        Some(_) => bail!("{key}: must be an array"),
    }
}

/// The bundle is elsewhere: its relative paths are made absolute (config.md, "Root").
fn root(config: &mut Map<String, Value>, task: &Task) -> Result<()> {
    let root = object(config, "root")?;
    let path = root.get("path").and_then(Value::as_str);
    let path = path.filter(|path| !path.is_empty());
    let absolute = task.bundle.join(path.context("root.path: is required")?);
    root.insert("path".to_owned(), json!(absolute));
    if let Some(read_only) = task.read_only {
        root.insert("readonly".to_owned(), read_only.into());
    }
    Ok(())
}

/// A bind mount from a path in the bundle (config.md, "Mounts").
fn absolute(mut mount: Value, task: &Task) -> Value {
    let options = mount["options"].as_array();
    let bind = options.is_some_and(|options| options.iter().any(|o| o == "bind" || o == "rbind"));
    let source = mount["source"].as_str().unwrap_or_default();
    let relative = !source.is_empty() && Path::new(source).is_relative();
    if relative && (bind || mount["type"] == "bind") {
        mount["source"] = json!(task.bundle.join(source));
    }
    mount
}

fn process(
    job: &Job,
    task: &Task,
    place: &Place<'_>,
    config: &mut Map<String, Value>,
) -> Result<()> {
    let process = object(config, "process")?;
    // Its output goes to the keeper.
    process.insert("terminal".to_owned(), false.into());
    process.remove("consoleSize");
    // The daemon and the keepers are the last that the kernel kills when memory runs out; a container is not, unless
    // its bundle says so.
    process
        .entry("oomScoreAdj")
        .or_insert_with(|| Value::from(0));
    let mut set = |key: &str, value: Option<Value>| {
        if let Some(value) = value {
            process.insert(key.to_owned(), value);
        }
    };
    set("args", task.command.as_ref().map(|args| json!(args)));
    set(
        "cwd",
        task.working_directory.as_ref().map(|path| json!(path)),
    );
    set("noNewPrivileges", task.no_new_privileges.map(Value::from));
    set(
        "apparmorProfile",
        task.apparmor.as_ref().map(|name| json!(name)),
    );
    set(
        "selinuxLabel",
        task.selinux.as_ref().map(|label| json!(label)),
    );
    let env = environment(
        list(process.remove("env"), "process.env")?,
        job,
        task,
        place,
    )?;
    process.insert("env".to_owned(), env);
    user(process, task)?;
    capabilities(process, task)
}

/// The bundle's variables, then what tells the program where it is, then the job's: the later ones win.
fn environment(base: Vec<Value>, job: &Job, task: &Task, place: &Place<'_>) -> Result<Value> {
    let mut own: BTreeMap<String, String> = BTreeMap::from([
        ("PARHELION_HOST".to_owned(), place.host.to_owned()),
        ("PARHELION_INDEX".to_owned(), place.index.to_string()),
        ("PARHELION_INSTANCE".to_owned(), place.instance.to_owned()),
        (
            "PARHELION_JOB".to_owned(),
            format!("{}:{}", job.name, job.version),
        ),
    ]);
    for name in job.ports.keys() {
        let port = place.ports.get(name);
        let port = port.with_context(|| format!("port {name:?} was not given a number"))?;
        let inside = job.ports[name].inside(*port);
        own.insert(port_variable(name), inside.to_string());
        own.insert(
            format!("HELIOS_PORT_{name}"),
            format!("{}:{port}", place.host),
        );
    }
    own.extend(task.env.clone());
    let is_own = |entry: &Value| {
        let text = entry.as_str().unwrap_or_default();
        text.split_once('=')
            .is_some_and(|(name, _)| own.contains_key(name))
    };
    let mut all: Vec<Value> = base.into_iter().filter(|entry| !is_own(entry)).collect();
    let own = own.iter().map(|(name, value)| format!("{name}={value}"));
    all.extend(own.map(Value::from));
    Ok(all.into())
}

/// The variable that has a port's number: `PORT_HTTP_ADMIN` for `http-admin`.
pub(in crate::job) fn port_variable(name: &str) -> String {
    format!(
        "PORT_{}",
        name.to_ascii_uppercase().replace(['-', '.'], "_")
    )
}

fn user(process: &mut Map<String, Value>, task: &Task) -> Result<()> {
    let user = object(process, "user")?;
    if let Some(asked) = task.user {
        user.insert("uid".to_owned(), asked.uid.into());
        if let Some(gid) = asked.gid {
            user.insert("gid".to_owned(), gid.into());
        }
    }
    if let Some(groups) = &task.groups {
        user.insert("additionalGids".to_owned(), json!(groups));
    }
    Ok(())
}

/// The names of config.json that a job's name of a capability stands for.
pub(in crate::job) fn named_capabilities(name: &str) -> Vec<String> {
    let upper = name.to_ascii_uppercase();
    let full = format!("CAP_{}", upper.trim_start_matches("CAP_"));
    let all = capability_names().into_iter();
    all.filter(|known| upper == "ALL" || *known == full)
        .collect()
}

/// What is added is in the sets that a program of root has it by; the bounding set lets others reach it.
fn capabilities(process: &mut Map<String, Value>, task: &Task) -> Result<()> {
    let asked = &task.capabilities;
    if asked.add.is_empty() && asked.drop.is_empty() {
        return Ok(());
    }
    let named = |names: &std::collections::BTreeSet<String>| -> Vec<String> {
        let all = names.iter();
        all.flat_map(|name| named_capabilities(name)).collect()
    };
    let (add, drop) = (named(&asked.add), named(&asked.drop));
    let sets = object(process, "capabilities")?;
    for set in [
        "bounding",
        "effective",
        "permitted",
        "inheritable",
        "ambient",
    ] {
        let added = ["bounding", "effective", "permitted"].contains(&set);
        let mut names = list(sets.remove(set), set)?;
        names.retain(|name| !drop.iter().any(|dropped| name == dropped));
        for name in add.iter().filter(|_| added) {
            if !names.iter().any(|there| there == name) {
                names.push(name.as_str().into());
            }
        }
        if !names.is_empty() {
            sets.insert(set.to_owned(), names.into());
        }
    }
    Ok(())
}

fn linux(
    job: &Job,
    task: &Task,
    place: &Place<'_>,
    cgroup: &str,
    config: &mut Map<String, Value>,
) -> Result<()> {
    let linux = object(config, "linux")?;
    linux.insert("cgroupsPath".to_owned(), cgroup.into());
    match &task.seccomp {
        None => {}
        Some(Seccomp::Word(_)) => drop(linux.remove("seccomp")),
        Some(Seccomp::Profile(profile)) => {
            linux.insert("seccomp".to_owned(), profile.clone().into());
        }
    }
    if let Some(label) = &task.selinux {
        linux.insert("mountLabel".to_owned(), label.as_str().into());
    }
    let mut namespaces = list(linux.remove("namespaces"), "linux.namespaces")?;
    namespaces.retain(|entry| entry["type"] != "network");
    match job.network {
        Network::Host => {}
        Network::None => namespaces.push(json!({ "type": "network" })),
        Network::Bridge => {
            let own = place.network.context("it was not given a network")?;
            namespaces.push(json!({ "type": "network", "path": own.namespace }));
        }
    }
    let mut needed: Vec<Value> = job.share.iter().map(|kind| json!(kind)).collect();
    needed.extend(job.hostname.iter().map(|_| json!("uts")));
    for kind in needed {
        if !namespaces.iter().any(|entry| entry["type"] == kind) {
            namespaces.push(json!({ "type": kind }));
        }
    }
    linux.insert("namespaces".to_owned(), namespaces.into());
    resources(object(linux, "resources")?, &task.resources)
}

fn resources(to: &mut Map<String, Value>, asked: &Resources) -> Result<()> {
    let mut set = |part: &str, key: &str, value: Option<Value>| -> Result<()> {
        if let Some(value) = value {
            object(to, part)?.insert(key.to_owned(), value);
        }
        Ok(())
    };
    set("memory", "limit", asked.memory.map(|size| size.0.into()))?;
    set(
        "memory",
        "swap",
        asked.memory_swap.map(|size| size.0.into()),
    )?;
    let cores = asked.cpu.cores;
    let quota = cores.map(|cores| u64::from(cores.0) * PERIOD / 1000);
    set("cpu", "quota", quota.map(Value::from))?;
    set("cpu", "period", cores.map(|_| PERIOD.into()))?;
    set("cpu", "shares", asked.cpu.shares.map(Value::from))?;
    let cpuset = asked.cpu.cpuset.as_deref();
    set("cpu", "cpus", cpuset.map(Value::from))?;
    set("pids", "limit", asked.pids.map(Value::from))?;
    set("blockIO", "weight", asked.io.weight.map(Value::from))?;
    let mut throttle = |key: &str, rate: &dyn Fn(&crate::job::IoDevice) -> Option<u64>| {
        let devices = asked.io.devices.iter();
        let limits = devices.filter_map(|(numbers, device)| limit(numbers, rate(device)?));
        let limits: Vec<Value> = limits.collect();
        let given = !limits.is_empty();
        set("blockIO", key, given.then(|| limits.into()))
    };
    throttle("throttleReadBpsDevice", &|d| {
        d.read_bytes.map(|size| size.0)
    })?;
    throttle("throttleWriteBpsDevice", &|d| {
        d.write_bytes.map(|size| size.0)
    })?;
    throttle("throttleReadIOPSDevice", &|d| {
        d.read_operations.map(u64::from)
    })?;
    throttle("throttleWriteIOPSDevice", &|d| {
        d.write_operations.map(u64::from)
    })
}

/// A limit at the disk with these numbers, `8:0`.
fn limit(numbers: &str, rate: u64) -> Option<Value> {
    let (major, minor) = device_numbers(numbers)?;
    Some(json!({ "major": major, "minor": minor, "rate": rate }))
}

/// The numbers in `8:0`, as far as the kernel has them.
pub(in crate::job) fn device_numbers(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.split_once(':')?;
    let (major, minor) = (major.parse().ok()?, minor.parse().ok()?);
    (major < 1 << 12 && minor < 1 << 20).then_some((major, minor))
}
