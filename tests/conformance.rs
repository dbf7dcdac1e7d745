//! docs/conformance.md has a row for each field of runtime-spec 1.3 and for each command and flag, and each row names
//! a test that there is. docs/security.md has a row for each attack of tests/escapes and each mitigation that they do without,
//! docs/helios.md one for each system test of Helios.
//!
//! Whether the test proves the row is for people to read; that none is missing is for machines.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod sources;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use parhelion::bundle::{FIELDS, Support};
use sources::rust_files;

/// The documents of the specification, as the list of paths and the sections of the page name them.
const DOCUMENTS: [(&str, &str); 3] = [
    ("config", "## Fields of config.json"),
    ("features", "## Fields of the features document"),
    ("state", "## Fields of the state"),
];

const COMMANDS: &str = "## Commands and flags";

const COMPARED: &str = "## Where runtimes differ";

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"))
}

/// A row of a table: what it is about, what happens, the tests.
struct Row {
    subject: String,
    fate: String,
    tests: Vec<String>,
}

/// The rows of the section under this heading.
fn rows(heading: &str) -> Vec<Row> {
    let page = read("docs/conformance.md");
    let section = page.split(&format!("\n{heading}\n")).nth(1);
    let section = section.unwrap_or_else(|| panic!("docs/conformance.md has no {heading:?}"));
    let section = section.split("\n## ").next().unwrap();
    let cells = section.lines().filter(|line| line.starts_with("| `"));
    cells.map(row).collect()
}

fn row(line: &str) -> Row {
    let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
    assert_eq!(cells.len(), 3, "{line}");
    Row {
        subject: cells[0].trim_matches('`').to_owned(),
        fate: cells[1].to_owned(),
        tests: quoted(cells[2]),
    }
}

/// What stands between back quotes.
fn quoted(text: &str) -> Vec<String> {
    let parts = text.split('`').skip(1).step_by(2);
    parts.map(str::to_owned).collect()
}

/// The paths of one document that stand for values: what only holds others is proved with them.
fn leaves(document: &str) -> BTreeSet<String> {
    let list = read("tests/conformance/runtime-spec-1.3.txt");
    let lines = list.lines().filter(|line| !line.starts_with('#'));
    let of_document = lines.filter_map(|line| line.strip_prefix(document)?.strip_prefix(' '));
    let all: BTreeSet<&str> = of_document.collect();
    let holds_others = |path: &str| {
        let below = |other: &&str| {
            let rest = other.strip_prefix(path);
            rest.is_some_and(|rest| rest.starts_with(['.', '[']))
        };
        all.iter().any(below)
    };
    let leaves = all.iter().filter(|path| !holds_others(path));
    leaves.map(|path| (*path).to_owned()).collect()
}

/// What a row is about: `windows.**` is all that is below.
fn meant(subject: &str, all: &BTreeSet<String>) -> Vec<String> {
    match subject.strip_suffix("**") {
        Some(above) => all
            .iter()
            .filter(|path| path.starts_with(above))
            .cloned()
            .collect(),
        None => all.get(subject).cloned().into_iter().collect(),
    }
}

/// Every one of `all` has one row, and no row is about something else.
fn assert_complete(heading: &str, all: &BTreeSet<String>) {
    let mut counts: BTreeMap<&String, usize> = all.iter().map(|path| (path, 0)).collect();
    let mut wrong = Vec::new();
    for row in rows(heading) {
        let meant = meant(&row.subject, all);
        if meant.is_empty() {
            wrong.push(format!("{}: there is no such thing", row.subject));
        }
        for path in meant {
            *counts.get_mut(&path).unwrap() += 1;
        }
    }
    let uncommon = counts.iter().filter(|(_, count)| **count != 1);
    wrong.extend(uncommon.map(|(path, count)| format!("{path}: {count} rows")));
    assert!(wrong.is_empty(), "{heading}\n{}", wrong.join("\n"));
}

#[test]
fn every_field_of_the_specification_has_its_row() {
    for (document, heading) in DOCUMENTS {
        let all = leaves(document);
        assert!(all.len() > 5, "{document}: the list is elsewhere");
        assert_complete(heading, &all);
    }
}

#[test]
fn every_command_and_every_flag_has_its_row() {
    let mut program = parhelion::cli::command();
    program.build();
    let mut all = flags("", &program);
    for verb in program.get_subcommands().filter(|v| v.get_name() != "help") {
        all.insert(verb.get_name().to_owned());
        all.extend(flags(&format!("{} ", verb.get_name()), verb));
    }
    assert!(all.len() > 80, "the definitions are elsewhere");
    assert_complete(COMMANDS, &all);
}

/// The flags of a command, hidden ones too, without those that it shares with all.
fn flags(prefix: &str, command: &clap::Command) -> BTreeSet<String> {
    let own = command
        .get_arguments()
        .filter(|flag| prefix.is_empty() || !flag.is_global_set());
    let long = own
        .filter_map(|flag| flag.get_long())
        .filter(|name| *name != "help");
    long.map(|name| format!("{prefix}--{name}")).collect()
}

#[test]
fn the_table_by_which_config_json_is_read_is_that_of_the_schema() {
    let list = read("tests/conformance/runtime-spec-1.3.txt");
    let schema: BTreeSet<&str> = list
        .lines()
        .filter_map(|line| line.strip_prefix("config "))
        .collect();
    let fields: BTreeSet<&str> = FIELDS.iter().map(|field| field.path).collect();
    assert_eq!(schema, fields);
}

#[test]
fn a_row_says_of_a_field_what_the_runtime_does_with_it() {
    let (_, heading) = DOCUMENTS[0];
    let all = leaves("config");
    for row in rows(heading) {
        for path in meant(&row.subject, &all) {
            let field = FIELDS.iter().find(|field| field.path == path).unwrap();
            let refused = field.support != Support::Honoured;
            let says_so = row.fate.starts_with("refused: for another platform");
            assert_eq!(says_so, refused, "{path}: {}", row.fate);
        }
    }
}

#[test]
fn every_row_names_tests_that_there_are() {
    let known = tests();
    assert!(
        known.len() > 900,
        "the tests are elsewhere: {}",
        known.len()
    );
    let mut wrong = Vec::new();
    for heading in DOCUMENTS
        .map(|(_, heading)| heading)
        .into_iter()
        .chain([COMMANDS, COMPARED])
    {
        for row in rows(heading) {
            if row.tests.is_empty() && !row.fate.starts_with("not used: ") {
                wrong.push(format!("{}: no test", row.subject));
            }
        }
    }
    // In the text above the tables too.
    let mut names = quoted(&read("docs/conformance.md"));
    names.retain(|name| name.contains("::"));
    assert!(names.len() > 300, "the tables have {} names", names.len());
    let unknown = names.iter().filter(|name| !known.contains(*name));
    wrong.extend(unknown.map(|test| format!("there is no test {test}")));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_page_on_security_is_about_every_attack_and_every_mitigation() {
    let page = read("docs/security.md");
    let named = quoted(&page);
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let escapes = root.join("tests/escapes");
    let files = rust_files(&escapes);
    let stems = files.iter().map(|file| module(file, &escapes));
    let others = [
        "main",
        "subject",
        "swapping",
        "invariants",
        "invariants::calls",
        "invariants::cases",
        "invariants::state",
        "invariants::trace",
    ];
    let attacks: Vec<String> = stems
        .filter(|stem| !others.contains(&stem.as_str()))
        .collect();
    assert!(attacks.len() > 20, "the attacks are elsewhere");
    let mut wrong = Vec::new();
    let in_a_row = |name: &str| {
        page.lines()
            .any(|line| line.starts_with("| ") && line.contains(name))
    };
    for attack in attacks.iter().filter(|attack| !in_a_row(attack)) {
        wrong.push(format!("no row is about {attack}"));
    }
    let switches = read("src/sys/weakened.rs");
    let names = switches.split("(Mitigation::").skip(1);
    let names: Vec<&str> = names.filter_map(|entry| entry.split('"').nth(1)).collect();
    assert!(names.len() > 10, "the mitigations are elsewhere");
    for name in names.iter().filter(|name| !in_a_row(name)) {
        wrong.push(format!("no row fails without {name}"));
    }
    let known = tests();
    let tests = named.iter().filter(|name| name.contains("::"));
    wrong.extend(
        tests
            .filter(|name| !known.contains(*name))
            .map(|name| format!("there is no test {name}")),
    );
    let sources = named.iter().filter(|name| name.starts_with("src/"));
    wrong.extend(
        sources
            .filter(|path| !root.join(path).exists())
            .map(|path| format!("there is no {path}")),
    );
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_page_on_helios_has_each_of_its_tests_and_names_tests_that_there_are() {
    let page = read("docs/helios.md");
    let lines = page.lines().filter(|line| line.starts_with("| "));
    let rows: Vec<Vec<&str>> = lines.map(|line| line.split(" | ").collect()).collect();
    let rows = &rows[1..];
    let names: BTreeSet<&str> = rows.iter().map(|row| row[0]).collect();
    assert_eq!((names.len(), rows.len()), (60, 60));
    let known = tests();
    let mut wrong = Vec::new();
    for row in rows {
        let (name, here) = (row[0], row[2]);
        let tests = quoted(here);
        if tests.is_empty() && !here.starts_with("not here: ") {
            wrong.push(format!("{name}: no test"));
        }
        let unknown = tests.iter().filter(|test| !known.contains(*test));
        wrong.extend(unknown.map(|test| format!("{name}: there is no test {test}")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The words of commands as tests write them: every list of them, with all that is quoted in it, also in further lists; and
/// last all that is quoted anywhere.
#[cfg(feature = "supervisor")]
fn lists_of_words(folders: &[&str]) -> Vec<Vec<String>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files = folders
        .iter()
        .flat_map(|folder| rust_files(&root.join(folder)));
    let (mut lists, mut all) = (Vec::new(), Vec::new());
    for file in files {
        let mut open: Vec<Vec<String>> = Vec::new();
        let text = fs::read_to_string(&file).unwrap();
        // Letters alone, which are neither lists nor words.
        let text = text
            .replace("'\"'", "")
            .replace("'['", "")
            .replace("']'", "");
        let mut letters = text.chars();
        while let Some(letter) = letters.next() {
            match letter {
                '[' => open.push(Vec::new()),
                ']' => lists.extend(open.pop()),
                '"' => {
                    let word = quoted_word(&mut letters);
                    open.iter_mut().for_each(|list| list.push(word.clone()));
                    all.push(word);
                }
                _ => {}
            }
        }
    }
    lists.push(all);
    lists
}

/// What follows up to the quote that ends it.
#[cfg(feature = "supervisor")]
fn quoted_word(letters: &mut std::str::Chars<'_>) -> String {
    let mut word = String::new();
    while let Some(letter) = letters.next().filter(|letter| *letter != '"') {
        word.push(letter);
        if letter == '\\' {
            word.extend(letters.next());
        }
    }
    word
}

/// Whether a word names this option: `--follow`, `-f`, or `-f` among others as in `-it`.
#[cfg(feature = "supervisor")]
fn names(word: &str, option: &clap::Arg) -> bool {
    let long = option.get_long().map(|long| format!("--{long}"));
    let is_long = long.is_some_and(|long| word.split('=').next() == Some(&long));
    let letters = word.strip_prefix('-').filter(|rest| !rest.starts_with('-'));
    let is_short = letters
        .zip(option.get_short())
        .is_some_and(|(letters, short)| letters.len() <= 2 && letters.contains(short));
    is_long || is_short
}

/// A command counts as used where its name is the first of its words that names one, an option where it is beside it.
#[cfg(feature = "supervisor")]
#[test]
fn every_command_and_every_option_of_the_supervisor_is_used_by_a_test() {
    let mut client = parhelion::client::command();
    client.build();
    let names_of_verbs: Vec<&str> = client
        .get_subcommands()
        .map(clap::Command::get_name)
        .collect();
    assert!(names_of_verbs.len() > 20, "the definitions are elsewhere");
    let mut lists = lists_of_words(&["tests/supervisor"]);
    let all = lists.pop().unwrap();
    let verb_of = |list: &[String]| {
        let mut words = list.iter().map(String::as_str);
        words
            .find(|word| names_of_verbs.contains(word))
            .map(str::to_owned)
    };
    let of_verbs = lists.iter().filter_map(|list| Some((verb_of(list)?, list)));
    let of_verbs: Vec<(String, &Vec<String>)> = of_verbs.collect();
    let is_option = |option: &&clap::Arg| option.get_id() != "help" && !option.is_positional();
    let mut unused = Vec::new();
    for verb in client
        .get_subcommands()
        .filter(|verb| verb.get_name() != "help")
    {
        let name = verb.get_name();
        let words: Vec<&String> = of_verbs
            .iter()
            .filter(|(of, _)| of == name)
            .flat_map(|(_, list)| *list)
            .collect();
        if words.is_empty() {
            unused.push(format!("parctl {name}"));
        }
        for option in verb.get_arguments().filter(is_option) {
            // Those of all commands are the same for each.
            let everywhere = || all.iter().any(|word| names(word, option));
            let is_used = words.iter().any(|word| names(word, option));
            if !(is_used || option.is_global_set() && everywhere()) {
                unused.push(format!("parctl {name} --{}", option.get_id()));
            }
        }
    }
    for option in parhelion::control::command()
        .get_arguments()
        .filter(is_option)
    {
        if !all.iter().any(|word| names(word, option)) {
            unused.push(format!("parheliond --{}", option.get_id()));
        }
    }
    assert!(unused.is_empty(), "no test uses\n{}", unused.join("\n"));
}

/// All tests by their names: `cgroups::io::a_weight_is_set` of tests/runtime, `escapes::subject::...` of tests/escapes and so on,
/// `unit cgroups::io::tests::...` of src, and those of the other files in tests under the name of the file.
fn tests() -> BTreeSet<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut all = BTreeSet::new();
    for (folder, before) in [
        ("tests/runtime", ""),
        ("tests/escapes", "escapes::"),
        ("tests/agent", "agent::"),
        ("tests/store", "store::"),
        ("tests/supervisor", "supervisor::"),
    ] {
        let folder = root.join(folder);
        for file in rust_files(&folder) {
            let module = module(&file, &folder);
            let text = fs::read_to_string(&file).unwrap();
            for list in text.split("tests![").skip(1) {
                let names = list.split(']').next().unwrap().split(',');
                let names = names.map(str::trim).filter(|name| !name.is_empty());
                all.extend(names.map(|name| format!("{before}{module}::{name}")));
            }
        }
    }
    let src = root.join("src");
    for file in rust_files(&src) {
        let module = module(&file, &src);
        let module = module.strip_suffix("::tests").unwrap_or(&module).to_owned();
        let names = unit_tests(&fs::read_to_string(&file).unwrap());
        all.extend(
            names
                .into_iter()
                .map(|name| format!("unit {module}::tests::{name}")),
        );
    }
    for name in ["architecture", "conformance", "manual"] {
        let names = unit_tests(&read(&format!("tests/{name}.rs")));
        all.extend(names.into_iter().map(|test| format!("{name}::{test}")));
    }
    all
}

/// The names after `#[test]` and `#[tokio::test]`, which may have arguments.
fn unit_tests(text: &str) -> Vec<String> {
    let name = |after: &str| {
        let after = after.split("fn ").nth(1)?;
        Some(after.split('(').next()?.to_owned())
    };
    let plain = text.split("#[test]\n").skip(1);
    let others = text.split("#[tokio::test").skip(1);
    plain.chain(others).filter_map(name).collect()
}

/// `cgroups::io` for cgroups/io.rs.
fn module(file: &Path, above: &Path) -> String {
    let path = file.strip_prefix(above).unwrap().with_extension("");
    let parts = path.iter().map(|part| part.to_str().unwrap());
    let parts: Vec<&str> = parts.filter(|part| *part != "mod").collect();
    parts.join("::")
}
