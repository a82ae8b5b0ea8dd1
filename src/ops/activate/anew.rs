//! An ephemeral pool whose devices came back blank is made anew, empty, as it was asked for.

use std::path::PathBuf;
use std::time::SystemTime;

use super::devices;
use crate::engine::containerd;
use crate::error::{Failure, Outcome};
use crate::kernel::processes;
use crate::ops::handover::Engine;
use crate::ops::on_devices::{self, Wanted};
use crate::ops::plan::{Operation, Plan};
use crate::ops::steps::{self, ForgetVolumes, Kit, SetAside, UpdateEntry};
use crate::ops::told::{self, Told, Unread};
use crate::ops::{journal, random};
use crate::pool::disk::Unfit;
use crate::pool::label::Unassembled;
use crate::pool::{Entry, Place, PoolUuid, Spec, VolumeRecord};
use crate::process::quote;

/// What decides whether it can be.
#[derive(Clone, Debug)]
pub struct Facts {
    /// How it was asked for.
    spec: Spec,
    /// Its identity then: a disk of before that turns up once more is not taken for one of its own.
    uuid: PoolUuid,
    /// What has the names of its devices.
    devices: on_devices::Facts,
    /// Whether some devices still carry its labels.
    partly: bool,
    /// Where what is cleared would be kept.
    saved: PathBuf,
    /// What tells Docker of it.
    docker: Option<Told>,
    /// What of an engine's configuration could not be read.
    unread: Option<Unread>,
    /// What containerd says of what was on it.
    stale: Vec<Stale>,
    /// containerd's own database, where it is needed for more than the pool.
    shared: Option<PathBuf>,
}

/// A database of what is gone.
#[derive(Clone, Debug)]
struct Stale {
    path: PathBuf,
    aside: PathBuf,
    /// The process that has it open.
    open: Option<u32>,
}

/// Looks at what has the names of an ephemeral pool's devices; nothing when the pool is not ephemeral, or its labels are there.
pub(super) fn look(kit: &Kit, entry: &Entry, found: &devices::Facts) -> Outcome<Option<Facts>> {
    let Some(spec) = entry.again() else { return Ok(None) };
    let partly = match &found.assembly {
        Some(Err(Unassembled::None)) => false,
        Some(Err(Unassembled::Missing(_))) => true,
        _ => return Ok(None),
    };
    let Place::Devices { data, metadata, .. } = &spec.on else { return Ok(None) };
    let devices = on_devices::look(kit, entry.name.as_str(), data, metadata.as_deref())?;
    let cannot = |e: anyhow::Error| Failure::failed(format!("cannot activate pool `{}`", entry.name)).because(e);
    let uuid = PoolUuid::from_random(random::bits().map_err(cannot)?);
    let engines = told::engines(spec.name.as_str());
    let docker = engines.told.into_iter().find(|told| told.engine == Engine::Docker);
    let unread = engines.unread.into_iter().next();
    let (stale, shared) = stale(spec.name.as_str()).map_err(cannot)?;
    Ok(Some(Facts { spec, uuid, devices, partly, saved: kit.state.saved.clone(), docker, unread, stale, shared }))
}

fn stale(pool: &str) -> anyhow::Result<(Vec<Stale>, Option<PathBuf>)> {
    let mark = format!("before-{}", journal::stamp(SystemTime::now()));
    let (mut all, mut shared) = (Vec::new(), None);
    for snapshotter in containerd::find().found.iter().filter(|snapshotter| snapshotter.pool == pool) {
        let databases = snapshotter.databases();
        shared =
            shared.or_else(|| Some(snapshotter.metadata()).filter(|path| !databases.contains(path) && path.exists()));
        for path in databases.into_iter().filter(|path| path.symlink_metadata().is_ok()) {
            let mut aside = path.clone().into_os_string();
            aside.push(format!(".{mark}"));
            let open = processes::with_open(&path)?.first().copied();
            all.push(Stale { path, aside: aside.into(), open });
        }
    }
    Ok((all, shared))
}

impl Facts {
    /// Returns the names that its devices were given.
    pub(super) fn names(&self) -> Vec<String> {
        self.devices.named().map(|named| named.given.display().to_string()).collect()
    }

    /// Returns whether something has each of the names: until then the pool is late.
    pub(super) fn is_all_there(&self) -> bool {
        self.devices.named().all(|named| named.device.is_some())
    }
}

/// Decides what is to be done with devices that are all there.
///
/// # Errors
/// Every reason not to make it anew.
pub(super) fn plan(
    facts: &Facts,
    entry: &Entry,
    record: Option<&VolumeRecord>,
    mut plan: Plan,
    refuse: &impl Fn(String) -> Failure,
) -> Outcome<Plan> {
    let name = &entry.name;
    is_blank(facts, name.as_str(), refuse)?;
    are_as_large(facts, entry, refuse)?;
    if let Some(told) = &facts.docker {
        return Err(refuse("it came back blank, and Docker is told of it".to_owned())
            .fact("found", format!("{} in {}", told.words, told.by))
            .fact(
                "state",
                "nothing was touched; Docker's root names images that are gone, and Docker does not start without them",
            )
            .next(format!("{}, then  dmpool activate {name}", told.way_out())));
    }
    if let Some(unread) = &facts.unread {
        let engine = unread.engine.name();
        return Err(refuse(format!("it came back blank, and it cannot be told whether {engine} is to use it"))
            .fact("cause", unread.cause())
            .fact("state", "nothing was touched; what an engine has written down of what is gone must be known first")
            .next(format!("put {} right, then  dmpool activate {name}", unread.problem.path.display())));
    }
    if let Some((stale, pid)) = facts.stale.iter().find_map(|stale| Some((stale, stale.open?))) {
        let comm = processes::comm(pid);
        return Err(refuse("it came back blank, and containerd has databases open of what was on it".to_owned())
            .fact("found", format!("{} open in process {pid} ({comm})", stale.path.display()))
            .next(format!("systemctl stop containerd && dmpool activate {name} && systemctl start containerd")));
    }
    let Place::Devices { stripe, .. } = facts.spec.on else { return Err(refuse("it is not on devices".to_owned())) };
    let wanted = Wanted {
        spec: &facts.spec,
        behaviour: &entry.pool,
        uuid: &facts.uuid,
        stripe,
        wipe: false,
        saved: &facts.saved,
    };
    let planned = wanted.plan(&facts.devices, refuse)?;
    let to = Entry { uuid: facts.uuid.clone(), store: planned.store, ..entry.clone() };
    plan.operation = Operation::ActivateAnew;
    plan.what = format!("make pool `{name}` anew");
    plan.notes.push(format!("the disks of the ephemeral pool `{name}` came back blank: it is made anew, and is empty"));
    plan.notes.extend(planned.notes);
    // First, so that it goes back last: what containerd has made since then keeps nothing else from going back.
    for Stale { path, aside, .. } in &facts.stale {
        plan.notes.push(format!("{} speaks of what is gone, and is set aside as {}", path.display(), aside.display()));
        plan.steps.push(SetAside { from: path.clone(), to: aside.clone() }.into());
    }
    plan.notes.extend(begins_with(facts));
    plan.steps.extend(planned.steps);
    plan.steps.extend(steps::devices_of(&to, planned.metadata.sectors(), planned.data.sectors()));
    if let Some(record) = record.filter(|record| !record.is_blank()) {
        plan.notes.push(format!("the volumes of pool `{name}` are gone with what was on its disks"));
        plan.steps.push(ForgetVolumes { record: record.clone() }.into());
    }
    plan.steps.push(UpdateEntry { from: entry.clone(), to }.into());
    Ok(plan)
}

/// Says what containerd begins with.
fn begins_with(facts: &Facts) -> Option<String> {
    match (&facts.shared, facts.stale.as_slice()) {
        (_, []) => None,
        (None, _) => {
            Some("containerd begins with no images and no containers: they are to be pulled and made again".to_owned())
        }
        (Some(kept), _) => Some(format!(
            "{} names snapshots of other snapshotters too, or cannot be read, and stays: containers and images of devmapper are to be removed (ctr -n NAMESPACE containers rm, ctr -n NAMESPACE images rm --sync) and made again",
            kept.display()
        )),
    }
}

/// Refuses devices of other sizes: they are other disks, not these that came back blank.
fn are_as_large(facts: &Facts, entry: &Entry, refuse: &impl Fn(String) -> Failure) -> Outcome<()> {
    let before = entry.ephemeral.as_ref().map(|ephemeral| ephemeral.device_sizes.as_slice()).unwrap_or_default();
    for ((named, was), is) in facts.devices.named().zip(before).zip(facts.devices.sizes()) {
        if *was != is {
            return Err(refuse(format!("`{}` is another disk than it was made on", named.given.display()))
                .fact("found", format!("a blank disk of {}", is.exact()))
                .fact("needed", format!("one of {}", was.exact()))
                .next(format!(
                    "dmpool disks    # shows what is here; dmpool destroy {}, and create it again, where these disks are right",
                    entry.name
                )));
        }
    }
    Ok(())
}

/// Refuses devices with anything on them, where `create` would look.
fn is_blank(facts: &Facts, name: &str, refuse: &impl Fn(String) -> Failure) -> Outcome<()> {
    let way_out = format!(
        "dmpool destroy {name} --with-volumes    # erases the labels that are left; then create it again, with --wipe where what is \
         there may go"
    );
    if facts.partly {
        let blank = facts.devices.named().filter(|named| named.unfit.is_empty());
        let names: Vec<_> = blank.map(|named| quote(&named.given.to_string_lossy())).collect();
        return Err(refuse("some of its devices came back blank, and others did not".to_owned())
            .fact("blank", names.join(", "))
            .fact("state", "nothing was touched: what is on the others is not removed by itself")
            .next(way_out));
    }
    for named in facts.devices.named() {
        let is_late = named.unfit.iter().any(Unfit::is_unknown);
        named.fit(false, refuse).map_err(|failure| {
            let late = Some(named.given.display().to_string()).filter(|_| is_late);
            failure.next(way_out.clone()).awaiting(late)
        })?;
    }
    Ok(())
}
