//! What carries a live pool: its devices followed down to files and disks.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::kernel::block;
use crate::kernel::dm::{Dm, DmId};
use crate::kernel::loopdev::LoopInfo;
use crate::ops::{sight, tie};
use crate::pool::{Backing, Carrier, DevNo, Link, LoopDisk, LoopFile, UUID_PREFIX};
use crate::units::Sectors;

/// Follows the devices of a pool's table down to what carries them; each with the link that is known to lead there, and the
/// path where its file is looked for. What cannot be followed is added to `unread`. `known` are loop devices that need not be asked again.
pub fn of_devices(
    dm: &Dm,
    devices: [DevNo; 2],
    links: [Option<Link>; 2],
    homes: [Option<PathBuf>; 2],
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
    let (mut links, mut homes) = (links.into_iter(), homes.into_iter());
    let mut linear = linear.into_iter();
    devices.map(|device| {
        let (name, below) = linear.next().flatten().map_or((None, device), |(name, below)| (Some(name), below));
        let attached = loops.next().unwrap_or(Ok(None));
        let (link, home) = (links.next().flatten(), homes.next().flatten());
        // What begins at the first sector of something is on no label.
        if name.is_none()
            && let Some((name, below)) = labelled_under(dm, device)
        {
            let carrier = match below.as_slice() {
                [(only, _)] => Carrier::Device { path: device_path(*only) },
                several => Carrier::Devices { paths: several.iter().map(|(devno, _)| device_path(*devno)).collect() },
            };
            let behind =
                |(devno, end): &(DevNo, Sectors)| Some(block::size(*devno).ok()?.get().saturating_sub(end.get()));
            let room = Sectors::new(below.iter().filter_map(behind).fold(0, u64::saturating_add)).bytes();
            let on_lv = below.last().is_some_and(|(devno, _)| tie::volume_of_lvm(*devno).is_some());
            let (device, size) = (Some(device), block::size(device).ok());
            return Backing { device, size, linear: Some(name), room, on_lv, ..Backing::on(carrier) };
        }
        let carrier = carrier(below, attached, link, home, unread);
        let on_lv = match &carrier {
            Carrier::Device { .. } => name.is_none() && tie::volume_of_lvm(below).is_some(),
            Carrier::LoopOverDevice { disk, .. } => disk.volume.is_some(),
            Carrier::Loop { .. } | Carrier::Devices { .. } | Carrier::Unknown => false,
        };
        Backing { device: Some(device), size: block::size(device).ok(), linear: name, on_lv, ..Backing::on(carrier) }
    })
}

fn carrier(
    below: DevNo,
    attached: Result<Option<LoopInfo>, String>,
    link: Option<Link>,
    home: Option<PathBuf>,
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
            let volume = tie::volume_of_lvm(number);
            Carrier::LoopOverDevice { device, disk: LoopDisk { path, number: Some(number), size, link, volume } }
        }
        (Some(path), None) => {
            let is_part = info.offset.get() != 0 || info.size_limit.get() != 0;
            let its = (info.backing_dev, info.backing_inode);
            let seen = |path: &Path| fs::metadata(path).ok();
            let at = |path: &Path| seen(path).map(|at| (DevNo::from_dev_t(at.dev()), at.ino()));
            // What the kernel has is the name that was unlinked: the file may have been put back by another.
            let is_named = |path: &Path| seen(path).is_some_and(|at| at.nlink() > 0);
            let home = home.filter(|home| info.deleted && at(home) == Some(its) && is_named(home));
            let (path, deleted) = home.map_or((path, info.deleted), |home| (home, false));
            let in_the_way = deleted && fs::symlink_metadata(&path).is_ok();
            let autoclear = info.autoclear;
            let file = LoopFile { link, is_part, autoclear, in_the_way, ..LoopFile::unlooked(path, deleted) };
            Carrier::Loop { device, file }
        }
        (None, _) => {
            unread.push(format!("which file is behind /dev/loop{}", info.devno.minor));
            Carrier::Unknown
        }
    }
}

/// Returns the dm name of a device that is one linear segment from sector 0 of another, and that other. An LV is none: LVM
/// knows what it is.
fn linear_over(dm: &Dm, device: DevNo) -> Option<(String, DevNo)> {
    let name = tie::dm_name(device)?;
    let uuid = dm.info(&DmId::name(&name)).ok()??.uuid;
    if uuid.is_some_and(|uuid| uuid.starts_with("LVM-")) {
        return None;
    }
    let lines = dm.table(&DmId::name(&name)).ok()?;
    let [line] = lines.as_slice() else { return None };
    let (below, offset) = line.params.split_once(' ')?;
    (line.kind == "linear" && line.start == Sectors::new(0) && offset.trim() == "0")
        .then(|| below.parse().ok())?
        .map(|below| (name, below))
}

/// Returns the dm name of a device that dmpool has put over devices which it has formatted, and those, each once and with
/// where what it uses of it ends: nothing begins at their first sector, where the label is.
fn labelled_under(dm: &Dm, device: DevNo) -> Option<(String, Vec<(DevNo, Sectors)>)> {
    let info = dm.info(&DmId::from(device)).ok()??;
    if !info.uuid.as_deref()?.starts_with(UUID_PREFIX) {
        return None;
    }
    let mut found: Vec<(DevNo, Sectors)> = Vec::new();
    for line in dm.table(&DmId::from(device)).ok()? {
        let words: Vec<_> = line.params.split(' ').collect();
        let legs = match line.kind.as_str() {
            "linear" => words.as_slice(),
            "striped" => words.get(2..)?,
            _ => return None,
        };
        let length = line.length.get().checked_div(u64::try_from(legs.len() / 2).ok()?)?;
        for leg in legs.chunks_exact(2) {
            let [below, start] = leg else { return None };
            if *start == "0" {
                return None;
            }
            let below: DevNo = below.parse().ok()?;
            let end = Sectors::new(start.parse::<u64>().ok()?.checked_add(length)?);
            match found.iter_mut().find(|(devno, _)| *devno == below) {
                Some((_, furthest)) => *furthest = end.max(*furthest),
                None => found.push((below, end)),
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
