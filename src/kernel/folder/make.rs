//! Making entries in a folder that is the operator's.

use std::ffi::OsStr;
use std::fs::File;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, renameat};
use nix::sys::stat::{FchmodatFlags, Mode, SFlag, UtimensatFlags, fchmodat, mkdirat, mknodat, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchownat, linkat, symlinkat, unlinkat};

use super::{FileKind, Folder, Status, Time, single};
use crate::kernel::{Called, KernelError};

impl Folder {
    /// Makes an empty file that only its owner may use, and returns it open for writing.
    ///
    /// # Errors
    /// As openat(2) with `O_EXCL`.
    pub fn make_file(&self, name: &OsStr) -> Result<File, KernelError> {
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let mode = Mode::S_IRUSR | Mode::S_IWUSR;
        let made = single(name).and_then(|()| openat(&self.fd, name, flags, mode));
        Ok(File::from(made.called("openat", name.display())?))
    }

    /// Makes a folder that only its owner may use.
    ///
    /// # Errors
    /// As mkdirat(2).
    pub fn make_folder(&self, name: &OsStr) -> Result<(), KernelError> {
        single(name).and_then(|()| mkdirat(&self.fd, name, Mode::S_IRWXU)).called("mkdirat", name.display())
    }

    /// Makes a symbolic link.
    ///
    /// # Errors
    /// As symlinkat(2).
    pub fn make_link(&self, name: &OsStr, target: &Path) -> Result<(), KernelError> {
        single(name).and_then(|()| symlinkat(target, &self.fd, name)).called("symlinkat", name.display())
    }

    /// Makes a FIFO, a socket or a device node as the status has it.
    ///
    /// # Errors
    /// As mknodat(2): `EPERM` where this process may make no devices; `EINVAL` for what is none of these.
    pub fn make_node(&self, name: &OsStr, like: &Status) -> Result<(), KernelError> {
        let kind = match like.kind {
            FileKind::Fifo => Ok(SFlag::S_IFIFO),
            FileKind::Socket => Ok(SFlag::S_IFSOCK),
            FileKind::Block => Ok(SFlag::S_IFBLK),
            FileKind::Character => Ok(SFlag::S_IFCHR),
            FileKind::File | FileKind::Directory | FileKind::Link => Err(Errno::EINVAL),
        };
        single(name)
            .and(kind)
            .and_then(|kind| mknodat(&self.fd, name, kind, Mode::S_IRUSR | Mode::S_IWUSR, like.device.dev_t()))
            .called("mknodat", name.display())
    }

    /// Gives a file that is there a second name; a symbolic link itself, not what it leads to.
    ///
    /// # Errors
    /// As linkat(2).
    pub fn make_hard_link(&self, name: &OsStr, other: &Self, original: &OsStr) -> Result<(), KernelError> {
        single(name)
            .and(single(original))
            .and_then(|()| linkat(&other.fd, original, &self.fd, name, AtFlags::empty()))
            .called("linkat", name.display())
    }

    /// Puts a name in the place of another one in the same folder, which goes if it is no directory.
    ///
    /// # Errors
    /// As renameat(2).
    pub fn put_in_place(&self, from: &OsStr, to: &OsStr) -> Result<(), KernelError> {
        single(from)
            .and(single(to))
            .and_then(|()| renameat(&self.fd, from, &self.fd, to))
            .called("renameat", to.display())
    }

    /// Gives a name another one in another folder, where nothing has it.
    ///
    /// # Errors
    /// As renameat(2).
    pub fn move_to(&self, name: &OsStr, other: &Self, to: &OsStr) -> Result<(), KernelError> {
        single(name)
            .and(single(to))
            .and_then(|()| renameat(&self.fd, name, &other.fd, to))
            .called("renameat", to.display())
    }

    /// Removes a name that is no directory.
    ///
    /// # Errors
    /// As unlinkat(2).
    pub fn remove(&self, name: &OsStr) -> Result<(), KernelError> {
        single(name)
            .and_then(|()| unlinkat(&self.fd, name, UnlinkatFlags::NoRemoveDir))
            .called("unlinkat", name.display())
    }

    /// Removes a directory with nothing in it.
    ///
    /// # Errors
    /// As unlinkat(2).
    pub fn remove_folder(&self, name: &OsStr) -> Result<(), KernelError> {
        single(name)
            .and_then(|()| unlinkat(&self.fd, name, UnlinkatFlags::RemoveDir))
            .called("unlinkat", name.display())
    }

    /// Sets the owner of a name, which takes setuid, setgid and capabilities from a file.
    ///
    /// # Errors
    /// As fchownat(2).
    pub fn set_owner(&self, name: &OsStr, uid: u32, gid: u32) -> Result<(), KernelError> {
        let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        single(name)
            .and_then(|()| fchownat(&self.fd, name, uid, gid, AtFlags::AT_SYMLINK_NOFOLLOW))
            .called("fchownat", name.display())
    }

    /// Sets the lower twelve bits of the mode of a name that this process has made itself, and is no symbolic link.
    ///
    /// # Errors
    /// As fchmodat(2).
    pub fn set_mode(&self, name: &OsStr, mode: u32) -> Result<(), KernelError> {
        // The call with AT_SYMLINK_NOFOLLOW is 6.6's; on older kernels the C library needs /proc.
        single(name)
            .and_then(|()| fchmodat(&self.fd, name, Mode::from_bits_truncate(mode), FchmodatFlags::FollowSymlink))
            .called("fchmodat", name.display())
    }

    /// Sets when a name, a symbolic link itself too, was modified; when it was read becomes the same.
    ///
    /// # Errors
    /// As utimensat(2).
    pub fn set_modified(&self, name: &OsStr, time: Time) -> Result<(), KernelError> {
        let time = TimeSpec::new(time.seconds, i64::from(time.nanoseconds));
        single(name)
            .and_then(|()| utimensat(&self.fd, name, &time, &time, UtimensatFlags::NoFollowSymlink))
            .called("utimensat", name.display())
    }

    /// Sets an extended attribute of a name, of a symbolic link itself too.
    ///
    /// # Errors
    /// As lsetxattr(2): `EOPNOTSUPP` where the file system has none of that kind, `EPERM` without the right.
    pub fn set_attribute(&self, name: &OsStr, key: &OsStr, value: &[u8]) -> Result<(), KernelError> {
        xattr::set(self.path_of(name)?, key, value).called("lsetxattr", key.display())
    }

    /// Removes an extended attribute of a name; that there is none is no error.
    ///
    /// # Errors
    /// As lremovexattr(2).
    pub fn remove_attribute(&self, name: &OsStr, key: &OsStr) -> Result<(), KernelError> {
        match xattr::remove(self.path_of(name)?, key) {
            Err(e) if matches!(e.raw_os_error(), Some(libc::ENODATA | libc::EOPNOTSUPP)) => Ok(()),
            done => done.called("lremovexattr", key.display()),
        }
    }
}
