//! What the kernel lets this process do: as root of the host, as root of a user namespace, as a user.
//!
//! Root inside a user namespace looks like root and is none where the host's own things are concerned:
//! devices, cgroups, programs for the kernel. What counts is whose capabilities they are
//! (user_namespaces(7)). Decides nothing of a container.

use std::path::Path;

use super::attributes::effective_uid;

/// The link of the first user namespace: its inode is the same at every boot (`PROC_USER_INIT_INO`).
const FIRST: &[u8] = b"user:[4026531837]";

/// Whose rights this process has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rights {
    /// Root of the host, with what capabilities it was left.
    Host,
    /// Root of a user namespace: what belongs to that namespace is its own.
    Namespace,
    /// A user without privileges.
    User,
}

impl Rights {
    /// Of this process, in which nothing changes them.
    #[must_use]
    pub fn find() -> Rights {
        if effective_uid() != 0 {
            return Rights::User;
        }
        match rustix::fs::readlink("/proc/self/ns/user", Vec::new()) {
            Ok(link) if link.as_bytes() != FIRST => Rights::Namespace,
            // Where it can not be asked, what root may not do will be said by the kernel.
            Ok(_) | Err(_) => Rights::Host,
        }
    }

    /// Whether devices can be made, limits of the whole host set, programs loaded into the kernel.
    #[must_use]
    pub fn are_the_hosts(self) -> bool {
        self == Rights::Host
    }
}

/// Whether a process in the user namespace of `process`, a folder in /proc, is refused setgroups(2),
/// as where an ordinary user has mapped a group without help.
#[must_use]
pub fn setgroups_is_denied(process: &str) -> bool {
    let file = Path::new("/proc").join(process).join("setgroups");
    // A kernel without the file (before Linux 3.19) denies it to nobody.
    std::fs::read(file).is_ok_and(|text| text.starts_with(b"deny"))
}
