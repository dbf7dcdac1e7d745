//! CVE-2026-30892 (crun), CVE-2024-40635 and CVE-2026-46680 (containerd): a user that is no number, or one beyond 32 bits, ends
//! as root.

use libtest_mimic::Trial;

use crate::caller::start;
use crate::subject::Subject;
use crate::support::tests;

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    tests![a_user_that_is_no_number_is_nobody_and_not_root]
}

const WRONG: &[&str] = &[
    "",
    ":",
    "a",
    "nobody",
    "1000:",
    ":1000",
    "1000:x",
    "1000:0:0",
    "-1",
    "+0",
    " 0",
    "0 ",
    "0x0",
    "1e3",
    "4294967295",
    "4294967296",
    "1000:4294967296",
    "18446744073709551616",
    "1000\n",
    "٠",
];

fn a_user_that_is_no_number_is_nobody_and_not_root() {
    let bundle = Subject::Real.bundle("sleep 100000");
    start(&bundle);
    let show = ["/bin/id", "-u"];
    let exec = |user: &str| {
        let user = format!("--user={user}");
        bundle.parhelion(&[&["exec", &user, &bundle.id][..], &show].concat())
    };
    for user in WRONG {
        let ran = exec(user);
        assert!(ran.0.stdout.is_empty(), "{user:?} is {:?}", ran.0.stdout);
        assert!(!ran.failure().is_empty());
    }
    assert_eq!(exec("1000:1000").success(), "1000\n");
}
