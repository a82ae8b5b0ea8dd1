//! A writer that syncs every block, counts what went wrong, knows its longest wait, and can prove afterwards that every
//! block it was promised is there.
//!
//! Runs as a thread of the test, or as the program `lab-writer` (static, so that a container made FROM scratch can run it).

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::hash::Hasher;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

/// One write: a block of this many bytes.
pub const BLOCK: usize = 4096;

/// Errors whose text is kept; all are counted.
const ERRORS_KEPT: usize = 20;

/// A tenth of a second, and how many of them a tally keeps.
const TENTH_US: u64 = 100_000;
const RECENT: usize = 600;

/// What is written where, and for how long.
#[derive(Debug, Clone)]
pub struct Plan {
    /// A file (made if missing) or a block device.
    pub path: PathBuf,
    /// Number of blocks that are written in turn, over and over. Large enough never to come round, the writer asks for
    /// ever more space.
    pub slots: u64,
    /// First block of the path that is used.
    pub first: u64,
    /// Pause between two writes.
    pub pause: Duration,
    /// Where, if anywhere, the number of the last acknowledged write is kept, itself synced, after each write: a raw disk or file that
    /// survives a power cut. Read with [`acknowledged`].
    pub acks: Option<PathBuf>,
}

impl Plan {
    /// 1024 blocks (4 MiB) in turn from the beginning, no pause.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), slots: 1024, first: 0, pause: Duration::ZERO, acks: None }
    }
}

/// What the writer saw.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Writes tried and ended, well or not.
    pub ops: u64,
    /// Writes that failed, or whose sync failed.
    pub errors: u64,
    /// The first of the errors, in words.
    pub error_texts: Vec<String>,
    /// The longest wait for one write and its sync, in microseconds.
    pub longest_us: u64,
    /// When the longest wait began, in microseconds since 1970.
    pub longest_at_us: u64,
    /// Microseconds since 1970 at the end of the last write.
    pub last_us: u64,
    /// The longest wait that began in each tenth of a second of the last minute of writing: when it began, how long it
    /// took, in microseconds. Asked with [`Tally::longest_between`].
    pub recent: BTreeMap<u64, (u64, u64)>,
    /// The longest wait since the last [`Writer::watch`], in microseconds.
    pub watched_us: u64,
    /// The last acknowledged write of each slot, by slot. Writes are numbered from 1.
    pub acknowledged: BTreeMap<u64, u64>,
    /// Which run wrote: blocks of others do not count.
    pub run: u64,
}

impl Tally {
    /// The longest wait.
    #[must_use]
    pub fn longest(&self) -> Duration {
        Duration::from_micros(self.longest_us)
    }

    /// The longest wait that touched this span of time, rounded outwards to tenths of a second; both ends in microseconds
    /// since 1970 ([`now_us`]) and within the last minute of writing. `None` when no write did.
    #[must_use]
    pub fn longest_between(&self, from_us: u64, to_us: u64) -> Option<Duration> {
        let touching = self.recent.iter().filter(|(tenth, (began, took))| {
            let (first, last) = (**tenth * TENTH_US, (**tenth + 1) * TENTH_US);
            first <= to_us && last.max(began + took) >= from_us
        });
        touching.map(|(_, (_, took))| Duration::from_micros(*took)).max()
    }

    /// The longest wait that ended since [`Writer::watch`].
    #[must_use]
    pub fn watched(&self) -> Duration {
        Duration::from_micros(self.watched_us)
    }

    fn count(&mut self, began_us: u64, waited_us: u64) {
        self.ops += 1;
        self.last_us = began_us + waited_us;
        self.watched_us = self.watched_us.max(waited_us);
        if waited_us > self.longest_us {
            (self.longest_us, self.longest_at_us) = (waited_us, began_us);
        }
        let slowest = self.recent.entry(began_us / TENTH_US).or_default();
        if waited_us >= slowest.1 {
            *slowest = (began_us, waited_us);
        }
        if self.recent.len() > RECENT {
            self.recent.pop_first();
        }
    }

    /// One line for people.
    #[must_use]
    pub fn line(&self) -> String {
        let Self { ops, errors, .. } = self;
        format!("{ops} synced writes, {errors} errors, longest wait {} ms", self.longest_us.div_ceil(1000))
    }

    /// Reads every acknowledged block back and checks that it holds that write or, since one may have been under way when
    /// the writer ended, the next one of its slot. Returns the number of blocks checked.
    ///
    /// # Errors
    /// When a block cannot be read, is missing, older or damaged; the first few are named.
    pub fn verify(&self, plan: &Plan) -> Result<u64> {
        let file = File::open(&plan.path).with_context(|| format!("cannot open {}", plan.path.display()))?;
        let mut wrong = Vec::new();
        for (&slot, &number) in &self.acknowledged {
            let mut block = vec![0; BLOCK];
            let at = (plan.first + slot) * BLOCK as u64;
            let found = match file.read_exact_at(&mut block, at) {
                Ok(()) => number_in(&block, self.run),
                Err(error) => Err(error.to_string()),
            };
            match found {
                Ok(found) if found == number || found == number + plan.slots => {}
                Ok(found) => wrong.push(format!("block {slot} holds write {found}, not {number}")),
                Err(why) => wrong.push(format!("block {slot}, write {number}: {why}")),
            }
        }
        let checked = self.acknowledged.len() as u64;
        if wrong.is_empty() {
            return Ok(checked);
        }
        let lost = wrong.len();
        wrong.truncate(5);
        bail!("{lost} of {checked} acknowledged blocks of {} are gone: {}", plan.path.display(), wrong.join("; "))
    }
}

/// A writer at work on a thread of its own.
#[derive(Debug)]
pub struct Writer {
    plan: Plan,
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    tally: Mutex<Tally>,
}

impl Shared {
    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Writer {
    /// Starts writing, and comes back once the first write has ended.
    ///
    /// # Errors
    /// When the path or the file for acknowledgements cannot be opened.
    pub fn start(plan: Plan) -> Result<Self> {
        let mut job = Job::open(&plan)?;
        let shared = Arc::new(Shared::default());
        shared.tally().run = job.run;
        let theirs = Arc::clone(&shared);
        job.once(&shared);
        let thread = std::thread::Builder::new().name("writer".into()).spawn(move || {
            while !theirs.stop.load(Ordering::Relaxed) {
                job.once(&theirs);
            }
        })?;
        Ok(Self { plan, shared, thread })
    }

    /// What it saw so far. A wait that has not ended yet is not in it.
    #[must_use]
    pub fn tally(&self) -> Tally {
        self.shared.tally().clone()
    }

    /// From now on [`Tally::watched`] is about what ends later; a wait under way counts.
    pub fn watch(&self) {
        self.shared.tally().watched_us = 0;
    }

    /// Ends it and returns what it saw.
    ///
    /// # Errors
    /// When a write does not end within `limit`: the thread is left behind, hanging.
    pub fn stop(self, limit: Duration) -> Result<Tally> {
        self.shared.stop.store(true, Ordering::Relaxed);
        let until = Instant::now() + limit;
        while !self.thread.is_finished() {
            if Instant::now() >= until {
                bail!("the writer on {} hangs: {}", self.plan.path.display(), self.tally().line());
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(self.shared.tally().clone())
    }

    /// Waits until `count` more writes have ended.
    ///
    /// # Errors
    /// When that takes longer than `limit`.
    pub fn wait_for(&self, count: u64, limit: Duration) -> Result<()> {
        let (goal, until) = (self.tally().ops + count, Instant::now() + limit);
        while self.tally().ops < goal {
            ensure!(Instant::now() < until, "no {count} writes within {limit:?}: {}", self.tally().line());
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }
}

/// Writes until `stop` says so, calling `report` about five times a second and at the end: what `lab-writer` does.
///
/// # Errors
/// When the path cannot be opened, or `report` fails.
pub fn write_until(plan: &Plan, stop: &AtomicBool, mut report: impl FnMut(&Tally) -> Result<()>) -> Result<Tally> {
    let mut job = Job::open(plan)?;
    let shared = Shared::default();
    shared.tally().run = job.run;
    let mut told = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        job.once(&shared);
        if told.elapsed() >= Duration::from_millis(200) {
            report(&shared.tally())?;
            told = Instant::now();
        }
    }
    let tally = shared.tally().clone();
    report(&tally)?;
    Ok(tally)
}

/// The number of the last acknowledged write, and its run, from a plan's `acks`; for after a power cut.
///
/// # Errors
/// When it cannot be read or holds no such number.
pub fn acknowledged(acks: &Path) -> Result<(u64, u64)> {
    let mut block = vec![0; BLOCK];
    let file = File::open(acks).with_context(|| format!("cannot open {}", acks.display()))?;
    file.read_exact_at(&mut block, 0).with_context(|| format!("cannot read {}", acks.display()))?;
    let run = word(&block, 2);
    match number_in(&block, run) {
        Ok(number) => Ok((number, run)),
        Err(why) => bail!("{} holds no acknowledgement: {why}", acks.display()),
    }
}

/// The tally of a writer without errors that was cut off after write `last` of `run`, to be verified.
#[must_use]
pub fn tally_up_to(plan: &Plan, last: u64, run: u64) -> Tally {
    let first = last.saturating_sub(plan.slots) + 1;
    let acknowledged = (first..=last).map(|number| ((number - 1) % plan.slots, number)).collect();
    Tally { ops: last, acknowledged, run, ..Tally::default() }
}

/// The open files and the next number.
struct Job {
    plan: Plan,
    file: File,
    acks: Option<File>,
    next: u64,
    run: u64,
}

impl Job {
    fn open(plan: &Plan) -> Result<Self> {
        let open = |path: &Path| {
            let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
            file.with_context(|| format!("cannot open {}", path.display()))
        };
        let file = open(&plan.path)?;
        let acks = plan.acks.as_deref().map(open).transpose()?;
        ensure!(plan.slots > 0, "a writer needs at least one block");
        Ok(Self { plan: plan.clone(), file, acks, next: 1, run: now_us() })
    }

    /// One write with its sync, and what became of it.
    fn once(&mut self, shared: &Shared) {
        let (number, slot) = (self.next, (self.next - 1) % self.plan.slots);
        self.next += 1;
        let block = block_of(number, self.run);
        let (began, began_us) = (Instant::now(), now_us());
        let at = (self.plan.first + slot) * BLOCK as u64;
        let done = self.file.write_all_at(&block, at).and_then(|()| self.file.sync_all());
        let waited = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
        let done = done.and_then(|()| self.acknowledge(&block));
        let mut tally = shared.tally();
        tally.count(began_us, waited);
        match done {
            Ok(()) => {
                tally.acknowledged.insert(slot, number);
            }
            Err(error) => {
                // The slot may now hold either write: nothing is promised for it any more.
                tally.acknowledged.remove(&slot);
                tally.errors += 1;
                if tally.error_texts.len() < ERRORS_KEPT {
                    tally.error_texts.push(format!("write {number}: {error}"));
                }
            }
        }
        drop(tally);
        if !self.plan.pause.is_zero() {
            std::thread::sleep(self.plan.pause);
        }
    }

    fn acknowledge(&self, block: &[u8]) -> io::Result<()> {
        match &self.acks {
            Some(acks) => acks.write_all_at(block, 0).and_then(|()| acks.sync_data()),
            None => Ok(()),
        }
    }
}

/// A block: number, hash of the rest, run, then bytes that follow from both.
fn block_of(number: u64, run: u64) -> Vec<u8> {
    let mut block = vec![0; BLOCK];
    let mut seed = number ^ run.rotate_left(32);
    for (at, chunk) in block.as_chunks_mut::<8>().0.iter_mut().enumerate() {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        *chunk = match at {
            0 => number.to_le_bytes(),
            2 => run.to_le_bytes(),
            _ => seed.to_le_bytes(),
        };
    }
    let sum = checksum(&block);
    if let Some(place) = block.get_mut(8..16) {
        place.copy_from_slice(&sum.to_le_bytes());
    }
    block
}

/// The number of the write in a block, if the block is whole and of this run.
fn number_in(block: &[u8], run: u64) -> std::result::Result<u64, String> {
    if block.iter().all(|byte| *byte == 0) {
        return Err("zeroes".into());
    }
    if word(block, 1) != checksum(block) {
        return Err("damaged, or never written".into());
    }
    if word(block, 2) != run {
        return Err(format!("of another run, {}", word(block, 2)));
    }
    Ok(word(block, 0))
}

fn word(block: &[u8], at: usize) -> u64 {
    block.as_chunks::<8>().0.get(at).map_or(0, |chunk| u64::from_le_bytes(*chunk))
}

/// Over everything but the checksum itself.
fn checksum(block: &[u8]) -> u64 {
    let mut hash = std::hash::DefaultHasher::new();
    hash.write(block.get(..8).unwrap_or_default());
    hash.write(block.get(16..).unwrap_or_default());
    hash.finish()
}

/// Microseconds since 1970, the clock of every tally.
#[must_use]
pub fn now_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn plan(dir: &Path, slots: u64) -> Plan {
        Plan { slots, ..Plan::new(dir.join("written")) }
    }

    #[test]
    fn every_acknowledged_block_is_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let plan = Plan { acks: Some(dir.path().join("acks")), ..plan(dir.path(), 7) };
        let writer = Writer::start(plan.clone()).unwrap();
        writer.wait_for(20, Duration::from_secs(30)).unwrap();
        let tally = writer.stop(Duration::from_secs(30)).unwrap();
        assert_eq!((tally.errors, tally.error_texts.len()), (0, 0));
        assert!(tally.ops > 20 && tally.longest_us > 0, "{tally:?}");
        assert_eq!(tally.verify(&plan).unwrap(), 7);
        let (last, run) = acknowledged(&plan.acks.clone().unwrap()).unwrap();
        assert_eq!((last, run), (tally.ops, tally.run));
        assert_eq!(tally_up_to(&plan, last, run).acknowledged, tally.acknowledged);
    }

    #[test]
    fn a_lost_or_damaged_block_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let plan = plan(dir.path(), 4);
        let writer = Writer::start(plan.clone()).unwrap();
        writer.wait_for(8, Duration::from_secs(30)).unwrap();
        let tally = writer.stop(Duration::from_secs(30)).unwrap();
        let good = std::fs::read(&plan.path).unwrap();
        let damage = |bytes: Vec<u8>| {
            std::fs::write(&plan.path, bytes).unwrap();
            tally.verify(&plan).unwrap_err().to_string()
        };
        let mut bad = good.clone();
        *bad.get_mut(BLOCK + 100).unwrap() ^= 1;
        assert!(damage(bad).contains("damaged"));
        let mut zeroed = good.clone();
        zeroed.get_mut(..BLOCK).unwrap().fill(0);
        assert!(damage(zeroed).contains("zeroes"));
        assert!(damage(good.get(..3 * BLOCK).unwrap().to_vec()).contains("1 of 4"));
        let mut old = good.clone();
        let number = *tally.acknowledged.get(&2).unwrap();
        old.get_mut(2 * BLOCK..3 * BLOCK).unwrap().copy_from_slice(&block_of(number - 4, tally.run));
        assert!(damage(old).contains("holds write"));
    }

    #[test]
    fn the_longest_wait_of_a_span_is_known() {
        let mut tally = Tally::default();
        for (began, took) in [(1_000_000, 500), (1_010_000, 90), (1_300_000, 250_000), (1_550_000, 40)] {
            tally.count(began, took);
        }
        let between = |from, to| tally.longest_between(from, to).map(|wait| wait.as_micros());
        assert_eq!(between(0, 2_000_000), Some(250_000));
        assert_eq!(between(0, 1_200_000), Some(500));
        assert_eq!(between(1_500_000, 1_510_000), Some(250_000), "it began before and ended within");
        assert_eq!(between(1_590_000, 1_599_000), Some(40), "to a tenth of a second");
        assert_eq!(between(1_600_001, 1_700_000), None);
        tally.watched_us = 0;
        tally.count(1_900_000, 7);
        assert_eq!((tally.watched().as_micros(), tally.longest().as_micros()), (7, 250_000));
        for more in 0..1000 {
            tally.count(2_000_000 + more * TENTH_US, 1);
        }
        assert_eq!((tally.recent.len(), tally.longest_us), (RECENT, 250_000));
    }

    #[test]
    fn failed_writes_are_counted_and_promise_nothing() {
        let plan = Plan::new("/dev/full");
        let stop = AtomicBool::new(false);
        let mut reports = 0;
        let tally = write_until(&plan, &stop, |tally| {
            reports += 1;
            stop.store(true, Ordering::Relaxed);
            assert!(tally.errors > 0);
            Ok(())
        });
        let tally = tally.unwrap();
        assert_eq!((tally.errors, tally.acknowledged.len()), (tally.ops, 0));
        assert!(tally.error_texts.first().unwrap().contains("No space left"));
        assert!(reports >= 1);
    }
}
