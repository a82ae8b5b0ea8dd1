//! The step that writes Docker's records of volumes that were made anew, beside the old ones.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::kernel::fs::{make_dir_durably, write_alike};
use crate::ops::contents::overlay2;
use crate::ops::migrate::anew::Anew;
use crate::ops::migrate::blocks::{Mark, Records};
use crate::ops::steps::{Act, Attempt, Carried, Kit, Reverted, WayBack};

/// Writes how long the volumes of the new pool are, and which file system its base device has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WriteRecords {
    /// Which pools.
    pub carried: Carried,
}

impl WriteRecords {
    fn anew(&self) -> Result<&Anew> {
        self.carried.anew.as_ref().context("nothing says what the volumes became")
    }

    fn files(&self, kit: &Kit) -> Result<BTreeMap<String, Vec<u8>>> {
        let anew = self.anew()?;
        self.carried.with(kit, |target| anew.files(kit, &self.carried.hold.root, target))
    }
}

impl Act for WriteRecords {
    fn sentence(&self) -> String {
        let made = self.carried.anew.as_ref().map(|anew| anew.records.made.display().to_string());
        format!("write Docker's records of these volumes to {}", made.unwrap_or_default())
    }

    fn lasts(&self) -> bool {
        true
    }

    fn way_back(&self) -> WayBack {
        WayBack::By("removed; Docker's own records were only read")
    }

    fn apply(&self, kit: &Kit, attempt: Attempt) -> Result<()> {
        self.carried.hold.still_stands()?;
        let anew = self.anew()?;
        let made = &anew.records.made;
        ensure!(attempt == Attempt::Again || made.symlink_metadata().is_err(), "{} is there already", made.display());
        let files = self.files(kit)?;
        let folder = anew.new_records();
        make_dir_durably(folder, 0o700)?;
        for (name, bytes) in &files {
            write_alike(&folder.join(name), bytes, &anew.old_records().join(name), 0o600)?;
        }
        Ok(())
    }

    fn is_one_thing(&self) -> bool {
        false
    }

    fn verify(&self, kit: &Kit) -> Result<()> {
        if self.carried.hold.was_dropped() {
            return Ok(());
        }
        let anew = self.anew()?;
        let (old, new) = (Records::read(anew.old_records())?, Records::read(anew.new_records())?);
        let kept = old.files.keys().filter(|name| !old.deleted.contains(*name));
        ensure!(kept.eq(new.files.keys()), "{} has not all records", anew.new_records().display());
        for (name, record) in &old.volumes {
            let other = new.volumes.get(name).with_context(|| format!("looking for the record {name}"))?;
            ensure!(other.size >= anew.size && other.id == record.id, "the record {name} is of another volume");
        }
        // Settled, the pool may be in use, and was looked at before.
        match Mark::of(self.carried.superblock(kit)?.transaction_id) {
            Some(_) => {
                ensure!(self.files(kit)? == new.files, "{} is not of this copy", anew.new_records().display());
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn revert(&self, kit: &Kit) -> Result<Reverted> {
        self.carried.take_down(kit)?;
        if let Some(anew) = &self.carried.anew {
            overlay2::remove_tree(&anew.records.made)?;
        }
        Ok(Reverted::Gone)
    }
}
