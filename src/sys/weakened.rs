//! Which of its mitigations this build does without: for tests that show that an attack would succeed then, and so
//! that they can fail (docs/security.md, tests/escapes).
//!
//! Only a build with the feature `weakened` asks when it runs; no build that is meant for use has it. In all others
//! the answer is no when the program is compiled, and nothing of this is in it.

/// What can be switched off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mitigation {
    /// What runs inside is a sealed copy in memory: else a file of the host's, beside the program.
    SealedCopy,
    /// No descriptor of the caller's is open in the container's processes.
    Descriptors,
    /// A working directory outside the root is refused.
    WorkingDirectory,
    /// Files are hidden behind the host's null device: else behind what the image has at /dev/null.
    NullDevice,
    /// A stream is replaced by the null device alone, which stays root's: else by what the image has at /dev/null, which is
    /// given to the program's user.
    StreamDevice,
    /// The terminal is asked for from its multiplexer: else opened by its name in /dev/pts.
    TerminalPeer,
    /// Sysctls and labels are written to the host's procfs: else to what is at /proc inside.
    HostProc,
    /// A place stays the descriptor that was found: else it is looked up once more by its name.
    OpenedPlaces,
    /// Paths of the container are resolved inside its root.
    InRoot,
    /// /proc and /sys are not mounted over a link.
    PlainProc,
    /// Nothing is inheritable that was not asked for: else all that is permitted.
    Inheritable,
    /// Nobody inside looks into a process that is not the program yet.
    Dumpable,
    /// The program is in a session of its own.
    Session,
    /// The program gets its own environment alone: else the caller's too.
    Environment,
    /// Hooks get their own environment alone: else the program's too, or the caller's.
    HookEnvironment,
    /// The cgroup decides on devices.
    DeviceFilter,
    /// `linux.readonlyPaths`.
    ReadOnlyPaths,
    /// `linux.maskedPaths`.
    MaskedPaths,
}

/// Whether this build does without it.
#[cfg(not(feature = "weakened"))]
#[inline(always)]
#[must_use]
pub const fn is_off(_mitigation: Mitigation) -> bool {
    false
}

#[cfg(all(feature = "weakened", feature = "runtime"))]
pub use switches::argument;
/// Lets a neighbour win the race that is open without it.
#[cfg(not(feature = "weakened"))]
#[inline(always)]
pub const fn give_a_turn(_mitigation: Mitigation) {}

#[cfg(all(feature = "weakened", not(feature = "runtime")))]
pub use switches::learn;
#[cfg(feature = "weakened")]
pub use switches::{give_a_turn, is_off};

// --all-features must not make a runtime for use of it.
#[cfg(all(feature = "weakened", feature = "runtime", not(debug_assertions)))]
compile_error!(
    "the feature `weakened` is for tests of mitigations, in debug builds alone: build without it"
);

#[cfg(feature = "weakened")]
mod switches {
    //! By names in an environment variable, which init gets as an argument.

    use super::Mitigation;

    const NAMES: &[(Mitigation, &str)] = &[
        (Mitigation::SealedCopy, "sealed-copy"),
        (Mitigation::Descriptors, "descriptors"),
        (Mitigation::WorkingDirectory, "working-directory"),
        (Mitigation::NullDevice, "null-device"),
        (Mitigation::StreamDevice, "stream-device"),
        (Mitigation::TerminalPeer, "terminal-peer"),
        (Mitigation::HostProc, "host-proc"),
        (Mitigation::OpenedPlaces, "opened-places"),
        (Mitigation::InRoot, "in-root"),
        (Mitigation::PlainProc, "plain-proc"),
        (Mitigation::Inheritable, "inheritable"),
        (Mitigation::Dumpable, "dumpable"),
        (Mitigation::Session, "session"),
        (Mitigation::Environment, "environment"),
        (Mitigation::HookEnvironment, "hook-environment"),
        (Mitigation::DeviceFilter, "device-filter"),
        (Mitigation::ReadOnlyPaths, "read-only-paths"),
        (Mitigation::MaskedPaths, "masked-paths"),
    ];

    /// A bit for each that is named in the text, which separates them by commas.
    fn bits(names: &str) -> u32 {
        let number = |name: &str| NAMES.iter().position(|(_, known)| *known == name);
        let known = names.split(',').filter_map(number);
        known.fold(0, |bits, number| bits | 1 << number)
    }

    /// Whether this build does without it.
    #[must_use]
    pub fn is_off(mitigation: Mitigation) -> bool {
        let number = NAMES.iter().position(|(known, _)| *known == mitigation);
        number.is_some_and(|number| off() & (1 << number) != 0)
    }

    /// Lets a neighbour win the race that is open without it: an emulated host has one processor for all, which
    /// the neighbour would hardly ever get at the right moment.
    pub fn give_a_turn(mitigation: Mitigation) {
        let turn = rustix::thread::Timespec {
            tv_sec: 0,
            tv_nsec: 1_000_000,
        };
        if is_off(mitigation) {
            let _woken_early = rustix::thread::nanosleep(&turn);
        }
    }

    #[cfg(feature = "runtime")]
    const VARIABLE: &str = "PARHELION_WEAKENED";

    #[cfg(feature = "runtime")]
    fn off() -> u32 {
        std::env::var(VARIABLE).map_or(0, |names| bits(&names))
    }

    /// What init is to be told, which gets no environment.
    #[cfg(feature = "runtime")]
    #[must_use]
    pub fn argument() -> Option<std::ffi::CString> {
        let names = std::env::var(VARIABLE).ok()?;
        std::ffi::CString::new(names).ok()
    }

    #[cfg(not(feature = "runtime"))]
    static OFF: core::sync::atomic::AtomicU32 = core::sync::atomic::AtomicU32::new(0);

    #[cfg(not(feature = "runtime"))]
    fn off() -> u32 {
        OFF.load(core::sync::atomic::Ordering::Relaxed)
    }

    /// Reads the argument, in the host's mount namespace; processes that are cloned later know it too.
    #[cfg(not(feature = "runtime"))]
    pub fn learn() {
        use rustix::fs::{Mode, OFlags};
        let mut line = [0; 1024];
        let opened = rustix::fs::open("/proc/self/cmdline", OFlags::RDONLY, Mode::empty());
        let length = opened.and_then(|file| rustix::io::read(&file, &mut line));
        let names = line[..length.unwrap_or(0)].split(|byte| *byte == 0).nth(2);
        let names = names.and_then(|names| core::str::from_utf8(names).ok());
        let off = names.map_or(0, bits);
        OFF.store(off, core::sync::atomic::Ordering::Relaxed);
    }
}
