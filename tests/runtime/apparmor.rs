//! A profile of AppArmor for tests, made without its compiler.

use std::fs;
use std::path::PathBuf;

/// Whether this host has AppArmor.
pub fn is_enabled() -> bool {
    let enabled = fs::read("/sys/module/apparmor/parameters/enabled");
    enabled.is_ok_and(|text| text.starts_with(b"Y"))
}

/// A profile of the kernel that only notes what it would forbid; removed on drop.
pub struct Profile(String);

impl Profile {
    /// None on a host without AppArmor.
    pub fn load(name: String) -> Option<Profile> {
        if !is_enabled() {
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
