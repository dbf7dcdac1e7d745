//! Values that people write as text: sizes, times, fractions, moments, signals, users.
//!
//! Each has one way in which it is written back, whatever way it was given: the identity of a job is a digest
//! of what it says, and `1024MiB` says what `1GiB` says.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::moment;
use crate::error::rfc3339;
use crate::lifecycle::duration;
use crate::lifecycle::kill;

/// The largest size, 1 EiB: what JSON and TOML can both write.
const LARGEST: u64 = 1 << 60;

/// The longest time, a year.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

/// A number of bytes, at most 1 EiB: `512MiB`, or a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

/// A length of time in whole milliseconds, at most a year: `500ms`, `1.5s`, `1m30s`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(u64);

/// A number with three decimal places, as for cores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Thousandths(pub u32);

/// A moment in whole seconds, from 1970 to 9999, as RFC 3339 writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(u64);

/// A signal that stops a program, by name or number (signal(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signal(i32);

/// Whom a program runs as: `uid` or `uid:gid`, in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct User {
    /// The user's id.
    pub uid: u32,
    /// The group's id; the bundle's where it is not given.
    pub gid: Option<u32>,
}

const UNITS: [(&str, u64); 10] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("KB", 1_000),
    ("B", 1),
];

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Size, String> {
        let refused = || format!("must be a size up to 1 EiB as 512MiB or 2GB, is {text:?}");
        let end = text.find(|c: char| !(c.is_ascii_digit() || c == '.'));
        let (number, unit) = text.split_at(end.unwrap_or(text.len()));
        let unit = match unit.trim_start() {
            "" => Some(1),
            unit => UNITS
                .iter()
                .find_map(|(name, size)| (*name == unit).then_some(*size)),
        };
        let unit = unit.ok_or_else(refused)?;
        let bytes = match number.parse::<u64>() {
            Ok(whole) => whole.checked_mul(unit),
            // A part of a unit: `1.5GiB`. Exact, as far as it is a whole number of bytes.
            Err(_) => number
                .parse::<f64>()
                .ok()
                .map(|number| number * unit as f64)
                .filter(|bytes| bytes.fract() == 0.0 && *bytes <= LARGEST as f64)
                .map(|bytes| bytes as u64),
        };
        let bytes = bytes.filter(|bytes| *bytes <= LARGEST);
        bytes.map(Size).ok_or_else(refused)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let binary = UNITS.iter().take(4);
        let mut whole = binary.filter(|(_, size)| self.0.is_multiple_of(*size) && self.0 > 0);
        match whole.next() {
            Some((unit, size)) => write!(f, "{}{unit}", self.0 / size),
            None => write!(f, "{}B", self.0),
        }
    }
}

impl Time {
    /// This many milliseconds.
    #[must_use]
    pub const fn from_millis(milliseconds: u64) -> Time {
        Time(milliseconds)
    }

    /// This many seconds.
    #[must_use]
    pub const fn from_secs(seconds: u64) -> Time {
        Time(seconds * 1000)
    }

    /// Whether it is no time at all.
    #[must_use]
    pub const fn is_zero(&self) -> bool {
        self.0 == 0
    }

    /// As the standard library has it.
    #[must_use]
    pub const fn duration(self) -> Duration {
        Duration::from_millis(self.0)
    }
}

impl FromStr for Time {
    type Err = String;

    fn from_str(text: &str) -> Result<Time, String> {
        let time = duration::parse(text).filter(|time| *time <= LONGEST);
        let whole = time.filter(|time| time.subsec_nanos() % 1_000_000 == 0);
        whole
            .map(|time| Time(time.as_millis() as u64))
            .ok_or_else(|| {
                format!("must be a time up to a year as 500ms, 5s or 1m30s, is {text:?}")
            })
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [
            (self.0 / 3_600_000, "h"),
            (self.0 / 60_000 % 60, "m"),
            (self.0 / 1000 % 60, "s"),
            (self.0 % 1000, "ms"),
        ];
        if self.0 == 0 {
            return f.write_str("0s");
        }
        for (number, unit) in parts.iter().filter(|(number, _)| *number > 0) {
            write!(f, "{number}{unit}")?;
        }
        Ok(())
    }
}

impl Thousandths {
    /// As a number with a point.
    #[must_use]
    pub fn number(self) -> f64 {
        f64::from(self.0) / 1000.0
    }
}

impl Moment {
    /// The system's time then.
    #[must_use]
    pub fn system_time(self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(self.0)
    }

    /// The moment so many milliseconds after 1970; None before it, or after the year 9999.
    #[must_use]
    pub fn from_unix_millis(milliseconds: i64) -> Option<Moment> {
        let seconds = u64::try_from(milliseconds).ok()? / 1000;
        (seconds < moment::END).then_some(Moment(seconds))
    }
}

impl FromStr for Moment {
    type Err = String;

    fn from_str(text: &str) -> Result<Moment, String> {
        moment::seconds(text).map(Moment).ok_or_else(|| {
            format!("must be a moment from 1970 on as 2030-01-31T12:00:00Z, is {text:?}")
        })
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = rfc3339(self.system_time());
        write!(f, "{}Z", text.get(..19).unwrap_or(&text))
    }
}

impl Signal {
    /// Asks a program to end.
    pub const TERM: Signal = Signal(libc::SIGTERM);

    /// Its number.
    #[must_use]
    pub fn number(self) -> i32 {
        self.0
    }
}

impl FromStr for Signal {
    type Err = String;

    fn from_str(text: &str) -> Result<Signal, String> {
        let signal = kill::Signal::parse(text).map_err(|error| error.to_string())?;
        match signal.number() {
            0 => Err("signal 0 stops nothing: give a name as TERM".to_owned()),
            number => Ok(Signal(number)),
        }
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match nix::sys::signal::Signal::try_from(self.0) {
            Ok(signal) => f.write_str(signal.as_str().trim_start_matches("SIG")),
            Err(_) => write!(f, "{}", self.0), // a real-time one
        }
    }
}

impl FromStr for User {
    type Err = String;

    fn from_str(text: &str) -> Result<User, String> {
        let (uid, gid) = match text.split_once(':') {
            Some((uid, gid)) => (uid, Some(gid)),
            None => (text, None),
        };
        let refused = || {
            format!(
                "must be numbers as 1000 or 1000:1000, is {text:?}: names are known only inside the image"
            )
        };
        // The last one is no id: setuid(2) takes it as "leave it".
        let id = |text: &str| text.parse::<u32>().ok().filter(|id| *id != u32::MAX);
        Ok(User {
            uid: id(uid).ok_or_else(refused)?,
            gid: gid.map(|gid| id(gid).ok_or_else(refused)).transpose()?,
        })
    }
}

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.uid)?;
        self.gid.map_or(Ok(()), |gid| write!(f, ":{gid}"))
    }
}

/// Text or a whole number, as which people give these values.
struct TextOrNumber<T>(&'static str, std::marker::PhantomData<T>);

impl<T: FromStr<Err = String>> de::Visitor<'_> for TextOrNumber<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<T, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<T, E> {
        self.visit_str(&number.to_string())
    }
}

/// Text in files, by `FromStr` and `Display`, and its place in the schema.
macro_rules! as_text {
    ($type:ident, $expecting:literal, $schema:tt) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<$type, D::Error> {
                from.deserialize_any(TextOrNumber($expecting, std::marker::PhantomData))
            }
        }

        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_generator: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        }
    };
}

as_text!(Size, "a size as \"512MiB\"", {
    "description": "A number of bytes, at most 1 EiB: \"512MiB\", \"2GB\", or a number.",
    "anyOf": [
        { "type": "string", "pattern": "^[0-9.]+ *([KMGT]i?B|kB|B)?$" },
        { "type": "integer", "minimum": 0 }
    ]
});

as_text!(Time, "a time as \"10s\"", {
    "description": "A length of time, at most a year: \"500ms\", \"1.5s\", \"1m30s\".",
    "type": "string",
    "pattern": "^(0|([0-9.]+(ns|us|µs|ms|s|m|h))+)$"
});

as_text!(Moment, "a moment as \"2030-01-31T12:00:00Z\"", {
    "description": "A moment as RFC 3339 writes it.",
    "type": "string",
    "format": "date-time"
});

as_text!(Signal, "a signal's name or number", {
    "description": "A signal by name or number: \"TERM\", \"SIGINT\", 3.",
    "type": ["string", "integer"]
});

as_text!(User, "a user as \"1000:1000\"", {
    "description": "A user's id, and a group's: \"1000\", \"1000:1000\".",
    "anyOf": [
        { "type": "string", "pattern": "^[0-9]+(:[0-9]+)?$" },
        { "type": "integer", "minimum": 0 }
    ]
});

impl Serialize for Thousandths {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_f64(self.number())
    }
}

impl<'de> Deserialize<'de> for Thousandths {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Thousandths, D::Error> {
        let number = f64::deserialize(from)?;
        if !(0.0..=1_000_000.0).contains(&number) {
            return Err(de::Error::custom(format_args!(
                "must be a number from 0 to 1000000, is {number}"
            )));
        }
        Ok(Thousandths((number * 1000.0).round() as u32))
    }
}

impl JsonSchema for Thousandths {
    fn schema_name() -> Cow<'static, str> {
        "Thousandths".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_generator: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "number", "minimum": 0 })
    }
}
