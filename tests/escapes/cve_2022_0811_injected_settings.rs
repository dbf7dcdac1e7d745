//! CVE-2022-0811 (CRI-O): the value of one kernel parameter holds another, as values are joined to a list by a separator. Here
//! one value is one write to one file. (Properties of systemd's units, CVE-2024-3154: tests/runtime/systemd.)

use std::fs;

use libtest_mimic::Trial;
use serde_json::json;

use crate::subject::Subject;
use crate::support::tests;

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    tests![a_kernel_parameters_value_sets_no_other]
}

const OTHERS: [&str; 2] = [
    "/proc/sys/kernel/core_pattern",
    "/proc/sys/fs/pipe-max-size",
];

fn a_kernel_parameters_value_sets_no_other() {
    let read = || OTHERS.map(|file| fs::read_to_string(file).unwrap());
    let before = read();
    for separator in ["+", ",", "\n", " ", "\0"] {
        // The value that it has, so that nothing is harmed if it is set.
        let value = format!("name{separator}fs.pipe-max-size={}", before[1].trim());
        let bundle = Subject::Real.bundle("cat /proc/sys/kernel/domainname");
        bundle.edit(|config| config["linux"]["sysctl"] = json!({"kernel.domainname": value}));
        let ran = bundle.run();
        // What the kernel takes, it takes as a whole: up to the end of a line.
        if ran.code() == Some(0) {
            let whole = value.split(['\n', '\0']).next().unwrap();
            assert_eq!(ran.success(), format!("{whole}\n"), "{separator:?}");
        }
        assert_eq!(read(), before, "{separator:?}");
    }
    // Parameters that are the host's are refused by name.
    let bundle = Subject::Real.bundle("true");
    let others =
        json!({"kernel.core_pattern": before[0].trim(), "fs.pipe-max-size": before[1].trim()});
    bundle.edit(|config| config["linux"]["sysctl"] = others);
    let error = bundle.run().failure();
    for name in ["kernel.core_pattern", "fs.pipe-max-size"] {
        assert!(error.contains(name), "{name} not in {error}");
    }
}
