//! What a job says to its keepers: when to start again, how to stop, where the output goes. The names and the
//! defaults are those of keeper.json (docs/keeper.md).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::values::{Signal, Size, Thousandths, Time};

/// When an instance is started again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct Restart {
    /// `always`, as by default, `on-failure` or `never`.
    pub policy: Policy,
    /// Exit codes that are no failure; `[0]` by default, and at least one.
    pub success_codes: Vec<u8>,
    /// A run of this length makes earlier failures forgotten: 1ms to a year, 10s by default.
    pub good_run: Time,
    /// The waits after a program that ended by itself: 200ms, twice as long each time, up to 1m.
    pub crash: Curve,
    /// Those after one that was found to be unhealthy: 1s, up to 5m.
    pub unhealthy: Curve,
    /// Those after a container that could not be made: 1s, up to 5m.
    pub image: Curve,
}

/// After which ends an instance is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Policy {
    /// After each.
    #[default]
    Always,
    /// After a failure.
    OnFailure,
    /// After none.
    Never,
}

/// How waits grow. The first attempt after a failure never waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct Curve {
    /// The first wait: 1ms to a year, and at most `cap`; 200ms by default.
    pub base: Time,
    /// How many times longer each next one is: 1 to 1000, 2 by default.
    pub factor: Thousandths,
    /// The longest one: 1ms to a year, 1m by default.
    pub cap: Time,
    /// By which part a wait may be shorter: 0 to 1, 0.2 by default.
    pub jitter: Thousandths,
}

/// How an instance is stopped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct Stop {
    /// What the first process gets, a name or a number: `TERM` by default.
    pub signal: Signal,
    /// From the end that somebody asks for to that signal, in which it is no endpoint of services any more: 0 to a year,
    /// 0 by default.
    #[serde(skip_serializing_if = "Time::is_zero")]
    pub delay: Time,
    /// After what time every process of its cgroup is killed: 0 to a year, 10s by default.
    pub grace: Time,
}

/// Where an instance's output goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct Log {
    /// The size at which a new file is begun: 128KiB to 1TiB, 10MiB by default.
    pub max_size: Size,
    /// How many files there are at most: 1 to 1000, 5 by default.
    pub max_files: u16,
    /// What happens to a program that prints faster than its log is written.
    pub when_full: WhenFull,
}

/// What happens to a program that prints faster than its log is written, or whose log can not be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum WhenFull {
    /// It waits, as with any pipe: nothing is lost.
    #[default]
    Wait,
    /// Lines are dropped, and the log says how many.
    Drop,
}

impl Default for Restart {
    fn default() -> Self {
        let slow = Curve {
            base: Time::from_secs(1),
            cap: Time::from_secs(300),
            ..Curve::default()
        };
        Restart {
            policy: Policy::Always,
            success_codes: vec![0],
            good_run: Time::from_secs(10),
            crash: Curve::default(),
            unhealthy: slow,
            image: slow,
        }
    }
}

impl Default for Curve {
    fn default() -> Self {
        Curve {
            base: Time::from_millis(200),
            factor: Thousandths(2000),
            cap: Time::from_secs(60),
            jitter: Thousandths(200),
        }
    }
}

impl Default for Stop {
    fn default() -> Self {
        Stop {
            signal: Signal::TERM,
            delay: Time::from_secs(0),
            grace: Time::from_secs(10),
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Log {
            max_size: Size(10 << 20),
            max_files: 5,
            when_full: WhenFull::Wait,
        }
    }
}
