//! The container's first process, from the clone to the `execve` of the program.
//!
//! The runtime plans (`build.rs`), starts it (`spawn.rs`) and talks to it (`handle.rs`, in the words
//! of `handshake.rs`). What runs
//! inside is a program of its own, in a sealed memfd: it starts outside, before the plan is made
//! (`seed.rs`), and clones the container's init (`main.rs` is its recipe), which decides nothing and
//! knows only its [`plan::Plan`].

#[cfg(feature = "runtime")]
mod birth;
#[cfg(feature = "runtime")]
mod build;
mod exec;
#[cfg(feature = "runtime")]
mod grants;
#[cfg(feature = "runtime")]
mod handle;
pub mod handshake;
mod hooks;
mod identity;
pub mod labels;
pub mod landlock;
pub mod limits;
mod main;
mod network;
pub mod plan;
mod program;
#[cfg(feature = "runtime")]
mod sealed;
mod seed;
pub mod settings;
#[cfg(feature = "runtime")]
mod spawn;
mod sysctl;
mod terminal;

#[cfg(feature = "runtime")]
pub use birth::Birth;
#[cfg(feature = "runtime")]
pub use build::{ExecRequest, Request, build, build_exec, keyring, limits};
#[cfg(feature = "runtime")]
pub use handle::{Init, Killed, wait_until_executed};
pub use main::main;
#[cfg(feature = "runtime")]
pub use spawn::Seed;
