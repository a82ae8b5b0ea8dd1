//! Block devices: sizes, nodes, who claims them, and reading past the page cache.

use std::fs::{self, File, OpenOptions};
use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::sys::stat::{Mode, SFlag, mknod};

use super::{Called, DevNo, errno_from, raw, read_if_there};
use crate::units::{Bytes, Sectors};

/// What O_DIRECT wants buffers, offsets and lengths to be multiples of: no device has larger logical blocks.
const ALIGNMENT: usize = 4096;

/// Returns the folder of a block device in sysfs: `/sys/dev/block/253:2`.
pub fn sysfs(devno: DevNo) -> PathBuf {
    PathBuf::from(format!("/sys/dev/block/{devno}"))
}

/// Returns the kernel's name of a block device (`dm-2`, `loop0`, `sda1`), or nothing when there is no such device.
pub fn name(devno: DevNo) -> Option<String> {
    let target = fs::read_link(sysfs(devno)).ok()?;
    // sysfs writes `!` where a name has a slash (cciss!c0d0).
    target.file_name().map(|name| name.to_string_lossy().replace('!', "/"))
}

/// Returns the number of the block device that a path leads to.
///
/// # Errors
/// When there is nothing, or something that is no block device.
pub fn devno_of(path: &Path) -> Result<DevNo> {
    let context = || format!("looking at {}", path.display());
    let metadata = fs::metadata(path).called("stat", path.display()).with_context(context)?;
    if !metadata.file_type().is_block_device() {
        return Err(Errno::ENOTBLK).called("stat", path.display()).with_context(context);
    }
    Ok(DevNo::from_dev_t(metadata.rdev()))
}

/// Returns the length of a block device, from sysfs, without opening it.
///
/// # Errors
/// When there is no such device.
pub fn size(devno: DevNo) -> Result<Sectors> {
    let path = sysfs(devno).join("size");
    let text = read_if_there(&path)?.ok_or(Errno::ENODEV).called("read", path.display());
    let text = text.with_context(|| format!("reading the size of block device {devno}"))?;
    let sectors = text.parse().with_context(|| format!("reading `{text}` in {} as a size", path.display()))?;
    Ok(Sectors::new(sectors))
}

/// Returns an attribute of a block device from sysfs (`dm/name`), without its end of line; nothing when there is none.
pub fn attribute(devno: DevNo, name: &str) -> Option<String> {
    read_if_there(&sysfs(devno).join(name)).ok().flatten()
}

/// Returns how many writes a block device has done since it was made, from sysfs (Documentation/block/stat.rst).
///
/// # Errors
/// When there is no such device.
pub fn writes(devno: DevNo) -> Result<u64> {
    let path = sysfs(devno).join("stat");
    let text = read_if_there(&path)?.ok_or(Errno::ENODEV).called("read", path.display());
    let text = text.with_context(|| format!("reading what block device {devno} has done"))?;
    let writes = text.split_whitespace().nth(4).and_then(|word| word.parse().ok());
    writes.with_context(|| format!("reading `{text}` in {} as what was done", path.display()))
}

/// Returns the length of an opened block device, by `BLKGETSIZE64`.
///
/// # Errors
/// When it is none.
pub fn size_of(device: &File) -> Result<Bytes> {
    let bytes = raw::block_size64(device.as_fd()).called("BLKGETSIZE64", "the opened device");
    bytes.map(Bytes::new).context("asking for the size of a block device")
}

/// Opens a block device by its number, for reading or for reading and writing. Uses a node of devtmpfs or udev if
/// one is the device, else a node made for the moment and removed at once.
///
/// # Errors
/// ENXIO or ENODEV when there is no such device; what open said.
pub fn open_by_devno(devno: DevNo, write: bool) -> Result<File> {
    open_with(devno, OpenOptions::new().read(true).write(write))
}

/// Opens a block device by its number for reading past the page cache.
///
/// # Errors
/// As [`open_by_devno`].
pub fn open_direct(devno: DevNo) -> Result<File> {
    open_with(devno, OpenOptions::new().read(true).custom_flags(libc::O_DIRECT))
}

/// Opens a block device by its number for reading and writing past the page cache.
///
/// # Errors
/// As [`open_by_devno`].
pub fn open_for_writing(devno: DevNo) -> Result<File> {
    open_with(devno, OpenOptions::new().read(true).write(true).custom_flags(libc::O_DIRECT))
}

/// Opens as [`open_for_writing`], and claims the device: nobody else can mount it, stand on it or claim it meanwhile.
///
/// # Errors
/// EBUSY when somebody has done so; as [`open_by_devno`].
pub fn open_exclusive(devno: DevNo) -> Result<File> {
    open_with(devno, OpenOptions::new().read(true).write(true).custom_flags(libc::O_DIRECT | libc::O_EXCL))
}

/// Returns whether somebody has claimed the device, or a partition of it: a mount, swap, device-mapper, md. It is opened
/// read-only, since udev looks at a device whenever a writer has closed it.
///
/// # Errors
/// As [`open_by_devno`], but for EBUSY.
pub fn is_claimed(devno: DevNo) -> Result<bool> {
    match open_with(devno, OpenOptions::new().read(true).custom_flags(libc::O_EXCL)) {
        Ok(_) => Ok(false),
        Err(e) if super::errno_of(&e) == Some(Errno::EBUSY) => Ok(true),
        Err(e) => Err(e),
    }
}

fn open_with(devno: DevNo, how: &OpenOptions) -> Result<File> {
    let mut candidates = vec![PathBuf::from(format!("/dev/block/{devno}"))];
    candidates.extend(name(devno).map(|name| Path::new("/dev").join(name)));
    for path in candidates {
        // A name may lead elsewhere (no udevd, a container's /dev): opened only if it is the device.
        if devno_of(&path).is_ok_and(|found| found == devno) {
            let file = how.open(&path).called("open", path.display());
            let file = file.with_context(|| format!("opening block device {devno}"))?;
            return verified(file, devno, &path);
        }
    }
    with_own_node(devno, how)
}

fn verified(file: File, devno: DevNo, path: &Path) -> Result<File> {
    let metadata = file.metadata().called("fstat", path.display())?;
    if !metadata.file_type().is_block_device() || DevNo::from_dev_t(metadata.rdev()) != devno {
        bail!("opening block device {devno}: {} became something else meanwhile", path.display());
    }
    Ok(file)
}

/// Makes a node that only root can use, opens it and removes it.
fn with_own_node(devno: DevNo, how: &OpenOptions) -> Result<File> {
    let context = || format!("opening block device {devno} by a node of our own");
    // /run may be mounted nodev, /dev may be read-only: the second is tried when the first will not do.
    let mut first = None;
    for dir in ["/dev", "/run"] {
        let path = Path::new(dir).join(format!(".dmpool-node-{}-{}-{}", std::process::id(), devno.major, devno.minor));
        match mknod(&path, SFlag::S_IFBLK, Mode::S_IRUSR | Mode::S_IWUSR, devno.dev_t()) {
            Ok(()) => {}
            Err(errno) => {
                first.get_or_insert(Err(errno).called("mknod", path.display()));
                continue;
            }
        }
        let file = how.open(&path);
        fs::remove_file(&path).called("unlink", path.display()).with_context(context)?;
        match file {
            Ok(file) => return verified(file, devno, &path),
            Err(e) => {
                first.get_or_insert(Err(errno_from(&e)).called("open", path.display()));
            }
        }
    }
    first.unwrap_or(Err(Errno::ENODEV).called("open", devno)).with_context(context)
}

/// Returns the block devices that stand on this one (dm, md, bcache), by sysfs; none when it is gone.
///
/// # Errors
/// When sysfs cannot be read.
pub fn holders(devno: DevNo) -> Result<Vec<DevNo>> {
    linked(devno, "holders")
}

/// Returns the block devices that this one stands on (dm, md), by sysfs; none when it is gone.
///
/// # Errors
/// When sysfs cannot be read.
pub fn slaves(devno: DevNo) -> Result<Vec<DevNo>> {
    linked(devno, "slaves")
}

fn linked(devno: DevNo, which: &str) -> Result<Vec<DevNo>> {
    let dir = sysfs(devno).join(which);
    let entries = match fs::read_dir(&dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e).called("opendir", dir.display()).context("asking what stands on a device"),
    };
    let mut found: Vec<DevNo> = entries
        .flatten()
        .filter_map(|entry| read_if_there(&entry.path().join("dev")).ok().flatten()?.parse().ok())
        .collect();
    found.sort_unstable();
    Ok(found)
}

/// Reads `length` bytes at `offset` of a file that may have been opened with O_DIRECT. Returns fewer where it ends.
///
/// # Errors
/// What the read said; EIO on a bad block.
pub fn read_direct(file: &File, offset: u64, length: usize) -> Result<Vec<u8>> {
    let align = u64::try_from(ALIGNMENT)?;
    let from = offset - offset % align;
    let lead = usize::try_from(offset - from)?;
    let span = (lead + length).next_multiple_of(ALIGNMENT);
    let mut memory = vec![0_u8; span + ALIGNMENT];
    let start = memory.as_ptr().align_offset(ALIGNMENT);
    let buffer = memory.get_mut(start..start + span).context("aligning a buffer")?;
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        let at = from + u64::try_from(filled)?;
        match file.read_at(rest, at) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => {
                let read = Err(e).called("pread", format!("byte {at}"));
                return read.with_context(|| format!("reading {length} bytes at {offset}"));
            }
        }
        // A short read ends off the grid only where the file ends, and O_DIRECT refuses to go on from there.
        if filled % ALIGNMENT != 0 {
            break;
        }
    }
    let end = filled.min(lead + length);
    Ok(buffer.get(lead..end).unwrap_or_default().to_vec())
}

/// Gives a range of a block device back, in bytes; what is whole blocks of a thin volume there reads as zeros then.
///
/// # Errors
/// EOPNOTSUPP when the device takes no discards.
pub fn discard(device: &File, offset: u64, length: u64) -> Result<()> {
    let discarded = raw::discard(device.as_fd(), offset, length).called("BLKDISCARD", format!("byte {offset}"));
    discarded.with_context(|| format!("discarding {length} bytes at {offset}"))
}

/// Writes bytes to a file that may have been opened with O_DIRECT, in one write. Offset and length are multiples of
/// 4096.
///
/// # Errors
/// What the write said; EIO when it took fewer bytes.
pub fn write_direct(file: &File, offset: u64, bytes: &[u8]) -> Result<()> {
    let context = || format!("writing {} bytes at {offset}", bytes.len());
    let mut memory = vec![0_u8; bytes.len() + ALIGNMENT];
    let start = memory.as_ptr().align_offset(ALIGNMENT);
    let buffer = memory.get_mut(start..start + bytes.len()).context("aligning a buffer")?;
    buffer.copy_from_slice(bytes);
    let written = file.write_at(buffer, offset).called("pwrite", format!("byte {offset}")).with_context(context)?;
    if written == bytes.len() {
        Ok(())
    } else {
        Err(Errno::EIO).called("pwrite", format!("byte {offset}")).with_context(context)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_no_block_device_is_told_so() {
        let error = devno_of(Path::new("/dev/null")).unwrap_err();
        assert_eq!(super::super::errno_of(&error), Some(Errno::ENOTBLK));
        let error = devno_of(Path::new("/dev/no such device")).unwrap_err();
        assert_eq!(super::super::errno_of(&error), Some(Errno::ENOENT));
        let error = size(DevNo::new(4000, 99)).unwrap_err();
        assert_eq!(super::super::errno_of(&error), Some(Errno::ENODEV));
        assert_eq!(name(DevNo::new(4000, 99)), None);
        assert_eq!(holders(DevNo::new(4000, 99)).unwrap(), []);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn any_range_reads_as_it_was_written(size in 0_usize..20_000, offset in 0_usize..24_000, length in 0_usize..24_000) {
            let bytes: Vec<u8> = (0..=255_u8).cycle().take(size).collect();
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(&bytes).unwrap();
            let read = read_direct(&file, u64::try_from(offset).unwrap(), length).unwrap();
            let wanted: Vec<u8> = bytes.into_iter().skip(offset).take(length).collect();
            prop_assert_eq!(read, wanted);
        }
    }
}
