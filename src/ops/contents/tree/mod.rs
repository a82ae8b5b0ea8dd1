//! The files of a container or a layer as one tree: directories merged top first, by the convention that each of them has
//! for what is deleted above others.
//!
//! All of it is hostile. A name is looked up in open folders and never followed; what cannot be read is told and left out.

mod marks;
mod resolve;
mod walk;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::rc::Rc;

pub use marks::{Marks, Namespace};
pub(crate) use marks::{reads_as_whiteout, whiteout_of};
pub(crate) use resolve::ends_in_slash;
pub use resolve::{Follow, Resolved, Unresolved};
pub use walk::{Entry, Links, Lost, Walk, shown};

use nix::errno::Errno;

use crate::kernel::KernelError;
use crate::kernel::folder::{Attribute, Content, Flags, Folder, Status};
use marks::{Found, Sought};

/// One of the directories that a tree is merged from.
#[derive(Debug)]
pub struct Layer {
    folder: Rc<Folder>,
    marks: Marks,
    /// Which file system it is in: what is mounted below it is not part of it.
    file_system: u64,
}

impl Layer {
    /// Takes an open directory.
    ///
    /// # Errors
    /// As fstat(2).
    pub fn new(folder: Folder, marks: Marks) -> Result<Self, KernelError> {
        let file_system = folder.own_status()?.file_system;
        Ok(Self { folder: Rc::new(folder), marks, file_system })
    }
}

/// A tree of files.
#[derive(Debug)]
pub struct Tree {
    /// Those that are merged, top first, and behind them those that are mounted somewhere.
    layers: Vec<Layer>,
    merged: usize,
    mounted: BTreeMap<PathBuf, Mounted>,
    /// Directories on the way to those that no layer has: Docker makes them when the container starts.
    made: BTreeMap<PathBuf, Made>,
}

#[derive(Debug)]
struct Made {
    status: Status,
    /// The layer that is mounted below it.
    layer: usize,
}

/// What stands in the place of what the layers have.
#[derive(Debug)]
struct Mounted {
    layer: usize,
    /// In the layer's directory; `.` is the directory itself.
    name: OsString,
}

/// A directory of the tree: what the layers have of it, top first.
#[derive(Clone, Debug)]
pub struct Merged {
    /// Where it is, from the root.
    path: PathBuf,
    parts: Vec<Part>,
    /// Why parts of it are missing.
    lost: Vec<String>,
}

/// A directory in one layer.
#[derive(Clone, Debug)]
struct Part {
    layer: usize,
    folder: Rc<Folder>,
}

/// Where one name is in one layer.
#[derive(Clone, Debug)]
struct Place {
    layer: usize,
    folder: Rc<Folder>,
    name: OsString,
}

/// What a name of the tree is.
#[derive(Clone, Debug)]
pub struct Node {
    /// What the topmost layer that has it says of it.
    pub status: Status,
    top: Place,
    /// Of a directory: what lies beneath, top first. Of a file: where its data is, when that is elsewhere.
    beneath: Vec<Place>,
    /// Of a file: whether no layer was found to have its data.
    dataless: bool,
    /// Of a directory: whether no layer has it, and it is there for what is mounted below.
    made: bool,
    lost: Vec<String>,
}

impl Tree {
    /// Merges layers, top first.
    pub fn new(layers: Vec<Layer>) -> Self {
        Self { merged: layers.len(), layers, mounted: BTreeMap::new(), made: BTreeMap::new() }
    }

    /// Puts a directory (`.`), or a file in it, in the place of what the tree has at a path, as a volume is mounted there:
    /// where links lead, and with the directories above.
    pub fn mount(&mut self, path: &Path, layer: Layer, name: &OsStr) {
        let path = self.mount_point(path);
        if let Ok(status) = layer.folder.own_status() {
            for above in path.ancestors().skip(1).filter(|above| above.file_name().is_some()) {
                let status = Status { mode: 0o755, uid: 0, gid: 0, ..status };
                self.made.entry(above.to_owned()).or_insert(Made { status, layer: self.layers.len() });
            }
        }
        self.mounted.insert(path, Mounted { layer: self.layers.len(), name: name.to_owned() });
        self.layers.push(layer);
    }

    /// Returns its root.
    pub fn root(&self) -> Merged {
        let mut parts = Vec::new();
        for (layer, from) in self.layers.iter().take(self.merged).enumerate() {
            parts.push(Part { layer, folder: Rc::clone(&from.folder) });
            if from.marks.closes(&from.folder) {
                break;
            }
        }
        Merged { path: PathBuf::new(), parts, lost: Vec::new() }
    }

    /// Returns the root as a node, with the status of the topmost layer.
    ///
    /// # Errors
    /// When the tree has no layer, or the kernel says nothing of it.
    pub fn root_node(&self) -> Result<Node, KernelError> {
        let mut places = self.root().parts.into_iter().map(|part| Place {
            layer: part.layer,
            folder: part.folder,
            name: OsString::from("."),
        });
        let missing = || KernelError { errno: Errno::ENOENT, call: "open", object: "the root".to_owned() };
        let top = places.next().ok_or_else(missing)?;
        Ok(Node {
            status: top.folder.own_status()?,
            beneath: places.collect(),
            top,
            dataless: false,
            made: false,
            lost: Vec::new(),
        })
    }

    /// Returns the names that a directory may have, sorted; [`Self::look`] says which of them it has. What cannot be
    /// listed is said.
    pub fn names(&self, directory: &Merged) -> (BTreeSet<OsString>, Vec<String>) {
        let mut names = BTreeSet::new();
        let mut lost = directory.lost.clone();
        let mounted = self.mounted.keys().chain(self.made.keys());
        let mounted = mounted.filter(|path| path.parent() == Some(&directory.path));
        names.extend(mounted.filter_map(|path| path.file_name().map(OsStr::to_owned)));
        for part in &directory.parts {
            match part.folder.names() {
                Ok(found) => names.extend(found.into_iter().filter(|name| !self.marks(part.layer).hides(name))),
                Err(e) => lost.push(format!("it cannot be listed: {e}")),
            }
        }
        (names, lost)
    }

    /// Returns what a name in a directory is, without following it; nothing when it is not there, or deleted.
    ///
    /// # Errors
    /// When a layer that may have it cannot be asked.
    pub fn look(&self, directory: &Merged, name: &OsStr) -> Result<Option<Node>, KernelError> {
        if let Some(node) = self.look_at_mounted(directory, name)? {
            return Ok(Some(node));
        }
        let mut sought = Sought::in_parts(directory, name);
        let mut node: Option<Node> = None;
        while let Some(place) = sought.next(self) {
            let marks = self.marks(place.layer);
            let found = match marks.find(&place) {
                Ok(found) => found,
                // What lies beneath cannot be told any more, what was found can.
                Err(e) => match &mut node {
                    Some(node) => {
                        node.lost.push(format!("what lies beneath cannot be read: {e}"));
                        break;
                    }
                    None => return Err(e),
                },
            };
            let status = match found {
                Found::Nothing => continue,
                Found::Deleted => break,
                Found::Entry(status) => status,
            };
            let goes_on = marks.goes_on(&place, &status);
            match &mut node {
                None => {
                    let (beneath, lost) = (Vec::new(), Vec::new());
                    node = Some(Node { status, top: place, beneath, dataless: false, made: false, lost });
                }
                Some(node) if node.status.kind == status.kind => node.beneath.push(place),
                Some(_) => break,
            }
            if let Some(node) = &mut node {
                node.dataless = !status.is_directory() && !matches!(goes_on, Ok(None));
            }
            match goes_on {
                Ok(Some(redirect)) => sought.redirect(redirect),
                Ok(None) => break,
                Err(e) => {
                    let lost = format!("what lies beneath cannot be read: {e}");
                    node.iter_mut().for_each(|node| node.lost.push(lost.clone()));
                    break;
                }
            }
        }
        Ok(node.or_else(|| self.look_at_made(directory, name)))
    }

    fn look_at_made(&self, directory: &Merged, name: &OsStr) -> Option<Node> {
        let made = self.made.get(&directory.path.join(name))?;
        let folder = Rc::clone(&self.layers.get(made.layer)?.folder);
        let top = Place { layer: made.layer, folder, name: OsString::from(".") };
        let (beneath, lost) = (Vec::new(), Vec::new());
        Some(Node { status: made.status, top, beneath, dataless: false, made: true, lost })
    }

    fn look_at_mounted(&self, directory: &Merged, name: &OsStr) -> Result<Option<Node>, KernelError> {
        if self.mounted.is_empty() {
            return Ok(None);
        }
        let Some(mounted) = self.mounted.get(&directory.path.join(name)) else { return Ok(None) };
        let Some(layer) = self.layers.get(mounted.layer) else { return Ok(None) };
        let top = Place { layer: mounted.layer, folder: Rc::clone(&layer.folder), name: mounted.name.clone() };
        let status = layer.folder.status(&mounted.name)?;
        Ok(status.map(|status| Node {
            status,
            top,
            beneath: Vec::new(),
            dataless: false,
            made: false,
            lost: Vec::new(),
        }))
    }

    /// Opens a directory, which is at that path. What of it cannot be opened is left out, and said by [`Self::names`].
    ///
    /// # Errors
    /// When the topmost part cannot be opened, or another file system is mounted there.
    pub fn enter(&self, path: &Path, node: &Node) -> Result<Merged, String> {
        if node.made {
            return Ok(Merged { path: path.to_owned(), parts: Vec::new(), lost: Vec::new() });
        }
        let parts = vec![self.open_part(&node.top)?];
        let mut merged = Merged { path: path.to_owned(), parts, lost: node.lost.clone() };
        for place in &node.beneath {
            match self.open_part(place) {
                Ok(part) => merged.parts.push(part),
                Err(why) => merged.lost.push(format!("part of it is left out: {why}")),
            }
        }
        Ok(merged)
    }

    fn open_part(&self, place: &Place) -> Result<Part, String> {
        let folder = place.folder.enter(&place.name).map_err(|e| e.to_string())?;
        let status = folder.own_status().map_err(|e| e.to_string())?;
        if self.layers.get(place.layer).is_some_and(|layer| layer.file_system != status.file_system) {
            return Err("another file system is mounted there".to_owned());
        }
        Ok(Part { layer: place.layer, folder: Rc::new(folder) })
    }

    /// Returns the directory at a path of single names; no link is followed.
    ///
    /// # Errors
    /// When it is not there, is no directory, or cannot be read.
    pub fn reach(&self, path: &Path) -> Result<Merged, String> {
        let mut at = self.root();
        for name in path {
            let node = self.look(&at, name).map_err(|e| e.to_string())?;
            let node = node.ok_or_else(|| "it is not there any more".to_owned())?;
            at = self.enter(&at.path.join(name), &node)?;
        }
        Ok(at)
    }

    fn marks(&self, layer: usize) -> Marks {
        self.layers.get(layer).map_or(Marks::None, |layer| layer.marks)
    }
}

impl Node {
    /// Opens a regular file's content.
    ///
    /// # Errors
    /// As [`Folder::file`]; `ENODATA` when a layer has but its attributes, and none beneath its data.
    pub fn content(&self) -> Result<Content, KernelError> {
        let place = self.beneath.last().unwrap_or(&self.top);
        if self.dataless {
            return Err(KernelError { errno: Errno::ENODATA, call: "open", object: place.name.display().to_string() });
        }
        Content::of(place.folder.file(&place.name)?)
    }

    /// Returns what is written in a symbolic link.
    ///
    /// # Errors
    /// As readlinkat(2).
    pub fn target(&self) -> Result<PathBuf, KernelError> {
        self.top.folder.target(&self.top.name)
    }

    /// Returns the extended attributes; those that the layer keeps for itself are not among them.
    ///
    /// # Errors
    /// As [`Folder::attributes`].
    pub fn attributes(&self, tree: &Tree) -> Result<Vec<Attribute>, KernelError> {
        if self.made {
            return Ok(Vec::new());
        }
        let mut found = self.top.folder.attributes(&self.top.name)?;
        let marks = tree.marks(self.top.layer);
        found.retain(|(name, _)| !marks.keeps_for_itself(name));
        Ok(found)
    }

    /// Returns one extended attribute.
    ///
    /// # Errors
    /// As [`Folder::attribute`].
    pub fn attribute(&self, key: &str) -> Result<Option<Vec<u8>>, KernelError> {
        if self.made {
            return Ok(None);
        }
        self.top.folder.attribute(&self.top.name, key)
    }

    /// Returns the flags that chattr(1) has set.
    ///
    /// # Errors
    /// As [`Folder::flags`].
    pub fn flags(&self) -> Result<Flags, KernelError> {
        if self.made { Ok(Flags::default()) } else { self.top.folder.flags(&self.top.name) }
    }

    /// Whether another tree's directory is the same directories on disk, so that nothing below differs.
    pub(crate) fn is_same_on_disk(&self, other: &Self) -> bool {
        let places = |node: &Self| -> Option<Vec<(u64, u64)>> {
            let all = std::iter::once(&node.top).chain(&node.beneath);
            all.map(|place| Some(place.folder.status(&place.name).ok()??.identity())).collect()
        };
        self.status.identity() == other.status.identity()
            && self.beneath.len() == other.beneath.len()
            && (self.beneath.is_empty() || places(self).is_some_and(|own| places(other) == Some(own)))
    }
}

#[cfg(test)]
mod tests;
