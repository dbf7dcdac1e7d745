//! From which store what is wanted is, and which other one it is not taken from: pure.

use std::fmt;

use super::Wanted;

/// A store at a revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// Which store; None for one that has not said so.
    pub store: Option<String>,
    /// Its revision.
    pub revision: u64,
}

/// What is wanted is from another store than before, or from the same as it was earlier. Nothing is changed for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// What it is from.
    pub offered: Origin,
    /// What that is from which is followed.
    pub followed: Origin,
}

impl Origin {
    /// What it says of itself.
    #[must_use]
    pub fn of(wanted: &Wanted) -> Origin {
        Origin {
            store: wanted.store.clone(),
            revision: wanted.revision,
        }
    }

    /// Refuses another store, and an older revision, after the one that is followed.
    ///
    /// # Errors
    ///
    /// It is refused.
    pub fn check(&self, followed: Option<&Origin>) -> Result<(), Refused> {
        let Some(followed) = followed else {
            return Ok(());
        };
        // One that was followed before stores had identities may have got one since.
        let is_same = followed.store.is_none() || followed.store == self.store;
        if is_same && self.revision >= followed.revision {
            return Ok(());
        }
        Err(Refused {
            offered: self.clone(),
            followed: followed.clone(),
        })
    }
}

impl Refused {
    /// Whether it is the same store as it was earlier, as far as is known.
    fn is_older(&self) -> bool {
        let (offered, followed) = (&self.offered, &self.followed);
        followed.store.is_none() || followed.store == offered.store
    }

    /// Whether it has the name of that which is followed, and is that store as it was earlier.
    #[must_use]
    pub fn is_earlier(&self) -> bool {
        self.offered.store.is_some() && self.is_older() && self.followed.store.is_some()
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (offered, followed) = (&self.offered, &self.followed);
        if self.is_older() {
            return write!(
                to,
                "revision {} is older than {}, which is wanted already: everything goes on as it is",
                offered.revision, followed.revision
            );
        }
        let name = |store: &Option<String>| match store {
            Some(store) => store.clone(),
            None => "without a name".to_owned(),
        };
        write!(
            to,
            "this is store {}, and what is wanted already is from store {}, revision {}: everything goes on as it is",
            name(&offered.store),
            name(&followed.store),
            followed.revision
        )
    }
}

impl std::error::Error for Refused {}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(store: Option<&str>, revision: u64) -> Origin {
        Origin {
            store: store.map(str::to_owned),
            revision,
        }
    }

    #[test]
    fn another_store_and_an_older_revision_are_refused() {
        let (a, b, old) = (Some("aa"), Some("bb"), None);
        let taken = |offered: (Option<&str>, u64), followed: (Option<&str>, u64)| {
            let followed = origin(followed.0, followed.1);
            origin(offered.0, offered.1).check(Some(&followed))
        };
        assert_eq!(origin(a, 1).check(None), Ok(()));
        for (offered, followed) in [
            ((a, 7), (a, 7)),
            ((a, 8), (a, 7)),
            ((a, 8), (old, 7)),
            ((old, 7), (old, 7)),
        ] {
            assert_eq!(
                taken(offered, followed),
                Ok(()),
                "{offered:?} after {followed:?}"
            );
        }
        for (offered, followed) in [((a, 6), (old, 7)), ((a, 6), (a, 7)), ((old, 6), (old, 7))] {
            let refused = taken(offered, followed).unwrap_err();
            assert!(refused.is_older(), "{refused}");
            assert_eq!(refused.is_earlier(), offered.0.and(followed.0).is_some());
            assert!(
                refused
                    .to_string()
                    .starts_with("revision 6 is older than 7"),
                "{refused}"
            );
        }
        for offered in [(b, 1), (b, 7), (b, 900), (old, 900)] {
            let refused = taken(offered, (a, 7)).unwrap_err();
            assert!(!refused.is_older() && !refused.is_earlier());
            assert!(
                refused.to_string().contains("from store aa, revision 7"),
                "{refused}"
            );
        }
    }
}
