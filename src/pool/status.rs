//! The thin-pool target's status line.
//!
//! The fields vary with the kernel: the first three are certain, those of CentOS 7's 3.10 stop at the no-space policy,
//! newer ones add the metadata low watermark. What is not there is unknown; words nobody here knows are kept.

use serde::{Deserialize, Serialize};

use crate::units::{DataBlocks, MetaBlock, MetaBlocks};

/// What the kernel says of a pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PoolStatus {
    /// The pool answers; how well, its [`Mode`] says.
    Working(Working),
    /// `Fail`: the pool has given up; every I/O ends with an error.
    Fail,
    /// `Error`: the kernel could not read its own state.
    Error,
    /// A line that none of the known ones resembles.
    Unreadable(String),
}

/// The fields of a working pool's status.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Working {
    /// The number that the pool's user counts its changes with.
    pub transaction_id: u64,
    /// Metadata blocks in use; newer kernels count a reserve of min(4096, total/10) as used.
    pub metadata_used: MetaBlocks,
    /// Metadata blocks in all.
    pub metadata_total: MetaBlocks,
    /// Data blocks in use.
    pub data_used: DataBlocks,
    /// Data blocks in all.
    pub data_total: DataBlocks,
    /// Where the metadata snapshot is, when one is held.
    pub held_root: Option<MetaBlock>,
    /// Whether it can be written.
    pub mode: Option<Mode>,
    /// What becomes of discards.
    pub discard: Option<Discard>,
    /// What a write does when the pool is full.
    pub no_space: Option<NoSpace>,
    /// Whether the kernel wants the metadata checked before it writes again. Unknown before Linux 3.14.
    pub needs_check: Option<bool>,
    /// With this many metadata blocks left the kernel sends an event (since Linux 4.19).
    pub metadata_low_water: Option<MetaBlocks>,
    /// Words that stood in the line and that nobody here knows.
    pub unknown: Vec<String>,
}

/// Whether a pool can be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// `rw`
    ReadWrite,
    /// `ro`: also when the metadata is full.
    ReadOnly,
    /// `out_of_data_space`
    OutOfDataSpace,
}

/// What becomes of discards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Discard {
    /// `discard_passdown`: blocks are freed, and the device beneath is told.
    Passdown,
    /// `no_discard_passdown`: blocks are freed, the device beneath is not told.
    NoPassdown,
    /// `ignore_discard`: nothing is freed.
    Ignore,
}

/// What a write does when the pool is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NoSpace {
    /// `queue_if_no_space`: it waits, up to the module's `no_space_timeout` (60 s).
    Queue,
    /// `error_if_no_space`: it ends with an error. Also shown 60 s after a queueing pool filled up.
    Error,
}

impl Mode {
    /// Returns the kernel's word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::ReadWrite => "rw",
            Self::ReadOnly => "ro",
            Self::OutOfDataSpace => "out_of_data_space",
        }
    }
}

impl Discard {
    /// Returns the kernel's word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Passdown => "discard_passdown",
            Self::NoPassdown => "no_discard_passdown",
            Self::Ignore => "ignore_discard",
        }
    }
}

impl NoSpace {
    /// Returns the kernel's word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Queue => "queue_if_no_space",
            Self::Error => "error_if_no_space",
        }
    }
}

impl PoolStatus {
    /// Reads a status line. A line that cannot be read is returned as [`PoolStatus::Unreadable`].
    pub fn parse(line: &str) -> Self {
        match line.trim() {
            "Fail" => Self::Fail,
            "Error" => Self::Error,
            other => parse_working(other).map_or_else(|| Self::Unreadable(other.to_owned()), Self::Working),
        }
    }

    /// Returns the fields, when the pool is working.
    pub const fn working(&self) -> Option<&Working> {
        match self {
            Self::Working(working) => Some(working),
            Self::Fail | Self::Error | Self::Unreadable(_) => None,
        }
    }
}

fn parse_working(line: &str) -> Option<Working> {
    let mut words = line.split_whitespace();
    let transaction_id = words.next()?.parse().ok()?;
    let (metadata_used, metadata_total) = fraction(words.next()?)?;
    let (data_used, data_total) = fraction(words.next()?)?;
    let mut status = Working {
        transaction_id,
        metadata_used: MetaBlocks::new(metadata_used),
        metadata_total: MetaBlocks::new(metadata_total),
        data_used: DataBlocks::new(data_used),
        data_total: DataBlocks::new(data_total),
        held_root: None,
        mode: None,
        discard: None,
        no_space: None,
        needs_check: None,
        metadata_low_water: None,
        unknown: Vec::new(),
    };
    if let Some(word) = words.next()
        && word != "-"
    {
        match word.parse() {
            Ok(block) => status.held_root = Some(MetaBlock::new(block)),
            Err(_) => status.unknown.push(word.to_owned()),
        }
    }
    for word in words {
        status.take(word);
    }
    Some(status)
}

fn fraction(word: &str) -> Option<(u64, u64)> {
    let (used, total) = word.split_once('/')?;
    Some((used.parse().ok()?, total.parse().ok()?))
}

impl Working {
    fn take(&mut self, word: &str) {
        match word {
            "rw" => self.mode = Some(Mode::ReadWrite),
            "ro" => self.mode = Some(Mode::ReadOnly),
            "out_of_data_space" => self.mode = Some(Mode::OutOfDataSpace),
            "discard_passdown" => self.discard = Some(Discard::Passdown),
            "no_discard_passdown" => self.discard = Some(Discard::NoPassdown),
            "ignore_discard" => self.discard = Some(Discard::Ignore),
            "queue_if_no_space" => self.no_space = Some(NoSpace::Queue),
            "error_if_no_space" => self.no_space = Some(NoSpace::Error),
            "needs_check" => self.needs_check = Some(true),
            "-" if self.needs_check.is_none() => self.needs_check = Some(false),
            number if self.needs_check.is_some() && self.metadata_low_water.is_none() => match number.parse() {
                Ok(blocks) => self.metadata_low_water = Some(MetaBlocks::new(blocks)),
                Err(_) => self.unknown.push(number.to_owned()),
            },
            other => self.unknown.push(other.to_owned()),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn working(line: &str) -> Working {
        PoolStatus::parse(line).working().unwrap().clone()
    }

    #[test]
    fn a_line_of_linux_6_1() {
        let s = working("2 4246/524288 1083/1638400 - rw discard_passdown queue_if_no_space - 1024");
        assert_eq!(s.transaction_id, 2);
        assert_eq!((s.metadata_used.get(), s.metadata_total.get()), (4246, 524_288));
        assert_eq!((s.data_used.get(), s.data_total.get()), (1083, 1_638_400));
        assert_eq!(s.held_root, None);
        assert_eq!(s.mode, Some(Mode::ReadWrite));
        assert_eq!(s.discard, Some(Discard::Passdown));
        assert_eq!(s.no_space, Some(NoSpace::Queue));
        assert_eq!(s.needs_check, Some(false));
        assert_eq!(s.metadata_low_water, Some(MetaBlocks::new(1024)));
        assert!(s.unknown.is_empty());
    }

    /// From public logs: lmlphp.com article 1334412 (2014) and google/cadvisor issue 920 (CentOS 7, 2015).
    #[test]
    fn lines_of_old_kernels_leave_the_rest_unknown() {
        let s = working("5 3245/524288 18758/3276800 - rw no_discard_passdown");
        assert_eq!(s.discard, Some(Discard::NoPassdown));
        assert_eq!((s.no_space, s.needs_check, s.metadata_low_water), (None, None, None));
        let s = working("14 2060/524288 51030/1638400 - rw discard_passdown queue_if_no_space");
        assert_eq!(s.no_space, Some(NoSpace::Queue));
        assert_eq!(s.needs_check, None);
        let s = working("0 1/2 3/4");
        assert_eq!((s.mode, s.data_total.get()), (None, 4));
    }

    #[test]
    fn trouble_is_read() {
        let s = working("133 487/512 4800/4800 604 ro discard_passdown error_if_no_space needs_check 1024");
        assert_eq!(s.held_root, Some(MetaBlock::new(604)));
        assert_eq!(s.mode, Some(Mode::ReadOnly));
        assert_eq!(s.no_space, Some(NoSpace::Error));
        assert_eq!(s.needs_check, Some(true));
        let s = working("0 1676/16384 4800/4800 - out_of_data_space ignore_discard queue_if_no_space - 1024");
        assert_eq!(s.mode, Some(Mode::OutOfDataSpace));
        assert_eq!(s.discard, Some(Discard::Ignore));
        assert_eq!(PoolStatus::parse("Fail"), PoolStatus::Fail);
        assert_eq!(PoolStatus::parse("Error"), PoolStatus::Error);
    }

    #[test]
    fn unknown_words_are_kept_and_nonsense_is_unreadable() {
        assert_eq!(working("1 2/3 4/5 - rw frozen").unknown, ["frozen"]);
        for line in ["", "1", "1 2 3", "x 1/2 3/4", "1 1/2 3/"] {
            assert!(matches!(PoolStatus::parse(line), PoolStatus::Unreadable(_)), "{line}");
        }
    }

    proptest! {
        #[test]
        fn parsing_never_panics(line in "[ -~]{0,120}") {
            let _ = PoolStatus::parse(&line);
        }
    }
}
