#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::PathBuf;

use super::*;
use crate::ops::disks::Rescan;
use crate::pool::disk::{BlockDevice, Samples};
use crate::pool::samples::block_device;

fn disk(name: &str, minor: u32, known_as: &[&str], unfit: Vec<Unfit>) -> Disk {
    let device = BlockDevice {
        size: Bytes::new(400 << 30),
        logical_sector: Some(Bytes::new(512)),
        rotational: Some(true),
        names: known_as.iter().map(PathBuf::from).collect(),
        ..block_device(name, minor, Kind::Disk)
    };
    Disk { device, unfit, signatures: Some(Vec::new()), blank: Some(true) }
}

fn disks() -> Disks {
    let mounted = Unfit::Mounted { partition: Some("sda1".to_owned()), on: PathBuf::from("/"), elsewhere: None };
    let parts = Unfit::Partitioned { partitions: vec!["sda1".to_owned()] };
    let samples = Samples { read: 769, used: 3, first: Bytes::new(8192), left: 0 };
    let used = disk("sdd", 48, &[], vec![Unfit::NotBlank { samples, former: false }]);
    let mut memory = disk("ram0", 99, &[], vec![Unfit::Kind { word: "memory" }]);
    memory.device.kind = Kind::Memory;
    let rescan = |key, what, command: &str| Rescan { key, what, command: command.to_owned() };
    Disks {
        all: vec![
            disk("sdb", 16, &["/dev/disk/by-id/wwn-0x5000", "/dev/disk/by-id/ata-x"], Vec::new()),
            used,
            disk("sdc", 32, &[], vec![Unfit::NotRead { why: "EIO".to_owned() }]),
            disk("sda", 0, &["/dev/disk/by-id/wwn-0x4000"], vec![Unfit::UnderRoot, mounted, parts, Unfit::ReadOnly]),
            memory,
        ],
        rescans: vec![rescan("new_disk", "a disk", "scan a"), rescan("new_disk", "a disk", "scan b")],
    }
}

#[test]
fn each_has_its_line_and_the_first_reasons() {
    assert_eq!(
        text(&disks(), &Disk::is_everyday),
        "\
NAME                        DEVICE       SIZE  KIND  USABLE
/dev/disk/by-id/wwn-0x5000  sdb     400.0 GiB  disk  yes
/dev/sdd                    sdd     400.0 GiB  disk  no: it is not blank, and nothing tells what is on it: 3 of 769 samples are not zeros, the first at byte 8192
/dev/sdc                    sdc     400.0 GiB  disk  unknown: not read: EIO
/dev/disk/by-id/wwn-0x4000  sda     400.0 GiB  disk  no: the root file system lies on it; its partition sda1 is mounted on /; and 2 more
1 more is shown by:  dmpool disks --all

to find a disk:
  scan a
  scan b
"
    );
    let all = text(&disks(), &|_| true);
    assert!(all.contains("ram0") && !all.contains("--all"), "{all}");
    let none = Disks { all: Vec::new(), rescans: Vec::new() };
    assert_eq!(text(&none, &|_| true), "no disks on this machine\n");
}

#[test]
fn programs_are_told_all_of_it() {
    let json: serde_json::Value = serde_json::from_str(&json(
        &disks(),
        &Disk::is_everyday,
        &Origin { hostname: "h".to_owned(), time: crate::ops::history::now() },
    ))
    .unwrap();
    let at = |pointer: &str| json.pointer(pointer).cloned().unwrap();
    assert_eq!(at("/disks/0/names").as_array().unwrap().len(), 2);
    assert_eq!(
        (at("/disks/0/usable"), at("/disks/2/usable"), at("/disks/3/usable")),
        (true.into(), serde_json::Value::Null, false.into())
    );
    assert_eq!((at("/disks/0/number"), at("/disks/0/size")), ("8:16".into(), (400_u64 << 30).into()));
    assert_eq!(at("/disks/3/reasons").as_array().unwrap().len(), 4);
    assert_eq!(at("/disks/3/reasons/1/key"), "mounted");
    assert_eq!((at("/rescan/0/for"), at("/rescan/1/command")), ("new_disk".into(), "scan b".into()));
    assert_eq!(at("/disks").as_array().unwrap().len(), 4, "RAM disks are left out");
}
