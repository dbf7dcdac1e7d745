//! What one instance is to be: `keeper.json` in its directory, checked or refused before any effect.
//!
//! Times are text as `500ms`, `1.5s` or `1m30s`. Fields that are not known here, and names that are given
//! twice, are refused with their line and column; a field that may be left out has its default below.

mod values;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::policy::{Curve, Curves, Policy, Restart};
use crate::lifecycle::id::ContainerId;
use crate::lifecycle::kill::Signal;
use values::{codes, factor, files, id, name, only_id, own_signal, part, signal, size, time, wait};

/// The file's name in the instance's directory.
pub const FILE: &str = "keeper.json";

/// The largest file that is read, in bytes: real ones have some hundred.
const MAX_SIZE: u64 = 64 << 10;

/// The most tasks of a group: a status of all of them is one message.
const TASKS: usize = 16;

/// One instance.
#[derive(Debug, Clone, PartialEq)]
pub struct Spec {
    /// Its containers, in the order in which they are made; one at least.
    pub tasks: Vec<TaskSpec>,
    /// When it is started again.
    pub restart: RestartSpec,
    /// How it is stopped.
    pub stop: StopSpec,
    /// Where its output goes.
    pub log: LogSpec,
}

/// One container.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct TaskSpec {
    /// Its name in its group: 1 to 63 letters, digits, `-`, `_` and `.`, the first one a letter or digit. None
    /// for an instance's only container.
    #[serde(deserialize_with = "name")]
    pub name: Option<String>,
    /// The container's id, as for `create`.
    #[serde(deserialize_with = "id")]
    pub id: ContainerId,
    /// The bundle's directory; a relative path counts from the instance's directory.
    pub bundle: PathBuf,
    /// Which of the first task's namespaces it is in, instead of its own.
    #[serde(default)]
    pub share: Vec<Share>,
    /// What stops its program, a name or a number, instead of the group's `stop.signal`.
    #[serde(default, deserialize_with = "own_signal")]
    pub stop_signal: Option<i32>,
    /// Its log, instead of what the group's `log` says.
    #[serde(default)]
    pub log: Option<LogSpec>,
}

/// A namespace that can be shared, by its name in config.json. Not the mount namespace, as each container
/// has its own root, nor the cgroup namespace, whose root is the container's own cgroup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Share {
    /// Network devices, addresses, ports.
    Network,
    /// System V IPC and POSIX message queues; /dev/shm is a mount, and not part of it.
    Ipc,
    /// Process ids. When the first task's program ends, the kernel kills the others.
    Pid,
    /// Host and domain name: those of the first task.
    Uts,
    /// User and group ids: with the first task's mappings.
    User,
    /// Monotonic and boot-time clocks.
    Time,
}

impl Share {
    /// The name in config.json.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Share::Network => "network",
            Share::Ipc => "ipc",
            Share::Pid => "pid",
            Share::Uts => "uts",
            Share::User => "user",
            Share::Time => "time",
        }
    }
}

/// The file as it is written: one container, or `tasks`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Written {
    #[serde(default, deserialize_with = "only_id")]
    id: Option<ContainerId>,
    #[serde(default)]
    bundle: Option<PathBuf>,
    #[serde(default)]
    tasks: Option<Vec<TaskSpec>>,
    #[serde(default)]
    restart: RestartSpec,
    #[serde(default)]
    stop: StopSpec,
    #[serde(default)]
    log: LogSpec,
}

impl Written {
    fn tasks(&mut self) -> Result<Vec<TaskSpec>> {
        let has_one = self.id.is_some() || self.bundle.is_some();
        match (self.tasks.take(), self.id.take(), self.bundle.take()) {
            (Some(tasks), _, _) if !has_one => check_tasks(tasks),
            (Some(_), _, _) => bail!("tasks: goes without id and bundle, which each task has"),
            (None, Some(id), Some(bundle)) => Ok(vec![TaskSpec {
                name: None,
                id,
                bundle,
                share: Vec::new(),
                stop_signal: None,
                log: None,
            }]),
            (None, Some(_), None) => bail!("missing field `bundle`"),
            (None, None, _) => bail!("missing field `id`, or `tasks` for a group"),
        }
    }
}

/// Checks what one task can not know of the others.
fn check_tasks(tasks: Vec<TaskSpec>) -> Result<Vec<TaskSpec>> {
    if tasks.is_empty() || tasks.len() > TASKS {
        bail!("tasks: must be 1 to {TASKS}, are {}", tasks.len());
    }
    for (i, task) in tasks.iter().enumerate() {
        for (j, other) in tasks[..i].iter().enumerate() {
            if task.name == other.name || task.id == other.id {
                let field = if task.name == other.name {
                    "name"
                } else {
                    "id"
                };
                bail!("tasks[{i}].{field}: is that of tasks[{j}] already");
            }
        }
    }
    if !tasks[0].share.is_empty() {
        bail!("tasks[0].share: the first task has the namespaces that others share");
    }
    Ok(tasks)
}

/// When an instance is started again.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct RestartSpec {
    /// `always`, as by default, `on-failure` or `never`.
    pub policy: Restart,
    /// Exit codes that are no failure; `[0]` by default, and at least one.
    #[serde(deserialize_with = "codes")]
    pub success_codes: Vec<u8>,
    /// A run of this length makes earlier failures forgotten: 1ms to a year, 10s by default.
    #[serde(deserialize_with = "wait")]
    pub good_run: Duration,
    /// The waits after a program that ended by itself: 200ms, twice as long each time, up to 1m.
    pub crash: CurveSpec,
    /// Those after one that was found to be unhealthy: 1s, up to 5m.
    pub unhealthy: CurveSpec,
    /// Those after a container that could not be made: 1s, up to 5m.
    pub image: CurveSpec,
}

/// How waits grow. The first attempt after a failure never waits.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct CurveSpec {
    /// The first wait: 1ms to a year, and at most `cap`.
    #[serde(deserialize_with = "wait")]
    pub base: Duration,
    /// How many times longer each next one is: 1 to 1000, 2 by default.
    #[serde(deserialize_with = "factor")]
    pub factor: f64,
    /// The longest one: 1ms to a year.
    #[serde(deserialize_with = "wait")]
    pub cap: Duration,
    /// By which part a wait may be shorter: 0 to 1, 0.2 by default.
    #[serde(deserialize_with = "part")]
    pub jitter: f64,
}

/// How an instance is stopped.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct StopSpec {
    /// What the program gets, a name or a number: `TERM` by default.
    #[serde(deserialize_with = "signal")]
    pub signal: i32,
    /// From the end that somebody asks for to that signal: 0 to a year, 0 by default.
    #[serde(deserialize_with = "time")]
    pub delay: Duration,
    /// After what time every process of its cgroup is killed: 0 to a year, 10s by default.
    #[serde(deserialize_with = "time")]
    pub grace: Duration,
}

/// Where an instance's output goes: the file `log` in its directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct LogSpec {
    /// The size in bytes at which a new file is begun: 128 KiB to 1 TiB, 10 MiB by default.
    #[serde(deserialize_with = "size")]
    pub max_size: u64,
    /// How many files there are at most: 1 to 1000, 5 by default.
    #[serde(deserialize_with = "files")]
    pub max_files: u16,
    /// What happens to a program that prints faster than its log is written.
    pub when_full: WhenFull,
}

/// What happens to a program that prints faster than its log is written, or whose log can not be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WhenFull {
    /// It waits, as with any pipe: nothing is lost.
    Wait,
    /// Lines are dropped, and the log says how many.
    Drop,
}

impl Default for RestartSpec {
    fn default() -> Self {
        let slow = CurveSpec {
            base: Duration::from_secs(1),
            cap: Duration::from_secs(300),
            ..CurveSpec::default()
        };
        RestartSpec {
            policy: Restart::Always,
            success_codes: vec![0],
            good_run: Duration::from_secs(10),
            crash: CurveSpec::default(),
            unhealthy: slow,
            image: slow,
        }
    }
}

impl Default for CurveSpec {
    fn default() -> Self {
        CurveSpec {
            base: Duration::from_millis(200),
            factor: 2.0,
            cap: Duration::from_secs(60),
            jitter: 0.2,
        }
    }
}

impl Default for StopSpec {
    fn default() -> Self {
        StopSpec {
            signal: Signal::TERM.number(),
            delay: Duration::ZERO,
            grace: Duration::from_secs(10),
        }
    }
}

impl Default for LogSpec {
    fn default() -> Self {
        LogSpec {
            max_size: 10 << 20,
            max_files: 5,
            when_full: WhenFull::Wait,
        }
    }
}

impl Spec {
    /// Reads the file in an instance's directory, whose path is absolute.
    ///
    /// # Errors
    ///
    /// The file can not be read; or what is wrong in it, with line and column or the field's path.
    pub fn load(directory: &Path) -> Result<Spec> {
        use std::io::Read as _;
        let path = directory.join(FILE);
        let advice = || format!("{path:?}: an instance is described there (docs/keeper.md)");
        let mut text = Vec::new();
        let file = std::fs::File::open(&path).with_context(advice)?;
        file.take(MAX_SIZE + 1)
            .read_to_end(&mut text)
            .with_context(advice)?;
        if text.len() as u64 > MAX_SIZE {
            bail!("{path:?} is larger than {} KiB", MAX_SIZE >> 10);
        }
        let mut spec = Spec::parse(&text).with_context(|| format!("{path:?}"))?;
        for task in &mut spec.tasks {
            task.bundle = directory.join(&task.bundle);
        }
        Ok(spec)
    }

    /// The instance that a keeper.json of these bytes says.
    ///
    /// # Errors
    ///
    /// As for [`Spec::load`].
    #[cfg(any(test, feature = "fuzzing"))]
    #[doc(hidden)]
    pub fn of_bytes(text: &[u8]) -> Result<Spec> {
        Spec::parse(text)
    }

    fn parse(text: &[u8]) -> Result<Spec> {
        let mut written: Written = serde_json::from_slice(text)?;
        let spec = Spec {
            tasks: written.tasks()?,
            restart: written.restart,
            stop: written.stop,
            log: written.log,
        };
        let curves = [
            ("crash", spec.restart.crash),
            ("unhealthy", spec.restart.unhealthy),
            ("image", spec.restart.image),
        ];
        for (name, curve) in curves {
            if curve.base > curve.cap {
                let (base, cap) = (curve.base, curve.cap);
                bail!("restart.{name}.base: must be at most cap, {cap:?}, is {base:?}");
            }
        }
        Ok(spec)
    }

    /// What decides when it is started and stopped.
    #[must_use]
    pub fn policy(&self) -> Policy {
        let restart = &self.restart;
        Policy {
            restart: restart.policy,
            success: restart.success_codes.clone(),
            curves: Curves {
                crash: restart.crash.into(),
                unhealthy: restart.unhealthy.into(),
                image: restart.image.into(),
            },
            good_run: restart.good_run,
            delay: self.stop.delay,
            grace: self.stop.grace,
        }
    }
}

impl From<CurveSpec> for Curve {
    fn from(spec: CurveSpec) -> Curve {
        Curve {
            base: spec.base,
            factor: spec.factor,
            cap: spec.cap,
            jitter: spec.jitter,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        format!("{:#}", Spec::parse(text.as_bytes()).unwrap_err())
    }

    #[test]
    fn what_is_left_out_has_its_default() {
        let spec = Spec::parse(br#"{"id": "web", "bundle": "/srv/web"}"#).unwrap();
        assert_eq!(spec.restart, RestartSpec::default());
        assert_eq!((spec.stop.signal, spec.log.max_files), (libc::SIGTERM, 5));
        assert_eq!(spec.stop.delay, Duration::ZERO);
        let text = br#"{"id": "web", "bundle": "b", "stop": {"grace": "0", "delay": "2s"},
            "restart": {"policy": "on-failure", "image": {"cap": "2s"}}}"#;
        let spec = Spec::parse(text).unwrap();
        assert_eq!(spec.stop.grace, Duration::ZERO);
        assert_eq!(spec.policy().delay, Duration::from_secs(2));
        assert_eq!(spec.restart.policy, Restart::OnFailure);
        let image = spec.restart.image;
        assert_eq!((image.cap, image.factor), (Duration::from_secs(2), 2.0));
    }

    #[test]
    fn the_example_of_the_manual_is_every_default() {
        let page = include_str!("../../docs/keeper.md");
        let example = page.split("```json\n").nth(1).unwrap();
        let example = example.split("```").next().unwrap();
        let spec = Spec::parse(example.as_bytes()).unwrap();
        let short = Spec::parse(br#"{"id": "web", "bundle": "/srv/web"}"#).unwrap();
        assert_eq!(spec, short);
        for field in ["successCodes", "goodRun", "jitter", "grace", "maxFiles"] {
            assert!(example.contains(field), "{field}");
        }
    }

    #[test]
    fn what_is_not_known_or_given_twice_is_refused_with_its_place() {
        let told = refused("{\"id\": \"web\",\n \"bundle\": \"/b\",\n \"restarts\": {}}");
        assert!(
            told.starts_with("unknown field `restarts`, expected one of")
                && told.ends_with("at line 3 column 11"),
            "{told}"
        );
        let told = refused(r#"{"id": "a", "id": "b", "bundle": "/b"}"#);
        assert!(told.starts_with("duplicate field `id`"), "{told}");
        assert!(refused(r#"{"id": "web"}"#).starts_with("missing field `bundle`"));
        assert!(refused("{}").starts_with("missing field `id`, or `tasks`"));
    }

    #[test]
    fn a_group_has_named_tasks_of_which_the_first_holds_what_others_share() {
        let spec = Spec::parse(
            br#"{"tasks": [{"name": "web", "id": "a", "bundle": "/b"},
            {"name": "side", "id": "b", "bundle": "b", "share": ["network", "pid"],
             "stopSignal": "QUIT", "log": {"maxFiles": 2}}]}"#,
        );
        let spec = spec.unwrap();
        let side = &spec.tasks[1];
        assert_eq!(side.name.as_deref(), Some("side"));
        assert_eq!(side.share, [Share::Network, Share::Pid]);
        assert_eq!(side.stop_signal, Some(libc::SIGQUIT));
        assert_eq!(side.log.unwrap().max_files, 2);
        let with = |tasks: &str| refused(&format!("{{\"tasks\": [{tasks}]}}"));
        let one = r#"{"name": "web", "id": "a", "bundle": "/b"}"#;
        let changed = |from: &str, to: &str| one.replace(from, to);
        let two = |other: &str| with(&format!("{one}, {other}"));
        for (told, expected) in [
            (with(""), "tasks: must be 1 to 16, are 0"),
            (two(one), "tasks[1].name: is that of tasks[0] already"),
            (
                two(&changed("web", "w")),
                "tasks[1].id: is that of tasks[0]",
            ),
            (with(&changed("web", "a/b")), "first a letter or digit, is"),
            (with(&changed("web", "..")), "first a letter or digit, is"),
            (
                with(&changed("\"name\": \"web\", ", "")),
                "missing field `name`",
            ),
            (
                with(&changed("}", ", \"share\": [\"uts\"]}")),
                "tasks[0].share: the first task",
            ),
            (
                two(&changed("}", ", \"share\": [\"mount\"]}")),
                "unknown variant `mount`",
            ),
            (two(&changed("}", ", \"user\": 1}")), "unknown field `user`"),
        ] {
            assert!(told.contains(expected), "{told}");
        }
        let both = r#"{"id": "a", "bundle": "/b", "tasks": []}"#;
        assert!(refused(both).contains("goes without id and bundle"));
    }

    #[test]
    fn what_is_out_of_its_range_is_refused_with_its_place() {
        let with =
            |rest: &str| refused(&format!("{{\"id\": \"web\", \"bundle\": \"/b\", {rest}}}"));
        for (text, told) in [
            (r#""restart": {"policy": "sometimes"}"#, "unknown variant"),
            (r#""restart": {"successCodes": []}"#, "at least one code"),
            (r#""restart": {"successCodes": [256]}"#, "invalid value"),
            (r#""restart": {"goodRun": "0"}"#, "must be at least 1ms"),
            (r#""restart": {"crash": {"base": "5"}}"#, "must be a time"),
            (r#""restart": {"crash": {"factor": 0.5}}"#, "from 1 to 1000"),
            (r#""restart": {"crash": {"jitter": 1.5}}"#, "from 0 to 1"),
            (
                r#""restart": {"crash": {"base": "2m"}}"#,
                "restart.crash.base",
            ),
            (r#""stop": {"signal": "NO"}"#, "unknown signal"),
            (r#""stop": {"signal": 0}"#, "stops nothing"),
            (r#""stop": {"grace": "2y"}"#, "must be a time"),
            (r#""log": {"maxSize": 1000}"#, "from 131072 to"),
            (r#""log": {"maxFiles": 0}"#, "from 1 to 1000"),
            (r#""log": {"whenFull": "panic"}"#, "unknown variant"),
        ] {
            let refusal = with(text);
            assert!(refusal.contains(told), "{text}: {refusal}");
            let has_place = refusal.contains("line 1") || refusal.contains("restart.crash.base");
            assert!(has_place, "{refusal}");
        }
        assert!(refused(r#"{"id": "a/b", "bundle": "/b"}"#).contains("invalid container id"));
    }
}
