//! Every word of the table of options, by what the container's mountinfo says of it.

use libtest_mimic::Trial;
use nix::mount::MsFlags;
use parhelion::rootfs::MOUNT_OPTIONS;
use serde_json::json;

use super::{HostMount, Line, add, at, lines};
use crate::support::{Bundle, tests};

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    tests![
        every_option_does_what_it_says,
        every_option_of_the_table_is_tried,
        every_option_that_runc_knows_is_in_the_table,
    ]
}

/// What is seen of a word.
#[derive(Clone, Copy)]
enum Seen {
    /// On a tree without it: this attribute, and not on what is mounted below.
    On(&'static str),
    /// On a tree that has them all: not this attribute, but on what is mounted below.
    Off(&'static str),
    /// As `On`, below too.
    OnAll(&'static str),
    /// As `Off`, below too.
    OffAll(&'static str),
    /// How access times are kept, where they were kept otherwise; `strictatime` is no word there.
    Time(&'static str),
    /// Likewise, below too.
    TimeAll(&'static str),
    /// An option of the file system.
    Option(&'static str),
    /// Taken back, when the word follows this one.
    NoOption(&'static str),
    /// The propagation of the mount, and of what is mounted below.
    Propagation(&'static str, &'static str),
    /// Nothing: it is taken.
    Taken,
    /// A test of its own has it.
    Elsewhere,
}

use Seen::{
    Elsewhere, NoOption, Off, OffAll, On, OnAll, Option, Propagation, Taken, Time, TimeAll,
};

#[rustfmt::skip] // one line for each word
const WORDS: &[(&str, Seen)] = &[
    ("acl", Elsewhere), // an option of some file systems, handed on like any other
    ("async", NoOption("sync")),
    ("atime", Time("relatime")),
    ("bind", Elsewhere),
    ("copy-symlink", Elsewhere),
    ("defaults", Taken),
    ("dest-nofollow", Elsewhere),
    ("dev", Off("nodev")),
    ("diratime", Off("nodiratime")),
    ("dirsync", Option("dirsync")),
    ("exec", Off("noexec")),
    ("idmap", Elsewhere),
    ("iversion", Taken),
    ("lazytime", Option("lazytime")),
    ("loud", Taken),
    ("mand", Option("mand")),
    ("noacl", Elsewhere),
    ("noatime", Time("noatime")),
    ("nodev", On("nodev")),
    ("nodiratime", On("nodiratime")),
    ("noexec", On("noexec")),
    ("noiversion", Taken),
    ("nolazytime", NoOption("lazytime")),
    ("nomand", NoOption("mand")),
    ("norelatime", Time("relatime")),
    ("nostrictatime", Time("relatime")),
    ("nosuid", On("nosuid")),
    ("nosymfollow", On("nosymfollow")),
    ("private", Propagation("", "master")),
    ("ratime", TimeAll("relatime")),
    ("rbind", Elsewhere),
    ("rdev", OffAll("nodev")),
    ("rdiratime", OffAll("nodiratime")),
    ("relatime", Time("relatime")),
    ("remount", Elsewhere),
    ("rexec", OffAll("noexec")),
    ("ridmap", Elsewhere),
    ("rnoatime", TimeAll("noatime")),
    ("rnodev", OnAll("nodev")),
    ("rnodiratime", OnAll("nodiratime")),
    ("rnoexec", OnAll("noexec")),
    ("rnorelatime", TimeAll("relatime")),
    ("rnostrictatime", TimeAll("relatime")),
    ("rnosuid", OnAll("nosuid")),
    ("rnosymfollow", OnAll("nosymfollow")),
    ("ro", On("ro")),
    ("rprivate", Propagation("", "")),
    ("rrelatime", TimeAll("relatime")),
    ("rro", OnAll("ro")),
    ("rrw", OffAll("ro")),
    ("rshared", Propagation("shared master", "shared master")),
    ("rslave", Propagation("master", "master")),
    ("rstrictatime", TimeAll("strictatime")),
    ("rsuid", OffAll("nosuid")),
    ("rsymfollow", OffAll("nosymfollow")),
    ("runbindable", Propagation("unbindable", "unbindable")),
    ("rw", Off("ro")),
    ("shared", Propagation("shared master", "master")),
    ("silent", Taken),
    ("slave", Propagation("master", "shared master")),
    ("src-nofollow", Elsewhere),
    ("strictatime", Time("strictatime")),
    ("suid", Off("nosuid")),
    ("symfollow", Off("nosymfollow")),
    ("sync", Option("sync")),
    ("tmpcopyup", Elsewhere),
    ("unbindable", Propagation("unbindable", "master")),
];

/// What `runc features` of runc 1.5 lists under mountOptions.
const RUNC: &str = "async atime bind defaults dev diratime dirsync exec idmap iversion lazytime loud \
    mand noatime nodev nodiratime noexec noiversion nolazytime nomand norelatime nostrictatime nosuid \
    nosymfollow private ratime rbind rdev rdiratime relatime remount rexec ridmap rnoatime rnodev \
    rnodiratime rnoexec rnorelatime rnostrictatime rnosuid rnosymfollow ro rprivate rrelatime rro rrw \
    rshared rslave rstrictatime rsuid rsymfollow runbindable rw shared silent slave strictatime suid \
    symfollow sync tmpcopyup unbindable";

fn every_option_of_the_table_is_tried() {
    let names = |list: Vec<&'static str>| list;
    let table = names(MOUNT_OPTIONS.iter().map(|(name, _)| *name).collect());
    let tried = names(WORDS.iter().map(|(name, _)| *name).collect());
    assert_eq!(table, tried);
}

fn every_option_that_runc_knows_is_in_the_table() {
    for word in RUNC.split_whitespace() {
        assert!(
            MOUNT_OPTIONS.iter().any(|(name, _)| *name == word),
            "{word}"
        );
    }
}

/// `MS_NOSYMFOLLOW`, which nix does not name.
fn all_attributes() -> MsFlags {
    MsFlags::MS_RDONLY
        | MsFlags::MS_NOSUID
        | MsFlags::MS_NODEV
        | MsFlags::MS_NOEXEC
        | MsFlags::MS_NOATIME
        | MsFlags::MS_NODIRATIME
        | MsFlags::from_bits_retain(1 << 8)
}

/// Two trees of two mounts each on the host: one without any attribute, one with all of them; both
/// shared, so that their copies in a container have a master.
pub struct Trees([HostMount; 4]);

impl Trees {
    pub fn new(bundle: &Bundle) -> Trees {
        let tmpfs = |name: &str| HostMount::tmpfs(&bundle.folder.join(name), MsFlags::empty());
        let trees = Trees([
            tmpfs("plain"),
            tmpfs("plain/sub"),
            tmpfs("all"),
            tmpfs("all/sub"),
        ]);
        for mount in &trees.0 {
            mount.change(MsFlags::MS_SHARED);
        }
        for mount in &trees.0[2..] {
            mount.change(MsFlags::MS_REMOUNT | MsFlags::MS_BIND | all_attributes());
        }
        trees
    }
}

fn every_option_does_what_it_says() {
    let bundle = Bundle::new("cat /proc/self/mountinfo");
    let _trees = Trees::new(&bundle);
    for (word, seen) in WORDS {
        let (source, options) = match *seen {
            Elsewhere => continue,
            Taken | On(_) | OnAll(_) => ("plain", json!(["rbind", word])),
            Off(_) | OffAll(_) => ("all", json!(["rbind", word])),
            Time("relatime") | TimeAll("relatime") => ("all", json!(["rbind", word])),
            Time(_) | TimeAll(_) => ("plain", json!(["rbind", word])),
            Propagation("master", _) => ("plain", json!(["rbind", "rshared", word])),
            Propagation(_, _) => ("plain", json!(["rbind", word])),
            Option(_) => ("", json!([word])),
            NoOption(undone) => ("", json!([undone, word])),
        };
        let destination = format!("/{word}");
        add(
            &bundle,
            match source {
                "" => json!({"destination": destination, "type": "tmpfs", "options": options}),
                source => json!({"destination": destination, "type": "bind", "options": options,
                "source": bundle.folder.join(source)}),
            },
        );
    }
    let inside = lines(&bundle.run().success());
    let wrong: Vec<String> = WORDS
        .iter()
        .filter(|(word, seen)| !matches!(seen, Elsewhere) && !is_seen(&inside, word, *seen))
        .map(|(word, _)| {
            let below = format!("/{word}/sub");
            let all = inside.iter().filter(|l| l.target == below);
            format!(
                "{word}: {:?}, {all:?}",
                at(&inside, &format!("/{word}")),
                all = all.collect::<Vec<_>>()
            )
        })
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

fn is_seen(inside: &[Line], word: &str, seen: Seen) -> bool {
    let top = at(inside, &format!("/{word}"));
    let below = || at(inside, &format!("/{word}/sub"));
    match seen {
        On(attribute) => top.has(attribute) && !below().has(attribute),
        Off(attribute) => !top.has(attribute) && below().has(attribute),
        OnAll(attribute) => top.has(attribute) && below().has(attribute),
        OffAll(attribute) => !top.has(attribute) && !below().has(attribute),
        Time(time) => keeps(top) == time && keeps(below()) != time,
        TimeAll(time) => keeps(top) == time && keeps(below()) == time,
        Option(option) => top.options.iter().any(|o| o == option),
        NoOption(option) => !top.options.iter().any(|o| o == option),
        Propagation(here, there) => kinds(top) == here && kinds(below()) == there,
        Taken => top.has("rw"),
        Elsewhere => true,
    }
}

fn keeps(line: &Line) -> &'static str {
    let times = ["noatime", "relatime"];
    times
        .into_iter()
        .find(|time| line.has(time))
        .unwrap_or("strictatime")
}

/// The kinds of propagation, without the numbers of the groups.
fn kinds(line: &Line) -> String {
    let kinds = line.propagation.split_whitespace();
    let kinds: Vec<&str> = kinds
        .map(|kind| kind.split(':').next().unwrap())
        .filter(|kind| *kind != "propagate_from")
        .collect();
    kinds.join(" ")
}
