//! What a Docker root says of its containers, images, layers and volumes, read from its files with no daemon's help.
//!
//! ```text
//! ROOT/containers/ID/                      a container's configuration and its log         (container)
//! ROOT/image/DRIVER/                       images, their names, and layers, of each driver (image, layer)
//! ROOT/graph/, ROOT/repositories-DRIVER    the same before Docker 1.10                     (legacy)
//! ROOT/volumes/, ROOT/vfs/dir/             volumes, and those of before Docker 1.9         (volume)
//! ROOT/network/files/                      networks                                        (network)
//! ROOT/DRIVER/                             the layers themselves                           (held)
//! ```
//!
//! All of it may be damaged or hostile. What cannot be read is a [`Problem`] of what it belongs to, and the rest is read. A
//! name that stands in a file is never followed before it was seen to lead nowhere else, and a symbolic link never.

mod container;
pub mod fields;
mod held;
mod image;
mod layer;
mod legacy;
mod log;
mod network;
mod reader;
mod time;
mod volume;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

pub use container::{CONTAINERS, Container, MountPoint, State};
pub use fields::Fields;
pub use image::{Image, Part, digits, is_name_of_nothing};
pub use layer::{Layer, Mount};
pub use log::{Form, Line, Lines, Stream};
pub use network::{Network, Pool, networks_in_database};
pub use reader::is_id;
pub use time::Time;
pub use volume::{DATA, Data, LOCAL, User, Volume, in_database as volumes_in_database};

use super::bookkeeping::Device;
use super::docker_root::{Problem, device_prefix};
use super::driver::{self, Driver};
use super::small_file::Directory;
use held::Held;
use reader::Reader;

/// Everything that a root says.
#[derive(Clone, Debug, PartialEq)]
pub struct Objects {
    /// The root, free of symbolic links.
    pub path: PathBuf,
    /// The drivers that have made layers here.
    pub drivers: Vec<Driver>,
    /// What the names of all thin devices begin with, where devicemapper has run.
    pub device_prefix: Option<String>,
    /// Images and layers, of each driver that has any.
    pub stores: Vec<Store>,
    /// The containers, by id.
    pub containers: Vec<Container>,
    /// The volumes, by name.
    pub volumes: Vec<Volume>,
    /// The networks, as far as this machine made them.
    pub networks: Vec<Network>,
    /// What could not be read and belongs to none of them.
    pub problems: Vec<Problem>,
}

/// What a storage driver has of images and layers.
#[derive(Clone, Debug, PartialEq)]
pub struct Store {
    /// The driver's name; it may be one that nobody knows any more.
    pub driver: String,
    /// Whether these are files of a Docker before 1.10.
    pub legacy: bool,
    /// The images, by id.
    pub images: Vec<Image>,
    /// The layers of images, by their ids in the database.
    pub layers: BTreeMap<String, Layer>,
    /// The layers of containers, by container; none before Docker 1.10, where the driver calls them by the container's id.
    pub mounts: BTreeMap<String, Mount>,
    /// The layers that the driver has, by its own names; nothing when they cannot be listed.
    pub held: Option<BTreeSet<String>>,
    /// The thin device of each of them, for devicemapper, as far as its record can be read.
    pub devices: BTreeMap<String, Device>,
}

impl Store {
    /// Returns the layers that the driver has and nothing in the root names: leftovers, what a build has cached, or those of
    /// whatever was lost of the root.
    pub fn nameless(&self, containers: &[Container], volumes: &[Volume]) -> Vec<&str> {
        let mut named: BTreeSet<&str> = self.layers.values().filter_map(|layer| layer.cache_id.as_deref()).collect();
        let of_containers = containers.iter().filter_map(|container| container.mount.as_ref());
        for mount in self.mounts.values().chain(of_containers) {
            named.extend(mount.mount_id.as_deref().into_iter().chain(mount.init_id.as_deref()));
        }
        named.extend(volumes.iter().filter_map(|volume| match &volume.data {
            Data::Here(path) => path.last().map(String::as_str),
            Data::Elsewhere(_) | Data::Missing => None,
        }));
        self.held.iter().flatten().map(String::as_str).filter(|name| !named.contains(name)).collect()
    }
}

/// Reads a root.
///
/// # Errors
/// When it cannot be opened.
pub fn read(path: &Path) -> io::Result<Objects> {
    read_in(&Directory::open(path)?)
}

/// As [`read`], of a root that is open.
///
/// # Errors
/// As [`read`].
pub fn read_in(root: &Directory) -> io::Result<Objects> {
    let path = root.path().canonicalize()?;
    let mut reader = Reader::default();
    let drivers = driver::of_root(root);
    let mut stores = Vec::new();
    if let Some(images) = reader.folder(root, "image") {
        for name in reader.names(&images) {
            stores.extend(store(root, &images, name, &mut reader));
        }
    }
    let legacy = legacy::stores(root, &drivers, &stores, &mut reader);
    stores.extend(legacy);
    for store in &mut stores {
        look_for_layers(store, &path);
    }
    let mut containers = container::read(root, &mut reader);
    for container in &mut containers {
        give_layer(container, &stores, &path);
    }
    containers.extend(without_folder(&containers, &stores, &path));
    containers.sort_by(|a, b| a.id.cmp(&b.id));
    let vfs_has_layers = stores.iter().any(|store| store.driver == Driver::Vfs.name());
    let volumes = volume::read(root, &containers, vfs_has_layers, &mut reader);
    let networks = network::read(root, &mut reader);
    let device_prefix =
        root.enter(Driver::Devicemapper.name()).and_then(|home| home.identity()).map(device_prefix).ok();
    Ok(Objects { path, drivers, device_prefix, stores, containers, volumes, networks, problems: reader.problems })
}

impl Objects {
    /// Whether there is nothing of what Docker keeps in a root.
    pub fn is_empty(&self) -> bool {
        self.drivers.is_empty() && self.stores.is_empty() && self.containers.is_empty() && self.volumes.is_empty()
    }

    /// Returns the store that a container's layers are in.
    pub fn store_of(&self, container: &Container) -> Option<&Store> {
        let of_driver = |store: &&Store| container.driver() == Some(store.driver.as_str());
        let has_it = |store: &&Store| store.mounts.contains_key(&container.id);
        self.stores.iter().find(of_driver).or_else(|| self.stores.iter().find(has_it))
    }

    /// Returns the image of a container, and the store that it is in.
    pub fn image_of(&self, container: &Container) -> Option<(&Store, &Image)> {
        let id = container.image_id()?;
        let within = |store: &'_ Store| store.images.iter().position(|image| image.id == id);
        let stores = self.store_of(container).into_iter().chain(&self.stores);
        stores
            .filter_map(|store| Some((store, within(store)?)))
            .find_map(|(store, at)| Some((store, store.images.get(at)?)))
    }
}

fn store(root: &Directory, images: &Directory, driver: String, reader: &mut Reader) -> Option<Store> {
    let folder = reader.folder(images, &driver)?;
    let layers = layer::layers(&folder, reader);
    let mounts = layer::mounts(&folder, reader);
    let images = image::images(&folder, &layers, reader);
    let Held { names: held, devices } = held::by(&driver, root, reader);
    // What a daemon leaves that only looked whether it could use the driver.
    let is_empty = layers.is_empty() && mounts.is_empty() && images.is_empty();
    (!is_empty).then_some(Store { driver, legacy: false, images, layers, mounts, held, devices })
}

/// Where a driver would have a layer.
fn place(root: &Path, driver: &str, name: &str) -> PathBuf {
    let below = match Driver::named(driver) {
        Some(Driver::Devicemapper) => "metadata",
        Some(Driver::Aufs) => "diff",
        Some(Driver::Btrfs) => "subvolumes",
        Some(Driver::Vfs) => "dir",
        _ => "",
    };
    root.join(driver).join(below).join(name)
}

/// Notes of each layer whether the driver has it.
fn look_for_layers(store: &mut Store, root: &Path) {
    let Some(held) = &store.held else { return };
    for layer in store.layers.values_mut() {
        let Some(name) = layer.cache_id.as_deref().filter(|name| !held.contains(*name)) else { continue };
        let path = place(root, &store.driver, name);
        layer
            .problems
            .push(Problem { path, why: format!("it is missing: the {} driver has no such layer", store.driver) });
    }
}

/// Finds a container's own layer, and notes when it is not there.
fn give_layer(container: &mut Container, stores: &[Store], root: &Path) {
    let driver = container.driver().map(str::to_owned);
    let of_driver = |store: &&Store| Some(&store.driver) == driver.as_ref();
    let has_it = |store: &&Store| store.mounts.contains_key(&container.id);
    let store = stores.iter().find(of_driver).or_else(|| stores.iter().find(has_it));
    let folder = root.join(CONTAINERS).join(&container.id);
    let Some(store) = store else {
        if let Some(driver) = driver {
            let why = format!("its layer is the {driver} driver's, of which nothing is here");
            container.problems.push(Problem { path: folder, why });
        }
        return;
    };
    container.mount = if store.legacy {
        Some(Mount {
            mount_id: Some(container.id.clone()),
            init_id: Some(format!("{}-init", container.id)),
            parent: container.image_id().map(str::to_owned),
            problems: Vec::new(),
        })
    } else {
        store.mounts.get(&container.id).cloned()
    };
    let Some(mount) = &container.mount else {
        let path = root.join("image").join(&store.driver).join("layerdb/mounts").join(&container.id);
        container.problems.push(Problem { path, why: "it is missing: which layer is its own is not known".to_owned() });
        return;
    };
    container.problems.extend(mount.problems.iter().cloned());
    let (Some(held), Some(name)) = (&store.held, &mount.mount_id) else { return };
    if !held.contains(name) {
        let path = place(root, &store.driver, name);
        let why = format!("it is missing: the {} driver does not have its layer", store.driver);
        container.problems.push(Problem { path, why });
    }
}

/// Containers of which only the layer is left. A builder's layers have names that are no ids.
fn without_folder(containers: &[Container], stores: &[Store], root: &Path) -> Vec<Container> {
    let mut known: BTreeSet<&str> = containers.iter().map(|container| container.id.as_str()).collect();
    let mounts = stores.iter().flat_map(|store| &store.mounts);
    // One that two drivers have is one all the same.
    mounts
        .filter(|(id, _)| is_id(id) && known.insert(id.as_str()))
        .map(|(id, mount)| {
            let why = "it is missing: only the container's layer is left".to_owned();
            let mut problems = vec![Problem { path: root.join(CONTAINERS).join(id), why }];
            problems.extend(mount.problems.iter().cloned());
            Container {
                id: id.clone(),
                config: serde_json::Value::Null,
                host_config: serde_json::Value::Null,
                legacy: false,
                mount: Some(mount.clone()),
                problems,
            }
        })
        .collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]
mod tests;
