//! Which layers a storage driver has, by the names that it gives them.

use std::collections::{BTreeMap, BTreeSet};

use super::reader::Reader;
use crate::engine::bookkeeping::{self, Device};
use crate::engine::driver::Driver;
use crate::engine::small_file::Directory;

/// What a driver has in a root.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// The names of its layers; nothing for a driver whose layers are no names in a folder.
    pub(super) names: Option<BTreeSet<String>>,
    /// The thin device of each, as far as its record can be read.
    pub(super) devices: BTreeMap<String, Device>,
}

/// Returns what a driver has in the root.
pub(super) fn by(driver: &str, root: &Directory, reader: &mut Reader) -> Held {
    let mut devices = BTreeMap::new();
    let names = names(driver, root, &mut devices, reader);
    Held { names, devices }
}

fn names(
    driver: &str,
    root: &Directory,
    devices: &mut BTreeMap<String, Device>,
    reader: &mut Reader,
) -> Option<BTreeSet<String>> {
    let driver = Driver::named(driver)?;
    let folders: &[&str] = match driver {
        Driver::Devicemapper => &["metadata"],
        Driver::Overlay2 | Driver::Overlay | Driver::FuseOverlayfs => &[],
        Driver::Aufs => &["diff"],
        Driver::Btrfs => &["subvolumes"],
        Driver::Vfs => &["dir"],
        Driver::Zfs => return None,
    };
    let path: Vec<&str> = std::iter::once(driver.name()).chain(folders.iter().copied()).collect();
    let Some(folder) = reader.folders(root, &path) else { return Some(BTreeSet::new()) };
    let mut names: BTreeSet<String> = reader.names(&folder).into_iter().collect();
    match driver {
        Driver::Devicemapper => {
            names.retain(|name| bookkeeping::is_device_file(name) && name != bookkeeping::BASE);
            names.retain(|name| is_there(&folder, name, devices, reader));
        }
        // The links by short names, and the device that quotas are set with.
        Driver::Overlay2 | Driver::FuseOverlayfs => {
            names.retain(|name| !["l", "staging", "backingFsBlockDev"].contains(&name.as_str()));
        }
        _ => {}
    }
    Some(names)
}

/// Whether a record is of a device that Docker still wants; one that cannot be read counts, and is a problem.
fn is_there(records: &Directory, name: &str, devices: &mut BTreeMap<String, Device>, reader: &mut Reader) -> bool {
    let Some(bytes) = reader.bytes(records, name) else { return true };
    match Device::parse(&bytes) {
        Ok(device) if device.deleted => false,
        Ok(device) => {
            devices.insert(name.to_owned(), device);
            true
        }
        Err(error) => {
            reader.problem(records, Some(name), error.to_string());
            true
        }
    }
}
