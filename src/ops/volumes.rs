//! The volumes of a pool that dmpool made: their record, their devices, and what the pool's metadata knows of them.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};

use crate::error::Outcome;
use crate::kernel::dm::{Dm, DmId, DmInfo};
use crate::kernel::{ask, block, fs};
use crate::metadata::{BLOCK, Details, Superblock, devices as devices_in, mapping};
use crate::ops::registry::BadEntry;
use crate::ops::steps::MapVolume;
use crate::ops::{State, members, sight};
use crate::pool::{DevNo, Entry, PoolName, PoolUuid, THIN, Volume, VolumeRecord, VolumeState};
use crate::units::{Bytes, DataBlocks, META_BLOCK_BYTES, MetaBlock, Sectors};

/// More than any record that dmpool writes has.
const MAX_RECORD: Bytes = Bytes::new(8 << 20);

/// How many volumes a pool may have with dmpool: twice their record is well below what is read of one.
pub const MAX_VOLUMES: usize = 16384;

/// How often metadata is read again that was written meanwhile.
const READS: usize = 20;

/// A device that the kernel has on a pool: a volume that is active, whoever made it so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ThinDevice {
    /// What the kernel says of it.
    pub info: DmInfo,
    /// Which volume it is.
    pub id: u64,
    /// How long its table makes it.
    pub length: Sectors,
}

/// What a pool's metadata says of its volumes, at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// The pool's transaction id.
    pub transaction: u64,
    /// How many blocks of its data are in use.
    pub data_used: DataBlocks,
    /// The volumes, by their ids.
    pub volumes: BTreeMap<u64, Details>,
}

impl Known {
    /// What is known of a pool that was never used.
    pub const fn nothing() -> Self {
        Self { transaction: 0, data_used: DataBlocks::new(0), volumes: BTreeMap::new() }
    }
}

/// Returns where the record of a pool's volumes is.
pub fn path_of(state: &State, pool: &PoolName) -> PathBuf {
    state.volumes.join(format!("{pool}.toml"))
}

/// Reads the record of a pool's volumes; one without volumes when there is none.
///
/// # Errors
/// Refused when the file is no record of this format for this pool.
pub fn read(state: &State, entry: &Entry) -> Outcome<VolumeRecord> {
    look(state, &entry.name, &entry.uuid).map_err(|bad| bad.failure())
}

/// As [`read`], for who goes on without the record.
///
/// # Errors
/// What is wrong with the file.
pub fn look(state: &State, pool: &PoolName, uuid: &PoolUuid) -> Result<VolumeRecord, BadEntry> {
    let path = path_of(state, pool);
    let blank = || {
        let state = VolumeState { transaction: 0, volumes: Vec::new() };
        VolumeRecord::new(pool.clone(), uuid.clone(), vec![state])
    };
    let record = match fs::read_limited(&path, MAX_RECORD) {
        Ok(Some(bytes)) => parse(&bytes, pool, uuid),
        Ok(None) => Ok(blank()),
        Err(e) => Err(e.root_cause().to_string()),
    };
    record.map_err(|why| BadEntry { name: pool.clone(), path, why })
}

/// Writes a record: into a temporary file, synced, renamed, the directory synced. One that says nothing is removed.
///
/// # Errors
/// When the directory cannot be made or the file not written.
pub fn write(state: &State, record: &VolumeRecord) -> Result<()> {
    if record.is_blank() {
        return remove(state, &record.pool);
    }
    let text = toml::to_string_pretty(record).context("writing the record of volumes as TOML")?;
    fs::make_dir_durably(&state.volumes, 0o755)?;
    fs::write_replace(&path_of(state, &record.pool), text.as_bytes(), 0o644)
}

/// Removes a record; one that is not there is removed already.
///
/// # Errors
/// When the file cannot be removed.
pub fn remove(state: &State, pool: &PoolName) -> Result<()> {
    fs::remove_durably(&path_of(state, pool)).map(drop)
}

pub(crate) fn parse(bytes: &[u8], pool: &PoolName, uuid: &PoolUuid) -> Result<VolumeRecord, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "it is not text".to_owned())?;
    let table: toml::Table = text.parse().map_err(|e: toml::de::Error| format!("it is not TOML: {}", e.message()))?;
    let known = VolumeRecord::FORMAT;
    match table.get("format").and_then(toml::Value::as_integer) {
        Some(format) if format == i64::from(known) => {}
        Some(format) if format > i64::from(known) => {
            return Err(format!("its format is {format}, this dmpool knows {known}: a newer dmpool wrote it"));
        }
        _ => return Err("it has no format number: dmpool did not write it".to_owned()),
    }
    let record: VolumeRecord = toml::from_str(text).map_err(|e| e.message().to_owned())?;
    if record.pool != *pool || record.uuid != *uuid {
        return Err(format!("it is the record of another pool, `{}`", record.pool));
    }
    for state in &record.state {
        let mut ids: Vec<_> = state.volumes.iter().map(|volume| volume.id).collect();
        let mut names: Vec<_> = state.volumes.iter().map(|volume| &volume.name).collect();
        ids.sort_unstable();
        names.sort_unstable();
        ids.dedup();
        names.dedup();
        if ids.len() < state.volumes.len() || names.len() < state.volumes.len() {
            return Err("two volumes in it have one name or one id".to_owned());
        }
    }
    Ok(record)
}

/// Returns the devices that the kernel has on a pool, by their volume's id.
///
/// # Errors
/// When the kernel does not answer.
pub fn devices(dm: &Dm, pool: DevNo) -> Result<Vec<ThinDevice>> {
    let mut found = Vec::new();
    for devno in block::holders(pool)? {
        let by = DmId::DevNo(devno);
        // What is not of device-mapper, or went away meanwhile, is no volume.
        let Ok(Some(info)) = dm.info(&by) else { continue };
        let Ok(lines) = dm.table(&by) else { continue };
        let [line] = lines.as_slice() else { continue };
        if let (THIN, Some((below, id))) = (line.kind.as_str(), parse_table(&line.params))
            && below == pool
        {
            found.push(ThinDevice { info, id, length: line.length });
        }
    }
    found.sort_by_key(|device| device.id);
    Ok(found)
}

/// Reads a thin target's parameters: `POOL ID [ORIGIN]`.
pub(crate) fn parse_table(params: &str) -> Option<(DevNo, u64)> {
    let mut words = params.split_whitespace();
    Some((words.next()?.parse().ok()?, words.next()?.parse().ok()?))
}

/// Returns what the metadata on a device says of the pool's volumes, as it was last committed.
///
/// The kernel writes a changed block to a free place and the superblock last, and uses no place again before that
/// (drivers/md/persistent-data/dm-transaction-manager.c): as long as the superblock stays, so does all that it leads to.
///
/// # Errors
/// When the device cannot be read, what is on it is no pool's metadata, or it changes all the while.
pub fn known(metadata: DevNo) -> Result<Known> {
    known_in(&block::open_direct(metadata)?)
}

/// As [`known`], of what has been opened: also of the file that carries the metadata of a pool that is down.
///
/// # Errors
/// As [`known`].
pub fn known_in(file: &File) -> Result<Known> {
    known_by(|offset| block::read_direct(file, offset, BLOCK))
}

/// As [`known`], of metadata whose block at a byte `read` returns.
///
/// # Errors
/// As [`known`].
pub fn known_by(read: impl Fn(u64) -> Result<Vec<u8>>) -> Result<Known> {
    let (superblock, volumes) =
        read_whole(read, |superblock, block| devices_in(superblock, block).map_err(anyhow::Error::new))?;
    let Superblock { transaction_id: transaction, data_used, .. } = superblock;
    Ok(Known { transaction, data_used, volumes })
}

/// Returns the superblock, and what `look` finds in the blocks that it leads to, both of one moment.
fn read_whole<T>(
    read: impl Fn(u64) -> Result<Vec<u8>>,
    look: impl Fn(&Superblock, &dyn Fn(MetaBlock) -> Result<Vec<u8>, String>) -> Result<T>,
) -> Result<(Superblock, T)> {
    let mut why = None;
    for _ in 0..READS {
        let head = read(0)?;
        let superblock = Superblock::parse(&head)?;
        let block = |at: MetaBlock| {
            let offset = at.get().checked_mul(META_BLOCK_BYTES).ok_or("it is beyond every disk")?;
            read(offset).map_err(|e| format!("{e:#}"))
        };
        let found = look(&superblock, &block);
        if read(0)? == head {
            return Ok((superblock, found?));
        }
        why = found.err();
    }
    match why {
        Some(bad) => Err(bad.context("reading metadata that is being written")),
        None => bail!("the metadata was written each of the {READS} times that it was read"),
    }
}

/// Asks for [`known`] of what might not answer.
///
/// # Errors
/// In words: what is wrong with the device or with what is on it.
pub fn known_within_limit(look: impl Fn() -> Result<Known>) -> Result<Known, String> {
    type Answer = Result<(u64, u64, Vec<(u64, u64, u64)>), String>;
    let answer: Answer = ask::within_limit(|| {
        let known = look().map_err(|e| format!("{e:#}"))?;
        let volumes = known.volumes.iter().map(|(id, d)| (*id, d.mapped.get(), d.transaction_id)).collect();
        Ok((known.transaction, known.data_used.get(), volumes))
    })?;
    let (transaction, data_used, volumes) = answer?;
    let details = |(id, mapped, transaction_id)| (id, Details { mapped: DataBlocks::new(mapped), transaction_id });
    let data_used = DataBlocks::new(data_used);
    Ok(Known { transaction, data_used, volumes: volumes.into_iter().map(details).collect() })
}

/// Returns what a registered pool's metadata says of its volumes, live or down.
///
/// The kernel writes a superblock as soon as a pool is made, and `create` brings it up: one of zeros was erased.
///
/// # Errors
/// In words: its metadata is not here, cannot be read or does not answer.
pub fn in_pool(dm: &Dm, entry: &Entry) -> Result<Known, String> {
    if let Some(live) = sight::live(dm, entry.name.as_str()).map_err(|e| format!("{e:#}"))? {
        return match live.info.suspended {
            true => Err("the pool is suspended".to_owned()),
            false => known_within_limit(|| known(live.table.metadata)),
        };
    }
    known_within_limit(|| match entry.files() {
        Some([metadata, _]) => fs::open_existing(&metadata.file).and_then(|file| known_in(&file)),
        None => {
            let assembly = members::assembled(dm, &entry.uuid)?;
            known_by(|offset| members::metadata_block(&assembly, offset))
        }
    })
}

/// Returns of every volume of a pool, by its id, how many blocks there are up to the last one that it maps; of what might
/// not answer.
///
/// # Errors
/// In words: what is wrong with the metadata's device or with what is on it.
pub fn ends_within_limit(metadata: DevNo) -> Result<BTreeMap<u64, DataBlocks>, String> {
    let answer: Result<Vec<(u64, u64)>, String> = ask::within_limit(|| {
        let found = ends(metadata).map_err(|e| format!("{e:#}"))?;
        Ok(found.into_iter().map(|(id, end)| (id, end.get())).collect())
    })?;
    Ok(answer?.into_iter().map(|(id, end)| (id, DataBlocks::new(end))).collect())
}

fn ends(metadata: DevNo) -> Result<BTreeMap<u64, DataBlocks>> {
    let file = block::open_direct(metadata)?;
    read_whole(
        |offset| block::read_direct(&file, offset, BLOCK),
        |superblock, block| mapping::ends(superblock, block).map_err(anyhow::Error::new),
    )
    .map(|(_, ends)| ends)
}

/// Returns the step that makes a volume's device.
pub fn device_of(entry: &Entry, volume: &Volume) -> MapVolume {
    MapVolume {
        name: volume.name.device(&entry.name),
        uuid: entry.uuid.volume(volume.id),
        pool: entry.name.to_string(),
        id: volume.id,
        length: volume.size.sectors(),
    }
}

/// Changes the record of a pool: what stands in it becomes what `change` makes of it.
///
/// # Errors
/// When the record cannot be used or written, or `change` does not find in it what it needs.
pub fn update(
    state: &State,
    pool: &PoolName,
    uuid: &PoolUuid,
    change: impl FnOnce(&VolumeRecord) -> Option<Vec<VolumeState>>,
) -> Result<()> {
    let record = look(state, pool, uuid).map_err(|bad| bad.failure())?;
    let states = change(&record);
    ensure!(states.is_some(), "the record of the volumes is of another transaction id than the pool's");
    write(state, &VolumeRecord { state: states.unwrap_or_default(), ..record })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::pool::{VolumeId, VolumeName};

    fn record() -> VolumeRecord {
        let volume = |id: u32, name: &str| Volume {
            name: VolumeName::new(name).unwrap(),
            id: VolumeId::new(id).unwrap(),
            size: Bytes::new(1 << 30),
            origin: None,
        };
        let before = VolumeState { transaction: 6, volumes: vec![] };
        let now = VolumeState { transaction: 7, volumes: vec![volume(1, "web"), volume(2, "db")] };
        VolumeRecord::new(PoolName::new("p0").unwrap(), PoolUuid::from_random(7), vec![before, now])
    }

    #[test]
    fn a_record_comes_back_as_it_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let state = State::below(dir.path());
        let record = record();
        let read = || look(&state, &record.pool, &record.uuid).unwrap();
        assert!(read().is_blank());
        write(&state, &record).unwrap();
        assert_eq!(read(), record);
        assert_eq!(read().at(7).unwrap().volumes.len(), 2);
        assert_eq!(read().at(8), None);
        update(&state, &record.pool, &record.uuid, |_| Some(Vec::new())).unwrap();
        assert!(!path_of(&state, &record.pool).exists(), "a record that says nothing goes");
    }

    #[test]
    fn bad_records_are_named() {
        let good = toml::to_string_pretty(&record()).unwrap();
        for (text, why) in [
            (String::new(), "no format number"),
            ("[a".to_owned(), "not TOML"),
            ("format = 99".to_owned(), "a newer dmpool wrote it"),
            ("format = 1".to_owned(), "missing field"),
            (good.replace("\"p0\"", "\"p1\""), "another pool, `p1`"),
            (good.replace("id = 2", "id = 1"), "one name or one id"),
            (good.replace("\"db\"", "\"web\""), "one name or one id"),
            (good.replace("\"db\"", "\"../x\""), "not a volume name"),
            (format!("surprise = 1\n{good}"), "unknown field"),
        ] {
            let error = parse(text.as_bytes(), &record().pool, &record().uuid).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn a_thin_table_names_its_pool_and_its_volume() {
        assert_eq!(parse_table("253:0 7"), Some((DevNo::new(253, 0), 7)));
        assert_eq!(parse_table("253:0 7 253:9"), Some((DevNo::new(253, 0), 7)));
        assert_eq!(parse_table("253:0"), None);
    }
}
