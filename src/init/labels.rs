//! Which AppArmor profile and SELinux label the program gets, both at its `execve`.
//!
//! Written through the host's procfs, which the runtime opened before the clone: what an image puts
//! at /proc would take the label and leave the program without one (CVE-2019-16884).

use alloc::format;
use alloc::string::String;

use anyhow::{Context as _, Result};
use rustix::fd::BorrowedFd;
use rustix::fs::{Mode, OFlags, ResolveFlags};
use serde::{Deserialize, Serialize};

use crate::sys::weakened::{Mitigation, is_off};
use crate::sys::{Call, Errno, SysResult};

/// What the program gets; None: what its file and the policy say.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Labels {
    /// `process.apparmorProfile`.
    pub apparmor: Option<String>,
    /// `process.selinuxLabel`.
    pub selinux: Option<String>,
}

impl Labels {
    /// Asks for the labels at the next execve of this process, or of a child of it.
    ///
    /// # Errors
    ///
    /// What the kernel answered; the field is named. `ENOENT` for a profile that is not loaded.
    pub fn apply(&self, host_proc: BorrowedFd<'_>) -> Result<()> {
        if let Some(profile) = &self.apparmor {
            let value = format!("exec {profile}");
            // Its own file where several modules share the old one (Linux 5.8).
            match write(host_proc, "apparmor/exec", &value) {
                Err(error) if error.errno == Errno::NOENT && error.call.starts_with("open") => {
                    write(host_proc, "exec", &value)
                }
                written => written,
            }
            .context("process.apparmorProfile")?;
        }
        if let Some(label) = &self.selinux {
            write(host_proc, "exec", label).context("process.selinuxLabel")?;
        }
        Ok(())
    }

    /// Makes the keys that `work` makes those of the program's label.
    ///
    /// # Errors
    ///
    /// Those of `work`, and what the kernel answered.
    pub fn with_keys(
        &self,
        host_proc: BorrowedFd<'_>,
        work: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        let Some(label) = &self.selinux else {
            return work();
        };
        write(host_proc, "keycreate", label).context("process.selinuxLabel")?;
        work()?;
        write(host_proc, "keycreate", "").context("process.selinuxLabel")
    }
}

/// Writes to a file of this thread's security attributes (proc(5), /proc/PID/attr).
fn write(host_proc: BorrowedFd<'_>, file: &str, value: &str) -> SysResult<()> {
    let path = format!("thread-self/attr/{file}");
    // thread-self is a link, and a plain one.
    let resolve = match is_off(Mitigation::HostProc) {
        true => ResolveFlags::empty(),
        false => ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV,
    };
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    let opened = rustix::fs::openat2(host_proc, &path, flags, Mode::empty(), resolve)
        .call(|| format!("openat2(\"/proc/{path}\")"))?;
    rustix::io::write(&opened, value.as_bytes())
        .call(|| format!("write(\"/proc/{path}\", \"{value}\")"))
        .map(drop)
}

#[cfg(feature = "runtime")]
mod read {
    //! From config.json, and whether the host can.

    use oci_spec::runtime::{Process, Spec};

    use super::Labels;
    use crate::error::Problems;

    /// linux/magic.h, `SELINUX_MAGIC`.
    const SELINUX_MAGIC: u64 = 0xf97c_ff8c;

    impl Labels {
        /// What config.json asks for.
        #[must_use]
        pub fn of(process: &Process) -> Labels {
            Labels {
                apparmor: process.apparmor_profile().clone(),
                selinux: process.selinux_label().clone(),
            }
        }
    }

    /// Notes each label that asks for a security module which this host does not have.
    pub fn check_labels(spec: &Spec, problems: &mut Problems) {
        let process = spec.process().as_ref();
        let linux = spec.linux().as_ref();
        if process.is_some_and(|p| p.apparmor_profile().is_some()) && !has_apparmor() {
            let message = "AppArmor is not enabled on this host: remove the profile";
            problems.add("process.apparmorProfile", message);
        }
        let selinux = [
            (
                "process.selinuxLabel",
                process.is_some_and(|p| p.selinux_label().is_some()),
            ),
            (
                "linux.mountLabel",
                linux.is_some_and(|l| l.mount_label().is_some()),
            ),
        ];
        for (field, _) in selinux.into_iter().filter(|(_, asked)| *asked) {
            if !has_selinux() {
                problems.add(
                    field,
                    "SELinux is not enabled on this host: remove the label",
                );
            }
        }
    }

    fn has_apparmor() -> bool {
        let enabled = std::fs::read("/sys/module/apparmor/parameters/enabled");
        enabled.is_ok_and(|text| text.starts_with(b"Y"))
    }

    fn has_selinux() -> bool {
        let found = rustix::fs::statfs("/sys/fs/selinux");
        found.is_ok_and(|found| found.f_type as u64 == SELINUX_MAGIC)
    }
}

#[cfg(feature = "runtime")]
pub use read::check_labels;

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::fd::AsFd;

    use super::*;

    /// A folder with the files of a thread's attributes in place of procfs: for SELinux, which no host of
    /// the tests has.
    #[test]
    fn labels_are_asked_for_in_the_attributes_of_the_thread() {
        let proc = std::env::temp_dir().join(format!("parhelion-labels-{}", std::process::id()));
        let attributes = proc.join("thread-self/attr");
        fs::create_dir_all(&attributes).unwrap();
        for file in ["exec", "keycreate"] {
            fs::write(attributes.join(file), "").unwrap();
        }
        let read = |file: &str| fs::read_to_string(attributes.join(file)).unwrap();
        let host_proc = fs::File::open(&proc).unwrap();
        let label = "system_u:system_r:container_t:s0:c1,c2";
        let labels = Labels {
            apparmor: None,
            selinux: Some(label.into()),
        };
        labels.apply(host_proc.as_fd()).unwrap();
        assert_eq!(read("exec"), label);
        let made = labels.with_keys(host_proc.as_fd(), || {
            assert_eq!(read("keycreate"), label);
            Ok(())
        });
        made.unwrap();

        let labels = Labels {
            apparmor: Some("web".into()),
            selinux: None,
        };
        fs::write(attributes.join("exec"), "").unwrap();
        labels.apply(host_proc.as_fd()).unwrap();
        assert_eq!(
            read("exec"),
            "exec web",
            "the only file of kernels before 5.8"
        );
        fs::create_dir(attributes.join("apparmor")).unwrap();
        fs::write(attributes.join("apparmor/exec"), "").unwrap();
        labels.apply(host_proc.as_fd()).unwrap();
        assert_eq!(read("apparmor/exec"), "exec web");
        fs::remove_dir_all(&proc).unwrap();
    }
}
