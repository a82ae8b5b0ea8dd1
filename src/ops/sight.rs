//! What operations and their steps look at again and again: a live pool, its superblock, the loops on a file.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use crate::kernel::dm::{Dm, DmId, DmInfo};
use crate::kernel::fs::is_network;
use crate::kernel::loopdev::{self, LoopInfo};
use crate::kernel::{ask, block, mounts};
use crate::metadata::{BLOCK, BadSuperblock, Superblock};
use crate::ops::steps::Part;
use crate::pool::{DevNo, PoolStatus, PoolTable, THIN_POOL};
use crate::units::Bytes;

/// A pool that the kernel has.
#[derive(Clone, Debug)]
pub struct Live {
    /// Its name, uuid, number and state.
    pub info: DmInfo,
    /// Its active table.
    pub table: PoolTable,
}

/// Returns the live pool of that dm name, or nothing when the kernel has no such device, or one without a table.
///
/// # Errors
/// When the device is there and is no thin pool, or the kernel does not answer.
pub fn live(dm: &Dm, name: &str) -> Result<Option<Live>> {
    let id = DmId::name(name);
    let Some(info) = dm.info(&id)? else { return Ok(None) };
    let lines = dm.table(&id)?;
    if lines.is_empty() {
        // A death between the making of a device and its table leaves it empty.
        return Ok(None);
    }
    let [line] = lines.as_slice() else {
        bail!("`{name}` ({}) has a table of {} lines; a thin pool's has one", info.devno, lines.len());
    };
    if line.kind != THIN_POOL {
        bail!("`{name}` ({}) is a {} device, no thin pool", info.devno, line.kind);
    }
    let table = PoolTable::parse(line.length, &line.params)?;
    Ok(Some(Live { info, table }))
}

/// Returns the status of a pool as the kernel gives it now, without making it commit.
///
/// # Errors
/// When the kernel does not answer with one line.
pub fn status(dm: &Dm, name: &str) -> Result<PoolStatus> {
    let lines = dm.status(&DmId::name(name))?;
    let line = lines.first().with_context(|| format!("reading the status of `{name}`: it has no table"))?;
    Ok(PoolStatus::parse(&line.params))
}

/// Returns the superblock on a metadata device, read past the page cache.
///
/// # Errors
/// When the device cannot be read; the inner result says what is wrong with the bytes.
pub fn superblock_on(device: DevNo) -> Result<Result<Superblock, BadSuperblock>> {
    let file = block::open_direct(device)?;
    let bytes = block::read_direct(&file, 0, BLOCK)?;
    Ok(Superblock::parse(&bytes))
}

/// Returns [`superblock_on`] of a device that might not answer: one that somebody suspended keeps its reader for ever.
///
/// # Errors
/// In words: what is wrong with the device or with the bytes.
pub fn superblock_within_limit(device: DevNo) -> Result<Superblock, String> {
    let bytes = ask::within_limit(|| {
        block::open_direct(device).and_then(|file| block::read_direct(&file, 0, BLOCK)).map_err(|e| format!("{e:#}"))
    });
    Superblock::parse(&bytes??).map_err(|bad| bad.to_string())
}

/// Returns the superblock in a metadata file: coherent with a loop device on it, which writes through the page cache.
///
/// # Errors
/// When the file cannot be read; the inner result says what is wrong with the bytes.
pub fn superblock_in(path: &Path) -> Result<Result<Superblock, BadSuperblock>> {
    use std::io::Read;
    use std::os::unix::fs::FileTypeExt;
    let found = std::fs::metadata(path).with_context(|| format!("looking at {}", path.display()))?;
    // Anything else might keep its reader for ever.
    ensure!(found.is_file() || found.file_type().is_block_device(), "{} is neither file nor disk", path.display());
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|f| f.take(4096).read_to_end(&mut bytes))
        .with_context(|| format!("reading the superblock in {}", path.display()))?;
    Ok(Superblock::parse(&bytes))
}

/// Returns how many bytes of one part a pool needs: the larger of what its superblock records and, when it is live,
/// what its table and status say.
///
/// # Errors
/// When the superblock cannot be read, so that nobody knows.
pub fn needed(dm: &Dm, pool: &str, part: Part, metadata_file: &Path) -> Result<Bytes> {
    match needed_by_live(dm, pool, part)? {
        Some(needed) => Ok(needed),
        None => recorded(superblock_in(metadata_file)?, pool, part),
    }
}

/// As [`needed`], of a live pool; nothing when it is not.
///
/// # Errors
/// As [`needed`].
pub fn needed_by_live(dm: &Dm, pool: &str, part: Part) -> Result<Option<Bytes>> {
    let Some(live) = live(dm, pool)? else { return Ok(None) };
    let mut needed = recorded(superblock_on(live.table.metadata)?, pool, part)?;
    if part == Part::Data {
        needed = needed.max(live.table.length.bytes());
    }
    if let Some(working) = status(dm, pool)?.working() {
        needed = needed.max(match part {
            Part::Data => live.table.block_size.bytes_of(working.data_total),
            Part::Metadata => working.metadata_total.bytes(),
        });
    }
    Ok(Some(needed))
}

/// Returns how many bytes of one part a superblock counts; none when it was never written.
fn recorded(superblock: Result<Superblock, BadSuperblock>, pool: &str, part: Part) -> Result<Bytes> {
    match (superblock, part) {
        (Err(BadSuperblock::Zero), _) => Ok(Bytes::default()),
        (Err(e), _) => Err(e).with_context(|| format!("reading the superblock of `{pool}`")),
        (Ok(sb), Part::Data) => Ok(sb.block_size.bytes_of(sb.data_total)),
        (Ok(sb), Part::Metadata) => Ok(sb.metadata_total.bytes()),
    }
}

/// Returns the loop devices that a file is attached to.
///
/// # Errors
/// When the file is missing, or the loop devices cannot be listed.
pub fn loops_on(path: &Path) -> Result<Vec<LoopInfo>> {
    let found = std::fs::metadata(path).with_context(|| format!("looking at {}", path.display()))?;
    loopdev::users_of(DevNo::from_dev_t(found.dev()), found.ino())
}

/// Returns what is attached to each device that is a loop device; nothing to another.
///
/// The kernel asks the file system of the backing file (`loop_get_status`, drivers/block/loop.c): this machine's own
/// answer from memory, any other is asked within the limit.
///
/// # Errors
/// In words: a device cannot be asked, or the file system did not answer.
pub fn loops_at(devices: [DevNo; 2]) -> [Result<Option<LoopInfo>, String>; 2] {
    let paths = devices.map(loopdev::backing_path);
    let may_hang = paths.iter().flatten().next().is_some()
        && mounts::own().map_or(true, |mounts| {
            let of = |path: &PathBuf| mounts::mount_of(&mounts, path).is_none_or(|m| is_network(&m.fs_type));
            paths.iter().flatten().any(of)
        });
    let ask = |device| loopdev::info(device).map_err(|e| format!("{e:#}"));
    let [data, metadata] = devices;
    if !may_hang {
        return [ask(data), ask(metadata)];
    }
    let mut answers = ask::in_turn(&mut [&mut || ask(data), &mut || ask(metadata)]).into_iter();
    [data, metadata].map(|device| {
        let answer = answers.next().unwrap_or(Ok(Ok(None)));
        answer.unwrap_or_else(|why| Err(format!("what is attached to loop device {device}: {why}")))
    })
}
