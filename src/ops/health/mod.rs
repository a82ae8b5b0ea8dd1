//! What is wrong with a pool and what to do: pure functions from facts to findings, one file per theme.
//!
//! `status` judges what it has read anyway; `health` looks at more first.

mod check;
mod disk_name;
mod disk_names;
mod docker;
pub(crate) mod docker_log;
mod down;
mod files;
mod filling;
mod hung;
pub(crate) mod lvm;
pub(crate) mod owners;
mod records;
mod registered;
mod run;
mod space;
pub(crate) mod start;
mod state;
mod stray;
mod unprivileged;
mod users;
mod volume_findings;
pub(crate) mod volumes;
mod ways;

pub use run::{Health, Options, PoolHealth, health};
pub use ways::{argument, logical_volume};

use crate::engine::docker_root::{DeviceCounts, DockerRoot};
use crate::pool::{Finding, PoolReport, finding};

/// From which share in use on a space is worth a warning, and from which on it is critical, in hundredths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Threshold {
    /// A warning.
    pub warning: u8,
    /// Critical.
    pub critical: u8,
}

/// The thresholds of a pool's two spaces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Thresholds {
    /// Of its data, and of the file system under it.
    pub data: Threshold,
    /// Of its metadata.
    pub metadata: Threshold,
}

impl Default for Threshold {
    fn default() -> Self {
        Self { warning: 80, critical: 95 }
    }
}

/// All that findings are made of.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The pool.
    pub pool: &'a PoolReport,
    /// The Docker root that uses it, when one does; not one that used it before.
    pub docker: Option<&'a DockerRoot>,
    /// The devices in that root's bookkeeping, when somebody has counted them.
    pub devices: Option<&'a DeviceCounts>,
}

impl<'a> Facts<'a> {
    /// Of a pool of which nothing else is known.
    pub const fn of(pool: &'a PoolReport) -> Self {
        Self { pool, docker: None, devices: None }
    }
}

/// Returns all that is wrong or worth knowing, the worst first.
pub fn judge(facts: &Facts<'_>, thresholds: &Thresholds) -> Vec<Finding> {
    let mut findings = state::judge(facts);
    findings.extend(space::judge(facts, thresholds));
    findings.extend(docker::judge(facts));
    findings.extend(records::judge(facts));
    findings.extend(files::judge(facts));
    findings.extend(state::not_seen(facts));
    state::offer_start(facts, &mut findings);
    finding::sort(&mut findings);
    findings
}
