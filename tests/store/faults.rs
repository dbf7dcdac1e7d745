//! A full or broken disk at every call: the caller is told, and nothing acknowledged is lost.

use std::sync::Arc;

use libtest_mimic::Trial;
use parhelion::store::embedded::Embedded;
use parhelion::store::{Error, Range, Store};
use parhelion::sys::Errno;

use super::contract::{committed, put, refused};
use super::crash::{Seen, deeds, report};
use super::disk::{Disk, Failure, Image, Loss};
use super::model::Model;
use super::support::tests;
use super::{Scratch, Virtual};

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    tests![
        any_call_may_fail_and_nothing_acknowledged_is_lost,
        a_full_disk_leaves_a_store_that_goes_on_when_there_is_room,
        a_store_that_can_not_be_written_anew_can_be_read,
        nobody_else_opens_a_store_not_even_one_that_is_being_made,
    ]
}

/// What became of a story on a disk that fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// No store was made.
    NotBegun,
    /// Every deed succeeded, or failed without effect and later ones succeeded.
    WentOn,
    /// The store could only be read from some deed on.
    ReadOnly,
}

fn seen(image: Image) -> Seen {
    let disk = Disk::with(image);
    let store = Embedded::on(disk.medium(), Arc::new(Virtual::default())).unwrap();
    Seen::of(&store)
}

const LOSSES: &[Loss] = &[Loss::All, Loss::First(1), Loss::After(30), Loss::Nothing];

/// Opens what is there after each loss, with and without the changes of names that were not safe.
fn assert_found(disk: &Disk, losses: &[Loss], possible: &[Seen]) {
    for (loss, names) in losses
        .iter()
        .flat_map(|loss| [(loss, 0), (loss, usize::MAX)])
    {
        let found = seen(disk.crash(disk.len(), names, *loss));
        assert!(possible.contains(&found), "{loss:?}: {found:#?}");
    }
}

/// What was uncertain has not happened, and what comes now is safe.
fn goes_on_mended(disk: &Disk, store: &Embedded, model: &Model) {
    assert_found(disk, LOSSES, &[model.seen()]);
    let then = vec![put("a", "mended")];
    let revision = committed(store, vec![], then.clone());
    assert_eq!(revision, committed(model, vec![], then));
    assert_found(disk, LOSSES, &[model.seen()]);
}

/// Tells a story to a store whose disk fails; returns how it ended and how many calls were asked for.
fn story(failure: Option<Failure>) -> (End, usize) {
    let clock = Arc::new(Virtual::default());
    let disk = Disk::empty();
    disk.fail(failure);
    let store = match Embedded::on(disk.medium(), clock.clone()) {
        Ok(store) => store,
        Err(Error::Open(_)) => return (End::NotBegun, disk.asked()),
        Err(other) => panic!("{other}"),
    };
    let model = Model::new(clock.clone());
    let mut possible = Vec::new();
    let mut end = End::WentOn;
    for deed in deeds() {
        match deed.apply(&store, &clock) {
            Ok(()) => deed.apply_to_model(&model).unwrap(),
            Err(Error::NotWritten(_)) => {
                // That nothing was changed is safe as well when the caller hears of it.
                assert_found(
                    &disk,
                    &[Loss::All, Loss::First(1), Loss::Nothing],
                    &[model.seen()],
                );
            }
            Err(Error::Uncertain(_) | Error::ReadOnly(_)) => {
                let fork = model.fork();
                deed.apply_to_model(&fork).unwrap();
                possible.push(fork.seen());
                end = End::ReadOnly;
                break;
            }
            // What did not happen before is missed later.
            Err(missed) => {
                let expected = deed.apply_to_model(&model).unwrap_err();
                assert_eq!(missed.to_string(), expected.to_string());
            }
        }
    }
    possible.push(model.seen());
    let all = Range::Prefix(vec![]);
    assert_eq!(store.get(&all).unwrap(), model.get(&all).unwrap());
    if end == End::ReadOnly {
        let error = refused(&store, vec![put("a", "refused")]);
        assert!(matches!(error, Error::ReadOnly(_)), "{error}");
        assert!(store.compact(model.get(&all).unwrap().revision).is_err());
        assert_eq!(store.get(&all).unwrap(), model.get(&all).unwrap());
    }
    assert_found(&disk, LOSSES, &possible);
    assert!(end != End::ReadOnly || matches!(store.fault(), Some(Error::ReadOnly(_))));
    let asked = disk.asked();
    disk.fail(None);
    store.mend().unwrap();
    assert!(store.fault().is_none());
    if end == End::ReadOnly {
        goes_on_mended(&disk, &store, &model);
        possible = vec![model.seen()];
    }
    drop(store);
    assert_found(&disk, &[Loss::Nothing], &possible);
    (end, asked)
}

fn any_call_may_fail_and_nothing_acknowledged_is_lost() {
    let (end, calls) = story(None);
    assert_eq!(end, End::WentOn);
    let (mut cases, mut went_on, mut read_only) = (0, 0, 0);
    for at in 0..calls {
        for errno in [Errno::NOSPC, Errno::IO] {
            for (forever, eighths) in [(false, 0), (false, 3), (false, 8), (true, 0), (true, 5)] {
                let failure = Failure {
                    at,
                    errno,
                    forever,
                    eighths,
                };
                let (end, _) = story(Some(failure));
                cases += 1;
                went_on += usize::from(end == End::WentOn);
                read_only += usize::from(end == End::ReadOnly);
            }
        }
    }
    assert!(
        cases > 1000 && went_on > 300 && read_only > 300,
        "{cases} {went_on} {read_only}"
    );
    report(&format!(
        "failing calls: {cases}, went on {went_on}, read-only {read_only}"
    ));
}

fn a_full_disk_leaves_a_store_that_goes_on_when_there_is_room() {
    let disk = Disk::empty();
    let store = Embedded::on(disk.medium(), Arc::new(Virtual::default())).unwrap();
    let before = committed(&store, vec![], vec![put("a", "1")]);
    let (errno, eighths) = (Errno::NOSPC, 4);
    disk.fail(Some(Failure {
        at: disk.asked(),
        errno,
        forever: false,
        eighths,
    }));
    let then = vec![put("a", "2")];
    let error = refused(&store, then.clone());
    assert!(matches!(error, Error::NotWritten(_)), "{error}");
    assert!(
        error.to_string().contains("nothing was changed, try again"),
        "{error}"
    );
    assert!(matches!(store.fault(), Some(Error::NotWritten(_))));
    assert_eq!(committed(&store, vec![], then.clone()), before.next());
    assert!(store.fault().is_none());
    // While there is none, each try finds that out and leaves the file as it was; then it shows without a change.
    disk.fail(Some(Failure {
        at: disk.asked(),
        errno,
        forever: false,
        eighths,
    }));
    refused(&store, then);
    let there = seen(disk.image(disk.len()));
    disk.fail(Some(Failure {
        at: disk.asked(),
        errno,
        forever: false,
        eighths,
    }));
    assert!(matches!(store.mend(), Err(Error::NotWritten(_))));
    assert_eq!(seen(disk.image(disk.len())), there);
    store.mend().unwrap();
    assert!(store.fault().is_none());
    assert_eq!(seen(disk.image(disk.len())), there);
}

fn a_store_that_can_not_be_written_anew_can_be_read() {
    let disk = Disk::empty();
    let clock = Arc::new(Virtual::default());
    let store = Embedded::on(disk.medium(), clock.clone()).unwrap();
    let revision = committed(&store, vec![], vec![put("a", "1")]);
    drop(store);
    let image = disk.image(disk.len());
    let mut failed = 0;
    for at in 0.. {
        let disk = Disk::with(image.clone());
        let errno = Errno::NOSPC;
        disk.fail(Some(Failure {
            at,
            errno,
            forever: true,
            eighths: 2,
        }));
        let store = Embedded::on(disk.medium(), clock.clone()).unwrap();
        let found = store.get(&Range::Key(b"a".to_vec())).unwrap();
        assert_eq!((found.revision, found.keys.len()), (revision, 1));
        if disk.asked() <= at {
            break; // the opening takes no more calls than that
        }
        let error = refused(&store, vec![put("a", "2")]);
        assert!(matches!(error, Error::ReadOnly(_)), "{error}");
        assert!(store.compact(revision).is_err());
        assert!(matches!(store.mend(), Err(Error::ReadOnly(_))));
        let found = seen(disk.image(disk.len())).found;
        assert_eq!((found.revision, found.keys.len()), (revision, 1));
        disk.fail(None);
        store.mend().unwrap();
        committed(&store, vec![], vec![put("a", "2")]);
        drop(store);
        let found = seen(disk.image(disk.len())).found;
        assert_eq!(
            (found.revision, &*found.keys[0].value),
            (revision.next(), &b"2"[..])
        );
        failed += 1;
    }
    assert!(failed >= 4, "{failed}");
}

fn nobody_else_opens_a_store_not_even_one_that_is_being_made() {
    let scratch = Scratch::new("lock");
    let clock = Arc::new(Virtual::default());
    let open = || Embedded::open(&scratch.store(), clock.clone());
    let new = scratch.0.join("store.new");
    std::fs::create_dir(&new).unwrap();
    let held = parhelion::store::embedded::Directory::open(&scratch.store()).unwrap();
    let locked = |error: Option<Error>| {
        let error = error.expect("it is locked");
        assert!(matches!(error, Error::Locked { .. }), "{error}");
        assert!(
            error.to_string().contains("open in another process"),
            "{error}"
        );
    };
    locked(open().err());
    drop(held);
    let store = open().unwrap();
    assert!(!new.exists());
    locked(open().err());
    drop(store);
    open().unwrap();
}
