//! The steps that write a pool's volumes into another pool, read them back, and give that pool the old one's transaction id. Docker
//! is held meanwhile, and the old pool is never written.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::kernel::block;
use crate::kernel::dm::DmId;
use crate::kernel::fs::{FsFacts, write_replace};
use crate::metadata::Superblock;
use crate::ops::migrate::anew::{self, Anew};
use crate::ops::migrate::blocks::record::{self, Record};
use crate::ops::migrate::blocks::{Family, Mark, Origin, Source, Target, compare, fill, need};
use crate::ops::sight;
use crate::ops::steps::{Act, Attempt, Hold, InFiles, Kit, Reverted, Step, WayBack};
use crate::units::{BlockSize, Bytes};

/// What was compared, in the folder of the records.
const COMPARED: &str = "volumes-compared.json";
/// What a file system has left at most that gave no more: it keeps some for itself.
const FULL: Bytes = Bytes::new(16 << 20);

/// Which pool is written into which.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Carried {
    /// What keeps Docker from starting meanwhile.
    pub hold: Hold,
    /// The old pool.
    pub old: Origin,
    /// Where the folder of the old pool's files is afterwards, when these have Docker's own place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<Swap>,
    /// What brings the new pool up to be filled: metadata, data, pool.
    pub up: Vec<Step>,
    /// Its dm name.
    pub pool: String,
    /// Its dm uuid.
    pub uuid: String,
    /// The length of its blocks.
    pub block: BlockSize,
    /// The file with its metadata, when it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<PathBuf>,
    /// The folder of Docker's driver, when what was prepared there is gone on from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prepared: Option<PathBuf>,
    /// What every volume gets for a file system, when they are written by files and not by blocks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub anew: Option<Anew>,
    /// What is reserved in the new pool's files while they are filled; nothing in those that were prepared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub room: Option<InFiles>,
}

/// Two folders that change places.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Swap {
    /// Docker's own.
    pub folder: PathBuf,
    /// Where the old one goes.
    pub aside: PathBuf,
    /// Where the new one is made.
    pub made: PathBuf,
}

/// Writes every volume of the old pool into the new one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyVolumes {
    /// Which pools.
    pub carried: Carried,
    /// The folder and the files that are made for the new pool, when it has a place of Docker's.
    pub make: Vec<Step>,
}

/// Reads every volume of the new pool back and compares it with the old one's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyVolumes {
    /// Which pools.
    pub carried: Carried,
}

/// Gives the new pool the transaction id of the old one, by which Docker knows it: from then on it is that pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettleCopy {
    /// Which pools.
    pub carried: Carried,
}

impl Carried {
    fn target(&self) -> Target {
        Target { pool: self.pool.clone(), uuid: self.uuid.clone(), block: self.block }
    }

    /// Whether the folders have changed places.
    fn is_swapped(&self) -> bool {
        self.place.as_ref().is_some_and(|place| place.aside.symlink_metadata().is_ok())
    }

    /// Returns where the old pool is now.
    fn old(&self) -> Origin {
        match (&self.old, &self.place) {
            (Origin::Parts { data, metadata }, Some(place)) if self.is_swapped() => {
                let moved = |path: &Path| {
                    path.strip_prefix(&place.folder).map_or_else(|_| path.to_owned(), |name| place.aside.join(name))
                };
                Origin::Parts { data: moved(data), metadata: moved(metadata) }
            }
            (old, _) => old.clone(),
        }
    }

    /// Returns what is reserved in the new pool's files: as planned, or what a copy by blocks needs at most by now.
    fn in_files(&self, source: &Source, family: &Family) -> Result<Option<(InFiles, PathBuf)>> {
        let (Some(room), Some(metadata)) = (self.room, self.metadata_now()) else { return Ok(None) };
        let now = if self.anew.is_some() { room.data } else { need(&source.metadata, family, self.block)? };
        Ok(Some((InFiles { data: room.data.max(now), ..room }, metadata)))
    }

    /// Does something with the new pool up; it is down again afterwards.
    pub(super) fn with<T>(&self, kit: &Kit, act: impl FnOnce(&Target) -> Result<T>) -> Result<T> {
        self.hold.still_stands()?;
        with_pool(kit, &self.up, &self.target(), act)
    }

    pub(super) fn take_down(&self, kit: &Kit) -> Result<()> {
        take_down(kit, &self.up, &self.target())
    }

    /// Returns the file with the new pool's metadata, where that is now.
    fn metadata_now(&self) -> Option<PathBuf> {
        let path = self.metadata.as_ref()?;
        // Between the two renames the old one has left its place, and the new one has not got it.
        Some(match &self.place {
            Some(place) if path.symlink_metadata().is_err() => place.folder.join(path.file_name().unwrap_or_default()),
            _ => path.clone(),
        })
    }

    /// Fails unless the new pool has what it was given, and nothing that somebody has made in it since: the old one's transaction id,
    /// and where it can be read so, no volume but the old one's, or those of them that are made anew.
    pub(in crate::ops) fn is_as_settled(&self, kit: &Kit) -> Result<()> {
        let old = Source::open(&kit.dm, &self.old())?.metadata;
        let (now, was) = (self.superblock(kit)?.transaction_id, old.superblock.transaction_id);
        ensure!(now == was, "`{}` has the transaction id {now}, and was given {was}", self.pool);
        let files =
            self.metadata_now().map(|metadata| Origin::Parts { data: metadata.with_file_name("data"), metadata });
        let new = match files {
            None if sight::live(&kit.dm, &self.pool)?.is_some() => Some(Origin::Pool(self.pool.clone())),
            files => files,
        };
        let Some(new) = new else { return Ok(()) };
        let [new, old] = [Source::open(&kit.dm, &new)?.metadata.details()?, old.details()?];
        let given: BTreeSet<u64> = match &self.anew {
            Some(anew) => anew.ids(&old)?,
            None => old.into_keys().collect(),
        };
        ensure!(new.keys().eq(&given), "`{}` has {} volumes, and was given {}", self.pool, new.len(), given.len());
        Ok(())
    }

    /// Returns the superblock of the new pool, whoever has it up.
    pub(super) fn superblock(&self, kit: &Kit) -> Result<Superblock> {
        let context = || format!("reading the superblock of `{}`", self.pool);
        if let Some(path) = self.metadata_now() {
            return sight::superblock_in(&path)?.with_context(context);
        }
        let Some(step) = self.up.first() else { bail!("nothing says what `{}` lies on", self.pool) };
        let Step::MapDevices(map) = step else { bail!("nothing says where the metadata of `{}` is", self.pool) };
        let is_up = kit.dm.info(&DmId::name(&map.name))?.is_some_and(|info| info.live_table);
        if !is_up {
            step.act().apply(kit, Attempt::Again)?;
        }
        let read = || -> Result<Superblock> {
            let info = kit.dm.info(&DmId::name(&map.name))?.context("looking for the metadata's device")?;
            let file = block::open_direct(info.devno)?;
            Ok(Superblock::parse(&block::read_direct(&file, 0, crate::metadata::BLOCK)?)?)
        };
        let superblock = read().with_context(context);
        if !is_up {
            step.act().revert(kit)?;
        }
        superblock
    }

    /// Looks whether every volume is whole in the new pool, and whether the old one is what it was then.
    fn is_whole(&self, kit: &Kit) -> Result<()> {
        let now = self.superblock(kit)?.transaction_id;
        let source = Source::open(&kit.dm, &self.old())?;
        let old = &source.metadata.superblock;
        let Some(mark) = Mark::of(now) else {
            ensure!(
                now >= old.transaction_id,
                "`{}` has the transaction id {now}, and the old pool {}",
                self.pool,
                old.transaction_id
            );
            return Ok(());
        };
        ensure!(mark.seal == source.metadata.seal, "somebody has written to the old pool since it was copied");
        let details = source.metadata.details()?;
        let all = match &self.anew {
            Some(anew) => anew.ids(&details)?.len(),
            None => details.len(),
        };
        ensure!(usize::try_from(mark.whole)? == all, "{} of {all} volumes are whole in the copy", mark.whole);
        Ok(())
    }
}

/// Does something with a pool that `up` brings up; it is down again afterwards.
///
/// # Errors
/// When it cannot be brought up or taken down; what `act` failed with.
pub(in crate::ops) fn with_pool<T>(
    kit: &Kit,
    up: &[Step],
    target: &Target,
    act: impl FnOnce(&Target) -> Result<T>,
) -> Result<T> {
    take_down(kit, up, target)?;
    let bring_up = || up.iter().try_for_each(|step| step.act().apply(kit, Attempt::Again));
    let done = bring_up().and_then(|()| act(target));
    let down = take_down(kit, up, target);
    let done = done?;
    down?;
    Ok(done)
}

/// Takes such a pool down, with what a death has left of it.
///
/// # Errors
/// When a device is in use, or somebody else's.
pub(in crate::ops) fn take_down(kit: &Kit, up: &[Step], target: &Target) -> Result<()> {
    target.sweep(kit)?;
    up.iter().rev().try_for_each(|step| step.act().revert(kit).map(drop))
}

impl CopyVolumes {
    fn copy(&self, kit: &Kit) -> Result<()> {
        self.carried.hold.still_stands()?;
        // What is written beside the copy has room, too.
        kit.room.draw(0);
        self.carried.hold.note_root()?;
        if self.carried.prepared.is_none() {
            self.make.iter().try_for_each(|step| step.act().apply(kit, Attempt::Again))?;
        }
        let source = Source::idle(&kit.dm, &self.carried.old)?;
        let family = Family::look(&self.carried.hold.root, &source.metadata.details()?)?;
        let reserve = || match self.carried.in_files(&source, &family)? {
            Some((room, metadata)) => room.take(kit, &metadata),
            None => Ok(()),
        };
        if let Some(home) = &self.carried.prepared {
            // A death in the preparing may have left it up.
            self.carried.take_down(kit)?;
            let opened = record::take(kit, home, &self.carried.old, &source)?;
            // Blocks that files get from outside change the stamps by which they are known, and discards take them again.
            kit.room.give_up();
            self.carried.with(kit, |target| record::fill_prepared(kit, &source, &family, target, &opened))?;
        } else if let Some(anew) = &self.carried.anew {
            let root = &self.carried.hold.root;
            reserve()?;
            self.carried.with(kit, |target| anew::fill(kit, root, &source, &family, target, anew))?;
        } else {
            reserve()?;
            self.carried.with(kit, |target| fill(kit, &source, &family, target))?;
        }
        is_unchanged(kit, &self.carried, source.metadata.seal)
    }

    /// The kernel says `EIO` of a loop device whose file gets no more blocks: what it lacks only its file system tells.
    fn with_room(&self, why: anyhow::Error) -> anyhow::Error {
        let folder = self.carried.metadata.as_ref().and_then(|file| file.parent());
        match folder.map(FsFacts::of) {
            Some(Ok(fs)) if fs.available < FULL => why.context(format!(
                "the file system at {} is full ({} left)",
                fs.mount_point.display(),
                fs.available.human()
            )),
            _ => why,
        }
    }
}

/// A pool that is up may still have written what it had in hand.
fn is_unchanged(kit: &Kit, carried: &Carried, seal: u32) -> Result<()> {
    let now = Source::idle(&kit.dm, &carried.old)?;
    ensure!(now.metadata.seal == seal, "somebody has written to the old pool while it was read");
    Ok(())
}

impl Act for CopyVolumes {
    fn sentence(&self) -> String {
        let made: Vec<_> = self.make.iter().map(|step| step.act().sentence()).collect();
        let mut copy = format!(
            "write every volume of the old pool into the new one, in blocks of {}",
            self.carried.block.bytes().human()
        );
        if let Some(anew) = &self.carried.anew {
            copy = format!("make every volume of the old pool in the new one: {}", anew.sentence());
        }
        if self.carried.prepared.is_some() {
            return format!("{copy}: what has changed since it was prepared");
        }
        if made.is_empty() { copy } else { format!("{}; {copy}", made.join("; ")) }
    }

    fn brief(&self) -> String {
        let copy = match (&self.carried.anew, &self.carried.prepared) {
            (Some(_), _) => "make every volume anew in the new pool",
            (None, Some(_)) => "copy into the new pool what has changed since it was prepared",
            (None, None) => "copy every volume into the new pool",
        };
        copy.to_owned()
    }

    fn lasts(&self) -> bool {
        true
    }

    fn way_back(&self) -> WayBack {
        WayBack::By("the copy is given up; the old pool was only read")
    }

    fn apply(&self, kit: &Kit, _: Attempt) -> Result<()> {
        let copied = self.copy(kit).map_err(|why| self.with_room(why));
        kit.room.give_up();
        copied
    }

    fn is_one_thing(&self) -> bool {
        false
    }

    fn verify(&self, kit: &Kit) -> Result<()> {
        self.carried.is_whole(kit)
    }

    fn revert(&self, kit: &Kit) -> Result<Reverted> {
        self.carried.take_down(kit)?;
        if let Some(home) = &self.carried.prepared {
            // What nothing was written to stays prepared.
            let record = Record::read(home).ok().flatten();
            if let Some(record) = record {
                let is_untouched = !record.is_taken()
                    || self
                        .carried
                        .superblock(kit)
                        .and_then(|now| {
                            let traces = record.traces(&kit.dm, home)?;
                            record::give_back(home, record, now.transaction_id, traces)
                        })
                        .unwrap_or(false);
                if is_untouched {
                    return Ok(Reverted::Gone);
                }
            }
            Record::end(home)?;
        }
        for step in self.make.iter().rev() {
            match step.act().revert(kit)? {
                Reverted::Gone => {}
                stays => return Ok(stays),
            }
        }
        Ok(Reverted::Gone)
    }
}

impl Act for VerifyVolumes {
    fn sentence(&self) -> String {
        match self.carried.prepared {
            None if self.carried.anew.is_some() => {
                "read every file of the new pool's volumes back, and compare it with the old one's, with all its attributes".to_owned()
            }
            Some(_) => {
                "read back what was copied since the pool was prepared, and compare it with the old one".to_owned()
            }
            None => "read every volume of the new pool back, and compare it with the old one's".to_owned(),
        }
    }

    fn lasts(&self) -> bool {
        true
    }

    fn way_back(&self) -> WayBack {
        WayBack::By("nothing was changed")
    }

    fn apply(&self, kit: &Kit, _: Attempt) -> Result<()> {
        let source = Source::idle(&kit.dm, &self.carried.old)?;
        let family = Family::look(&self.carried.hold.root, &source.metadata.details()?)?;
        let read = self.carried.with(kit, |target| {
            let mark = Mark::of(target.transaction(kit)?);
            ensure!(
                mark.is_some_and(|mark| mark.seal == source.metadata.seal),
                "the copy is of another state of the old pool"
            );
            match (&self.carried.prepared, &self.carried.anew) {
                (Some(home), _) => {
                    let opened = record::take(kit, home, &self.carried.old, &source)?;
                    record::compare_prepared(kit, &source, &family, target, &opened).map(Some)
                }
                (None, Some(anew)) => {
                    anew::compare(kit, &self.carried.hold.root, &source, &family, target, anew)?;
                    Ok(None)
                }
                (None, None) => compare(kit, &source, &family, target).map(Some),
            }
        })?;
        let report = json!({
            "format": 1,
            "volumes": family.members.len(),
            "by": if read.is_some() { "blocks" } else { "files" },
            "bytes_compared": read.map(Bytes::get),
            "only_since_prepared": self.carried.prepared.is_some(),
            "differences": [],
        });
        write_replace(&self.carried.hold.records.join(COMPARED), &serde_json::to_vec_pretty(&report)?, 0o600)
    }

    fn is_one_thing(&self) -> bool {
        false
    }

    fn verify(&self, kit: &Kit) -> Result<()> {
        self.carried.is_whole(kit)
    }

    fn revert(&self, kit: &Kit) -> Result<Reverted> {
        self.carried.take_down(kit)?;
        Ok(Reverted::Gone)
    }
}

impl SettleCopy {
    fn settle(&self, kit: &Kit) -> Result<()> {
        let source = Source::idle(&kit.dm, &self.carried.old())?;
        let wanted = source.metadata.superblock.transaction_id;
        self.carried.with(kit, |target| {
            let now = target.transaction(kit)?;
            match Mark::of(now) {
                Some(mark) => {
                    ensure!(
                        mark.seal == source.metadata.seal,
                        "somebody has written to the old pool since it was copied"
                    );
                    target.set_transaction(kit, wanted)
                }
                None => {
                    ensure!(now == wanted, "`{}` has the transaction id {now}, not {wanted}", self.carried.pool);
                    Ok(())
                }
            }
        })?;
        let family = Family::look(&self.carried.hold.root, &source.metadata.details()?)?;
        if let Some((room, metadata)) = self.carried.in_files(&source, &family)? {
            room.give_back(kit, &metadata)?;
        }
        self.carried.prepared.as_deref().map_or(Ok(()), Record::end)
    }
}

impl Act for SettleCopy {
    fn sentence(&self) -> String {
        format!("give {} the transaction id of the old pool, by which Docker knows it", self.carried.pool)
    }

    fn lasts(&self) -> bool {
        true
    }

    fn way_back(&self) -> WayBack {
        WayBack::By("given up with the copy")
    }

    fn apply(&self, kit: &Kit, _: Attempt) -> Result<()> {
        self.settle(kit)
    }

    fn is_one_thing(&self) -> bool {
        false
    }

    fn verify(&self, kit: &Kit) -> Result<()> {
        let now = self.carried.superblock(kit)?.transaction_id;
        ensure!(Mark::of(now).is_none(), "`{}` is not settled yet", self.carried.pool);
        Ok(())
    }

    fn revert(&self, kit: &Kit) -> Result<Reverted> {
        self.carried.take_down(kit)?;
        Ok(Reverted::Gone)
    }
}
