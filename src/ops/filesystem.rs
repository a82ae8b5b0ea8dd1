//! How large the file system on a volume takes itself to be, from the first bytes of the volume.
//!
//! XFS: `XFSB`, the block size and the number of blocks, big-endian; where its log begins at 48 and the log's blocks at 96
//! (`xfs_dsb`, fs/xfs/libxfs/xfs_format.h).
//! ext2, 3 and 4: the superblock at 1024, little-endian (Documentation/filesystems/ext4/super.rst).

use anyhow::Result;

use crate::kernel::fs::FsFacts;
use crate::kernel::{block, mounts};
use crate::pool::DevNo;
use crate::units::{Bytes, MetaBlocks};

/// How many bytes of a volume are looked at.
pub const HEAD: usize = 4096;

/// XFS.
pub const XFS: &str = "xfs";

/// ext2, ext3 or ext4.
pub const EXT: &str = "ext";

/// The flag in `s_feature_incompat` that says there are more than 2^32 blocks to count (`INCOMPAT_64BIT`).
const EXT_64BIT: u32 = 0x80;

/// What mounting and unmounting writes into a log at most: XFS overwrites up to 2 MiB ahead of where it goes on
/// (`xlog_clear_stale_blocks`, fs/xfs/xfs_log_recover.c).
const LOG: u64 = 4 << 20;

/// Blocks of metadata for the way from the top of a volume's tree, and for its log.
const OF_A_TREE: u64 = 8;

/// The flag in `s_state` that says that errors were seen (`EXT4_ERROR_FS`): `ext4_resize_begin` refuses it.
const EXT_ERRORS: u16 = 2;

/// What each group of an ext4 has in its flex group: two bitmaps (Documentation/filesystems/ext4/blockgroup.rst).
const BITMAPS: u64 = 2;

/// A file system by its own account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileSystem {
    /// `xfs` or `ext`.
    pub kind: &'static str,
    /// Its length.
    pub size: Bytes,
}

/// Reads the head of a volume; nothing when no known file system is on it, or its numbers cannot be true.
pub fn parse(head: &[u8]) -> Option<FileSystem> {
    xfs(head).or_else(|| ext(head))
}

/// What a thin pool needs for a file system that becomes longer, at most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Growth {
    /// Blocks of its data.
    pub data: u64,
    /// Blocks of its metadata.
    pub metadata: MetaBlocks,
}

impl Growth {
    /// Returns both together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let metadata = self.metadata.get().saturating_add(other.metadata.get());
        Self { data: self.data.saturating_add(other.data), metadata: MetaBlocks::new(metadata) }
    }
}

/// Returns what a thin pool with blocks of that length needs when the file system with that head is mounted and made that long: its log, and
/// the heads of its groups with what they keep a copy of. What lies together is mapped by one leaf of the volume's tree, or by two. Nothing
/// when it is none of these.
pub fn growth(head: &[u8], to: Bytes, block: Bytes) -> Option<Growth> {
    let found = parse(head)?;
    let (groups, in_each) = if found.kind == XFS { xfs_groups(head, to)? } else { ext_groups(head, to)? };
    let of_groups = groups.saturating_mul(2).saturating_add(in_each.div_ceil(block.get().max(1)));
    let data = of_groups.saturating_add(LOG.div_ceil(block.get().max(1)));
    Some(Growth { data, metadata: MetaBlocks::new(groups.saturating_mul(2).saturating_add(OF_A_TREE)) })
}

/// Returns why the kernel would not make the file system longer with that head, as a sentence goes on after its name; nothing when it would.
/// `has_resize` says whether the kernel makes an ext4 longer by itself (`EXT4_IOC_RESIZE_FS`, Linux 3.3).
pub fn stays_short(head: &[u8], has_resize: bool) -> Option<&'static str> {
    parse(head).filter(|found| found.kind == EXT)?;
    let state = u16::from_le_bytes(array(head, 1024 + 0x3a)?);
    if state & EXT_ERRORS != 0 {
        return Some("has an ext4 that has noted errors, and becomes no longer before e2fsck has mended it");
    }
    (!has_resize).then_some("has an ext4, which a kernel before 3.3 does not make longer")
}

/// How many groups there are then; the head of each is less than a block of a pool, and there is nothing else.
fn xfs_groups(head: &[u8], to: Bytes) -> Option<(u64, u64)> {
    let [block, blocks] = [4, 84].map(|at| array(head, at).map(|bytes| u64::from(u32::from_be_bytes(bytes))));
    let group = block?.checked_mul(blocks?).filter(|group| *group > 0)?;
    Some((to.get().div_ceil(group), 0))
}

/// How many places there are, and how many bytes are written there: the bitmaps of each group, and where a group has a copy of the
/// descriptors, that and what is kept free behind it, which the kernel fills with zeros (`setup_new_flex_group_blocks`, fs/ext4/resize.c).
fn ext_groups(head: &[u8], to: Bytes) -> Option<(u64, u64)> {
    let superblock = head.get(1024..)?;
    let number = |at: usize| array(superblock, at).map(|bytes| u64::from(u32::from_le_bytes(bytes)));
    let block = 1024_u64.checked_shl(u32::from_le_bytes(array(superblock, 0x18)?))?;
    let group = number(0x20)?.checked_mul(block).filter(|group| *group > 0)?;
    let groups = to.get().div_ceil(group);
    let kept = u64::from(u16::from_le_bytes(array(superblock, 0xce)?));
    let copies = [3_u64, 5, 7]
        .map(|base| (0..).map_while(|power| base.checked_pow(power)).take_while(|at| *at < groups).count());
    let copies = u64::try_from(copies.iter().sum::<usize>()).ok()?;
    let of_copies =
        kept.saturating_add(groups.saturating_mul(64).div_ceil(block)).saturating_add(1).saturating_mul(copies);
    let blocks = of_copies.saturating_add(groups.saturating_mul(BITMAPS));
    Some((groups.saturating_add(copies), blocks.saturating_mul(block)))
}

/// Returns how much an ext4 of that length has for inodes: what it makes longer it fills with zeros while it is mounted, in the
/// background (`ext4_lazyinit_thread`). Nothing for an XFS, which makes inodes when it needs them.
pub fn inode_tables(head: &[u8], length: Bytes) -> Option<Bytes> {
    parse(head).filter(|found| found.kind == EXT)?;
    let superblock = head.get(1024..)?;
    let number = |at: usize| array(superblock, at).map(|bytes| u64::from(u32::from_le_bytes(bytes)));
    let block = 1024_u64.checked_shl(u32::from_le_bytes(array(superblock, 0x18)?))?;
    let group = number(0x20)?.checked_mul(block).filter(|group| *group > 0)?;
    let inode = u64::from(u16::from_le_bytes(array(superblock, 0x58)?));
    Some(Bytes::new(length.get().div_ceil(group).saturating_mul(number(0x28)?.saturating_mul(inode))))
}

/// Whether the file system with that head tells the times of files in whole seconds: an ext4 whose inodes have 128 bytes (`s_inode_size`).
pub fn has_whole_seconds(head: &[u8]) -> bool {
    let is_ext = parse(head).is_some_and(|found| found.kind == EXT);
    is_ext && array(head, 1024 + 0x58).map(u16::from_le_bytes) == Some(128)
}

/// What is in a file system.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Used {
    /// The bytes of files and directories, and what leads to them; not the log, and not what is set apart for inodes.
    pub bytes: Bytes,
    /// How many inodes.
    pub inodes: u64,
}

/// Says whether the kernel has a file system of that type, or would load it.
///
/// # Errors
/// Why it does not.
pub fn in_kernel(name: &str) -> Result<(), String> {
    let known = std::fs::read_to_string("/proc/filesystems").map_err(|e| format!("/proc/filesystems: {e}"))?;
    if known.lines().any(|line| line.split_whitespace().last() == Some(name)) {
        return Ok(());
    }
    // Only looked at, and not loaded: Docker does that.
    crate::process::run("modprobe", &["-n", name]).map(drop).map_err(|e| e.to_string())
}

/// Returns what was in the file system with that head when it was unmounted or synced last; nothing when it is none of these. What an ext4 has for
/// its groups counts as used.
pub fn used(head: &[u8]) -> Option<Used> {
    let found = parse(head)?;
    if found.kind == XFS {
        let long = |at: usize| array(head, at).map(u64::from_be_bytes);
        let block = u64::from(u32::from_be_bytes(array(head, 4)?));
        let blocks = long(8)?.saturating_sub(long(144)?);
        let bytes = Bytes::new(blocks.saturating_mul(block)).saturating_sub(log(head));
        return Some(Used { bytes, inodes: long(128)?.saturating_sub(long(136)?) });
    }
    let superblock = head.get(1024..)?;
    let number = |at: usize| array(superblock, at).map(|bytes| u64::from(u32::from_le_bytes(bytes)));
    let block = 1024_u64.checked_shl(u32::from_le_bytes(array(superblock, 0x18)?))?;
    let high = if number(0x60)? & u64::from(EXT_64BIT) == 0 { 0 } else { number(0x158)? << 32 };
    let free = Bytes::new((high | number(0xc)?).saturating_mul(block));
    // s_jnl_blocks has a copy of the journal's inode, the size last, where s_jnl_backup_type says so.
    let journal = if superblock.get(0xfd) == Some(&1) { number(0x14c)? } else { 0 };
    let tables = inode_tables(head, found.size).unwrap_or_default();
    let bytes = found.size.saturating_sub(free).saturating_sub(tables).saturating_sub(Bytes::new(journal));
    Some(Used { bytes, inodes: number(0)?.saturating_sub(number(0x10)?) })
}

/// Returns the UUID of the file system with that head, as blkid(8) has it; nothing when it is none of these.
pub fn uuid(head: &[u8]) -> Option<String> {
    let at = if parse(head)?.kind == XFS { 32 } else { 1024 + 0x68 };
    let bytes: [u8; 16] = array(head, at)?;
    let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let parts = [0..8, 8..12, 12..16, 16..20, 20..32].map(|part| digits.get(part).unwrap_or_default());
    Some(parts.join("-"))
}

/// Returns the file system on a device as it is now, also while it is mounted here; nothing when it is none of these.
///
/// # Errors
/// When the device cannot be read.
pub fn on(device: DevNo) -> Result<Option<FileSystem>> {
    let head = block::read_direct(&block::open_direct(device)?, 0, HEAD)?;
    match parse(&head) {
        // ext4 changes its superblock in the page cache, and writes it out when it likes.
        Some(FileSystem { kind: EXT, .. }) => {
            let cached = block::open_by_devno(device, false)?;
            Ok(parse(&block::read_direct(&cached, 0, HEAD)?))
        }
        // XFS has a cache of its own; while it is mounted it is asked, and leaves its log out.
        Some(found) => Ok(Some(match mounted(device)? {
            Some(facts) => FileSystem { size: Bytes::new(facts.total.get().saturating_add(log(&head).get())), ..found },
            None => found,
        })),
        None => Ok(None),
    }
}

fn mounted(device: DevNo) -> Result<Option<FsFacts>> {
    let mounts = mounts::own()?;
    let facts = mounts.iter().filter(|m| m.devno == device).filter_map(|m| FsFacts::of(&m.mount_point).ok());
    // Another mount may lie over it.
    Ok(facts.into_iter().find(|facts| facts.devno == device))
}

/// Returns how long the log of an XFS is that it has on the same device.
fn log(head: &[u8]) -> Bytes {
    let length = || {
        let begin = u64::from_be_bytes(array(head, 48)?);
        let blocks = u64::from(u32::from_be_bytes(array(head, 96)?));
        let block = u64::from(u32::from_be_bytes(array(head, 4)?));
        (begin != 0).then(|| blocks.saturating_mul(block))
    };
    Bytes::new(length().unwrap_or(0))
}

fn xfs(head: &[u8]) -> Option<FileSystem> {
    if head.get(..4)? != b"XFSB" {
        return None;
    }
    let block = u64::from(u32::from_be_bytes(array(head, 4)?));
    let blocks = u64::from_be_bytes(array(head, 8)?);
    of(XFS, blocks, block, 512, 65536)
}

fn ext(head: &[u8]) -> Option<FileSystem> {
    let superblock = head.get(1024..)?;
    if u16::from_le_bytes(array(superblock, 0x38)?) != 0xef53 {
        return None;
    }
    let low = u64::from(u32::from_le_bytes(array(superblock, 4)?));
    let block = 1024_u64.checked_shl(u32::from_le_bytes(array(superblock, 0x18)?))?;
    let incompatible = u32::from_le_bytes(array(superblock, 0x60)?);
    let high = if incompatible & EXT_64BIT == 0 { 0 } else { u64::from(u32::from_le_bytes(array(superblock, 0x150)?)) };
    of(EXT, high << 32 | low, block, 1024, 65536)
}

fn of(kind: &'static str, blocks: u64, block: u64, least: u64, most: u64) -> Option<FileSystem> {
    let sane = block.is_power_of_two() && (least..=most).contains(&block) && blocks > 0;
    sane.then(|| blocks.checked_mul(block)).flatten().map(|size| FileSystem { kind, size: Bytes::new(size) })
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn grown(data: u64, metadata: u64) -> Option<Growth> {
        Some(Growth { data, metadata: MetaBlocks::new(metadata) })
    }

    #[test]
    fn an_ext4_that_the_kernel_would_refuse_is_known() {
        let mut head = vec![0; HEAD];
        head[1024 + 4] = 1;
        head[1024 + 0x38..1024 + 0x3a].copy_from_slice(&0xef53_u16.to_le_bytes());
        head[1024 + 0x3a] = 1;
        assert_eq!(stays_short(&head, true), None, "unmounted, without errors");
        assert!(stays_short(&head, false).unwrap().contains("before 3.3"));
        head[1024 + 0x3a] = 3;
        assert!(stays_short(&head, true).unwrap().contains("e2fsck"));
        head[..4].copy_from_slice(b"XFSB");
        head[4..8].copy_from_slice(&4096_u32.to_be_bytes());
        head[15] = 1;
        assert_eq!((parse(&head).unwrap().kind, stays_short(&head, false)), (XFS, None));
    }

    #[test]
    fn xfs_counts_its_blocks() {
        let mut head = vec![0; HEAD];
        head[..4].copy_from_slice(b"XFSB");
        head[4..8].copy_from_slice(&4096_u32.to_be_bytes());
        head[8..16].copy_from_slice(&2_621_440_u64.to_be_bytes());
        assert_eq!(parse(&head), Some(FileSystem { kind: "xfs", size: Bytes::new(10 << 30) }));
        assert_eq!(growth(&head, Bytes::new(50 << 30), Bytes::new(1 << 16)), None, "groups of no length");
        head[84..88].copy_from_slice(&655_360_u32.to_be_bytes());
        assert_eq!(growth(&head, Bytes::new(50 << 30), Bytes::new(1 << 16)), grown(2 * 20 + 64, 2 * 20 + 8));
        assert_eq!(growth(&head, Bytes::new(50 << 30), Bytes::new(1 << 20)), grown(2 * 20 + 4, 2 * 20 + 8));
        assert_eq!(inode_tables(&head, Bytes::new(50 << 30)), None);
        head[4..8].copy_from_slice(&4095_u32.to_be_bytes());
        assert_eq!((parse(&head), growth(&head, Bytes::GIB, Bytes::new(1 << 16))), (None, None));
    }

    #[test]
    fn ext4_counts_its_blocks_in_two_halves() {
        let mut head = vec![0; HEAD];
        head[1024 + 4..1024 + 8].copy_from_slice(&2_621_440_u32.to_le_bytes());
        head[1024 + 0x18..1024 + 0x1c].copy_from_slice(&2_u32.to_le_bytes());
        head[1024 + 0x38..1024 + 0x3a].copy_from_slice(&0xef53_u16.to_le_bytes());
        assert_eq!(parse(&head), Some(FileSystem { kind: "ext", size: Bytes::new(10 << 30) }));
        head[1024 + 0x20..1024 + 0x24].copy_from_slice(&32768_u32.to_le_bytes());
        head[1024 + 0x28..1024 + 0x2c].copy_from_slice(&8192_u32.to_le_bytes());
        head[1024 + 0x58..1024 + 0x5a].copy_from_slice(&256_u16.to_le_bytes());
        head[1024 + 0xce..1024 + 0xd0].copy_from_slice(&1024_u16.to_le_bytes());
        let [ten, fifty] = [10, 50].map(|gib| Bytes::new(gib << 30));
        assert_eq!(inode_tables(&head, ten), Some(Bytes::new(80 * (2 << 20))));
        assert!(!has_whole_seconds(&head));
        let mut small = head.clone();
        small[1024 + 0x58] = 128;
        small[1024 + 0x59] = 0;
        assert!(has_whole_seconds(&small));
        // 400 groups: 1, 3, 9, 27, 81, 243, 1, 5, 25, 125, 1, 7, 49 and 343 have copies, of 1024 + 7 + 1 blocks each.
        let written = (14 * 1032 + 800) * 4096_u64;
        assert_eq!(
            growth(&head, fifty, Bytes::new(1 << 16)),
            grown(2 * 414 + written.div_ceil(1 << 16) + 64, 2 * 414 + 8)
        );
        head[1024 + 0x150] = 1;
        assert_eq!(parse(&head).unwrap().size, Bytes::new(10 << 30), "the upper half counts only with its flag");
        head[1024 + 0x60] = 0x80;
        assert_eq!(parse(&head).unwrap().size, Bytes::new((1 << 44) + (10 << 30)));
        head[1024 + 0x18] = 60;
        assert_eq!(parse(&head), None);
    }

    #[test]
    fn what_is_in_a_file_system_is_told_without_log_and_inode_tables() {
        let mut head = vec![0; HEAD];
        let fields: [(usize, &[u8]); 7] = [
            (0, b"XFSB"),
            (4, &4096_u32.to_be_bytes()),
            (8, &262_144_u64.to_be_bytes()),
            (48, &1_u64.to_be_bytes()),
            (96, &16_384_u32.to_be_bytes()),
            (128, &640_u64.to_be_bytes()),
            (136, &40_u64.to_be_bytes()),
        ];
        for (at, bytes) in fields {
            head.splice(at..at + bytes.len(), bytes.iter().copied());
        }
        head.splice(144..152, 245_000_u64.to_be_bytes());
        head.splice(32..48, 0x0123_4567_89ab_cdef_0123_4567_89ab_cdef_u128.to_be_bytes());
        assert_eq!(used(&head), Some(Used { bytes: Bytes::new(760 << 12), inodes: 600 }));
        assert_eq!(uuid(&head).as_deref(), Some("01234567-89ab-cdef-0123-456789abcdef"));
        let mut head = vec![0; HEAD];
        let fields: [(usize, u32); 10] = [
            (0, 65_536),
            (4, 262_144),
            (0xc, 240_000),
            (0x10, 65_000),
            (0x18, 2),
            (0x20, 32_768),
            (0x28, 8192),
            (0x38, 0xef53),
            (0x58, 256),
            (0x14c, 32 << 20),
        ];
        for (at, number) in fields {
            head.splice(1024 + at..1028 + at, number.to_le_bytes());
        }
        head[1024 + 0xfd] = 1;
        head.splice(1024 + 0x68..1024 + 0x78, [0xab; 16]);
        let bytes = ((262_144 - 240_000) << 12) - (8 * (2 << 20)) - (32 << 20);
        assert_eq!(used(&head), Some(Used { bytes: Bytes::new(bytes), inodes: 536 }));
        assert_eq!(uuid(&head).as_deref(), Some("abababab-abab-abab-abab-abababababab"));
        assert_eq!((used(&[0; HEAD]), uuid(&[0; HEAD])), (None, None));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_harm(head in prop::collection::vec(any::<u8>(), 0..HEAD), magic in any::<bool>()) {
            let mut head = head;
            if magic && head.len() > 1100 {
                head[..4].copy_from_slice(b"XFSB");
                head[1024 + 0x38..1024 + 0x3a].copy_from_slice(&0xef53_u16.to_le_bytes());
            }
            let _ = (parse(&head), growth(&head, Bytes::GIB, Bytes::MIB), inode_tables(&head, Bytes::GIB));
            let _ = (stays_short(&head, true), used(&head), uuid(&head));
        }
    }
}
