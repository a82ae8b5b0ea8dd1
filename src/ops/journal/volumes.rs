//! What an interrupted change of a volume must not delete when it is ended.

use anyhow::Result;

use crate::kernel::block;
use crate::kernel::dm::DmId;
use crate::kernel::identity;
use crate::ops::journal::{Journal, Progress};
use crate::ops::plan::Operation;
use crate::ops::steps::{Kit, MapVolume, Step, TakeDown};
use crate::ops::{members, registry, sight, volumes};
use crate::pool::{Entry, PoolName};

/// Returns whether an operation changes which volumes a pool has: then it is ended on the live pool only.
pub const fn is_of_volumes(operation: Operation) -> bool {
    matches!(operation, Operation::ThinCreate | Operation::ThinSnapshot | Operation::ThinRemove)
}

/// Returns the entry of the pool that an operation is on, when dmpool made it.
pub fn entry_of(kit: &Kit, pool: &str) -> Option<Entry> {
    let name = PoolName::new(pool).ok()?;
    registry::look(&kit.state, &name).ok().flatten()
}

/// Returns what shows that the volume which an interrupted `thin create` or `thin snapshot` made has been used: taking
/// it back would delete that. Nothing when nothing shows it, or another operation was interrupted.
///
/// # Errors
/// When the device or the pool cannot be looked at.
pub fn used(kit: &Kit, journal: &Journal) -> Result<Option<String>> {
    let plan = &journal.opened.plan;
    if !matches!(plan.operation, Operation::ThinCreate | Operation::ThinSnapshot) {
        return Ok(None);
    }
    let map = plan.steps.iter().find_map(|step| if let Step::MapVolume(map) = step { Some(map) } else { None });
    if let Some(MapVolume { name, uuid, .. }) = map
        && let Some(info) = kit.dm.info(&DmId::name(name))?
        && info.uuid.as_ref() == Some(uuid)
    {
        let writes = block::writes(info.devno)?;
        if writes > 0 {
            return Ok(Some(format!("{writes} writes to /dev/mapper/{name}")));
        }
    }
    // After a reboot nobody counts any more, and a pool that has come to that number comes up with the volume.
    if journal.opened.boot == identity::boot_id()? {
        return Ok(None);
    }
    let next = plan.steps.iter().find_map(|step| if let Step::SetTransaction(s) = step { Some(s.to) } else { None });
    let now = match (sight::live(&kit.dm, &plan.pool)?, entry_of(kit, &plan.pool)) {
        (Some(live), _) => Some(volumes::known(live.table.metadata)?.transaction),
        (None, Some(entry)) => Some(members::recorded(&kit.dm, &entry)??.transaction_id),
        (None, None) => None,
    };
    let is_there = now.is_some() && now == next;
    Ok(is_there.then(|| "the pool has come up with it, or will, since it was interrupted".to_owned()))
}

/// Returns whether an interrupted `thin grow` was begun before the last reboot: the volume may have been up with its new
/// length since, and a file system may have grown into it.
///
/// # Errors
/// When /proc cannot be read.
pub fn may_have_grown(journal: &Journal) -> Result<bool> {
    let is_begun = journal.progress.iter().any(|progress| !matches!(progress, Progress::Not | Progress::Reverted));
    Ok(journal.opened.plan.operation == Operation::ThinGrow && is_begun && journal.opened.boot != identity::boot_id()?)
}

/// Returns the device of the volume that an interrupted `thin remove` had taken down and somebody has brought up since:
/// finishing it would delete what has been written to it. Nothing when it is down, or another operation was interrupted.
///
/// # Errors
/// When the kernel does not answer.
pub fn is_back(kit: &Kit, journal: &Journal) -> Result<Option<String>> {
    let plan = &journal.opened.plan;
    if plan.operation != Operation::ThinRemove {
        return Ok(None);
    }
    for (step, progress) in plan.steps.iter().zip(&journal.progress) {
        if let (Step::TakeDown(TakeDown { made_by, .. }), Progress::Done) = (step, progress)
            && let Step::MapVolume(MapVolume { name, .. }) = &**made_by
            && kit.dm.info(&DmId::name(name))?.is_some_and(|info| info.live_table)
        {
            return Ok(Some(name.clone()));
        }
    }
    Ok(None)
}
