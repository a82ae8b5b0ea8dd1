//! Which volume each is a snapshot of, and the order in which they are made. The pool's metadata does not say the first;
//! Docker's layer database does. What it does not say costs sharing, never contents.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result};

use crate::engine::bookkeeping::{self, BASE, Device};
use crate::engine::docker_objects::{self, Objects};
use crate::engine::driver::Driver;
use crate::engine::small_file::Directory;
use crate::metadata::Details;
use crate::pool::VolumeId;
use crate::units::Bytes;

/// Docker's records are some hundred bytes long.
const LARGEST_RECORD: u64 = 64 << 10;

/// A volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its id.
    pub id: VolumeId,
    /// The one that it is made a snapshot of.
    pub parent: Option<VolumeId>,
    /// What Docker has written down of it: its name, and how long it is. Nothing when Docker has deleted it, and waits until nobody has it open.
    pub record: Option<(String, Bytes)>,
}

impl Member {
    /// Returns its id, with the name under which Docker tells of it (`docker inspect`, `DeviceName`) where it has one.
    pub(super) fn called(&self) -> String {
        let name = self.record.as_ref().map(|(name, _)| name.as_str()).filter(|name| !name.is_empty());
        name.map_or_else(|| self.id.to_string(), |name| format!("{} ({name})", self.id))
    }
}

/// All volumes of a pool.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Family {
    /// Each behind the one that it is a snapshot of.
    pub members: Vec<Member>,
    /// Records of volumes that the pool does not have, by their names.
    pub missing: Vec<String>,
}

impl Family {
    /// Reads what a Docker root says of the volumes.
    ///
    /// # Errors
    /// When the root or the records cannot be read.
    pub fn look(root: &Path, details: &BTreeMap<u64, Details>) -> Result<Self> {
        let objects = docker_objects::read(root).with_context(|| format!("reading {}", root.display()))?;
        Ok(Self::of(details, &records(root)?, &below(&objects)))
    }

    /// Puts it in order: `records` by the driver's names for layers, `below` which layer each lies on.
    pub fn of(
        details: &BTreeMap<u64, Details>,
        records: &BTreeMap<String, Device>,
        below: &BTreeMap<String, String>,
    ) -> Self {
        let ids: BTreeSet<VolumeId> = details.keys().filter_map(|id| VolumeId::new(u32::try_from(*id).ok()?)).collect();
        let id_of = |name: &str| records.get(name).and_then(|device| VolumeId::new(device.id));
        let base = id_of(BASE);
        let mut named: BTreeMap<VolumeId, (String, Bytes)> = BTreeMap::new();
        let mut missing = Vec::new();
        for (name, device) in records.iter().filter(|(_, device)| !device.deleted) {
            match VolumeId::new(device.id).filter(|id| ids.contains(id)) {
                Some(id) => {
                    named.entry(id).or_insert_with(|| (name.clone(), device.size));
                }
                None => missing.push(name.clone()),
            }
        }
        let parent_of = |id: VolumeId| {
            let name = named.get(&id).map(|(name, _)| name.as_str());
            let told = name.and_then(|name| below.get(name)).and_then(|name| id_of(name));
            told.or(base).filter(|parent| *parent != id && Some(id) != base && ids.contains(parent))
        };
        let mut members: Vec<Member> = Vec::new();
        let mut placed = BTreeSet::new();
        for first in &ids {
            let mut line = Vec::new();
            let mut next = Some(*first);
            while let Some(id) = next.filter(|id| !placed.contains(id) && !line.contains(id)) {
                line.push(id);
                next = parent_of(id);
            }
            while let Some(id) = line.pop() {
                // One that would come only behind it leads round in a circle.
                let parent = parent_of(id).filter(|parent| placed.contains(parent));
                placed.insert(id);
                members.push(Member { id, parent, record: named.get(&id).cloned() });
            }
        }
        Self { members, missing }
    }
}

/// Returns Docker's records of thin devices, by the driver's names.
fn records(root: &Path) -> Result<BTreeMap<String, Device>> {
    let folder = Directory::open(root)
        .and_then(|root| root.enter(Driver::Devicemapper.name()))
        .and_then(|home| home.enter("metadata"))
        .with_context(|| format!("opening the records in {}/devicemapper/metadata", root.display()))?;
    let names = folder.names().context("listing Docker's records of volumes")?;
    let names = names.iter().filter_map(|name| name.to_str()).filter(|name| bookkeeping::is_device_file(name));
    let mut found = BTreeMap::new();
    for name in names {
        // One that cannot be read costs sharing only: its volume is copied all the same.
        if let Ok(device) = folder.read(name, LARGEST_RECORD).map(|bytes| Device::parse(&bytes))
            && let Ok(device) = device
        {
            found.insert(name.to_owned(), device);
        }
    }
    Ok(found)
}

/// Returns which layer each lies on, by the driver's names.
fn below(objects: &Objects) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for store in objects.stores.iter().filter(|store| store.driver == Driver::Devicemapper.name()) {
        let cache_of = |chain: &Option<String>| {
            chain.as_ref().and_then(|chain| store.layers.get(chain)).and_then(|layer| layer.cache_id.clone())
        };
        for layer in store.layers.values() {
            found.extend(layer.cache_id.clone().zip(cache_of(&layer.parent)));
        }
        let of_containers = objects.containers.iter().filter_map(|container| container.mount.as_ref());
        for mount in store.mounts.values().chain(of_containers) {
            let image = cache_of(&mount.parent);
            found.extend(mount.init_id.clone().zip(image.clone()));
            found.extend(mount.mount_id.clone().zip(mount.init_id.clone().or(image)));
        }
    }
    found
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::units::DataBlocks;

    fn device(id: u32) -> Device {
        Device { id, size: Bytes::new(u64::from(id) << 20), transaction_id: 1, initialized: false, deleted: false }
    }

    fn family(ids: &[u64], records: &[(&str, u32)], below: &[(&str, &str)]) -> (Vec<(u32, Option<u32>)>, Vec<String>) {
        let details = ids.iter().map(|id| (*id, Details { mapped: DataBlocks::new(1), transaction_id: 1 })).collect();
        let records = records.iter().map(|(name, id)| ((*name).to_owned(), device(*id))).collect();
        let below = below.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
        let family = Family::of(&details, &records, &below);
        let plain = family.members.iter().map(|m| (m.id.get(), m.parent.map(VolumeId::get))).collect();
        (plain, family.missing)
    }

    #[test]
    fn each_comes_behind_the_one_it_is_a_snapshot_of() {
        let records = [("base", 1), ("a", 7), ("b", 3), ("gone", 9)];
        let (members, missing) = family(&[1, 3, 5, 7], &records, &[("b", "a"), ("a", "nobody")]);
        assert_eq!(members, [(1, None), (7, Some(1)), (3, Some(7)), (5, Some(1))]);
        assert_eq!(missing, ["gone"]);
    }

    #[test]
    fn a_volume_that_docker_has_deleted_is_no_layer_any_more() {
        let details = [1, 2].map(|id| (id, Details { mapped: DataBlocks::new(1), transaction_id: 1 })).into();
        let deleted = |id: u32| Device { deleted: true, ..device(id) };
        let records = [("base", device(1)), ("a", deleted(2)), ("b", deleted(3))];
        let records = records.map(|(name, device)| (name.to_owned(), device)).into();
        let family = Family::of(&details, &records, &BTreeMap::new());
        let named: Vec<_> = family.members.iter().map(|m| m.record.as_ref().map(|(name, _)| name.as_str())).collect();
        assert_eq!((named, family.missing), (vec![Some("base"), None], vec![]));
    }

    #[test]
    fn records_that_lead_round_in_a_circle_or_nowhere_lose_nothing() {
        let (members, _) = family(&[2, 3], &[("a", 2), ("b", 3)], &[("a", "b"), ("b", "a")]);
        assert_eq!(members, [(3, None), (2, Some(3))]);
        let (members, _) = family(&[0, 9], &[], &[]);
        assert_eq!(members, [(0, None), (9, None)]);
        // A parent of which only the record is left.
        let (members, _) = family(&[4], &[("a", 4), ("b", 5)], &[("a", "b")]);
        assert_eq!(members, [(4, None)]);
    }
}
