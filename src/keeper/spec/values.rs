//! Values of `keeper.json` that have a range or a form of their own: each is read, or refused with its place.

use std::fmt::Display;
use std::time::Duration;

use serde::{Deserialize, Deserializer};

use crate::lifecycle::duration;
use crate::lifecycle::id::ContainerId;
use crate::lifecycle::kill::Signal;

/// The shortest time from one failure to the next attempt that can be asked for: a loop without any wait
/// would take a processor.
const SHORTEST: Duration = Duration::from_millis(1);

/// The longest time that can be asked for.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

/// The longest name of a task.
const NAME: usize = 63;

fn refuse<E: serde::de::Error>(problem: impl Display) -> E {
    E::custom(problem)
}

pub(super) fn id<'de, D: Deserializer<'de>>(from: D) -> Result<ContainerId, D::Error> {
    let text = String::deserialize(from)?;
    ContainerId::parse(&text).map_err(refuse)
}

pub(super) fn only_id<'de, D: Deserializer<'de>>(from: D) -> Result<Option<ContainerId>, D::Error> {
    id(from).map(Some)
}

pub(super) fn name<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    let text = String::deserialize(from)?;
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let begins = text.starts_with(|c: char| c.is_ascii_alphanumeric());
    if !begins || text.len() > NAME || !text.chars().all(allowed) {
        return Err(refuse(format_args!(
            "must be 1 to {NAME} letters, digits, - _ and ., the first a letter or digit, is {text:?}"
        )));
    }
    Ok(Some(text))
}

pub(super) fn own_signal<'de, D: Deserializer<'de>>(from: D) -> Result<Option<i32>, D::Error> {
    signal(from).map(Some)
}

pub(super) fn signal<'de, D: Deserializer<'de>>(from: D) -> Result<i32, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "must be a signal's name or number")]
    enum NameOrNumber {
        Name(String),
        Number(i32),
    }
    let text = match NameOrNumber::deserialize(from)? {
        NameOrNumber::Name(name) => name,
        NameOrNumber::Number(number) => number.to_string(),
    };
    match Signal::parse(&text).map_err(refuse)?.number() {
        0 => Err(refuse("signal 0 stops nothing: give a name as TERM")),
        number => Ok(number),
    }
}

pub(super) fn codes<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
    let codes = Vec::<u8>::deserialize(from)?;
    if codes.is_empty() {
        return Err(refuse("must have at least one code, as [0]"));
    }
    Ok(codes)
}

pub(super) fn time<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(from)?;
    let time = duration::parse(&text).filter(|time| *time <= LONGEST);
    time.ok_or_else(|| {
        refuse(format_args!(
            "must be a time up to a year as 500ms, 5s or 1m30s, is {text:?}"
        ))
    })
}

pub(super) fn wait<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    let wait = time(from)?;
    if wait < SHORTEST {
        return Err(refuse(format_args!("must be at least 1ms, is {wait:?}")));
    }
    Ok(wait)
}

fn in_range<'de, D, T>(from: D, range: std::ops::RangeInclusive<T>) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + PartialOrd + Display,
{
    let value = T::deserialize(from)?;
    if !range.contains(&value) {
        let (least, most) = range.into_inner();
        return Err(refuse(format_args!(
            "must be from {least} to {most}, is {value}"
        )));
    }
    Ok(value)
}

pub(super) fn factor<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    in_range(from, 1.0..=1000.0)
}

pub(super) fn part<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    in_range(from, 0.0..=1.0)
}

pub(super) fn size<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    in_range(from, 128 << 10..=1 << 40)
}

pub(super) fn files<'de, D: Deserializer<'de>>(from: D) -> Result<u16, D::Error> {
    in_range(from, 1..=1000)
}
