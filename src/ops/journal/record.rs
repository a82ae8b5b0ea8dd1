//! The journal's format (docs/journal-format.md): a line that names it, then one record a line, then zeros.
//!
//! A record's line is the CRC-32C of its JSON in eight hexadecimal digits, a space, the JSON. The file gets its full
//! length before the first step, so that a record never needs space on a disk that may be full. A last line that was
//! torn by a death did not happen; a damaged line before others is damage, and is refused.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ops::plan::Plan;

/// The first line's words before the format number.
const MAGIC: &str = "dmpool-journal ";

/// The format that this dmpool writes, and the highest that it reads.
pub const FORMAT: u32 = 1;

/// What an interrupted operation must leave behind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Record {
    /// The operation: always the first record, and only that.
    Opened(Opened),
    /// A step begins; its number counts from 0.
    Begun(usize),
    /// A step's effect was there when looked for.
    Done(usize),
    /// A step could not be done, and why.
    Failed(usize, String),
    /// A step is being taken back.
    Reverting(usize),
    /// A step's effect is gone.
    Reverted(usize),
    /// `continue` or `undo` took it up, in a boot of that id.
    Resumed(String),
}

/// The operation that a journal belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opened {
    /// Its id: the pool's name and when it began. Also the file's name.
    pub id: String,
    /// The boot in which it began (`/proc/sys/kernel/random/boot_id`).
    pub boot: String,
    /// The dmpool that began it.
    pub version: String,
    /// What it was to do.
    pub plan: Plan,
}

/// How far a step has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Nothing of it was done.
    Not,
    /// It may have been done, wholly, in part, or not.
    Perhaps,
    /// It was done and seen.
    Done,
    /// It was taken back.
    Reverted,
}

/// A journal as read from its file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Journal {
    /// The operation.
    pub opened: Opened,
    /// How far each step has come, in the plan's order.
    pub progress: Vec<Progress>,
    /// The boot in which it was last worked on.
    pub boot: String,
    /// Bytes up to the end of the last whole record.
    pub length: usize,
}

/// Why a file is not a journal that can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BadJournal {
    /// It does not begin as a journal does.
    Foreign,
    /// A newer dmpool wrote it.
    Newer(u32),
    /// A line is damaged, and lines follow it; or the first record is missing.
    Corrupt {
        /// Which line, counting from 1.
        line: usize,
        /// What is wrong with it.
        why: String,
    },
}

impl fmt::Display for BadJournal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Foreign => f.write_str("it does not begin as a journal of dmpool does"),
            Self::Newer(format) => {
                write!(f, "its format is {format}, this dmpool knows {FORMAT}: a newer dmpool wrote it")
            }
            Self::Corrupt { line, why } => write!(f, "its line {line} is damaged: {why}"),
        }
    }
}

impl std::error::Error for BadJournal {}

/// Returns the first line of a journal.
pub fn first_line() -> Vec<u8> {
    format!("{MAGIC}{FORMAT}\n").into_bytes()
}

impl Record {
    /// Returns the record's line.
    ///
    /// # Errors
    /// When a path in it is not UTF-8, which JSON cannot hold.
    pub fn line(&self) -> Result<Vec<u8>, serde_json::Error> {
        let json = serde_json::to_string(self)?;
        Ok(format!("{:08x} {json}\n", crc32c::crc32c(json.as_bytes())).into_bytes())
    }

    fn parse(line: &[u8]) -> Result<Self, String> {
        let text = std::str::from_utf8(line).map_err(|_| "it is not text".to_owned())?;
        let (sum, json) = text.split_once(' ').ok_or("it has no checksum")?;
        if sum != format!("{:08x}", crc32c::crc32c(json.as_bytes())) {
            return Err("its checksum is wrong".to_owned());
        }
        serde_json::from_str(json).map_err(|e| e.to_string())
    }
}

impl Journal {
    /// Reads a journal's bytes.
    ///
    /// # Errors
    /// When they are not a journal that this dmpool can use.
    pub fn parse(bytes: &[u8]) -> Result<Self, BadJournal> {
        let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
        let written = bytes.get(..end).unwrap_or_default();
        let mut lines = written.split_inclusive(|b| *b == b'\n').enumerate().peekable();
        let (_, first) = lines.next().ok_or(BadJournal::Foreign)?;
        let mut length = first.len();
        check_first_line(first)?;
        let mut records = Vec::new();
        while let Some((index, line)) = lines.next() {
            let whole = line.strip_suffix(b"\n").ok_or_else(|| "it ends in the middle".to_owned());
            match whole.and_then(Record::parse) {
                Ok(record) => records.push(record),
                Err(_) if lines.peek().is_none() && !records.is_empty() => break,
                Err(why) => return Err(BadJournal::Corrupt { line: index + 1, why }),
            }
            length += line.len();
        }
        let mut records = records.into_iter();
        let Some(Record::Opened(opened)) = records.next() else {
            return Err(BadJournal::Corrupt { line: 2, why: "it does not say which operation this is".to_owned() });
        };
        let progress = vec![Progress::Not; opened.plan.steps.len()];
        let boot = opened.boot.clone();
        let mut journal = Self { opened, progress, boot, length };
        for (index, record) in records.enumerate() {
            journal.take(record).map_err(|why| BadJournal::Corrupt { line: index + 3, why })?;
        }
        Ok(journal)
    }

    /// Takes one more record into account.
    ///
    /// # Errors
    /// When it speaks of a step that the plan does not have, or opens the journal a second time.
    pub fn take(&mut self, record: Record) -> Result<(), String> {
        let (step, progress) = match record {
            Record::Opened(_) => return Err("it opens the journal a second time".to_owned()),
            Record::Resumed(boot) => {
                self.boot = boot;
                return Ok(());
            }
            Record::Begun(step) | Record::Failed(step, _) | Record::Reverting(step) => (step, Progress::Perhaps),
            Record::Done(step) => (step, Progress::Done),
            Record::Reverted(step) => (step, Progress::Reverted),
        };
        *self.progress.get_mut(step).ok_or_else(|| format!("there is no step {step}"))? = progress;
        Ok(())
    }
}

fn check_first_line(line: &[u8]) -> Result<(), BadJournal> {
    let text = std::str::from_utf8(line).map_err(|_| BadJournal::Foreign)?;
    let number = text.strip_prefix(MAGIC).and_then(|rest| rest.strip_suffix('\n')).ok_or(BadJournal::Foreign)?;
    match number.parse() {
        Ok(FORMAT) => Ok(()),
        Ok(format) if format > FORMAT => Err(BadJournal::Newer(format)),
        Ok(_) | Err(_) => Err(BadJournal::Foreign),
    }
}

#[cfg(test)]
#[path = "record_tests.rs"]
mod tests;
