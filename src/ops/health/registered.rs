//! Whether dmpool knows a pool that it made, and what is in it.

use super::ways::argument;
use crate::ops::cost::ONLINE;
use crate::ops::registry;
use crate::ops::steps::Kit;
use crate::ops::volumes::{self, Known};
use crate::pool::{Carrier, Finding, Key, Maker, PoolName, PoolReport, Severity, User, VolumeRecord, Way};
use crate::process::quote;

/// More ids than anyone compares by hand.
const MOST: usize = 8;

/// Looks into the registry, and at the volumes of a live pool that no engine uses; what cannot be read is said elsewhere.
pub(super) fn look(kit: &Kit, pool: &PoolReport) -> Vec<Finding> {
    let Ok(name) = PoolName::new(&pool.name) else { return Vec::new() };
    // What is half made is not registered yet, and half destroyed not any more.
    if pool.maker != Maker::Dmpool || pool.interrupted.is_some() {
        return Vec::new();
    }
    let entry = match registry::look(&kit.state, &name) {
        Ok(Some(entry)) => entry,
        Ok(None) => {
            let path = registry::path_of(&kit.state, &name);
            return vec![unregistered(pool, &path.to_string_lossy())];
        }
        Err(_) => return Vec::new(),
    };
    let metadata = match (&pool.table, &pool.status, &pool.user) {
        (Some(table), Some(_), User::Unknown) => table.metadata,
        _ => return Vec::new(),
    };
    let Ok(record) = volumes::look(&kit.state, &name, &entry.uuid) else { return Vec::new() };
    let known = volumes::known_within_limit(|| volumes::known(metadata));
    known.map(|known| of_volumes(pool, &record, &known)).unwrap_or_default()
}

fn unregistered(pool: &PoolReport, entry: &str) -> Finding {
    let sentence = "it is not registered: nothing of dmpool brings it up again, and the names of its volumes are lost";
    let finding = Finding::new(Key::Unregistered, Severity::Warning, &pool.name, sentence);
    match &pool.data.carrier {
        Carrier::Device { .. } | Carrier::Devices { .. } => {
            finding.run(format!("dmpool activate {} --register", argument(pool)), ONLINE)
        }
        Carrier::Loop { .. } | Carrier::LoopOverDevice { .. } | Carrier::Unknown => {
            finding.act(format!("put {entry} back, from a backup"), ONLINE)
        }
    }
}

/// Compares what the pool has with what its record has.
fn of_volumes(pool: &PoolReport, record: &VolumeRecord, known: &Known) -> Vec<Finding> {
    let finding = |severity, sentence: String| {
        let (verb, does) =
            if severity == Severity::Info { ("adopt", "writes them down") } else { ("list", "shows them") };
        let way = Way::run(format!("dmpool thin {verb} {}", quote(&pool.name)), does);
        Finding::new(Key::VolumeRecord, severity, &pool.name, sentence).with(way)
    };
    let state = record.at(known.transaction);
    if state.is_none() && !record.is_blank() {
        let sentence = "the record of its volumes does not belong to it as it is: none of them comes up with it";
        return vec![finding(Severity::Warning, sentence.to_owned())];
    }
    let recorded = state.map(|state| state.volumes.as_slice()).unwrap_or_default();
    let has = |id: u64| recorded.iter().any(|volume| u64::from(volume.id.get()) == id);
    let strangers: Vec<u64> = known.volumes.keys().copied().filter(|id| !has(*id)).collect();
    let lost = recorded.iter().filter(|volume| !known.volumes.contains_key(&u64::from(volume.id.get())));
    let lost: Vec<_> = lost.map(|volume| format!("`{}`", volume.name)).collect();
    let mut findings = Vec::new();
    if !lost.is_empty() {
        let sentence = format!("it does not have what its record says: {}", some(&lost));
        // Of one key and one object there is one finding.
        findings.push(Finding { object: lost.join(" "), ..finding(Severity::Warning, sentence) });
    }
    if !strangers.is_empty() {
        let (count, ids) = (strangers.len(), strangers.iter().map(u64::to_string).collect::<Vec<_>>());
        let (volumes, are, names) =
            if count == 1 { ("volume", "is", "its name") } else { ("volumes", "are", "their names") };
        let sentence = format!(
            "{count} {volumes} in it {are} not in its record: {names} and sizes are not known here, and nothing brings {} up: id {}",
            if count == 1 { "it" } else { "them" },
            some(&ids)
        );
        findings.push(finding(Severity::Info, sentence));
    }
    findings
}

fn some(all: &[String]) -> String {
    let named = all.iter().take(MOST).cloned().collect::<Vec<_>>().join(", ");
    if all.len() > MOST { format!("{named} and {} more", all.len() - MOST) } else { named }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::metadata::Details;
    use crate::pool::{PoolUuid, Volume, VolumeId, VolumeName, VolumeState};
    use crate::report::samples::mute_pool;
    use crate::units::{Bytes, DataBlocks};

    #[test]
    fn what_pool_and_record_do_not_both_have_is_told() {
        let volume = |id: u32, name: &str| Volume {
            name: VolumeName::new(name).unwrap(),
            id: VolumeId::new(id).unwrap(),
            size: Bytes::GIB,
            origin: None,
        };
        let state = VolumeState { transaction: 7, volumes: vec![volume(1, "web"), volume(2, "db")] };
        let record = |state| VolumeRecord::new(PoolName::new("p0").unwrap(), PoolUuid::from_random(7), state);
        let known = |transaction, ids: &[u64]| Known {
            transaction,
            data_used: crate::units::DataBlocks::new(0),
            volumes: BTreeMap::from_iter(
                ids.iter().map(|id| (*id, Details { mapped: DataBlocks::new(1), transaction_id: 0 })),
            ),
        };
        let pool = mute_pool();
        let told = |record: &VolumeRecord, known: &Known| {
            of_volumes(&pool, record, known).into_iter().map(|f| (f.severity, f.sentence)).collect::<Vec<_>>()
        };
        let both = record(vec![state]);
        assert_eq!(told(&both, &known(7, &[1, 2])), []);
        let found = told(&both, &known(7, &[1, 3, 9]));
        assert_eq!(found[0], (Severity::Warning, "it does not have what its record says: `db`".to_owned()));
        assert!(found[1].0 == Severity::Info && found[1].1.ends_with("brings them up: id 3, 9"), "{found:?}");
        assert!(told(&both, &known(8, &[1, 2]))[0].1.contains("does not belong to it"));
        let found = told(&record(Vec::new()), &known(4, &[5]));
        assert!(found.len() == 1 && found[0].1.starts_with("1 volume in it is not in its record"), "{found:?}");
    }
}
