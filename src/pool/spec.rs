//! What a pool shall be, as `create` is asked for it.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::pool::PoolName;
use crate::units::{BlockSize, Bytes, DataBlocks};

/// A pool on two loop files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// Its name.
    pub name: PoolName,
    /// How large its data shall be.
    pub data_size: Bytes,
    /// How large its metadata shall be.
    pub metadata_size: Bytes,
    /// The length of a data block.
    pub block_size: BlockSize,
    /// With this many blocks left the kernel sends one event.
    pub low_water: DataBlocks,
    /// Whether a block is zeroed before a volume sees it (`skip_block_zeroing` when not).
    pub zero: bool,
    /// Whether writes to a full pool end with an error at once (`error_if_no_space`) instead of waiting.
    pub error_when_full: bool,
    /// Whether discards free blocks (`ignore_discard` when not).
    pub discard: bool,
    /// The directory in which the pool's own directory is made.
    pub directory: PathBuf,
    /// Whether the files get all their blocks now instead of being sparse.
    pub preallocate: bool,
}

impl Spec {
    /// Returns the table's feature words, in the order of the kernel's document.
    pub fn features(&self) -> Vec<String> {
        [
            (!self.zero, "skip_block_zeroing"),
            (!self.discard, "ignore_discard"),
            (self.error_when_full, "error_if_no_space"),
        ]
        .into_iter()
        .filter(|(wanted, _)| *wanted)
        .map(|(_, word)| word.to_owned())
        .collect()
    }

    /// Returns the directory that holds the pool's files and nothing else.
    pub fn own_directory(&self) -> PathBuf {
        self.directory.join(self.name.as_str())
    }

    /// Returns the loop file of the data.
    pub fn data_file(&self) -> PathBuf {
        self.own_directory().join("data")
    }

    /// Returns the loop file of the metadata.
    pub fn metadata_file(&self) -> PathBuf {
        self.own_directory().join("metadata")
    }
}
