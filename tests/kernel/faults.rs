//! Every step of every operation is told to fail and to die; then it is finished in one case and taken back in another.

use lab::guest::disk::Kind;
use lab::guest::run::{End, Ran};
use nix::libc::SIGKILL;

use crate::operation::{Busy, Operation, Subject};
use crate::picture::assert_picture;
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
    let subject = Subject::new(operation, Bench::with_faults());
    let busy = io.map(|kind| Busy::on(&subject, kind));
    subject.prepare();
    let steps = subject.steps();
    assert!(steps > 1, "{operation:?} has {steps} steps");
    let case = Case::begin(&subject, "undisturbed".to_owned());
    let ran = subject.run(&case.args, None);
    assert!(ran.ok(), "{ran}");
    let end = subject.picture();
    assert_ne!(end, case.before, "{operation:?} does something");
    case.is_at_the_end(&end);
    for step in 1..=steps {
        fails(&subject, &end, step, "before", steps);
        fails(&subject, &end, step, "after", steps);
        dies(&subject, &end, step, "before", &CONTINUED);
        dies(&subject, &end, step, "before", &UNDONE);
        dies(&subject, &end, step, "after", &CONTINUED_AFTER_DEATHS);
        dies(&subject, &end, step, "after", &UNDONE_AFTER_DEATHS);
        dies(&subject, &end, step, "after", &BACK_AND_FORTH);
        if step < steps {
            dies_while_a_failure_is_taken_back(&subject, &end, step);
        }
    }
    if let Some(busy) = busy {
        busy.finish();
    }
}

/// One run of the operation, from a pool that is ready for it.
struct Case<'s> {
    subject: &'s Subject,
    name: String,
    args: Vec<String>,
    before: String,
    from: u64,
    to: u64,
}

impl<'s> Case<'s> {
    fn begin(subject: &'s Subject, name: String) -> Self {
        println!("  {:?}: {name}", subject.operation);
        subject.prepare();
        let (args, to) = subject.next();
        let before = subject.picture();
        Self { subject, name, args, before, from: subject.size(), to }
    }

    /// The operation is whole: what there is is what an undisturbed run leaves.
    #[track_caller]
    fn is_at_the_end(&self, end: &str) {
        if !self.subject.operation.grows() {
            return assert_picture(&self.name, end, &self.subject.picture());
        }
        self.subject.assert_size(&self.name, self.to);
        let shape = |picture: &str| picture.replace(|c: char| c.is_ascii_digit(), "");
        assert_picture(&self.name, &shape(&self.before), &shape(&self.subject.picture()));
    }

    #[track_caller]
    fn is_at_the_beginning(&self) {
        assert_picture(&self.name, &self.before, &self.subject.picture());
        assert_eq!(self.subject.size(), self.from, "{}", self.name);
    }

    /// What `continue` or `undo` said is what there is.
    #[track_caller]
    fn ended_as_said(&self, ran: &Ran, end: &str) {
        assert!(ran.ok(), "{}: {ran}", self.name);
        if ran.stdout.starts_with("finished:") {
            self.is_at_the_end(end);
        } else if ran.stdout.starts_with("taken back:") {
            self.is_at_the_beginning();
        } else {
            assert!(ran.stdout.starts_with("could not be taken back"), "{}: {ran}", self.name);
            self.stands(ran, end);
        }
    }

    /// What could not be taken back is named, and is so.
    #[track_caller]
    fn stands(&self, ran: &Ran, end: &str) {
        assert!(self.subject.journals().is_empty(), "{}: the journal is closed", self.name);
        if self.subject.operation.grows() {
            assert!(ran.stdout.contains("has its new"), "{}: {ran}", self.name);
            return self.is_at_the_end(end);
        }
        assert_eq!(self.subject.operation, Operation::Destroy, "{}: only deleting has no way back: {ran}", self.name);
        assert!(ran.stdout.contains("is deleted"), "{}: {ran}", self.name);
        assert!(!self.subject.is_registered() && !self.subject.is_active(), "{}", self.name);
        assert!(!self.subject.picture().contains("loop "), "{}: {}", self.name, self.subject.picture());
    }

    /// It was interrupted: whoever asks is told so, and nobody changes the pool meanwhile.
    #[track_caller]
    fn says_it_was_interrupted(&self) {
        let journals = self.subject.journals();
        let [id] = journals.as_slice() else { panic!("{}: {journals:?}", self.name) };
        for args in [vec!["list"], vec!["status", &self.subject.pool]] {
            let ran = self.subject.bench.run(&args);
            assert!(ran.ok() && ran.stdout.contains("interrupted") && ran.stdout.contains(id), "{}: {ran}", self.name);
        }
        let halfway = self.subject.picture();
        let ran = self.subject.run(&self.subject.another(), None);
        assert!(ran.code() == Some(3) && ran.stderr.contains(id), "{}: {ran}", self.name);
        assert_picture(&self.name, &halfway, &self.subject.picture());
    }

    fn resume(&self, verb: &str, fault: Option<&str>) -> Ran {
        self.subject.run(&[verb.to_owned()], fault)
    }
}

fn died(ran: &Ran) -> bool {
    ran.end == End::Signal(SIGKILL)
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
    if after.dies.is_empty() {
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

/// The last step fails, and dmpool dies while it takes this one back.
fn dies_while_a_failure_is_taken_back(subject: &Subject, end: &str, step: usize) {
    let steps = step + 1;
    let point = if step.is_multiple_of(2) { "before-revert" } else { "after-revert" };
    let faults = format!("{steps}:before:fail,{step}:{point}:die");
    for last in ["continue", "undo"] {
        let case = Case::begin(subject, format!("{faults}, {last}"));
        let ran = subject.run(&case.args, Some(&faults));
        if ran.code() == Some(4) && subject.operation == Operation::Destroy {
            return case.ended_as_said(&case.resume("continue", None), end);
        }
        assert!(died(&ran), "{}: {ran}", case.name);
        case.ended_as_said(&case.resume(last, None), end);
    }
}
