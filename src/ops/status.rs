//! `status` and `list`: what there is, changed by nothing.

use crate::engine::docker_root::{DeviceCounts, DockerRoot};
use crate::error::Outcome;
use crate::ops::facts;
use crate::ops::find::{self, Found};
use crate::ops::health::{self, Facts, Thresholds};
use crate::ops::steps::Kit;
use crate::pool::{Finding, PoolReport};

/// One pool as `status` shows it.
#[derive(Clone, Debug)]
pub struct Status {
    /// What kernel and files say.
    pub report: PoolReport,
    /// The Docker root that uses it.
    pub docker: Option<DockerRoot>,
    /// How many devices Docker's bookkeeping names.
    pub devices: Option<DeviceCounts>,
    /// The version of the kernel's device-mapper driver.
    pub driver: Option<(u32, u32)>,
    /// What is wrong with it, or worth knowing, the worst first: of what was read anyway.
    pub findings: Vec<Finding>,
}

/// Returns the status of the pool that the argument means.
///
/// # Errors
/// As [`find::find`]; when the device cannot be read as a pool.
pub fn status(kit: &Kit, argument: Option<&str>) -> Outcome<Status> {
    let found = find::find(&kit.dm, &kit.state, argument)?;
    of(kit, found, &Thresholds::default())
}

/// Returns the status of every pool on the machine, by name.
///
/// # Errors
/// As [`find::find_all`].
pub fn all(kit: &Kit) -> Outcome<Vec<Status>> {
    find::find_all(&kit.dm, &kit.state)?.into_iter().map(|found| of(kit, found, &Thresholds::default())).collect()
}

/// Returns the status of a pool that was found, judged by these thresholds.
///
/// # Errors
/// When the device cannot be read as a pool.
pub(super) fn of(kit: &Kit, found: Found, thresholds: &Thresholds) -> Outcome<Status> {
    let report = facts::look(&kit.dm, &kit.state, &found)?;
    let docker = found.docker.map(|root| root.with_library_version().with_installed_version());
    let devices = docker.as_ref().map(DockerRoot::count_devices);
    let driver = kit.dm.version().ok().map(|(major, minor, _)| (major, minor));
    let findings = health::judge(&Facts { pool: &report, docker: docker.as_ref() }, thresholds);
    Ok(Status { report, docker, devices, driver, findings })
}
