//! Docker's bookkeeping in a root: one small file for every thin device, and two for all of them.

use std::collections::BTreeMap;
use std::io;

use serde::{Deserialize, Serialize};

use super::{DRIVER, DockerRoot, Problem};
use crate::engine::bookkeeping::{self, Device};
use crate::engine::small_file::Directory;

/// The directory in the driver's home with a file for every thin device.
pub(super) const RECORDS: &str = "metadata";
/// Docker's files are some hundred bytes long.
const LARGEST_RECORD: u64 = 64 << 10;

/// How many devices Docker's bookkeeping names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceCounts {
    /// All of them, the base included.
    pub all: u64,
    /// Those to be deleted once nobody uses them.
    pub deleted: u64,
    /// Files that could not be read; with one of these `deleted` is a lower bound.
    pub problems: Vec<Problem>,
    /// Files whose device id another file has too: Docker would mount one container's device for the other.
    pub duplicates: Vec<Problem>,
}

impl DockerRoot {
    /// Counts the devices in Docker's bookkeeping; one small file is read for each.
    ///
    /// # Errors
    /// What keeps the bookkeeping from being listed: then nobody knows how many there are.
    pub fn count_devices(&self) -> Result<DeviceCounts, Problem> {
        let mut counts = DeviceCounts::default();
        let home = Directory::open(&self.path).and_then(|root| root.enter(DRIVER));
        let records = home.and_then(|home| home.enter(RECORDS));
        let listed = records.and_then(|records| Ok((records.names()?, records)));
        let (names, records) = match listed {
            Ok(listed) => listed,
            // Docker makes it with its first device.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(counts),
            Err(error) => {
                let path = self.path.join(DRIVER).join(RECORDS);
                return Err(Problem { path, why: error.to_string() });
            }
        };
        let mut owners = BTreeMap::new();
        for name in &names {
            let Some(name) = name.to_str() else {
                let why = "its name is none of a device".to_owned();
                counts.problems.push(Problem { path: records.path().join(name), why });
                continue;
            };
            if !bookkeeping::is_device_file(name) {
                continue;
            }
            counts.all += 1;
            let Some(device) = record(Some(&records), name, Device::parse, &mut counts.problems) else { continue };
            counts.deleted += u64::from(device.deleted);
            if let Some(other) = owners.insert(device.id, name) {
                let why = format!("its device id {} is that of {other} too", device.id);
                counts.duplicates.push(Problem { path: records.path().join(name), why });
            }
        }
        Ok(counts)
    }
}

/// Reads one record; one that is not there is nothing, one that cannot be read is nothing and a problem.
pub(super) fn record<T>(
    records: Option<&Directory>,
    name: &str,
    parse: impl Fn(&[u8]) -> Result<T, bookkeeping::BadFile>,
    problems: &mut Vec<Problem>,
) -> Option<T> {
    let records = records?;
    let why = match records.read(name, LARGEST_RECORD) {
        Ok(bytes) => match parse(&bytes) {
            Ok(value) => return Some(value),
            Err(error) => error.to_string(),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => error.to_string(),
    };
    problems.push(Problem { path: records.path().join(name), why });
    None
}

/// Names the records that a folder with devices must have and has not: Docker writes all three before or with its first
/// device, and without `base` it makes a new base device.
pub(super) fn missing(records: Option<&Directory>, problems: &mut Vec<Problem>) {
    let Some(records) = records else { return };
    let wanted = [bookkeeping::BASE, bookkeeping::DEVICE_SET, bookkeeping::TRANSACTION];
    let gone: Vec<_> = wanted.into_iter().filter(|name| matches!(records.kind(name), Ok(None))).collect();
    if gone.is_empty() {
        return;
    }
    let is_device = |name: &str| name != bookkeeping::BASE && bookkeeping::is_device_file(name);
    if records.names().is_ok_and(|names| names.iter().filter_map(|name| name.to_str()).any(is_device)) {
        let why = "it is missing, and there are devices";
        problems.extend(gone.iter().map(|name| Problem { path: records.path().join(name), why: why.to_owned() }));
    }
}
