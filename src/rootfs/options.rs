//! Mount options: what each word of `mounts[].options` means.
//!
//! One row each; a word that stands here nowhere is an option of the file system itself. The words
//! are those of mount(8) and of runtime-spec `config.md`, "Linux mount options". A bind mount with
//! no word of the table keeps the attributes of its source; one with any has exactly those that its
//! words ask for, as runc has it, so that "rw" is writable and "ro" alone is not nosuid.

/// What a mount option does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Says what is the case anyway, or only how much the kernel logs.
    Nothing,
    /// Sets an attribute of the mount (`MOUNT_ATTR_*`).
    Set(u64),
    /// Takes back an attribute that an earlier word set, or that the source of a bind mount has.
    Unset(u64),
    /// Chooses how access times are kept: one of three, so earlier words are replaced.
    AccessTime(u64),
    /// Sets an attribute on the mount and all below it.
    SetAll(u64),
    /// Clears an attribute on the mount and all below it.
    ClearAll(u64),
    /// As [`Effect::AccessTime`], on the mount and all below it.
    AccessTimeAll(u64),
    /// A flag of the file system, which has this name there.
    FileSystem(&'static str),
    /// Takes back this flag of the file system.
    TakeBack(&'static str),
    /// Makes it a bind mount; `true`: with all mounts below the source.
    Bind(bool),
    /// Changes what is mounted at the target already.
    Remount,
    /// Sets the propagation (`MS_*`); `true`: of all mounts below it too.
    Propagation(u64, bool),
    /// Fills the new file system with what the image has there.
    CopyUp,
    /// Maps ids of a bind mount by the mount's own mappings, or else the container's; `true`: of
    /// all mounts below it too.
    MapIds(bool),
    /// A symbolic link as the source of a bind mount is made again and not followed.
    CopyLink,
    /// A symbolic link as the source of a bind mount is itself what is mounted.
    SourceLink,
    /// A symbolic link at the target of a bind mount is mounted over and not followed.
    TargetLink,
}

use Effect::{
    AccessTime, AccessTimeAll, Bind, ClearAll, CopyLink, CopyUp, FileSystem, MapIds, Nothing,
    Propagation, Remount, Set, SetAll, SourceLink, TakeBack, TargetLink, Unset,
};
use libc::{
    MOUNT_ATTR_NOATIME as NOATIME, MOUNT_ATTR_NODEV as NODEV, MOUNT_ATTR_NODIRATIME as NODIRATIME,
    MOUNT_ATTR_NOEXEC as NOEXEC, MOUNT_ATTR_NOSUID as NOSUID,
    MOUNT_ATTR_NOSYMFOLLOW as NOSYMFOLLOW, MOUNT_ATTR_RDONLY as RDONLY,
    MOUNT_ATTR_RELATIME as RELATIME, MOUNT_ATTR_STRICTATIME as STRICTATIME, MS_PRIVATE, MS_SHARED,
    MS_SLAVE, MS_UNBINDABLE,
};

/// The options that are not the file system's own, in alphabetical order.
pub const MOUNT_OPTIONS: &[(&str, Effect)] = &[
    ("acl", FileSystem("acl")),
    ("async", TakeBack("sync")),
    ("atime", AccessTime(RELATIME)),
    ("bind", Bind(false)),
    ("copy-symlink", CopyLink),
    ("defaults", Nothing),
    ("dest-nofollow", TargetLink),
    ("dev", Unset(NODEV)),
    ("diratime", Unset(NODIRATIME)),
    ("dirsync", FileSystem("dirsync")),
    ("exec", Unset(NOEXEC)),
    ("idmap", MapIds(false)),
    // Linux counts versions of inodes wherever the file system can, without being asked (6.1).
    ("iversion", Nothing),
    ("lazytime", FileSystem("lazytime")),
    ("loud", Nothing),
    ("mand", FileSystem("mand")),
    ("noacl", FileSystem("noacl")),
    ("noatime", AccessTime(NOATIME)),
    ("nodev", Set(NODEV)),
    ("nodiratime", Set(NODIRATIME)),
    ("noexec", Set(NOEXEC)),
    ("noiversion", Nothing),
    ("nolazytime", TakeBack("lazytime")),
    ("nomand", TakeBack("mand")),
    ("norelatime", AccessTime(RELATIME)),
    ("nostrictatime", AccessTime(RELATIME)),
    ("nosuid", Set(NOSUID)),
    ("nosymfollow", Set(NOSYMFOLLOW)),
    ("private", Propagation(MS_PRIVATE, false)),
    ("ratime", AccessTimeAll(RELATIME)),
    ("rbind", Bind(true)),
    ("rdev", ClearAll(NODEV)),
    ("rdiratime", ClearAll(NODIRATIME)),
    ("relatime", AccessTime(RELATIME)),
    ("remount", Remount),
    ("rexec", ClearAll(NOEXEC)),
    ("ridmap", MapIds(true)),
    ("rnoatime", AccessTimeAll(NOATIME)),
    ("rnodev", SetAll(NODEV)),
    ("rnodiratime", SetAll(NODIRATIME)),
    ("rnoexec", SetAll(NOEXEC)),
    ("rnorelatime", AccessTimeAll(RELATIME)),
    ("rnostrictatime", AccessTimeAll(RELATIME)),
    ("rnosuid", SetAll(NOSUID)),
    ("rnosymfollow", SetAll(NOSYMFOLLOW)),
    ("ro", Set(RDONLY)),
    ("rprivate", Propagation(MS_PRIVATE, true)),
    ("rrelatime", AccessTimeAll(RELATIME)),
    ("rro", SetAll(RDONLY)),
    ("rrw", ClearAll(RDONLY)),
    ("rshared", Propagation(MS_SHARED, true)),
    ("rslave", Propagation(MS_SLAVE, true)),
    ("rstrictatime", AccessTimeAll(STRICTATIME)),
    ("rsuid", ClearAll(NOSUID)),
    ("rsymfollow", ClearAll(NOSYMFOLLOW)),
    ("runbindable", Propagation(MS_UNBINDABLE, true)),
    ("rw", Unset(RDONLY)),
    ("shared", Propagation(MS_SHARED, false)),
    ("silent", Nothing),
    ("slave", Propagation(MS_SLAVE, false)),
    ("src-nofollow", SourceLink),
    ("strictatime", AccessTime(STRICTATIME)),
    ("suid", Unset(NOSUID)),
    ("symfollow", Unset(NOSYMFOLLOW)),
    ("sync", FileSystem("sync")),
    ("tmpcopyup", CopyUp),
    ("unbindable", Propagation(MS_UNBINDABLE, false)),
];

/// What `word` does; None when it belongs to the file system.
pub(super) fn effect(word: &str) -> Option<Effect> {
    let row = MOUNT_OPTIONS
        .binary_search_by(|(name, _)| (*name).cmp(word))
        .ok()?;
    Some(MOUNT_OPTIONS[row].1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_so_that_a_search_finds_every_row() {
        assert!(MOUNT_OPTIONS.is_sorted_by_key(|(name, _)| *name));
    }

    #[test]
    fn an_unknown_word_belongs_to_the_file_system() {
        assert_eq!(effect("mode=755"), None);
        assert_eq!(effect("rro"), Some(SetAll(RDONLY)));
    }
}
