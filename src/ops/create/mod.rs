//! `create`: a pool on two loop files, on devices, or on LVs that LVM makes for it.

mod ensure;
mod files;
mod volumes;

use crate::error::{Failure, Outcome};
use crate::kernel::dm::DmId;
use crate::kernel::fs::FsFacts;
use crate::ops::handover::{self, Engine, Handover};
use crate::ops::plan::{Operation, Plan};
use crate::ops::steps::{self, Kit, Register, Step};
use crate::ops::told::{self, Engines, Told};
use crate::ops::{Change, Done, boot, facts, find, gate, journal, on_devices, own_disk, placed, random, registry};
use crate::pool::{Behaviour, Entry, Ephemeral, Place, PoolReport, PoolUuid, Spec};
use crate::units::Bytes;

/// What must be free on the file system before anything is made there: a pool needs some hundred kilobytes at once.
const LEAST_FREE: Bytes = Bytes::new(16 << 20);

/// What `create` is asked for.
#[derive(Clone, Debug)]
pub struct Options {
    /// What the pool shall be.
    pub spec: Spec,
    /// Whether a pool that is already just so is success.
    pub ensure: bool,
    /// Whether what others have left on the devices goes.
    pub wipe: bool,
    /// Who shall use it, when that is to be written into its configuration.
    pub engine: Option<Engine>,
    /// Whether the registered pools shall come up at boot; for an engine they do anyhow, where that can be done.
    pub at_boot: bool,
}

/// What decides whether it can be done.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Devices that have one of the names already.
    taken: Vec<String>,
    /// The registry's entry of that name, and the pool it leads to.
    registered: Option<(Entry, PoolReport)>,
    /// What that pool lies on, when it is on devices; why it cannot be told.
    placed: Option<Result<Place, String>>,
    /// The file system that the registry is on.
    registry: Box<FsFacts>,
    /// The pool's identity, should it be made.
    uuid: PoolUuid,
    /// What it shall be put on; nothing was looked at when it is there already.
    on: Option<On>,
    /// What the engine is told that shall use it.
    engine: Option<handover::Facts>,
    /// The other engines that are told to use a pool of that name.
    others: Engines,
    /// Who brings it up at boot, when that is to be seen to.
    boot: Option<boot::Facts>,
}

/// What a pool shall be put on, as it is now.
#[derive(Clone, Debug)]
enum On {
    Files(files::Facts),
    Devices(on_devices::Facts),
    Volumes(volumes::Facts),
}

/// Makes the pool, or says what would be done.
///
/// # Errors
/// Refused with the reason; [`crate::error::Kind::Failed`] when it could not be done and was taken back.
pub fn create(kit: &Kit, options: &Options, change: Change) -> Outcome<Done> {
    gate::may_change(kit)?;
    gate::no_interrupted(kit, options.spec.name.as_str())?;
    let first = plan(kit, &look(kit, options)?, options)?;
    steps::agreed_by_lvm(&first.steps, &first.what)?;
    if change == Change::Describe || first.is_empty() {
        return Ok(Done::planned(first));
    }
    let _lock = gate::lock(kit, gate::EXISTENCE, &first.what)?;
    gate::no_interrupted(kit, options.spec.name.as_str())?;
    let plan = plan(kit, &look(kit, options)?, options)?;
    let ended = journal::carry_out(kit, plan.clone())?;
    Ok(Done::ended(plan, ended))
}

/// Looks at what decides.
///
/// # Errors
/// When the registry, the kernel or a device cannot be read.
pub fn look(kit: &Kit, options: &Options) -> Outcome<Facts> {
    let spec = &options.spec;
    let cannot = |e: anyhow::Error| Failure::failed(format!("cannot create pool `{}`", spec.name)).because(e);
    let names = [spec.name.to_string(), spec.name.data_device(), spec.name.metadata_device()];
    let mut taken = Vec::new();
    for name in names {
        if let Some(info) = kit.dm.info(&DmId::name(&name)).map_err(cannot)? {
            taken.push(format!("`{name}` ({})", info.devno));
        }
    }
    let registered = match registry::read(&kit.state, &spec.name)? {
        Some(entry) => {
            let found = find::Found::registered(entry.clone());
            Some((entry, facts::look(kit, &found)?))
        }
        None => None,
    };
    let placed = registered.as_ref().filter(|(entry, _)| entry.files().is_none());
    let placed = placed.map(|(entry, _)| placed::of(kit, entry).map_err(|e| format!("{e:#}")));
    let on = match &spec.on {
        _ if registered.is_some() || !taken.is_empty() => None,
        Place::Files { directory, preallocate } => {
            let wanted = files::Wanted { spec, directory, preallocate: *preallocate };
            Some(On::Files(wanted.look(kit).map_err(cannot)?))
        }
        Place::Devices { data, metadata, .. } => {
            Some(On::Devices(on_devices::look(kit, spec.name.as_str(), data, metadata.as_deref())?))
        }
        Place::Volumes { group, .. } => {
            let refuse = |why: String| Failure::refused(format!("cannot create pool `{}`: {why}", spec.name));
            Some(On::Volumes(volumes::look(group, &refuse)?))
        }
    };
    let registry_fs = FsFacts::of(own_disk::there(&kit.state.registry)).map_err(cannot)?;
    let uuid = PoolUuid::from_random(random::bits().map_err(cannot)?);
    let engine = options.engine.map(|engine| handover::look(engine, spec));
    let mut others = options.engine.map_or_else(Engines::default, |_| told::engines(spec.name.as_str()));
    others.told.retain(|told| Some(told.engine) != options.engine);
    others.unread.retain(|unread| Some(unread.engine) != options.engine);
    let boot = (options.at_boot || engine.is_some()).then(|| boot::look(kit, Some(spec.name.as_str())));
    Ok(Facts { taken, registered, placed, registry: Box::new(registry_fs), uuid, on, engine, others, boot })
}

/// Decides what is to be done.
///
/// # Errors
/// Every reason not to do it.
pub fn plan(kit: &Kit, facts: &Facts, options: &Options) -> Outcome<Plan> {
    let spec = &options.spec;
    let what = format!("create pool `{}`", spec.name);
    let refuse = |why: String| Failure::refused(format!("cannot {what}: {why}"));
    of_another(&facts.others, &refuse)?;
    let ephemeral = ephemeral(facts, options, &refuse)?;
    if let Some((entry, report)) = &facts.registered {
        let plan = ensure::already_there(entry, report, facts.placed.as_ref(), options, &what)?;
        return Ok(ensure::handed_over(plan, afterwards(facts, options, &refuse)?, options.engine));
    }
    if !facts.taken.is_empty() {
        return Err(refuse("a device has that name".to_owned())
            .fact("found", facts.taken.join(", "))
            .next("choose another name; dmpool list shows the pools here"));
    }
    let behaviour = Behaviour { block_size: spec.block_size, low_water: spec.low_water, features: spec.features() };
    let entry = |store| Entry {
        name: spec.name.clone(),
        uuid: facts.uuid.clone(),
        pool: behaviour.clone(),
        store,
        ephemeral: ephemeral.clone(),
        prepared: None,
    };
    let (mut steps, mut notes, entry, data, metadata) = match (&facts.on, &spec.on) {
        (Some(On::Files(on)), Place::Files { directory, preallocate }) => {
            let wanted = files::Wanted { spec, directory, preallocate: *preallocate };
            let (data, metadata) = spec.sizes_in_files();
            on_devices::sizes(spec, data, metadata, &refuse)?;
            let (steps, notes) = wanted.plan(on, &refuse)?;
            (steps, notes, entry(wanted.store()), data, metadata)
        }
        (Some(On::Devices(on)), Place::Devices { stripe, .. }) => {
            let (uuid, saved) = (&facts.uuid, kit.state.saved.as_path());
            let wanted =
                on_devices::Wanted { spec, behaviour: &behaviour, uuid, stripe: *stripe, wipe: options.wipe, saved };
            let planned = wanted.plan(on, &refuse)?;
            (planned.steps, planned.notes, entry(planned.store), planned.data, planned.metadata)
        }
        (Some(On::Volumes(on)), Place::Volumes { share, .. }) => {
            let wanted = volumes::Wanted { spec, behaviour: &behaviour, uuid: &facts.uuid, share: *share };
            let planned = wanted.plan(on, &refuse)?;
            on_devices::sizes(spec, planned.data, planned.metadata, &refuse)?;
            (planned.steps, planned.notes, entry(planned.store), planned.data, planned.metadata)
        }
        _ => return Err(refuse("what it would be put on was not looked at".to_owned())),
    };
    own_disk::takes_files(&facts.registry, &kit.state.registry, &refuse)?;
    let devices: [Step; 3] = steps::devices_of(&entry, metadata.sectors(), data.sectors());
    steps.extend(devices);
    steps.push(Register { entry }.into());
    let handover = afterwards(facts, options, &refuse)?;
    steps.extend(handover.steps);
    notes.extend(handover.notes);
    Ok(Plan { operation: Operation::Create, pool: spec.name.to_string(), what, steps, notes })
}

/// Two engines on one pool take ids and space from each other, and neither knows the other's volumes.
fn of_another(others: &Engines, refuse: &impl Fn(String) -> Failure) -> Outcome<()> {
    let told = &others.told;
    if !told.is_empty() {
        let names: Vec<_> = told.iter().map(|told| told.engine.name()).collect();
        let found: Vec<_> = told.iter().map(|told| format!("{} in {}", told.words, told.by)).collect();
        let ways: Vec<_> = told.iter().map(Told::way_out).collect();
        let why = format!("{} is told to use a pool of that name, and a pool is for one engine", names.join(" and "));
        return Err(refuse(why)
            .fact("found", found.join("; "))
            .next(format!("{}, or choose another name", ways.join("; "))));
    }
    let Some(unread) = others.unread.first() else { return Ok(()) };
    let engine = unread.engine.name();
    Err(refuse(format!("it cannot be told whether {engine} is to use a pool of that name"))
        .fact("cause", unread.cause())
        .next(format!("put {} right, then run this again", unread.problem.path.display())))
}

/// Returns what an ephemeral pool is made of again.
///
/// # Errors
/// Refused where it cannot be one: files do not come back blank, and Docker's root would name images that are gone.
fn ephemeral(facts: &Facts, options: &Options, refuse: &impl Fn(String) -> Failure) -> Outcome<Option<Ephemeral>> {
    let spec = &options.spec;
    if !spec.ephemeral {
        return Ok(None);
    }
    let Place::Devices { data, metadata, stripe } = spec.on.clone() else {
        return Err(refuse("an ephemeral pool is on devices: files do not come back blank".to_owned())
            .next("--data-device DEV, or leave out --ephemeral"));
    };
    if options.engine == Some(Engine::Docker) {
        return Err(refuse("an ephemeral pool is not for Docker".to_owned())
            .fact("state", "its root would name images that are gone with the disks, and Docker does not start then")
            .next("leave out --ephemeral; or --for containerd"));
    }
    let device_sizes = match &facts.on {
        Some(On::Devices(on)) => on.sizes(),
        _ => Vec::new(),
    };
    let (data_size, metadata_size) = (spec.data_size, spec.metadata_size);
    Ok(Some(Ephemeral { data, metadata, stripe, data_size, metadata_size, device_sizes }))
}

/// Returns what is done with a pool that is there: an engine is told of it, and last the boot, since an engine that is started
/// again would wait for that.
fn afterwards(facts: &Facts, options: &Options, refuse: &impl Fn(String) -> Failure) -> Outcome<Handover> {
    let there = facts.registered.as_ref().map(|(_, pool)| pool);
    let mut all = match &facts.engine {
        Some(engine) => handover::plan(engine, &options.spec, there, refuse)?,
        None => Handover::default(),
    };
    if let Some(boot) = &facts.boot {
        let planned = if options.at_boot { boot::plan(boot, refuse)? } else { boot::plan_if_missing(boot) };
        all.steps.extend(planned.steps);
        all.notes.extend(planned.notes);
    }
    Ok(all)
}
