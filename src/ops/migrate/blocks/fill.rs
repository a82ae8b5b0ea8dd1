//! The volumes written into a new pool, through its own volumes, by the kernel.

use std::collections::BTreeSet;
use std::fs::File;

use anyhow::{Context, Result, bail, ensure};
use nix::errno::Errno;

use super::family::{Family, Member};
use super::source::{Metadata, Source};
use super::spans::{self, Differences, PIECE, Segment, Whole, Work, Works};
use crate::kernel::aligned::{self, Aligned};
use crate::kernel::dm::{DmId, TargetLine};
use crate::kernel::{block, errno_of};
use crate::metadata::BadTree;
use crate::ops::progress::{Progress, may_go_on};
use crate::ops::sight;
use crate::ops::steps::{Kit, Seen, bring_up, remove_ours};
use crate::pool::{DevNo, THIN, VolumeId};
use crate::units::{BlockSize, Bytes, Sectors};

/// A pool that is filled: it is active, zeroes new blocks, and nobody else uses it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Its dm name.
    pub pool: String,
    /// Its dm uuid.
    pub uuid: String,
    /// The length of its blocks.
    pub block: BlockSize,
}

/// What the transaction id of a pool says that is being filled: how many volumes are whole, and of which pool. No pool in use
/// counts as far as 2^63.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The sum of the old pool's superblock.
    pub seal: u32,
    /// How many volumes are whole.
    pub whole: u32,
}

const MARKED: u64 = 1 << 63;
/// Bits of the count: as many as an id has.
const COUNT: u32 = 24;

impl Mark {
    /// Returns the transaction id.
    pub fn id(self) -> u64 {
        MARKED | u64::from(self.seal) << COUNT | u64::from(self.whole)
    }

    /// Returns what a transaction id says; nothing when it is that of a pool in use.
    pub fn of(id: u64) -> Option<Self> {
        let seal = u32::try_from((id & !MARKED) >> COUNT).ok()?;
        let whole = u32::try_from(id & ((1 << COUNT) - 1)).ok()?;
        (id & MARKED != 0).then_some(Self { seal, whole })
    }
}

/// A volume that is filled or compared: its device, which goes when this does.
pub(super) struct Device<'k> {
    kit: &'k Kit,
    name: String,
    uuid: String,
    pub(super) file: File,
}

impl Target {
    fn name(&self) -> String {
        format!("{}-copy", self.pool)
    }

    fn copy_uuid(&self) -> String {
        format!("{}-copy", self.uuid)
    }

    /// Returns where its metadata is, and itself.
    pub(super) fn devices(&self, kit: &Kit) -> Result<[DevNo; 2]> {
        let live = sight::live(&kit.dm, &self.pool)?;
        let live = live.with_context(|| format!("looking for the pool `{}`: it is down", self.pool))?;
        ensure!(live.info.uuid.as_ref() == Some(&self.uuid), "`{}` is not the pool that dmpool made", self.pool);
        Ok([live.table.metadata, live.info.devno])
    }

    pub(super) fn device<'k>(&self, kit: &'k Kit, id: VolumeId, length: u64, write: bool) -> Result<Device<'k>> {
        let [_, pool] = self.devices(kit)?;
        let (name, uuid) = (self.name(), self.copy_uuid());
        let length = Bytes::new(length).sectors();
        let params = format!("{pool} {id}");
        let line = TargetLine { start: Sectors::new(0), length, kind: THIN.to_owned(), params };
        bring_up(&kit.dm, &name, &uuid, &[line], Seen::Private)?;
        let info = kit.dm.info(&DmId::name(&name));
        let open = |devno| if write { block::open_for_writing(devno) } else { block::open_direct(devno) };
        match info.and_then(|info| open(info.context("looking for the copy's device")?.devno)) {
            Ok(file) => Ok(Device { kit, name, uuid, file }),
            Err(why) => {
                let _ = remove_ours(&kit.dm, &name, &uuid);
                Err(why)
            }
        }
    }

    /// Takes away what a death has left.
    ///
    /// # Errors
    /// When a device of that name is somebody else's, or in use.
    pub fn sweep(&self, kit: &Kit) -> Result<()> {
        remove_ours(&kit.dm, &self.name(), &self.copy_uuid())
    }

    fn message(&self, kit: &Kit, message: &str) -> Result<()> {
        kit.dm.message(&DmId::name(&self.pool), message).map(drop)
    }

    /// Returns its transaction id as it stands on the disk.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn transaction(&self, kit: &Kit) -> Result<u64> {
        let [metadata, _] = self.devices(kit)?;
        let superblock = sight::superblock_on(metadata)?;
        Ok(superblock.with_context(|| format!("reading the superblock of `{}`", self.pool))?.transaction_id)
    }

    /// Gives it another transaction id, which the kernel commits with all that came before.
    ///
    /// # Errors
    /// When the kernel refuses, or does not write it.
    pub fn set_transaction(&self, kit: &Kit, to: u64) -> Result<()> {
        let from = self.transaction(kit)?;
        if from != to {
            self.message(kit, &format!("set_transaction_id {from} {to}"))?;
        }
        let now = self.transaction(kit)?;
        ensure!(now == to, "`{}` has the transaction id {now} on its disk, not {to}", self.pool);
        Ok(())
    }
}

impl Device<'_> {
    /// Returns its dm name.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Takes it away.
    pub(super) fn close(self) -> Result<()> {
        let Self { kit, name, uuid, file } = self;
        drop(file);
        remove_ours(&kit.dm, &name, &uuid)
    }
}

/// Returns how many bytes of new blocks the volumes of a pool take, in blocks of that length.
///
/// # Errors
/// When the metadata cannot be read.
pub fn need(metadata: &Metadata, family: &Family, block: BlockSize) -> Result<Bytes> {
    let roots = metadata.roots()?;
    let mut sum = 0_u64;
    for member in &family.members {
        may_go_on()?;
        sum = sum.saturating_add(spans::taken(works(metadata, &roots, member, block)?, block.bytes().get())?);
    }
    Ok(Bytes::new(sum))
}

type Roots = std::collections::BTreeMap<u64, crate::units::MetaBlock>;

fn works<'m>(
    metadata: &'m Metadata,
    roots: &Roots,
    member: &Member,
    block: BlockSize,
) -> Result<impl Iterator<Item = Result<Work, BadTree>> + use<'m>> {
    let root_of = |id: VolumeId| roots.get(&u64::from(id.get())).copied();
    let own = || metadata.extents(root_of(member.id));
    let parent = metadata.extents(member.parent.and_then(root_of));
    let ranges = Whole::of(Differences::of(own(), parent)?, block.bytes().get());
    Ok(Works::of(ranges, own(), block.bytes().get())?)
}

/// Writes all volumes into the pool, from the first that is not whole there; then its transaction id says so.
///
/// # Errors
/// [`crate::ops::progress::Interrupted`] when somebody wants an end; when there is too little room, or a disk fails.
pub fn fill(kit: &Kit, source: &Source, family: &Family, target: &Target) -> Result<()> {
    target.sweep(kit)?;
    let seal = source.metadata.seal;
    let mark = |whole: usize| -> Result<u64> { Ok(Mark { seal, whole: u32::try_from(whole)? }.id()) };
    let whole = go_on_from(kit, family, target, seal)?;
    room(kit, source, family, target)?;
    let roots = source.metadata.roots()?;
    let mut total = 0_u64;
    for member in &family.members {
        total = total.saturating_add(spans::written(works(&source.metadata, &roots, member, target.block)?)?);
    }
    let ends = source.metadata.ends()?;
    let mut progress = Progress { what: "copying volumes", done: Bytes::default(), total: Bytes::new(total) };
    let mut buffer = Aligned::new(usize::try_from(PIECE)?);
    for (number, member) in family.members.iter().enumerate() {
        if number < whole {
            let there = spans::written(works(&source.metadata, &roots, member, target.block)?)?;
            progress.done = Bytes::new(progress.done.get().saturating_add(there));
            continue;
        }
        may_go_on()?;
        let id = member.id;
        let make = match member.parent {
            Some(parent) => format!("create_snap {id} {parent}"),
            None => format!("create_thin {id}"),
        };
        target.message(kit, &make).with_context(|| format!("making the volume {id}"))?;
        let end_of = |id: VolumeId| ends.get(&u64::from(id.get())).copied().unwrap_or_default();
        let end = end_of(id).max(member.parent.map_or(0, end_of));
        if end > 0 {
            let block = target.block.bytes().get();
            let device = target.device(kit, id, end.div_ceil(block).saturating_mul(block), true)?;
            let mut write = || -> Result<()> {
                for work in works(&source.metadata, &roots, member, target.block)? {
                    may_go_on()?;
                    put(&source.data, &device.file, &work?, &mut buffer, &mut |bytes| {
                        progress.done = Bytes::new(progress.done.get().saturating_add(bytes));
                        kit.watcher.tell(&progress);
                    })?;
                }
                device.file.sync_all().context("writing out what the copy has")
            };
            let written = write().with_context(|| format!("copying the volume {id}"));
            device.close()?;
            written?;
        }
        target.set_transaction(kit, mark(number + 1)?)?;
    }
    Ok(())
}

/// Returns how many volumes are whole in the pool. What is not is removed; all of it, when it is of another state of the old pool.
fn go_on_from(kit: &Kit, family: &Family, target: &Target, seal: u32) -> Result<usize> {
    let [metadata, _] = target.devices(kit)?;
    let there = Metadata::of(block::open_direct(metadata)?)?;
    let volumes: BTreeSet<u64> = there.details()?.into_keys().collect();
    let mark = Mark::of(there.superblock.transaction_id).filter(|mark| mark.seal == seal);
    let whole = mark.map_or(0, |mark| usize::try_from(mark.whole).unwrap_or(usize::MAX)).min(family.members.len());
    let done: BTreeSet<u64> = family.members.iter().take(whole).map(|member| u64::from(member.id.get())).collect();
    let whole = if done.is_subset(&volumes) { whole } else { 0 };
    for id in volumes.iter().filter(|id| whole == 0 || !done.contains(id)) {
        target.message(kit, &format!("delete {id}")).with_context(|| format!("removing the volume {id}"))?;
    }
    target.set_transaction(kit, Mark { seal, whole: u32::try_from(whole)? }.id())?;
    Ok(whole)
}

/// Looks whether the pool has room for them.
fn room(kit: &Kit, source: &Source, family: &Family, target: &Target) -> Result<()> {
    let needed = need(&source.metadata, family, target.block)?;
    let status = sight::status(&kit.dm, &target.pool)?;
    let Some(working) = status.working() else { bail!("`{}` does not work: {status:?}", target.pool) };
    let all = target.block.bytes_of(working.data_total);
    ensure!(needed <= all, "the volumes need {}, and `{}` has {}", needed.exact(), target.pool, all.exact());
    Ok(())
}

/// Reads what a piece holds.
pub(super) fn gather(data: &File, segments: &[Segment], into: &mut [u8]) -> Result<()> {
    into.fill(0);
    for segment in segments {
        let to = usize::try_from(segment.to)?;
        let end = to.saturating_add(usize::try_from(segment.length)?);
        let part = into.get_mut(to..end).context("putting a piece together")?;
        aligned::fill(part, data, segment.from).context("reading the old pool's data")?;
    }
    Ok(())
}

fn put(data: &File, device: &File, work: &Work, buffer: &mut Aligned, done: &mut dyn FnMut(u64)) -> Result<()> {
    match work {
        Work::Data { at, length, segments } => {
            let size = usize::try_from(*length)?;
            gather(data, segments, buffer.bytes_mut(size))?;
            aligned::put(buffer.bytes(size), device, *at).context("writing into the new pool")?;
            done(*length);
        }
        Work::Nothing(range) => {
            match block::discard(device, range.start, range.end - range.start) {
                Err(why) if errno_of(&why) == Some(Errno::EOPNOTSUPP) => {}
                discarded => discarded.context("taking what the volume does not have from its copy")?,
            }
            // A discard is a wish: the kernel cuts it at places that are no borders of blocks (`bio_discard_limit`,
            // block/blk-lib.c), and a part of a block stays.
            let zeros = Aligned::new(usize::try_from(PIECE)?);
            let mut at = range.start;
            while at < range.end {
                let length = (range.end - at).min(PIECE);
                let size = usize::try_from(length)?;
                aligned::fill(buffer.bytes_mut(size), device, at).context("reading the copy")?;
                if buffer.bytes(size) != zeros.bytes(size) {
                    aligned::put(zeros.bytes(size), device, at).context("writing into the new pool")?;
                }
                at += length;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_no_transaction_id_of_a_pool_in_use() {
        for mark in [Mark { seal: 0, whole: 0 }, Mark { seal: u32::MAX, whole: (1 << COUNT) - 1 }] {
            assert_eq!(Mark::of(mark.id()), Some(mark));
        }
        assert_eq!([Mark::of(0), Mark::of(MARKED - 1)], [None, None]);
        assert_eq!(Mark::of(u64::MAX), None);
    }
}
