//! Steps that have LVM make logical volumes, remove those that dmpool has had made, and activate them.

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::error::{Failure, Outcome};
use crate::kernel::disks::label::{self as on_disk, Claim};
use crate::kernel::disks::signatures;
use crate::kernel::dm::DmId;
use crate::kernel::{Called, block, identity};
use crate::ops::lvm::{self, LogicalVolume, Volume};
use crate::ops::steps::{Act, Attempt, Kit, Leftover, PIECE, Reverted, Step, WayBack, bytes_of, whose};
use crate::ops::{disks, members};
use crate::pool::label::{AREA, DeviceUuid};
use crate::pool::{DevNo, Entry, PoolName, PoolUuid};
use crate::units::Bytes;

/// Has LVM make an LV for a part of a pool. What was in its extents before is nobody's: its beginning is filled with zeros.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MakeVolume {
    /// The volume group.
    pub group: String,
    /// Its identity, as LVM prints it.
    pub group_uuid: String,
    /// The LV's name.
    pub name: String,
    /// How long it is, in whole extents.
    pub size: Bytes,
    /// The pool that it becomes a part of.
    pub pool: PoolUuid,
    /// That pool's name.
    pub pool_name: PoolName,
    /// What its label will call it, and one of its tags.
    pub device: DeviceUuid,
}

/// Has LVM remove an LV that it made for dmpool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoveVolume {
    /// Which.
    pub volume: LogicalVolume,
    /// The tag without which it is not dmpool's any more.
    pub tag: String,
}

/// Has LVM activate an LV.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WakeVolume {
    /// Which.
    pub volume: LogicalVolume,
    /// The boot in which it was inactive: in another one LVM may have activated it by itself.
    pub boot: String,
}

/// Has LVM say whether it would do what is planned: with all that it looks at, and without changing anything.
///
/// # Errors
/// Refused in LVM's own words.
pub fn agreed_by_lvm(steps: &[Step], what: &str) -> Outcome<()> {
    for step in steps {
        let (program, args) = match step {
            Step::MakeVolume(step) => ("lvcreate", step.arguments()),
            Step::ExtendVolume(step) => ("lvextend", step.arguments(&step.volume.word()).to_vec()),
            Step::ExtendThinPool(step) => ("lvextend", step.arguments(&step.volume.word()).to_vec()),
            _ => continue,
        };
        lvm::would(program, &args.iter().map(String::as_str).collect::<Vec<_>>()).map_err(|e| {
            Failure::refused(format!("cannot {what}: LVM would not do its part"))
                .fact("state", "nothing was touched")
                .next("vgs; pvs; lvs -a -o +devices    # say more of what LVM names")
                .because(e)
        })?;
    }
    Ok(())
}

impl MakeVolume {
    /// Returns what `lvcreate` is told.
    pub fn arguments(&self) -> Vec<String> {
        let mut args = ["-y", "-W", "y", "-Z", "y", "-L"].map(str::to_owned).to_vec();
        args.push(format!("{}b", self.size.get()));
        args.extend(["-n".to_owned(), self.name.clone()]);
        args.extend(lvm::tags(&self.pool_name, self.device).into_iter().flat_map(|tag| ["--addtag".to_owned(), tag]));
        args.push(self.group.clone());
        args
    }

    fn found(&self) -> Result<Option<Volume>> {
        lvm::by_tag(&lvm::tag_of(self.device), &self.group_uuid)
    }

    fn device_of(&self, volume: &Volume) -> Result<DevNo> {
        let path = lvm::path(&volume.of.group, &volume.of.name);
        let devno = block::devno_of(&path).with_context(|| format!("LVM did not activate {}", volume.of.word()))?;
        let length = block::size(devno)?.bytes();
        ensure!(length == self.size, "{} has {}, not {}", path.display(), length.exact(), self.size.exact());
        Ok(devno)
    }

    /// Fills with zeros where the label and the superblock will be.
    fn clear(&self, devno: DevNo) -> Result<()> {
        let length = usize::try_from(AREA.get() + PIECE)?;
        let file = on_disk::open(devno, Claim::Free)?;
        block::write_direct(&file, 0, &vec![0; length])?;
        file.sync_all().called("fsync", devno).context("making durable what was written to a device")
    }
}

/// Returns what somebody has put on an LV of dmpool's that has no label: LVM has filled its first 4096 bytes with zeros and
/// wiped what was known of its extents when it made it, and dmpool has nothing there.
fn foreign(volume: &Volume, devno: DevNo) -> Result<Option<String>> {
    let path = lvm::path(&volume.of.group, &volume.of.name);
    if block::is_claimed(devno)? {
        return Ok(Some(whose::sentence(&volume.of.word())));
    }
    let found =
        signatures::on(&path, disks::LIMIT).with_context(|| format!("looking at what is on {}", path.display()))?;
    if let Some(first) = found.first() {
        return Ok(Some(format!("{}: {}", whose::sentence(&volume.of.word()), first.words())));
    }
    let is_blank = whose::is_zeros(&bytes_of(devno, Bytes::default(), Bytes::new(PIECE))?);
    Ok((!is_blank).then(|| format!("{}: it does not begin with zeros", whose::sentence(&volume.of.word()))))
}

/// Returns why LVM must not remove an LV: what somebody has put on it, or that this cannot be looked at. One that is not
/// active is activated for the look: who has put something on it may have deactivated it since, as a reboot does.
fn kept(volume: &Volume) -> Option<String> {
    let (path, word) = (lvm::path(&volume.of.group, &volume.of.name), volume.of.word());
    let was_active = block::devno_of(&path).is_ok();
    let look = || -> Result<Option<String>> {
        if !was_active {
            lvm::change("lvchange", &["-a", "y", &word])?;
        }
        foreign(volume, block::devno_of(&path)?)
    };
    let why = match look() {
        Ok(None) => return None,
        Ok(Some(why)) => why,
        Err(why) => format!("what is on the LV {word} could not be looked at; it stays ({:#})", why.root_cause()),
    };
    if !was_active {
        // As it was; one that somebody has taken already stays active.
        let _ = lvm::change("lvchange", &["-a", "n", &word]);
    }
    Some(format!("{why}; if it may go:  lvremove {word}"))
}

impl Act for MakeVolume {
    fn sentence(&self) -> String {
        format!("make the LV {}/{}, {} (lvcreate)", self.group, self.name, self.size.human())
    }

    fn lasts(&self) -> bool {
        true
    }

    fn way_back(&self) -> WayBack {
        WayBack::By("removed by LVM (lvremove), known by its tag")
    }

    fn apply(&self, kit: &Kit, attempt: Attempt) -> Result<()> {
        let there = if attempt == Attempt::Again { self.found()? } else { None };
        let devno = match there {
            Some(volume) => {
                if members::device(&kit.dm, &self.pool, self.device)?.is_some() {
                    return Ok(());
                }
                if block::devno_of(&lvm::path(&volume.of.group, &volume.of.name)).is_err() {
                    lvm::change("lvchange", &["-a", "y", &volume.of.word()])?;
                }
                let devno = self.device_of(&volume)?;
                if let Some(why) = foreign(&volume, devno)? {
                    bail!(why);
                }
                devno
            }
            None => {
                let args = self.arguments();
                lvm::change("lvcreate", &args.iter().map(String::as_str).collect::<Vec<_>>())?;
                self.device_of(&self.found()?.context("lvcreate has made no LV with its tag")?)?
            }
        };
        self.clear(devno)
    }

    fn verify(&self, kit: &Kit) -> Result<()> {
        if members::device(&kit.dm, &self.pool, self.device)?.is_some() {
            return Ok(());
        }
        let volume = self.found()?.with_context(|| format!("{}/{} is not there", self.group, self.name))?;
        let devno = self.device_of(&volume)?;
        let zeros = bytes_of(devno, Bytes::default(), Bytes::new(AREA.get() + PIECE))?.iter().all(|b| *b == 0);
        ensure!(zeros, "{} has something at its beginning", volume.of.word());
        Ok(())
    }

    fn revert(&self, _: &Kit) -> Result<Reverted> {
        if let Some(volume) = self.found()? {
            if let Some(why) = kept(&volume) {
                return Ok(Reverted::Left(why));
            }
            lvm::change("lvremove", &["-f", "-y", &volume.of.word()])?;
        }
        Ok(Reverted::Gone)
    }
}

impl RemoveVolume {
    fn found(&self) -> Result<Option<Volume>> {
        lvm::current(&self.volume)
    }
}

impl Act for RemoveVolume {
    fn sentence(&self) -> String {
        format!("remove the LV {} (lvremove)", self.volume.word())
    }

    fn lasts(&self) -> bool {
        true
    }

    fn way_back(&self) -> WayBack {
        WayBack::None
    }

    fn apply(&self, _: &Kit, attempt: Attempt) -> Result<()> {
        let Some(volume) = self.found()? else { return Ok(()) };
        ensure!(volume.has(&self.tag), "{} has not the tag of dmpool's any more", volume.of.word());
        // Its label went in a step before: since then it has been free for anybody.
        if attempt == Attempt::Again
            && let Some(why) = kept(&volume)
        {
            bail!(why);
        }
        Ok(lvm::change("lvremove", &["-f", "-y", &volume.of.word()])?)
    }

    fn verify(&self, _: &Kit) -> Result<()> {
        if self.found()?.is_some() {
            bail!("the LV {} is still there", self.volume.word());
        }
        Ok(())
    }

    fn revert(&self, kit: &Kit) -> Result<Reverted> {
        Ok(match self.stands(kit)? {
            true => Reverted::Stands(format!("the LV {} is removed", self.volume.word())),
            false => Reverted::Gone,
        })
    }

    fn stands(&self, _: &Kit) -> Result<bool> {
        Ok(self.found()?.is_none())
    }

    fn leftover(&self) -> Option<Leftover> {
        let volume = self.found().ok().flatten()?;
        Some(Leftover::Volume(volume.of.word()))
    }
}

impl Act for WakeVolume {
    fn sentence(&self) -> String {
        format!("activate the LV {} (lvchange -ay)", self.volume.word())
    }

    fn lasts(&self) -> bool {
        false
    }

    fn way_back(&self) -> WayBack {
        WayBack::By("deactivated (lvchange -an)")
    }

    fn apply(&self, _: &Kit, _: Attempt) -> Result<()> {
        Ok(lvm::change("lvchange", &["-a", "y", &lvm::still_there(&self.volume)?.of.word()])?)
    }

    fn verify(&self, _: &Kit) -> Result<()> {
        let of = lvm::still_there(&self.volume)?.of;
        block::devno_of(&lvm::path(&of.group, &of.name)).map(drop)
    }

    fn revert(&self, kit: &Kit) -> Result<Reverted> {
        if identity::boot_id()? != self.boot {
            return Ok(Reverted::Gone);
        }
        let Some(volume) = lvm::current(&self.volume)? else { return Ok(Reverted::Gone) };
        match kit.dm.info(&DmId::name(volume.dm_name()))? {
            None => {}
            Some(info) if info.open_count > 0 => {
                return Ok(Reverted::Stands(format!("the LV {} stays active: it is in use", volume.of.word())));
            }
            Some(_) => lvm::change("lvchange", &["-a", "n", &volume.of.word()])?,
        }
        Ok(Reverted::Gone)
    }
}

/// What LVM has of a pool's devices that are not here.
#[derive(Debug, Default)]
pub struct Asleep {
    /// The steps that activate what can be.
    pub steps: Vec<WakeVolume>,
    /// Those that a disk is missing of: `GROUP/LV`.
    pub partial: Vec<String>,
}

/// Returns what LVM has, by their tags, of the devices of a pool that are not here; nothing while the pool is up, and nothing
/// when LVM does not answer: what is missing is told then. An LV without the tag may be another's by now: no name proves it.
///
/// # Errors
/// When the kernel does not answer; when there are several LVs with one tag.
pub fn asleep(kit: &Kit, entry: &Entry) -> Result<Asleep> {
    let is_up = kit.dm.info(&DmId::name(entry.name.as_str()))?.is_some();
    if is_up || entry.devices().iter().all(|device| lvm::names_in(&device.path).is_none()) {
        return Ok(Asleep::default());
    }
    let there = members::look(&kit.dm)?.of(&entry.uuid);
    let missing = entry.devices().iter().filter(|device| !there.iter().any(|one| one.label.device == device.uuid));
    let missing: Vec<_> = missing.collect();
    if missing.is_empty() {
        return Ok(Asleep::default());
    }
    let Ok(volumes) = lvm::all_volumes(None) else { return Ok(Asleep::default()) };
    let mut found = Asleep::default();
    for device in missing {
        let tag = lvm::tag_of(device.uuid);
        let Some(volume) = lvm::one(&volumes, |volume| volume.has(&tag))? else { continue };
        if kit.dm.info(&DmId::name(volume.dm_name()))?.is_some() {
            continue;
        }
        match volume.is_partial {
            true => found.partial.push(volume.of.word()),
            false => found.steps.push(WakeVolume { volume: volume.of.clone(), boot: identity::boot_id()? }),
        }
    }
    Ok(found)
}
