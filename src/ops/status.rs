//! `status` and `list`: what there is, changed by nothing.

use crate::engine::docker_root::{DeviceCounts, DockerRoot};
use crate::error::{Failure, Outcome};
use crate::ops::facts;
use crate::ops::find::{self, Found};
use crate::ops::registry::BadEntry;
use crate::ops::steps::Kit;
use crate::pool::PoolReport;

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
        Some(_) => (find::find(&kit.dm, &kit.state, argument)?, Vec::new()),
        None => {
            let mut all = find::find_all(&kit.dm, &kit.state)?;
            if all.found.is_empty() && !all.broken.is_empty() {
                return Err(all.broken.remove(0));
            }
            (find::only_one(all.found)?, all.broken)
        }
    };
    broken.extend(found.bad_entry.as_ref().map(BadEntry::failure));
    Ok(Seen { found: of(kit, found)?, broken })
}

/// Returns the status of every pool on the machine, by name.
///
/// # Errors
/// As [`find::find_all`].
pub fn all(kit: &Kit) -> Outcome<Seen<Vec<Status>>> {
    let all = find::find_all(&kit.dm, &kit.state)?;
    let mut seen = Seen { found: Vec::new(), broken: all.broken };
    for found in all.found {
        seen.broken.extend(found.bad_entry.as_ref().map(BadEntry::failure));
        match of(kit, found) {
            Ok(status) => seen.found.push(status),
            Err(failure) => seen.broken.push(failure),
        }
    }
    Ok(seen)
}

fn of(kit: &Kit, found: Found) -> Outcome<Status> {
    let report = facts::look(&kit.dm, &kit.state, &found)?;
    let docker = found.docker.map(DockerRoot::with_library_version);
    let devices = docker.as_ref().map(DockerRoot::count_devices);
    let driver = kit.dm.version().ok().map(|(major, minor, _)| (major, minor));
    Ok(Status { report, docker, devices, driver })
}
