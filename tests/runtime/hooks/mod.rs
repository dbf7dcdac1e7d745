//! The six hooks: their namespaces, their stdin, their timeouts, and what a failure means.

mod failures;
mod run;

use std::fs;

use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::caller::start;
use crate::support::{Bundle, HOOKS};

/// The tests of this folder.
pub fn all() -> Vec<Trial> {
    [run::all(), failures::all()]
        .into_iter()
        .flatten()
        .collect()
}

/// A bundle whose program sleeps and whose root can be written to.
fn sleeping() -> Bundle {
    let bundle = Bundle::new("sleep 1000");
    bundle.edit(|config| {
        config["root"]["readonly"] = json!(false);
        config["hooks"] = json!({});
    });
    bundle
}

/// A hook that runs `script` in the image's shell, or the same shell seen from outside.
fn shell(bundle: &Bundle, name: &str, script: &str) -> Value {
    let path = match name {
        "startContainer" => "/bin/sh".to_owned(),
        _ => format!("{}/rootfs/bin/sh", bundle.path()),
    };
    json!({"path": path, "args": ["sh", "-c", script, name], "env": ["PATH=/bin:/usr/bin"]})
}

/// A hook that appends what `script` prints to the file /seen of the image, after its own name.
fn recorder(bundle: &Bundle, name: &str, script: &str) -> Value {
    let root = match name {
        "startContainer" => String::new(),
        _ => format!("{}/rootfs", bundle.path()),
    };
    let script = format!("{{ echo hook $0; {script}; }} >>{root}/seen 2>&1");
    shell(bundle, name, &script)
}

/// Adds hooks to those that the bundle has.
fn add(bundle: &Bundle, name: &str, hooks: &[Value]) {
    bundle.edit(|config| config["hooks"][name] = json!(hooks));
}

fn record_all(bundle: &Bundle, script: &str) {
    for name in HOOKS {
        add(bundle, name, &[recorder(bundle, name, script)]);
    }
}

fn seen(bundle: &Bundle) -> String {
    fs::read_to_string(bundle.folder.join("rootfs/seen")).unwrap_or_default()
}

/// What each hook has recorded, in the order in which they ran.
fn seen_by_each(bundle: &Bundle) -> Vec<(String, String)> {
    let all = seen(bundle);
    let each = all.split("hook ").filter(|part| !part.is_empty());
    each.map(|part| part.split_once('\n').unwrap())
        .map(|(name, text)| (name.to_owned(), text.to_owned()))
        .collect()
}

fn live_and_die(bundle: &Bundle) {
    start(bundle);
    let force = ["delete", "--force", &bundle.id];
    bundle.parhelion(&force).success();
}
