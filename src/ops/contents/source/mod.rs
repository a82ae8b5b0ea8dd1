//! Where the files of a container or a layer are: each storage driver keeps them its own way.

mod below;
mod chain;
mod devicemapper;
mod overlay;

use std::cell::OnceCell;
use std::ffi::OsStr;
use std::fmt;
use std::path::{Path, PathBuf};

pub use below::Below;
pub use chain::{aufs_layers, cache_id, lower_links};
pub use devicemapper::{Head, Seen, compare};
pub(in crate::ops) use devicemapper::{out_of_service, volume};

use crate::engine::driver::Driver;
use crate::engine::small_file::Directory;
use crate::error::{Failure, Outcome};
use crate::kernel::folder::Folder;
use crate::kernel::{KernelError, apart};
use crate::ops::State;
use crate::ops::contents::tree::{Layer, Marks, Tree};

/// The files of a container or a layer, open.
#[derive(Debug)]
pub struct Opened {
    /// With all layers below.
    pub tree: Tree,
    /// What of it is missing.
    pub lost: Vec<String>,
    /// What is to be known of how it was reached.
    pub notes: Vec<String>,
    /// Whose it is when it is mounted, so that it may be another in the next moment.
    pub mounted: Option<String>,
}

/// What was said of the way to the files. All of it is of devicemapper alone; other drivers' files are where they are.
#[derive(Debug, Default)]
pub struct Reach {
    /// Without the kernel's device-mapper, though it has it.
    pub userspace: bool,
    /// Where an image of a volume goes while it is read.
    pub work_dir: Option<PathBuf>,
    /// The pool's data, when it is not where the root says.
    pub data: Option<PathBuf>,
    /// The pool's metadata, likewise.
    pub metadata: Option<PathBuf>,
    /// Where dmpool's registry is.
    pub state: State,
    /// What was seen on volumes without a record: looking into each takes long.
    pub unrecorded: Seen,
}

/// Opens what a driver keeps under a name, with all layers below it, which the layer database knows, too.
///
/// # Errors
/// Refused when the driver does not have it, or its files are not reached this way.
pub fn open(root: &Path, driver: &str, id: &str, below: &Below, reach: &Reach) -> Outcome<Opened> {
    let place = Place { root, driver, id, below, reach, opened: OnceCell::new() };
    match Driver::named(driver) {
        Some(Driver::Overlay2) => overlay::overlay2(&place),
        Some(Driver::Overlay) => overlay::overlay(&place),
        Some(Driver::Aufs) => aufs(&place),
        Some(Driver::Vfs) => whole(&place, "dir"),
        // A subvolume is a directory, once its file system is mounted.
        Some(Driver::Btrfs) => whole(&place, "subvolumes"),
        Some(Driver::Devicemapper) => devicemapper::open(&place),
        Some(Driver::FuseOverlayfs | Driver::Zfs) | None => Err(place
            .refused(format!("files of the storage driver {driver} cannot be read"))
            .next("start a Docker that has this driver, on a copy of the root")),
    }
}

/// What is opened, and where.
struct Place<'a> {
    root: &'a Path,
    driver: &'a str,
    id: &'a str,
    below: &'a Below,
    reach: &'a Reach,
    opened: OnceCell<Folder>,
}

/// Opens the root to read files in it: without leaving an access time anywhere, where this process may see to that.
///
/// # Errors
/// As open(2).
pub(crate) fn opened(root: &Path) -> Result<Folder, KernelError> {
    apart::untouched(root).or_else(|_| Folder::open(root))
}

impl Place<'_> {
    /// Returns the path of something that the driver keeps.
    fn path(&self, names: &[&str]) -> PathBuf {
        names.iter().fold(self.root.join(self.driver), |path, name| path.join(name))
    }

    fn folder(&self, names: &[&str]) -> Result<Folder, KernelError> {
        let named = |e: KernelError| KernelError { object: self.path(names).display().to_string(), ..e };
        let root = match self.opened.get() {
            Some(root) => root,
            None => {
                let root = opened(self.root).map_err(named)?;
                self.opened.get_or_init(|| root)
            }
        };
        let driver = root.enter(OsStr::new(self.driver)).map_err(named)?;
        names.iter().try_fold(driver, |folder, name| folder.enter(OsStr::new(name))).map_err(named)
    }

    /// Returns a text that the driver keeps, and nothing when there is none.
    fn text(&self, names: &[&str]) -> Result<Option<String>, String> {
        let named = |e: std::io::Error| format!("{}: {e}", self.path(names).display());
        let Some((file, folders)) = names.split_last() else { return Ok(None) };
        let mut folder = Directory::open(self.root).and_then(|root| root.enter(self.driver)).map_err(named)?;
        for name in folders {
            folder = folder.enter(name).map_err(named)?;
        }
        match folder.read(file, chain::LONGEST) {
            Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(named(e)),
        }
    }

    fn layer(&self, names: &[&str], marks: Marks) -> Result<Layer, KernelError> {
        Layer::new(self.folder(names)?, marks)
    }

    /// Opens the topmost layer, without which there is nothing.
    fn top(&self, names: &[&str], marks: Marks) -> Outcome<Layer> {
        self.layer(names, marks).map_err(|e| {
            self.refused("the storage driver does not have it").because(e).next("dmpool rescue images --tree")
        })
    }

    fn refused(&self, why: impl fmt::Display) -> Failure {
        Failure::refused(format!("cannot open layer `{}`: {why}", self.id))
            .fact("driver", format!("{} in {}", self.driver, self.root.display()))
    }
}

/// A driver that has every layer as a whole copy.
fn whole(place: &Place<'_>, folder: &str) -> Outcome<Opened> {
    let layer = place.top(&[folder, place.id], Marks::None)?;
    Ok(Opened { tree: Tree::new(vec![layer]), lost: Vec::new(), notes: Vec::new(), mounted: None })
}

/// `aufs/diff/ID` has a layer's files, `aufs/layers/ID` the names of those below it, top first (graphdriver/aufs/aufs.go).
fn aufs(place: &Place<'_>) -> Outcome<Opened> {
    let top = place.top(&["diff", place.id], Marks::Aufs)?;
    let record = ["layers", place.id];
    let listed = place.text(&record).map(|text| aufs_layers(&text.unwrap_or_default()));
    let by_id = |id: &str| place.layer(&["diff", id], Marks::Aufs).map_err(|e| e.to_string());
    Ok(merged(place, top, &record, listed, &by_id, &by_id))
}

type Find<'a> = &'a dyn Fn(&str) -> Result<Layer, String>;

/// Puts under a layer what the driver has listed below it. A list that is damaged, or shorter than the layer database's, is
/// replaced by that; an empty one is right only where the database says that nothing is below.
fn merged(
    place: &Place<'_>,
    top: Layer,
    record: &[&str],
    listed: Result<Vec<Result<String, String>>, String>,
    by_name: Find<'_>,
    by_id: Find<'_>,
) -> Opened {
    let path = place.path(record);
    let path = path.display();
    let found: Vec<Result<Layer, String>> = match listed {
        Ok(names) => names
            .into_iter()
            .map(|name| match name {
                Ok(name) => by_name(&name),
                Err(name) => Err(format!("`{name}` in {path} is no layer")),
            })
            .collect(),
        Err(why) => vec![Err(why)],
    };
    let Below { ids, whole } = place.below;
    let (mut layers, mut lost, mut notes) = (vec![top], Vec::new(), Vec::new());
    let damage = found.iter().find_map(|layer| layer.as_ref().err().cloned()).or_else(|| {
        let is_short = found.len() < ids.len() || (found.is_empty() && !whole);
        is_short.then(|| match found.len() {
            0 => "it is empty or missing".to_owned(),
            count => format!("it names {count} layers, and the layer database {}", ids.len()),
        })
    });
    let found = match damage {
        Some(why) if *whole => {
            notes.push(format!("{path} does not lead to every layer ({why}): these are those of the layer database"));
            ids.iter().flatten().map(|id| by_id(id)).collect()
        }
        Some(why) => {
            if found.iter().all(Result::is_ok) {
                lost.push(format!("layers below are missing, {path} does not tell which: {why}"));
            }
            found
        }
        None => found,
    };
    for layer in found {
        match layer {
            Ok(layer) => layers.push(layer),
            Err(why) => lost.push(format!("a layer is missing: {why}")),
        }
    }
    Opened { tree: Tree::new(layers), lost, notes, mounted: None }
}

#[cfg(test)]
mod tests;
