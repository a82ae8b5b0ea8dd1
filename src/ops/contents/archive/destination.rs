//! Where `cp` puts what it copies: `docker cp`'s rules.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::error::{Failure, Outcome};
use crate::kernel::folder::Folder;
use crate::ops::contents::tree::ends_in_slash;
use crate::process::quote;

/// What is copied, so far as it decides where it goes.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// Whether it is a directory.
    pub is_directory: bool,
    /// What it is called in the directory that it is in; nothing when only what is in it is copied (`SRC/.`, the root).
    pub name: Option<&'a std::ffi::OsStr>,
}

/// Where it goes.
#[derive(Debug)]
pub struct Destination {
    /// The directory that it is made in, open.
    pub folder: Folder,
    /// Which one that is.
    pub path: PathBuf,
    /// What it is called there; nothing when its content goes right into the directory.
    pub name: Option<OsString>,
}

impl Destination {
    /// Finds it.
    ///
    /// # Errors
    /// Refused where `docker cp` refuses: a directory in the place of a file, a file in a directory that is not there, a
    /// missing parent.
    pub fn of(dest: &Path, source: Source<'_>) -> Outcome<Self> {
        let refused = |why: &str| {
            Failure::refused(format!("cannot copy to `{}`: {why}", dest.display())).fact("state", "nothing was touched")
        };
        match dest.metadata() {
            Ok(found) if found.is_dir() => Self::in_directory(dest, source.name.map(ToOwned::to_owned)),
            Ok(_) if source.is_directory => {
                Err(refused("it is no directory, and a directory is copied").next("name a directory, or a new name"))
            }
            Ok(_) if ends_in_slash(dest) => {
                Err(refused("it is no directory").next("name it without a slash at its end"))
            }
            // Docker writes to what a symbolic link leads to.
            Ok(_) => match dest.canonicalize() {
                Ok(real) => Self::beside(&real),
                Err(e) => Err(refused(&format!("it cannot be followed: {e}"))),
            },
            Err(_) if dest.is_symlink() => {
                Err(refused("it is a symbolic link that leads nowhere")
                    .next("remove it, or name what it shall lead to"))
            }
            Err(_) if !source.is_directory && ends_in_slash(dest) => {
                Err(refused("there is no such directory").next(format!("mkdir -p {}", quote(&dest.to_string_lossy()))))
            }
            Err(_) => Self::beside(dest),
        }
    }

    fn beside(path: &Path) -> Outcome<Self> {
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // Of `new/.` the name is `new`: std leaves the last dot out.
        match path.file_name() {
            Some(name) => Self::in_directory(parent, Some(name.to_owned())),
            None => Err(Failure::refused(format!("cannot copy to `{}`: it ends in no name", path.display()))
                .fact("state", "nothing was touched")),
        }
    }

    fn in_directory(path: &Path, name: Option<OsString>) -> Outcome<Self> {
        let folder = Folder::open(path).map_err(|e| {
            Failure::refused(format!("cannot copy into `{}`", path.display()))
                .because(e)
                .fact("state", "nothing was touched")
                .next(format!("mkdir -p {}", quote(&path.to_string_lossy())))
        })?;
        let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        Ok(Self { folder, path, name })
    }
}
