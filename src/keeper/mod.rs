//! The keeper of one instance: it holds the restart guarantee, without any daemon.
//!
//! One small process for each instance, the parent of the init of its container, or of each one of a group of
//! containers that live and die together. [`policy`] decides, pure;
//! everything else here looks, acts and tells the policy what has happened. Containers are made and
//! removed by the recipes of [`crate::lifecycle`], which know nothing of keepers.
//!
//! To read it in order: `spec -> orders -> run -> policy -> helper`.

mod apart;
pub mod client;
pub mod clock;
mod control;
mod copied;
pub mod door;
mod exit;
mod helper;
mod logs;
mod orders;
pub mod policy;
mod run;
pub mod spec;
pub mod status;
mod written;

pub use apart::{Apart, apart};
pub use client::Now;
pub use control::{Connection, Request};
pub use helper::KEEPER;
pub use logs::{FOLDER, STREAMS, place};
pub use orders::{Begin, Ground, KeepRequest, Orders};
pub use run::keep;
