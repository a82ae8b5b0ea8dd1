//! The step that makes the volumes of a copied pool as long as a larger base device, with their file systems, and writes Docker's
//! records of them anew, beside the old ones.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::kernel::fs::{make_dir_durably, write_alike};
use crate::ops::contents::overlay2;
use crate::ops::migrate::blocks::{Mark, Records, are_long, lengthen};
use crate::ops::steps::{Act, Attempt, Carried, Kit, Reverted, Swap, WayBack};
use crate::units::Bytes;

/// Grows the volumes of the new pool that are shorter than the new base device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrowVolumes {
    /// Which pools.
    pub carried: Carried,
    /// How long the base device shall be.
    pub size: Bytes,
    /// Docker's folder of the records, where the old ones go, and where the new ones are made.
    pub records: Swap,
}

impl GrowVolumes {
    /// Where the old records are.
    fn old(&self) -> &Path {
        if is_there(&self.records.aside) { &self.records.aside } else { &self.records.folder }
    }

    /// Where the new ones are, or are to be.
    fn new_ones(&self) -> &Path {
        if is_there(&self.records.aside) && !is_there(&self.records.made) {
            &self.records.folder
        } else {
            &self.records.made
        }
    }

    fn write(&self, files: &BTreeMap<String, Vec<u8>>) -> Result<()> {
        let folder = self.new_ones();
        make_dir_durably(folder, 0o700)?;
        for (name, bytes) in files {
            let like: PathBuf = self.old().join(name);
            write_alike(&folder.join(name), bytes, &like, 0o600)?;
        }
        Ok(())
    }
}

fn is_there(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

impl Act for GrowVolumes {
    fn sentence(&self) -> String {
        format!(
            "grow every volume of the new pool that is shorter, and the file system on it, to {}; write Docker's records of them to {}",
            self.size.human(),
            self.records.made.display()
        )
    }

    fn brief(&self) -> String {
        format!("grow every volume that is shorter than {}", self.size.human())
    }

    fn lasts(&self) -> bool {
        true
    }

    fn way_back(&self) -> WayBack {
        WayBack::By("given up with the copy; Docker's records were only read")
    }

    fn apply(&self, kit: &Kit, attempt: Attempt) -> Result<()> {
        self.carried.hold.still_stands()?;
        ensure!(
            attempt == Attempt::Again || !is_there(&self.records.made),
            "{} is there already",
            self.records.made.display()
        );
        let records = Records::read(self.old())?;
        let place = self.carried.metadata.as_deref().and_then(Path::parent);
        let sizes = self.carried.with(kit, |target| lengthen(kit, target, &records, self.size, place))?;
        self.write(&records.with(&sizes)?)
    }

    fn is_one_thing(&self) -> bool {
        false
    }

    fn verify(&self, kit: &Kit) -> Result<()> {
        if self.carried.hold.was_dropped() {
            return Ok(());
        }
        let (old, new) = (Records::read(self.old())?, Records::read(self.new_ones())?);
        ensure!(old.files.keys().eq(new.files.keys()), "{} has not all records", self.new_ones().display());
        for (name, record) in &old.volumes {
            let grown = new.volumes.get(name).with_context(|| format!("looking for the record {name}"))?;
            ensure!(grown.size >= record.size && grown.id == record.id, "the record {name} is of another volume");
        }
        // Settled, it may be in use, and was looked at before.
        match Mark::of(self.carried.superblock(kit)?.transaction_id) {
            Some(_) => self.carried.with(kit, |target| are_long(kit, target, &new, self.size)),
            None => Ok(()),
        }
    }

    fn revert(&self, kit: &Kit) -> Result<Reverted> {
        self.carried.take_down(kit)?;
        overlay2::remove_tree(&self.records.made)?;
        Ok(Reverted::Gone)
    }
}
