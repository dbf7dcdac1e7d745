//! What the tests of this folder have in common.

use super::{CgroupsMode, ImagesRequest};
use crate::criu::{Flag, Options};

/// Options of which one flag is set.
pub fn only(flag: Flag) -> Options {
    let mut options = Options::default();
    options.flag(flag, true);
    options
}

/// A request that asks for nothing but images.
pub fn request() -> ImagesRequest {
    ImagesRequest {
        criu: None,
        images: "/images".into(),
        work: None,
        tcp_established: false,
        external_unix_sockets: false,
        shell_job: false,
        file_locks: false,
        auto_dedup: false,
        lazy_pages: false,
        cgroups: CgroupsMode::Soft,
    }
}
