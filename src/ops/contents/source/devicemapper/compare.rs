//! Docker's records beside what the pool has.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, bail};

use super::live;
use super::parts::{Parts, suspended_device};
use crate::engine::docker_objects::Objects;
use crate::engine::docker_root::Problem;
use crate::engine::driver::Driver;
use crate::engine::roots;
use crate::kernel::dm::Dm;
use crate::kernel::{ask, block, identity};
use crate::metadata::{BLOCK, Superblock, devices};
use crate::ops::contents::source::{Below, Place, Reach};
use crate::units::{META_BLOCK_BYTES, MetaBlock};

/// No more of the volumes that nothing names are told one by one.
const MOST: usize = 20;

/// Notes which layers' volumes the pool does not have, and which of its volumes no record names, as far as its metadata can
/// be read: that of a pool which is down and somewhere else cannot.
pub fn compare(objects: &mut Objects, reach: &Reach) {
    if !identity::is_root() {
        return;
    }
    let driver = Driver::Devicemapper.name();
    let Some(at) = objects.stores.iter().position(|store| store.driver == driver) else { return };
    let place = Place { root: &objects.path, driver, id: "", below: &Below::default(), reach, opened: OnceCell::new() };
    let answer = ask::within_limit(|| ids(&place).map_err(|e| format!("{e:#}")));
    let records = objects.path.join(driver).join("metadata");
    let ids = match answer.and_then(|ids| ids) {
        Ok(Some(ids)) => ids,
        Ok(None) => return,
        Err(why) => {
            let path = objects.path.join(driver).join(driver).join("metadata");
            objects.problems.push(Problem { path, why });
            return;
        }
    };
    let Some(store) = objects.stores.get_mut(at) else { return };
    let missing: BTreeMap<String, Problem> = store
        .devices
        .iter()
        .filter(|(_, device)| !ids.contains(&device.id.into()))
        .map(|(name, device)| {
            let why = format!("the pool has no volume {}, which is its: its files are gone", device.id);
            (name.clone(), Problem { path: records.join(name), why })
        })
        .collect();
    for layer in store.layers.values_mut() {
        layer.problems.extend(layer.cache_id.as_ref().and_then(|name| missing.get(name)).cloned());
    }
    for container in &mut objects.containers {
        let own = container.mount.as_ref().and_then(|mount| mount.mount_id.as_ref());
        container.problems.extend(own.and_then(|name| missing.get(name)).cloned());
    }
    let known = super::recorded(&objects.path);
    let nameless: Vec<_> = ids.iter().filter(|id| !known.contains(id)).map(u64::to_string).collect();
    if !nameless.is_empty() {
        let more = nameless.len().saturating_sub(MOST);
        let mut which: String = nameless.iter().take(MOST).cloned().collect::<Vec<_>>().join(", ");
        if more > 0 {
            which.push_str(&format!(" and {more} more"));
        }
        let why = match nameless.len() {
            1 => format!("no record names a volume that the pool has, with the id {which}"),
            count => format!("no record names {count} volumes that the pool has, with the ids {which}"),
        };
        objects.problems.push(Problem { path: records, why });
    }
}

/// Returns the ids of the volumes in the pool; nothing when it is somewhere else and down.
fn ids(place: &Place<'_>) -> Result<Option<BTreeSet<u64>>> {
    let Ok(Some(root)) = roots::at(place.root, &|_| Ok(())) else { return Ok(None) };
    let dm = Dm::open().ok();
    let live = dm.as_ref().and_then(|dm| live::Pool::of(dm, &root).ok().flatten());
    let is_somebody_elses = root.direct_lvm.is_some() || root.options.known().is_some_and(|o| o.named_pool().is_some());
    if live.is_none() && is_somebody_elses {
        return Ok(None);
    }
    let Ok(Parts { metadata, .. }) = Parts::of(place, &root, dm.as_ref(), live.as_ref()) else { return Ok(None) };
    if let Some(name) = metadata.suspended() {
        bail!(suspended_device(&name));
    }
    let read = |at: MetaBlock| -> Result<Vec<u8>, String> {
        let offset = at.get().checked_mul(META_BLOCK_BYTES).ok_or("it is beyond the end")?;
        block::read_direct(&metadata.file, offset, BLOCK).map_err(|e| format!("{e:#}"))
    };
    let superblock = Superblock::parse(&read(MetaBlock::new(0)).map_err(anyhow::Error::msg)?)?;
    Ok(Some(devices(&superblock, read)?.into_keys().collect()))
}
