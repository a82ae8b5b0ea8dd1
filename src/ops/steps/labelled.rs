//! The devices under a pool that lies on labelled devices: made, and made longer, as the labels' map says.

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::kernel::dm::{DmId, TargetLine};
use crate::ops::steps::devices::{Seen, bring_up, made_before, ours, remove_ours};
use crate::ops::steps::swap::{reload_sentence, swap};
use crate::ops::steps::{Act, Attempt, Kit, Part, Reverted, WayBack};
use crate::ops::{members, sight};
use crate::pool::PoolUuid;
use crate::pool::label::{Assembly, Purpose, layout};
use crate::units::Sectors;

/// Makes the device under one part of a pool, on all the devices that the labels' map has for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MapDevices {
    /// Its dm name.
    pub name: String,
    /// Its dm uuid.
    pub uuid: String,
    /// The pool whose labels are looked for.
    pub pool: PoolUuid,
    /// Which part of the pool it carries.
    pub part: Part,
    /// How long it is.
    pub length: Sectors,
}

/// Gives the device under one part of a live pool its new length, as the labels' map has it by then.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadDevices {
    /// The device.
    pub device: MapDevices,
    /// The pool that stands on it, by dm name.
    pub pool: String,
    /// How long it is; [`MapDevices::length`] is how long it shall be.
    pub from: Sectors,
}

/// Returns the table of a device over one part of a pool, as the labels' map has it.
///
/// # Errors
/// When a device of the map is not there.
pub fn table_of_labels(assembly: &Assembly, purpose: Purpose, length: Sectors) -> Result<Vec<TargetLine>> {
    let line = |piece: layout::Piece| {
        let legs = piece.legs.iter().map(|leg| {
            let device = assembly.devices.get(&leg.device).context("looking for a device of the map")?;
            Ok(format!("{device} {}", leg.start.get()))
        });
        let legs: Vec<_> = legs.collect::<Result<_>>()?;
        let (kind, params) = match piece.chunk {
            None => ("linear", legs.join(" ")),
            Some(chunk) => ("striped", format!("{} {} {}", legs.len(), chunk.get(), legs.join(" "))),
        };
        Ok(TargetLine { start: piece.start, length: piece.length, kind: kind.to_owned(), params })
    };
    layout::pieces(&assembly.label.map, purpose, length).into_iter().map(line).collect()
}

impl MapDevices {
    /// Returns the table that the labels' map makes of it, `length` long.
    fn table(&self, assembly: &Assembly, length: Sectors) -> Result<Vec<TargetLine>> {
        let purpose = match self.part {
            Part::Data => Purpose::Data,
            Part::Metadata => Purpose::Metadata,
        };
        let there = assembly.label.length(purpose);
        ensure!(there >= length, "the labels' map has {there} of {}, {length} are needed", self.part);
        table_of_labels(assembly, purpose, length)
    }

    /// Returns whether it is up already, just so, and nobody has it open: what was ended half way has left it.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub fn is_left(&self, kit: &Kit) -> Result<bool> {
        let info = kit.dm.info(&DmId::name(&self.name))?;
        // A table that waits would go live with anybody's resume.
        Ok(info.is_some_and(|info| info.open_count == 0 && !info.inactive_table) && self.verify(kit).is_ok())
    }

    fn is_table(&self, kit: &Kit, length: Sectors) -> Result<()> {
        let wanted = self.table(&members::assembled(&kit.dm, &self.pool)?, length)?;
        let info = ours(&kit.dm, &self.name, &self.uuid)?;
        ensure!(!info.suspended, "`{}` ({}) is suspended", self.name, info.devno);
        let found = kit.dm.table(&DmId::name(&self.name))?;
        ensure!(found == wanted, "the table of `{}` is not the one that the labels tell", self.name);
        Ok(())
    }
}

impl Act for MapDevices {
    fn sentence(&self) -> String {
        format!(
            "put the device {}, {}, over the {} of the labelled devices",
            self.name,
            self.length.bytes().human(),
            self.part
        )
    }

    fn lasts(&self) -> bool {
        false
    }

    fn way_back(&self) -> WayBack {
        WayBack::By("removed")
    }

    fn apply(&self, kit: &Kit, attempt: Attempt) -> Result<()> {
        if self.is_left(kit)? || made_before(self, kit, attempt, &self.name, &self.uuid)? {
            return Ok(());
        }
        let table = self.table(&members::assembled(&kit.dm, &self.pool)?, self.length)?;
        bring_up(&kit.dm, &self.name, &self.uuid, &table, Seen::Private)
    }

    fn verify(&self, kit: &Kit) -> Result<()> {
        self.is_table(kit, self.length)
    }

    fn revert(&self, kit: &Kit) -> Result<Reverted> {
        remove_ours(&kit.dm, &self.name, &self.uuid)?;
        Ok(Reverted::Gone)
    }
}

impl ReloadDevices {
    /// Loads the table of that length and makes it live.
    fn reload(&self, kit: &Kit, length: Sectors) -> Result<()> {
        let device = &self.device;
        let id = DmId::name(&device.name);
        let info = ours(&kit.dm, &device.name, &device.uuid)?;
        let new = device.table(&members::assembled(&kit.dm, &device.pool)?, length)?;
        let old = kit.dm.table(&id)?;
        if info.inactive_table {
            // A death between load and resume leaves one, which the next resume of anybody's would make live.
            kit.dm.clear(&id)?;
        }
        if old != new {
            swap(kit, &info, &old, &new)
        } else if info.suspended {
            kit.dm.resume(&id)
        } else {
            Ok(())
        }
    }
}

impl Act for ReloadDevices {
    fn sentence(&self) -> String {
        reload_sentence(&format!("device {}", self.device.name), [self.from, self.device.length])
    }

    fn lasts(&self) -> bool {
        false
    }

    fn way_back(&self) -> WayBack {
        WayBack::By("reloaded with the old length, as long as the pool has its old size")
    }

    fn apply(&self, kit: &Kit, _: Attempt) -> Result<()> {
        self.reload(kit, self.device.length)
    }

    fn verify(&self, kit: &Kit) -> Result<()> {
        self.device.is_table(kit, self.device.length)
    }

    fn revert(&self, kit: &Kit) -> Result<Reverted> {
        let device = &self.device;
        if kit.dm.info(&DmId::name(&device.name))?.is_none() {
            return Ok(Reverted::Gone);
        }
        if sight::needed_by_live(&kit.dm, &self.pool, device.part)?.is_some_and(|needed| needed > self.from.bytes()) {
            return Ok(Reverted::Stands(format!("`{}` keeps its new length: the pool uses it", device.name)));
        }
        self.reload(kit, self.from)?;
        Ok(Reverted::Gone)
    }
}
