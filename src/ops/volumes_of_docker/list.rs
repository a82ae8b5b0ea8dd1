//! Which volumes a Docker root has, what is in them, and who used them.

use std::ffi::OsString;
use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use crate::engine::docker_objects::{Data, Objects, Time, Volume};
use crate::engine::docker_root::Problem;
use crate::engine::small_file::Directory;
use crate::kernel::fs::{self, Bounds, Occupied};
use crate::units::Bytes;

/// How far the files of a volume are counted.
const BOUNDS: Bounds = Bounds { entries: 10_000_000, time: Duration::from_secs(120) };
/// How many of the names in a volume are told.
const NAMES: usize = 10;

/// A volume, and what is in it.
#[derive(Clone, Debug)]
pub struct Row<'a> {
    /// The volume.
    pub volume: &'a Volume,
    /// What its files occupy; nothing when that was not asked for, or could not be read.
    pub size: Option<Size>,
    /// When the last of its files was changed; nothing as above, and for an empty one.
    pub changed: Option<Time>,
    /// The first names in it; nothing when they could not be read, or are elsewhere.
    pub names: Option<Vec<OsString>>,
    /// How many names it has besides.
    pub more: usize,
    /// What could not be read of it, or is missing.
    pub problems: Vec<Problem>,
}

/// What a volume's files occupy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// The bytes that have blocks.
    pub bytes: Bytes,
    /// Whether all files were counted.
    pub whole: bool,
}

/// Looks into all volumes of a root, into their files only when `sizes` are wanted.
pub fn list(objects: &Objects, sizes: bool) -> Vec<Row<'_>> {
    objects.volumes.iter().map(|volume| row(objects, volume, sizes)).collect()
}

fn row<'a>(objects: &Objects, volume: &'a Volume, sizes: bool) -> Row<'a> {
    let mut row = Row { volume, size: None, changed: None, names: None, more: 0, problems: volume.problems.clone() };
    let path = match &volume.data {
        Data::Here(path) => path,
        Data::Elsewhere(_) => return row,
        Data::Missing => {
            if row.problems.is_empty() {
                let path = objects.path.join("volumes").join(&volume.name);
                row.problems.push(Problem { path, why: "it is missing".to_owned() });
            }
            return row;
        }
    };
    let place = path.iter().fold(objects.path.clone(), |place, name| place.join(name));
    if let Err(error) = look(objects, path, sizes, &mut row) {
        row.problems.push(Problem { path: place, why: error.to_string() });
    }
    row
}

fn look(objects: &Objects, path: &[String], sizes: bool, row: &mut Row<'_>) -> io::Result<()> {
    let root = Directory::open(&objects.path)?;
    let folder = path.iter().try_fold(root, |folder, name| folder.enter(name))?;
    let mut names = folder.names()?;
    row.more = names.len().saturating_sub(NAMES);
    names.truncate(NAMES);
    row.names = Some(names);
    if sizes {
        let found = fs::occupied_in(folder.as_fd().try_clone_to_owned()?, BOUNDS).map_err(io::Error::other)?;
        let Occupied { bytes, whole, changed, .. } = found;
        row.size = Some(Size { bytes, whole });
        row.changed = changed.map(|seconds| Time::new(seconds, 0));
    }
    Ok(())
}
