//! What is said while steps are done, and how a long one stops midway.

use std::fmt;

use anyhow::Result;

use crate::kernel::critical::wanted_end;
use crate::units::Bytes;

/// How far a long step has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// What it does: "copying volumes".
    pub what: &'static str,
    /// How much of it is done.
    pub done: Bytes,
    /// How much it is in all.
    pub total: Bytes,
}

/// What somebody who waits is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told<'t> {
    /// What is begun next, a line: "step 3 of 9: stop Docker:  systemctl stop docker".
    Next(&'t str),
    /// How far a long step has come.
    Progress(&'t Progress),
    /// How many of what is gone through are done.
    Counted {
        /// What is done with them: "measuring what containers have changed".
        what: &'static str,
        /// How many are done.
        done: usize,
        /// How many there are.
        total: usize,
    },
}

type Hears = dyn Fn(Told<'_>);

/// Who is told what is done, and how far it has come.
#[derive(Default)]
pub struct Watcher(Option<Box<Hears>>);

impl Watcher {
    /// Tells `to` each time.
    pub fn new(to: impl Fn(Told<'_>) + 'static) -> Self {
        Self(Some(Box::new(to)))
    }

    /// Nobody.
    pub const fn none() -> Self {
        Self(None)
    }

    /// Tells how far a step has come.
    pub fn tell(&self, progress: &Progress) {
        self.told(Told::Progress(progress));
    }

    /// Tells how many are done of what is gone through.
    pub fn count(&self, what: &'static str, done: usize, total: usize) {
        self.told(Told::Counted { what, done, total });
    }

    /// Tells what is begun next.
    pub fn next(&self, line: &str) {
        self.told(Told::Next(line));
    }

    fn told(&self, what: Told<'_>) {
        if let Some(to) = &self.0 {
            to(what);
        }
    }
}

impl fmt::Debug for Watcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Watcher(..)" } else { "Watcher" })
    }
}

/// Somebody wanted an end, and the step has stopped at a place from which it goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interrupted(pub &'static str);

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "interrupted by {}", self.0)
    }
}

impl std::error::Error for Interrupted {}

/// Stops a long step when somebody wants an end.
///
/// # Errors
/// [`Interrupted`] then.
pub fn may_go_on() -> Result<()> {
    wanted_end().map_or(Ok(()), |signal| Err(Interrupted(signal).into()))
}
