//! Why a device cannot carry a pool: from facts to reasons, the weightiest first.

use std::collections::BTreeMap;

use super::{Content, Disk, Facts};
use crate::kernel::DevNo;
use crate::pool::THIN_POOL;
use crate::pool::disk::{BlockDevice, Kind, SMALLEST, Unfit};
use crate::pool::label::{DeviceUuid, Label, Role};

/// Judges every device, in their order.
pub fn judge(facts: &Facts) -> Vec<Disk> {
    let under_root: Vec<DevNo> =
        facts.roots.iter().flat_map(|root| facts.beneath(*root)).chain(facts.roots.clone()).collect();
    let labels = labels(facts);
    let disks = facts.devices.iter().map(|device| {
        let content = facts.contents.get(&device.devno);
        let mut unfit = Vec::new();
        if under_root.contains(&device.devno) {
            unfit.push(Unfit::UnderRoot);
        }
        unfit.extend(in_use(facts, device));
        // What was found out above is better than what the open says.
        if unfit.is_empty() && content.is_some_and(|c| c.as_ref().is_ok_and(|c| c.claimed)) {
            unfit.push(Unfit::Claimed);
        }
        unfit.extend(other_path(facts, device));
        unfit.extend(by_nature(facts, device));
        unfit.extend(on_it(facts, device, content, &labels));
        let known = content.and_then(|content| content.as_ref().ok());
        // What has a name needs no other, and on what somebody uses something is.
        if let Some(Content { samples, former, .. }) = known
            && unfit.iter().all(Unfit::is_unknown)
        {
            unfit.extend(match samples.blank() {
                Some(true) => None,
                Some(false) => Some(Unfit::NotBlank { samples: *samples, former: *former }),
                None => Some(Unfit::PartlyRead { samples: *samples }),
            });
        }
        Disk {
            signatures: known.and_then(|content| content.signatures.clone().ok()),
            blank: known.and_then(|content| content.samples.blank()),
            device: device.clone(),
            unfit,
        }
    });
    disks.collect()
}

/// Who uses it, or a partition of it.
fn in_use(facts: &Facts, device: &BlockDevice) -> Vec<Unfit> {
    let mut unfit = Vec::new();
    let parts = device.partitions.iter().filter_map(|part| facts.device(*part));
    let all: Vec<_> = [(None, device)].into_iter().chain(parts.map(|p| (Some(p.name.clone()), p))).collect();
    for (partition, part) in &all {
        for mounted in facts.mounts.get(&part.devno).into_iter().flatten() {
            let (on, elsewhere) = (mounted.on.clone(), mounted.elsewhere.clone());
            unfit.push(Unfit::Mounted { partition: partition.clone(), on, elsewhere });
        }
        if facts.swaps.contains(&part.devno) {
            unfit.push(Unfit::Swap { partition: partition.clone() });
        }
    }
    let multipath = facts.multipath_over(device);
    unfit.extend(multipath.map(|upper| Unfit::Path { of: upper.path() }));
    let called = |part: &BlockDevice| -> Vec<String> {
        let holders = part.holders.iter().filter(|holder| multipath.is_none_or(|upper| upper.devno != **holder));
        holders.map(|devno| facts.device(*devno).map_or_else(|| devno.to_string(), BlockDevice::called)).collect()
    };
    for (partition, part) in &all {
        let by = called(part);
        if !by.is_empty() {
            unfit.push(Unfit::Held { partition: partition.clone(), by });
        }
    }
    // Who has the whole disk has this part of it.
    let by = device.disk.and_then(|disk| facts.device(disk)).map(called).unwrap_or_default();
    if !by.is_empty() {
        unfit.push(Unfit::Held { partition: None, by });
    }
    unfit.extend(facts.loop_files.get(&device.devno).map(|by| Unfit::LoopFile { by: by.clone() }));
    unfit
}

/// Two disks with one name are one disk, by two cables.
fn other_path(facts: &Facts, device: &BlockDevice) -> Option<Unfit> {
    let wwn = device.wwn.as_ref().filter(|_| device.kind == Kind::Disk && facts.multipath_over(device).is_none())?;
    let same = |other: &&BlockDevice| other.devno != device.devno && other.wwn.as_ref() == Some(wwn);
    let other = facts.devices.iter().filter(|other| other.kind == Kind::Disk).find(same)?;
    Some(Unfit::OtherPath { wwn: wwn.clone(), other: other.name.clone() })
}

fn by_nature(facts: &Facts, device: &BlockDevice) -> Vec<Unfit> {
    let mut unfit = Vec::new();
    if matches!(device.kind, Kind::Memory | Kind::Optical | Kind::Floppy) {
        unfit.push(Unfit::Kind { word: device.kind.word() });
    } else if device.size.get() == 0 {
        unfit.push(Unfit::Empty);
    } else if device.size < SMALLEST {
        unfit.push(Unfit::TooSmall { size: device.size });
    }
    if device.read_only {
        unfit.push(Unfit::ReadOnly);
    }
    if facts.has_target(device.devno, THIN_POOL) {
        unfit.push(Unfit::ThinPool);
    }
    if facts.has_target(device.devno, "thin") {
        unfit.push(Unfit::ThinVolume);
    }
    unfit
}

/// What is on it.
fn on_it(
    facts: &Facts,
    device: &BlockDevice,
    content: Option<&Result<Content, String>>,
    labels: &BTreeMap<DeviceUuid, Vec<DevNo>>,
) -> Vec<Unfit> {
    let mut unfit = Vec::new();
    if !device.partitions.is_empty() {
        let names = device.partitions.iter().filter_map(|part| facts.device(*part));
        unfit.push(Unfit::Partitioned { partitions: names.map(|part| part.name.clone()).collect() });
    }
    let content = match content {
        None => return unfit,
        Some(Err(why)) => {
            unfit.push(Unfit::NotRead { why: why.clone() });
            return unfit;
        }
        Some(Ok(content)) => content,
    };
    match &content.label {
        Ok(None) => {}
        Ok(Some(label)) => {
            let role = label.role().map_or("a part", Role::words);
            unfit.push(Unfit::Label { pool: label.name.to_string(), role });
            unfit.extend(copies(facts, device, label, labels));
        }
        Err(bad) => unfit.push(Unfit::BadLabel { why: bad.to_string() }),
    }
    if let Some(metadata) = &content.thin_metadata {
        unfit.push(Unfit::ThinMetadata { damage: metadata.as_ref().err().map(ToString::to_string) });
    }
    match &content.signatures {
        Ok(signatures) => unfit.extend(signatures.iter().cloned().map(Unfit::Signature)),
        Err(why) => unfit.push(Unfit::NotRead { why: why.clone() }),
    }
    unfit
}

/// Which devices have the label of which device.
fn labels(facts: &Facts) -> BTreeMap<DeviceUuid, Vec<DevNo>> {
    let mut found: BTreeMap<DeviceUuid, Vec<DevNo>> = BTreeMap::new();
    for (devno, content) in &facts.contents {
        if let Ok(Content { label: Ok(Some(label)), .. }) = content {
            found.entry(label.device).or_default().push(*devno);
        }
    }
    found
}

/// Devices with the same label. One that stands on the other, or is it by another path, shows the same bytes.
fn copies(facts: &Facts, device: &BlockDevice, label: &Label, labels: &BTreeMap<DeviceUuid, Vec<DevNo>>) -> Vec<Unfit> {
    let same = labels.get(&label.device).into_iter().flatten();
    let others = same.filter(|other| **other != device.devno).filter_map(|other| facts.device(*other));
    others
        .filter(|other| {
            let stacked = facts.beneath(other.devno).contains(&device.devno)
                || facts.beneath(device.devno).contains(&other.devno);
            !stacked && (device.wwn.is_none() || device.wwn != other.wwn)
        })
        .map(|other| Unfit::Copy { of: other.path().display().to_string() })
        .collect()
}

#[cfg(test)]
#[path = "judge_tests.rs"]
mod tests;
