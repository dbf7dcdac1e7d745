//! Annotations that set properties of the container's unit: `org.systemd.property.NAME`, as runc
//! and crun have them, with a value in GVariant's text form.
//!
//! Whoever writes a pod's annotations need not be trusted with the host, so that only the names in
//! [`ALLOWED`] are taken: what concerns this unit's own life. Not taken is what acts on other units
//! (`Conflicts`, `Requires`), on the host (`SuccessAction=reboot` was CVE-2024-3154 of CRI-O), or
//! on what the configuration says by a field of its own (limits, devices, slice).

use oci_spec::runtime::Spec;

use super::gvariant::{self, Written};
use super::properties::Property;
use super::value::Value;
use crate::error::Problems;

/// What the annotations that set properties of the unit begin with.
pub const UNIT_PROPERTY: &str = "org.systemd.property.";

/// The type of a property.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Bool,
    /// A signal's number.
    Signal,
    /// Parts in 10000, of 32 bits.
    Share,
    /// Microseconds; its name without the U takes seconds.
    Time,
    Text,
    Texts,
}

/// The properties that an annotation may set.
const ALLOWED: &[(&str, Kind)] = &[
    ("After", Kind::Texts),
    ("Before", Kind::Texts),
    ("CollectMode", Kind::Text),
    ("DefaultDependencies", Kind::Bool),
    ("Description", Kind::Text),
    ("Documentation", Kind::Texts),
    ("FinalKillSignal", Kind::Signal),
    ("IPAccounting", Kind::Bool),
    ("KillMode", Kind::Text),
    ("KillSignal", Kind::Signal),
    ("ManagedOOMMemoryPressure", Kind::Text),
    ("ManagedOOMMemoryPressureLimit", Kind::Share),
    ("ManagedOOMPreference", Kind::Text),
    ("ManagedOOMSwap", Kind::Text),
    ("MemoryPressureWatch", Kind::Text),
    ("OOMPolicy", Kind::Text),
    ("RuntimeMaxUSec", Kind::Time),
    ("SendSIGHUP", Kind::Bool),
    ("SendSIGKILL", Kind::Bool),
    ("TimeoutStopUSec", Kind::Time),
];

/// The properties that the annotations ask for. What is wrong with one is added to `problems`.
pub(super) fn plan(spec: &Spec, problems: &mut Problems) -> Vec<Property> {
    let mut annotations: Vec<_> = spec.annotations().iter().flatten().collect();
    annotations.sort_unstable();
    let mut properties = Vec::new();
    for (key, text) in annotations {
        let Some(name) = key.strip_prefix(UNIT_PROPERTY) else {
            continue;
        };
        match property(name, text) {
            Ok(property) => properties.push(property),
            Err(problem) => problems.add(format!("annotations[{key:?}]"), problem),
        }
    }
    properties
}

fn property(name: &str, text: &str) -> Result<Property, String> {
    let is = |known: &str| known == name;
    if let Some((name, kind)) = ALLOWED.iter().find(|(known, _)| is(known)) {
        return Ok(Property::new(
            name,
            convert(*kind, &gvariant::parse(text)?)?,
        ));
    }
    // As in unit files: TimeoutStopSec for TimeoutStopUSec.
    let in_seconds = |known: &str| {
        known
            .strip_suffix("USec")
            .is_some_and(|short| name.strip_suffix("Sec") == Some(short))
    };
    if let Some((name, _)) = ALLOWED.iter().find(|(known, _)| in_seconds(known)) {
        return Ok(Property::new(name, seconds(&gvariant::parse(text)?)?));
    }
    let names: Vec<&str> = ALLOWED.iter().map(|(name, _)| *name).collect();
    Err(format!(
        "an annotation may not set the property {name:?}; it may set {}",
        names.join(", ")
    ))
}

fn convert(kind: Kind, written: &Written) -> Result<Value, String> {
    match (kind, written) {
        (Kind::Bool, Written::Bool(value)) => Ok(Value::Bool(*value)),
        (Kind::Text, Written::Text(text)) => Ok(Value::Text(plain(text)?.to_owned())),
        (Kind::Texts, Written::List(list)) => {
            let texts = list.iter().map(|written| match written {
                Written::Text(text) => plain(text).map(str::to_owned),
                Written::Bool(_) | Written::Number(..) | Written::List(_) => wrong(kind),
            });
            texts.collect::<Result<_, _>>().map(Value::Texts)
        }
        (Kind::Signal, Written::Number(digits, None | Some('i'))) => match digits.parse() {
            Ok(signal @ 1..=64) => Ok(Value::I32(signal)),
            Ok(_) | Err(_) => wrong(kind),
        },
        (Kind::Share, Written::Number(digits, None | Some('u'))) => {
            digits.parse().map(Value::U32).or_else(|_| wrong(kind))
        }
        (Kind::Time, Written::Number(digits, None | Some('t'))) => {
            digits.parse().map(Value::U64).or_else(|_| wrong(kind))
        }
        (
            Kind::Bool | Kind::Signal | Kind::Share | Kind::Time | Kind::Text | Kind::Texts,
            Written::Bool(_) | Written::Number(..) | Written::Text(_) | Written::List(_),
        ) => wrong(kind),
    }
}

/// Text ends up as a line of a unit file.
fn plain(text: &str) -> Result<&str, String> {
    match text.chars().any(char::is_control) {
        true => Err(format!("has a control character in {text:?}")),
        false => Ok(text),
    }
}

fn seconds(written: &Written) -> Result<Value, String> {
    const LARGEST: f64 = 1e12; // 30 000 years, well below what 64 bits of microseconds hold
    let seconds: Option<f64> = match written {
        Written::Number(digits, _) => digits.parse().ok(),
        Written::Bool(_) | Written::Text(_) | Written::List(_) => None,
    };
    match seconds {
        Some(seconds) if (0.0..LARGEST).contains(&seconds) => {
            Ok(Value::U64((seconds * 1e6).round() as u64))
        }
        Some(_) | None => Err("must be a number of seconds, as 1.5".to_owned()),
    }
}

fn wrong<T>(kind: Kind) -> Result<T, String> {
    Err(match kind {
        Kind::Bool => "must be true or false",
        Kind::Signal => "must be a signal's number, as 15",
        Kind::Share => "must be a number of 32 bits, as uint32 5000",
        Kind::Time => "must be a number of microseconds, as uint64 1500000",
        Kind::Text => "must be text, as 'inactive-or-failed'",
        Kind::Texts => "must be a list of texts, as ['network.target']",
    }
    .to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(name: &str, text: &str) -> Result<String, String> {
        property(name, text).map(|property| property.to_string())
    }

    #[test]
    fn what_podman_and_kubernetes_document_is_taken() {
        assert_eq!(one("KillSignal", "15").unwrap(), "KillSignal 15");
        assert_eq!(
            one("TimeoutStopUSec", "uint64 30000000").unwrap(),
            "TimeoutStopUSec 30000000"
        );
        assert_eq!(
            one("DefaultDependencies", "true").unwrap(),
            "DefaultDependencies true"
        );
        assert_eq!(
            one("CollectMode", "'inactive-or-failed'").unwrap(),
            "CollectMode \"inactive-or-failed\""
        );
        assert_eq!(
            one("After", "['sound.target']").unwrap(),
            "After [\"sound.target\"]"
        );
    }

    #[test]
    fn seconds_become_microseconds() {
        assert_eq!(
            one("TimeoutStopSec", "1.5").unwrap(),
            "TimeoutStopUSec 1500000"
        );
        assert_eq!(
            one("RuntimeMaxSec", "uint32 10").unwrap(),
            "RuntimeMaxUSec 10000000"
        );
        for wrong in ["-1", "'5'", "1e30", "x5"] {
            assert!(one("TimeoutStopSec", wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_concerns_others_is_refused() {
        for name in [
            "SuccessAction",
            "FailureAction",
            "Conflicts",
            "Requires",
            "ExecStop",
            "Slice",
            "PIDs",
            "Delegate",
            "DeviceAllow",
            "MemoryMax",
            "User",
            "sec",
            "Sec",
            "",
        ] {
            let error = one(name, "'reboot'").unwrap_err();
            assert!(error.contains("may not set"), "{name}: {error}");
        }
    }

    #[test]
    fn a_value_must_be_of_its_propertys_type() {
        for (name, text) in [
            ("KillSignal", "'TERM'"),
            ("KillSignal", "99"),
            ("KillSignal", "uint64 15"),
            ("TimeoutStopUSec", "-5"),
            ("TimeoutStopUSec", "int32 5"),
            ("SendSIGHUP", "1"),
            ("CollectMode", "true"),
            ("After", "'a.target'"),
            ("After", "[5]"),
            ("Description", "'two\\nlines'"),
            ("Description", "unquoted"),
        ] {
            assert!(one(name, text).is_err(), "{name} {text}");
        }
    }

    #[test]
    fn a_problem_has_its_json_path_and_other_annotations_are_none() {
        let json = r#"{"ociVersion": "1.3.0", "annotations": {
            "a": "b", "org.systemd.property.KillSignal": "15",
            "org.systemd.property.SuccessAction": "'reboot'"}}"#;
        let mut problems = Problems::default();
        let properties = plan(&serde_json::from_str(json).unwrap(), &mut problems);
        assert_eq!(properties.len(), 1);
        let problems = problems.to_string();
        assert!(
            problems.starts_with(
                "annotations[\"org.systemd.property.SuccessAction\"]: an annotation may not"
            ),
            "{problems}"
        );
    }
}
