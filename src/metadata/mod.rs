//! The on-disk format of a thin pool's metadata, read from bytes.

pub(crate) mod superblock;

pub use superblock::{BLOCK, BadSuperblock, SpaceMap, Superblock};
