//! The B+tree that a pool's metadata is made of, read leaf by leaf.
//!
//! A node (`struct disk_btree_node`, drivers/md/persistent-data/dm-btree-internal.h), little endian, one 4096-byte block:
//! checksum at 0, flags at 4 (1 internal, 2 leaf), its own block number at 8, entries at 16, room for entries at 20, value
//! size at 24, keys from 32, values behind the room for the keys.

use std::fmt;

use super::superblock::salted;
use crate::metadata::BLOCK;
use crate::units::{MetaBlock, MetaBlocks};

/// `BTREE_CSUM_XOR`
pub(crate) const CHECKSUM_SALT: u32 = 121_107;

const INTERNAL: u32 = 1;
const LEAF: u32 = 2;

/// Where keys begin.
const HEADER: usize = 32;

/// More levels than a tree has whose nodes are a third full, with as many keys as a volume has blocks.
const DEPTH: usize = 8;

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
            Self::Node(block, why) => write!(f, "metadata block {} is no node of its tree: {why}", block.get()),
        }
    }
}

impl std::error::Error for BadTree {}

/// The leaves of a tree, in the order of their keys. It ends at the first node that cannot be read.
pub(super) struct Leaves<R> {
    read: R,
    total: MetaBlocks,
    /// How many nodes more there can be.
    left: u64,
    value_size: usize,
    /// No key is smaller than this.
    next: Option<u64>,
    /// Nodes that are still to be read, the next one last, each with how many levels there can be below it.
    waiting: Vec<(MetaBlock, usize)>,
}

impl<R: FnMut(MetaBlock) -> Result<Vec<u8>, String>> Leaves<R> {
    /// `read` returns the 4096 bytes of a block.
    pub(super) fn of(root: MetaBlock, value_size: usize, total: MetaBlocks, read: R) -> Self {
        Self { read, total, left: total.get(), value_size, next: Some(0), waiting: vec![(root, DEPTH)] }
    }

    fn node(&mut self, at: MetaBlock, depth: usize) -> Result<Option<Node>, BadTree> {
        let bad = |why| BadTree::Node(at, why);
        // No tree has more nodes than there are blocks: one that seems to leads back into itself.
        self.left = self.left.checked_sub(1).ok_or(bad("it leads back to itself"))?;
        if at.get() >= self.total.get() {
            return Err(bad("it is beyond the end"));
        }
        let block = (self.read)(at).map_err(|why| BadTree::Read(at, why))?;
        let node = Node::parse(block, at)?;
        if node.is_leaf {
            if node.value_size != self.value_size {
                return Err(bad("its values are of another tree"));
            }
            for entry in 0..node.entries {
                let key = node.key(entry)?;
                if self.next.is_none_or(|next| key < next) {
                    return Err(bad("its keys are not in order"));
                }
                self.next = key.checked_add(1);
            }
            return Ok(Some(node));
        }
        let depth = depth.checked_sub(1).ok_or(bad("it is too deep"))?;
        for entry in (0..node.entries).rev() {
            self.waiting.push((MetaBlock::new(node.value(entry, 0)?), depth));
        }
        Ok(None)
    }
}

impl<R: FnMut(MetaBlock) -> Result<Vec<u8>, String>> Iterator for Leaves<R> {
    type Item = Result<Node, BadTree>;

    fn next(&mut self) -> Option<Self::Item> {
        while let Some((at, depth)) = self.waiting.pop() {
            match self.node(at, depth) {
                Ok(None) => {}
                Ok(Some(leaf)) => return Some(Ok(leaf)),
                Err(bad) => {
                    self.waiting.clear();
                    return Some(Err(bad));
                }
            }
        }
        None
    }
}

/// Returns the last key of a tree, which is `None` when it has none. `read` returns the 4096 bytes of a block.
///
/// # Errors
/// When a block on the way to it cannot be read or is no node of the tree.
pub(super) fn last_key(
    root: MetaBlock,
    value_size: usize,
    total: MetaBlocks,
    mut read: impl FnMut(MetaBlock) -> Result<Vec<u8>, String>,
) -> Result<Option<u64>, BadTree> {
    let mut at = root;
    for _ in 0..=DEPTH {
        if at.get() >= total.get() {
            return Err(BadTree::Node(at, "it is beyond the end"));
        }
        let node = Node::parse(read(at).map_err(|why| BadTree::Read(at, why))?, at)?;
        let last = node.entries.checked_sub(1);
        if node.is_leaf {
            if node.value_size != value_size {
                return Err(BadTree::Node(at, "its values are of another tree"));
            }
            return last.map(|entry| node.key(entry)).transpose();
        }
        let Some(entry) = last else { return Ok(None) };
        at = MetaBlock::new(node.value(entry, 0)?);
    }
    Err(BadTree::Node(at, "it is too deep"))
}

/// One node.
pub(super) struct Node {
    pub(super) at: MetaBlock,
    block: Vec<u8>,
    is_leaf: bool,
    pub(super) entries: usize,
    room: usize,
    value_size: usize,
}

impl Node {
    fn parse(block: Vec<u8>, at: MetaBlock) -> Result<Self, BadTree> {
        let bad = |why| BadTree::Node(at, why);
        if block.len() != BLOCK {
            return Err(bad("it is too short"));
        }
        let half = |offset: usize| -> Result<u32, BadTree> {
            let bytes = block.get(offset..offset + 4).and_then(|b| b.try_into().ok());
            bytes.map(u32::from_le_bytes).ok_or(bad("it is too short"))
        };
        let count = |offset| half(offset).and_then(|n| usize::try_from(n).map_err(|_| bad("it counts too much")));
        if half(0)? != salted(&block, CHECKSUM_SALT) {
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
        let fits =
            node.stride().checked_add(8).and_then(|e| e.checked_mul(room)).is_some_and(|all| all <= BLOCK - HEADER);
        if entries > room || !fits {
            return Err(bad("it counts more than it holds"));
        }
        Ok(node)
    }

    /// A branch has the numbers of blocks, whatever the leaves have.
    const fn stride(&self) -> usize {
        if self.is_leaf { self.value_size } else { 8 }
    }

    fn word(&self, offset: usize) -> Result<u64, BadTree> {
        let bytes = self.block.get(offset..offset + 8).and_then(|b| b.try_into().ok());
        bytes.map(u64::from_le_bytes).ok_or(BadTree::Node(self.at, "it counts more than it holds"))
    }

    /// Returns an entry's key.
    pub(super) fn key(&self, entry: usize) -> Result<u64, BadTree> {
        self.word(HEADER + entry * 8)
    }

    /// Returns eight bytes of an entry's value, from such an offset on.
    pub(super) fn value(&self, entry: usize, offset: usize) -> Result<u64, BadTree> {
        self.word(HEADER + self.room * 8 + entry * self.stride() + offset)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
pub(super) mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// Blocks by their numbers.
    pub(in crate::metadata) type Blocks = BTreeMap<u64, Vec<u8>>;

    /// A node at that block: flags, room, value size, then keys with their values.
    fn node(at: u64, flags: u32, room: usize, value_size: u32, entries: &[(u64, Vec<u64>)]) -> (u64, Vec<u8>) {
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
        (at, sealed(b))
    }

    pub(in crate::metadata) fn branch(at: u64, entries: &[(u64, u64)]) -> (u64, Vec<u8>) {
        let entries: Vec<_> = entries.iter().map(|(key, child)| (*key, vec![*child])).collect();
        node(at, INTERNAL, 252, 8, &entries)
    }

    /// A leaf whose values have so many words.
    pub(in crate::metadata) fn leaf(at: u64, words: u32, entries: &[(u64, Vec<u64>)]) -> (u64, Vec<u8>) {
        node(at, LEAF, if words == 3 { 126 } else { 252 }, words * 8, entries)
    }

    fn sealed(mut block: Vec<u8>) -> Vec<u8> {
        let sum = salted(&block, CHECKSUM_SALT);
        block[..4].copy_from_slice(&sum.to_le_bytes());
        block
    }

    pub(in crate::metadata) fn read(blocks: &Blocks) -> impl FnMut(MetaBlock) -> Result<Vec<u8>, String> {
        |at| blocks.get(&at.get()).cloned().ok_or_else(|| "EIO".to_owned())
    }

    fn small(at: u64, keys: &[u64]) -> (u64, Vec<u8>) {
        let entries: Vec<_> = keys.iter().map(|key| (*key, vec![key * 10])).collect();
        leaf(at, 1, &entries)
    }

    fn tree() -> Blocks {
        [branch(5, &[(0, 6), (4, 7)]), small(6, &[1, 3]), small(7, &[4, 9])].into()
    }

    fn keys(tree: &Blocks) -> Result<Vec<u64>, BadTree> {
        let mut found = Vec::new();
        for leaf in Leaves::of(MetaBlock::new(5), 8, MetaBlocks::new(64), read(tree)) {
            let leaf = leaf?;
            for entry in 0..leaf.entries {
                assert_eq!(leaf.value(entry, 0)?, leaf.key(entry)? * 10);
                found.push(leaf.key(entry)?);
            }
        }
        Ok(found)
    }

    #[test]
    fn every_leaf_is_read_in_order() {
        assert_eq!(keys(&tree()), Ok(vec![1, 3, 4, 9]));
        assert_eq!(keys(&[small(5, &[])].into()), Ok(vec![]));
    }

    #[test]
    fn damage_is_named() {
        let with = |at: u64, block: Option<(u64, Vec<u8>)>| {
            let mut tree = tree();
            tree.remove(&at);
            tree.extend(block.map(|(_, block)| (at, block)));
            keys(&tree).unwrap_err().to_string()
        };
        let mut torn = small(7, &[4]);
        torn.1[100] ^= 1;
        for (block, why) in [
            (None, "cannot be read: EIO"),
            (Some(torn), "checksum is wrong"),
            (Some(small(6, &[4])), "belongs elsewhere"),
            (Some(node(7, 3, 252, 8, &[])), "neither leaf nor branch"),
            (Some(leaf(7, 3, &[])), "of another tree"),
            (Some(small(7, &[2])), "not in order"),
            (Some(node(7, LEAF, 300, 8, &[])), "more than it holds"),
            (Some(branch(7, &[(0, 7)])), "too deep"),
            (Some(branch(7, &[(0, 64)])), "beyond the end"),
        ] {
            let said = with(7, block);
            assert!(said.contains(why), "{why}: {said}");
        }
        let wide: Vec<_> = (0..70).map(|key| (key, 6)).collect();
        assert!(with(5, Some(branch(5, &wide))).contains("not in order"));
        let empty = [branch(5, &wide), small(6, &[])].into();
        assert!(keys(&empty).unwrap_err().to_string().contains("back to itself"));
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
            for leaf in Leaves::of(MetaBlock::new(5), 8, MetaBlocks::new(64), read(&tree)).flatten() {
                for entry in 0..leaf.entries {
                    let _ = (leaf.key(entry), leaf.value(entry, 0));
                }
            }
        }
    }
}
