//! The jail of the threads that read requests: what they never do, the kernel does not do for them.
//!
//! A filter is for ever, and every child inherits it, with no_new_privs: a keeper that had it could start no container
//! with a set-user-ID program, or a device filter. So only threads that start no program are put into it, and all
//! programs are started from the main thread (docs/decisions/0019).

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

/// What is refused with EPERM. None of it is needed to read requests, to write the store or to follow a log.
const DENIED: &[i64] = &[
    // The ways to another process that are no clone; other architectures have none of them.
    #[cfg(target_arch = "x86_64")]
    libc::SYS_fork,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_vfork,
    // Other programs, and other processes' memory.
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    // The kernel's own.
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_syslog,
    libc::SYS_quotactl,
    libc::SYS_acct,
    libc::SYS_open_by_handle_at,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    // Mounts, roots and namespaces.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_mount_setattr,
    libc::SYS_setns,
    libc::SYS_unshare,
    // Who it is.
    libc::SYS_setuid,
    libc::SYS_setgid,
    libc::SYS_setreuid,
    libc::SYS_setregid,
    libc::SYS_setresuid,
    libc::SYS_setresgid,
    libc::SYS_setgroups,
    libc::SYS_setfsuid,
    libc::SYS_setfsgid,
    libc::SYS_capset,
    libc::SYS_personality,
];

/// Puts the calling thread, and all that it starts, into the jail.
///
/// # Errors
///
/// The kernel has no filters for system calls.
pub fn enter() -> Result<()> {
    let refused = filter(
        DENIED.iter().map(|call| (*call, Vec::new())).collect(),
        libc::EPERM,
    )?;
    // A clone that makes no thread. clone3 hides its flags in memory, where no filter looks: its answer is that there
    // is none, and libc takes clone then.
    let flag = u64::from(libc::CLONE_THREAD.cast_unsigned());
    let operator = SeccompCmpOp::MaskedEq(flag);
    let process = SeccompCondition::new(0, SeccompCmpArgLen::Qword, operator, 0)?;
    let processes = filter(
        BTreeMap::from([(libc::SYS_clone, vec![SeccompRule::new(vec![process])?])]),
        libc::EPERM,
    )?;
    let unknown = filter(
        BTreeMap::from([(libc::SYS_clone3, Vec::new())]),
        libc::ENOSYS,
    )?;
    #[cfg(target_arch = "x86_64")]
    seccompiler::apply_filter(&without_x32()).context("the filter for x32")?;
    for program in [&unknown, &processes, &refused] {
        seccompiler::apply_filter(program).context("the filter for system calls")?;
    }
    Ok(())
}

fn filter(rules: BTreeMap<i64, Vec<SeccompRule>>, errno: i32) -> Result<BpfProgram> {
    let arch: TargetArch = std::env::consts::ARCH.try_into()?;
    let action = SeccompAction::Errno(errno.cast_unsigned());
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, action, arch)?;
    Ok(filter.try_into()?)
}

/// Refuses every call of the x32 ABI: the same calls under other numbers, of which lists know nothing. (Another
/// architecture's calls end the process already: seccompiler looks at that.)
#[cfg(target_arch = "x86_64")]
fn without_x32() -> BpfProgram {
    /// `__X32_SYSCALL_BIT` of asm/unistd.h.
    const X32: u32 = 0x4000_0000;
    let instruction = |code: u32, (jt, jf), k| seccompiler::sock_filter {
        code: code as u16,
        jt,
        jf,
        k,
    };
    let errno = libc::SECCOMP_RET_ERRNO | libc::EPERM.cast_unsigned();
    vec![
        // The call's number is the first field of seccomp_data.
        instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, (0, 0), 0),
        instruction(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K, (0, 1), X32),
        instruction(libc::BPF_RET | libc::BPF_K, (0, 0), errno),
        instruction(libc::BPF_RET | libc::BPF_K, (0, 0), libc::SECCOMP_RET_ALLOW),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jailed<T: Send + 'static>(inside: impl FnOnce() -> T + Send + 'static) -> T {
        let thread = std::thread::spawn(|| {
            enter().unwrap();
            inside()
        });
        thread.join().unwrap()
    }

    #[test]
    fn no_program_is_started_inside() {
        let refused = jailed(|| {
            std::process::Command::new("/bin/true")
                .status()
                .unwrap_err()
        });
        assert_eq!(refused.raw_os_error(), Some(libc::EPERM));
        // Nor does anything of it stay with other threads.
        assert!(
            std::process::Command::new("/bin/true")
                .status()
                .unwrap()
                .success()
        );
        assert!(!rustix::thread::no_new_privs().unwrap());
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn there_is_no_other_number_for_what_is_denied() {
        let (forked, x32) = jailed(|| {
            let forked = crate::sys::probe(libc::SYS_fork);
            if forked == Ok(0) {
                std::process::exit(1); // the copy that there must not be
            }
            (forked, crate::sys::probe(0x4000_0000 | libc::SYS_getpid))
        });
        let refused = Err(rustix::io::Errno::PERM);
        assert_eq!((forked, x32), (refused, refused));
        assert!(DENIED.contains(&libc::SYS_vfork));
    }

    #[test]
    fn threads_files_and_sockets_go_on_inside() {
        jailed(|| {
            std::thread::spawn(|| std::fs::read("/proc/self/stat").unwrap())
                .join()
                .unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let read = tokio::fs::read("/proc/self/stat").await.unwrap();
                assert!(!read.is_empty());
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            });
            let flags = rustix::fs::inotify::CreateFlags::CLOEXEC;
            rustix::fs::inotify::init(flags).unwrap();
            let flags = rustix::mount::UnmountFlags::empty();
            let refused = rustix::mount::unmount("/nowhere", flags);
            assert_eq!(refused, Err(rustix::io::Errno::PERM));
        });
    }
}
