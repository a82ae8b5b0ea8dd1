//! A pool's volumes made anew, with the same ids, in file systems of another size or kind: by files, each as a snapshot of the one it comes from.
//!
//! ```text
//! plan    whether all that is in them fits, by a file system that is made for a try
//! fill    the copy: what is whole is counted in the new pool's transaction id, as with blocks
//! compare the copy read back, file by file
//! ```

mod compare;
mod fill;
pub(in crate::ops::migrate) mod plan;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

pub use compare::compare;
pub use fill::fill;

use super::blocks::{Family, Member, Origin, Records, Source, Target, heads};
use crate::engine::bookkeeping::{BASE, DEVICE_SET, DeviceSet};
use crate::engine::docker_objects;
use crate::metadata::Details;
pub(super) use crate::ops::contents::devicemapper::sizes;
use crate::ops::contents::devicemapper::{FOUND, Inner};
use crate::ops::contents::source::{self, Reach};
use crate::ops::contents::tree::{Tree, Walk};
use crate::ops::filesystem;
use crate::ops::steps::{Kit, Swap};
use crate::pool::VolumeId;
use crate::units::Bytes;

/// What every volume becomes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Anew {
    /// How long the base device is, and every volume that was not told to be longer.
    pub size: Bytes,
    /// The file system in each.
    pub inner: Inner,
    /// What else Docker gives the program that makes it (`dm.mkfsarg`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub arguments: Vec<String>,
    /// Docker's folder of the records, where the old ones go, and where the new ones are made.
    pub records: Swap,
}

/// A volume that Docker has written down.
struct Named<'f> {
    id: VolumeId,
    name: &'f str,
    /// The one that it is a snapshot of.
    parent: Option<(VolumeId, &'f str)>,
}

impl Anew {
    /// Where the old records are.
    pub(in crate::ops) fn old_records(&self) -> &Path {
        if is_there(&self.records.aside) { &self.records.aside } else { &self.records.folder }
    }

    /// Where the new ones are, or are to be.
    pub(in crate::ops) fn new_records(&self) -> &Path {
        let is_placed = is_there(&self.records.aside) && !is_there(&self.records.made);
        if is_placed { &self.records.folder } else { &self.records.made }
    }

    /// Returns what is done with the volumes, as a sentence goes on.
    pub fn sentence(&self) -> String {
        format!("{} of {}, with the same files, as snapshots of each other", self.inner.name(), self.size.human())
    }

    /// Returns which of these volumes are made: those that Docker has written down.
    ///
    /// # Errors
    /// When a record cannot be read.
    pub fn ids(&self, details: &BTreeMap<u64, Details>) -> Result<BTreeSet<u64>> {
        let records = Records::read(self.old_records())?;
        let ids = records.volumes.values().map(|device| u64::from(device.id));
        Ok(ids.filter(|id| details.contains_key(id)).collect())
    }

    /// Returns Docker's files as they shall be: the sizes, and the base device's file system with its UUID.
    ///
    /// # Errors
    /// When one cannot be read, or the new base device has no such file system.
    pub fn files(&self, kit: &Kit, root: &Path, target: &Target) -> Result<BTreeMap<String, Vec<u8>>> {
        let records = Records::read(self.old_records())?;
        let objects = docker_objects::read(root)?;
        let mut files = records.with(&sizes(&objects, &records.volumes, self.size))?;
        files.retain(|name, _| !records.deleted.contains(name));
        let heads = heads(&Source::open(&kit.dm, &Origin::Pool(target.pool.clone()))?, &records)?;
        let base = heads.get(BASE).context("there is no base device in the new pool")?;
        let uuid = filesystem::uuid(&base.bytes).context("the new base device has no file system that is known")?;
        if let Some(set) = files.get_mut(DEVICE_SET) {
            *set = DeviceSet::with_base(set, &uuid, self.inner.name())?;
        }
        Ok(files)
    }
}

/// Returns the volumes that Docker has written down, each behind the one that it is a snapshot of.
fn named<'f>(family: &'f Family) -> Vec<Named<'f>> {
    let name_of = |id: VolumeId| -> Option<&'f str> {
        let member = family.members.iter().find(|member| member.id == id)?;
        member.record.as_ref().map(|(name, _)| name.as_str())
    };
    let of = |member: &'f Member| {
        let (name, _) = member.record.as_ref()?;
        let parent = member.parent.and_then(|parent| Some((parent, name_of(parent)?)));
        Some(Named { id: member.id, name, parent })
    };
    family.members.iter().filter_map(of).collect()
}

/// How many volumes of the old pool are open at once.
const OPEN: usize = 3;

/// The old pool's volumes that were opened last.
struct Opened<'a> {
    root: &'a Path,
    reach: Reach,
    open: Vec<(String, Rc<Tree>)>,
}

impl<'a> Opened<'a> {
    fn new(kit: &Kit, root: &'a Path) -> Self {
        Self { root, reach: Reach { state: kit.state.clone(), ..Reach::default() }, open: Vec::new() }
    }

    fn open(&mut self, name: &str) -> Result<Rc<Tree>> {
        if let Some(at) = self.open.iter().position(|(open, _)| open == name) {
            let found = self.open.remove(at);
            let tree = Rc::clone(&found.1);
            self.open.push(found);
            return Ok(tree);
        }
        let tree = Rc::new(source::volume(self.root, name, &self.reach)?);
        if self.open.len() >= OPEN {
            self.open.remove(0);
        }
        self.open.push((name.to_owned(), Rc::clone(&tree)));
        Ok(tree)
    }
}

/// Whether a volume has nothing in the directory that mkfs makes for e2fsck, or no such directory.
fn found_nothing(tree: &Tree) -> bool {
    match tree.node(Path::new(FOUND)) {
        Ok(node) => node.status.is_directory() && Walk::below(tree, Path::new(FOUND), &node).next().is_none(),
        Err(_) => true,
    }
}

fn is_there(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

/// Returns the node of a device with that name.
fn node(name: &str) -> PathBuf {
    crate::kernel::udev::node(name)
}
