//! What one tree has changed of another, done to a folder that holds what the other does.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::{ACCESS, DEFAULT, Ground, Keeping, Planting, Stop};
use crate::kernel::KernelError;
use crate::kernel::folder::{Attribute, FileKind, Flags, Folder};
use crate::kernel::interrupt::Held;
use crate::ops::contents::archive::changes::{Change, ChangeKind, changes_by};
use crate::ops::contents::archive::compare::{OF_THE_PLACE, is_inherited, is_same, same_content};
use crate::ops::contents::archive::{Remark, Tell};
use crate::ops::contents::tree::{Entry, Links, Tree, Walk};
use crate::ops::progress::may_go_on;

/// What a directory is called that is emptied beside the place that it had.
const GOING: &str = ".dmpool-going";

/// What is done to a folder.
pub(crate) struct Onto<'a> {
    /// What the folder holds, as it is elsewhere.
    pub(crate) old: &'a Tree,
    /// What it shall hold.
    pub(crate) new: &'a Tree,
    /// Paths that stay as they are in the folder, with all below.
    pub(crate) stays: &'a dyn Fn(&Path) -> bool,
}

/// What is done when all names are there.
#[derive(Default)]
struct Later {
    /// Flags: an immutable file takes no second name.
    flags: Vec<(PathBuf, Flags)>,
    /// The names of files with several that were made.
    names: HashSet<PathBuf>,
    /// How many directories were emptied beside their place.
    going: u64,
}

/// Does to a folder what makes `new` of `old`: removes, replaces and adds, with every attribute and the flags of chattr(1). What is the same
/// stays the same file. What cannot be kept is told, and missing then.
///
/// # Errors
/// When nothing more can be written, or a signal comes; the folder is then something in between.
pub(crate) fn plant_onto(onto: &Onto<'_>, to: &Folder, tell: &mut Tell<'_>) -> Result<()> {
    let held = Held::hold().context("holding back signals")?;
    let mut planting = Planting {
        tree: onto.new,
        tell,
        held: &held,
        inherits: true,
        may_own: true,
        is_upper: false,
        writes: &|_| (),
        links: Links::default(),
        ground: Ground { root: to.enter(OsStr::new("."))?, levels: Vec::new() },
        made: 0,
    };
    match planting.onto(onto) {
        Ok(()) => Ok(()),
        Err(Stop::Signal) => {
            may_go_on()?;
            bail!("{} came", held.take().unwrap_or("a signal"))
        }
        Err(Stop::Kernel(e)) => Err(e).context("writing it"),
    }
}

fn differs(onto: &Onto<'_>, before: &Entry, now: &Entry) -> Result<bool, String> {
    if !is_same(onto.old, before, onto.new, now)? {
        return Ok(true);
    }
    let of = |entry: &Entry| entry.node.flags().map_err(|e| format!("its flags cannot be compared: {e}"));
    Ok(!is_inherited(&before.node.status, &now.node.status) && of(before)? != of(now)?)
}

/// Whether nothing of a file can stay as it is there.
fn is_written_whole(onto: &Onto<'_>, before: &Entry, now: &Entry) -> bool {
    let (was, is) = (&before.node.status, &now.node.status);
    if is.is_directory() {
        return false;
    }
    // A file goes when its last name does.
    was.kind != is.kind || was.size != is.size || is.links > 1 && is_same(onto.old, before, onto.new, now) == Ok(false)
}

/// Ends a walk on which nothing is told for long: what it fails with is told.
fn ends_walk(held: &Held) -> Result<(), String> {
    if held.came() { Err("a signal came".to_owned()) } else { Ok(()) }
}

impl Planting<'_, '_> {
    fn onto(&mut self, onto: &Onto<'_>) -> Result<(), Stop> {
        let mut later = Later::default();
        let root = OsStr::new(".");
        loosen(&self.ground.root, root)?;
        self.make_room(onto, &mut later)?;
        let held = self.held;
        let differ = |before: &Entry, now: &Entry| {
            ends_walk(held)?;
            differs(onto, before, now)
        };
        for change in changes_by(onto.old, onto.new, differ) {
            if held.came() {
                return Err(Stop::Signal);
            }
            match change {
                Ok(change) if (onto.stays)(&change.path) => {}
                Ok(change) => self.do_to(onto, &change, &mut later)?,
                Err(lost) => (self.tell)(Remark::Lost(lost)),
            }
        }
        self.leave(0)?;
        if !self.links.is_empty() {
            self.link_the_rest(onto, &mut later)?;
        }
        let node = onto.new.root_node()?;
        let entry = Entry { path: PathBuf::new(), node };
        let attributes = self.attributes(&entry);
        without_others(&self.ground.root, root, &attributes)?;
        let keeping = Keeping { owners: true, inherits: true };
        let lost = keeping.finish(&self.ground.root, root, &entry.node.status, &attributes);
        lost.into_iter().for_each(|why| self.lose(Path::new(""), &why));
        let wanted = self.flags_of(&entry);
        if self.ground.root.flags(root)? != wanted {
            later.flags.push((PathBuf::new(), wanted));
        }
        for (path, flags) in later.flags {
            let parent = self.ground.open(path.parent().unwrap_or(Path::new("")))?;
            let set = parent.set_flags(path.file_name().unwrap_or(root), flags);
            set.err().into_iter().for_each(|e| self.lose(&path, &format!("its flags (chattr) cannot be kept: {e}")));
        }
        Ok(())
    }

    /// Removes what goes, and what is written whole: it makes room for what comes. Nobody sees the folder before it is done.
    fn make_room(&mut self, onto: &Onto<'_>, later: &mut Later) -> Result<(), Stop> {
        let (root, held) = (OsStr::new("."), self.held);
        let differ = |before: &Entry, now: &Entry| {
            ends_walk(held)?;
            Ok(is_written_whole(onto, before, now))
        };
        for change in changes_by(onto.old, onto.new, differ) {
            if held.came() {
                return Err(Stop::Signal);
            }
            // What cannot be read is told when it is come to.
            let Ok(Change { kind, path, entry }) = change else { continue };
            let goes = match entry {
                None => kind == ChangeKind::Deleted,
                Some(entry) => kind == ChangeKind::Changed && !entry.node.status.is_directory(),
            };
            if !goes || (onto.stays)(&path) {
                continue;
            }
            let parent = self.ground.open(path.parent().unwrap_or(Path::new("")))?;
            loosen(&parent, root)?;
            let top = self.ground.root.enter(root)?;
            remove_all(&top, &parent, path.file_name().unwrap_or_default(), &mut later.going)?;
        }
        Ok(())
    }

    fn do_to(&mut self, onto: &Onto<'_>, change: &Change, later: &mut Later) -> Result<(), Stop> {
        let path = &change.path;
        let parent = path.parent().unwrap_or(Path::new(""));
        if parent.file_name().is_some() && self.ground.depth_of(parent) == 0 {
            self.lose(path, "it is left out: its directory is not there");
            return Ok(());
        }
        self.leave(self.ground.depth_of(parent))?;
        let name = path.file_name().unwrap_or_default();
        let Some(entry) = &change.entry else {
            if change.kind != ChangeKind::Deleted {
                self.lose(path, "it is left out: it is not there any more");
                return Ok(());
            }
            return self.remove_all(name, later);
        };
        let status = &entry.node.status;
        let folder = self.ground.folder()?;
        let there = folder.status(name)?;
        if there.is_some() {
            loosen(folder, name)?;
        }
        match there {
            Some(there) if there.kind == FileKind::File && there.links == 1 && self.has_its_content(onto, change) => {
                let attributes = self.attributes(entry);
                without_others(self.ground.folder()?, name, &attributes)?;
                self.finish(name, path, status, &attributes)?;
                return self.flag(entry, name, later);
            }
            Some(there) if there.is_directory() && status.is_directory() => {
                let attributes = self.attributes(entry);
                without_others(self.ground.folder()?, name, &attributes)?;
            }
            // What is written anew needs no second room.
            Some(_) => self.remove_all(name, later)?,
            None => {}
        }
        if !self.entry(entry, path)? {
            return Ok(());
        }
        if status.is_directory() {
            let inner = self.ground.folder()?;
            let now = inner.flags(OsStr::new("."))?;
            let wanted = self.flags_of(entry);
            if now != wanted {
                later.flags.push((path.clone(), wanted));
            }
            return Ok(());
        }
        if status.links > 1 {
            later.names.insert(path.clone());
        }
        self.flag(entry, name, later)
    }

    fn remove_all(&mut self, name: &OsStr, later: &mut Later) -> Result<(), Stop> {
        let root = self.ground.root.enter(OsStr::new("."))?;
        Ok(remove_all(&root, self.ground.folder()?, name, &mut later.going)?)
    }

    /// Remembers the flags of a file that was made, where it has others.
    fn flag(&mut self, entry: &Entry, name: &OsStr, later: &mut Later) -> Result<(), Stop> {
        if entry.node.status.kind == FileKind::File {
            let wanted = self.flags_of(entry);
            if self.ground.folder()?.flags(name)? != wanted {
                later.flags.push((entry.path.clone(), wanted));
            }
        }
        Ok(())
    }

    fn flags_of(&mut self, entry: &Entry) -> Flags {
        entry.node.flags().unwrap_or_else(|e| {
            self.lose(&entry.path, &format!("its flags are left out: {e}"));
            Flags::default()
        })
    }

    /// Whether a file has become another by its attributes alone: then its content stays shared.
    fn has_its_content(&self, onto: &Onto<'_>, change: &Change) -> bool {
        let is_file = |entry: &Entry| entry.node.status.kind == FileKind::File;
        let is_single = |entry: &&Entry| is_file(entry) && entry.node.status.links == 1;
        let Some(now) = change.entry.as_ref().filter(is_single) else { return false };
        let Ok(node) = onto.old.node(&change.path) else { return false };
        let before = Entry { path: change.path.clone(), node };
        is_file(&before) && same_content(&before, now) == Ok(true)
    }

    /// Gives files that were made the names that they had before, too, and that nothing else has changed.
    fn link_the_rest(&mut self, onto: &Onto<'_>, later: &mut Later) -> Result<(), Stop> {
        let root = onto.new.root_node()?;
        for found in Walk::below(onto.new, Path::new(""), &root) {
            let entry = match found {
                Ok(entry) => entry,
                Err(lost) => {
                    (self.tell)(Remark::Lost(lost));
                    continue;
                }
            };
            let status = &entry.node.status;
            if status.links < 2 || later.names.contains(&entry.path) {
                continue;
            }
            let Some(first) = self.links.waits(status).map(Path::to_owned) else { continue };
            self.links.met(&entry.path, status);
            let [from, folder] = [&first, &entry.path].map(|path| path.parent().unwrap_or(Path::new("")));
            let Ok(above) = onto.new.node(folder) else { continue };
            let (from, folder) = (self.ground.open(from)?, self.ground.open(folder)?);
            let (name, temporary) = (entry.name(), super::temporary());
            loosen(&folder, name)?;
            let flags = folder.flags(OsStr::new("."))?;
            if !flags.may_be_changed() {
                loosen(&folder, OsStr::new("."))?;
                later.flags.push((entry.path.parent().unwrap_or(Path::new("")).to_owned(), flags));
            }
            folder.make_hard_link(&temporary, &from, first.file_name().unwrap_or_default())?;
            folder.put_in_place(&temporary, name)?;
            folder.set_modified(OsStr::new("."), above.status.modified)?;
            if self.links.is_empty() {
                break;
            }
        }
        Ok(())
    }
}

/// Takes from what is there the flags that keep it as it is.
fn loosen(folder: &Folder, name: &OsStr) -> Result<(), KernelError> {
    let flags = folder.flags(name)?;
    if flags.may_be_changed() { Ok(()) } else { folder.set_flags(name, flags.loosened()) }
}

/// Takes away what else a name has for attributes: an ACL that is for what is made in a folder would be everything's there.
fn without_others(folder: &Folder, name: &OsStr, attributes: &[Attribute]) -> Result<(), KernelError> {
    for (key, _) in folder.attributes(name)? {
        let is_wanted = attributes.iter().any(|(wanted, _)| *wanted == key);
        if (!is_wanted || key == DEFAULT || key == ACCESS) && key != OF_THE_PLACE {
            folder.remove_attribute(name, &key)?;
        }
    }
    Ok(())
}

/// Removes a name with all below it. A directory in a directory is emptied in the root, so that depth costs nothing.
fn remove_all(root: &Folder, folder: &Folder, name: &OsStr, going: &mut u64) -> Result<(), KernelError> {
    let Some(found) = folder.status(name)? else { return Ok(()) };
    loosen(folder, name)?;
    if !found.is_directory() {
        return folder.remove(name);
    }
    let mut left = vec![(folder.enter(OsStr::new("."))?, name.to_owned())];
    while let Some((above, name)) = left.pop() {
        let inner = above.enter(&name)?;
        for entry in inner.names()? {
            loosen(&inner, &entry)?;
            if inner.status(&entry)?.is_some_and(|status| status.is_directory()) {
                *going += 1;
                let to = OsString::from(format!("{GOING}-{}-{going}", std::process::id()));
                inner.move_to(&entry, root, &to)?;
                left.push((root.enter(OsStr::new("."))?, to));
            } else {
                inner.remove(&entry)?;
            }
        }
        drop(inner);
        above.remove_folder(&name)?;
    }
    Ok(())
}

#[cfg(test)]
#[path = "onto_tests.rs"]
mod tests;
