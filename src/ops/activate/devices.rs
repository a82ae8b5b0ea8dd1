//! Bringing up a pool on labelled devices, whatever they are called now.

use std::path::Path;

use anyhow::{Context, Result};

use crate::error::{Failure, Outcome};
use crate::metadata::{BadSuperblock, Superblock};
use crate::ops::steps::{self, Kit, Step};
use crate::ops::volumes::{self, Known};
use crate::ops::{lvm, members};
use crate::pool::Entry;
use crate::pool::label::{self, Assembly, DeviceUuid, Purpose, Unassembled};
use crate::process::quote;
use crate::units::Sectors;

/// What there is of the devices.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// The pool as its labels tell it, or why they do not come to one; nothing when nobody looked.
    pub(super) assembly: Option<Result<Assembly, Unassembled>>,
    /// What is where its metadata begins.
    superblock: Option<Result<Superblock, BadSuperblock>>,
    /// Devices that could not be read, or whose labels cannot be used: each a sentence.
    unread: Vec<String>,
    /// The names of those whose label cannot be used.
    torn: Vec<String>,
    /// The names of the pool's devices that have something else beside its label.
    taken: Vec<String>,
}

pub(super) fn look(kit: &Kit, entry: &Entry) -> Result<Facts> {
    let sight = members::look(&kit.dm)?;
    let assembly = label::assemble(&sight.of(&entry.uuid));
    let superblock = assembly.as_ref().ok().map(members::superblock).transpose()?;
    let mut taken = Vec::new();
    for labelled in sight.labelled.iter().filter(|labelled| labelled.member.label.pool == entry.uuid) {
        // A label outlasts a partition table and many a file system that is put over it. What cannot be read there is nobody's.
        if steps::is_bare(labelled.member.devno).is_ok_and(|is_bare| !is_bare) {
            taken.push(labelled.member.name.clone());
        }
    }
    Ok(Facts { assembly: Some(assembly), superblock, unread: sight.unread, torn: sight.torn, taken })
}

/// Returns those of the devices beneath the pool that are up already, just as their step would make them.
///
/// # Errors
/// When the kernel does not answer.
pub(super) fn left(kit: &Kit, entry: &Entry, facts: &Facts) -> Result<Vec<String>> {
    let (Some(Ok(_)), Some(Ok(superblock))) = (&facts.assembly, &facts.superblock) else { return Ok(Vec::new()) };
    let length = superblock.length().unwrap_or_default();
    let mut left = Vec::new();
    for step in steps::devices_of(entry, superblock.metadata_total.bytes().sectors(), length) {
        if let Step::MapDevices(device) = step
            && device.is_left(kit)?
        {
            left.push(device.name);
        }
    }
    Ok(left)
}

/// Returns what the metadata says of the pool's volumes.
///
/// # Errors
/// When the devices do not come to a pool, or cannot be read.
pub(super) fn volumes(facts: &Facts) -> Result<Known> {
    let assembly = facts.assembly.as_ref().and_then(|found| found.as_ref().ok());
    let assembly = assembly.context("its devices are not all there")?;
    volumes::known_by(|offset| members::metadata_block(assembly, offset))
}

/// Returns the superblock of devices that hold what it counts.
///
/// # Errors
/// Refused when they do not, or are not all there.
pub(super) fn superblock<'f>(
    facts: &'f Facts,
    entry: &Entry,
    notes: &mut Vec<String>,
    refuse: &impl Fn(String) -> Failure,
) -> Outcome<&'f Superblock> {
    let assembly = match &facts.assembly {
        Some(Ok(assembly)) => assembly,
        Some(Err(why)) => return Err(unassembled(why, facts, entry, refuse)),
        None => return Err(refuse("its devices were not looked at".to_owned())),
    };
    if let [first, ..] = facts.taken.as_slice() {
        return Err(refuse(format!("something else is on {} by now", facts.taken.join(", ")))
            .fact("found", "beside the label, in the first MiB, which the pool keeps empty")
            .next(format!(
                "wipefs {}    # may tell what it is; whose it is has perhaps written over the pool's data",
                quote(first)
            )));
    }
    let superblock = match &facts.superblock {
        Some(found) => super::usable(found, "its metadata", refuse)?,
        None => return Err(refuse("its metadata was not looked at".to_owned())),
    };
    let data = superblock.length().unwrap_or(Sectors::new(u64::MAX));
    let metadata = superblock.metadata_total.bytes().sectors();
    for (purpose, needed, part) in [(Purpose::Data, data, "data"), (Purpose::Metadata, metadata, "metadata")] {
        let found = assembly.label.length(purpose);
        if found < needed {
            return Err(refuse(format!("its labels have less {part} than the pool"))
                .fact("needed", format!("{}, as the superblock records", needed.bytes().exact()))
                .fact("found", found.bytes().exact())
                .next("dmpool disks    # shows whose labels there are: a device with a newer one may be missing"));
        }
    }
    if !assembly.behind.is_empty() {
        let devices: Vec<_> = assembly.behind.iter().map(ToString::to_string).collect();
        notes.push(format!("the labels of {} are older than the others: a grow was interrupted", devices.join(", ")));
    }
    Ok(superblock)
}

/// Returns the refusal of labels that do not come to a pool, with the names that its devices had.
fn unassembled(why: &Unassembled, facts: &Facts, entry: &Entry, refuse: &impl Fn(String) -> Failure) -> Failure {
    let known = |uuid: &DeviceUuid| {
        let device = entry.devices().iter().find(|device| device.uuid == *uuid);
        device.map_or_else(|| format!("the device {uuid}"), |device| device.path.display().to_string())
    };
    let awaited: Vec<String> = match why {
        Unassembled::None => entry.devices().iter().map(|device| known(&device.uuid)).collect(),
        Unassembled::Missing(devices) => devices.iter().map(known).collect(),
        Unassembled::Twice { .. } | Unassembled::Disagree { .. } | Unassembled::Short { .. } => Vec::new(),
    };
    let is_lv = |name: &str| lvm::names_in(Path::new(name)).is_some();
    // What is there with a label that cannot be used does not come.
    let is_late = !awaited.iter().any(|name| facts.torn.contains(name));
    let failure = match why {
        Unassembled::None => {
            let names: Vec<_> = entry.devices().iter().map(|device| device.path.display().to_string()).collect();
            refuse("none of its devices is here".to_owned()).fact("missing", names.join(", "))
        }
        Unassembled::Missing(devices) => {
            let names: Vec<_> = devices.iter().map(known).collect();
            let one = devices.len() == 1;
            refuse(format!("{} missing", if one { "one of its devices is" } else { "some of its devices are" }))
                .fact("missing", format!("{} (as it was called last)", names.join(", ")))
        }
        Unassembled::Twice { .. } | Unassembled::Disagree { .. } | Unassembled::Short { .. } => refuse(why.to_string()),
    };
    let failure = match facts.unread.as_slice() {
        [] => failure,
        unread => failure.fact("unread", unread.join("\n")),
    };
    let next = match why {
        Unassembled::None | Unassembled::Missing(_) if awaited.iter().any(|name| is_lv(name)) => {
            format!(
                "lvs -a    # shows whether its LVs are there; lvchange -a y VG/LV activates yours; then  dmpool activate {}",
                entry.name
            )
        }
        Unassembled::None | Unassembled::Missing(_) => {
            format!(
                "connect it (dmpool disks shows what is here, and how to look again), then  dmpool activate {}",
                entry.name
            )
        }
        Unassembled::Twice { .. } => {
            format!("disconnect the copy (a clone, a snapshot of a SAN), then  dmpool activate {}", entry.name)
        }
        Unassembled::Disagree { .. } => {
            "one of them is of another time: disconnect it, or restore the right one".to_owned()
        }
        Unassembled::Short { .. } => "give the device its length back: what lies behind its end is missing".to_owned(),
    };
    failure.next(next).awaiting(awaited.into_iter().filter(|_| is_late))
}
