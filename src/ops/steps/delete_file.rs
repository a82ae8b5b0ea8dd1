//! The step that deletes a loop file: that one only, not what somebody has put in its place since.

use std::fs::{self, Metadata};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use super::files::refuse_attached;
use crate::kernel::{self, identity};
use crate::ops::steps::{Act, Attempt, Kit, Leftover, Reverted, WayBack};
use crate::units::Bytes;

/// Deletes a file for good.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeleteFile {
    /// Where it is.
    pub path: PathBuf,
    /// Which it is; nothing in journals of a dmpool that went by the path alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<FileId>,
}

/// What tells a file from another one at its path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileId {
    /// The boot in which its file system has the device number.
    pub boot: String,
    /// That number (`st_dev`).
    pub device: u64,
    /// Its inode, which a file system may give to the next file.
    pub inode: u64,
    /// How long it is.
    pub length: Bytes,
    /// When it was made, in nanoseconds since 1970; nothing where kernel or file system do not say (statx, Linux 4.11).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub born: Option<u64>,
    /// The inode of its directory: that of a mount point is another one.
    pub directory: u64,
}

/// What is at the path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    Its,
    Another,
    Nothing,
}

impl FileId {
    /// Returns what tells the file at the path.
    ///
    /// # Errors
    /// When it cannot be looked at.
    pub fn of(path: &Path) -> Result<Self> {
        let found = fs::symlink_metadata(path).with_context(|| format!("looking at {}", path.display()))?;
        Ok(Self {
            boot: identity::boot_id()?,
            device: found.dev(),
            inode: found.ino(),
            length: Bytes::new(found.len()),
            born: born(&found),
            directory: directory_of(path)?.ino(),
        })
    }

    /// Returns whether that file is at the path still.
    pub fn is_at(&self, path: &Path) -> bool {
        let is_this_boot = identity::boot_id().is_ok_and(|boot| boot == self.boot);
        fs::symlink_metadata(path).is_ok_and(|found| self.is(&found, is_this_boot))
    }

    fn is(&self, found: &Metadata, is_this_boot: bool) -> bool {
        let born = born(found);
        (found.ino(), found.len()) == (self.inode, self.length.get())
            && (!is_this_boot || found.dev() == self.device)
            && (born.is_none() || self.born.is_none() || born == self.born)
    }
}

fn born(found: &Metadata) -> Option<u64> {
    u64::try_from(found.created().ok()?.duration_since(UNIX_EPOCH).ok()?.as_nanos()).ok()
}

fn directory_of(path: &Path) -> Result<Metadata> {
    let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::metadata(directory).with_context(|| {
        format!("looking for {}: its directory cannot be looked at; is its file system mounted?", path.display())
    })
}

impl DeleteFile {
    /// Returns the step for the file at the path.
    ///
    /// # Errors
    /// When it cannot be looked at.
    pub fn of(path: &Path) -> Result<Self> {
        Ok(Self { path: path.to_owned(), file: Some(FileId::of(path)?) })
    }

    fn look(&self) -> Result<Found> {
        let directory = directory_of(&self.path)?;
        let found = match fs::symlink_metadata(&self.path) {
            Ok(found) => Some(found),
            Err(e) if e.kind() == ErrorKind::NotFound => None,
            Err(e) => return Err(e).with_context(|| format!("looking at {}", self.path.display())),
        };
        let Some(file) = &self.file else {
            return Ok(found.map_or(Found::Nothing, |_| Found::Its));
        };
        let is_this_boot = identity::boot_id()? == file.boot;
        if found.as_ref().is_some_and(|found| file.is(found, is_this_boot)) {
            return Ok(Found::Its);
        }
        let is_its_directory = directory.ino() == file.directory || is_this_boot && directory.dev() == file.device;
        ensure!(
            is_its_directory,
            "{} was in another directory of that name; is its file system mounted?",
            self.path.display()
        );
        Ok(if found.is_some() { Found::Another } else { Found::Nothing })
    }
}

impl Act for DeleteFile {
    fn sentence(&self) -> String {
        format!("delete the file {}", self.path.display())
    }

    fn lasts(&self) -> bool {
        true
    }

    fn way_back(&self) -> WayBack {
        WayBack::None
    }

    fn apply(&self, kit: &Kit, _: Attempt) -> Result<()> {
        match self.look()? {
            Found::Another => {
                kit.say(format!("{} is another file than the pool's by now; it stays", self.path.display()));
                Ok(())
            }
            Found::Its => {
                refuse_attached(&self.path)?;
                kernel::fs::remove_durably(&self.path).map(drop)
            }
            // A death may have come before that was durable.
            Found::Nothing => kernel::fs::remove_durably(&self.path).map(drop),
        }
    }

    fn verify(&self, _: &Kit) -> Result<()> {
        // What was seen to be deleted may have had its directory removed, or its file system unmounted, since.
        if matches!(self.look(), Ok(Found::Its)) {
            bail!("{} is still there", self.path.display());
        }
        Ok(())
    }

    fn revert(&self, kit: &Kit) -> Result<Reverted> {
        Ok(match self.stands(kit)? {
            true => Reverted::Stands(format!("the file {} is deleted", self.path.display())),
            false => Reverted::Gone,
        })
    }

    fn stands(&self, _: &Kit) -> Result<bool> {
        Ok(self.look()? != Found::Its)
    }

    fn leftover(&self) -> Option<Leftover> {
        matches!(self.look(), Ok(Found::Its)).then(|| Leftover::File(self.path.clone()))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_told_from_what_is_in_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("p0");
        fs::create_dir(&folder).unwrap();
        let path = folder.join("data");
        fs::write(&path, "its").unwrap();
        let step = DeleteFile::of(&path).unwrap();
        assert_eq!(step.look().unwrap(), Found::Its);
        fs::write(folder.join("new"), "others").unwrap();
        fs::rename(folder.join("new"), &path).unwrap();
        assert_eq!(step.look().unwrap(), Found::Another);
        fs::remove_file(&path).unwrap();
        assert_eq!(step.look().unwrap(), Found::Nothing);
        let by_path = DeleteFile { file: None, ..step.clone() };
        assert_eq!(by_path.look().unwrap(), Found::Nothing);
        fs::remove_dir(&folder).unwrap();
        for step in [&step, &by_path] {
            assert!(format!("{:#}", step.look().unwrap_err()).contains("is its file system mounted?"));
        }

        // Where its file system is not mounted after a reboot there is a directory all the same.
        let mut elsewhere = step;
        let file = elsewhere.file.as_mut().unwrap();
        (file.boot, file.directory) = ("another".into(), 0);
        fs::create_dir(&folder).unwrap();
        assert!(elsewhere.look().is_err());
        fs::write(&path, "under the mount point").unwrap();
        assert!(elsewhere.look().is_err());
    }

    #[test]
    fn a_journal_without_the_identity_is_read() {
        let step: DeleteFile = serde_json::from_str(r#"{"path":"/srv/p0/data"}"#).unwrap();
        assert_eq!(step.file, None);
        assert_eq!(serde_json::to_string(&step).unwrap(), r#"{"path":"/srv/p0/data"}"#);
    }
}
