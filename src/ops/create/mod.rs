//! `create`: a pool on two loop files, or on devices.

mod devices;
mod ensure;
mod files;

use crate::error::{Failure, Outcome};
use crate::kernel::dm::DmId;
use crate::kernel::fs::FsFacts;
use crate::ops::handover::{self, Engine, Handover};
use crate::ops::plan::{Operation, Plan};
use crate::ops::steps::{self, Kit, Register, Step};
use crate::ops::{Change, Done, facts, find, gate, journal, own_disk, random, registry};
use crate::pool::{Behaviour, Entry, Place, PoolReport, PoolUuid, Spec, sizing};
use crate::units::{Bytes, MAX_META_BLOCKS, MIN_META_BLOCKS};

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
}

/// What decides whether it can be done.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Devices that have one of the names already.
    taken: Vec<String>,
    /// The registry's entry of that name, and the pool it leads to.
    registered: Option<(Entry, PoolReport)>,
    /// The file system that the registry is on.
    registry: Box<FsFacts>,
    /// The pool's identity, should it be made.
    uuid: PoolUuid,
    /// What it shall be put on; nothing was looked at when it is there already.
    on: Option<On>,
    /// What the engine is told that shall use it.
    engine: Option<handover::Facts>,
}

/// What a pool shall be put on, as it is now.
#[derive(Clone, Debug)]
enum On {
    Files(files::Facts),
    Devices(devices::Facts),
}

/// Makes the pool, or says what would be done.
///
/// # Errors
/// Refused with the reason; [`crate::error::Kind::Failed`] when it could not be done and was taken back.
pub fn create(kit: &Kit, options: &Options, change: Change) -> Outcome<Done> {
    gate::may_change(kit)?;
    gate::no_interrupted(kit, options.spec.name.as_str())?;
    let first = plan(kit, &look(kit, options)?, options)?;
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
    let on = match &spec.on {
        _ if registered.is_some() || !taken.is_empty() => None,
        Place::Files { directory, preallocate } => {
            let wanted = files::Wanted { spec, directory, preallocate: *preallocate };
            Some(On::Files(wanted.look(kit).map_err(cannot)?))
        }
        Place::Devices { data, metadata, .. } => Some(On::Devices(devices::look(data, metadata.as_deref())?)),
    };
    let registry_fs = FsFacts::of(own_disk::there(&kit.state.registry)).map_err(cannot)?;
    let uuid = PoolUuid::from_random(random::bits().map_err(cannot)?);
    let engine = options.engine.map(|engine| handover::look(engine, spec));
    Ok(Facts { taken, registered, registry: Box::new(registry_fs), uuid, on, engine })
}

/// Decides what is to be done.
///
/// # Errors
/// Every reason not to do it.
pub fn plan(kit: &Kit, facts: &Facts, options: &Options) -> Outcome<Plan> {
    let spec = &options.spec;
    let what = format!("create pool `{}`", spec.name);
    let refuse = |why: String| Failure::refused(format!("cannot {what}: {why}"));
    let hand_over = || match &facts.engine {
        Some(engine) => handover::plan(engine, spec, facts.registered.as_ref().map(|(_, pool)| pool), &refuse),
        None => Ok(Handover::default()),
    };
    if let Some((entry, report)) = &facts.registered {
        let plan = ensure::already_there(entry, report, options, &what)?;
        return Ok(ensure::handed_over(plan, hand_over()?, options.engine));
    }
    if !facts.taken.is_empty() {
        return Err(refuse("a device has that name".to_owned())
            .fact("found", facts.taken.join(", "))
            .next("choose another name; dmpool list shows the pools here"));
    }
    let behaviour = Behaviour { block_size: spec.block_size, low_water: spec.low_water, features: spec.features() };
    let entry = |store| Entry { name: spec.name.clone(), uuid: facts.uuid.clone(), pool: behaviour.clone(), store };
    let (mut steps, mut notes, entry, data, metadata) = match (&facts.on, &spec.on) {
        (Some(On::Files(on)), Place::Files { directory, preallocate }) => {
            let wanted = files::Wanted { spec, directory, preallocate: *preallocate };
            let (data, metadata) = spec.sizes_in_files();
            sizes(spec, data, metadata, &refuse)?;
            let (steps, notes) = wanted.plan(on, &refuse)?;
            (steps, notes, entry(wanted.store()), data, metadata)
        }
        (Some(On::Devices(on)), Place::Devices { stripe, .. }) => {
            let wanted =
                devices::Wanted { spec, behaviour: &behaviour, uuid: &facts.uuid, stripe: *stripe, wipe: options.wipe };
            let planned = wanted.plan(kit, on, &refuse)?;
            sizes(spec, planned.data, planned.metadata, &refuse)?;
            (planned.steps, planned.notes, entry(planned.store), planned.data, planned.metadata)
        }
        _ => return Err(refuse("what it would be put on was not looked at".to_owned())),
    };
    own_disk::takes_files(&facts.registry, &kit.state.registry, &refuse)?;
    let devices: [Step; 3] = steps::devices_of(&entry, metadata.sectors(), data.sectors());
    steps.extend(devices);
    steps.push(Register { entry }.into());
    let handover = hand_over()?;
    steps.extend(handover.steps);
    notes.extend(handover.notes);
    Ok(Plan { operation: Operation::Create, pool: spec.name.to_string(), what, steps, notes })
}

/// Refuses sizes that a pool cannot have.
fn sizes(spec: &Spec, data: Bytes, metadata: Bytes, refuse: &impl Fn(String) -> Failure) -> Outcome<()> {
    let block = spec.block_size.bytes();
    if data < block {
        return Err(refuse(format!("its data, {}, is less than one block", data.human()))
            .fact("needed", format!("at least {}", block.human()))
            .next(format!("--data-size {}", block.get())));
    }
    if !data.get().is_multiple_of(block.get()) {
        let rounded = data.get() / block.get() * block.get();
        return Err(refuse(format!("its data, {} bytes, is no whole number of blocks", data.get()))
            .fact("needed", format!("a multiple of {}", block.exact()))
            .next(format!("--data-size {rounded}")));
    }
    if metadata.meta_blocks() < MIN_META_BLOCKS {
        return Err(refuse(format!("its metadata, {}, is too small", metadata.human()))
            .fact("needed", format!("at least {}", MIN_META_BLOCKS.bytes().human()))
            .next("leave out --metadata-size: dmpool chooses one that fits"));
    }
    if metadata > MAX_META_BLOCKS.bytes() {
        return Err(refuse(format!("its metadata, {}, is more than the kernel uses", metadata.human()))
            .fact("needed", format!("at most {}", MAX_META_BLOCKS.bytes().exact()))
            .next("--metadata-size 16256M"));
    }
    let rule = sizing::metadata_for(spec.block_size.blocks_in(data.sectors())).bytes();
    if metadata < rule {
        return Err(refuse(format!("{} of metadata cannot map its data", metadata.human()))
            .fact("needed", format!("at least {}: 48 bytes for each block of {}", rule.exact(), block.human()))
            .next(format!("--metadata-size {}M, or a larger --block-size", rule.get().div_ceil(1 << 20))));
    }
    Ok(())
}
