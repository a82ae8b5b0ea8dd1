//! What a pool in use holds that nobody can change any more: read, written down, and copied.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};

use super::compare::compare_with;
use super::family::Family;
use super::fill::{Mark, Target, fill_with};
use super::holds::{Before, Carry};
use super::identity::identity;
use super::record::{
    EXTENTS, EXTENTS_NEW, FORMAT, LINE, Opened, Prepared, Record, TOO_LATE, is_final, line, with_volume,
};
use super::source::{Origin, Source};
use super::traces::Own;
use crate::kernel::dm::Dm;
use crate::kernel::fs as durable;
use crate::metadata::{BadSuperblock, BadTree, Superblock, Times};
use crate::ops::progress::may_go_on;
use crate::ops::steps::Kit;
use crate::pool::{PoolUuid, VolumeId};
use crate::units::{BlockSize, Bytes};

/// How often metadata is read that is written meanwhile.
const TIMES: usize = 20;
/// How long somebody who writes is waited for.
const BETWEEN: Duration = Duration::from_millis(50);

/// What a pool holds that nobody can change any more, while it is in use.
#[derive(Debug)]
pub struct Listed {
    /// The pool, for its data.
    pub source: Source,
    /// Its volumes.
    pub family: Family,
    pub(super) times: BTreeMap<u64, Times>,
    /// What is to be written down.
    pub opened: Opened,
    /// How many volumes could not be read while they were written, with those that lie on them.
    pub left_out: usize,
}

/// What the new pool is.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Which pool of dmpool's own it is; nothing for new loop files in Docker's own place.
    pub own: Option<Own>,
    /// Its identity.
    pub uuid: PoolUuid,
    /// How large its data is.
    pub data: Bytes,
    /// How large its metadata is.
    pub metadata: Bytes,
    /// The length of its blocks.
    pub block: BlockSize,
}

/// Reads what a pool in use holds that nobody can change any more, beside what was written down before: `now` is where it is read,
/// `origin` what it lies on when Docker is down.
///
/// # Errors
/// When the metadata cannot be read, or nothing be written; [`crate::ops::progress::Interrupted`].
pub fn list(dm: &Dm, now: &Origin, origin: &Origin, root: &Path, home: &Path, wanted: &Wanted) -> Result<Listed> {
    let (source, mut family, times) = volumes(dm, now, root)?;
    let superblock = source.metadata.superblock.clone();
    ensure!(superblock.time < TOO_LATE, "the pool's time is {}, and its mappings hold 24 bits of it", superblock.time);
    let path = home.join(EXTENTS_NEW);
    let unwritten = || format!("writing {}", path.display());
    let none = Times { transaction_id: u64::MAX, created: u32::MAX, snapshotted: 0 };
    let mut sum = 0;
    let mut found = Vec::new();
    durable::remove_durably(&path)?;
    let mut into = BufWriter::new(durable::create_file_durably(&path, Bytes::default())?);
    let mut first = 0;
    let mut left_out = BTreeSet::new();
    for member in &family.members {
        may_go_on()?;
        // What lies on one that is left out could not share its blocks with it.
        if member.parent.is_some_and(|parent| left_out.contains(&parent)) {
            left_out.insert(member.id);
            continue;
        }
        let of = times.get(&u64::from(member.id.get())).copied().unwrap_or(none);
        let mut volume = Prepared {
            id: member.id,
            parent: member.parent,
            transaction_id: of.transaction_id,
            created: of.created,
            snapshotted: of.snapshotted,
            first,
            extents: 0,
            end: 0,
            is_whole: true,
        };
        let begin = with_volume(sum, &volume);
        let mut read = |time: usize| -> Result<(Prepared, u32)> {
            into.seek(SeekFrom::Start(first * LINE as u64)).with_context(unwritten)?;
            (volume.extents, volume.end) = (0, 0);
            let mut sum = begin;
            let fresh = if time == 0 { None } else { Some(Source::open(dm, now)?) };
            let metadata = fresh.as_ref().map_or(&source.metadata, |source| &source.metadata);
            let roots = metadata.roots()?;
            for extent in metadata.extents(roots.get(&u64::from(member.id.get())).copied()) {
                let extent = extent?;
                if is_final(extent.time, &of) {
                    let line = line(&extent);
                    into.write_all(&line).with_context(unwritten)?;
                    sum = crc32c::crc32c_append(sum, &line);
                    volume.extents += 1;
                    volume.end = extent.at.saturating_add(extent.length);
                }
            }
            Ok((volume.clone(), sum))
        };
        // A tree that is written meanwhile may not be read to its end: what cannot be read is left for the switch.
        match until_read(&mut read)? {
            Ok((volume, with)) => {
                (first, sum) = (first + volume.extents, with);
                found.push(volume);
            }
            Err(_) => drop(left_out.insert(member.id)),
        }
    }
    family.members.retain(|member| !left_out.contains(&member.id));
    into.seek(SeekFrom::Start(first * LINE as u64)).with_context(unwritten)?;
    let file = into.into_inner().map_err(std::io::IntoInnerError::into_error).with_context(unwritten)?;
    file.set_len(first * LINE as u64).and_then(|()| file.sync_all()).with_context(unwritten)?;
    // What was read must not be undone by a power cut: the same mapping could come back with other contents.
    source.metadata.sync()?;
    let record = Record { seal: sum, volumes: found, ..unlisted(dm, home, origin, &superblock, wanted)? };
    Ok(Listed { source, family, times, opened: Opened::at(&path, record)?, left_out: left_out.len() })
}

/// Returns what is written down of such a pool while nothing was copied into it: the old one's superblock is that one.
///
/// # Errors
/// When nothing tells the old pool from another one.
pub fn unlisted(dm: &Dm, home: &Path, origin: &Origin, superblock: &Superblock, wanted: &Wanted) -> Result<Record> {
    let Wanted { own, uuid, data, metadata, block } = wanted.clone();
    Ok(Record {
        format: FORMAT,
        old: identity(dm, home, origin)?,
        old_block: superblock.block_size,
        time: superblock.time,
        transaction_id: superblock.transaction_id,
        uuid,
        data,
        metadata,
        block,
        seal: 0,
        volumes: Vec::new(),
        own,
        begun: None,
        whole: None,
        taken: None,
    })
}

impl Listed {
    /// Writes down what was listed, in the place of what was written down before: from then on that counts.
    ///
    /// # Errors
    /// When the files cannot be renamed or written.
    pub fn write_down(&self, home: &Path) -> Result<()> {
        let path = home.join(EXTENTS);
        fs::rename(home.join(EXTENTS_NEW), &path).with_context(|| format!("writing {}", path.display()))?;
        self.opened.record.write(home)
    }
}

/// Reads until nobody writes meanwhile; the inner error says why that cannot be read, the outer one why it is not tried again.
fn until_read<T>(read: &mut dyn FnMut(usize) -> Result<T>) -> Result<Result<T>> {
    let mut last = None;
    for time in 0..TIMES {
        may_go_on()?;
        match read(time) {
            Err(why) if is_torn(&why) => last = Some(why),
            read => return read.map(Ok),
        }
        sleep(BETWEEN);
    }
    Ok(Err(last.unwrap_or_else(|| anyhow!("it was never read"))))
}

/// Whether what was read may have been written meanwhile.
fn is_torn(why: &anyhow::Error) -> bool {
    why.downcast_ref::<BadTree>().is_some() || why.downcast_ref::<BadSuperblock>().is_some()
}

/// Reads which volumes a pool in use has, and when each was made. What they map is read later: so no block passes for shared that is not.
fn volumes(dm: &Dm, now: &Origin, root: &Path) -> Result<(Source, Family, BTreeMap<u64, Times>)> {
    let look = |_: usize| -> Result<_> {
        let source = Source::open(dm, now)?;
        let (times, details) = (source.metadata.times()?, source.metadata.details()?);
        let is_steady = Source::open(dm, now)?.metadata.seal == source.metadata.seal;
        Ok((source, times, details, is_steady))
    };
    for _ in 0..TIMES {
        let (source, times, details, is_steady) =
            until_read(&mut { look })?.context("reading metadata that is being written")?;
        if is_steady {
            let family = Family::look(root, &details)?;
            return Ok((source, family, times));
        }
        sleep(BETWEEN);
    }
    bail!("the old pool's metadata was written each of the {TIMES} times that it was read")
}

/// Fills the new pool with what was listed, from what an earlier record says of it, in whose place it is written down, and compares what was written. Returns the volumes that are
/// not what was listed: their blocks were given up meanwhile, or the copy is wrong.
///
/// # Errors
/// As [`super::fill`] and [`super::compare`].
pub fn fill_listed(
    kit: &Kit,
    listed: &Listed,
    base: Option<&Opened>,
    target: &Target,
    keeps: Option<(&Path, Bytes)>,
    home: &Path,
) -> Result<BTreeSet<VolumeId>> {
    let mark = Mark::of(target.transaction(kit)?);
    let (family, times) = (&listed.family, &listed.times);
    let carry = |before| Carry {
        data: &listed.source.data,
        block: listed.source.metadata.superblock.block_size,
        now: &listed.opened,
        before,
        seal: listed.opened.record.seal,
        keeps,
    };
    let compared = || -> Result<Option<Before<'_>>> {
        let Some(base) = base.filter(|base| base.record.whole.is_some()) else { return Ok(None) };
        Ok(base.before(family, times)?.filter(|before| Some(before.mark) == mark))
    };
    let before = match compared()? {
        Some(before) => Some(before),
        None => base.zip(mark).and_then(|(base, mark)| base.of_begun(mark, family, times)),
    };
    // Directly before anything is changed: until then what was prepared before is whole.
    if base.is_some() {
        listed.write_down(home)?;
    }
    fill_with(kit, &carry(before), family, target)?;
    // What was never compared is compared whole.
    let compared = compare_with(kit, &carry(compared()?), family, target)?;
    Ok(compared.differ.into_keys().collect())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn what_is_torn_is_read_again_and_all_else_is_an_error() {
        let torn = || anyhow::Error::from(BadSuperblock::Short(0)).context("reading the superblock").context("reading");
        let mut tries = 0;
        let mut third = |time: usize| {
            tries += 1;
            if time < 2 { Err(torn()) } else { Ok(time) }
        };
        assert_eq!(until_read(&mut third).unwrap().unwrap(), 2);
        assert_eq!(tries, 3);
        let never = until_read(&mut |_| Err::<(), _>(torn())).unwrap().unwrap_err();
        assert!(is_torn(&never));
        assert!(until_read(&mut |_| Err::<(), _>(anyhow!("no such disk"))).is_err());
    }
}
