//! Annotations of crun that are about filters: strict names, a compiled filter, the listener's socket.

use std::process::{Command, Stdio};

use libtest_mimic::Trial;
use serde_json::{Value, json};

use super::agent::{self, Decision};
use super::probe::{self, Call};
use super::{YIELD, allowing, bundle, making, rule};
use crate::caller::{self, Running, Socket, command};
use crate::support::{Bundle, Ran, tests};

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    tests![
        an_unknown_name_is_an_error_where_that_is_asked,
        a_compiled_filter_is_in_the_place_of_the_rules,
        a_compiled_filter_needs_no_profile_beside_it,
        a_process_that_joins_is_under_the_compiled_filter_too,
        a_compiled_filter_is_installed_with_the_flags_of_the_profile,
        what_can_be_no_filter_is_refused,
        what_the_kernel_does_not_take_is_told_with_the_annotations_name,
        the_listener_is_found_by_the_annotation,
        two_names_of_one_listener_have_to_agree,
        a_receiver_without_an_agent_is_told_by_its_name,
        the_listener_is_found_by_the_callers_variable,
        a_variable_that_can_not_be_meant_is_refused_where_somebody_is_asked,
    ]
}

const STRICT: &str = "run.oci.seccomp_fail_unknown_syscall";
const DATA: &str = "run.oci.seccomp_bpf_data";
const RECEIVER: &str = "run.oci.seccomp.receiver";
const VARIABLE: &str = "RUN_OCI_SECCOMP_RECEIVER";

fn annotate(bundle: &Bundle, name: &str, value: impl Into<Value>) {
    let value = value.into();
    bundle.edit(|config| config["annotations"][name] = value);
}

fn an_unknown_name_is_an_error_where_that_is_asked() {
    let profile = |name: &str| {
        let known = rule("sched_yield", "ERRNO");
        allowing(json!([known, { "names": ["mkdir", name], "action": "SCMP_ACT_ERRNO" }]))
    };
    let told = "linux.seccomp.syscalls[1].names[1]: unknown system call \"no_such_call\", and \
        run.oci.seccomp_fail_unknown_syscall is set";
    for (value, name, refused) in [
        (None, "no_such_call", false),
        (Some("0"), "no_such_call", false),
        (Some("1"), "no_such_call", true),
        (Some(""), "no_such_call", true),
        (Some("1"), "rmdir", false),
        // Of another architecture alone.
        (Some("1"), "socketcall", false),
    ] {
        let bundle = bundle("mkdir /tmp/a 2>/dev/null || echo denied", profile(name));
        if let Some(value) = value {
            annotate(&bundle, STRICT, value);
        }
        let ran = bundle.run();
        if refused {
            let error = ran.failure();
            assert!(error.contains(told), "{error}");
        } else {
            assert_eq!(ran.success(), "denied\n", "{value:?} {name}");
        }
    }
}

/// One instruction of classic BPF: `struct sock_filter`.
type Instruction = (u16, u8, u8, u32);

const RETURN: u16 = 0x06;
const LOAD: u16 = 0x20;
const JUMP_IF_EQUAL: u16 = 0x15;
const ALLOW: u32 = 0x7fff_0000;
const ERRNO: u32 = 0x0005_0000;

/// Answers an errno to one call, and allows all others.
fn denying(call: u64, errno: u32) -> Vec<Instruction> {
    vec![
        (LOAD, 0, 0, 0), // the number
        (JUMP_IF_EQUAL, 0, 1, call as u32),
        (RETURN, 0, 0, ERRNO | errno),
        (RETURN, 0, 0, ALLOW),
    ]
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let group = |three: &[u8]| {
        let at = |i: usize| u32::from(three.get(i).copied().unwrap_or(0));
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        let digit = |i: usize| match i <= three.len() {
            true => char::from(DIGITS[(bits >> (18 - 6 * i) & 63) as usize]),
            false => '=',
        };
        (0..4).map(digit).collect::<String>()
    };
    bytes.chunks(3).map(group).collect()
}

fn encode(program: &[Instruction]) -> String {
    let bytes = program.iter().flat_map(|(code, yes, no, k)| {
        let code = code.to_ne_bytes();
        let k = k.to_ne_bytes();
        [code[0], code[1], *yes, *no, k[0], k[1], k[2], k[3]]
    });
    base64(&bytes.collect::<Vec<u8>>())
}

fn a_compiled_filter_is_in_the_place_of_the_rules() {
    for no_new_privileges in [true, false] {
        // The rule would answer 1, and one that is wrong is none here.
        let mut profile = allowing(json!([rule("sched_yield", "ERRNO")]));
        profile["syscalls"][0]["args"] = json!([{"index": 0, "value": 0, "op": "SCMP_CMP_EQ"}]);
        let bundle = making(Call::native(YIELD), profile);
        bundle.edit(|config| config["process"]["noNewPrivileges"] = json!(no_new_privileges));
        assert_eq!(bundle.run().code(), Some(1));
        annotate(&bundle, DATA, encode(&denying(YIELD, 77)));
        assert_eq!(bundle.run().code(), Some(77));
        // An empty one asks for nothing.
        annotate(&bundle, DATA, "");
        assert_eq!(bundle.run().code(), Some(1));
    }
}

fn a_compiled_filter_needs_no_profile_beside_it() {
    let bundle = Bundle::new("");
    probe::write(&bundle, "probe", Call::native(YIELD));
    bundle.edit(|config| {
        config["process"]["args"] = json!(["/probe"]);
        config["linux"].as_object_mut().unwrap().remove("seccomp");
    });
    assert_eq!(bundle.run().code(), Some(0));
    annotate(&bundle, DATA, encode(&denying(YIELD, 5)));
    assert_eq!(bundle.run().code(), Some(5));
}

fn a_process_that_joins_is_under_the_compiled_filter_too() {
    let bundle = Bundle::new("sleep 1000");
    probe::write(&bundle, "probe", Call::native(YIELD));
    annotate(&bundle, DATA, encode(&denying(YIELD, 9)));
    caller::start(&bundle);
    let joined = bundle.parhelion(&["exec", &bundle.id, "/probe"]);
    assert_eq!(joined.code(), Some(9), "{}", joined.stderr());
}

/// The call by which the filter is installed, as strace(1) writes it.
fn installed(bundle: &Bundle) -> String {
    let trace = bundle.folder.join("trace");
    let run = command(bundle, &["run", "--bundle", bundle.path(), &bundle.id]);
    let status = Command::new("strace")
        .args(["-f", "-e", "trace=seccomp", "-o"])
        .arg(&trace)
        .arg(run.get_program())
        .args(run.get_args())
        .stdin(Stdio::null())
        .status()
        .expect("strace is missing: apt-get install strace");
    assert!(status.success(), "{status}");
    let trace = std::fs::read_to_string(trace).unwrap();
    let line = trace
        .lines()
        .find(|line| line.contains("SECCOMP_SET_MODE_FILTER"));
    line.unwrap_or_else(|| panic!("no filter in {trace}"))
        .to_owned()
}

fn a_compiled_filter_is_installed_with_the_flags_of_the_profile() {
    for (flags, expected) in [
        (None, "SECCOMP_FILTER_FLAG_SPEC_ALLOW"),
        (Some(json!([])), "0"),
        (
            Some(json!(["SECCOMP_FILTER_FLAG_LOG"])),
            "SECCOMP_FILTER_FLAG_LOG",
        ),
        // It is about a listener, which there is not.
        (Some(json!(["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"])), "0"),
    ] {
        let mut profile = allowing(json!([]));
        if let Some(flags) = flags {
            profile["flags"] = flags;
        }
        let bundle = bundle("true", profile);
        annotate(&bundle, DATA, encode(&denying(YIELD, 1)));
        let line = installed(&bundle);
        let expected = format!("SECCOMP_SET_MODE_FILTER, {expected}, {{len=4,");
        assert!(line.contains(&expected), "{line}");
    }
}

fn what_can_be_no_filter_is_refused() {
    let allow = (RETURN, 0, 0, ALLOW);
    for (data, told) in [
        ("BgAAAAAA/3".to_owned(), "is not base64: at character 11"),
        ("BgAA AAA/38=".to_owned(), "is not base64: at character 5"),
        (base64(&[6; 12]), "has 12 bytes, no multiple of 8"),
        (
            encode(&vec![allow; 4097]),
            "has 4097 instructions, and the kernel takes 4096",
        ),
        (
            encode(&[allow, (RETURN, 0, 0, 0x7fc0_0000)]),
            "instruction 1 answers SECCOMP_RET_USER_NOTIF",
        ),
    ] {
        let bundle = Bundle::new("true");
        annotate(&bundle, DATA, data);
        let error = bundle.create().failure();
        let told = format!("annotations[\"{DATA}\"]: {told}");
        assert!(error.contains(&told), "{error}");
        assert!(!bundle.folder.join("state").join(&bundle.id).exists());
    }
    // As many as the kernel takes.
    let bundle = Bundle::new("echo ran");
    annotate(&bundle, DATA, encode(&vec![allow; 4096]));
    assert_eq!(bundle.run().success(), "ran\n");
}

fn what_the_kernel_does_not_take_is_told_with_the_annotations_name() {
    // A program has to end with an answer.
    let bundle = Bundle::new("true");
    annotate(&bundle, DATA, encode(&[(LOAD, 0, 0, 0)]));
    let error = bundle.run().failure();
    let told = format!(
        "annotations[\"{DATA}\"]: seccomp(SET_MODE_FILTER, 0x4, 1 instructions): invalid argument\n"
    );
    assert!(error.ends_with(&told), "{error}");
    assert!(bundle.verb("state").failure().contains("does not exist"));
}

/// A bundle whose program makes a call that an agent is asked about, and the agent's socket.
fn asking() -> (Bundle, Socket) {
    let profile = allowing(json!([rule("sched_yield", "NOTIFY")]));
    let bundle = making(Call::native(YIELD), profile);
    let socket = Socket::new(&bundle, "agent.sock");
    (bundle, socket)
}

fn the_listener_is_found_by_the_annotation() {
    for named_twice in [false, true] {
        let (bundle, socket) = asking();
        annotate(&bundle, RECEIVER, socket.path.as_str());
        if named_twice {
            bundle.edit(|config| config["linux"]["seccomp"]["listenerPath"] = json!(socket.path));
        }
        let mut running = Running::spawn(&mut caller::run(&bundle), Stdio::null());
        let (told, listener) = socket.receive();
        let told: Value = serde_json::from_str(&told).unwrap();
        assert_eq!(told["fds"], json!(["seccompFd"]));
        assert_eq!(told["state"]["id"], bundle.id);
        let call = agent::next(&listener);
        agent::decide(&listener, &call, Decision::Errno(66));
        running.ends_with(66);
    }
}

fn two_names_of_one_listener_have_to_agree() {
    let (bundle, socket) = asking();
    annotate(&bundle, RECEIVER, socket.path.as_str());
    bundle.edit(|config| config["linux"]["seccomp"]["listenerPath"] = json!("/run/other.sock"));
    let error = bundle.create().failure();
    let told = "annotations[\"run.oci.seccomp.receiver\"]: names another listener than \
        linux.seccomp.listenerPath: remove one of them";
    assert!(error.contains(told), "{error}");
    let (bundle, _socket) = asking();
    annotate(&bundle, RECEIVER, "agent.sock");
    let error = bundle.create().failure();
    let told =
        "annotations[\"run.oci.seccomp.receiver\"]: must be an absolute path, is \"agent.sock\"";
    assert!(error.contains(told), "{error}");
}

fn a_receiver_without_an_agent_is_told_by_its_name() {
    let (bundle, socket) = asking();
    annotate(&bundle, RECEIVER, socket.path.as_str());
    std::fs::remove_file(&socket.path).unwrap();
    let error = bundle.create().failure();
    let told = format!(
        "annotations[\"run.oci.seccomp.receiver\"]: hand over the listener: connect(\"{}\"): no such \
         file or directory\n",
        socket.path
    );
    assert!(error.ends_with(&told), "{error}");
    assert!(bundle.verb("state").failure().contains("does not exist"));
}

fn the_listener_is_found_by_the_callers_variable() {
    let (bundle, socket) = asking();
    let mut run = caller::run(&bundle);
    run.env(VARIABLE, &socket.path);
    let mut running = Running::spawn(&mut run, Stdio::null());
    let (told, listener) = socket.receive();
    let told: Value = serde_json::from_str(&told).unwrap();
    assert_eq!(told["state"]["id"], bundle.id);
    let call = agent::next(&listener);
    agent::decide(&listener, &call, Decision::Errno(67));
    running.ends_with(67);
    // The annotation says it of this container alone, and goes first.
    let (bundle, socket) = asking();
    annotate(&bundle, RECEIVER, socket.path.as_str());
    let mut run = caller::run(&bundle);
    run.env(VARIABLE, "/run/of-another.sock");
    let mut running = Running::spawn(&mut run, Stdio::null());
    let (_told, listener) = socket.receive();
    let call = agent::next(&listener);
    agent::decide(&listener, &call, Decision::Errno(68));
    running.ends_with(68);
}

fn a_variable_that_can_not_be_meant_is_refused_where_somebody_is_asked() {
    let create = |bundle: &Bundle, value: &str| {
        let mut create = command(bundle, &["create", "-b", bundle.path(), &bundle.id]);
        Ran(create.env(VARIABLE, value).output().unwrap())
    };
    let (bundle, _socket) = asking();
    let error = create(&bundle, "relative.sock").failure();
    let told = "RUN_OCI_SECCOMP_RECEIVER: must be an absolute path, is \"relative.sock\"";
    assert!(error.contains(told), "{error}");
    bundle.edit(|config| config["linux"]["seccomp"]["listenerPath"] = json!("/run/other.sock"));
    let error = create(&bundle, "/run/this.sock").failure();
    let told = "RUN_OCI_SECCOMP_RECEIVER: names another listener than linux.seccomp.listenerPath";
    assert!(error.contains(told), "{error}");
    // Nobody is asked here.
    let bundle = Bundle::new("true");
    let mut run = caller::run(&bundle);
    run.env(VARIABLE, "relative.sock");
    Ran(run.output().unwrap()).success();
}
