//! Steps on the files under a pool, each durable before it counts as done: the file, and the directory that names it.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::kernel;
use crate::ops::sight;
use crate::ops::steps::resize::Part;
use crate::ops::steps::{Act, Attempt, Kit, Leftover, Reverted, WayBack};
use crate::units::Bytes;

/// Makes a directory that only root may enter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MakeDirectory {
    /// Where.
    pub path: PathBuf,
    /// Whether those above it are dmpool's own, as its journals' are: where they are missing they are made too, and stay.
    /// Anywhere else a missing one may be a file system that is not mounted.
    #[serde(default)]
    pub parents: bool,
}

impl Act for MakeDirectory {
    fn sentence(&self) -> String {
        format!("make the directory {} (mode 0700)", self.path.display())
    }

    fn lasts(&self) -> bool {
        true
    }

    fn way_back(&self) -> WayBack {
        WayBack::By("removed when empty")
    }

    fn apply(&self, _: &Kit, attempt: Attempt) -> Result<()> {
        if let Some(above) = self.path.parent().filter(|_| self.parents) {
            kernel::fs::make_dir_durably(above, 0o700)?;
        }
        match kernel::fs::make_dir(&self.path, 0o700) {
            Err(_) if attempt == Attempt::Again && self.path.is_dir() => kernel::fs::settle_dir(&self.path, 0o700),
            other => other,
        }
    }

    fn verify(&self, _: &Kit) -> Result<()> {
        let found = fs::symlink_metadata(&self.path).with_context(|| format!("looking at {}", self.path.display()))?;
        ensure!(found.is_dir(), "{} is no directory", self.path.display());
        ensure!(found.mode() & 0o077 == 0, "{} may be entered by others than root", self.path.display());
        Ok(())
    }

    fn revert(&self, _: &Kit) -> Result<Reverted> {
        kernel::fs::remove_dir_durably(&self.path)?;
        Ok(Reverted::Gone)
    }
}

/// Makes a loop file; never over another file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MakeFile {
    /// Where.
    pub path: PathBuf,
    /// How long.
    pub size: Bytes,
    /// Whether it gets all its blocks at once instead of being sparse.
    pub preallocate: bool,
}

impl Act for MakeFile {
    fn sentence(&self) -> String {
        let kind = if self.preallocate { "preallocated" } else { "sparse" };
        format!("make the file {}, {}, {kind} (mode 0600)", self.path.display(), self.size.human())
    }

    fn lasts(&self) -> bool {
        true
    }

    fn way_back(&self) -> WayBack {
        WayBack::By("removed")
    }

    fn apply(&self, _: &Kit, attempt: Attempt) -> Result<()> {
        let file = if attempt == Attempt::Again && self.path.is_file() {
            let file = kernel::fs::open_existing(&self.path)?;
            kernel::fs::extend_file(&file, &self.path, self.size)?;
            file
        } else {
            kernel::fs::create_file_durably(&self.path, self.size)?
        };
        if self.preallocate {
            kernel::fs::reserve(&file, &self.path, self.size)?;
        }
        Ok(())
    }

    fn verify(&self, _: &Kit) -> Result<()> {
        let found = fs::symlink_metadata(&self.path).with_context(|| format!("looking at {}", self.path.display()))?;
        ensure!(found.is_file(), "{} is no file", self.path.display());
        ensure!(
            found.len() == self.size.get(),
            "{} has {} bytes, not {}",
            self.path.display(),
            found.len(),
            self.size.get()
        );
        Ok(())
    }

    fn revert(&self, _: &Kit) -> Result<Reverted> {
        refuse_attached(&self.path)?;
        kernel::fs::remove_durably(&self.path)?;
        Ok(Reverted::Gone)
    }
}

/// Makes a loop file longer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExtendFile {
    /// Which file.
    pub path: PathBuf,
    /// The pool that stands on it, by dm name.
    pub pool: String,
    /// Which part of the pool it carries.
    pub part: Part,
    /// The file that holds the pool's superblock.
    pub metadata_file: PathBuf,
    /// How long it is.
    pub from: Bytes,
    /// How long it shall be.
    pub to: Bytes,
    /// Whether the new part gets its blocks at once.
    pub preallocate: bool,
}

impl Act for ExtendFile {
    fn sentence(&self) -> String {
        let how = if self.preallocate { ", and give it all its blocks" } else { "" };
        format!("extend the file {} from {} to {}{how}", self.path.display(), self.from.human(), self.to.human())
    }

    fn lasts(&self) -> bool {
        true
    }

    fn way_back(&self) -> WayBack {
        WayBack::By("shortened again, as long as superblock and pool both still have the old size")
    }

    fn apply(&self, _: &Kit, _: Attempt) -> Result<()> {
        let file = kernel::fs::open_existing(&self.path)?;
        // Also when it has that length: a death may have come before the sync.
        if length(&self.path)? <= self.to {
            kernel::fs::extend_file(&file, &self.path, self.to)?;
        }
        if self.preallocate {
            kernel::fs::reserve(&file, &self.path, self.to)?;
        }
        Ok(())
    }

    fn verify(&self, _: &Kit) -> Result<()> {
        let length = length(&self.path)?;
        ensure!(length >= self.to, "{} has {} bytes, not {}", self.path.display(), length.get(), self.to.get());
        Ok(())
    }

    fn stands(&self, kit: &Kit) -> Result<bool> {
        Ok(length(&self.path)? > self.from
            && sight::needed(&kit.dm, &self.pool, self.part, &self.metadata_file)? > self.from)
    }

    fn revert(&self, kit: &Kit) -> Result<Reverted> {
        if length(&self.path)? > self.from {
            if self.stands(kit)? {
                return Ok(Reverted::Stands(format!(
                    "the file {} keeps its {}: the pool uses them",
                    self.path.display(),
                    self.to.human()
                )));
            }
            kernel::fs::shorten_file(&kernel::fs::open_existing(&self.path)?, &self.path, self.from)?;
        }
        // Also when it has its old length: a death may have come before the loop device was told.
        for user in sight::loops_on(&self.path)? {
            kernel::loopdev::set_capacity(user.devno)?;
        }
        Ok(Reverted::Gone)
    }
}

/// Removes a directory, when it is empty.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoveDirectory {
    /// Which.
    pub path: PathBuf,
}

impl Act for RemoveDirectory {
    fn sentence(&self) -> String {
        format!("remove the directory {}, if nothing else is in it", self.path.display())
    }

    fn lasts(&self) -> bool {
        true
    }

    fn way_back(&self) -> WayBack {
        WayBack::None
    }

    fn apply(&self, _: &Kit, _: Attempt) -> Result<()> {
        match kernel::fs::remove_dir_durably(&self.path) {
            Err(e) if kernel::errno_of(&e) == Some(nix::errno::Errno::ENOTEMPTY) => Ok(()),
            other => other.map(drop),
        }
    }

    fn verify(&self, _: &Kit) -> Result<()> {
        Ok(())
    }

    fn revert(&self, kit: &Kit) -> Result<Reverted> {
        // It goes after all that was in it.
        Ok(match self.stands(kit)? {
            true => Reverted::Stands(format!("{} is deleted, with the files that were in it", self.path.display())),
            false => Reverted::Gone,
        })
    }

    fn stands(&self, _: &Kit) -> Result<bool> {
        Ok(!self.path.is_dir())
    }

    fn leftover(&self) -> Option<Leftover> {
        self.path.is_dir().then(|| Leftover::Directory(self.path.clone()))
    }
}

fn length(path: &std::path::Path) -> Result<Bytes> {
    let found = fs::symlink_metadata(path).with_context(|| format!("looking at {}", path.display()))?;
    ensure!(found.is_file(), "{} is no file", path.display());
    Ok(Bytes::new(found.len()))
}

/// How often a loop device is looked for that goes away by itself, and how long is waited in between.
const LOOKS: u32 = 50;
const BETWEEN_LOOKS: Duration = Duration::from_millis(100);

/// Refuses when a loop device has the file. One that detaches itself with its last close is waited for: udev opens what
/// has just changed.
pub(super) fn refuse_attached(path: &std::path::Path) -> Result<()> {
    for look in 1.. {
        if !path.exists() {
            break;
        }
        match sight::loops_on(path)?.first() {
            None => break,
            Some(user) if !user.autoclear || look == LOOKS => {
                bail!("{} is attached to the loop device {}", path.display(), user.devno);
            }
            Some(_) => std::thread::sleep(BETWEEN_LOOKS),
        }
    }
    Ok(())
}
