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

/// When a volume was made and when a snapshot was made of it last, in the pool's time, which each snapshot moves on by one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// The pool's transaction id when it was made.
    pub transaction_id: u64,
    /// The pool's time then.
    pub created: u32,
    /// The pool's time when it was made as a snapshot, or one was made of it last: what it maps with an earlier time it shares, and the
    /// kernel writes such a block to another place (`__snapshotted_since`, drivers/md/dm-thin-metadata.c).
    pub snapshotted: u32,
}

/// Returns the times of every volume, by its id; as [`devices`].
///
/// # Errors
/// As [`devices`].
pub fn times(
    superblock: &Superblock,
    read: impl FnMut(MetaBlock) -> Result<Vec<u8>, String>,
) -> Result<BTreeMap<u64, Times>, BadTree> {
    let mut found = BTreeMap::new();
    for leaf in Leaves::of(superblock.details_root, DETAILS, superblock.metadata_total, read) {
        let leaf = leaf?;
        for entry in 0..leaf.entries {
            let both = leaf.value(entry, 16)?;
            // Either half fits.
            let half = |bits: u64| u32::try_from(bits).unwrap_or_default();
            let (created, snapshotted) = (half(both & u64::from(u32::MAX)), half(both >> 32));
            let transaction_id = leaf.value(entry, 8)?;
            found.insert(leaf.key(entry)?, Times { transaction_id, created, snapshotted });
        }
    }
    Ok(found)
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

    #[test]
    fn a_volume_says_when_it_was_made_and_shared() {
        let tree = [leaf(5, 3, &[(4, vec![40, 7, 9 << 32 | 3])])].into();
        let found = times(&with_roots(5, 0), read(&tree)).unwrap();
        assert_eq!(found[&4], Times { transaction_id: 7, created: 3, snapshotted: 9 });
    }
}
