//! What a block device is, as far as it matters to whom a pool could be put on: values that the kernel has told.

mod names;
mod samples;
mod signature;
mod unfit;

use std::path::PathBuf;

pub use names::{rank, sort};
pub use samples::Samples;
pub use signature::Signature;
pub use unfit::Unfit;

use crate::pool::DevNo;
use crate::units::Bytes;

/// The least that a device needs for anything of a pool: the label, the smallest metadata, and a MiB for data.
pub const SMALLEST: Bytes = Bytes::new(4 << 20);

/// A block device, as the kernel and udev know it. What is not known is absent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockDevice {
    /// The kernel's name: `sda1`, `dm-2`.
    pub name: String,
    /// Its number.
    pub devno: DevNo,
    /// Its length; zero without a medium.
    pub size: Bytes,
    /// The smallest piece that can be addressed.
    pub logical_sector: Option<Bytes>,
    /// The smallest piece that it writes without reading.
    pub physical_sector: Option<Bytes>,
    /// Whether the kernel refuses to write to it.
    pub read_only: bool,
    /// Whether its medium can be taken out.
    pub removable: bool,
    /// Whether it turns.
    pub rotational: Option<bool>,
    /// What it is.
    pub kind: Kind,
    /// Its names that survive a reboot, the best first (see [`rank`]).
    pub names: Vec<PathBuf>,
    /// What the maker calls it; of a partition, its disk's.
    pub model: Option<String>,
    /// Its serial number; of a partition, its disk's.
    pub serial: Option<String>,
    /// Its name among all disks of the world (`naa.…`, `eui.…`); a partition has none.
    pub wwn: Option<String>,
    /// The devices that it stands on.
    pub slaves: Vec<DevNo>,
    /// The devices that stand on it.
    pub holders: Vec<DevNo>,
    /// The disk that it is a partition of.
    pub disk: Option<DevNo>,
    /// Its partitions.
    pub partitions: Vec<DevNo>,
    /// Whether device-mapper keeps all I/O to it waiting.
    pub suspended: bool,
}

/// What a block device is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A disk: SCSI, SATA, NVMe, virtio, what else there is.
    Disk,
    /// A part of one, by its partition table.
    Partition,
    /// A RAID of the kernel.
    Md {
        /// Its level as md calls it: `raid1`.
        level: Option<String>,
    },
    /// Several paths to one disk.
    Multipath {
        /// Its dm name.
        name: String,
    },
    /// A logical volume that people use; LVM's inner ones are [`Kind::Dm`].
    LogicalVolume {
        /// Its volume group.
        group: String,
        /// Its name in it.
        volume: String,
    },
    /// Another device of device-mapper.
    Dm {
        /// Its name.
        name: String,
        /// Whose it is, by its uuid: `CRYPT`, `LVM`, `DMPOOL`; nothing without one.
        owner: Option<String>,
    },
    /// A file as a disk.
    Loop {
        /// The file; nothing when none is attached.
        file: Option<PathBuf>,
    },
    /// A piece of memory (`ram`, `zram`), gone with the power.
    Memory,
    /// A drive for CDs and DVDs.
    Optical,
    /// A drive for floppy disks.
    Floppy,
}

impl Kind {
    /// Returns what it is in a word.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Disk => "disk",
            Self::Partition => "partition",
            Self::Md { .. } => "md",
            Self::Multipath { .. } => "multipath",
            Self::LogicalVolume { .. } => "LV",
            Self::Dm { .. } => "dm",
            Self::Loop { .. } => "loop",
            Self::Memory => "memory",
            Self::Optical => "optical",
            Self::Floppy => "floppy",
        }
    }

    /// Takes a dm device by its name and uuid, which begins with who made it (`dm_uuid_prefix` of LVM, multipath-tools,
    /// cryptsetup, kpartx).
    pub fn of_dm(name: &str, uuid: &str) -> Self {
        let owner = uuid.split('-').next().filter(|owner| !owner.is_empty()).map(str::to_owned);
        match uuid.split_once('-') {
            Some(("mpath", _)) => Self::Multipath { name: name.to_owned() },
            // part1-mpath-3600…: a partition that kpartx has made.
            Some((part, _)) if part.strip_prefix("part").is_some_and(is_number) => Self::Partition,
            // LVM's inner volumes have a third word (-tpool, -tdata, -cow, -real), or a name that is reserved for them.
            Some(("LVM", ids)) if !ids.contains('-') => match volume(name) {
                Some((group, volume)) => Self::LogicalVolume { group, volume },
                None => Self::Dm { name: name.to_owned(), owner },
            },
            _ => Self::Dm { name: name.to_owned(), owner },
        }
    }

    /// Returns its name in device-mapper, where it has one.
    pub fn dm_name(&self) -> Option<String> {
        match self {
            Self::Multipath { name } | Self::Dm { name, .. } => Some(name.clone()),
            Self::LogicalVolume { group, volume } => {
                Some(format!("{}-{}", group.replace('-', "--"), volume.replace('-', "--")))
            }
            _ => None,
        }
    }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

/// Takes LVM's dm name apart: group and volume with a dash between them, a dash in either doubled.
fn volume(name: &str) -> Option<(String, String)> {
    let bytes = name.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let pair = (bytes.get(at), bytes.get(at + 1));
        match pair {
            (Some(b'-'), Some(b'-')) => at += 2,
            (Some(b'-'), _) => {
                let (group, volume) = (name.get(..at)?, name.get(at + 1..)?);
                let whole = !group.is_empty() && !volume.is_empty();
                return whole.then(|| (group.replace("--", "-"), volume.replace("--", "-")));
            }
            _ => at += 1,
        }
    }
    None
}

impl BlockDevice {
    /// Returns the name to call it by: the best that survives a reboot, else the kernel's.
    pub fn path(&self) -> PathBuf {
        self.names.first().cloned().unwrap_or_else(|| self.node())
    }

    /// Returns the kernel's node: `/dev/sda1`.
    pub fn node(&self) -> PathBuf {
        PathBuf::from("/dev").join(&self.name)
    }

    /// Returns a name for sentences about other devices: `vg/lv`, `mpatha`, `md0`, `sda1`.
    pub fn called(&self) -> String {
        match &self.kind {
            Kind::LogicalVolume { group, volume } => format!("{group}/{volume}"),
            Kind::Multipath { name } | Kind::Dm { name, .. } => name.clone(),
            _ => self.name.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dm_devices_are_told_apart_by_their_uuids() {
        let lvm = "LVM-Z4JcYrVQdqH6c2yPRRlqGvmnCuzfJ1G8aCnZCIjzcnqUv5bQ5ZcCkAoYVZPl6lTm";
        let lv = |group: &str, volume: &str| Kind::LogicalVolume { group: group.to_owned(), volume: volume.to_owned() };
        let dm = |name: &str, owner: &str| Kind::Dm { name: name.to_owned(), owner: Some(owner.to_owned()) };
        assert_eq!(Kind::of_dm("vg-lv", lvm), lv("vg", "lv"));
        assert_eq!(Kind::of_dm("my--vg-a--b--c", lvm), lv("my-vg", "a-b-c"));
        assert_eq!(Kind::of_dm("vg-pool_tdata", &format!("{lvm}-tdata")), dm("vg-pool_tdata", "LVM"));
        assert_eq!(Kind::of_dm("nodash", lvm), dm("nodash", "LVM"));
        assert_eq!(Kind::of_dm("mpatha", "mpath-3600140508f"), Kind::Multipath { name: "mpatha".to_owned() });
        assert_eq!(Kind::of_dm("mpatha1", "part1-mpath-3600140508f"), Kind::Partition);
        assert_eq!(Kind::of_dm("luks", "CRYPT-LUKS2-abc-luks"), dm("luks", "CRYPT"));
        assert_eq!(Kind::of_dm("p0_tdata", "DMPOOL-00-tdata"), dm("p0_tdata", "DMPOOL"));
        assert_eq!(Kind::of_dm("x", ""), Kind::Dm { name: "x".to_owned(), owner: None });
        assert_eq!(lv("my-vg", "a-b").dm_name().as_deref(), Some("my--vg-a--b"));
    }
}
