//! `thin create`: an empty volume.

use super::{Facts, Needs, change, free_id, metadata_room, new_name, overcommit, plan_of, ready, refused};
use super::{steps_of, whole_blocks};
use crate::error::{Failure, Outcome};
use crate::ops::find::Found;
use crate::ops::plan::{Operation, Plan};
use crate::ops::steps::{Kit, MakeThin, Step};
use crate::ops::{Change, Done, volumes};
use crate::pool::{Edit, Volume, VolumeName};
use crate::units::Bytes;

/// What `thin create` is asked for.
#[derive(Clone, Debug)]
pub struct Options {
    /// Its name.
    pub name: VolumeName,
    /// How long it shall at least be.
    pub size: Bytes,
    /// Whether it gets its device now.
    pub activate: bool,
}

/// Makes the volume, or says what would be done.
///
/// # Errors
/// Refused with the reason; [`crate::error::Kind::Failed`] when it could not be done and was taken back.
pub fn create(kit: &Kit, found: &Found, options: &Options, how: Change) -> Outcome<Done> {
    let what = format!("create volume `{}` in pool `{}`", options.name, found.name);
    change(kit, found, how, &what, |facts| plan(kit, facts, options, &what))
}

fn plan(kit: &Kit, facts: &Facts, options: &Options, what: &str) -> Outcome<Plan> {
    let refuse = |why: String| -> Failure { refused(&format!("{what}: {why}")) };
    let ready = ready(facts, Needs::Writes, &refuse)?;
    new_name(kit, facts, ready.state, &options.name, &refuse)?;
    metadata_room(facts, ready.working, &refuse)?;
    let size = whole_blocks(facts, options.size).ok_or_else(|| {
        refuse("that size is larger than any device can be (2^63 bytes)".to_owned()).next("choose a smaller --size")
    })?;
    let volume = Volume { name: options.name.clone(), id: free_id(facts, ready.known, &refuse)?, size, origin: None };
    let edit = Edit::Add(volume.clone());
    let mut made: Vec<Step> = vec![MakeThin { pool: facts.report.name.clone(), id: volume.id }.into()];
    made.extend(options.activate.then(|| volumes::device_of(&facts.entry, &volume).into()));
    let steps = steps_of(facts, ready.state, &edit, made);
    let mut notes = Vec::new();
    if size != options.size {
        notes.push(format!("its size is rounded up to whole blocks of the pool: {}", size.exact()));
    }
    notes.extend(overcommit(facts, &ready.state.after(&edit).volumes));
    if facts.entry.pool.features.iter().any(|word| word == "skip_block_zeroing") {
        notes.push(
            "the pool does not zero blocks (skip_block_zeroing): what was never written in the volume may read as what another one left"
                .to_owned(),
        );
    }
    Ok(plan_of(facts, Operation::ThinCreate, what, steps, notes))
}
