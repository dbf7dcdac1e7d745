//! Parhelion, an OCI container runtime written directly on the Linux kernel.
//!
//! The story every module serves: **a container**, `create -> start -> kill -> delete` of an OCI
//! bundle. To read it in order:
//!
//! `cli -> lifecycle::create -> bundle -> plans -> init -> lifecycle::start -> kill -> delete`
//!
//! # Layers
//!
//! ```text
//! sys, error                         import nothing of ours; sys is the only home of unsafe
//! namespaces cgroups rootfs seccomp criu  mechanisms; never import each other
//! bundle                             config.json, checked or refused before any effect
//! init                               the container's first process, clone to execve
//! lifecycle                          the recipes behind each OCI verb
//! keeper                             holds one instance: policy (pure) and loop
//! cli                                one clap variant per verb, one lifecycle call each
//! store                              keys with revisions, leases and watches: what should run
//! job                                what a job says: its file, its identity
//! api                                what the daemon and its clients say to each other
//! network                            networks of instances' own: namespaces, bridge, published ports
//! agent                              makes what runs on a host what is wanted there
//! control                            takes jobs and deployments, keeps them, and tells people
//! client                             parctl: what people ask control
//! ```
//!
//! `tests/architecture.rs` holds this table and enforces it.
//!
//! # Two programs from one crate
//!
//! `parhelion` runs on the host (feature `runtime`). `parhelion-init` starts beside it, clones the
//! container's first process and is that up to the `execve` of the program; it is built from the same
//! modules without std and libc (feature `freestanding`) and embedded in `parhelion` by `build.rs`.
//! What both share is compiled without std. The supervisor's layers (feature `supervisor`) are in neither.
#![cfg_attr(not(feature = "runtime"), no_std)]

extern crate alloc;
// As the disk of tests/store, which the simulation has too, calls it.
#[cfg(all(test, feature = "supervisor"))]
extern crate self as parhelion;

#[cfg(feature = "supervisor")]
pub mod agent;
#[cfg(feature = "supervisor")]
pub mod api;
#[cfg(feature = "runtime")]
pub mod bundle;
#[cfg(feature = "runtime")]
pub mod cgroups;
#[cfg(feature = "runtime")]
pub mod cli;
#[cfg(feature = "supervisor")]
pub mod client;
#[cfg(feature = "supervisor")]
pub mod control;
#[cfg(feature = "runtime")]
pub mod criu;
#[cfg(feature = "runtime")]
pub mod error;
pub mod init;
#[cfg(feature = "supervisor")]
pub mod job;
#[cfg(feature = "runtime")]
pub mod keeper;
#[cfg(feature = "runtime")]
pub mod lifecycle;
#[cfg(feature = "runtime")]
pub mod namespaces;
#[cfg(feature = "supervisor")]
pub mod network;
pub mod rootfs;
#[cfg(feature = "runtime")]
pub mod seccomp;
#[cfg(all(test, feature = "supervisor"))]
mod simulation;
#[cfg(feature = "supervisor")]
pub mod store;
pub mod sys;
