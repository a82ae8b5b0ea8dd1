//! Which block devices there are, from sysfs and udev's links. Opens no device.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::kernel::{Called, DevNo, read_if_there};
use crate::pool::disk::{self, BlockDevice, Kind};
use crate::units::{Bytes, Sectors};

/// Numbers of drivers (Documentation/admin-guide/devices.txt) whose devices are told by it.
const RAM: u32 = 1;
const FLOPPY: u32 = 2;
const LOOP: u32 = 7;
const OPTICAL: u32 = 11;

/// The folders that udev keeps names in that may stay with a device.
const LINKS: [&str; 3] = ["disk/by-id", "disk/by-partuuid", "disk/by-path"];

/// Where sysfs and the device nodes are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Roots {
    /// `/sys`.
    pub sys: PathBuf,
    /// `/dev`.
    pub dev: PathBuf,
}

impl Default for Roots {
    fn default() -> Self {
        Self { sys: PathBuf::from("/sys"), dev: PathBuf::from("/dev") }
    }
}

/// Returns every block device that has a node, in the order of their numbers. One that goes while it is looked at is
/// left out.
///
/// # Errors
/// When sysfs cannot be listed.
pub fn inventory(roots: &Roots) -> Result<Vec<BlockDevice>> {
    let dir = roots.sys.join("class/block");
    let entries = fs::read_dir(&dir).called("opendir", dir.display()).context("listing the block devices")?;
    let links = links(&roots.dev);
    let mut found = Vec::new();
    for entry in entries.flatten() {
        // A device that has gone meanwhile leads nowhere.
        let Ok(path) = entry.path().canonicalize() else { continue };
        if let Some(mut device) = read(&path)? {
            device.names = names(&roots.dev, &device, &links);
            found.push(device);
        }
    }
    found.sort_by_key(|device| device.devno);
    let of_disk: Vec<_> = found.iter().filter_map(|d| Some((d.disk?, d.devno))).collect();
    for device in &mut found {
        device.partitions = of_disk.iter().filter(|(disk, _)| *disk == device.devno).map(|(_, part)| *part).collect();
    }
    Ok(found)
}

/// Reads one folder of sysfs; nothing when the device has no node (a path below NVMe's own multipath) or has gone.
fn read(path: &Path) -> Result<Option<BlockDevice>> {
    let attribute = |name: &str| read_if_there(&path.join(name)).map(|text| text.filter(|text| !text.is_empty()));
    let number = |name: &str| Ok::<_, anyhow::Error>(attribute(name)?.and_then(|text| text.parse::<u64>().ok()));
    let Some(devno) = attribute("dev")?.and_then(|text| text.parse().ok()) else { return Ok(None) };
    if number("hidden")? == Some(1) {
        return Ok(None);
    }
    let partition = path.join("partition").exists();
    // What belongs to the whole disk stands in the folder above a partition's.
    let whole = if partition { path.parent().unwrap_or(path) } else { path };
    // A driver that has no serial number prints C's null pointer.
    let said = |text: String| Some(text.trim().to_owned()).filter(|text| !text.is_empty() && text != "(null)");
    let of_disk = |name: &str| read_if_there(&whole.join(name)).map(|text| text.and_then(said));
    let disk_number = |name: &str| Ok::<_, anyhow::Error>(of_disk(name)?.and_then(|text| text.parse::<u64>().ok()));
    let disk = if partition { of_disk("dev")?.and_then(|text| text.parse().ok()) } else { None };
    let wwn = [of_disk("wwid")?, of_disk("device/wwid")?].into_iter().flatten().find(|wwn| is_unique(wwn));
    let serial = [of_disk("serial")?, of_disk("device/serial")?, unit_serial(whole)];
    let size = Sectors::new(number("size")?.unwrap_or(0)).bytes();
    Ok(Some(BlockDevice {
        name: path.file_name().map(|name| name.to_string_lossy().replace('!', "/")).unwrap_or_default(),
        devno,
        size,
        logical_sector: disk_number("queue/logical_block_size")?.map(Bytes::new),
        physical_sector: disk_number("queue/physical_block_size")?.map(Bytes::new),
        read_only: number("ro")? == Some(1),
        removable: disk_number("removable")? == Some(1),
        rotational: disk_number("queue/rotational")?.map(|turns| turns == 1),
        kind: if partition { Kind::Partition } else { kind(path, devno)? },
        names: Vec::new(),
        model: model(&of_disk)?,
        serial: serial.into_iter().flatten().next(),
        wwn: wwn.filter(|_| !partition),
        slaves: linked(&path.join("slaves"))?,
        holders: linked(&path.join("holders"))?,
        disk,
        partitions: Vec::new(),
        suspended: number("dm/suspended")? == Some(1),
    }))
}

fn kind(path: &Path, devno: DevNo) -> Result<Kind> {
    let attribute = |name: &str| read_if_there(&path.join(name));
    if let Some(name) = attribute("dm/name")? {
        return Ok(Kind::of_dm(&name, &attribute("dm/uuid")?.unwrap_or_default()));
    }
    if path.join("md").is_dir() {
        return Ok(Kind::Md { level: attribute("md/level")?.filter(|level| !level.is_empty()) });
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    Ok(match devno.major {
        RAM => Kind::Memory,
        FLOPPY => Kind::Floppy,
        LOOP => Kind::Loop { file: attribute("loop/backing_file")?.map(PathBuf::from) },
        OPTICAL => Kind::Optical,
        _ if name.starts_with("zram") => Kind::Memory,
        _ => Kind::Disk,
    })
}

/// Whether a name is given by a registry or drawn at random. `t10.…` is made of what the maker wrote, and cheap card
/// readers have one for all their slots.
fn is_unique(wwn: &str) -> bool {
    ["naa.", "eui.", "nvme.", "uuid."].iter().any(|prefix| wwn.starts_with(prefix))
}

fn model(of_disk: &impl Fn(&str) -> Result<Option<String>, crate::kernel::KernelError>) -> Result<Option<String>> {
    let (vendor, model) = (of_disk("device/vendor")?, of_disk("device/model")?);
    let model = match model {
        Some(model) => Some(model),
        None => of_disk("device/name")?,
    };
    // SCSI's vendor is a word (ATA stands for SATA's disks, which have none); virtio's is a number.
    let vendor = vendor.filter(|vendor| !vendor.starts_with("0x") && vendor != "ATA" && !vendor.is_empty());
    Ok(model.filter(|m| !m.is_empty()).map(|model| match vendor {
        Some(vendor) => format!("{vendor} {model}"),
        None => model,
    }))
}

/// The serial number in SCSI's page 0x80: four bytes, the last of them the length of the text (SPC-4, 7.8.13).
fn unit_serial(whole: &Path) -> Option<String> {
    let page = fs::read(whole.join("device/vpd_pg80")).ok()?;
    let length = usize::from(*page.get(3)?);
    let text = String::from_utf8_lossy(page.get(4..4 + length)?).trim_matches(['\0', ' ']).to_owned();
    (!text.is_empty()).then_some(text)
}

fn linked(dir: &Path) -> Result<Vec<DevNo>> {
    let Ok(entries) = fs::read_dir(dir) else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for entry in entries.flatten() {
        found.extend(read_if_there(&entry.path().join("dev"))?.and_then(|text| text.parse::<DevNo>().ok()));
    }
    found.sort_unstable();
    Ok(found)
}

/// Returns udev's links, by the kernel's name of the device that they lead to.
fn links(dev: &Path) -> BTreeMap<String, Vec<PathBuf>> {
    let mut found: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
    for folder in LINKS {
        for entry in fs::read_dir(dev.join(folder)).into_iter().flatten().flatten() {
            // udev's links lead to the kernel's node, so that nothing has to be followed.
            let target = fs::read_link(entry.path()).ok();
            if let Some(name) = target.as_ref().and_then(|target| target.file_name()) {
                found.entry(name.to_string_lossy().into_owned()).or_default().push(entry.path());
            }
        }
    }
    found
}

fn names(dev: &Path, device: &BlockDevice, links: &BTreeMap<String, Vec<PathBuf>>) -> Vec<PathBuf> {
    let mut names = links.get(&device.name).cloned().unwrap_or_default();
    if let Some(name) = device.kind.dm_name() {
        names.push(dev.join("mapper").join(name));
    }
    if let Kind::LogicalVolume { group, volume } = &device.kind {
        names.push(dev.join(group).join(volume));
    }
    names.retain(|name| leads_to(name, device));
    disk::sort(&mut names);
    names
}

/// Whether a name is this device's: a link to its node, or a node of its own where there is no udev.
fn leads_to(path: &Path, device: &BlockDevice) -> bool {
    match fs::read_link(path) {
        Ok(target) => target.file_name().is_some_and(|name| name.to_string_lossy() == device.name),
        Err(_) => fs::symlink_metadata(path)
            .is_ok_and(|m| m.file_type().is_block_device() && DevNo::from_dev_t(m.rdev()) == device.devno),
    }
}

/// What can be told to look for disks again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scsi {
    /// The SCSI hosts that can be scanned: `host0`.
    pub hosts: Vec<String>,
    /// The disks whose size can be asked for again: `sda`.
    pub disks: Vec<String>,
    /// The NVMe controllers: `nvme0`.
    pub nvme: Vec<String>,
}

/// Returns what can be scanned again on this machine.
pub fn rescannable(roots: &Roots) -> Scsi {
    let with = |class: &str, file: &str| {
        let entries = fs::read_dir(roots.sys.join(class)).into_iter().flatten().flatten();
        let mut names: Vec<_> = entries
            .filter(|entry| entry.path().join(file).exists())
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    };
    Scsi {
        hosts: with("class/scsi_host", "scan"),
        disks: with("block", "device/rescan"),
        nvme: with("class/nvme", "rescan_controller"),
    }
}

#[cfg(test)]
#[path = "inventory_tests.rs"]
mod tests;
