//! The copy read back through the kernel, and compared with the old pool by its mapping.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};

use super::family::{Family, Member};
use super::fill::{Target, gather};
use super::source::{Metadata, Source};
use super::spans::{Differences, Either, PIECE, Whole, Work, Works};
use crate::kernel::aligned::{self, Aligned};
use crate::kernel::block;
use crate::metadata::BadTree;
use crate::ops::progress::{Progress, may_go_on};
use crate::ops::steps::Kit;
use crate::pool::VolumeId;
use crate::units::{Bytes, MetaBlock};

/// Both pools, and where the trees of their volumes begin.
struct Both<'s> {
    old: &'s Metadata,
    new: &'s Metadata,
    old_roots: BTreeMap<u64, MetaBlock>,
    new_roots: BTreeMap<u64, MetaBlock>,
}

impl Both<'_> {
    /// Returns what a volume must hold wherever it differs from the one that it is a snapshot of, in either pool. What both pools
    /// share with that one was compared with it.
    fn works(&self, member: &Member) -> Result<impl Iterator<Item = Result<Work, BadTree>> + use<'_>> {
        let ranges = |metadata: &'_ Metadata, roots: &BTreeMap<u64, MetaBlock>| {
            let root_of = |id: VolumeId| roots.get(&u64::from(id.get())).copied();
            (root_of(member.id), member.parent.and_then(root_of), metadata.superblock.block_size)
        };
        let (old, old_parent, block) = ranges(self.old, &self.old_roots);
        let (new, new_parent, _) = ranges(self.new, &self.new_roots);
        let in_old = Differences::of(self.old.extents(old), self.old.extents(old_parent))?;
        let in_new = Differences::of(self.new.extents(new), self.new.extents(new_parent))?;
        let block = block.bytes().get();
        Ok(Works::of(Whole::of(Either::of(in_old, in_new), block), self.old.extents(old), block)?)
    }
}

/// Compares every volume.
///
/// # Errors
/// When one is not the same, naming it and where; when one cannot be read; [`crate::ops::progress::Interrupted`].
pub fn compare(kit: &Kit, source: &Source, family: &Family, target: &Target) -> Result<()> {
    target.sweep(kit)?;
    let [metadata, _] = target.devices(kit)?;
    let new = Metadata::of(block::open_direct(metadata)?)?;
    let old = &source.metadata;
    ensure!(
        new.details()?.keys().eq(old.details()?.keys()),
        "`{}` does not have the same volumes as the old pool",
        target.pool
    );
    let both = Both { old, new: &new, old_roots: old.roots()?, new_roots: new.roots()? };
    let [old_ends, new_ends] = [old.ends()?, new.ends()?];
    let mut total = 0_u64;
    for member in &family.members {
        may_go_on()?;
        for work in both.works(member)? {
            total = total.saturating_add(length_of(&work?));
        }
    }
    let mut progress = Progress { what: "comparing the copy", done: Bytes::default(), total: Bytes::new(total) };
    let mut buffers = [Aligned::new(usize::try_from(PIECE)?), Aligned::new(usize::try_from(PIECE)?)];
    for member in &family.members {
        let end_of = |id: VolumeId| {
            let of = |ends: &BTreeMap<u64, u64>| ends.get(&u64::from(id.get())).copied().unwrap_or_default();
            of(&old_ends).max(of(&new_ends))
        };
        let end = end_of(member.id).max(member.parent.map_or(0, end_of));
        if end == 0 {
            continue;
        }
        let unit = old.superblock.block_size.bytes().get();
        let device = target.device(kit, member.id, end.div_ceil(unit).saturating_mul(unit), false)?;
        let mut look = || -> Result<()> {
            for work in both.works(member)? {
                may_go_on()?;
                let work = work?;
                alike(source, &device.file, &work, &mut buffers)?;
                progress.done = Bytes::new(progress.done.get().saturating_add(length_of(&work)));
                kit.watcher.tell(&progress);
            }
            Ok(())
        };
        let looked = look().with_context(|| format!("comparing the volume {} with its copy", member.id));
        device.close()?;
        looked?;
    }
    Ok(())
}

fn length_of(work: &Work) -> u64 {
    match work {
        Work::Data { length, .. } => *length,
        Work::Nothing(range) => range.end - range.start,
    }
}

fn alike(source: &Source, copy: &std::fs::File, work: &Work, buffers: &mut [Aligned; 2]) -> Result<()> {
    let [wanted, found] = buffers;
    let (begin, length, segments) = match work {
        Work::Data { at, length, segments } => (*at, *length, segments.as_slice()),
        Work::Nothing(range) => (range.start, range.end - range.start, [].as_slice()),
    };
    let mut done = 0;
    while done < length {
        let size = usize::try_from((length - done).min(PIECE))?;
        // What is longer than a piece is zeros.
        gather(&source.data, segments, wanted.bytes_mut(size))?;
        aligned::fill(found.bytes_mut(size), copy, begin + done).context("reading the copy")?;
        let (wanted, found) = (wanted.bytes(size), found.bytes(size));
        if wanted != found {
            let differs = wanted.iter().zip(found).position(|(one, other)| one != other);
            bail!("byte {} is not the same", begin + done + u64::try_from(differs.unwrap_or_default())?);
        }
        done += u64::try_from(size)?;
    }
    Ok(())
}
