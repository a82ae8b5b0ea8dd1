//! The one kind of error that `cargo lab` ends with.

use std::fmt;

/// What could not be done, what is known about it, and what to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    what: String,
    facts: Vec<(&'static str, String)>,
    next: Option<String>,
}

/// What most functions of the lab return.
pub type Result<T> = std::result::Result<T, Trouble>;

impl Trouble {
    /// `what` completes the sentence "cargo lab: …", as in "cannot start the guest: its kernel panicked".
    #[must_use]
    pub fn new(what: impl Into<String>) -> Trouble {
        Trouble { what: what.into(), facts: Vec::new(), next: None }
    }

    /// Adds a labelled fact; one of several lines is indented under its label.
    #[must_use]
    pub fn fact(mut self, label: &'static str, value: impl fmt::Display) -> Trouble {
        self.facts.push((label, value.to_string()));
        self
    }

    /// Adds the one thing to do next.
    #[must_use]
    pub fn next(mut self, next: impl Into<String>) -> Trouble {
        self.next = Some(next.into());
        self
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.what)?;
        let next = self.next.iter().map(|n| ("next", n));
        let all = || self.facts.iter().map(|(l, v)| (*l, v)).chain(next.clone());
        let width = all().map(|(label, _)| label.len()).max().unwrap_or(0) + ":  ".len();
        for (label, value) in all() {
            let mut lines = value.trim_end().lines();
            write!(f, "\n  {:<width$}{}", format!("{label}:"), lines.next().unwrap_or(""))?;
            for line in lines {
                write!(f, "\n  {:width$}{line}", "")?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for Trouble {}

/// Turns any error into trouble with its object.
pub trait OrTrouble<T> {
    /// `what` is the sentence's first half ("cannot read `x`"); the error becomes the cause.
    ///
    /// # Errors
    /// The error there was, as trouble.
    fn or_trouble(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: fmt::Display> OrTrouble<T> for std::result::Result<T, E> {
    fn or_trouble(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|e| {
            let trouble = Trouble::new(what()).fact("cause", &e);
            // The words of ENOSPC, whichever way the error came.
            if e.to_string().contains("No space left on device") {
                return trouble.next(super::tool::MAKE_ROOM);
            }
            // As after `sudo cargo lab …`, which leaves files that are root's.
            if e.to_string().contains("Permission denied") {
                return trouble
                    .next("sudo chown -R \"$USER\" target    if it is yours, then run this again; or run it as root");
            }
            trouble
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trouble_reads_as_a_sentence_with_facts() {
        let trouble = Trouble::new("cannot x: y").fact("cause", "two\nlines").next("do z");
        assert_eq!(trouble.to_string(), "cannot x: y\n  cause:  two\n          lines\n  next:   do z");
        let long = Trouble::new("cannot x").fact("missing", "a\nb").next("c");
        assert_eq!(long.to_string(), "cannot x\n  missing:  a\n            b\n  next:     c");
    }

    #[test]
    fn a_full_disk_says_what_to_do() {
        let full: std::result::Result<(), _> = Err(std::io::Error::from_raw_os_error(28));
        let trouble = full.or_trouble(|| "cannot write `f`".into()).err();
        let text = trouble.map(|t| t.to_string()).unwrap_or_default();
        assert!(text.contains("next:   make room"), "{text}");
    }
}
