//! Gives up privileges, in the one order that works.
//!
//! The bounding set first, as it needs CAP_SETPCAP; groups before the user, as the user loses the
//! right to change them; then exactly the sets asked for; no-new-privileges last.

use alloc::format;
use alloc::string::ToString;
use alloc::vec::Vec;

use anyhow::{Context as _, Result};
use rustix::fs::{Gid, Mode, Uid};
use rustix::thread::{CapabilitySet, CapabilitySets};

use super::plan::Identity;
use crate::sys::{Call, Errno, SysResult};

/// The kernel has 41 capabilities today and room for 64.
const ALL: u32 = 64;

impl Identity {
    /// Becomes this user with these capabilities. There is no way back.
    ///
    /// # Errors
    ///
    /// `EPERM` for an id or capability that this process may not take, `EINVAL` for an id that is
    /// not mapped in the user namespace.
    pub fn assume(&self) -> Result<()> {
        drop_from_bounding_set(self.capabilities.bounding)
            .context("process.capabilities.bounding")?;
        // Else the change of user would empty the permitted set that capset(2) chooses from.
        rustix::thread::set_keep_capabilities(true)
            .call(|| "prctl(PR_SET_KEEPCAPS, 1)".to_string())?;
        self.change_user().context("process.user")?;
        rustix::thread::set_keep_capabilities(false)
            .call(|| "prctl(PR_SET_KEEPCAPS, 0)".to_string())?;
        self.set_capabilities().context("process.capabilities")?;
        rustix::process::umask(Mode::from_raw_mode(self.umask));
        if self.no_new_privileges {
            rustix::thread::set_no_new_privs(true)
                .call(|| "prctl(PR_SET_NO_NEW_PRIVS, 1)".to_string())?;
        }
        Ok(())
    }

    fn change_user(&self) -> SysResult<()> {
        if let Some(groups) = &self.groups {
            let all: Vec<Gid> = groups.iter().map(|g| Gid::from_raw(*g)).collect();
            rustix::thread::set_thread_groups(&all).call(|| format!("setgroups({groups:?})"))?;
        }
        let gid = Gid::from_raw(self.gid);
        rustix::thread::set_thread_res_gid(gid, gid, gid)
            .call(|| format!("setresgid({0}, {0}, {0})", self.gid))?;
        let uid = Uid::from_raw(self.uid);
        rustix::thread::set_thread_res_uid(uid, uid, uid)
            .call(|| format!("setresuid({0}, {0}, {0})", self.uid))
    }

    fn set_capabilities(&self) -> SysResult<()> {
        let wanted = self.capabilities;
        let sets = CapabilitySets {
            effective: CapabilitySet::from_bits_retain(wanted.effective),
            permitted: CapabilitySet::from_bits_retain(wanted.permitted),
            inheritable: CapabilitySet::from_bits_retain(wanted.inheritable),
        };
        rustix::thread::set_capabilities(None, sets).call(|| {
            let (e, p, i) = (wanted.effective, wanted.permitted, wanted.inheritable);
            format!("capset(effective {e:#x}, permitted {p:#x}, inheritable {i:#x})")
        })?;
        for capability in bits(wanted.ambient) {
            rustix::thread::configure_capability_in_ambient_set(
                CapabilitySet::from_bits_retain(1 << capability),
                true,
            )
            .call(|| format!("prctl(PR_CAP_AMBIENT_RAISE, {capability})"))?;
        }
        Ok(())
    }
}

/// Takes every capability out of the bounding set that is not in `keep`.
fn drop_from_bounding_set(keep: u64) -> SysResult<()> {
    for capability in bits(!keep) {
        let set = CapabilitySet::from_bits_retain(1 << capability);
        match rustix::thread::remove_capability_from_bounding_set(set) {
            Err(Errno::INVAL) => break, // beyond the last one that this kernel has
            result => result.call(|| format!("prctl(PR_CAPBSET_DROP, {capability})"))?,
        }
    }
    Ok(())
}

/// The numbers of the bits that are set.
fn bits(set: u64) -> impl Iterator<Item = u32> {
    (0..ALL).filter(move |bit| set & (1 << bit) != 0)
}
