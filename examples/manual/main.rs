//! Writes manual pages and shell completions into a folder: `make manual`.
//!
//! From the definitions by which the command line is read, so they can not differ from it. An
//! example, so that what makes them is in no program.

mod pages;

use std::path::PathBuf;

fn main() -> std::io::Result<()> {
    let folder = std::env::args_os().nth(1).map(PathBuf::from);
    let folder = folder.ok_or_else(|| std::io::Error::other("usage: manual FOLDER"))?;
    for file in pages::all()? {
        let path = folder.join(&file.path);
        if let Some(above) = path.parent() {
            std::fs::create_dir_all(above)?;
        }
        std::fs::write(path, file.content)?;
    }
    Ok(())
}
