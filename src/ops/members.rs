//! The devices of dmpool's own pools, found by their labels, whatever they are called now.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::kernel::disks::{self, label as on_disk};
use crate::kernel::dm::{Dm, DmId};
use crate::kernel::{ask, block};
use crate::metadata::{BLOCK, BadSuperblock, Superblock};
use crate::ops::sight;
use crate::pool::disk::{BlockDevice, Kind};
use crate::pool::label::{self, Assembly, BadLabel, DeviceUuid, Label, Member, Purpose, Slots, Unassembled};
use crate::pool::{DevNo, Entry, PoolUuid, UUID_PREFIX};

/// How long all devices together have for telling what is on them.
const LIMIT: Duration = Duration::from_secs(10);

/// A device with a label.
#[derive(Clone, Debug)]
pub struct Labelled {
    /// The device, and the label that counts.
    pub member: Member,
    /// Both of its slots.
    pub slots: Slots,
}

/// What was seen of the labels on a machine.
#[derive(Clone, Debug, Default)]
pub struct Sight {
    /// The devices with a label, in the order of their numbers.
    pub labelled: Vec<Labelled>,
    /// Those that could not be read, or whose label cannot be used: each a sentence that begins with its name.
    pub unread: Vec<String>,
    /// The numbers of those that could not be read.
    pub silent: Vec<DevNo>,
    /// The names of those whose label cannot be used: that time does not mend.
    pub torn: Vec<String>,
}

/// Reads the labels of all devices that may have one. A device beneath another that shows the same label (a path of a
/// multipath device, a member of a RAID 1) is left out.
///
/// # Errors
/// When sysfs cannot be listed.
pub fn look(dm: &Dm) -> Result<Sight> {
    let all = disks::inventory(&disks::Roots::default())?;
    let candidates: Vec<_> = all.iter().filter(|device| may_carry(dm, &all, device)).collect();
    let mut sight = Sight::default();
    let (asleep, candidates): (Vec<_>, Vec<_>) = candidates.into_iter().partition(|device| is_asleep(&all, device));
    let name = |device: &BlockDevice| device.path().display().to_string();
    sight
        .unread
        .extend(asleep.iter().map(|d| format!("{} was not read: it is suspended, or on something that is", name(d))));
    sight.silent.extend(asleep.iter().map(|device| device.devno));
    for (device, read) in candidates.iter().zip(slots_of(&candidates)) {
        let name = name(device);
        let slots = match read {
            Ok([first, second]) => Slots::decode([&first, &second]),
            Err(why) => {
                sight.unread.push(format!("{name} was not read: {why}"));
                sight.silent.push(device.devno);
                continue;
            }
        };
        match slots.newest().map(Option::<&Label>::cloned) {
            Ok(Some(label)) => {
                let length = device.size.sectors();
                let member = Member { devno: device.devno, name, length, label };
                sight.labelled.push(Labelled { member, slots });
            }
            // The device may end before its slots.
            Ok(None) | Err(BadLabel::Short(_)) => {}
            Err(bad) => {
                sight.unread.push(format!("{name} has a label that cannot be used: {bad}"));
                sight.torn.push(name);
            }
        }
    }
    let labelled = sight.labelled.clone();
    let same = |a: &Label, b: &Label| a.pool == b.pool && a.device == b.device;
    sight.labelled.retain(|lower| {
        let mut above = labelled.iter().filter(|upper| same(&upper.member.label, &lower.member.label));
        !above.any(|upper| stands_on(&all, upper.member.devno, lower.member.devno))
    });
    Ok(sight)
}

type Bytes = [Vec<u8>; 2];

/// Returns the bytes of the slots of each device, in their order. One child reads them all; when it is not heard of, a child
/// for each: one device that hangs keeps none of the others.
fn slots_of(devices: &[&BlockDevice]) -> Vec<Result<Bytes, String>> {
    let read = |device: &BlockDevice| on_disk::read(device.devno).map_err(|e| format!("{:#}", e.root_cause()));
    match ask::within_limit(|| devices.iter().map(|device| read(device)).collect::<Vec<_>>()) {
        Ok(all) => all,
        Err(_) => {
            let mut each: Vec<_> = devices.iter().map(|device| || read(device)).collect();
            let mut questions: Vec<&mut dyn FnMut() -> _> = each.iter_mut().map(|one| one as _).collect();
            ask::all_within(LIMIT, &mut questions).into_iter().map(|answer| answer.and_then(|read| read)).collect()
        }
    }
}

impl Sight {
    /// Returns the devices of one pool.
    pub fn of(&self, pool: &PoolUuid) -> Vec<Member> {
        let of_it = self.labelled.iter().filter(|labelled| &labelled.member.label.pool == pool);
        of_it.map(|labelled| labelled.member.clone()).collect()
    }

    /// Returns the device with that label, or nothing when there is none.
    ///
    /// # Errors
    /// When there are two.
    pub fn device(&self, pool: &PoolUuid, device: DeviceUuid) -> Result<Option<&Labelled>> {
        let is_it = |label: &Label| (&label.pool, label.device) == (pool, device);
        let found: Vec<_> = self.labelled.iter().filter(|labelled| is_it(&labelled.member.label)).collect();
        match found.as_slice() {
            [_, _, ..] => {
                let names: Vec<_> = found.iter().map(|labelled| labelled.member.name.as_str()).collect();
                bail!("{} have one label: one is a copy of the other", names.join(" and "))
            }
            found => Ok(found.first().copied()),
        }
    }

    /// Returns what the devices are called, each once, on which a part of a pool is.
    pub fn names(&self, assembly: &Assembly, purpose: Purpose) -> Vec<PathBuf> {
        let mut names: Vec<PathBuf> = Vec::new();
        let segments = assembly.label.map.iter().filter(|segment| segment.purpose == purpose);
        for leg in segments.flat_map(|segment| &segment.legs) {
            let is_it = |labelled: &&Labelled| labelled.member.label.device == leg.device;
            let name = self.labelled.iter().find(is_it).map(|found| PathBuf::from(&found.member.name));
            names.extend(name.filter(|name| !names.contains(name)));
        }
        names
    }

    /// Puts a pool together.
    ///
    /// # Errors
    /// Why it cannot be, with the devices that could not be read.
    pub fn assembled(&self, pool: &PoolUuid) -> Result<Assembly> {
        label::assemble(&self.of(pool)).map_err(|why| match self.unread.as_slice() {
            [] => anyhow::Error::new(why),
            unread => {
                let said = format!("{why}; {}", unread.join("; "));
                anyhow::Error::new(why).context(said)
            }
        })
    }
}

/// Puts a pool together from the labels as they are now.
///
/// # Errors
/// Why it cannot be: a device is missing, there twice, too short, or its label cannot be used.
pub fn assembled(dm: &Dm, pool: &PoolUuid) -> Result<Assembly> {
    look(dm)?.assembled(pool).with_context(|| "putting the pool together from the labels of its devices".to_owned())
}

/// Returns the device with that label, or nothing when there is none.
///
/// # Errors
/// When there are two; when sysfs cannot be listed.
pub fn device(dm: &Dm, pool: &PoolUuid, device: DeviceUuid) -> Result<Option<Labelled>> {
    Ok(look(dm)?.device(pool, device)?.cloned())
}

/// Returns the superblock of a pool that is put together, read where its metadata begins.
///
/// # Errors
/// When it cannot be read; the inner result says what is wrong with the bytes.
pub fn superblock(assembly: &Assembly) -> Result<Result<Superblock, BadSuperblock>> {
    let (devno, at) = first_of_metadata(assembly).context("looking for the metadata in the label's map")?;
    let file = block::open_direct(devno)?;
    Ok(Superblock::parse(&block::read_direct(&file, at, BLOCK)?))
}

/// Returns the block of a pool's metadata that begins at such a byte, as its labels' map has it.
///
/// # Errors
/// When the map does not reach so far, or the device cannot be read.
pub fn metadata_block(assembly: &Assembly, offset: u64) -> Result<Vec<u8>> {
    let mut before = 0;
    for segment in assembly.label.map.iter().filter(|segment| segment.purpose == Purpose::Metadata) {
        let [leg] = segment.legs.as_slice() else { bail!("its metadata is striped") };
        let length = segment.length.bytes().get();
        if offset < before + length {
            let devno = assembly.devices.get(&leg.device).context("looking for the device of its metadata")?;
            return block::read_direct(&block::open_direct(*devno)?, leg.start.bytes().get() + offset - before, BLOCK);
        }
        before += length;
    }
    bail!("its metadata ends at byte {before}, before {offset}")
}

/// Returns the superblock of a registered pool that is down; as if it were blank when its file, or every label, is not there.
///
/// # Errors
/// When it cannot be read; the inner result says what is wrong with the bytes.
pub fn recorded(dm: &Dm, entry: &Entry) -> Result<Result<Superblock, BadSuperblock>> {
    if let Some([metadata, _]) = entry.files() {
        return if metadata.file.exists() {
            sight::superblock_in(&metadata.file)
        } else {
            Ok(Err(BadSuperblock::Zero))
        };
    }
    let sight = look(dm)?;
    if sight.of(&entry.uuid).is_empty() && sight.unread.is_empty() {
        return Ok(Err(BadSuperblock::Zero));
    }
    superblock(&sight.assembled(&entry.uuid)?)
}

/// Whether labels did not come to a pool because some are not there: as long as one was never written, no pool was ever
/// brought up from them.
pub fn is_incomplete(why: &anyhow::Error) -> bool {
    matches!(why.downcast_ref(), Some(Unassembled::None | Unassembled::Missing(_)))
}

fn first_of_metadata(assembly: &Assembly) -> Option<(DevNo, u64)> {
    let leg = assembly.label.map.iter().find(|s| s.purpose == Purpose::Metadata)?.legs.first()?;
    Some((*assembly.devices.get(&leg.device)?, leg.start.bytes().get()))
}

/// Whether a device is one that a label is looked for on: never dmpool's own, and never a volume of a thin pool, whose
/// content is somebody else's.
fn may_carry(dm: &Dm, all: &[BlockDevice], device: &BlockDevice) -> bool {
    let lasting = match &device.kind {
        Kind::Disk | Kind::Partition | Kind::Md { .. } | Kind::Multipath { .. } | Kind::LogicalVolume { .. } => true,
        Kind::Dm { owner, .. } => owner.as_deref() != Some(UUID_PREFIX.trim_end_matches('-')),
        Kind::Loop { .. } => true,
        Kind::Memory | Kind::Optical | Kind::Floppy => false,
    };
    lasting && device.size.get() > 0 && !is_thin(dm, all, device, DEPTH)
}

/// How deep devices are followed downwards: more storeys than anyone builds.
const DEPTH: usize = 16;

/// Whether a device, or one that it stands on, is a thin pool or a volume of one.
fn is_thin(dm: &Dm, all: &[BlockDevice], device: &BlockDevice, depth: usize) -> bool {
    let Some(depth) = depth.checked_sub(1) else { return true };
    if device.name.starts_with("dm-") {
        let lines = dm.table(&DmId::from(device.devno)).unwrap_or_default();
        if lines.iter().any(|line| line.kind == "thin" || line.kind == crate::pool::THIN_POOL) {
            return true;
        }
    }
    let below = |devno: &DevNo| all.iter().find(|other| other.devno == *devno);
    device.slaves.iter().chain(&device.disk).filter_map(below).any(|lower| is_thin(dm, all, lower, depth))
}

/// Whether a reader of the device would wait for somebody who has suspended it, or one beneath it.
fn is_asleep(all: &[BlockDevice], device: &BlockDevice) -> bool {
    let suspended = |other: &&BlockDevice| other.suspended;
    device.suspended || all.iter().filter(suspended).any(|lower| stands_on(all, device.devno, lower.devno))
}

fn stands_on(all: &[BlockDevice], upper: DevNo, lower: DevNo) -> bool {
    let mut above = vec![upper];
    for _ in 0..DEPTH {
        above = all.iter().filter(|d| above.contains(&d.devno)).flat_map(|d| d.slaves.clone()).collect();
        if above.contains(&lower) {
            return true;
        }
    }
    false
}
