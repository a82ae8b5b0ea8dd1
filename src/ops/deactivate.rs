//! `deactivate`: a pool that dmpool made goes down; its files and its registration stay.

use crate::error::Outcome;
use crate::ops::journal;
use crate::ops::plan::{Operation, Plan};
use crate::ops::steps::{Kit, down};
use crate::ops::{Change, Done, deleted, gate};
use crate::pool::Entry;

/// Takes the pool down, or says what would be done.
///
/// # Errors
/// Refused with the reason, above all who has it open; [`crate::error::Kind::Failed`] when it could not be done and was
/// taken back.
pub fn deactivate(kit: &Kit, entry: &Entry, change: Change) -> Outcome<Done> {
    gate::may_change(kit)?;
    gate::no_interrupted(kit, entry.name.as_str())?;
    let first = plan(&down::look(kit, entry)?, entry)?;
    if change == Change::Describe || first.is_empty() {
        return Ok(Done::planned(first));
    }
    let _existence = gate::lock(kit, gate::EXISTENCE, &first.what)?;
    let _lock = gate::lock_entry(kit, entry, &first.what)?;
    gate::no_interrupted(kit, entry.name.as_str())?;
    let plan = plan(&down::look(kit, entry)?, entry)?;
    let ended = journal::carry_out(kit, plan.clone())?;
    Ok(Done::ended(plan, ended))
}

/// Decides what is to be done.
///
/// # Errors
/// Every reason not to do it.
pub fn plan(facts: &down::Facts, entry: &Entry) -> Outcome<Plan> {
    let name = &entry.name;
    let what = format!("deactivate pool `{name}`");
    deleted::refuse(&facts.held, name.as_str(), &what)?;
    let steps = down::steps(facts, entry).map_err(|why| why.failure(&what))?;
    let mut notes = deleted::moved(&facts.held);
    if steps.is_empty() {
        notes.push(format!("pool `{name}` is not active: unchanged"));
    }
    Ok(Plan { operation: Operation::Deactivate, pool: name.to_string(), what, steps, notes })
}
