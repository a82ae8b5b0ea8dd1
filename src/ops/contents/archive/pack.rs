//! A tree, or what has changed in it, as a tar archive.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::changes::changes_by;
use super::compare::is_same;
use super::plant::{WHITEOUT, is_whiteout, take_marks};
use super::tar::{Member, made};
use super::{Change, ChangeKind, Remark, Tell, Writer, filled};
use crate::kernel::folder::{FileKind, Time};
use crate::ops::contents::tree::{Entry, Links, Lost, Resolved, Tree, Walk, reads_as_whiteout, shown, whiteout_of};

/// Writes what a path has led to, with all below it. In the archive it is called `name`; the root of a whole container is
/// called nothing, and has no entry of its own, as in what `docker export` writes.
///
/// # Errors
/// When the archive cannot be written. What cannot be read is told.
pub fn pack<W: Write>(
    tree: &Tree,
    from: &Resolved,
    name: &Path,
    out: &mut Writer<W>,
    tell: &mut Tell<'_>,
) -> io::Result<()> {
    pack_some(tree, from, name, out, tell, &mut |_| Taken::Whole)
}

/// What is taken of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// It, and what is below.
    Whole,
    /// A file with other content.
    Instead(Vec<u8>),
    /// A directory without what is in it.
    Empty,
    /// Nothing.
    Nothing,
}

/// As [`pack`], of each entry below `from` what is said of it.
///
/// # Errors
/// As [`pack`].
pub(crate) fn pack_some<W: Write>(
    tree: &Tree,
    from: &Resolved,
    name: &Path,
    out: &mut Writer<W>,
    tell: &mut Tell<'_>,
    taken: &mut dyn FnMut(&Entry) -> Taken,
) -> io::Result<()> {
    let mut packing = Packing { tree, out, links: Links::default(), is_layer: false, tell };
    if !name.as_os_str().is_empty() {
        let entry = Entry { path: from.path.clone(), node: from.node.clone() };
        packing.entry(&entry, name)?;
    }
    if !from.node.status.is_directory() {
        return Ok(());
    }
    let mut walk = Walk::below(tree, &from.path, &from.node);
    while let Some(found) = walk.next() {
        match found {
            Ok(entry) => {
                let taken = taken(&entry);
                if taken != Taken::Whole && entry.node.status.is_directory() {
                    walk.stay_out();
                }
                let below = entry.path.strip_prefix(&from.path).unwrap_or(&entry.path);
                let name = name.join(below);
                match taken {
                    Taken::Nothing => {}
                    Taken::Whole | Taken::Empty => packing.entry(&entry, &name)?,
                    Taken::Instead(bytes) => {
                        let status = &entry.node.status;
                        packing.out.bytes(Member { path: &name, status, attributes: &[] }, &bytes)?;
                    }
                }
            }
            Err(lost) => (packing.tell)(Remark::Lost(lost)),
        }
    }
    Ok(())
}

/// A layer of a storage driver, by what it comes to.
#[derive(Clone, Copy)]
pub(crate) struct OnBelow<'a> {
    /// What lies beneath; nothing of the lowest.
    pub(crate) old: Option<&'a Tree>,
    /// What it and those beneath come to.
    pub(crate) new: &'a Tree,
    /// Files that belong in it although they are those beneath.
    pub(crate) always: &'a dyn Fn(&Path) -> bool,
}

/// Writes what a layer has over those beneath, whatever driver has it. What it deletes is a character device 0:0, which no layer can
/// have itself: a name such as `.wh.a` is a name like any other. What overlayfs could not hold is told, and left out.
///
/// # Errors
/// As [`pack`].
pub(crate) fn pack_layer<W: Write>(
    layer: OnBelow<'_>,
    name: &Path,
    out: &mut Writer<W>,
    tell: &mut Tell<'_>,
) -> io::Result<()> {
    let OnBelow { old, new, always } = layer;
    let root = new.root_node().map_err(|e| io::Error::other(e.to_string()))?;
    let mut packing = Packing { tree: new, out, links: Links::default(), is_layer: true, tell };
    packing.entry(&Entry { path: PathBuf::new(), node: root.clone() }, name)?;
    let Some(old) = old else {
        for found in Walk::below(new, Path::new(""), &root) {
            match found {
                Ok(entry) => packing.entry(&entry, &name.join(&entry.path))?,
                Err(lost) => (packing.tell)(Remark::Lost(lost)),
            }
        }
        return Ok(());
    };
    let differ = |before: &Entry, now: &Entry| {
        let stays = always(&now.path) && now.node.status.kind != FileKind::Directory;
        Ok(stays || !is_same(old, before, new, now)?)
    };
    for change in changes_by(old, new, differ) {
        match change {
            Ok(Change { kind: ChangeKind::Deleted, path, .. }) => {
                let status = made(FileKind::Character, 0, Time { seconds: 0, nanoseconds: 0 });
                let path = name.join(path);
                packing.out.other(Member { path: &path, status: &status, attributes: &[] }, None)?;
            }
            Ok(Change { path, entry: Some(entry), .. }) => packing.entry(&entry, &name.join(path))?,
            Ok(Change { path, entry: None, .. }) => {
                packing.lose(&path, "it is left out: it is not there any more".to_owned());
            }
            Err(lost) => (packing.tell)(Remark::Lost(lost)),
        }
    }
    Ok(())
}

/// Writes changes as a layer of an image has them: what was added or changed as it is, what was deleted by an empty file
/// whose name begins with `.wh.`.
///
/// # Errors
/// As [`pack`].
pub fn pack_changes<W: Write>(
    tree: &Tree,
    changes: impl Iterator<Item = Result<Change, Lost>>,
    out: &mut Writer<W>,
    tell: &mut Tell<'_>,
) -> io::Result<()> {
    let mut packing = Packing { tree, out, links: Links::default(), is_layer: false, tell };
    for change in changes {
        match change {
            Ok(Change { kind: ChangeKind::Deleted, path, .. }) => packing.deletion(&whiteout_of(&path))?,
            Ok(Change { path, entry: Some(entry), .. }) if reads_as_whiteout(entry.name()) => {
                let why = "it is left out: in a layer its name would mean that another file is deleted";
                (packing.tell)(Remark::Lost(Lost::new(&path, why)));
            }
            Ok(Change { path, entry: Some(entry), .. }) => packing.entry(&entry, &path)?,
            Ok(Change { path, entry: None, .. }) => {
                (packing.tell)(Remark::Lost(Lost::new(&path, "it is left out: it cannot be found again")));
            }
            Err(lost) => (packing.tell)(Remark::Lost(lost)),
        }
    }
    Ok(())
}

struct Packing<'a, 't, W: Write> {
    tree: &'a Tree,
    out: &'a mut Writer<W>,
    /// By their names in the archive.
    links: Links,
    /// Whether overlayfs may read it, which has marks of its own.
    is_layer: bool,
    tell: &'a mut Tell<'t>,
}

impl<W: Write> Packing<'_, '_, W> {
    fn entry(&mut self, entry: &Entry, name: &Path) -> io::Result<()> {
        let status = &entry.node.status;
        if self.is_layer && is_whiteout(entry) {
            self.lose(&entry.path, format!("it is left out: {WHITEOUT}"));
            return Ok(());
        }
        if status.kind == FileKind::Socket {
            (self.tell)(Remark::Socket(entry.path.clone()));
            return Ok(());
        }
        let mut attributes = match entry.node.attributes(self.tree) {
            Ok(attributes) => attributes,
            Err(e) => {
                self.lose(&entry.path, format!("its attributes are left out: {e}"));
                Vec::new()
            }
        };
        if self.is_layer {
            take_marks(&mut attributes).into_iter().for_each(|why| self.lose(&entry.path, why));
        }
        // A key of a pax header is UTF-8.
        attributes.retain(|(key, _)| {
            let is_text = key.to_str().is_some();
            if !is_text {
                self.lose(
                    &entry.path,
                    format!("its attribute {} is left out: its name is no text", shown(Path::new(key))),
                );
            }
            is_text
        });
        let member = Member { path: name, status, attributes: &attributes };
        if let Some(original) = self.links.met(name, status) {
            return self.out.hard_link(Member { attributes: &[], ..member }, &original);
        }
        match status.kind {
            FileKind::File => match entry.node.content() {
                Ok(content) => {
                    let lost = filled(&self.out.file(member, &content)?);
                    lost.into_iter().for_each(|why| self.lose(&entry.path, why));
                }
                Err(e) => self.leave_out(entry, &e.to_string()),
            },
            FileKind::Link => match entry.node.target() {
                Ok(target) => self.out.other(member, Some(&target))?,
                Err(e) => self.leave_out(entry, &e.to_string()),
            },
            _ => self.out.other(member, None)?,
        }
        Ok(())
    }

    fn deletion(&mut self, path: &Path) -> io::Result<()> {
        let status = made(FileKind::File, 0o600, Time { seconds: 0, nanoseconds: 0 });
        self.out.other(Member { path, status: &status, attributes: &[] }, None)
    }

    fn leave_out(&mut self, entry: &Entry, why: &str) {
        self.links.forget(&entry.node.status);
        self.lose(&entry.path, format!("it is left out: {why}"));
    }

    fn lose(&mut self, path: &Path, why: String) {
        (self.tell)(Remark::Lost(Lost { path: PathBuf::from(path), why }));
    }
}
