//! How a layer says that something beneath it is deleted, moved, or covered whole.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;

use super::{Merged, Place, Tree};
use crate::kernel::KernelError;
use crate::kernel::folder::{FileKind, Folder, Status};

/// The convention of one layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Marks {
    /// It has none: every name stands for itself.
    None,
    /// overlayfs: a character device 0:0 is a deletion; attributes say the rest.
    Overlay(Namespace),
    /// aufs: names that begin with `.wh.`.
    Aufs,
}

/// Where overlayfs keeps its attributes. What is in the other one is honest: a container may have put it there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Namespace {
    /// As it does for root.
    Trusted,
    /// As it does with `userxattr`, for a Docker without root.
    User,
}

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &str = ".wh..wh..opq";

impl Namespace {
    const fn prefix(self) -> &'static str {
        match self {
            Self::Trusted => "trusted.overlay.",
            Self::User => "user.overlay.",
        }
    }

    fn get(self, place: &Place, key: &str) -> Result<Option<Vec<u8>>, KernelError> {
        place.folder.attribute(&place.name, &format!("{}{key}", self.prefix()))
    }
}

/// What a layer has under a name.
pub(super) enum Found {
    Nothing,
    Deleted,
    Entry(Status),
}

/// Where to look further down.
pub(super) enum Redirect {
    /// Under the same name.
    Same,
    /// Under another name in the same directory.
    Name(OsString),
    /// At a path from the root of the layers beneath.
    Path(PathBuf),
}

impl Marks {
    /// Whether a name in a listing is not one of the tree's.
    pub(super) fn hides(self, name: &OsStr) -> bool {
        self == Self::Aufs && name.as_bytes().starts_with(WHITEOUT)
    }

    /// Whether an attribute is the layer's own.
    pub(super) fn keeps_for_itself(self, name: &OsStr) -> bool {
        match self {
            Self::Overlay(namespace) => name.as_bytes().starts_with(namespace.prefix().as_bytes()),
            Self::None | Self::Aufs => false,
        }
    }

    /// Whether the root of a layer covers all beneath.
    pub(super) fn closes(self, root: &Folder) -> bool {
        self == Self::Aufs && matches!(root.status(OsStr::new(OPAQUE)), Ok(Some(_)))
    }

    pub(super) fn find(self, place: &Place) -> Result<Found, KernelError> {
        if self.hides(&place.name) {
            return Ok(Found::Nothing);
        }
        Ok(match (place.folder.status(&place.name)?, self) {
            (Some(status), Self::Overlay(_)) if is_whiteout(&status) => Found::Deleted,
            (Some(status), _) => Found::Entry(status),
            (None, Self::Aufs) if place.folder.status(&aufs_whiteout(&place.name))?.is_some() => Found::Deleted,
            (None, _) => Found::Nothing,
        })
    }

    /// Returns where what lies beneath an entry is looked for; nothing when nothing can.
    pub(super) fn goes_on(self, place: &Place, status: &Status) -> Result<Option<Redirect>, KernelError> {
        let namespace = match (self, status.kind) {
            (Self::None, FileKind::Directory) => return Ok(Some(Redirect::Same)),
            (Self::Aufs, FileKind::Directory) => {
                let inner = place.folder.enter(&place.name)?;
                return Ok(inner.status(OsStr::new(OPAQUE))?.is_none().then_some(Redirect::Same));
            }
            (Self::Overlay(namespace), FileKind::Directory) => {
                if namespace.get(place, "opaque")?.is_some_and(|value| value == b"y") {
                    return Ok(None);
                }
                namespace
            }
            // A copy of the metadata alone has the file's length; it may have a block all the same, for its attributes.
            (Self::Overlay(namespace), FileKind::File) if status.size > 0 => {
                if namespace.get(place, "metacopy")?.is_none() {
                    return Ok(None);
                }
                namespace
            }
            _ => return Ok(None),
        };
        Ok(Some(match namespace.get(place, "redirect")? {
            None => Redirect::Same,
            Some(value) if value.first() == Some(&b'/') => Redirect::Path(PathBuf::from(OsString::from_vec(value))),
            Some(value) => Redirect::Name(OsString::from_vec(value)),
        }))
    }
}

fn is_whiteout(status: &Status) -> bool {
    status.kind == FileKind::Character && status.device.major == 0 && status.device.minor == 0
}

fn aufs_whiteout(name: &OsStr) -> OsString {
    let mut whiteout = OsString::from_vec(WHITEOUT.to_vec());
    whiteout.push(name);
    whiteout
}

/// A name on its way down through the layers.
pub(super) struct Sought {
    rest: VecDeque<Place>,
    /// The layer that was asked last.
    layer: usize,
    /// Whether the way led to a path from the layers' roots, and which.
    path: Option<PathBuf>,
}

impl Sought {
    pub(super) fn in_parts(directory: &Merged, name: &OsStr) -> Self {
        let place =
            |part: &super::Part| Place { layer: part.layer, folder: Rc::clone(&part.folder), name: name.to_owned() };
        Self { rest: directory.parts.iter().map(place).collect(), layer: 0, path: None }
    }

    pub(super) fn next(&mut self, tree: &Tree) -> Option<Place> {
        if let Some(path) = &self.path {
            for layer in self.layer + 1..tree.merged {
                self.layer = layer;
                if let Some(place) = at_path(tree, layer, path) {
                    return Some(place);
                }
            }
            return None;
        }
        let place = self.rest.pop_front()?;
        self.layer = place.layer;
        Some(place)
    }

    pub(super) fn redirect(&mut self, redirect: Redirect) {
        match redirect {
            Redirect::Same => {}
            Redirect::Name(name) => match &mut self.path {
                Some(path) => path.set_file_name(name),
                None => self.rest.iter_mut().for_each(|place| place.name.clone_from(&name)),
            },
            Redirect::Path(path) => self.path = Some(path),
        }
    }
}

/// Returns where a path from a layer's root ends there; nothing when its directories are not there, and for what is no
/// plain path.
fn at_path(tree: &Tree, layer: usize, path: &Path) -> Option<Place> {
    let mut names = Vec::new();
    for component in path.components() {
        match component {
            Component::RootDir => {}
            Component::Normal(name) => names.push(name),
            Component::CurDir | Component::ParentDir | Component::Prefix(_) => return None,
        }
    }
    let (last, directories) = names.split_last()?;
    let from = tree.layers.get(layer)?;
    let mut folder = Rc::clone(&from.folder);
    for name in directories {
        let inner = folder.enter(name).ok()?;
        if inner.own_status().ok()?.file_system != from.file_system {
            return None;
        }
        folder = Rc::new(inner);
    }
    Some(Place { layer, folder, name: (*last).to_owned() })
}

/// Whether a name, taken as an honest file's, would be a deletion in a layer of an image.
pub(crate) fn reads_as_whiteout(name: &OsStr) -> bool {
    name.as_bytes().starts_with(WHITEOUT)
}

/// Returns the name that says in a layer of an image that this one is deleted.
pub(crate) fn whiteout_of(path: &Path) -> PathBuf {
    path.with_file_name(aufs_whiteout(path.file_name().unwrap_or_default()))
}
