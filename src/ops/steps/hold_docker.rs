//! The steps between which nobody can start Docker.
//!
//! Three things keep it from starting, since nobody knows who tries: a condition in its systemd units, a word in the files
//! that any daemon reads first, and each step in between looks for a daemon all the same.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use super::configure::{is_systemd, systemctl};
use crate::engine::configure::hold::{KEY, is_held};
use crate::kernel::fs as durable;
use crate::ops::daemon::{nobody_runs_on, units, used};
use crate::ops::steps::{Act, Attempt, Kit, Reverted, Rewrite, WayBack};
use crate::units::Bytes;

/// No configuration that is written is longer.
const LONGEST: Bytes = Bytes::new(1 << 20);
/// What a root looked like when it was let go.
pub(super) const MARKS: &str = "before-the-start.json";
/// What it looked like while it was held, before anything of it was changed.
const HELD_MARKS: &str = "while-it-is-held.json";
/// The file that says that Docker has answered since.
const ANSWERED: &str = "docker-has-answered";

/// A `daemon.json` that is held.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldFile {
    /// The file, free of symbolic links.
    pub path: PathBuf,
    /// What it says; nothing when it is not there.
    pub before: Option<String>,
    /// The same with the hold in it.
    pub held: String,
    /// What it shall say afterwards; nothing when it shall not be there.
    pub after: Option<String>,
    /// Where what it says is kept, when it shall say something else afterwards.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup: Option<PathBuf>,
}

/// The hold on the Docker of one root.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// The root.
    pub root: PathBuf,
    /// The folder of the records, where it is kept what the root looked like when the hold was dropped.
    pub records: PathBuf,
    /// The file whose being there is the condition, of this hold alone: `/var/lib/dmpool/hold/docker-TIME`.
    pub sign: PathBuf,
    /// What any daemon reads that is started.
    pub files: Vec<HeldFile>,
    /// Drop-ins of systemd units.
    pub drop_ins: Vec<PathBuf>,
    /// The sockets of systemd's that are open while Docker is down: who connects would start it in vain, until systemd gives them up.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sockets: Vec<String>,
}

/// Keeps Docker from starting, whoever tries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoldDocker {
    /// What is held.
    pub hold: Hold,
}

/// Lets Docker start again, told what it shall be told from then on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DropHold {
    /// What was held.
    pub hold: Hold,
}

#[cfg(test)]
impl Hold {
    /// Returns one of the root `/d` that keeps nobody from anything.
    pub(crate) fn of_nothing() -> Self {
        Self {
            root: "/d".into(),
            records: "/r".into(),
            sign: "/s".into(),
            files: Vec::new(),
            drop_ins: Vec::new(),
            sockets: Vec::new(),
        }
    }
}

impl Hold {
    /// Returns whether it was dropped as planned: what stood before it stands no more, and has served. Who is asked whether a
    /// step before it was done asks this first.
    pub fn was_dropped(&self) -> bool {
        self.marks().exists()
    }

    /// Returns where it is written what the root looked like when it was dropped.
    pub fn marks(&self) -> PathBuf {
        self.records.join(MARKS)
    }

    /// Returns whether it is not dropped, or not wholly.
    pub fn is_held(&self) -> bool {
        self.sign.exists()
    }

    /// Returns a file that was written when the hold was dropped and says something else since; nothing when each says that.
    ///
    /// # Errors
    /// When one cannot be read.
    pub fn changed_since(&self) -> Result<Option<&Path>> {
        for file in self.files.iter().filter(|file| file.after != file.before) {
            if text_of(&file.path)? != file.after {
                return Ok(Some(&file.path));
            }
        }
        Ok(None)
    }

    /// Returns what shows that the root was used since the hold was dropped, each with what it is.
    ///
    /// # Errors
    /// When the marks, or the root, cannot be read.
    pub fn used_since(&self) -> Result<Vec<String>> {
        used_since(&self.records, &self.root)
    }

    /// Writes down what the root looks like while nobody should use it.
    pub(super) fn note_root(&self) -> Result<()> {
        durable::make_dir_durably(&self.records, 0o700)?;
        let marks = serde_json::to_vec(&used::look(&self.root))?;
        durable::write_replace(&self.records.join(HELD_MARKS), &marks, 0o600)
    }

    /// Returns what shows that a Docker was started past the hold since the root was noted, each a few words; nothing when that was never
    /// written. What a migration adds to the root shows nothing.
    ///
    /// # Errors
    /// When what it looked like then cannot be read.
    pub fn used_past(&self) -> Result<Vec<String>> {
        let Some(before) = marks_in(&self.records.join(HELD_MARKS))? else { return Ok(Vec::new()) };
        let found = used::differences(&before, &used::look(&self.root));
        Ok(found.into_iter().filter(|name| before.contains_key(name)).collect())
    }

    /// Returns the sentence on a root that was used since; nothing when it was not.
    ///
    /// # Errors
    /// As [`Self::used_since`].
    pub(super) fn why_it_stands(&self) -> Result<Option<String>> {
        let used = self.used_since()?;
        let some = used.iter().take(3).map(String::as_str).collect::<Vec<_>>().join(", ");
        Ok((!used.is_empty()).then(|| {
            format!(
                "Docker has run on what was made ({some}): what was written there since would be lost on the way back"
            )
        }))
    }

    /// Writes down that Docker has answered since it was dropped: nobody knows what it was asked for.
    pub(super) fn has_served(&self) -> Result<()> {
        durable::write_replace(&self.records.join(ANSWERED), b"", 0o600)
    }

    /// Returns the sentence on a root of which nobody knows whether it was used since the hold was dropped.
    pub fn cannot_be_told(&self) -> String {
        let marks = self.marks();
        format!("whether Docker has run since on what was made cannot be told: {} is gone", marks.display())
    }

    /// Fails unless it is whole and no daemon runs on the root. Each step in between asks this before it does anything.
    ///
    /// # Errors
    /// With what is not as it was left, and what to do about it.
    pub fn still_stands(&self) -> Result<()> {
        ensure!(self.sign.exists(), "{} is gone, which kept Docker from starting", self.sign.display());
        for drop_in in &self.drop_ins {
            let says = self.drop_in();
            ensure!(text_of(drop_in)?.as_deref() == Some(&says), "somebody has changed {}", drop_in.display());
        }
        for file in &self.files {
            let path = file.path.display();
            ensure!(
                text_of(&file.path)?.as_deref() == Some(&file.held),
                "somebody has changed {path} while Docker was held (a configuration manager?): stop who writes it, and take \
                 that change back"
            );
        }
        nobody_runs_on(&self.root)
    }

    fn drop_in(&self) -> String {
        format!("# {KEY}\n[Unit]\nConditionPathExists=!{}\n", self.sign.display())
    }

    fn set(&self) -> Result<()> {
        let folder = self.sign.parent().unwrap_or(Path::new("/"));
        durable::make_dir_durably(folder, 0o755)?;
        durable::write_replace(&self.sign, format!("{KEY}\n").as_bytes(), 0o644)?;
        for drop_in in &self.drop_ins {
            let folder = drop_in.parent().unwrap_or(Path::new("/"));
            durable::make_dir_durably(folder, 0o755)?;
            durable::write_replace(drop_in, self.drop_in().as_bytes(), 0o644)?;
        }
        self.tell_systemd()?;
        units::stop(&self.sockets)
    }

    fn lift(&self) -> Result<()> {
        for drop_in in &self.drop_ins {
            durable::remove_durably(drop_in)?;
            let folder = drop_in.parent().unwrap_or(Path::new("/"));
            if folder.is_dir() && fs::read_dir(folder)?.next().is_none() {
                durable::remove_dir_durably(folder)?;
            }
        }
        self.tell_systemd()?;
        durable::remove_durably(&self.sign)?;
        let folder = self.sign.parent().unwrap_or(Path::new("/"));
        if folder.is_dir() && fs::read_dir(folder)?.next().is_none() {
            durable::remove_dir_durably(folder)?;
        }
        // Docker is down as it was; one that does not open keeps nothing from ending.
        let _ = units::queue(&self.sockets);
        Ok(())
    }

    fn let_go(&self) -> Result<()> {
        for file in &self.files {
            if let (Some(backup), Some(before)) = (&file.backup, &file.before) {
                durable::write_alike(backup, before.as_bytes(), &file.path, 0o644)?;
            }
            if let Some(left) = file.release(file.after.as_deref())? {
                bail!("{left}: Docker would not be told what it has to know");
            }
        }
        self.lift()
    }

    fn tell_systemd(&self) -> Result<()> {
        if self.drop_ins.is_empty() || !is_systemd() { Ok(()) } else { systemctl(&["daemon-reload"]) }
    }

    fn hold_files(&self) -> Result<()> {
        for file in &self.files {
            let says = text_of(&file.path)?;
            let path = file.path.display();
            if says.as_deref() == Some(&file.held) {
                continue;
            }
            ensure!(says == file.before, "{path} was changed since the plan was made");
            let folder = file.path.parent().unwrap_or(Path::new("/"));
            durable::make_dir_durably(folder, 0o755)?;
            durable::write_alike(&file.path, file.held.as_bytes(), &file.path, 0o644)?;
        }
        Ok(())
    }

    fn is_set(&self) -> Result<()> {
        ensure!(self.sign.exists(), "{} is not there", self.sign.display());
        for drop_in in &self.drop_ins {
            ensure!(text_of(drop_in)?.as_deref() == Some(&self.drop_in()), "{} is not there", drop_in.display());
        }
        for file in &self.files {
            let says = text_of(&file.path)?;
            ensure!(says.as_deref() == Some(&file.held), "{} does not have the hold in it", file.path.display());
        }
        Ok(())
    }
}

/// Returns whether Docker has answered since the hold was dropped whose records are in that folder. Traces of a start are more than that: such
/// a Docker may have ended at once.
pub fn has_answered(records: &Path) -> bool {
    records.is_absolute() && records.join(ANSWERED).exists()
}

/// Returns what shows that a root was used since the hold was dropped whose records are in that folder, each a few words; nothing
/// when nothing is written of what it looked like then: it was not dropped, or that is gone.
///
/// # Errors
/// When what it looked like then cannot be read.
fn used_since(records: &Path, root: &Path) -> Result<Vec<String>> {
    // A file copied into a container that does not run leaves no other trace in Docker's records.
    if has_answered(records) {
        return Ok(vec!["it has answered".to_owned()]);
    }
    let Some(before) = marks_in(&records.join(MARKS))? else { return Ok(Vec::new()) };
    Ok(used::differences(&before, &used::look(root)))
}

fn marks_in(path: &Path) -> Result<Option<used::Marks>> {
    let Some(bytes) = durable::read_limited(path, Bytes::new(64 << 20))? else { return Ok(None) };
    serde_json::from_slice(&bytes).map(Some).with_context(|| format!("reading {}", path.display()))
}

impl HeldFile {
    /// Takes the hold out of it, so that it says `text`. Returns what is left as it is, when somebody has changed it.
    fn release(&self, text: Option<&str>) -> Result<Option<String>> {
        let (says, path) = (text_of(&self.path)?, self.path.display());
        match says.as_deref() {
            says if says == text => Ok(None),
            Some(says) if says == self.held => {
                match text {
                    Some(text) => durable::write_alike(&self.path, text.as_bytes(), &self.path, 0o644)?,
                    None => durable::remove_durably(&self.path).map(drop)?,
                }
                Ok(None)
            }
            Some(says) if is_held(says) => {
                bail!("somebody has changed {path} while Docker was held: take the line `\"{KEY}\": true` out of it")
            }
            _ => Ok(Some(format!("{path} was changed while Docker was held, and stays as it is"))),
        }
    }
}

impl Act for HoldDocker {
    fn sentence(&self) -> String {
        let files: Vec<_> = self.hold.files.iter().map(|file| file.path.display().to_string()).collect();
        if files.is_empty() {
            return format!("see that no Docker runs on {}", self.hold.root.display());
        }
        let units = if self.hold.drop_ins.is_empty() { "" } else { ", and a condition in its units" };
        format!("keep Docker from starting: a word in {} that none takes{units}", files.join(" and "))
    }

    fn lasts(&self) -> bool {
        true
    }

    fn way_back(&self) -> WayBack {
        WayBack::By("Docker may start again, configured as it was")
    }

    fn apply(&self, _: &Kit, _: Attempt) -> Result<()> {
        self.hold.set()?;
        self.hold.hold_files()
    }

    fn is_one_thing(&self) -> bool {
        false
    }

    fn verify(&self, _: &Kit) -> Result<()> {
        if self.hold.was_dropped() { Ok(()) } else { self.hold.is_set() }
    }

    fn revert(&self, kit: &Kit) -> Result<Reverted> {
        for file in &self.hold.files {
            if let Some(left) = file.release(file.before.as_deref())? {
                kit.say(left);
            }
        }
        self.hold.lift()?;
        Ok(Reverted::Gone)
    }
}

impl Act for DropHold {
    fn sentence(&self) -> String {
        let changed: Vec<_> = self.hold.files.iter().filter(|file| file.after != file.before).collect();
        let written: Vec<_> = changed.iter().map(|file| file.path.display().to_string()).collect();
        match written.as_slice() {
            [] => "let Docker start again".to_owned(),
            written => format!("let Docker start again, with {} as it shall be", written.join(" and ")),
        }
    }

    fn lasts(&self) -> bool {
        true
    }

    fn way_back(&self) -> WayBack {
        WayBack::By("kept from starting again, unless Docker has run by then")
    }

    fn apply(&self, _: &Kit, attempt: Attempt) -> Result<()> {
        let marks = self.hold.marks();
        // Of an earlier attempt: Docker may have been started since.
        if attempt == Attempt::First || !marks.exists() {
            self.hold.still_stands()?;
            durable::make_dir_durably(&self.hold.records, 0o700)?;
            durable::write_replace(&marks, &serde_json::to_vec(&used::look(&self.hold.root))?, 0o600)?;
        }
        self.hold.let_go()
    }

    fn is_one_thing(&self) -> bool {
        false
    }

    fn verify(&self, _: &Kit) -> Result<()> {
        ensure!(!self.hold.sign.exists(), "{} is still there", self.hold.sign.display());
        // They say what they shall since it was dropped, and somebody may have changed them since.
        for file in &self.hold.files {
            let says = text_of(&file.path)?.unwrap_or_default();
            ensure!(!is_held(&says), "{} still has the hold in it", file.path.display());
        }
        Ok(())
    }

    fn revert(&self, _: &Kit) -> Result<Reverted> {
        if let Some(why) = self.hold.why_it_stands()? {
            return Ok(Reverted::Stands(why));
        }
        if !self.hold.was_dropped() && !self.hold.is_held() {
            return Ok(Reverted::Stands(self.hold.cannot_be_told()));
        }
        nobody_runs_on(&self.hold.root)?;
        self.hold.set()?;
        for file in &self.hold.files {
            // What somebody else has written is looked at when the hold is taken back.
            if text_of(&file.path)? == file.after {
                durable::write_alike(&file.path, file.held.as_bytes(), &file.path, 0o644)?;
            }
        }
        // One that began before the hold was there again may have been overlooked.
        nobody_runs_on(&self.hold.root)?;
        if let Some(why) = self.hold.why_it_stands()? {
            self.hold.let_go()?;
            return Ok(Reverted::Stands(why));
        }
        for backup in self.hold.files.iter().filter_map(|file| file.backup.as_ref()) {
            durable::remove_durably(backup)?;
        }
        durable::remove_durably(&self.hold.marks())?;
        Ok(Reverted::Gone)
    }

    fn stands(&self, _: &Kit) -> Result<bool> {
        Ok(!self.hold.used_since()?.is_empty())
    }

    fn rewrite(&self) -> Option<Rewrite<'_>> {
        let file = self.hold.files.iter().find(|file| file.after != file.before)?;
        Some(Rewrite {
            path: &file.path,
            before: file.before.as_deref().unwrap_or_default(),
            after: file.after.as_deref().unwrap_or_default(),
        })
    }
}

fn text_of(path: &Path) -> Result<Option<String>> {
    let bytes = durable::read_limited(path, LONGEST)?;
    Ok(bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
}
