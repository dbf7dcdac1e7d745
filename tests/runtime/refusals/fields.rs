//! Every field of config.json by the table that the program itself checks by.

use std::fs;

use libtest_mimic::Trial;
use parhelion::bundle::{FIELDS, Field, Kind, Support};
use serde_json::{Map, Value, json};

use super::refusal;
use crate::support::{Bundle, tests};

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    tests![
        every_field_that_is_not_honoured_is_refused_by_its_path,
        every_honoured_field_refuses_a_value_of_a_wrong_type,
        every_number_is_refused_below_and_above_its_range,
        every_word_is_refused_when_it_is_unknown,
        everything_that_is_required_is_missed_at_once,
        a_flood_of_problems_is_counted,
    ]
}

/// So many problems are told one by one; see `a_flood_of_problems_is_counted`.
const TOLD: usize = 100;

/// A key of an object with any keys.
const ANY_KEY: &str = "x";

/// The rows directly or further below `field`.
fn below(field: &Field) -> impl Iterator<Item = &'static Field> {
    let path = field.path;
    FIELDS.iter().filter(move |other| {
        let rest = other.path.strip_prefix(path);
        rest.is_some_and(|rest| rest.starts_with(['.', '[']))
    })
}

/// A value that fits the field and asks for something.
fn fitting(field: &Field) -> Value {
    match field.kind {
        Kind::Bool => json!(true),
        Kind::Int { min, .. } => json!(min.max(1)),
        Kind::Text | Kind::Free => json!("x"),
        Kind::Path => json!("/x"),
        Kind::Words(words) => json!(words[0]),
        Kind::Array => json!([below(field).next().map(fitting)]),
        Kind::Map | Kind::Object | Kind::Closed => {
            let Some(first) = below(field).next() else {
                return json!({"some": "thing"});
            };
            let name = first.path.rsplit('.').next().unwrap().replace('*', ANY_KEY);
            json!({ name: fitting(first) })
        }
    }
}

/// Puts `value` at the path of a row, in the first element of each array on the way.
fn put(config: &mut Value, path: &str, value: Value) {
    let (key, rest) = path
        .split_once('.')
        .map_or((path, None), |(k, r)| (k, Some(r)));
    let name = key.split('[').next().unwrap().replace('*', ANY_KEY);
    if !config.is_object() {
        *config = Value::Object(Map::new());
    }
    let mut place = &mut config[name];
    for _ in 0..key.matches("[]").count() {
        if place.as_array().is_none_or(Vec::is_empty) {
            *place = json!([null]);
        }
        place = &mut place[0];
    }
    match rest {
        Some(rest) => put(place, rest, value),
        None => *place = value,
    }
}

/// The path of a row as problems name it.
fn told(path: &str) -> String {
    path.replace("[]", "[0]").replace('*', ANY_KEY)
}

fn honoured() -> impl Iterator<Item = &'static Field> {
    FIELDS
        .iter()
        .filter(|field| field.support == Support::Honoured)
}

/// Refused with a problem at each of these rows, and what the problem says there; as many rows at
/// once as are told at once.
fn refused_at(rows: &[(&'static Field, Value)], words: &str) {
    let bundle = Bundle::new("true");
    let default = fs::read(bundle.folder.join("config.json")).unwrap();
    for some in rows.chunks(TOLD / 2) {
        fs::write(bundle.folder.join("config.json"), &default).unwrap();
        bundle.edit(|config| {
            for (field, value) in some {
                put(config, field.path, value.clone());
            }
        });
        let reason = refusal(&bundle);
        let problems: Vec<&str> = reason.split("; ").collect();
        for (field, value) in some {
            let expected = format!("{}: {words}", told(field.path));
            let found = problems.iter().any(|problem| {
                problem
                    .trim_start_matches(&config_path(&bundle))
                    .starts_with(&expected)
            });
            assert!(
                found,
                "{expected:?} for {value} is not in\n{}",
                problems.join("\n")
            );
        }
    }
}

fn config_path(bundle: &Bundle) -> String {
    format!("{:?}: ", bundle.folder.join("config.json"))
}

fn every_field_that_is_not_honoured_is_refused_by_its_path() {
    let bundle = Bundle::new("true");
    let default = fs::read(bundle.folder.join("config.json")).unwrap();
    let mut refused = 0;
    for field in &FIELDS {
        let words = match field.support {
            Support::Honoured => continue,
            Support::OtherPlatform(other) => format!("is for {}, not for Linux", other.name()),
        };
        fs::write(bundle.folder.join("config.json"), &default).unwrap();
        bundle.edit(|config| put(config, field.path, fitting(field)));
        // What lies in a field that is refused as a whole is refused with it.
        let above = FIELDS.iter().find(|other| {
            let rest = field.path.strip_prefix(other.path);
            let is_above = rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']));
            is_above && other.support != Support::Honoured
        });
        let expected = format!(
            "{}{}: {words}: remove it",
            config_path(&bundle),
            above.unwrap().path
        );
        assert_eq!(refusal(&bundle), expected, "{}", field.path);
        refused += 1;
    }
    assert!(
        refused > 100,
        "the table has only {refused} rows that are not honoured"
    );
}

fn every_honoured_field_refuses_a_value_of_a_wrong_type() {
    let all: Vec<_> = honoured().collect();
    let is_leaf = |field: &&&Field| below(field).next().is_none();
    // A value that is none of what the table knows; for the others it is an object.
    let scalars: Vec<_> = all
        .iter()
        .filter(is_leaf)
        .map(|field| (*field, json!({"a": 1})))
        .collect();
    refused_at(&scalars, "must be ");
    // One at a time, as it hides what lies below it.
    for field in all.iter().filter(|field| !is_leaf(field)) {
        refused_at(&[(*field, json!("text"))], "must be an ");
    }
}

fn every_number_is_refused_below_and_above_its_range() {
    let (mut low, mut high) = (Vec::new(), Vec::new());
    for field in honoured() {
        if let Kind::Int { min, max } = field.kind {
            low.extend(min.checked_sub(1).map(|value| (field, json!(value))));
            high.extend(max.checked_add(1).map(|value| (field, json!(value))));
        }
    }
    assert!(
        low.len() > 40 && high.len() > 40,
        "{} and {}",
        low.len(),
        high.len()
    );
    refused_at(&low, "must be a whole number from ");
    refused_at(&high, "must be a whole number from ");
}

fn every_word_is_refused_when_it_is_unknown() {
    let has_words = |field: &&Field| matches!(field.kind, Kind::Words(_));
    let rows: Vec<_> = honoured()
        .filter(has_words)
        .map(|f| (f, json!("unknown")))
        .collect();
    assert!(rows.len() > 4);
    refused_at(&rows, "must be ");
}

fn everything_that_is_required_is_missed_at_once() {
    let bundle = Bundle::new("true");
    let mut empty = json!({});
    for field in honoured().filter(|field| field.kind == Kind::Object) {
        put(&mut empty, field.path, json!({}));
    }
    fs::write(bundle.folder.join("config.json"), empty.to_string()).unwrap();
    let reason = refusal(&bundle);
    let problems: Vec<&str> = reason.split("; ").collect();
    // An object that holds other objects here is there.
    let missing = honoured().filter(|field| field.required && field.kind != Kind::Object);
    for field in missing {
        let expected = format!("{}: is required", told(field.path));
        let found = problems.iter().any(|problem| problem.ends_with(&expected));
        assert!(found, "{expected:?} is not in\n{}", problems.join("\n"));
    }
}

fn a_flood_of_problems_is_counted() {
    let bundle = Bundle::new("true");
    let wrong: Vec<u32> = (0..1000).collect();
    bundle.edit(|config| config["process"]["env"] = json!(wrong));
    let reason = refusal(&bundle);
    assert!(
        reason.contains(&format!("process.env[{}]: ", TOLD - 1)),
        "{reason}"
    );
    assert!(
        !reason.contains(&format!("process.env[{TOLD}]")),
        "{reason}"
    );
    assert!(
        reason.ends_with("config.json: has 900 more problems"),
        "{reason}"
    );
}
