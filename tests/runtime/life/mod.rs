//! A container's life: run, create, start, kill, pause, delete, and what is told of each step.

mod foreground;
mod signals;
mod status;

use libtest_mimic::Trial;

use crate::support::Bundle;

/// The tests of this folder.
pub fn all() -> Vec<Trial> {
    [foreground::all(), signals::all(), status::all()]
        .into_iter()
        .flatten()
        .collect()
}

/// The bundle in the host's pid namespace.
fn share_pids(bundle: &Bundle) {
    bundle.edit(|config| {
        let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|namespace| namespace["type"] != "pid");
    });
}

fn is_gone(bundle: &Bundle) -> bool {
    bundle.verb("state").failure().contains("does not exist")
}
