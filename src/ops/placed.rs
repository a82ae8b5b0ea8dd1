//! What a pool on devices lies on, as its labels tell it.

use std::path::PathBuf;

use anyhow::Result;

use crate::ops::steps::Kit;
use crate::ops::{lvm, members};
use crate::pool::label::{self, Assembly, Purpose};
use crate::pool::{Entry, Place};
use crate::units::Sectors;

/// Returns the devices as they are called now, as `create` would be told them.
///
/// # Errors
/// When they are not all there, or cannot be read.
pub fn of(kit: &Kit, entry: &Entry) -> Result<Place> {
    let sight = members::look(&kit.dm)?;
    let assembly = sight.assembled(&entry.uuid)?;
    let mut data: Vec<PathBuf> = Vec::new();
    let mut metadata = None;
    let mut stripe = None;
    for segment in &assembly.label.map {
        for leg in &segment.legs {
            let is_it = |labelled: &&members::Labelled| labelled.member.label.device == leg.device;
            let Some(found) = sight.labelled.iter().find(is_it) else { continue };
            let path = PathBuf::from(&found.member.name);
            match segment.purpose {
                Purpose::Metadata => metadata = Some(path),
                Purpose::Data if !data.contains(&path) => data.push(path),
                Purpose::Data | Purpose::Room => {}
            }
        }
        stripe = stripe.or(segment.chunk.map(Sectors::bytes));
    }
    if let Some(group) = made_by_lvm(&assembly, &sight, kit) {
        return Ok(Place::Volumes { group, share: None });
    }
    // The first for data carries the metadata too, without one of its own.
    let metadata = metadata.filter(|path| data.first() != Some(path));
    Ok(Place::Devices { data, metadata, stripe })
}

/// Returns the volume group in which LVM has made all devices of a pool for dmpool; nothing when it has not, or does not say.
fn made_by_lvm(assembly: &Assembly, sight: &members::Sight, kit: &Kit) -> Option<String> {
    let all = sight.of(&assembly.label.pool);
    let of = |member: &label::Member| {
        let volume = lvm::of_device(&kit.dm, member.devno).ok()??;
        volume.has(&lvm::tag_of(member.label.device)).then_some(volume.of.group)
    };
    let mut groups: Vec<_> = all.iter().map(of).collect::<Option<_>>()?;
    groups.dedup();
    // `create` makes two, and no more.
    if all.len() == 2 && groups.len() == 1 { groups.pop() } else { None }
}
