//! Every entry below a directory, each directory before what is in it, sorted by bytes: as Docker's and Go's walk.

use std::collections::HashMap;
use std::collections::btree_set::IntoIter;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::{Merged, Node, Tree};
use crate::kernel::folder::Status;

/// One entry of the tree.
#[derive(Clone, Debug)]
pub struct Entry {
    /// From the root of the tree, without a leading slash.
    pub path: PathBuf,
    /// What it is.
    pub node: Node,
}

/// Something that was left out, or is not as it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// Which entry, from the root of the tree.
    pub path: PathBuf,
    /// What is wrong with it.
    pub why: String,
}

/// How many folders a walk keeps open, beside those of the directory that it is in.
const OPEN: usize = 200;
/// How many directories are opened again at once.
const REOPENED: usize = 50;
/// The longest path that is walked. Go's archive/tar, which is Docker's, reads no longer ones.
const LONGEST: usize = 1 << 19;

struct Frame {
    /// Not open any more when the walk has gone far deeper; opened again by its path then.
    directory: Option<Merged>,
    path: PathBuf,
    names: IntoIter<OsString>,
}

/// A walk through a tree.
pub struct Walk<'t> {
    tree: &'t Tree,
    frames: Vec<Frame>,
    /// A directory that was told and is to be entered.
    next: Option<Entry>,
    lost: Vec<Lost>,
    pub(super) open: usize,
}

impl std::fmt::Debug for Walk<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Walk").field("depth", &self.frames.len()).finish_non_exhaustive()
    }
}

impl<'t> Walk<'t> {
    /// Walks what is below a directory of the tree, which itself is not told.
    pub fn below(tree: &'t Tree, path: &Path, directory: &Node) -> Self {
        let next = Some(Entry { path: path.to_owned(), node: directory.clone() });
        Self { tree, frames: Vec::new(), next, lost: Vec::new(), open: 0 }
    }

    /// Does not enter the directory that was told last.
    pub fn stay_out(&mut self) {
        self.next = None;
    }

    /// Enters a directory, and says what of it cannot be read.
    fn enter(&mut self, entry: Entry) {
        if entry.path.as_os_str().len() > LONGEST {
            self.lose(entry.path, "its contents are left out: the path is too long".to_owned());
            return;
        }
        match self.tree.enter(&entry.path, &entry.node) {
            Ok(directory) => {
                let (names, lost) = self.tree.names(&directory);
                lost.into_iter().for_each(|why| self.lose(entry.path.clone(), why));
                self.open += directory.parts.len();
                self.frames.push(Frame { directory: Some(directory), path: entry.path, names: names.into_iter() });
                self.close_some();
            }
            Err(why) => self.lose(entry.path, format!("its contents are left out: {why}")),
        }
    }

    /// Closes folders that are far up.
    fn close_some(&mut self) {
        let above = self.frames.len().saturating_sub(1);
        for frame in self.frames.iter_mut().take(above) {
            if self.open <= OPEN {
                break;
            }
            if let Some(closed) = frame.directory.take() {
                self.open -= closed.parts.len();
            }
        }
    }

    /// Opens the innermost directory again, and those that the walk comes back to next.
    fn reopen(&mut self) -> Result<(), String> {
        let last = self.frames.len().saturating_sub(1);
        let mut at: Option<Merged> = None;
        for (depth, frame) in self.frames.iter_mut().enumerate() {
            let directory = match (at.take(), frame.path.file_name()) {
                (Some(above), Some(name)) => {
                    let node = self.tree.look(&above, name).map_err(|e| e.to_string())?;
                    self.tree.enter(&frame.path, &node.ok_or_else(|| "it is not there any more".to_owned())?)?
                }
                _ => self.tree.reach(&frame.path)?,
            };
            let has_room = last - depth < REOPENED && self.open + directory.parts.len() <= OPEN;
            if frame.directory.is_none() && (has_room || depth == last) {
                self.open += directory.parts.len();
                frame.directory = Some(directory.clone());
            }
            at = Some(directory);
        }
        Ok(())
    }

    fn lose(&mut self, path: PathBuf, why: String) {
        self.lost.push(Lost { path, why });
    }

    /// Takes the next name of the innermost directory.
    fn step(&mut self) -> Option<Result<Entry, Lost>> {
        let frame = self.frames.last_mut()?;
        let Some(name) = frame.names.next() else {
            if let Some(closed) = self.frames.pop().and_then(|frame| frame.directory) {
                self.open -= closed.parts.len();
            }
            return None;
        };
        let path = frame.path.join(&name);
        if frame.directory.is_none()
            && let Err(why) = self.reopen()
        {
            return Some(Err(Lost { path, why }));
        }
        let directory = self.frames.last().and_then(|frame| frame.directory.as_ref());
        let found = directory.map_or(Ok(None), |directory| self.tree.look(directory, &name));
        match found {
            Ok(node) => node.map(|node| Ok(Entry { path, node })),
            Err(e) => Some(Err(Lost { path, why: e.to_string() })),
        }
    }
}

impl Iterator for Walk<'_> {
    type Item = Result<Entry, Lost>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(lost) = self.lost.pop() {
                return Some(Err(lost));
            }
            if let Some(entry) = self.next.take() {
                self.enter(entry);
                continue;
            }
            if self.frames.is_empty() {
                return None;
            }
            if let Some(found) = self.step() {
                if let Ok(entry) = &found
                    && entry.node.status.is_directory()
                {
                    self.next = Some(entry.clone());
                }
                return Some(found);
            }
        }
    }
}

impl Entry {
    /// Returns the last name of its path.
    pub fn name(&self) -> &std::ffi::OsStr {
        self.path.file_name().unwrap_or_default()
    }
}

impl Lost {
    /// Says it of an entry.
    pub fn new(path: &Path, why: impl Into<String>) -> Self {
        Self { path: path.to_owned(), why: why.into() }
    }
}

/// Files with several names, by the first of them that was met. A file is forgotten once all its names were.
#[derive(Debug, Default)]
pub struct Links {
    first: HashMap<(u64, u64), (PathBuf, u64)>,
}

impl Links {
    /// Returns the name under which this file was met before; remembers this one when it was not.
    pub fn met(&mut self, path: &Path, status: &Status) -> Option<PathBuf> {
        if status.links < 2 || status.is_directory() {
            return None;
        }
        let key = status.identity();
        let Some((first, left)) = self.first.get_mut(&key) else {
            self.first.insert(key, (path.to_owned(), status.links - 1));
            return None;
        };
        *left -= 1;
        if *left == 0 {
            return self.first.remove(&key).map(|(first, _)| first);
        }
        Some(first.clone())
    }
}

impl Links {
    /// Returns the first name of a file of which other names were not met yet.
    pub fn waits(&self, status: &Status) -> Option<&Path> {
        if status.is_directory() { None } else { self.first.get(&status.identity()).map(|(first, _)| first.as_path()) }
    }

    /// Whether no file has names that were not met yet.
    pub fn is_empty(&self) -> bool {
        self.first.is_empty()
    }

    /// Forgets a file whose first name was left out after all.
    pub fn forget(&mut self, status: &Status) {
        self.first.remove(&status.identity());
    }
}

/// Returns a name so that it can be shown: what is no text or would steer a terminal is escaped.
pub fn shown(path: &Path) -> String {
    let mut out = String::new();
    for chunk in path.as_os_str().as_bytes().utf8_chunks() {
        for c in chunk.valid().chars() {
            if c.is_control() {
                out.extend(c.escape_default());
            } else {
                out.push(c);
            }
        }
        for byte in chunk.invalid() {
            out.push_str(&format!("\\x{byte:02x}"));
        }
    }
    out
}
