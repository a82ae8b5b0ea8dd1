//! Reading the entries of an archive of volumes: a POSIX (pax) tar as this program writes it, and nothing else. All of it is hostile.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, Read};
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

use sha2::{Digest, Sha256};
use tar::{EntryType, Header};

use crate::kernel::DevNo;
use crate::kernel::folder::{Attribute, FileKind, Status, Time};

const BLOCK: usize = 512;
/// The longest pax header: the attributes of one file are at most 64 KiB each.
const LONGEST: u64 = 16 << 20;
/// The longest path of an entry: Linux takes no longer one in a call (`PATH_MAX`), and each level of it is held in memory. None is written.
pub(in crate::ops) const LONGEST_PATH: usize = 4096;
/// The most extents that a sparse file is told in.
const MOST_EXTENTS: u64 = 1 << 20;

/// One entry.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its path: of single names, below the archive's root.
    pub path: PathBuf,
    /// What it is; `size` is the file's length with its holes.
    pub status: Status,
    /// Its extended attributes.
    pub attributes: Vec<Attribute>,
    /// What a symbolic link leads to.
    pub target: Option<PathBuf>,
    /// Which entry of the archive it is a further name of.
    pub original: Option<PathBuf>,
    /// Where its bytes go: their place and their number.
    pub extents: Vec<(u64, u64)>,
}

/// Reads entries.
#[derive(Debug)]
pub struct Entries<R> {
    from: R,
    sum: Sha256,
    /// The headers of the last entry, which are summed up once it is known whose they are.
    head: Vec<u8>,
    in_head: bool,
    /// What follows of the last entry: bytes, and padding.
    left: (u64, u64),
}

/// Why an archive cannot be read on.
pub type Bad = String;

impl<R: Read> Entries<R> {
    /// Reads from there.
    pub fn new(from: R) -> Self {
        Self { from, sum: Sha256::new(), head: Vec::new(), in_head: false, left: (0, 0) }
    }

    /// Returns the digits of the sum of all entries before the last one, since this was last asked.
    pub fn sum_before(&mut self) -> String {
        format!("{:x}", std::mem::take(&mut self.sum).finalize())
    }

    fn settle(&mut self) {
        self.sum.update(&self.head);
        self.head.clear();
    }

    fn take(&mut self, bytes: &mut [u8]) -> Result<(), Bad> {
        self.from.read_exact(bytes).map_err(|e| match e.kind() {
            io::ErrorKind::UnexpectedEof => "it is cut off".to_owned(),
            _ => format!("it cannot be read: {e}"),
        })?;
        if self.in_head {
            self.head.extend_from_slice(bytes);
        } else {
            self.settle();
            self.sum.update(bytes);
        }
        Ok(())
    }

    /// Hands over the bytes of the last entry, as many at a time as fit.
    ///
    /// # Errors
    /// As [`Self::next_entry`].
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Bad> {
        let length = usize::try_from(self.left.0).unwrap_or(buffer.len()).min(buffer.len());
        self.take(buffer.get_mut(..length).unwrap_or_default())?;
        self.left.0 -= length as u64;
        Ok(length)
    }

    /// Returns the whole of the last entry.
    ///
    /// # Errors
    /// When it is longer than that; as [`Self::next_entry`].
    pub fn whole(&mut self, most: u64) -> Result<Vec<u8>, Bad> {
        if self.left.0 > most {
            return Err(format!("an entry of it is longer than {most} bytes"));
        }
        let mut bytes = Vec::new();
        let mut buffer = [0; 4096];
        while self.left.0 > 0 {
            let read = self.read(&mut buffer)?;
            bytes.extend_from_slice(buffer.get(..read).unwrap_or_default());
        }
        Ok(bytes)
    }

    fn pass_over(&mut self) -> Result<(), Bad> {
        let mut buffer = [0; 16 << 10];
        while self.left.0 > 0 {
            self.read(&mut buffer)?;
        }
        let padding = usize::try_from(self.left.1).unwrap_or(0).min(BLOCK);
        self.left.1 = 0;
        self.take(buffer.get_mut(..padding).unwrap_or_default())
    }

    /// Returns the next entry; nothing at the end of the archive.
    ///
    /// # Errors
    /// Why it is none.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, Bad> {
        self.settle();
        self.pass_over()?;
        self.in_head = true;
        let found = self.headers();
        self.in_head = false;
        found
    }

    fn headers(&mut self) -> Result<Option<Entry>, Bad> {
        let Some(mut header) = self.header()? else { return Ok(None) };
        let mut records = Records::new();
        if header.entry_type() == EntryType::XHeader {
            self.begin(header.entry_size().map_err(|e| e.to_string())?);
            records = parse_records(&self.whole(LONGEST)?)?;
            header = self.header()?.ok_or("it is cut off")?;
        }
        let size = match records.get("size") {
            Some(size) => number(size)?,
            None => header.entry_size().map_err(|e| e.to_string())?,
        };
        self.begin(size);
        let mut entry = entry(&header, &records)?;
        if entry.status.kind != FileKind::File || entry.original.is_some() {
            return if size == 0 { Ok(Some(entry)) } else { Err("what is no file has content".to_owned()) };
        }
        if records.contains_key("GNU.sparse.realsize") {
            entry.extents = self.map(entry.status.size)?;
            if entry.extents.iter().map(|(_, length)| length).sum::<u64>() != self.left.0 {
                return Err("the map of a sparse file is damaged".to_owned());
            }
        } else {
            entry.status.size = size;
            entry.extents = vec![(0, size)];
        }
        Ok(Some(entry))
    }

    fn begin(&mut self, size: u64) {
        self.left = (size, size.wrapping_neg() % BLOCK as u64);
    }

    fn header(&mut self) -> Result<Option<Header>, Bad> {
        self.pass_over()?;
        let mut header = Header::new_old();
        self.take(header.as_mut_bytes())?;
        let bytes = header.as_bytes();
        if bytes.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        // The sum's own eight bytes count as spaces.
        let others = bytes.iter().enumerate().filter(|(at, _)| !(148..156).contains(at));
        let sum: u32 = others.map(|(_, byte)| u32::from(*byte)).sum::<u32>() + 8 * u32::from(b' ');
        if header.cksum().is_ok_and(|found| found == sum) {
            Ok(Some(header))
        } else {
            Err("it is no tar archive, or damaged: the checksum of a header is wrong".to_owned())
        }
    }

    /// Reads the map of a sparse file: lines of numbers, filled up to a block.
    fn map(&mut self, size: u64) -> Result<Vec<(u64, u64)>, Bad> {
        let damaged = || "the map of a sparse file is damaged".to_owned();
        let before = self.left.0;
        let count = self.map_number()?;
        if count > MOST_EXTENTS {
            return Err(damaged());
        }
        let mut extents = Vec::new();
        let mut end = 0_u64;
        for _ in 0..count {
            let (start, length) = (self.map_number()?, self.map_number()?);
            let next = start.checked_add(length).filter(|next| start >= end && *next <= size).ok_or_else(damaged)?;
            end = next;
            extents.push((start, length));
        }
        let padding = (before - self.left.0).wrapping_neg() % BLOCK as u64;
        let mut block = [0; BLOCK];
        let padding = usize::try_from(padding).unwrap_or(0);
        let read = self.read(block.get_mut(..padding).unwrap_or_default())?;
        if read == padding { Ok(extents) } else { Err(damaged()) }
    }

    fn map_number(&mut self) -> Result<u64, Bad> {
        let mut digits = Vec::new();
        loop {
            let mut byte = [0];
            if self.read(&mut byte)? == 0 || digits.len() > 20 {
                return Err("the map of a sparse file is damaged".to_owned());
            }
            if byte == [b'\n'] {
                return number(&digits);
            }
            digits.extend(byte);
        }
    }
}

type Records = BTreeMap<String, Vec<u8>>;

/// Reads the records of a pax header: `LENGTH KEY=VALUE` and a newline each.
///
/// # Errors
/// Why they are none.
pub fn parse_records(mut bytes: &[u8]) -> Result<Records, Bad> {
    let damaged = || "a pax header of it is damaged".to_owned();
    let mut records = Records::new();
    while !bytes.is_empty() {
        let space = bytes.iter().position(|byte| *byte == b' ').ok_or_else(damaged)?;
        let length: usize = number(bytes.get(..space).unwrap_or_default())?;
        let record = bytes.get(space + 1..length).and_then(|record| record.strip_suffix(b"\n")).ok_or_else(damaged)?;
        let equals = record.iter().position(|byte| *byte == b'=').ok_or_else(damaged)?;
        let (key, value) = record.split_at(equals);
        let key = std::str::from_utf8(key).map_err(|_| damaged())?;
        records.insert(key.to_owned(), value.get(1..).unwrap_or_default().to_vec());
        bytes = bytes.get(length..).unwrap_or_default();
    }
    Ok(records)
}

fn number<T: std::str::FromStr>(digits: &[u8]) -> Result<T, Bad> {
    let text = std::str::from_utf8(digits).ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
    text.and_then(|text| text.parse().ok()).ok_or_else(|| "a number in it is none".to_owned())
}

/// Reads a time in decimal seconds: -0.5 is half a second before 1970.
///
/// # Errors
/// Why it is none.
pub fn parse_time(text: &[u8]) -> Result<Time, Bad> {
    let (is_before, text) = text.strip_prefix(b"-").map_or((false, text), |rest| (true, rest));
    let point = text.iter().position(|byte| *byte == b'.').unwrap_or(text.len());
    let (seconds, fraction) = text.split_at(point);
    let mut digits = fraction.get(1..).unwrap_or_default().to_vec();
    digits.resize(9, b'0');
    let (seconds, nanoseconds): (i64, u32) = (number(seconds)?, number(&digits)?);
    Ok(match (is_before, nanoseconds) {
        (false, _) => Time { seconds, nanoseconds },
        (true, 0) => Time { seconds: -seconds, nanoseconds },
        (true, _) => Time { seconds: -seconds - 1, nanoseconds: 1_000_000_000 - nanoseconds },
    })
}

fn entry(header: &Header, records: &Records) -> Result<Entry, Bad> {
    let wrong = |e: io::Error| format!("a header of it is damaged: {e}");
    let kind = match header.entry_type() {
        EntryType::Regular | EntryType::Link => FileKind::File,
        EntryType::Directory => FileKind::Directory,
        EntryType::Symlink => FileKind::Link,
        EntryType::Fifo => FileKind::Fifo,
        EntryType::Block => FileKind::Block,
        EntryType::Char => FileKind::Character,
        _ => return Err("it has an entry of a kind that is in no archive of volumes".to_owned()),
    };
    let field = |field: &[u8]| field.split(|byte| *byte == 0).next().unwrap_or_default().to_vec();
    let named = |key: &str| records.get(key).cloned();
    let old = header.as_old();
    let name = named("GNU.sparse.name").or_else(|| named("path")).unwrap_or_else(|| field(&old.name));
    let target = || PathBuf::from(OsString::from_vec(named("linkpath").unwrap_or_else(|| field(&old.linkname))));
    let id = |key: &str, header: io::Result<u64>| match records.get(key) {
        Some(digits) => number(digits),
        None => u32::try_from(header.map_err(wrong)?).map_err(|_| "an owner in it is none".to_owned()),
    };
    let mtime = || Ok(Time { seconds: i64::try_from(header.mtime().map_err(wrong)?).unwrap_or(0), nanoseconds: 0 });
    let device = match kind {
        FileKind::Block | FileKind::Character => {
            let part = |part: io::Result<Option<u32>>| part.map_err(wrong).map(Option::unwrap_or_default);
            DevNo::new(part(header.device_major())?, part(header.device_minor())?)
        }
        _ => DevNo::new(0, 0),
    };
    let is_link = header.entry_type() == EntryType::Link;
    Ok(Entry {
        path: inside(Path::new(&OsString::from_vec(name)))?,
        status: Status {
            kind,
            mode: header.mode().map_err(wrong)? & 0o7777,
            uid: id("uid", header.uid())?,
            gid: id("gid", header.gid())?,
            size: records.get("GNU.sparse.realsize").map_or(Ok(0), |size| number(size))?,
            allocated: 0,
            modified: records.get("mtime").map_or_else(mtime, |time| parse_time(time))?,
            changed: Time { seconds: 0, nanoseconds: 0 },
            file_system: 0,
            inode: 0,
            links: 1,
            device,
        },
        attributes: attributes(records),
        target: (kind == FileKind::Link).then(target),
        original: if is_link { Some(inside(&target())?) } else { None },
        extents: Vec::new(),
    })
}

fn attributes(records: &Records) -> Vec<Attribute> {
    let named = records.iter().filter_map(|(key, value)| Some((key.strip_prefix("SCHILY.xattr.")?, value)));
    named.map(|(name, value)| (name.replace("%3D", "=").replace("%25", "%").into(), value.clone())).collect()
}

/// Takes a path that leads nowhere but below where it begins.
fn inside(path: &Path) -> Result<PathBuf, Bad> {
    let mut parts = path.components().peekable();
    let is_plain = parts.peek().is_some() && parts.all(|part| matches!(part, Component::Normal(_)));
    let has_end = path.as_os_str().as_encoded_bytes().contains(&0);
    if is_plain && !has_end {
        Ok(path.components().collect())
    } else {
        Err(format!("it has an entry `{}`, which leads out of it", path.display().to_string().escape_debug()))
    }
}
