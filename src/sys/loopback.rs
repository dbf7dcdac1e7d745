//! Brings up the loopback interface of a new network namespace (netdevice(7)).

#![allow(unsafe_code)]

use alloc::string::ToString;

use rustix::fd::AsRawFd;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use super::raw::syscall;
use super::{Call, SysResult};

/// `struct ifreq` with the flags of its union, padded to the kernel's size.
#[repr(C)]
struct InterfaceFlags {
    name: [u8; libc::IFNAMSIZ],
    flags: i16,
    _rest: [u8; 22],
}

/// Sets `lo` up in the network namespace of this process (SIOCSIFFLAGS).
///
/// # Errors
///
/// `EPERM` without CAP_NET_ADMIN in the namespace.
pub fn bring_up() -> SysResult<()> {
    let kind = SocketType::DGRAM;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)
        .call(|| "socket(AF_INET, SOCK_DGRAM)".to_string())?;
    let mut request = InterfaceFlags {
        name: [0; libc::IFNAMSIZ],
        flags: 0,
        _rest: [0; 22],
    };
    request.name[..2].copy_from_slice(b"lo");
    request.flags = (libc::IFF_UP | libc::IFF_RUNNING) as i16;
    let address = (&raw const request) as usize;
    let args = [
        socket.as_raw_fd() as usize,
        libc::SIOCSIFFLAGS as usize,
        address,
        0,
        0,
        0,
    ];
    // SAFETY: the kernel reads a struct ifreq, whose size `request` has; it lives until the call
    // returns.
    unsafe { syscall(libc::SYS_ioctl, args) }
        .call(|| "ioctl(SIOCSIFFLAGS, \"lo\", IFF_UP|IFF_RUNNING)".to_string())
        .map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_request_has_the_layout_of_the_kernel_header() {
        let (flags, union) = (
            core::mem::offset_of!(InterfaceFlags, flags),
            core::mem::offset_of!(libc::ifreq, ifr_ifru),
        );
        assert_eq!(size_of::<InterfaceFlags>(), size_of::<libc::ifreq>());
        assert_eq!(flags, union);
    }
}
