//! The one runner: writes a step down, does it, looks whether it is so, writes that it is.

use anyhow::{Context, Error, Result};
use nix::errno::Errno;

use crate::error::{Failure, Kind, Outcome};
use crate::kernel::critical::{hold_signals, wanted_end};
use crate::kernel::{errno_of, identity};
use crate::ops::fault::{self, Point};
use crate::ops::journal::{Journal, Log, Progress, Record, ends_the_way_back, is_past_hold, ways_out};
use crate::ops::own_disk;
use crate::ops::plan::{Operation, Plan};
use crate::ops::progress::Interrupted;
use crate::ops::steps::{Attempt, Kit, Leftover, Reverted, Step, WayBack};

/// How a run that did not fail ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// All steps are done.
    Whole,
    /// Everything was taken back but for what stands.
    TakenBack {
        /// What stands, each in a sentence.
        stands: Vec<String>,
        /// When something does: what the operation would have removed, and is there still.
        left: Vec<Leftover>,
    },
}

/// Why a step was not done.
struct Stop {
    /// Which step.
    step: usize,
    /// Why.
    why: Error,
    /// Whether it was not even begun, because somebody wanted an end.
    unbegun: bool,
}

/// How far taking back has come.
struct Back {
    /// What stands, each in a sentence.
    stands: Vec<String>,
    /// Whether it ended at a step that can be taken back another time.
    is_kept: bool,
}

/// Carries a plan out. A step that fails takes back those before it, as long as none of them has no way back.
///
/// Signals that end a program stop it between two steps, and wait in this thread from then on, also when it is done.
///
/// # Errors
/// Refused when its journal cannot be written; [`Kind::Failed`] when all was taken back; [`Kind::Partial`] when the journal had to be kept.
pub fn carry_out(kit: &Kit, plan: Plan) -> Outcome<Ended> {
    hold_signals();
    let what = plan.what.clone();
    let log = Log::begin(&kit.state, plan).map_err(|e| {
        own_disk::refusal(format!("cannot {what}: its journal cannot be written"), &kit.state.journals, e)
    })?;
    run(kit, log, Attempt::First)
}

/// Finishes an interrupted operation.
///
/// # Errors
/// [`Kind::Partial`] when a step cannot be done now either; the journal is kept.
pub fn finish(kit: &Kit, mut log: Log) -> Outcome<Ended> {
    hold_signals();
    resumed(&mut log)?;
    run(kit, log, Attempt::Again)
}

/// Takes an interrupted operation back, up to the first step with no way back.
///
/// # Errors
/// [`Kind::Partial`] when a step cannot be taken back; the journal is kept.
pub fn take_back(kit: &Kit, mut log: Log) -> Outcome<Ended> {
    hold_signals();
    resumed(&mut log)?;
    match revert_all(kit, &mut log) {
        Ok(back) if back.is_kept => {
            let what = format!("cannot take back `{}`: what stands is in the way", log.journal.opened.id);
            Err(kept(kit, &log, in_the_way(kit, &log, Failure::new(Kind::Partial, what), &back)))
        }
        Ok(Back { stands, .. }) => {
            let steps = log.journal.opened.plan.steps.iter();
            let left = match stands.is_empty() {
                true => Vec::new(),
                false => steps.filter_map(|step| step.act().leftover()).collect(),
            };
            close(log, "taken back")?;
            Ok(Ended::TakenBack { stands, left })
        }
        Err(stop) => {
            let what = format!("cannot take back `{}`: {}", log.journal.opened.id, sentence(&log, &stop));
            Err(kept(kit, &log, Failure::new(Kind::Partial, what).because(stop.why)))
        }
    }
}

fn run(kit: &Kit, mut log: Log, attempt: Attempt) -> Outcome<Ended> {
    let Err(first) = forward(kit, &mut log, attempt) else {
        // Where nobody starts Docker it is not over before somebody does. One that cannot be kept is over all the same.
        if let Some(hold) = log.journal.opened.plan.starts_none()
            && log.keep(&hold.records).is_ok()
        {
            return Ok(Ended::Whole);
        }
        close(log, "finished")?;
        return Ok(Ended::Whole);
    };
    let what = format!("cannot {}: {}", log.journal.opened.plan.what, sentence(&log, &first));
    // What cannot be written down must not stop taking back.
    let _ = log.write(Record::Failed(first.step, format!("{:#}", first.why)));
    // What was copied by then is not thrown away because somebody wants the machine for a while. Before Docker was touched nothing is.
    let is_kept = log.journal.opened.plan.operation == Operation::Migrate
        && docker_was_touched(&log.journal)
        && (first.unbegun && first.step > 0 || first.why.is::<Interrupted>());
    if is_kept || attempt == Attempt::Again || no_way_back_begun(&log, first.step) || is_past_hold(&log.journal) {
        let failure = Failure::new(Kind::Partial, what).because(first.why);
        return Err(kept(kit, &log, failure));
    }
    match revert_all(kit, &mut log) {
        Ok(Back { stands, .. }) if stands.is_empty() => {
            let left = kit.said();
            let state = match left.is_empty() {
                true => "everything that had been done was taken back; the machine is as it was",
                false => "everything that had been done was taken back but for what is left",
            };
            Err(match close(log, "taken back") {
                Ok(()) => {
                    let failure = Failure::failed(what).fact("state", state).next(once_more(&first)).because(first.why);
                    left.into_iter().fold(failure, |failure, left| failure.fact("left", left))
                }
                Err(then) => Failure::new(Kind::Partial, what)
                    .fact("state", state)
                    .fact("then", then.what)
                    .next(then.next.unwrap_or_default())
                    .because(first.why),
            })
        }
        Ok(back) => {
            let failure = in_the_way(kit, &log, Failure::new(Kind::Partial, what), &back).because(first.why);
            Err(kept(kit, &log, failure))
        }
        Err(then) => {
            let failure = Failure::new(Kind::Partial, format!("{what}; and so did taking it back"))
                .fact("then", format!("{}: {:#}", sentence(&log, &then), then.why))
                .because(first.why);
            Err(kept(kit, &log, failure))
        }
    }
}

/// Does every step that is not known to be done, in order.
fn forward(kit: &Kit, log: &mut Log, attempt: Attempt) -> Result<(), Stop> {
    for step in 0..log.journal.progress.len() {
        if attempt == Attempt::First
            && !no_way_back_begun(log, step)
            && let Some(signal) = wanted_end()
        {
            return Err(Stop { step, why: anyhow::anyhow!("interrupted by {signal}"), unbegun: true });
        }
        let mut go = || -> Result<()> {
            let it = log.journal.opened.plan.steps.get(step).context("reading the plan")?.clone();
            let act = it.act();
            if attempt == Attempt::Again
                && log.journal.progress.get(step) == Some(&Progress::Done)
                && act.verify(kit).is_ok()
            {
                return Ok(());
            }
            kit.watcher.next(&format!("step {} of {}: {}", step + 1, log.journal.progress.len(), act.brief()));
            log.write(Record::Begun(step))?;
            fault::reached(step, Point::Before)?;
            if let Err(why) = act.apply(kit, attempt) {
                if attempt == Attempt::First && act.is_one_thing() && errno_of(&why) == Some(Errno::EEXIST) {
                    // Somebody else made it since the plan was made: it is not ours to take back.
                    log.write(Record::Reverted(step))?;
                }
                return Err(why);
            }
            fault::reached(step, Point::After)?;
            act.verify(kit).context("looking whether it was done")?;
            log.write(Record::Done(step))
        };
        go().map_err(|why| Stop { step, why, unbegun: false })?;
    }
    Ok(())
}

/// Takes every step that was begun back, last first, and returns what stands. What cannot be written down does not stop
/// it: each way back may be gone twice.
///
/// After a reboot also those steps that do not outlast one: a device that was not yet to be removed is gone all the same.
fn revert_all(kit: &Kit, log: &mut Log) -> Result<Back, Stop> {
    // Docker, which is started on the way back, may need it.
    kit.room.give_up();
    let mut stands: Vec<String> = Vec::new();
    let operation = log.journal.opened.plan.operation;
    let rebooted = log.journal.opened.boot != log.journal.boot;
    for step in (0..log.journal.progress.len()).rev() {
        let mut go = || -> Result<bool> {
            let it = log.journal.opened.plan.steps.get(step).context("reading the plan")?.clone();
            let undone = matches!(log.journal.progress.get(step), None | Some(Progress::Not | Progress::Reverted));
            if undone && (it.act().lasts() || !rebooted) {
                return Ok(false);
            }
            let all = log.journal.progress.len();
            kit.watcher.next(&format!("taking back step {} of {all}: {}", step + 1, it.act().brief()));
            let _ = log.write(Record::Reverting(step));
            fault::reached(step, Point::BeforeRevert)?;
            let (what, ends) = match it.act().revert(kit)? {
                Reverted::Gone => (None, false),
                Reverted::Left(what) => (Some(what), false),
                Reverted::Stands(what) => (Some(what), ends_the_way_back(operation, &it)),
            };
            // Two steps on one device may say the same of it.
            stands.extend(what.filter(|what| !stands.contains(what)));
            fault::reached(step, Point::AfterRevert)?;
            // A journal that is kept says that it is still to be taken back.
            if !(ends && operation.holds_docker()) {
                let _ = log.write(Record::Reverted(step));
            }
            Ok(ends)
        };
        let ends = go().map_err(|why| Stop { step, why, unbegun: false })?;
        if ends {
            // What came before a step that stands is what it stands on.
            return Ok(Back { stands, is_kept: operation.holds_docker() });
        }
    }
    Ok(Back { stands, is_kept: false })
}

/// Adds to a failure what stands, and what is to be done about it.
fn in_the_way(kit: &Kit, log: &Log, failure: Failure, back: &Back) -> Failure {
    let failure = failure.fact("stands", back.stands.join("; "));
    match back.is_kept && ways_out(kit, &log.journal).can_go_back {
        true => failure.fact("then", "nothing before it was taken back: put that right, and undo goes on from there"),
        false => failure,
    }
}

/// Returns whether a step was begun that stops containers or Docker.
fn docker_was_touched(journal: &Journal) -> bool {
    let mut steps = journal.opened.plan.steps.iter().zip(&journal.progress);
    steps.any(|(step, progress)| {
        let touches = matches!(step, Step::StopContainers(_) | Step::HoldDocker(_) | Step::StopDocker(_));
        touches && *progress != Progress::Not
    })
}

/// Returns whether a step with no way back has been begun: then going back would be neither the beginning nor the end.
fn no_way_back_begun(log: &Log, failed: usize) -> bool {
    let steps = log.journal.opened.plan.steps.iter();
    steps.take(failed).any(|s| s.act().way_back() == WayBack::None)
}

fn resumed(log: &mut Log) -> Outcome<()> {
    let boot = identity::boot_id().and_then(|boot| log.write(Record::Resumed(boot)));
    boot.map_err(|e| {
        Failure::failed(format!("cannot go on with `{}`: its journal cannot be written", log.journal.opened.id))
            .fact("state", "nothing was done; the operation is where it was")
            .because(e)
    })
}

/// Ends a journal whose operation is whole, `how` it became so. The file may be removed by hand: going on with it from
/// there would be right too, but going the other way would not.
fn close(log: Log, how: &str) -> Outcome<()> {
    let (id, path) = (log.journal.opened.id.clone(), log.path.clone());
    log.close().map_err(|e| {
        let path = path.display();
        Failure::new(Kind::Partial, format!("`{id}` is {how}, but its journal {path} cannot be removed"))
            .fact("state", format!("the operation is {how}, and nothing is left to do but to remove that file"))
            .next(format!("make its disk writable, then:  rm {path}"))
            .because(e)
    })
}

fn sentence(log: &Log, stop: &Stop) -> String {
    let steps = &log.journal.opened.plan.steps;
    let says = steps.get(stop.step).map_or_else(String::new, |s| s.act().brief());
    let became = if stop.unbegun { "was not begun" } else { "failed" };
    format!("step {} of {} {became}, {says}", stop.step + 1, steps.len())
}

/// Returns what to do about a step that failed when all is as it was before. What the failure itself says to do was for the state it came in.
fn once_more(stop: &Stop) -> &'static str {
    let is_wanted = stop.unbegun || stop.why.is::<Interrupted>();
    if is_wanted { "run the same command again" } else { "mend what is named, then run the same command again" }
}

/// Adds to a failure what an interrupted operation leaves behind and how to go on.
fn kept(kit: &Kit, log: &Log, mut failure: Failure) -> Failure {
    for left in kit.said() {
        failure = failure.fact("left", left);
    }
    let done = log.journal.progress.iter().filter(|p| **p == Progress::Done).count();
    failure
        .fact("state", format!("{done} of {} steps stand", log.journal.progress.len()))
        .fact("kept", log.path.display().to_string())
        .next(ways_out(kit, &log.journal).ways())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_failure_it_is_said_what_to_do_next() {
        let said = |why: anyhow::Error, unbegun: bool| once_more(&Stop { step: 0, why, unbegun });
        assert_eq!(said(anyhow::anyhow!("EIO"), false), "mend what is named, then run the same command again");
        assert_eq!(said(anyhow::anyhow!("interrupted by SIGINT"), true), "run the same command again");
        let of_then = Failure::failed("cannot read it").next("umount /x");
        assert!(!said(of_then.into(), false).contains("umount"));
    }
}
