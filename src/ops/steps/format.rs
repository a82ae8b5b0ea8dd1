//! Steps that write on devices themselves: what was there is kept, and goes back when the operation is taken back.

use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::kernel::disks::label::{self as on_disk, Claim};
use crate::kernel::{Called, block, fs, identity};
use crate::ops::members;
use crate::ops::steps::{Act, Attempt, Kit, Reverted, WayBack};
use crate::pool::disk;
use crate::pool::label::{AREA, DeviceUuid, Label, SLOT_BYTES, Slots};
use crate::pool::{DevNo, PoolUuid};
use crate::units::Bytes;

/// What a device is cleared in pieces of, and what nothing of dmpool's is smaller than.
pub const PIECE: u64 = 4096;

/// A part of a device that is cleared: offset and length are multiples of 4096.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Area {
    /// Where it begins.
    pub at: Bytes,
    /// How long it is.
    pub length: Bytes,
    /// CRC-32C of what was there when this was planned.
    pub checksum: u32,
    /// The file that keeps what was there; nothing where that was zeros.
    pub saved: Option<PathBuf>,
}

/// A device as it was called when an operation was planned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedDevice {
    /// Its name: the best that it has.
    pub path: PathBuf,
    /// How long it was.
    pub length: Bytes,
    /// The boot in which it was called so, when that name can be another device's in the next (`/dev/sdb`).
    pub boot: Option<String>,
}

/// Fills the parts of a device with zeros that a label, a superblock or a foreign signature is in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClearDevice {
    /// The device.
    pub on: NamedDevice,
    /// The pool that it becomes a part of.
    pub pool: PoolUuid,
    /// What its label will call it.
    pub device: DeviceUuid,
    /// What is cleared.
    pub areas: Vec<Area>,
}

/// Writes one slot of a device's label.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WriteLabel {
    /// The device.
    pub on: NamedDevice,
    /// What is written.
    pub label: Label,
    /// To which slot: not the one that counts until then.
    pub slot: usize,
    /// The sequence number of the label that counts until then; nothing on a device that has none.
    pub before: Option<u64>,
    /// What the slot has until then; nothing for zeros, and for what cannot be read as a label.
    pub over: Option<Label>,
}

/// Fills both slots of a device's label with zeros: it is nobody's then.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EraseLabel {
    /// The device.
    pub on: NamedDevice,
    /// The pool that it belongs to.
    pub pool: PoolUuid,
    /// What its label calls it.
    pub device: DeviceUuid,
    /// What its slots have.
    pub slots: [Option<Label>; 2],
}

/// Returns the bytes of an area.
///
/// # Errors
/// When the device cannot be read so far.
pub fn bytes_of(device: DevNo, at: Bytes, length: Bytes) -> Result<Vec<u8>> {
    let wanted = usize::try_from(length.get())?;
    let bytes = block::read_direct(&block::open_direct(device)?, at.get(), wanted)?;
    ensure!(bytes.len() == wanted, "block device {device} ends before byte {}", at.get().saturating_add(length.get()));
    Ok(bytes)
}

impl NamedDevice {
    /// Takes a device by the best name that it has.
    ///
    /// # Errors
    /// When the kernel does not tell which boot this is.
    pub fn of(path: &Path, length: Bytes) -> Result<Self> {
        let boot = if disk::rank(path).is_none() { Some(identity::boot_id()?) } else { None };
        Ok(Self { path: path.to_owned(), length, boot })
    }

    /// Returns the number of the device that has the name, when it can be no other than the one that was meant.
    ///
    /// # Errors
    /// When there is none, or it may be another by now.
    fn devno(&self) -> Result<DevNo> {
        let path = self.path.display();
        if let Some(boot) = &self.boot {
            let same = identity::boot_id()? == *boot;
            ensure!(same, "{path} may be another device since the machine was booted: it has no name that lasts");
        }
        let devno = block::devno_of(&self.path)?;
        let length = block::size(devno)?.bytes();
        ensure!(length == self.length, "{path} is another device: it has {}", length.exact());
        Ok(devno)
    }
}

impl fmt::Display for NamedDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path.display().fmt(f)
    }
}

impl ClearDevice {
    /// Whether the label stands already: then everything was cleared, and the pool may have written since.
    fn is_labelled(&self, kit: &Kit) -> Result<bool> {
        Ok(members::device(&kit.dm, &self.pool, self.device)?.is_some())
    }

    fn clear(&self, kit: &Kit, attempt: Attempt) -> Result<()> {
        let devno = self.on.devno()?;
        for area in &self.areas {
            let found = bytes_of(devno, area.at, area.length)?;
            let kept = area.kept()?;
            let as_planned = crc32c::crc32c(&found) == area.checksum;
            match (&area.saved, attempt) {
                (None, _) => ensure!(as_planned, "{}", self.changed(area)),
                (Some(path), _) if as_planned => {
                    fs::make_dir_durably(&kit.state.saved, 0o700)?;
                    fs::write_replace(path, &found, 0o600)?;
                }
                (Some(_), Attempt::Again) => {
                    ensure!(kept.is_some_and(|kept| is_mix(&found, &kept)), "{}", self.changed(area));
                }
                (Some(_), Attempt::First) => bail!("{}", self.changed(area)),
            }
        }
        let file = on_disk::open(devno, Claim::Free)?;
        for area in &self.areas {
            block::write_direct(&file, area.at.get(), &vec![0; usize::try_from(area.length.get())?])?;
        }
        settle(&file, devno)
    }

    fn changed(&self, area: &Area) -> String {
        format!("what is at byte {} of {} is not what was there when this was planned", area.at.get(), self.on)
    }
}

impl Area {
    fn kept(&self) -> Result<Option<Vec<u8>>> {
        match &self.saved {
            Some(path) => fs::read_limited(path, self.length),
            None => Ok(None),
        }
    }
}

/// Whether each piece is either what was kept or zeros: as far as a death let the clearing, or its way back, come.
fn is_mix(found: &[u8], kept: &[u8]) -> bool {
    let piece = usize::try_from(PIECE).unwrap_or(usize::MAX);
    found.len() == kept.len()
        && found.chunks(piece).zip(kept.chunks(piece)).all(|(f, k)| f == k || f.iter().all(|b| *b == 0))
}

fn settle(file: &File, devno: DevNo) -> Result<()> {
    file.sync_all().called("fsync", devno).context("making durable what was written to a device")
}

impl Act for ClearDevice {
    fn sentence(&self) -> String {
        let saved: Vec<_> = self.areas.iter().filter_map(|area| area.saved.as_deref()).collect();
        let kept = match saved.as_slice() {
            [] => String::new(),
            [one] => format!("; what is there is kept in {}", one.display()),
            [first, ..] => {
                format!("; what is there is kept in {} files like {}", saved.len(), first.display())
            }
        };
        let bytes = self.areas.iter().fold(0_u64, |sum, area| sum.saturating_add(area.length.get()));
        format!("clear {} of {} for the label and the metadata{kept}", Bytes::new(bytes).human(), self.on)
    }

    fn lasts(&self) -> bool {
        true
    }

    fn way_back(&self) -> WayBack {
        WayBack::By("what was there is written back")
    }

    fn apply(&self, kit: &Kit, attempt: Attempt) -> Result<()> {
        if attempt == Attempt::Again && self.is_labelled(kit)? {
            return Ok(());
        }
        self.clear(kit, attempt)
    }

    fn verify(&self, kit: &Kit) -> Result<()> {
        if self.is_labelled(kit)? {
            return Ok(());
        }
        let devno = self.on.devno()?;
        for area in &self.areas {
            let zeros = bytes_of(devno, area.at, area.length)?.iter().all(|b| *b == 0);
            ensure!(zeros, "{} has something at byte {}", self.on, area.at.get());
        }
        Ok(())
    }

    fn revert(&self, _: &Kit) -> Result<Reverted> {
        let devno = self.on.devno()?;
        for area in self.areas.iter().filter(|area| area.saved.is_some()) {
            // Without the file nothing has been cleared yet.
            let Some(kept) = area.kept()? else { continue };
            // Behind the label is the superblock, which the kernel has written since.
            let behind = usize::try_from(AREA.saturating_sub(area.at).get())?;
            let end = if area.at < AREA { kept.len().min(behind) } else { kept.len() };
            let found = bytes_of(devno, area.at, area.length)?;
            let (found, kept) = (found.get(..end).unwrap_or_default(), kept.get(..end).unwrap_or_default());
            ensure!(is_mix(found, kept), "{}", self.changed(area));
        }
        let file = on_disk::open(devno, Claim::Free)?;
        for area in &self.areas {
            let bytes = match area.kept()? {
                Some(kept) => kept,
                None if area.saved.is_some() => continue,
                // A label, or a superblock, was the only thing to come into it.
                None => vec![0; usize::try_from(area.length.get())?],
            };
            block::write_direct(&file, area.at.get(), &bytes)?;
        }
        settle(&file, devno)?;
        for path in self.areas.iter().filter_map(|area| area.saved.as_deref()) {
            fs::remove_durably(path)?;
        }
        Ok(Reverted::Gone)
    }
}

/// Returns the device of a step: by its label, else by its path, which has none then.
fn find(kit: &Kit, on: &NamedDevice, pool: &PoolUuid, device: DeviceUuid) -> Result<(DevNo, Slots)> {
    if let Some(found) = members::device(&kit.dm, pool, device)? {
        return Ok((found.member.devno, found.slots));
    }
    let devno = on.devno()?;
    let slots = slots_of(devno)?;
    match slots.newest() {
        Ok(Some(label)) => bail!("{on} carries a label of pool `{}` and is another device", label.name),
        // A slot that was being written is torn.
        Ok(None) | Err(_) => Ok((devno, slots)),
    }
}

fn slots_of(devno: DevNo) -> Result<Slots> {
    let [first, second] = on_disk::read(devno)?;
    Ok(Slots::decode([&first, &second]))
}

/// Returns the bytes of a slot: zeros for no label.
fn slot_bytes(label: Option<&Label>) -> Result<Vec<u8>> {
    Ok(label.map(Label::encode).transpose()?.unwrap_or_else(|| vec![0; SLOT_BYTES]))
}

impl WriteLabel {
    fn find(&self, kit: &Kit) -> Result<(DevNo, Slots)> {
        find(kit, &self.on, &self.label.pool, self.label.device)
    }

    /// A device that the pool has already is held by its linear devices, which keep clear of the label.
    const fn claim(&self) -> Claim {
        if self.before.is_some() { Claim::Pool } else { Claim::Free }
    }
}

impl Act for WriteLabel {
    fn sentence(&self) -> String {
        let what = self.label.role().map_or("nothing", |role| role.words());
        format!("write label {} of pool `{}` on {}: {what}", self.label.sequence, self.label.name, self.on)
    }

    fn lasts(&self) -> bool {
        true
    }

    fn way_back(&self) -> WayBack {
        WayBack::By("what its slot had is written back")
    }

    fn apply(&self, kit: &Kit, _: Attempt) -> Result<()> {
        let (devno, slots) = self.find(kit)?;
        let found = slots.newest().unwrap_or_default().cloned();
        if found.as_ref() == Some(&self.label) {
            return Ok(());
        }
        let is_as_planned = found.as_ref().map(|label| label.sequence) == self.before;
        ensure!(is_as_planned, "the label of {} is not what it was when this was planned", self.on);
        ensure!(
            self.before.is_none() || slots.next() == self.slot,
            "the slots of {} are not as they were when this was planned",
            self.on
        );
        on_disk::write(devno, self.slot, &self.label.encode()?, self.claim())
    }

    fn verify(&self, kit: &Kit) -> Result<()> {
        let (_, slots) = self.find(kit)?;
        let found = slots.newest()?;
        ensure!(found == Some(&self.label), "{} does not have the label that was written", self.on);
        Ok(())
    }

    fn revert(&self, kit: &Kit) -> Result<Reverted> {
        let (devno, slots) = self.find(kit)?;
        let counting = slots.newest().ok().flatten().map(|label| label.sequence);
        // One that came in between stands on this one.
        ensure!(counting <= Some(self.label.sequence), "the label of {} has been changed since", self.on);
        on_disk::write(devno, self.slot, &slot_bytes(self.over.as_ref())?, self.claim())?;
        Ok(Reverted::Gone)
    }
}

impl EraseLabel {
    /// Returns the step for a device with these slots; nothing when no label counts in them.
    pub fn of(on: NamedDevice, slots: &Slots) -> Option<Self> {
        let counting = slots.newest().ok().flatten()?;
        let (pool, device) = (counting.pool.clone(), counting.device);
        Some(Self { on, pool, device, slots: slots.labels() })
    }
}

impl Act for EraseLabel {
    fn sentence(&self) -> String {
        format!("erase the label on {}: the device is free then", self.on)
    }

    fn lasts(&self) -> bool {
        true
    }

    fn way_back(&self) -> WayBack {
        WayBack::By("written again")
    }

    fn apply(&self, kit: &Kit, _: Attempt) -> Result<()> {
        let Some(found) = members::device(&kit.dm, &self.pool, self.device)? else { return Ok(()) };
        let zeros = slot_bytes(None)?;
        // The slot that counts goes last: until then the device says whose it is.
        let last = usize::from(found.slots.next() == 0);
        for slot in [1 - last, last] {
            on_disk::write(found.member.devno, slot, &zeros, Claim::Free)?;
        }
        Ok(())
    }

    fn verify(&self, kit: &Kit) -> Result<()> {
        let found = members::device(&kit.dm, &self.pool, self.device)?;
        ensure!(found.is_none(), "{} still has its label", self.on);
        Ok(())
    }

    fn revert(&self, kit: &Kit) -> Result<Reverted> {
        let (devno, _) = find(kit, &self.on, &self.pool, self.device)?;
        for (slot, label) in self.slots.iter().enumerate() {
            on_disk::write(devno, slot, &slot_bytes(label.as_ref())?, Claim::Free)?;
        }
        Ok(Reverted::Gone)
    }
}
