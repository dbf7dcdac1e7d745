//! Several containers at once: `--regex` of list, kill and delete, as crun has it.

use libtest_mimic::Trial;

use super::parhelion;
use crate::caller::wait_for_exit;
use crate::support::{Bundle, Ran, tests};

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    tests![
        kill_reaches_those_that_match_and_no_others,
        delete_removes_those_that_match_and_tells_those_it_could_not,
        delete_by_force_removes_all_that_match,
        list_shows_those_that_match,
        what_is_no_expression_is_refused,
        an_expression_that_matches_none_is_success,
    ]
}

/// Three containers, all created, whose ids end with -a1, -a2 and -b1.
struct Three(Bundle);

const ENDS: [&str; 3] = ["a1", "a2", "b1"];

impl Three {
    fn create() -> Three {
        let three = Three(Bundle::new("exec sleep 1000"));
        for id in three.all() {
            // Their streams are not the test's pipes, which would stay open with them.
            let mut create =
                crate::caller::command(&three.0, &["create", "-b", three.0.path(), &id]);
            let null = std::process::Stdio::null;
            let create = create.stdin(null()).stdout(null()).stderr(null());
            assert!(create.status().unwrap().success());
        }
        three
    }

    fn id(&self, end: &str) -> String {
        format!("{}-{end}", self.0.id)
    }

    fn all(&self) -> [String; 3] {
        ENDS.map(|end| self.id(end))
    }

    fn start(&self) {
        for id in self.all() {
            self.parhelion(&["start", &id]).success();
        }
    }

    fn parhelion(&self, arguments: &[&str]) -> Ran {
        self.0.parhelion(arguments)
    }

    fn state(&self, end: &str) -> serde_json::Value {
        serde_json::from_str(&self.parhelion(&["state", &self.id(end)]).success()).unwrap()
    }

    /// The ends of the ids that are listed with these flags.
    fn listed(&self, flags: &[&str]) -> String {
        let ids = self
            .parhelion(&[&["list", "--quiet"], flags].concat())
            .success();
        ids.replace(&format!("{}-", self.0.id), "")
            .replace('\n', " ")
    }
}

impl Drop for Three {
    fn drop(&mut self) {
        for id in self.all() {
            self.parhelion(&["delete", "--force", &id]);
        }
    }
}

fn kill_reaches_those_that_match_and_no_others() {
    let three = Three::create();
    three.start();
    let pids = ENDS.map(|end| i32::try_from(three.state(end)["pid"].as_i64().unwrap()).unwrap());
    three
        .parhelion(&["kill", "--regex", "[-]a[0-9]$", "KILL"])
        .success();
    wait_for_exit(pids[0]);
    wait_for_exit(pids[1]);
    assert_eq!(three.state("a1")["status"], "stopped");
    assert_eq!(three.state("b1")["status"], "running");
    // Those that have stopped are passed over.
    three.parhelion(&["kill", "-r", "", "KILL"]).success();
    wait_for_exit(pids[2]);
}

fn delete_removes_those_that_match_and_tells_those_it_could_not() {
    let three = Three::create();
    three.parhelion(&["start", &three.id("a1")]).success();
    let told = three.parhelion(&["delete", "--regex", "1$"]).failure();
    let id = three.id("a1");
    let words = format!("{id}: cannot delete container {id} that is not stopped: running");
    assert_eq!(told, format!("delete \"1$\": {words}\n"));
    assert_eq!(three.listed(&[]), "a1 a2 ");
}

fn delete_by_force_removes_all_that_match() {
    let three = Three::create();
    three.start();
    three
        .parhelion(&["delete", "--force", "--regex", "(a2|b1)$"])
        .success();
    assert_eq!(three.listed(&[]), "a1 ");
}

fn list_shows_those_that_match() {
    let three = Three::create();
    assert_eq!(three.listed(&["--regex", "-a"]), "a1 a2 ");
    let table = three.parhelion(&["list", "-r", "-b"]).success();
    assert_eq!(table.lines().count(), 2, "{table}");
}

fn what_is_no_expression_is_refused() {
    let wrong: [&[&str]; 3] = [
        &["kill", "--regex", "("],
        &["delete", "--regex", "("],
        &["list", "--regex", "("],
    ];
    for arguments in wrong {
        let told = parhelion(arguments).failure();
        assert!(
            told.contains("invalid regular expression \"(\": "),
            "{told}"
        );
    }
}

fn an_expression_that_matches_none_is_success() {
    let bundle = Bundle::new("");
    bundle.parhelion(&["kill", "--regex", "none"]).success();
    bundle.parhelion(&["delete", "--regex", "none"]).success();
    // Without the flag it is an id, and no such id can be.
    let told = bundle.parhelion(&["kill", "^none$"]).failure();
    assert!(told.contains("invalid container id"), "{told}");
}
