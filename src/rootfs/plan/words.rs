//! What the option words of one mount come to.

use crate::rootfs::Propagation;
use crate::rootfs::options::{Effect, effect};
use crate::sys::mount::Attributes;

/// Access times are chosen, not added up: all bits of the choice are cleared first.
pub(super) const ACCESS_TIME: u64 = libc::MOUNT_ATTR__ATIME;

/// What the option words of one mount come to.
#[derive(Default)]
pub(super) struct Words {
    pub(super) attributes: Attributes,
    pub(super) all: Attributes,
    pub(super) propagation: Vec<Propagation>,
    pub(super) file_system: Vec<String>,
    pub(super) bind: Option<bool>,
    pub(super) remount: bool,
    pub(super) copy_up: bool,
    pub(super) map_ids: Option<bool>,
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
        match effect(word) {
            None => self.file_system.push(word.to_owned()),
            Some(Effect::Nothing) => {}
            Some(Effect::Set(bit)) => self.attributes.set |= bit,
            Some(Effect::Unset(bit)) => self.attributes.set &= !bit,
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
            Some(Effect::FileSystem(name)) => self.file_system.push(name.to_owned()),
            Some(Effect::Bind(recursive)) => self.bind = Some(recursive),
            Some(Effect::Remount) => self.remount = true,
            Some(Effect::Propagation(kind, recursive)) => {
                self.propagation.push(Propagation { kind, recursive });
            }
            Some(Effect::CopyUp) => self.copy_up = true,
            Some(Effect::MapIds(recursive)) => self.map_ids = Some(recursive),
        }
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
