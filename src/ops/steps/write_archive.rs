//! The step that writes a Docker root to an archive, while Docker is held.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::error::Failure;
use crate::kernel::fs as durable;
use crate::ops::State;
use crate::ops::contents::archive::{Output, Remark, Writer};
use crate::ops::contents::source::Reach;
use crate::ops::rescue;
use crate::ops::root_archive::{Contents, Options, Told, Unsaved, save};
use crate::ops::steps::{Act, Attempt, FileId, Hold, KeepRecords, Kit, Reverted, WayBack};
use crate::units::Bytes;

/// What was written, in the folder of the records.
const WRITTEN: &str = "archive.json";
const LONGEST: Bytes = Bytes::new(256 << 20);
/// How many remarks of one kind are kept.
const MOST: usize = 1000;

/// Writes an archive of a whole Docker root. What is not whole has another name beside it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WriteArchive {
    /// What keeps Docker from starting.
    pub hold: Hold,
    /// What is saved.
    pub options: Options,
    /// The archive.
    pub file: PathBuf,
    /// Its name until it is whole.
    pub unfinished: PathBuf,
    /// How large it is, about.
    pub size: Bytes,
    /// Whether some containers have changed what could not be measured, and is not in that.
    #[serde(default)]
    pub is_more: bool,
}

/// An archive that was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Written {
    /// Which file it is.
    pub id: FileId,
    /// What is in it.
    pub contents: Contents,
    /// What could not be read, each a sentence.
    pub lost: Vec<String>,
    /// What else is to be known, each a sentence.
    pub notes: Vec<String>,
}

impl Written {
    fn add(&mut self, remark: &Remark) {
        let to = if matches!(remark, Remark::Lost(_)) { &mut self.lost } else { &mut self.notes };
        match to.len() {
            ..MOST => to.push(remark.to_string()),
            MOST => to.push("and more".to_owned()),
            _ => {}
        }
    }
}

/// Returns a failure with all that bears on it, for who prints the chain of causes alone.
fn whole(failure: Failure) -> anyhow::Error {
    let facts = failure.facts.iter().filter(|fact| fact.label != "state");
    let facts: Vec<_> = facts.map(|fact| format!("{}: {}", fact.label, fact.value)).collect();
    if facts.is_empty() {
        return failure.into();
    }
    let what = format!("{} ({})", failure.what, facts.join("; "));
    match failure.source {
        Some(source) => source.context(what),
        None => anyhow::anyhow!(what),
    }
}

impl WriteArchive {
    /// Returns what was written; nothing when it was not, or that is not kept any more.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn written(&self) -> Result<Option<Written>> {
        let path = self.hold.records.join(WRITTEN);
        let Some(bytes) = durable::read_limited(&path, LONGEST)? else { return Ok(None) };
        serde_json::from_slice(&bytes).map(Some).with_context(|| format!("reading {}", path.display()))
    }

    fn write(&self, kit: &Kit) -> Result<Written> {
        let state = State { docker_root: Some(self.hold.root.clone()), ..kit.state.clone() };
        let objects = rescue::open(&state).map_err(whole)?;
        let reach = Reach { state, ..Reach::default() };
        let firewall = KeepRecords::docker(&self.hold.records)?.map(|kept| kept.firewall);
        let save = save(objects, &reach, &self.options).map_err(whole)?.with_told(Told::before(&self.hold, firewall));
        let mut output = Output::begin_as(&self.file, self.unfinished.clone()).map_err(whole)?;
        let (mut lost, mut notes) = (Vec::new(), Vec::new());
        let mut writer = Writer::new(&mut output);
        let said = &mut |remark: Remark| match remark {
            Remark::Lost(_) => lost.push(remark),
            _ => notes.push(remark),
        };
        let saved = save.write(&mut writer, &kit.watcher, said);
        match saved.and_then(|()| Ok(writer.finish()?)) {
            Ok(()) => {
                // An older archive goes for this one: not for one that somebody's Docker was writing under.
                self.hold.still_stands()?;
                let used = self.hold.used_past()?;
                ensure!(used.is_empty(), "somebody has started Docker while it was held ({})", used.join(", "));
                output.finish().map_err(whole)?;
            }
            Err(Unsaved::Output(e)) => return Err(whole(output.broken(&e))),
            Err(Unsaved::Source(failure)) => return Err(whole(failure)),
        }
        let id = FileId::of(&self.file)?;
        let mut written = Written { id, contents: save.contents().clone(), lost: Vec::new(), notes: Vec::new() };
        lost.iter().chain(&notes).for_each(|remark| written.add(remark));
        Ok(written)
    }
}

impl Act for WriteArchive {
    fn sentence(&self) -> String {
        let (file, root) = (self.file.display(), self.hold.root.display());
        let more = if self.is_more { ", and what else containers have changed" } else { "" };
        format!("write {file} from {root}: about {}{more}", self.size.human())
    }

    fn lasts(&self) -> bool {
        true
    }

    fn way_back(&self) -> WayBack {
        WayBack::By("half an archive is removed; a whole one stays")
    }

    fn apply(&self, kit: &Kit, _: Attempt) -> Result<()> {
        self.hold.still_stands()?;
        self.hold.note_root()?;
        // Of a death before: the journal is the only one that has this name.
        durable::remove_durably(&self.unfinished)?;
        let written = serde_json::to_vec(&self.write(kit)?)?;
        durable::write_replace(&self.hold.records.join(WRITTEN), &written, 0o600)?;
        self.hold.still_stands()
    }

    fn is_one_thing(&self) -> bool {
        false
    }

    fn verify(&self, _: &Kit) -> Result<()> {
        if self.hold.was_dropped() {
            return Ok(());
        }
        let written = self.written()?.with_context(|| format!("{} was not written", self.file.display()))?;
        ensure!(written.id.is_at(&self.file), "{} is not what was written", self.file.display());
        Ok(())
    }

    fn revert(&self, kit: &Kit) -> Result<Reverted> {
        let folder = self.unfinished.parent().unwrap_or(Path::new("/"));
        if folder.is_dir() {
            durable::remove_durably(&self.unfinished)?;
        }
        if self.written()?.is_some_and(|written| written.id.is_at(&self.file)) {
            kit.say(format!("{} is whole, and stays", self.file.display()));
        }
        Ok(Reverted::Gone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn why_it_was_not_written_is_told_with_what_was_found() {
        let failure =
            Failure::failed("cannot save it").fact("found", "a").fact("found", "b").fact("state", "as it was");
        let told = whole(failure.because(anyhow::anyhow!("EIO")));
        assert_eq!(format!("{told:#}"), "cannot save it (found: a; found: b): EIO");
    }

    #[test]
    fn no_more_remarks_are_kept_than_somebody_reads() {
        let id =
            FileId { boot: String::new(), device: 0, inode: 0, length: Bytes::default(), born: None, directory: 0 };
        let contents = Contents::of("/d".into(), "overlay2".to_owned());
        let mut written = Written { id, contents, lost: Vec::new(), notes: Vec::new() };
        (0..2 * MOST).for_each(|_| written.add(&Remark::Socket("s".into())));
        assert_eq!((written.notes.len(), written.lost.len()), (MOST + 1, 0));
    }
}
