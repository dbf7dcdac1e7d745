//! Mount options: the attributes of a mount are those of the last word about each, and what is left for the
//! file system has no word of the table.
//!
//! Input is lines: the type of the mount, its source, then one option each.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use parhelion::lifecycle::fuzzing::Place;
use parhelion::rootfs::{Effect, MOUNT_OPTIONS, Source};
use serde_json::{Value, json};

thread_local! {
    static PLACE: Place = Place::in_silence();
}

static CONFIG: LazyLock<Value> = LazyLock::new(|| {
    let text = include_str!("../seeds/config/default.json");
    serde_json::from_str(text).expect("the seed is JSON")
});

fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    let mut lines = text.split('\n');
    let (kind, source) = (lines.next().unwrap_or(""), lines.next().unwrap_or(""));
    let words: Vec<&str> = lines.collect();
    let mut config = CONFIG.clone();
    let mount =
        json!({ "destination": "/target", "type": kind, "source": source, "options": words });
    config["mounts"] = json!([mount]);
    let config = serde_json::to_vec(&config).expect("it was JSON");
    let Some(planned) = PLACE.with(|place| place.plan(&config, 0)) else {
        return;
    };
    let [mount] = planned.rootfs.mounts.as_slice() else {
        panic!("{} mounts are planned", planned.rootfs.mounts.len());
    };
    match &mount.source {
        Source::New(new) => {
            for (bit, wanted) in asked(&words) {
                let found = new.attributes.set & bit != 0;
                assert_eq!(found, wanted, "attribute {bit:#x} of {words:?}");
            }
            for option in &new.options {
                let ours = own_word(option);
                assert!(
                    !ours || option == "ro",
                    "{option:?} is no option of {kind:?}"
                );
            }
        }
        Source::Tree(tree) => {
            for (bit, wanted) in asked(&words) {
                let found = tree.attributes.set & bit != 0;
                assert_eq!(found, wanted, "attribute {bit:#x} of {words:?}");
                let lost = (tree.attributes.clear | tree.lifted) & bit != 0;
                assert!(wanted || lost, "attribute {bit:#x} stays by {words:?}");
            }
            let both = tree.attributes.set & tree.attributes.clear & !access_time();
            assert_eq!(both, 0, "set and cleared by {words:?}");
        }
        Source::Remount { attributes, .. } => {
            for (bit, wanted) in asked(&words) {
                assert_eq!(attributes.set & bit != 0, wanted, "{bit:#x} of {words:?}");
            }
        }
        Source::Link(text) => assert!(!text.is_empty()),
    }
});

/// `MOUNT_ATTR__ATIME` of linux/mount.h: three values, so that these bits are cleared before one is set.
const fn access_time() -> u64 {
    0x70
}

/// Each attribute that words ask for or take back, by the last of them; none where a word is about a whole
/// tree, which is another thing for a bind mount.
fn asked(words: &[&str]) -> Vec<(u64, bool)> {
    let mut asked: Vec<(u64, bool)> = Vec::new();
    for word in words {
        let (bit, set) = match effect(word) {
            Some(Effect::Set(bit)) => (bit, true),
            Some(Effect::Unset(bit)) => (bit, false),
            Some(Effect::SetAll(_) | Effect::ClearAll(_) | Effect::AccessTimeAll(_)) => {
                return Vec::new();
            }
            Some(_) | None => continue,
        };
        asked.retain(|(other, _)| *other != bit);
        asked.push((bit, set));
    }
    asked
}

fn effect(word: &str) -> Option<Effect> {
    let row = MOUNT_OPTIONS.iter().find(|(name, _)| *name == word);
    row.map(|(_, effect)| *effect)
}

/// Whether a word is one that only the runtime knows.
fn own_word(word: &str) -> bool {
    !matches!(effect(word), None | Some(Effect::FileSystem(_)))
}
