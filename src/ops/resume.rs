//! `continue` and `undo`: an operation that was interrupted is finished, or taken back.

use std::path::PathBuf;

use crate::error::{Failure, Kind, Outcome};
use crate::kernel::identity;
use crate::ops::journal::{self, Ended, Journal, Log, Progress};
use crate::ops::plan::{Operation, Plan};
use crate::ops::root_archive::running;
use crate::ops::steps::{self, Act, Attempt, Kit, Step, StopDocker, devices_of};
use crate::ops::{contents, daemon, deleted, gate, members, migrate, registry, sight};
use crate::pool::{Entry, PoolName};

/// Which way to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// To the end.
    Continue {
        /// Also when that deletes what may have been written since.
        used_since: bool,
    },
    /// To the beginning, up to the first step with no way back.
    Undo,
}

/// What was finished or taken back.
#[derive(Clone, Debug)]
pub struct Resumed {
    /// The journal's id.
    pub id: String,
    /// What the operation does, as a sentence goes on after "cannot".
    pub what: String,
    /// How it ended.
    pub ended: Ended,
    /// What the user should know, each a sentence.
    pub notes: Vec<String>,
    /// What Docker says otherwise than before it was migrated, each a sentence.
    pub differences: Vec<String>,
    /// The archive of a `save` that has come to its end.
    pub saved: Option<running::Saved>,
    /// What is to be known of a migration that has come to its end.
    pub end: Option<migrate::back::End>,
    /// The file that lists these.
    pub report: Option<PathBuf>,
}

/// An interrupted operation, and what ending it in one way would do.
#[derive(Clone, Debug)]
pub struct Described {
    /// The journal's id.
    pub id: String,
    /// What the operation does, as a sentence goes on after "cannot".
    pub what: String,
    /// Whether that way deletes data that are still there, as the operation was asked to.
    pub destroys: bool,
    /// What would be done, in that order.
    pub steps: Vec<Remaining>,
}

/// A step that is to be done, or taken back.
#[derive(Clone, Debug)]
pub struct Remaining {
    /// Its number in the operation, counting from 1.
    pub number: usize,
    /// The step.
    pub step: Step,
    /// Whether it has no way back and stays, with all before it.
    pub stands: bool,
}

/// Says what [`resume`] would do, and touches nothing.
///
/// # Errors
/// As [`resume`], as far as that can be told beforehand.
pub fn describe(kit: &Kit, id: Option<&str>, way: Way) -> Outcome<Option<Described>> {
    let found = which(kit, id)?;
    let had_ended = ended(kit, found.as_ref(), way)?;
    let Some(id) = found.or_else(|| Some(had_ended.as_ref()?.opened.id.clone())) else { return Ok(None) };
    gate::may_change(kit)?;
    let journal = match had_ended {
        Some(journal) => {
            migrate::back::may_go(kit, &journal)?;
            journal
        }
        None => journal::of_id(&kit.state, &id)?,
    };
    may_end(kit, &journal, way)?;
    let destroys = matches!(way, Way::Continue { .. }) && journal::ways_out(kit, &journal).destroys;
    let what = journal.opened.plan.what.clone();
    Ok(Some(Described { id, what, destroys, steps: remaining(kit, &journal, way) }))
}

fn remaining(kit: &Kit, journal: &Journal, way: Way) -> Vec<Remaining> {
    let steps = journal.opened.plan.steps.iter().zip(&journal.progress).zip(1..);
    let remaining = |((step, _), number): ((&Step, &Progress), usize)| Remaining {
        number,
        step: step.clone(),
        stands: way == Way::Undo
            && journal::ends_the_way_back(journal.opened.plan.operation, step)
            && step.act().stands(kit).unwrap_or(false),
    };
    if way != Way::Undo {
        let is_done = |step: &Step, progress: &Progress| *progress == Progress::Done && step.act().verify(kit).is_ok();
        return steps.filter(|((step, progress), _)| !is_done(step, progress)).map(remaining).collect();
    }
    // As the runner goes back: after a reboot also over what was not yet done, and is gone with it.
    let rebooted = identity::boot_id().is_ok_and(|boot| boot != journal.opened.boot);
    let goes_back = |step: &Step, progress: &Progress| {
        !matches!(progress, Progress::Not | Progress::Reverted) || rebooted && !step.act().lasts()
    };
    let mut found: Vec<_> = steps.filter(|((step, progress), _)| goes_back(step, progress)).map(remaining).collect();
    found.reverse();
    if let Some(last) = found.iter().position(|remaining| remaining.stands) {
        found.truncate(last + 1);
    }
    found
}

/// Refuses a way that deletes what nobody asked to be deleted.
fn may_end(kit: &Kit, journal: &Journal, way: Way) -> Outcome<()> {
    no_data_goes(kit, journal, way)?;
    no_volume_goes(kit, journal, way)?;
    nobody_past_the_hold(journal, way)?;
    no_start_goes(journal, way)?;
    no_file_goes(kit, journal, way)
}

/// Finishes an interrupted operation, or takes it back; without an id, the only one. Where none was interrupted, [`Way::Undo`] takes back the
/// last migration, as long as nobody has started Docker on what it made. Nothing when there is neither.
///
/// # Errors
/// Refused when there is none of that id, or the journal cannot be used; [`Kind::Partial`] when it could not be done now either.
pub fn resume(kit: &Kit, id: Option<&str>, way: Way) -> Outcome<Option<Resumed>> {
    let found = which(kit, id)?;
    let had_ended = ended(kit, found.as_ref(), way)?;
    let Some(id) = found.or_else(|| Some(had_ended.as_ref()?.opened.id.clone())) else { return Ok(None) };
    gate::may_change(kit)?;
    let verb = match way {
        Way::Continue { .. } => format!("continue `{id}`"),
        Way::Undo => format!("undo `{id}`"),
    };
    let _existence = gate::lock(kit, gate::EXISTENCE, &verb)?;
    if let Some(journal) = &had_ended {
        migrate::back::reopen(kit, journal)?;
    }
    // Of a death while volumes were read by files.
    contents::sweep();
    let plan = journal::of_id(&kit.state, &id)?.opened.plan;
    let _lock = match key(kit, &plan)?.filter(|key| key != gate::EXISTENCE) {
        Some(key) => Some(gate::lock(kit, &key, &verb)?),
        None => None,
    };
    wake(kit, &plan)?;
    // Read again: who had the lock until now may have gone further.
    let log = Log::resume(&kit.state, &id)?;
    may_end(kit, &log.journal, way)?;
    let mut notes = Vec::new();
    notes.extend(had_ended.map(|_| "that one had ended, and nobody has started Docker on what it made".to_owned()));
    if journal::volumes::is_of_volumes(plan.operation) {
        with_pool_up(kit, &log, &mut notes)?;
    }
    let ended = match way {
        Way::Undo => journal::take_back(kit, log)?,
        Way::Continue { .. } if plan.operation == Operation::Grow => finish_grow(kit, log, &mut notes)?,
        Way::Continue { .. } => journal::finish(kit, log)?,
    };
    let (mut said, mut differences) = (kit.said(), Vec::new());
    let saved = match ended {
        Ended::Whole if plan.operation == Operation::Save => running::ended(&plan, std::mem::take(&mut said)),
        _ => None,
    };
    if plan.operation == Operation::Migrate && ended == Ended::Whole {
        differences = std::mem::take(&mut said);
    }
    if matches!(plan.operation, Operation::Migrate | Operation::DeleteOld) && ended == Ended::Whole {
        migrate::over::note(&kit.state, &plan);
    }
    let end = if ended == Ended::Whole { migrate::back::end(kit, &plan) } else { None };
    if plan.operation == Operation::Migrate && ended != Ended::Whole {
        migrate::over::strike_out(&kit.state, &plan);
    }
    notes.extend(said);
    notes.extend(super::silence_of_udev());
    let report = plan.report();
    Ok(Some(Resumed { id, what: plan.what, ended, notes, differences, report, saved, end }))
}

/// Refuses to end an operation in the way that deletes what has been written to the pool since it was interrupted: boot
/// activation brings such a pool up, and it may have been used for weeks.
fn no_data_goes(kit: &Kit, journal: &Journal, way: Way) -> Outcome<()> {
    let opened = &journal.opened;
    let (id, pool) = (&opened.id, &opened.plan.pool);
    let refuse = |verb: &str, why: String| {
        Failure::refused(format!("cannot {verb} `{id}`: {why}"))
            .fact("state", "nothing was touched; the pool and its data are there")
    };
    let cannot = |e: anyhow::Error| Failure::failed(format!("cannot look at pool `{pool}`")).because(e);
    match way {
        Way::Undo => {
            let Some(used) = journal::used(kit, opened).map_err(cannot)? else { return Ok(()) };
            Err(refuse("undo", format!("that deletes pool `{pool}`, and it has been used since"))
                .fact("found", used)
                .next(format!("dmpool continue {id}    # keeps it; if it may go, then:  dmpool destroy {pool}")))
        }
        Way::Continue { used_since: false } if journal::was_brought_up_since(kit, journal).map_err(cannot)? => {
            Err(refuse("continue", format!("pool `{pool}` had been taken down, and somebody has brought it up since"))
                .fact("found", "what has been written to it since then would be deleted")
                .next(format!(
                    "dmpool undo {id}    # keeps it; if it may go:  dmpool continue {id} --yes --used-since"
                )))
        }
        Way::Continue { .. } => Ok(()),
    }
}

/// Refuses to end a change of a volume in the way that deletes what has been written to it since it was interrupted.
fn no_volume_goes(kit: &Kit, journal: &Journal, way: Way) -> Outcome<()> {
    let (id, pool) = (&journal.opened.id, &journal.opened.plan.pool);
    let cannot = |e: anyhow::Error| Failure::failed(format!("cannot look at the volume of `{id}`")).because(e);
    let refuse = |verb: &str, why: String| {
        Failure::refused(format!("cannot {verb} `{id}`: {why}"))
            .fact("state", "nothing was touched; the volume is there")
    };
    match way {
        Way::Undo => {
            if let Some(used) = journal::volumes::used(kit, journal).map_err(cannot)? {
                return Err(refuse("undo", "that deletes the volume, and it has been used since".to_owned())
                    .fact("found", used)
                    .next(format!(
                        "dmpool continue {id}    # keeps it; if it may go, then:  dmpool thin remove {pool} NAME"
                    )));
            }
            if journal::volumes::may_have_grown(journal).map_err(cannot)? {
                let why = "the machine was started since, and a file system may have grown into the volume";
                return Err(refuse("undo", why.to_owned())
                    .fact("found", "taking it back would cut that file system off")
                    .next(format!(
                        "dmpool continue {id}    # finishes it, with the file system mounted that it is about"
                    )));
            }
            Ok(())
        }
        Way::Continue { used_since: true } => Ok(()),
        Way::Continue { used_since: false } => match journal::volumes::is_back(kit, journal).map_err(cannot)? {
            Some(device) => {
                Err(refuse("continue", format!("`{device}` had been taken down, and somebody has brought it up since"))
                    .fact("found", "what has been written to it since then would be deleted")
                    .next(format!(
                        "dmpool undo {id}    # keeps it; if it may go:  dmpool continue {id} --yes --used-since"
                    )))
            }
            None => Ok(()),
        },
    }
}

/// Refuses to lead Docker back to what it had when it has run since on what was made for it.
fn no_start_goes(journal: &Journal, way: Way) -> Outcome<()> {
    if way != Way::Undo {
        return Ok(());
    }
    let id = &journal.opened.id;
    let is_begun = |progress: &Progress| matches!(progress, Progress::Perhaps | Progress::Done);
    let mut steps = journal.opened.plan.steps.iter().zip(&journal.progress);
    // Also where it died before it wrote down that Docker has answered.
    let serves = steps.any(|(step, progress)| {
        matches!(step, Step::StartDocker(started) if is_begun(progress) && started.hold.was_dropped() && started.serves())
    });
    for step in &journal.opened.plan.steps {
        let Step::DropHold(dropped) = step else { continue };
        let mut used = dropped.hold.used_since().map_err(|e| {
            Failure::failed(format!("cannot undo `{id}`: whether Docker has run since cannot be told")).because(e)
        })?;
        if serves && used.is_empty() {
            used.push("it answers".to_owned());
        }
        if used.is_empty() && journal::is_start_unknown(journal) {
            return Err(Failure::refused(format!("cannot undo `{id}`: {}", dropped.hold.cannot_be_told()))
                .fact("state", "nothing was touched; what Docker may have written since would be lost on the way back")
                .next(format!("start Docker, when it does not run, then:  dmpool continue {id}    # finishes it")));
        }
        if let (Some(first), Operation::Save) = (used.first(), journal.opened.plan.operation) {
            return Err(Failure::refused(format!("cannot undo `{id}`: the archive is written, and Docker runs again"))
                .fact("found", first)
                .fact("state", "nothing was touched")
                .next(format!("dmpool continue {id}    # starts what ran in it")));
        }
        if let Some(first) = used.first() {
            let many = if used.len() == 1 { String::new() } else { format!(", and {} more", used.len() - 1) };
            return Err(Failure::refused(format!("cannot undo `{id}`: Docker has run since on what was made for it"))
                .fact("found", format!("{first}{many}"))
                .fact("state", "nothing was touched; what was written there since would be lost on the way back")
                .next(format!("dmpool continue {id}    # finishes it")));
        }
    }
    Ok(())
}

/// Refuses both ways while a Docker runs that somebody has started past the hold, and the way back when one has run on what had taken the
/// old one's place.
fn nobody_past_the_hold(journal: &Journal, way: Way) -> Outcome<()> {
    let (id, verb) = (&journal.opened.id, if way == Way::Undo { "undo" } else { "continue" });
    let holds = journal.opened.plan.steps.iter().zip(&journal.progress).filter_map(|(step, progress)| match step {
        // Until it was stopped the one that runs is the one that ran.
        Step::StopDocker(StopDocker { hold, .. }) if *progress == Progress::Done => Some(hold),
        _ => None,
    });
    for hold in holds.filter(|hold| hold.is_held() && !hold.was_dropped()) {
        daemon::nobody_runs_on(&hold.root).map_err(|why| {
            Failure::refused(format!("cannot {verb} `{id}`: somebody has started Docker while it was held"))
                .fact("state", "nothing was touched")
                .next(format!("stop it, then:  dmpool continue {id}    # or undo, when it can still be taken back"))
                .because(why)
        })?;
    }
    if way != Way::Undo {
        return Ok(());
    }
    let used = journal::used_past_hold(journal).map_err(|e| {
        Failure::failed(format!("cannot undo `{id}`: whether Docker has run since cannot be told")).because(e)
    })?;
    let Some(used) = used else { return Ok(()) };
    Err(Failure::refused(format!(
        "cannot undo `{id}`: Docker has run since on what was made for it, while it was held"
    ))
    .fact("found", used)
    .fact("state", "nothing was touched; what was written there since would be lost on the way back")
    .next(format!("dmpool continue {id}    # finishes it")))
}

/// Refuses to end an operation in the way that takes devices down which are the last to have a deleted file.
fn no_file_goes(kit: &Kit, journal: &Journal, way: Way) -> Outcome<()> {
    let plan = &journal.opened.plan;
    let takes_down = match (plan.operation, way) {
        (Operation::Destroy, Way::Continue { .. }) => !journal::destroys(plan),
        (Operation::Deactivate, Way::Continue { .. }) | (Operation::Activate, Way::Undo) => true,
        _ => false,
    };
    let entry = plan.entry().cloned().or_else(|| journal::volumes::entry_of(kit, &plan.pool));
    let Some(entry) = entry.filter(|_| takes_down) else { return Ok(()) };
    let held = deleted::held(&kit.dm, &entry)
        .map_err(|e| Failure::failed(format!("cannot look at pool `{}`", plan.pool)).because(e))?;
    deleted::refuse(&held, &plan.pool, &format!("end `{}`", journal.opened.id))
}

/// Returns what `undo` takes back where nothing was interrupted: a migration that has ended, and Docker was not started since.
fn ended(kit: &Kit, found: Option<&String>, way: Way) -> Outcome<Option<Journal>> {
    if found.is_some() || way != Way::Undo { Ok(None) } else { migrate::back::last(kit) }
}

fn which(kit: &Kit, id: Option<&str>) -> Outcome<Option<String>> {
    let ids = journal::open_journals(&kit.state).map_err(|e| Failure::failed("cannot list the journals").because(e))?;
    match (id, ids.as_slice()) {
        (Some(id), _) if ids.iter().any(|i| i == id) => Ok(Some(id.to_owned())),
        (Some(id), []) => Err(Failure::refused(format!("there is no interrupted operation `{id}`"))
            .fact("found", "none at all: nothing was interrupted, or it has been ended already")
            .next("dmpool list    # shows how the pools are")),
        (Some(id), _) => Err(Failure::refused(format!("there is no interrupted operation `{id}`"))
            .fact("found", ids.join(", "))
            .next("name one of these")),
        (None, [only]) => Ok(Some(only.clone())),
        (None, []) => Ok(None),
        (None, several) => Err(Failure::new(Kind::Usage, "several operations were interrupted: say which one")
            .fact("found", several.join(", "))
            .next(format!("dmpool continue {}", several.first().map_or("", String::as_str)))),
    }
}

/// Brings the pool of an interrupted change of its volumes up: only the kernel knows and changes them.
fn with_pool_up(kit: &Kit, log: &Log, notes: &mut Vec<String>) -> Outcome<()> {
    let opened = &log.journal.opened;
    let cannot = |e: anyhow::Error| {
        Failure::new(Kind::Partial, format!("cannot go on with `{}`: pool `{}` is down", opened.id, opened.plan.pool))
            .fact("state", "the pool's volumes are as its transaction id says; nothing was done")
            .fact("kept", log.path.display().to_string())
            .next(format!("dmpool activate {}    # says what keeps it down", opened.plan.pool))
            .because(e)
    };
    if sight::live(&kit.dm, &opened.plan.pool).map_err(cannot)?.is_some() {
        return Ok(());
    }
    let entry = journal::volumes::entry_of(kit, &opened.plan.pool)
        .ok_or_else(|| cannot(anyhow::anyhow!("it is not registered, or its entry cannot be used")))?;
    bring_up(kit, &entry).map_err(cannot)?;
    notes.push(format!("pool `{}` was down and has been activated; dmpool activate brings up its volumes", entry.name));
    Ok(())
}

/// After a reboot the pool may be down: ours is brought up first; Docker brings its own up with the file's length.
fn finish_grow(kit: &Kit, log: Log, notes: &mut Vec<String>) -> Outcome<Ended> {
    let plan = &log.journal.opened.plan;
    let what = plan.what.clone();
    let cannot = |e: anyhow::Error| {
        Failure::new(Kind::Partial, format!("cannot continue: {what}"))
            .fact("state", "what it lies on has its old length or its new one; some of its devices may be up")
            .fact("kept", log.path.display().to_string())
            .next(journal::ways_out(kit, &log.journal).ways())
            .because(e)
    };
    if sight::live(&kit.dm, &plan.pool).map_err(cannot)?.is_some() {
        return journal::finish(kit, log);
    }
    let entry = match PoolName::new(&plan.pool) {
        Ok(name) => registry::read(&kit.state, &name)?,
        Err(_) => None,
    };
    if let Some(entry) = entry {
        bring_up(kit, &entry).map_err(cannot)?;
        notes.push(format!("pool `{}` was down and has been activated", entry.name));
        return journal::finish(kit, log);
    }
    // Who makes a pool on the file, or the LV, afresh takes its length: that it is longer is the whole of a grow.
    let lengthens =
        |step: &&Step| matches!(step, Step::ExtendFile(_) | Step::ExtendVolume(_) | Step::ExtendThinPool(_));
    for step in plan.steps.iter().filter(lengthens) {
        let act = step.act();
        act.apply(kit, Attempt::Again).and_then(|()| act.verify(kit)).map_err(|e| {
            Failure::new(Kind::Partial, format!("cannot continue: {what}: {} failed", act.sentence()))
                .fact(
                    "state",
                    format!("the pool `{}` is down; what it lies on has its old length or its new one", plan.pool),
                )
                .fact("kept", log.path.display().to_string())
                .next(journal::ways_out(kit, &log.journal).ways())
                .because(e)
        })?;
    }
    let pool = plan.pool.clone();
    let id = log.journal.opened.id.clone();
    log.close().map_err(|e| Failure::failed(format!("cannot close the journal `{id}`")).because(e))?;
    notes.push(format!(
        "what `{pool}` lies on has its new length; the pool is down, and takes that size when who made it brings it up (Docker does at its start)"
    ));
    Ok(Ended::Whole)
}

/// Has LVM activate the LVs of the pool that a plan is about: after a reboot nobody else may have.
fn wake(kit: &Kit, plan: &Plan) -> Outcome<()> {
    if plan.steps.iter().any(|step| matches!(step, Step::WakeVolume(_))) {
        // That is what is to be finished, or taken back.
        return Ok(());
    }
    let registered = match PoolName::new(&plan.pool) {
        Ok(name) => registry::read(&kit.state, &name)?,
        Err(_) => None,
    };
    let Some(entry) = plan.entry().cloned().or(registered) else { return Ok(()) };
    for step in steps::asleep(kit, &entry).unwrap_or_default().steps {
        // What stays asleep is told of by the step that needs it.
        let _ = step.apply(kit, Attempt::Again);
    }
    Ok(())
}

/// Brings a registered pool up with the size that its superblock says.
fn bring_up(kit: &Kit, entry: &Entry) -> anyhow::Result<()> {
    let superblock = members::recorded(&kit.dm, entry)??;
    let length = superblock.length().ok_or_else(|| anyhow::anyhow!("the superblock counts too many blocks"))?;
    for step in devices_of(entry, superblock.metadata_total.bytes().sectors(), length) {
        step.act().apply(kit, Attempt::Again)?;
    }
    Ok(())
}

/// Returns the key of the lock of the pool that a plan is about.
fn key(kit: &Kit, plan: &Plan) -> Outcome<Option<String>> {
    if let Some(entry) = plan.entry() {
        return Ok(Some(gate::key_of_entry(entry)));
    }
    let registered = match PoolName::new(&plan.pool) {
        Ok(name) => registry::read(&kit.state, &name)?,
        Err(_) => None,
    };
    let reloaded = || plan.metadata_file().map(gate::key_of);
    Ok(registered.as_ref().map(gate::key_of_entry).or_else(reloaded))
}
