//! The volumes written into a new pool, through its own volumes, by the kernel.

use std::collections::BTreeSet;
use std::fs::File;

use anyhow::{Context, Result, bail, ensure};
use nix::errno::Errno;

use super::family::{Family, Member};
use super::holds::{Carry, Extents, Holds, Mapped};
use super::source::{Metadata, Source};
use super::spans::{self, Differences, PIECE, Segment, Whole, Work, Works};
use crate::kernel::aligned::{self, Aligned};
use crate::kernel::dm::{DmId, TargetLine};
use crate::kernel::fs::FsFacts;
use crate::kernel::{block, errno_of};
use crate::ops::fault::{self, Point};
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

/// After how many bytes it is looked again how much is free.
const BETWEEN_LOOKS: u64 = 256 << 20;
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
pub(in crate::ops::migrate) struct Device<'k> {
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

    pub(in crate::ops::migrate) fn device<'k>(
        &self,
        kit: &'k Kit,
        id: VolumeId,
        length: u64,
        write: bool,
    ) -> Result<Device<'k>> {
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

    pub(in crate::ops::migrate) fn message(&self, kit: &Kit, message: &str) -> Result<()> {
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
    pub(in crate::ops::migrate) fn name(&self) -> &str {
        &self.name
    }

    /// Takes it away.
    pub(in crate::ops::migrate) fn close(self) -> Result<()> {
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
    needed(&Mapped::of(metadata)?, family, block)
}

fn needed(now: &dyn Holds, family: &Family, block: BlockSize) -> Result<Bytes> {
    let mut sum = 0_u64;
    for member in &family.members {
        may_go_on()?;
        let works = works(now, of_parent(now, member)?, member, block)?;
        sum = sum.saturating_add(spans::taken(works, block.bytes().get())?);
    }
    Ok(Bytes::new(sum))
}

/// Returns what a volume holds that was just made a snapshot of its parent.
pub(super) fn of_parent<'h>(now: &'h dyn Holds, member: &Member) -> Result<Extents<'h>> {
    member.parent.map_or_else(|| Ok(Box::new(std::iter::empty()) as Extents<'h>), |parent| now.extents(parent))
}

/// Returns what is to be done so that a volume that holds `there` holds what it shall, in blocks of that length.
fn works<'h>(
    now: &'h dyn Holds,
    there: Extents<'h>,
    member: &Member,
    block: BlockSize,
) -> Result<Works<Whole<Differences<Extents<'h>, Extents<'h>>>, Extents<'h>>> {
    let ranges = Whole::of(Differences::of(now.extents(member.id)?, there)?, block.bytes().get());
    Works::of(ranges, now.extents(member.id)?, block.bytes().get())
}

/// Returns what is to be done with a volume that stays, or was just made a snapshot of its parent.
pub(super) fn todo<'h>(
    carry: &'h Carry<'_>,
    member: &Member,
    block: BlockSize,
) -> Result<impl Iterator<Item = Result<Work>> + use<'h>> {
    let there = match carry.kept(member.id) {
        Some(before) => before.holds.extents(member.id)?,
        None => of_parent(carry.now, member)?,
    };
    works(carry.now, there, member, block)
}

/// Writes all volumes into the pool, from the first that is not whole there; then its transaction id says so.
///
/// # Errors
/// [`crate::ops::progress::Interrupted`] when somebody wants an end; when there is too little room, or a disk fails.
pub fn fill(kit: &Kit, source: &Source, family: &Family, target: &Target) -> Result<()> {
    fill_with(kit, &Carry::all(source, &Mapped::of(&source.metadata)?), family, target)
}

/// As [`fill`], from what the volumes of the new pool hold already.
pub(super) fn fill_with(kit: &Kit, carry: &Carry<'_>, family: &Family, target: &Target) -> Result<()> {
    target.sweep(kit)?;
    let seal = carry.seal;
    let mark = |whole: usize| -> Result<u64> { Ok(Mark { seal, whole: u32::try_from(whole)? }.id()) };
    let whole = go_on_from(kit, carry, family, target)?;
    room(kit, carry, family, target)?;
    let total = to_write(carry, family, target.block)?;
    let mut progress = Progress { what: "copying volumes", done: Bytes::default(), total };
    let mut until_looked = 0_u64;
    let mut buffer = Aligned::new(usize::try_from(PIECE)?);
    for (number, member) in family.members.iter().enumerate() {
        if number < whole {
            let there = spans::written(todo(carry, member, target.block)?)?;
            progress.done = Bytes::new(progress.done.get().saturating_add(there));
            continue;
        }
        may_go_on()?;
        let id = member.id;
        let before = carry.kept(id);
        if before.is_some() && todo(carry, member, target.block)?.next().is_none() {
            continue;
        }
        // Those before are as they shall be, also where nothing was written to them.
        target.set_transaction(kit, mark(number)?)?;
        if before.is_none() {
            let make = match member.parent {
                Some(parent) => format!("create_snap {id} {parent}"),
                None => format!("create_thin {id}"),
            };
            target.message(kit, &make).with_context(|| format!("making the volume {id}"))?;
        }
        let there = before.map(|before| before.holds.end(id)).or(member.parent.map(|parent| carry.now.end(parent)));
        let end = carry.now.end(id).max(there.unwrap_or_default());
        if end > 0 {
            let block = target.block.bytes().get();
            let device = target.device(kit, id, end.div_ceil(block).saturating_mul(block), true)?;
            let mut write = || -> Result<()> {
                for work in todo(carry, member, target.block)? {
                    may_go_on()?;
                    if let Some((place, keeps)) = carry.keeps
                        && progress.done.get() >= until_looked
                    {
                        until_looked = progress.done.get().saturating_add(BETWEEN_LOOKS);
                        let free = FsFacts::of(place)?.available;
                        ensure!(
                            free > keeps,
                            "{} is left at {}, and {} are kept",
                            free.exact(),
                            place.display(),
                            keeps.exact()
                        );
                    }
                    put(carry.data, &device.file, &work?, &mut buffer, &mut |bytes| {
                        progress.done = Bytes::new(progress.done.get().saturating_add(bytes));
                        kit.watcher.tell(&progress);
                    })?;
                }
                device.file.sync_all().context("writing out what the copy has")
            };
            let written = write().with_context(|| format!("copying the volume {}", member.called()));
            device.close()?;
            written?;
        }
        target.set_transaction(kit, mark(number + 1)?)?;
        fault::reached(number, Point::Layer)?;
    }
    target.set_transaction(kit, mark(family.members.len())?)
}

/// Returns how many bytes are written into the volumes of the new pool.
pub(super) fn to_write(carry: &Carry<'_>, family: &Family, block: BlockSize) -> Result<Bytes> {
    let mut total = 0_u64;
    for member in &family.members {
        may_go_on()?;
        total = total.saturating_add(spans::written(todo(carry, member, block)?)?);
    }
    Ok(Bytes::new(total))
}

/// Returns how many volumes are whole in the pool. What is not is removed; all of it, when it is of another state of the old pool.
fn go_on_from(kit: &Kit, carry: &Carry<'_>, family: &Family, target: &Target) -> Result<usize> {
    let [metadata, _] = target.devices(kit)?;
    let there = Metadata::of(block::open_direct(metadata)?)?;
    let volumes: BTreeSet<u64> = there.details()?.into_keys().collect();
    let found = Mark::of(there.superblock.transaction_id);
    let seal = carry.seal;
    let mark = found.filter(|mark| mark.seal == seal);
    let mut kept = BTreeSet::new();
    if let Some(before) = &carry.before {
        ensure!(mark.is_some() || found == Some(before.mark), "`{}` is not what was prepared", target.pool);
        kept.extend(before.kept.iter().map(|id| u64::from(id.get())));
        ensure!(kept.is_subset(&volumes), "`{}` has not all volumes that were prepared", target.pool);
    }
    // Of what is listed as it was before, one that was found to differ is written and is not whole all the same.
    let same = carry.before.as_ref().filter(|before| before.mark.seal == seal);
    let differs = same.and_then(|before| family.members.iter().position(|member| !before.kept.contains(&member.id)));
    let whole = mark.map_or(0, |mark| usize::try_from(mark.whole).unwrap_or(usize::MAX));
    let whole = whole.min(differs.unwrap_or(family.members.len()));
    let done: BTreeSet<u64> = family.members.iter().take(whole).map(|member| u64::from(member.id.get())).collect();
    let whole = if done.is_subset(&volumes) { whole } else { 0 };
    // First of all: as long as it says what it said, nothing was written to what was prepared.
    target.set_transaction(kit, Mark { seal, whole: u32::try_from(whole)? }.id())?;
    for id in volumes.iter().filter(|id| (whole == 0 || !done.contains(id)) && !kept.contains(id)) {
        target.message(kit, &format!("delete {id}")).with_context(|| format!("removing the volume {id}"))?;
    }
    Ok(whole)
}

/// Looks whether the pool has room for them.
fn room(kit: &Kit, carry: &Carry<'_>, family: &Family, target: &Target) -> Result<()> {
    let needed = needed(carry.now, family, target.block)?;
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
