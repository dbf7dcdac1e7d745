//! What the tests of this folder have in common.

use super::{CgroupsMode, ImagesRequest};

/// A request that asks for nothing but images.
pub fn request() -> ImagesRequest {
    ImagesRequest {
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
