//! The on-disk format of a thin pool's metadata, read from bytes.

mod details;
pub mod mapping;
pub(crate) mod node;
pub(crate) mod superblock;

pub use details::{Details, Times, devices, times};
pub use node::BadTree;
pub use superblock::{BLOCK, BadSuperblock, MAGIC, SpaceMap, Superblock};
