//! What a file system is and what it can hold.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::sys::statvfs::{FsFlags, statvfs};

use crate::kernel::{Called, DevNo, mounts};
use crate::units::Bytes;

/// What is known about the file system that a path is on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FsFacts {
    /// Its type as the mount says: `ext4`, `fuse.sshfs`.
    pub fs_type: String,
    /// What its files say as `st_dev`.
    pub devno: DevNo,
    /// Where it is mounted.
    pub mount_point: PathBuf,
    /// What was mounted there.
    pub source: PathBuf,
    /// The options of the mount and of the file system, separated by a comma.
    pub options: String,
    /// The unit it gives space out in.
    pub block_size: Bytes,
    /// All its space.
    pub total: Bytes,
    /// What is free, with the part kept for root (`f_bfree`).
    pub free: Bytes,
    /// What is free for who is not root (`f_bavail`).
    pub available: Bytes,
    /// How many more files it can have; nothing when it does not count them.
    pub free_inodes: Option<u64>,
    /// Whether it, or this mount of it, refuses writes.
    pub read_only: bool,
    /// Whether its files are somewhere else: behind a network, a hypervisor or another program.
    pub is_network: bool,
    /// Whether a file can have holes; nothing when it is not known of this type.
    pub sparse: Option<bool>,
    /// Whether a file's owner and mode are kept in it, and not made up for the whole mount.
    pub keeps_modes: bool,
    /// The largest file it can hold; nothing when it is not known of this type.
    pub max_file_size: Option<Bytes>,
}

impl FsFacts {
    /// Looks at the file system that a file or folder is on.
    ///
    /// # Errors
    /// When the path is not there, or the file system does not answer.
    pub fn of(path: &Path) -> Result<Self> {
        let context = || format!("looking at the file system of {}", path.display());
        let canonical = path.canonicalize().called("realpath", path.display()).with_context(context)?;
        let metadata = fs::metadata(&canonical).called("stat", path.display()).with_context(context)?;
        let space = statvfs(&canonical).called("statvfs", path.display()).with_context(context)?;
        let mounts = mounts::own()?;
        let mount = mounts::mount_of(&mounts, &canonical).with_context(context)?;
        let unit = space.fragment_size();
        let bytes = |blocks: u64| Bytes::new(blocks.saturating_mul(unit));
        Ok(Self {
            fs_type: mount.fs_type.clone(),
            devno: DevNo::from_dev_t(metadata.dev()),
            mount_point: mount.mount_point.clone(),
            source: mount.source.clone(),
            options: format!("{},{}", mount.options, mount.fs_options),
            block_size: Bytes::new(unit),
            total: bytes(space.blocks()),
            free: bytes(space.blocks_free()),
            available: bytes(space.blocks_available()),
            free_inodes: (space.files() > 0).then(|| space.files_free()),
            read_only: space.flags().contains(FsFlags::ST_RDONLY),
            is_network: is_network(&mount.fs_type),
            sparse: sparse(&mount.fs_type),
            keeps_modes: !matches!(mount.fs_type.as_str(), "vfat" | "msdos" | "exfat"),
            max_file_size: max_file_size(&mount.fs_type, Bytes::new(unit)),
        })
    }
}

/// Whether files of this type are kept by another machine or program, so that the kernel alone cannot keep a promise
/// about them, and their answer may not come.
pub fn is_network(fs_type: &str) -> bool {
    const NETWORK: [&str; 19] = [
        "nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "virtiofs", "ceph", "afs", "lustre", "beegfs", "coda", "ncpfs",
        "orangefs", "pvfs2", "vboxsf", "vmhgfs", "hostfs", "fuse",
    ];
    NETWORK.contains(&fs_type) || fs_type.starts_with("fuse.")
}

/// Whether a file of this type can have holes: vfat, exfat and HFS allocate what they extend, or refuse to.
fn sparse(fs_type: &str) -> Option<bool> {
    match fs_type {
        "ext2" | "ext3" | "ext4" | "xfs" | "btrfs" | "tmpfs" | "f2fs" | "zfs" | "jfs" | "reiserfs" | "ocfs2"
        | "gfs2" => Some(true),
        "vfat" | "msdos" | "exfat" | "hfs" | "hfsplus" | "ramfs" | "iso9660" | "squashfs" => Some(false),
        _ => None,
    }
}

/// The largest file, by type and block size; what decides in the end is whether the file can be given its length (EFBIG).
///
/// ext4: 2^32 blocks less one (`ext4_max_size`, fs/ext4/super.c). ext2, ext3: the lesser of what three levels of
/// indirect blocks reach and 2^32 sectors (`ext4_max_bitmap_size`). vfat: 32-bit length. exfat, xfs, btrfs, tmpfs: the kernel's
/// own limit (`MAX_LFS_FILESIZE`, linux/fs.h).
fn max_file_size(fs_type: &str, block_size: Bytes) -> Option<Bytes> {
    let block = block_size.get();
    match fs_type {
        "ext4" => Some(Bytes::new(block.saturating_mul((1 << 32) - 1))),
        "ext2" | "ext3" => {
            let per_block = block / 4;
            let reach = 12 + per_block + per_block.saturating_pow(2) + per_block.saturating_pow(3);
            Some(Bytes::new(block.saturating_mul(reach).min(512 * ((1 << 32) - 1))))
        }
        "vfat" | "msdos" => Some(Bytes::new((1 << 32) - 1)),
        "xfs" | "btrfs" | "tmpfs" | "exfat" => Some(Bytes::new((1 << 63) - 1)),
        _ => None,
    }
}

/// Returns the bytes a file really occupies (`st_blocks`).
///
/// # Errors
/// When it is not there.
pub fn allocated(path: &Path) -> Result<Bytes> {
    let metadata = fs::metadata(path).called("stat", path.display());
    let metadata = metadata.with_context(|| format!("asking what {} occupies", path.display()))?;
    // Units of 512 whatever the file system's block size (stat(2)).
    Ok(Bytes::new(metadata.blocks().saturating_mul(512)))
}

/// Returns the largest file this process may make (`RLIMIT_FSIZE`), or nothing when it is not limited. Past it the
/// kernel sends SIGXFSZ.
///
/// # Errors
/// When /proc cannot be read.
pub fn file_size_limit() -> Result<Option<Bytes>> {
    let path = "/proc/self/limits";
    let text = fs::read_to_string(path).called("read", path).context("reading this process's limits")?;
    Ok(parse_limits(&text))
}

pub(crate) fn parse_limits(text: &str) -> Option<Bytes> {
    let line = text.lines().find_map(|line| line.strip_prefix("Max file size"))?;
    line.split_whitespace().next()?.parse().ok().map(Bytes::new)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn limits_by_type_are_the_kernels_tables() {
        let max = |fs: &str, block: u64| max_file_size(fs, Bytes::new(block)).map(Bytes::get);
        // Documentation/filesystems/ext4/blocks.rst: 4 TiB, 16 TiB; 16 GiB and 2 TiB by block map.
        assert_eq!(max("ext4", 1024), Some((4 << 40) - 1024));
        assert_eq!(max("ext4", 4096), Some((16 << 40) - 4096));
        assert_eq!(max("ext3", 1024).unwrap() >> 30, 16);
        assert_eq!(max("ext3", 4096), Some((2 << 40) - 512));
        assert_eq!(max("vfat", 4096), Some(0xffff_ffff));
        assert_eq!(max("ntfs3", 4096), None);
    }

    #[test]
    fn types_that_live_elsewhere_are_known() {
        for network in ["nfs4", "cifs", "9p", "fuse.sshfs", "fuse"] {
            assert!(is_network(network), "{network}");
        }
        for local in ["ext4", "xfs", "tmpfs", "fuseblk", "overlay"] {
            assert!(!is_network(local), "{local}");
        }
    }

    #[test]
    fn the_limit_of_file_sizes_is_read() {
        let head = "Limit                     Soft Limit           Hard Limit           Units     \n";
        let unlimited =
            format!("{head}Max file size             unlimited            unlimited            bytes     \n");
        assert_eq!(parse_limits(&unlimited), None);
        let limited = format!("{head}Max file size             1048576              unlimited            bytes     \n");
        assert_eq!(parse_limits(&limited), Some(Bytes::MIB));
        assert!(file_size_limit().is_ok());
    }

    #[test]
    fn a_file_with_a_hole_occupies_less_than_its_length() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sparse");
        fs::File::create(&path).unwrap().set_len(1 << 30).unwrap();
        assert!(allocated(&path).unwrap() < Bytes::MIB);
        let facts = FsFacts::of(&path).unwrap();
        assert!(facts.available <= facts.free && facts.free <= facts.total, "{facts:?}");
        assert!(!facts.read_only);
    }
}
