//! `metrics`: all pools as monitoring wants them, and one more point in the history.

use std::time::Duration;

use crate::error::Failure;
use crate::ops::health::{self, Options, Thresholds};
use crate::ops::history::{self, Trouble};
use crate::ops::status::{self, Status};
use crate::ops::steps::Kit;
use crate::ops::{State, gate};
use crate::pool::{Finding, Moment, Severity, identities};

/// How long the findings of all pools may take: what was not seen by then is a finding.
const LIMIT: Duration = Duration::from_secs(60);

/// What one run has seen.
#[derive(Debug)]
pub struct Metrics {
    /// When.
    pub at: Moment,
    /// Every pool that could be looked at.
    pub pools: Vec<Status>,
    /// What is wrong with the machine and belongs to no pool.
    pub machine: Vec<Finding>,
    /// Why other pools could not be.
    pub skipped: Vec<Failure>,
    /// Why the history could not be read or written, a sentence.
    pub history: Option<String>,
}

/// Looks at every pool, and remembers what was seen. What goes wrong is part of what it returns: monitoring is told so.
pub fn gather(kit: &Kit) -> Metrics {
    let at = history::now();
    let mut metrics = Metrics { at, pools: Vec::new(), machine: Vec::new(), skipped: Vec::new(), history: None };
    match status::each(kit) {
        Ok(seen) => {
            metrics.pools = seen.found;
            metrics.skipped = seen.broken;
        }
        Err(failure) => metrics.skipped.push(failure),
    }
    judge(kit, &mut metrics);
    metrics.history = remember(kit, &mut metrics.pools, at).err();
    metrics
}

/// Gives the pools the findings of `health`: those of `status` and what takes longer to look at.
fn judge(kit: &Kit, metrics: &mut Metrics) {
    let options = Options { pool: None, thresholds: Thresholds::default(), limit: LIMIT, no_pool: Severity::Info };
    for judged in health::health(kit.state.clone(), &options).pools {
        match metrics.pools.iter_mut().find(|status| judged.name.as_ref() == Some(&status.report.name)) {
            Some(status) => {
                status.findings = judged.findings;
                // What LVM adds by itself counts for what can be written, and for when the pool is full.
                status.report.volume_group = judged.volume_group;
            }
            // That a pool could not be looked at is in `skipped`.
            None if judged.name.is_some() => {}
            None => metrics.machine.extend(judged.findings),
        }
    }
}

/// Adds to the history, and foretells from it. A damaged one is named, and begun anew; that of a newer dmpool is named,
/// and left alone.
fn remember(kit: &Kit, pools: &mut [Status], at: Moment) -> Result<(), String> {
    let path = kit.state.history.display();
    // Two that read, add and replace at once would lose a point.
    let lock = gate::lock(kit, "history", "remember what was seen");
    let (mut history, trouble) = history::read(&kit.state);
    {
        let reports: Vec<_> = pools.iter().map(|status| &status.report).collect();
        let identities = identities(&reports);
        history.record(&identities.iter().zip(reports).collect::<Vec<_>>(), at);
    }
    status::foretell(pools, &history, at);
    let lock = lock.map_err(|e| e.to_string())?;
    let write = |state: &State| history::write(state, &history).map_err(|e| format!("{e:#}"));
    let result = match trouble {
        None => write(&kit.state),
        Some(Trouble::LeftAlone(why)) => Err(format!("the history {path} is left alone: {why}")),
        Some(Trouble::Damaged(why)) => {
            write(&kit.state)?;
            Err(format!("the history {path} was damaged and is begun anew: {why}"))
        }
    };
    drop(lock);
    result
}
