//! A pool as the registry keeps it: how it is put together, and nothing that the pool itself knows better.
//!
//! There is no size here: how large the pool is, its superblock says. So a machine that dies while a pool grows comes
//! up with the size the pool last had, and no file has to agree with another.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::pool::{PoolName, PoolUuid};
use crate::units::{BlockSize, DataBlocks};

/// The registry's format. A file with a higher number is refused.
pub const FORMAT: u32 = 1;

/// One file under `/etc/dmpool/pools`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// The format it is written in.
    pub format: u32,
    /// The pool's name; also the file's, with `.toml`.
    pub name: PoolName,
    /// The pool's identity.
    pub uuid: PoolUuid,
    /// What the pool does.
    pub pool: Behaviour,
    /// Where its metadata is kept.
    pub metadata: Store,
    /// Where its data is kept.
    pub data: Store,
}

/// What stands in the pool's table beside its devices and its length.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Behaviour {
    /// The length of a data block, in sectors.
    pub block_size: BlockSize,
    /// With this many blocks left the kernel sends one event.
    pub low_water: DataBlocks,
    /// The feature words of its table.
    pub features: Vec<String>,
}

/// Where one of a pool's two devices is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Store {
    /// The loop file.
    pub file: PathBuf,
    /// Whether it was given all its blocks when it was made, and is given them when it grows.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub preallocated: bool,
}
