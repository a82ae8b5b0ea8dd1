//! `activate`: a registered pool comes up, with the size that its superblock says.

mod anew;
mod devices;
mod files;
mod lvm;
mod register;
pub mod wait;

use std::collections::BTreeMap;

pub use register::{labelled, register, unregistered};

use crate::error::{Failure, Outcome};
use crate::kernel::dm::DmId;
use crate::metadata::{BadSuperblock, Superblock};
use crate::ops::journal::{self, Unfinished};
use crate::ops::plan::{Operation, Plan};
use crate::ops::sight::{self, Live};
use crate::ops::steps::{self, Kit, Step};
use crate::ops::volumes::{self, Known, ThinDevice};
use crate::ops::{Change, Done, gate};
use crate::pool::{Entry, Interrupted, VolumeRecord};
use crate::units::Sectors;

/// What decides whether it can be done.
#[derive(Clone, Debug)]
pub struct Facts {
    /// What the registry says.
    pub entry: Entry,
    /// The pool's device, when the kernel has one of that name: its uuid.
    pub pool: Option<Option<String>>,
    /// The other devices that have one of the names, with their uuids.
    pub others: Vec<(String, Option<String>)>,
    /// Those of them that are the pool's own, as they must be: what was ended half way has left them.
    left: Vec<String>,
    /// What it lies on.
    on: On,
    /// An operation on the pool that was interrupted: which one, and how it can be ended.
    pub interrupted: Option<(Operation, Interrupted)>,
    /// Its volumes.
    pub volumes: Volumes,
    /// What has the names of its devices, when it is ephemeral and they have lost its labels.
    anew: Option<anew::Facts>,
}

/// What decides which volumes come up with a pool.
#[derive(Clone, Debug)]
pub struct Volumes {
    /// Their record; what is wrong with it.
    pub record: Result<VolumeRecord, String>,
    /// What the pool's metadata says of them; why it does not.
    pub known: Result<Known, String>,
    /// The devices on the pool, when it is active.
    pub active: Vec<ThinDevice>,
    /// The devices that have the name of a volume's, with their uuids.
    pub taken: BTreeMap<String, Option<String>>,
}

/// What a pool lies on, as it is now.
#[derive(Clone, Debug)]
enum On {
    Files(files::Facts),
    Devices(devices::Facts),
}

/// Whether disks may still come, as after a boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disks {
    /// They may: a blank one that has the name of another is no reason to make a pool anew.
    MayCome,
    /// Those that are here are all.
    AreHere,
}

/// Brings the pool up, or says what would be done.
///
/// # Errors
/// Refused with the reason; [`crate::error::Kind::Failed`] when it could not be done and was taken back.
pub fn activate(kit: &Kit, entry: &Entry, change: Change, disks: Disks) -> Outcome<Done> {
    gate::may_change(kit)?;
    gate::not_prepared(entry, &format!("activate pool `{}`", entry.name))?;
    if let Some(described) = lvm::wake(kit, entry, change)? {
        return Ok(described);
    }
    let first = plan(&look(kit, entry)?, disks)?;
    if change == Change::Describe || first.is_empty() {
        return Ok(Done::planned(first));
    }
    let _existence = gate::lock(kit, gate::EXISTENCE, &first.what)?;
    let _lock = gate::lock_entry(kit, entry, &first.what)?;
    let plan = plan(&look(kit, entry)?, disks)?;
    let ended = journal::carry_out(kit, plan.clone())?;
    Ok(Done::ended(plan, ended))
}

/// Looks at what decides.
///
/// # Errors
/// When the kernel does not answer, or a journal cannot be read.
pub fn look(kit: &Kit, entry: &Entry) -> Outcome<Facts> {
    let cannot = |e: anyhow::Error| Failure::failed(format!("cannot activate pool `{}`", entry.name)).because(e);
    let uuid = |name: &str| kit.dm.info(&DmId::name(name)).map_err(cannot).map(|info| info.map(|i| i.uuid));
    let mut others = Vec::new();
    // A death between the making of a device and its table leaves it empty: that is no active pool.
    let pool = kit.dm.info(&DmId::name(entry.name.as_str())).map_err(cannot)?;
    let pool = match pool {
        Some(info) if !info.live_table && info.uuid.as_deref() == Some(entry.uuid.pool().as_str()) => {
            others.push((entry.name.to_string(), info.uuid));
            None
        }
        pool => pool.map(|info| info.uuid),
    };
    let ours = pool.as_ref().is_some_and(|uuid| uuid.as_deref() == Some(entry.uuid.pool().as_str()));
    let live = if ours { sight::live(&kit.dm, entry.name.as_str()).map_err(cannot)? } else { None };
    for name in [entry.name.data_device(), entry.name.metadata_device()] {
        if let Some(uuid) = uuid(&name)? {
            others.push((name, uuid));
        }
    }
    // Of a pool that is up already nothing else is asked.
    let on = match entry.files() {
        Some(files) if pool.is_none() && !files::answer(files) => return Err(files::silent(entry, files)),
        Some(files) => On::Files(files::look(files).map_err(cannot)?),
        None if pool.is_some() => On::Devices(devices::Facts::default()),
        None => On::Devices(devices::look(kit, entry).map_err(cannot)?),
    };
    let left = match &on {
        On::Devices(devices) if !others.is_empty() => devices::left(kit, entry, devices).map_err(cannot)?,
        On::Devices(_) | On::Files(_) => Vec::new(),
    };
    let interrupted = journal::of_pool(&kit.state, entry.name.as_str())?
        .map(|Unfinished { journal, .. }| (journal.opened.plan.operation, journal::ways_out(kit, &journal)));
    let volumes = look_at_volumes(kit, entry, &on, live).map_err(cannot)?;
    let anew = match &on {
        On::Devices(devices) if pool.is_none() => anew::look(kit, entry, devices)?,
        On::Devices(_) | On::Files(_) => None,
    };
    Ok(Facts { pool, entry: entry.clone(), others, left, on, interrupted, volumes, anew })
}

fn look_at_volumes(kit: &Kit, entry: &Entry, on: &On, live: Option<Live>) -> anyhow::Result<Volumes> {
    let record = volumes::look(&kit.state, &entry.name, &entry.uuid).map_err(|bad| bad.to_string());
    let known = match (&live, on) {
        // Who has no volumes need not have its metadata read.
        _ if record.as_ref().is_ok_and(VolumeRecord::is_blank) => Ok(Known::nothing()),
        (Some(live), _) if live.info.suspended => Err("the pool is suspended".to_owned()),
        (Some(live), _) => volumes::known_within_limit(|| volumes::known(live.table.metadata)),
        (None, On::Files(files)) => volumes::known_within_limit(|| files::volumes(files)),
        (None, On::Devices(devices)) => volumes::known_within_limit(|| devices::volumes(devices)),
    };
    let mut taken = BTreeMap::new();
    for volume in record.iter().flat_map(|record| &record.state).flat_map(|state| &state.volumes) {
        let name = volume.name.device(&entry.name);
        if let Some(info) = kit.dm.info(&DmId::name(&name))? {
            taken.insert(name, info.uuid);
        }
    }
    let active = live.map_or(Ok(Vec::new()), |live| volumes::devices(&kit.dm, live.info.devno))?;
    Ok(Volumes { record, known, active, taken })
}

/// Decides what is to be done.
///
/// # Errors
/// Every reason not to do it.
pub fn plan(facts: &Facts, disks: Disks) -> Outcome<Plan> {
    let entry = &facts.entry;
    let name = &entry.name;
    let what = format!("activate pool `{name}`");
    let refuse = |why: String| Failure::refused(format!("cannot {what}: {why}")).fact("state", "nothing was touched");
    let mut plan = Plan {
        operation: Operation::Activate,
        pool: name.to_string(),
        what: what.clone(),
        steps: Vec::new(),
        notes: Vec::new(),
    };
    if let Some((operation, how)) = &facts.interrupted {
        plan.notes.push(interrupted(*operation, how));
    }
    let half = |operation: Operation, how: &Interrupted| {
        refuse(format!("`{}` was interrupted, and its devices are not those of the registry", operation.word()))
            .fact("found", format!("the journal {}", how.id))
            .next(format!("{}    # which ends it also where a disk is gone, or somebody else's by now", how.ways()))
    };
    if let Some(uuid) = &facts.pool {
        if uuid.as_deref() != Some(entry.uuid.pool().as_str())
            && let Some((operation @ Operation::ActivateAnew, how)) = &facts.interrupted
        {
            return Err(half(*operation, how));
        }
        if uuid.as_deref() != Some(entry.uuid.pool().as_str()) {
            return Err(refuse(format!("another device is called `{name}`"))
                .fact("found", format!("uuid {}", uuid.as_deref().unwrap_or("none")))
                .next(format!("dmsetup info {name}    # says more; dmsetup rename {name} OTHER frees the name")));
        }
        // What was interrupted half way is ended first: it may have taken a volume down.
        if facts.interrupted.is_none() {
            plan.steps = volumes_up(facts, &mut plan.notes);
        }
        if plan.steps.is_empty() {
            plan.notes.push(format!("pool `{name}` is active already: unchanged"));
        }
        return Ok(plan);
    }
    if let (Some((device, _)), Some((operation, how))) = (facts.others.first(), &facts.interrupted) {
        return Err(refuse(format!("`{}` was interrupted half way", operation.word()))
            .fact("found", format!("the journal {}, and the device `{device}`", how.id))
            .next(how.ways()));
    }
    if let Some((device, uuid)) = facts.others.iter().find(|(device, _)| !facts.left.contains(device)) {
        return Err(refuse(format!("a device is called `{device}` already"))
            .fact("found", format!("uuid {}", uuid.as_deref().unwrap_or("none")))
            .next(format!("dmsetup info {device}    # says more; if nothing uses it:  dmsetup remove {device}")));
    }
    plan.notes.extend(facts.left.iter().map(|device| format!("`{device}` is up already, and stays")));
    match (&facts.anew, &facts.interrupted) {
        (Some(_), Some((operation, how))) => return Err(half(*operation, how)),
        (Some(anew), None) if anew.is_all_there() => {
            if disks == Disks::MayCome {
                let names = anew.names();
                return Err(refuse("its disks are blank, or others that have their names".to_owned())
                    .fact("found", names.join(", "))
                    .next(format!("dmpool activate {name}    # once all disks are here"))
                    .awaiting(entry.devices().iter().map(|device| device.path.display().to_string())));
            }
            return anew::plan(anew, entry, facts.volumes.record.as_ref().ok(), plan, &refuse);
        }
        _ => {}
    }
    let superblock = match &facts.on {
        On::Files(files) => files::superblock(files, &refuse)?,
        On::Devices(devices) => devices::superblock(devices, entry, &mut plan.notes, &refuse)?,
    };
    let length =
        superblock.length().ok_or_else(|| refuse("its superblock counts more blocks than there can be".to_owned()))?;
    if length == Sectors::default() {
        // The kernel writes an empty superblock first, and the size when it resumes the pool.
        return Err(refuse("its superblock counts no data: power failed while the pool was being made".to_owned())
            .fact("found", "nothing was ever stored in it")
            .next(format!("dmpool destroy {name}    # and make it again")));
    }
    let metadata = superblock.metadata_total.bytes();
    let behaviour = &entry.pool;
    if behaviour.block_size != superblock.block_size {
        return Err(refuse("registry and superblock disagree about its block size".to_owned())
            .fact(
                "found",
                format!("registry {}, superblock {}", behaviour.block_size.sectors(), superblock.block_size.sectors()),
            )
            .next("the data's pool is the one of the superblock: put the right metadata in its place"));
    }
    // What the superblock counts, also of a file that a grow which was interrupted has made longer: `continue` gives the rest.
    plan.steps = steps::devices_of(entry, metadata.sectors(), length).into();
    plan.steps.extend(volumes_up(facts, &mut plan.notes));
    Ok(plan)
}

/// Returns the steps that bring up the volumes that are down. One that cannot come up keeps neither the pool nor others
/// down: it is told of.
fn volumes_up(facts: &Facts, notes: &mut Vec<String>) -> Vec<Step> {
    let (entry, found) = (&facts.entry, &facts.volumes);
    let (record, known) = match (&found.record, &found.known) {
        (Ok(record), _) if record.is_blank() => return Vec::new(),
        (Ok(record), Ok(known)) => (record, known),
        (Err(why), _) | (_, Err(why)) => {
            notes.push(format!("its volumes do not come up: {why}"));
            return Vec::new();
        }
    };
    let Some(state) = record.at(known.transaction) else {
        notes.push(format!(
            "its volumes do not come up: the pool has the transaction id {}, which their record does not have; see  dmpool thin list {}",
            known.transaction, entry.name
        ));
        return Vec::new();
    };
    let mut steps = Vec::new();
    for volume in &state.volumes {
        let (name, id) = (volume.name.device(&entry.name), u64::from(volume.id.get()));
        let down = |why: &str| format!("volume `{}` does not come up: {why}", volume.name);
        let map = volumes::device_of(entry, volume);
        match (found.active.iter().find(|device| device.id == id), found.taken.get(&name)) {
            (Some(device), _) if device.info.uuid.as_ref() == Some(&map.uuid) => {}
            (Some(device), _) => notes.push(down(&format!("it is active as `{}`, by another hand", device.info.name))),
            // A death between the making of a device and its table leaves it empty.
            (None, Some(uuid)) if uuid.as_ref() != Some(&map.uuid) => {
                notes.push(down(&format!("another device is called `{name}`")));
            }
            _ if !known.volumes.contains_key(&id) => notes.push(down("the pool does not have it any more")),
            _ => steps.push(map.into()),
        }
    }
    steps
}

/// Says what of an interrupted operation a pool that comes up has. It is registered, so it is whole: `create` registers
/// last, and `destroy` takes it out before it deletes anything.
fn interrupted(operation: Operation, how: &Interrupted) -> String {
    let side = match operation {
        Operation::Grow => "the pool comes up with the size that its superblock says",
        Operation::Create | Operation::ActivateAnew => "the pool was made, and comes up",
        Operation::Activate | Operation::AtBoot | Operation::Migrate | Operation::DeleteOld | Operation::Save => {
            "the pool comes up"
        }
        Operation::Deactivate | Operation::Destroy => "the pool comes up as it was before",
        Operation::ThinCreate
        | Operation::ThinSnapshot
        | Operation::ThinGrow
        | Operation::ThinRemove
        | Operation::ThinAdopt => "the pool comes up with the volumes of its transaction id",
    };
    format!("`{}` was interrupted; {side}. End it:  {}", how.id, how.ways())
}

/// Returns a superblock that the kernel could use.
fn usable<'s>(
    found: &'s Result<Superblock, BadSuperblock>,
    place: &str,
    refuse: &impl Fn(String) -> Failure,
) -> Outcome<&'s Superblock> {
    match found {
        Ok(superblock) => Ok(superblock),
        Err(BadSuperblock::Zero) => Err(refuse(format!("{place} is blank"))
            .fact("found", "block 0 is all zeros: activating would format a new, empty pool over the data")
            .next("put the pool's metadata back; if there is none, the data cannot be read as a pool")),
        Err(bad) => Err(refuse(format!("the superblock in {place} cannot be read: {bad}")).next(format!(
            "copy it before anything else:  cp --sparse=always {place} COPY    # then  thin_check COPY"
        ))),
    }
}
