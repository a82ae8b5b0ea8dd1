//! Reads what dm-log-writes wrote, and plays it back onto another device, entry by entry.
//!
//! The format, from the kernel's `Documentation/admin-guide/device-mapper/log-writes.rst` and
//! `drivers/md/dm-log-writes.c`, all little-endian: sector 0 holds magic, version, number of entries (u64 each) and the
//! sector size (u32). Then, for each entry, one sector with sector, number of sectors, flags, length of private data (u64
//! each) and the text of a mark, followed by the data, unless the entry is a discard. Sectors are of the given size. The
//! kernel logs a write once a flush has made it durable, so the state after each entry is one that a power cut can leave.
//! The number of entries is brought up to date at a mark, at a FUA write and when the device is removed.

use std::fs::{File, OpenOptions};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, ensure};
use nix::fcntl::{FallocateFlags, fallocate};

const MAGIC: u64 = 0x006a_7366_7773_6872;
const VERSION: u64 = 1;

/// Bytes of an entry's fields, before the text of a mark.
const FIELDS: usize = 32;

/// Largest piece that is copied at once.
const PIECE: usize = 1 << 20;

/// The flags of an entry, as the kernel keeps them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flags(u64);

impl Flags {
    /// The device's cache was flushed before this (`LOG_FLUSH_FLAG`).
    pub const FLUSH: Self = Self(1);
    /// Written around the cache (`LOG_FUA_FLAG`).
    pub const FUA: Self = Self(2);
    /// No data: the range was given up (`LOG_DISCARD_FLAG`).
    pub const DISCARD: Self = Self(4);
    /// No data: a mark of the test (`LOG_MARK_FLAG`).
    pub const MARK: Self = Self(8);
    /// Written as metadata by the file system above (`LOG_METADATA_FLAG`).
    pub const METADATA: Self = Self(16);

    /// Whether all flags of `other` are set.
    #[must_use]
    pub fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// One logged request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// First byte on the device that was written.
    pub start: u64,
    /// Number of bytes written, or discarded.
    pub bytes: u64,
    /// What kind of request.
    pub flags: Flags,
    /// The text of a mark.
    pub mark: Option<String>,
    /// Where in the log its data begins, in bytes.
    data: u64,
}

/// A log of writes, indexed; the data stays on its device.
#[derive(Debug)]
pub struct Log {
    path: PathBuf,
    file: File,
    entries: Vec<Entry>,
}

impl Log {
    /// Reads the index of the log on a device or in a file.
    ///
    /// # Errors
    /// When it cannot be read, is no log of version 1, or has an entry that reaches beyond its end.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
        let size = super::sys::size_of(path)?;
        let entries = index(&file, size).with_context(|| format!("the log of writes on {}", path.display()))?;
        Ok(Self { path: path.into(), file, entries })
    }

    /// All entries, oldest first.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The number of entries up to and with the first mark of this text: what [`Replay::to`] takes to stand right there.
    #[must_use]
    pub fn mark(&self, text: &str) -> Option<usize> {
        self.entries.iter().position(|e| e.mark.as_deref() == Some(text)).map(|at| at + 1)
    }

    /// Copies one entry onto `target`.
    fn play(&self, entry: &Entry, target: &File) -> Result<()> {
        if entry.flags.has(Flags::DISCARD) {
            return punch(target, entry.start, entry.bytes);
        }
        let mut buffer = vec![0; PIECE];
        let mut done = 0;
        while done < entry.bytes {
            let want = usize::try_from(entry.bytes - done).unwrap_or(PIECE).min(PIECE);
            let piece = buffer.get_mut(..want).ok_or_else(|| anyhow!("an empty buffer"))?;
            self.file.read_exact_at(piece, entry.data + done).context("cannot read the log")?;
            target.write_all_at(piece, entry.start + done).context("cannot write to the target")?;
            done += want as u64;
        }
        Ok(())
    }
}

/// Plays a log onto a target, forwards only.
#[derive(Debug)]
pub struct Replay<'log> {
    log: &'log Log,
    target: File,
    done: usize,
}

impl<'log> Replay<'log> {
    /// Begins at entry 0. `target` must hold what the logged device held when logging began, and be as large.
    ///
    /// # Errors
    /// When it cannot be opened for writing.
    pub fn new(log: &'log Log, target: &Path) -> Result<Self> {
        let file =
            OpenOptions::new().write(true).open(target).with_context(|| format!("cannot open {}", target.display()))?;
        Ok(Self { log, target: file, done: 0 })
    }

    /// The number of entries played so far.
    #[must_use]
    pub fn done(&self) -> usize {
        self.done
    }

    /// Plays on until `count` entries in all are on the target, and syncs it. Returns the number of bytes written.
    ///
    /// # Errors
    /// When there are fewer entries, when more have been played, or reading or writing fails.
    pub fn to(&mut self, count: usize) -> Result<u64> {
        let path = self.log.path.display();
        let entries = self.log.entries.get(self.done..count).with_context(|| {
            format!("{path}: cannot go from entry {} to {count} of {}", self.done, self.log.entries.len())
        })?;
        let mut written = 0;
        for entry in entries {
            self.log.play(entry, &self.target).with_context(|| format!("{path}: entry {}", self.done))?;
            written += if entry.flags.has(Flags::DISCARD) { 0 } else { entry.bytes };
            self.done += 1;
        }
        self.target.sync_all()?;
        Ok(written)
    }

    /// Plays the next entry; `None` at the end.
    ///
    /// # Errors
    /// When reading or writing fails.
    pub fn step(&mut self) -> Result<Option<&'log Entry>> {
        let Some(entry) = self.log.entries.get(self.done) else {
            return Ok(None);
        };
        self.to(self.done + 1)?;
        Ok(Some(entry))
    }
}

fn index(file: &File, size: u64) -> Result<Vec<Entry>> {
    let mut head = [0; FIELDS];
    file.read_exact_at(&mut head, 0).context("cannot read its first sector")?;
    let [magic, version, count, sector] = four(&head);
    // The sector size is a u32; what follows it is zero.
    ensure!(magic == MAGIC, "is none: magic {magic:#x}");
    ensure!(version == VERSION, "has version {version}, not {VERSION}");
    ensure!(sector.is_power_of_two() && (512..=65536).contains(&sector), "has sectors of {sector} bytes");
    let mut at = sector;
    let mut entries = Vec::new();
    for number in 0..count {
        let entry = entry_at(file, at, sector, size).with_context(|| format!("entry {number} of {count}"))?;
        at = entry.data + if entry.flags.has(Flags::DISCARD) { 0 } else { entry.bytes };
        entries.push(entry);
    }
    Ok(entries)
}

fn entry_at(file: &File, at: u64, sector: u64, size: u64) -> Result<Entry> {
    ensure!(at + sector <= size, "lies beyond the end of the log");
    let mut bytes = vec![0; usize::try_from(sector)?];
    file.read_exact_at(&mut bytes, at)?;
    let (fields, text) = bytes.split_at(FIELDS);
    let [start, sectors, flags, private] = four(fields.first_chunk().ok_or_else(|| anyhow!("a short sector"))?);
    let flags = Flags(flags);
    let scale = |count: u64| count.checked_mul(sector).ok_or_else(|| anyhow!("a number too large: {count}"));
    let mark = if flags.has(Flags::MARK) {
        let text = text.get(..usize::try_from(private)?).context("a mark longer than its sector")?;
        Some(String::from_utf8_lossy(text).trim_end_matches('\0').to_owned())
    } else {
        // Only DAX writes keep data here; no device of the lab does DAX.
        ensure!(private == 0, "has {private} bytes of inline data");
        None
    };
    let entry = Entry { start: scale(start)?, bytes: scale(sectors)?, flags, mark, data: at + sector };
    let end = entry.data.checked_add(entry.bytes).filter(|end| *end <= size);
    ensure!(flags.has(Flags::DISCARD) || end.is_some(), "its data reach beyond the end of the log");
    Ok(entry)
}

/// Four little-endian numbers.
fn four(bytes: &[u8; FIELDS]) -> [u64; 4] {
    let mut numbers = [0; 4];
    for (number, chunk) in numbers.iter_mut().zip(bytes.as_chunks::<8>().0) {
        *number = u64::from_le_bytes(*chunk);
    }
    numbers
}

/// What a discard leaves: zeroes. Real devices may also leave the old data; zeroes are the harsher case.
fn punch(target: &File, start: u64, bytes: u64) -> Result<()> {
    let mode = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    if fallocate(target.as_fd(), mode, i64::try_from(start)?, i64::try_from(bytes)?).is_ok() {
        return Ok(());
    }
    let zeroes = vec![0; PIECE];
    let mut done = 0;
    while done < bytes {
        let piece = usize::try_from(bytes - done).unwrap_or(PIECE).min(PIECE);
        target.write_all_at(zeroes.get(..piece).unwrap_or_default(), start + done)?;
        done += piece as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    const SECTOR: usize = 512;

    /// Builds a log as the kernel would.
    struct Synthetic {
        bytes: Vec<u8>,
        count: u64,
    }

    impl Synthetic {
        fn new() -> Self {
            Self { bytes: vec![0; SECTOR], count: 0 }
        }

        fn entry(mut self, sector: u64, sectors: u64, flags: u64, mark: &str, data: &[u8]) -> Self {
            for number in [sector, sectors, flags, mark.len() as u64] {
                self.bytes.extend(number.to_le_bytes());
            }
            self.bytes.extend(mark.bytes());
            self.bytes.resize(self.bytes.len().next_multiple_of(SECTOR), 0);
            self.bytes.extend(data);
            self.count += 1;
            self
        }

        fn write(&self, path: &Path) {
            let mut bytes = self.bytes.clone();
            for (at, number) in [MAGIC, VERSION, self.count, SECTOR as u64].iter().enumerate() {
                bytes.get_mut(at * 8..at * 8 + 8).unwrap().copy_from_slice(&number.to_le_bytes());
            }
            std::fs::write(path, bytes).unwrap();
        }
    }

    fn sample() -> Synthetic {
        Synthetic::new()
            .entry(0, 1, 0, "", &[1; SECTOR])
            .entry(0, 0, Flags::MARK.0, "half", &[])
            .entry(3, 2, Flags::FUA.0 | Flags::METADATA.0, "", &[2; 2 * SECTOR])
            .entry(0, 1, Flags::DISCARD.0, "", &[])
            .entry(0, 0, Flags::FLUSH.0, "", &[])
            .entry(1, 1, 0, "", &[3; SECTOR])
    }

    fn disk(dir: &Path) -> PathBuf {
        let path = dir.join("disk");
        std::fs::write(&path, vec![9; 8 * SECTOR]).unwrap();
        path
    }

    /// The first byte of each sector.
    fn sectors(disk: &Path) -> Vec<u8> {
        std::fs::read(disk).unwrap().chunks(SECTOR).filter_map(|sector| sector.first().copied()).collect()
    }

    #[test]
    fn entries_and_marks_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        sample().write(&path);
        let log = Log::open(&path).unwrap();
        let short: Vec<_> = log.entries().iter().map(|e| (e.start / 512, e.bytes / 512, e.flags.0)).collect();
        assert_eq!(short, [(0, 1, 0), (0, 0, 8), (3, 2, 18), (0, 1, 4), (0, 0, 1), (1, 1, 0)]);
        assert_eq!(log.mark("half"), Some(2));
        assert_eq!(log.mark("other"), None);
        assert!(log.entries().iter().any(|e| e.flags.has(Flags::FUA) && e.flags.has(Flags::METADATA)));
    }

    #[test]
    fn each_entry_is_played_once_and_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        sample().write(&path);
        let log = Log::open(&path).unwrap();
        let disk = disk(dir.path());
        let mut replay = Replay::new(&log, &disk).unwrap();
        assert_eq!(replay.to(log.mark("half").unwrap()).unwrap(), 512);
        assert_eq!(sectors(&disk), [1, 9, 9, 9, 9, 9, 9, 9]);
        assert!(replay.step().unwrap().is_some());
        assert_eq!(sectors(&disk), [1, 9, 9, 2, 2, 9, 9, 9]);
        replay.to(4).unwrap();
        assert_eq!(sectors(&disk), [0, 9, 9, 2, 2, 9, 9, 9]);
        replay.to(6).unwrap();
        assert_eq!(sectors(&disk), [0, 3, 9, 2, 2, 9, 9, 9]);
        assert_eq!(replay.done(), 6);
        assert!(replay.step().unwrap().is_none());
        assert!(replay.to(7).is_err(), "there is no seventh entry");
        assert!(replay.to(3).is_err(), "not backwards");
    }

    #[test]
    fn what_is_no_whole_log_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        sample().write(&path);
        let good = std::fs::read(&path).unwrap();
        for (at, byte) in [(0, 0), (8, 2), (16, 7), (24, 3)] {
            let mut bad = good.clone();
            *bad.get_mut(at).unwrap() = byte;
            if at == 24 {
                *bad.get_mut(25).unwrap() = 0;
            }
            std::fs::write(&path, &bad).unwrap();
            assert!(Log::open(&path).is_err(), "byte {at}");
        }
        std::fs::write(&path, good.get(..good.len() - 1).unwrap()).unwrap();
        assert!(Log::open(&path).is_err(), "cut short");
        std::fs::write(&path, b"short").unwrap();
        assert!(Log::open(&path).is_err());
    }
}
