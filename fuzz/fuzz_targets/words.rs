//! Words of the command line: signals, users, ids, durations and the patterns of --regex.

#![no_main]

use libfuzzer_sys::fuzz_target;
use parhelion::lifecycle::id::ContainerId;
use parhelion::lifecycle::kill::Signal;
use parhelion::lifecycle::select::Pattern;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Ok(signal) = Signal::parse(text) {
        assert!((0..=64).contains(&signal.number()), "{text:?}");
        let again = Signal::parse(&signal.number().to_string()).map(Signal::number);
        assert_eq!(again.ok(), Some(signal.number()));
    }
    if let Ok((uid, gid)) = parhelion::cli::fuzzing::user(text) {
        // Leading zeros aside, it is written so.
        let written = match gid {
            Some(gid) => format!("{uid}:{gid}"),
            None => uid.to_string(),
        };
        let trimmed = text
            .split(':')
            .map(|part| match part.trim_start_matches('0') {
                "" => "0",
                digits => digits,
            });
        assert_eq!(trimmed.collect::<Vec<_>>().join(":"), written);
    }
    if let Ok(id) = ContainerId::parse(text) {
        let path = std::path::Path::new(id.as_str());
        assert_eq!(path.file_name(), Some(path.as_os_str()), "{text:?}");
        assert!(!text.contains('\0') && text.len() <= 255);
    }
    if let Some(time) = parhelion::lifecycle::fuzzing::duration(text) {
        assert!(time.as_nanos() <= i64::MAX as u128 + 1, "{text:?}");
    }
    if let Ok(pattern) = Pattern::parse(text) {
        for id in ["", "web", "web-07", &"a".repeat(255)] {
            let _ = pattern.selects(id);
        }
    }
});
