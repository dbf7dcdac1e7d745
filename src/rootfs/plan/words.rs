//! What the option words of one mount come to.

use crate::rootfs::Propagation;
use crate::rootfs::options::{Effect, effect};
use crate::sys::mount::Attributes;

/// Access times are chosen, not added up: all bits of the choice are cleared first.
pub(super) const ACCESS_TIME: u64 = libc::MOUNT_ATTR__ATIME;

/// What a mount with any option of the table does not have unless it is asked for.
const RESTRICTIONS: u64 = libc::MOUNT_ATTR_RDONLY
    | libc::MOUNT_ATTR_NOSUID
    | libc::MOUNT_ATTR_NODEV
    | libc::MOUNT_ATTR_NOEXEC
    | libc::MOUNT_ATTR_NOSYMFOLLOW;

/// What the option words of one mount come to.
#[derive(Default)]
pub(super) struct Words {
    pub(super) attributes: Attributes,
    pub(super) all: Attributes,
    pub(super) propagation: Vec<Propagation>,
    pub(super) file_system: Vec<String>,
    /// Flags of the file system that were taken back, and the words that did it.
    taken_back: Vec<(&'static str, String)>,
    pub(super) bind: Option<bool>,
    pub(super) remount: bool,
    pub(super) copy_up: bool,
    pub(super) copy_link: bool,
    pub(super) source_link: bool,
    pub(super) target_link: bool,
    pub(super) map_ids: Option<bool>,
    /// The map of ids that an option tells itself.
    pub(super) own_ids: Option<String>,
}

impl Words {
    pub(super) fn read(words: &[String]) -> Words {
        let mut sum = Words::default();
        for word in words {
            sum.add(word);
        }
        sum
    }

    fn add(&mut self, word: &str) {
        if let Some(map) = word.strip_prefix("idmap=") {
            self.map_ids = Some(false);
            self.own_ids = Some(map.to_owned());
            return;
        }
        match effect(word) {
            // Podman writes one for `--systemd=always`; mount(2) skips it between two commas.
            None if word.is_empty() => {}
            None => self.file_system.push(word.to_owned()),
            Some(Effect::Nothing) => {}
            Some(Effect::Set(bit)) => {
                self.attributes.set |= bit;
                self.attributes.clear &= !bit;
            }
            Some(Effect::Unset(bit)) => {
                self.attributes.clear |= bit;
                self.attributes.set &= !bit;
            }
            Some(Effect::AccessTime(bits)) => choose(&mut self.attributes, bits),
            Some(Effect::SetAll(bit)) => {
                self.all.set |= bit;
                self.all.clear &= !bit;
            }
            Some(Effect::ClearAll(bit)) => {
                self.all.clear |= bit;
                self.all.set &= !bit;
            }
            Some(Effect::AccessTimeAll(bits)) => choose(&mut self.all, bits),
            Some(Effect::FileSystem(name)) => {
                self.taken_back.retain(|(flag, _)| *flag != name);
                self.file_system.push(name.to_owned());
            }
            Some(Effect::TakeBack(name)) => {
                self.file_system.retain(|flag| flag != name);
                self.taken_back.push((name, word.to_owned()));
            }
            Some(Effect::Bind(recursive)) => self.bind = Some(recursive),
            Some(Effect::Remount) => self.remount = true,
            Some(Effect::Propagation(kind, recursive)) => {
                self.propagation.push(Propagation { kind, recursive });
            }
            Some(Effect::CopyUp) => self.copy_up = true,
            Some(Effect::CopyLink) => self.copy_link = true,
            Some(Effect::SourceLink) => self.source_link = true,
            Some(Effect::TargetLink) => self.target_link = true,
            Some(Effect::MapIds(recursive)) => self.map_ids = Some(recursive),
        }
    }

    /// Attributes of the source that a bind mount has not: none when no word is about attributes,
    /// else all that are not asked for.
    pub(super) fn lifted(&self) -> u64 {
        let Attributes { set, clear } = self.attributes;
        let times = match clear & ACCESS_TIME {
            0 => 0,
            _chosen => libc::MOUNT_ATTR_NODIRATIME,
        };
        match set | clear {
            0 => 0,
            named => (RESTRICTIONS | times) & !named,
        }
    }

    /// Attributes of a mount that is changed: exactly what is asked for.
    pub(super) fn remount(&self) -> Attributes {
        let Attributes { set, clear } = self.attributes;
        Attributes {
            set,
            clear: clear | self.lifted(),
        }
    }

    /// Options of a file system that is changed: what concerns it, also what is to be taken back.
    pub(super) fn file_system_changes(&self) -> Vec<String> {
        let mut changes = self.file_system.clone();
        changes.extend(self.taken_back.iter().map(|(_, word)| word.clone()));
        let read_only = [("ro", self.attributes.set), ("rw", self.attributes.clear)];
        for (word, attributes) in read_only {
            if attributes & libc::MOUNT_ATTR_RDONLY != 0 {
                changes.push(word.to_owned());
            }
        }
        changes
    }

    /// Attributes of a mount that has nothing below it.
    pub(super) fn together(&self) -> Attributes {
        let set = (self.attributes.set & !self.all.clear) | self.all.set;
        Attributes {
            set,
            clear: (self.attributes.clear | self.all.clear) & ACCESS_TIME,
        }
    }
}

fn choose(attributes: &mut Attributes, bits: u64) {
    attributes.set = (attributes.set & !ACCESS_TIME) | bits;
    attributes.clear |= ACCESS_TIME;
}
