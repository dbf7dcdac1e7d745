//! The architectures whose system calls a filter can meet, and how the kernel tells them apart.

use oci_spec::runtime::Arch as Named;

/// An architecture with a table of system calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arch {
    X86_64,
    X86,
    X32,
    Aarch64,
    Arm,
}

impl Arch {
    /// That of this program.
    #[cfg(target_arch = "x86_64")]
    pub(super) const NATIVE: Arch = Arch::X86_64;
    /// That of this program.
    #[cfg(target_arch = "aarch64")]
    pub(super) const NATIVE: Arch = Arch::Aarch64;

    /// The one that config.json means, if a table knows it.
    pub(super) fn named(name: Named) -> Option<Arch> {
        #[allow(
            clippy::wildcard_enum_match_arm,
            reason = "the others have no table here, whatever they are"
        )]
        match name {
            Named::ScmpArchNative => Some(Arch::NATIVE),
            Named::ScmpArchX86_64 => Some(Arch::X86_64),
            Named::ScmpArchX86 => Some(Arch::X86),
            Named::ScmpArchX32 => Some(Arch::X32),
            Named::ScmpArchAarch64 => Some(Arch::Aarch64),
            Named::ScmpArchArm => Some(Arch::Arm),
            _ => None,
        }
    }

    /// Whether processes of this architecture can run beside those of `native`.
    pub(super) fn runs_beside(self, native: Arch) -> bool {
        match self {
            Arch::X86_64 | Arch::X86 | Arch::X32 => native == Arch::X86_64,
            Arch::Aarch64 | Arch::Arm => native == Arch::Aarch64,
        }
    }

    /// Its column in the table of calls.
    pub(super) fn column(self) -> usize {
        match self {
            Arch::X86_64 => 0,
            Arch::X86 => 1,
            Arch::X32 => 2,
            Arch::Aarch64 => 3,
            Arch::Arm => 4,
        }
    }

    /// `seccomp_data.arch` of its calls (linux/audit.h). x32 has that of x86_64, and a bit in the
    /// number.
    pub(super) fn audit(self) -> u32 {
        match self {
            Arch::X86_64 | Arch::X32 => 0xc000_003e,
            Arch::X86 => 0x4000_0003,
            Arch::Aarch64 => 0xc000_00b7,
            Arch::Arm => 0x4000_0028,
        }
    }

    /// Whether arguments have 32 bits. What the upper half of a register holds is then no part of
    /// the call: a 64-bit process that makes a 32-bit call could put anything there.
    pub(super) fn is_narrow(self) -> bool {
        match self {
            Arch::X86 | Arch::X32 | Arch::Arm => true,
            Arch::X86_64 | Arch::Aarch64 => false,
        }
    }

    /// The word for the plan.
    pub(super) fn name(self) -> &'static str {
        match self {
            Arch::X86_64 => "x86_64",
            Arch::X86 => "x86",
            Arch::X32 => "x32",
            Arch::Aarch64 => "aarch64",
            Arch::Arm => "arm",
        }
    }
}
