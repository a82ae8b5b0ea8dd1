//! Bringing up a pool that is not registered: its devices come from another machine, or its entry is lost.

use std::collections::BTreeMap;

use crate::error::{Failure, Outcome};
use crate::ops::members::{self, Labelled};
use crate::ops::plan::{Operation, Plan};
use crate::ops::steps::{Kit, Register};
use crate::ops::{Change, Done, gate, journal, registry};
use crate::pool::{DeviceStore, Entry, Store};

/// Returns what the registry would have of the pool that has such a name, or such a uuid, in labels here and is not
/// registered; nothing when there is none.
///
/// # Errors
/// Refused when several have it; when the devices or the registry cannot be listed.
pub fn labelled(kit: &Kit, text: &str) -> Outcome<Option<Entry>> {
    let text = text.strip_prefix("/dev/mapper/").unwrap_or(text);
    let cannot = |e| Failure::failed(format!("cannot look for the labels of pool `{text}`")).because(e);
    let sight = members::look(&kit.dm).map_err(cannot)?;
    let mut pools: BTreeMap<String, Vec<Labelled>> = BTreeMap::new();
    for labelled in sight.labelled {
        let label = &labelled.member.label;
        let uuid = String::from(label.pool.clone());
        if label.name.as_str() == text || uuid == text.to_ascii_lowercase() {
            pools.entry(uuid).or_default().push(labelled);
        }
    }
    for name in registry::names(&kit.state)? {
        match registry::look(&kit.state, &name) {
            Ok(Some(entry)) => drop(pools.remove(&String::from(entry.uuid))),
            Ok(None) => {}
            // It may be this pool's.
            Err(_) => pools.retain(|_, devices| devices.iter().all(|found| found.member.label.name != name)),
        }
    }
    if pools.len() > 1 {
        let found: Vec<_> = pools.iter().map(|(uuid, devices)| format!("{uuid} on {}", names(devices))).collect();
        let first = pools.keys().next().cloned().unwrap_or_default();
        return Err(Failure::refused(format!("cannot tell which pool `{text}` is meant: there are labels of several"))
            .fact("found", found.join("\n"))
            .next(format!("name one by its uuid:  dmpool activate {first} --register")));
    }
    Ok(pools.into_values().next().and_then(|devices| entry(&devices)))
}

fn names(devices: &[Labelled]) -> String {
    devices.iter().map(|labelled| labelled.member.name.as_str()).collect::<Vec<_>>().join(", ")
}

/// The newest label counts, as it does when the pool is put together.
fn entry(devices: &[Labelled]) -> Option<Entry> {
    let newest = &devices.iter().max_by_key(|labelled| labelled.member.label.sequence)?.member.label;
    let store = newest.devices().into_iter().map(|uuid| {
        let of_it = devices.iter().find(|labelled| labelled.member.label.device == uuid);
        let path = of_it.map_or_else(|| format!("the device {uuid}").into(), |found| found.member.name.clone().into());
        DeviceStore { uuid, path }
    });
    Some(Entry {
        name: newest.name.clone(),
        uuid: newest.pool.clone(),
        pool: newest.behaviour.clone(),
        store: Store::Devices(store.collect()),
        ephemeral: None,
        prepared: None,
    })
}

/// Returns the refusal of whatever needs a pool to be registered.
pub fn unregistered(entry: &Entry, verb: &str) -> Failure {
    let devices: Vec<_> = entry.devices().iter().map(|device| device.path.display().to_string()).collect();
    Failure::refused(format!("cannot {verb} pool `{}`: it is not registered here, and its labels are", entry.name))
        .fact("found", devices.join(", "))
        .fact("state", "nothing was touched")
        .next(format!(
            "if no other machine uses these devices:  dmpool activate {} --register    # brings it up and registers it",
            entry.name
        ))
}

/// Brings the pool up and registers it, or says what would be done.
///
/// # Errors
/// As [`super::activate`]; refused when another pool is registered by its name.
pub fn register(kit: &Kit, entry: &Entry, change: Change) -> Outcome<Done> {
    gate::may_change(kit)?;
    gate::no_interrupted(kit, entry.name.as_str())?;
    let first = plan(kit, entry)?;
    if change == Change::Describe {
        return Ok(Done::planned(first));
    }
    let _existence = gate::lock(kit, gate::EXISTENCE, &first.what)?;
    let _lock = gate::lock(kit, &gate::key_of_entry(entry), &first.what)?;
    gate::no_interrupted(kit, entry.name.as_str())?;
    let plan = plan(kit, entry)?;
    let ended = journal::carry_out(kit, plan.clone())?;
    Ok(Done::ended(plan, ended))
}

fn plan(kit: &Kit, entry: &Entry) -> Outcome<Plan> {
    let name = &entry.name;
    let what = format!("register pool `{name}`");
    if registry::read(&kit.state, name)?.is_some() {
        let path = registry::path_of(&kit.state, name);
        return Err(Failure::refused(format!("cannot {what}: another pool of that name is registered"))
            .fact("found", path.display().to_string())
            .fact("state", "nothing was touched")
            .next(format!(
                "dmpool status {name}    # shows that one; two pools of one name cannot be on one machine"
            )));
    }
    let mut up = super::plan(&super::look(kit, entry)?, super::Disks::AreHere)?;
    if up.steps.is_empty() {
        up.notes.clear();
    }
    up.steps.push(Register { entry: entry.clone() }.into());
    up.notes.push(format!(
        "volumes that are in it are not in this machine's record; dmpool thin adopt {name}    # writes them down"
    ));
    Ok(Plan { operation: Operation::Activate, what, ..up })
}
