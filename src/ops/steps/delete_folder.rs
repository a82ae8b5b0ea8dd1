//! The step that deletes a folder with all that is in it: that one only, on its own file system, through no link.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::kernel::folder::{FileKind, Folder};
use crate::kernel::fs::sync_dir;
use crate::kernel::{holders, loopdev, mounts};
use crate::ops::steps::{Act, Attempt, Kit, Leftover, Reverted, WayBack};
use crate::units::Bytes;

/// What it is called while it is deleted.
const GOES: &str = ".dmpool-deleted";
/// Where a pool's loop files are in what is set aside: the folder itself, or the driver's home.
const LOOP_FILES: [&str; 4] = ["data", "metadata", "devicemapper/data", "devicemapper/metadata"];

/// Deletes a folder for good.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeleteFolder {
    /// Where it is.
    pub path: PathBuf,
    /// Its inode.
    pub inode: u64,
    /// What its files occupy, when it was planned.
    pub occupied: Bytes,
}

/// Who keeps a folder from being deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InUse {
    /// Who, in a few words.
    pub by: String,
    /// What lets go of it.
    pub next: String,
}

/// Returns who uses a folder or something in it: a mount at or below it, in whatever mount namespace, or a loop device.
///
/// # Errors
/// When mounts or loop devices cannot be listed.
pub fn in_use(path: &Path) -> Result<Option<InUse>> {
    let mut seen = mounts::everywhere()?.into_iter();
    if let Some(seen) = seen.find(|seen| seen.mount.mount_point.starts_with(path)) {
        let point = seen.mount.mount_point.display();
        return Ok(Some(InUse {
            by: format!("a file system is mounted at {point}, as {} (process {}) sees it", seen.comm, seen.pid),
            next: format!("umount {point}    # when nobody needs it; else end that process"),
        }));
    }
    let file = |name: &&str| fs::symlink_metadata(path.join(name)).ok().map(|found| (found.dev(), found.ino()));
    let files: Vec<_> = LOOP_FILES.iter().filter_map(file).collect();
    for device in loopdev::list()? {
        let is_named = device.backing_path.as_deref().is_some_and(|backing| backing.starts_with(path));
        if !is_named && !files.contains(&(device.backing_dev.dev_t(), device.backing_inode)) {
            continue;
        }
        let holder = holders::of(device.devno)?.into_iter().next();
        let node = device.path();
        let by = holder.map_or_else(|| "attached".to_owned(), |holder| format!("in use: {holder}"));
        return Ok(Some(InUse {
            by: format!("{} lies on a file of it, and is {by}", node.display()),
            next: format!(
                "dmsetup ls --tree    # shows what is on it: take that down, then losetup -d {}",
                node.display()
            ),
        }));
    }
    Ok(None)
}

impl DeleteFolder {
    fn goes(&self) -> PathBuf {
        let mut name = self.path.file_name().unwrap_or_default().to_owned();
        name.push(GOES);
        self.path.with_file_name(name)
    }

    /// Whether it is there, under its own name.
    fn is_there(&self) -> Result<bool> {
        match fs::symlink_metadata(&self.path) {
            Ok(found) => Ok(found.is_dir() && found.ino() == self.inode),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(e).with_context(|| format!("looking at {}", self.path.display())),
        }
    }
}

impl Act for DeleteFolder {
    fn sentence(&self) -> String {
        format!("delete {} with all that is in it, {}", self.path.display(), self.occupied.human())
    }

    fn lasts(&self) -> bool {
        true
    }

    fn way_back(&self) -> WayBack {
        WayBack::None
    }

    fn apply(&self, _: &Kit, attempt: Attempt) -> Result<()> {
        let goes = self.goes();
        let parent = self.path.parent().unwrap_or(Path::new("/"));
        if self.is_there()? {
            if let Some(used) = in_use(&self.path)? {
                bail!("{}", used.by);
            }
            ensure!(fs::symlink_metadata(&goes).is_err(), "{} is there already", goes.display());
            // From here on nobody takes what is left of it for the whole.
            fs::rename(&self.path, &goes).with_context(|| format!("renaming {}", self.path.display()))?;
            sync_dir(parent)?;
        } else if attempt == Attempt::First {
            bail!("{} is not what it was when the plan was made", self.path.display());
        }
        if let Some(name) = goes.file_name().filter(|_| fs::symlink_metadata(&goes).is_ok()) {
            let above = Folder::open(parent)?;
            let inode = above.status(name)?.map(|found| found.inode);
            ensure!(inode == Some(self.inode), "{} is somebody else's", goes.display());
            delete(&above, name).with_context(|| format!("deleting {}", goes.display()))?;
            sync_dir(parent)?;
        }
        Ok(())
    }

    fn is_one_thing(&self) -> bool {
        false
    }

    fn verify(&self, _: &Kit) -> Result<()> {
        ensure!(!self.is_there()?, "{} is still there", self.path.display());
        let goes = self.goes();
        ensure!(fs::symlink_metadata(&goes).is_err(), "{} is still there", goes.display());
        Ok(())
    }

    fn revert(&self, _: &Kit) -> Result<Reverted> {
        if self.is_there()? {
            return Ok(Reverted::Gone);
        }
        Ok(Reverted::Stands(format!("{} is deleted, or a part of it", self.path.display())))
    }

    fn stands(&self, _: &Kit) -> Result<bool> {
        Ok(!self.is_there()?)
    }

    fn leftover(&self) -> Option<Leftover> {
        Some(self.goes()).filter(|goes| goes.is_dir()).map(Leftover::Tree)
    }
}

/// Deletes a folder by its name in an open one. What is of another file system ends it.
fn delete(above: &Folder, name: &OsStr) -> Result<()> {
    let folder = above.enter(name)?;
    let own = folder.own_status()?.file_system;
    for inner in folder.names()? {
        let Some(found) = folder.status(&inner)? else { continue };
        ensure!(found.file_system == own, "{} is of another file system", inner.display());
        if found.kind == FileKind::Directory {
            delete(&folder, &inner).with_context(|| inner.display().to_string())?;
        } else {
            folder.remove(&inner)?;
        }
    }
    above.remove_folder(name).map_err(Into::into)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn all_below_goes_and_nothing_that_a_link_leads_to() {
        let temp = tempfile::tempdir().unwrap();
        let folder = temp.path().join("old");
        fs::create_dir_all(folder.join("metadata/deep/er")).unwrap();
        fs::write(folder.join("metadata/deep/file"), "x").unwrap();
        fs::write(temp.path().join("kept"), "x").unwrap();
        fs::create_dir(temp.path().join("kept-folder")).unwrap();
        fs::write(temp.path().join("kept-folder/file"), "x").unwrap();
        symlink("../kept", folder.join("link")).unwrap();
        symlink("../kept-folder", folder.join("folder-link")).unwrap();
        symlink("kept-folder", temp.path().join("not-a-folder")).unwrap();
        let above = Folder::open(temp.path()).unwrap();
        delete(&above, OsStr::new("old")).unwrap();
        assert!(!folder.exists());
        assert!(temp.path().join("kept").exists() && temp.path().join("kept-folder/file").exists());
        assert!(delete(&above, OsStr::new("not-a-folder")).is_err());
        assert!(temp.path().join("kept-folder/file").exists());
    }
}
