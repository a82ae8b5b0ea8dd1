//! What a way out or a migration costs, in words: an estimate where facts give one, and `~` before it.
//!
//! The rates are those of `docs/guide.md`, section "What a way out costs": measured on a fast disk, and divided by two and
//! more, since nobody knows the disk.

use crate::pool::PoolReport;
use crate::units::Bytes;

/// The cost of what stops nothing.
pub(crate) const ONLINE: &str = "online";

/// How much metadata in use `thin_check` reads in a second.
const CHECKED: u64 = 20 << 20;
/// How much `thin_repair` writes anew in a second.
const REPAIRED: u64 = 4 << 20;
/// How much of a file is copied in a second.
const COPIED: u64 = 50 << 20;
/// How many files of a layer are written, or compared, in a second.
const FILES: u64 = 1000;
/// How many seconds it takes to bring a layer's volume up, mount it and take it down, in the copy and in the comparison.
const LAYER: u64 = 1;
/// How many seconds Docker takes to stop and to start: it gives its containers 15 to end (`--shutdown-timeout`), and is
/// given 20 to be there again.
const RESTART: u64 = 35;
/// How many seconds a pool takes to go and to come.
const POOL_AGAIN: u64 = 5;

/// A restart of Docker, with so many seconds of something else between.
pub(crate) fn docker_stopped(more: u64) -> String {
    format!("~{} with Docker stopped", time(RESTART + more))
}

/// Whether a note is such an estimate, of which nothing is to be said once it is over.
pub fn is_estimate(note: &str) -> bool {
    note.starts_with('~')
}

/// A pool that is down for that long, and what uses it stopped.
pub(crate) fn pool_stopped(more: u64) -> String {
    format!("~{} stopped", time(POOL_AGAIN + more))
}

/// How many seconds `thin_check` needs for a pool's metadata, run twice; nothing when nobody knows how much is in use.
pub(crate) fn check(pool: &PoolReport) -> Option<u64> {
    Some(seconds(in_use(pool)?, CHECKED).saturating_mul(2))
}

/// How many seconds `thin_repair` needs, and the copy before it.
pub(crate) fn repair(pool: &PoolReport) -> Option<u64> {
    Some(seconds(in_use(pool)?, REPAIRED).saturating_add(seconds(in_use(pool)?, COPIED)))
}

/// How many seconds a copy of so much takes.
pub(crate) fn copy(bytes: Bytes) -> u64 {
    seconds(bytes, COPIED)
}

/// How many seconds it takes to copy so much and to compare it.
pub(crate) fn carry(bytes: Bytes) -> u64 {
    copy(bytes).saturating_mul(2)
}

/// How many seconds it takes to copy and to compare so many layers, with so many files that are so large together.
pub(crate) fn carry_files(layers: usize, files: u64, bytes: Bytes) -> u64 {
    let layers = u64::try_from(layers).unwrap_or(u64::MAX).saturating_mul(LAYER);
    copy(bytes).saturating_add(files.div_ceil(FILES)).saturating_add(layers).saturating_mul(2)
}

/// How many seconds it takes to write so many layers, that are so large together, to an archive.
pub(crate) fn save(layers: usize, bytes: Bytes) -> u64 {
    copy(bytes).saturating_add(u64::try_from(layers).unwrap_or(u64::MAX).saturating_mul(LAYER))
}

fn in_use(pool: &PoolReport) -> Option<Bytes> {
    pool.metadata_space().map(|space| space.used)
}

fn seconds(bytes: Bytes, rate: u64) -> u64 {
    bytes.get().div_ceil(rate)
}

/// Returns a time in tens of seconds, minutes or hours, never less than it is: `40 s`, `4 min`, `3 h`.
pub(crate) fn time(seconds: u64) -> String {
    match seconds {
        0..=60 => format!("{} s", seconds.div_ceil(10).max(1) * 10),
        61..=7_200 => format!("{} min", seconds.div_ceil(60)),
        _ => format!("{} h", seconds.div_ceil(3_600)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::samples::{docker_pool, mute_pool};

    #[test]
    fn a_time_is_never_less_than_it_is() {
        for (seconds, said) in [(0, "10 s"), (10, "10 s"), (11, "20 s"), (60, "60 s"), (61, "2 min"), (7_201, "3 h")] {
            assert_eq!(time(seconds), said);
        }
    }

    #[test]
    fn what_is_read_costs_time_and_what_is_not_known_costs_nothing_that_could_be_said() {
        // 512 MiB of metadata in use.
        let pool = docker_pool("0 131072/524288 9/1638400 - rw discard_passdown queue_if_no_space - 1024", 0);
        assert_eq!((check(&pool), repair(&pool)), (Some(52), Some(139)));
        assert_eq!(docker_stopped(52), "~2 min with Docker stopped");
        assert_eq!(pool_stopped(52), "~60 s stopped");
        assert_eq!((check(&mute_pool()), repair(&mute_pool())), (None, None));
        let ten = Bytes::new(10 << 30);
        assert_eq!((copy(ten), carry(ten), carry_files(20, 10_000, ten)), (205, 410, 470));
    }
}
