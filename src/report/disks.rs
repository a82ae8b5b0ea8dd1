//! The block devices of a machine, as `disks` prints them.

use serde::Serialize;

use super::docker_info::UNKNOWN;
use super::failure::printable;
use super::json::{FORMAT, document};
use super::table;
use crate::ops::disks::{Disk, Disks};
use crate::ops::status::Origin;
use crate::pool::DevNo;
use crate::pool::disk::{Kind, Signature, Unfit};
use crate::units::Bytes;

const HEADINGS: [&str; 5] = ["NAME", "DEVICE", "SIZE", "KIND", "USABLE"];

/// How many reasons a line has room for.
const REASONS: usize = 2;

/// Returns the table of those that are shown, how many there are besides, and how to look for more.
pub fn text(disks: &Disks, shown: &dyn Fn(&Disk) -> bool) -> String {
    let (rows, others): (Vec<_>, Vec<_>) = disks.all.iter().partition(|disk| shown(disk));
    let mut text = match rows.is_empty() {
        true => "no disks on this machine\n".to_owned(),
        false => table::columns(&HEADINGS, &rows.into_iter().map(row).collect::<Vec<_>>()),
    };
    if !others.is_empty() {
        let verb = if others.len() == 1 { "is" } else { "are" };
        text.push_str(&format!("{} more {verb} shown by:  dmpool disks --all\n", others.len()));
    }
    let mut before = "";
    for rescan in &disks.rescans {
        if rescan.what != before {
            text.push_str(&format!("\nto find {}:\n", rescan.what));
            before = rescan.what;
        }
        text.push_str(&format!("  {}\n", rescan.command));
    }
    text
}

fn row(disk: &Disk) -> [String; 5] {
    let device = &disk.device;
    [
        printable(&device.path().to_string_lossy()),
        printable(&device.name),
        device.size.human(),
        device.kind.word().to_owned(),
        printable(&usable(disk)),
    ]
}

fn usable(disk: &Disk) -> String {
    let mut reasons: Vec<_> = disk.unfit.iter().take(REASONS).map(Unfit::sentence).collect();
    let more = disk.unfit.len().saturating_sub(REASONS);
    if more > 0 {
        reasons.push(format!("and {more} more"));
    }
    match disk.usable() {
        Some(true) => "yes".to_owned(),
        Some(false) => format!("no: {}", reasons.join("; ")),
        None => format!("{UNKNOWN}: {}", reasons.join("; ")),
    }
}

/// Returns the same as JSON, with all reasons.
pub fn json(disks: &Disks, shown: &dyn Fn(&Disk) -> bool, origin: &Origin) -> String {
    document(&List {
        format: FORMAT,
        hostname: &origin.hostname,
        time: origin.time.to_string(),
        disks: disks.all.iter().filter(|disk| shown(disk)).map(Device::of).collect(),
        rescan: disks.rescans.iter().map(|r| Command { key: r.key, command: &r.command }).collect(),
    })
}

#[derive(Serialize)]
struct List<'a> {
    format: u32,
    hostname: &'a str,
    /// RFC 3339, UTC.
    time: String,
    disks: Vec<Device>,
    rescan: Vec<Command<'a>>,
}

#[derive(Serialize)]
struct Command<'a> {
    /// `new_disk`, `larger_disk`.
    #[serde(rename = "for")]
    key: &'static str,
    command: &'a str,
}

#[derive(Serialize)]
struct Device {
    name: String,
    device: String,
    number: DevNo,
    names: Vec<String>,
    size: Bytes,
    kind: &'static str,
    usable: Option<bool>,
    reasons: Vec<Reason>,
    signatures: Option<Vec<Signature>>,
    blank: Option<bool>,
    logical_sector: Option<Bytes>,
    physical_sector: Option<Bytes>,
    read_only: bool,
    removable: bool,
    rotational: Option<bool>,
    model: Option<String>,
    serial: Option<String>,
    wwn: Option<String>,
    md_level: Option<String>,
    volume_group: Option<String>,
    logical_volume: Option<String>,
    dm_name: Option<String>,
    loop_file: Option<String>,
    disk: Option<DevNo>,
    partitions: Vec<DevNo>,
    stands_on: Vec<DevNo>,
    held_by: Vec<DevNo>,
}

#[derive(Serialize)]
struct Reason {
    key: &'static str,
    sentence: String,
}

impl Device {
    fn of(disk: &Disk) -> Self {
        let device = &disk.device;
        let (mut md_level, mut volume_group, mut logical_volume, mut loop_file) = (None, None, None, None);
        match &device.kind {
            Kind::Md { level } => md_level = level.clone(),
            Kind::LogicalVolume { group, volume } => {
                volume_group = Some(group.clone());
                logical_volume = Some(volume.clone());
            }
            Kind::Loop { file } => loop_file = file.as_ref().map(|file| file.to_string_lossy().into_owned()),
            _ => {}
        }
        Self {
            name: device.path().to_string_lossy().into_owned(),
            device: device.node().to_string_lossy().into_owned(),
            number: device.devno,
            names: device.names.iter().map(|name| name.to_string_lossy().into_owned()).collect(),
            size: device.size,
            kind: device.kind.word(),
            usable: disk.usable(),
            reasons: disk.unfit.iter().map(|why| Reason { key: why.key(), sentence: why.sentence() }).collect(),
            signatures: disk.signatures.clone(),
            blank: disk.blank,
            logical_sector: device.logical_sector,
            physical_sector: device.physical_sector,
            read_only: device.read_only,
            removable: device.removable,
            rotational: device.rotational,
            model: device.model.clone(),
            serial: device.serial.clone(),
            wwn: device.wwn.clone(),
            md_level,
            volume_group,
            logical_volume,
            dm_name: device.kind.dm_name(),
            loop_file,
            disk: device.disk,
            partitions: device.partitions.clone(),
            stands_on: device.slaves.clone(),
            held_by: device.holders.clone(),
        }
    }
}

#[cfg(test)]
#[path = "disks_tests.rs"]
mod tests;
