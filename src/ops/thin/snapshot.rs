//! `thin snapshot`: a volume that begins as another one is now.

use std::path::PathBuf;

use super::{Facts, Needs, active, change, free_id, metadata_room, named, new_name, overcommit, plan_of};
use super::{ready, refused, steps_of};
use crate::error::{Failure, Outcome};
use crate::ops::find::Found;
use crate::ops::plan::{Operation, Plan};
use crate::ops::steps::{Kit, MakeSnapshot, Step};
use crate::ops::{Change, Done, ground, volumes};
use crate::pool::{Edit, Volume, VolumeName};

/// What `thin snapshot` is asked for.
#[derive(Clone, Debug)]
pub struct Options {
    /// The volume that it is of.
    pub origin: VolumeName,
    /// Its name.
    pub name: VolumeName,
    /// Whether it gets its device now.
    pub activate: bool,
}

/// Makes the snapshot, or says what would be done.
///
/// # Errors
/// Refused with the reason; [`crate::error::Kind::Failed`] when it could not be done and was taken back.
pub fn snapshot(kit: &Kit, found: &Found, options: &Options, how: Change) -> Outcome<Done> {
    let what = format!("snapshot volume `{}` of pool `{}` as `{}`", options.origin, found.name, options.name);
    change(kit, found, how, &what, |facts| plan(kit, facts, options, &what))
}

fn plan(kit: &Kit, facts: &Facts, options: &Options, what: &str) -> Outcome<Plan> {
    let refuse = |why: String| -> Failure { refused(&format!("{what}: {why}")) };
    let ready = ready(facts, Needs::Writes, &refuse)?;
    let origin = named(facts, ready.state, &options.origin, &refuse)?;
    new_name(kit, facts, ready.state, &options.name, &refuse)?;
    metadata_room(facts, ready.working, &refuse)?;
    if !ready.known.volumes.contains_key(&u64::from(origin.id.get())) {
        return Err(refuse(format!("the pool does not have the volume `{}` any more", origin.name))
            .fact("found", format!("the record has its id, {}, the pool's metadata has not", origin.id))
            .next(format!("dmpool thin list {}    # compares them", facts.entry.name)));
    }
    let device = active(facts, origin, &refuse)?;
    let needs = device.map(|device| ground::needs_on(&kit.state, device.info.devno)).unwrap_or_default();
    no_needs(&needs, &refuse)?;
    let id = free_id(facts, ready.known, &refuse)?;
    let volume = Volume { name: options.name.clone(), id, size: origin.size, origin: Some(origin.id) };
    let edit = Edit::Add(volume.clone());
    let snapshot = MakeSnapshot {
        pool: facts.report.name.clone(),
        id: volume.id,
        origin: origin.id,
        device: origin.name.device(&facts.entry.name),
        uuid: facts.entry.uuid.volume(origin.id),
    };
    let mut made: Vec<Step> = vec![snapshot.into()];
    made.extend(options.activate.then(|| volumes::device_of(&facts.entry, &volume).into()));
    let steps = steps_of(facts, ready.state, &edit, made);
    let notes = overcommit(facts, &ready.state.after(&edit).volumes).into_iter().collect();
    Ok(plan_of(facts, Operation::ThinSnapshot, what, steps, notes))
}

/// What is suspended must not carry anything that dmpool needs meanwhile.
pub(super) fn no_needs(needs: &[PathBuf], refuse: &impl Fn(String) -> Failure) -> Outcome<()> {
    if needs.is_empty() {
        return Ok(());
    }
    let paths: Vec<_> = needs.iter().map(|path| path.display().to_string()).collect();
    Err(refuse("dmpool itself needs files that lie on it, while it is suspended for a moment".to_owned())
        .fact("found", paths.join(", "))
        .next("run dmpool from another disk, with --state-dir on another disk, and its output elsewhere"))
}
