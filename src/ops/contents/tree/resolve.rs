//! A path as somebody in the container would have typed it: links lead where they led there, never out of its root.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fmt;
use std::path::{Component, Path, PathBuf};

use super::{Node, Tree};
use crate::kernel::folder::FileKind;

/// Whether a link that is the last name of a path is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Follow {
    /// It is.
    Last,
    /// Only those before it are.
    Parents,
}

/// Where a path has led.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// From the root, without links; empty for the root itself.
    pub path: PathBuf,
    /// What is there.
    pub node: Node,
}

/// Why a path leads nowhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unresolved {
    /// There is nothing of that name, so far as the links have led.
    Missing(PathBuf),
    /// Something on the way is no directory.
    NotADirectory(PathBuf),
    /// More links than the kernel follows.
    TooManyLinks,
    /// The kernel said no.
    Unreadable(PathBuf, String),
}

impl fmt::Display for Unresolved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(path) => write!(f, "there is no /{}", path.display()),
            Self::NotADirectory(path) => write!(f, "/{} is no directory", path.display()),
            Self::TooManyLinks => write!(f, "it leads through more than {MOST_LINKS} symbolic links"),
            Self::Unreadable(path, why) => write!(f, "/{} cannot be read: {why}", path.display()),
        }
    }
}

/// As many as the kernel follows (`MAXSYMLINKS`, include/linux/namei.h).
const MOST_LINKS: usize = 40;

impl Tree {
    /// Follows a path from the root.
    ///
    /// # Errors
    /// Where it cannot be followed.
    pub fn resolve(&self, path: &Path, follow: Follow) -> Result<Resolved, Unresolved> {
        let mut rest: VecDeque<OsString> = names(path);
        // A name after the last slash is there, too.
        let must_be_directory = ends_in_slash(path);
        let mut at = PathBuf::new();
        let mut node = self.root_node().map_err(|e| Unresolved::Unreadable(PathBuf::new(), e.to_string()))?;
        let mut links = 0;
        while let Some(name) = rest.pop_front() {
            if name == ".." {
                at.pop();
                node = self.node(&at)?;
                continue;
            }
            if !node.status.is_directory() {
                return Err(Unresolved::NotADirectory(at));
            }
            let directory = self.enter(&at, &node).map_err(|why| Unresolved::Unreadable(at.clone(), why))?;
            let to = at.join(&name);
            let found = self.look(&directory, &name).map_err(|e| Unresolved::Unreadable(to.clone(), e.to_string()))?;
            let found = found.ok_or_else(|| Unresolved::Missing(to.clone()))?;
            let followed = !rest.is_empty() || must_be_directory || follow == Follow::Last;
            if found.status.kind == FileKind::Link && followed {
                links += 1;
                if links > MOST_LINKS {
                    return Err(Unresolved::TooManyLinks);
                }
                let target = found.target().map_err(|e| Unresolved::Unreadable(to.clone(), e.to_string()))?;
                if target.is_absolute() {
                    at = PathBuf::new();
                    node = self.node(&at)?;
                }
                for name in names(&target).into_iter().rev() {
                    rest.push_front(name);
                }
                continue;
            }
            at = to;
            node = found;
        }
        if must_be_directory && !node.status.is_directory() {
            return Err(Unresolved::NotADirectory(at));
        }
        Ok(Resolved { path: at, node })
    }

    /// Returns where something is that is mounted at a path: links lead on, and what is not there is taken as it is called.
    pub(crate) fn mount_point(&self, path: &Path) -> PathBuf {
        let mut rest = names(path);
        let mut at = PathBuf::new();
        let mut links = 0;
        while let Some(name) = rest.pop_front() {
            if name == ".." {
                at.pop();
                continue;
            }
            let to = at.join(&name);
            let target = match self.node(&to) {
                Ok(found) if found.status.kind == FileKind::Link && links < MOST_LINKS => found.target().ok(),
                _ => None,
            };
            let Some(target) = target else {
                at = to;
                continue;
            };
            links += 1;
            if target.is_absolute() {
                at = PathBuf::new();
            }
            for name in names(&target).into_iter().rev() {
                rest.push_front(name);
            }
        }
        at
    }

    /// Returns what is at a path of single names; no link is followed.
    ///
    /// # Errors
    /// When it is not there, or cannot be read.
    pub fn node(&self, path: &Path) -> Result<Node, Unresolved> {
        let unreadable = |why: String| Unresolved::Unreadable(path.to_owned(), why);
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return self.root_node().map_err(|e| unreadable(e.to_string()));
        };
        let directory = self.reach(parent).map_err(unreadable)?;
        let found = self.look(&directory, name).map_err(|e| unreadable(e.to_string()))?;
        found.ok_or_else(|| Unresolved::Missing(path.to_owned()))
    }
}

fn names(path: &Path) -> VecDeque<OsString> {
    let name = |component: Component<'_>| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some(OsString::from("..")),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    };
    path.components().filter_map(name).collect()
}

/// Whether a path asks for a directory: it ends in `/` or `/.`.
pub(crate) fn ends_in_slash(path: &Path) -> bool {
    let text = path.as_os_str().as_encoded_bytes();
    text.ends_with(b"/") || text.ends_with(b"/.") || text == b"."
}
