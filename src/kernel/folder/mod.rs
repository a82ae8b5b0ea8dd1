//! Folders whose contents are hostile: everything is reached by one open folder and one name, nothing is followed, and
//! nothing about what is read changes, its access time included.

mod content;
mod flags;
mod make;
mod status;

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open, openat, readlinkat};
use nix::sys::stat::{Mode, fstat, fstatat};
use nix::sys::statvfs::{FsFlags, fstatvfs};

pub use content::{Content, Filled};
pub use flags::Flags;
pub use status::{FileKind, Status, Time};

use crate::kernel::{Called, KernelError};

/// An extended attribute: its name and its value.
pub type Attribute = (OsString, Vec<u8>);

/// An open folder; everything is reached relative to it.
#[derive(Debug)]
pub struct Folder {
    fd: OwnedFd,
}

impl From<Folder> for OwnedFd {
    fn from(folder: Folder) -> Self {
        folder.fd
    }
}

const FOLDER: OFlag = OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_CLOEXEC).union(OFlag::O_NONBLOCK);
/// Not blocking, so that a FIFO in a file's place does not hold the caller.
const FILE: OFlag = OFlag::O_RDONLY.union(OFlag::O_CLOEXEC).union(OFlag::O_NONBLOCK);

impl Folder {
    /// Opens the folder at a path that the operator named; symbolic links in it are followed.
    ///
    /// # Errors
    /// As open(2) with `O_DIRECTORY`.
    pub fn open(path: &Path) -> Result<Self, KernelError> {
        let fd = open(path, FOLDER | OFlag::O_NOATIME, Mode::empty())
            .or_else(|errno| match errno {
                Errno::EPERM => quiet_only(open(path, FOLDER, Mode::empty())?),
                errno => Err(errno),
            })
            .called("open", path.display())?;
        Ok(Self { fd })
    }

    /// Opens a folder in this one.
    ///
    /// # Errors
    /// As openat(2): `ENOTDIR` or `ELOOP` for a symbolic link; `EPERM` when reading it would change its access time.
    pub fn enter(&self, name: &OsStr) -> Result<Self, KernelError> {
        Ok(Self { fd: self.open_at(name, FOLDER)? })
    }

    /// Opens a regular file in it.
    ///
    /// # Errors
    /// As [`Self::enter`]; `EINVAL` when it is no regular file.
    pub fn file(&self, name: &OsStr) -> Result<File, KernelError> {
        // Looked at before it is opened: opening a device does something.
        let is_file = |status: Status| status.kind == FileKind::File;
        if self.status(name)?.is_some_and(is_file) {
            let fd = self.open_at(name, FILE)?;
            if is_file(Status::of(&fstat(&fd).called("fstat", name.display())?)) {
                return Ok(File::from(fd));
            }
        }
        Err(Errno::EINVAL).called("openat", name.display())
    }

    fn open_at(&self, name: &OsStr, flags: OFlag) -> Result<OwnedFd, KernelError> {
        let flags = flags | OFlag::O_NOFOLLOW;
        single(name)
            .and_then(|()| openat(&self.fd, name, flags | OFlag::O_NOATIME, Mode::empty()))
            .or_else(|errno| match errno {
                Errno::EPERM => quiet_only(openat(&self.fd, name, flags, Mode::empty())?),
                errno => Err(errno),
            })
            .called("openat", name.display())
    }

    /// Returns the names in it as the kernel lists them, without `.` and `..`.
    ///
    /// # Errors
    /// As getdents(2).
    pub fn names(&self) -> Result<Vec<OsString>, KernelError> {
        let mut listing = Dir::from_fd(self.open_at(OsStr::new("."), FOLDER)?).called("fdopendir", ".")?;
        let mut names = Vec::new();
        for entry in listing.iter() {
            let name = entry.called("getdents", ".")?.file_name().to_bytes().to_vec();
            if name != b"." && name != b".." {
                names.push(OsString::from_vec(name));
            }
        }
        Ok(names)
    }

    /// Whether the kernel says in the listing of it what each name is (`d_type`); so for a folder with nothing in it.
    ///
    /// # Errors
    /// As getdents(2).
    pub fn tells_kinds(&self) -> Result<bool, KernelError> {
        let mut listing = Dir::from_fd(self.open_at(OsStr::new("."), FOLDER)?).called("fdopendir", ".")?;
        for entry in listing.iter() {
            if entry.called("getdents", ".")?.file_type().is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Returns what a name in it is, without following it; nothing when it is not there.
    ///
    /// # Errors
    /// As fstatat(2).
    pub fn status(&self, name: &OsStr) -> Result<Option<Status>, KernelError> {
        match single(name).and_then(|()| fstatat(&self.fd, name, AtFlags::AT_SYMLINK_NOFOLLOW)) {
            Ok(found) => Ok(Some(Status::of(&found))),
            Err(Errno::ENOENT) => Ok(None),
            Err(errno) => Err(errno).called("fstatat", name.display()),
        }
    }

    /// Returns what the folder itself is.
    ///
    /// # Errors
    /// As fstat(2).
    pub fn own_status(&self) -> Result<Status, KernelError> {
        Ok(Status::of(&fstat(&self.fd).called("fstat", ".")?))
    }

    /// Returns what is written in a symbolic link.
    ///
    /// # Errors
    /// As readlinkat(2): `EINVAL` for what is no link.
    pub fn target(&self, name: &OsStr) -> Result<PathBuf, KernelError> {
        let target = single(name).and_then(|()| readlinkat(&self.fd, name)).called("readlinkat", name.display())?;
        Ok(PathBuf::from(target))
    }

    /// Returns the extended attributes of a name, of all namespaces, sorted by name; none where the file system has none. XFS
    /// lists an ACL twice, the second time as it is on disk (`SGI_ACL_FILE`, fs/xfs/xfs_xattr.c): that is left out.
    ///
    /// # Errors
    /// As llistxattr(2) and lgetxattr(2).
    pub fn attributes(&self, name: &OsStr) -> Result<Vec<Attribute>, KernelError> {
        let path = self.path_of(name)?;
        let names = match xattr::list(&path) {
            Ok(names) => names,
            Err(e) if e.raw_os_error() == Some(libc::EOPNOTSUPP) => return Ok(Vec::new()),
            Err(e) => return Err(e).called("llistxattr", name.display()),
        };
        let mut found = Vec::new();
        for key in names {
            if let Some(value) = xattr::get(&path, &key).called("lgetxattr", name.display())? {
                found.push((key, value));
            }
        }
        found.sort();
        Ok(without_second(found))
    }

    /// Returns one extended attribute of a name; nothing when it has none of that name.
    ///
    /// # Errors
    /// As lgetxattr(2).
    pub fn attribute(&self, name: &OsStr, key: &str) -> Result<Option<Vec<u8>>, KernelError> {
        match xattr::get(self.path_of(name)?, key) {
            Err(e) if e.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(None),
            found => found.called("lgetxattr", name.display()),
        }
    }

    /// Returns a path by which calls that take no folder reach a name in this one: the folder by its descriptor, and the
    /// name, the last component, is not followed by those calls.
    fn path_of(&self, name: &OsStr) -> Result<PathBuf, KernelError> {
        single(name).called("openat", name.display())?;
        Ok(PathBuf::from(format!("/proc/self/fd/{}", self.fd.as_raw_fd())).join(name))
    }
}

impl AsFd for Folder {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Refuses what is more than one name: it would be followed.
fn single(name: &OsStr) -> Result<(), Errno> {
    let bytes = name.as_bytes();
    if bytes.is_empty() || bytes == b".." || bytes.contains(&b'/') { Err(Errno::EINVAL) } else { Ok(()) }
}

/// `O_NOATIME` is for the owner and root. Whoever else reads needs a file system that writes no access times.
fn quiet_only(fd: OwnedFd) -> Result<OwnedFd, Errno> {
    let flags = fstatvfs(&fd)?.flags();
    if flags.intersects(FsFlags::ST_RDONLY | FsFlags::ST_NOATIME) { Ok(fd) } else { Err(Errno::EPERM) }
}

/// What XFS lists an ACL as besides.
const SECOND: [(&str, &str); 2] =
    [("trusted.SGI_ACL_FILE", "system.posix_acl_access"), ("trusted.SGI_ACL_DEFAULT", "system.posix_acl_default")];

fn without_second(mut found: Vec<Attribute>) -> Vec<Attribute> {
    let there: Vec<_> = found.iter().map(|(key, _)| key.clone()).collect();
    let is_second = |key: &OsStr| SECOND.iter().any(|(raw, acl)| key == *raw && there.iter().any(|key| key == *acl));
    found.retain(|(key, _)| !is_second(key));
    found
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_are_not_followed_and_fifos_are_not_opened() {
        let temp = tempfile::tempdir().unwrap();
        fs::create_dir(temp.path().join("real")).unwrap();
        fs::write(temp.path().join("file"), "x").unwrap();
        symlink("real", temp.path().join("link")).unwrap();
        symlink("file", temp.path().join("file-link")).unwrap();
        nix::unistd::mkfifo(&temp.path().join("fifo"), Mode::S_IRUSR).unwrap();
        let folder = Folder::open(temp.path()).unwrap();
        let name = OsStr::new;
        assert!(folder.enter(name("real")).is_ok());
        for wrong in ["link", "file", "..", "real/..", "", "fifo"] {
            assert!(folder.enter(name(wrong)).is_err(), "{wrong}");
        }
        for wrong in ["file-link", "fifo", "real", "../file", "."] {
            assert!(folder.file(name(wrong)).is_err(), "{wrong}");
        }
        assert_eq!(folder.target(name("link")).unwrap(), Path::new("real"));
        assert_eq!(folder.status(name("link")).unwrap().unwrap().kind, FileKind::Link);
        assert!(folder.status(name("none")).unwrap().is_none());
        let mut names = folder.names().unwrap();
        names.sort();
        assert_eq!(names, ["fifo", "file", "file-link", "link", "real"]);
    }

    #[test]
    fn an_acl_of_xfs_is_there_once() {
        let of = |keys: &[&str]| {
            let found = keys.iter().map(|key| (OsString::from(key), Vec::new())).collect();
            without_second(found).into_iter().map(|(key, _)| key.into_string().unwrap()).collect::<Vec<_>>()
        };
        let acl = ["system.posix_acl_access", "trusted.SGI_ACL_FILE", "trusted.root"];
        assert_eq!(of(&acl), ["system.posix_acl_access", "trusted.root"]);
        assert_eq!(of(&["system.posix_acl_default", "trusted.SGI_ACL_DEFAULT"]), ["system.posix_acl_default"]);
        assert_eq!(of(&["system.posix_acl_default", "trusted.SGI_ACL_FILE"]).len(), 2);
    }

    #[test]
    fn attributes_are_those_of_the_link_itself() {
        let temp = tempfile::tempdir().unwrap();
        fs::write(temp.path().join("file"), "x").unwrap();
        xattr::set(temp.path().join("file"), "user.b", b"2").unwrap();
        xattr::set(temp.path().join("file"), "user.a", b"").unwrap();
        symlink("file", temp.path().join("link")).unwrap();
        let folder = Folder::open(temp.path()).unwrap();
        let found = folder.attributes(OsStr::new("file")).unwrap();
        assert_eq!(found, [("user.a".into(), vec![]), ("user.b".into(), b"2".to_vec())]);
        assert_eq!(folder.attributes(OsStr::new("link")).unwrap(), []);
        assert_eq!(folder.attribute(OsStr::new("file"), "user.b").unwrap(), Some(b"2".to_vec()));
        assert_eq!(folder.attribute(OsStr::new("file"), "user.c").unwrap(), None);
    }
}
