//! The SELinux label of restored processes, which a CRIU without libselinux leaves out without a word.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};

use anyhow::{Context, Result, bail};
use oci_spec::runtime::Spec;
use rustix::process::{Signal, pidfd_send_signal};

use crate::lifecycle::foreground::Child;

/// Where the kernel tells how it writes a label.
const CONTEXT: &str = "/sys/fs/selinux/context";

/// The label that the first process is to have; None where none was asked for.
pub(super) fn wanted(spec: &Spec, profile: Option<&str>) -> Option<String> {
    match profile {
        Some(profile) => profile.strip_prefix("selinux:").map(str::to_owned),
        None => spec.process().as_ref()?.selinux_label().clone(),
    }
}

/// Sees to it that a process which does not run yet has its label. It ends otherwise: CRIU would let it go on
/// whatever is answered.
///
/// # Errors
///
/// It has another one.
pub(super) fn check(init: &Child, wanted: &str) -> Result<()> {
    let path = format!("/proc/{}/attr/current", init.pid);
    let found = fs::read_to_string(&path).with_context(|| path.clone());
    let found = found.map(|found| found.trim_end_matches(['\0', '\n']).to_owned());
    match found {
        Ok(found) if found == canonical(wanted).unwrap_or_else(|_| wanted.to_owned()) => Ok(()),
        other => {
            pidfd_send_signal(&init.pidfd, Signal::KILL).context("pidfd_send_signal")?;
            let found = other?;
            bail!(
                "process.selinuxLabel: criu has restored the process under {found:?}, and not {wanted:?}: a \
                 criu that was built with libselinux is needed"
            )
        }
    }
}

/// The label as the kernel writes it.
fn canonical(label: &str) -> std::io::Result<String> {
    let mut file = File::options().read(true).write(true).open(CONTEXT)?;
    file.write_all(label.as_bytes())?;
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    Ok(text.trim_end_matches('\0').to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_profile_of_selinux_is_in_the_place_of_the_containers_label() {
        let label = "system_u:system_r:container_t:s0:c1,c2";
        let spec = |label: Option<&str>| -> Spec {
            let process = json!({"user": {"uid": 0, "gid": 0}, "cwd": "/", "selinuxLabel": label});
            serde_json::from_value(json!({"ociVersion": "1.3.0", "process": process})).unwrap()
        };
        assert_eq!(wanted(&spec(Some(label)), None).as_deref(), Some(label));
        assert_eq!(wanted(&spec(None), None), None);
        let other = wanted(&spec(Some(label)), Some("selinux:a:b:c"));
        assert_eq!(other.as_deref(), Some("a:b:c"));
        assert_eq!(wanted(&spec(Some(label)), Some("apparmor:web")), None);
    }
}
