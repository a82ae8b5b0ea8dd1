//! What was copied while Docker ran, as it is written down until the switch: of every volume the blocks whose contents nobody can
//! change any more.
//!
//! A volume's block whose time lies before the volume was last shared is never written in its place: a write goes to another block,
//! which gets the pool's time (`dm_thin_find_block` says shared, and `process_shared_bio` breaks it, drivers/md/dm-thin.c). A block that
//! was given up and is given out again has a later time, too. So as long as a volume that was made then maps a place to the same block with
//! the same time, that block holds what it held. It follows that the metadata may be read while it is written: what was torn or
//! old is no mapping that is met again, and costs a copy only.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use super::compare::{compare_with, none_differs};
use super::family::Family;
use super::fill::{Mark, Target, fill_with, to_write};
use super::holds::{Before, Carry, Extents, Holds, Mapped};
use super::identity::identity;
use super::source::{Origin, Source};
use super::spans::Extent;
use super::traces::{Own, Traces};
use crate::kernel::dm::Dm;
use crate::kernel::fs as durable;
use crate::metadata::{Superblock, Times};
use crate::ops::steps::Kit;
use crate::pool::{PoolUuid, VolumeId};
use crate::units::{BlockSize, Bytes, DataBlocks};

/// The file with the record, in the folder of Docker's driver.
const RECORD: &str = "dmpool-prepared.json";
/// The file with the extents.
pub(super) const EXTENTS: &str = "dmpool-prepared.extents";
/// That file while it is written.
pub(super) const EXTENTS_NEW: &str = "dmpool-prepared.extents.new";
/// The folder with the new pool's files.
const POOL: &str = "devicemapper.dmpool-prepared";
pub(super) const FORMAT: u32 = 1;
const LONGEST: Bytes = Bytes::new(64 << 20);
/// Bytes of an extent in the file: where in the volume, where in the data, length, time; each of 64 bits, little endian.
pub(super) const LINE: usize = 32;
/// How many of them are read at once.
const LINES: u64 = 1024;
/// The first time that a mapping's 24 bits do not hold.
pub(super) const TOO_LATE: u32 = 1 << 24;

/// A volume that was copied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prepared {
    /// Its id.
    pub id: VolumeId,
    /// The one that it was made a snapshot of.
    pub parent: Option<VolumeId>,
    /// The old pool's transaction id when it was made there: with the time, that tells it from another one with its id.
    pub transaction_id: u64,
    /// The old pool's time then.
    pub created: u32,
    /// The old pool's time when it was shared last.
    pub snapshotted: u32,
    /// The number of its first extent.
    pub first: u64,
    /// How many extents it has. Elsewhere its copy holds zeros.
    pub extents: u64,
    /// How many bytes there are up to the end of the last of them.
    pub end: u64,
    /// Whether its copy is what it says: it was compared.
    pub is_whole: bool,
}

/// What was prepared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    pub(super) format: u32,
    /// What the old pool lies on, and what tells it from another one there.
    pub(super) old: String,
    /// The length of its blocks.
    pub(super) old_block: BlockSize,
    /// Its time.
    pub(super) time: u32,
    /// Its transaction id.
    pub(super) transaction_id: u64,
    /// The new pool's identity.
    pub uuid: PoolUuid,
    /// How large its data is.
    pub data: Bytes,
    /// How large its metadata is.
    pub metadata: Bytes,
    /// The length of its blocks.
    pub block: BlockSize,
    /// The sum of all extents, by which the new pool says what was copied into it.
    pub(super) seal: u32,
    /// The volumes, each behind the one that it is a snapshot of.
    pub volumes: Vec<Prepared>,
    /// The pool of dmpool's own that it is; nothing for new loop files in Docker's own place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub own: Option<Own>,
    /// How the new pool is left, once all of it was copied and compared.
    pub(super) whole: Option<Traces>,
    /// How many volumes were whole when a migration took one that never came to its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) begun: Option<u32>,
    /// The sum of the old pool's superblock, once a migration goes on from it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) taken: Option<u32>,
}

/// Why what was prepared is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// It was never whole.
    NotWhole,
    /// Somebody has written to its files.
    Touched,
    /// The old pool is another one, or was put back to an earlier state.
    Another,
}

impl Unfit {
    /// Returns it as a sentence goes on after "what was prepared cannot be used:".
    pub const fn why(self) -> &'static str {
        match self {
            Self::NotWhole => "it never came to its end",
            Self::Touched => "somebody has written to its files since",
            Self::Another => "the old pool is another one since, or was put back to an earlier state",
        }
    }
}

/// Returns the folder with the new pool's files.
pub fn folder(home: &Path) -> PathBuf {
    home.join(POOL)
}

/// Returns the new pool's files, metadata and data.
pub fn files(home: &Path) -> [PathBuf; 2] {
    ["metadata", "data"].map(|name| folder(home).join(name))
}

/// Returns how long the list is at most of what volumes hold that map so many blocks: one extent for each.
pub fn list_of(mapped: DataBlocks) -> Bytes {
    Bytes::new(mapped.get().saturating_mul(LINE as u64))
}

impl Record {
    /// Reads it; nothing when there is none.
    ///
    /// # Errors
    /// When it cannot be read, or is of another format.
    pub fn read(home: &Path) -> Result<Option<Self>> {
        let path = home.join(RECORD);
        let context = || format!("reading {}", path.display());
        let Some(bytes) = durable::read_limited(&path, LONGEST).with_context(context)? else { return Ok(None) };
        let record: Self = serde_json::from_slice(&bytes).with_context(context)?;
        ensure!(record.format == FORMAT, "{} has the format {}, not {FORMAT}", path.display(), record.format);
        Ok(Some(record))
    }

    pub(super) fn write(&self, home: &Path) -> Result<()> {
        let bytes = serde_json::to_vec(self).context("writing down what was prepared")?;
        durable::write_replace(&home.join(RECORD), &bytes, 0o600)
    }

    /// Writes it down as one of a pool that holds nothing of which anything is known: all is copied anew.
    ///
    /// # Errors
    /// When the files cannot be written.
    pub fn write_empty(&self, home: &Path) -> Result<()> {
        let empty = Self { seal: 0, volumes: Vec::new(), whole: None, begun: None, taken: None, ..self.clone() };
        empty.write(home)?;
        durable::remove_durably(&home.join(EXTENTS))?;
        durable::create_file_durably(&home.join(EXTENTS), Bytes::default()).map(drop)
    }

    /// Writes down that what was prepared is not that any more. A pool of dmpool's own stays prepared, empty; of loop files in Docker's
    /// place nothing stays written.
    ///
    /// # Errors
    /// When the files cannot be written.
    pub fn end(home: &Path) -> Result<()> {
        match Self::read(home) {
            Ok(Some(record)) if record.own.is_some() => record.write_empty(home),
            _ => Self::remove(home),
        }
    }

    /// Returns the files that it is written in.
    pub fn written_in(home: &Path) -> [PathBuf; 2] {
        [RECORD, EXTENTS].map(|name| home.join(name))
    }

    /// Removes it, with its extents; the new pool's files stay.
    ///
    /// # Errors
    /// When the files cannot be removed.
    pub fn remove(home: &Path) -> Result<()> {
        for name in [RECORD, EXTENTS, EXTENTS_NEW] {
            durable::remove_durably(&home.join(name))?;
        }
        Ok(())
    }

    /// Whether a migration goes on from it.
    pub const fn is_taken(&self) -> bool {
        self.taken.is_some()
    }

    /// Returns why a migration cannot go on from it; nothing when it can.
    ///
    /// # Errors
    /// When the old pool cannot be looked at.
    pub fn unfit(&self, dm: &Dm, home: &Path, origin: &Origin, superblock: &Superblock) -> Result<Option<Unfit>> {
        if self.is_another(dm, home, origin, superblock)? {
            return Ok(Some(Unfit::Another));
        }
        let Some(whole) = self.whole.as_ref().filter(|_| !self.is_taken()) else { return Ok(Some(Unfit::NotWhole)) };
        if Opened::open(home, self.clone()).is_err() {
            return Ok(Some(Unfit::NotWhole));
        }
        Ok(self.traces(dm, home).map_or(true, |traces| traces != *whole).then_some(Unfit::Touched))
    }

    fn is_another(&self, dm: &Dm, home: &Path, origin: &Origin, superblock: &Superblock) -> Result<bool> {
        Ok(self.old != identity(dm, home, origin)?
            || self.old_block != superblock.block_size
            || self.time > superblock.time
            || superblock.time >= TOO_LATE
            || self.transaction_id > superblock.transaction_id)
    }

    /// Returns the volumes that stay as they were prepared, of the first `among` of them: each is the one that it was, and was made a snapshot
    /// of one that stays too.
    fn kept(&self, among: usize, family: &Family, times: &BTreeMap<u64, Times>) -> BTreeSet<VolumeId> {
        let prepared: BTreeMap<VolumeId, &Prepared> =
            self.volumes.iter().take(among).map(|volume| (volume.id, volume)).collect();
        let mut kept = BTreeSet::new();
        for member in &family.members {
            let is_it = |volume: &&&Prepared| {
                times.get(&u64::from(member.id.get())).is_some_and(|now| {
                    (volume.transaction_id, volume.created) == (now.transaction_id, now.created)
                        && volume.snapshotted <= now.snapshotted
                })
            };
            let stays = prepared.get(&member.id).filter(is_it).is_some_and(|volume| {
                volume.is_whole
                    && volume.parent == member.parent
                    && member.parent.is_none_or(|parent| kept.contains(&parent))
            });
            if stays {
                kept.insert(member.id);
            }
        }
        kept
    }
}

/// A record with its extents: what the volumes of the new pool hold.
#[derive(Debug)]
pub struct Opened {
    /// What was prepared.
    pub record: Record,
    extents: File,
}

impl Opened {
    /// Opens it.
    ///
    /// # Errors
    /// When the extents are not those that were written.
    pub fn open(home: &Path, record: Record) -> Result<Self> {
        Self::at(&home.join(EXTENTS), record)
    }

    /// As [`Self::open`], with its extents at that path.
    pub(super) fn at(path: &Path, record: Record) -> Result<Self> {
        let extents = durable::open_existing(path)?;
        let opened = Self { record, extents };
        let mut sum = 0;
        for volume in &opened.record.volumes {
            sum = with_volume(sum, volume);
            for extent in opened.extents(volume.id)? {
                sum = crc32c::crc32c_append(sum, &line(&extent?));
            }
        }
        ensure!(sum == opened.record.seal, "{} is not what was written there", path.display());
        Ok(opened)
    }

    fn volume(&self, id: VolumeId) -> Option<&Prepared> {
        self.record.volumes.iter().find(|volume| volume.id == id)
    }

    fn mark(&self, whole: usize) -> Result<Mark> {
        Ok(Mark { seal: self.record.seal, whole: u32::try_from(whole)? })
    }

    /// Returns what of it stays, when the volumes of a pool are those; nothing when no volume is whole.
    pub(super) fn before(&self, family: &Family, times: &BTreeMap<u64, Times>) -> Result<Option<Before<'_>>> {
        let whole = self.record.begun.map_or(Ok(self.record.volumes.len()), usize::try_from)?;
        let kept = self.record.kept(whole, family, times);
        let before = Before { holds: self, kept, mark: self.mark(whole)? };
        Ok((self.record.begun != Some(0)).then_some(before))
    }

    /// As [`Self::before`], of one that never came to its end: what the new pool says of it counts.
    pub(super) fn of_begun(&self, found: Mark, family: &Family, times: &BTreeMap<u64, Times>) -> Option<Before<'_>> {
        let whole = usize::try_from(found.whole).ok()?;
        (found.seal == self.record.seal).then(|| Before {
            holds: self,
            kept: self.record.kept(whole, family, times),
            mark: found,
        })
    }
}

impl Holds for Opened {
    fn extents(&self, id: VolumeId) -> Result<Extents<'_>> {
        let (at, left) = self.volume(id).map_or((0, 0), |volume| (volume.first, volume.extents));
        Ok(Box::new(Lines { file: &self.extents, at, left, read: Vec::new().into_iter() }))
    }

    fn end(&self, id: VolumeId) -> u64 {
        self.volume(id).map_or(0, |volume| volume.end)
    }
}

struct Lines<'f> {
    file: &'f File,
    at: u64,
    left: u64,
    read: std::vec::IntoIter<Extent>,
}

impl Lines<'_> {
    fn more(&mut self) -> Result<()> {
        let count = self.left.min(LINES);
        let mut bytes = vec![0; usize::try_from(count)? * LINE];
        let begin = self.at.checked_mul(LINE as u64).context("finding extents")?;
        self.file.read_exact_at(&mut bytes, begin).context("reading what was prepared")?;
        self.read = bytes.chunks_exact(LINE).map(extent_of).collect::<Result<Vec<_>>>()?.into_iter();
        self.at += count;
        self.left -= count;
        Ok(())
    }
}

impl Iterator for Lines<'_> {
    type Item = Result<Extent>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.read.len() == 0
            && self.left > 0
            && let Err(why) = self.more()
        {
            self.left = 0;
            return Some(Err(why));
        }
        self.read.next().map(Ok)
    }
}

pub(super) fn line(extent: &Extent) -> [u8; LINE] {
    let mut line = [0; LINE];
    let numbers = [extent.at, extent.from, extent.length, u64::from(extent.time)];
    for (into, number) in line.chunks_exact_mut(8).zip(numbers) {
        into.copy_from_slice(&number.to_le_bytes());
    }
    line
}

fn extent_of(line: &[u8]) -> Result<Extent> {
    let mut numbers = line.chunks_exact(8).filter_map(|bytes| Some(u64::from_le_bytes(bytes.try_into().ok()?)));
    let mut next = || numbers.next().context("reading an extent");
    Ok(Extent { at: next()?, from: next()?, length: next()?, time: u32::try_from(next()?)? })
}

pub(super) fn with_volume(sum: u32, volume: &Prepared) -> u32 {
    let parent = volume.parent.map_or(u32::MAX, VolumeId::get);
    crc32c::crc32c_append(crc32c::crc32c_append(sum, &volume.id.get().to_le_bytes()), &parent.to_le_bytes())
}

/// Whether what a volume maps with that time is never written in its place.
pub(super) const fn is_final(time: u32, times: &Times) -> bool {
    time < times.snapshotted
}

/// Writes down that all was copied, but for the volumes that differ, and that the new pool's files are as they are.
///
/// # Errors
/// When the files or the record cannot be written out.
pub fn settle(dm: &Dm, home: &Path, mut record: Record, differ: &BTreeSet<VolumeId>) -> Result<Record> {
    record.write_out(home)?;
    for volume in &mut record.volumes {
        volume.is_whole = !differ.contains(&volume.id);
    }
    record.whole = Some(record.traces(dm, home)?);
    record.write(home)?;
    Ok(record)
}

/// Makes a migration of an old pool that is at rest go on from what was prepared: from then on its files change.
///
/// # Errors
/// When it cannot, and why.
pub fn take(kit: &Kit, home: &Path, origin: &Origin, source: &Source) -> Result<Opened> {
    let record = Record::read(home)?.context("looking for what was prepared: it is gone")?;
    let seal = source.metadata.seal;
    if record.taken == Some(seal) {
        return Opened::open(home, record);
    }
    let begun = match record.unfit(&kit.dm, home, origin, &source.metadata.superblock)? {
        None => None,
        Some(Unfit::NotWhole) if !record.is_taken() => Some(record.begun(&kit.dm, home)),
        Some(unfit) => bail!("what was prepared cannot be used: {}", unfit.why()),
    };
    let record = Record { taken: Some(seal), begun, ..record };
    let opened = Opened::open(home, record)?;
    opened.record.write(home)?;
    Ok(opened)
}

/// Gives back what a migration has taken and written nothing to, by the transaction id that the new pool has, which is left as `traces`
/// say: it can be gone on from again, once it is compared where somebody may have written to its data. Returns whether it is so.
///
/// # Errors
/// When the record cannot be written.
pub fn give_back(home: &Path, record: Record, transaction_id: u64, traces: Traces) -> Result<bool> {
    let all = u32::try_from(record.volumes.len())?;
    let untouched = Mark { seal: record.seal, whole: record.begun.unwrap_or(all) };
    if Mark::of(transaction_id) != Some(untouched) {
        return Ok(false);
    }
    // The kernel writes to the metadata when the pool comes up and goes down.
    let is_same = record.whole.as_ref().is_some_and(|before| before.has_same_data(&traces));
    Record { taken: None, begun: None, whole: is_same.then_some(traces), ..record }.write(home)?;
    Ok(true)
}

/// As [`super::fill`], from what was prepared.
///
/// # Errors
/// As [`super::fill`]; when the new pool is not what was prepared.
pub fn fill_prepared(kit: &Kit, source: &Source, family: &Family, target: &Target, opened: &Opened) -> Result<()> {
    let now = Mapped::of(&source.metadata)?;
    let before = opened.before(family, &source.metadata.times()?)?;
    fill_with(kit, &Carry { before, ..Carry::all(source, &now) }, family, target)
}

/// As [`super::compare`], of what was not prepared; of all, when what was prepared was never compared.
///
/// # Errors
/// As [`super::compare`].
pub fn compare_prepared(
    kit: &Kit,
    source: &Source,
    family: &Family,
    target: &Target,
    opened: &Opened,
) -> Result<Bytes> {
    let now = Mapped::of(&source.metadata)?;
    let before = match opened.record.begun {
        None => opened.before(family, &source.metadata.times()?)?,
        Some(_) => None,
    };
    none_differs(compare_with(kit, &Carry { before, ..Carry::all(source, &now) }, family, target)?)
}

/// Returns how many bytes are left to copy, as the pool is now.
///
/// # Errors
/// When its metadata cannot be read, as it may be while it is written.
pub fn left(source: &Source, root: &Path, opened: &Opened) -> Result<Bytes> {
    let metadata = &source.metadata;
    let (now, family) = (Mapped::of(metadata)?, Family::look(root, &metadata.details()?)?);
    let before = opened.before(&family, &metadata.times()?)?;
    to_write(&Carry { before, ..Carry::all(source, &now) }, &family, opened.record.block)
}

#[cfg(test)]
#[path = "record_tests.rs"]
mod tests;
