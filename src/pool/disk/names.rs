//! Which of a device's names is the best to keep.

use std::path::{Path, PathBuf};

/// How good names are, by what they are made of, the best first. Within a rank the order of the alphabet decides.
///
/// Prefixes below /dev/disk/by-id, of udev's rules (60-persistent-storage.rules, 55-dm.rules, 63-md-raid-arrays.rules).
const BY_ID: [(u8, &[&str]); 4] = [
    // Unique in the world by a registry, or drawn at random for this device alone.
    (1, &["wwn-", "nvme-eui.", "nvme-nvme.", "nvme-uuid.", "dm-uuid-", "md-uuid-"]),
    // The same numbers with a program's prefix (scsi-3600…).
    (2, &["scsi-2", "scsi-3", "scsi-8"]),
    // Model and serial number: as unique as the maker was careful.
    (3, &["nvme-", "ata-", "scsi-", "virtio-", "usb-", "mmc-", "ieee1394-", "ccw-", "google-"]),
    // Names that somebody gave and can give anew.
    (6, &["dm-name-", "md-name-"]),
];

/// Names of what is on the device (`lvm-pv-uuid-…`): a copy has the same.
const CONTENT: [&str; 1] = ["lvm-pv-uuid-"];

/// Returns how good a name is, 0 the best; nothing for one that does not stay with the device.
pub fn rank(path: &Path) -> Option<u8> {
    let name = path.file_name()?.to_str()?;
    let folder = path.parent()?;
    if folder.ends_with("disk/by-id") {
        if CONTENT.iter().any(|prefix| name.starts_with(prefix)) {
            return None;
        }
        let known = BY_ID.iter().find(|(_, prefixes)| prefixes.iter().any(|prefix| name.starts_with(prefix)));
        return Some(known.map_or(4, |(rank, _)| *rank));
    }
    if folder.ends_with("mapper") {
        return Some(5);
    }
    if folder.ends_with("disk/by-partuuid") {
        // Stands in the partition table: a copy of the disk has the same.
        return Some(7);
    }
    if folder.ends_with("disk/by-path") {
        // A place in the machine, and whatever disk is in it.
        return Some(8);
    }
    // /dev/GROUP/VOLUME, which LVM keeps: shorter than the uuid of 64 letters, and LVM refuses two of the same.
    (folder.parent()?.ends_with("dev") && !folder.ends_with("block")).then_some(0)
}

/// Puts names in their order, the best first, and leaves out those that do not stay.
pub fn sort(names: &mut Vec<PathBuf>) {
    names.retain(|name| rank(name).is_some());
    names.sort_by(|a, b| (rank(a), a).cmp(&(rank(b), b)));
    names.dedup();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_name_is_the_one_that_no_other_disk_can_have() {
        let best_first = [
            "/dev/vg/lv",
            "/dev/disk/by-id/dm-uuid-LVM-abc",
            "/dev/disk/by-id/nvme-eui.0025388b710116a1",
            "/dev/disk/by-id/wwn-0x5000c500a1b2c3d4",
            "/dev/disk/by-id/scsi-35000c500a1b2c3d4",
            "/dev/disk/by-id/ata-ST4000_Z1",
            "/dev/disk/by-id/nvme-Samsung_SSD_S4",
            "/dev/disk/by-id/scsi-SATA_ST4000_Z1",
            "/dev/disk/by-id/something-new",
            "/dev/mapper/vg-lv",
            "/dev/disk/by-id/dm-name-vg-lv",
            "/dev/disk/by-partuuid/1234-01",
            "/dev/disk/by-path/pci-0000:00:1f.2-ata-1",
        ];
        let mut names: Vec<PathBuf> = best_first.iter().rev().map(PathBuf::from).collect();
        for unstable in ["/dev/sda", "/dev/disk/by-id/lvm-pv-uuid-x", "/dev/block/8:0"] {
            names.push(PathBuf::from(unstable));
        }
        sort(&mut names);
        assert_eq!(names, best_first.map(PathBuf::from));
    }
}
