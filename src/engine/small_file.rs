//! Reading small files below a directory that others can write to, without being led elsewhere.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use nix::dir::Dir;
use nix::fcntl::{OFlag, open, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat};

/// An open directory; everything is opened relative to it.
#[derive(Debug)]
pub struct Directory {
    fd: OwnedFd,
    path: PathBuf,
}

/// What a name in a directory is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link, and what is written in it.
    Link(PathBuf),
    /// Anything else: a device, a FIFO, a socket.
    Other,
}

const DIRECTORY: OFlag = OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_CLOEXEC);
/// Not blocking, so that a FIFO put in a file's place does not hold the caller.
const FILE: OFlag = OFlag::O_RDONLY.union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC).union(OFlag::O_NONBLOCK);

impl Directory {
    /// Opens the directory at a path that the operator named; symbolic links in it are followed.
    ///
    /// # Errors
    /// As open(2) with `O_DIRECTORY`.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { fd: open(path, DIRECTORY, Mode::empty())?, path: path.to_owned() })
    }

    /// Takes an open directory, which is at that path.
    pub const fn of(fd: OwnedFd, path: PathBuf) -> Self {
        Self { fd, path }
    }

    /// Opens a directory in this one, which must not be a symbolic link.
    ///
    /// # Errors
    /// As openat(2) with `O_DIRECTORY` and `O_NOFOLLOW`: `ENOTDIR` or `ELOOP` for a symbolic link.
    pub fn enter(&self, name: &str) -> io::Result<Self> {
        let fd = openat_unseen(&self.fd, name, DIRECTORY.union(OFlag::O_NOFOLLOW))?;
        Ok(Self { fd, path: self.path.join(name) })
    }

    /// Returns the path by which it was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns its device and inode numbers, `st_dev` and `st_ino`.
    ///
    /// # Errors
    /// As fstat(2).
    pub fn identity(&self) -> io::Result<(u64, u64)> {
        let stat = fstat(self.fd.as_fd())?;
        Ok((stat.st_dev, stat.st_ino))
    }

    /// Returns what a name in it is, without following it; nothing when it is not there.
    ///
    /// # Errors
    /// As openat(2) and readlinkat(2).
    pub fn kind(&self, name: &str) -> io::Result<Option<Kind>> {
        let fd = match openat(&self.fd, name, OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty()) {
            Ok(fd) => fd,
            Err(nix::Error::ENOENT) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let stat = fstat(fd.as_fd())?;
        Ok(Some(match SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT {
            SFlag::S_IFREG => Kind::File,
            SFlag::S_IFDIR => Kind::Directory,
            SFlag::S_IFLNK => Kind::Link(PathBuf::from(readlinkat(&self.fd, name)?)),
            _ => Kind::Other,
        }))
    }

    /// Returns the bytes of a regular file in it.
    ///
    /// # Errors
    /// As openat(2) and read(2); `InvalidData` for what is no regular file, or is longer than `limit` bytes.
    pub fn read(&self, name: &str, limit: u64) -> io::Result<Vec<u8>> {
        let file = self.open_file(name)?;
        // One that is too long is not read first.
        if u64::try_from(fstat(&file)?.st_size).is_ok_and(|length| length > limit) {
            return Err(too_long(limit));
        }
        read_limited(file, limit)
    }

    /// Opens a regular file in it, for what is too long to be read whole.
    ///
    /// # Errors
    /// As openat(2); `InvalidData` for what is no regular file.
    pub fn open_file(&self, name: &str) -> io::Result<File> {
        let file = File::from(openat_unseen(&self.fd, name, FILE)?);
        if !is_regular(&fstat(&file)?) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it is not a regular file"));
        }
        Ok(file)
    }

    /// Returns the names in it, sorted, without `.` and `..`.
    ///
    /// # Errors
    /// As openat(2) and getdents(2).
    pub fn names(&self) -> io::Result<Vec<OsString>> {
        let mut listing = Dir::from_fd(openat_unseen(&self.fd, ".", DIRECTORY)?)?;
        let mut names = Vec::new();
        for entry in listing.iter() {
            let name = entry?.file_name().to_bytes().to_vec();
            if name != b"." && name != b".." {
                names.push(OsString::from_vec(name));
            }
        }
        names.sort();
        Ok(names)
    }
}

impl AsFd for Directory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Opens without leaving a trace in the access time, where that is allowed: to root, and to who owns the file.
fn openat_unseen(within: &OwnedFd, name: &str, flags: OFlag) -> nix::Result<OwnedFd> {
    match openat(within, name, flags | OFlag::O_NOATIME, Mode::empty()) {
        Err(nix::Error::EPERM) => openat(within, name, flags, Mode::empty()),
        other => other,
    }
}

fn is_regular(stat: &FileStat) -> bool {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFREG
}

/// Returns the bytes of the file at a path that the operator named, or that the kernel made (`/proc`).
///
/// # Errors
/// As open(2) and read(2); `InvalidData` when it is longer than `limit` bytes.
pub fn read_at(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
    read_limited(File::from(open(path, flags, Mode::empty())?), limit)
}

/// As long as most of what Docker, systemd and the kernel's own file systems have to say.
const USUAL: usize = 4096;

fn read_limited(file: File, limit: u64) -> io::Result<Vec<u8>> {
    // Room for a usual one: into an empty vector it would be read in bits of 32, 64, 128 bytes.
    let mut bytes = Vec::with_capacity(USUAL);
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length > limit) {
        return Err(too_long(limit));
    }
    Ok(bytes)
}

fn too_long(limit: u64) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("it is longer than {limit} bytes"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn a_file_is_read_up_to_its_limit() {
        let temp = tempfile::tempdir().unwrap();
        fs::write(temp.path().join("base"), b"12345").unwrap();
        let directory = Directory::open(temp.path()).unwrap();
        assert_eq!(directory.read("base", 5).unwrap(), b"12345");
        assert_eq!(directory.read("base", 4).unwrap_err().to_string(), "it is longer than 4 bytes");
        assert_eq!(directory.kind("base").unwrap(), Some(Kind::File));
        assert_eq!(directory.kind("other").unwrap(), None);
    }

    #[test]
    fn reading_leaves_no_access_time() {
        let temp = tempfile::tempdir().unwrap();
        let (folder, file) = (temp.path().join("folder"), temp.path().join("folder/file"));
        fs::create_dir(&folder).unwrap();
        fs::write(&file, "x").unwrap();
        // Older than the change, so that relatime would write a new one.
        let old = fs::FileTimes::new().set_accessed(SystemTime::UNIX_EPOCH);
        for path in [&file, &folder] {
            fs::File::open(path).unwrap().set_times(old).unwrap();
        }
        let directory = Directory::open(temp.path()).unwrap().enter("folder").unwrap();
        assert_eq!((directory.names().unwrap().len(), directory.read("file", 9).unwrap()), (1, b"x".to_vec()));
        for path in [&file, &folder] {
            assert_eq!(fs::metadata(path).unwrap().accessed().unwrap(), SystemTime::UNIX_EPOCH, "{}", path.display());
        }
    }

    #[test]
    fn links_fifos_and_directories_in_a_files_place_are_refused() {
        let temp = tempfile::tempdir().unwrap();
        symlink("/etc/hostname", temp.path().join("link")).unwrap();
        symlink("/etc", temp.path().join("linked-directory")).unwrap();
        fs::create_dir(temp.path().join("directory")).unwrap();
        nix::unistd::mkfifo(&temp.path().join("fifo"), Mode::S_IRUSR).unwrap();
        let directory = Directory::open(temp.path()).unwrap();
        let kinds = [Kind::Link("/etc/hostname".into()), Kind::Directory, Kind::Other];
        for (name, kind) in ["link", "directory", "fifo"].into_iter().zip(kinds) {
            assert!(directory.read(name, 100).is_err(), "{name}");
            assert_eq!(directory.kind(name).unwrap(), Some(kind), "{name}");
        }
        assert!(directory.enter("linked-directory").is_err());
        assert_eq!(directory.names().unwrap(), ["directory", "fifo", "link", "linked-directory"]);
    }
}
