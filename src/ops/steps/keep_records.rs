//! The step that keeps what is small and precious before anything is changed.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::engine::api::Api;
use crate::kernel::Called;
use crate::kernel::fs as durable;
use crate::ops::daemon::kept::Kept;
use crate::ops::daemon::saved::Saved;
use crate::ops::steps::hold_docker::MARKS;
use crate::ops::steps::{Act, Attempt, Kit, Reverted, WayBack};
use crate::units::Bytes;

/// What Docker said of all that it has.
pub const DOCKER: &str = "docker.json";
/// What containers of `--rm` were saved as before.
const SAVED: &str = "saved.json";
/// Every item with its checksum; written last.
const MANIFEST: &str = "manifest.json";
/// Copies of files, below this by their whole path.
const FILES: &str = "files";
/// No record and no configuration comes near this.
const LONGEST: Bytes = Bytes::new(256 << 20);
const LONGEST_MANIFEST: Bytes = Bytes::new(64 << 20);

/// Copies files, and what Docker says of what it has, into a folder of dmpool's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeepRecords {
    /// The folder, which is not there yet.
    pub folder: PathBuf,
    /// Docker's socket, when it is asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub socket: Option<PathBuf>,
    /// Files, and folders with all that is below; what is not there is left out.
    pub paths: Vec<PathBuf>,
    /// What containers of `--rm` were saved as before, for who tells of it at the end.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub saved: Vec<Saved>,
}

/// What one item is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Item {
    File { sha256: String, mode: u32, uid: u32, gid: u32 },
    Link { to: PathBuf },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Manifest {
    format: u32,
    items: BTreeMap<PathBuf, Item>,
}

impl KeepRecords {
    /// Returns what Docker said; nothing when it was not asked.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn docker(folder: &Path) -> Result<Option<Kept>> {
        let Some(bytes) = durable::read_limited(&folder.join(DOCKER), LONGEST)? else { return Ok(None) };
        serde_json::from_slice(&bytes).map(Some).with_context(|| format!("reading {}", folder.join(DOCKER).display()))
    }

    /// Returns what containers of `--rm` were saved as before that was kept; nothing where it cannot be read.
    pub fn saved(folder: &Path) -> Vec<Saved> {
        let bytes = durable::read_limited(&folder.join(SAVED), LONGEST).ok().flatten();
        bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
    }

    /// Whether Docker may have started since: from then on what is kept is no more what Docker has, and who undoes needs the marks.
    fn is_over(&self) -> bool {
        self.folder.join(MARKS).exists()
    }

    fn keep(&self) -> Result<Manifest> {
        let mut items = BTreeMap::new();
        if let Some(socket) = &self.socket {
            let api = Api::at(socket).negotiated().context("asking Docker what it has")?;
            let bytes = serde_json::to_vec_pretty(&Kept::ask(&api)?)?;
            items.insert(PathBuf::from(DOCKER), Item::of(&bytes, 0o600, 0, 0));
            durable::write_replace(&self.folder.join(DOCKER), &bytes, 0o600)?;
        }
        if !self.saved.is_empty() {
            let bytes = serde_json::to_vec_pretty(&self.saved)?;
            items.insert(PathBuf::from(SAVED), Item::of(&bytes, 0o600, 0, 0));
            durable::write_replace(&self.folder.join(SAVED), &bytes, 0o600)?;
        }
        for path in &self.paths {
            self.copy(path, &mut items).with_context(|| format!("keeping {}", path.display()))?;
        }
        Ok(Manifest { format: 1, items })
    }

    fn copy(&self, path: &Path, items: &mut BTreeMap<PathBuf, Item>) -> Result<()> {
        let found = match path.symlink_metadata() {
            Ok(found) => found,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(e).called("lstat", path.display()).map_err(Into::into),
        };
        let inner = Path::new(FILES).join(path.strip_prefix("/").unwrap_or(path));
        if items.contains_key(&inner) {
            return Ok(());
        }
        let copy = self.folder.join(&inner);
        let parent = copy.parent().unwrap_or(&self.folder);
        fs::create_dir_all(parent).called("mkdir", parent.display())?;
        if found.is_dir() {
            for entry in fs::read_dir(path).called("opendir", path.display())? {
                self.copy(&entry.called("readdir", path.display())?.path(), items)?;
            }
        } else if found.is_symlink() {
            let to = fs::read_link(path).called("readlink", path.display())?;
            symlink(&to, &copy).called("symlink", copy.display())?;
            items.insert(inner, Item::Link { to });
        } else if found.is_file() {
            let bytes = durable::read_limited(path, LONGEST)?.unwrap_or_default();
            fs::write(&copy, &bytes).called("write", copy.display())?;
            items.insert(inner, Item::of(&bytes, found.mode() & 0o7777, found.uid(), found.gid()));
        }
        Ok(())
    }
}

impl Item {
    fn of(bytes: &[u8], mode: u32, uid: u32, gid: u32) -> Self {
        Self::File { sha256: format!("{:x}", Sha256::digest(bytes)), mode, uid, gid }
    }

    fn is_at(&self, path: &Path) -> Result<bool> {
        Ok(match self {
            Self::Link { to } => fs::read_link(path).is_ok_and(|is| is == *to),
            Self::File { sha256, .. } => durable::read_limited(path, LONGEST)?
                .is_some_and(|bytes| format!("{:x}", Sha256::digest(bytes)) == *sha256),
        })
    }
}

impl Act for KeepRecords {
    fn sentence(&self) -> String {
        let what = if self.socket.is_some() {
            "what Docker says of all that it has, and its configuration,"
        } else {
            "Docker's records"
        };
        format!("keep {what} in {}", self.folder.display())
    }

    fn lasts(&self) -> bool {
        true
    }

    fn way_back(&self) -> WayBack {
        WayBack::By("removed")
    }

    fn apply(&self, _: &Kit, _: Attempt) -> Result<()> {
        if self.is_over() {
            return Ok(());
        }
        // Without its manifest it is what a death has left, and nothing was changed by then.
        remove(&self.folder)?;
        durable::make_dir_durably(&self.folder, 0o700)?;
        let manifest = serde_json::to_vec_pretty(&self.keep()?)?;
        durable::sync_file_system(&self.folder)?;
        durable::write_replace(&self.folder.join(MANIFEST), &manifest, 0o600)
    }

    fn is_one_thing(&self) -> bool {
        false
    }

    fn verify(&self, _: &Kit) -> Result<()> {
        if self.is_over() {
            return Ok(());
        }
        let path = self.folder.join(MANIFEST);
        let Some(bytes) = durable::read_limited(&path, LONGEST_MANIFEST)? else {
            bail!("there is no {}", path.display());
        };
        let manifest: Manifest =
            serde_json::from_slice(&bytes).with_context(|| format!("reading {}", path.display()))?;
        for (inner, item) in &manifest.items {
            let kept = self.folder.join(inner);
            ensure!(item.is_at(&kept)?, "{} is not what was kept", kept.display());
        }
        Ok(())
    }

    fn revert(&self, _: &Kit) -> Result<Reverted> {
        remove(&self.folder)?;
        Ok(Reverted::Gone)
    }
}

/// Removes a folder of dmpool's with all that is in it; one that is not there is success.
fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e).called("rm -r", folder.display())?,
        _ => {}
    }
    folder.parent().filter(|parent| parent.is_dir()).map_or(Ok(()), durable::sync_dir)
}
