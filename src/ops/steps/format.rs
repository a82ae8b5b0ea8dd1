//! Steps that write on devices themselves: what was there is kept, and goes back when the operation is taken back.

use std::fs::File;
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::kernel::disks::label::{self as on_disk, Claim};
use crate::kernel::{Called, block, fs};
use crate::ops::members;
use crate::ops::steps::{Act, Attempt, Kit, NamedDevice, Reverted, WayBack, whose};
use crate::pool::label::{DeviceUuid, Label, SLOT_BYTES, Slots};
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

impl ClearDevice {
    /// Whether the label stands already: then everything was cleared, and the pool may have written since.
    fn is_labelled(&self, kit: &Kit) -> Result<bool> {
        let Some(found) = members::device(&kit.dm, &self.pool, self.device)? else { return Ok(false) };
        // Who formats a disk need not come by its label.
        ensure!(whose::is_bare(found.member.devno)?, "{}", whose::sentence(&self.on));
        Ok(true)
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
                    ensure!(
                        kept.is_some_and(|kept| whose::is_mix(&found, &[&kept], piece())),
                        "{}",
                        self.changed(area)
                    );
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

    /// Says what is left as it is, and where that is kept which was there before.
    fn left(&self, why: String) -> Reverted {
        let saved = self.areas.iter().filter_map(|area| area.saved.as_deref()).filter(|path| path.exists());
        let kept: Vec<_> = saved.map(|path| path.display().to_string()).collect();
        Reverted::Left(match kept.as_slice() {
            [] => why,
            kept => format!("{why}; what was there before is kept in {}", kept.join(" and ")),
        })
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

/// How long a piece is, as memory is counted.
fn piece() -> usize {
    usize::try_from(PIECE).unwrap_or(usize::MAX)
}

/// Makes durable what was written to a device.
pub(super) fn settle(file: &File, devno: DevNo) -> Result<()> {
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

    fn revert(&self, kit: &Kit) -> Result<Reverted> {
        let devno = match (members::device(&kit.dm, &self.pool, self.device)?, self.on.here()?) {
            (Some(found), _) => found.member.devno,
            (None, Ok(devno)) => devno,
            (None, Err(why)) => return Ok(self.left(format!("{why}; nothing on it was taken back"))),
        };
        let mut back = Vec::new();
        for area in &self.areas {
            let before = match area.kept()? {
                Some(kept) => kept,
                // Without the file nothing has been cleared yet.
                None if area.saved.is_some() => continue,
                None => vec![0; usize::try_from(area.length.get())?],
            };
            let found = bytes_of(devno, area.at, area.length)?;
            if !whose::is_its(area.at, &found, &before, &self.pool, self.device) {
                return Ok(self.left(whose::sentence(&self.on)));
            }
            if found != before {
                back.push((area.at.get(), found, before));
            }
        }
        if !back.is_empty() {
            let file = on_disk::open(devno, Claim::Free)?;
            for (at, found, before) in &back {
                let is_same = block::read_direct(&file, *at, found.len())? == *found;
                ensure!(is_same, "somebody writes to {} while it is taken back", self.on);
                block::write_direct(&file, *at, before)?;
            }
            settle(&file, devno)?;
        }
        for path in self.areas.iter().filter_map(|area| area.saved.as_deref()) {
            fs::remove_durably(path)?;
        }
        Ok(Reverted::Gone)
    }
}

/// The device of a step that writes a label.
pub(super) enum Found {
    /// It carries the label, or nothing in its slots but what a death leaves of one.
    Its(DevNo, Box<Slots>),
    /// Its slots have something else.
    Foreign,
    /// It is not here: why it cannot be told which one it is.
    Gone(String),
}

/// Says of what a step should have erased where it stays; nothing where it is erased already.
pub(super) fn stays_on(found: Result<Found>, on: &NamedDevice, what: &str, attempt: Attempt) -> Option<String> {
    let stays = match attempt {
        Attempt::First => "stays on it",
        // An earlier attempt may have come so far.
        Attempt::Again => "may still be on it",
    };
    match found {
        Ok(Found::Its(..)) => None,
        Ok(Found::Foreign) => Some(whose::sentence(on)),
        Ok(Found::Gone(_)) if !on.path.exists() => Some(format!("{on} is not here any more: its {what} {stays}")),
        Ok(Found::Gone(why)) => Some(format!("{why}: its {what} may still be on it")),
        Err(why) => Some(format!("{on} cannot be read: its {what} {stays} ({:#})", why.root_cause())),
    }
}

/// Looks for the device of a step: by its label, else by its path, where its slots have nothing but these labels, whole or torn.
pub(super) fn find(
    kit: &Kit,
    on: &NamedDevice,
    pool: &PoolUuid,
    device: DeviceUuid,
    labels: &[&Label],
) -> Result<Found> {
    let sight = members::look(&kit.dm)?;
    if let Some(found) = sight.device(pool, device)? {
        return Ok(Found::Its(found.member.devno, Box::new(found.slots.clone())));
    }
    let devno = match on.here()? {
        Ok(devno) => devno,
        Err(why) => return Ok(Found::Gone(why)),
    };
    // Who reads it here would wait for it as long as it hangs.
    ensure!(!sight.silent.contains(&devno), "{on} is here, and cannot be read");
    if sight.of(pool).iter().any(|other| other.devno == devno) {
        return Ok(Found::Gone(format!("{on} is another device of the pool")));
    }
    let [first, second] = on_disk::read(devno)?;
    Ok(match [&first, &second].iter().all(|slot| whose::is_slot(slot, labels)) {
        true => Found::Its(devno, Box::new(Slots::decode([&first, &second]))),
        false => Found::Foreign,
    })
}

/// Returns the bytes of a slot: zeros for no label.
fn slot_bytes(label: Option<&Label>) -> Result<Vec<u8>> {
    Ok(label.map(Label::encode).transpose()?.unwrap_or_else(|| vec![0; SLOT_BYTES]))
}

impl WriteLabel {
    fn look(&self, kit: &Kit) -> Result<Found> {
        let labels: Vec<_> = self.over.iter().chain([&self.label]).collect();
        find(kit, &self.on, &self.label.pool, self.label.device, &labels)
    }

    fn find(&self, kit: &Kit) -> Result<(DevNo, Slots)> {
        match self.look(kit)? {
            Found::Its(devno, slots) if self.is_still_its(devno)? => Ok((devno, *slots)),
            Found::Its(..) | Found::Foreign => bail!("{}", whose::sentence(&self.on)),
            Found::Gone(why) => bail!("{why}"),
        }
    }

    /// Whether nobody else has taken a device that the pool does not have yet: one that it has is held.
    fn is_still_its(&self, devno: DevNo) -> Result<bool> {
        Ok(self.before.is_some() || whose::is_bare(devno)?)
    }

    /// What becomes of a label that cannot be taken back. As long as the pool's older devices have the label of that number,
    /// what came before stands too: they agree.
    fn left(&self, why: String) -> Reverted {
        match self.before {
            Some(_) => Reverted::Stands(format!("{why}; the labels of pool `{}` stay as they are", self.label.name)),
            None => Reverted::Left(why),
        }
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
        let (devno, slots) = match self.look(kit)? {
            Found::Its(devno, slots) if self.is_still_its(devno)? => (devno, slots),
            Found::Its(..) | Found::Foreign => return Ok(self.left(whose::sentence(&self.on))),
            Found::Gone(why) => return Ok(self.left(format!("{why}; nothing on it was taken back"))),
        };
        if self.before.is_none() && self.on.here()?.ok() != Some(devno) {
            // Only the label tells which device it is: it goes when what was cleared comes back.
            return Ok(Reverted::Gone);
        }
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

    fn apply(&self, kit: &Kit, attempt: Attempt) -> Result<()> {
        let labels: Vec<_> = self.slots.iter().flatten().collect();
        let Some(found) = members::device(&kit.dm, &self.pool, self.device)? else {
            let found = find(kit, &self.on, &self.pool, self.device, &labels);
            stays_on(found, &self.on, "label", attempt).into_iter().for_each(|what| kit.say(what));
            return Ok(());
        };
        let zeros = slot_bytes(None)?;
        // The slot that counts goes last: until then the device says whose it is.
        let last = usize::from(found.slots.next() == 0);
        let bytes = on_disk::read(found.member.devno)?;
        for slot in [1 - last, last] {
            // Who formats a disk need not come by both slots.
            if bytes.get(slot).is_some_and(|bytes| whose::may_be_erased(bytes, &labels)) {
                on_disk::write(found.member.devno, slot, &zeros, Claim::Free)?;
            }
        }
        Ok(())
    }

    fn verify(&self, kit: &Kit) -> Result<()> {
        let found = members::device(&kit.dm, &self.pool, self.device)?;
        ensure!(found.is_none(), "{} still has its label", self.on);
        Ok(())
    }

    fn revert(&self, kit: &Kit) -> Result<Reverted> {
        let labels: Vec<_> = self.slots.iter().flatten().collect();
        let devno = match find(kit, &self.on, &self.pool, self.device, &labels)? {
            Found::Its(devno, _) if whose::is_bare(devno)? => devno,
            Found::Its(..) | Found::Foreign => return Ok(Reverted::Stands(whose::sentence(&self.on))),
            // Without the label on it the pool cannot come back when its device does; `continue` needs none.
            Found::Gone(why) => bail!("{why}"),
        };
        for (slot, label) in self.slots.iter().enumerate() {
            on_disk::write(devno, slot, &slot_bytes(label.as_ref())?, Claim::Free)?;
        }
        Ok(Reverted::Gone)
    }
}
