//! The step that renames what speaks of something that is gone.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::kernel::fs::sync_dir;
use crate::ops::steps::{Act, Attempt, Kit, Reverted, WayBack};

/// Renames a file or folder beside itself: who looks for it finds none, and nothing in it is lost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetAside {
    /// What it is called.
    pub from: PathBuf,
    /// What it is called then.
    pub to: PathBuf,
}

impl Act for SetAside {
    fn sentence(&self) -> String {
        format!("set {} aside, as {}", self.from.display(), self.to.display())
    }

    fn lasts(&self) -> bool {
        true
    }

    fn way_back(&self) -> WayBack {
        WayBack::By("given its name again")
    }

    fn apply(&self, _: &Kit, attempt: Attempt) -> Result<()> {
        if attempt == Attempt::Again && is_there(&self.to) {
            return Ok(());
        }
        ensure!(!is_there(&self.to), "{} is there already", self.to.display());
        rename(&self.from, &self.to)
    }

    fn verify(&self, _: &Kit) -> Result<()> {
        ensure!(is_there(&self.to), "{} is not there", self.to.display());
        Ok(())
    }

    fn revert(&self, _: &Kit) -> Result<Reverted> {
        if !is_there(&self.to) {
            return Ok(Reverted::Gone);
        }
        if is_there(&self.from) {
            let (from, to) = (self.from.display(), self.to.display());
            return Ok(Reverted::Stands(format!("{from} is there again, and what it was stays {to}")));
        }
        rename(&self.to, &self.from)?;
        Ok(Reverted::Gone)
    }
}

fn is_there(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}

fn rename(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).with_context(|| format!("renaming {} to {}", from.display(), to.display()))?;
    sync_dir(to.parent().unwrap_or(Path::new("/")))
}
