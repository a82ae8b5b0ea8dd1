//! A root whose Docker runs, saved between its stop and its start, by a plan.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::contents::{Contents, Item};
use super::room::room;
use super::save::{Options, look};
use crate::engine::docker_objects::Objects;
use crate::engine::docker_root::DockerRoot;
use crate::engine::roots;
use crate::error::{Failure, Outcome};
use crate::kernel::fs::file_size_limit;
use crate::ops::around::around;
use crate::ops::contents::source::Reach;
use crate::ops::daemon::Way;
use crate::ops::daemon::saved::Saved as Kept;
use crate::ops::daemon::vanishing;
use crate::ops::plan::{Operation, Plan};
use crate::ops::preflight::{self, Judged};
use crate::ops::steps::write_archive::{WriteArchive, Written};
use crate::ops::steps::{KeepRecords, Kit, Step};
use crate::ops::{cost, docker, gate, journal, keep_rm, named_file, rescue};
use crate::process::quote;
use crate::units::Bytes;

/// What is saved, and what was said of Docker.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// What is saved; the archive is a file.
    pub options: Options,
    /// How Docker is asked, stopped and started.
    pub docker: preflight::Options,
}

/// Returns whether a Docker runs on a root.
pub fn is_running(objects: &Objects) -> bool {
    roots::runs_on(&objects.path)
}

/// What would be done.
#[derive(Clone, Debug)]
pub struct Planned {
    /// The steps.
    pub plan: Plan,
    /// What would be in the archive, as it is now.
    pub contents: Contents,
}

/// What was done.
#[derive(Clone, Debug)]
pub struct Saved {
    /// The archive.
    pub file: PathBuf,
    /// What it is; nothing when that is not kept any more.
    pub written: Option<Written>,
    /// What Docker says otherwise than before, each a sentence.
    pub differences: Vec<String>,
    /// What should be known of the plan, each a sentence.
    pub notes: Vec<String>,
    /// What containers of `--rm` were saved as, in Docker and in the archive.
    pub kept: Vec<Kept>,
}

/// Says what [`save`] would do.
///
/// # Errors
/// Every reason not to do it.
pub fn describe(kit: &Kit, wanted: &Wanted) -> Outcome<Planned> {
    gate::may_change(kit)?;
    plan(kit, wanted)
}

/// Saves the root of a Docker that runs: what runs in it and it are stopped meanwhile.
///
/// # Errors
/// Refused with the reason; failed when it could not be done, and Docker runs as before;
/// [`crate::error::Kind::Partial`] when that could not be brought about.
pub fn save(kit: &Kit, wanted: &Wanted) -> Outcome<Saved> {
    gate::may_change(kit)?;
    let first = plan(kit, wanted)?.plan;
    let _lock = gate::lock(kit, gate::EXISTENCE, &first.what)?;
    let mut wanted = wanted.clone();
    let kept = keep_rm::first(kit, &rescue::open(&kit.state)?.path, &mut wanted.docker)?;
    let carried = || -> Outcome<Plan> {
        let plan = plan(kit, &wanted)?.plan;
        journal::carry_out(kit, plan.clone())?;
        Ok(plan)
    };
    let plan = carried().map_err(|failure| kept.taken_back(failure))?;
    let mut saved = ended(&plan, kit.said())
        .ok_or_else(|| Failure::failed(format!("cannot {}: the plan has no archive", plan.what)))?;
    saved.notes = plan.notes.into_iter().filter(|note| !cost::is_estimate(note)).collect();
    Ok(saved)
}

/// Returns what an operation has saved that has come to its end, and removes what was kept for its way back; nothing of another operation.
pub fn ended(plan: &Plan, differences: Vec<String>) -> Option<Saved> {
    let step = plan.steps.iter().find_map(|step| match step {
        Step::WriteArchive(step) if plan.operation == Operation::Save => Some(step),
        _ => None,
    })?;
    let written = step.written().ok().flatten();
    let says_on = plan.stopped_docker().is_some_and(|daemon| matches!(daemon.way, Way::Commands { .. }));
    let kept = KeepRecords::saved(&step.hold.records);
    if differences.is_empty() && !says_on {
        // It keeps nobody from anything.
        let _ = fs::remove_dir_all(&step.hold.records);
    }
    Some(Saved { file: step.file.clone(), written, differences, notes: Vec::new(), kept })
}

fn plan(kit: &Kit, wanted: &Wanted) -> Outcome<Planned> {
    let objects = rescue::open(&kit.state)?;
    let root = objects.path.clone();
    let refuse = |why: String| {
        Failure::refused(format!("cannot save the Docker root `{}`: {why}", root.display()))
            .fact("state", "nothing was touched")
    };
    gate::not_held(kit, &root)?;
    // Another driver has none, and its journal is found by the root that is held.
    let docker_root = docker::at(&root).ok();
    let own_pool = docker_root.as_ref().map_or_else(|| "docker".to_owned(), DockerRoot::own_pool);
    let pool = docker_root.as_ref().and_then(DockerRoot::pool);
    for pool in pool.iter().chain([&own_pool]) {
        gate::no_interrupted(kit, pool)?;
    }
    let Some(file) = &wanted.options.file else {
        return Err(refuse(
            "its Docker runs, and what goes through a pipe cannot be gone on with after a death".to_owned(),
        )
        .next("name a file; or stop Docker first, and start it again afterwards"));
    };
    let file =
        std::path::absolute(file).map_err(|e| refuse("the archive's path cannot be told".to_owned()).because(e))?;
    named_file::may_replace(&file)?;
    let folder = file.parent().unwrap_or(Path::new("/"));
    if !folder.is_dir() {
        return Err(refuse(format!("`{}` is no directory", folder.display()))
            .next(format!("mkdir -p {}", quote(&folder.to_string_lossy()))));
    }
    let options = Options { file: Some(file.clone()), ..wanted.options.clone() };
    let reach = Reach { state: kit.state.clone(), ..Reach::default() };
    let found = look(objects, &reach, &options)?;
    let judge = || {
        let judged = preflight::judge(&preflight::look(&root, &wanted.docker), &wanted.docker)?;
        if judged.daemon.is_some() {
            return Ok(judged);
        }
        Err(refuse("its Docker has just stopped".to_owned()).next("run this again: it is saved as it is then"))
    };
    let judged = judge()?;
    let contents = found.contents().clone();
    // What is to be kept of them is in the archive: once it was saved, by its own container.
    let is_lost = !wanted.docker.keep_rm || wanted.docker.saved.is_some();
    let vanish: Vec<_> =
        judged.running.iter().filter(|ran| ran.vanishes && is_lost).map(|ran| ran.id.as_str()).collect();
    let volumes = vanishing::gone_with(&judged.containers, &vanish);
    let known = found.bytes(&vanish, &volumes.iter().map(String::as_str).collect());
    // What is too much already is not measured first.
    room(known, folder, &file)?;
    let (changed, is_new) = found.changed(&vanish, &kit.watcher).map_err(|why| {
        let failure = Failure::failed(format!(
            "cannot save the Docker root `{}`: how much there is was not measured to the end",
            root.display()
        ));
        let state = if wanted.docker.saved.is_some() { "nothing was stopped" } else { "nothing was touched" };
        failure.fact("state", state).because(why)
    })?;
    // Who is asked is told what runs by now.
    let judged = if is_new { judge()? } else { judged };
    let stamp = journal::stamp(wanted.docker.begun.unwrap_or_else(SystemTime::now));
    let around = around(&judged, &kit.state, &format!("docker-{stamp}"), pool.as_deref(), &[], &[])?;
    let size = Bytes::new(known.get().saturating_add(changed.bytes.get()));
    // Each file is in the archive with all its bytes: what has too little room for them has none for the whole.
    let narrow = room(size, folder, &file)?;
    let limit = file_size_limit().map_err(|e| refuse("how long a file may be cannot be told".to_owned()).because(e))?;
    gate::file_size(size, limit, &refuse)?;
    let mut notes = vec![cost::docker_stopped(cost::save(found.layers(), size))];
    notes.extend(around.says_of_start(&judged));
    notes.extend(stopped(&judged, &contents));
    let is_more = !changed.unmeasured.is_empty();
    notes.extend(changed.unmeasured);
    notes.extend(narrow);
    notes.extend(judged.notes);
    let write = WriteArchive {
        hold: around.hold.clone(),
        options,
        unfinished: unfinished(&file, &stamp),
        file: file.clone(),
        size,
        is_more,
    };
    let before = std::iter::once(around.kept).chain(around.before);
    let steps = before.chain([Step::from(write)]).chain(around.told).chain(around.after).collect();
    let what = format!("save the Docker root `{}` to `{}`", root.display(), file.display());
    Ok(Planned { plan: Plan { operation: Operation::Save, pool: own_pool, what, steps, notes }, contents })
}

fn unfinished(file: &Path, stamp: &str) -> PathBuf {
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(format!(".dmpool-{stamp}"));
    file.with_file_name(name)
}

/// Says how containers that run are in the archive.
fn stopped(judged: &Judged, contents: &Contents) -> Option<String> {
    let is_in = |id: &str| contents.items.iter().any(|item| matches!(item, Item::Container { id: of, .. } if of == id));
    let running: Vec<_> =
        judged.running.iter().filter(|ran| !ran.vanishes && is_in(&ran.id)).map(|ran| quote(&ran.name)).collect();
    (!running.is_empty()).then(|| {
        format!(
            "they are in the archive as stopped; where that is loaded:  docker start {}    # those that ran",
            running.join(" ")
        )
    })
}
