//! `thin`: the volumes of pools that dmpool made.
//!
//! Which volumes there are is written down before the pool changes, under the transaction id that it will have then; the
//! pool's own number says what is so. See [`crate::pool::VolumeRecord`].

pub mod adopt;
pub mod create;
pub mod grow;
pub mod list;
pub mod remove;
pub mod snapshot;

use std::path::PathBuf;

use crate::error::{Failure, Outcome};
use crate::kernel::dm::DmId;
use crate::kernel::fs::FsFacts;
use crate::ops::find::Found;
use crate::ops::plan::{Operation, Plan};
use crate::ops::steps::{Kit, RecordVolumes, SetTransaction, SettleVolumes, Step};
use crate::ops::told::{self, Engines};
use crate::ops::volumes::{self, Known, MAX_VOLUMES, ThinDevice};
use crate::ops::{Change, Done, facts, gate, journal, own_disk};
use crate::pool::{
    Activity, Edit, Entry, Mode, PoolReport, PoolStatus, Tie, User, Volume, VolumeId, VolumeName, VolumeRecord,
    VolumeState, Working,
};
use crate::process::quote;
use crate::units::{Bytes, MetaBlocks};

/// What must be free in a pool's metadata before it gets another volume: a change that finds none makes it read-only.
const SPARE_METADATA: MetaBlocks = MetaBlocks::new(16);

/// The longest name that device-mapper takes (`DM_NAME_LEN`, include/uapi/linux/dm-ioctl.h, with its NUL).
const MAX_DEVICE_NAME: usize = 127;

/// What decides whether a volume can be changed.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The pool's entry.
    pub entry: Entry,
    /// The pool.
    pub report: PoolReport,
    /// The record of its volumes.
    pub record: VolumeRecord,
    /// What its metadata says of them; why it does not.
    pub known: Result<Known, String>,
    /// The devices that the kernel has on it.
    pub devices: Vec<ThinDevice>,
    /// The folder of the record, and the file system it is on.
    pub home: (PathBuf, Box<FsFacts>),
    /// What is wrong with containerd's configuration, which may name the pool.
    pub containerd: Option<String>,
    /// The engines that are told to use it.
    pub told: Engines,
}

/// What a pool's state allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Needs {
    /// Only that it takes messages: also when it is full.
    Messages,
    /// That writes go through.
    Writes,
}

/// A pool whose volumes can be changed.
struct Ready<'f> {
    state: &'f VolumeState,
    known: &'f Known,
    working: &'f Working,
}

/// Carries out what `plan` makes of what is seen, or says what would be done: once without the pool's lock, so that
/// every refusal is free, and once with it.
fn change(
    kit: &Kit,
    found: &Found,
    change: Change,
    what: &str,
    plan: impl Fn(&Facts) -> Outcome<Plan>,
) -> Outcome<Done> {
    gate::may_change(kit)?;
    gate::no_interrupted(kit, &found.name)?;
    let facts = look(kit, found, what)?;
    let first = plan(&facts)?;
    if change == Change::Describe || first.is_empty() {
        return Ok(Done::planned(first));
    }
    let _lock = gate::lock(kit, &gate::key_of_entry(&facts.entry), &first.what)?;
    gate::no_interrupted(kit, &found.name)?;
    let plan = plan(&look(kit, found, what)?)?;
    let ended = journal::carry_out(kit, plan.clone())?;
    Ok(Done::ended(plan, ended))
}

/// Looks at what decides.
///
/// # Errors
/// Refused when dmpool did not make the pool, or its entry or record cannot be used; when the kernel does not answer.
pub fn look(kit: &Kit, found: &Found, what: &str) -> Outcome<Facts> {
    if let Some(bad) = &found.bad_entry {
        return Err(bad.failure());
    }
    let report = facts::look(kit, found)?;
    let Some(entry) = found.entry.clone() else {
        return Err(refused(&format!("{what}: dmpool did not make that pool"))
            .fact("found", whose(&report))
            .next("who made it makes its volumes; dmpool list    # shows whose each pool is"));
    };
    gate::not_prepared(&entry, what)?;
    let cannot = |e: anyhow::Error| Failure::failed(format!("cannot {what}")).because(e);
    let record = volumes::read(&kit.state, &entry)?;
    let home = FsFacts::of(own_disk::there(&kit.state.volumes)).map_err(cannot)?;
    let known = match (&report.table, report.activity) {
        (Some(table), Activity::Active) => volumes::known_within_limit(|| volumes::known(table.metadata)),
        _ => Err("the pool is not active".to_owned()),
    };
    let devices = report.device.map_or(Ok(Vec::new()), |pool| volumes::devices(&kit.dm, pool)).map_err(cannot)?;
    Ok(Facts {
        entry,
        report,
        record,
        known,
        devices,
        home: (kit.state.volumes.clone(), Box::new(home)),
        told: told::engines(&found.name),
        containerd: found.containerd.problems.first().map(|p| format!("{}: {}", p.path.display(), p.why)),
    })
}

fn refused(what: &str) -> Failure {
    Failure::refused(format!("cannot {what}")).fact("state", "nothing was touched")
}

fn whose(report: &PoolReport) -> String {
    match &report.user {
        User::Docker { root } => format!("Docker uses it, {}", root.display()),
        User::Containerd { config: Some(config), .. } => format!("containerd uses it, by {}", config.display()),
        User::Containerd { config: None, .. } => "containerd uses it, by the names of the volumes on it".to_owned(),
        User::Unknown => format!("it is not registered; uuid {}", report.uuid.as_deref().unwrap_or("none")),
    }
}

/// The pool must be nobody else's.
fn nobody_elses(facts: &Facts, refuse: &impl Fn(String) -> Failure) -> Outcome<()> {
    if !matches!(facts.report.tie, None | Some(Tie::Configured)) && facts.report.user != User::Unknown {
        let user = if matches!(facts.report.user, User::Docker { .. }) { "Docker" } else { "containerd" };
        return Err(refuse(format!("{user} uses the pool, and makes and removes its volumes itself"))
            .fact("found", whose(&facts.report))
            .next(format!("leave its volumes to {user}: it would give an id that is taken here to one of its own")));
    }
    if let Some(told) = facts.told.told.first() {
        let engine = told.engine.name();
        return Err(refuse(format!("{engine} is told to use the pool, and makes and removes its volumes itself"))
            .fact("found", format!("{} in {}", told.words, told.by))
            .next(format!(
                "leave its volumes to {engine}, which takes no pool that has volumes of others; or {}",
                told.way_out()
            )));
    }
    if let Some(unread) = facts.told.unread.first() {
        let engine = unread.engine.name();
        return Err(refuse(format!("it cannot be told whether {engine} is to use the pool"))
            .fact("cause", unread.cause())
            .next(format!("put {} right, then run this again", unread.problem.path.display())));
    }
    if let Some(why) = &facts.containerd {
        return Err(refuse("it cannot be told whether containerd uses the pool".to_owned())
            .fact("cause", why)
            .next("put containerd's configuration right first"));
    }
    Ok(())
}

/// The pool must be nobody else's, and able to take the change.
fn ready<'f>(facts: &'f Facts, needs: Needs, refuse: &impl Fn(String) -> Failure) -> Outcome<Ready<'f>> {
    nobody_elses(facts, refuse)?;
    let working = works(facts, needs, refuse)?;
    let known = facts.known.as_ref().map_err(|why| {
        refuse("the pool's metadata cannot be read".to_owned()).fact("cause", why).next("dmesg | tail    # says more")
    })?;
    let Some(state) = facts.record.at(known.transaction) else {
        let ids: Vec<_> = facts.record.state.iter().map(|state| state.transaction.to_string()).collect();
        return Err(refuse("the pool and the record of its volumes do not belong together".to_owned())
            .fact("found", format!("the pool has the transaction id {}, the record has {}", known.transaction, ids.join(", ")))
            .fact("state", "somebody else changed that number, or the pool's metadata or the record is an older one")
            .next(format!(
                "dmpool thin adopt {0}    # writes down the volumes that the pool has; dmpool thin list {0} compares them",
                quote(&facts.report.name)
            )));
    };
    own_disk::takes_files(&facts.home.1, &facts.home.0, refuse)?;
    Ok(Ready { state, known, working })
}

fn works<'f>(facts: &'f Facts, needs: Needs, refuse: &impl Fn(String) -> Failure) -> Outcome<&'f Working> {
    let name = quote(&facts.report.name);
    match facts.report.activity {
        Activity::Active => {}
        Activity::Suspended => {
            return Err(refuse("somebody left the pool suspended, and all I/O on it waits".to_owned())
                .next(format!("if nobody is working on it:  dmsetup resume {name}    # then run this again")));
        }
        Activity::Inactive => {
            return Err(refuse("the pool is not active".to_owned())
                .next(format!("dmpool activate {name}    # then run this again")));
        }
    }
    let working = match &facts.report.status {
        Some(PoolStatus::Working(working)) => working,
        Some(PoolStatus::Fail) => {
            return Err(refuse("the pool has failed, and every I/O on it ends with an error".to_owned())
                .fact("found", "status `Fail`: the kernel could not go on with its metadata")
                .next(format!("dmpool health {name}    # says what can be done")));
        }
        Some(PoolStatus::Error) => {
            return Err(refuse("the kernel cannot read the pool's metadata".to_owned())
                .fact("found", "status `Error`")
                .next("dmesg | tail    # says which device fails"));
        }
        Some(PoolStatus::Unreadable(line)) => {
            return Err(refuse("the pool's status cannot be understood".to_owned())
                .fact("found", format!("`{line}`"))
                .next(format!("dmsetup status --noflush {name}    # and dmesg | tail say more")));
        }
        None => {
            return Err(refuse("the kernel does not tell the pool's status".to_owned())
                .fact("cause", facts.report.unread.join("; "))
                .next("dmesg | tail"));
        }
    };
    if working.needs_check == Some(true) {
        return Err(refuse("the pool's metadata needs a check first".to_owned())
            .fact("found", "needs_check is set: the kernel changes nothing in it until then")
            .next(format!("dmpool health {name}    # says how")));
    }
    match (working.mode, needs) {
        (Some(Mode::ReadOnly), _) => Err(refuse("the pool is read-only".to_owned())
            .fact("found", "the kernel makes and removes no volumes in it; mostly its metadata is full")
            .next(format!("dmpool grow {name} --metadata +1G    # if that is why; dmpool health {name} says"))),
        (Some(Mode::OutOfDataSpace), Needs::Writes) => Err(refuse("the pool is full".to_owned())
            .fact("found", "what waits to be written to its volumes waits until there is room")
            .next(format!("dmpool grow {name} SIZE    # first; or remove a volume"))),
        (Some(Mode::ReadWrite | Mode::OutOfDataSpace), _) => Ok(working),
        (None, _) => Err(refuse("the kernel does not tell whether the pool can be written".to_owned())
            .next(format!("dmsetup status --noflush {name}    # shows what it tells"))),
    }
}

/// A name that nobody has yet, for a volume that comes.
fn new_name(
    kit: &Kit,
    facts: &Facts,
    state: &VolumeState,
    name: &VolumeName,
    refuse: &impl Fn(String) -> Failure,
) -> Outcome<()> {
    let pool = &facts.entry.name;
    if let Some(volume) = state.named(name) {
        return Err(refuse("the pool has a volume of that name".to_owned())
            .fact("found", format!("id {}, {}", volume.id, volume.size.exact()))
            .next(format!("choose another name; dmpool thin list {pool}    # shows those that are taken")));
    }
    let device = name.device(pool);
    if device.len() > MAX_DEVICE_NAME {
        return Err(refuse(format!("its device would be called `{device}`, and that is too long"))
            .fact("needed", format!("at most {MAX_DEVICE_NAME} bytes; it has {}", device.len()))
            .next("choose a shorter name"));
    }
    let taken =
        kit.dm.info(&DmId::name(&device)).map_err(|e| refuse("the kernel does not answer".to_owned()).because(e))?;
    if let Some(info) = taken {
        return Err(refuse(format!("a device is called `{device}` already"))
            .fact("found", format!("{}, uuid {}", info.devno, info.uuid.as_deref().unwrap_or("none")))
            .next(format!("choose another name; dmsetup info {device}    # says more")));
    }
    if state.volumes.len() >= MAX_VOLUMES {
        return Err(refuse(format!("the pool has {MAX_VOLUMES} volumes already, and dmpool keeps no more"))
            .next(format!("dmpool thin remove {pool} NAME    # removes one")));
    }
    Ok(())
}

/// There must be room for one more in the metadata.
fn metadata_room(facts: &Facts, working: &Working, refuse: &impl Fn(String) -> Failure) -> Outcome<()> {
    let free = working.metadata_total.saturating_sub(working.metadata_used);
    if free >= SPARE_METADATA {
        return Ok(());
    }
    Err(refuse("the pool's metadata is full".to_owned())
        .fact("needed", SPARE_METADATA.bytes().exact())
        .fact("free", free.bytes().exact())
        .next(format!("dmpool grow {} --metadata +1G", quote(&facts.report.name))))
}

/// Returns an id that the pool, the record and the kernel do not have: above the highest one, as long as there is one.
fn free_id(facts: &Facts, known: &Known, refuse: &impl Fn(String) -> Failure) -> Outcome<VolumeId> {
    let mut taken: Vec<u64> = known.volumes.keys().copied().collect();
    let recorded = facts.record.state.iter().flat_map(|state| &state.volumes);
    taken.extend(recorded.map(|volume| u64::from(volume.id.get())));
    taken.extend(facts.devices.iter().map(|device| device.id));
    taken.sort_unstable();
    taken.dedup();
    lowest_above(&taken).ok_or_else(|| {
        refuse("the pool has every id that there can be".to_owned())
            .next(format!("dmpool thin remove {} NAME    # makes one free", facts.entry.name))
    })
}

/// Returns the number after the last of sorted ones, or the first that is missing once that is past the highest.
fn lowest_above(taken: &[u64]) -> Option<VolumeId> {
    let after = taken.last().map_or(1, |last| last.saturating_add(1));
    let id = |number: u64| u32::try_from(number).ok().and_then(VolumeId::new);
    id(after).or_else(|| {
        let gap = (1..).zip(taken.iter().skip_while(|id| **id == 0)).find(|(number, id)| number != *id);
        gap.and_then(|(number, _)| id(number))
    })
}

/// Returns a length in whole blocks of the pool, at least as large; nothing past what any device can have (2^63 bytes).
fn whole_blocks(facts: &Facts, size: Bytes) -> Option<Bytes> {
    let block = facts.entry.pool.block_size.bytes().get();
    size.get().checked_next_multiple_of(block).filter(|bytes| *bytes <= i64::MAX.unsigned_abs()).map(Bytes::new)
}

/// Returns what the user should know of what the volumes promise together.
fn overcommit(facts: &Facts, volumes: &[Volume]) -> Option<String> {
    let promised: u64 = volumes.iter().fold(0, |sum, volume| sum.saturating_add(volume.size.get()));
    let total = facts.report.data_space()?.total;
    (promised > total.get()).then(|| {
        format!(
            "the volumes of `{}` promise {} together, the pool has {}: it is full before they are",
            facts.report.name,
            Bytes::new(promised).human(),
            total.human()
        )
    })
}

/// Returns the steps of a change of the volumes: it is written down, `made` is done, it is so, the old is struck out.
fn steps_of(facts: &Facts, state: &VolumeState, edit: &Edit, made: Vec<Step>) -> Vec<Step> {
    let (pool, uuid) = (facts.entry.name.clone(), facts.entry.uuid.clone());
    let next = state.transaction.saturating_add(1);
    let record =
        RecordVolumes { pool: pool.clone(), uuid: uuid.clone(), transaction: state.transaction, edit: edit.clone() };
    let mut steps = vec![record.into()];
    steps.extend(made);
    steps.push(SetTransaction { pool: pool.to_string(), from: state.transaction, to: next }.into());
    steps.push(SettleVolumes { pool, uuid, transaction: next, edit: edit.clone() }.into());
    steps
}

/// Returns the names of some volumes, for who has named another.
fn named_volumes(volumes: &[Volume]) -> String {
    let mut names: Vec<_> = volumes.iter().map(|volume| volume.name.to_string()).collect();
    names.sort();
    names.truncate(12);
    if names.is_empty() { "the pool has none".to_owned() } else { names.join(", ") }
}

/// The volume must be there.
fn named<'s>(
    facts: &Facts,
    state: &'s VolumeState,
    name: &VolumeName,
    refuse: &impl Fn(String) -> Failure,
) -> Outcome<&'s Volume> {
    state.named(name).ok_or_else(|| {
        refuse(format!("the pool has no volume `{name}`"))
            .fact("found", named_volumes(&state.volumes))
            .next(format!("dmpool thin list {}", facts.entry.name))
    })
}

/// Returns a volume's device when it is active. Another device on the same volume is somebody else's.
fn active<'f>(
    facts: &'f Facts,
    volume: &Volume,
    refuse: &impl Fn(String) -> Failure,
) -> Outcome<Option<&'f ThinDevice>> {
    let uuid = facts.entry.uuid.volume(volume.id);
    let mut ours = None;
    for device in facts.devices.iter().filter(|device| device.id == u64::from(volume.id.get())) {
        if device.info.uuid.as_ref() != Some(&uuid) {
            return Err(refuse(format!("it is active as `{}`, which dmpool did not make", device.info.name))
                .fact("found", format!("{}, uuid {}", device.info.devno, device.info.uuid.as_deref().unwrap_or("none")))
                .next(format!("unmount it, then  dmsetup remove {}", quote(&device.info.name))));
        }
        if device.info.suspended {
            return Err(refuse("somebody left it suspended, and I/O on it waits".to_owned())
                .fact("found", format!("the device `{}` ({})", device.info.name, device.info.devno))
                .next(format!(
                    "if nobody is working on it:  dmsetup resume {}    # then run this again",
                    device.info.name
                )));
        }
        ours = Some(device);
    }
    Ok(ours)
}

fn plan_of(facts: &Facts, operation: Operation, what: &str, steps: Vec<Step>, notes: Vec<String>) -> Plan {
    Plan { operation, pool: facts.report.name.clone(), what: what.to_owned(), steps, notes }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_taken_above_the_highest_and_then_where_one_is_missing() {
        let id = |taken: &[u64]| lowest_above(taken).map(VolumeId::get);
        assert_eq!(id(&[]), Some(1));
        assert_eq!(id(&[0]), Some(1));
        assert_eq!(id(&[1, 2, 9]), Some(10));
        assert_eq!(id(&[0, 1, 2, 4, 16_777_215]), Some(3));
        assert_eq!(id(&[2, 16_777_215]), Some(1));
        let all: Vec<u64> = (0..=16_777_215).collect();
        assert_eq!(id(&all), None);
    }
}
