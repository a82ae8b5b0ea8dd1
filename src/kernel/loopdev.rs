//! Loop devices: attaching files so that a death leaves no litter, and telling who has which file.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use loopdev::LoopDevice;
use nix::errno::Errno;
use nix::sys::stat::{Mode, SFlag, mknod};
use serde::{Deserialize, Serialize};

use super::{Called, DevNo, block, errno_from, raw, read_if_there, read_whole};
use crate::units::{Bytes, Sectors};

/// Major number of loop devices (`LOOP_MAJOR`, linux/major.h).
pub const MAJOR: u32 = 7;

/// Number of `/dev/loop-control` among the misc devices (`LOOP_CTRL_MINOR`, linux/miscdevice.h).
const CONTROL: (&str, u64) = ("/dev/loop-control", 237);

/// How often a free device may be taken by somebody else between asking for it and binding it.
const RACES: usize = 64;

const LO_DEVICE: Range<usize> = 0..8;
const LO_INODE: Range<usize> = 8..16;
const LO_RDEVICE: Range<usize> = 16..24;
const LO_OFFSET: Range<usize> = 24..32;
const LO_SIZELIMIT: Range<usize> = 32..40;
const LO_FLAGS: Range<usize> = 52..56;
const LO_FILE_NAME: Range<usize> = 56..120;
const READ_ONLY: u32 = 1;
const AUTOCLEAR: u32 = 4;

/// A loop device that was attached here and is kept open: with autoclear it goes away when this is dropped, unless
/// somebody else has opened it by then (a live table of device-mapper has).
#[derive(Debug)]
pub struct LoopHeld {
    /// Its node: `/dev/loop3`.
    pub path: PathBuf,
    /// Its number: `7:3`.
    pub devno: DevNo,
    device: LoopDevice,
}

impl LoopHeld {
    /// Detaches it, now or when its last user closes it, whether it has autoclear or not.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn detach(self) -> Result<()> {
        raw::loop_clear(borrowed(&self.device))
            .called("LOOP_CLR_FD", self.path.display())
            .with_context(|| format!("detaching {}", self.path.display()))
    }
}

/// What the kernel says about an attached loop device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoopInfo {
    /// The loop device's number.
    pub devno: DevNo,
    /// The file system that the backing file is on.
    pub backing_dev: DevNo,
    /// The backing file's inode.
    pub backing_inode: u64,
    /// The device that the backing file is, when it is one.
    pub backing_rdev: Option<DevNo>,
    /// Where the backing file was when it was last named; nothing when sysfs does not say.
    pub backing_path: Option<PathBuf>,
    /// Whether the backing file was unlinked, and has not been put back where it was.
    pub deleted: bool,
    /// Where in the file the device begins.
    pub offset: Bytes,
    /// How much of the file it is at most; zero means all.
    pub size_limit: Bytes,
    /// Whether it goes away with its last user.
    pub autoclear: bool,
    /// Whether it refuses writes.
    pub read_only: bool,
    /// Its length now; it does not follow the file by itself.
    pub size: Sectors,
}

impl LoopInfo {
    /// Whether the file behind it has this name, through no link in its place.
    pub fn is_at(&self, path: &Path) -> bool {
        is_named(path, self.backing_dev, self.backing_inode)
    }

    /// Returns the device's usual node: `/dev/loop3`.
    pub fn path(&self) -> PathBuf {
        node(self.devno.minor)
    }
}

/// Attaches a file to a free loop device.
///
/// The file is the one that was opened, whatever its path leads to by now; `path` is for messages and for `losetup`.
///
/// # Errors
/// When no device is free or can be made (EMFILE, ENOSPC), the kernel refuses the file, or another file ended up attached.
pub fn attach(file: &File, path: &Path, autoclear: bool, read_only: bool) -> Result<LoopHeld> {
    let context = || format!("attaching {} to a loop device", path.display());
    let wanted = file.metadata().called("fstat", path.display()).with_context(context)?;
    let control = control().with_context(context)?;
    for _ in 0..RACES {
        let minor = raw::loop_get_free(control.as_fd()).called("LOOP_CTL_GET_FREE", CONTROL.0).with_context(context)?;
        let devno = DevNo::new(MAJOR, u32::try_from(minor).with_context(context)?);
        let node = ensure_node(devno).with_context(context)?;
        let opened = LoopDevice::open(&node);
        let bound = opened.and_then(|device| bind(&device, file, path, autoclear, read_only).map(|()| device));
        let device = match bound {
            Ok(device) => device,
            // Somebody else bound it, or it was removed again: the next one.
            Err(e) if matches!(errno_from(&e), Errno::EBUSY | Errno::ENXIO | Errno::ENODEV) => continue,
            Err(e) => return Err(e).called("LOOP_SET_FD", node.display()).with_context(context),
        };
        let held = LoopHeld { path: node, devno, device };
        let found = read_info(borrowed(&held.device), devno).with_context(context)?;
        if (found.backing_dev, found.backing_inode) != (DevNo::from_dev_t(wanted.dev()), wanted.ino()) {
            let node = held.path.display();
            bail!("attaching {} to {node}: it has {:?} attached instead", path.display(), found.backing_path);
        }
        return Ok(held);
    }
    Err(Errno::EBUSY).called("LOOP_SET_FD", format!("{RACES} loop devices in turn")).with_context(context)
}

/// Binds in one call where the kernel can, so that no moment exists in which a death would leave the device attached.
fn bind(device: &LoopDevice, file: &File, path: &Path, autoclear: bool, read_only: bool) -> io::Result<()> {
    let flags = if autoclear { AUTOCLEAR } else { 0 } | if read_only { READ_ONLY } else { 0 };
    let config = config(file.as_raw_fd().cast_unsigned(), flags, path);
    match raw::loop_configure(borrowed(device), &config) {
        Ok(()) => Ok(()),
        // Before 5.8: what it does not know it calls EINVAL; what is wrong with the file the older calls say again.
        Err(Errno::EINVAL | Errno::ENOTTY) => {
            device.with().autoclear(autoclear).read_only(read_only).attach_fd(file.as_raw_fd())
        }
        Err(errno) => Err(errno.into()),
    }
}

/// Returns a `struct loop_config` (linux/loop.h): file, block size 0 (the kernel's choice), then a `struct loop_info64`.
fn config(fd: u32, flags: u32, path: &Path) -> [u8; raw::LOOP_CONFIG] {
    let info = raw::LOOP_CONFIG - raw::LOOP_INFO64 - 64;
    let mut config = [0_u8; raw::LOOP_CONFIG];
    let mut put = |at: usize, bytes: &[u8]| {
        for (slot, byte) in config.iter_mut().skip(at).zip(bytes) {
            *slot = *byte;
        }
    };
    put(0, &fd.to_ne_bytes());
    put(info + LO_FLAGS.start, &flags.to_ne_bytes());
    let name = path.as_os_str().as_bytes();
    put(info + LO_FILE_NAME.start, name.get(..LO_FILE_NAME.len() - 1).unwrap_or(name));
    config
}

/// Returns what is attached to a loop device, or nothing when nothing is, or there is no such device.
///
/// # Errors
/// When it cannot be opened for another reason.
pub fn info(devno: DevNo) -> Result<Option<LoopInfo>> {
    // A dm device hands the question down: a linear one over a loop device would answer with that one's file.
    if devno.major != MAJOR {
        return Ok(None);
    }
    let attached = || -> Result<LoopInfo> {
        let device = block::open_by_devno(devno, false)?;
        read_info(device.as_fd(), devno)
    };
    match attached() {
        Ok(info) => Ok(Some(info)),
        Err(e) if matches!(super::errno_of(&e), Some(Errno::ENXIO | Errno::ENODEV)) => Ok(None),
        Err(e) => Err(e).with_context(|| format!("asking what is attached to loop device {devno}")),
    }
}

fn read_info(device: BorrowedFd<'_>, devno: DevNo) -> Result<LoopInfo> {
    let raw = raw::loop_get_status(device).called("LOOP_GET_STATUS64", devno)?;
    let long = |at: Range<usize>| raw.get(at).and_then(|b| b.try_into().ok()).map_or(0, u64::from_ne_bytes);
    let flags = raw.get(LO_FLAGS).and_then(|b| b.try_into().ok()).map_or(0, u32::from_ne_bytes);
    let (backing_path, unlinked) = backing_file(devno)?;
    let rdev = DevNo::from_kernel(long(LO_RDEVICE));
    let (backing_dev, backing_inode) = (DevNo::from_kernel(long(LO_DEVICE)), long(LO_INODE));
    // The name that it was opened by stays unlinked for the kernel, also when another one of it has been put there.
    let deleted = unlinked && !backing_path.as_ref().is_some_and(|path| is_named(path, backing_dev, backing_inode));
    Ok(LoopInfo {
        devno,
        backing_dev,
        backing_inode,
        backing_rdev: (rdev != DevNo::new(0, 0)).then_some(rdev),
        backing_path,
        deleted,
        offset: Bytes::new(long(LO_OFFSET)),
        size_limit: Bytes::new(long(LO_SIZELIMIT)),
        autoclear: flags & AUTOCLEAR != 0,
        read_only: flags & READ_ONLY != 0,
        size: block::size(devno)?,
    })
}

/// Whether a file has this name. A link to it below /proc, or a mount of it, is none: it goes with the file's last user.
fn is_named(path: &Path, on: DevNo, inode: u64) -> bool {
    fs::symlink_metadata(path).is_ok_and(|at| at.nlink() > 0 && (DevNo::from_dev_t(at.dev()), at.ino()) == (on, inode))
}

/// Returns where the file behind a loop device was when it was last named, without opening the device; nothing when
/// nothing is attached, or the device is no loop device.
pub fn backing_path(devno: DevNo) -> Option<PathBuf> {
    backing_file(devno).ok()?.0.filter(|_| devno.major == MAJOR)
}

fn backing_file(devno: DevNo) -> Result<(Option<PathBuf>, bool)> {
    let path = block::sysfs(devno).join("loop/backing_file");
    match read_whole(&path) {
        Ok(bytes) => {
            let (path, deleted) = parse_backing_file(&bytes);
            Ok((Some(path), deleted))
        }
        Err(e) if super::is_gone(&e) => Ok((None, false)),
        Err(e) => Err(e).called("read", path.display()).context("reading the name of a backing file"),
    }
}

/// Splits what sysfs says: the kernel appends ` (deleted)` to the name of a file without one (`d_path`).
pub(crate) fn parse_backing_file(bytes: &[u8]) -> (PathBuf, bool) {
    let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    let (name, deleted) = match bytes.strip_suffix(b" (deleted)") {
        Some(name) => (name, true),
        None => (bytes, false),
    };
    (PathBuf::from(std::ffi::OsStr::from_bytes(name)), deleted)
}

/// Returns all attached loop devices, by number. One that goes away meanwhile is left out.
///
/// # Errors
/// When sysfs cannot be read, or a device cannot be asked.
pub fn list() -> Result<Vec<LoopInfo>> {
    let dir = Path::new("/sys/block");
    let entries = fs::read_dir(dir).called("opendir", dir.display()).context("listing loop devices")?;
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.called("readdir", dir.display()).context("listing loop devices")?;
        let path = entry.path();
        // Only what is attached has the folder `loop`.
        if !path.join("loop/backing_file").exists() {
            continue;
        }
        let devno = read_if_there(&path.join("dev"))?.and_then(|text| text.parse().ok());
        if let Some(devno) = devno {
            found.extend(info(devno)?);
        }
    }
    found.sort_by_key(|info| info.devno);
    Ok(found)
}

/// Returns the loop devices that have the file attached which `stat` calls `dev` and `inode`.
///
/// # Errors
/// As [`list`].
pub fn users_of(dev: DevNo, inode: u64) -> Result<Vec<LoopInfo>> {
    let mut users = list()?;
    users.retain(|info| info.backing_dev == dev && info.backing_inode == inode);
    Ok(users)
}

/// Tells a loop device to look at its file's size again, and returns the size it has then.
///
/// # Errors
/// What the kernel said.
pub fn set_capacity(devno: DevNo) -> Result<Sectors> {
    let device = block::open_by_devno(devno, false)?;
    raw::loop_set_capacity(device.as_fd())
        .called("LOOP_SET_CAPACITY", devno)
        .with_context(|| format!("telling loop device {devno} its file's new size"))?;
    block::size(devno)
}

/// Detaches a loop device, now or when its last user closes it.
///
/// # Errors
/// ENXIO when nothing is attached.
pub fn detach(devno: DevNo) -> Result<()> {
    let device = block::open_by_devno(devno, false)?;
    raw::loop_clear(device.as_fd())
        .called("LOOP_CLR_FD", devno)
        .with_context(|| format!("detaching loop device {devno}"))
}

fn node(minor: u32) -> PathBuf {
    PathBuf::from(format!("/dev/loop{minor}"))
}

/// Opens /dev/loop-control, which loads the module where it can be loaded; makes the node where only that is missing.
fn control() -> Result<File> {
    let (path, minor) = CONTROL;
    let open = || OpenOptions::new().read(true).write(true).open(path);
    let file = match open() {
        Err(e) if errno_from(&e) == Errno::ENOENT => {
            let dev = nix::sys::stat::makedev(10, minor);
            mknod(path, SFlag::S_IFCHR, Mode::S_IRUSR | Mode::S_IWUSR, dev).called("mknod", path)?;
            open()
        }
        opened => opened,
    };
    file.called("open", path).context("opening the loop driver")
}

/// Sees to it that the node of a loop device is there; without devtmpfs nobody else makes it.
fn ensure_node(devno: DevNo) -> Result<PathBuf> {
    let path = node(devno.minor);
    match block::devno_of(&path) {
        Ok(found) if found == devno => return Ok(path),
        Ok(found) => bail!("{} is device {found}, not {devno}", path.display()),
        Err(e) if super::errno_of(&e) == Some(Errno::ENOENT) => {}
        Err(e) => return Err(e),
    }
    match mknod(&path, SFlag::S_IFBLK, Mode::S_IRUSR | Mode::S_IWUSR, devno.dev_t()) {
        // EEXIST: devtmpfs made it at this moment.
        Ok(()) | Err(Errno::EEXIST) => Ok(path),
        Err(errno) => Err(errno).called("mknod", path.display()).context("making the node of a loop device"),
    }
}

fn borrowed(device: &LoopDevice) -> BorrowedFd<'_> {
    raw::borrow_fd(device)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deleted_file_is_known_by_the_kernels_word() {
        let parsed = |bytes: &[u8]| parse_backing_file(bytes);
        assert_eq!(parsed(b"/var/data\n"), (PathBuf::from("/var/data"), false));
        assert_eq!(parsed(b"/var/data (deleted)\n"), (PathBuf::from("/var/data"), true));
        assert_eq!(parsed(b"/a\nb (deleted) c\n"), (PathBuf::from("/a\nb (deleted) c"), false));
    }

    #[test]
    fn a_long_path_is_cut_and_leaves_the_nul() {
        let config = config(7, AUTOCLEAR, Path::new(&"a".repeat(200)));
        let name: Vec<u8> = config.iter().skip(8 + LO_FILE_NAME.start).take(64).copied().collect();
        assert_eq!(name.iter().filter(|b| **b == b'a').count(), 63);
        assert_eq!(name.last(), Some(&0));
        assert_eq!(config.get(..4), Some(&7_u32.to_ne_bytes()[..]));
        assert_eq!(config.get(8 + 52..8 + 56), Some(&4_u32.to_ne_bytes()[..]));
    }
}
