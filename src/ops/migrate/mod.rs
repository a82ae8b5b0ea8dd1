//! `migrate`: Docker's records get another ground (docs/decisions/0005). One plan is made of what stops Docker (`around`), of the
//! steps of a `create`, and of those that copy.

pub mod anew;
mod apart;
pub mod back;
mod base;
pub mod blocks;
pub mod delete_old;
pub mod files;
pub mod grow_instead;
pub mod now;
pub mod over;
mod own_pool;
pub mod prepare;
mod prepared;
mod room;
mod size;
mod target;
mod told;
mod users;

use std::path::Path;
use std::time::SystemTime;

use crate::engine::configure::Edit;
use crate::engine::docker_root::DockerRoot;
use crate::error::{Failure, Outcome};
use crate::ops::contents::devicemapper::Inner;
use crate::ops::plan::{Operation, Plan};
use crate::ops::steps::{Kit, Step};
use crate::ops::{Change, Done, around, contents, docker, gate, journal, keep_rm, preflight, random, steps};
use crate::pool::{PoolUuid, Spec};
use crate::units::{BlockSize, Bytes};

/// What the pool shall become.
#[derive(Clone, Debug)]
pub enum To {
    /// New loop files in Docker's own place.
    LoopFiles {
        /// How large the data; nothing for as large as it is.
        data: Option<Bytes>,
        /// How large the metadata; nothing for what the data needs.
        metadata: Option<Bytes>,
        /// The length of a block; nothing for that of now.
        block: Option<BlockSize>,
    },
    /// A pool of dmpool's own, that Docker is told of.
    Pool {
        /// What it shall be.
        spec: Box<Spec>,
        /// Whether what others have left on its devices goes.
        wipe: bool,
    },
    /// No pool any more: directories for Docker's overlay2 driver.
    Overlay2 {
        /// Whether there is no Docker to be asked, stopped or started.
        offline: bool,
    },
}

/// What `migrate` is asked for.
#[derive(Clone, Debug)]
pub struct Options {
    /// The Docker root, by its path; nothing for the one that `docker` means.
    pub root: Option<String>,
    /// What its pool shall become.
    pub to: To,
    /// How large its base device shall be; nothing for as it is.
    pub base_size: Option<Bytes>,
    /// Which file system its volumes shall have; nothing for that of now.
    pub inner: Option<Inner>,
    /// What was said of Docker.
    pub docker: preflight::Options,
}

impl Options {
    fn base(&self) -> base::Asked {
        base::Asked { size: self.base_size, inner: self.inner }
    }
}

/// What one way of migrating adds to stopping and starting Docker.
struct Part {
    /// What the operation does, as a sentence goes on after "cannot".
    what: String,
    /// The pool that a journal is found by.
    pool: String,
    /// The old pool's dm name.
    old: Option<String>,
    /// What Docker shall be told.
    edits: Vec<Edit>,
    /// What should be known, each a sentence.
    notes: Vec<String>,
    /// The room that is reserved before Docker is stopped.
    room: Option<room::ToReserve>,
    /// What is made before Docker is stopped.
    first: Vec<Step>,
    /// What is done when Docker runs again.
    at_last: Vec<Step>,
}

/// The steps between those that stop Docker and those that tell it, made of what holds it meanwhile.
type Own = Box<dyn FnOnce(&steps::Hold) -> Vec<Step>>;

/// What is the same for all ways.
struct Ground<'k> {
    kit: &'k Kit,
    root: DockerRoot,
    /// When it was begun: what private names end with.
    stamp: String,
    uuid: PoolUuid,
    /// What the pool shall become, as options of a command line; without `--wipe`.
    target: String,
    /// The same, and what was said of Docker.
    asked: String,
}

/// Carries the pool of a Docker root over, or says what would be done.
///
/// # Errors
/// Refused with the reason; [`crate::error::Kind::Failed`] when it could not be done and was taken back;
/// [`crate::error::Kind::Partial`] when somebody wanted an end, and it goes on from there.
pub fn migrate(kit: &Kit, options: &Options, change: Change) -> Outcome<Done> {
    gate::may_change(kit)?;
    let first = plan(kit, options)?;
    steps::agreed_by_lvm(&first.steps, &first.what)?;
    if change == Change::Describe || first.is_empty() {
        return Ok(Done::planned(first));
    }
    let _lock = gate::lock(kit, gate::EXISTENCE, &first.what)?;
    let _prepares = gate::lock(kit, prepare::LOCK, &first.what)?;
    // Of a death while volumes were read by files.
    contents::sweep();
    let mut options = options.clone();
    let kept = keep_rm::first(kit, &root_of(kit, options.root.as_deref())?.path, &mut options.docker)?;
    let carried = || -> Outcome<_> {
        let mut plan = plan(kit, &options)?;
        // Who reads them has been told of the first ones, and what was planned is no news at the end.
        for note in std::mem::take(&mut plan.notes).iter().filter(|note| !first.notes.contains(note)) {
            kit.watcher.next(&format!("note: {note}"));
        }
        let ended = journal::carry_out(kit, plan.clone())?;
        Ok((plan, ended))
    };
    let (plan, ended) = carried().map_err(|failure| kept.taken_back(failure))?;
    over::note(&kit.state, &plan);
    Ok(Done { left: kit.said(), ..Done::ended(plan, ended) })
}

/// Returns the root that was named, or that `docker` means.
fn root_of(kit: &Kit, name: Option<&str>) -> Outcome<DockerRoot> {
    match name {
        None | Some("docker") => docker::chosen(&kit.state),
        Some(path) => docker::at(Path::new(path)),
    }
}

/// Looks, and decides what is to be done.
///
/// # Errors
/// Every reason not to do it.
pub fn plan(kit: &Kit, options: &Options) -> Outcome<Plan> {
    let ground = ground(kit, options)?;
    let facts = preflight::look(&ground.root.path, &options.docker);
    let judged = preflight::judge(&facts, &options.docker)?;
    let (mut part, own) = match options.to {
        To::Overlay2 { offline } => files::plan(&ground, &judged, offline)?,
        To::LoopFiles { .. } | To::Pool { .. } => target::plan(&ground, options, &judged.info)?,
    };
    if matches!(options.to, To::Overlay2 { .. }) {
        part.notes.extend(prepared::is_not_used(&ground));
    }
    for pool in part.old.iter().chain([&part.pool]) {
        gate::no_interrupted(kit, pool)?;
    }
    let name = format!("docker-{}", ground.stamp);
    let records = ground.root.path.join("devicemapper/metadata");
    let around = around::around(&judged, &kit.state, &name, part.old.as_deref(), &part.edits, &[records])?;
    part.notes.extend(around.says_of_start(&judged));
    let mut steps = vec![around.kept];
    steps.extend(part.room.map(|room| room.step(&around.hold)));
    steps.extend(part.first);
    steps.extend(around.before);
    steps.extend(own(&around.hold));
    steps.extend(around.told);
    steps.extend(around.after);
    steps.append(&mut part.at_last);
    part.notes.extend(judged.notes);
    Ok(Plan { operation: Operation::Migrate, pool: part.pool, what: part.what, steps, notes: part.notes })
}

/// Finds the root that is meant, and nobody at work on it.
fn ground<'k>(kit: &'k Kit, options: &Options) -> Outcome<Ground<'k>> {
    let root = root_of(kit, options.root.as_deref())?;
    let cannot = |e: anyhow::Error| Failure::failed("cannot migrate").because(e);
    let ground = Ground {
        kit,
        root,
        stamp: journal::stamp(options.docker.begun.unwrap_or_else(SystemTime::now)),
        uuid: PoolUuid::from_random(random::bits().map_err(cannot)?),
        target: prepared::target_of(&options.to),
        asked: prepared::asked(options),
    };
    gate::not_held(kit, &ground.root.path)?;
    gate::no_interrupted(kit, &ground.root.own_pool())?;
    Ok(ground)
}
