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
