//! The program's AppArmor profile, on a host that has AppArmor; elsewhere it is refused.

use std::fs;
use std::path::PathBuf;

use libtest_mimic::Trial;
use serde_json::json;

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

/// A profile of the kernel that only notes what it would forbid; removed on drop.
pub struct Profile(String);

impl Profile {
    /// None on a host without AppArmor.
    pub fn load(name: String) -> Option<Profile> {
        let enabled = fs::read("/sys/module/apparmor/parameters/enabled").ok()?;
        if !enabled.starts_with(b"Y") {
            return None;
        }
        // One write: the kernel takes it as a whole.
        fs::write(policy(".load"), compiled(&name)).unwrap();
        Some(Profile(name))
    }
}

impl Drop for Profile {
    fn drop(&mut self) {
        fs::write(policy(".remove"), &self.0).unwrap();
    }
}

fn policy(file: &str) -> PathBuf {
    PathBuf::from("/sys/kernel/security/apparmor").join(file)
}

/// The smallest profile that the kernel takes (security/apparmor/policy_unpack.c), in complain mode.
fn compiled(name: &str) -> Vec<u8> {
    const U32: u8 = 2;
    const NAME: u8 = 4;
    const STRING: u8 = 5;
    const STRUCT: u8 = 7;
    const END: u8 = 8;
    const VERSION: u32 = 5;
    const COMPLAIN: u32 = 1;
    let text = |code: u8, text: &str| {
        let length = text.len() as u16 + 1;
        [&[code], &length.to_le_bytes()[..], text.as_bytes(), &[0]].concat()
    };
    let number = |value: u32| [&[U32], &value.to_le_bytes()[..]].concat();
    let (flags, audit) = (0, 0);
    let capabilities = number(0).repeat(4);
    [
        text(NAME, "version"),
        number(VERSION),
        text(NAME, "profile"),
        vec![STRUCT],
        text(STRING, name),
        text(NAME, "flags"),
        vec![STRUCT],
        number(flags),
        number(COMPLAIN),
        number(audit),
        vec![END],
        capabilities,
        vec![END],
    ]
    .concat()
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
