//! Steps that have LVM make an LV longer: one beneath a pool, and a thin pool of LVM's own.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::kernel::block;
use crate::ops::lvm::{self, LogicalVolume};
use crate::ops::members;
use crate::ops::sight::{self, Live};
use crate::ops::steps::{Act, Attempt, Kit, Part, Reverted, WayBack};
use crate::pool::PoolUuid;
use crate::pool::label::DeviceUuid;
use crate::units::{Bytes, MAX_META_BLOCKS, Sectors};

/// Has LVM lengthen an LV that a pool lies on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExtendVolume {
    /// Which.
    pub volume: LogicalVolume,
    /// How long it is.
    pub from: Bytes,
    /// How long it shall be, in whole extents.
    pub to: Bytes,
    /// The pool that lies on it, by dm name.
    pub pool: String,
    /// Which part of the pool it carries.
    pub part: Part,
    /// How large that part of the pool is.
    pub part_size: Bytes,
    /// The file or device with the pool's metadata; of a pool with labels they say where that is.
    pub metadata: PathBuf,
    /// The pool and the device by its label, where it has one.
    pub label: Option<(PoolUuid, DeviceUuid)>,
}

/// Has LVM make a thin pool of its own larger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExtendThinPool {
    /// Which LV.
    pub volume: LogicalVolume,
    /// The pool's dm name.
    pub name: String,
    /// The device with its metadata: what the pool's lock is named by.
    pub metadata: PathBuf,
    /// Which part grows.
    pub part: Part,
    /// How large that part is.
    pub from: Bytes,
    /// How large it shall be, in whole extents.
    pub to: Bytes,
}

impl ExtendVolume {
    /// Returns what `lvextend` is told, for an LV of that name.
    pub fn arguments(&self, word: &str) -> [String; 3] {
        ["-L".to_owned(), format!("{}b", self.to.get()), word.to_owned()]
    }

    /// Returns why the LV has to stay as long as it is; nothing when neither pool nor label needs that.
    fn kept_by(&self, kit: &Kit) -> Result<Option<String>> {
        let live = sight::needed_by_live(&kit.dm, &self.pool, self.part)?;
        let assembly = match &self.label {
            Some((pool, _)) => Some(members::assembled(&kit.dm, pool)?),
            None => None,
        };
        let needed = match (live, &assembly) {
            (Some(needed), _) => needed,
            (None, Some(assembly)) => {
                let superblock = members::superblock(assembly)??;
                match self.part {
                    Part::Data => superblock.length().map(Sectors::bytes).unwrap_or(Bytes::new(u64::MAX)),
                    Part::Metadata => superblock.metadata_total.bytes(),
                }
            }
            (None, None) => sight::needed(&kit.dm, &self.pool, self.part, &self.metadata)?,
        };
        if needed > self.part_size {
            return Ok(Some("the pool uses it".to_owned()));
        }
        if let (Some((_, device)), Some(assembly)) = (&self.label, &assembly)
            && assembly.label.end_on(*device).bytes() > self.from
        {
            return Ok(Some("its label counts on it".to_owned()));
        }
        Ok(None)
    }
}

impl Act for ExtendVolume {
    fn sentence(&self) -> String {
        format!("extend the LV {} from {} to {} (lvextend)", self.volume.word(), self.from.human(), self.to.human())
    }

    fn lasts(&self) -> bool {
        true
    }

    fn way_back(&self) -> WayBack {
        WayBack::By("reduced (lvreduce), as long as superblock and pool have the old size")
    }

    fn apply(&self, _: &Kit, attempt: Attempt) -> Result<()> {
        let volume = lvm::still_there(&self.volume)?;
        if attempt == Attempt::Again && volume.size >= self.to {
            return Ok(());
        }
        ensure!(volume.size == self.from, "{} has {} by now", volume.of.word(), volume.size.exact());
        let args = self.arguments(&volume.of.word());
        Ok(lvm::change("lvextend", &args.each_ref().map(String::as_str))?)
    }

    fn verify(&self, _: &Kit) -> Result<()> {
        let volume = lvm::still_there(&self.volume)?;
        let length = block::size(block::devno_of(&lvm::path(&volume.of.group, &volume.of.name))?)?.bytes();
        ensure!(length >= self.to, "{} has {}, not {}", volume.of.word(), length.exact(), self.to.exact());
        Ok(())
    }

    fn revert(&self, kit: &Kit) -> Result<Reverted> {
        let volume = lvm::still_there(&self.volume)?;
        if volume.size <= self.from {
            return Ok(Reverted::Gone);
        }
        let stands = |why: String| {
            let word = volume.of.word();
            Ok(Reverted::Stands(format!("the LV {word} keeps its new size, {}: {why}", volume.size.human())))
        };
        if volume.size != self.to {
            return stands("somebody has changed it since".to_owned());
        }
        if let Some(why) = self.kept_by(kit)? {
            return stands(why);
        }
        let size = format!("{}b", self.from.get());
        match lvm::change("lvreduce", &["-f", "-y", "-L", &size, &volume.of.word()]) {
            Ok(()) => Ok(Reverted::Gone),
            // A longer LV harms nobody, and what LVM refuses it refuses again.
            Err(e) if !e.gave_up => stands(e.to_string()),
            Err(e) => Err(e.into()),
        }
    }
}

impl ExtendThinPool {
    /// Returns what `lvextend` is told, for an LV of that name.
    pub fn arguments(&self, word: &str) -> [String; 3] {
        let option = match self.part {
            Part::Data => "-L",
            Part::Metadata => "--poolmetadatasize",
        };
        [option.to_owned(), format!("{}b", self.to.get()), word.to_owned()]
    }

    /// Returns how large the part is: as the kernel says; of a pool that is down, as LVM does.
    fn size(&self, kit: &Kit) -> Result<Bytes> {
        let volume = lvm::still_there(&self.volume)?;
        let public = volume.dm_uuid();
        let is_it = |live: &Live| live.info.uuid.as_deref().is_some_and(|uuid| uuid.starts_with(&public));
        let Some(live) = sight::live(&kit.dm, &self.name)?.filter(is_it) else {
            let tail = match self.part {
                Part::Data => "_tdata",
                Part::Metadata => "_tmeta",
            };
            let inner = format!("{}{tail}", volume.of.name);
            let mut all = lvm::all_volumes(None)?.into_iter();
            let found = all.find(|other| other.of.group_uuid == volume.of.group_uuid && other.of.name == inner);
            return Ok(found.with_context(|| format!("looking for {inner}: there is none"))?.size);
        };
        let status = sight::status(&kit.dm, &self.name)?;
        let working = status.working().with_context(|| format!("the pool `{}` does not work", self.name))?;
        Ok(match self.part {
            Part::Data => live.table.block_size.bytes_of(working.data_total),
            Part::Metadata => working.metadata_total.bytes(),
        })
    }

    /// Returns what the kernel says its size is once it has grown.
    fn wanted(&self) -> Bytes {
        match self.part {
            Part::Data => self.to,
            Part::Metadata => self.to.min(MAX_META_BLOCKS.bytes()),
        }
    }
}

impl Act for ExtendThinPool {
    fn sentence(&self) -> String {
        let size = self.to.human();
        format!("let LVM extend the {} of its thin pool {} to {size} (lvextend)", self.part, self.volume.word())
    }

    fn lasts(&self) -> bool {
        true
    }

    fn way_back(&self) -> WayBack {
        WayBack::None
    }

    fn apply(&self, kit: &Kit, _: Attempt) -> Result<()> {
        if self.size(kit)? >= self.wanted() {
            return Ok(());
        }
        let args = self.arguments(&lvm::still_there(&self.volume)?.of.word());
        Ok(lvm::change("lvextend", &args.each_ref().map(String::as_str))?)
    }

    fn verify(&self, kit: &Kit) -> Result<()> {
        let size = self.size(kit)?;
        let wanted = self.wanted();
        ensure!(
            size >= wanted,
            "LVM is done, and the {} still has {}, not {}",
            self.part,
            size.exact(),
            wanted.exact()
        );
        Ok(())
    }

    fn stands(&self, kit: &Kit) -> Result<bool> {
        Ok(self.size(kit)? > self.from)
    }

    fn revert(&self, kit: &Kit) -> Result<Reverted> {
        Ok(match self.stands(kit)? {
            true => {
                let (word, size) = (self.volume.word(), self.size(kit)?.human());
                Reverted::Stands(format!("the thin pool {word} has its new {} size, {size}", self.part))
            }
            false => Reverted::Gone,
        })
    }
}
