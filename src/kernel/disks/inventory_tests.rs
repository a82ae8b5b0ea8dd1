//! The reader on a folder laid out as sysfs lays it out.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

use std::os::unix::fs::symlink;

use super::*;

struct Tree(tempfile::TempDir);

impl Tree {
    fn new() -> Self {
        let tree = Self(tempfile::tempdir().unwrap());
        fs::create_dir_all(tree.0.path().join("sys/class/block")).unwrap();
        tree
    }

    fn roots(&self) -> Roots {
        Roots { sys: self.0.path().join("sys"), dev: self.0.path().join("dev") }
    }

    /// A device at that place below /sys/devices, with these files.
    fn device(&self, place: &str, files: &[(&str, &str)]) {
        let folder = self.0.path().join("sys/devices").join(place);
        for (name, text) in files {
            let path = folder.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, format!("{text}\n")).unwrap();
        }
        let name = folder.file_name().unwrap();
        symlink(&folder, self.0.path().join("sys/class/block").join(name)).unwrap();
    }

    fn stands_on(&self, upper: &str, lower: &str) {
        let folder = |place: &str| self.0.path().join("sys/devices").join(place);
        for (from, which, to) in [(upper, "slaves", lower), (lower, "holders", upper)] {
            let dir = folder(from).join(which);
            fs::create_dir_all(&dir).unwrap();
            symlink(folder(to), dir.join(folder(to).file_name().unwrap())).unwrap();
        }
    }

    fn link(&self, name: &str, target: &str) {
        let path = self.0.path().join("dev").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        symlink(target, path).unwrap();
    }

    fn names(&self, device: &BlockDevice) -> Vec<String> {
        let dev = self.0.path().join("dev");
        device.names.iter().map(|name| name.strip_prefix(&dev).unwrap().to_string_lossy().into_owned()).collect()
    }
}

const SDA: &str = "pci/ata1/host0/block/sda";

#[test]
fn disks_partitions_and_what_stands_on_them_are_read() {
    let tree = Tree::new();
    tree.device(
        SDA,
        &[
            ("dev", "8:0"),
            ("size", "7814037168"),
            ("ro", "0"),
            ("removable", "0"),
            ("queue/logical_block_size", "512"),
            ("queue/physical_block_size", "4096"),
            ("queue/rotational", "1"),
            ("device/vendor", "ATA     "),
            ("device/model", "ST4000DM004-2CV1"),
            ("device/wwid", "naa.5000c500a1b2c3d4"),
            ("device/vpd_pg80", "\0\0\0\u{8}WFN0ABCD"),
        ],
    );
    tree.device(&format!("{SDA}/sda2"), &[("dev", "8:2"), ("size", "2048"), ("ro", "1"), ("partition", "2")]);
    tree.device(&format!("{SDA}/sda1"), &[("dev", "8:1"), ("size", "2048"), ("ro", "0"), ("partition", "1")]);
    let uuid = "LVM-Z4JcYrVQdqH6c2yPRRlqGvmnCuzfJ1G8aCnZCIjzcnqUv5bQ5ZcCkAoYVZPl6lTm";
    let lv = [("dev", "253:0"), ("size", "100"), ("dm/name", "vg-a--b"), ("dm/uuid", uuid), ("dm/suspended", "1")];
    tree.device("virtual/block/dm-0", &lv);
    tree.stands_on("virtual/block/dm-0", &format!("{SDA}/sda1"));
    tree.link("disk/by-id/ata-ST4000DM004_WFN0ABCD", "../../sda");
    tree.link("disk/by-id/wwn-0x5000c500a1b2c3d4", "../../sda");
    tree.link("disk/by-id/wwn-0x5000c500a1b2c3d4-part1", "../../sda1");
    tree.link("disk/by-path/pci-0000:00:1f.2-ata-1", "../../sda");
    tree.link("mapper/vg-a--b", "../dm-0");
    tree.link("vg/a-b", "../dm-7");

    let found = inventory(&tree.roots()).unwrap();
    let [sda, sda1, sda2, lv] = found.as_slice() else { panic!("{found:#?}") };
    assert_eq!((sda.name.as_str(), sda.size.get(), sda.kind.word()), ("sda", 4_000_787_030_016, "disk"));
    assert_eq!((sda.logical_sector, sda.physical_sector), (Some(Bytes::new(512)), Some(Bytes::new(4096))));
    assert_eq!((sda.rotational, sda.removable, sda.read_only), (Some(true), false, false));
    assert_eq!(sda.model.as_deref(), Some("ST4000DM004-2CV1"), "ATA is no vendor");
    assert_eq!((sda.serial.as_deref(), sda.wwn.as_deref()), (Some("WFN0ABCD"), Some("naa.5000c500a1b2c3d4")));
    assert_eq!(sda.partitions, [sda1.devno, sda2.devno]);
    assert_eq!(tree.names(sda)[0], "disk/by-id/wwn-0x5000c500a1b2c3d4");
    assert_eq!((sda1.disk, sda1.holders.as_slice()), (Some(sda.devno), &[lv.devno][..]));
    assert_eq!((sda1.wwn.as_deref(), sda1.serial.as_deref()), (None, Some("WFN0ABCD")));
    assert_eq!((&sda1.kind, sda2.read_only, sda1.read_only), (&Kind::Partition, true, false));
    assert_eq!((lv.slaves.as_slice(), lv.suspended), (&[sda1.devno][..], true));
    assert_eq!(lv.called(), "vg/a-b");
    assert_eq!(tree.names(lv), ["mapper/vg-a--b"], "the other link is another device's");
}

#[test]
fn what_is_no_disk_is_told_so() {
    let tree = Tree::new();
    let plain = |place: &str, dev: &str, more: &[(&str, &str)]| {
        let files: Vec<_> = [("dev", dev), ("size", "0")].iter().chain(more).copied().collect();
        tree.device(place, &files);
    };
    plain("virtual/block/ram0", "1:0", &[]);
    plain("virtual/block/zram0", "252:0", &[]);
    plain("virtual/block/loop0", "7:0", &[]);
    plain("virtual/block/loop1", "7:1", &[("loop/backing_file", "/srv/a b")]);
    plain("virtual/block/md127", "9:127", &[("md/level", "raid1")]);
    plain("pci/block/sr0", "11:0", &[]);
    plain("pci/block/cciss!c0d0", "104:0", &[]);
    plain("pci/block/nvme0c0n1", "259:1", &[("hidden", "1")]);
    plain(
        "pci/block/nvme0n1",
        "259:0",
        &[("wwid", "eui.0025388b710116a1"), ("device/model", "Samsung SSD 970   "), ("serial", "(null)")],
    );
    let found = inventory(&tree.roots()).unwrap();
    let kinds: Vec<_> = found.iter().map(|d| (d.name.as_str(), d.kind.word())).collect();
    assert_eq!(
        kinds,
        [
            ("ram0", "memory"),
            ("loop0", "loop"),
            ("loop1", "loop"),
            ("md127", "md"),
            ("sr0", "optical"),
            ("cciss/c0d0", "disk"),
            ("zram0", "memory"),
            ("nvme0n1", "disk"),
        ]
    );
    assert_eq!(found[2].kind, Kind::Loop { file: Some(PathBuf::from("/srv/a b")) });
    assert_eq!(found[7].wwn.as_deref(), Some("eui.0025388b710116a1"));
    assert_eq!((found[7].model.as_deref(), found[7].serial.as_deref()), (Some("Samsung SSD 970"), None));
}

#[test]
fn only_what_is_here_can_be_scanned_again() {
    let tree = Tree::new();
    assert_eq!(rescannable(&tree.roots()), Scsi::default());
    for file in [
        "class/scsi_host/host1/scan",
        "class/scsi_host/host0/scan",
        "class/scsi_host/host2/x",
        "block/sdb/device/rescan",
    ] {
        let path = tree.roots().sys.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "").unwrap();
    }
    let found = rescannable(&tree.roots());
    assert_eq!((found.hosts, found.disks), (vec!["host0".to_owned(), "host1".to_owned()], vec!["sdb".to_owned()]));
}
