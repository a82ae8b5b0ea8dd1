//! What went wrong, told so that it can be acted on at three in the morning.
//!
//! Folders below `ops` return `anyhow` errors whose root cause is a kernel error, a program's last words or a Docker
//! answer. `ops` knows what was wanted, so it makes the [`Failure`]: a sentence about an object, what was found, what
//! state things are in, and one thing to do next. `main` prints it, once.

use std::fmt;

/// What a failure means for the machine; the exit code follows from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Not done; everything is as it was.
    Failed,
    /// The command line was wrong.
    Usage,
    /// A safety check refused; nothing was touched.
    Refused,
    /// Stopped midway; the journal is kept.
    Partial,
    /// Finished, but some items were lost or skipped; or a check found damage.
    Damaged,
}

/// Done, or already so.
pub const EXIT_DONE: u8 = 0;
/// Not done; everything is as it was.
pub const EXIT_FAILED: u8 = 1;
/// The command line was wrong.
pub const EXIT_USAGE: u8 = 2;
/// A safety check refused; nothing was touched.
pub const EXIT_REFUSED: u8 = 3;
/// Stopped midway; the journal is kept: `dmpool continue` or `dmpool undo`.
pub const EXIT_PARTIAL: u8 = 4;
/// Finished, but some items were lost or skipped, each named; or a check found damage.
pub const EXIT_DAMAGED: u8 = 5;

impl Kind {
    /// Returns the exit code that says this to a script (`docs/exit-codes.md`).
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Failed => EXIT_FAILED,
            Self::Usage => EXIT_USAGE,
            Self::Refused => EXIT_REFUSED,
            Self::Partial => EXIT_PARTIAL,
            Self::Damaged => EXIT_DAMAGED,
        }
    }
}

/// One thing that was looked up and bears on the failure, such as `needed: 96.0 GiB`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact {
    /// One word: `cause`, `found`, `needed`, `free`, `state`, `kept`.
    pub label: &'static str,
    /// What stands behind it.
    pub value: String,
}

/// Why an operation was not done, or not wholly.
#[derive(Debug)]
pub struct Failure {
    /// What it means for the machine.
    pub kind: Kind,
    /// What could not be done, to which object, why: one clause, no full stop.
    pub what: String,
    /// What bears on it, in the order in which it is printed.
    pub facts: Vec<Fact>,
    /// One thing to do next; a command that can be pasted where there is one.
    pub next: Option<String>,
    /// The error beneath, when there was one.
    pub source: Option<anyhow::Error>,
    /// What is not there yet, by name, when its coming would mend this; nothing where time mends nothing.
    pub awaits: Vec<String>,
}

impl Failure {
    /// Makes a failure of that kind.
    pub fn new(kind: Kind, what: impl Into<String>) -> Self {
        Self { kind, what: what.into(), facts: Vec::new(), next: None, source: None, awaits: Vec::new() }
    }

    /// A safety check refused; nothing was touched.
    pub fn refused(what: impl Into<String>) -> Self {
        Self::new(Kind::Refused, what)
    }

    /// Not done; everything is as it was.
    pub fn failed(what: impl Into<String>) -> Self {
        Self::new(Kind::Failed, what)
    }

    /// Adds a fact. Of the state there is one: what is said last.
    #[must_use]
    pub fn fact(mut self, label: &'static str, value: impl Into<String>) -> Self {
        self.facts.retain(|fact| fact.label != "state" || label != "state");
        self.facts.push(Fact { label, value: value.into() });
        self
    }

    /// Sets what to do next.
    #[must_use]
    pub fn next(mut self, next: impl Into<String>) -> Self {
        self.next = Some(next.into());
        self
    }

    /// Says what would mend it by coming: who has time can try again then.
    #[must_use]
    pub fn awaiting(mut self, names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.awaits.extend(names.into_iter().map(Into::into));
        self
    }

    /// Sets the error beneath; its chain is printed as `cause:`, the root cause first.
    #[must_use]
    pub fn because(mut self, source: impl Into<anyhow::Error>) -> Self {
        self.source = Some(source.into());
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for Failure {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|e| e as _)
    }
}

/// The result of an operation.
pub type Outcome<T> = Result<T, Failure>;
