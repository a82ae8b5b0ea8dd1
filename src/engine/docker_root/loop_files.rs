//! What is in the place of a root's loop files: the files, or what people have put there.

use std::path::{Path, PathBuf};

use super::{DRIVER, Problem};
use crate::engine::small_file::{Directory, Kind};

/// A symbolic link in the place of a loop file. Docker opens what it leads to; nothing here does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoopLink {
    /// What is written in it.
    pub target: PathBuf,
    /// What it leads to now.
    pub leads_to: LeadsTo,
}

/// What a path leads to when it is followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeadsTo {
    /// A regular file.
    File,
    /// A block device, by its number (`st_rdev`).
    Device(u64),
    /// Nothing that can carry a pool; why not.
    Nothing(String),
}

/// Returns the path of a loop file that is there, and where it leads when it is a link.
pub(super) fn loop_file(
    files: Option<&Directory>,
    root: &Path,
    name: &str,
    problems: &mut Vec<Problem>,
) -> (Option<PathBuf>, Option<LoopLink>) {
    let path = root.join(DRIVER).join(DRIVER).join(name);
    match files.map(|files| files.kind(name)) {
        None | Some(Ok(None)) => (None, None),
        Some(Ok(Some(Kind::File))) => (Some(path), None),
        Some(Ok(Some(Kind::Link(target)))) => {
            let leads_to = leads_to(&path);
            if let LeadsTo::Nothing(why) = &leads_to {
                let why = format!("it is a symbolic link to {}: {why}", target.display());
                problems.push(Problem { path: path.clone(), why });
            }
            (Some(path), Some(LoopLink { target, leads_to }))
        }
        Some(Ok(Some(Kind::Directory | Kind::Other))) => {
            problems.push(Problem { path, why: "it is not a regular file".to_owned() });
            (None, None)
        }
        Some(Err(error)) => {
            problems.push(Problem { path, why: error.to_string() });
            (None, None)
        }
    }
}

/// Looks at what a path leads to, as Docker will when it starts; opens nothing.
fn leads_to(path: &Path) -> LeadsTo {
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    match path.metadata() {
        Ok(found) if found.is_file() => LeadsTo::File,
        Ok(found) if found.file_type().is_block_device() => LeadsTo::Device(found.rdev()),
        Ok(_) => LeadsTo::Nothing("it leads to no file and no disk".to_owned()),
        Err(error) => LeadsTo::Nothing(error.to_string()),
    }
}
