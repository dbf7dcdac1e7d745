//! Every field of Helios: what it becomes, what is told of it, what is refused.

use std::fs;
use std::path::Path;

use serde_json::json;

use super::*;
use crate::job::{Network, Port, Protocol, parse};

/// The constructor of Job.java, in its order.
const JOB_JAVA: [&str; 26] = [
    "id",
    "image",
    "hostname",
    "created",
    "command",
    "env",
    "resources",
    "ports",
    "registration",
    "gracePeriod",
    "volumes",
    "expires",
    "registrationDomain",
    "creatingUser",
    "token",
    "healthCheck",
    "securityOpt",
    "networkMode",
    "metadata",
    "addCapabilities",
    "dropCapabilities",
    "labels",
    "secondsToWaitBeforeKill",
    "ramdisks",
    "rolloutOptions",
    "runtime",
];

fn options() -> Options {
    Options {
        bundle: Some("/srv/web".into()),
        id: None,
    }
}

fn imported(value: &Value) -> (Job, Vec<Note>) {
    import(&value.to_string(), &options()).unwrap()
}

fn refused(value: &Value) -> String {
    import(&value.to_string(), &options())
        .unwrap_err()
        .to_string()
}

/// The example of Job.java, with ports that need no mapping and what is not in it.
fn whole() -> Value {
    json!({
        "addCapabilities": ["IPC_LOCK", "SYSLOG"], "dropCapabilities": ["SYS_BOOT", "KILL"],
        "created": 1_410_308_461_448_i64, "creatingUser": "sue",
        "command": ["server", "serverconfig.yaml"],
        "env": { "JVM_ARGS": "-Ddw.feature.randomFeatureFlagEnabled=true" },
        "expires": "2030-06-01T12:00:00Z", "gracePeriod": 60,
        "healthCheck": { "type": "http", "path": "/healthcheck", "port": "http-admin" },
        "id": "myservice:0.5:3539b7bc2235d53f79e6e8511942bbeaa8816265",
        "image": "myregistry:80/janedoe/myservice:0.5-98c6ff4",
        "labels": { "baz": "qux" }, "hostname": "myhost", "metadata": { "foo": "bar" },
        "networkMode": "bridge",
        "ports": {
            "http": { "externalPort": 8080, "internalPort": 8080, "protocol": "tcp" },
            "http-admin": { "internalPort": 8081, "ip": "127.0.0.1" }
        },
        "ramdisks": { "/mount/point": "rw,noexec,size=64m,mode=0700" },
        "registration": { "service/http": { "ports": { "http": { "tags": ["a"] } } } },
        "registrationDomain": "example.org",
        "resources": { "memory": 10_485_760, "memorySwap": 10_485_760, "cpuset": "0", "cpuShares": 512 },
        "rolloutOptions": { "migrate": false, "parallelism": 2 },
        "runtime": "runc", "secondsToWaitBeforeKill": 30,
        "securityOpt": ["label:user:u", "label:role:r", "label:type:t", "label:level:s0", "apparmor:P",
            "no-new-privileges", "seccomp=unconfined"],
        "token": "insecure-access-token",
        "volumes": { "/etc/web.yaml:ro": "/source/web.yaml", "/data": "data", "/scratch": "" }
    })
}

#[test]
fn every_field_of_helios_has_its_row_and_is_read() {
    let mut rows: Vec<&str> = FIELDS.iter().map(|(field, ..)| *field).collect();
    let mut fields = JOB_JAVA;
    rows.sort_unstable();
    fields.sort_unstable();
    assert_eq!(rows, fields);
    let whole = whole();
    for field in fields {
        assert!(whole.get(field).is_some(), "{field} is not in the test");
    }
    let (_, notes) = imported(&whole);
    assert!(
        !notes
            .iter()
            .any(|note| note.message.contains("no field of Helios"))
    );
}

#[test]
fn a_whole_configuration_becomes_a_job() {
    let (job, _) = imported(&whole());
    let expected = include_str!("whole.toml");
    assert_eq!(job, parse(expected, crate::job::Format::Toml).unwrap());
}

#[test]
fn the_manual_has_the_table() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/helios-jobs.md");
    let page = fs::read_to_string(path).unwrap();
    let rows: Vec<&str> = page
        .lines()
        .filter(|line| line.starts_with("| `"))
        .collect();
    for (field, becomes, _) in FIELDS {
        let start = format!("| `{field}` | {becomes} |");
        let count = rows.iter().filter(|row| row.starts_with(&start)).count();
        assert_eq!(count, 1, "{start}");
    }
    assert_eq!(rows.len(), FIELDS.len());
}

#[test]
fn what_helios_does_by_default_is_said() {
    let (job, notes) = imported(&json!({
        "id": "web:1", "image": null, "command": [], "resources": { "memory": 1024, "x": 1 }, "future": 1,
        "registrationDomain": "x", "gracePeriod": 5, "expires": 1_900_000_000_000_i64,
        "ports": { "http": { "internalPort": 80 } }
    }));
    assert_eq!(job.stop.grace, crate::job::Time::from_secs(120));
    let main = &job.tasks[TASK];
    assert_eq!(main.command, None);
    assert_eq!(main.resources.memory_swap, Some(crate::job::Size(2048)));
    assert_eq!(job.network, Network::Bridge);
    let http = &job.ports["http"];
    assert_eq!((http.port, http.external), (Some(80), None));
    assert_eq!(job.expires.unwrap().to_string(), "2030-03-17T17:46:40Z");
    let fields: Vec<&str> = notes.iter().map(|note| note.field.as_str()).collect();
    let expected = [
        "id",
        "resources.memorySwap",
        "resources.x",
        "registrationDomain",
        "gracePeriod",
        "secondsToWaitBeforeKill",
        "future",
    ];
    assert_eq!(fields, expected);
}

#[test]
fn ports_are_mapped_as_in_helios_and_not_in_the_hosts_network() {
    let ports = |mode: Value, mapping: Value| {
        let (job, notes) = imported(&json!({
            "id": "web:1", "networkMode": mode, "ports": { "http": mapping }
        }));
        let notes = notes.into_iter().map(|note| note.field);
        let notes: Vec<String> = notes.filter(|field| field.starts_with("ports")).collect();
        (job.network, job.ports["http"].clone(), notes)
    };
    let mapping =
        json!({ "internalPort": 8080, "externalPort": 80, "protocol": "udp", "ip": "0.0.0.0" });
    let expected = Port {
        port: Some(8080),
        external: Some(80),
        protocol: Protocol::Udp,
        address: None,
    };
    for mode in [json!("bridge"), json!("default"), Value::Null] {
        let (network, port, notes) = ports(mode, mapping.clone());
        assert_eq!((network, &port), (Network::Bridge, &expected));
        assert!(notes.is_empty(), "{notes:?}");
    }
    let (network, port, notes) = ports(json!("host"), json!({ "internalPort": 80 }));
    let expected = Port {
        external: Some(80),
        ..Port::default()
    };
    assert_eq!((network, port), (Network::Host, expected));
    assert_eq!(notes, ["ports.http"]);
}

#[test]
fn the_client_names_what_the_file_does_not() {
    let options = Options {
        bundle: Some("/b".into()),
        id: Some(("db".to_owned(), "2".to_owned())),
    };
    let (job, _) = import(r#"{"expires": "2030-01-01T01:00:00+0100"}"#, &options).unwrap();
    assert_eq!((job.name.as_str(), job.version.as_str()), ("db", "2"));
    assert_eq!(job.expires.unwrap().to_string(), "2030-01-01T00:00:00Z");
}

/// Each of these is refused, with words like these.
fn refuses(cases: &[(Value, &str)]) {
    for (value, told) in cases {
        let mut whole = json!({ "id": "web:1" });
        let fields = value.as_object().unwrap().clone();
        whole.as_object_mut().unwrap().extend(fields);
        let error = refused(&whole);
        assert!(error.contains(told), "{value}: {error}");
    }
}

#[test]
fn what_can_not_be_carried_out_is_refused_with_the_reason() {
    refuses(&[
        (
            json!({
                "networkMode": "host",
                "ports": { "http": { "internalPort": 8080, "externalPort": 80 } }
            }),
            "ports are not mapped",
        ),
        (
            json!({ "ports": { "http": {} } }),
            "ports.http: missing field `internalPort`",
        ),
        (
            json!({ "ports": { "h": { "internalPort": 1, "ip": "x" } } }),
            "ports.h: invalid IP address",
        ),
        (
            json!({ "networkMode": "container:db" }),
            "another container's",
        ),
        (json!({ "runtime": "nvidia" }), "runtime: \"nvidia\""),
        (json!({ "registration": { "web": {} } }), "must have ports"),
        (
            json!({ "registration": { "web": { "ports": { "x": {} } } } }),
            "\"x\" is none of the job's ports",
        ),
        (
            json!({ "healthCheck": { "type": "udp" } }),
            "healthCheck: unknown variant `udp`",
        ),
    ]);
}

#[test]
fn what_can_not_be_carried_out_inside_is_refused_with_the_reason() {
    refuses(&[
        (
            json!({ "volumes": { "/a:xx": "b" } }),
            "must end with :ro or :rw",
        ),
        (
            json!({ "volumes": { "a": "b" } }),
            "must be an absolute path",
        ),
        (
            json!({ "ramdisks": { "/a": "size=5%" } }),
            "must be a number with k, m or g",
        ),
        (
            json!({ "ramdisks": { "/a": "huge=always" } }),
            "must be one of atime",
        ),
        (
            json!({ "securityOpt": ["label:user:u"] }),
            "securityOpt: must have label:user:",
        ),
        (
            json!({ "securityOpt": ["systempaths=unconfined"] }),
            "securityOpt[0]",
        ),
        (
            json!({ "securityOpt": ["seccomp:/etc/p.json"] }),
            "securityOpt[0]: must be seccomp=unconfined",
        ),
        (
            json!({ "expires": "tomorrow" }),
            "expires: must be a moment",
        ),
        (
            json!({ "addCapabilities": ["FLY"] }),
            "\"FLY\" is no capability",
        ),
        (
            json!({ "id": "web" }),
            "id: must be as \"name:version\", is \"web\"",
        ),
    ]);
    let without = Options::default();
    let error = import(r#"{"id": "a:1", "image": "nginx"}"#, &without).unwrap_err();
    assert!(error.to_string().contains("--bundle"), "{error}");
    assert!(import("[]", &without).is_err() && import("{", &without).is_err());
}
