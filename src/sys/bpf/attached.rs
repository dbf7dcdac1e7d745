//! The device programs that hold for a cgroup already: finding, replacing and detaching them.
//!
//! A program is replaced in one step (BPF_F_REPLACE, Linux 5.6): at no moment do both hold, or
//! neither.

#![allow(unsafe_code)]

use rustix::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use super::{AttachAttr, BPF_CGROUP_DEVICE, BPF_F_ALLOW_MULTI, BPF_PROG_ATTACH, PROGRAM_NAME};
use crate::sys::raw::syscall;
use crate::sys::{Call, Errno, SysResult};

/// Commands of bpf(2).
const BPF_PROG_DETACH: usize = 9;
const BPF_PROG_GET_FD_BY_ID: usize = 13;
const BPF_OBJ_GET_INFO_BY_FD: usize = 15;
const BPF_PROG_QUERY: usize = 16;
/// The program `replace_bpf_fd` makes room for the new one.
const BPF_F_REPLACE: u32 = 4;

/// How many programs a cgroup can have (BPF_CGROUP_MAX_PROGS).
const MOST: usize = 64;

/// The part of `union bpf_attr` that BPF_PROG_QUERY reads and writes.
#[repr(C)]
struct QueryAttr {
    target_fd: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    prog_cnt: u32,
    padding: u32,
}

/// The part of `union bpf_attr` that BPF_PROG_GET_FD_BY_ID reads.
#[repr(C)]
struct IdAttr {
    prog_id: u32,
    next_id: u32,
    open_flags: u32,
}

/// The part of `union bpf_attr` that BPF_OBJ_GET_INFO_BY_FD reads.
#[repr(C)]
struct InfoAttr {
    bpf_fd: u32,
    info_len: u32,
    info: u64,
}

/// `struct bpf_prog_info` up to the name.
#[repr(C)]
struct ProgramInfo {
    kind: u32,
    id: u32,
    tag: [u8; 8],
    /// Lengths and addresses of code, which are not asked for.
    code: [u64; 3],
    load_time: u64,
    created_by_uid: u32,
    maps: u32,
    map_ids: u64,
    name: [u8; 16],
}

/// The device program of ours that is attached to the cgroup whose directory is `cgroup`, if one
/// is: known by its name (Linux 4.15). Those of the cgroups above are not looked at.
///
/// # Errors
///
/// `EPERM` without CAP_SYS_ADMIN, or CAP_BPF and CAP_NET_ADMIN, in the first user namespace.
pub fn attached_device_program(cgroup: BorrowedFd<'_>) -> SysResult<Option<OwnedFd>> {
    for id in attached(cgroup)? {
        let program = match open(id) {
            Ok(program) => program,
            // Detached by somebody since.
            Err(Errno::NOENT) => continue,
            other => other.call(|| format!("bpf(PROG_GET_FD_BY_ID, {id})"))?,
        };
        if name(program.as_raw_fd()).call(|| format!("bpf(OBJ_GET_INFO_BY_FD, program {id})"))?
            == *PROGRAM_NAME
        {
            return Ok(Some(program));
        }
    }
    Ok(None)
}

/// The numbers of the device programs that are attached to `cgroup` itself.
fn attached(cgroup: BorrowedFd<'_>) -> SysResult<Vec<u32>> {
    let mut ids = [0_u32; MOST];
    let mut attr = QueryAttr {
        target_fd: cgroup.as_raw_fd().cast_unsigned(),
        attach_type: BPF_CGROUP_DEVICE,
        query_flags: 0,
        attach_flags: 0,
        prog_ids: ids.as_mut_ptr() as u64,
        prog_cnt: MOST as u32,
        padding: 0,
    };
    let (address, size) = (&raw mut attr as usize, size_of::<QueryAttr>());
    // SAFETY: `attr` has the size that is passed and may be written; `ids` has room for `prog_cnt`
    // numbers; both live until the call returns.
    unsafe { syscall(libc::SYS_bpf, [BPF_PROG_QUERY, address, size, 0, 0, 0]) }.call(|| {
        let cgroup = attr.target_fd;
        format!("bpf(PROG_QUERY, cgroup {cgroup}, CGROUP_DEVICE)")
    })?;
    let count = usize::try_from(attr.prog_cnt).unwrap_or(0).min(MOST);
    Ok(ids[..count].to_vec())
}

fn open(id: u32) -> Result<OwnedFd, Errno> {
    let attr = IdAttr {
        prog_id: id,
        next_id: 0,
        open_flags: 0,
    };
    let (address, size) = (&raw const attr as usize, size_of::<IdAttr>());
    // SAFETY: `attr` has the size that is passed and is only read.
    let fd = unsafe {
        syscall(
            libc::SYS_bpf,
            [BPF_PROG_GET_FD_BY_ID, address, size, 0, 0, 0],
        )
    }?;
    // SAFETY: the kernel made this descriptor (close-on-exec) for us; nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

fn name(program: RawFd) -> Result<[u8; 16], Errno> {
    let mut info = ProgramInfo {
        kind: 0,
        id: 0,
        tag: [0; 8],
        code: [0; 3],
        load_time: 0,
        created_by_uid: 0,
        maps: 0,
        map_ids: 0,
        name: [0; 16],
    };
    let attr = InfoAttr {
        bpf_fd: program.cast_unsigned(),
        info_len: size_of::<ProgramInfo>() as u32,
        info: &raw mut info as u64,
    };
    let (address, size) = (&raw const attr as usize, size_of::<InfoAttr>());
    // SAFETY: `attr` has the size that is passed; `info` has room for `info_len` bytes, and its
    // lengths are 0, so nothing is written elsewhere; both live until the call returns.
    unsafe {
        syscall(
            libc::SYS_bpf,
            [BPF_OBJ_GET_INFO_BY_FD, address, size, 0, 0, 0],
        )
    }?;
    Ok(info.name)
}

/// Puts `new` in the place of `old`, which is attached to `cgroup`, in one step.
///
/// # Errors
///
/// `ENOENT` when `old` is not attached any more; else as for
/// [`attach_device_program`](super::attach_device_program).
pub fn replace_device_program(
    cgroup: BorrowedFd<'_>,
    new: BorrowedFd<'_>,
    old: BorrowedFd<'_>,
) -> SysResult<()> {
    let attr = AttachAttr {
        target_fd: cgroup.as_raw_fd().cast_unsigned(),
        attach_bpf_fd: new.as_raw_fd().cast_unsigned(),
        attach_type: BPF_CGROUP_DEVICE,
        attach_flags: BPF_F_ALLOW_MULTI | BPF_F_REPLACE,
        replace_bpf_fd: old.as_raw_fd().cast_unsigned(),
    };
    change(BPF_PROG_ATTACH, &attr).call(|| {
        let (cgroup, new, old) = (attr.target_fd, attr.attach_bpf_fd, attr.replace_bpf_fd);
        format!("bpf(PROG_ATTACH, cgroup {cgroup}, program {new}, CGROUP_DEVICE, REPLACE {old})")
    })
}

/// Takes `program` away from `cgroup`, to which it is attached.
///
/// # Errors
///
/// `ENOENT` when it is not attached any more.
pub fn detach_device_program(cgroup: BorrowedFd<'_>, program: BorrowedFd<'_>) -> SysResult<()> {
    let attr = AttachAttr {
        target_fd: cgroup.as_raw_fd().cast_unsigned(),
        attach_bpf_fd: program.as_raw_fd().cast_unsigned(),
        attach_type: BPF_CGROUP_DEVICE,
        attach_flags: 0,
        replace_bpf_fd: 0,
    };
    change(BPF_PROG_DETACH, &attr).call(|| {
        let (cgroup, program) = (attr.target_fd, attr.attach_bpf_fd);
        format!("bpf(PROG_DETACH, cgroup {cgroup}, program {program}, CGROUP_DEVICE)")
    })
}

/// Attaches or detaches.
pub(super) fn change(command: usize, attr: &AttachAttr) -> Result<(), Errno> {
    let address = std::ptr::from_ref(attr) as usize;
    let size = size_of::<AttachAttr>();
    // SAFETY: `attr` has the size that is passed and is only read.
    unsafe { syscall(libc::SYS_bpf, [command, address, size, 0, 0, 0]) }.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_are_laid_out_as_in_the_kernel_header() {
        assert_eq!(size_of::<QueryAttr>(), 32);
        assert_eq!(size_of::<IdAttr>(), 12);
        assert_eq!(size_of::<InfoAttr>(), 16);
        assert_eq!(std::mem::offset_of!(ProgramInfo, load_time), 40);
        assert_eq!(std::mem::offset_of!(ProgramInfo, map_ids), 56);
        assert_eq!(std::mem::offset_of!(ProgramInfo, name), 64);
    }
}
