//! A tree as files in a directory.

mod onto;
mod upper;

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::unistd::geteuid;

use super::{Destination, Remark, Tell, filled};
use crate::error::{Failure, Kind, Outcome};
use crate::kernel::KernelError;
use crate::kernel::folder::{Attribute, FileKind, Folder, Status};
use crate::kernel::fs::sync_file_system;
use crate::kernel::interrupt::Held;
use crate::ops::contents::tree::{Entry, Links, Lost, Resolved, Tree, Walk, shown};

pub(crate) use onto::{Onto, plant_onto};
pub(crate) use upper::{Upper, plant_upper, unfit};
pub(super) use upper::{WHITEOUT, is_whiteout, take_marks};

const TEMPORARY: &str = ".dmpool-rescue";
/// What an entry takes beside its content.
const ENTRY: u64 = 4096;
const ACCESS: &str = "system.posix_acl_access";
pub(crate) const DEFAULT: &str = "system.posix_acl_default";

/// Copies what a path has led to, with all below it. Files of the same name are replaced, directories are merged, as
/// `docker cp` does; each file has its name once it is whole. What cannot be read or kept is told. Returns how many entries
/// there are now.
///
/// # Errors
/// When the directory is full, can be written no more, or a signal comes; what was copied so far is left there.
pub fn plant(tree: &Tree, from: &Resolved, to: Destination, tell: &mut Tell<'_>) -> Outcome<u64> {
    let held = Held::hold().map_err(|e| Failure::failed("cannot hold back signals").because(e))?;
    let inherits = matches!(to.folder.attribute(OsStr::new("."), DEFAULT), Ok(Some(_)));
    let path = to.path.clone();
    let may_own = geteuid().is_root();
    if !may_own {
        tell(Remark::Lost(Lost::new(&from.path, "owners cannot be kept without root: what is copied is yours")));
    }
    let mut planting = Planting {
        tree,
        tell,
        held: &held,
        inherits,
        may_own,
        is_upper: false,
        writes: &|_| (),
        links: Links::default(),
        ground: Ground { root: to.folder, levels: Vec::new() },
        made: 0,
    };
    let ended = planting.all(from, to.name.as_deref());
    let made = planting.made;
    let stopped = |why: String| {
        Failure::new(Kind::Damaged, format!("stopped copying to `{}`: {why}", path.display()))
            .fact("state", format!("{made} entries were copied and are whole; the others are not there"))
    };
    match ended {
        Ok(()) => {}
        Err(Stop::Signal) => return Err(stopped(format!("{} came", held.take().unwrap_or("a signal")))),
        Err(Stop::Kernel(e)) => {
            let next = "make room, or name a directory on another file system; what is there already is replaced";
            return Err(stopped("it cannot be written".to_owned()).because(e).next(next));
        }
    }
    sync_file_system(&path).map_err(|e| stopped("it cannot be synced".to_owned()).because(e))?;
    Ok(made)
}

/// Why nothing more is copied.
enum Stop {
    Signal,
    Kernel(KernelError),
}

impl From<KernelError> for Stop {
    fn from(error: KernelError) -> Self {
        Self::Kernel(error)
    }
}

struct Planting<'a, 't> {
    tree: &'a Tree,
    tell: &'a mut Tell<'t>,
    held: &'a Held,
    /// Whether the directory gives what is made in it an ACL.
    inherits: bool,
    may_own: bool,
    /// Whether overlayfs will read it, which has marks of its own.
    is_upper: bool,
    /// Gets how many bytes are written next.
    writes: &'a dyn Fn(u64),
    /// By their paths below the destination.
    links: Links,
    ground: Ground,
    made: u64,
}

/// What is being made is called so until it is whole.
fn temporary() -> OsString {
    OsString::from(format!("{TEMPORARY}-{}", std::process::id()))
}

/// Whether nothing more can be made. Else it is one name, or one kind of file, that the file system cannot hold.
pub(crate) fn ends_all(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::ENOSPC | Errno::EDQUOT | Errno::EROFS | Errno::EIO | Errno::ENOMEM | Errno::EMFILE | Errno::ENFILE
    )
}

impl Planting<'_, '_> {
    fn all(&mut self, from: &Resolved, name: Option<&OsStr>) -> Result<(), Stop> {
        let base = name.map(PathBuf::from).unwrap_or_default();
        let mut enters = true;
        if name.is_some() {
            enters = self.entry(&Entry { path: from.path.clone(), node: from.node.clone() }, &base)?;
        }
        if enters && from.node.status.is_directory() {
            let mut walk = Walk::below(self.tree, &from.path, &from.node);
            while let Some(found) = walk.next() {
                match found {
                    Ok(entry) => {
                        let below = entry.path.strip_prefix(&from.path).unwrap_or(&entry.path);
                        let enters = self.entry(&entry, &base.join(below))?;
                        if !enters && entry.node.status.is_directory() {
                            walk.stay_out();
                        }
                    }
                    Err(lost) => (self.tell)(Remark::Lost(lost)),
                }
            }
        }
        self.leave(0)
    }

    /// Makes one entry; says whether it is there.
    fn entry(&mut self, entry: &Entry, path: &Path) -> Result<bool, Stop> {
        if self.held.came() {
            return Err(Stop::Signal);
        }
        let parent = path.parent().unwrap_or(Path::new(""));
        self.leave(self.ground.depth_of(parent))?;
        let Some(name) = path.file_name() else { return Ok(true) };
        let is_directory = entry.node.status.is_directory();
        (self.writes)(ENTRY);
        let tried = if is_directory { self.directory(entry, path, name) } else { self.other(entry, path, name) };
        let made = match tried {
            Err(stop) => {
                let _ = self.ground.folder()?.remove(&temporary());
                match stop {
                    Stop::Kernel(e) if !ends_all(e.errno) => self.leave_out(entry, &e),
                    stop => return Err(stop),
                }
            }
            Ok(made) => made,
        };
        if !made && !is_directory {
            self.links.forget(&entry.node.status);
        }
        self.made += u64::from(made);
        Ok(made)
    }

    fn directory(&mut self, entry: &Entry, path: &Path, name: &OsStr) -> Result<bool, Stop> {
        let folder = self.ground.folder()?;
        match folder.make_folder(name) {
            Err(e) if e.errno == Errno::EEXIST => {
                if !folder.status(name)?.is_some_and(|found| found.is_directory()) {
                    self.lose(&entry.path, "it is left out with all in it: a file of that name is in its place");
                    return Ok(false);
                }
            }
            made => made?,
        }
        let inner = folder.enter(name)?;
        let attributes = self.attributes(entry);
        self.ground.levels.push(Level {
            folder: Some(inner),
            path: path.to_owned(),
            source: entry.path.clone(),
            status: entry.node.status,
            attributes,
        });
        self.ground.close_some();
        Ok(true)
    }

    fn other(&mut self, entry: &Entry, path: &Path, name: &OsStr) -> Result<bool, Stop> {
        let status = &entry.node.status;
        let temporary = &temporary();
        if self.ground.folder()?.status(name)?.is_some_and(|found| found.is_directory()) {
            self.lose(&entry.path, "it is left out: a directory of that name is in its place");
            return Ok(false);
        }
        if let Some(original) = self.links.met(path, status) {
            let (parent, original) =
                (original.parent().unwrap_or(Path::new("")), original.file_name().unwrap_or_default());
            let from = self.ground.open(parent)?;
            let folder = self.ground.folder()?;
            match folder.make_hard_link(temporary, &from, original) {
                Ok(()) => {
                    folder.put_in_place(temporary, name)?;
                    return Ok(true);
                }
                Err(e) if ends_all(e.errno) => return Err(e.into()),
                Err(e) => self.lose(&entry.path, &format!("it is a file of its own now: {e}")),
            }
        }
        let made = match status.kind {
            FileKind::File => self.file(entry, temporary)?,
            FileKind::Link => match entry.node.target() {
                Ok(target) => self.ground.folder()?.make_link(temporary, &target).map(|()| true)?,
                Err(e) => self.leave_out(entry, &e),
            },
            _ => self.ground.folder()?.make_node(temporary, status).map(|()| true)?,
        };
        if !made {
            return Ok(false);
        }
        let attributes = self.attributes(entry);
        self.finish(temporary, &entry.path, status, &attributes)?;
        self.ground.folder()?.put_in_place(temporary, name)?;
        Ok(true)
    }

    /// Makes a file under its temporary name.
    fn file(&mut self, entry: &Entry, temporary: &OsStr) -> Result<bool, Stop> {
        let content = match entry.node.content() {
            Ok(content) => content,
            Err(e) => return Ok(self.leave_out(entry, &e)),
        };
        let folder = self.ground.folder()?;
        let file = folder.make_file(temporary)?;
        let (held, writes) = (self.held, self.writes);
        let written = file.set_len(content.size()).and_then(|()| {
            content.read(&mut |at, bytes| match held.came() {
                true => Err(io::Error::new(io::ErrorKind::TimedOut, "a signal came")),
                false => {
                    writes(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
                    file.write_all_at(bytes, at)
                }
            })
        });
        match written {
            Ok(missing) => {
                filled(&missing).into_iter().for_each(|why| self.lose(&entry.path, &why));
                Ok(true)
            }
            Err(e) => {
                if self.held.came() {
                    return Err(Stop::Signal);
                }
                let errno = e.raw_os_error().map_or(Errno::EIO, Errno::from_raw);
                let object = shown(&entry.path);
                Err(Stop::Kernel(KernelError { errno, call: "write", object }))
            }
        }
    }

    fn attributes(&mut self, entry: &Entry) -> Vec<Attribute> {
        let found = entry.node.attributes(self.tree).unwrap_or_else(|e| {
            self.lose(&entry.path, &format!("its attributes are left out: {e}"));
            Vec::new()
        });
        if self.is_upper { self.without_marks(entry, found) } else { found }
    }

    /// Gives what was made its owner, attributes, mode and time, each after what would change it.
    fn finish(&mut self, name: &OsStr, source: &Path, status: &Status, attributes: &[Attribute]) -> Result<(), Stop> {
        let keeping = Keeping { owners: self.may_own, inherits: self.inherits };
        let lost = keeping.finish(self.ground.folder()?, name, status, attributes);
        lost.into_iter().for_each(|why| self.lose(source, &why));
        Ok(())
    }

    /// Leaves directories until so many are left. A directory is finished when nothing more is made in it.
    fn leave(&mut self, depth: usize) -> Result<(), Stop> {
        while self.ground.levels.len() > depth {
            let Some(level) = self.ground.levels.pop() else { break };
            let name = level.path.file_name().unwrap_or_default();
            self.finish(name, &level.source, &level.status, &level.attributes)?;
        }
        Ok(())
    }

    fn leave_out(&mut self, entry: &Entry, why: &KernelError) -> bool {
        self.lose(&entry.path, &format!("it is left out: {why}"));
        false
    }

    fn lose(&mut self, path: &Path, why: &str) {
        (self.tell)(Remark::Lost(Lost::new(path, why)));
    }
}

/// How what is made gets what belongs to it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Keeping {
    /// Whether this process may set owners.
    pub(crate) owners: bool,
    /// Whether the directory gives what is made in it an ACL.
    pub(crate) inherits: bool,
}

impl Keeping {
    /// Gives a name its owner, attributes, mode and time, each after what would change it; returns what cannot be kept.
    pub(crate) fn finish(
        self,
        folder: &Folder,
        name: &OsStr,
        status: &Status,
        attributes: &[Attribute],
    ) -> Vec<String> {
        let mut lost = Vec::new();
        let mut keep = |what: &str, done: Result<(), KernelError>| {
            if let Err(e) = done {
                lost.push(format!("{what} cannot be kept: {e}"));
            }
        };
        if self.owners {
            keep("its owner", folder.set_owner(name, status.uid, status.gid));
        }
        if self.inherits && status.kind != FileKind::Link {
            for key in [ACCESS, DEFAULT] {
                let is_own = attributes.iter().any(|(own, _)| own == key);
                if !is_own && (key == ACCESS || status.is_directory()) {
                    keep("that it has no ACL", folder.remove_attribute(name, OsStr::new(key)));
                }
            }
        }
        for (key, value) in attributes {
            let what = format!("its attribute {}", shown(Path::new(key)));
            keep(&what, folder.set_attribute(name, key, value));
        }
        if status.kind != FileKind::Link {
            keep("its mode", folder.set_mode(name, status.mode));
        }
        keep("its time", folder.set_modified(name, status.modified));
        lost
    }
}

/// The directories that are being filled, from the destination on.
struct Ground {
    root: Folder,
    levels: Vec<Level>,
}

struct Level {
    /// Not open any more when far deeper ones are.
    folder: Option<Folder>,
    /// Below the destination.
    path: PathBuf,
    source: PathBuf,
    status: Status,
    attributes: Vec<Attribute>,
}

/// How many folders are kept open.
const OPEN: usize = 100;

impl Ground {
    /// How many levels lead to a directory.
    fn depth_of(&self, path: &Path) -> usize {
        self.levels.iter().rposition(|level| level.path == path).map_or(0, |at| at + 1)
    }

    /// Returns the innermost directory.
    fn folder(&mut self) -> Result<&Folder, KernelError> {
        if self.levels.last().is_some_and(|level| level.folder.is_none()) {
            self.reopen()?;
        }
        Ok(self.levels.last().and_then(|level| level.folder.as_ref()).unwrap_or(&self.root))
    }

    /// Opens the innermost directories again.
    fn reopen(&mut self) -> Result<(), KernelError> {
        let first = self.levels.len().saturating_sub(OPEN / 2);
        let mut at = self.root.enter(OsStr::new("."))?;
        for (depth, level) in self.levels.iter_mut().enumerate() {
            let inner = at.enter(level.path.file_name().unwrap_or_default())?;
            if depth >= first && level.folder.is_none() {
                level.folder = Some(inner.enter(OsStr::new("."))?);
            }
            at = inner;
        }
        Ok(())
    }

    fn close_some(&mut self) {
        let far = self.levels.len().saturating_sub(OPEN);
        // Those further out were closed before.
        if let Some(level) = far.checked_sub(1).and_then(|at| self.levels.get_mut(at)) {
            level.folder = None;
        }
    }

    /// Opens any directory below the destination.
    fn open(&self, path: &Path) -> Result<Folder, KernelError> {
        let mut at = self.root.enter(OsStr::new("."))?;
        for name in path {
            at = at.enter(name)?;
        }
        Ok(at)
    }
}
