//! Steps that write the layers of a devicemapper root for Docker's overlay2 driver. devicemapper's own are never written.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::errno::Errno;
use serde::{Deserialize, Serialize};

use super::Hold;
use crate::engine::docker_objects::{CONTAINERS, is_id};
use crate::engine::driver::Driver;
use crate::kernel::KernelError;
use crate::kernel::fs::{
    Bounds, make_dir_durably, occupied, read_limited, remove_dir_durably, remove_durably, sync_dir, write_alike,
    write_replace,
};
use crate::ops::contents::overlay2;
use crate::ops::contents::source::Reach;
use crate::ops::fault::{self, Point};
use crate::ops::migrate::blocks::Origin;
use crate::ops::progress::{Interrupted, Progress, may_go_on};
use crate::ops::steps::{Act, Attempt, Kit, Reverted, WayBack};
use crate::units::Bytes;

/// No container's configuration is longer.
const LONGEST: Bytes = Bytes::new(16 << 20);
/// How far a copy that was begun is looked through.
const BOUNDS: Bounds = Bounds { entries: u64::MAX, time: Duration::from_secs(60) };
/// How many differences are told when there are some; the report has them all.
const TOLD: usize = 5;

/// Writes every layer for overlay2, below a directory of dmpool's own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyLayers {
    /// Docker's root, free of symbolic links.
    pub root: PathBuf,
    /// dmpool's directory in it.
    pub to: PathBuf,
    /// What keeps Docker from starting.
    pub hold: Hold,
    /// How many layers there were when the plan was made.
    pub layers: usize,
    /// How much the files of images and containers are, as far as Docker and their file systems tell.
    pub size: Bytes,
    /// The pool that they are in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub old: Option<Origin>,
    /// How much room it takes at most, where that can be reserved.
    #[serde(default)]
    pub room: Bytes,
}

/// What was copied: beside the copy, until Docker looks at it.
#[derive(Debug, Serialize, Deserialize)]
struct Copied {
    /// The checksum of Docker's records: with others, it has run since.
    records: String,
    /// How many layers.
    layers: usize,
}

/// The file that has it.
const COPIED: &str = "copied.json";
/// The file that is there once this very copy was compared.
const COMPARED: &str = "compared";

impl CopyLayers {
    fn copied(&self) -> Result<Option<Copied>> {
        let bytes = read_limited(&self.to.join(COPIED), LONGEST)?;
        Ok(bytes.map(|bytes| serde_json::from_slice(&bytes)).transpose()?)
    }

    /// Begins, or goes on with a copy of what is there still; another one is worth nothing.
    fn begin(&self, found: &Copied) -> Result<()> {
        self.is_not_placed()?;
        remove_durably(&self.to.join(COMPARED))?;
        if self.copied()?.is_none_or(|copied| copied.records != found.records) {
            overlay2::remove_tree(&self.to)?;
            make_dir_durably(&self.to, 0o700)?;
            write_replace(&self.to.join(COPIED), &serde_json::to_vec(found)?, 0o600)?;
        }
        Ok(())
    }

    fn copy(&self, kit: &Kit, attempt: Attempt) -> Result<()> {
        self.hold.still_stands()?;
        if attempt == Attempt::First && self.to.symlink_metadata().is_ok() {
            let object = self.to.display().to_string();
            return Err(KernelError { errno: Errno::EEXIST, call: "mkdir", object }.into());
        }
        let begun = Copied { records: overlay2::records(&self.root)?, layers: overlay2::count(&self.root)? };
        kit.room.draw(0);
        self.begin(&begun)?;
        self.reserve(kit)?;
        let mut failed = Ok(());
        let [shares, _] = overlay2::shares(&self.root, self.size)?;
        overlay2::copy_layers(&self.root, &self.to, &reach(kit), &|bytes| kit.room.draw(bytes), &mut |number, _| {
            kit.watcher.tell(&progress("copying layers", &shares, number));
            if failed.is_ok() {
                failed = fault::reached(number - 1, Point::Layer);
            }
        })?;
        failed?;
        // What is left of it is for what is written without a word.
        kit.room.give_up();
        overlay2::copy_database(&self.root, &self.to)?;
        // What was read while somebody wrote it is worth nothing.
        ensure!(
            overlay2::records(&self.root)? == begun.records,
            "Docker has written to {} meanwhile",
            self.root.display()
        );
        self.hold.still_stands()
    }

    /// Reserves what is still needed: after a death some of it is there.
    fn reserve(&self, kit: &Kit) -> Result<()> {
        overlay2::remove_half_made(&self.to)?;
        let there = occupied(&self.to, BOUNDS)?;
        let taken = kit.room.take(&self.root, self.room.saturating_sub(there.bytes), Bytes::default(), false);
        match taken {
            // What was not looked at may be all that is too little.
            Err(why) if !there.whole && !why.is::<Interrupted>() => {
                kit.watcher.next(&format!("note: the room for the rest of the copy is not reserved: {why:#}"));
                Ok(())
            }
            taken => taken,
        }
    }

    /// Fails when layers are where Docker looks for them, or on the way: what else is below `to` then is all there is of what was
    /// set aside, and another copy has no place.
    fn is_not_placed(&self) -> Result<()> {
        ensure!(
            !is_there(&self.to.join(ASIDE)),
            "Docker has run on {} since its layers were put in their place: only undo leads on",
            self.root.display()
        );
        Ok(())
    }

    /// Fails when Docker has run although it was held.
    fn is_of_now(&self, copied: &Copied) -> Result<()> {
        let is_same = self.hold.was_dropped() || overlay2::records(&self.root)? == copied.records;
        ensure!(is_same, "Docker has run on {} since it was copied", self.root.display());
        Ok(())
    }
}

fn reach(kit: &Kit) -> Reach {
    Reach { state: kit.state.clone(), ..Reach::default() }
}

fn progress(what: &'static str, shares: &overlay2::Shares, layers: usize) -> Progress {
    Progress { what, done: shares.done(layers), total: shares.total() }
}

impl Act for CopyLayers {
    fn sentence(&self) -> String {
        let (size, to) = (self.size.human(), self.to.display());
        format!("copy {} layers, about {size}, from the thin volumes into directories below {to}", self.layers)
    }

    fn lasts(&self) -> bool {
        true
    }

    fn way_back(&self) -> WayBack {
        WayBack::By("removed; the thin volumes are as they were")
    }

    fn apply(&self, kit: &Kit, attempt: Attempt) -> Result<()> {
        let copied = self.copy(kit, attempt);
        kit.room.give_up();
        copied
    }

    fn is_one_thing(&self) -> bool {
        false
    }

    fn verify(&self, _: &Kit) -> Result<()> {
        let copied = self.copied()?.with_context(|| format!("{} is not there", self.to.join(COPIED).display()))?;
        let whole = self.to.join(overlay2::WHOLE);
        let found = fs::read_dir(&whole).with_context(|| format!("listing {}", whole.display()))?.count();
        ensure!(found == copied.layers, "{found} of {} layers are there", copied.layers);
        self.is_of_now(&copied)
    }

    fn revert(&self, _: &Kit) -> Result<Reverted> {
        overlay2::remove_tree(&self.to)?;
        Ok(Reverted::Gone)
    }
}

/// Compares what was written with what was there, and writes down what was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyLayers {
    /// Docker's root.
    pub root: PathBuf,
    /// dmpool's directory in it.
    pub to: PathBuf,
    /// What keeps Docker from starting.
    pub hold: Hold,
    /// How much the files are, about.
    pub size: Bytes,
    /// Where the report goes, as JSON.
    pub report: PathBuf,
}

impl Act for VerifyLayers {
    fn sentence(&self) -> String {
        let report = self.report.display();
        format!("compare the files of every image and container with those on the thin volumes; report: {report}")
    }

    fn lasts(&self) -> bool {
        true
    }

    fn way_back(&self) -> WayBack {
        WayBack::By("nothing is to be taken back; the report stays")
    }

    fn apply(&self, kit: &Kit, _: Attempt) -> Result<()> {
        self.hold.still_stands()?;
        let [_, shares] = overlay2::shares(&self.root, self.size)?;
        let report = overlay2::verify(&self.root, &self.to, &reach(kit), &may_go_on, &mut |number, _| {
            kit.watcher.tell(&progress("comparing layers", &shares, number));
        })?;
        if let Some(folder) = self.report.parent() {
            make_dir_durably(folder, 0o700)?;
        }
        write_replace(&self.report, &serde_json::to_vec_pretty(&report)?, 0o600)?;
        let differing =
            report.compared.iter().flat_map(|of| of.differing.iter().map(move |what| format!("{}: {what}", of.of)));
        let told: Vec<String> = differing.take(TOLD).collect();
        let count: u64 = report.compared.iter().map(|of| of.differences).sum();
        ensure!(count == 0, "{count} differences, all of them in {}: {}", self.report.display(), told.join("; "));
        for layer in &report.not_saved {
            kit.say(layer.to_string());
        }
        write_replace(&self.to.join(COMPARED), b"", 0o600)
    }

    fn is_one_thing(&self) -> bool {
        false
    }

    fn verify(&self, _: &Kit) -> Result<()> {
        // The report may be of a copy before this one.
        ensure!(is_there(&self.to.join(COMPARED)), "what is in {} was not compared", self.to.display());
        ensure!(self.report.is_file(), "there is no report {}", self.report.display());
        Ok(())
    }

    fn revert(&self, _: &Kit) -> Result<Reverted> {
        // What was found stays to be read; it is no part of what was changed.
        Ok(Reverted::Gone)
    }
}

/// Puts the layers, and the database of them, where overlay2 looks for them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlaceLayers {
    /// Docker's root.
    pub root: PathBuf,
    /// dmpool's directory in it.
    pub to: PathBuf,
    /// What keeps Docker from starting.
    pub hold: Hold,
    /// What is set aside for it, by name in the root: empty folders of overlay2's, and the cache of builds, which names layers that
    /// overlay2 does not have.
    pub aside: Vec<PathBuf>,
}

/// Where in dmpool's directory what was in the way is kept.
const ASIDE: &str = "aside";
/// What a Docker that nobody used has made in the place of what was set aside is called, with a number.
const SINCE: &str = "since";

impl PlaceLayers {
    /// What is set aside, and where.
    fn set_aside(&self) -> Vec<(PathBuf, PathBuf)> {
        let aside = self.aside.iter().enumerate();
        aside.map(|(number, name)| (self.root.join(name), self.to.join(ASIDE).join(number.to_string()))).collect()
    }

    /// What is put in its place, and where that is.
    fn placed(&self) -> [(PathBuf, PathBuf); 2] {
        let name = Driver::Overlay2.name();
        [
            (self.to.join(overlay2::LAYERS), self.root.join(name)),
            (self.to.join(overlay2::IMAGE), self.root.join("image").join(name)),
        ]
    }

    fn apply_renames(&self) -> Result<()> {
        for (from, to) in self.set_aside() {
            // What is in its old place then is what was put there since.
            if !is_there(&to) {
                rename(&from, &to)?;
            }
        }
        self.placed().iter().try_for_each(|(from, to)| rename(from, to))
    }

    fn revert_renames(&self) -> Result<()> {
        for (from, to) in self.placed().into_iter().rev() {
            if is_there(&to) && !is_there(&from) {
                rename(&to, &from)?;
            }
        }
        for (from, to) in self.set_aside().into_iter().rev() {
            if !is_there(&to) {
                continue;
            }
            if is_there(&from) {
                let mut since = (0..u64::MAX).map(|number| self.to.join(format!("{SINCE}-{number}")));
                let since = since.find(|path| !is_there(path)).context("no name is free")?;
                rename(&from, &since)?;
            }
            rename(&to, &from)?;
        }
        Ok(())
    }
}

fn is_there(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

/// Renames what has not been renamed yet; never over anything.
fn rename(from: &Path, to: &Path) -> Result<()> {
    match (is_there(from), is_there(to)) {
        (true, false) => {
            fs::rename(from, to).with_context(|| format!("renaming {} to {}", from.display(), to.display()))?;
        }
        (false, true) => {}
        (true, true) => bail!("{} is there already, and so is {}", to.display(), from.display()),
        (false, false) => bail!("neither {} nor {} is there", from.display(), to.display()),
    }
    [from, to].into_iter().filter_map(Path::parent).try_for_each(sync_dir)
}

impl Act for PlaceLayers {
    fn sentence(&self) -> String {
        let root = self.root.display();
        let aside: Vec<String> = self.aside.iter().map(|name| name.display().to_string()).collect();
        let also = if aside.is_empty() { String::new() } else { format!("; {} set aside", aside.join(", ")) };
        format!("rename what was copied to overlay2 and image/overlay2 in {root}{also}")
    }

    fn lasts(&self) -> bool {
        true
    }

    fn way_back(&self) -> WayBack {
        WayBack::By("renamed back")
    }

    fn apply(&self, _: &Kit, _: Attempt) -> Result<()> {
        self.hold.still_stands()?;
        make_dir_durably(&self.to.join(ASIDE), 0o700)?;
        self.apply_renames()
    }

    fn is_one_thing(&self) -> bool {
        false
    }

    fn verify(&self, _: &Kit) -> Result<()> {
        for (_, to) in self.set_aside() {
            ensure!(is_there(&to), "{} is not there", to.display());
        }
        for (from, to) in self.placed() {
            ensure!(to.is_dir(), "{} is not there", to.display());
            ensure!(!is_there(&from), "{} is still there", from.display());
        }
        Ok(())
    }

    fn revert(&self, _: &Kit) -> Result<Reverted> {
        self.revert_renames()?;
        remove_dir_durably(&self.to.join(ASIDE))?;
        Ok(Reverted::Gone)
    }
}

/// Has the configuration of every container of devicemapper's name overlay2.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetDriver {
    /// Docker's root.
    pub root: PathBuf,
    /// dmpool's directory in it.
    pub to: PathBuf,
    /// What keeps Docker from starting.
    pub hold: Hold,
    /// How many containers there were when the plan was made.
    pub containers: usize,
}

/// Which containers these are.
const CONTAINERS_LIST: &str = "containers.json";

impl SetDriver {
    fn path(&self, container: &str) -> Result<PathBuf> {
        ensure!(is_id(container), "`{container}` is no container's id");
        Ok(self.root.join(CONTAINERS).join(container).join("config.v2.json"))
    }

    /// Returns those that were written, or are to be; nothing before it was begun.
    fn listed(&self) -> Result<Option<Vec<String>>> {
        let bytes = read_limited(&self.to.join(CONTAINERS_LIST), LONGEST)?;
        Ok(bytes.map(|bytes| serde_json::from_slice(&bytes)).transpose()?)
    }

    fn text(path: &Path) -> Result<String> {
        let bytes = read_limited(path, LONGEST)?.with_context(|| format!("{} is not there", path.display()))?;
        String::from_utf8(bytes).with_context(|| format!("{} is no text", path.display()))
    }

    fn write(&self, containers: &[String], driver: Driver) -> Result<()> {
        for container in containers {
            let path = self.path(container)?;
            let text = Self::text(&path)?;
            let other = overlay2::with_driver(&text, driver.name())?;
            if other != text {
                write_alike(&path, other.as_bytes(), &path, 0o600)?;
            }
        }
        Ok(())
    }
}

impl Act for SetDriver {
    fn sentence(&self) -> String {
        let count = self.containers;
        format!(
            "write overlay2 as the storage driver into the configuration of {count} containers, and change nothing else there"
        )
    }

    fn lasts(&self) -> bool {
        true
    }

    fn way_back(&self) -> WayBack {
        WayBack::By("written back")
    }

    fn apply(&self, _: &Kit, _: Attempt) -> Result<()> {
        self.hold.still_stands()?;
        let containers = match self.listed()? {
            Some(containers) => containers,
            None => {
                let containers = overlay2::containers(&self.root)?;
                write_replace(&self.to.join(CONTAINERS_LIST), &serde_json::to_vec(&containers)?, 0o600)?;
                containers
            }
        };
        self.write(&containers, Driver::Overlay2)
    }

    fn is_one_thing(&self) -> bool {
        false
    }

    fn verify(&self, _: &Kit) -> Result<()> {
        for container in self.listed()?.context("it was not begun")? {
            let path = self.path(&container)?;
            // A container may be gone once Docker has run.
            if !path.exists() {
                continue;
            }
            let text = Self::text(&path)?;
            ensure!(overlay2::with_driver(&text, Driver::Overlay2.name())? == text, "{} names another", path.display());
        }
        Ok(())
    }

    fn revert(&self, _: &Kit) -> Result<Reverted> {
        let Some(containers) = self.listed()? else { return Ok(Reverted::Gone) };
        self.write(&containers, Driver::Devicemapper)?;
        remove_durably(&self.to.join(CONTAINERS_LIST))?;
        Ok(Reverted::Gone)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    /// What is below a root, each directory by the name of the file in it.
    fn picture(root: &Path) -> Vec<String> {
        let mut found = Vec::new();
        for name in ["overlay2", "image/overlay2", "buildkit", "to/overlay2", "to/image"] {
            let inside = fs::read_dir(root.join(name)).into_iter().flatten().flatten().map(|entry| entry.file_name());
            found.extend(inside.map(|file| format!("{name}: {}", file.display())));
        }
        found
    }

    fn make(root: &Path, name: &str, file: &str) {
        fs::create_dir_all(root.join(name)).unwrap();
        fs::write(root.join(name).join(file), "").unwrap();
    }

    fn hold(root: &Path) -> Hold {
        Hold {
            root: root.into(),
            records: root.into(),
            sign: root.into(),
            files: vec![],
            drop_ins: vec![],
            sockets: vec![],
        }
    }

    #[test]
    fn a_copy_made_anew_is_not_the_one_that_was_compared_and_a_placed_one_is_not_made_anew() {
        let temp = tempfile::tempdir().unwrap();
        let (root, to) = (temp.path().join("root"), temp.path().join("root/to"));
        let metadata = root.join("devicemapper/metadata");
        fs::create_dir_all(&metadata).unwrap();
        let now = || Copied { records: overlay2::records(&temp.path().join("root")).unwrap(), layers: 0 };
        let copy = CopyLayers {
            root,
            to: to.clone(),
            hold: hold(temp.path()),
            layers: 0,
            size: Bytes::default(),
            old: None,
            room: Bytes::default(),
        };
        let begun = now();
        copy.begin(&begun).unwrap();
        copy.is_of_now(&begun).unwrap();
        fs::write(to.join(COMPARED), "").unwrap();
        fs::write(metadata.join("base"), "{}").unwrap();
        copy.is_of_now(&begun).unwrap_err();
        copy.begin(&now()).unwrap();
        assert!(!is_there(&to.join(COMPARED)));
        fs::create_dir(to.join(ASIDE)).unwrap();
        fs::write(metadata.join("base"), "").unwrap();
        copy.begin(&now()).unwrap_err();
        assert!(is_there(&to.join(COPIED)));
    }

    #[test]
    fn what_is_placed_goes_on_after_a_death_and_comes_back_whatever_docker_made_since() {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path();
        make(root, "buildkit", "old");
        make(root, "overlay2", "empty");
        make(root, "to/overlay2", "layers");
        make(root, "to/image", "database");
        fs::create_dir_all(root.join("image")).unwrap();
        fs::create_dir(root.join("to/aside")).unwrap();
        let before = picture(root);
        let hold = hold(root);
        let aside = vec!["overlay2".into(), "buildkit".into()];
        let step = PlaceLayers { root: root.into(), to: root.join("to"), hold, aside };
        // Each rename may be the last before a death.
        for done in 0..=4 {
            let all = step.set_aside().into_iter().chain(step.placed());
            all.take(done).for_each(|(from, to)| rename(&from, &to).unwrap());
            step.apply_renames().unwrap();
            let placed = ["overlay2: layers", "image/overlay2: database"];
            assert_eq!(picture(root), placed, "{done}");
            make(root, "buildkit", "new");
            step.apply_renames().unwrap();
            step.revert_renames().unwrap();
            assert_eq!(picture(root), before, "{done}");
            step.revert_renames().unwrap();
            assert!(root.join(format!("to/since-{done}/new")).exists());
        }
    }
}
