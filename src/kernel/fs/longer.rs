//! File systems made longer while they are mounted, by the kernel itself. `xfs_growfs` and `resize2fs` ask it for the same, but find a
//! file system only where it is mounted for them to see.

use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::sys::statvfs::fstatvfs;

use crate::kernel::folder::Folder;
use crate::kernel::{Called, KernelError, raw};
use crate::units::Bytes;

/// Makes the XFS whose root that is as long as the whole blocks in `to`, with what it keeps for inodes as it is. What would be too
/// short for a group of its own is left out.
///
/// # Errors
/// As `XFS_IOC_FSGROWFSDATA`: `EIO` when the device is shorter, `EINVAL` when the XFS is longer.
pub fn longer_xfs(root: &Folder, to: Bytes) -> Result<(), KernelError> {
    let grow = || {
        let geometry = raw::xfs_geometry(root.as_fd())?;
        let (block, share) = numbers(&geometry).ok_or(Errno::EINVAL)?;
        let blocks = to.get().checked_div(u64::from(block)).ok_or(Errno::EINVAL)?;
        raw::xfs_grow(root.as_fd(), &growth(blocks, share))
    };
    grow().called("XFS_IOC_FSGROWFSDATA", to.human())
}

/// The length of a block, and how many percent inodes may take: `blocksize` and `imaxpct` of `struct xfs_fsop_geom_v1`.
fn numbers(geometry: &[u8; raw::XFS_GEOMETRY]) -> Option<(u32, u32)> {
    let number = |at: usize| geometry.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes);
    Some((number(0)?, number(28)?))
}

/// `struct xfs_growfs_data`: the number of blocks, the share of inodes, and four bytes that fill it up.
fn growth(blocks: u64, share: u32) -> [u8; 16] {
    let mut bytes = [0; 16];
    let (number, rest) = bytes.split_at_mut(8);
    number.copy_from_slice(&blocks.to_ne_bytes());
    rest.iter_mut().zip(share.to_ne_bytes()).for_each(|(to, from)| *to = from);
    bytes
}

/// Makes the ext4 whose root that is as long as the whole blocks in `to`.
///
/// # Errors
/// As `EXT4_IOC_RESIZE_FS`: `EINVAL` when the device is shorter, `EPERM` when the file system has noted errors.
pub fn longer_ext4(root: &Folder, to: Bytes) -> Result<(), KernelError> {
    let grow = || {
        let block = fstatvfs(root.as_fd())?.block_size();
        raw::ext4_resize(root.as_fd(), to.get().checked_div(block).ok_or(Errno::EINVAL)?)
    };
    grow().called("EXT4_IOC_RESIZE_FS", to.human())
}

/// Returns how much has room in the file system with that root, and how many more files, where it counts them.
///
/// # Errors
/// As fstatvfs(3).
pub fn room_in(root: &Folder) -> Result<(Bytes, Option<u64>), KernelError> {
    let space = fstatvfs(root.as_fd()).called("fstatvfs", "a file system")?;
    let bytes = Bytes::new(space.blocks_available().saturating_mul(space.fragment_size()));
    Ok((bytes, (space.files() > 0).then(|| space.files_free())))
}

/// Writes out all that the file system with that root has in memory.
///
/// # Errors
/// As syncfs(2): `EIO`, `ENOSPC` when something was not written; kernels before 5.8 say less.
pub fn sync_open(root: &Folder) -> Result<(), KernelError> {
    nix::unistd::syncfs(root).called("syncfs", "a file system that was made longer")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_is_told_is_what_it_says_with_more_blocks() {
        let mut geometry = [0; raw::XFS_GEOMETRY];
        geometry[..4].copy_from_slice(&4096_u32.to_ne_bytes());
        geometry[28..32].copy_from_slice(&25_u32.to_ne_bytes());
        assert_eq!(numbers(&geometry), Some((4096, 25)));
        let told = growth(262_144, 25);
        assert_eq!(told[..8], 262_144_u64.to_ne_bytes());
        assert_eq!((&told[8..12], &told[12..]), (&25_u32.to_ne_bytes()[..], &[0_u8; 4][..]));
    }
}
