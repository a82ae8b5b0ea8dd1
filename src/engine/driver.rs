//! Which storage drivers have run on a Docker root, told by the directories that each makes.

use std::fmt;
use std::io;
use std::path::Path;

use super::small_file::{Directory, Kind};

/// A storage driver of Docker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Driver {
    /// `devicemapper`: the one that keeps its layers in a thin pool.
    Devicemapper,
    /// `overlay2`.
    Overlay2,
    /// `overlay`, its forerunner.
    Overlay,
    /// `fuse-overlayfs`.
    FuseOverlayfs,
    /// `aufs`.
    Aufs,
    /// `btrfs`.
    Btrfs,
    /// `zfs`.
    Zfs,
    /// `vfs`: no driver at all, every layer a whole copy.
    Vfs,
}

impl Driver {
    /// All of them, in the order in which they are told.
    pub const ALL: [Self; 8] = [
        Self::Devicemapper,
        Self::Overlay2,
        Self::Overlay,
        Self::FuseOverlayfs,
        Self::Aufs,
        Self::Btrfs,
        Self::Zfs,
        Self::Vfs,
    ];

    /// Returns Docker's name for it, which is also that of its directory in the root and in `image/`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Devicemapper => "devicemapper",
            Self::Overlay2 => "overlay2",
            Self::Overlay => "overlay",
            Self::FuseOverlayfs => "fuse-overlayfs",
            Self::Aufs => "aufs",
            Self::Btrfs => "btrfs",
            Self::Zfs => "zfs",
            Self::Vfs => "vfs",
        }
    }

    /// Returns the driver of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|driver| driver.name() == name)
    }
}

impl fmt::Display for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Returns the drivers that have made layers in a root: those with a directory that is not empty, or one in `image/`.
pub(super) fn of_root(root: &Directory) -> Vec<Driver> {
    let images = root.enter("image").ok();
    let holds_something = |within: &Directory, name: &str| {
        within.enter(name).and_then(|directory| directory.names()).is_ok_and(|names| !names.is_empty())
    };
    let has_run = |driver: &Driver| {
        holds_something(root, driver.name()) || images.as_ref().is_some_and(|i| holds_something(i, driver.name()))
    };
    Driver::ALL.into_iter().filter(has_run).collect()
}

/// Returns the drivers that have made layers in the root at that path; none when it is no Docker root.
///
/// # Errors
/// When the path cannot be opened.
pub fn at(path: &Path) -> io::Result<Vec<Driver>> {
    Ok(of_root(&Directory::open(path)?))
}

/// Returns whether a driver may have made layers in the root at that path. What is there and cannot be read, or is a link, may be
/// full of them; what is not there has none.
///
/// # Errors
/// When something that is there cannot be opened or listed.
pub fn may_have_run(driver: Driver, path: &Path) -> io::Result<bool> {
    let root = match Directory::open(path) {
        Ok(root) => root,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    let holds_something = |within: &Directory| match within.kind(driver.name())? {
        None => Ok(false),
        Some(Kind::Directory) => Ok(!within.enter(driver.name())?.names()?.is_empty()),
        Some(Kind::File | Kind::Link(_) | Kind::Other) => Ok::<bool, io::Error>(true),
    };
    if holds_something(&root)? {
        return Ok(true);
    }
    match root.kind("image")? {
        None => Ok(false),
        Some(Kind::Directory) => holds_something(&root.enter("image")?),
        Some(Kind::File | Kind::Link(_) | Kind::Other) => Ok(true),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn drivers_are_told_by_their_directories() {
        let temp = tempfile::tempdir().unwrap();
        assert_eq!(at(temp.path()).unwrap(), []);
        fs::create_dir_all(temp.path().join("overlay2/l")).unwrap();
        // An empty directory is what a daemon leaves that only looked whether it could use it.
        fs::create_dir_all(temp.path().join("btrfs")).unwrap();
        fs::create_dir_all(temp.path().join("image/devicemapper/layerdb")).unwrap();
        symlink("/usr", temp.path().join("zfs")).unwrap();
        assert_eq!(at(temp.path()).unwrap(), [Driver::Devicemapper, Driver::Overlay2]);
        assert!(at(&temp.path().join("none")).is_err());
    }

    #[test]
    fn names_are_dockers() {
        for driver in Driver::ALL {
            assert_eq!(Driver::named(driver.name()), Some(driver));
        }
        assert_eq!(Driver::named("overlay3"), None);
    }

    #[test]
    fn what_cannot_be_seen_into_may_be_full() {
        let temp = tempfile::tempdir().unwrap();
        let may = |name: &str| may_have_run(Driver::Devicemapper, &temp.path().join(name)).unwrap();
        assert!(!may("missing"));
        for (root, made, expected) in [
            ("empty", "devicemapper", false),
            ("other", "overlay2/l", false),
            ("layers", "devicemapper/metadata", true),
            ("image", "image/devicemapper/layerdb", true),
        ] {
            std::fs::create_dir_all(temp.path().join(root).join(made)).unwrap();
            assert_eq!(may(root), expected, "{root}");
        }
        std::fs::create_dir(temp.path().join("linked")).unwrap();
        std::os::unix::fs::symlink("/srv", temp.path().join("linked/devicemapper")).unwrap();
        assert!(may("linked"));
        std::fs::write(temp.path().join("file"), "").unwrap();
        assert!(may_have_run(Driver::Devicemapper, &temp.path().join("file")).is_err());
    }
}
