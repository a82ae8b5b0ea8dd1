//! Databases of bbolt, from bytes and for reading only: what containerd keeps its devices and snapshots in, and Docker what it
//! knows of its volumes.
//!
//! Format (go.etcd.io/bbolt, page.go, meta.go, bucket.go), all little-endian on the machines this runs on:
//!
//! ```text
//! page      id u64, flags u16, count u16, overflow u32; then its contents, over 1 + overflow pages of the file
//! meta      magic u32, version u32, page size u32, flags u32, root bucket (page u64, sequence u64), freelist u64,
//!           high water u64, transaction u64, checksum u64: FNV-1a of the 56 bytes before. Pages 0 and 1; the higher
//!           transaction whose checksum is right counts
//! branch    count times: key's place u32, its length u32, child page u64; then the keys
//! leaf      count times: flags u32, key's place u32, key's length u32, value's length u32; then keys and values
//! bucket    a leaf's value with flag 1: page u64, sequence u64; with page 0 the bucket's one page follows at once
//! ```
//!
//! A key's place counts from the beginning of its own entry. No file lock is taken: containerd and Docker hold one for as long
//! as they run. There is a crate for such databases; it checks neither checksums nor against going round in circles.

use std::cell::Cell;
use std::fmt;
use std::rc::Rc;

const MAGIC: u32 = 0xED0C_DAED;
const VERSION: u32 = 2;
const HEADER: usize = 16;
const BRANCH: u16 = 1;
const LEAF: u16 = 2;
/// The bytes of a meta before its checksum.
const SUMMED: usize = 56;
/// Deeper than any tree that fits a file: each storey has two pages or more.
const DEPTH: usize = 48;
/// How many items are looked at in one database, again or not: ten thousand containers have a tenth of them.
const MOST_ITEMS: usize = 4_000_000;
const PAGE_SIZES: [usize; 5] = [4096, 8192, 16384, 32768, 65536];

/// What is wrong with a database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BadBolt {
    /// Neither of its two first pages is a meta page with a right checksum.
    NoMeta,
    /// A page leads outside of the file, into itself, or is of another kind than it must be.
    Page(u64),
    /// It holds more pages than its file: it goes round in circles.
    Endless,
    /// It holds more than anybody keeps in one.
    TooMany,
}

impl fmt::Display for BadBolt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoMeta => write!(f, "it is no bolt database: neither meta page has its magic and checksum"),
            Self::Page(page) => write!(f, "its page {page} is damaged"),
            Self::Endless => write!(f, "its pages lead round in circles"),
            Self::TooMany => write!(f, "it holds more than {MOST_ITEMS} items; the rest was not read"),
        }
    }
}

impl std::error::Error for BadBolt {}

/// A database.
#[derive(Clone, Debug)]
pub struct Bolt<'a> {
    bytes: &'a [u8],
    page_size: usize,
    root: u64,
    transaction: u64,
    /// How many more items may be looked at, in all its buckets.
    items: Rc<Cell<usize>>,
}

/// A bucket in it.
#[derive(Clone, Debug)]
pub struct Bucket<'a> {
    bolt: Bolt<'a>,
    place: Place<'a>,
}

#[derive(Clone, Copy, Debug)]
enum Place<'a> {
    Page(u64),
    Inline(&'a [u8]),
}

/// What is under a key.
#[derive(Clone, Debug)]
pub enum Item<'a> {
    /// A value.
    Value(&'a [u8]),
    /// Another bucket.
    Bucket(Bucket<'a>),
}

impl<'a> Bolt<'a> {
    /// Reads the meta pages of a database.
    ///
    /// # Errors
    /// When neither is whole.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, BadBolt> {
        let first = meta(bytes, 0);
        // With a broken first one the size of pages is not known; the second one is where its own size puts it.
        let second = PAGE_SIZES.into_iter().filter_map(|size| meta(bytes, size).filter(|m| m.page_size == size));
        let best = first.into_iter().chain(second).max_by_key(|meta| meta.transaction);
        best.ok_or(BadBolt::NoMeta)
    }

    /// Returns the number of the last transaction: another one means that the file has been written since.
    pub const fn transaction(&self) -> u64 {
        self.transaction
    }

    /// Returns the bucket that holds all others.
    pub fn root(self) -> Bucket<'a> {
        Bucket { place: Place::Page(self.root), bolt: self }
    }

    fn page(&self, id: u64) -> Result<&'a [u8], BadBolt> {
        let bad = BadBolt::Page(id);
        let at = usize::try_from(id).ok().and_then(|id| id.checked_mul(self.page_size)).ok_or_else(|| bad.clone())?;
        let rest = self.bytes.get(at..).ok_or_else(|| bad.clone())?;
        let overflow = usize::try_from(u32_at(rest, 12).ok_or_else(|| bad.clone())?).map_err(|_| bad.clone())?;
        let length = overflow.checked_add(1).and_then(|pages| pages.checked_mul(self.page_size));
        if u64_at(rest, 0) != Some(id) {
            return Err(bad);
        }
        length.and_then(|length| rest.get(..length)).ok_or(bad)
    }
}

impl<'a> Bucket<'a> {
    /// Returns everything in the bucket, in the order of its keys.
    ///
    /// # Errors
    /// When a page is damaged, or more has been looked at than any database holds.
    pub fn items(&self) -> Result<Vec<(&'a [u8], Item<'a>)>, BadBolt> {
        let mut items = Vec::new();
        // No tree has more pages than its file.
        let mut left = self.bolt.bytes.len() / self.bolt.page_size;
        match self.place {
            Place::Page(id) => self.walk(id, DEPTH, &mut left, &mut items)?,
            Place::Inline(page) => self.leaf(page, 0, &mut items)?,
        }
        Ok(items)
    }

    /// Returns the bucket of that name in it.
    ///
    /// # Errors
    /// When a page is damaged.
    pub fn bucket(&self, name: &str) -> Result<Option<Bucket<'a>>, BadBolt> {
        Ok(self.items()?.into_iter().find_map(|(key, item)| match item {
            Item::Bucket(bucket) if key == name.as_bytes() => Some(bucket),
            _ => None,
        }))
    }

    /// Returns the value of that name in it; nothing when there is none, or a bucket.
    ///
    /// # Errors
    /// As [`Self::items`].
    pub fn value(&self, name: &str) -> Result<Option<&'a [u8]>, BadBolt> {
        Ok(self.items()?.into_iter().find_map(|(key, item)| match item {
            Item::Value(value) if key == name.as_bytes() => Some(value),
            _ => None,
        }))
    }

    /// Returns the buckets in it, by name.
    ///
    /// # Errors
    /// As [`Self::items`].
    pub fn buckets(&self) -> Result<Vec<(&'a [u8], Bucket<'a>)>, BadBolt> {
        let buckets = self.items()?.into_iter().filter_map(|(key, item)| match item {
            Item::Bucket(bucket) => Some((key, bucket)),
            Item::Value(_) => None,
        });
        Ok(buckets.collect())
    }

    fn walk(
        &self,
        id: u64,
        depth: usize,
        left: &mut usize,
        items: &mut Vec<(&'a [u8], Item<'a>)>,
    ) -> Result<(), BadBolt> {
        let depth = depth.checked_sub(1).ok_or(BadBolt::Endless)?;
        *left = left.checked_sub(1).ok_or(BadBolt::Endless)?;
        let page = self.bolt.page(id)?;
        match u16_at(page, 8) {
            Some(LEAF) => self.leaf(page, id, items),
            Some(BRANCH) => {
                for entry in entries(page) {
                    let child = u64_at(page, entry + 8).ok_or(BadBolt::Page(id))?;
                    self.walk(child, depth, left, items)?;
                }
                Ok(())
            }
            _ => Err(BadBolt::Page(id)),
        }
    }

    fn leaf(&self, page: &'a [u8], id: u64, items: &mut Vec<(&'a [u8], Item<'a>)>) -> Result<(), BadBolt> {
        let bad = || BadBolt::Page(id);
        if u16_at(page, 8) != Some(LEAF) {
            return Err(bad());
        }
        let left = self.bolt.items.get().checked_sub(entries(page).len()).ok_or(BadBolt::TooMany)?;
        self.bolt.items.set(left);
        for entry in entries(page) {
            let field = |n: usize| u32_at(page, entry + n).and_then(|v| usize::try_from(v).ok()).ok_or_else(bad);
            let (flags, place, key, value) = (field(0)?, field(4)?, field(8)?, field(12)?);
            let from = entry.checked_add(place).ok_or_else(bad)?;
            let until = from.checked_add(key).ok_or_else(bad)?;
            let end = until.checked_add(value).ok_or_else(bad)?;
            let (key, value) = (page.get(from..until).ok_or_else(bad)?, page.get(until..end).ok_or_else(bad)?);
            let item =
                if flags & 1 == 0 { Item::Value(value) } else { Item::Bucket(self.inner(value).ok_or_else(bad)?) };
            items.push((key, item));
        }
        Ok(())
    }

    fn inner(&self, value: &'a [u8]) -> Option<Bucket<'a>> {
        let place = match u64_at(value, 0)? {
            0 => Place::Inline(value.get(HEADER..)?),
            id => Place::Page(id),
        };
        Some(Bucket { bolt: self.bolt.clone(), place })
    }
}

/// Returns where the entries of a page begin; those that its length has no room for fail where they are read.
fn entries(page: &[u8]) -> impl ExactSizeIterator<Item = usize> + use<> {
    (0..usize::from(u16_at(page, 10).unwrap_or(0))).map(|n| HEADER + n * 16)
}

fn meta(bytes: &[u8], at: usize) -> Option<Bolt<'_>> {
    let meta = bytes.get(at..)?.get(HEADER..HEADER + SUMMED + 8)?;
    let summed = meta.get(..SUMMED)?;
    let is_whole = u32_at(meta, 0)? == MAGIC && u32_at(meta, 4)? == VERSION && u64_at(meta, SUMMED)? == fnv_1a(summed);
    let page_size = usize::try_from(u32_at(meta, 8)?).ok().filter(|size| PAGE_SIZES.contains(size))?;
    is_whole.then_some(())?;
    let items = Rc::new(Cell::new(MOST_ITEMS));
    Some(Bolt { bytes, page_size, root: u64_at(meta, 16)?, transaction: u64_at(meta, 48)?, items })
}

/// FNV-1a, 64 bits (Go's hash/fnv).
pub(crate) fn fnv_1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..)?.get(..2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..)?.get(..4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..)?.get(..8)?.try_into().ok()?))
}

#[cfg(test)]
#[path = "bolt_tests.rs"]
pub(crate) mod tests;
