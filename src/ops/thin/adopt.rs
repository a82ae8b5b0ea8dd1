//! `thin adopt`: volumes that the pool has and the record has not are taken into the record.

use std::collections::BTreeMap;

use super::{Facts, Needs, change, named_volumes, nobody_elses, refused, works};
use crate::error::{Failure, Outcome};
use crate::ops::find::Found;
use crate::ops::own_disk;
use crate::ops::plan::{Operation, Plan};
use crate::ops::steps::{AdoptVolumes, Kit};
use crate::ops::volumes::{self, Known, MAX_VOLUMES};
use crate::ops::{Change, Done};
use crate::pool::{Volume, VolumeId, VolumeName, VolumeRecord, VolumeState};
use crate::units::{BlockSize, Bytes, DataBlocks};

/// What `thin adopt` is asked for.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The only one that is meant; without, all.
    pub only: Option<Only>,
}

/// One volume, and what it is.
#[derive(Clone, Debug)]
pub struct Only {
    /// Its id in the pool.
    pub id: VolumeId,
    /// What it shall be called; without, `thin-ID`.
    pub name: Option<VolumeName>,
    /// How long it is; without, as long as its device, or up to the last block that it maps.
    pub size: Option<Bytes>,
}

/// Takes volumes into the record, or says which would be.
///
/// # Errors
/// Refused with the reason; [`crate::error::Kind::Failed`] when it could not be done and was taken back.
pub fn adopt(kit: &Kit, found: &Found, options: &Options, how: Change) -> Outcome<Done> {
    let what = format!("adopt the volumes of pool `{}`", found.name);
    change(kit, found, how, &what, |facts| {
        let ends = facts.report.table.as_ref().map(|table| volumes::ends_within_limit(table.metadata));
        let ends = ends.unwrap_or_else(|| Err("the pool is not active".to_owned()));
        plan(facts, &ends, options, &what)
    })
}

fn plan(
    facts: &Facts,
    ends: &Result<BTreeMap<u64, DataBlocks>, String>,
    options: &Options,
    what: &str,
) -> Outcome<Plan> {
    let refuse = |why: String| -> Failure { refused(&format!("{what}: {why}")) };
    nobody_elses(facts, &refuse)?;
    works(facts, Needs::Messages, &refuse)?;
    let unread = |why: &String| {
        refuse("the pool's metadata cannot be read".to_owned()).fact("cause", why).next("dmesg | tail    says more")
    };
    let (known, ends) = (facts.known.as_ref().map_err(unread)?, ends.as_ref().map_err(unread)?);
    own_disk::takes_files(&facts.home.1, &facts.home.0, &refuse)?;
    let (mut volumes, mut notes) = match (facts.record.at(known.transaction), facts.record.state.last()) {
        (Some(now), _) => (now.volumes.clone(), Vec::new()),
        (None, Some(stale)) => taken_over(stale, known, ends, facts.entry.pool.block_size),
        (None, None) => Default::default(),
    };
    let wanted = wanted(facts, known, &volumes, options, &refuse)?;
    for id in wanted {
        let only = options.only.as_ref().filter(|only| only.id == id);
        let volume = Volume {
            name: name(only, id, &volumes, &refuse)?,
            id,
            size: size(facts, ends, only, id, &refuse)?,
            origin: None,
        };
        let is_guess = only.is_none_or(|only| only.size.is_none()) && device_of(facts, id).is_none();
        notes.push(note(facts, &volume, is_guess));
        volumes.push(volume);
    }
    volumes.sort_by_key(|volume| volume.id);
    if volumes.len() > MAX_VOLUMES {
        return Err(refuse(format!(
            "the pool has {} volumes, and dmpool keeps no more than {MAX_VOLUMES}",
            volumes.len()
        ))
        .next(format!("dmpool thin adopt {} ID    # takes one of them", facts.entry.name)));
    }
    let to = vec![VolumeState { transaction: known.transaction, volumes }];
    let mut steps = Vec::new();
    if to == facts.record.state {
        notes.push(format!("the record has all volumes of pool `{}`: unchanged", facts.report.name));
    } else {
        let to = VolumeRecord { state: to, ..facts.record.clone() };
        steps.push(AdoptVolumes { from: facts.record.clone(), to }.into());
    }
    Ok(super::plan_of(facts, Operation::ThinAdopt, what, steps, notes))
}

/// Returns the volumes of a record that is of another transaction id than the pool, as far as the pool can have them, and
/// what became of each. An id may be another volume's since.
fn taken_over(
    stale: &VolumeState,
    known: &Known,
    ends: &BTreeMap<u64, DataBlocks>,
    block: BlockSize,
) -> (Vec<Volume>, Vec<String>) {
    let (mut kept, mut notes) = (Vec::new(), Vec::new());
    for volume in &stale.volumes {
        let Volume { name, id, size, .. } = volume;
        let key = u64::from(id.get());
        let mapped = block.bytes_of(ends.get(&key).copied().unwrap_or_default());
        let other = match known.volumes.get(&key) {
            None => Some("the pool has no volume with that id".to_owned()),
            Some(made) if made.transaction_id > stale.transaction => {
                Some(format!("the pool's was made at transaction id {}", made.transaction_id))
            }
            Some(_) if mapped > *size => Some(format!("the pool's maps a block up to {}", mapped.exact())),
            Some(_) => None,
        };
        let whose =
            format!("the record of transaction id {} has `{name}` (id {id}, {})", stale.transaction, size.human());
        notes.push(match other {
            Some(why) => format!("{whose}, which is not taken over: {why}"),
            None => {
                kept.push(volume.clone());
                format!("{whose}, which is taken over: look whether it is that one")
            }
        });
    }
    (kept, notes)
}

/// Returns the ids that the record does not have yet and shall have.
fn wanted(
    facts: &Facts,
    known: &Known,
    recorded: &[Volume],
    options: &Options,
    refuse: &impl Fn(String) -> Failure,
) -> Outcome<Vec<VolumeId>> {
    let id_of = |id: &u64| u32::try_from(*id).ok().and_then(VolumeId::new);
    let strangers = known.volumes.keys().filter_map(id_of);
    let mut strangers: Vec<_> = strangers.filter(|id| recorded.iter().all(|volume| volume.id != *id)).collect();
    if let Some(only) = &options.only {
        if let Some(volume) = recorded.iter().find(|volume| volume.id == only.id) {
            return Err(refuse(format!("the record has that volume already, as `{}`", volume.name))
                .next(format!("dmpool thin list {}", facts.entry.name)));
        }
        strangers.retain(|id| *id == only.id);
        if strangers.is_empty() {
            return Err(refuse(format!("the pool has no volume with the id {}", only.id))
                .fact("found", named_volumes(recorded))
                .next(format!("dmpool thin list {}    # shows the ids", facts.entry.name)));
        }
    }
    Ok(strangers)
}

fn name(
    only: Option<&Only>,
    id: VolumeId,
    taken: &[Volume],
    refuse: &impl Fn(String) -> Failure,
) -> Outcome<VolumeName> {
    let is_free = |name: &VolumeName| taken.iter().all(|volume| volume.name != *name);
    if let Some(name) = only.and_then(|only| only.name.as_ref()) {
        return match is_free(name) {
            true => Ok(name.clone()),
            false => {
                Err(refuse(format!("the pool has a volume `{name}` already")).next("choose another name with --name"))
            }
        };
    }
    let numbered = (2..).map(|number: u32| format!("thin-{id}-{number}"));
    let mut names = std::iter::once(format!("thin-{id}")).chain(numbered).map_while(|name| VolumeName::new(&name).ok());
    names.find(is_free).ok_or_else(|| refuse(format!("no name is left for the volume with the id {id}")).next("--name"))
}

fn device_of(facts: &Facts, id: VolumeId) -> Option<Bytes> {
    let device = facts.devices.iter().find(|device| device.id == u64::from(id.get()))?;
    Some(device.length.bytes())
}

fn size(
    facts: &Facts,
    ends: &BTreeMap<u64, DataBlocks>,
    only: Option<&Only>,
    id: VolumeId,
    refuse: &impl Fn(String) -> Failure,
) -> Outcome<Bytes> {
    let end = ends.get(&u64::from(id.get())).copied().unwrap_or_default().max(DataBlocks::new(1));
    let mapped = facts.entry.pool.block_size.bytes_of(end);
    match only.and_then(|only| only.size) {
        Some(size) if size < mapped => Err(refuse(format!("the volume with the id {id} is longer than that"))
            .fact("found", format!("it maps a block up to {}", mapped.exact()))
            .next(format!("--size {}, or what it had", mapped.typed()))),
        Some(size) => super::whole_blocks(facts, size).ok_or_else(|| {
            refuse("that size is larger than any device can be (2^63 bytes)".to_owned()).next("choose a smaller --size")
        }),
        None => Ok(device_of(facts, id).unwrap_or(mapped)),
    }
}

fn note(facts: &Facts, volume: &Volume, is_guess: bool) -> String {
    let Volume { name, id, size, .. } = volume;
    match is_guess {
        false => format!("the volume with the id {id} is `{name}`, {}", size.exact()),
        true => format!(
            "the volume with the id {id} is `{name}`, {}: a guess, the end of the last block that it maps; when the file system on it is longer:  dmpool thin grow {} {name} SIZE --no-file-system",
            size.exact(),
            facts.entry.name
        ),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::metadata::Details;

    #[test]
    fn of_a_stale_record_only_what_the_pool_can_have_is_taken_over() {
        let size = Bytes::new(1 << 20);
        let volume = |id: u32, name: &str| Volume {
            name: VolumeName::new(name).unwrap(),
            id: VolumeId::new(id).unwrap(),
            size,
            origin: None,
        };
        let stale = VolumeState {
            transaction: 5,
            volumes: vec![volume(1, "same"), volume(2, "newer"), volume(3, "gone"), volume(4, "longer")],
        };
        let made = |transaction_id| Details { mapped: DataBlocks::new(1), transaction_id };
        let known = Known {
            transaction: 8,
            data_used: DataBlocks::new(3),
            volumes: [(1, made(5)), (2, made(6)), (4, made(0))].into(),
        };
        let ends = [(1, DataBlocks::new(16)), (4, DataBlocks::new(17))].into();
        let (kept, notes) = taken_over(&stale, &known, &ends, BlockSize::of_bytes(Bytes::new(65536)).unwrap());
        assert_eq!(kept, [volume(1, "same")]);
        let says = [
            "`same` (id 1, 1.0 MiB), which is taken over",
            "not taken over: the pool's was made at transaction id 6",
            "not taken over: the pool has no volume",
            "not taken over: the pool's maps a block up to",
        ];
        assert_eq!(notes.len(), says.len());
        for (note, words) in notes.iter().zip(says) {
            assert!(note.starts_with("the record of transaction id 5 has `") && note.contains(words), "{note}");
        }
    }
}
