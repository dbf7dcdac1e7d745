//! The bundle as its users see it: what loads, and what is said of what does not.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use serde_json::json;

use super::*;
use crate::error::Problems;

/// A config that asks for everything this release honours.
const RICH: &str = include_str!("rich.json");

pub(super) fn base() -> Value {
    serde_json::from_str(&default_config(None)).unwrap()
}

pub(super) fn rich() -> Value {
    static PARSED: LazyLock<Value> = LazyLock::new(|| serde_json::from_str(RICH).unwrap());
    PARSED.clone()
}

/// The value with another one put in at a JSON pointer, whose last key may be new.
pub(super) fn with(mut config: Value, pointer: &str, value: Value) -> Value {
    let (above, key) = pointer.rsplit_once('/').unwrap();
    let key = key.replace("~1", "/");
    match config.pointer_mut(above).unwrap() {
        Value::Object(object) => drop(object.insert(key, value)),
        Value::Array(items) => items[key.parse::<usize>().unwrap()] = value,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => panic!("{above}"),
    }
    config
}

pub(super) fn convert(mut config: Value) -> std::result::Result<(Spec, Vec<String>), Problems> {
    let mut report = Report::default();
    examine(&mut config, &mut report);
    report.refuse_problems()?;
    let spec = fit::fit(&mut config, &mut report).unwrap();
    Ok((spec, report.into_warnings()))
}

/// The problems, one on a line; "" when there is none.
pub(super) fn problems(config: Value) -> String {
    convert(config).map_or_else(
        |problems| problems.to_string().replace("; ", "\n"),
        |_| "".into(),
    )
}

pub(super) fn warnings(config: Value) -> String {
    convert(config).unwrap().1.join("\n")
}

/// A bundle's directory for one test, removed at its end.
struct TestBundle(PathBuf);

impl TestBundle {
    fn new(config: &str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("parhelion-bundle-{}-{number}", std::process::id());
        let dir = std::env::temp_dir().join(name);
        std::fs::create_dir_all(dir.join("rootfs")).unwrap();
        std::fs::write(dir.join("config.json"), config).unwrap();
        TestBundle(dir.canonicalize().unwrap())
    }

    fn failure(&self) -> String {
        let text = format!("{:#}", Bundle::load(&self.0, None).unwrap_err());
        text.replace(self.0.to_str().unwrap(), "/b")
    }
}

impl Drop for TestBundle {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

#[test]
fn the_default_configs_load_without_problem_and_warning() {
    for owner in [
        None,
        Some(Owner {
            uid: 1000,
            gid: 100,
        }),
    ] {
        let dir = TestBundle::new(&default_config(owner));
        let bundle = Bundle::load(&dir.0, None).unwrap();
        assert_eq!(bundle.warnings, [""; 0]);
        assert_eq!(bundle.dir, dir.0);
        assert_eq!(bundle.rootfs, dir.0.join("rootfs"));
    }
}

#[test]
fn a_config_that_asks_for_everything_honoured_loads_with_every_value() {
    let (spec, warnings) = convert(rich()).unwrap();
    assert_eq!(warnings, [""; 0]);
    let found = serde_json::to_value(&spec).unwrap();
    assert_eq!(lost(&rich(), &found, "", &[]), [""; 0]);
}

#[test]
fn the_rich_config_has_every_honoured_field() {
    fn paths(value: &Value, path: &str, found: &mut Vec<String>) {
        found.push(path.to_owned());
        if let Some(object) = value.as_object() {
            for (key, value) in object {
                let dot = if path.is_empty() { "" } else { "." };
                paths(value, &format!("{path}{dot}{key}"), found);
                paths(value, &format!("{path}.*"), found);
            }
        }
        for item in value.as_array().into_iter().flatten() {
            paths(item, &format!("{path}[]"), found);
        }
    }
    let mut found = Vec::new();
    paths(&rich(), "", &mut found);
    let honoured = FIELDS
        .iter()
        .filter(|field| field.support == Support::Honoured);
    let missing: Vec<_> = honoured.map(|field| field.path.to_owned()).collect();
    let missing: Vec<_> = missing
        .iter()
        .filter(|path| !found.contains(path))
        .collect();
    assert_eq!(missing, [""; 0]);
}

pub(super) fn one_range(container: u64, host: u64, size: u64) -> Value {
    json!({ "containerID": container, "hostID": host, "size": size })
}

#[test]
fn a_missing_directory_or_file_is_named_with_what_to_do() {
    let dir = TestBundle::new("{}");
    let missing = dir.0.join("nothing");
    let error = format!("{:#}", Bundle::load(&missing, None).unwrap_err());
    assert_eq!(
        error.replace(dir.0.to_str().unwrap(), "/b"),
        "bundle \"/b/nothing\" does not exist: name a directory that holds config.json (--bundle)"
    );
    let error = format!(
        "{:#}",
        Bundle::load(&dir.0.join("config.json"), None).unwrap_err()
    );
    assert_eq!(
        error.replace(dir.0.to_str().unwrap(), "/b"),
        "bundle \"/b/config.json\" is not a directory: name a directory that holds config.json \
         (--bundle)"
    );
    std::fs::remove_file(dir.0.join("config.json")).unwrap();
    assert_eq!(
        dir.failure(),
        "\"/b/config.json\" does not exist: \"parhelion spec\" writes one to start from"
    );
    std::fs::create_dir(dir.0.join("config.json")).unwrap();
    assert_eq!(
        dir.failure(),
        "\"/b/config.json\" is not a regular file: put the configuration there"
    );
}

#[test]
fn a_file_without_a_json_object_is_named_with_line_and_column() {
    assert_eq!(
        TestBundle::new("{\n\t\"a\": }").failure(),
        "\"/b/config.json\": line 2 column 7: expected value: correct the JSON there"
    );
    assert_eq!(
        TestBundle::new(&" ".repeat((8 << 20) + 1)).failure(),
        "\"/b/config.json\" is larger than 8 MiB: make it smaller"
    );
}

#[test]
fn all_problems_of_the_config_come_at_once_with_the_files_name() {
    let config = with(
        with(base(), "/root/path", json!("roots")),
        "/process/cwd",
        json!("tmp"),
    );
    let dir = TestBundle::new(&config.to_string());
    let error = Bundle::load(&dir.0, None).unwrap_err();
    assert_eq!(error.downcast_ref::<Problems>().unwrap().iter().count(), 2);
    assert_eq!(
        dir.failure(),
        "\"/b/config.json\": process.cwd: must be an absolute path, is \"tmp\"; root.path: \
         \"/b/roots\" does not exist: put the container's files there, or correct the path"
    );
    std::fs::write(dir.0.join("roots"), "").unwrap();
    assert!(
        dir.failure()
            .ends_with("; root.path: \"/b/roots\" is not a directory")
    );
}

#[test]
fn the_root_may_be_absolute_or_a_link() {
    let dir = TestBundle::new(&with(base(), "/root/path", json!("link")).to_string());
    std::os::unix::fs::symlink(dir.0.join("rootfs"), dir.0.join("link")).unwrap();
    assert_eq!(
        Bundle::load(&dir.0, None).unwrap().rootfs,
        dir.0.join("rootfs")
    );
}

#[test]
fn the_bundle_answers_what_the_plans_ask() {
    let config = with(
        base(),
        "/linux/namespaces/1/path",
        json!("/proc/self/ns/net"),
    );
    let dir = TestBundle::new(&config.to_string());
    let bundle = Bundle::load(&dir.0, None).unwrap();
    assert!(bundle.is_new(LinuxNamespaceType::Pid));
    assert!(!bundle.is_new(LinuxNamespaceType::Network));
    assert!(bundle.namespace(LinuxNamespaceType::Network).is_some());
    assert!(bundle.namespace(LinuxNamespaceType::User).is_none());
    assert_eq!((bundle.mounts().len(), bundle.devices().len()), (7, 0));
    assert_eq!(
        (bundle.uid_mappings().len(), bundle.gid_mappings().len()),
        (0, 0)
    );
}

/// What of the config is neither in the result, nor said in a warning, nor empty.
fn lost(wanted: &Value, found: &Value, path: &str, warnings: &[String]) -> Vec<String> {
    let said = |path: &str| warnings.iter().any(|warning| warning.starts_with(path));
    let nothing = match wanted {
        Value::Null => true,
        Value::String(text) => text.is_empty() && found.is_null(),
        Value::Array(items) => items.is_empty() && found.is_null(),
        Value::Object(members) => members.is_empty() && found.is_null(),
        Value::Bool(_) | Value::Number(_) => false,
    };
    match (wanted, found) {
        _ if nothing || (!path.is_empty() && said(path)) => Vec::new(),
        (Value::Object(wanted), Value::Object(found)) => {
            let below = |(key, value)| {
                let key: &String = key;
                let step = report::Place::key(None, key).to_string();
                let dot = if path.is_empty() || step.starts_with('[') {
                    ""
                } else {
                    "."
                };
                let found = found.get(key).unwrap_or(&Value::Null);
                lost(value, found, &format!("{path}{dot}{step}"), warnings)
            };
            wanted.iter().flat_map(below).collect()
        }
        (Value::Array(wanted), Value::Array(found)) if path.contains("capabilities") => {
            let missing = wanted.iter().filter(|name| !found.contains(name));
            missing.map(|name| format!("{path}: {name}")).collect()
        }
        (Value::Array(wanted), Value::Array(found)) if wanted.len() == found.len() => {
            let pairs = wanted.iter().zip(found).enumerate();
            pairs
                .flat_map(|(i, (w, f))| lost(w, f, &format!("{path}[{i}]"), warnings))
                .collect()
        }
        // Larger limits than the kernel's own largest are all the same to it.
        (Value::Number(wanted), _)
            if path.contains("hugepageLimits") && wanted.as_u64() > Some(i64::MAX as u64) =>
        {
            Vec::new()
        }
        // The crate's own name for it.
        (Value::String(wanted), Value::String(found))
            if fit::SCHEDULER_FLAGS.contains(&(wanted, found)) =>
        {
            Vec::new()
        }
        // An object that asked for nothing, as `pids` without a limit.
        (Value::Object(wanted), Value::Null) => {
            let below = wanted.iter().flat_map(|(key, value)| {
                lost(value, &Value::Null, &format!("{path}.{key}"), warnings)
            });
            below.collect()
        }
        (wanted, found) if wanted == found => Vec::new(),
        (wanted, found) => vec![format!("{path}: {wanted} became {found}")],
    }
}

/// Any JSON, with keys and words that the specification knows now and then.
fn any_json() -> impl Strategy<Value = Value> {
    let names = FIELDS
        .iter()
        .filter_map(|field| field.path.rsplit('.').next());
    let names: Vec<_> = names
        .map(|name| name.trim_end_matches("[]").to_owned())
        .collect();
    let mut words: Vec<&str> = vec!["", "/", "a\0", "é\n"];
    for field in &FIELDS {
        if let Kind::Words(list) = field.kind {
            words.extend(list);
        }
    }
    let numbers = vec![0, 1, 80, 65_536, 4_294_967_295, u64::MAX];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        proptest::sample::select(numbers).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<[char; 2]>().prop_map(|chars| String::from_iter(chars).into()),
        proptest::sample::select(words).prop_map(Value::from),
    ];
    let key = prop_oneof![
        8 => proptest::sample::select(names),
        1 => any::<char>().prop_map(String::from),
    ];
    leaf.prop_recursive(4, 24, 4, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map(key.clone(), inner, 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

/// A scalar that the field takes by its row, at the ends of its range too.
fn fitting(kind: Kind) -> BoxedStrategy<Value> {
    let one_of = |values: Vec<Value>| proptest::sample::select(values).boxed();
    match kind {
        Kind::Bool => any::<bool>().prop_map(Value::from).boxed(),
        Kind::Int { min, max } => {
            let near = [0, 1, 2, 511, 65_535, 100_000].into_iter();
            let near = near.filter(|number| min <= *number && *number as u64 <= max);
            let ends = [json!(min), json!(max)];
            one_of(near.map(Value::from).chain(ends).collect())
        }
        Kind::Text | Kind::Free => one_of(["", "a", "1:3", "0-1"].map(Value::from).into()),
        Kind::Path => one_of(
            ["/", "/a", "/a/../b", "/proc/self/ns/net"]
                .map(Value::from)
                .into(),
        ),
        Kind::Words(words) => one_of(words.iter().copied().map(Value::from).collect()),
        Kind::Array => one_of(vec![json!([])]),
        Kind::Object | Kind::Closed | Kind::Map => one_of(vec![json!({}), Value::Null]),
    }
}

/// The JSON pointers of everything inside a value, each with its row of the table.
fn places(value: &Value, above: &str, row: &str, found: &mut Vec<(String, &'static Field)>) {
    let mut below = |step: &str, row: String, any_key: String, value: &Value| {
        let pointer = format!("{above}/{}", step.replace('/', "~1"));
        let named = |path: &str| {
            let path = path.trim_start_matches('.');
            FIELDS.iter().find(|field| field.path == path)
        };
        let field = named(&row).or_else(|| named(&any_key)).unwrap();
        places(value, &pointer, field.path, found);
        found.push((pointer, field));
    };
    match value {
        Value::Object(object) => object.iter().for_each(|(key, value)| {
            below(key, format!("{row}.{key}"), format!("{row}.*"), value);
        }),
        Value::Array(items) => items.iter().enumerate().for_each(|(i, value)| {
            below(&i.to_string(), format!("{row}[]"), String::new(), value);
        }),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// A config with another value in a few places: mostly one that fits there.
pub(crate) fn mutated(original: Value) -> impl Strategy<Value = Value> {
    let mut all = Vec::new();
    places(&original, "", "", &mut all);
    let place = proptest::sample::select(all);
    let change = place.prop_flat_map(|(pointer, field)| {
        let value = prop_oneof![7 => fitting(field.kind), 1 => any_json().boxed()];
        value.prop_map(move |value| (pointer.clone(), value))
    });
    proptest::collection::vec(change, 1..3).prop_map(move |changes| {
        // A place may be gone by an earlier change.
        let mut config = original.clone();
        for (pointer, value) in changes {
            if let Some(place) = config.pointer_mut(&pointer) {
                *place = value;
            }
        }
        config
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn any_json_is_refused_or_taken_but_never_a_panic(mut config in any_json()) {
        if !config.is_object() {
            config = with(rich(), "/linux", config);
        }
        // Both answers are right; a panic would fail the test.
        let _ = convert(config);
    }
}

#[test]
fn what_is_taken_is_honoured_or_warned_about() {
    const CASES: u32 = 500;
    let taken = std::cell::Cell::new(0);
    let mut runner = TestRunner::new(ProptestConfig::with_cases(CASES));
    let result = runner.run(&mutated(rich()), |config| {
        if let Ok((spec, warnings)) = convert(config.clone()) {
            taken.set(taken.get() + 1);
            let found = serde_json::to_value(&spec).unwrap();
            prop_assert_eq!(lost(&config, &found, "", &warnings), Vec::<String>::new());
        }
        Ok(())
    });
    result.unwrap();
    // Were all refused, nothing would have been looked at.
    assert!(taken.get() > CASES / 4, "only {} were taken", taken.get());
}
