//! What the program's process is set to beside its identity: scheduling, I/O priority, personality,
//! memory policy. As data, and how it is applied.
//!
//! Init applies all of it, as the last thing before it becomes another user: some of it needs a
//! privilege. In a user namespace the runtime applies scheduling and I/O priority from outside,
//! before init gets its plan: the kernel asks for CAP_SYS_NICE on the host, and a rootless runtime
//! may change a process only while that is its own user's.

use anyhow::{Context as _, Result};
use rustix::process::Pid;
use serde::{Deserialize, Serialize};

use crate::sys::attributes::{self, Schedule};
use crate::sys::bitmap::Bitmap;

/// Everything that is set; what is None stays as it is.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Settings {
    /// Scheduling, unless the runtime sets it.
    pub scheduling: Scheduling,
    /// Argument of personality(2).
    pub personality: Option<u32>,
    /// NUMA policy.
    pub memory_policy: Option<MemoryPolicy>,
}

/// Who comes first, on the processors and at the disks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scheduling {
    /// `process.scheduler`.
    pub schedule: Option<Schedule>,
    /// `process.ioPriority`.
    pub io_priority: Option<IoPriority>,
}

/// On which processors a process that joins a container begins, and on which it goes on in its cgroup
/// (`process.execCPUAffinity`); what is None is left to the kernel.
#[cfg(feature = "runtime")]
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Affinity {
    /// Of the process that it is cloned from, which it inherits.
    pub initial: Option<Bitmap>,
    /// Its own, when it is in the container's cgroup.
    pub last: Option<Bitmap>,
}

/// A priority of I/O (ioprio_set(2)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct IoPriority {
    /// `IOPRIO_CLASS_*`.
    pub class: u16,
    /// 0 is the highest.
    pub level: u16,
}

/// A NUMA policy (set_mempolicy(2)).
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryPolicy {
    /// `MPOL_*` with its flags.
    pub mode: u32,
    /// The nodes it is about.
    pub nodes: Bitmap,
}

impl Settings {
    /// Sets this process.
    ///
    /// # Errors
    ///
    /// What the kernel answered; the field is named.
    pub fn apply(&self) -> Result<()> {
        self.scheduling.apply(None)?;
        if let Some(persona) = self.personality {
            attributes::set_personality(persona).context("linux.personality")?;
        }
        if let Some(policy) = &self.memory_policy {
            attributes::set_memory_policy(policy.mode, &policy.nodes)
                .context("linux.memoryPolicy")?;
        }
        Ok(())
    }
}

impl Scheduling {
    /// Sets the process `pid`, or this one.
    ///
    /// # Errors
    ///
    /// What the kernel answered; the field is named.
    pub fn apply(&self, pid: Option<Pid>) -> Result<()> {
        if let Some(schedule) = &self.schedule {
            attributes::set_schedule(pid, schedule).context("process.scheduler")?;
        }
        if let Some(IoPriority { class, level }) = self.io_priority {
            attributes::set_io_priority(pid, class, level).context("process.ioPriority")?;
        }
        Ok(())
    }
}

#[cfg(feature = "runtime")]
impl Affinity {
    /// Whether there is anything to set.
    pub fn is_given(&self) -> bool {
        self.initial.is_some() || self.last.is_some()
    }

    /// Sets the process `pid`, which the other one will be cloned from.
    ///
    /// # Errors
    ///
    /// `EINVAL` when none of the processors is there; the field is named.
    pub fn begin(&self, pid: Pid) -> Result<()> {
        set("initial", self.initial.as_ref(), pid)
    }

    /// Sets the process `pid`, which is in the container's cgroup.
    ///
    /// # Errors
    ///
    /// `EINVAL` when the cgroup has none of the processors; the field is named.
    pub fn end(&self, pid: Pid) -> Result<()> {
        set("final", self.last.as_ref(), pid)
    }
}

#[cfg(feature = "runtime")]
fn set(field: &str, cpus: Option<&Bitmap>, pid: Pid) -> Result<()> {
    let set = |cpus| attributes::set_affinity(Some(pid), cpus);
    cpus.map_or(Ok(()), set)
        .with_context(|| format!("process.execCPUAffinity.{field}"))
}

#[cfg(feature = "runtime")]
mod read {
    //! From config.json, whose words and ranges were checked.

    use oci_spec::runtime::{
        IOPriorityClass, Linux, LinuxPersonality, LinuxPersonalityDomain, LinuxSchedulerFlag,
        LinuxSchedulerPolicy, MemoryPolicyFlagType, MemoryPolicyModeType, Process, Scheduler,
    };

    use crate::sys::attributes::PERSONALITY_FLAGS;

    use super::{Affinity, Bitmap, IoPriority, MemoryPolicy, Schedule, Scheduling, Settings};

    impl Settings {
        /// What config.json asks for.
        #[must_use]
        pub fn of(process: &Process, linux: Option<&Linux>) -> Settings {
            Settings {
                scheduling: Scheduling::of(process),
                personality: linux
                    .and_then(|l| l.personality().as_ref())
                    .map(personality),
                memory_policy: linux
                    .and_then(|l| l.memory_policy().as_ref())
                    .map(|policy| MemoryPolicy {
                        mode: memory_mode(policy.mode())
                            | policy.flags().iter().flatten().fold(0, memory_flag),
                        nodes: list(policy.nodes().as_deref()),
                    }),
            }
        }
    }

    impl Scheduling {
        /// What config.json asks for.
        #[must_use]
        pub fn of(process: &Process) -> Scheduling {
            Scheduling {
                schedule: process.scheduler().as_ref().map(schedule),
                io_priority: process.io_priority().map(|priority| IoPriority {
                    class: match priority.class() {
                        IOPriorityClass::IoprioClassRt => 1, // linux/ioprio.h
                        IOPriorityClass::IoprioClassBe => 2,
                        IOPriorityClass::IoprioClassIdle => 3,
                    },
                    level: u16::try_from(priority.priority()).unwrap_or(u16::MAX),
                }),
            }
        }
    }

    impl Affinity {
        /// What config.json asks for.
        #[must_use]
        pub fn of(process: &Process) -> Affinity {
            let asked = process.exec_cpu_affinity().as_ref();
            let set = |text: &Option<String>| Some(list(text.as_deref())).filter(|s| !s.is_empty());
            Affinity {
                initial: asked.and_then(|asked| set(asked.initial())),
                last: asked.and_then(|asked| set(asked.cpu_affinity_final())),
            }
        }
    }

    /// A list that was checked.
    fn list(text: Option<&str>) -> Bitmap {
        Bitmap::parse(text.unwrap_or_default()).unwrap_or_default()
    }

    fn schedule(asked: &Scheduler) -> Schedule {
        Schedule {
            policy: match asked.policy() {
                LinuxSchedulerPolicy::SchedOther => 0, // linux/sched.h
                LinuxSchedulerPolicy::SchedFifo => 1,
                LinuxSchedulerPolicy::SchedRr => 2,
                LinuxSchedulerPolicy::SchedBatch => 3,
                LinuxSchedulerPolicy::SchedIso => 4,
                LinuxSchedulerPolicy::SchedIdle => 5,
                LinuxSchedulerPolicy::SchedDeadline => 6,
            },
            flags: asked.flags().iter().flatten().fold(0, scheduler_flag),
            nice: asked.nice().unwrap_or(0),
            priority: u32::try_from(asked.priority().unwrap_or(0)).unwrap_or(u32::MAX),
            runtime: asked.runtime().unwrap_or(0),
            deadline: asked.deadline().unwrap_or(0),
            period: asked.period().unwrap_or(0),
        }
    }

    fn scheduler_flag(all: u64, flag: &LinuxSchedulerFlag) -> u64 {
        all | match flag {
            LinuxSchedulerFlag::SchedResetOnFork => 0x01, // linux/sched.h
            LinuxSchedulerFlag::SchedFlagReclaim => 0x02,
            LinuxSchedulerFlag::SchedFlagDLOverrun => 0x04,
            LinuxSchedulerFlag::SchedFlagKeepPolicy => 0x08,
            LinuxSchedulerFlag::SchedFlagKeepParams => 0x10,
            LinuxSchedulerFlag::SchedFlagUtilClampMin => 0x20,
            LinuxSchedulerFlag::SchedFlagUtilClampMax => 0x40,
        }
    }

    fn personality(asked: &LinuxPersonality) -> u32 {
        let domain = match asked.domain() {
            LinuxPersonalityDomain::PerLinux => 0, // linux/personality.h
            LinuxPersonalityDomain::PerLinux32 => 8,
        };
        let flags = asked.flags().iter().flatten();
        flags.fold(domain, |all, word| {
            let found = PERSONALITY_FLAGS.iter().find(|(name, _)| name == word);
            all | found.map_or(0, |(_, bit)| *bit)
        })
    }

    fn memory_mode(mode: MemoryPolicyModeType) -> u32 {
        match mode {
            MemoryPolicyModeType::MpolDefault => 0, // linux/mempolicy.h
            MemoryPolicyModeType::MpolPreferred => 1,
            MemoryPolicyModeType::MpolBind => 2,
            MemoryPolicyModeType::MpolInterleave => 3,
            MemoryPolicyModeType::MpolLocal => 4,
            MemoryPolicyModeType::MpolPreferredMany => 5,
            MemoryPolicyModeType::MpolWeightedInterleave => 6,
        }
    }

    fn memory_flag(all: u32, flag: &MemoryPolicyFlagType) -> u32 {
        all | match flag {
            MemoryPolicyFlagType::MpolFNumaBalancing => 1 << 13, // linux/mempolicy.h
            MemoryPolicyFlagType::MpolFRelativeNodes => 1 << 14,
            MemoryPolicyFlagType::MpolFStaticNodes => 1 << 15,
        }
    }
}
