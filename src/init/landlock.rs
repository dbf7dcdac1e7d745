//! A Landlock rule set by annotation: what the program may do to files, ports and processes
//! (docs/landlock.md).
//!
//! Applied when the root is entered and before init becomes another user, as a program without
//! no-new-privileges needs a privilege for it. Paths are looked up inside. What init still does then,
//! the startContainer hooks among it, is under the rules too.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use anyhow::{Context as _, Result};
use rustix::fd::AsFd as _;
use rustix::fs::{FileType, Mode, OFlags};
use serde::{Deserialize, Serialize};

use crate::sys::Call;
use crate::sys::landlock::{Ruleset, files};

/// The annotation.
pub const ANNOTATION: &str = "dev.parhelion.landlock";

/// Where problems say it is.
const NAME: &str = "annotations[\"dev.parhelion.landlock\"]";

/// Rights that are given up, and what of them stays.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rules {
    /// Rights to files that are given up.
    pub files: u64,
    /// Rights to TCP ports that are given up.
    pub ports: u64,
    /// What outside becomes out of reach.
    pub scopes: u64,
    /// Paths inside, and the rights that stay there.
    pub paths: Vec<(String, u64)>,
    /// Ports, and the rights that stay.
    pub open: Vec<(u16, u64)>,
}

impl Rules {
    /// Takes the rules on.
    ///
    /// # Errors
    ///
    /// A path that is not there; what the kernel answered.
    pub fn apply(&self, no_new_privileges: bool) -> Result<()> {
        self.try_apply(no_new_privileges).context(NAME)
    }

    fn try_apply(&self, no_new_privileges: bool) -> Result<()> {
        let rules = Ruleset::new(self.files, self.ports, self.scopes)?;
        for (path, allowed) in &self.paths {
            let flags = OFlags::PATH | OFlags::CLOEXEC;
            let place = rustix::fs::open(path, flags, Mode::empty())
                .call(|| format!("open(\"{path}\", O_PATH)"))?;
            let stat = rustix::fs::fstat(&place).call(|| format!("fstat(\"{path}\")"))?;
            let folder = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
            let of_kind = if folder { u64::MAX } else { files::OF_FILES };
            rules
                .allow_files(place.as_fd(), allowed & of_kind)
                .with_context(|| format!("\"{path}\""))?;
        }
        for (port, allowed) in &self.open {
            rules.allow_port(*port, *allowed)?;
        }
        if no_new_privileges {
            // It is meant for the program in any case, and does for whoever lacks CAP_SYS_ADMIN.
            rustix::thread::set_no_new_privs(true)
                .call(|| "prctl(PR_SET_NO_NEW_PRIVS, 1)".to_string())?;
        }
        Ok(rules.restrict_self()?)
    }
}

#[cfg(feature = "runtime")]
mod read {
    //! From the annotation's JSON, and whether the kernel can.

    use oci_spec::runtime::Spec;
    use serde::Deserialize;

    use super::{ANNOTATION, NAME, Rules};
    use crate::error::Problems;
    use crate::sys::landlock::{files, ports, scopes, version};
    use crate::sys::{Errno, SysError};

    /// Versions of the interface, the kernels that brought them, and what they are needed for.
    const FILES: (u32, &str, &str) = (3, "6.2", "rights to files");
    const PORTS: (u32, &str, &str) = (4, "6.7", "rights to TCP ports");
    const IOCTL: (u32, &str, &str) = (5, "6.10", "ioctlDev");
    const SCOPES: (u32, &str, &str) = (6, "6.12", "scoped");

    const READ: u64 = files::READ_FILE | files::READ_DIR;
    const WRITE: u64 = READ | files::WRITE_FILE | files::TRUNCATE | files::CHANGE_DIR;

    /// The annotation's content. A list that is not there restricts nothing, an empty one all.
    #[derive(Debug, Default, Deserialize)]
    #[serde(rename_all = "camelCase", deny_unknown_fields)]
    struct Asked {
        read_only: Option<Vec<String>>,
        read_execute: Option<Vec<String>>,
        read_write: Option<Vec<String>>,
        ioctl_dev: Option<Vec<String>>,
        tcp_bind: Option<Vec<u16>>,
        tcp_connect: Option<Vec<u16>>,
        scoped: Option<Vec<Scope>>,
    }

    #[derive(Debug, Clone, Copy, Deserialize)]
    #[serde(rename_all = "camelCase")]
    enum Scope {
        AbstractUnixSocket,
        Signal,
    }

    impl Rules {
        /// What the annotation asks for, if it is there; it was checked before.
        #[must_use]
        pub fn of(spec: &Spec) -> Option<Rules> {
            Rules::from_annotation(annotation(spec)?)
        }

        /// What the annotation's text asks for, for a process that joins a container later; None for
        /// one that was not checked.
        #[must_use]
        pub fn from_annotation(text: &str) -> Option<Rules> {
            serde_json::from_str(text).ok().as_ref().map(rules)
        }
    }

    /// Notes what is wrong with the annotation, and what of it this kernel lacks.
    pub fn check_landlock(spec: &Spec, problems: &mut Problems) {
        let asked: Asked = match annotation(spec).map(serde_json::from_str) {
            None => return,
            Some(Ok(asked)) => asked,
            Some(Err(error)) => return problems.add(NAME, error.to_string()),
        };
        let rules = rules(&asked);
        if let Some((path, _)) = rules.paths.iter().find(|(path, _)| !path.starts_with('/')) {
            problems.add(NAME, format!("must list absolute paths, has {path:?}"));
        }
        if rules.files | rules.ports | rules.scopes == 0 {
            return problems.add(NAME, "gives up no right: name some, or remove it");
        }
        let needed = [
            (rules.files != 0, FILES),
            (rules.ports != 0, PORTS),
            (rules.files & files::IOCTL_DEV != 0, IOCTL),
            (rules.scopes != 0, SCOPES),
        ];
        let needed = needed.into_iter().filter(|(is_needed, _)| *is_needed);
        if let Some(lacking) = lacking(needed.map(|(_, what)| what), version()) {
            problems.add(NAME, lacking);
        }
    }

    fn annotation(spec: &Spec) -> Option<&str> {
        let annotations = spec.annotations().as_ref()?;
        annotations.get(ANNOTATION).map(String::as_str)
    }

    /// Which of what is needed this kernel lacks, in words.
    fn lacking(
        mut needed: impl Iterator<Item = (u32, &'static str, &'static str)>,
        version: Result<u32, SysError>,
    ) -> Option<String> {
        let version = match version {
            Ok(version) => version,
            Err(error) if error.errno == Errno::OPNOTSUPP => {
                return Some("Landlock is not enabled: name it in lsm= at boot".to_owned());
            }
            Err(error) if error.errno == Errno::NOSYS => {
                return Some("this kernel has no Landlock".to_owned());
            }
            Err(error) => return Some(error.to_string()),
        };
        let (needs, linux, what) = needed.find(|(needs, _, _)| *needs > version)?;
        Some(format!(
            "{what} need version {needs} of Landlock (Linux {linux}), this kernel has {version}"
        ))
    }

    fn rules(asked: &Asked) -> Rules {
        let lists = [
            (&asked.read_only, READ),
            (&asked.read_execute, READ | files::EXECUTE),
            (&asked.read_write, WRITE),
            (&asked.ioctl_dev, files::IOCTL_DEV),
        ];
        let mut rules = Rules::default();
        for (paths, allowed) in lists {
            let Some(paths) = paths else { continue };
            // Whoever restricts some of the usual rights restricts all of them.
            rules.files |= match allowed {
                files::IOCTL_DEV => files::IOCTL_DEV,
                _ => WRITE | files::EXECUTE,
            };
            rules
                .paths
                .extend(paths.iter().map(|path| (path.clone(), allowed)));
        }
        let lists = [
            (&asked.tcp_bind, ports::BIND_TCP),
            (&asked.tcp_connect, ports::CONNECT_TCP),
        ];
        for (numbers, allowed) in lists {
            let Some(numbers) = numbers else { continue };
            rules.ports |= allowed;
            rules
                .open
                .extend(numbers.iter().map(|port| (*port, allowed)));
        }
        for scope in asked.scoped.iter().flatten() {
            rules.scopes |= match scope {
                Scope::AbstractUnixSocket => scopes::ABSTRACT_UNIX_SOCKET,
                Scope::Signal => scopes::SIGNAL,
            };
        }
        rules
    }

    #[cfg(test)]
    mod tests {
        use serde_json::json;

        use super::*;

        fn spec(annotation: &str) -> Spec {
            let config = json!({"ociVersion": "1.3.0",
                "annotations": {"dev.parhelion.landlock": annotation}});
            serde_json::from_value(config).unwrap()
        }

        fn problems(annotation: &str) -> String {
            let mut problems = Problems::default();
            check_landlock(&spec(annotation), &mut problems);
            problems.to_string()
        }

        #[test]
        fn lists_become_rights_that_are_given_up_and_rights_that_stay() {
            let rules = Rules::of(&spec(
                r#"{"readOnly": ["/etc"], "readExecute": ["/bin"], "tcpBind": [80]}"#,
            ));
            let expected = Rules {
                files: WRITE | files::EXECUTE,
                ports: ports::BIND_TCP,
                scopes: 0,
                paths: vec![
                    ("/etc".into(), READ),
                    ("/bin".into(), READ | files::EXECUTE),
                ],
                open: vec![(80, ports::BIND_TCP)],
            };
            assert_eq!(rules, Some(expected));
            let rules = Rules::of(&spec(r#"{"tcpConnect": [], "scoped": ["signal"]}"#)).unwrap();
            assert_eq!((rules.files, rules.ports, rules.scopes), (0, 2, 2));
            assert_eq!(WRITE | files::EXECUTE, 0x7fff, "the rights of version 3");
            let without = serde_json::from_value(json!({"ociVersion": "1.3.0"})).unwrap();
            assert_eq!(Rules::of(&without), None);
        }

        #[test]
        fn an_annotation_without_sense_is_refused() {
            for (annotation, told) in [
                ("", "EOF while parsing a value at line 1 column 0"),
                (
                    r#"{"readonly": []}"#,
                    "unknown field `readonly`, expected one of `readOnly`, `readExecute`, \
                     `readWrite`, `ioctlDev`, `tcpBind`, `tcpConnect`, `scoped` at line 1 column 11",
                ),
                (
                    r#"{"tcpBind": [65536]}"#,
                    "invalid value: integer `65536`, expected u16 at line 1 column 18",
                ),
                ("{}", "gives up no right: name some, or remove it"),
            ] {
                assert_eq!(problems(annotation), format!("{NAME}: {told}"));
            }
            let relative = problems(r#"{"readOnly": ["etc"]}"#);
            assert!(
                relative.starts_with(&format!("{NAME}: must list absolute paths, has \"etc\"")),
                "{relative}"
            );
        }

        #[test]
        fn what_the_kernel_lacks_is_told_with_the_kernel_that_has_it() {
            let needed = || [FILES, PORTS, SCOPES].into_iter();
            assert_eq!(lacking(needed(), Ok(6)), None);
            assert_eq!(
                lacking(needed(), Ok(3)).unwrap(),
                "rights to TCP ports need version 4 of Landlock (Linux 6.7), this kernel has 3"
            );
            let error = |errno| Err(SysError::new("landlock_create_ruleset(VERSION)", errno));
            assert_eq!(
                lacking(needed(), error(Errno::NOSYS)).unwrap(),
                "this kernel has no Landlock"
            );
            assert_eq!(
                lacking(needed(), error(Errno::OPNOTSUPP)).unwrap(),
                "Landlock is not enabled: name it in lsm= at boot"
            );
        }
    }
}

#[cfg(feature = "runtime")]
pub use read::check_landlock;
