//! `metrics`: all pools as monitoring wants them, and one more point in the history.

use std::time::Duration;

use crate::error::Failure;
use crate::ops::health::{self, Options, PoolHealth, Thresholds};
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
    /// Every pool that could be looked at; nothing when it could not be asked which there are.
    pub pools: Option<Vec<Status>>,
    /// What is wrong with the machine and belongs to no pool.
    pub machine: Vec<Finding>,
    /// Why other pools could not be.
    pub skipped: Vec<Failure>,
    /// Why the history could not be read or written, a sentence.
    pub history: Option<String>,
}

/// Looks at every pool, and remembers what was seen. What goes wrong is part of what it returns: monitoring is told so, also where
/// device-mapper cannot be used at all.
pub fn gather(state: State) -> Metrics {
    let at = history::now();
    let (pools, machine, skipped) = (None, Vec::new(), Vec::new());
    let mut metrics = Metrics { at, pools, machine, skipped, history: None };
    let kit = match gate::open(state.clone()) {
        Ok(kit) => kit,
        Err(failure) => {
            metrics.machine = judged(state).into_iter().flat_map(|judged| judged.findings).collect();
            metrics.skipped.push(failure);
            return metrics;
        }
    };
    match status::each(&kit) {
        Ok(seen) => {
            metrics.pools = Some(seen.found);
            metrics.skipped = seen.broken;
        }
        Err(failure) => metrics.skipped.push(failure),
    }
    judge(&kit, &mut metrics);
    metrics.history = remember(&kit, metrics.pools.as_deref_mut().unwrap_or_default(), at).err();
    metrics
}

/// What `health` says.
fn judged(state: State) -> Vec<PoolHealth> {
    let options = Options { pool: None, thresholds: Thresholds::default(), limit: LIMIT, no_pool: Severity::Info };
    health::health(state, &options).pools
}

/// Gives the pools the findings of `health`: those of `status` and what takes longer to look at.
fn judge(kit: &Kit, metrics: &mut Metrics) {
    for judged in judged(kit.state.clone()) {
        match metrics.pools.iter_mut().flatten().find(|status| judged.name.as_ref() == Some(&status.report.name)) {
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
