//! `securityOpt`, in the words of `docker run --security-opt`.

use super::{Import, Options};
use crate::job::Seccomp;

pub(super) fn options(import: &mut Import, _options: &Options) {
    let given: Vec<String> = import.take("securityOpt").unwrap_or_default();
    let mut label: [Option<String>; 4] = Default::default();
    for (i, option) in given.iter().enumerate() {
        let path = format!("securityOpt[{i}]");
        // Docker took a colon first, and takes an equals sign now.
        let (key, value) = option.split_once(['=', ':']).unwrap_or((option, ""));
        match (key, value) {
            ("no-new-privileges", "" | "true") => import.task.no_new_privileges = Some(true),
            ("no-new-privileges", "false") => import.task.no_new_privileges = Some(false),
            ("apparmor", "") => import.problem(path, "must name a profile"),
            ("apparmor", profile) => import.task.apparmor = Some(profile.to_owned()),
            ("seccomp", profile) => seccomp(import, path, profile),
            ("label", "disable") => import.note(path, "there is no label but the bundle's"),
            ("label", part) => {
                let part = part.split_once([':', '=']);
                let kinds = ["user", "role", "type", "level"];
                let at = part.and_then(|(kind, _)| kinds.iter().position(|k| *k == kind));
                match (at, part) {
                    (Some(at), Some((_, value))) => label[at] = Some(value.to_owned()),
                    _ => import.problem(
                        path,
                        "must be label:user:, label:role:, label:type: or label:level:",
                    ),
                }
            }
            _ => import.problem(
                path,
                format!("{option:?} is not known: label, apparmor, seccomp or no-new-privileges"),
            ),
        }
    }
    match label {
        [None, None, None, None] => {}
        [Some(user), Some(role), Some(kind), Some(level)] => {
            import.task.selinux = Some(format!("{user}:{role}:{kind}:{level}"));
        }
        _ => import.problem(
            "securityOpt",
            "must have label:user:, label:role:, label:type: and label:level:, as there is no other label to change",
        ),
    }
}

fn seccomp(import: &mut Import, path: String, profile: &str) {
    if profile == "unconfined" {
        import.task.seccomp = Some(Seccomp::unconfined());
        return;
    }
    match serde_json::from_str(profile) {
        Ok(profile) => import.task.seccomp = Some(Seccomp::Profile(profile)),
        Err(_) => import.problem(
            path,
            "must be seccomp=unconfined, or a profile itself as JSON",
        ),
    }
}
