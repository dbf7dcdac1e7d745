//! The six lists of hooks. config.md, "POSIX-platform Hooks".
//!
//! Path and timeout are rows of the table. Whether the path exists is seen when the hook runs:
//! it may be made by an earlier hook, or lie inside the container.

use serde_json::Value;

use super::items;
use super::process::environment;
use crate::bundle::report::Report;

/// All rules on `hooks`.
pub(super) fn check(config: &Value, report: &mut Report) {
    for (name, list) in config["hooks"].as_object().into_iter().flatten() {
        for (i, hook) in items(list) {
            environment(&hook["env"], &format!("hooks.{name}[{i}].env"), report);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::bundle::tests::{base, problems, with};

    #[test]
    fn hooks_are_checked() {
        let hooks = json!({
            "createRuntime": [{ "path": "bin/true" }, { "path": "/bin/true", "timeout": 0 }],
            "poststop": [{ "path": "/bin/true", "args": [1], "env": ["A"] }],
            "preStart": [{}],
        });
        let config = with(base(), "/hooks", hooks);
        assert_eq!(
            problems(config),
            "hooks.createRuntime[0].path: must be an absolute path, is \"bin/true\"\n\
         hooks.createRuntime[1].timeout: must be a whole number from 1 to 9223372036854775807, \
         is 0\n\
         hooks.poststop[0].args[0]: must be a string, is 1\n\
         hooks.poststop[0].env[0]: must have the form NAME=VALUE, is \"A\""
        );
    }
}
