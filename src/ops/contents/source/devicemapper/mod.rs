//! devicemapper: each layer is a thin device with a file system of its own, and the files are in its `rootfs`.
//!
//! A pool that is active is used as it is, with one more device on it that is read-only. Else one is put together that has
//! Docker's data read-only and a copy of its metadata in memory, so that nothing can reach either. Where the kernel does not do
//! that, the blocks of a volume are copied to an image, by the same copy of the metadata.

mod compare;
mod down;
mod filesystem;
mod image;
mod live;
mod metadata;
mod parts;
mod pool;
mod unrecorded;
mod volumes;
mod work_dir;

use std::cell::OnceCell;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::Path;

pub use compare::compare;
pub use filesystem::Head;
pub use unrecorded::Seen;

use super::{Below, Opened, Place, Reach};
use crate::engine::bookkeeping::{self, Device};
use crate::engine::docker_root::DockerRoot;
use crate::engine::driver::Driver;
use crate::engine::roots;
use crate::engine::small_file::Directory;
use crate::error::{Failure, Outcome};
use crate::kernel::dm::Dm;
use crate::kernel::folder::Folder;
use crate::kernel::identity;
use crate::kernel::interrupt::Held;
use crate::ops::contents::tree::{Layer, Marks, Tree};
use crate::ops::docker;
use crate::process::as_root;
use crate::units::Bytes;
use volumes::Volumes;

/// The folder in each thin device that has the files (graphdriver/devmapper/driver.go).
const FILES: &str = "rootfs";

/// Docker's records are some hundred bytes long.
const LARGEST_RECORD: u64 = 64 << 10;

/// What was learned on the way to the files.
#[derive(Debug, Default)]
struct Said {
    lost: Vec<String>,
    notes: Vec<String>,
    mounted: Option<String>,
}

/// A volume of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Volume {
    id: u32,
    size: Bytes,
}

pub(super) fn open(place: &Place<'_>) -> Outcome<Opened> {
    if !identity::is_root() {
        let failure = place.refused("devices and file systems are for root").fact("state", "nothing was touched");
        return Err(failure.next(as_root()));
    }
    let recorded = record(place);
    let root = docker_root(place)?;
    // What is half made is finished before a signal ends the process; from then on the kernel takes it down by itself.
    let held = Held::hold().map_err(|e| place.refused("signals cannot be held back").because(e))?;
    let mut said = Said::default();
    let dm = volumes::device_mapper(place, &mut said)?;
    let volumes = Volumes::of(place, &root, dm.as_ref(), &held, &mut said)?;
    let volume = match recorded {
        Ok(Device { id, size, .. }) => Volume { id, size },
        Err(why) => unrecorded::find(place, &volumes, &why, &mut said)?,
    };
    let folder = volumes.files(volume, &mut said)?;
    let layer = Layer::new(folder, Marks::None).map_err(|e| unread(place, e.into()))?;
    let Said { lost, notes, mounted } = said;
    Ok(Opened { tree: Tree::new(vec![layer]), lost, notes, mounted })
}

/// Opens the whole file system on a volume of devicemapper's, not only a layer's files in it, by the name of its record. Nobody may have it
/// mounted.
///
/// # Errors
/// When there is no record, the volume cannot be read, or anything of it is missing.
pub(in crate::ops) fn volume(root: &Path, name: &str, reach: &Reach) -> Outcome<Tree> {
    let below = Below { ids: Vec::new(), whole: true };
    let driver = Driver::Devicemapper.name();
    let place = Place { root, driver, id: name, below: &below, reach, opened: OnceCell::new() };
    let Device { id, size, .. } = record(&place).map_err(|why| place.refused(why))?;
    let docker_root = docker_root(&place)?;
    let held = Held::hold().map_err(|e| place.refused("signals cannot be held back").because(e))?;
    let mut said = Said::default();
    let dm = volumes::device_mapper(&place, &mut said)?;
    let volumes = Volumes::of(&place, &docker_root, dm.as_ref(), &held, &mut said)?;
    let folder = volumes.file_system(Volume { id, size }, &mut said)?;
    if let Some(lost) = said.lost.first() {
        return Err(place.refused(lost));
    }
    let layer = Layer::new(folder, Marks::None).map_err(|e| unread(&place, e.into()))?;
    Ok(Tree::new(vec![layer]))
}

/// Returns what keeps the pool of a Docker that runs from giving all that is on it, in words; nothing of one that is in service.
pub(in crate::ops) fn out_of_service(root: &Path) -> Option<String> {
    let dm = match Dm::open() {
        Ok(dm) => dm,
        Err(e) => return Some(e.to_string()),
    };
    let pool = match roots::at(root, &docker::answers) {
        Ok(Some(root)) => live::Pool::of(&dm, &root),
        Ok(None) => Ok(None),
        Err(e) => Err(e.into()),
    };
    match pool {
        Ok(Some(pool)) => pool.gives(&dm).why_not_all().map(|why| format!("of the pool `{}`: {why}", pool.name)),
        Ok(None) => Some("its pool is not active".to_owned()),
        Err(e) => Some(format!("{e:#}")),
    }
}

/// Reads what Docker has written down of the layer's device; why not, when it says nothing.
fn record(place: &Place<'_>) -> Result<Device, String> {
    let path = place.path(&["metadata", place.id]);
    let text = place.text(&["metadata", place.id])?.ok_or_else(|| format!("no {}", path.display()))?;
    Device::parse(text.as_bytes()).map_err(|e| format!("{}: {e}", path.display()))
}

/// Returns the ids of the volumes that have a record: also those that Docker is to delete, and the base.
fn recorded(root: &Path) -> BTreeSet<u64> {
    let home = Directory::open(root).and_then(|root| root.enter(Driver::Devicemapper.name()));
    let Ok(records) = home.and_then(|home| home.enter("metadata")) else { return BTreeSet::new() };
    let names = records.names().unwrap_or_default();
    let devices = names.iter().filter_map(|name| name.to_str()).filter(|name| bookkeeping::is_device_file(name));
    devices.filter_map(|name| Some(Device::parse(&records.read(name, LARGEST_RECORD).ok()?).ok()?.id.into())).collect()
}

fn docker_root(place: &Place<'_>) -> Outcome<DockerRoot> {
    let found = roots::at(place.root, &docker::answers).map_err(|e| unread(place, e.into()))?;
    found.ok_or_else(|| place.refused("the storage driver does not have it"))
}

fn unread(place: &Place<'_>, why: anyhow::Error) -> Failure {
    match why.downcast::<Failure>() {
        Ok(failure) => failure,
        Err(why) => place
            .refused("its thin device cannot be read")
            .fact("state", "nothing of the source was written; nothing is left mounted")
            .because(why),
    }
}

/// Returns the files of a layer on its file system.
fn files_in(root: &Folder) -> anyhow::Result<Folder> {
    Ok(root.enter(OsStr::new(FILES))?)
}
