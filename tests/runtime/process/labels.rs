//! The program's AppArmor profile, on a host that has AppArmor; elsewhere it is refused.

use libtest_mimic::Trial;
use serde_json::json;

use crate::apparmor::Profile;
use crate::caller::start;
use crate::support::{Bundle, tests};

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    tests![
        the_program_runs_under_its_apparmor_profile,
        a_profile_is_taken_on_with_new_privileges_forbidden_too,
        a_process_that_joins_runs_under_the_profile_asked_for,
    ]
}

fn runs_under_its_profile(no_new_privileges: bool) {
    let bundle = Bundle::new("");
    let name = format!("parhelion-{}", bundle.id);
    bundle.edit(|config| {
        let process = &mut config["process"];
        process["args"] = json!(["/bin/cat", "/proc/self/attr/current"]);
        process["apparmorProfile"] = json!(name);
        process["noNewPrivileges"] = json!(no_new_privileges);
        process["user"] = json!({"uid": 1000, "gid": 1000});
    });
    match Profile::load(name.clone()) {
        Some(_loaded) => assert_eq!(bundle.run().success(), format!("{name} (complain)\n")),
        None => {
            let refused = bundle.run().failure();
            let words = "process.apparmorProfile: AppArmor is not enabled on this host";
            assert!(refused.contains(words), "{refused}");
        }
    }
}

fn the_program_runs_under_its_apparmor_profile() {
    runs_under_its_profile(false);
}

fn a_profile_is_taken_on_with_new_privileges_forbidden_too() {
    runs_under_its_profile(true);
}

/// exec --apparmor, in a container whose own program is not confined.
fn a_process_that_joins_runs_under_the_profile_asked_for() {
    let bundle = Bundle::new("sleep 100000");
    start(&bundle);
    let name = format!("parhelion-{}", bundle.id);
    let loaded = Profile::load(name.clone());
    let shown = ["/bin/cat", "/proc/self/attr/current"];
    let exec = ["exec", "--apparmor", &name, &bundle.id];
    let ran = bundle.parhelion(&[&exec[..], &shown].concat());
    match loaded {
        Some(_loaded) => assert_eq!(ran.success(), format!("{name} (complain)\n")),
        None => {
            let words = "process.apparmorProfile: AppArmor is not enabled on this host";
            assert!(ran.failure().contains(words), "{}", ran.stderr());
        }
    }
}
