//! Reasons from facts, for what no guest has: multipath, two cables, clones of disks.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::path::PathBuf;

use super::*;
use crate::ops::disks::Mounted;
use crate::pool::disk::{Samples, Signature};
use crate::pool::label::{Leg, Purpose, Segment};
use crate::pool::samples::block_device as device;
use crate::pool::{Behaviour, PoolName, PoolUuid};
use crate::units::{BlockSize, Bytes, DataBlocks, Sectors};

fn empty() -> Content {
    Content {
        claimed: false,
        samples: Samples::default(),
        former: false,
        label: Ok(None),
        thin_metadata: None,
        signatures: Ok(Vec::new()),
    }
}

const SOME: Samples = Samples { read: 769, used: 3, first: Bytes::new(8192), left: 0 };

/// Facts of these devices, all blank; who stands on whom is told by the slaves, who is part of whom by the disk.
fn facts(devices: Vec<BlockDevice>) -> Facts {
    let mut facts = Facts { devices, ..Facts::default() };
    for devno in facts.devices.iter().map(|d| d.devno).collect::<Vec<_>>() {
        let stands = facts.devices.iter().filter(|d| d.slaves.contains(&devno)).map(|d| d.devno).collect();
        let parts = facts.devices.iter().filter(|d| d.disk == Some(devno)).map(|d| d.devno).collect();
        let device = facts.devices.iter_mut().find(|d| d.devno == devno).unwrap();
        device.holders = stands;
        device.partitions = parts;
        facts.contents.insert(devno, Ok(empty()));
    }
    facts
}

fn reasons(facts: &Facts) -> Vec<(String, Vec<String>)> {
    let told = |disk: Disk| (disk.device.name, disk.unfit.iter().map(Unfit::sentence).collect());
    judge(facts).into_iter().map(told).collect()
}

#[track_caller]
fn assert_reasons(facts: &Facts, wanted: &[(&str, &[&str])]) {
    let found = reasons(facts);
    let found: Vec<(&str, Vec<&str>)> =
        found.iter().map(|(name, why)| (name.as_str(), why.iter().map(String::as_str).collect())).collect();
    let wanted: Vec<(&str, Vec<&str>)> = wanted.iter().map(|(name, why)| (*name, why.to_vec())).collect();
    assert_eq!(found, wanted);
}

#[test]
fn a_path_names_the_multipath_device_above_it() {
    let mpath = Kind::Multipath { name: "mpatha".to_owned() };
    let mut upper = device("dm-0", 100, mpath);
    upper.slaves = vec![DevNo::new(8, 0), DevNo::new(8, 16)];
    upper.names = vec![PathBuf::from("/dev/disk/by-id/dm-uuid-mpath-3600")];
    let paths = [("sda", 0), ("sdb", 16)].map(|(name, minor)| {
        let mut path = device(name, minor, Kind::Disk);
        path.wwn = Some("naa.600".to_owned());
        path
    });
    let facts = facts(paths.into_iter().chain([upper]).collect());
    let why = "it is a path of the multipath device /dev/disk/by-id/dm-uuid-mpath-3600, to be used instead";
    assert_reasons(&facts, &[("sda", &[why]), ("sdb", &[why]), ("dm-0", &[])]);
}

#[test]
fn two_cables_without_multipath_are_told_of_each_other() {
    let paths = [("sda", 0), ("sdb", 16), ("sdc", 32)].map(|(name, minor)| {
        let mut path = device(name, minor, Kind::Disk);
        path.wwn = Some(if name == "sdc" { "naa.601" } else { "naa.600" }.to_owned());
        path
    });
    let facts = facts(paths.to_vec());
    let why = |other: &str| format!("it is the same disk as {other} (naa.600), and no multipath device joins them");
    assert_reasons(&facts, &[("sda", &[&why("sdb")]), ("sdb", &[&why("sda")]), ("sdc", &[])]);
}

/// / on an LV, on a RAID, on partitions of two disks.
#[test]
fn all_that_the_root_file_system_lies_on_is_told() {
    let mut parts = [("sda1", 1, 0), ("sdb1", 17, 16)].map(|(name, minor, disk)| {
        let mut part = device(name, minor, Kind::Partition);
        part.disk = Some(DevNo::new(8, disk));
        part
    });
    parts[0].size = Bytes::new(2 << 30);
    let mut md = device("md0", 90, Kind::Md { level: None });
    md.slaves = vec![DevNo::new(8, 1), DevNo::new(8, 17)];
    let lv = Kind::LogicalVolume { group: "vg".to_owned(), volume: "root".to_owned() };
    let mut lv = device("dm-0", 100, lv);
    lv.slaves = vec![DevNo::new(8, 90)];
    let disks = [device("sda", 0, Kind::Disk), device("sdb", 16, Kind::Disk), device("sdc", 32, Kind::Disk)];
    let mut facts = facts(disks.into_iter().chain(parts).chain([md, lv]).collect());
    facts.roots = [DevNo::new(8, 100)].into();
    let root = Mounted { on: PathBuf::from("/"), elsewhere: None };
    facts.mounts = [(DevNo::new(8, 100), vec![root])].into();
    let under = "the root file system lies on it";
    assert_reasons(
        &facts,
        &[
            ("sda", &[under, "its partition sda1 is held by md0", "it has partitions: sda1"]),
            ("sdb", &[under, "its partition sdb1 is held by md0", "it has partitions: sdb1"]),
            ("sdc", &[]),
            ("sda1", &[under, "it is held by md0"]),
            ("sdb1", &[under, "it is held by md0"]),
            ("md0", &[under, "it is held by vg/root"]),
            ("dm-0", &[under, "it is mounted on /"]),
        ],
    );
}

fn labelled(device: u128) -> Content {
    let leg = |start| vec![Leg { device: DeviceUuid::from_random(device), start: Sectors::new(start) }];
    let segment = |purpose, start| Segment { purpose, length: Sectors::new(4096), legs: leg(start), chunk: None };
    let behaviour = Behaviour { block_size: BlockSize::DEFAULT, low_water: DataBlocks::new(1), features: Vec::new() };
    let label = Label {
        sequence: 1,
        pool: PoolUuid::from_random(7),
        name: PoolName::new("p0").unwrap(),
        device: DeviceUuid::from_random(device),
        behaviour,
        map: vec![segment(Purpose::Metadata, 2048), segment(Purpose::Data, 8192)],
    };
    Content { samples: SOME, label: Ok(Some(label)), ..empty() }
}

#[test]
fn a_copy_is_told_from_what_shows_the_same_bytes() {
    // sdb is a clone of sda; dm-0 shows sda's bytes, since it stands on it.
    let mut upper = device("dm-0", 100, Kind::of_dm("x", ""));
    upper.slaves = vec![DevNo::new(8, 0)];
    let mut facts = facts(vec![device("sda", 0, Kind::Disk), device("sdb", 16, Kind::Disk), upper]);
    for content in facts.contents.values_mut() {
        *content = Ok(labelled(1));
    }
    let label = "it carries metadata and data of dmpool's pool `p0`";
    let copy = |of: &str| format!("it is a copy of {of}, or {of} of it: both have one label");
    assert_reasons(
        &facts,
        &[
            ("sda", &["it is held by x", label, &copy("/dev/sdb")]),
            ("sdb", &[label, &copy("/dev/sda"), &copy("/dev/dm-0")]),
            ("dm-0", &[label, &copy("/dev/sdb")]),
        ],
    );
}

#[test]
fn what_was_not_read_is_unknown_and_never_usable() {
    let mut facts =
        facts(vec![device("sda", 0, Kind::Disk), device("sdb", 16, Kind::Disk), device("sdc", 32, Kind::Disk)]);
    facts.contents.insert(DevNo::new(8, 0), Err("EIO".to_owned()));
    facts.contents.insert(DevNo::new(8, 16), Ok(Content { signatures: Err("no".to_owned()), ..empty() }));
    let usable: Vec<_> = judge(&facts).iter().map(Disk::usable).collect();
    assert_eq!(usable, [None, None, Some(true)]);
    facts.devices[0].read_only = true;
    let judged = judge(&facts);
    assert_eq!(judged[0].usable(), Some(false), "what is known decides");
    assert_eq!(judged[0].unfit.len(), 2);
}

#[test]
fn a_claim_is_told_only_where_nothing_says_whose_it_is() {
    let mut facts = facts(vec![device("sda", 0, Kind::Disk), device("sdb", 16, Kind::Disk)]);
    for content in facts.contents.values_mut() {
        let zfs = Signature { offset: Bytes::new(0), kind: "zfs_member".to_owned(), uuid: None, label: None };
        *content = Ok(Content { claimed: true, signatures: Ok(vec![zfs]), samples: SOME, ..empty() });
    }
    facts.swaps = [DevNo::new(8, 16)].into();
    let zfs = "a part of a ZFS pool (zfs_member) is on it";
    assert_reasons(
        &facts,
        &[("sda", &["the kernel has it open for somebody alone (EBUSY)", zfs]), ("sdb", &["it is swapped on", zfs])],
    );
}

#[test]
fn what_nobody_knows_is_told_where_nothing_else_is() {
    let disks = [("sda", 0), ("sdb", 16), ("sdc", 32), ("sdd", 48)];
    let mut facts = facts(disks.map(|(name, minor)| device(name, minor, Kind::Disk)).into());
    for content in facts.contents.values_mut() {
        *content = Ok(Content { samples: SOME, ..empty() });
    }
    facts.contents.insert(DevNo::new(8, 16), Ok(Content { samples: SOME, former: true, ..empty() }));
    facts.swaps = [DevNo::new(8, 32)].into();
    facts.contents.insert(DevNo::new(8, 48), Ok(Content { samples: SOME, signatures: Err("no".into()), ..empty() }));
    let not_blank =
        "it is not blank, and nothing tells what is on it: 3 of 769 samples are not zeros, the first at byte 8192";
    let former = format!("{not_blank}; a pool that was destroyed has left its superblock");
    assert_reasons(
        &facts,
        &[
            ("sda", &[not_blank]),
            ("sdb", &[&former]),
            ("sdc", &["it is swapped on"]),
            ("sdd", &["not read: no", not_blank]),
        ],
    );
    let judged = judge(&facts);
    assert_eq!(judged.iter().map(Disk::usable).collect::<Vec<_>>(), [Some(false); 4]);
    assert_eq!(judged[0].blank, Some(false));

    // Zeros as far as it was read before the time was over.
    let cut = Samples { read: 257, left: 512, ..Samples::default() };
    facts.contents.insert(DevNo::new(8, 0), Ok(Content { samples: cut, ..empty() }));
    let unknown = "it is not known to be blank: 257 of 769 samples are zeros, and the others were not read in time";
    let judged = &judge(&facts)[0];
    assert_eq!((judged.unfit[0].sentence().as_str(), judged.blank, judged.usable()), (unknown, None, None));
}
