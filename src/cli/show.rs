//! Printing: values to standard output, everything else to standard error. A broken pipe is silence.

use std::io::{IsTerminal, Write, stderr, stdin, stdout};

use crate::error::{Failure, Kind, Outcome};
use crate::ops::journal::Ended;
use crate::ops::{Change, Done};
use crate::report;

/// Prints a value.
pub(super) fn value(text: &str) {
    // Who does not read any more has what he wanted; no change depends on it.
    let _ = stdout().write_all(text.as_bytes()).and_then(|()| stdout().flush());
}

/// Prints an error, or a remark.
pub(super) fn error(text: &str) {
    let _ = stderr().write_all(text.as_bytes());
}

/// Prints what an operation came to: the plan when it was only described, else one sentence and the notes.
pub(super) fn done(done: &Done, change: Change, sentence: &str) {
    if change == Change::Describe {
        value(&report::plan::text(&done.plan));
        return;
    }
    if done.ended == Some(Ended::Whole) {
        value(&format!("{sentence}\n"));
    }
    for note in &done.plan.notes {
        match done.ended {
            Some(_) => error(&format!("note: {note}\n")),
            None => value(&format!("{note}\n")),
        }
    }
}

/// Prints what could not be read while the rest was shown; the last of it is the outcome.
///
/// # Errors
/// [`Kind::Damaged`] when there is any.
pub(super) fn lost(mut broken: Vec<Failure>) -> Outcome<()> {
    let Some(last) = broken.pop() else { return Ok(()) };
    for failure in &broken {
        error(&report::failure::text(failure));
    }
    Err(Failure { kind: Kind::Damaged, ..last })
}

/// Asks before data goes. Without a terminal and without `--yes` nothing is asked and nothing is done.
///
/// # Errors
/// Refused when the answer is not yes, or nobody can be asked.
pub(super) fn confirm(question: &str, what: &str, yes: bool) -> Outcome<()> {
    if yes {
        return Ok(());
    }
    if !stdin().is_terminal() || !stderr().is_terminal() {
        return Err(Failure::refused(format!(
            "cannot {what}: it must be confirmed, and there is no terminal to ask on"
        ))
        .fact("state", "nothing was touched")
        .next("say --yes"));
    }
    error(&format!("{question} [y/N] "));
    let mut answer = String::new();
    let read = stdin().read_line(&mut answer);
    match (read, answer.trim().to_ascii_lowercase().as_str()) {
        (Ok(_), "y" | "yes") => Ok(()),
        _ => {
            Err(Failure::refused(format!("did not {what}: the answer was not yes"))
                .fact("state", "nothing was touched"))
        }
    }
}
