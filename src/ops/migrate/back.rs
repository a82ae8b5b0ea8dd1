//! Taking back a migration that has ended: as long as nobody has started Docker on what was made for it.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, anyhow, ensure};

use super::delete_old::command_of;
use super::over::{self, Over};
use crate::error::{Failure, Outcome};
use crate::kernel::fs::{self as durable, Bounds, occupied};
use crate::ops::daemon::nobody_runs_on;
use crate::ops::daemon::saved::Saved;
use crate::ops::journal::{self, Journal, ends_the_way_back};
use crate::ops::plan::{Operation, Plan};
use crate::ops::registry;
use crate::ops::steps::{Hold, KeepRecords, Kit, Step};
use crate::pool::Entry;
use crate::units::Bytes;

/// How far the records of a migration are looked through: a few files for each layer.
const BOUNDS: Bounds = Bounds { entries: 1_000_000, time: Duration::from_secs(10) };

/// What is to be known once a migration has ended.
#[derive(Clone, Debug)]
pub struct End {
    /// Which it is.
    pub over: Over,
    /// How large the folder with what was kept is.
    pub records: Bytes,
    /// Whether `undo` leads back still.
    pub is_undoable: bool,
    /// What deletes the old pool, where it is on devices and `migrate --delete-old` does not.
    pub deletes: Option<String>,
    /// What containers of `--rm` were saved as.
    pub saved: Vec<Saved>,
}

/// Returns what is to be known of a migration that has just ended; nothing of what is none.
pub fn end(kit: &Kit, plan: &Plan) -> Option<End> {
    let hold = plan.dropped_hold()?;
    let over = over::recorded(&kit.state).into_iter().find(|over| over.records == hold.records)?;
    let records = occupied(&over.records, BOUNDS).map(|occupied| occupied.bytes).unwrap_or_default();
    let is_it = |journal: &Journal| journal.opened.plan.dropped_hold() == Some(hold);
    let is_undoable = last(kit).is_ok_and(|journal| journal.as_ref().is_some_and(is_it));
    let deletes = command_of(kit, &over);
    let saved = KeepRecords::saved(&over.records);
    Some(End { over: over.measured(kit), records, is_undoable, deletes, saved })
}

/// Returns the journal of the migration that has ended last, when it can be taken back: nothing once Docker was started on what was made,
/// and where nobody knows whether it was.
///
/// # Errors
/// When what it has kept cannot be read.
pub fn last(kit: &Kit) -> Outcome<Option<Journal>> {
    let Some(over) = over::last(kit) else { return Ok(None) };
    let Some(journal) = journal::ended(&over.records)? else { return Ok(None) };
    let Some(hold) = journal.opened.plan.starts_none() else { return Ok(None) };
    let used =
        hold.used_since().map_err(|e| refuse(&journal, "whether Docker has run since cannot be told").because(e))?;
    Ok((hold.was_dropped() && used.is_empty()).then_some(journal))
}

/// Returns whether `undo` would take the migration of a root back: nobody has started Docker on what was made, or told it otherwise.
pub(super) fn leads_back(kit: &Kit, root: &Path) -> bool {
    let journal = last(kit).ok().flatten();
    let hold = journal.as_ref().and_then(|journal| Some((journal, journal.opened.plan.starts_none()?)));
    hold.is_some_and(|(journal, hold)| hold.root == root && is_told(journal, hold).is_ok())
}

fn refuse(journal: &Journal, why: &str) -> Failure {
    Failure::refused(format!("cannot undo `{}`: {why}", journal.opened.id)).fact("state", "nothing was touched")
}

/// Refuses to take it back where something is not as it was left: what was made would be deleted, and with it what somebody else has made in it.
///
/// # Errors
/// Refused with the reason.
pub fn may_go(kit: &Kit, journal: &Journal) -> Outcome<()> {
    let plan = &journal.opened.plan;
    let Some(hold) = plan.starts_none() else { return Ok(()) };
    nobody_runs_on(&hold.root).map_err(|e| {
        refuse(journal, "a Docker runs on what was made").because(e).next("stop it, then:  dmpool undo")
    })?;
    is_told(journal, hold)?;
    for step in &plan.steps {
        let act = step.act();
        if ends_the_way_back(Operation::Migrate, step)
            && let Err(why) = act.verify(kit)
        {
            return Err(refuse(journal, &format!("somebody has changed what it did ({})", act.sentence()))
                .because(why)
                .next("put that back as it was, then:  dmpool undo"));
        }
        if let Step::SetAside(aside) = step
            && aside.from.symlink_metadata().is_ok()
            && !plan.steps.iter().any(|other| matches!(other, Step::SetAside(other) if other.to == aside.from))
        {
            return Err(refuse(journal, &format!("{} is there again", aside.from.display()))
                .next("move it away (dmpool migrate --drop-prepared gives up what was prepared), then:  dmpool undo"));
        }
        let (untouched, pool) = match step {
            Step::CopyVolumes(copy) => (copy.carried.is_as_settled(kit), copy.carried.pool.as_str()),
            Step::Register(register) => (is_registered(kit, &register.entry), plan.pool.as_str()),
            Step::UpdateEntry(_) => (act.verify(kit), plan.pool.as_str()),
            _ => continue,
        };
        if let Err(why) = untouched {
            return Err(refuse(journal, "the new pool is not as it was left, and would be deleted").because(why).next(
                format!(
                    "dmpool list    # shows what there is; what leads back from `{pool}` then is another migration"
                ),
            ));
        }
    }
    Ok(())
}

fn is_told(journal: &Journal, hold: &Hold) -> Outcome<()> {
    let changed = hold.changed_since();
    match changed.map_err(|e| refuse(journal, "what Docker is told cannot be read").because(e))? {
        None => Ok(()),
        Some(path) => Err(refuse(journal, &format!("{} was changed since", path.display()))
            .fact("found", "going back would leave Docker told of what is not there any more")
            .next("take that change back, then:  dmpool undo")),
    }
}

fn is_registered(kit: &Kit, entry: &Entry) -> Result<()> {
    let found = registry::look(&kit.state, &entry.name).map_err(|bad| anyhow!(bad.failure().what))?;
    ensure!(found.is_some_and(|found| found.uuid == entry.uuid), "`{}` is not registered as it was", entry.name);
    Ok(())
}

/// Makes it one that has not ended, for who takes it back next.
///
/// # Errors
/// As [`may_go`]; when its journal cannot be put where those are that have not ended.
pub fn reopen(kit: &Kit, journal: &Journal) -> Outcome<()> {
    may_go(kit, journal)?;
    // Looked at again: who had the lock until now may have taken it back, and Docker may have been started.
    if last(kit)?.as_ref() != Some(journal) {
        return Err(refuse(journal, "Docker was started meanwhile, or somebody else takes it back"));
    }
    let Some(hold) = journal.opened.plan.starts_none() else { return Ok(()) };
    durable::make_dir_durably(&kit.state.journals, 0o700)
        .and_then(|_| journal::reopen(&kit.state, &hold.records))
        .map_err(|e| refuse(journal, "its journal cannot be opened again").because(e))
}
