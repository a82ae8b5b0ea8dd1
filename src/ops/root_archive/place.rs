//! Where a root is made before it is one: a directory in it that Docker does not know, whose parts are renamed into place.
//!
//! ```text
//! ROOT/.dmpool-load/lock           held while somebody is at work
//! ROOT/.dmpool-load/new/…          what becomes of ROOT
//! ROOT/.dmpool-load/old/…          what was there, in which was nothing
//! ROOT/.dmpool-load/placing.json   there from the first rename to the last
//! ```
//!
//! After a death in between the next call takes back what was renamed, unless Docker has made something since in a place that was
//! empty then.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::kernel::fs::{make_dir, make_dir_durably, read_limited, remove_durably, sync_dir, write_replace};
use crate::kernel::lock::FileLock;
use crate::ops::contents::overlay2::remove_tree;
use crate::ops::fault::{self, Point};
use crate::units::Bytes;

/// The directory.
const STAGING: &str = ".dmpool-load";
const LOCK: &str = "lock";
const NEW: &str = "new";
const OLD: &str = "old";
const PLACING: &str = "placing.json";
const LONGEST: Bytes = Bytes::new(1 << 20);

/// A root that is being made.
#[derive(Debug)]
pub(super) struct Staging {
    root: PathBuf,
    path: PathBuf,
    /// Whether there was no root.
    has_made_root: bool,
    /// Whether it is left as it is when this goes.
    stays: bool,
    _lock: FileLock,
}

/// One name that is put in place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Placed {
    name: String,
    /// Whether something of that name was there.
    had: bool,
    /// Whether something takes its place.
    has_new: bool,
}

impl Staging {
    /// Makes it, after what a call that was killed has left is taken back and removed.
    ///
    /// # Errors
    /// When somebody else is at work there, it cannot be made, or Docker has used what was half in place.
    pub(super) fn begin(root: &Path) -> Result<Self> {
        let has_made_root = root.symlink_metadata().is_err();
        if has_made_root {
            make_dir_durably(root, 0o711)?;
        }
        let path = root.join(STAGING);
        make_dir_durably(&path, 0o700)?;
        let lock = match FileLock::try_exclusive(&path.join(LOCK))? {
            Ok(lock) => lock,
            Err(holder) => bail!("another dmpool is at work there ({holder})"),
        };
        let mut staging = Self { root: root.to_owned(), path, has_made_root, stays: true, _lock: lock };
        staging.sweep()?;
        staging.stays = false;
        make_dir(&staging.new_root(), 0o700)?;
        Ok(staging)
    }

    /// Whether a call that was killed has left something in a root.
    pub(super) fn is_left_in(root: &Path) -> bool {
        root.join(STAGING).join(PLACING).symlink_metadata().is_ok()
    }

    /// Returns where the root is made.
    pub(super) fn new_root(&self) -> PathBuf {
        self.path.join(NEW)
    }

    fn sweep(&self) -> Result<()> {
        if let Some(bytes) = read_limited(&self.path.join(PLACING), LONGEST)? {
            let names: Vec<Placed> = serde_json::from_slice(&bytes)
                .with_context(|| format!("{} is damaged", self.path.join(PLACING).display()))?;
            self.take_back(&names)?;
            remove_durably(&self.path.join(PLACING))?;
        }
        [NEW, OLD].iter().try_for_each(|name| remove_tree(&self.path.join(name)))
    }

    fn places(&self, name: &str) -> [PathBuf; 3] {
        [self.root.join(name), self.path.join(NEW).join(name), self.path.join(OLD).join(name)]
    }

    /// Takes back what was put in place, unless all of it was.
    fn take_back(&self, names: &[Placed]) -> Result<()> {
        let waits = |placed: &&Placed| placed.has_new && is_there(&self.path.join(NEW).join(&placed.name));
        if !names.iter().any(|placed| waits(&placed)) {
            return Ok(());
        }
        for Placed { name, had, has_new } in names {
            let [live, new, old] = self.places(name);
            let is_aside = *had && is_there(&old);
            let is_since = is_there(&live) && if *has_new { is_there(&new) && (!had || is_aside) } else { is_aside };
            ensure!(
                !is_since,
                "{} was made after a load was killed that had put only a part of {} in place; what is missing is in {}",
                live.display(),
                self.root.display(),
                self.path.join(NEW).display()
            );
        }
        for Placed { name, had, has_new } in names.iter().rev() {
            let [live, new, old] = self.places(name);
            if *has_new && !is_there(&new) && is_there(&live) {
                rename(&live, &new)?;
            }
            if *had && is_there(&old) {
                rename(&old, &live)?;
            }
        }
        Ok(())
    }

    /// Puts all of it in place, in that order: what was there and has nothing in it goes.
    ///
    /// # Errors
    /// When a rename fails; it is all taken back then.
    pub(super) fn place(mut self, names: &[&str]) -> Result<()> {
        make_dir(&self.path.join(OLD), 0o700)?;
        let of = |name: &&str| {
            let [live, new, _] = self.places(name);
            Placed { name: (*name).to_owned(), had: is_there(&live), has_new: is_there(&new) }
        };
        let placed: Vec<Placed> = names.iter().map(of).collect();
        self.stays = true;
        write_replace(&self.path.join(PLACING), &serde_json::to_vec(&placed)?, 0o600)?;
        if let Err(e) = self.renames(&placed) {
            let swept = self.sweep();
            self.stays = swept.is_err();
            swept.with_context(|| format!("taking back what was put in place, after this: {e:#}"))?;
            return Err(e);
        }
        remove_durably(&self.path.join(PLACING))?;
        self.stays = false;
        self.has_made_root = false;
        Ok(())
    }

    fn renames(&self, placed: &[Placed]) -> Result<()> {
        for Placed { name, .. } in placed.iter().filter(|placed| placed.had) {
            let [live, _, old] = self.places(name);
            rename(&live, &old)?;
        }
        for (number, Placed { name, .. }) in placed.iter().filter(|placed| placed.has_new).enumerate() {
            let [live, new, _] = self.places(name);
            fault::reached(number, Point::Before)?;
            rename(&new, &live)?;
            fault::reached(number, Point::After)?;
        }
        Ok(())
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if self.stays {
            return;
        }
        let _ = remove_tree(&self.path);
        if self.has_made_root {
            let _ = fs::remove_dir(&self.root);
        }
    }
}

fn is_there(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

fn rename(from: &Path, to: &Path) -> Result<()> {
    ensure!(!is_there(to), "{} is there already", to.display());
    fs::rename(from, to).with_context(|| format!("renaming {} to {}", from.display(), to.display()))?;
    [from, to].into_iter().filter_map(Path::parent).try_for_each(sync_dir)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    const NAMES: [&str; 3] = ["layers", "containers", "cache"];

    fn make(path: &Path, file: &str) {
        fs::create_dir_all(path).unwrap();
        fs::write(path.join(file), "").unwrap();
    }

    /// A root with what a Docker has made that nobody used, and its next one beside.
    fn begun(root: &Path) -> Staging {
        fs::create_dir_all(root).unwrap();
        make(&root.join("containers"), "old");
        make(&root.join("cache"), "old");
        let staging = Staging::begin(root).unwrap();
        make(&staging.new_root().join("layers"), "new");
        make(&staging.new_root().join("containers"), "new");
        staging
    }

    fn picture(root: &Path) -> Vec<String> {
        let mut found: Vec<String> = fs::read_dir(root)
            .unwrap()
            .flatten()
            .flat_map(|entry| {
                let name = entry.file_name().to_string_lossy().into_owned();
                let inside = fs::read_dir(entry.path()).unwrap().flatten();
                inside.map(move |file| format!("{name}/{}", file.file_name().display())).collect::<Vec<_>>()
            })
            .collect();
        found.sort();
        found
    }

    /// Dies before a rename: nothing of it is taken back by this process.
    fn dies(staging: Staging, renames: usize) {
        let placed: Vec<Placed> = NAMES
            .iter()
            .map(|name| {
                let [live, new, _] = staging.places(name);
                Placed { name: (*name).to_owned(), had: is_there(&live), has_new: is_there(&new) }
            })
            .collect();
        make_dir(&staging.path.join(OLD), 0o700).unwrap();
        fs::write(staging.path.join(PLACING), serde_json::to_vec(&placed).unwrap()).unwrap();
        let aside = placed.iter().filter(|placed| placed.had).map(|placed| {
            let [live, _, old] = staging.places(&placed.name);
            (live, old)
        });
        let put = placed.iter().filter(|placed| placed.has_new).map(|placed| {
            let [live, new, _] = staging.places(&placed.name);
            (new, live)
        });
        aside.chain(put).take(renames).for_each(|(from, to)| fs::rename(from, to).unwrap());
        let mut staging = staging;
        staging.stays = true;
    }

    #[test]
    fn what_is_made_is_in_its_place_or_nothing_is() {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path().join("root");
        begun(&root).place(&NAMES).unwrap();
        assert_eq!(picture(&root), ["containers/new", "layers/new"]);
        let missing = temp.path().join("missing");
        drop(Staging::begin(&missing).unwrap());
        assert!(!missing.exists());
        let staging = Staging::begin(&missing).unwrap();
        make(&staging.new_root().join("layers"), "new");
        staging.place(&NAMES).unwrap();
        assert_eq!(picture(&missing), ["layers/new"]);
    }

    #[test]
    fn after_a_death_at_any_rename_the_root_is_as_before_or_whole() {
        for renames in 0..=4 {
            let temp = tempfile::tempdir().unwrap();
            let root = temp.path().join("root");
            dies(begun(&root), renames);
            assert!(Staging::is_left_in(&root));
            let next = Staging::begin(&root).unwrap();
            assert!(Staging::begin(&root).is_err(), "two at once");
            drop(next);
            let whole = ["containers/new", "layers/new"];
            let before = ["cache/old", "containers/old"];
            assert_eq!(picture(&root), if renames == 4 { whole } else { before }, "{renames}");
        }
    }

    #[test]
    fn what_docker_has_made_since_is_not_taken_back() {
        for (renames, name) in [(2, "containers"), (2, "layers"), (2, "cache"), (3, "containers")] {
            let temp = tempfile::tempdir().unwrap();
            let root = temp.path().join("root");
            dies(begun(&root), renames);
            make(&root.join(name), "since");
            let before = picture(&root);
            let refused = format!("{:#}", Staging::begin(&root).unwrap_err());
            assert!(refused.contains("was made after a load was killed"), "{refused}");
            assert!(root.join(name).join("since").exists());
            assert_eq!(picture(&root), before);
        }
    }
}
