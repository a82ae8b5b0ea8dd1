//! What lstat(2) says of a name.

use nix::sys::stat::{FileStat, SFlag};

use crate::kernel::DevNo;

/// What a name is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Link,
    /// A FIFO.
    Fifo,
    /// A socket.
    Socket,
    /// A block device.
    Block,
    /// A character device.
    Character,
}

/// A time of a file: seconds since 1970, negative before, and nanoseconds after them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time {
    /// Whole seconds, rounded down.
    pub seconds: i64,
    /// Nanoseconds since then, below 10^9.
    pub nanoseconds: u32,
}

impl Time {
    fn of(seconds: i64, nanoseconds: i64) -> Self {
        Self { seconds, nanoseconds: u32::try_from(nanoseconds).unwrap_or(0).min(999_999_999) }
    }
}

/// What lstat(2) says of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// What it is.
    pub kind: FileKind,
    /// Permissions with setuid, setgid and sticky: the lower twelve bits of `st_mode`.
    pub mode: u32,
    /// `st_uid`.
    pub uid: u32,
    /// `st_gid`.
    pub gid: u32,
    /// `st_size` in bytes.
    pub size: u64,
    /// How many bytes have blocks.
    pub allocated: u64,
    /// `st_mtime`.
    pub modified: Time,
    /// `st_ctime`: the kernel sets it with every change, and nobody else can.
    pub changed: Time,
    /// `st_dev`: which file system it is in.
    pub file_system: u64,
    /// `st_ino`.
    pub inode: u64,
    /// How many names it has.
    pub links: u64,
    /// `st_rdev`: which device a device node is.
    pub device: DevNo,
}

impl Status {
    pub(super) fn of(stat: &FileStat) -> Self {
        let kind = match SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT {
            SFlag::S_IFREG => FileKind::File,
            SFlag::S_IFDIR => FileKind::Directory,
            SFlag::S_IFLNK => FileKind::Link,
            SFlag::S_IFIFO => FileKind::Fifo,
            SFlag::S_IFBLK => FileKind::Block,
            SFlag::S_IFCHR => FileKind::Character,
            _ => FileKind::Socket,
        };
        Self {
            kind,
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            size: u64::try_from(stat.st_size).unwrap_or(0),
            // Units of 512 whatever the file system's block size (stat(2)).
            allocated: u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(512),
            modified: Time::of(stat.st_mtime, stat.st_mtime_nsec),
            changed: Time::of(stat.st_ctime, stat.st_ctime_nsec),
            file_system: stat.st_dev,
            inode: stat.st_ino,
            links: stat.st_nlink,
            device: DevNo::from_dev_t(stat.st_rdev),
        }
    }

    /// Returns what no two files have in common: the file system and the inode.
    pub const fn identity(&self) -> (u64, u64) {
        (self.file_system, self.inode)
    }

    /// Whether it is a directory.
    pub const fn is_directory(&self) -> bool {
        matches!(self.kind, FileKind::Directory)
    }
}
