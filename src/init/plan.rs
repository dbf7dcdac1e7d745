//! What init does, as data: written by the runtime, read once by init.

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::labels::Labels;
use super::landlock::Rules;
use super::limits::Limit;
use super::settings::Settings;
use crate::rootfs::{self, OpenTree};
use crate::sys::fd::InheritedFd;
use crate::sys::seccomp::Instruction;

/// Everything that init needs to know; nothing is left to look up inside.
#[derive(Debug, Serialize, Deserialize)]
pub struct Plan {
    /// Whose root init is.
    pub user_namespace: UserNamespace,
    /// Name of the session keyring to join, if one is wanted.
    pub keyring: Option<String>,
    /// How init comes into its network.
    pub network: Network,
    /// Host name to set, in a UTS namespace of the container's own.
    pub hostname: Option<String>,
    /// NIS domain name to set, likewise.
    pub domainname: Option<String>,
    /// The file system.
    pub rootfs: rootfs::Plan<OpenTree>,
    /// The bundle's directory as the runtime sees it: where createContainer hooks run.
    pub bundle: String,
    /// The host's /proc, for sysctls and labels.
    pub host_proc: InheritedFd,
    /// Files below /proc/sys and what is written to them.
    pub sysctls: Vec<Sysctl>,
    /// When the mounts are made and the root is not entered, init waits for the runtime: there are hooks,
    /// or interfaces that are moved.
    pub waits_when_made: bool,
    /// Hooks.
    pub hooks: Hooks,
    /// The program.
    pub program: Program,
    /// Its resource limits; none when the runtime sets them.
    pub limits: Vec<Limit>,
    /// Its labels of Linux security modules.
    pub labels: Labels,
    /// Rights that it gives up.
    pub landlock: Option<Rules>,
    /// What its process is set to besides.
    pub settings: Settings,
    /// Who the program is and what it may do.
    pub identity: Identity,
    /// What decides on the program's system calls.
    pub filter: Option<Filter>,
    /// A terminal is made for the program.
    pub terminal: Option<Terminal>,
    /// Where a later `start` says go; None when whoever created the container says it.
    pub gate: Option<InheritedFd>,
    /// Locked from before the clone until the program is executed: how others tell *created* from
    /// *running*.
    pub lock: InheritedFd,
    /// How many descriptors after standard error the program gets.
    pub preserved: u32,
    /// How many of them come from socket activation, and are told as such.
    pub listening: u32,
}

/// What a process does that joins a container, as data.
#[derive(Debug, Serialize, Deserialize)]
pub struct Exec {
    /// Whose root it is at first.
    pub user_namespace: UserNamespace,
    /// Name of the session keyring to join, if one is wanted.
    pub keyring: Option<String>,
    /// The container's root.
    pub root: InheritedFd,
    /// The host's /proc, for labels.
    pub host_proc: InheritedFd,
    /// The program.
    pub program: Program,
    /// Its resource limits; none when the runtime sets them.
    pub limits: Vec<Limit>,
    /// Its labels of Linux security modules.
    pub labels: Labels,
    /// Rights that it gives up.
    pub landlock: Option<Rules>,
    /// What its process is set to besides.
    pub settings: Settings,
    /// Who the program is and what it may do.
    pub identity: Identity,
    /// What decides on the program's system calls.
    pub filter: Option<Filter>,
    /// A terminal is made for the program.
    pub terminal: Option<Terminal>,
    /// How many descriptors after standard error the program gets.
    pub preserved: u32,
    /// How many of them come from socket activation, and are told as such.
    pub listening: u32,
}

/// The user namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum UserNamespace {
    /// The host's.
    Host,
    /// One that exists: init becomes its root.
    Joined,
    /// A new one: init becomes its root when the ids are mapped.
    New,
}

/// How init comes into its network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Network {
    /// It is there.
    Entered,
    /// It is in a new one, whose loopback interface is to be brought up.
    Made,
    /// The runtime makes one and sends it after the plan.
    Follows,
}

/// One kernel parameter.
#[derive(Debug, Serialize, Deserialize)]
pub struct Sysctl {
    /// The file, as `net/ipv4/ip_forward`.
    pub file: String,
    /// What is written to it.
    pub value: String,
}

/// The hooks that concern init.
#[derive(Debug, Serialize, Deserialize)]
pub struct Hooks {
    /// Run by init before the root is entered.
    pub create_container: Vec<Hook>,
    /// Run by init after start and before the program.
    pub start_container: Vec<Hook>,
    /// Files for the output and the errors of hooks inside, where they are not kept for init's.
    pub outputs: [Option<InheritedFd>; 2],
    /// The state while the container is created, as JSON cut where the process id belongs.
    pub creating: [String; 2],
    /// The state before it is started, likewise.
    pub created: [String; 2],
}

/// One hook.
#[derive(Debug, Serialize, Deserialize)]
pub struct Hook {
    /// Where config.json has it.
    pub json_path: String,
    /// The file to execute.
    pub path: String,
    /// Arguments; the first is the name it is called by.
    pub args: Vec<String>,
    /// Its whole environment.
    pub env: Vec<String>,
    /// After how many milliseconds it is killed; None: never.
    pub timeout_ms: Option<u64>,
}

/// The program that the container is for.
#[derive(Debug, Serialize, Deserialize)]
pub struct Program {
    /// Arguments; the first is looked up in `PATH` when it has no slash.
    pub args: Vec<String>,
    /// Environment, `NAME=value`.
    pub env: Vec<String>,
    /// Working directory, made when missing.
    pub cwd: String,
}

/// Who the program is and what it may do.
#[derive(Debug, Serialize, Deserialize)]
pub struct Identity {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Further groups, these and no others; None keeps those of whoever called the runtime.
    pub groups: Option<Vec<u32>>,
    /// File mode creation mask.
    pub umask: u32,
    /// Capabilities, a bit each.
    pub capabilities: Capabilities,
    /// The bounding set is as it is to be.
    #[serde(skip)]
    pub is_bounded: bool,
    /// Capabilities that init still holds when it is this user, unused, for its last steps: an
    /// execve leaves them behind, as the bounding set does not have them.
    pub until_execve: u64,
    /// No file that is executed later can raise privileges (prctl(2), PR_SET_NO_NEW_PRIVS).
    pub no_new_privileges: bool,
}

/// A filter of system calls.
#[derive(Debug, Serialize, Deserialize)]
pub struct Filter {
    /// What it is made from, as errors call it.
    pub field: String,
    /// The program.
    pub program: Vec<Instruction>,
    /// Flags of seccomp(2); with SECCOMP_FILTER_FLAG_NEW_LISTENER the runtime gets the listener.
    pub flags: u32,
}

/// The five sets of capabilities(7).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names of capabilities(7)")]
pub struct Capabilities {
    pub bounding: u64,
    pub effective: u64,
    pub inheritable: u64,
    pub permitted: u64,
    pub ambient: u64,
}

/// The terminal's size; 0 by 0 when none is asked for.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Terminal {
    /// Lines.
    pub rows: u16,
    /// Characters in a line.
    pub columns: u16,
}
