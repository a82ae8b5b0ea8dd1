//! Taking devices that were named for a pool: whether they can be, and what is cleared of them.

use std::path::{Path, PathBuf};

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::error::{Failure, Outcome};
use crate::kernel::ask;
use crate::ops::disks::{self, Disks};
use crate::ops::journal;
use crate::ops::steps::{self, ClearDevice, Kit, NamedDevice, PIECE, bytes_of};
use crate::pool::disk::{BlockDevice, Signature, Unfit};
use crate::pool::label::{AREA, DeviceUuid};
use crate::pool::{DevNo, Interrupted, PoolName, PoolUuid};
use crate::process::quote;
use crate::units::Bytes;

/// A device that was named.
#[derive(Clone, Debug)]
pub struct Named {
    /// The name that was given.
    pub given: PathBuf,
    /// The device; nothing when there is none of that name.
    pub device: Option<BlockDevice>,
    /// Why it cannot carry a pool, or not as it is.
    pub unfit: Vec<Unfit>,
    /// What would be cleared of it, in the order of the device.
    pub areas: Vec<Area>,
    /// The operation on another pool that was begun on it and has not ended.
    pub unfinished: Option<Interrupted>,
}

/// A part of a device that would be cleared.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Area {
    /// Where it begins.
    pub at: Bytes,
    /// How long it is.
    pub length: Bytes,
    /// CRC-32C of what is there.
    pub checksum: u32,
    /// Whether that is zeros.
    pub zero: bool,
}

/// Looks at devices by the names that were given; opens them for reading only.
///
/// # Errors
/// When sysfs, /proc or the journals cannot be read.
pub fn look(kit: &Kit, pool: &str, paths: &[&Path]) -> Outcome<Vec<Named>> {
    let mut disks = disks::at(paths, disks::LIMIT)?;
    let is_label = |unfit: &Unfit| matches!(unfit, Unfit::Label { .. });
    if paths.iter().any(|path| disks.named(path).is_ok_and(|disk| disk.unfit.iter().any(is_label))) {
        // Whether it is a copy is told by the others.
        disks = disks::disks(disks::LIMIT)?;
    }
    let mut found: Vec<_> = paths.iter().map(|path| one(&disks, path)).collect();
    for unfinished in journal::others(&kit.state, pool)? {
        let devices: Vec<DevNo> = unfinished.opened.plan.named_devices().filter_map(NamedDevice::number).collect();
        let is_of_it = |named: &&mut Named| named.device.as_ref().is_some_and(|d| devices.contains(&d.devno));
        for named in found.iter_mut().filter(is_of_it) {
            named.unfinished = Some(journal::ways_out(kit, &unfinished));
        }
    }
    Ok(found)
}

fn one(disks: &Disks, given: &Path) -> Named {
    let given = given.to_owned();
    let disk = match disks.named(&given) {
        Ok(disk) => disk,
        Err(why) => return Named { given, device: None, unfit: vec![why], areas: Vec::new(), unfinished: None },
    };
    let mut unfit = disk.unfit.clone();
    let mut found = Vec::new();
    // What somebody has is not even read.
    if unfit.iter().all(Unfit::is_content) {
        let signatures = disk.signatures.as_deref().unwrap_or_default();
        let (devno, size) = (disk.device.devno, disk.device.size);
        let read = ask::within_limit(|| areas(devno, size, signatures).map_err(|e| format!("{e:#}")));
        match read.and_then(|read| read) {
            Ok(read) => found = read,
            Err(why) => unfit.push(Unfit::NotRead { why }),
        }
    }
    Named { given, device: Some(disk.device.clone()), unfit, areas: found, unfinished: None }
}

impl Named {
    /// Refuses a device that cannot be taken, or has something on it that was not said to go.
    ///
    /// # Errors
    /// Refused with every reason, the weightiest first.
    pub fn fit(&self, wipe: bool, refuse: &impl Fn(String) -> Failure) -> Outcome<()> {
        if let Some(unfinished) = &self.unfinished {
            let what = format!("`{}` cannot be taken: an operation on it was interrupted", self.given.display());
            return Err(refuse(what)
                .fact("found", format!("the journal {}: {}", unfinished.id, unfinished.what))
                .fact("state", "nothing was touched")
                .next(unfinished.ways()));
        }
        let may_go = |unfit: &Unfit| wipe && unfit.is_content() && !matches!(unfit, Unfit::Label { .. });
        let mut reasons: Vec<_> = self.unfit.iter().filter(|unfit| !may_go(unfit)).collect();
        // What nobody can wipe comes first.
        reasons.sort_by_key(|unfit| unfit.is_content());
        let Some((first, rest)) = reasons.split_first() else { return Ok(()) };
        let mut failure = refuse(format!("`{}` cannot be taken: {}", self.given.display(), first.sentence()));
        if !rest.is_empty() {
            let all: Vec<_> = rest.iter().map(|unfit| unfit.sentence()).collect();
            failure = failure.fact("also", all.join("\n"));
        }
        // What is a copy's is not that pool's to destroy.
        let copy = rest.iter().find(|unfit| matches!(unfit, Unfit::Copy { .. }));
        Err(failure.fact("state", "nothing was touched").next(next(copy.unwrap_or(first), self)))
    }

    /// Returns the device by the best name that it has.
    ///
    /// # Errors
    /// When there is none, or the kernel does not tell which boot this is.
    pub fn on(&self, refuse: &impl Fn(String) -> Failure) -> Outcome<NamedDevice> {
        let device = self.device.as_ref().ok_or_else(|| refuse(format!("`{}` is missing", self.given.display())))?;
        NamedDevice::of(&device.path(), device.size)
            .map_err(|e| refuse("it cannot be told which boot this is".to_owned()).because(e))
    }

    /// Returns the step that clears the device for a label and for what comes behind it; what is there is kept below `saved`.
    pub fn clear(
        &self,
        saved: &Path,
        pool: &PoolName,
        uuid: &PoolUuid,
        device: DeviceUuid,
        on: NamedDevice,
    ) -> ClearDevice {
        let area = |found: &Area| {
            let name = self.device.as_ref().map(|device| device.name.replace('/', "!")).unwrap_or_default();
            let file = free(&saved.join(format!("{pool}-{name}-{:#x}", found.at.get())));
            steps::Area {
                at: found.at,
                length: found.length,
                checksum: found.checksum,
                saved: (!found.zero).then_some(file),
            }
        };
        ClearDevice { on, pool: uuid.clone(), device, areas: self.areas.iter().map(area).collect() }
    }
}

/// Returns a name that no file has: an earlier pool may have kept what the same device had then.
fn free(path: &Path) -> PathBuf {
    let numbered = |number: u32| PathBuf::from(format!("{}.{number}", path.display()));
    let mut all = std::iter::once(path.to_owned()).chain((2..=u32::MAX).map(numbered));
    all.find(|path| path.symlink_metadata().is_err()).unwrap_or_else(|| path.to_owned())
}

/// Says where the bytes are kept that are cleared, how they come back, and that no others do.
pub fn kept(clear: &ClearDevice) -> Vec<String> {
    let note = |area: &steps::Area| {
        let file = area.saved.as_ref()?;
        let (from, to) = (quote(&file.to_string_lossy()), quote(&clear.on.path.to_string_lossy()));
        let (at, seek) = (area.at.get(), area.at.get() / PIECE);
        Some(format!(
            "what {} had at byte {at} is kept; without the pool it can come back:  dd if={from} of={to} bs={PIECE} seek={seek} conv=notrunc,fsync",
            clear.on
        ))
    };
    let mut notes: Vec<_> = clear.areas.iter().filter_map(note).collect();
    if !notes.is_empty() {
        notes.push(format!("of what else {} has nothing is kept: the pool writes over it", clear.on));
    }
    notes
}

/// Returns the parts that a label, the first block of metadata behind it, and the signatures are in, with the checksum of
/// what is there, and whether that is zeros.
fn areas(device: DevNo, size: Bytes, signatures: &[Signature]) -> Result<Vec<Area>> {
    let first = AREA.get() + PIECE;
    let mut places = vec![(0, first.min(size.get() / PIECE * PIECE))];
    let elsewhere = signatures.iter().map(|signature| signature.offset.get() / PIECE * PIECE);
    let mut elsewhere: Vec<_> = elsewhere.filter(|at| *at >= first && at + PIECE <= size.get()).collect();
    elsewhere.sort_unstable();
    elsewhere.dedup();
    places.extend(elsewhere.into_iter().map(|at| (at, PIECE)));
    let mut found = Vec::new();
    for (at, length) in places {
        let (at, length) = (Bytes::new(at), Bytes::new(length));
        let bytes = bytes_of(device, at, length)?;
        let zero = bytes.iter().all(|byte| *byte == 0);
        found.push(Area { at, length, checksum: crc32c::crc32c(&bytes), zero });
    }
    Ok(found)
}

/// Returns what to do about a device that cannot be taken.
fn next(unfit: &Unfit, named: &Named) -> String {
    let device = named.device.as_ref().map_or_else(|| named.given.clone(), BlockDevice::path);
    let path = quote(&device.to_string_lossy());
    match unfit {
        Unfit::Missing | Unfit::NoBlockDevice | Unfit::Empty | Unfit::Kind { .. } | Unfit::TooSmall { .. } => {
            "dmpool disks    # shows what could carry a pool".to_owned()
        }
        Unfit::ReadOnly => format!("blockdev --setrw {path}    # where the device itself allows it"),
        Unfit::UnderRoot => "dmpool disks    # shows what else could carry a pool".to_owned(),
        Unfit::Mounted { on, .. } => format!("umount {}", quote(&on.to_string_lossy())),
        Unfit::Swap { .. } => format!("swapoff {path}"),
        Unfit::Path { of } => format!("name {} instead", quote(&of.to_string_lossy())),
        Unfit::OtherPath { .. } => "let multipathd join the paths, and name the multipath device".to_owned(),
        Unfit::Held { .. } | Unfit::LoopFile { .. } | Unfit::Claimed => {
            format!("lsblk {path}    # shows what stands on it")
        }
        Unfit::ThinPool | Unfit::ThinVolume => "name a disk or an LV: a pool on a pool fills twice".to_owned(),
        Unfit::Partitioned { .. } => {
            format!("sfdisk --delete {path}    # if all on it may go, and then --wipe; or name a partition")
        }
        Unfit::Signature(_) | Unfit::ThinMetadata { .. } | Unfit::BadLabel { .. } => {
            "--wipe removes what is on it, if nobody needs it any more; the bytes that tell of it are kept".to_owned()
        }
        Unfit::NotBlank { .. } => {
            "--wipe takes it, if nobody needs what is on it (a database on a raw disk, plain dm-crypt and what a destroyed pool leaves look alike); its first MiB is kept then, what lies behind is not".to_owned()
        }
        Unfit::PartlyRead { .. } => {
            "run this again once the disk has less to do; or, where  dmpool disks --timeout 120  has found nothing on it, --wipe takes it".to_owned()
        }
        Unfit::Label { pool, .. } => format!(
            "dmpool destroy {0}    # if that pool is registered here (dmpool activate {0} --register does that); if nobody needs it any more, dd if=/dev/zero of={path} bs=1M count=1 conv=fsync",
            quote(pool)
        ),
        Unfit::Copy { .. } => format!(
            "disconnect the copy; if it is this one and nobody needs it, dd if=/dev/zero of={path} bs=1M count=1 conv=fsync"
        ),
        Unfit::NotRead { .. } => "dmesg | tail    # may say why; wipefs -p must be able to read it".to_owned(),
    }
}
