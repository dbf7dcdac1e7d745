//! What is told of files that are refused.

use super::*;

fn told(text: &str) -> Vec<String> {
    let refusal = parse(text, Format::of(Path::new(""), text)).unwrap_err();
    refusal.faults().map(ToString::to_string).collect()
}

#[test]
fn all_unknown_fields_are_told_with_places_and_suggestions() {
    let toml = "name = 'web'\nversion = '1'\n\n[tasks.app]\nbundel = '/b'\nbundle = '/b'\n  comand = ['a']\n\
                \n[restart]\npolcy = 'never'\npolicy = 'allways'\n\n[tasks.app.resources]\ncpus = 1\n";
    let expected = [
        "line 5, column 1: tasks.app.bundel: unknown field `bundel`: did you mean `bundle`?",
        "line 7, column 3: tasks.app.comand: unknown field `comand`: did you mean `command`?",
        "line 10, column 1: restart.polcy: unknown field `polcy`: did you mean `policy`?",
        "line 11, column 1: restart.policy: unknown variant `allways`: did you mean `always`?",
        "line 14, column 1: tasks.app.resources.cpus: unknown field `cpus`: did you mean `cpu`?",
    ];
    assert_eq!(told(toml), expected);
    let json = "{\"name\": \"web\", \"version\": \"1\",\n \"task\": {},\n \"tasks\": {\"app\": {\"image\": 1}}}";
    let told = told(json);
    assert_eq!(
        told[0],
        "line 2, column 2: task: unknown field `task`: did you mean `tasks`?"
    );
    assert_eq!(
        told[1],
        "line 3, column 12: tasks.app: missing field `bundle`"
    );
    let start = "line 3, column 20: tasks.app.image: unknown field `image`: known are bundle, ";
    assert!(told[2].starts_with(start), "{told:?}");
    assert_eq!(told.len(), 3, "{told:?}");
}

#[test]
fn values_that_do_not_fit_are_told_together() {
    let toml = "name = 1\nversion = '1'\nexpires = 'soon'\n[ports.http]\nexternal = 70000\n\
                [tasks.app]\nbundle = '/b'\ncommand = ['a', 2]\nuser = 'root'\n\
                resources.memory = '5 apples'\nresources.cpu.cores = -1\n[stop]\ngrace = 10\nsignal = 'NO'\n";
    let lines = told(toml);
    for (line, start) in [
        (
            0,
            "line 1, column 1: name: invalid type: integer `1`, expected a string",
        ),
        (
            1,
            "line 3, column 1: expires: must be a moment from 1970 on as ",
        ),
        (
            2,
            "line 5, column 1: ports.http.external: invalid value: integer `70000`",
        ),
        (
            3,
            "line 8, column 17: tasks.app.command[1]: invalid type: integer `2`",
        ),
        (
            4,
            "line 9, column 1: tasks.app.user: must be numbers as 1000",
        ),
        (
            5,
            "line 10, column 11: tasks.app.resources.memory: must be a size up to 1 EiB as",
        ),
        (
            6,
            "line 11, column 15: tasks.app.resources.cpu.cores: must be a number from 0",
        ),
        (
            7,
            "line 13, column 1: stop.grace: must be a time up to a year as 500ms",
        ),
        (8, "line 14, column 1: stop.signal: unknown signal \"NO\""),
    ] {
        let found = lines.get(line).map_or("", String::as_str);
        assert!(found.starts_with(start), "{start}\n{lines:#?}");
    }
    assert_eq!(lines.len(), 9, "{lines:#?}");
}

#[test]
fn text_that_is_no_toml_or_json_is_told_with_its_place() {
    assert_eq!(
        told("{\"name\": \"web\",\n \"name\": \"db\"}"),
        ["line 2, column 2: \"name\" is given twice"]
    );
    let told_of = |text: &str| told(text).join("; ");
    assert!(told_of("{\"name\": \n x}").starts_with("line 2, column 2: expected value"));
    assert!(told_of("name = 'a'\nname = 'b'\n").starts_with("line 2, column 1: duplicate key"));
    let two = told("a = \nb = 'x\nc = 1\n");
    assert!(two.len() >= 2 && two[0].starts_with("line 1"), "{two:?}");
    assert!(told_of("name = nan\n").contains("nan is no number"));
    assert!(told_of("name = 99999999999999999999\n").contains("too large"));
    assert!(told_of(&" ".repeat(MAX_SIZE + 1)).contains("larger than 1 MiB"));
    assert!(told_of("").contains("missing field `name`"));
    assert!(told_of("[]").contains("expected"), "{}", told_of("[]"));
    let deep = format!("{{\"name\": {}", "[".repeat(100_000));
    assert!(
        told_of(&deep).contains("recursion limit"),
        "{}",
        told_of(&deep)
    );
    let deep = format!("name = {}", "[".repeat(100_000));
    assert!(!told(&deep).is_empty());
}

#[test]
fn the_format_is_known_by_the_name_or_by_the_text() {
    let of = |path: &str, text: &str| Format::of(Path::new(path), text);
    assert_eq!(of("web.json", "name = 1"), Format::Json);
    assert_eq!(of("web.TOML", "{}"), Format::Toml);
    assert_eq!(of("web", "\n {"), Format::Json);
    assert_eq!(of("-", "name = 'x'"), Format::Toml);
}

#[test]
fn moments_of_toml_are_text() {
    let text = "name = 'a'\nversion = '1'\nexpires = 2030-01-01T01:00:00+01:00\n[tasks.a]\nbundle = '/b'\n";
    let job = parse(text, Format::Toml).unwrap();
    assert_eq!(job.expires.unwrap().to_string(), "2030-01-01T00:00:00Z");
}

/// A file with faults of each kind in several tasks, and what is told of it but for the places.
const MANY: &str = r#"{
 "version": 1,
 "tasks": {
  "app": {"bundle": "srv/app", "comand": ["a"], "command": ["a", 2, "b", 3],
   "resources": {"memory": "5 apples", "memorySwap": "1GiB"},
   "volumes": {"/data": {"hots": "/data"}, "/logs": {}},
   "health": {"liveness": {"tcp": {"port": "htp"}}, "readiness": {"exec": "true"}}},
  "db": {"command": "db --serve", "readOnly": "yes", "noNewPrivileges": "true"},
  "sidecar": {"bundle": "/srv/sidecar", "groups": [1, "x", 2, "y"]}
 },
 "share": ["pdi", "ipc"],
 "ports": {"http": {"external": 0}, "admin": {"protocol": "tpc", "external": "80"}},
 "registration": [{"service": "web", "port": "http"}, {"service": "web"}, {"service": "a b", "port": "web"}],
 "restart": {"crash": {"factor": 0, "base": "2h"}, "successCodes": [300]},
 "stop": {"grace": 10},
 "lables": {"a": "b"}
}"#;

const OF_MANY: [(usize, &str, &str); 25] = [
    (1, "", "missing field `name`"),
    (
        2,
        "version",
        "invalid type: integer `1`, expected a string: write \"1\"",
    ),
    (4, "tasks.app.bundle", "must be an absolute path"),
    (
        4,
        "tasks.app.comand",
        "unknown field `comand`: did you mean `command`?",
    ),
    (
        4,
        "tasks.app.command[1]",
        "invalid type: integer `2`, expected a string: write \"2\"",
    ),
    (4, "tasks.app.command[3]", "invalid type: integer `3`"),
    (
        5,
        "tasks.app.resources.memory",
        "must be a size up to 1 EiB",
    ),
    (
        6,
        "tasks.app.volumes[\"/data\"].hots",
        "unknown field `hots`: did you mean `host`?",
    ),
    (
        6,
        "tasks.app.volumes[\"/logs\"]",
        "must have exactly one of host, name and instance",
    ),
    (
        7,
        "tasks.app.health.liveness.tcp.port",
        "\"htp\" is none of the job's ports",
    ),
    (
        7,
        "tasks.app.health.readiness.exec",
        "invalid type: string \"true\", expected a sequence: write [\"true\"]",
    ),
    (8, "tasks.db", "missing field `bundle`"),
    (
        8,
        "tasks.db.command",
        "invalid type: string \"db --serve\", expected a sequence: write [\"db --serve\"]",
    ),
    (
        8,
        "tasks.db.readOnly",
        "invalid type: string \"yes\", expected a boolean",
    ),
    (
        8,
        "tasks.db.noNewPrivileges",
        "invalid type: string \"true\", expected a boolean: write true",
    ),
    (
        9,
        "tasks.sidecar.groups[1]",
        "invalid type: string \"x\", expected u32",
    ),
    (
        9,
        "tasks.sidecar.groups[3]",
        "invalid type: string \"y\", expected u32",
    ),
    (11, "share[0]", "unknown variant `pdi`: did you mean `pid`?"),
    (12, "ports.http.external", "must be from 1 to 65535, is 0"),
    (
        12,
        "ports.admin.protocol",
        "unknown variant `tpc`: did you mean `tcp`?",
    ),
    (
        12,
        "ports.admin.external",
        "invalid type: string \"80\", expected u16: write 80",
    ),
    (13, "registration[1]", "missing field `port`"),
    (13, "registration[2].service", "must be 1 to 63 letters"),
    (
        13,
        "registration[2].port",
        "\"web\" is none of the job's ports",
    ),
    (14, "restart.crash.base", "must be at most cap, 1m, is 2h"),
];

#[test]
fn every_fault_of_a_file_is_told_at_once() {
    let refusal = parse(MANY, Format::Json).unwrap_err();
    let mut faults: Vec<&Fault> = refusal.faults().collect();
    let rest = [
        (14, "restart.crash.factor", "must be from 1 to 1000, is 0"),
        (
            14,
            "restart.successCodes[0]",
            "invalid value: integer `300`, expected u8",
        ),
        (15, "stop.grace", "must be a time up to a year"),
        (
            16,
            "lables",
            "unknown field `lables`: did you mean `labels`?",
        ),
    ];
    for (line, path, start) in OF_MANY.iter().chain(&rest) {
        let is_it = |fault: &&Fault| {
            (fault.line, fault.path.as_str()) == (*line, *path) && fault.message.starts_with(start)
        };
        let found = faults.iter().position(is_it);
        let at = found.unwrap_or_else(|| panic!("line {line}: {path}: {start}\n{faults:#?}"));
        faults.remove(at);
    }
    // And nothing that only follows from another one.
    assert_eq!(faults, Vec::<&Fault>::new());
    // The same job in the other format: its own lines, the same paths and words.
    let value: serde_json::Value = serde_json::from_str(MANY).unwrap();
    let again = parse(&::toml::to_string(&value).unwrap(), Format::Toml).unwrap_err();
    let words = |refusal: &Refusal| {
        let faults = refusal.faults();
        let words = faults.map(|fault| (fault.path.clone(), fault.message.clone()));
        words.collect::<std::collections::BTreeSet<_>>()
    };
    assert_eq!(words(&again), words(&refusal));
}

#[test]
fn what_only_follows_from_a_fault_is_not_told() {
    let job = |more: &str| format!("{{\"name\": \"web\", \"version\": \"1\", {more}}}");
    let task = r#""tasks": {"app": {"bundle": "/b"}}"#;
    for (text, only) in [
        (r#""tasks": {"app": 5}"#.to_owned(), "tasks.app: invalid type"),
        (r#""tasks": 5"#.to_owned(), "tasks: invalid type"),
        (r#""taks": {"app": {"bundle": "/b"}}, "tasks": {}"#.to_owned(), "taks: unknown field"),
        (
            format!(r#"{task}, "prots": {{"http": {{}}}}, "registration": [{{"service": "a", "port": "http"}}]"#),
            "prots: unknown field `prots`: did you mean `ports`?",
        ),
        (format!(r#"{task}, "network": "brigde", "ports": {{"http": {{"port": 80}}}}"#), "network: unknown variant"),
        (format!(r#"{task}, "dns": {{"servers": ["here"]}}"#), "dns.servers[0]: "),
        (format!(r#"{task}, "restart": {{"crash": {{"base": "2h", "cap": 5}}}}"#), "restart.crash.cap: "),
        (format!(r#"{task}, "restart": {{"successCodes": ["x"]}}"#), "restart.successCodes[0]: "),
        (
            r#""tasks": {"app": {"bundle": "/b", "resources": {"io": {"devices": {"8:0": {"readBytes": []}}}}}}"#
                .to_owned(),
            "tasks.app.resources.io.devices[\"8:0\"].readBytes: ",
        ),
        (
            r#""tasks": {"app": {"bundle": "/b", "health": {"liveness": {"http": []}}}}"#.to_owned(),
            "tasks.app.health.liveness.http: ",
        ),
    ] {
        let told = told(&job(&text));
        assert!(told.len() == 1 && told[0].contains(only), "{only}\n{told:#?}");
    }
}
