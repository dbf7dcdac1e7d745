//! The manual pages and completions, as files that are yet to be written.

use std::io;
use std::path::PathBuf;

use clap::Command;
use clap_complete::Shell;
use clap_mangen::Man;

/// The section of commands for administrators, where runc's pages are.
const SECTION: &str = "8";

/// The shells, and where each looks for a command's completion, below /usr/share.
const SHELLS: [(Shell, &str, &str); 3] = [
    (Shell::Bash, "bash-completion/completions/", ""),
    (Shell::Zsh, "zsh/site-functions/_", ""),
    (Shell::Fish, "fish/vendor_completions.d/", ".fish"),
];

/// A file: where, below the folder, and what is in it.
pub struct File {
    pub path: PathBuf,
    pub content: Vec<u8>,
}

/// The programs that are described: the supervisor's only where they are compiled.
fn programs() -> Vec<Command> {
    vec![
        parhelion::cli::command(),
        #[cfg(feature = "supervisor")]
        parhelion::client::command(),
        #[cfg(feature = "supervisor")]
        parhelion::control::command(),
    ]
}

/// All of them: a page for each program and one for each verb, a completion for each shell.
///
/// # Errors
///
/// None in practice: what is written to is memory.
pub fn all() -> io::Result<Vec<File>> {
    let mut files = Vec::new();
    for mut program in programs() {
        program.build();
        files.push(page(&program)?);
        for verb in program.get_subcommands().filter(|verb| !verb.is_hide_set()) {
            // clap makes this one itself, for `help VERB`.
            if verb.get_name() != "help" {
                files.push(page(verb)?);
            }
        }
        files.extend(SHELLS.map(|(shell, before, after)| {
            let path = format!("{before}{}{after}", program.get_name());
            completion(&program, shell, &path)
        }));
    }
    Ok(files)
}

fn page(command: &Command) -> io::Result<File> {
    // "parhelion-create", which clap has put together.
    let name = command.get_display_name().unwrap_or(command.get_name());
    let man = Man::new(command.clone())
        .section(SECTION)
        .source(concat!("parhelion ", env!("CARGO_PKG_VERSION")))
        .manual("Parhelion");
    let mut content = Vec::new();
    man.render(&mut content)?;
    Ok(File {
        path: format!("man/man{SECTION}/{name}.{SECTION}").into(),
        content,
    })
}

fn completion(program: &Command, shell: Shell, path: &str) -> File {
    let mut program = program.clone();
    let name = program.get_name().to_owned();
    let mut content = Vec::new();
    clap_complete::generate(shell, &mut program, name, &mut content);
    File {
        path: path.into(),
        content,
    }
}
