//! What of an agent's state can not be written now. Everything runs on meanwhile.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What can not be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trouble {
    /// What is wanted.
    Wanted,
    /// What has happened.
    History,
}

/// All of it, with reasons.
#[derive(Debug, Default)]
pub struct Troubles(Mutex<BTreeMap<Trouble, String>>);

impl Troubles {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Trouble, String>> {
        // Nothing in it is half done when somebody panics.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says why something can not be written; None when it is written.
    pub fn set(&self, what: Trouble, why: Option<&str>) {
        let mut all = self.lock();
        match why {
            Some(why) if all.get(&what).is_some_and(|known| known == why) => {}
            Some(why) => drop(all.insert(what, why.to_owned())),
            None => drop(all.remove(&what)),
        }
    }

    /// All of it in words; None where there is none.
    pub fn in_words(&self) -> Option<String> {
        let all = self.lock();
        let words: Vec<&str> = all.values().map(String::as_str).collect();
        (!words.is_empty()).then(|| words.join("; "))
    }
}
