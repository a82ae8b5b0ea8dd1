//! `thin list`: the volumes of pools that dmpool made, and how far record, pool and kernel agree.

use std::path::PathBuf;

use crate::error::Outcome;
use crate::kernel::mounts;
use crate::ops::find;
use crate::ops::steps::Kit;
use crate::ops::thin::{Facts, look};
use crate::ops::volumes::Known;
use crate::pool::{DevNo, Volume};
use crate::units::Bytes;

/// The volumes of one pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// The pool's name.
    pub pool: String,
    /// The pool's transaction id; nothing when its metadata was not read.
    pub transaction: Option<u64>,
    /// The volumes at that transaction id; those of the last one in the record when it has none of that number.
    pub volumes: Vec<Row>,
    /// Volumes that the pool or the kernel has and the record has not.
    pub strangers: Vec<Stranger>,
    /// What is not as it should be, or was not read: each a sentence.
    pub remarks: Vec<String>,
}

/// One volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// What the record says.
    pub volume: Volume,
    /// The dm name that its device has when it is active.
    pub device: String,
    /// How much of it has blocks in the pool, shared ones too; nothing when that was not read.
    pub mapped: Option<Bytes>,
    /// The name of the volume that it was a snapshot of, while that is there.
    pub origin: Option<String>,
    /// Whether the pool has it; nothing when its metadata was not read.
    pub in_pool: Option<bool>,
    /// Its device, when it is active.
    pub active: Option<Active>,
}

/// A volume's device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Active {
    /// Its number.
    pub devno: DevNo,
    /// Whether I/O to it waits.
    pub suspended: bool,
    /// How often it is open.
    pub open_count: u32,
    /// Where it is mounted, as this process sees it.
    pub mounts: Vec<PathBuf>,
}

/// A volume that the record does not have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stranger {
    /// Its id.
    pub id: u64,
    /// How much of it has blocks in the pool; nothing when the pool's metadata does not have it, or was not read.
    pub mapped: Option<Bytes>,
    /// The dm name of its device, when it is active.
    pub device: Option<String>,
}

/// Lists the volumes of a pool.
///
/// # Errors
/// Refused when there is no such pool, dmpool did not make it, or its entry or record cannot be used; when the kernel
/// does not answer.
pub fn list(kit: &Kit, pool: &str) -> Outcome<Listing> {
    let found = find::find(&kit.dm, &kit.state, pool)?;
    let facts = look(kit, &found, &format!("list the volumes of pool `{pool}`"))?;
    Ok(listing(&facts))
}

fn listing(facts: &Facts) -> Listing {
    let known = facts.known.as_ref().ok();
    let mut remarks = Vec::new();
    if let Err(why) = &facts.known {
        remarks.push(format!("what the pool's metadata says of them is unknown: {why}"));
    }
    let state = known.and_then(|known| facts.record.at(known.transaction));
    if let (Some(known), None) = (known, state) {
        let ids: Vec<_> = facts.record.state.iter().map(|state| state.transaction.to_string()).collect();
        remarks.push(format!(
            "the pool has the transaction id {}, the record of its volumes {}: they do not belong together; dmpool thin adopt {} writes down the volumes that the pool has",
            known.transaction,
            ids.join(", "),
            facts.report.name
        ));
    }
    // Without the pool's number: of a change under way, what stands in the record until the pool says that it is so.
    let state = state.or(if known.is_some() { facts.record.state.last() } else { facts.record.state.first() });
    let recorded = state.map(|state| state.volumes.as_slice()).unwrap_or_default();
    let volumes = recorded.iter().map(|volume| row(facts, recorded, volume)).collect();
    let is_recorded = |id: u64| recorded.iter().any(|volume| u64::from(volume.id.get()) == id);
    let block = facts.entry.pool.block_size;
    let mut strangers: Vec<Stranger> = Vec::new();
    for (id, details) in known.iter().flat_map(|known| &known.volumes).filter(|(id, _)| !is_recorded(**id)) {
        strangers.push(Stranger { id: *id, mapped: Some(block.bytes_of(details.mapped)), device: None });
    }
    for device in facts.devices.iter().filter(|device| !is_recorded(device.id)) {
        let name = Some(device.info.name.clone());
        match strangers.iter_mut().find(|stranger| stranger.id == device.id && stranger.device.is_none()) {
            Some(stranger) => stranger.device = name,
            None => strangers.push(Stranger { id: device.id, mapped: None, device: name }),
        }
    }
    Listing {
        pool: facts.report.name.clone(),
        transaction: known.map(|known| known.transaction),
        volumes,
        strangers,
        remarks,
    }
}

/// Returns the name of the volume that one was a snapshot of. An id is given again once its volume is gone: then that one is
/// the younger, by the transaction ids that the pool has of both.
fn origin(volume: &Volume, recorded: &[Volume], known: Option<&Known>) -> Option<String> {
    let origin = recorded.iter().find(|other| Some(other.id) == volume.origin)?;
    let made = |volume: &Volume| known?.volumes.get(&u64::from(volume.id.get())).map(|details| details.transaction_id);
    let is_younger = made(origin).zip(made(volume)).is_some_and(|(origin, volume)| origin >= volume);
    (!is_younger).then(|| origin.name.to_string())
}

fn row(facts: &Facts, recorded: &[Volume], volume: &Volume) -> Row {
    let id = u64::from(volume.id.get());
    let known = facts.known.as_ref().ok();
    let details = known.and_then(|known| known.volumes.get(&id));
    let device = facts.devices.iter().find(|device| device.id == id);
    let active = device.map(|device| {
        let mounts = mounts::own().unwrap_or_default();
        let mut mounts: Vec<_> =
            mounts.into_iter().filter(|m| m.devno == device.info.devno).map(|m| m.mount_point).collect();
        mounts.dedup();
        Active {
            devno: device.info.devno,
            suspended: device.info.suspended,
            open_count: device.info.open_count,
            mounts,
        }
    });
    Row {
        device: device.map_or_else(|| volume.name.device(&facts.entry.name), |device| device.info.name.clone()),
        origin: origin(volume, recorded, known),
        volume: volume.clone(),
        mapped: details.map(|details| facts.entry.pool.block_size.bytes_of(details.mapped)),
        in_pool: known.map(|_| details.is_some()),
        active,
    }
}
