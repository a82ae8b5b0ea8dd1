//! The tree that has the details of each volume: which ids a pool has, and how much each maps.
//!
//! A B+tree node (`struct disk_btree_node`, drivers/md/persistent-data/dm-btree-internal.h), little endian, one 4096-byte
//! block: checksum at 0, flags at 4 (1 internal, 2 leaf), its own block number at 8, entries at 16, room for entries at
//! 20, value size at 24, keys from 32, values behind the room for the keys. A leaf's value here is `struct
//! disk_device_details` (drivers/md/dm-thin-metadata.c): mapped blocks, transaction id, creation and snapshot time.

use std::collections::BTreeMap;
use std::fmt;

use super::superblock::salted;
use crate::metadata::{BLOCK, Superblock};
use crate::units::{DataBlocks, MetaBlock};

/// `BTREE_CSUM_XOR`
pub(crate) const CHECKSUM_SALT: u32 = 121_107;

const LEAF: u32 = 2;
const INTERNAL: u32 = 1;

/// Where keys begin.
const HEADER: usize = 32;

/// Bytes in the details of one volume.
const DETAILS: usize = 24;

/// More levels than a tree of 2^24 ids has.
const DEPTH: usize = 8;

/// What the metadata says of one volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Details {
    /// How many blocks it maps, shared ones too.
    pub mapped: DataBlocks,
    /// The pool's transaction id when it was made.
    pub transaction_id: u64,
}

/// Why a tree cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BadTree {
    /// A block could not be read, and why.
    Read(MetaBlock, String),
    /// A block is no node of this tree, and why.
    Node(MetaBlock, &'static str),
}

impl fmt::Display for BadTree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(block, why) => write!(f, "metadata block {} cannot be read: {why}", block.get()),
            Self::Node(block, why) => {
                write!(f, "metadata block {} is no node of the tree of volumes: {why}", block.get())
            }
        }
    }
}

impl std::error::Error for BadTree {}

/// Returns the details of every volume, by its id. `read` returns the 4096 bytes of a block.
///
/// # Errors
/// When a block cannot be read or is no node of the tree.
pub fn devices(
    superblock: &Superblock,
    mut read: impl FnMut(MetaBlock) -> Result<Vec<u8>, String>,
) -> Result<BTreeMap<u64, Details>, BadTree> {
    let mut found = BTreeMap::new();
    let mut left = superblock.metadata_total.get();
    let mut waiting = vec![(superblock.details_root, DEPTH)];
    while let Some((at, depth)) = waiting.pop() {
        let bad = |why| BadTree::Node(at, why);
        // No tree has more nodes than there are blocks: one that seems to leads back into itself.
        left = left.checked_sub(1).ok_or(bad("it leads back to itself"))?;
        if at.get() >= superblock.metadata_total.get() {
            return Err(bad("it is beyond the end"));
        }
        let block = read(at).map_err(|why| BadTree::Read(at, why))?;
        let node = Node::parse(&block, at)?;
        if node.is_leaf {
            if node.value_size != DETAILS {
                return Err(bad("its values are no details"));
            }
            for entry in 0..node.entries {
                found.insert(node.key(entry)?, node.details(entry)?);
            }
            continue;
        }
        let depth = depth.checked_sub(1).ok_or(bad("it is too deep"))?;
        for entry in 0..node.entries {
            waiting.push((MetaBlock::new(node.word(node.values() + entry * 8)?), depth));
        }
    }
    Ok(found)
}

/// One node.
struct Node<'b> {
    at: MetaBlock,
    block: &'b [u8],
    is_leaf: bool,
    entries: usize,
    room: usize,
    value_size: usize,
}

impl<'b> Node<'b> {
    fn parse(block: &'b [u8], at: MetaBlock) -> Result<Self, BadTree> {
        let bad = |why| BadTree::Node(at, why);
        let block = block.get(..BLOCK).ok_or(bad("it is too short"))?;
        let half = |offset: usize| -> Result<u32, BadTree> {
            let bytes = block.get(offset..offset + 4).and_then(|b| b.try_into().ok());
            bytes.map(u32::from_le_bytes).ok_or(bad("it is too short"))
        };
        let count = |offset| half(offset).and_then(|n| usize::try_from(n).map_err(|_| bad("it counts too much")));
        if half(0)? != salted(block, CHECKSUM_SALT) {
            return Err(bad("its checksum is wrong"));
        }
        let flags = half(4)?;
        let (entries, room, value_size) = (count(16)?, count(20)?, count(24)?);
        let node = Self { at, block, is_leaf: flags == LEAF, entries, room, value_size };
        if !matches!(flags, LEAF | INTERNAL) {
            return Err(bad("it is neither leaf nor branch"));
        }
        if node.word(8)? != at.get() {
            return Err(bad("it belongs elsewhere"));
        }
        let value = if node.is_leaf { value_size } else { 8 };
        let fits = value.checked_add(8).and_then(|e| e.checked_mul(room)).is_some_and(|all| all <= BLOCK - HEADER);
        if entries > room || !fits {
            return Err(bad("it counts more than it holds"));
        }
        Ok(node)
    }

    const fn values(&self) -> usize {
        HEADER + self.room * 8
    }

    fn word(&self, offset: usize) -> Result<u64, BadTree> {
        let bytes = self.block.get(offset..offset + 8).and_then(|b| b.try_into().ok());
        bytes.map(u64::from_le_bytes).ok_or(BadTree::Node(self.at, "it counts more than it holds"))
    }

    fn key(&self, entry: usize) -> Result<u64, BadTree> {
        self.word(HEADER + entry * 8)
    }

    fn details(&self, entry: usize) -> Result<Details, BadTree> {
        let at = self.values() + entry * DETAILS;
        Ok(Details { mapped: DataBlocks::new(self.word(at)?), transaction_id: self.word(at + 8)? })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::units::{BlockSize, MetaBlocks};

    fn superblock(details_root: u64) -> Superblock {
        Superblock {
            needs_check: false,
            version: 2,
            transaction_id: 1,
            held_root: None,
            block_size: BlockSize::DEFAULT,
            data_total: DataBlocks::new(16384),
            data_used: DataBlocks::new(0),
            metadata_total: MetaBlocks::new(64),
            metadata_used: MetaBlocks::new(8),
            details_root: MetaBlock::new(details_root),
        }
    }

    /// A node at that block: flags, room, value size, then keys with their values.
    fn node(at: u64, flags: u32, room: usize, value_size: u32, entries: &[(u64, Vec<u64>)]) -> Vec<u8> {
        let mut b = vec![0; BLOCK];
        b[4..8].copy_from_slice(&flags.to_le_bytes());
        b[8..16].copy_from_slice(&at.to_le_bytes());
        b[16..20].copy_from_slice(&u32::try_from(entries.len()).unwrap().to_le_bytes());
        b[20..24].copy_from_slice(&u32::try_from(room).unwrap().to_le_bytes());
        b[24..28].copy_from_slice(&value_size.to_le_bytes());
        let mut values = HEADER + room * 8;
        for (entry, (key, words)) in entries.iter().enumerate() {
            b[HEADER + entry * 8..HEADER + entry * 8 + 8].copy_from_slice(&key.to_le_bytes());
            for word in words {
                b[values..values + 8].copy_from_slice(&word.to_le_bytes());
                values += 8;
            }
        }
        sealed(b)
    }

    fn sealed(mut block: Vec<u8>) -> Vec<u8> {
        let sum = salted(&block, CHECKSUM_SALT);
        block[..4].copy_from_slice(&sum.to_le_bytes());
        block
    }

    fn leaf(at: u64, ids: &[u64]) -> Vec<u8> {
        let entries: Vec<_> = ids.iter().map(|id| (*id, vec![id * 10, 7, 0])).collect();
        node(at, LEAF, 126, 24, &entries)
    }

    fn tree() -> BTreeMap<u64, Vec<u8>> {
        let root = node(5, INTERNAL, 252, 8, &[(0, vec![6]), (4, vec![7])]);
        [(5, root), (6, leaf(6, &[1, 3])), (7, leaf(7, &[4, 9]))].into()
    }

    fn read(tree: &BTreeMap<u64, Vec<u8>>) -> Result<BTreeMap<u64, Details>, BadTree> {
        devices(&superblock(5), |at| tree.get(&at.get()).cloned().ok_or_else(|| "EIO".to_owned()))
    }

    #[test]
    fn every_leaf_is_read() {
        let found = read(&tree()).unwrap();
        assert_eq!(found.keys().copied().collect::<Vec<_>>(), [1, 3, 4, 9]);
        assert_eq!(found[&9], Details { mapped: DataBlocks::new(90), transaction_id: 7 });
        let empty = [(5, leaf(5, &[]))].into();
        assert_eq!(read(&empty), Ok(BTreeMap::new()));
    }

    #[test]
    fn damage_is_named() {
        let with = |at: u64, block: Option<Vec<u8>>| {
            let mut tree = tree();
            tree.remove(&at);
            tree.extend(block.map(|block| (at, block)));
            read(&tree).unwrap_err().to_string()
        };
        let mut torn = leaf(7, &[4]);
        torn[100] ^= 1;
        for (block, why) in [
            (None, "cannot be read: EIO"),
            (Some(torn), "checksum is wrong"),
            (Some(leaf(6, &[4])), "belongs elsewhere"),
            (Some(node(7, 3, 126, 24, &[])), "neither leaf nor branch"),
            (Some(node(7, LEAF, 126, 8, &[])), "no details"),
            (Some(node(7, LEAF, 200, 24, &[])), "more than it holds"),
            (Some(node(7, INTERNAL, 252, 8, &[(0, vec![7])])), "too deep"),
            (Some(node(7, INTERNAL, 252, 8, &[(0, vec![64])])), "beyond the end"),
        ] {
            let said = with(7, block);
            assert!(said.contains(why), "{why}: {said}");
        }
        let wide: Vec<_> = (0..70).map(|key| (key, vec![6])).collect();
        assert!(with(5, Some(node(5, INTERNAL, 252, 8, &wide))).contains("back to itself"));
    }

    proptest! {
        #[test]
        fn any_bytes_give_an_answer(at in 0_usize..BLOCK, byte in any::<u8>(), block in 5_u64..8, seal in any::<bool>()) {
            let mut tree = tree();
            let bytes = tree.get_mut(&block).unwrap();
            bytes[at] = byte;
            if seal {
                *bytes = sealed(std::mem::take(bytes));
            }
            let _ = read(&tree);
        }
    }
}
