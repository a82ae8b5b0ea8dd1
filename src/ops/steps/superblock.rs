//! The step that takes the kernel's superblock off a device whose label goes: without the label nobody tells whose it is.

use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use super::format::{Found, PIECE, bytes_of, find, settle, stays_on};
use super::whose;
use crate::kernel::disks::label::{self as on_disk, Claim};
use crate::kernel::{block, fs};
use crate::ops::members;
use crate::ops::steps::{Act, Attempt, Kit, NamedDevice, Reverted, WayBack};
use crate::pool::label::{DeviceUuid, Label, Purpose};
use crate::pool::{DevNo, PoolUuid};
use crate::units::Bytes;

/// Fills the first block of a pool's metadata with zeros, on a device that still has its label.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EraseSuperblock {
    /// The device.
    pub on: NamedDevice,
    /// The pool that it belongs to.
    pub pool: PoolUuid,
    /// What its label calls it.
    pub device: DeviceUuid,
    /// Where the metadata begins on it.
    pub at: Bytes,
    /// The file that keeps what is there.
    pub saved: PathBuf,
}

impl EraseSuperblock {
    /// Returns the step for a device with this label; nothing when the pool's metadata does not begin on it.
    pub fn of(on: NamedDevice, label: &Label, saved: PathBuf) -> Option<Self> {
        let first = label.map.iter().find(|segment| segment.purpose == Purpose::Metadata)?;
        let leg = first.legs.first().filter(|leg| leg.device == label.device)?;
        Some(Self { on, pool: label.pool.clone(), device: label.device, at: leg.start.bytes(), saved })
    }

    /// Returns the device, as long as it has its label.
    fn find(&self, kit: &Kit) -> Result<Option<DevNo>> {
        Ok(members::device(&kit.dm, &self.pool, self.device)?.map(|found| found.member.devno))
    }

    /// What becomes of a device that has the label nowhere to be seen. One that is not here, or cannot be read, is waited
    /// for: without its superblock the pool would be lost, and `continue` needs none.
    fn without_label(&self, kit: &Kit) -> Result<Reverted> {
        let kept = || format!("its superblock is kept in {}, and goes back when it is here", self.saved.display());
        match find(kit, &self.on, &self.pool, self.device, &[]).with_context(kept)? {
            Found::Its(..) | Found::Foreign => Ok(Reverted::Stands(whose::sentence(&self.on))),
            Found::Gone(why) => bail!("{why}; {}", kept()),
        }
    }

    fn read(&self, devno: DevNo) -> Result<Vec<u8>> {
        bytes_of(devno, self.at, Bytes::new(PIECE))
    }

    fn write(&self, devno: DevNo, bytes: &[u8]) -> Result<()> {
        let file = on_disk::open(devno, Claim::Free)?;
        block::write_direct(&file, self.at.get(), bytes)?;
        settle(&file, devno)
    }
}

impl Act for EraseSuperblock {
    fn sentence(&self) -> String {
        format!("erase the superblock of its metadata on {}; it is kept in {}", self.on, self.saved.display())
    }

    fn lasts(&self) -> bool {
        true
    }

    fn way_back(&self) -> WayBack {
        WayBack::By("written back")
    }

    fn apply(&self, kit: &Kit, attempt: Attempt) -> Result<()> {
        // Without its label the device may be anybody's.
        let Some(devno) = self.find(kit)? else {
            let found = find(kit, &self.on, &self.pool, self.device, &[]);
            stays_on(found, &self.on, "superblock", attempt).into_iter().for_each(|what| kit.say(what));
            return Ok(());
        };
        let found = self.read(devno)?;
        if whose::is_superblock(&found) {
            fs::make_dir_durably(&kit.state.saved, 0o700)?;
            fs::write_replace(&self.saved, &found, 0o600)?;
            self.write(devno, &vec![0; found.len()])?;
        }
        Ok(())
    }

    fn verify(&self, kit: &Kit) -> Result<()> {
        if let Some(devno) = self.find(kit)? {
            ensure!(!whose::is_superblock(&self.read(devno)?), "{} still has its superblock", self.on);
        }
        Ok(())
    }

    fn revert(&self, kit: &Kit) -> Result<Reverted> {
        let Some(devno) = self.find(kit)? else { return self.without_label(kit) };
        let found = self.read(devno)?;
        let Some(kept) = fs::read_limited(&self.saved, Bytes::new(PIECE))? else {
            // On zeros the kernel would make a new pool over the data.
            return Ok(match whose::is_zeros(&found) {
                true => Reverted::Stands(format!("the superblock on {} is erased, and not kept", self.on)),
                false => Reverted::Gone,
            });
        };
        if found != kept {
            if !whose::is_zeros(&found) || !whose::is_bare(devno)? {
                return Ok(Reverted::Stands(whose::sentence(&self.on)));
            }
            self.write(devno, &kept)?;
        }
        fs::remove_durably(&self.saved)?;
        Ok(Reverted::Gone)
    }
}
