//! The arguments of `checkpoint` and `restore`, with runc's names and meaning.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::lifecycle::checkpoint::{
    CgroupsMode, CheckpointRequest, ImagesRequest, NetworkLock, RestoreRequest,
};
use crate::lifecycle::id::ContainerId;
use crate::lifecycle::{CreateRequest, ManagerChoice, RunOptions};

// What both have in common. (A doc comment would be the verb's line in the help.)
#[derive(Debug, Args)]
pub(super) struct Images {
    // Said before the verb.
    #[arg(skip)]
    pub(super) criu: Option<OsString>,
    /// Directory of the images
    #[arg(long, value_name = "DIR", default_value = "checkpoint")]
    image_path: PathBuf,
    /// Directory of criu's logs; the images' without it
    #[arg(long, value_name = "DIR")]
    work_path: Option<PathBuf>,
    /// Keep established TCP connections
    #[arg(long)]
    tcp_established: bool,
    /// Allow unix sockets that lead out of the container
    #[arg(long)]
    ext_unix_sk: bool,
    /// Its terminal or session is the caller's
    #[arg(long)]
    shell_job: bool,
    /// Keep locks on files
    #[arg(long)]
    file_locks: bool,
    /// What becomes of cgroups: soft, full, strict or ignore
    #[arg(long, value_name = "MODE", default_value = "soft", value_parser = modes())]
    manage_cgroups_mode: String,
    /// Leave out what a namespace holds: network, which always is
    #[arg(long, value_name = "TYPE", value_parser = ["network"])]
    empty_ns: Vec<String>,
    /// Free in earlier images what later ones replace
    #[arg(long)]
    auto_dedup: bool,
    /// Memory is asked for when it is used
    #[arg(long)]
    lazy_pages: bool,
}

/// The modes of `--manage-cgroups-mode`; empty is the default, as callers of runc may say it.
const MODES: [(&str, CgroupsMode); 5] = [
    ("", CgroupsMode::Soft),
    ("soft", CgroupsMode::Soft),
    ("full", CgroupsMode::Full),
    ("strict", CgroupsMode::Strict),
    ("ignore", CgroupsMode::Ignore),
];

fn modes() -> [&'static str; 5] {
    MODES.map(|(name, _)| name)
}

/// The methods of `--network-lock`.
const LOCKS: [(&str, NetworkLock); 3] = [
    ("iptables", NetworkLock::Iptables),
    ("nftables", NetworkLock::Nftables),
    ("skip", NetworkLock::Skip),
];

fn locks() -> [&'static str; 3] {
    LOCKS.map(|(name, _)| name)
}

impl Images {
    fn request(self) -> Result<ImagesRequest> {
        let mode = MODES
            .iter()
            .find(|(name, _)| *name == self.manage_cgroups_mode);
        let work = self.work_path.filter(|path| !path.as_os_str().is_empty());
        Ok(ImagesRequest {
            criu: self.criu.filter(|program| !program.is_empty()),
            images: absolute("--image-path", &self.image_path)?,
            work: work
                .map(|path| absolute("--work-path", &path))
                .transpose()?,
            tcp_established: self.tcp_established,
            external_unix_sockets: self.ext_unix_sk,
            shell_job: self.shell_job,
            file_locks: self.file_locks,
            auto_dedup: self.auto_dedup,
            lazy_pages: self.lazy_pages,
            cgroups: mode.map_or(CgroupsMode::Soft, |(_, mode)| *mode),
        })
    }
}

fn absolute(flag: &str, path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).with_context(|| format!("{flag} {path:?}"))
}

#[derive(Debug, Args)]
pub(super) struct Checkpointing {
    #[command(flatten)]
    pub(super) images: Images,
    /// Directory of earlier images, relative to --image-path
    #[arg(long, value_name = "DIR")]
    parent_path: Option<PathBuf>,
    /// The container goes on
    #[arg(long)]
    leave_running: bool,
    /// Leave out TCP connections that nobody has accepted
    #[arg(long)]
    tcp_skip_in_flight: bool,
    /// How packets of kept connections are dropped meanwhile: iptables, nftables or skip
    #[arg(long, value_name = "METHOD", value_parser = locks())]
    network_lock: Option<String>,
    /// Give files that were deleted a name, for as long as the images are kept
    #[arg(long)]
    link_remap: bool,
    /// Descriptor that gets a zero byte when pages can be asked for
    #[arg(long, value_name = "FD", allow_negative_numbers = true, default_value_t = -1)]
    status_fd: i32,
    /// Where memory is sent to, or with --lazy-pages, asked for
    #[arg(long, value_name = "ADDRESS:PORT")]
    page_server: Option<String>,
    /// Memory only, for a later checkpoint; the container goes on
    #[arg(long)]
    pre_dump: bool,
    pub(super) id: String,
}

impl Checkpointing {
    pub(super) fn request(self) -> Result<CheckpointRequest> {
        let server = self.page_server.filter(|server| !server.is_empty());
        let parent = self.parent_path.filter(|path| !path.as_os_str().is_empty());
        let lock = LOCKS
            .iter()
            .find(|(name, _)| self.network_lock.as_deref() == Some(name));
        Ok(CheckpointRequest {
            images: self.images.request()?,
            parent,
            leave_running: self.leave_running,
            tcp_skip_in_flight: self.tcp_skip_in_flight,
            network_lock: lock.map(|(_, lock)| *lock),
            link_remap: self.link_remap,
            status_fd: (self.status_fd != -1).then_some(self.status_fd),
            page_server: server.as_deref().map(page_server).transpose()?,
            pre_dump: self.pre_dump,
        })
    }
}

/// An address, in brackets if it has colons, and a port.
fn page_server(text: &str) -> Result<(String, u16)> {
    let parts = text.rsplit_once(':').and_then(|(address, port)| {
        let inner = address.strip_prefix('[').and_then(|a| a.strip_suffix(']'));
        let plain = (!address.contains([':', '[', ']'])).then_some(address);
        let address = inner.or(plain).filter(|address| !address.is_empty())?;
        Some((
            address.to_owned(),
            port.parse().ok().filter(|port| *port > 0)?,
        ))
    });
    match parts {
        Some(parts) => Ok(parts),
        None => bail!("--page-server {text:?}: must be ADDRESS:PORT, as 10.0.0.7:27"),
    }
}

#[derive(Debug, Args)]
pub(super) struct Restoring {
    #[command(flatten)]
    pub(super) images: Images,
    /// The bundle's directory
    #[arg(long, short, default_value = ".")]
    bundle: PathBuf,
    /// Unix socket that receives the terminal
    #[arg(long)]
    console_socket: Option<PathBuf>,
    /// File that receives the process id
    #[arg(long)]
    pid_file: Option<PathBuf>,
    /// Return when the container was restored
    #[arg(long, short)]
    detach: bool,
    /// Leave the container's orphans to the host
    #[arg(long)]
    no_subreaper: bool,
    /// Accepted for callers of runc: criu finds out whether pivot_root is possible
    #[arg(long)]
    no_pivot: bool,
    /// TCP connections that were kept are closed
    #[arg(long)]
    tcp_close: bool,
    /// Accepted for callers of crun: the images tell how the network was locked
    #[arg(long, value_name = "METHOD", value_parser = locks())]
    network_lock: Option<String>,
    /// Security label instead of the one that was saved, where one was
    #[arg(long, value_name = "TYPE:LABEL")]
    lsm_profile: Option<String>,
    /// SELinux context of mounts instead of the one that was saved
    #[arg(long, value_name = "CONTEXT")]
    lsm_mount_context: Option<String>,
    pub(super) id: String,
}

impl Restoring {
    pub(super) fn request(
        self,
        root: PathBuf,
        cgroup_manager: ManagerChoice,
    ) -> Result<RestoreRequest> {
        Ok(RestoreRequest {
            create: CreateRequest {
                root,
                id: ContainerId::parse(&self.id)?,
                bundle: absolute("--bundle", &self.bundle)?,
                config: None,
                console_socket: self.console_socket,
                pid_file: self.pid_file,
                pidfd_socket: None,
                preserve_fds: 0,
                no_pivot: self.no_pivot,
                no_new_keyring: false,
                cgroup_manager,
                rootless: Some(false),
                annotations: BTreeMap::new(),
                joins: Vec::new(),
            },
            options: RunOptions {
                detach: self.detach,
                keep: false,
                no_subreaper: self.no_subreaper,
            },
            images: self.images.request()?,
            tcp_close: self.tcp_close,
            lsm_profile: self.lsm_profile.filter(|profile| !profile.is_empty()),
            lsm_mount_context: self.lsm_mount_context.filter(|context| !context.is_empty()),
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    enum Verbs {
        Checkpoint(Checkpointing),
        Restore(Restoring),
    }

    fn checkpointing(words: &str) -> CheckpointRequest {
        let words = format!("parhelion checkpoint {words} web");
        match Verbs::parse_from(words.split_whitespace()) {
            Verbs::Checkpoint(checkpointing) => checkpointing.request().unwrap(),
            Verbs::Restore(_) => unreachable!("the verb is checkpoint"),
        }
    }

    fn restoring(words: &str) -> RestoreRequest {
        let words = format!("parhelion restore {words} web");
        match Verbs::parse_from(words.split_whitespace()) {
            Verbs::Restore(restoring) => restoring
                .request("/run/p".into(), ManagerChoice::Files)
                .unwrap(),
            Verbs::Checkpoint(_) => unreachable!("the verb is restore"),
        }
    }

    #[test]
    fn each_flag_is_asked_for_by_its_name_and_no_other() {
        let none = format!("{:?}", checkpointing(""));
        for (flag, field) in [
            ("--tcp-established", "tcp_established"),
            ("--ext-unix-sk", "external_unix_sockets"),
            ("--shell-job", "shell_job"),
            ("--file-locks", "file_locks"),
            ("--auto-dedup", "auto_dedup"),
            ("--lazy-pages", "lazy_pages"),
            ("--leave-running", "leave_running"),
            ("--tcp-skip-in-flight", "tcp_skip_in_flight"),
            ("--link-remap", "link_remap"),
            ("--pre-dump", "pre_dump"),
        ] {
            let asked = format!("{:?}", checkpointing(flag));
            let expected = none.replace(&format!("{field}: false"), &format!("{field}: true"));
            assert_eq!(asked, expected, "{flag}");
            assert_ne!(asked, none, "{flag}");
        }
        for (mode, cgroups) in MODES {
            let flag = format!("--manage-cgroups-mode={mode}");
            assert_eq!(checkpointing(&flag).images.cgroups, cgroups, "{mode:?}");
        }
        for (method, lock) in LOCKS {
            let flag = format!("--network-lock={method}");
            assert_eq!(checkpointing(&flag).network_lock, Some(lock), "{method}");
        }
        assert_eq!(checkpointing("").network_lock, None);
        // The network's content is left out in any case.
        assert_eq!(format!("{:?}", checkpointing("--empty-ns network")), none);
    }

    #[test]
    fn a_restore_is_given_its_labels_and_its_caller() {
        let plain = restoring("");
        assert_eq!((plain.lsm_profile, plain.lsm_mount_context), (None, None));
        assert!(!plain.options.no_subreaper && !plain.create.no_pivot && !plain.tcp_close);
        let asked = restoring(
            "--lsm-profile apparmor:web --lsm-mount-context a:b:c --no-subreaper --no-pivot \
            --tcp-close --network-lock skip",
        );
        assert_eq!(asked.lsm_profile.as_deref(), Some("apparmor:web"));
        assert_eq!(asked.lsm_mount_context.as_deref(), Some("a:b:c"));
        assert!(asked.options.no_subreaper && asked.create.no_pivot && asked.tcp_close);
    }

    #[test]
    fn a_page_server_is_an_address_and_a_port() {
        let read = |text| page_server(text).unwrap();
        assert_eq!(read("10.0.0.7:27"), ("10.0.0.7".into(), 27));
        assert_eq!(read("host:65535"), ("host".into(), 65535));
        assert_eq!(read("[::1]:9"), ("::1".into(), 9));
        for wrong in [
            "",
            ":",
            "host",
            "host:",
            ":27",
            "host:0",
            "host:65536",
            "::1:9",
            "[]:9",
        ] {
            assert!(page_server(wrong).is_err(), "{wrong:?}");
        }
    }
}
