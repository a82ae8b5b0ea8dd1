//! A volume's entries of an archive as files, in a directory of their own.

use std::ffi::OsStr;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use super::entries::{Bad, Entries, Entry};
use crate::kernel::KernelError;
use crate::kernel::folder::{Attribute, FileKind, Folder, Status};
use crate::kernel::interrupt::Held;
use crate::ops::contents::archive::{DEFAULT, Keeping, Remark, Tell, ends_all};
use crate::ops::contents::tree::{Lost, shown};

const PIECE: usize = 256 << 10;

/// Why nothing more is restored.
#[derive(Debug)]
pub(in crate::ops) enum Stop {
    /// The archive is damaged, or none.
    Bad(Bad),
    Kernel(KernelError),
    Signal,
}

impl From<KernelError> for Stop {
    fn from(error: KernelError) -> Self {
        Self::Kernel(error)
    }
}

impl From<Bad> for Stop {
    fn from(bad: Bad) -> Self {
        Self::Bad(bad)
    }
}

/// Makes one volume's files.
#[derive(Debug)]
pub(in crate::ops) struct Unpack {
    /// An empty directory.
    base: Folder,
    /// The path in the archive that it stands for.
    place: PathBuf,
    /// The directories that the next entry may be in, the innermost last.
    levels: Vec<Level>,
    /// The innermost one, open.
    folder: Option<Folder>,
    keeping: Keeping,
    buffer: Vec<u8>,
    pub(in crate::ops) made: u64,
}

#[derive(Debug)]
struct Level {
    /// Below `base`.
    path: PathBuf,
    status: Status,
    attributes: Vec<Attribute>,
}

impl Unpack {
    /// Begins in an empty directory, which stands for a path of the archive.
    pub(in crate::ops) fn new(base: Folder, place: &Path) -> Self {
        let inherits = matches!(base.attribute(OsStr::new("."), DEFAULT), Ok(Some(_)));
        let keeping = Keeping { owners: true, inherits };
        Self {
            base,
            place: place.to_owned(),
            levels: Vec::new(),
            folder: None,
            keeping,
            buffer: vec![0; PIECE],
            made: 0,
        }
    }

    /// Makes one entry, with its bytes.
    pub(in crate::ops) fn entry<R: Read>(
        &mut self,
        entry: &Entry,
        from: &mut Entries<R>,
        held: &Held,
        tell: &mut Tell<'_>,
    ) -> Result<(), Stop> {
        if held.came() {
            return Err(Stop::Signal);
        }
        let path = self.below(&entry.path)?;
        let (parent, name) = (path.parent().unwrap_or(Path::new("")), path.file_name().unwrap_or_default());
        while self.levels.last().is_some_and(|level| level.path != parent) {
            self.leave(tell)?;
        }
        if self.levels.is_empty() && !parent.as_os_str().is_empty() {
            return Err(Stop::Bad(format!("entry `{}` comes before its directory", shown(&entry.path))));
        }
        match self.make(entry, name, from, held) {
            Ok(()) => {}
            Err(Stop::Kernel(e)) if e.errno == Errno::EEXIST => {
                return Err(Stop::Bad(format!("entry `{}` is in it twice", shown(&entry.path))));
            }
            // What lies below a directory that cannot be made has no place.
            Err(Stop::Kernel(e)) if !ends_all(e.errno) && !entry.status.is_directory() => {
                let _ = self.folder()?.remove(name);
                tell(Remark::Lost(Lost::new(&entry.path, format!("it is left out: {e}"))));
                return Ok(());
            }
            Err(stop) => return Err(stop),
        }
        self.made += 1;
        if entry.status.is_directory() {
            let inner = self.folder()?.enter(name)?;
            let (status, attributes) = (entry.status, entry.attributes.clone());
            self.levels.push(Level { path: path.clone(), status, attributes });
            self.folder = Some(inner);
        } else if entry.original.is_none() {
            let keeping = self.keeping;
            let lost = keeping.finish(self.folder()?, name, &entry.status, &entry.attributes);
            lost.into_iter().for_each(|why| tell(Remark::Lost(Lost::new(&entry.path, why))));
        }
        Ok(())
    }

    /// Finishes the directories that are left.
    pub(in crate::ops) fn end(&mut self, tell: &mut Tell<'_>) -> Result<(), Stop> {
        while !self.levels.is_empty() {
            self.leave(tell)?;
        }
        Ok(())
    }

    fn below(&self, path: &Path) -> Result<PathBuf, Stop> {
        let base = self.place.parent().unwrap_or(Path::new(""));
        match path.strip_prefix(base) {
            Ok(below) if path.starts_with(&self.place) => Ok(below.to_owned()),
            _ => Err(Stop::Bad(format!("entry `{}` is in no volume", shown(path)))),
        }
    }

    fn make<R: Read>(&mut self, entry: &Entry, name: &OsStr, from: &mut Entries<R>, held: &Held) -> Result<(), Stop> {
        if let Some(original) = &entry.original {
            let original = self.below(original)?;
            let (parent, other) =
                (original.parent().unwrap_or(Path::new("")), original.file_name().unwrap_or_default());
            let parent = self.open(parent)?;
            return Ok(self.folder()?.make_hard_link(name, &parent, other)?);
        }
        match entry.status.kind {
            FileKind::Directory => Ok(self.folder()?.make_folder(name)?),
            FileKind::Link => {
                let target = entry.target.clone().unwrap_or_default();
                Ok(self.folder()?.make_link(name, &target)?)
            }
            FileKind::File => self.file(entry, name, from, held),
            _ => Ok(self.folder()?.make_node(name, &entry.status)?),
        }
    }

    fn file<R: Read>(&mut self, entry: &Entry, name: &OsStr, from: &mut Entries<R>, held: &Held) -> Result<(), Stop> {
        let file = self.folder()?.make_file(name)?;
        let wrong = |e: io::Error| {
            let errno = e.raw_os_error().map_or(Errno::EIO, Errno::from_raw);
            Stop::Kernel(KernelError { errno, call: "write", object: shown(&entry.path) })
        };
        file.set_len(entry.status.size).map_err(wrong)?;
        for (start, length) in &entry.extents {
            let (mut at, mut left) = (*start, *length);
            while left > 0 {
                if held.came() {
                    return Err(Stop::Signal);
                }
                let length = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
                let piece = self.buffer.get_mut(..length).unwrap_or_default();
                if from.read(piece)? < length {
                    return Err(Stop::Bad(format!("entry `{}` is cut off", shown(&entry.path))));
                }
                file.write_all_at(piece, at).map_err(wrong)?;
                at += length as u64;
                left -= length as u64;
            }
        }
        Ok(())
    }

    /// Leaves the innermost directory: nothing more is made in it.
    fn leave(&mut self, tell: &mut Tell<'_>) -> Result<(), Stop> {
        let Some(level) = self.levels.pop() else { return Ok(()) };
        self.folder = None;
        let name = level.path.file_name().unwrap_or_default();
        let keeping = self.keeping;
        let lost = keeping.finish(self.folder()?, name, &level.status, &level.attributes);
        let path = self.place.parent().unwrap_or(Path::new("")).join(&level.path);
        lost.into_iter().for_each(|why| tell(Remark::Lost(Lost::new(&path, why))));
        Ok(())
    }

    fn folder(&mut self) -> Result<&Folder, KernelError> {
        let open = match self.folder.take() {
            Some(folder) => folder,
            None => self.open(self.levels.last().map_or(Path::new(""), |level| &level.path))?,
        };
        Ok(self.folder.insert(open))
    }

    /// Opens a directory of those that were made, by single names.
    fn open(&self, path: &Path) -> Result<Folder, KernelError> {
        path.iter().try_fold(self.base.enter(OsStr::new("."))?, |folder, name| folder.enter(name))
    }
}
