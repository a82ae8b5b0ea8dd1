//! The on-disk format of a thin pool's metadata, read from bytes.

pub(crate) mod details;
pub(crate) mod superblock;

pub use details::{BadTree, Details, devices};
pub use superblock::{BLOCK, BadSuperblock, SpaceMap, Superblock};
