//! Whether devices that were named can be taken: what they are, who has them, what is on them.

use std::path::{Path, PathBuf};

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::error::Outcome;
use crate::kernel::ask;
use crate::ops::disks::{self, Disks};
use crate::ops::steps::{PIECE, bytes_of};
use crate::pool::DevNo;
use crate::pool::disk::{BlockDevice, Signature, Unfit};
use crate::pool::label::AREA;
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
/// When sysfs or /proc cannot be read.
pub fn look(paths: &[&Path]) -> Outcome<Vec<Named>> {
    let disks = disks::disks(disks::LIMIT)?;
    Ok(paths.iter().map(|path| one(&disks, path)).collect())
}

fn one(disks: &Disks, given: &Path) -> Named {
    let given = given.to_owned();
    let disk = match disks.named(&given) {
        Ok(disk) => disk,
        Err(why) => return Named { given, device: None, unfit: vec![why], areas: Vec::new() },
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
    Named { given, device: Some(disk.device.clone()), unfit, areas: found }
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
