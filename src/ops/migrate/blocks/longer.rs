//! The file systems of a pool's volumes made as long as the base device shall be, each mounted where nobody sees it.
//!
//! How long a volume is is no business of the pool's: Docker's record of it says it, and the table of its device.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use super::fill::Target;
use super::source::{Origin, Source};
use crate::engine::bookkeeping::{self, Device};
use crate::engine::small_file::Directory;
use crate::kernel::fs::{FsFacts, longer_ext4, longer_xfs, sync_open};
use crate::kernel::{apart, udev};
use crate::ops::fault::{self, Point};
use crate::ops::filesystem::{self, FileSystem, Growth, HEAD, growth};
use crate::ops::progress::{Progress, may_go_on};
use crate::ops::sight;
use crate::ops::steps::Kit;
use crate::pool::{Mode, VolumeId, Working};
use crate::units::{Bytes, DataBlocks, MetaBlock, MetaBlocks};

/// Docker's records are some hundred bytes long.
const LARGEST_RECORD: u64 = 64 << 10;
/// A file system leaves as much at the end as does not make a group of its own.
const REMAINDER: Bytes = Bytes::new(16 << 20);

/// Docker's records of a pool's volumes: every file of the folder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Records {
    /// The volumes, by their names.
    pub volumes: BTreeMap<String, Device>,
    /// The names of those that Docker has deleted, and emptied; they are in the pool until nobody has them open (deferred deletion).
    pub deleted: BTreeSet<String>,
    /// What each file says, by its name.
    pub files: BTreeMap<String, Vec<u8>>,
}

impl Records {
    /// Reads them all.
    ///
    /// # Errors
    /// When one cannot be read, or is not what Docker writes.
    pub fn read(folder: &Path) -> Result<Self> {
        let directory = Directory::open(folder).with_context(|| format!("opening {}", folder.display()))?;
        let mut records = Self::default();
        for name in directory.names().with_context(|| format!("listing {}", folder.display()))? {
            let context = || format!("reading {}", folder.join(&name).display());
            let name = name.to_str().with_context(context)?.to_owned();
            // What Docker was about to write when it died, and passes over.
            if name.starts_with('.') {
                continue;
            }
            let bytes = directory.read(&name, LARGEST_RECORD).with_context(context)?;
            if bookkeeping::is_device_file(&name) {
                let device = Device::parse(&bytes).with_context(context)?;
                if device.deleted {
                    records.deleted.insert(name.clone());
                } else {
                    records.volumes.insert(name.clone(), device);
                }
            }
            records.files.insert(name, bytes);
        }
        Ok(records)
    }

    /// Returns the files as they say these sizes of these volumes, and all else as it is.
    ///
    /// # Errors
    /// When a file is not what Docker writes.
    pub fn with(&self, sizes: &BTreeMap<String, Bytes>) -> Result<BTreeMap<String, Vec<u8>>> {
        let mut files = self.files.clone();
        for (name, size) in sizes {
            let file = files.get_mut(name).with_context(|| format!("looking for the record {name}"))?;
            *file = Device::with_size(file, *size)?;
        }
        Ok(files)
    }
}

/// What is at the beginning of a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The volume.
    pub id: VolumeId,
    /// The bytes.
    pub bytes: Vec<u8>,
    /// The file system; nothing when none is known there.
    pub found: Option<FileSystem>,
}

/// Reads the beginning of every volume of which there is a record; those that the pool does not have are left out.
///
/// # Errors
/// When the pool cannot be read.
pub fn heads(source: &Source, records: &Records) -> Result<BTreeMap<String, Head>> {
    let roots = source.metadata.roots()?;
    let mut heads = BTreeMap::new();
    for (name, device) in &records.volumes {
        let (Some(id), Some(root)) = (VolumeId::new(device.id), roots.get(&u64::from(device.id))) else { continue };
        let bytes = head(source, *root).with_context(|| format!("reading the beginning of the volume {id}"))?;
        heads.insert(name.clone(), Head { id, found: filesystem::parse(&bytes), bytes });
    }
    Ok(heads)
}

fn head(source: &Source, root: MetaBlock) -> Result<Vec<u8>> {
    match source.metadata.extents(Some(root)).next().transpose()? {
        Some(first) if first.at == 0 => source.read(first.from, HEAD),
        _ => Ok(Vec::new()),
    }
}

/// Returns how long a volume shall be when none is shorter than `base`, nor its file system; nothing when it is as it shall be. A file
/// system that somebody has made longer than the record of its volume counts as it is: Docker could not mount it.
pub fn wanted(record: &Device, found: &FileSystem, base: Bytes) -> Option<Bytes> {
    let wanted = record.size.max(base).max(found.size);
    (wanted > record.size || is_shorter(found.size, base)).then_some(wanted)
}

fn is_shorter(size: Bytes, base: Bytes) -> bool {
    base.saturating_sub(size) >= REMAINDER
}

/// Makes every volume, and the file system on it, as long as `base` at least, and returns how long those are that were shorter. `place` is where
/// the pool's files are, when it has files.
///
/// # Errors
/// [`crate::ops::progress::Interrupted`] when somebody wants an end; when there is too little room, a file system is damaged, or the
/// kernel does not take it.
pub fn lengthen(
    kit: &Kit,
    target: &Target,
    records: &Records,
    base: Bytes,
    place: Option<&Path>,
) -> Result<BTreeMap<String, Bytes>> {
    target.sweep(kit)?;
    // All of it before the first is changed: the trees are written anew then.
    let heads = heads(&Source::open(&kit.dm, &Origin::Pool(target.pool.clone()))?, records)?;
    let mut sizes = BTreeMap::new();
    let mut todo = Vec::new();
    let mut takes = Growth::default();
    for (name, record) in &records.volumes {
        let Some(head) = heads.get(name) else { continue };
        let context = || format!("there is no XFS and no ext4 on the volume {} ({name})", head.id);
        let found = head.found.with_context(context)?;
        if let Some(to) = wanted(record, &found, base) {
            takes = takes.and(growth(&head.bytes, to, target.block.bytes()).unwrap_or_default());
            todo.push((name, head.id, found, to));
            sizes.insert(name.clone(), to);
        }
    }
    if !todo.is_empty() {
        room(kit, target, takes, place)?;
    }
    let total = todo.iter().fold(0_u64, |sum, (.., to)| sum.saturating_add(to.get()));
    let mut progress = Progress { what: "growing file systems", done: Bytes::default(), total: Bytes::new(total) };
    for (number, (name, id, found, to)) in todo.into_iter().enumerate() {
        may_go_on()?;
        let context = || format!("growing the file system of the volume {id} ({name}) to {}", to.human());
        one(kit, target, id, found, to).with_context(context)?;
        progress.done = Bytes::new(progress.done.get().saturating_add(to.get()));
        kit.watcher.tell(&progress);
        fault::reached(number, Point::Layer)?;
    }
    is_well(kit, target)?;
    Ok(sizes)
}

/// Looks whether the pool has taken all that was written to file systems on it. A kernel that has no room left says so to the pool's status only:
/// what it wrote late is lost then.
pub(in crate::ops::migrate) fn is_well(kit: &Kit, target: &Target) -> Result<()> {
    let status = sight::status(&kit.dm, &target.pool)?;
    let is_well =
        |pool: &&Working| pool.mode.is_none_or(|mode| mode == Mode::ReadWrite) && pool.data_used < pool.data_total;
    ensure!(
        status.working().filter(is_well).is_some(),
        "`{}` is not well after its file systems were written: {status:?}",
        target.pool
    );
    Ok(())
}

/// Looks whether there is room for it: what a mounted file system cannot write later on is lost.
fn room(kit: &Kit, target: &Target, takes: Growth, place: Option<&Path>) -> Result<()> {
    let status = sight::status(&kit.dm, &target.pool)?;
    let Some(working) = status.working() else { bail!("`{}` does not work: {status:?}", target.pool) };
    let free = working.data_total.get().saturating_sub(working.data_used.get());
    let data = |blocks: u64| target.block.bytes_of(DataBlocks::new(blocks));
    ensure!(
        takes.data <= free,
        "the larger file systems need {}, and `{}` has {} left",
        data(takes.data).exact(),
        target.pool,
        data(free).exact()
    );
    let left = MetaBlocks::new(working.metadata_total.get().saturating_sub(working.metadata_used.get()));
    ensure!(
        takes.metadata <= left,
        "the larger file systems need {} of metadata, and `{}` has {} left",
        takes.metadata.bytes().exact(),
        target.pool,
        left.bytes().exact()
    );
    let Some(place) = place else { return Ok(()) };
    let available = FsFacts::of(place)?.available;
    let needed = Bytes::new(data(takes.data).get().saturating_add(takes.metadata.bytes().get()));
    ensure!(
        needed <= available,
        "the larger file systems need {}, and {} is left at {}",
        needed.exact(),
        available.exact(),
        place.display()
    );
    Ok(())
}

fn one(kit: &Kit, target: &Target, id: VolumeId, found: FileSystem, to: Bytes) -> Result<()> {
    let device = target.device(kit, id, to.get(), false)?;
    let grow = || -> Result<()> {
        let node = udev::node(device.name());
        // All layers have one file system's UUID.
        let root = match found.kind {
            filesystem::XFS => apart::mounted_to_write(&node, "xfs", "nouuid")?,
            _ => apart::mounted_to_write(&node, "ext4", "")?,
        };
        match found.kind {
            filesystem::XFS => longer_xfs(&root, to)?,
            _ => longer_ext4(&root, to)?,
        }
        // When it is unmounted nobody is told what could not be written.
        Ok(sync_open(&root)?)
    };
    let grown = grow();
    let closed = device.close();
    grown?;
    closed
}

/// Looks whether the file system of every volume is as long as its record says, and at least as long as `base`.
///
/// # Errors
/// When one is shorter, naming it; when the pool cannot be read.
pub fn are_long(kit: &Kit, target: &Target, records: &Records, base: Bytes) -> Result<()> {
    target.sweep(kit)?;
    let heads = heads(&Source::open(&kit.dm, &Origin::Pool(target.pool.clone()))?, records)?;
    for (name, record) in &records.volumes {
        let Some(head) = heads.get(name) else { continue };
        let size = head.found.map(|found| found.size).unwrap_or_default();
        ensure!(
            !is_shorter(size, base) && record.size >= base && size <= record.size,
            "the file system of the volume {} ({name}) has {}, and the volume {}",
            head.id,
            size.exact(),
            record.size.exact()
        );
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use std::fs;

    use super::*;

    const G: u64 = 1 << 30;

    #[test]
    fn what_is_shorter_becomes_as_long_as_the_base_and_nothing_becomes_shorter() {
        let record = |gib: u64| Device {
            id: 1,
            size: Bytes::new(gib * G),
            transaction_id: 1,
            initialized: false,
            deleted: false,
        };
        let found = |gib: u64| FileSystem { kind: filesystem::XFS, size: Bytes::new(gib * G) };
        let to = |volume, inside, base: u64| {
            wanted(&record(volume), &found(inside), Bytes::new(base * G)).map(|to| to.get() / G)
        };
        assert_eq!(to(10, 10, 50), Some(50));
        assert_eq!(to(50, 50, 50), None);
        assert_eq!(to(60, 60, 50), None);
        // Made longer by hand, and the record was not.
        assert_eq!(to(10, 20, 50), Some(50));
        assert_eq!(to(10, 80, 50), Some(80));
        assert_eq!(to(60, 80, 50), Some(80));
        // Docker died between the record and the file system.
        assert_eq!(to(60, 10, 50), Some(60));
        assert_eq!(to(60, 50, 50), None);
    }

    #[test]
    fn records_are_read_whole_and_only_sizes_are_written() {
        let temp = tempfile::tempdir().unwrap();
        let record = |id: u32, size: u64| {
            format!(r#"{{"device_id":{id},"size":{size},"transaction_id":{id},"initialized":false,"deleted":false}}"#)
        };
        let open = r#"{"open_transaction_id":3,"device_hash":"aa-init","device_id":3}"#;
        let gone = record(3, G).replace(r#""deleted":false"#, r#""deleted":true"#);
        for (name, text) in [
            ("base", record(1, G)),
            ("aa", record(2, G)),
            ("cc", gone.clone()),
            ("transaction-metadata", open.to_owned()),
            (".tmp1", String::new()),
        ] {
            fs::write(temp.path().join(name), text).unwrap();
        }
        let records = Records::read(temp.path()).unwrap();
        assert_eq!(records.volumes.keys().collect::<Vec<_>>(), ["aa", "base"]);
        assert_eq!(records.deleted.iter().collect::<Vec<_>>(), ["cc"]);
        let files = records.with(&[("aa".to_owned(), Bytes::new(2 * G))].into()).unwrap();
        assert_eq!(files.keys().collect::<Vec<_>>(), ["aa", "base", "cc", "transaction-metadata"]);
        assert_eq!(files["aa"], record(2, 2 * G).into_bytes());
        assert_eq!(files["cc"], gone.into_bytes());
        assert_eq!(
            (&files["base"], &files["transaction-metadata"]),
            (&record(1, G).into_bytes(), &open.as_bytes().to_vec())
        );
        assert!(records.with(&[("gone".to_owned(), Bytes::GIB)].into()).is_err());
        fs::write(temp.path().join("bb"), "").unwrap();
        assert!(format!("{:#}", Records::read(temp.path()).unwrap_err()).contains("bb"));
    }
}
