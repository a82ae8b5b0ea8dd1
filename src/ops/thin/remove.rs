//! `thin remove`: a volume goes, with all that is in it.

use super::{Facts, Needs, active, change, named, plan_of, ready, refused, steps_of};
use crate::error::{Failure, Outcome};
use crate::ops::find::Found;
use crate::ops::plan::{Operation, Plan};
use crate::ops::steps::{DeleteThin, Kit, MapVolume, TakeDown, down};
use crate::ops::{Change, Done, volumes};
use crate::pool::{Edit, VolumeName};

/// Removes the volume, or says what would be done.
///
/// # Errors
/// Refused with the reason, above all who has it open; [`crate::error::Kind::Failed`] when it could not be done and was
/// taken back.
pub fn remove(kit: &Kit, found: &Found, name: &VolumeName, how: Change) -> Outcome<Done> {
    let what = format!("remove volume `{name}` of pool `{}`", found.name);
    change(kit, found, how, &what, |facts| plan(facts, name, &what))
}

fn plan(facts: &Facts, name: &VolumeName, what: &str) -> Outcome<Plan> {
    let refuse = |why: String| -> Failure { refused(&format!("{what}: {why}")) };
    let ready = ready(facts, Needs::Messages, &refuse)?;
    let volume = named(facts, ready.state, name, &refuse)?;
    let device = active(facts, volume, &refuse)?;
    let mut made = Vec::new();
    if let Some(device) = device {
        if device.info.open_count > 0 {
            let next = format!("unmount it first (umount /dev/mapper/{})", device.info.name);
            return Err(down::open(what, device.info.open_count, down::holders_of(device.info.devno)).next(next));
        }
        // What it was as the device, should it be made again: its live length.
        let map = MapVolume { length: device.length, ..volumes::device_of(&facts.entry, volume) };
        made.push(TakeDown { made_by: Box::new(map.into()), deletes: None }.into());
    }
    let mut steps = steps_of(facts, ready.state, &Edit::Drop(volume.clone()), Vec::new());
    made.append(&mut steps);
    made.push(DeleteThin { pool: facts.report.name.clone(), id: volume.id, name: volume.name.clone() }.into());
    let mut notes = Vec::new();
    if !ready.known.volumes.contains_key(&u64::from(volume.id.get())) {
        notes.push(format!("the pool does not have the volume `{name}` any more; only its record goes"));
    }
    Ok(plan_of(facts, Operation::ThinRemove, what, made, notes))
}
