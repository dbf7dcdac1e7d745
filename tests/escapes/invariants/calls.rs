//! What a system call that begins looks up: paths, from where, and whether a link at their end is followed.
//!
//! A call that is in neither table is an error: it might look up a path.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;

use nix::libc;

/// A system call as it begins (proc(5), /proc/PID/syscall).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    pub number: i64,
    pub args: [u64; 6],
    /// What it looks up; None for a call that is in no table.
    pub places: Option<Vec<Place>>,
}

/// A path that is looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The call.
    pub call: &'static str,
    /// From the working directory, not from a descriptor.
    pub from_working_directory: bool,
    pub path: String,
    /// A link at the end of the path is followed.
    pub follows: bool,
    /// It is resolved below its start or inside it (openat2(2), `RESOLVE_BENEATH`, `RESOLVE_IN_ROOT`).
    pub confined: bool,
    /// It is only a place afterwards (`O_PATH`).
    pub only_place: bool,
}

/// Where a call has a path.
#[derive(Clone, Copy)]
enum Start {
    /// From the working directory.
    Here(usize),
    /// From the descriptor before it.
    At(usize),
}

/// When a link at the end is followed.
#[derive(Clone, Copy)]
enum Follows {
    Always,
    Never,
    /// Unless the argument has `AT_SYMLINK_NOFOLLOW`.
    Unless(usize),
    /// Unless the argument has `MOVE_MOUNT_T_SYMLINKS` and the like not: move_mount(2) follows on demand.
    OnDemand,
    /// As the argument, open(2)'s flags, says.
    Flags(usize),
    /// As `struct open_how` at the argument says.
    How(usize),
}

use Follows::{Always, Flags, How, Never, OnDemand, Unless};
use Start::{At, Here};

type Row = (i64, &'static str, &'static [Start], Follows);

/// Calls with paths.
const WITH_PATHS: &[Row] = &[
    (libc::SYS_openat, "openat", &[At(1)], Flags(2)),
    (libc::SYS_openat2, "openat2", &[At(1)], How(2)),
    (libc::SYS_open_tree, "open_tree", &[At(1)], Unless(2)),
    (
        libc::SYS_move_mount,
        "move_mount",
        &[At(1), At(3)],
        OnDemand,
    ),
    (libc::SYS_mount, "mount", &[Here(0), Here(1)], Always),
    (
        libc::SYS_mount_setattr,
        "mount_setattr",
        &[At(1)],
        Unless(2),
    ),
    (libc::SYS_fspick, "fspick", &[At(1)], Always),
    (libc::SYS_umount2, "umount2", &[Here(0)], Never),
    (
        libc::SYS_pivot_root,
        "pivot_root",
        &[Here(0), Here(1)],
        Always,
    ),
    (libc::SYS_chroot, "chroot", &[Here(0)], Always),
    (libc::SYS_chdir, "chdir", &[Here(0)], Always),
    (libc::SYS_mkdirat, "mkdirat", &[At(1)], Never),
    (libc::SYS_mknodat, "mknodat", &[At(1)], Never),
    (libc::SYS_symlinkat, "symlinkat", &[At(2)], Never),
    (libc::SYS_unlinkat, "unlinkat", &[At(1)], Never),
    (libc::SYS_readlinkat, "readlinkat", &[At(1)], Never),
    (libc::SYS_fchmodat, "fchmodat", &[At(1)], Always),
    (libc::SYS_fchownat, "fchownat", &[At(1)], Unless(4)),
    (libc::SYS_utimensat, "utimensat", &[At(1)], Unless(3)),
    (libc::SYS_newfstatat, "newfstatat", &[At(1)], Unless(3)),
    (libc::SYS_statx, "statx", &[At(1)], Unless(2)),
    (libc::SYS_faccessat, "faccessat", &[At(1)], Always),
    (libc::SYS_faccessat2, "faccessat2", &[At(1)], Unless(3)),
    (libc::SYS_statfs, "statfs", &[Here(0)], Always),
    (libc::SYS_execve, "execve", &[Here(0)], Always),
    (libc::SYS_execveat, "execveat", &[At(1)], Unless(4)),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_open, "open", &[Here(0)], Flags(1)),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_stat, "stat", &[Here(0)], Always),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_lstat, "lstat", &[Here(0)], Never),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_access, "access", &[Here(0)], Always),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_readlink, "readlink", &[Here(0)], Never),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_mkdir, "mkdir", &[Here(0)], Never),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_unlink, "unlink", &[Here(0)], Never),
];

/// Calls without paths, as far as the program makes them.
const WITHOUT_PATHS: &[i64] = &[
    libc::SYS_accept4,
    libc::SYS_bind,
    libc::SYS_brk,
    libc::SYS_capget,
    libc::SYS_capset,
    libc::SYS_clone3,
    libc::SYS_close,
    libc::SYS_close_range,
    libc::SYS_dup3,
    libc::SYS_exit_group,
    libc::SYS_fchdir,
    libc::SYS_fchmod,
    libc::SYS_fchown,
    libc::SYS_fcntl,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fsopen,
    libc::SYS_fstat,
    libc::SYS_getcpu,
    libc::SYS_getcwd,
    libc::SYS_getdents64,
    libc::SYS_getpid,
    libc::SYS_ioctl,
    libc::SYS_keyctl,
    libc::SYS_kill,
    libc::SYS_landlock_add_rule,
    libc::SYS_landlock_create_ruleset,
    libc::SYS_landlock_restrict_self,
    libc::SYS_lseek,
    libc::SYS_memfd_create,
    libc::SYS_mmap,
    libc::SYS_mprotect,
    libc::SYS_munmap,
    libc::SYS_pidfd_open,
    libc::SYS_pidfd_send_signal,
    libc::SYS_ppoll,
    libc::SYS_prctl,
    libc::SYS_pread64,
    libc::SYS_prlimit64,
    libc::SYS_read,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_restart_syscall,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_sched_setaffinity,
    libc::SYS_sched_yield,
    libc::SYS_seccomp,
    libc::SYS_sendfile,
    libc::SYS_sendmsg,
    libc::SYS_sendto,
    libc::SYS_setdomainname,
    libc::SYS_setgroups,
    libc::SYS_sethostname,
    libc::SYS_setns,
    libc::SYS_setpgid,
    libc::SYS_setresgid,
    libc::SYS_setresuid,
    libc::SYS_setsid,
    libc::SYS_socket,
    libc::SYS_socketpair,
    libc::SYS_umask,
    libc::SYS_unshare,
    libc::SYS_waitid,
    libc::SYS_write,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_poll,
];

/// openat2(2), linux/openat2.h.
const RESOLVE_BENEATH: u64 = 0x08;
const RESOLVE_IN_ROOT: u64 = 0x10;

impl Call {
    /// The call that a stopped process begins.
    pub fn of(pid: i32) -> Option<Call> {
        let text = fs::read_to_string(format!("/proc/{pid}/syscall")).ok()?;
        let mut words = text.split_whitespace();
        let number = words.next()?.parse().ok()?;
        let args = words.take(6).map(|word| {
            let digits = word.trim_start_matches("0x");
            u64::from_str_radix(digits, 16).unwrap()
        });
        let args: Vec<u64> = args.collect();
        let args = args.try_into().ok()?;
        let memory = File::open(format!("/proc/{pid}/mem")).ok()?;
        let places = match WITH_PATHS.iter().find(|row| row.0 == number) {
            Some(row) => Some(places(row, &args, &memory)),
            None => WITHOUT_PATHS.contains(&number).then(Vec::new),
        };
        Some(Call {
            number,
            args,
            places,
        })
    }

    /// For a trace that is made up.
    pub fn made_up(number: i64, args: [u64; 6], places: Vec<Place>) -> Call {
        let places = Some(places);
        Call {
            number,
            args,
            places,
        }
    }
}

fn places((_, call, starts, rule): &Row, args: &[u64; 6], memory: &File) -> Vec<Place> {
    let how = |index: usize| {
        let mut words = [0; 24];
        memory.read_exact_at(&mut words, args[index]).unwrap();
        let word = |at: usize| u64::from_ne_bytes(words[at..at + 8].try_into().unwrap());
        (word(0), word(16))
    };
    let (flags, resolve) = match rule {
        Flags(index) => (args[*index], 0),
        How(index) => how(*index),
        Always | Never | Unless(_) | OnDemand => (0, 0),
    };
    let no_link = libc::O_NOFOLLOW as u64;
    let new = (libc::O_CREAT | libc::O_EXCL) as u64;
    let follows = match rule {
        Always => true,
        Never | OnDemand => false,
        Unless(index) => args[*index] & libc::AT_SYMLINK_NOFOLLOW as u64 == 0,
        Flags(_) | How(_) => flags & no_link == 0 && flags & new != new,
    };
    let place = |start: &Start| {
        let (from_working_directory, index) = match *start {
            Here(index) => (true, index),
            At(index) => (args[index - 1] as i32 == libc::AT_FDCWD, index),
        };
        Place {
            call,
            from_working_directory,
            path: text(memory, args[index]),
            follows,
            confined: resolve & (RESOLVE_BENEATH | RESOLVE_IN_ROOT) != 0,
            only_place: flags & libc::O_PATH as u64 != 0,
        }
    };
    starts.iter().map(place).collect()
}

/// The text at an address of the process, which ends with a NUL and may lie at the end of what is mapped.
fn text(memory: &File, mut address: u64) -> String {
    let mut bytes = Vec::new();
    if address == 0 {
        return String::new();
    }
    loop {
        let mut byte = [0];
        memory.read_exact_at(&mut byte, address).unwrap();
        if byte == [0] {
            return String::from_utf8_lossy(&bytes).into_owned();
        }
        bytes.push(byte[0]);
        address += 1;
    }
}
