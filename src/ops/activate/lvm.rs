//! LVs that a pool lies on and that nobody has activated: LVM does that first, since only then their labels can be read.

use crate::error::{Failure, Outcome};
use crate::ops::plan::{Operation, Plan};
use crate::ops::steps::{self, Kit, Step};
use crate::ops::{Change, Done, gate, journal};
use crate::pool::Entry;

/// Has LVM activate what of a pool it has not activated. Returns what would be done, when that is all that is asked for:
/// the rest is known only then.
///
/// # Errors
/// When it could not be done, and was taken back.
pub(super) fn wake(kit: &Kit, entry: &Entry, change: Change) -> Outcome<Option<Done>> {
    let unclear = |e: anyhow::Error| {
        Failure::refused(format!("cannot activate pool `{}`: which LVs are its own cannot be told", entry.name))
            .fact("state", "nothing was touched")
            .next(
                "lvs -o +vg_uuid,lv_uuid,tags    # shows them; disconnect the copy, or take its tags (lvchange --deltag)",
            )
            .because(e)
    };
    let asleep = steps::asleep(kit, entry).map_err(unclear)?;
    if !asleep.partial.is_empty() {
        let (names, several) = (asleep.partial.join(", "), asleep.partial.len() > 1);
        let what = if several { format!("the LVs {names} are") } else { format!("the LV {names} is") };
        let why =
            format!("cannot activate pool `{}`: {what} not whole: disks of the volume group are missing", entry.name);
        return Err(Failure::refused(why)
            .fact("state", "nothing was touched")
            .next("connect them (pvs -a -o +pv_missing; vgs -o +vg_missing_pv_count); dmpool disks    # says how to look again")
            .awaiting(asleep.partial));
    }
    let plan = Plan {
        operation: Operation::Activate,
        pool: entry.name.to_string(),
        what: format!("activate the LVs of pool `{}`", entry.name),
        steps: asleep.steps.into_iter().map(Step::from).collect(),
        notes: vec!["what else there is to do is known once its LVs are active".to_owned()],
    };
    if plan.is_empty() {
        return Ok(None);
    }
    if change == Change::Describe {
        return Ok(Some(Done::planned(plan)));
    }
    let _existence = gate::lock(kit, gate::EXISTENCE, &plan.what)?;
    let _lock = gate::lock(kit, &gate::key_of_entry(entry), &plan.what)?;
    journal::carry_out(kit, plan).map(|_| None)
}
