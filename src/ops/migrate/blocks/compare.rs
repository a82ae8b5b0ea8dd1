//! The copy read back through the kernel, and compared with the old pool by its mapping.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;

use anyhow::{Context, Result, bail, ensure};

use super::family::{Family, Member};
use super::fill::{Target, gather, of_parent, todo};
use super::holds::{Carry, Holds, Mapped};
use super::source::{Metadata, Source};
use super::spans::{Differences, Either, PIECE, Whole, Work, Works};
use crate::kernel::aligned::{self, Aligned};
use crate::kernel::block;
use crate::ops::progress::{Progress, may_go_on};
use crate::ops::steps::Kit;
use crate::pool::VolumeId;
use crate::units::{BlockSize, Bytes};

/// What is compared, and the new pool as its metadata has it.
struct Both<'s> {
    carry: &'s Carry<'s>,
    new: Mapped<'s>,
    /// The length of the new pool's blocks.
    block: BlockSize,
}

impl Both<'_> {
    /// Returns what a volume must hold wherever it differs from the one that it is a snapshot of, in either pool. What both pools
    /// share with that one was compared with it. Of a volume that was there before: where it has changed since.
    fn works(&self, member: &Member) -> Result<Box<dyn Iterator<Item = Result<Work>> + '_>> {
        if self.carry.kept(member.id).is_some() {
            return Ok(Box::new(todo(self.carry, member, self.block)?));
        }
        let now = self.carry.now;
        let in_old = Differences::of(now.extents(member.id)?, of_parent(now, member)?)?;
        let in_new = Differences::of(self.new.extents(member.id)?, of_parent(&self.new, member)?)?;
        let block = self.carry.block.bytes().get();
        Ok(Box::new(Works::of(Whole::of(Either::of(in_old, in_new), block), now.extents(member.id)?, block)?))
    }

    /// Returns how long the part of a volume is in which it, or the one that it is a snapshot of, holds something.
    fn end(&self, member: &Member) -> u64 {
        let before = self.carry.kept(member.id).map(|before| before.holds.end(member.id));
        let of = |id: VolumeId| self.carry.now.end(id).max(self.new.end(id));
        let end = of(member.id).max(member.parent.map_or(0, of)).max(before.unwrap_or_default());
        let whole = |block: BlockSize| end.div_ceil(block.bytes().get()).saturating_mul(block.bytes().get());
        whole(self.carry.block).max(whole(self.block))
    }
}

/// What was compared.
pub(super) struct Compared {
    /// The volumes that differ, each with the first byte that does.
    pub differ: BTreeMap<VolumeId, u64>,
    /// How much was read of each pool.
    pub read: Bytes,
}

/// Compares every volume. Returns how much was read of each pool.
///
/// # Errors
/// When one is not the same, naming it and where; when one cannot be read; [`crate::ops::progress::Interrupted`].
pub fn compare(kit: &Kit, source: &Source, family: &Family, target: &Target) -> Result<Bytes> {
    none_differs(compare_with(kit, &Carry::all(source, &Mapped::of(&source.metadata)?), family, target)?)
}

/// Makes an error of the first volume that differs.
pub(super) fn none_differs(compared: Compared) -> Result<Bytes> {
    match compared.differ.into_iter().next() {
        Some((id, at)) => bail!("comparing the volume {id} with its copy: byte {at} is not the same"),
        None => Ok(compared.read),
    }
}

/// Compares what volumes hold that were not there before, and what has changed in those that were.
///
/// # Errors
/// As [`compare`], but for what differs.
pub(super) fn compare_with(kit: &Kit, carry: &Carry<'_>, family: &Family, target: &Target) -> Result<Compared> {
    target.sweep(kit)?;
    let [metadata, _] = target.devices(kit)?;
    let new = Metadata::of(block::open_direct(metadata)?)?;
    let wanted: BTreeSet<u64> = family.members.iter().map(|member| u64::from(member.id.get())).collect();
    let there: BTreeSet<u64> = new.details()?.into_keys().collect();
    ensure!(there == wanted, "`{}` does not have the same volumes as the old pool", target.pool);
    let both = Both { carry, new: Mapped::of(&new)?, block: target.block };
    let mut total = 0_u64;
    for member in &family.members {
        may_go_on()?;
        for work in both.works(member)? {
            total = total.saturating_add(length_of(&work?));
        }
    }
    let mut progress = Progress { what: "comparing the copy", done: Bytes::default(), total: Bytes::new(total) };
    let mut buffers = [Aligned::new(usize::try_from(PIECE)?), Aligned::new(usize::try_from(PIECE)?)];
    let mut differ = BTreeMap::new();
    for member in &family.members {
        let mut works = both.works(member)?.peekable();
        if works.peek().is_none() {
            continue;
        }
        let device = target.device(kit, member.id, both.end(member), false)?;
        let look = || -> Result<Option<u64>> {
            for work in works {
                may_go_on()?;
                let work = work?;
                if let Some(at) = differs(carry.data, &device.file, &work, &mut buffers)? {
                    return Ok(Some(at));
                }
                progress.done = Bytes::new(progress.done.get().saturating_add(length_of(&work)));
                kit.watcher.tell(&progress);
            }
            Ok(None)
        };
        let looked = look().with_context(|| format!("comparing the volume {} with its copy", member.called()));
        device.close()?;
        if let Some(at) = looked? {
            differ.insert(member.id, at);
        }
    }
    Ok(Compared { differ, read: progress.done })
}

fn length_of(work: &Work) -> u64 {
    match work {
        Work::Data { length, .. } => *length,
        Work::Nothing(range) => range.end - range.start,
    }
}

/// Returns the first byte that is not the same.
fn differs(data: &File, copy: &File, work: &Work, buffers: &mut [Aligned; 2]) -> Result<Option<u64>> {
    let [wanted, found] = buffers;
    let (begin, length, segments) = match work {
        Work::Data { at, length, segments } => (*at, *length, segments.as_slice()),
        Work::Nothing(range) => (range.start, range.end - range.start, [].as_slice()),
    };
    let mut done = 0;
    while done < length {
        let size = usize::try_from((length - done).min(PIECE))?;
        // What is longer than a piece is zeros.
        gather(data, segments, wanted.bytes_mut(size))?;
        aligned::fill(found.bytes_mut(size), copy, begin + done).context("reading the copy")?;
        let (wanted, found) = (wanted.bytes(size), found.bytes(size));
        if wanted != found {
            let differs = wanted.iter().zip(found).position(|(one, other)| one != other);
            return Ok(Some(begin + done + u64::try_from(differs.unwrap_or_default())?));
        }
        done += u64::try_from(size)?;
    }
    Ok(None)
}
