//! The trees that say where the blocks of each volume are.
//!
//! The tree at the superblock's mapping root has, by the volume's id, the block that the volume's own tree begins at; that one
//! has, by the block in the volume, the data block in the upper 40 bits of 64 and a time in the others (`pack_block_time`,
//! drivers/md/dm-thin-metadata.c). A block that is not there was never written.

use std::collections::BTreeMap;

use super::node::{BadTree, Leaves, Node, last_key};
use crate::metadata::Superblock;
use crate::units::{DataBlock, DataBlocks, MetaBlock, ThinBlock};

/// Bytes in a value of either tree.
const VALUE: usize = 8;
/// Bits of the time.
const TIME: u32 = 24;

/// Blocks of a volume that lie one behind the other in the data, too, and have one time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// The first of them in the volume.
    pub begin: ThinBlock,
    /// The first of them in the data.
    pub data: DataBlock,
    /// How many.
    pub length: DataBlocks,
    /// The pool's time when they were given to a volume, in its lower 24 bits.
    pub time: u32,
}

/// Returns where the tree of each volume begins, by its id. `read` returns the 4096 bytes of a block.
///
/// # Errors
/// When a block cannot be read or is no node of the tree.
pub fn roots(
    superblock: &Superblock,
    read: impl FnMut(MetaBlock) -> Result<Vec<u8>, String>,
) -> Result<BTreeMap<u64, MetaBlock>, BadTree> {
    let mut found = BTreeMap::new();
    for leaf in Leaves::of(superblock.mapping_root, VALUE, superblock.metadata_total, read) {
        let leaf = leaf?;
        for entry in 0..leaf.entries {
            let root = leaf.value(entry, 0)?;
            if root >= superblock.metadata_total.get() {
                return Err(BadTree::Node(leaf.at, "a volume's tree would begin beyond the end"));
            }
            found.insert(leaf.key(entry)?, MetaBlock::new(root));
        }
    }
    Ok(found)
}

/// Returns what the volume maps whose tree begins there, in the order of its blocks. It ends at the first block that cannot be
/// read or is no node of the tree.
pub fn runs(
    superblock: &Superblock,
    root: MetaBlock,
    read: impl FnMut(MetaBlock) -> Result<Vec<u8>, String>,
) -> impl Iterator<Item = Result<Run, BadTree>> {
    let total = superblock.data_total.get();
    Leaves::of(root, VALUE, superblock.metadata_total, read).flat_map(move |leaf| match leaf {
        Ok(leaf) => joined(&leaf, total),
        Err(bad) => vec![Err(bad)],
    })
}

/// Returns of every volume, by its id, how many blocks there are up to the last one that it maps. `read` as for [`roots`].
///
/// # Errors
/// As [`roots`], of the trees of all volumes.
pub fn ends(
    superblock: &Superblock,
    mut read: impl FnMut(MetaBlock) -> Result<Vec<u8>, String>,
) -> Result<BTreeMap<u64, DataBlocks>, BadTree> {
    let mut found = BTreeMap::new();
    for (id, root) in roots(superblock, &mut read)? {
        let last = last_key(root, VALUE, superblock.metadata_total, &mut read)?;
        found.insert(id, DataBlocks::new(last.map_or(0, |last| last.saturating_add(1))));
    }
    Ok(found)
}

fn joined(leaf: &Node, total: u64) -> Vec<Result<Run, BadTree>> {
    let mut found: Vec<Run> = Vec::new();
    let mut take = |entry: usize| -> Result<(), BadTree> {
        let (key, value) = (leaf.key(entry)?, leaf.value(entry, 0)?);
        let data = value >> TIME;
        // 24 bits always fit.
        let at = u32::try_from(value & ((1 << TIME) - 1)).unwrap_or(u32::MAX);
        if data >= total {
            return Err(BadTree::Node(leaf.at, "it leads beyond the data"));
        }
        match found.last_mut() {
            Some(Run { begin, data: first, length, time })
                if *time == at
                    && key.checked_sub(begin.get()) == Some(length.get())
                    && data.checked_sub(first.get()) == Some(length.get()) =>
            {
                *length = DataBlocks::new(length.get() + 1);
            }
            _ => found.push(Run {
                begin: ThinBlock::new(key),
                data: DataBlock::new(data),
                length: DataBlocks::new(1),
                time: at,
            }),
        }
        Ok(())
    };
    let bad = (0..leaf.entries).find_map(|entry| take(entry).err());
    found.into_iter().map(Ok).chain(bad.map(Err)).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::metadata::node::tests::{Blocks, branch, leaf, read};
    use crate::metadata::superblock::tests::with_roots;

    fn mapped(at: u64, entries: &[(u64, u64)]) -> (u64, Vec<u8>) {
        let entries: Vec<_> = entries.iter().map(|(key, data)| (*key, vec![data << 24 | 77])).collect();
        leaf(at, 1, &entries)
    }

    fn found(tree: &Blocks) -> Vec<Result<(u64, u64, u64), String>> {
        let plain = |run: Run| (run.begin.get(), run.data.get(), run.length.get());
        runs(&with_roots(0, 0), MetaBlock::new(6), read(tree))
            .map(|run| run.map(plain).map_err(|bad| bad.to_string()))
            .collect()
    }

    #[test]
    fn blocks_in_a_row_are_one_run() {
        let tree =
            [branch(6, &[(0, 7), (8, 8)]), mapped(7, &[(0, 5), (1, 6), (2, 8), (4, 9)]), mapped(8, &[(8, 1), (9, 0)])];
        assert_eq!(found(&tree.into()), [Ok((0, 5, 2)), Ok((2, 8, 1)), Ok((4, 9, 1)), Ok((8, 1, 1)), Ok((9, 0, 1))],);
        assert_eq!(found(&[mapped(6, &[])].into()), []);
    }

    #[test]
    fn blocks_of_another_time_are_another_run() {
        let entries: Vec<_> = [(0, 7), (1, 7), (2, 8)].map(|(at, time)| (at, vec![(5 + at) << 24 | time])).into();
        let tree: Blocks = [leaf(6, 1, &entries)].into();
        let found: Vec<_> = runs(&with_roots(0, 0), MetaBlock::new(6), read(&tree)).map(Result::unwrap).collect();
        let plain = |run: &Run| (run.begin.get(), run.data.get(), run.length.get(), run.time);
        assert_eq!(found.iter().map(plain).collect::<Vec<_>>(), [(0, 5, 2, 7), (2, 7, 1, 8)]);
    }

    #[test]
    fn what_is_before_the_damage_is_read() {
        let tree = [branch(6, &[(0, 7), (8, 8)]), mapped(7, &[(0, 16_384)]), mapped(8, &[(8, 1)])];
        let why = "metadata block 7 is no node of its tree: it leads beyond the data".to_owned();
        // What is whole behind it is whole.
        assert_eq!(found(&tree.into()), [Err(why), Ok((8, 1, 1))]);
        let tree = [branch(6, &[(0, 7), (8, 9)]), mapped(7, &[(0, 1)])];
        assert_eq!(found(&tree.into()), [Ok((0, 1, 1)), Err("metadata block 9 cannot be read: EIO".to_owned())]);
    }

    #[test]
    fn each_volume_has_its_tree() {
        let tree: Blocks = [leaf(5, 1, &[(1, vec![6]), (9, vec![7])])].into();
        let found = roots(&with_roots(0, 5), read(&tree)).unwrap();
        assert_eq!(found, [(1, MetaBlock::new(6)), (9, MetaBlock::new(7))].into());
        let tree: Blocks = [leaf(5, 1, &[(1, vec![64])])].into();
        assert!(roots(&with_roots(0, 5), read(&tree)).unwrap_err().to_string().contains("beyond the end"));
    }

    #[test]
    fn a_volume_ends_behind_its_last_block() {
        let tree: Blocks = [
            leaf(5, 1, &[(1, vec![6]), (2, vec![7]), (9, vec![8])]),
            mapped(6, &[]),
            mapped(7, &[(0, 1), (3, 2)]),
            branch(8, &[(0, 7), (40, 9)]),
            mapped(9, &[(40, 3), (99, 4)]),
        ]
        .into();
        let found = |tree: &Blocks| ends(&with_roots(0, 5), read(tree));
        let plain: Vec<_> = found(&tree).unwrap().into_iter().map(|(id, end)| (id, end.get())).collect();
        assert_eq!(plain, [(1, 0), (2, 4), (9, 100)]);
        for (block, why) in [
            (leaf(9, 3, &[]), "of another tree"),
            (branch(9, &[(0, 9)]), "too deep"),
            (branch(9, &[(0, 64)]), "beyond the end"),
            (mapped(7, &[(4, 1)]), "belongs elsewhere"),
        ] {
            let mut tree = tree.clone();
            tree.insert(9, block.1);
            let said = found(&tree).unwrap_err().to_string();
            assert!(said.contains(why), "{why}: {said}");
        }
    }
}
