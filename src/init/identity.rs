//! Gives up privileges, in the one order that works.
//!
//! The bounding set first, as it needs CAP_SETPCAP, and apart from the rest, as it changes nothing but
//! what an execve can gain and takes forty calls; groups before the user, as the user loses the right
//! to change them; then exactly the sets asked for; no-new-privileges last. Only a filter of
//! system calls comes later, and what it needs is kept for it: docs/decisions/0007.

use alloc::format;
use alloc::string::ToString;
use alloc::vec::Vec;

use anyhow::{Context as _, Result};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{Gid, Mode, Uid};
use rustix::thread::{CapabilitiesSecureBits, CapabilitySet, CapabilitySets};

use super::handshake::{self, FromInit};
use super::plan::{Capabilities, Filter, Identity};
use crate::sys::channel::Channel;
use crate::sys::seccomp;
use crate::sys::{Call, Errno, SysResult};

impl Filter {
    fn has_listener(&self) -> bool {
        self.flags & seccomp::flag::NEW_LISTENER != 0
    }
}

/// The kernel has 41 capabilities today and room for 64.
const ALL: u32 = 64;

/// Without no-new-privileges a filter needs this one (seccomp(2)).
const SYS_ADMIN: u64 = CapabilitySet::SYS_ADMIN.bits();

impl Identity {
    /// The same, but able to install a filter of system calls at the end, if there is one.
    #[must_use]
    pub fn with_filter(mut self, filter: bool) -> Identity {
        if filter && !self.no_new_privileges {
            self.until_execve = SYS_ADMIN;
        }
        self
    }

    /// Takes out of the bounding set what whoever is executed from now on can not gain. Later calls
    /// do nothing.
    ///
    /// # Errors
    ///
    /// `EPERM` without CAP_SETPCAP in the user namespace.
    pub fn bound(&mut self) -> Result<()> {
        if !core::mem::replace(&mut self.is_bounded, true) {
            drop_from_bounding_set(self.capabilities.bounding)
                .context("process.capabilities.bounding")?;
        }
        Ok(())
    }

    /// Becomes this user with these capabilities, when [`Identity::bound`] was called. There is no way
    /// back.
    ///
    /// # Errors
    ///
    /// `EPERM` for an id or capability that this process may not take, `EINVAL` for an id that is
    /// not mapped in the user namespace.
    pub fn assume(&self) -> Result<()> {
        keep_capabilities()?;
        self.change_user().context("process.user")?;
        rustix::thread::set_keep_capabilities(false)
            .call(|| "prctl(PR_SET_KEEPCAPS, 0)".to_string())?;
        // Those of whoever called the runtime stay otherwise, where they are permitted and inheritable.
        rustix::thread::clear_ambient_capability_set()
            .call(|| "prctl(PR_CAP_AMBIENT_CLEAR_ALL)".to_string())?;
        let sets = self.capabilities;
        set_capabilities(sets.effective, sets.permitted | self.until_execve, sets)
            .context("process.capabilities")?;
        self.raise_ambient().context("process.capabilities")?;
        rustix::process::umask(Mode::from_raw_mode(self.umask));
        if self.no_new_privileges {
            rustix::thread::set_no_new_privs(true)
                .call(|| "prctl(PR_SET_NO_NEW_PRIVS, 1)".to_string())?;
        }
        Ok(())
    }

    /// Installs `filter`, if there is one, as the last thing before an execve. What follows is under
    /// the filter.
    pub(super) fn filter_for_execve(&self, filter: Option<&Filter>) -> Result<()> {
        match filter {
            Some(filter) if !filter.has_listener() => self.install(filter).map(drop),
            Some(_) | None => Ok(()), // installed already, or not wanted
        }
    }

    /// Installs a `filter` that has a listener, and hands that to the runtime.
    pub(super) fn filter_with_listener(
        &self,
        filter: Option<&Filter>,
        talk: &Channel,
    ) -> Result<()> {
        let Some(filter) = filter.filter(|filter| filter.has_listener()) else {
            return Ok(());
        };
        let listener = self
            .install(filter)?
            .context("seccomp(2) gave no listener")?;
        handshake::send_with(talk, &FromInit::Listener, &[listener.as_fd()])?;
        if self.until_execve != 0 {
            let sets = self.capabilities;
            set_capabilities(sets.effective, sets.permitted, sets).context("linux.seccomp")?;
        }
        Ok(())
    }

    fn install(&self, filter: &Filter) -> Result<Option<OwnedFd>> {
        if self.until_execve != 0 {
            let sets = self.capabilities;
            let (effective, permitted) = (sets.effective, sets.permitted);
            let more = self.until_execve;
            set_capabilities(effective | more, permitted | more, sets).context("linux.seccomp")?;
        }
        seccomp::load(&filter.program, filter.flags).with_context(|| filter.field.clone())
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

    fn raise_ambient(&self) -> SysResult<()> {
        for capability in bits(self.capabilities.ambient) {
            rustix::thread::configure_capability_in_ambient_set(
                CapabilitySet::from_bits_retain(1 << capability),
                true,
            )
            .call(|| format!("prctl(PR_CAP_AMBIENT_RAISE, {capability})"))?;
        }
        Ok(())
    }
}

/// Lets the change of user leave the permitted set, which capset(2) chooses from, as it is; and root of the container is what
/// it is as a rule (capabilities(7), "The securebits flags"), whatever the caller of the runtime has made of its own.
fn keep_capabilities() -> SysResult<()> {
    match rustix::thread::set_capabilities_secure_bits(CapabilitiesSecureBits::KEEP_CAPS) {
        // Without CAP_SETPCAP, or where the caller's are locked, they stay.
        Err(Errno::PERM) => rustix::thread::set_keep_capabilities(true)
            .call(|| "prctl(PR_SET_KEEPCAPS, 1)".to_string()),
        result => result.call(|| "prctl(PR_SET_SECUREBITS, KEEP_CAPS)".to_string()),
    }
}

/// Sets these two sets, and the inheritable one of `sets`.
fn set_capabilities(effective: u64, permitted: u64, sets: Capabilities) -> SysResult<()> {
    let inheritable = sets.inheritable;
    let wanted = CapabilitySets {
        effective: CapabilitySet::from_bits_retain(effective),
        permitted: CapabilitySet::from_bits_retain(permitted),
        inheritable: CapabilitySet::from_bits_retain(inheritable),
    };
    rustix::thread::set_capabilities(None, wanted).call(|| {
        format!(
            "capset(effective {effective:#x}, permitted {permitted:#x}, inheritable {inheritable:#x})"
        )
    })
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
