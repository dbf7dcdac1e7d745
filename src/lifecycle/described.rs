//! Where the process that `exec` executes is described: in a file, or in config.json, changed by the
//! command line. What it says is checked like config.json itself, by whoever reads the bundle.

use std::path::PathBuf;

use anyhow::Result;
use serde_json::{Value, json};

use crate::bundle;

/// Where the process is described.
#[derive(Debug, Clone)]
pub enum Given {
    /// In a file, as config.json's `process`.
    File(PathBuf),
    /// In the bundle's config.json, with these changes.
    Changed(Changes),
}

/// What differs from config.json's `process`.
#[derive(Debug, Clone, Default)]
pub struct Changes {
    /// The program and its arguments.
    pub args: Vec<String>,
    /// Working directory.
    pub cwd: Option<String>,
    /// Added to the environment, `NAME=value`.
    pub env: Vec<String>,
    /// With a terminal.
    pub terminal: bool,
    /// User, and group if one is named.
    pub user: Option<(u32, Option<u32>)>,
    /// Added groups.
    pub additional_gids: Vec<u32>,
    /// Added capabilities: bounding, effective and permitted. Not inheritable, which would outlive a
    /// change of user (CVE-2022-29162).
    pub capabilities: Vec<String>,
    /// Privileges can not be raised.
    pub no_new_privileges: bool,
    /// AppArmor profile.
    pub apparmor: Option<String>,
    /// SELinux label.
    pub label: Option<String>,
}

impl Given {
    /// What stands in messages after the name of config.json.
    pub(super) fn origin(&self) -> String {
        match self {
            Given::File(path) => format!(" with --process {path:?}"),
            Given::Changed(_) => " with the command line".to_owned(),
        }
    }

    /// Makes the process of config.json the one that is executed.
    pub(super) fn apply(&self, process: &mut Value) -> Result<()> {
        match self {
            Given::File(path) => *process = bundle::read_object(path)?,
            Given::Changed(changes) if process.is_object() => changes.apply(process),
            Given::Changed(_) => {} // it is missing, as the checks will say
        }
        Ok(())
    }
}

impl Changes {
    fn apply(&self, process: &mut Value) {
        process["args"] = json!(self.args);
        process["terminal"] = json!(self.terminal);
        if !self.terminal
            && let Some(fields) = process.as_object_mut()
        {
            fields.remove("consoleSize");
        }
        if let Some(cwd) = &self.cwd {
            process["cwd"] = json!(cwd);
        }
        if let Some((uid, gid)) = self.user {
            process["user"]["uid"] = json!(uid);
            if let Some(gid) = gid {
                process["user"]["gid"] = json!(gid);
            }
        }
        if self.no_new_privileges {
            process["noNewPrivileges"] = json!(true);
        }
        let texts = [
            ("apparmorProfile", &self.apparmor),
            ("selinuxLabel", &self.label),
        ];
        for (field, text) in texts {
            if let Some(text) = text {
                process[field] = json!(text);
            }
        }
        append(&mut process["env"], &self.env);
        append(
            &mut process["user"]["additionalGids"],
            &self.additional_gids,
        );
        for set in ["bounding", "effective", "permitted"] {
            if !self.capabilities.is_empty() {
                append(&mut process["capabilities"][set], &self.capabilities);
            }
        }
    }
}

/// Adds to an array, which is made if it is missing.
fn append<T: serde::Serialize>(array: &mut Value, more: &[T]) {
    if more.is_empty() {
        return;
    }
    let all = array.as_array().into_iter().flatten().cloned();
    *array = all.chain(more.iter().map(|one| json!(one))).collect();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_made_where_config_json_has_its_process() {
        let mut process = json!({"args": ["web"], "cwd": "/", "env": ["A=1"],
            "consoleSize": {"height": 1, "width": 1}, "user": {"uid": 7, "gid": 8},
            "capabilities": {"bounding": ["CAP_KILL"]}});
        Changes {
            args: vec!["sh".into()],
            env: vec!["B=2".into()],
            user: Some((5, None)),
            additional_gids: vec![9],
            capabilities: vec!["CAP_CHOWN".into()],
            apparmor: Some("web".into()),
            label: Some("a_u:b_r:c_t:s0".into()),
            ..Changes::default()
        }
        .apply(&mut process);
        let expected = json!({"args": ["sh"], "cwd": "/", "env": ["A=1", "B=2"], "terminal": false,
            "user": {"uid": 5, "gid": 8, "additionalGids": [9]},
            "capabilities": {"bounding": ["CAP_KILL", "CAP_CHOWN"], "effective": ["CAP_CHOWN"],
                "permitted": ["CAP_CHOWN"]},
            "apparmorProfile": "web", "selinuxLabel": "a_u:b_r:c_t:s0"});
        assert_eq!(process, expected);
    }
}
