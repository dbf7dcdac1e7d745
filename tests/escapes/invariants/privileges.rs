//! Who the program is and what it may do is what config.json asks at the moment of execve, and before that only shrinks.
//!
//! What is wider before: init mounts and makes devices with the rights that the runtime, or root of a new user namespace, has.
//! Its bounding and permitted sets never grow from its clone on. From its capset(2) on, nothing is wider than asked but
//! CAP_SYS_ADMIN, where a filter of system calls needs it and no_new_privs is not set (docs/decisions/0007): what the
//! program is executed with is computed without it.

use std::process::Command;

use libtest_mimic::Trial;
use nix::libc;
use serde_json::{Value, json};

use super::calls::Call;
use super::cases;
use super::state::{Capabilities, State, Status};
use super::trace::{Stop, Trace, What, Who};
use crate::caller;
use crate::subject::Subject;
use crate::support::{Bundle, tests};

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    tests![
        root_gets_what_was_asked,
        an_ordinary_user_gets_what_was_asked,
        who_is_filtered_gets_what_was_asked,
        who_is_in_a_user_namespace_gets_what_was_asked,
        a_process_that_joins_gets_what_was_asked,
        ambient_capabilities_and_secure_bits_of_the_caller_do_not_stay,
        more_than_was_asked_would_be_inheritable,
        a_set_that_grows_is_seen,
    ]
}

const CHOWN: u64 = 1 << 0;
const KILL: u64 = 1 << 5;
const NET_BIND: u64 = 1 << 10;
const NET_RAW: u64 = 1 << 13;
const SYS_ADMIN: u64 = 1 << 21;

/// What config.json asks for, as the host sees the ids.
#[derive(Clone)]
struct Asked {
    uid: u32,
    gid: u32,
    groups: Vec<u32>,
    capabilities: Capabilities,
    no_new_privileges: bool,
    filter: bool,
    /// By how much the host's ids are higher.
    shift: u32,
}

impl Asked {
    /// Each set is another.
    fn of(uid: u32) -> Asked {
        Asked {
            uid,
            gid: uid + 1,
            groups: vec![30, 40],
            capabilities: Capabilities {
                bounding: CHOWN | KILL | NET_BIND | NET_RAW,
                permitted: CHOWN | KILL | NET_BIND,
                inheritable: CHOWN | KILL,
                effective: CHOWN,
                ambient: KILL,
            },
            no_new_privileges: true,
            filter: false,
            shift: 0,
        }
    }

    fn write(&self, bundle: &Bundle) {
        bundle.edit(|config| {
            let process = &mut config["process"];
            process["user"] =
                json!({"uid": self.uid, "gid": self.gid, "additionalGids": self.groups});
            process["noNewPrivileges"] = json!(self.no_new_privileges);
            let sets = self.capabilities;
            process["capabilities"] = json!({
                "bounding": names(sets.bounding), "permitted": names(sets.permitted),
                "inheritable": names(sets.inheritable), "effective": names(sets.effective),
                "ambient": names(sets.ambient),
            });
            if self.filter {
                config["linux"]["seccomp"] = cases::filter();
            }
        });
    }

    /// What the filter needs until the execve.
    fn extra(&self) -> u64 {
        match self.filter && !self.no_new_privileges {
            true => SYS_ADMIN,
            false => 0,
        }
    }

    /// What execve(2) makes of the sets for a file without capabilities (capabilities(7)).
    fn executed(&self) -> Capabilities {
        let sets = self.capabilities;
        let gained = match (self.uid, self.no_new_privileges) {
            (0, false) => sets.inheritable | sets.bounding,
            (0, true) => (sets.inheritable | sets.bounding) & sets.permitted,
            (_, _) => 0,
        };
        Capabilities {
            permitted: gained | sets.ambient,
            effective: gained | sets.ambient,
            ..sets
        }
    }

    fn ids_of(&self, status: &Status) -> bool {
        let mut groups = status.groups.clone();
        groups.sort_unstable();
        let shifted: Vec<u32> = self.groups.iter().map(|group| group + self.shift).collect();
        status.uids == [self.uid + self.shift; 4]
            && status.gids == [self.gid + self.shift; 4]
            && groups == shifted
    }
}

fn names(bits: u64) -> Value {
    let all = [
        (CHOWN, "CAP_CHOWN"),
        (KILL, "CAP_KILL"),
        (NET_BIND, "CAP_NET_BIND_SERVICE"),
        (NET_RAW, "CAP_NET_RAW"),
    ];
    let named = all.iter().filter(|(bit, _)| bits & bit != 0);
    named.map(|(_, name)| json!(name)).collect()
}

/// Nothing of the one is not in the other.
fn within(narrow: u64, wide: u64) -> bool {
    narrow & !wide == 0
}

/// What of the trace breaks the invariant.
fn wrong(trace: &Trace, asked: &Asked) -> Vec<String> {
    let pid = trace.program().pid;
    let init: Vec<&Stop> = trace.of(Who::Init).filter(|stop| stop.pid == pid).collect();
    let mut wrong = Vec::new();
    for two in init.windows(2) {
        wrong.extend(wider(&two[0].state.status, &two[1].state.status));
    }
    let is_capset = |stop: &&Stop| stop.number() == Some(libc::SYS_capset);
    let dropped = init.iter().position(is_capset).unwrap_or(init.len());
    for stop in init.iter().skip(dropped + 1) {
        wrong.extend(after_the_drop(&stop.state.status, asked, asked.extra()));
    }
    let last = init.last().unwrap();
    if last.number() != Some(libc::SYS_execve) {
        wrong.push(format!("the last of init was {:?}", last.what));
    }
    wrong.extend(at_execve(&last.state.status, asked));
    for stop in trace.of(Who::Program) {
        wrong.extend(executed(&stop.state.status, asked));
    }
    // The hooks between the drop and the execve.
    for hook in trace
        .hooks()
        .iter()
        .filter(|hook| hook.state.arguments[1] == "startContainer")
    {
        wrong.extend(after_the_drop(&hook.state.status, asked, 0));
    }
    wrong
}

/// Of two states, one after the other.
fn wider(before: &Status, after: &Status) -> Option<String> {
    let (old, new) = (before.capabilities, after.capabilities);
    let shrinks = within(new.bounding, old.bounding) && within(new.permitted, old.permitted);
    let kept =
        after.no_new_privileges >= before.no_new_privileges && after.seccomp >= before.seccomp;
    (!shrinks || !kept).then(|| format!("wider: {before:?} and then {after:?}"))
}

/// From capset(2) on.
fn after_the_drop(status: &Status, asked: &Asked, extra: u64) -> Option<String> {
    let (sets, most) = (status.capabilities, asked.executed());
    let asked_sets = asked.capabilities;
    let within_all = within(sets.bounding, asked_sets.bounding)
        && within(sets.inheritable, asked_sets.inheritable)
        && within(sets.ambient, asked_sets.ambient)
        && within(
            sets.permitted,
            asked_sets.permitted | most.permitted | extra,
        )
        && within(
            sets.effective,
            asked_sets.effective | most.effective | extra,
        );
    let fine = within_all && asked.ids_of(status);
    (!fine).then(|| format!("after the drop: {status:?}"))
}

/// When execve(2) is called.
fn at_execve(status: &Status, asked: &Asked) -> Option<String> {
    let (sets, extra) = (asked.capabilities, asked.extra());
    let expected = Capabilities {
        permitted: sets.permitted | extra,
        effective: sets.effective | extra,
        ..sets
    };
    let fine = status.capabilities == expected && state_is(status, asked);
    (!fine).then(|| format!("at the execve: {status:?}"))
}

/// In the program.
fn executed(status: &Status, asked: &Asked) -> Option<String> {
    let fine = status.capabilities == asked.executed() && state_is(status, asked);
    (!fine).then(|| format!("in the program: {status:?}"))
}

fn state_is(status: &Status, asked: &Asked) -> bool {
    asked.ids_of(status)
        && status.no_new_privileges == asked.no_new_privileges
        && status.seccomp == if asked.filter { 2 } else { 0 }
}

fn holds(trace: &Trace, asked: &Asked) {
    let wrong = wrong(trace, asked);
    assert!(wrong.is_empty(), "{} times: {}", wrong.len(), wrong[0]);
}

fn run_gives(asked: &Asked) {
    let bundle = cases::bundle(Subject::Real);
    asked.write(&bundle);
    holds(&cases::run(&bundle, &[]), asked);
}

fn root_gets_what_was_asked() {
    run_gives(&Asked::of(0));
}

fn an_ordinary_user_gets_what_was_asked() {
    run_gives(&Asked::of(1000));
}

fn who_is_filtered_gets_what_was_asked() {
    for no_new_privileges in [true, false] {
        for uid in [0, 1000] {
            run_gives(&Asked {
                filter: true,
                no_new_privileges,
                ..Asked::of(uid)
            });
        }
    }
}

fn who_is_in_a_user_namespace_gets_what_was_asked() {
    for uid in [0, 1000] {
        let asked = Asked {
            shift: cases::OWNER,
            ..Asked::of(uid)
        };
        let bundle = cases::bundle(Subject::Real);
        cases::in_user_namespace(&bundle);
        asked.write(&bundle);
        holds(&cases::create(&bundle, &[]), &asked);
    }
}

fn a_process_that_joins_gets_what_was_asked() {
    for (shift, uid) in [(0, 0), (0, 1000), (cases::OWNER, 1000)] {
        for filter in [false, true] {
            let asked = Asked {
                shift,
                filter,
                no_new_privileges: false,
                ..Asked::of(uid)
            };
            let bundle = cases::bundle(Subject::Real);
            if shift != 0 {
                cases::in_user_namespace(&bundle);
            }
            asked.write(&bundle);
            holds(&cases::exec(&bundle, &[]), &asked);
        }
    }
}

/// Everything that the caller holds is ambient, and its user id counts for nothing.
fn called(bundle: &Bundle, words: &[&str]) -> Command {
    let held = Status::of("self").unwrap().capabilities.permitted;
    let list: Vec<String> = (0..64)
        .filter(|bit| held & 1 << bit != 0)
        .map(|bit| format!("+cap_{bit}"))
        .collect();
    let list = list.join(",");
    let set =
        format!("setpriv --inh-caps {list} --ambient-caps {list} --securebits +noroot \"$@\"");
    caller::from_shell(bundle, &format!("exec {set}"), words)
}

fn ambient_capabilities_and_secure_bits_of_the_caller_do_not_stay() {
    for uid in [0, 1000] {
        let asked = Asked::of(uid);
        let bundle = cases::bundle(Subject::Real);
        asked.write(&bundle);
        holds(&cases::run_as(&bundle, &[], &called), &asked);
        let bundle = cases::bundle(Subject::Real);
        asked.write(&bundle);
        holds(&cases::exec_as(&bundle, &[], &called), &asked);
    }
}

fn more_than_was_asked_would_be_inheritable() {
    let bundle = cases::bundle(Subject::Without("inheritable"));
    let asked = Asked::of(1000);
    asked.write(&bundle);
    let wrong = wrong(&cases::run(&bundle, &[]), &asked).join("\n");
    for place in ["after the drop", "at the execve", "in the program"] {
        assert!(wrong.contains(place), "{wrong}");
    }
}

/// What makes a status another one.
type Change = fn(&mut Status);

/// A start in few steps: the drop, then the execve, then the program.
fn made_up(asked: &Asked, change: impl Fn(usize, &mut Status)) -> Vec<String> {
    let ids = |id: u32| vec![id; 4];
    let all = Capabilities {
        permitted: u64::MAX,
        effective: u64::MAX,
        bounding: u64::MAX,
        ..Capabilities::default()
    };
    let status = |capabilities| Status {
        uids: ids(asked.uid),
        gids: ids(asked.gid),
        groups: asked.groups.clone(),
        capabilities,
        no_new_privileges: true,
        ..Status::default()
    };
    let sets = asked.capabilities;
    let steps = [
        (libc::SYS_prctl, all),
        (
            libc::SYS_capset,
            Capabilities {
                bounding: sets.bounding,
                ..all
            },
        ),
        (libc::SYS_getcwd, sets),
        (libc::SYS_execve, sets),
    ];
    let mut stops: Vec<Stop> = steps
        .into_iter()
        .map(|(number, sets)| {
            (
                Who::Init,
                What::Calls(Call::made_up(number, [0; 6], Vec::new())),
                sets,
            )
        })
        .chain([(Who::Program, What::Executed, asked.executed())])
        .map(|(who, what, sets)| Stop {
            pid: 1,
            who,
            what,
            state: State {
                status: status(sets),
                ..State::default()
            },
        })
        .collect();
    for (index, stop) in stops.iter_mut().enumerate() {
        change(index, &mut stop.state.status);
    }
    wrong(&Trace::made_up(stops), asked)
}

fn a_set_that_grows_is_seen() {
    let asked = Asked::of(1000);
    assert!(made_up(&asked, |_, _| ()).is_empty());
    let changes: [(usize, Change); 12] = [
        (0, |status| status.capabilities.bounding = CHOWN), // and then it grows
        (0, |status| status.capabilities.permitted = CHOWN),
        (0, |status| status.seccomp = 2),
        (2, |status| status.capabilities.effective |= SYS_ADMIN),
        (2, |status| status.capabilities.permitted |= SYS_ADMIN),
        (2, |status| status.uids[3] = 0),
        (2, |status| status.groups.push(0)),
        (3, |status| status.capabilities.ambient |= CHOWN),
        (3, |status| status.capabilities.inheritable |= NET_RAW),
        (3, |status| status.no_new_privileges = false),
        (4, |status| status.capabilities.permitted |= NET_RAW),
        (4, |status| status.gids[0] = 0),
    ];
    for (number, (at, change)) in changes.into_iter().enumerate() {
        let wrong = made_up(&asked, |index, status| {
            if index == at {
                change(status);
            }
        });
        assert!(!wrong.is_empty(), "change {number} is not seen");
    }
}
