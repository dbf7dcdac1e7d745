//! Finds the program inside the container and executes it.

use alloc::ffi::CString;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use anyhow::{Context as _, Result, bail};
use rustix::fs::{Access, AtFlags, CWD, FileType, OFlags};

use super::plan::{Filter, Identity, Program};
use crate::sys::confined::{ContainerPath, Root};
use crate::sys::weakened::{Mitigation, is_off};
use crate::sys::{Call, Errno, process};

/// Where programs are looked up when the environment has no `PATH`.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A passwd file beyond this size (bytes) is not searched.
const PASSWD_LIMIT: usize = 1 << 20;

/// A program that exists and may be executed.
#[derive(Debug)]
pub(super) struct Found {
    path: CString,
    args: Vec<CString>,
    env: Vec<CString>,
}

/// Adds `HOME` from the container's passwd file when the environment has none, as login(1) does.
pub(super) fn add_home(program: &mut Program, uid: u32, root: Root<'_>) {
    let env = &mut program.env;
    if env.iter().any(|entry| entry.starts_with("HOME=")) {
        return;
    }
    let home = home(root, uid).unwrap_or_else(|| "/".to_string());
    env.push(format!("HOME={home}"));
}

/// Tells the program which descriptors come from socket activation (sd_listen_fds(3)).
pub(super) fn add_listening(program: &mut Program, listening: u32) {
    if listening > 0 {
        // Init executes the program, so its own process id is the program's.
        let pid = rustix::process::getpid().as_raw_nonzero();
        let env = &mut program.env;
        env.push(format!("LISTEN_FDS={listening}"));
        env.push(format!("LISTEN_PID={pid}"));
    }
}

/// The home directory of `uid` in the image, which need not have any user.
fn home(root: Root<'_>, uid: u32) -> Option<String> {
    // Not blocking: the image may have put a FIFO there.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = root.open(&ContainerPath::new("/etc/passwd"), flags).ok()?;
    let stat = rustix::fs::fstat(&file).ok()?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return None;
    }
    let mut text = alloc::vec![0; (stat.st_size as usize).min(PASSWD_LIMIT)];
    let mut filled = 0;
    while filled < text.len() {
        match rustix::io::read(&file, &mut text[filled..]).ok()? {
            0 => break,
            got => filled += got,
        }
    }
    home_in(&String::from_utf8_lossy(&text[..filled]), uid)
}

/// The sixth field of the line whose third is `uid` (passwd(5)).
fn home_in(passwd: &str, uid: u32) -> Option<String> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':').skip(2);
        let found = fields.next()?.parse() == Ok(uid);
        let home = fields.nth(2)?;
        (found && !home.is_empty()).then(|| home.to_string())
    })
}

/// Enters `process.cwd`.
pub(super) fn enter_working_directory(cwd: &str) -> Result<()> {
    rustix::process::chdir(cwd).call(|| format!("process.cwd: chdir(\"{cwd}\")"))?;
    Ok(())
}

/// A working directory outside the root would let the program climb to the host (CVE-2024-21626).
pub(super) fn refuse_a_place_outside() -> Result<()> {
    if is_off(Mitigation::WorkingDirectory) {
        return Ok(());
    }
    let place = rustix::process::getcwd(Vec::new()).call(|| "getcwd()".to_string())?;
    if !place.to_bytes().starts_with(b"/") {
        bail!("process.cwd: {place:?} is outside the container's root");
    }
    Ok(())
}

/// Finds the program as its user sees it.
pub(super) fn find(program: &Program) -> Result<Found> {
    let name = &program.args[0];
    let path = if name.contains('/') {
        executable(name).call(|| format!("exec: \"{name}\""))?;
        name.clone()
    } else {
        look_up(name, search_path(&program.env))?
    };
    Ok(Found {
        path: process::c_string(&path)?,
        args: process::c_strings(&program.args).context("process.args")?,
        env: process::c_strings(&program.env).context("process.env")?,
    })
}

fn search_path(env: &[String]) -> &str {
    env.iter()
        .rev()
        .find_map(|entry| entry.strip_prefix("PATH="))
        .unwrap_or(DEFAULT_PATH)
}

fn look_up(name: &str, path: &str) -> Result<String> {
    let mut refused = None;
    for folder in path.split(':') {
        let folder = if folder.is_empty() { "." } else { folder };
        let candidate = format!("{folder}/{name}");
        match executable(&candidate) {
            Ok(()) => return Ok(candidate),
            Err(Errno::ACCESS) => refused = refused.or(Some(candidate)),
            Err(_) => {}
        }
    }
    match refused {
        Some(candidate) => bail!("exec: \"{candidate}\": permission denied"),
        // containerd and Docker look for these words to answer with status 127.
        None => bail!("exec: \"{name}\": executable file not found in $PATH ({path})"),
    }
}

/// Ok for a file that this process may execute.
fn executable(path: &str) -> Result<(), Errno> {
    let stat = rustix::fs::stat(path)?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => Err(Errno::ISDIR),
        FileType::RegularFile => rustix::fs::accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS),
        FileType::Symlink
        | FileType::Fifo
        | FileType::Socket
        | FileType::CharacterDevice
        | FileType::BlockDevice
        | FileType::Unknown => Err(Errno::ACCESS),
    }
}

impl Found {
    /// Executes the program with `preserved` descriptors beside the standard streams, under its
    /// filter; returns only when that failed.
    pub(super) fn execute(
        &self,
        preserved: u32,
        identity: &Identity,
        filter: Option<&Filter>,
    ) -> anyhow::Error {
        for number in 3..3 + preserved as i32 {
            if let Err(error) = process::keep_on_exec(number) {
                return error.into();
            }
        }
        let execve = process::Execve::new(&self.path, &self.args, &self.env);
        if let Err(error) = identity.filter_for_execve(filter) {
            return error;
        }
        execve.call().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_home_directory_comes_from_the_line_of_the_user() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nbad line\nweb:x:33:33::/srv/web:/bin/sh\n";
        assert_eq!(home_in(passwd, 33).as_deref(), Some("/srv/web"));
        assert_eq!(home_in(passwd, 7), None);
    }

    #[test]
    fn the_last_path_of_the_environment_counts() {
        let env = [
            "PATH=/a".to_string(),
            "X=1".to_string(),
            "PATH=/b".to_string(),
        ];
        assert_eq!(search_path(&env), "/b");
        assert_eq!(search_path(&[]), DEFAULT_PATH);
    }

    #[test]
    fn a_program_that_is_nowhere_names_the_path_tried() {
        let error = look_up("no-such-program", "/bin:/nowhere").unwrap_err();
        assert_eq!(
            error.to_string(),
            "exec: \"no-such-program\": executable file not found in $PATH (/bin:/nowhere)"
        );
    }
}
