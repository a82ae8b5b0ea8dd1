//! The pool of a Docker root made anew out of layers that are directories, with Docker's records of it.
//!
//! ```text
//! base           a file system, as Docker makes one
//! each layer     a snapshot of the one beneath, and done to it what its directory says; then compared with that
//! records        devicemapper/metadata/ID, deviceset-metadata, transaction-metadata
//! ```

use std::collections::{BTreeMap, HashSet};
use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use nix::errno::Errno;

use super::fits::{Fits, Unmade, holds};
use super::new_pool::{NewPool, Volume, is_full};
use super::sizes::unread;
use super::{Inner, apply, sizes};
use crate::engine::bookkeeping::{BASE, DEVICE_SET, Device, DeviceSet, TRANSACTION, Transaction, is_device_file};
use crate::engine::docker_objects::Objects;
use crate::engine::driver::Driver;
use crate::kernel::dm::Dm;
use crate::kernel::errno_of;
use crate::kernel::folder::Folder;
use crate::kernel::fs::{FsFacts, make_dir};
use crate::ops::contents::archive::{Difference, Measure, compare_with_flags, measure};
use crate::ops::contents::layer;
use crate::ops::contents::overlay2::{Part, of_chain, remove_tree};
use crate::ops::contents::tree::{Follow, Layer, Marks, Namespace, Tree, shown};
use crate::ops::fault::{self, Point};
use crate::ops::filesystem::{self, HEAD};
use crate::units::{BlockSize, Bytes};

/// The folder in each volume that has the files, and the file that says whose they are (graphdriver/devmapper/driver.go).
const FILES: &str = "rootfs";
const ID: &str = "id";
/// The folder in each layer's directory that has the files.
const DIFF: &str = "diff";
/// The first id that Docker gives (`getNextFreeDeviceID`, daemon/graphdriver/devmapper/deviceset.go).
const FIRST: u32 = 1;
/// How many differences are named.
const NAMED: usize = 5;
/// A name goes into that of a device, of which the kernel takes 127 bytes (`DM_NAME_LEN`, linux/dm-ioctl.h).
const LONGEST_NAME: usize = 90;
/// What stays free beside a pool that grows.
pub(in crate::ops) const BESIDE: Bytes = Bytes::new(64 << 20);

/// What a pool shall be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::ops) struct Wanted {
    /// How long its data file is.
    pub(in crate::ops) data: Bytes,
    /// How long its metadata file is.
    pub(in crate::ops) metadata: Bytes,
    /// The length of its blocks.
    pub(in crate::ops) block: BlockSize,
    /// How long the base device is, and every volume that was not told to be longer.
    pub(in crate::ops) base: Bytes,
    /// The file system in each.
    pub(in crate::ops) inner: Inner,
    /// What else Docker gives the program that makes it (`dm.mkfsarg`).
    pub(in crate::ops) arguments: Vec<String>,
}

/// What it is made of.
pub(in crate::ops) struct Source<'a> {
    /// The root, with Docker's other records, as for overlay2.
    pub(in crate::ops) objects: &'a Objects,
    /// Its layers, those beneath first.
    pub(in crate::ops) parts: &'a [Part],
    /// Where each has its directory, `ID/diff`: it is removed once it is in its volume.
    pub(in crate::ops) layers: &'a Path,
}

/// Refuses layers that can have no volume by that name.
///
/// # Errors
/// Which.
pub(in crate::ops) fn may_be_named(parts: &[Part]) -> Result<()> {
    for Part { id, whose, .. } in parts {
        let is_free = is_device_file(id) && id != BASE;
        ensure!(is_free && id.len() <= LONGEST_NAME, "{whose}: devicemapper can have no layer of the name {id}");
    }
    Ok(())
}

/// Makes the files of a pool in `home`, the driver's own directory, with a volume for each layer, and Docker's records. Nothing of it is up then.
/// `goes_on` is asked all the time; `said` gets how many layers are done. Returns the layers whose tar does not come out as Docker's digest
/// of it says, and why.
///
/// # Errors
/// Why not; what there is of it is to be removed, and nothing of it is up, or stays so.
pub(in crate::ops) fn make(
    dm: &Dm,
    home: &Path,
    wanted: &Wanted,
    fits: &Fits<'_>,
    from: &Source<'_>,
    goes_on: &dyn Fn() -> Result<()>,
    said: &mut dyn FnMut(usize),
) -> Result<Vec<String>, Unmade> {
    if let Some((whose, told)) = unread(from.objects) {
        return Err(Unmade::NoSize { whose: whose.to_owned(), told: told.to_owned() });
    }
    let (sizes, measures) = (sizes_of(from, wanted.base), measures(from)?);
    fits.look(from, wanted, &sizes, &measures)?;
    let pool = NewPool::make(dm, &home.join("devicemapper"), wanted.data, wanted.metadata, wanted.block)
        .context("making the new pool")?;
    let empty = home.join("empty");
    make_dir(&empty, 0o700)?;
    let (known, done) = (HashSet::new(), BTreeMap::new());
    let mut making = Making { pool, home, empty, wanted, fits, from, measures, known, done };
    let uuid = making.base()?;
    let mut differing = Vec::new();
    for (number, part) in from.parts.iter().enumerate() {
        goes_on()?;
        let size = sizes.get(&part.id).copied().unwrap_or(wanted.base);
        if let Some(why) = making.one(part, size, goes_on)? {
            differing.push(format!("{}: {why}", part.whose));
        }
        said(number + 1);
        fault::reached(from.parts.len() + number, Point::Layer)?;
    }
    let Making { pool, empty, done, .. } = making;
    fits.leaves_room(&pool.working()?, wanted.block)?;
    fs::remove_dir(&empty).context("removing an empty directory")?;
    let last = u64::try_from(done.len()).context("counting volumes")?;
    pool.finish(last).context("taking the new pool down")?;
    fault::reached(2 * from.parts.len(), Point::Layer)?;
    write_records(home, &done, &uuid, wanted.inner)?;
    Ok(differing)
}

/// Returns how long each volume shall be.
fn sizes_of(from: &Source<'_>, base: Bytes) -> BTreeMap<String, Bytes> {
    let device = Device { id: FIRST, size: base, transaction_id: 0, initialized: false, deleted: false };
    let volumes = from.parts.iter().map(|part| (part.id.clone(), device.clone())).collect();
    sizes(from.objects, &volumes, base)
}

/// Returns how much is in each layer.
fn measures(from: &Source<'_>) -> Result<BTreeMap<String, Measure>> {
    let of = |part: &Part| -> Result<Measure> {
        let folder = Folder::open(&from.layers.join(&part.id).join(DIFF))?;
        let tree = Tree::new(vec![Layer::new(folder, Marks::None)?]);
        let root = tree.resolve(Path::new("/"), Follow::Last).map_err(|why| anyhow::anyhow!("{why}"))?;
        Ok(measure(&tree, &root))
    };
    from.parts.iter().map(|part| Ok((part.id.clone(), of(part).with_context(|| part.whose.clone())?))).collect()
}

struct Making<'a> {
    pool: NewPool<'a>,
    home: &'a Path,
    /// A directory with nothing in it, on which the lowest layers lie.
    empty: PathBuf,
    wanted: &'a Wanted,
    fits: &'a Fits<'a>,
    from: &'a Source<'a>,
    /// How much is in each layer, by their names.
    measures: BTreeMap<String, Measure>,
    /// What was read and found right.
    known: HashSet<u64>,
    /// Docker's records, by the names of the volumes.
    done: BTreeMap<String, Device>,
}

impl Making<'_> {
    fn next_id(&self) -> Result<u32> {
        Ok(u32::try_from(self.done.len()).context("counting volumes")?.saturating_add(FIRST))
    }

    /// Makes the base device; returns the UUID of its file system.
    fn base(&mut self) -> Result<String, Unmade> {
        let (id, size) = (self.next_id()?, self.wanted.base);
        self.pool.create(id, None)?;
        let volume = self.pool.volume(id, size, false)?;
        let made = || -> Result<String> {
            self.wanted.inner.make(&volume.node(), &self.wanted.arguments)?;
            self.wanted.inner.with_root(&volume.node(), None, |_| Ok(()))?;
            let mut head = vec![0; HEAD];
            volume.file().read_exact_at(&mut head, 0).context("reading the beginning of the base device")?;
            ensure!(
                !filesystem::has_whole_seconds(&head),
                "its inodes are of 128 bytes, and keep times in whole seconds"
            );
            filesystem::uuid(&head).context("the base device has no file system that is known")
        };
        let made = made().with_context(|| format!("making a base device of {}", size.human()));
        volume.close()?;
        let uuid = match made {
            Ok(uuid) => uuid,
            Err(why) => return Err(self.unmade(why, "the base device", size, Bytes::default())),
        };
        self.pool.is_well().map_err(|why| self.unmade(why, "the base device", size, Bytes::default()))?;
        let device = Device { id, size, transaction_id: u64::from(id), initialized: true, deleted: false };
        self.done.insert(BASE.to_owned(), device);
        Ok(uuid)
    }

    /// Makes a layer's volume; returns why its tar does not come out, when it does not.
    fn one(&mut self, part: &Part, size: Bytes, goes_on: &dyn Fn() -> Result<()>) -> Result<Option<String>, Unmade> {
        let own = self.from.layers.join(&part.id);
        let beneath = part.below.first().map_or(BASE, String::as_str);
        let parent = self.done.get(beneath).cloned().context("the layer beneath is not there")?;
        let id = self.next_id()?;
        let context = || format!("making the volume of {}", part.whose);
        self.has_room(part)?;
        let created = self.pool.create(id, Some(parent.id)).with_context(context);
        created.map_err(|why| self.unmade(why, &part.whose, size, holds(&self.measures, part)))?;
        let device = Device { id, size, transaction_id: u64::from(id), initialized: false, deleted: false };
        let empty = self.empty.clone();
        // The base device has no files.
        let lower = (beneath != BASE).then(|| self.pool.volume(parent.id, parent.size, true)).transpose()?;
        let below = lower.as_ref().map(Volume::node);
        let trees = Trees { inner: self.wanted.inner, below: below.as_deref().ok_or(empty.as_path()), own: &own };
        let longer = (size > parent.size).then_some(size);
        let made = self.fill(part, &device, longer, &trees).and_then(|()| self.look(part, &device, &trees, goes_on));
        let closed = lower.map_or(Ok(()), Volume::close);
        let differs = match made.with_context(context) {
            Ok(differs) => differs,
            Err(why) => return Err(self.unmade(why, &part.whose, size, holds(&self.measures, part))),
        };
        closed?;
        self.pool.is_well().map_err(|why| self.unmade(why, &part.whose, size, holds(&self.measures, part)))?;
        self.done.insert(part.id.clone(), device);
        remove_tree(&own)?;
        Ok(differs)
    }

    /// Looks whether there is room for a layer beside itself.
    fn has_room(&self, part: &Part) -> Result<(), Unmade> {
        let bytes = self.measures.get(&part.id).map_or(0, |measure| measure.bytes.get());
        let needed = Bytes::new(bytes.saturating_add(bytes / 16).saturating_add(BESIDE.get()));
        let free = FsFacts::of(self.home)?.available;
        if free < needed { Err(Unmade::DiskFull { free, needed }) } else { Ok(()) }
    }

    /// Does to a snapshot of the volume beneath what its layer says.
    fn fill(&self, part: &Part, device: &Device, longer: Option<Bytes>, trees: &Trees<'_>) -> Result<()> {
        let (old, new) = trees.open()?;
        let volume = self.pool.volume(device.id, device.size, false)?;
        let written = self.wanted.inner.with_root(&volume.node(), longer, |root| {
            let files = files_in(root, &part.id)?;
            apply(&old, &new, &files, &|_| false)
        });
        let closed = volume.close();
        written.and(closed)
    }

    /// Compares a volume with what it shall be, and puts its layer's tar together; returns why that is not what it was.
    fn look(
        &mut self,
        part: &Part,
        device: &Device,
        trees: &Trees<'_>,
        goes_on: &dyn Fn() -> Result<()>,
    ) -> Result<Option<String>> {
        let (_, new) = trees.open()?;
        let volume = self.pool.volume(device.id, device.size, true)?;
        let mut look = || -> Result<Option<String>> {
            let files = self.wanted.inner.to_read(&volume.node())?.enter(OsStr::new(FILES))?;
            let found = Tree::new(vec![Layer::new(files, Marks::None)?]);
            is_the_same(&new, &found, &mut self.known, goes_on)?;
            Ok(digest(self.from.objects, part, found))
        };
        let looked = look();
        let closed = volume.close();
        looked.and_then(|differs| closed.map(|()| differs))
    }

    /// Says what it was that had no room.
    fn unmade(&self, why: anyhow::Error, whose: &str, size: Bytes, holds: Bytes) -> Unmade {
        let pool = self.pool.working().ok();
        if pool.as_ref().is_some_and(is_full) {
            let all = self.measures.values().fold(0_u64, |sum, own| sum.saturating_add(own.bytes.get()));
            return Unmade::PoolFull { needed: Bytes::new(all.max(self.wanted.data.get())) };
        }
        // The kernel writes no more some blocks before the last, and counts those that it keeps for that otherwise from version to version.
        if let Some(pool) = pool.filter(|pool| self.fits.has_full_metadata(pool)) {
            return Unmade::MetadataFull { used: pool.metadata_used.bytes() };
        }
        let free = FsFacts::of(self.home).map(|facts| facts.available).unwrap_or_default();
        if free < BESIDE {
            return Unmade::DiskFull { free, needed: BESIDE };
        }
        if errno_of(&why) == Some(Errno::ENOSPC) {
            return Unmade::TooSmall { whose: whose.to_owned(), size, holds };
        }
        Unmade::Other(why)
    }
}

/// Where the files are of a layer that is made.
struct Trees<'a> {
    inner: Inner,
    /// The node of the volume beneath; else a directory with nothing in it.
    below: Result<&'a Path, &'a Path>,
    /// The layer's own directory.
    own: &'a Path,
}

impl Trees<'_> {
    /// Returns what lies beneath the layer, and what it comes to over that.
    fn open(&self) -> Result<(Tree, Tree)> {
        let files = match self.below {
            Ok(node) => self.inner.to_read(node)?.enter(OsStr::new(FILES))?,
            Err(empty) => Folder::open(empty)?,
        };
        let lower = || -> Result<Layer> { Ok(Layer::new(files.enter(OsStr::new("."))?, Marks::None)?) };
        let upper = Layer::new(Folder::open(&self.own.join(DIFF))?, Marks::Overlay(Namespace::Trusted))?;
        Ok((Tree::new(vec![lower()?]), Tree::new(vec![upper, lower()?])))
    }
}

/// Puts a layer's tar together; says why it is not what it was.
fn digest(objects: &Objects, part: &Part, files: Tree) -> Option<String> {
    let (store, found) = of_chain(objects, Driver::Overlay2, part.chain.as_ref()?)?;
    if !found.tar_split {
        return None;
    }
    layer::comes_out(objects, store, found, files).err()
}

/// Returns the folder of a layer's files in its volume, which has one from the layer beneath, or is made as Docker does.
fn files_in(root: &Folder, name: &str) -> Result<Folder> {
    let (files, id) = (OsStr::new(FILES), OsStr::new(ID));
    if root.status(files)?.is_none() {
        root.make_folder(files)?;
        root.set_mode(files, 0o755)?;
    }
    if root.status(id)?.is_none() {
        root.make_file(id)?.write_all(name.as_bytes()).context("writing its name into it")?;
        root.set_mode(id, 0o600)?;
    }
    Ok(root.enter(files)?)
}

/// Compares what a volume has with what it shall have.
fn is_the_same(wanted: &Tree, found: &Tree, known: &mut HashSet<u64>, goes_on: &dyn Fn() -> Result<()>) -> Result<()> {
    let (mut count, mut differing) = (0_u64, Vec::new());
    let mut tell = |Difference { path, what }: Difference| {
        count += 1;
        if differing.len() < NAMED {
            differing.push(format!("/{}: {what}", shown(&path)));
        }
    };
    compare_with_flags(wanted, found, known, goes_on, &mut tell)?;
    ensure!(count == 0, "it is not what it shall be, {count} differences: {}", differing.join("; "));
    Ok(())
}

/// Writes what Docker keeps of the pool, and the folder that it mounts in. All of it is for whom the driver's own directory is.
fn write_records(home: &Path, volumes: &BTreeMap<String, Device>, uuid: &str, inner: Inner) -> Result<()> {
    let owner = fs::metadata(home)?;
    let records = home.join("metadata");
    for folder in [&records, &home.join("mnt")] {
        make_dir(folder, 0o700)?;
    }
    for folder in ["devicemapper", "metadata", "mnt"] {
        chown(home.join(folder), Some(owner.uid()), Some(owner.gid()))?;
    }
    let write = |name: &str, bytes: Vec<u8>| -> Result<()> {
        let path = records.join(name);
        fs::write(&path, bytes).with_context(|| format!("writing {}", path.display()))?;
        Ok(fs::set_permissions(&path, Permissions::from_mode(0o600))?)
    };
    for (name, device) in volumes {
        write(name, serde_json::to_vec(device)?)?;
    }
    let (hash, last) = volumes.iter().max_by_key(|(_, device)| device.id).context("there is no base device")?;
    let set =
        DeviceSet { next_device_id: last.id, base_uuid: uuid.to_owned(), base_filesystem: inner.name().to_owned() };
    write(DEVICE_SET, serde_json::to_vec(&set)?)?;
    let open = Transaction { id: last.transaction_id, device_hash: hash.clone(), device_id: last.id };
    write(TRANSACTION, serde_json::to_vec(&open)?)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn part(id: &str, below: &[&str]) -> Part {
        let below = below.iter().map(|id| (*id).to_owned()).collect();
        Part { id: id.to_owned(), below, chain: None, whose: "a layer".to_owned(), is_top: false }
    }

    #[test]
    fn a_layer_takes_no_name_of_a_record() {
        let may = |id: &str| may_be_named(&[part(id, &[])]).is_ok();
        let usual = format!("{}-init", "a".repeat(64));
        assert!(may(&usual) && may("x1uzpdkaq8tpbnlmz2dpoc7jn"));
        for id in [BASE, DEVICE_SET, TRANSACTION, &"a".repeat(91)] {
            assert!(!may(id), "{id}");
        }
    }
}
