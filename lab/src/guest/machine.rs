//! The machine before and after: what a refused command must leave identical.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::hash::Hasher;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::unistd::{Whence, lseek};

use super::sys;
use crate::guest::run::Cmd;

/// Directories that every snapshot lists and hashes, where they exist.
const ALWAYS: [&str; 3] = ["/etc/dmpool", "/etc/docker", "/var/lib/dmpool"];

/// Block by which contents are read and zeroes are passed over.
const BLOCK: usize = 4096;
const CHUNK: usize = 1 << 20;

/// What to look at beside the kernel's tables, the mounts and dmpool's own directories.
#[derive(Debug, Clone, Default)]
pub struct Scope {
    contents: BTreeSet<PathBuf>,
    trees: BTreeSet<PathBuf>,
    ignored: BTreeSet<PathBuf>,
}

impl Scope {
    /// The tables, the mounts, and dmpool's and Docker's configuration.
    #[must_use]
    pub fn new() -> Self {
        let trees = ALWAYS.iter().map(PathBuf::from).collect();
        Self { trees, ..Self::default() }
    }

    /// Also this file or block device: content, size, mode, owner, allocated blocks.
    #[must_use]
    pub fn content(mut self, path: impl Into<PathBuf>) -> Self {
        self.contents.insert(path.into());
        self
    }

    /// Also everything below this directory.
    #[must_use]
    pub fn tree(mut self, dir: impl Into<PathBuf>) -> Self {
        self.trees.insert(dir.into());
        self
    }

    /// Leaves this path, and what is below it, out of the trees.
    #[must_use]
    pub fn ignore(mut self, path: impl Into<PathBuf>) -> Self {
        self.ignored.insert(path.into());
        self
    }
}

/// The state of the machine at one moment, as text by section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    sections: BTreeMap<String, Vec<String>>,
}

impl Snapshot {
    /// Looks at everything in `scope`. Nothing is changed and nothing synced: a suspended pool would hang it.
    ///
    /// # Errors
    /// When a table cannot be read; a file that is missing is not an error but part of the picture.
    pub fn take(scope: &Scope) -> Result<Self> {
        let mut sections = BTreeMap::new();
        for (name, args) in [
            ("dm tables", vec!["table"]),
            // Without --noflush the status of a thin pool commits metadata, which changes what is to be compared.
            ("dm status", vec!["status", "--noflush"]),
            // No open count: udev's probes come and go.
            ("dm devices", vec!["info", "-c", "--noheadings", "-o", "name,uuid,major,minor,attr,events"]),
        ] {
            let ran = sys::dmsetup(args).run().checked()?;
            sections.insert(name.to_owned(), sorted(ran.stdout.lines().map(str::to_owned)));
        }
        sections.insert("/dev/mapper".into(), names_in(Path::new("/dev/mapper")));
        let loops = sys::loops()?;
        let loops = loops.iter().map(|l| format!("{} {} {} {}", l.device.display(), l.file, l.sectors, l.flags));
        sections.insert("loop devices".into(), loops.collect());
        let mounts = fs::read_to_string("/proc/self/mountinfo").context("cannot read /proc/self/mountinfo")?;
        sections.insert("mounts".into(), mounts.lines().map(str::to_owned).collect());
        sections.insert("lvm".into(), lvm());
        for path in &scope.contents {
            sections.insert(format!("content of {}", path.display()), vec![describe(path)]);
        }
        for dir in &scope.trees {
            let mut lines = Vec::new();
            walk(dir, &scope.ignored, &mut lines);
            sections.insert(format!("tree {}", dir.display()), lines);
        }
        Ok(Self { sections })
    }

    /// The differences, one line each, `- ` only before and `+ ` only after, under the section's name; empty when equal.
    #[must_use]
    pub fn diff(&self, after: &Self) -> String {
        let none = Vec::new();
        let names: BTreeSet<_> = self.sections.keys().chain(after.sections.keys()).collect();
        let mut text = String::new();
        for name in names {
            let old = self.sections.get(name).unwrap_or(&none);
            let new = after.sections.get(name).unwrap_or(&none);
            if old == new {
                continue;
            }
            let _ = writeln!(text, "{name}:");
            let mut said = false;
            for (mark, lines, others) in [('-', old, new), ('+', new, old)] {
                for line in lines.iter().filter(|line| !others.contains(line)) {
                    let _ = writeln!(text, "  {mark} {line}");
                    said = true;
                }
            }
            if !said {
                let _ = writeln!(text, "  the same lines in another order or number: {old:?} then {new:?}");
            }
        }
        text
    }
}

/// Ends the test, with the differences, unless the machine is the same.
///
/// # Panics
/// When `before` and `after` differ.
#[allow(clippy::panic, reason = "an assertion of tests")]
#[track_caller]
pub fn assert_same(before: &Snapshot, after: &Snapshot) {
    let diff = before.diff(after);
    assert!(diff.is_empty(), "the machine is not as it was:\n{diff}");
}

/// A hash of the content and the size: equal content, equal hash, wherever and however sparsely it is stored.
///
/// Block devices are read with `O_DIRECT`: the page cache of a device keeps what dm changed beneath it. Not a
/// cryptographic hash: it has to see accidents, not forgers.
///
/// # Errors
/// When the file cannot be opened or read.
pub fn content_hash(path: &Path) -> Result<u64> {
    let is_device = fs::metadata(path)?.file_type().is_block_device();
    let flags = if is_device { libc::O_DIRECT } else { 0 };
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags)
        .open(path)
        .with_context(|| format!("cannot open {}", path.display()))?;
    let size = if is_device { sys::size_of(path)? } else { file.metadata()?.len() };
    hash_of(&file, size, !is_device).with_context(|| format!("cannot read {}", path.display()))
}

/// [`content_hash`] of what is open already; with `holes` it is asked where its data is.
pub(super) fn hash_of(file: &File, size: u64, holes: bool) -> Result<u64> {
    let mut hash = std::hash::DefaultHasher::new();
    hash.write_u64(size);
    let mut buffer = Aligned::new(usize::try_from(size).unwrap_or(CHUNK).next_multiple_of(BLOCK).clamp(BLOCK, CHUNK));
    let mut at = 0;
    while at < size {
        if holes {
            match next_data(file, at)? {
                Some(data) => at = data - data % (BLOCK as u64),
                None => break,
            }
        }
        let read = file.read_at(buffer.space(), at)?;
        if read == 0 {
            break;
        }
        for (block, bytes) in (at..).step_by(BLOCK).zip(buffer.space().iter().as_slice().chunks(BLOCK)) {
            let within = read.saturating_sub(usize::try_from(block - at)?).min(BLOCK);
            let bytes = bytes.get(..within).unwrap_or_default();
            if bytes.iter().any(|byte| *byte != 0) {
                hash.write_u64(block);
                hash.write(bytes);
            }
        }
        at += read as u64;
    }
    Ok(hash.finish())
}

/// Where the next data begins at or after `at`; `None` when only a hole follows.
fn next_data(file: &File, at: u64) -> Result<Option<u64>> {
    match lseek(file, i64::try_from(at)?, Whence::SeekData) {
        Ok(data) => Ok(Some(u64::try_from(data)?)),
        Err(nix::errno::Errno::ENXIO) => Ok(None),
        // A file system that cannot tell holes.
        Err(nix::errno::Errno::EINVAL) => Ok(Some(at)),
        Err(error) => Err(error).context("lseek(SEEK_DATA)"),
    }
}

/// A buffer that `O_DIRECT` accepts.
struct Aligned {
    bytes: Vec<u8>,
    length: usize,
}

impl Aligned {
    fn new(length: usize) -> Self {
        Self { bytes: vec![0; length + BLOCK], length }
    }

    fn space(&mut self) -> &mut [u8] {
        let skip = self.bytes.as_ptr().align_offset(BLOCK);
        self.bytes.get_mut(skip..skip + self.length).unwrap_or_default()
    }
}

/// One line about a path: type, mode, owner, size, allocated blocks, and the hash or link target.
fn describe(path: &Path) -> String {
    let Ok(meta) = fs::symlink_metadata(path) else {
        return format!("{}: missing", path.display());
    };
    // A device named by its link is meant itself.
    let meta = if meta.is_symlink() && path.starts_with("/dev") { fs::metadata(path).unwrap_or(meta) } else { meta };
    let kind = meta.file_type();
    let what = if kind.is_symlink() {
        format!("-> {}", fs::read_link(path).unwrap_or_default().display())
    } else if kind.is_dir() {
        "dir".to_owned()
    } else if kind.is_file() || kind.is_block_device() {
        match content_hash(path) {
            Ok(hash) => format!("size {} blocks {} content {hash:016x}", size_for(path, &meta), meta.blocks()),
            Err(error) => format!("unreadable: {error:#}"),
        }
    } else {
        format!("type {:o}", meta.mode() & 0o170_000)
    };
    format!("{} {:o} {}:{} {what}", path.display(), meta.mode(), meta.uid(), meta.gid())
}

fn size_for(path: &Path, meta: &fs::Metadata) -> u64 {
    if meta.file_type().is_block_device() { sys::size_of(path).unwrap_or(0) } else { meta.len() }
}

fn walk(path: &Path, ignored: &BTreeSet<PathBuf>, lines: &mut Vec<String>) {
    if ignored.contains(path) {
        return;
    }
    lines.push(describe(path));
    if path.is_dir() && !path.is_symlink() {
        for name in names_in(path) {
            walk(&path.join(name), ignored, lines);
        }
    }
}

fn names_in(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    sorted(entries.map(|entry| entry.file_name().to_string_lossy().into_owned()))
}

fn sorted(lines: impl Iterator<Item = String>) -> Vec<String> {
    let mut lines: Vec<_> = lines.collect();
    lines.sort();
    lines
}

/// LVM's report, where LVM is installed.
/// LVM's report; not asked for while a device is suspended, since LVM reads every device and would wait for it.
fn lvm() -> Vec<String> {
    let suspended = sys::dmsetup(["info", "-c", "--noheadings", "-o", "suspended"]).run();
    if suspended.stdout.contains("Suspended") {
        return vec!["not asked: a device is suspended".to_owned()];
    }
    let mut lines = Vec::new();
    for (report, fields) in [
        ("pvs", "pv_name,vg_name,pv_size,pv_used"),
        ("vgs", "vg_name,vg_uuid,vg_seqno,vg_size,vg_free"),
        ("lvs", "lv_name,vg_name,lv_uuid,lv_size,lv_attr"),
    ] {
        let args = [report, "-a", "--noheadings", "--units", "b", "-o", fields];
        let args = args.into_iter().filter(|arg| report == "lvs" || *arg != "-a");
        let ran = Cmd::new("lvm").args(args).run();
        lines.extend(ran.stdout.lines().map(|line| format!("{report} {}", line.trim())));
    }
    lines
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn snapshot(section: &str, lines: &[&str]) -> Snapshot {
        let lines = lines.iter().map(|line| (*line).to_owned()).collect();
        Snapshot { sections: BTreeMap::from([(section.to_owned(), lines)]) }
    }

    #[test]
    fn the_difference_names_section_and_line() {
        let before = snapshot("mounts", &["a", "b"]);
        let after = snapshot("mounts", &["b", "c"]);
        assert_eq!(before.diff(&after), "mounts:\n  - a\n  + c\n");
        assert_eq!(before.diff(&before), "");
        assert!(!snapshot("m", &["a", "b"]).diff(&snapshot("m", &["b", "a"])).is_empty());
    }

    #[test]
    fn content_counts_and_holes_do_not() {
        let dir = tempfile::tempdir().unwrap();
        let (sparse, full) = (dir.path().join("sparse"), dir.path().join("full"));
        let size = 3 * CHUNK as u64 + 5;
        let file = File::create(&sparse).unwrap();
        file.set_len(size).unwrap();
        file.write_all_at(b"x", 2 * CHUNK as u64 + 77).unwrap();
        let mut bytes = vec![0; 3 * CHUNK + 5];
        *bytes.get_mut(2 * CHUNK + 77).unwrap() = b'x';
        fs::write(&full, &bytes).unwrap();
        assert_eq!(content_hash(&sparse).unwrap(), content_hash(&full).unwrap());
        *bytes.last_mut().unwrap() = 1;
        fs::write(&full, &bytes).unwrap();
        assert_ne!(content_hash(&sparse).unwrap(), content_hash(&full).unwrap());
        file.set_len(size + 1).unwrap();
        let longer = content_hash(&sparse).unwrap();
        file.set_len(size).unwrap();
        assert_ne!(content_hash(&sparse).unwrap(), longer, "the size is part of it");
    }

    #[test]
    fn a_tree_tells_of_every_entry() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("sub")).unwrap();
        fs::write(dir.path().join("sub/file"), "1").unwrap();
        std::os::unix::fs::symlink("nowhere", dir.path().join("link")).unwrap();
        let list = |ignored: &BTreeSet<PathBuf>| {
            let mut lines = Vec::new();
            walk(dir.path(), ignored, &mut lines);
            lines
        };
        let before = list(&BTreeSet::new());
        assert_eq!(before.len(), 4);
        fs::write(dir.path().join("sub/file"), "2").unwrap();
        assert_ne!(list(&BTreeSet::new()), before, "same size, other content");
        assert_eq!(list(&BTreeSet::from([dir.path().join("sub")])).len(), 2);
        let mut lines = Vec::new();
        walk(&dir.path().join("none"), &BTreeSet::new(), &mut lines);
        assert!(lines.first().unwrap().ends_with("missing"));
    }
}
