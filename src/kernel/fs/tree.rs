//! How much a folder's files occupy.

use std::ffi::CStr;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{Mode, SFlag, fstat, fstatat};

use crate::kernel::Called;
use crate::units::Bytes;

/// What a folder's files occupy, as far as it was walked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Occupied {
    /// The bytes that have blocks; a file with several names is counted at each.
    pub bytes: Bytes,
    /// How many entries were looked at.
    pub entries: u64,
    /// Whether all of them were.
    pub whole: bool,
    /// When the last of them was changed, in seconds since 1970 (`st_mtime`); nothing of a folder that is empty.
    pub changed: Option<i64>,
}

/// How far a walk may go.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// At most so many entries.
    pub entries: u64,
    /// No longer than this.
    pub time: Duration,
}

/// Folders within folders are entered so deep: each keeps a descriptor open.
const DEEPEST: usize = 64;

const DIRECTORY: OFlag =
    OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC).union(OFlag::O_NONBLOCK);

/// Returns what the files below a folder occupy, on its own file system only and through no symbolic link: what is in it
/// may belong to others.
///
/// # Errors
/// When the folder cannot be opened. What cannot be read below it makes the answer less than whole.
pub fn occupied(path: &Path, bounds: Bounds) -> Result<Occupied> {
    let root = nix::fcntl::open(path, DIRECTORY, Mode::empty()).called("open", path.display());
    let root = root.with_context(|| format!("opening {}", path.display()))?;
    occupied_in(root, bounds).with_context(|| format!("looking at {}", path.display()))
}

/// Returns the same of a folder that is open; its entries' access times stay, where the kernel allows that.
///
/// # Errors
/// As fstat(2).
pub fn occupied_in(root: OwnedFd, bounds: Bounds) -> Result<Occupied> {
    let device = fstat(&root).called("fstat", "the folder")?.st_dev;
    let mut walk = Walk {
        device,
        until: Instant::now() + bounds.time,
        most: bounds.entries,
        found: Occupied { whole: true, ..Occupied::default() },
    };
    walk.folder(root, 0);
    Ok(walk.found)
}

struct Walk {
    device: u64,
    until: Instant,
    most: u64,
    found: Occupied,
}

impl Walk {
    fn folder(&mut self, folder: OwnedFd, depth: usize) {
        let Ok(mut listing) = openat_unseen(&folder, c".").and_then(Dir::from_fd) else {
            self.found.whole = false;
            return;
        };
        for entry in listing.iter() {
            let Ok(entry) = entry else {
                self.found.whole = false;
                return;
            };
            if entry.file_name() == c"." || entry.file_name() == c".." {
                continue;
            }
            if self.found.entries >= self.most || Instant::now() > self.until {
                self.found.whole = false;
                return;
            }
            self.found.entries += 1;
            self.entry(&folder, entry.file_name(), depth);
        }
    }

    fn entry(&mut self, folder: &OwnedFd, name: &CStr, depth: usize) {
        let Ok(found) = fstatat(folder, name, AtFlags::AT_SYMLINK_NOFOLLOW) else { return };
        if found.st_dev != self.device {
            return;
        }
        let blocks = u64::try_from(found.st_blocks).unwrap_or(0);
        self.found.bytes = Bytes::new(self.found.bytes.get().saturating_add(blocks.saturating_mul(512)));
        self.found.changed = self.found.changed.max(Some(found.st_mtime));
        if SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT != SFlag::S_IFDIR {
            return;
        }
        match openat_unseen(folder, name) {
            Ok(inner) if depth < DEEPEST => self.folder(inner, depth + 1),
            Ok(_) | Err(_) => self.found.whole = false,
        }
    }
}

/// Opens a folder without leaving a trace in its access time, where that is allowed: to root, and to who owns it.
fn openat_unseen(within: &OwnedFd, name: &CStr) -> nix::Result<OwnedFd> {
    match openat(within, name, DIRECTORY | OFlag::O_NOATIME, Mode::empty()) {
        Err(Errno::EPERM) => openat(within, name, DIRECTORY, Mode::empty()),
        other => other,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    const FAR: Bounds = Bounds { entries: 1_000_000, time: Duration::from_secs(3600) };

    #[test]
    fn files_are_counted_and_links_are_not_followed() {
        let temp = tempfile::tempdir().unwrap();
        let inner = temp.path().join("a/b");
        fs::create_dir_all(&inner).unwrap();
        fs::write(inner.join("file"), vec![1; 1 << 20]).unwrap();
        fs::File::create(temp.path().join("sparse")).unwrap().set_len(1 << 40).unwrap();
        symlink("/", temp.path().join("link")).unwrap();
        symlink("..", inner.join("loop")).unwrap();
        let found = occupied(temp.path(), FAR).unwrap();
        assert_eq!((found.entries, found.whole), (6, true));
        let newest = fs::symlink_metadata(inner.join("loop")).unwrap().modified().unwrap();
        let newest = newest.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        assert_eq!(found.changed, i64::try_from(newest).ok());
        assert!((1 << 20..1 << 22).contains(&found.bytes.get()), "{found:?}");
    }

    #[test]
    fn a_walk_that_is_cut_short_says_so() {
        let temp = tempfile::tempdir().unwrap();
        for name in 0..10 {
            fs::write(temp.path().join(name.to_string()), "x").unwrap();
        }
        let found = occupied(temp.path(), Bounds { entries: 5, ..FAR }).unwrap();
        assert_eq!((found.entries, found.whole), (5, false));
        let mut deep = temp.path().to_owned();
        for _ in 0..80 {
            deep.push("d");
        }
        fs::create_dir_all(&deep).unwrap();
        assert!(!occupied(temp.path(), FAR).unwrap().whole);
        assert!(occupied(&temp.path().join("none"), FAR).is_err());
    }
}
