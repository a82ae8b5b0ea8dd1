//! Every step of every operation is told to fail and to die; then it is finished in one case and taken back in another.

use std::time::Duration;

use lab::guest::boot;
use lab::guest::disk::Kind;

use crate::case::{Case, died};
use crate::death::undisturbed;
use crate::operation::{Busy, Operation, Subject};
use crate::support::Bench;

#[test]
fn create_fails_and_dies_at_every_step() {
    every_step(Operation::Create, None);
}

#[test]
fn activate_fails_and_dies_at_every_step() {
    every_step(Operation::Activate, None);
}

#[test]
fn deactivate_fails_and_dies_at_every_step() {
    every_step(Operation::Deactivate, None);
}

#[test]
fn destroy_fails_and_dies_at_every_step() {
    every_step(Operation::Destroy, None);
}

#[test]
fn growing_data_fails_and_dies_at_every_step() {
    every_step(Operation::GrowData, Some(Kind::Ext4));
}

#[test]
fn growing_metadata_fails_and_dies_at_every_step() {
    every_step(Operation::GrowMetadata, Some(Kind::Ext4));
}

#[test]
fn growing_the_data_of_a_pool_on_bare_loops_fails_and_dies_at_every_step() {
    every_step(Operation::GrowDirectData, Some(Kind::Xfs));
}

#[test]
fn growing_the_metadata_of_a_pool_on_bare_loops_fails_and_dies_at_every_step() {
    every_step(Operation::GrowDirectMetadata, Some(Kind::Ext4));
}

#[test]
fn making_a_volume_fails_and_dies_at_every_step() {
    every_step(Operation::ThinCreate, None);
}

#[test]
fn the_snapshot_of_a_volume_fails_and_dies_at_every_step() {
    every_step(Operation::ThinSnapshot, None);
}

#[test]
fn growing_a_volume_fails_and_dies_at_every_step() {
    every_step(Operation::ThinGrow, None);
}

#[test]
fn removing_a_volume_fails_and_dies_at_every_step() {
    every_step(Operation::ThinRemove, None);
}

/// On a machine that is busy with other things.
const SLOW: Duration = Duration::from_secs(900);

/// What befalls the commands after one that died, and which of them comes last.
struct After {
    /// `continue` or `undo`, each with the points of the step at which it dies too.
    dies: &'static [(&'static str, &'static str)],
    /// The command that is let live.
    last: &'static str,
}

const CONTINUED: After = After { dies: &[], last: "continue" };
const UNDONE: After = After { dies: &[], last: "undo" };
const CONTINUED_AFTER_DEATHS: After =
    After { dies: &[("continue", "before"), ("continue", "after")], last: "continue" };
const UNDONE_AFTER_DEATHS: After = After { dies: &[("undo", "before-revert"), ("undo", "after-revert")], last: "undo" };
const BACK_AND_FORTH: After = After { dies: &[("undo", "after-revert")], last: "continue" };

fn every_step(operation: Operation, io: Option<Kind>) {
    // Hundreds of devices come and go here. With udev, which takes its time over each, dmpool is killed in death.rs.
    boot::stop_udev();
    boot::time_limit(SLOW);
    let subject = Subject::new(operation, Bench::with_faults());
    let busy = io.map(|kind| Busy::on(&subject, kind));
    subject.prepare();
    let steps = subject.steps();
    assert!(steps > 1, "{operation:?} has {steps} steps");
    let (end, _) = undisturbed(&subject);
    // What is left out of making a volume is in a snapshot too.
    let first_and_last = if operation == Operation::ThinCreate && !boot::full() { 2..=3 } else { 1..=steps };
    for step in first_and_last {
        fails(&subject, &end, step, "after", steps);
        dies(&subject, &end, step, "before", &UNDONE);
        dies(&subject, &end, step, "after", &CONTINUED_AFTER_DEATHS);
        dies(&subject, &end, step, "after", &UNDONE_AFTER_DEATHS);
        if !boot::full() {
            continue;
        }
        fails(&subject, &end, step, "before", steps);
        dies(&subject, &end, step, "before", &CONTINUED);
        if step.is_multiple_of(2) {
            dies(&subject, &end, step, "after", &BACK_AND_FORTH);
        }
        if step < steps {
            dies_while_a_failure_is_taken_back(&subject, &end, step);
        }
    }
    if let Some(busy) = busy {
        busy.finish();
    }
}

/// After a failure nothing was done, and that is said; or there is no way back, and it is continued.
fn fails(subject: &Subject, end: &str, step: usize, point: &str, steps: usize) {
    let fault = format!("{step}:{point}:fail");
    let case = Case::begin(subject, fault.clone());
    let ran = subject.run(&case.args, Some(&fault));
    let cause = format!("a fault was asked for {point} step {step}");
    assert!(ran.stderr.contains(&cause), "{fault}: {ran}");
    match ran.code() {
        Some(1) => {
            assert!(ran.stderr.contains("everything that had been done was taken back"), "{fault}: {ran}");
            case.is_at_the_beginning();
        }
        Some(4) => {
            assert!(subject.operation == Operation::Destroy || step == steps, "{fault}: there was a way back: {ran}");
            let id = subject.journals().join(" ");
            assert!(ran.stderr.contains(&format!("dmpool continue {id}")), "{fault}: {ran}");
            assert!(!ran.stderr.contains("dmpool undo"), "{fault}: there is no way back to offer: {ran}");
            case.ended_as_said(&case.resume("continue", None), end);
        }
        _ => panic!("{fault}: {ran}"),
    }
}

/// After a death it is said that there was one; the commands after it may die too, and the last one ends it.
fn dies(subject: &Subject, end: &str, step: usize, point: &str, after: &After) {
    let fault = format!("{step}:{point}:die");
    let deaths: Vec<_> = after.dies.iter().map(|(verb, point)| format!("{verb} dies {point}, ")).collect();
    let case = Case::begin(subject, format!("{fault}, {}{}", deaths.concat(), after.last));
    let ran = subject.run(&case.args, Some(&fault));
    assert!(died(&ran), "{}: {ran}", case.name);
    if after.last == "undo" && after.dies.is_empty() {
        case.says_it_was_interrupted();
    }
    for (verb, point) in after.dies {
        let ran = case.resume(verb, Some(&format!("{step}:{point}:die")));
        if !died(&ran) {
            // A step after which nothing is taken back ends the way before this one is reached.
            assert!(*verb == "undo", "{}: {ran}", case.name);
            return case.ended_as_said(&ran, end);
        }
    }
    case.ended_as_said(&case.resume(after.last, None), end);
}

/// The step after this one fails, and dmpool dies while it takes this one back.
fn dies_while_a_failure_is_taken_back(subject: &Subject, end: &str, step: usize) {
    let (failing, is_even) = (step + 1, step.is_multiple_of(2));
    let point = if is_even { "before-revert" } else { "after-revert" };
    let last = if is_even { "continue" } else { "undo" };
    let faults = format!("{failing}:before:fail,{step}:{point}:die");
    let case = Case::begin(subject, format!("{faults}, {last}"));
    let ran = subject.run(&case.args, Some(&faults));
    if ran.code() == Some(4) && subject.operation == Operation::Destroy {
        return case.ended_as_said(&case.resume("continue", None), end);
    }
    assert!(died(&ran), "{}: {ran}", case.name);
    case.ended_as_said(&case.resume(last, None), end);
}
