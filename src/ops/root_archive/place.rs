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

use super::vacant;
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

    /// Whether a call that was killed has left anything at all in a root: it may take much room.
    pub(super) fn has_leavings_in(root: &Path) -> bool {
        is_there(&root.join(STAGING))
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
        self.has_nothing_aside()?;
        [NEW, OLD].iter().try_for_each(|name| remove_tree(&self.path.join(name)))
    }

    /// Fails when what was renamed away, and is going to be removed, has anything that is somebody's.
    fn has_nothing_aside(&self) -> Result<()> {
        let old = self.path.join(OLD);
        let names = fs::read_dir(&old).into_iter().flatten().flatten().map(|entry| entry.file_name());
        let names: Vec<String> = names.map(|name| name.to_string_lossy().into_owned()).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        match vacant::others(&old, &names, 1).first() {
            None => Ok(()),
            Some(found) => {
                bail!("{found} is none of what Docker makes by itself, and is not removed: move it elsewhere")
            }
        }
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
        // What came there since it was looked at goes back with it.
        self.has_nothing_aside()?;
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
        // One by one: what is removed in pieces stays where the next call looks for it.
        let removed = [NEW, OLD].iter().try_for_each(|name| remove_tree(&self.path.join(name)));
        let _ = removed.and_then(|()| remove_tree(&self.path));
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

    const NAMES: [&str; 3] = ["overlay2", "volumes", "buildkit"];

    fn make(path: &Path, file: &str) {
        fs::create_dir_all(path).unwrap();
        fs::write(path.join(file), "").unwrap();
    }

    /// A root with what a Docker has made that nobody used, and its next one beside.
    fn begun(root: &Path) -> Staging {
        fs::create_dir_all(root).unwrap();
        make(&root.join("volumes"), "metadata.db");
        make(&root.join("buildkit"), "cache.db");
        let staging = Staging::begin(root).unwrap();
        make(&staging.new_root().join("overlay2"), "new");
        make(&staging.new_root().join("volumes"), "new");
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
        assert_eq!(picture(&root), ["overlay2/new", "volumes/new"]);
        let missing = temp.path().join("missing");
        drop(Staging::begin(&missing).unwrap());
        assert!(!missing.exists());
        let staging = Staging::begin(&missing).unwrap();
        make(&staging.new_root().join("overlay2"), "new");
        staging.place(&NAMES).unwrap();
        assert_eq!(picture(&missing), ["overlay2/new"]);
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
            let whole = ["overlay2/new", "volumes/new"];
            let before = ["buildkit/cache.db", "volumes/metadata.db"];
            assert_eq!(picture(&root), if renames == 4 { whole } else { before }, "{renames}");
        }
    }

    #[test]
    fn what_docker_has_made_since_is_not_taken_back() {
        for (renames, name) in [(2, "volumes"), (2, "overlay2"), (2, "buildkit"), (3, "volumes")] {
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

    #[test]
    fn what_is_somebodys_is_put_back_and_never_removed() {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path().join("root");
        let staging = begun(&root);
        fs::write(root.join("volumes/dump.sql"), "mine").unwrap();
        let refused = format!("{:#}", staging.place(&NAMES).unwrap_err());
        assert!(refused.contains("dump.sql is none of what Docker makes"), "{refused}");
        assert_eq!(picture(&root), ["buildkit/cache.db", "volumes/dump.sql", "volumes/metadata.db"]);
        assert!(!Staging::has_leavings_in(&root));
        // A call that was killed has left it aside.
        let aside = root.join(STAGING).join(OLD).join("volumes");
        make(&aside, "dump.sql");
        let refused = format!("{:#}", Staging::begin(&root).unwrap_err());
        assert!(refused.contains("dump.sql"), "{refused}");
        assert!(aside.join("dump.sql").exists());
    }
}
