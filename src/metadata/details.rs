//! The tree that has the details of each volume: which ids a pool has, and how much each maps.
//!
//! A value is a `struct disk_device_details` (drivers/md/dm-thin-metadata.c): mapped blocks, transaction id, creation and
//! snapshot time.

use std::collections::BTreeMap;

use super::node::{BadTree, Leaves};
use crate::metadata::Superblock;
use crate::units::{DataBlocks, MetaBlock};

/// Bytes in the details of one volume.
const DETAILS: usize = 24;

/// What the metadata says of one volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Details {
    /// How many blocks it maps, shared ones too.
    pub mapped: DataBlocks,
    /// The pool's transaction id when it was made.
    pub transaction_id: u64,
}

/// Returns the details of every volume, by its id. `read` returns the 4096 bytes of a block.
///
/// # Errors
/// When a block cannot be read or is no node of the tree.
pub fn devices(
    superblock: &Superblock,
    read: impl FnMut(MetaBlock) -> Result<Vec<u8>, String>,
) -> Result<BTreeMap<u64, Details>, BadTree> {
    let mut found = BTreeMap::new();
    for leaf in Leaves::of(superblock.details_root, DETAILS, superblock.metadata_total, read) {
        let leaf = leaf?;
        for entry in 0..leaf.entries {
            let mapped = DataBlocks::new(leaf.value(entry, 0)?);
            found.insert(leaf.key(entry)?, Details { mapped, transaction_id: leaf.value(entry, 8)? });
        }
    }
    Ok(found)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use super::*;
    use crate::metadata::node::tests::{branch, leaf, read};
    use crate::metadata::superblock::tests::with_roots;

    #[test]
    fn every_volume_is_found() {
        let details = |ids: &[u64]| -> Vec<_> { ids.iter().map(|id| (*id, vec![id * 10, 7, 0])).collect() };
        let tree = [branch(5, &[(0, 6), (4, 7)]), leaf(6, 3, &details(&[1, 3])), leaf(7, 3, &details(&[4, 9]))].into();
        let found = devices(&with_roots(5, 0), read(&tree)).unwrap();
        assert_eq!(found.keys().copied().collect::<Vec<_>>(), [1, 3, 4, 9]);
        assert_eq!(found[&9], Details { mapped: DataBlocks::new(90), transaction_id: 7 });
        assert!(devices(&with_roots(8, 0), read(&tree)).is_err());
    }
}
