//! What the volumes of a pool hold: read from its metadata, or from what was written down of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::Path;

use anyhow::Result;

use super::fill::Mark;
use super::source::{Metadata, Source};
use super::spans::Extent;
use crate::pool::VolumeId;
use crate::units::{BlockSize, Bytes, MetaBlock};

/// Extents of one volume, in their order.
pub(super) type Extents<'h> = Box<dyn Iterator<Item = Result<Extent>> + 'h>;

/// What volumes hold. Where a volume has no extent it holds zeros.
pub(super) trait Holds {
    /// Returns what a volume holds; nothing of one that is not there.
    fn extents(&self, id: VolumeId) -> Result<Extents<'_>>;

    /// Returns how many bytes there are up to the end of its last extent.
    fn end(&self, id: VolumeId) -> u64;
}

/// What a pool's metadata says.
pub(super) struct Mapped<'m> {
    metadata: &'m Metadata,
    roots: BTreeMap<u64, MetaBlock>,
    ends: BTreeMap<u64, u64>,
}

impl<'m> Mapped<'m> {
    pub(super) fn of(metadata: &'m Metadata) -> Result<Self> {
        Ok(Self { metadata, roots: metadata.roots()?, ends: metadata.ends()? })
    }
}

impl Holds for Mapped<'_> {
    fn extents(&self, id: VolumeId) -> Result<Extents<'_>> {
        let root = self.roots.get(&u64::from(id.get())).copied();
        Ok(Box::new(self.metadata.extents(root).map(|extent| Ok(extent?))))
    }

    fn end(&self, id: VolumeId) -> u64 {
        self.ends.get(&u64::from(id.get())).copied().unwrap_or_default()
    }
}

/// What the new pool's volumes hold before they are filled.
pub(super) struct Before<'a> {
    /// What each of them holds, exactly.
    pub holds: &'a dyn Holds,
    /// Those that stay and are changed. All others are made anew.
    pub kept: BTreeSet<VolumeId>,
    /// What the new pool's transaction id says as long as that is so.
    pub mark: Mark,
}

/// What volumes are filled from, and what they shall hold.
pub(super) struct Carry<'a> {
    /// The old pool's data.
    pub data: &'a File,
    /// The length of its blocks.
    pub block: BlockSize,
    /// What they shall hold.
    pub now: &'a dyn Holds,
    /// What they hold already; nothing when all are made anew.
    pub before: Option<Before<'a>>,
    /// What the new pool's transaction id shall say of it.
    pub seal: u32,
    /// How much the file system at that place keeps free meanwhile.
    pub keeps: Option<(&'a Path, Bytes)>,
}

impl<'a> Carry<'a> {
    /// All that a pool holds into an empty one.
    pub(super) fn all(source: &'a Source, now: &'a dyn Holds) -> Self {
        let block = source.metadata.superblock.block_size;
        Self { data: &source.data, block, now, before: None, seal: source.metadata.seal, keeps: None }
    }

    /// Returns what a volume holds that stays.
    pub(super) fn kept(&self, id: VolumeId) -> Option<&Before<'a>> {
        self.before.as_ref().filter(|before| before.kept.contains(&id))
    }
}
