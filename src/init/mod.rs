//! The container's first process, from the clone to the `execve` of the program.
//!
//! The runtime plans (`build.rs`), clones (`spawn.rs`) and talks to it (`handshake.rs`). What runs
//! inside is a program of its own, in a sealed memfd (`main.rs` is its recipe); it decides nothing
//! and knows only its [`plan::Plan`].

#[cfg(feature = "runtime")]
mod build;
pub mod handshake;
mod hooks;
mod identity;
pub mod labels;
pub mod landlock;
pub mod limits;
mod main;
pub mod plan;
mod program;
#[cfg(feature = "runtime")]
mod sealed;
pub mod settings;
#[cfg(feature = "runtime")]
mod spawn;
mod sysctl;
mod terminal;

#[cfg(feature = "runtime")]
pub use build::{Request, build, limits};
pub use main::main;
#[cfg(feature = "runtime")]
pub use spawn::{Init, Spawn, spawn, wait_until_executed};
