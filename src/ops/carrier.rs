//! What carries a live pool: its devices followed down to files and disks.

use std::path::{Path, PathBuf};

use crate::kernel::block;
use crate::kernel::dm::{Dm, DmId};
use crate::kernel::loopdev::LoopInfo;
use crate::ops::{sight, tie};
use crate::pool::{Backing, Carrier, DevNo, Link, LoopDisk, LoopFile, UUID_PREFIX};
use crate::units::Sectors;

/// Follows the devices of a pool's table down to what carries them; each with the link that is known to lead there. What
/// cannot be followed is added to `unread`. `known` are loop devices that need not be asked again.
pub fn of_devices(
    dm: &Dm,
    devices: [DevNo; 2],
    links: [Option<Link>; 2],
    known: &[LoopInfo],
    unread: &mut Vec<String>,
) -> [Backing; 2] {
    let linear = devices.map(|device| linear_over(dm, device));
    let [first, second] = &linear;
    let [data, metadata] = devices;
    let lowest = [(first, data), (second, metadata)].map(|(linear, device)| linear.as_ref().map_or(device, |l| l.1));
    let is_known = |device: DevNo| known.iter().find(|info| info.devno == device).cloned();
    let mut loops = match lowest.map(is_known) {
        [Some(data), Some(metadata)] => [Ok(Some(data)), Ok(Some(metadata))],
        _ => sight::loops_at(lowest),
    }
    .into_iter();
    let mut links = links.into_iter();
    let mut linear = linear.into_iter();
    devices.map(|device| {
        let (name, below) = linear.next().flatten().map_or((None, device), |(name, below)| (Some(name), below));
        let attached = loops.next().unwrap_or(Ok(None));
        let link = links.next().flatten();
        if let Some((name, below)) = labelled_under(dm, device) {
            let carrier = match below.as_slice() {
                [only] => Carrier::Device { path: device_path(*only) },
                several => Carrier::Devices { paths: several.iter().map(|devno| device_path(*devno)).collect() },
            };
            return Backing { device: Some(device), size: block::size(device).ok(), linear: Some(name), carrier };
        }
        let carrier = carrier(below, attached, link, unread);
        Backing { device: Some(device), size: block::size(device).ok(), linear: name, carrier }
    })
}

fn carrier(
    below: DevNo,
    attached: Result<Option<LoopInfo>, String>,
    link: Option<Link>,
    unread: &mut Vec<String>,
) -> Carrier {
    let info = match attached {
        Ok(Some(info)) => info,
        Ok(None) => return Carrier::Device { path: device_path(below) },
        Err(why) => {
            unread.push(why);
            return Carrier::Unknown;
        }
    };
    let device = Some(info.path());
    match (info.backing_path, info.backing_rdev) {
        (Some(path), Some(number)) => {
            let size = block::size(number).ok().map(Sectors::bytes);
            Carrier::LoopOverDevice { device, disk: LoopDisk { path, number: Some(number), size, link } }
        }
        (Some(path), None) => {
            let file = LoopFile { link, ..LoopFile::unlooked(path, info.deleted) };
            Carrier::Loop { device, file }
        }
        (None, _) => {
            unread.push(format!("which file is behind /dev/loop{}", info.devno.minor));
            Carrier::Unknown
        }
    }
}

/// Returns the dm name of a device that is one linear segment from sector 0 of another, and that other.
fn linear_over(dm: &Dm, device: DevNo) -> Option<(String, DevNo)> {
    let name = tie::dm_name(device)?;
    let lines = dm.table(&DmId::name(&name)).ok()?;
    let [line] = lines.as_slice() else { return None };
    let (below, offset) = line.params.split_once(' ')?;
    (line.kind == "linear" && line.start == Sectors::new(0) && offset.trim() == "0")
        .then(|| below.parse().ok())?
        .map(|below| (name, below))
}

/// Returns the dm name of a device that dmpool has put over devices which it has formatted, and those, each once: nothing
/// begins at their first sector, where the label is.
fn labelled_under(dm: &Dm, device: DevNo) -> Option<(String, Vec<DevNo>)> {
    let info = dm.info(&DmId::from(device)).ok()??;
    if !info.uuid.as_deref()?.starts_with(UUID_PREFIX) {
        return None;
    }
    let mut found = Vec::new();
    for line in dm.table(&DmId::from(device)).ok()? {
        let words: Vec<_> = line.params.split(' ').collect();
        let legs = match line.kind.as_str() {
            "linear" => words.as_slice(),
            "striped" => words.get(2..)?,
            _ => return None,
        };
        for leg in legs.chunks_exact(2) {
            let [below, start] = leg else { return None };
            if *start == "0" {
                return None;
            }
            let below: DevNo = below.parse().ok()?;
            if !found.contains(&below) {
                found.push(below);
            }
        }
    }
    Some((info.name, found))
}

fn device_path(device: DevNo) -> PathBuf {
    match tie::dm_name(device) {
        Some(name) => Path::new("/dev/mapper").join(name),
        None => block::name(device).map_or_else(|| PathBuf::from(device.to_string()), |n| Path::new("/dev").join(n)),
    }
}
