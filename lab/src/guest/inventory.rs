//! What is in a directory, down to the last attribute, and how two such differ.
//!
//! Walked with `openat` and never through a link. Access and change times are no part of it: looking changes the one,
//! and nobody can set the other.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::dir::Dir;
use nix::fcntl::{AtFlags, OFlag, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat, major, minor};
use serde::{Deserialize, Serialize};

use super::bytes::Bytes;
use super::machine;

/// The path of the directory itself.
pub const TOP: &str = ".";

/// Lines that a list of differences has at most.
const SHOWN: usize = 40;

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the kernel's own types of file")]
pub enum Kind {
    File,
    Directory,
    Symlink,
    Character,
    Block,
    Fifo,
    Socket,
}

/// What is compared of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Field {
    /// What it is. Where this differs, nothing else is compared.
    Kind,
    /// Permissions with set-user-id, set-group-id and sticky.
    Mode,
    /// User and group by number.
    Owner,
    /// Bytes of a file or a link's target.
    Size,
    /// Bytes of a directory, which depend on its file system and its past.
    DirectorySize,
    /// Last change of the content, in nanoseconds; may be before 1970.
    Time,
    /// Which device a device node is.
    Device,
    /// Where a link points.
    Target,
    /// Extended attributes with the ACLs among them.
    Xattrs,
    /// Which names are the same file.
    Links,
    /// Hash of a file's bytes.
    Content,
    /// Whether a file has less space than its size needs.
    Sparse,
}

impl Field {
    const ALL: [Self; 12] = [
        Self::Kind,
        Self::Mode,
        Self::Owner,
        Self::Size,
        Self::DirectorySize,
        Self::Time,
        Self::Device,
        Self::Target,
        Self::Xattrs,
        Self::Links,
        Self::Content,
        Self::Sparse,
    ];
}

/// One name in a directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// What it is.
    pub kind: Kind,
    /// Permissions, the lower twelve bits.
    pub mode: u32,
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bytes, as `lstat` says.
    pub size: u64,
    /// Last change: seconds since 1970, may be negative, and nanoseconds from there on.
    pub mtime: (i64, i64),
    /// Major and minor number of a device node.
    pub device: Option<(u64, u64)>,
    /// Where a link points.
    pub target: Option<Bytes>,
    /// Extended attributes.
    pub xattrs: BTreeMap<Bytes, Bytes>,
    /// For a file with several names here: the first of them.
    pub links: Option<Bytes>,
    /// Hash of a file's bytes, [`machine::content_hash`].
    pub content: Option<u64>,
    /// Whether a file has less space than its size needs, by a block of 4 KiB or more.
    pub sparse: bool,
}

impl Entry {
    /// One field in words; nothing for what this kind of entry has not.
    fn say(&self, field: Field, except: &Except) -> String {
        match field {
            Field::Kind => format!("{:?}", self.kind),
            // Linux gives every link the same.
            Field::Mode if self.kind != Kind::Symlink => format!("{:o}", self.mode),
            Field::Owner => format!("{}:{}", self.uid, self.gid),
            Field::Size if self.kind != Kind::Directory => self.size.to_string(),
            Field::DirectorySize if self.kind == Kind::Directory => self.size.to_string(),
            Field::Time => format!("{}s+{}ns", self.mtime.0, self.mtime.1),
            Field::Device => self.device.map_or(String::new(), |(major, minor)| format!("{major}:{minor}")),
            Field::Target => self.target.as_ref().map_or(String::new(), ToString::to_string),
            Field::Xattrs => {
                let compared = self.xattrs.iter().filter(|(name, _)| !except.leaves_out_xattr(name));
                compared.map(|(name, value)| format!("{name}={value} ")).collect()
            }
            Field::Links => self.links.as_ref().map_or(String::new(), ToString::to_string),
            Field::Content => self.content.map_or(String::new(), |hash| format!("{hash:016x}")),
            Field::Sparse => self.sparse.to_string(),
            Field::Mode | Field::Size | Field::DirectorySize => String::new(),
        }
    }
}

/// What a comparison leaves out.
#[derive(Debug, Clone, Default)]
pub struct Except {
    fields: BTreeSet<Field>,
    kinds: BTreeSet<Kind>,
    paths: Vec<PathBuf>,
    xattrs: Vec<String>,
}

impl Except {
    /// Nothing: everything is compared.
    #[must_use]
    pub fn nothing() -> Self {
        Self::default()
    }

    /// Also this field.
    #[must_use]
    pub fn field(mut self, field: Field) -> Self {
        self.fields.insert(field);
        self
    }

    /// Also entries of this kind, as sockets, which no archive holds.
    #[must_use]
    pub fn kind(mut self, kind: Kind) -> Self {
        self.kinds.insert(kind);
        self
    }

    /// Also this path, relative to the top, and what is below it.
    #[must_use]
    pub fn path(mut self, path: impl Into<PathBuf>) -> Self {
        self.paths.push(path.into());
        self
    }

    /// Also extended attributes whose names begin with this.
    #[must_use]
    pub fn xattrs(mut self, prefix: &str) -> Self {
        self.xattrs.push(prefix.to_owned());
        self
    }

    fn leaves_out(&self, path: &Bytes, entry: &Entry) -> bool {
        self.kinds.contains(&entry.kind) || self.paths.iter().any(|out| path.path().starts_with(out))
    }

    fn leaves_out_xattr(&self, name: &Bytes) -> bool {
        self.xattrs.iter().any(|prefix| name.0.starts_with(prefix.as_bytes()))
    }
}

/// Everything in a directory at one moment, by path from its top.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inventory {
    entries: BTreeMap<Bytes, Entry>,
}

impl Inventory {
    /// Looks at `dir` and everything below it on the same file system; what is mounted below is seen as a directory only.
    ///
    /// # Errors
    /// When anything in it cannot be read, or changes meanwhile.
    pub fn of(dir: &Path) -> Result<Self> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let top = Dir::open(dir, flags, Mode::empty()).with_context(|| format!("cannot open {}", dir.display()))?;
        let stat = fstat(&top)?;
        let mut walk = Walk { device: stat.st_dev, entries: BTreeMap::new(), files: BTreeMap::new() };
        let entry = describe(&top, OsStr::new(TOP), &stat)?;
        walk.entries.insert(TOP.into(), entry);
        walk.directory(top, Path::new("")).with_context(|| format!("in {}", dir.display()))?;
        let mut entries = walk.entries;
        link(&mut entries, walk.files.into_values());
        Ok(Self { entries })
    }

    /// How many entries there are, the top among them.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether it is of no directory.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The entry at a path from the top.
    #[must_use]
    pub fn get(&self, path: impl AsRef<OsStr>) -> Option<&Entry> {
        self.entries.get(&Bytes::from(&path))
    }

    /// All paths and entries, in the order of the paths' bytes.
    pub fn iter(&self) -> impl Iterator<Item = (&Bytes, &Entry)> {
        self.entries.iter()
    }

    /// What is at `path` and below it, as if that were the top.
    #[must_use]
    pub fn below(&self, path: impl AsRef<Path>) -> Self {
        let mut entries = BTreeMap::new();
        let mut groups: BTreeMap<Bytes, Vec<Bytes>> = BTreeMap::new();
        for (full, entry) in &self.entries {
            let Ok(rest) = full.path().strip_prefix(&path) else { continue };
            let rest = if rest.as_os_str().is_empty() { Bytes::from(TOP) } else { Bytes::from(rest) };
            if let Some(first) = &entry.links {
                groups.entry(first.clone()).or_default().push(rest.clone());
            }
            entries.insert(rest, Entry { links: None, ..entry.clone() });
        }
        link(&mut entries, groups.into_values());
        Self { entries }
    }

    /// How `found` differs from this one, a line each; the first few, with the number of the others.
    #[must_use]
    pub fn differences(&self, found: &Self, except: &Except) -> Vec<String> {
        let paths: BTreeSet<_> = self.entries.keys().chain(found.entries.keys()).collect();
        let mut lines = Vec::new();
        for path in paths {
            let side = |of: &'_ Self| of.entries.get(path).filter(|entry| !except.leaves_out(path, entry)).cloned();
            match (side(self), side(found)) {
                (Some(expected), Some(found)) => differing(path, &expected, &found, except, &mut lines),
                (Some(expected), None) => lines.push(format!("{path}: missing ({:?})", expected.kind)),
                (None, Some(found)) => lines.push(format!("{path}: not expected ({:?})", found.kind)),
                (None, None) => {}
            }
        }
        if lines.len() > SHOWN {
            let more = lines.len() - SHOWN;
            lines.truncate(SHOWN);
            lines.push(format!("and {more} more"));
        }
        lines
    }

    /// Ends the test with the differences, unless there are none.
    ///
    /// # Panics
    /// When `found` differs in more than `except`.
    #[track_caller]
    pub fn assert_is(&self, found: &Self, except: &Except) {
        let lines = self.differences(found, except);
        assert!(lines.is_empty(), "not as expected:\n  {}", lines.join("\n  "));
    }
}

fn differing(path: &Bytes, expected: &Entry, found: &Entry, except: &Except, lines: &mut Vec<String>) {
    for field in Field::ALL.into_iter().filter(|field| !except.fields.contains(field)) {
        let (old, new) = (expected.say(field, except), found.say(field, except));
        if old != new {
            lines.push(format!("{path}: {field} {new:?} instead of {old:?}"));
            if field == Field::Kind {
                return;
            }
        }
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kind => "kind",
            Self::Mode => "mode",
            Self::Owner => "owner",
            Self::Size => "size",
            Self::DirectorySize => "directory size",
            Self::Time => "time",
            Self::Device => "device",
            Self::Target => "target",
            Self::Xattrs => "xattrs",
            Self::Links => "first link",
            Self::Content => "content",
            Self::Sparse => "sparse",
        })
    }
}

struct Walk {
    device: u64,
    entries: BTreeMap<Bytes, Entry>,
    /// Names of each file that has more than one link, by inode.
    files: BTreeMap<(u64, u64), Vec<Bytes>>,
}

impl Walk {
    fn directory(&mut self, mut dir: Dir, path: &Path) -> Result<()> {
        let names: Vec<_> =
            dir.iter().map(|entry| entry.map(|e| e.file_name().to_owned())).collect::<nix::Result<_>>()?;
        for name in names {
            let name = OsStr::from_bytes(name.to_bytes());
            if name == "." || name == ".." {
                continue;
            }
            let here = path.join(name);
            self.entry(&dir, name, &here).with_context(|| format!("cannot look at {}", Bytes::from(&here)))?;
        }
        Ok(())
    }

    fn entry(&mut self, dir: &Dir, name: &OsStr, path: &Path) -> Result<()> {
        let stat = fstatat(dir, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
        let entry = describe(dir, name, &stat)?;
        let descend = entry.kind == Kind::Directory && stat.st_dev == self.device;
        if entry.kind != Kind::Directory && stat.st_nlink > 1 {
            self.files.entry((stat.st_dev, stat.st_ino)).or_default().push(path.into());
        }
        self.entries.insert(path.into(), entry);
        if descend {
            let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            self.directory(Dir::openat(dir, name, flags, Mode::empty())?, path)?;
        }
        Ok(())
    }
}

/// Notes which names are the same file: of each group, the first.
fn link(entries: &mut BTreeMap<Bytes, Entry>, groups: impl Iterator<Item = Vec<Bytes>>) {
    for names in groups.filter(|names| names.len() > 1) {
        let first = names.iter().min().cloned();
        for name in &names {
            if let Some(entry) = entries.get_mut(name) {
                entry.links.clone_from(&first);
            }
        }
    }
}

fn describe(dir: &Dir, name: &OsStr, stat: &FileStat) -> Result<Entry> {
    let kind = match SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT {
        SFlag::S_IFDIR => Kind::Directory,
        SFlag::S_IFLNK => Kind::Symlink,
        SFlag::S_IFCHR => Kind::Character,
        SFlag::S_IFBLK => Kind::Block,
        SFlag::S_IFIFO => Kind::Fifo,
        SFlag::S_IFSOCK => Kind::Socket,
        _ => Kind::File,
    };
    let size = u64::try_from(stat.st_size)?;
    let allocated = u64::try_from(stat.st_blocks)? * 512;
    let is_device = matches!(kind, Kind::Character | Kind::Block);
    Ok(Entry {
        kind,
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        size,
        mtime: (stat.st_mtime, stat.st_mtime_nsec),
        device: is_device.then(|| (major(stat.st_rdev), minor(stat.st_rdev))),
        target: if kind == Kind::Symlink { Some(Bytes::from(&readlinkat(dir, name)?)) } else { None },
        xattrs: xattrs(dir, name)?,
        links: None,
        content: if kind == Kind::File { Some(content(dir, name, size)?) } else { None },
        sparse: kind == Kind::File && allocated < size - size % 4096,
    })
}

/// By the directory's descriptor under /proc: no call takes a name relative to a descriptor.
fn xattrs(dir: &Dir, name: &OsStr) -> Result<BTreeMap<Bytes, Bytes>> {
    let path = Path::new("/proc/self/fd").join(dir.as_fd().as_raw_fd().to_string()).join(name);
    Ok(attributes(&path)?.into_iter().map(|(name, value)| (Bytes::from(&name), Bytes(value))).collect())
}

/// Returns the extended attributes of a file. XFS lists an ACL as `trusted.SGI_ACL_FILE` too, which is left out.
///
/// # Errors
/// When they cannot be read.
pub fn attributes(path: &Path) -> Result<BTreeMap<OsString, Vec<u8>>> {
    let mut found = BTreeMap::new();
    for name in xattr::list(path)? {
        if let Some(value) = xattr::get(path, &name)? {
            found.insert(name, value);
        }
    }
    for (acl, second) in [("access", "FILE"), ("default", "DEFAULT")] {
        if found.contains_key(OsStr::new(&format!("system.posix_acl_{acl}"))) {
            found.remove(OsStr::new(&format!("trusted.SGI_ACL_{second}")));
        }
    }
    Ok(found)
}

fn content(dir: &Dir, name: &OsStr, size: u64) -> Result<u64> {
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let file = File::from(openat(dir, name, flags, Mode::empty())?);
    machine::hash_of(&file, size, true)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn tree() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir_all(at("sub/deeper")).unwrap();
        fs::write(at("sub/a"), "one").unwrap();
        fs::hard_link(at("sub/a"), at("sub/deeper/b")).unwrap();
        fs::hard_link(at("sub/a"), at("again")).unwrap();
        symlink("/etc/passwd", at("sub/link")).unwrap();
        File::create(at("hole")).unwrap().set_len(1 << 20).unwrap();
        fs::write(dir.path().join(OsStr::from_bytes(b"\xff\n")), "").unwrap();
        dir
    }

    fn differences(expected: &Inventory, dir: &Path) -> String {
        let except = Except::nothing().field(Field::DirectorySize);
        expected.differences(&Inventory::of(dir).unwrap(), &except).join("\n")
    }

    #[test]
    fn a_directory_is_seen_whole_and_survives_json() {
        let dir = tree();
        let inventory = Inventory::of(dir.path()).unwrap();
        assert_eq!(inventory.len(), 9);
        assert_eq!(inventory.get("sub/deeper/b").unwrap().links, Some("again".into()));
        assert_eq!(inventory.get("sub/link").unwrap().target, Some("/etc/passwd".into()));
        assert!(inventory.get("hole").unwrap().sparse && !inventory.get("sub/a").unwrap().sparse);
        let text = serde_json::to_string(&inventory).unwrap();
        assert_eq!(serde_json::from_str::<Inventory>(&text).unwrap(), inventory);
        let sub = inventory.below("sub");
        assert_eq!(sub.get("deeper/b").unwrap().links, Some("a".into()), "the group begins anew");
        sub.assert_is(&Inventory::of(&dir.path().join("sub")).unwrap(), &Except::nothing());
        assert_eq!(inventory.below("sub/deeper").get("b").unwrap().links, None);
    }

    #[test]
    fn every_change_is_named_once() {
        let dir = tree();
        let at = |name: &str| dir.path().join(name);
        let before = Inventory::of(dir.path()).unwrap();
        assert_eq!(differences(&before, dir.path()), "");
        let time = |name: &str| {
            nix::sys::time::TimeSpec::new(before.get(name).unwrap().mtime.0, before.get(name).unwrap().mtime.1)
        };
        let restore = |name: &str| {
            let now = time(name);
            let flag = nix::sys::stat::UtimensatFlags::NoFollowSymlink;
            nix::sys::stat::utimensat(nix::fcntl::AT_FDCWD, &at(name), &now, &now, flag).unwrap();
        };
        fs::write(at("hole"), vec![0; 1 << 20]).unwrap();
        restore("hole");
        assert_eq!(differences(&before, dir.path()), "hole: sparse \"false\" instead of \"true\"");
        File::options().write(true).open(at("hole")).unwrap().set_len(0).unwrap();
        File::options().write(true).open(at("hole")).unwrap().set_len(1 << 20).unwrap();
        restore("hole");
        fs::set_permissions(at("sub/deeper"), fs::Permissions::from_mode(0o2700)).unwrap();
        assert!(differences(&before, dir.path()).starts_with("sub/deeper: mode \"2700\" instead of "));
        let mode = before.get("sub/deeper").unwrap().mode;
        fs::set_permissions(at("sub/deeper"), fs::Permissions::from_mode(mode)).unwrap();
        fs::remove_file(at("sub/link")).unwrap();
        symlink("/etc/passwt", at("sub/link")).unwrap();
        restore("sub/link");
        restore("sub");
        assert_eq!(differences(&before, dir.path()), "sub/link: target \"/etc/passwt\" instead of \"/etc/passwd\"");
        let after = Inventory::of(dir.path()).unwrap();
        assert_eq!(before.differences(&after, &Except::nothing().kind(Kind::Symlink)), [""; 0]);
        assert_eq!(before.differences(&after, &Except::nothing().path("sub")), [""; 0]);
        assert_eq!(before.differences(&after, &Except::nothing().field(Field::Target)), [""; 0]);
    }
}
