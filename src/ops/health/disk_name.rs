//! Names of disks that no other disk gets.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use crate::pool::DevNo;

/// Where udev keeps a link for each identity of a disk.
const BY_ID: &str = "/dev/disk/by-id";

/// Returns a disk's name below /dev/disk/by-id, the first of several; nothing when it has none.
pub(super) fn by_id(disk: DevNo) -> Option<String> {
    let mut names: Vec<_> = fs::read_dir(BY_ID).ok()?.flatten().map(|entry| entry.file_name()).collect();
    names.sort();
    let is_it = |path: &Path| {
        fs::metadata(path).is_ok_and(|m| m.file_type().is_block_device() && DevNo::from_dev_t(m.rdev()) == disk)
    };
    let path = names.into_iter().map(|name| Path::new(BY_ID).join(name)).find(|path| is_it(path))?;
    Some(path.to_string_lossy().into_owned())
}
