//! A user's own systemd (`systemd --user`): scopes without privileges.

use libtest_mimic::Trial;

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    Vec::new()
}
