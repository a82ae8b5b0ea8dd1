//! The flags of an inode that chattr(1) sets (`FS_IOC_GETFLAGS`, linux/fs.h).

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;

use super::{FileKind, Folder};
use crate::kernel::{Called, KernelError, raw};

/// What chattr(1) has set; what the file system says of itself by the same word is not among it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(u32);

/// `s`, `u`, `c`, `S`, `i`, `a`, `d`, `A`, `j`, `t`, `D`, `T` and `P` of chattr(1).
const SET_BY_USERS: u32 = 0x2003_c0ff;
/// Immutable and append-only: nothing of such a file can be replaced.
const HOLDS: u32 = 0x30;

impl Flags {
    /// Whether there is none.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether what has them can be changed, or linked to.
    pub const fn may_be_changed(self) -> bool {
        self.0 & HOLDS == 0
    }

    /// Returns the same without those that keep it from being changed.
    #[must_use]
    pub const fn loosened(self) -> Self {
        Self(self.0 & !HOLDS)
    }
}

impl Folder {
    /// Returns the flags of a file or folder in it, or its own (`.`); none of anything else, and where the file system has none.
    ///
    /// # Errors
    /// As openat(2) and ioctl(2).
    pub fn flags(&self, name: &OsStr) -> Result<Flags, KernelError> {
        match self.with_open(name, raw::inode_flags) {
            Ok(found) => Ok(Flags(found.unwrap_or_default() & SET_BY_USERS)),
            Err(e) if matches!(e.errno, Errno::ENOTTY | Errno::EOPNOTSUPP) => Ok(Flags::default()),
            Err(e) => Err(e),
        }
    }

    /// Gives a file or folder in it, or itself (`.`), these flags and no others.
    ///
    /// # Errors
    /// As ioctl(2): `EOPNOTSUPP` for a flag that the file system does not know.
    pub fn set_flags(&self, name: &OsStr, flags: Flags) -> Result<(), KernelError> {
        let set = |fd: BorrowedFd<'_>| {
            let now = raw::inode_flags(fd)?;
            raw::set_inode_flags(fd, now & !SET_BY_USERS | flags.0)
        };
        self.with_open(name, set).map(drop)
    }

    fn with_open<T>(
        &self,
        name: &OsStr,
        call: impl FnOnce(BorrowedFd<'_>) -> Result<T, Errno>,
    ) -> Result<Option<T>, KernelError> {
        let kind = self.status(name)?.map(|status| status.kind);
        let done = match kind {
            Some(FileKind::File) => call(self.file(name)?.as_fd()),
            Some(FileKind::Directory) => call(self.enter(name)?.as_fd()),
            _ => return Ok(None),
        };
        done.map(Some).called("FS_IOC_FLAGS", name.display())
    }
}
