//! Steps that bring a pool's devices up and down. They last until the next reboot, and boot activation repeats them.

use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::kernel::dm::{Dm, DmId, DmInfo, TargetLine};
use crate::kernel::{fs, loopdev, udev};
use crate::ops::steps::files::refuse_attached;
use crate::ops::steps::{Act, Attempt, Kit, MapDevices, Part, Reverted, Step, WayBack};
use crate::ops::{deleted, sight};
use crate::pool::{Behaviour, DevNo, Entry, PoolName, PoolTable, THIN_POOL};
use crate::units::Sectors;

/// Attaches a loop file and puts a linear device over it.
///
/// The loop device is AUTOCLEAR and held open until the linear device has it: a death in between leaves no litter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MapFile {
    /// The loop file.
    pub file: PathBuf,
    /// The linear device's dm name.
    pub name: String,
    /// Its dm uuid.
    pub uuid: String,
    /// How long it is.
    pub length: Sectors,
}

/// Makes the pool device on two linear devices.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MakePool {
    /// Its dm name.
    pub name: String,
    /// Its dm uuid.
    pub uuid: String,
    /// The dm name of the device with its metadata.
    pub metadata: String,
    /// The dm name of the device with its data.
    pub data: String,
    /// How long it is.
    pub length: Sectors,
    /// What stands in its table besides.
    pub behaviour: Behaviour,
}

/// Removes a device that another step would make.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TakeDown {
    /// The step that makes it: [`MapFile`], [`MapDevices`], [`MakePool`] or [`super::MapVolume`].
    pub made_by: Box<Step>,
    /// The file that goes with it: it was deleted, and only the loop device beneath has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletes: Option<PathBuf>,
}

impl MapFile {
    fn table(&self, device: DevNo) -> TargetLine {
        TargetLine {
            start: Sectors::new(0),
            length: self.length,
            kind: "linear".to_owned(),
            params: format!("{device} 0"),
        }
    }
}

impl Act for MapFile {
    fn sentence(&self) -> String {
        format!(
            "attach {} to a loop device and put the linear device {} over it, {}",
            self.file.display(),
            self.name,
            self.length.bytes().human()
        )
    }

    fn lasts(&self) -> bool {
        false
    }

    fn way_back(&self) -> WayBack {
        WayBack::By("removed; the loop device goes with it")
    }

    fn apply(&self, kit: &Kit, attempt: Attempt) -> Result<()> {
        if attempt == Attempt::Again && self.verify(kit).is_err() {
            // What is half made is made anew, but never while it is the last to have a file.
            deleted::refuse_last(&kit.dm, &self.name)?;
        }
        if made_before(self, kit, attempt, &self.name, &self.uuid)? {
            return Ok(());
        }
        // Two devices on one file would be two pools on one set of metadata.
        refuse_attached(&self.file)?;
        let file = fs::open_existing(&self.file)?;
        let held = loopdev::attach(&file, &self.file, true, false)?;
        bring_up(&kit.dm, &self.name, &self.uuid, &[self.table(held.devno)], Seen::Private)
    }

    fn verify(&self, kit: &Kit) -> Result<()> {
        let table = sole_line(&kit.dm, &self.name, &self.uuid)?;
        ensure!(table.kind == "linear", "`{}` is a {} device", self.name, table.kind);
        ensure!(table.length >= self.length, "`{}` has {}, not {}", self.name, table.length, self.length);
        let below = table.params.split_whitespace().next().unwrap_or_default().parse::<DevNo>()?;
        let ours = sight::loops_on(&self.file)?.iter().any(|l| l.devno == below);
        ensure!(ours, "`{}` does not stand on {}", self.name, self.file.display());
        Ok(())
    }

    fn revert(&self, kit: &Kit) -> Result<Reverted> {
        remove_ours(&kit.dm, &self.name, &self.uuid)?;
        Ok(Reverted::Gone)
    }
}

impl Act for MakePool {
    fn sentence(&self) -> String {
        format!("make the pool device {} on {} and {}", self.name, self.metadata, self.data)
    }

    fn lasts(&self) -> bool {
        false
    }

    fn way_back(&self) -> WayBack {
        WayBack::By("removed")
    }

    fn apply(&self, kit: &Kit, attempt: Attempt) -> Result<()> {
        if made_before(self, kit, attempt, &self.name, &self.uuid)? {
            return Ok(());
        }
        let devno = |name: &str| -> Result<DevNo> {
            let info = kit.dm.info(&DmId::name(name))?;
            Ok(info.with_context(|| format!("looking for `{name}`: the kernel has no such device"))?.devno)
        };
        let table = PoolTable {
            length: self.length,
            metadata: devno(&self.metadata)?,
            data: devno(&self.data)?,
            block_size: self.behaviour.block_size,
            low_water: self.behaviour.low_water,
            features: self.behaviour.features.clone(),
        };
        let line = TargetLine {
            start: Sectors::new(0),
            length: self.length,
            kind: THIN_POOL.to_owned(),
            params: table.params(),
        };
        bring_up(&kit.dm, &self.name, &self.uuid, &[line], Seen::Private)
    }

    fn verify(&self, kit: &Kit) -> Result<()> {
        let line = sole_line(&kit.dm, &self.name, &self.uuid)?;
        ensure!(line.kind == THIN_POOL, "`{}` is a {} device", self.name, line.kind);
        ensure!(line.length >= self.length, "`{}` has {}, not {}", self.name, line.length, self.length);
        let status = sight::status(&kit.dm, &self.name)?;
        ensure!(status.working().is_some(), "`{}` does not work: {status:?}", self.name);
        Ok(())
    }

    fn revert(&self, kit: &Kit) -> Result<Reverted> {
        remove_ours(&kit.dm, &self.name, &self.uuid)?;
        Ok(Reverted::Gone)
    }
}

impl TakeDown {
    fn name(&self) -> &str {
        match &*self.made_by {
            Step::MapFile(step) => &step.name,
            Step::MapDevices(step) => &step.name,
            Step::MakePool(step) => &step.name,
            Step::MapVolume(step) => &step.name,
            _ => "?",
        }
    }
}

impl Act for TakeDown {
    fn sentence(&self) -> String {
        match &self.deletes {
            None => format!("remove the device {}", self.name()),
            Some(path) => format!("remove the device {}, and with it the deleted file {}", self.name(), path.display()),
        }
    }

    fn lasts(&self) -> bool {
        false
    }

    fn way_back(&self) -> WayBack {
        match self.deletes {
            None => WayBack::By("made again"),
            Some(_) => WayBack::None,
        }
    }

    fn apply(&self, kit: &Kit, _: Attempt) -> Result<()> {
        self.made_by.act().revert(kit).map(|_| ())
    }

    fn verify(&self, kit: &Kit) -> Result<()> {
        if kit.dm.info(&DmId::name(self.name()))?.is_some() {
            bail!("`{}` is still there", self.name());
        }
        Ok(())
    }

    fn revert(&self, kit: &Kit) -> Result<Reverted> {
        if let Some(path) = &self.deletes {
            return Ok(match self.stands(kit)? {
                true => Reverted::Stands(format!("the file {} is deleted", path.display())),
                false => Reverted::Gone,
            });
        }
        self.made_by.act().apply(kit, Attempt::Again)?;
        Ok(Reverted::Gone)
    }

    fn stands(&self, kit: &Kit) -> Result<bool> {
        Ok(self.deletes.is_some() && kit.dm.info(&DmId::name(self.name()))?.is_none())
    }
}

/// Returns the steps that bring a registered pool's three devices up: metadata, data, pool.
pub fn devices_of(entry: &Entry, metadata_length: Sectors, length: Sectors) -> [Step; 3] {
    let name: &PoolName = &entry.name;
    let beneath = |part: Part, length| -> Step {
        let (name, uuid) = match part {
            Part::Metadata => (name.metadata_device(), entry.uuid.metadata()),
            Part::Data => (name.data_device(), entry.uuid.data()),
        };
        let files = entry.files().map(|[metadata, data]| if part == Part::Metadata { metadata } else { data });
        match files {
            Some(store) => MapFile { file: store.file.clone(), name, uuid, length }.into(),
            None => MapDevices { name, uuid, pool: entry.uuid.clone(), part, length }.into(),
        }
    };
    [
        beneath(Part::Metadata, metadata_length),
        beneath(Part::Data, length),
        MakePool {
            name: name.to_string(),
            uuid: entry.uuid.pool(),
            metadata: name.metadata_device(),
            data: name.data_device(),
            length,
            behaviour: entry.pool.clone(),
        }
        .into(),
    ]
}

/// Whether udev's rules look into a device.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::ops) enum Seen {
    /// They do not: it is beneath a pool, or the pool.
    Private,
    /// They do: it is for people.
    Public,
}

/// Returns whether an earlier attempt has made a step's device; what one left half made is removed.
///
/// # Errors
/// When what is there cannot be removed, or is somebody else's.
pub(in crate::ops) fn made_before(step: &dyn Act, kit: &Kit, attempt: Attempt, name: &str, uuid: &str) -> Result<bool> {
    if attempt == Attempt::First {
        return Ok(false);
    }
    if step.verify(kit).is_ok() {
        return Ok(true);
    }
    remove_ours(&kit.dm, name, uuid)?;
    Ok(false)
}

/// Makes a device, gives it its table and lets it run; on any error the empty device is removed again.
pub(in crate::ops) fn bring_up(dm: &Dm, name: &str, uuid: &str, table: &[TargetLine], seen: Seen) -> Result<()> {
    let devno = dm.create(name, Some(uuid))?;
    let id = DmId::name(name);
    let up = || -> Result<()> {
        dm.load(&id, table, false)?;
        match seen {
            Seen::Private => dm.resume_private(&id)?,
            Seen::Public => dm.resume(&id)?,
        }
        udev::ensure_node(name, devno)?;
        Ok(())
    };
    up().inspect_err(|_| {
        // The error that matters is the one above; what is left is found by the next attempt through its uuid.
        let _ = dm.remove(&id);
    })
}

/// Returns what the kernel says of a device that dmpool made.
///
/// # Errors
/// When there is none, or it is somebody else's.
pub(super) fn ours(dm: &Dm, name: &str, uuid: &str) -> Result<DmInfo> {
    let info = dm.info(&DmId::name(name))?;
    let info = info.with_context(|| format!("looking for `{name}`: the kernel has no such device"))?;
    ensure!(info.uuid.as_deref() == Some(uuid), "`{name}` ({}) is not the device that dmpool made", info.devno);
    Ok(info)
}

/// Returns the one line of a device's table.
pub(super) fn sole_line(dm: &Dm, name: &str, uuid: &str) -> Result<TargetLine> {
    let info = ours(dm, name, uuid)?;
    ensure!(!info.suspended, "`{name}` ({}) is suspended", info.devno);
    let lines = dm.table(&DmId::name(name))?;
    lines.into_iter().next().with_context(|| format!("reading the table of `{name}`: it has none"))
}

/// Removes a device when it is there and has our uuid.
pub(in crate::ops) fn remove_ours(dm: &Dm, name: &str, uuid: &str) -> Result<()> {
    let id = DmId::name(name);
    let Some(info) = dm.info(&id)? else { return Ok(()) };
    ensure!(info.uuid.as_deref() == Some(uuid), "`{name}` ({}) is not the device that dmpool made", info.devno);
    if !info.live_table && info.suspended && info.open_count == 0 {
        // A death between create and load leaves an empty device.
        dm.clear(&id)?;
    }
    dm.remove(&id)?;
    udev::remove_node(name, info.devno)?;
    Ok(())
}
