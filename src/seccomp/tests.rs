//! The compiler as a whole, by an interpreter in place of the kernel: held against a plain reading of
//! random profiles, seccompiler's conditions, and libseccomp's answers under Docker's profile.

use std::collections::{BTreeMap, BTreeSet};

use oci_spec::runtime::{LinuxSeccomp, Spec};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::reference::{Call, plainly, run};
use super::*;

fn parse(profile: &Value) -> LinuxSeccomp {
    serde_json::from_value(profile.clone()).unwrap()
}

/// The program of a profile without faults, on a machine of this architecture.
fn program(profile: &Value, native: Arch) -> Vec<Instruction> {
    let seccomp = parse(profile);
    let mut problems = Problems::default();
    let profile = Profile::new(&seccomp, native, &mut problems);
    assert_eq!(problems, Problems::default());
    let program = compile::compile(&profile, &mut Vec::new());
    assert!(profile.notifies() || program.len() > LONGEST || compile::is_program(&program));
    program
}

pub(super) fn plan(profile: Value) -> Result<Plan, String> {
    let mut spec = Spec::default();
    let mut linux = spec.linux().clone().unwrap();
    linux.set_seccomp(Some(parse(&profile)));
    spec.set_linux(Some(linux));
    let mut problems = Problems::default();
    let plan = Plan::new(&spec, &mut problems).unwrap();
    match problems.is_empty() {
        true => Ok(plan),
        false => Err(problems.to_string().replace("; ", "\n")),
    }
}

fn problems(profile: Value) -> String {
    plan(profile).map_or_else(|problems| problems, |_| String::new())
}

/// Docker's profile for amd64: the repository says where it is from.
pub(super) fn docker() -> Value {
    serde_json::from_str(include_str!("../../tests/profiles/docker-amd64.json")).unwrap()
}

fn answer(program: &[Instruction], arch: Arch, name: &str, args: [u64; 6]) -> String {
    run(program, &named(arch, name, args)).0.to_string()
}

fn named(arch: Arch, name: &str, args: [u64; 6]) -> Call {
    let number = Syscall::named(name).unwrap().number(arch);
    Call::new(arch, number.unwrap(), args)
}

#[test]
fn dockers_profile_decides_as_docker_means_it() {
    let program = program(&docker(), Arch::X86_64);
    let none = [0; 6];
    let first = |value| [value, 0, 0, 0, 0, 0];
    for arch in [Arch::X86_64, Arch::X86, Arch::X32] {
        let answer = |name, args| answer(&program, arch, name, args);
        assert_eq!(answer("read", none), "ALLOW");
        assert_eq!(answer("mount", none), "ERRNO(1)");
        assert_eq!(answer("clone3", none), "ERRNO(38)");
        assert_eq!(answer("clone", first(0x11)), "ALLOW");
        assert_eq!(answer("clone", first(0x1000_0000)), "ERRNO(1)");
        assert_eq!(answer("personality", first(0xffff_ffff)), "ALLOW");
        assert_eq!(answer("personality", first(1)), "ERRNO(1)");
        for (family, expected) in [(37, "ALLOW"), (38, "ERRNO(1)"), (39, "ALLOW")] {
            assert_eq!(answer("socket", first(family)), expected);
        }
        assert_eq!(answer("socket", first(40)), "ERRNO(1)");
        assert_eq!(answer("socket", first(41)), "ALLOW");
        let newer = run(&program, &Call::new(arch, 600, none)).0;
        assert_eq!(newer, Action::NO_SUCH_CALL);
    }
    assert_eq!(answer(&program, Arch::X86, "socketcall", none), "ALLOW");
    let foreign = Call::new(Arch::Aarch64, 0, none);
    assert_eq!(run(&program, &foreign).0, Action::KILL_THREAD);
}

#[test]
fn dockers_profile_decides_as_by_libseccomp() {
    const URETPROBE: u32 = 335; // allowed by the profile, and newer than that libseccomp
    let program = program(&docker(), Arch::X86_64);
    let (mut expected, mut arguments) = (BTreeMap::new(), BTreeSet::new());
    for line in include_str!("../../tests/profiles/docker-amd64.libseccomp").lines() {
        let [arch, argument, from, to, answer] = line.split(' ').collect::<Vec<_>>()[..] else {
            continue; // the heading
        };
        let argument = u64::from_str_radix(&argument[2..], 16).unwrap();
        arguments.insert(argument);
        for number in from.parse::<u32>().unwrap()..=to.parse().unwrap() {
            expected.insert((arch, argument, number), answer);
        }
    }
    for (arch, _) in &ARCHS[..3] {
        for number in (0..=450).filter(|number| *number != URETPROBE) {
            for argument in &arguments {
                let call = Call::new(*arch, number, [*argument, 0, 0, 0, 0, 0]);
                let found = run(&program, &call).0.to_string();
                let special = expected.get(&(arch.name(), *argument, number));
                let expected = special.unwrap_or_else(|| &expected[&(arch.name(), 0, number)]);
                assert_eq!(&found, expected, "{} {number} {argument:#x}", arch.name());
            }
        }
    }
}

#[test]
fn dockers_profile_is_a_small_program_of_short_ways() {
    let program = program(&docker(), Arch::X86_64);
    assert!(program.len() < 700, "{} instructions", program.len());
    for number in 0..500 {
        let native = Call::new(Arch::X86_64, number, [u64::MAX; 6]);
        let (_, steps) = run(&program, &native);
        assert!(steps < 30, "{steps} steps for {number}");
    }
}

#[test]
fn an_architecture_that_is_not_named_ends_its_caller() {
    let profile = json!({ "defaultAction": "SCMP_ACT_ALLOW" });
    let only = program(&profile, Arch::X86_64);
    let x32 = named(Arch::X32, "read", [0; 6]);
    assert_eq!(run(&only, &x32).0, Action::KILL_THREAD);
    assert_eq!(answer(&only, Arch::X86, "read", [0; 6]), "KILL_THREAD");
    assert_eq!(answer(&only, Arch::X86_64, "read", [0; 6]), "ALLOW");
    // What a tracer makes of a call that it leaves out is no number of x32.
    let none = Call::new(Arch::X86_64, u32::MAX, [0; 6]);
    assert_eq!(run(&only, &none).0, Action::ALLOW);
}

#[test]
fn architectures_whose_calls_this_kernel_never_gets_are_left_out() {
    let profile = |archs: Value| {
        json!({ "defaultAction": "SCMP_ACT_ERRNO", "architectures": archs,
            "syscalls": [{ "names": ["read"], "action": "SCMP_ACT_ALLOW" }] })
    };
    let foreign = json!(["SCMP_ARCH_MIPS64", "SCMP_ARCH_AARCH64", "SCMP_ARCH_X86_64"]);
    let alone = program(&profile(json!([])), Arch::X86_64);
    assert_eq!(program(&profile(foreign), Arch::X86_64), alone);
    let twice = json!(["SCMP_ARCH_X86", "SCMP_ARCH_X86"]);
    let once = json!(["SCMP_ARCH_X86"]);
    let twice = program(&profile(twice), Arch::X86_64);
    assert_eq!(twice, program(&profile(once), Arch::X86_64));
}

#[test]
fn calls_newer_than_the_profile_do_not_exist() {
    let profile = |default: &str| {
        json!({
            "defaultAction": default,
            "architectures": ["SCMP_ARCH_ARM"],
            "syscalls": [
                { "names": ["read", "set_tls"], "action": "SCMP_ACT_LOG" },
                // Without effect, and counted all the same.
                { "names": ["openat2"], "action": default },
            ]
        })
    };
    let newest = Syscall::named("openat2").unwrap();
    for arch in [Arch::Aarch64, Arch::Arm] {
        let newest = newest.number(arch).unwrap();
        let at = |default: &str, number| {
            let program = program(&profile(default), Arch::Aarch64);
            run(&program, &Call::new(arch, number, [0; 6])).0
        };
        for (default, refused) in [
            ("SCMP_ACT_ERRNO", Action::errno(1)),
            ("SCMP_ACT_KILL_PROCESS", Action::KILL_PROCESS),
            ("SCMP_ACT_TRAP", Action::TRAP),
        ] {
            assert_eq!(at(default, newest), refused);
            assert_eq!(at(default, newest + 1), Action::NO_SUCH_CALL);
        }
        assert_eq!(at("SCMP_ACT_ALLOW", newest + 1), Action::ALLOW);
        assert_eq!(at("SCMP_ACT_TRACE", newest + 1), Action::trace(1));
    }
    let program = program(&profile("SCMP_ACT_ERRNO"), Arch::Aarch64);
    assert_eq!(answer(&program, Arch::Arm, "set_tls", [0; 6]), "LOG");
}

#[test]
fn an_argument_named_twice_is_a_rule_for_each_condition() {
    let arg =
        |index: u32, value: u64| json!({ "index": index, "value": value, "op": "SCMP_CMP_EQ" });
    let rule = |args: Value| {
        let rule = json!({ "names": ["kill"], "action": "SCMP_ACT_ALLOW", "args": args });
        json!({ "defaultAction": "SCMP_ACT_ERRNO", "syscalls": [rule] })
    };
    let asked = |args: Value, first, second| {
        let program = program(&rule(args), Arch::X86_64);
        answer(&program, Arch::X86_64, "kill", [first, second, 0, 0, 0, 0])
    };
    let all = json!([arg(0, 1), arg(1, 2)]);
    assert_eq!(asked(all.clone(), 1, 2), "ALLOW");
    assert_eq!(asked(all, 1, 3), "ERRNO(1)");
    let any = json!([arg(0, 1), arg(0, 5), arg(1, 2)]);
    assert_eq!(asked(any.clone(), 5, 0), "ALLOW");
    assert_eq!(asked(any.clone(), 9, 2), "ALLOW");
    assert_eq!(asked(any, 9, 0), "ERRNO(1)");
}

#[test]
fn a_value_is_compared_as_the_architecture_has_it() {
    let asked = |op: &str, value: u64, arg: u64| {
        let args = json!([{ "index": 2, "value": value, "op": format!("SCMP_CMP_{op}") }]);
        let rule = json!({ "names": ["kill"], "action": "SCMP_ACT_LOG", "args": args });
        let profile = json!({ "defaultAction": "SCMP_ACT_ERRNO", "syscalls": [rule],
            "architectures": ["SCMP_ARCH_X86"] });
        let program = program(&profile, Arch::X86_64);
        [Arch::X86_64, Arch::X86]
            .map(|arch| answer(&program, arch, "kill", [0, 0, arg, 0, 0, 0]) == "LOG")
    };
    let minus_one = u64::MAX;
    assert_eq!(asked("EQ", minus_one, 0xffff_ffff), [false, true]);
    assert_eq!(asked("NE", minus_one, minus_one), [false, false]);
    assert_eq!(asked("GE", minus_one - 1, 0xffff_ffff), [false, true]);
    assert_eq!(asked("EQ", 0x1_0000_0005, 5), [false, false]);
    assert_eq!(asked("LT", 0x1_0000_0005, 0xffff_ffff), [true, true]);
    assert_eq!(asked("EQ", 5, 0x1_0000_0005), [false, true]);
}

#[test]
fn a_rule_without_conditions_beats_all_others_of_its_call() {
    let rule = |errno: u32, args: Value| json!({ "names": ["kill"], "action": "SCMP_ACT_ERRNO", "errnoRet": errno, "args": args });
    let arg = json!([{ "index": 0, "value": 1, "op": "SCMP_CMP_EQ" }]);
    let rules = json!([rule(5, arg), rule(6, json!([])), rule(7, json!([]))]);
    let profile = json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules });
    let program = program(&profile, Arch::X86_64);
    for first in [1, 2] {
        let args = [first, 0, 0, 0, 0, 0];
        assert_eq!(answer(&program, Arch::X86_64, "kill", args), "ERRNO(6)");
    }
}

#[test]
fn a_rule_on_a_socket_call_holds_for_socketcall_too() {
    let socket = |default: &str, action: &str, args: Value| {
        let rule = json!({ "names": ["socket", "shmat"], "action": action, "args": args });
        let profile = json!({ "defaultAction": default, "syscalls": [rule],
            "architectures": ["SCMP_ARCH_X86"] });
        let program = program(&profile, Arch::X86_64);
        let answer = |name, first| answer(&program, Arch::X86, name, [first, 99, 0, 0, 0, 0]);
        [
            answer("socketcall", 1),
            answer("socketcall", 2),
            answer("ipc", 21 | 1 << 16),
            answer("ipc", 20),
        ]
    };
    let args = json!([{ "index": 0, "value": 38, "op": "SCMP_CMP_EQ" }]);
    let (pass, stop) = ("SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO");
    let one = ["ERRNO(1)", "ALLOW", "ERRNO(1)", "ALLOW"];
    let other = ["ALLOW", "ERRNO(1)", "ALLOW", "ERRNO(1)"];
    assert_eq!(socket(stop, pass, json!([])), other);
    assert_eq!(socket(pass, stop, json!([])), one);
    // What can not be seen is stopped by either kind of profile.
    assert_eq!(socket(stop, pass, args.clone()), ["ERRNO(1)"; 4]);
    assert_eq!(socket(pass, stop, args), one);
}

#[test]
fn what_is_wrong_with_a_profile_is_told_with_its_place() {
    let arg = |index: u32| json!({ "index": index, "value": 1, "op": "SCMP_CMP_EQ" });
    let profile = json!({
        "defaultAction": "SCMP_ACT_NOTIFY",
        "defaultErrnoRet": 1,
        "listenerMetadata": "x",
        "syscalls": [
            { "names": [], "action": "SCMP_ACT_ERRNO", "errnoRet": 4096 },
            { "names": ["read", ""], "action": "SCMP_ACT_ALLOW", "errnoRet": 1 },
            { "names": ["write"], "action": "SCMP_ACT_TRACE", "errnoRet": 65536, "args": [arg(6)] },
        ]
    });
    assert_eq!(
        problems(profile),
        "linux.seccomp.defaultErrnoRet: is for SCMP_ACT_ERRNO and SCMP_ACT_TRACE only: remove it\n\
         linux.seccomp.defaultAction: SCMP_ACT_NOTIFY can not be the default: init itself would wait \
         for an answer before anybody can give one\n\
         linux.seccomp.syscalls[0].names: must name a system call\n\
         linux.seccomp.syscalls[0].errnoRet: must be at most 4095, is 4096\n\
         linux.seccomp.syscalls[1].names[1]: must name a system call, is \"\"\n\
         linux.seccomp.syscalls[1].errnoRet: is for SCMP_ACT_ERRNO and SCMP_ACT_TRACE only: remove it\n\
         linux.seccomp.syscalls[2].errnoRet: must be at most 65535, is 65536\n\
         linux.seccomp.syscalls[2].args[0].index: must be at most 5, is 6\n\
         linux.seccomp.listenerMetadata: is told to a listener: set listenerPath, or remove it"
    );
}

#[test]
fn rules_that_contradict_each_other_are_told() {
    let rule = |errno: u32, value: u64| {
        let arg = json!({ "index": 0, "value": value, "op": "SCMP_CMP_EQ" });
        json!({ "names": ["kill", "tkill"], "action": "SCMP_ACT_ERRNO", "errnoRet": errno, "args": [arg] })
    };
    let of =
        |rules: Value| problems(json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules }));
    assert_eq!(
        of(json!([rule(5, 1), rule(6, 2), rule(7, 1)])),
        "linux.seccomp.syscalls[2]: wants another action for the same call and arguments than \
         linux.seccomp.syscalls[0]"
    );
    assert_eq!(of(json!([rule(5, 1), rule(5, 1)])), "");
}

#[test]
fn a_listener_is_there_when_it_is_asked() {
    let profile = |names: Value, more: Value| {
        let allow = json!({ "names": names, "action": "SCMP_ACT_ALLOW" });
        let ask = json!({ "names": ["mkdir"], "action": "SCMP_ACT_NOTIFY" });
        let mut profile = json!({ "defaultAction": "SCMP_ACT_ERRNO", "syscalls": [allow, ask] });
        for (key, value) in more.as_object().unwrap() {
            profile[key] = value.clone();
        }
        profile
    };
    assert_eq!(
        problems(profile(json!(["sendmsg"]), json!({}))),
        "linux.seccomp.listenerPath: is required with SCMP_ACT_NOTIFY"
    );
    let socket = json!({ "listenerPath": "/a.sock", "listenerMetadata": "m" });
    assert_eq!(
        problems(profile(json!(["read"]), socket.clone())),
        "linux.seccomp: must allow sendmsg when it uses SCMP_ACT_NOTIFY: init hands the listener \
         over by this call, under the filter already"
    );
    let plan = plan(profile(json!(["sendmsg"]), socket)).unwrap();
    let listener = plan.listener().unwrap();
    assert_eq!(listener.socket.to_str(), Some("/a.sock"));
    assert_eq!(listener.metadata, "m");
    assert_eq!(plan.flags(), flag::SPEC_ALLOW | flag::NEW_LISTENER);
}

#[test]
fn flags_are_those_of_the_profile() {
    let flags = |list: Value, action: &str| {
        let rule = json!({ "names": ["mkdir"], "action": action });
        let mut profile = json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule],
            "listenerPath": "/a.sock" });
        if !list.is_null() {
            profile["flags"] = list;
        }
        plan(profile).unwrap().flags()
    };
    let all = json!([
        "SECCOMP_FILTER_FLAG_TSYNC",
        "SECCOMP_FILTER_FLAG_LOG",
        "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
        "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"
    ]);
    assert_eq!(flags(all.clone(), "SCMP_ACT_ERRNO"), 0b111);
    assert_eq!(flags(all, "SCMP_ACT_NOTIFY"), 0b11_1111);
    assert_eq!(flags(json!([]), "SCMP_ACT_ERRNO"), 0);
    assert_eq!(flags(Value::Null, "SCMP_ACT_ERRNO"), flag::SPEC_ALLOW);
}

#[test]
fn a_program_that_the_kernel_would_not_take_is_refused() {
    let arg = |value: u64| json!({ "index": 0, "value": value, "op": "SCMP_CMP_EQ" });
    let profile = |count: u64| {
        let args: Vec<_> = (0..count).map(|i| arg(i << 20)).collect();
        let rule = json!({ "names": ["kill"], "action": "SCMP_ACT_ALLOW", "args": args });
        json!({ "defaultAction": "SCMP_ACT_ERRNO", "syscalls": [rule] })
    };
    let told = problems(profile(1100));
    assert!(told.starts_with("linux.seccomp: compiles to 4"), "{told}");
    assert!(told.ends_with("instructions, and the kernel takes 4096: use fewer conditions"));
    assert_eq!(problems(profile(900)), "");
    // Far jumps: the last of many conditions, and the call beyond them.
    let long = program(&profile(900), Arch::X86_64);
    let at = |value| answer(&long, Arch::X86_64, "kill", [value, 0, 0, 0, 0, 0]);
    assert_eq!(at(899 << 20), "ALLOW");
    assert_eq!(at(0), "ALLOW");
    assert_eq!(at(900 << 20), "ERRNO(1)");
    assert_eq!(answer(&long, Arch::X86_64, "read", [0; 6]), "ERRNO(1)");
    let mut many = profile(300);
    many["syscalls"][0]["names"] = json!(vec!["kill"; 300]);
    assert_eq!(
        problems(many),
        "linux.seccomp.syscalls: 90000 pairs of a name and a condition are too many"
    );
}

#[test]
fn an_argument_that_no_call_has_is_refused_however_large_its_index_is() {
    for index in [6, u64::MAX] {
        let condition = json!({ "index": index, "op": "SCMP_CMP_GT", "value": 0 });
        let rule = json!({ "names": ["kill"], "action": "SCMP_ACT_ALLOW", "args": [condition] });
        let profile = json!({ "defaultAction": "SCMP_ACT_ERRNO", "syscalls": [rule] });
        let expected =
            format!("linux.seccomp.syscalls[0].args[0].index: must be at most 5, is {index}");
        assert_eq!(problems(profile), expected);
    }
}

#[test]
fn the_plan_is_told_in_words() {
    let mut told = plan(docker()).unwrap().to_string();
    let end = told.find(": ").unwrap();
    told.truncate(end);
    assert!(told.starts_with("seccomp 15 rules and default ERRNO(1) for "));
}

/// Names of all kinds: at both ends of the table, of one architecture only, multiplexed, unknown.
const NAMES: [&str; 14] = [
    "read",
    "write",
    "io_setup",
    "kill",
    "clone",
    "socket",
    "socketcall",
    "shmget",
    "ipc",
    "execve",
    "set_tls",
    "mseal",
    "statx",
    "no_such_call",
];

const VALUES: [u64; 9] = [
    0,
    1,
    2,
    0xffff_ffff,
    0x1_0000_0000,
    0x1_0000_0001,
    0x2_0000_0001,
    u64::MAX - 1,
    u64::MAX,
];

const ARCHS: [(Arch, &str); 5] = [
    (Arch::X86_64, "SCMP_ARCH_X86_64"),
    (Arch::X86, "SCMP_ARCH_X86"),
    (Arch::X32, "SCMP_ARCH_X32"),
    (Arch::Aarch64, "SCMP_ARCH_AARCH64"),
    (Arch::Arm, "SCMP_ARCH_ARM"),
];

fn any_condition() -> impl Strategy<Value = Value> {
    let op = proptest::sample::select(vec!["NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"]);
    let value = || proptest::sample::select(VALUES.to_vec());
    let index = prop_oneof![4 => 0..2_u32, 1 => 0..6_u32];
    (index, op, value(), value()).prop_map(|(index, op, value, two)| {
        json!({ "index": index, "op": format!("SCMP_CMP_{op}"), "value": value, "valueTwo": two })
    })
}

fn any_action() -> impl Strategy<Value = Value> {
    let data = proptest::sample::select(vec![0_u32, 2, 38, 4095]);
    let plain = vec!["KILL", "KILL_PROCESS", "TRAP", "ALLOW", "LOG"];
    prop_oneof![
        2 => proptest::sample::select(plain).prop_map(|word| json!([format!("SCMP_ACT_{word}")])),
        2 => data.clone().prop_map(|data| json!(["SCMP_ACT_ERRNO", data])),
        1 => data.prop_map(|data| json!(["SCMP_ACT_TRACE", data])),
    ]
}

fn any_profile() -> impl Strategy<Value = Value> {
    let names = proptest::sample::subsequence(NAMES.to_vec(), 1..4);
    let conditions = prop_oneof![
        1 => Just(Vec::new()),
        2 => proptest::collection::vec(any_condition(), 1..4),
    ];
    let rule = (names, any_action(), conditions).prop_map(|(names, action, args)| {
        let mut rule = json!({ "names": names, "action": action[0], "args": args });
        if let Some(data) = action.get(1) {
            rule["errnoRet"] = data.clone();
        }
        rule
    });
    let archs = proptest::sample::subsequence(ARCHS.map(|(_, name)| name).to_vec(), 0..5);
    let rules = proptest::collection::vec(rule, 0..8);
    (any_action(), archs, rules).prop_map(|(default, archs, rules)| {
        let mut profile =
            json!({ "defaultAction": default[0], "architectures": archs, "syscalls": rules });
        if let Some(data) = default.get(1) {
            profile["defaultErrnoRet"] = data.clone();
        }
        profile
    })
}

fn any_call() -> impl Strategy<Value = (Arch, u32, [u64; 6])> {
    let arch = proptest::sample::select(ARCHS.map(|(arch, _)| arch).to_vec());
    let near = (proptest::sample::select(NAMES.to_vec()), -1..2_i64);
    let value = proptest::sample::select(VALUES.to_vec());
    let args = proptest::array::uniform6(value);
    (arch, near, args, 0..600_u32).prop_map(|(arch, (name, off), args, other)| {
        let number = Syscall::named(name).and_then(|call| call.number(arch));
        let number = number.map_or(other, |number| number.saturating_add_signed(off as i32));
        (arch, number, args)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_program_decides_as_its_profile_says(
        profile in any_profile(),
        native in proptest::sample::select(vec![Arch::X86_64, Arch::Aarch64]),
        calls in proptest::collection::vec(any_call(), 16),
    ) {
        let seccomp = parse(&profile);
        let profile = Profile::new(&seccomp, native, &mut Problems::default());
        let mut contradictions = Vec::new();
        let program = compile::compile(&profile, &mut contradictions);
        for (arch, number, args) in calls {
            let found = run(&program, &Call::new(arch, number, args)).0;
            let expected = plainly(&profile, arch, number, args);
            prop_assert_eq!(found, expected, "{:?} {} {:x?}", arch, number, args);
        }
    }

    #[test]
    fn conditions_hold_as_seccompiler_has_them(
        conditions in proptest::collection::vec(any_condition(), 1..4),
        args in proptest::array::uniform6(proptest::sample::select(VALUES.to_vec())),
    ) {
        let mut conditions = conditions;
        for (index, condition) in conditions.iter_mut().enumerate() {
            condition["index"] = json!(index); // each argument once: all must hold
        }
        let rule = json!({ "names": ["kill"], "action": "SCMP_ACT_ALLOW", "args": conditions });
        let profile = json!({ "defaultAction": "SCMP_ACT_ERRNO", "syscalls": [rule] });
        let found = answer(&program(&profile, Arch::X86_64), Arch::X86_64, "kill", args);
        let theirs = run(&seccompilers(&conditions), &Call::new(Arch::X86_64, 0, args)).0;
        prop_assert_eq!(found, theirs.to_string());
    }
}

/// The figures of docs/decisions/0016.
#[test]
fn a_condition_takes_fewer_instructions_than_seccompilers() {
    let length = |arguments: &[Value]| {
        let rule = json!({ "names": ["kill"], "action": "SCMP_ACT_ALLOW", "args": arguments });
        let profile = json!({ "defaultAction": "SCMP_ACT_ERRNO", "syscalls": [rule] });
        program(&profile, Arch::X86_64).len()
    };
    for (op, value, two, ours, theirs) in [
        ("SCMP_CMP_EQ", 5_u64 << 32 | 5, 0, 4, 6),
        ("SCMP_CMP_MASKED_EQ", 0x7e02_0000, 0, 3, 8),
        ("SCMP_CMP_GE", 5 << 32 | 5, 0, 5, 7),
    ] {
        let one = [json!({ "index": 0, "op": op, "value": value, "valueTwo": two })];
        assert_eq!(length(&one) - length(&[]), ours, "{op}");
        // Behind its own stand the two answers.
        assert_eq!(seccompilers(&one).len() - 2, theirs, "{op}");
    }
}

/// The same conditions by the crate seccompiler: its fragment goes on where they hold, and passes
/// over one instruction where they do not.
fn seccompilers(conditions: &[Value]) -> Vec<Instruction> {
    use seccompiler::{BpfProgram, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompRule};
    let theirs = |condition: &Value| {
        let value = condition["value"].as_u64().unwrap();
        let two = condition["valueTwo"].as_u64().unwrap();
        let (op, value) = match condition["op"].as_str().unwrap() {
            "SCMP_CMP_NE" => (SeccompCmpOp::Ne, value),
            "SCMP_CMP_LT" => (SeccompCmpOp::Lt, value),
            "SCMP_CMP_LE" => (SeccompCmpOp::Le, value),
            "SCMP_CMP_EQ" => (SeccompCmpOp::Eq, value),
            "SCMP_CMP_GE" => (SeccompCmpOp::Ge, value),
            "SCMP_CMP_GT" => (SeccompCmpOp::Gt, value),
            _ => (SeccompCmpOp::MaskedEq(value), two),
        };
        let index = condition["index"].as_u64().unwrap() as u8;
        SeccompCondition::new(index, SeccompCmpArgLen::Qword, op, value).unwrap()
    };
    let rule = SeccompRule::new(conditions.iter().map(theirs).collect()).unwrap();
    let fragment: BpfProgram = rule.into();
    let end = [Action::ALLOW, Action::errno(1)].map(|action| Instruction {
        code: 0x06,
        jump_true: 0,
        jump_false: 0,
        k: action.0,
    });
    let fragment = fragment.iter().map(|theirs| Instruction {
        code: theirs.code,
        jump_true: theirs.jt,
        jump_false: theirs.jf,
        k: theirs.k,
    });
    fragment.chain(end).collect()
}
