//! The keeper of one instance: it holds the restart guarantee, without any daemon.
//!
//! One small process for each instance, the parent of the container's init. [`policy`] decides, pure;
//! everything else here looks, acts and tells the policy what has happened. Containers are made and
//! removed by the recipes of [`crate::lifecycle`], which know nothing of keepers.

pub mod policy;
