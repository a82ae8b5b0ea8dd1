//! `grow`: a pool becomes larger while everything runs.
//!
//! The file is extended and synced, the loop device told, a linear device in between reloaded, and then the pool: one
//! load and one ioctl by which the kernel itself suspends, swaps and resumes. The thin volumes above need nothing.

mod devices;
mod lvm;
mod notes;
mod plan;
mod room;

pub use lvm::{Beneath, Under};
pub use plan::plan;
pub use room::{GroupRoom, Room, room};

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Failure, Outcome};
use crate::kernel::fs::{self as durable, FsFacts};
use crate::kernel::loopdev::LoopInfo;
use crate::metadata::Superblock;
use crate::ops::find::Found;
use crate::ops::plan::Plan;
use crate::ops::steps::{self, Kit, Part};
use crate::ops::{Change, Done, facts, gate, ground, journal, promised, sight};
use crate::pool::{Backing, Carrier, LoopFile, Maker, PoolReport};
use crate::process::quote;
use crate::units::{BlockSize, Bytes, META_BLOCK_BYTES, SizeArg};

/// What `grow` is asked for.
#[derive(Clone, Debug)]
pub struct Options {
    /// Which part.
    pub part: Part,
    /// How large it shall be.
    pub size: SizeArg,
    /// Whether `max` takes what the volume group of its LVs has left.
    pub takes_group: bool,
    /// How large the metadata will be by then, when it is grown before this part.
    pub metadata: Option<Bytes>,
    /// Whether it may promise more than the host's file system has, even when nothing is gained now.
    pub overcommit: bool,
    /// The devices that are added to a pool on devices.
    pub add: Vec<PathBuf>,
    /// Whether what others have left on them goes.
    pub wipe: bool,
}

impl Options {
    /// Asks that a part shall have a size, and nothing else.
    pub const fn new(part: Part, size: SizeArg) -> Self {
        Self { part, size, takes_group: true, metadata: None, overcommit: false, add: Vec::new(), wipe: false }
    }
}

/// What decides whether it can be done.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The pool.
    pub report: PoolReport,
    /// What its superblock says; what was wrong with it otherwise.
    pub superblock: Result<Superblock, String>,
    /// Its registered uuid, when dmpool made it.
    pub entry: Option<crate::pool::Entry>,
    /// The loop devices on the part's file: there must be one.
    pub loops: Vec<LoopInfo>,
    /// What the path of the loop file leads to now.
    pub file: FileFacts,
    /// The file system under it.
    pub fs: Option<FsFacts>,
    /// Whether that file system can hold a file that long; nothing when it cannot be tried.
    pub holds: Option<bool>,
    /// The largest file this process may make, when it is limited.
    pub file_size_limit: Option<Bytes>,
    /// What other pools' files on the same file system may still take of it.
    pub promised_to_others: Bytes,
    /// The LV beneath the part, or LVM's thin pool itself; of a pool on labelled devices that is found by the labels.
    pub under: Beneath,
    /// dmpool's own needs that lie on the pool.
    pub needs_on_it: Vec<PathBuf>,
    /// How many hundredths of its pool Docker keeps free, when Docker uses it and its options are known.
    pub docker_minimum: Option<u8>,
}

/// What the path of a loop file leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileFacts {
    /// The file that the loop device has.
    Same,
    /// Another file: the one that the loop device has was moved or replaced.
    Another,
    /// A block device, which a loop device has: Docker's shape of a symbolic link to a disk.
    Device,
    /// Nothing, or it could not be looked at.
    Missing,
}

/// Grows the pool, or says what would be done.
///
/// # Errors
/// Refused with the reason; [`crate::error::Kind::Failed`] when it could not be done and was taken back.
pub fn grow(kit: &Kit, found: &Found, options: &Options, change: Change) -> Outcome<Done> {
    let first = decide(kit, found, options)?;
    steps::agreed_by_lvm(&first.steps, &first.what)?;
    gate::may_change(kit)?;
    gate::no_interrupted(kit, &found.name)?;
    if change == Change::Describe || first.is_empty() {
        return Ok(Done::planned(first));
    }
    let key = match &found.entry {
        Some(entry) => gate::key_of_entry(entry),
        None => gate::key_of(&metadata_of(&look(kit, found, options)?.report)),
    };
    // Somebody else's `create` must not take a device that is added here.
    let _existence = if options.add.is_empty() { None } else { Some(gate::lock(kit, gate::EXISTENCE, &first.what)?) };
    let _lock = gate::lock(kit, &key, &first.what)?;
    gate::no_interrupted(kit, &found.name)?;
    let plan = decide(kit, found, options)?;
    let ended = journal::carry_out(kit, plan.clone())?;
    Ok(Done::ended(plan, ended))
}

fn decide(kit: &Kit, found: &Found, options: &Options) -> Outcome<Plan> {
    if let Some(entry) = &found.entry {
        gate::not_prepared(entry, &format!("grow pool `{}`", found.name))?;
    }
    let facts = look(kit, found, options)?;
    match found.entry.as_ref().filter(|entry| !entry.devices().is_empty()) {
        Some(entry) => devices::look(kit, entry, options.part, &options.add)?.plan(kit, &facts, options),
        None if !options.add.is_empty() => Err(Failure::refused(format!(
            "cannot grow pool `{}`: a device can be added only to a pool on devices that dmpool has formatted",
            found.name
        ))
        .fact("state", "nothing was touched")
        .next(format!("dmpool grow {}    # says what can be chosen", quote(&found.name)))),
        None if facts.report.maker == Maker::Lvm => lvm::plan(&facts, options),
        None => plan(&facts, options),
    }
}

/// Returns how much room a part of a pool has; nothing when that is not known.
pub fn room_of(kit: &Kit, found: &Found, report: &PoolReport, part: Part) -> Option<Room> {
    match &found.entry {
        Some(entry) if !entry.devices().is_empty() => devices::room_on(kit, found, report, part),
        _ if report.maker == Maker::Lvm => lvm::room_of(report, part, lvm::thin_pool(report).ok()?.as_ref()?),
        _ => lvm::with_room(room(report, part, promised_to_others(kit, report, part)), &beneath(kit, report, part)),
    }
}

/// Returns what LVM says of what is beneath a part of a pool that has no labels.
fn beneath(kit: &Kit, report: &PoolReport, part: Part) -> Beneath {
    let backing = part_of(report, part);
    let device = match (&backing.carrier, report.maker) {
        (_, Maker::Lvm) => return lvm::thin_pool(report),
        (Carrier::Device { .. }, _) if backing.linear.is_none() => backing.device,
        (Carrier::LoopOverDevice { disk, .. }, _) => disk.number,
        _ => None,
    };
    device.map_or(Ok(None), |device| lvm::under(&kit.dm, device, None))
}

/// Looks at what decides.
///
/// # Errors
/// Refused when its registry entry cannot be used; when the pool cannot be looked at.
pub fn look(kit: &Kit, found: &Found, options: &Options) -> Outcome<Facts> {
    if let Some(bad) = &found.bad_entry {
        return Err(bad.failure());
    }
    let report = facts::look(kit, found)?;
    let cannot = |e: anyhow::Error| Failure::failed(format!("cannot grow pool `{}`", found.name)).because(e);
    let backing = part_of(&report, options.part);
    let superblock = match &report.table {
        Some(table) => sight::superblock_within_limit(table.metadata),
        None => Err("the pool is not active".to_owned()),
    };
    let file_size_limit = durable::file_size_limit().map_err(cannot)?;
    let promised_to_others = promised_to_others(kit, &report, options.part);
    let (loops, file, fs, holds) = match &backing.carrier {
        Carrier::Loop { file, .. } if !file.deleted => {
            look_at_file(&file.path, &report, options, promised_to_others, file_size_limit)
        }
        Carrier::LoopOverDevice { disk, .. } => look_at_disk(&disk.path),
        _ => (Vec::new(), FileFacts::Missing, None, None),
    };
    let is_labelled = found.entry.as_ref().is_some_and(|entry| !entry.devices().is_empty());
    let under = if is_labelled { Ok(None) } else { beneath(kit, &report, options.part) };
    let needs_on_it = report.device.map(|device| ground::needs_on(&kit.state, device)).unwrap_or_default();
    Ok(Facts {
        docker_minimum: found.docker.as_ref().and_then(|root| root.options.minimum_free_percent()),
        entry: found.entry.clone(),
        report,
        superblock,
        loops,
        file,
        fs,
        holds,
        file_size_limit,
        promised_to_others,
        under,
        needs_on_it,
    })
}

type FileLook = (Vec<LoopInfo>, FileFacts, Option<FsFacts>, Option<bool>);

/// Returns what other pools' files may still take of the file system under a part of this one.
pub fn promised_to_others(kit: &Kit, report: &PoolReport, part: Part) -> Bytes {
    let Some(host) = part_of(report, part).loop_file().and_then(|file| file.host.as_ref()) else {
        return Bytes::default();
    };
    let own: Vec<_> = [&report.data, &report.metadata].into_iter().filter_map(|b| b.loop_file()).collect();
    let own: Vec<PathBuf> = own.into_iter().map(|file| file.path.clone()).collect();
    promised::by_others(&kit.state, host.device, &own)
}

fn look_at_file(path: &Path, report: &PoolReport, options: &Options, others: Bytes, limit: Option<Bytes>) -> FileLook {
    use std::os::unix::fs::FileTypeExt;
    let Ok(found) = fs::metadata(path) else { return (Vec::new(), FileFacts::Missing, None, None) };
    let loops = sight::loops_on(path).unwrap_or_default();
    let carrier = match &part_of(report, options.part).carrier {
        Carrier::Loop { device: Some(device), .. } => Some(device),
        _ => None,
    };
    let file = if found.file_type().is_block_device() {
        FileFacts::Device
    } else if carrier.is_some_and(|device| loops.iter().any(|l| l.path() == *device)) {
        FileFacts::Same
    } else {
        FileFacts::Another
    };
    let fs = FsFacts::of(path).ok();
    let room = room(report, options.part, others);
    let wanted = room.and_then(|room| room::wanted(options.size, &room, block_of(report, options.part)));
    let holds = match (wanted, path.parent(), fs.as_ref().is_some_and(|f| f.read_only)) {
        (Some(wanted), Some(folder), false) if !gate::is_past(wanted, limit) => {
            durable::can_hold(folder, wanted).unwrap_or(None)
        }
        _ => None,
    };
    (loops, file, fs, holds)
}

/// A disk has no file system that could be too small.
fn look_at_disk(path: &Path) -> FileLook {
    use std::os::unix::fs::FileTypeExt;
    let is_disk = fs::metadata(path).is_ok_and(|found| found.file_type().is_block_device());
    let loops = sight::loops_on(path).unwrap_or_default();
    let file = if is_disk && !loops.is_empty() { FileFacts::Device } else { FileFacts::Missing };
    (loops, file, None, None)
}

/// Returns the backing of one part of a pool.
pub(super) const fn part_of(report: &PoolReport, part: Part) -> &Backing {
    match part {
        Part::Data => &report.data,
        Part::Metadata => &report.metadata,
    }
}

/// Returns the unit that a part's size is a multiple of.
fn block_of(report: &PoolReport, part: Part) -> Bytes {
    match part {
        Part::Data => report.block_bytes().unwrap_or(BlockSize::DEFAULT.bytes()),
        Part::Metadata => Bytes::new(META_BLOCK_BYTES),
    }
}

/// Returns the path that the pool's lock is named by.
fn metadata_of(report: &PoolReport) -> PathBuf {
    match (&report.metadata.carrier, report.metadata.device) {
        (Carrier::Loop { file: LoopFile { path, .. }, .. } | Carrier::Device { path }, _) => path.clone(),
        (Carrier::LoopOverDevice { disk, .. }, _) => disk.path.clone(),
        (Carrier::Devices { .. } | Carrier::Unknown, Some(device)) => PathBuf::from(format!("/dev/block/{device}")),
        (Carrier::Devices { .. } | Carrier::Unknown, None) => PathBuf::new(),
    }
}
