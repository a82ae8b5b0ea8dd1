//! `status` and `list`: what there is, changed by nothing.

use crate::engine::docker_root::{DeviceCounts, DockerRoot};
use crate::error::{Failure, Outcome};
use crate::kernel::{ask, identity};
use crate::ops::facts;
use crate::ops::find::{self, Found};
use crate::ops::health::{self, Facts, Thresholds};
use crate::ops::history::{self, History};
use crate::ops::registry::BadEntry;
use crate::ops::steps::Kit;
use crate::pool::{Finding, Forecast, Identity, Moment, PoolReport, Tie, identities};

/// One pool as `status` shows it.
#[derive(Clone, Debug)]
pub struct Status {
    /// What kernel and files say.
    pub report: PoolReport,
    /// The Docker root that uses it.
    pub docker: Option<DockerRoot>,
    /// How many devices Docker's bookkeeping names; nothing also when it cannot be listed.
    pub devices: Option<DeviceCounts>,
    /// The version of the kernel's device-mapper driver.
    pub driver: Option<(u32, u32)>,
    /// What is wrong with it, or worth knowing, the worst first: of what was read anyway.
    pub findings: Vec<Finding>,
    /// By what it is known over time.
    pub identity: Identity,
    /// How fast it fills, as far as the history tells.
    pub forecast: Forecast,
}

impl Status {
    /// Returns what findings are made of.
    pub(super) fn facts(&self) -> Facts<'_> {
        // What Docker's files say now is said of the pool that it uses now.
        let docker = self.docker.as_ref().filter(|_| self.report.tie != Some(Tie::Before));
        Facts { pool: &self.report, docker, devices: self.devices.as_ref() }
    }
}

/// Which machine was looked at, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The name that the machine has given itself.
    pub hostname: String,
    /// The moment.
    pub time: Moment,
}

/// Returns which machine this is, and what time.
///
/// # Errors
/// When the kernel does not say its name.
pub fn origin() -> Outcome<Origin> {
    let hostname = identity::host_name().map_err(|e| Failure::failed("cannot learn this machine's name").because(e))?;
    Ok(Origin { hostname, time: history::now() })
}

/// What was looked for, and what of it could not be read.
#[derive(Debug)]
pub struct Seen<T> {
    /// What was found.
    pub found: T,
    /// What could not be read, and may have hidden something.
    pub broken: Vec<Failure>,
}

/// Returns the status of the pool that the argument means; without one, of the only pool that can be found.
///
/// # Errors
/// As [`find::find`]; when the device cannot be read as a pool.
pub fn status(kit: &Kit, argument: Option<&str>) -> Outcome<Seen<Status>> {
    let (found, mut broken) = match argument {
        None if kit.state.docker_root.is_none() => {
            let mut all = find::find_all(&kit.dm, &kit.state)?;
            if all.found.is_empty() && !all.broken.is_empty() {
                return Err(all.broken.remove(0));
            }
            (find::only_one(all.found, "status")?, all.broken)
        }
        None => (find::unnamed(&kit.dm, &kit.state, "status")?, Vec::new()),
        Some(argument) => (find::find(&kit.dm, &kit.state, argument)?, Vec::new()),
    };
    broken.extend(found.bad_entry.as_ref().map(BadEntry::failure));
    let mut status = of(kit, found, &Thresholds::default())?;
    with_history(kit, std::slice::from_mut(&mut status));
    Ok(Seen { found: status, broken })
}

/// Returns the status of every pool on the machine, by name.
///
/// # Errors
/// As [`find::find_all`].
pub fn all(kit: &Kit) -> Outcome<Seen<Vec<Status>>> {
    let mut seen = each(kit)?;
    with_history(kit, &mut seen.found);
    Ok(seen)
}

/// Returns the status of every pool; nothing is foretold yet.
pub(super) fn each(kit: &Kit) -> Outcome<Seen<Vec<Status>>> {
    let all = find::find_all(&kit.dm, &kit.state)?;
    let mut seen = Seen { found: Vec::new(), broken: all.broken };
    for found in all.found {
        seen.broken.extend(found.bad_entry.as_ref().map(BadEntry::failure));
        match of(kit, found, &Thresholds::default()) {
            Ok(status) => seen.found.push(status),
            Err(failure) => seen.broken.push(failure),
        }
    }
    Ok(seen)
}

/// Tells of each pool how fast it fills.
pub(super) fn foretell(pools: &mut [Status], history: &History, now: Moment) {
    let identities = identities(&pools.iter().map(|status| &status.report).collect::<Vec<_>>());
    for (status, identity) in pools.iter_mut().zip(identities) {
        status.forecast = history.forecast(&identity, &status.report, now);
        status.identity = identity;
    }
}

/// The same from the history on disk; one that cannot be used is named, and changes no verdict.
fn with_history(kit: &Kit, pools: &mut [Status]) {
    let (history, trouble) = history::read(&kit.state);
    foretell(pools, &history, history::now());
    for status in pools {
        let named = trouble.as_ref().map(|why| format!("the history {}: {why}", kit.state.history.display()));
        status.report.unread.extend(named);
    }
}

/// Returns the status of a pool that was found, judged by these thresholds.
///
/// # Errors
/// When the device cannot be read as a pool.
pub(super) fn of(kit: &Kit, found: Found, thresholds: &Thresholds) -> Outcome<Status> {
    let mut report = facts::look_as_found(kit, &found)?;
    let docker = found.docker.map(|root| root.with_library_version().with_installed_version());
    let devices = docker.as_ref().and_then(|root| count(root, &mut report.unread));
    let driver = kit.dm.version().ok().map(|(major, minor, _)| (major, minor));
    let (identity, forecast, findings) = (report.identity(), Forecast::default(), Vec::new());
    let mut status = Status { report, docker, devices, driver, findings, identity, forecast };
    status.findings = health::judge(&status.facts(), thresholds);
    Ok(status)
}

/// Returns how many devices Docker's files name: asked of a child, since there may be thousands on what hangs.
fn count(root: &DockerRoot, unread: &mut Vec<String>) -> Option<DeviceCounts> {
    let why = match ask::within_limit(|| root.count_devices()) {
        Ok(Ok(counts)) => return Some(counts),
        Ok(Err(problem)) => format!("{}: {}", problem.path.display(), problem.why),
        Err(why) => format!("Docker's records in {}: {why}", root.path.display()),
    };
    unread.push(why);
    None
}
