//! The program as config.json's `process` describes it.

use libtest_mimic::Trial;
use serde_json::json;

use crate::support::{Bundle, tests};

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    tests![
        an_unknown_program_names_the_path_tried,
        capabilities_are_the_ones_asked_for,
    ]
}

fn an_unknown_program_names_the_path_tried() {
    let bundle = Bundle::new("");
    bundle.edit(|config| config["process"]["args"] = json!(["no-such-program"]));
    let error = bundle.create().failure();
    assert!(
        error.contains("executable file not found in $PATH (/"),
        "{error}"
    );
}

fn capabilities_are_the_ones_asked_for() {
    let bundle = Bundle::new("cat /proc/self/status");
    bundle.edit(|config| {
        let sets = [
            "bounding",
            "effective",
            "permitted",
            "inheritable",
            "ambient",
        ];
        let capabilities = &mut config["process"]["capabilities"];
        *capabilities = json!({});
        for set in sets {
            capabilities[set] = json!(["CAP_KILL"]);
        }
        config["process"]["noNewPrivileges"] = json!(true);
    });
    let seen = bundle.run().success();
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert!(
            seen.contains(&format!("{set}:\t0000000000000020")),
            "{set} in {seen}"
        );
    }
    assert!(seen.contains("NoNewPrivs:\t1"));
}
