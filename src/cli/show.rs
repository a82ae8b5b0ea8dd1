//! Printing: values to standard output, everything else to standard error. A reader that went away is silence; any other
//! output that cannot be written is said.

use std::cell::Cell;
use std::io::{self, ErrorKind, IsTerminal, Write, stderr, stdin, stdout};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use nix::errno::Errno;

use crate::error::{Failure, Kind, Outcome};
use crate::ops::cost;
use crate::ops::journal::Ended;
use crate::ops::progress::{Progress, Told, Watcher};
use crate::ops::{Change, Done};
use crate::report;
use crate::units::Bytes;

/// Prints a value.
///
/// # Errors
/// Failed when standard output cannot be written, as on a full disk.
pub(super) fn value(text: &str) -> Outcome<()> {
    written(stdout().write_all(text.as_bytes()).and_then(|()| stdout().flush()))
}

/// Returns what became of writing a value to standard output.
///
/// # Errors
/// Failed when it was not written and its reader is still there.
pub(super) fn written(result: io::Result<()>) -> Outcome<()> {
    match result {
        // Who does not read any more has what he wanted.
        Err(e) if e.kind() != ErrorKind::BrokenPipe => {
            let cause = match e.raw_os_error().map(Errno::from_raw) {
                Some(errno) => format!("{errno:?} ({}) from write on standard output", errno.desc()),
                None => e.to_string(),
            };
            Err(Failure::failed("cannot write the output").fact("cause", cause))
        }
        _ => Ok(()),
    }
}

/// Prints what a change came to. It stands whether it can be told of or not, and so does its exit code: when it cannot,
/// standard error has the sentence.
pub(super) fn told(sentence: &str) {
    if let Err(failure) = value(sentence) {
        error(&report::failure::text(&failure.fact("state", sentence)));
    }
}

/// Prints an error, or a remark.
pub(super) fn error(text: &str) {
    let _ = stderr().write_all(text.as_bytes());
}

/// Prints what an operation came to: the plan when it was only described, else one sentence and the notes.
///
/// # Errors
/// Failed when a plan cannot be written. What was made, or was so already, is no failure.
pub(super) fn done(done: &Done, change: Change, sentence: &str) -> Outcome<()> {
    if change == Change::Describe {
        return value(&report::plan::text(&done.plan));
    }
    if done.ended == Some(Ended::Whole) {
        told(&format!("{sentence}\n"));
    }
    for note in done.plan.notes.iter().filter(|note| done.ended != Some(Ended::Whole) || !cost::is_estimate(note)) {
        match done.ended {
            Some(_) => error(&format!("note: {note}\n")),
            None => told(&format!("{note}\n")),
        }
    }
    done.left.iter().for_each(|left| error(&format!("note: {left}\n")));
    Ok(())
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

/// Returns who shows each step as it is begun, and how far a long one has come: a bar with rate and time left on a terminal, else a line
/// for each tenth.
pub(super) fn progress() -> Watcher {
    // A terminal that says nothing of itself (TERM=dumb, a serial console) gets lines too.
    if !ProgressDrawTarget::stderr().is_hidden() {
        let shown: Cell<Option<(&'static str, ProgressBar)>> = Cell::new(None);
        return Watcher::new(move |told| {
            let far = match Far::of(told) {
                Ok(far) => far,
                Err(line) => {
                    if let Some((_, bar)) = shown.take() {
                        bar.finish();
                    }
                    return next(line);
                }
            };
            let bar = match shown.take() {
                Some((what, bar)) if what == far.what => bar,
                before => {
                    if let Some((_, bar)) = before {
                        bar.finish();
                    }
                    far.bar()
                }
            };
            bar.set_position(far.done);
            if far.done >= far.total {
                bar.finish();
            }
            shown.set(Some((far.what, bar)));
        });
    }
    let last = Cell::new(None);
    Watcher::new(move |told| {
        let far = match Far::of(told) {
            Ok(far) => far,
            Err(line) => return next(line),
        };
        let tenth = far.done.saturating_mul(10).checked_div(far.total).unwrap_or(10);
        let now = Some((far.what, tenth));
        if last.replace(now) != now {
            error(&format!("{}: {} of {}\n", far.what, far.shown(far.done), far.shown(far.total)));
        }
    })
}

fn next(line: &str) {
    error(&format!("{}\n", report::failure::printable(line)));
}

/// How far something long has come.
struct Far {
    what: &'static str,
    done: u64,
    total: u64,
    /// Whether these are bytes, and not things.
    is_bytes: bool,
}

impl Far {
    /// Returns what was told; the line when it is one.
    fn of(told: Told<'_>) -> Result<Self, &str> {
        match told {
            Told::Progress(Progress { what, done, total }) => {
                Ok(Self { what, done: done.get(), total: total.get(), is_bytes: true })
            }
            Told::Counted { what, done, total } => {
                Ok(Self { what, done: done as u64, total: total as u64, is_bytes: false })
            }
            Told::Next(line) => Err(line),
        }
    }

    fn shown(&self, amount: u64) -> String {
        if self.is_bytes { Bytes::new(amount).human() } else { amount.to_string() }
    }

    fn bar(&self) -> ProgressBar {
        let style = ProgressStyle::with_template(if self.is_bytes {
            "{msg} [{bar:30}] {binary_bytes} of {binary_total_bytes}, {binary_bytes_per_sec}, {eta} left"
        } else {
            "{msg} [{bar:30}] {pos} of {len}, {eta} left"
        });
        let bar = ProgressBar::new(self.total).with_message(self.what);
        match style {
            Ok(style) => bar.with_style(style.progress_chars("=> ")),
            Err(_) => bar,
        }
    }
}
