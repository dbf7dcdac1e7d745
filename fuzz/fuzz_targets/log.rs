//! Lines of the log and of standard error: one line each, without a control character, and the JSON ones
//! say what was meant.

#![no_main]

use libfuzzer_sys::fuzz_target;
use parhelion::error::{Level, LogFormat, fuzzing};
use serde_json::Value;

fuzz_target!(|data: &[u8]| {
    let Some((choice, data)) = data.split_first() else {
        return;
    };
    let message = String::from_utf8_lossy(data);
    let level = Level::ALL[usize::from(choice % 4)];
    for format in [LogFormat::Json, LogFormat::Text] {
        let line = fuzzing::log_line(format, level, &message);
        let line = line.strip_suffix('\n').expect("a line has an end");
        assert!(!line.chars().any(char::is_control), "{format:?}: {line:?}");
        let quoted = match format {
            LogFormat::Json => line.to_owned(),
            LogFormat::Text => {
                let at = line.find(" msg=").expect("a line has a message");
                format!("{{\"msg\":{}}}", &line[at + 5..])
            }
        };
        let read: Value = serde_json::from_str(&quoted).expect("it is JSON");
        assert_eq!(read["msg"].as_str(), Some(&*message));
        if format == LogFormat::Json {
            assert_eq!(read["level"].as_str(), Some(level.name()));
        }
    }
    let line = fuzzing::one_line(&message);
    assert!(!line.chars().any(char::is_control), "{line:?}");
});
