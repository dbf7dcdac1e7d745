//! The fields of config-linux.md.

use super::Kind::{Array, Bool, Closed, Map, Object, Path, Text, Words};
use super::{CLOCK, Field, I64, ID, MAY, MUST, NANOS, SIZE, U16, U32, U64, YES, row};

const NAMESPACES: &[&str] = &[
    "pid", "network", "mount", "ipc", "uts", "user", "cgroup", "time",
];

/// Types of device nodes; `u` is an unbuffered character device, `p` a fifo.
const DEVICES: &[&str] = &["c", "b", "u", "p"];

/// Types in a rule of the device cgroup; `a` is all.
const RULES: &[&str] = &["a", "b", "c"];

/// The specification's four words, and the recursive forms that runc accepts too.
#[rustfmt::skip]
const PROPAGATIONS: &[&str] = &[
    "shared", "slave", "private", "unbindable", "rshared", "rslave", "rprivate", "runbindable",
];

const DOMAINS: &[&str] = &["LINUX", "LINUX32"];

/// The specification names none; these are the kernel's (linux/personality.h).
#[rustfmt::skip]
pub(super) const PERSONALITY_FLAGS: &[&str] = &[
    "UNAME26", "ADDR_NO_RANDOMIZE", "FDPIC_FUNCPTRS", "MMAP_PAGE_ZERO", "ADDR_COMPAT_LAYOUT",
    "READ_IMPLIES_EXEC", "ADDR_LIMIT_32BIT", "SHORT_INODE", "WHOLE_SECONDS", "STICKY_TIMEOUTS",
    "ADDR_LIMIT_3GB",
];

#[rustfmt::skip]
const ACTIONS: &[&str] = &[
    "SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_KILL_THREAD", "SCMP_ACT_TRAP",
    "SCMP_ACT_ERRNO", "SCMP_ACT_TRACE", "SCMP_ACT_ALLOW", "SCMP_ACT_LOG", "SCMP_ACT_NOTIFY",
];

#[rustfmt::skip]
const SECCOMP_FLAGS: &[&str] = &[
    "SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
];

#[rustfmt::skip]
const ARCHITECTURES: &[&str] = &[
    "SCMP_ARCH_X86", "SCMP_ARCH_X86_64", "SCMP_ARCH_X32", "SCMP_ARCH_ARM", "SCMP_ARCH_AARCH64",
    "SCMP_ARCH_LOONGARCH64", "SCMP_ARCH_M68K", "SCMP_ARCH_MIPS", "SCMP_ARCH_MIPS64",
    "SCMP_ARCH_MIPS64N32", "SCMP_ARCH_MIPSEL", "SCMP_ARCH_MIPSEL64", "SCMP_ARCH_MIPSEL64N32",
    "SCMP_ARCH_PPC", "SCMP_ARCH_PPC64", "SCMP_ARCH_PPC64LE", "SCMP_ARCH_S390", "SCMP_ARCH_S390X",
    "SCMP_ARCH_SH", "SCMP_ARCH_SHEB", "SCMP_ARCH_PARISC", "SCMP_ARCH_PARISC64",
    "SCMP_ARCH_RISCV64",
];

#[rustfmt::skip]
const OPERATORS: &[&str] = &[
    "SCMP_CMP_NE", "SCMP_CMP_LT", "SCMP_CMP_LE", "SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT",
    "SCMP_CMP_MASKED_EQ",
];

#[rustfmt::skip]
const MEMORY_MODES: &[&str] = &[
    "MPOL_DEFAULT", "MPOL_BIND", "MPOL_INTERLEAVE", "MPOL_WEIGHTED_INTERLEAVE", "MPOL_PREFERRED",
    "MPOL_PREFERRED_MANY", "MPOL_LOCAL",
];

const MEMORY_FLAGS: &[&str] = &[
    "MPOL_F_NUMA_BALANCING",
    "MPOL_F_RELATIVE_NODES",
    "MPOL_F_STATIC_NODES",
];

/// One row for each field of `linux`.
#[rustfmt::skip] // one line for each row
pub(super) const ROWS: [Field; 155] = [
    row("linux", Object, MAY, YES),
    row("linux.namespaces", Array, MAY, YES),
    row("linux.namespaces[]", Object, MAY, YES),
    row("linux.namespaces[].type", Words(NAMESPACES), MUST, YES),
    row("linux.namespaces[].path", Path, MAY, YES),
    row("linux.uidMappings", Array, MAY, YES),
    row("linux.uidMappings[]", Object, MAY, YES),
    row("linux.uidMappings[].containerID", ID, MUST, YES),
    row("linux.uidMappings[].hostID", ID, MUST, YES),
    row("linux.uidMappings[].size", SIZE, MUST, YES),
    row("linux.gidMappings", Array, MAY, YES),
    row("linux.gidMappings[]", Object, MAY, YES),
    row("linux.gidMappings[].containerID", ID, MUST, YES),
    row("linux.gidMappings[].hostID", ID, MUST, YES),
    row("linux.gidMappings[].size", SIZE, MUST, YES),
    row("linux.timeOffsets", Closed, MAY, YES),
    row("linux.timeOffsets.boottime", Object, MAY, YES),
    row("linux.timeOffsets.boottime.secs", CLOCK, MAY, YES),
    row("linux.timeOffsets.boottime.nanosecs", NANOS, MAY, YES),
    row("linux.timeOffsets.monotonic", Object, MAY, YES),
    row("linux.timeOffsets.monotonic.secs", CLOCK, MAY, YES),
    row("linux.timeOffsets.monotonic.nanosecs", NANOS, MAY, YES),
    row("linux.devices", Array, MAY, YES),
    row("linux.devices[]", Object, MAY, YES),
    row("linux.devices[].type", Words(DEVICES), MUST, YES),
    row("linux.devices[].path", Path, MUST, YES),
    row("linux.devices[].fileMode", U32, MAY, YES),
    row("linux.devices[].major", I64, MAY, YES),
    row("linux.devices[].minor", I64, MAY, YES),
    row("linux.devices[].uid", ID, MAY, YES),
    row("linux.devices[].gid", ID, MAY, YES),
    row("linux.netDevices", Map, MAY, YES),
    row("linux.netDevices.*", Object, MAY, YES),
    row("linux.netDevices.*.name", Text, MAY, YES),
    row("linux.cgroupsPath", Text, MAY, YES),
    row("linux.resources", Object, MAY, YES),
    row("linux.resources.devices", Array, MAY, YES),
    row("linux.resources.devices[]", Object, MAY, YES),
    row("linux.resources.devices[].allow", Bool, MUST, YES),
    row("linux.resources.devices[].type", Words(RULES), MAY, YES),
    row("linux.resources.devices[].major", I64, MAY, YES),
    row("linux.resources.devices[].minor", I64, MAY, YES),
    row("linux.resources.devices[].access", Text, MAY, YES),
    row("linux.resources.memory", Object, MAY, YES),
    row("linux.resources.memory.kernel", I64, MAY, YES),
    row("linux.resources.memory.kernelTCP", I64, MAY, YES),
    row("linux.resources.memory.limit", I64, MAY, YES),
    row("linux.resources.memory.reservation", I64, MAY, YES),
    row("linux.resources.memory.swap", I64, MAY, YES),
    row("linux.resources.memory.swappiness", U64, MAY, YES),
    row("linux.resources.memory.disableOOMKiller", Bool, MAY, YES),
    row("linux.resources.memory.useHierarchy", Bool, MAY, YES),
    row("linux.resources.memory.checkBeforeUpdate", Bool, MAY, YES),
    row("linux.resources.cpu", Object, MAY, YES),
    row("linux.resources.cpu.cpus", Text, MAY, YES),
    row("linux.resources.cpu.mems", Text, MAY, YES),
    row("linux.resources.cpu.period", U64, MAY, YES),
    row("linux.resources.cpu.quota", I64, MAY, YES),
    row("linux.resources.cpu.burst", U64, MAY, YES),
    row("linux.resources.cpu.realtimePeriod", U64, MAY, YES),
    row("linux.resources.cpu.realtimeRuntime", I64, MAY, YES),
    row("linux.resources.cpu.shares", U64, MAY, YES),
    row("linux.resources.cpu.idle", I64, MAY, YES),
    row("linux.resources.blockIO", Object, MAY, YES),
    row("linux.resources.blockIO.weight", U16, MAY, YES),
    row("linux.resources.blockIO.leafWeight", U16, MAY, YES),
    row("linux.resources.blockIO.throttleReadBpsDevice", Array, MAY, YES),
    row("linux.resources.blockIO.throttleReadBpsDevice[]", Object, MAY, YES),
    row("linux.resources.blockIO.throttleReadBpsDevice[].major", I64, MUST, YES),
    row("linux.resources.blockIO.throttleReadBpsDevice[].minor", I64, MUST, YES),
    row("linux.resources.blockIO.throttleReadBpsDevice[].rate", U64, MUST, YES),
    row("linux.resources.blockIO.throttleWriteBpsDevice", Array, MAY, YES),
    row("linux.resources.blockIO.throttleWriteBpsDevice[]", Object, MAY, YES),
    row("linux.resources.blockIO.throttleWriteBpsDevice[].major", I64, MUST, YES),
    row("linux.resources.blockIO.throttleWriteBpsDevice[].minor", I64, MUST, YES),
    row("linux.resources.blockIO.throttleWriteBpsDevice[].rate", U64, MUST, YES),
    row("linux.resources.blockIO.throttleReadIOPSDevice", Array, MAY, YES),
    row("linux.resources.blockIO.throttleReadIOPSDevice[]", Object, MAY, YES),
    row("linux.resources.blockIO.throttleReadIOPSDevice[].major", I64, MUST, YES),
    row("linux.resources.blockIO.throttleReadIOPSDevice[].minor", I64, MUST, YES),
    row("linux.resources.blockIO.throttleReadIOPSDevice[].rate", U64, MUST, YES),
    row("linux.resources.blockIO.throttleWriteIOPSDevice", Array, MAY, YES),
    row("linux.resources.blockIO.throttleWriteIOPSDevice[]", Object, MAY, YES),
    row("linux.resources.blockIO.throttleWriteIOPSDevice[].major", I64, MUST, YES),
    row("linux.resources.blockIO.throttleWriteIOPSDevice[].minor", I64, MUST, YES),
    row("linux.resources.blockIO.throttleWriteIOPSDevice[].rate", U64, MUST, YES),
    row("linux.resources.blockIO.weightDevice", Array, MAY, YES),
    row("linux.resources.blockIO.weightDevice[]", Object, MAY, YES),
    row("linux.resources.blockIO.weightDevice[].major", I64, MUST, YES),
    row("linux.resources.blockIO.weightDevice[].minor", I64, MUST, YES),
    row("linux.resources.blockIO.weightDevice[].weight", U16, MAY, YES),
    row("linux.resources.blockIO.weightDevice[].leafWeight", U16, MAY, YES),
    row("linux.resources.hugepageLimits", Array, MAY, YES),
    row("linux.resources.hugepageLimits[]", Object, MAY, YES),
    row("linux.resources.hugepageLimits[].pageSize", Text, MUST, YES),
    row("linux.resources.hugepageLimits[].limit", U64, MUST, YES),
    row("linux.resources.network", Object, MAY, YES),
    row("linux.resources.network.classID", U32, MAY, YES),
    row("linux.resources.network.priorities", Array, MAY, YES),
    row("linux.resources.network.priorities[]", Object, MAY, YES),
    row("linux.resources.network.priorities[].name", Text, MUST, YES),
    row("linux.resources.network.priorities[].priority", U32, MUST, YES),
    row("linux.resources.pids", Object, MAY, YES),
    row("linux.resources.pids.limit", I64, MAY, YES),
    row("linux.resources.rdma", Map, MAY, YES),
    row("linux.resources.rdma.*", Object, MAY, YES),
    row("linux.resources.rdma.*.hcaHandles", U32, MAY, YES),
    row("linux.resources.rdma.*.hcaObjects", U32, MAY, YES),
    row("linux.resources.unified", Map, MAY, YES),
    row("linux.resources.unified.*", Text, MAY, YES),
    row("linux.sysctl", Map, MAY, YES),
    row("linux.sysctl.*", Text, MAY, YES),
    row("linux.rootfsPropagation", Words(PROPAGATIONS), MAY, YES),
    row("linux.maskedPaths", Array, MAY, YES),
    row("linux.maskedPaths[]", Path, MAY, YES),
    row("linux.readonlyPaths", Array, MAY, YES),
    row("linux.readonlyPaths[]", Path, MAY, YES),
    row("linux.mountLabel", Text, MAY, YES),
    row("linux.personality", Object, MAY, YES),
    row("linux.personality.domain", Words(DOMAINS), MUST, YES),
    row("linux.personality.flags", Array, MAY, YES),
    row("linux.personality.flags[]", Words(PERSONALITY_FLAGS), MAY, YES),
    row("linux.seccomp", Object, MAY, YES),
    row("linux.seccomp.defaultAction", Words(ACTIONS), MAY, YES),
    row("linux.seccomp.defaultErrnoRet", U32, MAY, YES),
    row("linux.seccomp.flags", Array, MAY, YES),
    row("linux.seccomp.flags[]", Words(SECCOMP_FLAGS), MAY, YES),
    row("linux.seccomp.listenerPath", Text, MAY, YES),
    row("linux.seccomp.listenerMetadata", Text, MAY, YES),
    row("linux.seccomp.architectures", Array, MAY, YES),
    row("linux.seccomp.architectures[]", Words(ARCHITECTURES), MAY, YES),
    row("linux.seccomp.syscalls", Array, MAY, YES),
    row("linux.seccomp.syscalls[]", Object, MAY, YES),
    row("linux.seccomp.syscalls[].names", Array, MUST, YES),
    row("linux.seccomp.syscalls[].names[]", Text, MAY, YES),
    row("linux.seccomp.syscalls[].action", Words(ACTIONS), MUST, YES),
    row("linux.seccomp.syscalls[].errnoRet", U32, MAY, YES),
    row("linux.seccomp.syscalls[].args", Array, MAY, YES),
    row("linux.seccomp.syscalls[].args[]", Object, MAY, YES),
    row("linux.seccomp.syscalls[].args[].index", U32, MUST, YES),
    row("linux.seccomp.syscalls[].args[].value", U64, MUST, YES),
    row("linux.seccomp.syscalls[].args[].valueTwo", U64, MAY, YES),
    row("linux.seccomp.syscalls[].args[].op", Words(OPERATORS), MUST, YES),
    row("linux.intelRdt", Object, MAY, YES),
    row("linux.intelRdt.closID", Text, MAY, YES),
    row("linux.intelRdt.schemata", Array, MAY, YES),
    row("linux.intelRdt.schemata[]", Text, MAY, YES),
    row("linux.intelRdt.l3CacheSchema", Text, MAY, YES),
    row("linux.intelRdt.memBwSchema", Text, MAY, YES),
    row("linux.intelRdt.enableMonitoring", Bool, MAY, YES),
    row("linux.memoryPolicy", Object, MAY, YES),
    row("linux.memoryPolicy.mode", Words(MEMORY_MODES), MUST, YES),
    row("linux.memoryPolicy.nodes", Text, MAY, YES),
    row("linux.memoryPolicy.flags", Array, MAY, YES),
    row("linux.memoryPolicy.flags[]", Words(MEMORY_FLAGS), MAY, YES),
];
