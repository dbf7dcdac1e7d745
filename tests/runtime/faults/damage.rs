//! A record that was damaged or lost: every verb names the file, and nothing is left behind by force.

use std::fs;

use libtest_mimic::Trial;

use super::{in_a_thread, remains};
use crate::caller::{self, wait_for_exit};
use crate::support::{Bundle, tests};

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    tests![
        a_damaged_record_is_named_by_every_verb_and_removed_by_force,
        a_lost_record_is_told_and_its_container_removed_by_force,
        a_damaged_container_is_listed_as_a_warning_beside_the_others,
        without_a_trail_of_its_cgroup_a_damaged_container_is_not_said_to_be_gone,
        files_of_others_keep_a_damaged_container_from_being_removed,
        without_procfs_every_verb_says_so_and_force_ends_the_container,
    ]
}

/// A container that runs, and what is of it on the host.
struct Victim {
    bundle: Bundle,
    pid: i32,
}

impl Victim {
    fn new() -> Victim {
        let bundle = Bundle::new("sleep 1001 & sleep 1000");
        caller::start(&bundle);
        let pid = bundle.pid();
        Victim { bundle, pid }
    }

    fn file(&self, name: &str) -> String {
        format!("{}/state/{}/{name}", self.bundle.path(), self.bundle.id)
    }

    fn cgroup(&self) -> String {
        format!("/sys/fs/cgroup/parhelion/{}", self.bundle.id)
    }

    fn every_verb_names_the_file(&self, reason: &str) {
        let id = self.bundle.id.as_str();
        let calls: &[&[&str]] = &[
            &["state", id],
            &["start", id],
            &["exec", id, "/bin/true"],
            &["kill", id, "KILL"],
            &["ps", id],
            &["pause", id],
            &["resume", id],
            &["update", "--pids-limit", "10", id],
            &["events", "--stats", id],
            &["delete", id],
        ];
        for call in calls {
            let told = self.bundle.parhelion(call).failure();
            let expected = format!("{} {id:?}: {}: {reason}", call[0], self.file("state.json"));
            assert!(told.starts_with(&expected), "{call:?}: {told}");
            assert_eq!(told.lines().count(), 1, "{call:?}: {told}");
        }
        assert!(fs::exists(self.cgroup()).unwrap(), "something removed it");
    }

    fn force_removes_all(&self) {
        let ran = self
            .bundle
            .parhelion(&["delete", "--force", &self.bundle.id]);
        let told = ran.stderr();
        assert_eq!(ran.code(), Some(0), "{told}");
        assert!(
            told.contains(&self.file("state.json")) && told.contains("without poststop hooks"),
            "{told}"
        );
        wait_for_exit(self.pid);
        assert!(!fs::exists(self.cgroup()).unwrap(), "its cgroup is left");
        remains::nothing_is_left(&self.bundle.folder, &self.bundle.id);
        assert_eq!(
            fs::read_dir(self.bundle.folder.join("state"))
                .unwrap()
                .count(),
            0
        );
        let gone = self.bundle.verb("state").failure();
        assert!(gone.contains("does not exist"), "{gone}");
    }
}

fn a_damaged_record_is_named_by_every_verb_and_removed_by_force() {
    type Damage = fn(&[u8]) -> Vec<u8>;
    let damages: &[Damage] = &[
        |_| Vec::new(),
        |text| text[..text.len() / 2].to_vec(),
        |text| text[..text.len() - 3].to_vec(),
        |_| b"{}".to_vec(),
        |_| vec![0; 100_000],
        |_| b"[\"not\", \"a\", \"record\"]".to_vec(),
    ];
    for damage in damages {
        let victim = Victim::new();
        let record = victim.file("state.json");
        let text = fs::read(&record).unwrap();
        fs::write(&record, damage(&text)).unwrap();
        victim.every_verb_names_the_file("not a record of a container: ");
        victim.force_removes_all();
    }
}

fn a_lost_record_is_told_and_its_container_removed_by_force() {
    let victim = Victim::new();
    fs::remove_file(victim.file("state.json")).unwrap();
    victim.every_verb_names_the_file("missing: the record of a container");
    victim.force_removes_all();
}

fn a_damaged_container_is_listed_as_a_warning_beside_the_others() {
    let victim = Victim::new();
    let state = victim.bundle.folder.join("state");
    // As init's pipes would otherwise be waited for, it is one that has not been started.
    let other = format!("{}-other", victim.bundle.id);
    let create = ["create", "--bundle", victim.bundle.path(), &other];
    caller::quietly(&mut caller::command(&victim.bundle, &create));
    fs::write(victim.file("state.json"), "").unwrap();
    let ran = victim.bundle.parhelion(&["list", "--quiet"]);
    let told = ran.stderr();
    assert!(told.contains(&victim.file("state.json")), "{told}");
    assert_eq!(ran.success(), format!("{other}\n"));
    let delete = victim.bundle.parhelion(&["delete", &other]);
    delete.success();
    assert_eq!(fs::read_dir(state).unwrap().count(), 1);
    victim.force_removes_all();
}

fn without_a_trail_of_its_cgroup_a_damaged_container_is_not_said_to_be_gone() {
    let victim = Victim::new();
    fs::remove_file(victim.file("cgroup")).unwrap();
    fs::write(victim.file("state.json"), "").unwrap();
    let told = victim
        .bundle
        .parhelion(&["delete", "--force", &victim.bundle.id])
        .failure();
    assert!(
        told.contains("deleted without knowing its processes and cgroup: "),
        "{told}"
    );
    // By hand, then.
    fs::write(victim.cgroup() + "/cgroup.kill", "1").unwrap();
    wait_for_exit(victim.pid);
    while fs::remove_dir(victim.cgroup()).is_err() {
        std::thread::yield_now();
    }
}

fn files_of_others_keep_a_damaged_container_from_being_removed() {
    let victim = Victim::new();
    fs::write(victim.file("state.json"), "").unwrap();
    fs::write(victim.file("theirs"), "kept").unwrap();
    let told = victim
        .bundle
        .parhelion(&["delete", "--force", &victim.bundle.id])
        .failure();
    assert!(told.contains("files that are no container's"), "{told}");
    assert_eq!(fs::read_to_string(victim.file("theirs")).unwrap(), "kept");
    fs::remove_file(victim.file("theirs")).unwrap();
    victim.force_removes_all();
}

/// Procfs is taken away from this thread and what it starts.
fn without_procfs_every_verb_says_so_and_force_ends_the_container() {
    let without = || {
        let victim = Victim::new();
        let fresh = Bundle::new("true");
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
        nix::mount::umount2("/proc", nix::mount::MntFlags::MNT_DETACH).unwrap();
        let says_so = |told: &str| {
            let words = ": procfs, which is needed, is not mounted at /proc: ";
            assert!(told.contains(words) && told.lines().count() == 1, "{told}");
        };
        says_so(&fresh.create().failure());
        says_so(&fresh.run().failure());
        assert_eq!(
            fs::read_dir(fresh.folder.join("state")).map_or(0, Iterator::count),
            0
        );
        for verb in ["state", "start", "pause"] {
            says_so(&victim.bundle.verb(verb).failure());
        }
        let force = ["delete", "--force", &victim.bundle.id];
        says_so(&victim.bundle.parhelion(&force).failure());
        wait_for_exit(victim.pid);
        victim
    };
    let victim = in_a_thread(without);
    // With it, what is left is removed.
    victim
        .bundle
        .parhelion(&["delete", "--force", &victim.bundle.id])
        .success();
    assert!(!fs::exists(victim.cgroup()).unwrap());
}
