//! What of a root is saved: its driver, what is left out, and where things are.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use super::contents::{DATABASE, LAYERS, Owner, VOLUMES};
use serde_json::Value;

use crate::engine::docker_objects::{CONTAINERS, Container, DATA, Data, Image, Objects, Store, is_id};
use crate::engine::docker_root::Problem;
use crate::engine::driver::Driver;
use crate::error::{Failure, Outcome};
use crate::kernel::folder::{FileKind, Folder};
use crate::ops::contents::source;
use crate::ops::contents::tree::{Follow, Layer, Marks, Resolved, Tree};
use crate::ops::rescue::{self, Object};
use crate::ops::volumes_of_docker::is_volume_name;

/// What is made anew by Docker when it is not there.
const MADE_ANEW: [&str; 6] = ["tmp", "runtimes", "containerd", "engine-id", "nuke-graph-directory.sh", "lost+found"];

/// Returns the driver whose layers are saved: the one that is named, or the only one.
pub(super) fn driver(objects: &Objects, named: Option<&str>, refuse: &dyn Fn(String) -> Failure) -> Outcome<Driver> {
    let has: Vec<&str> = objects.stores.iter().map(|store| store.driver.as_str()).collect();
    let found = has.join(", ");
    let name = match (named, has.as_slice()) {
        (Some(named), all) if all.contains(&named) => named,
        (Some(named), _) => {
            return Err(refuse(format!("it has nothing of the storage driver {named}")).fact("found", found));
        }
        (None, [only]) => only,
        (None, []) => {
            return Err(refuse("it has neither images nor containers".to_owned())
                .next("dmpool volumes list    # volumes alone are saved by dmpool volumes save"));
        }
        (None, [first, ..]) => {
            return Err(refuse("several storage drivers have images in it".to_owned())
                .fact("found", &found)
                .next(format!("say which one Docker uses: --driver {first}")));
        }
    };
    Driver::named(name).ok_or_else(|| refuse(format!("nobody knows the storage driver {name}")))
}

/// Takes what is named out of the objects, as if the root had never had it; returns the paths below `image/DRIVER` that go with it.
///
/// # Errors
/// As [`rescue::object`].
pub(super) fn without(objects: &mut Objects, driver: Driver, names: &[String]) -> Outcome<BTreeSet<PathBuf>> {
    let mut gone = BTreeSet::new();
    let (mut containers, mut images) = (BTreeSet::new(), BTreeSet::new());
    for name in names {
        match rescue::object(objects, name, None)? {
            Object::Container(container) => drop(containers.insert(container.id.clone())),
            Object::Image(_, image) => drop(images.insert(image.id.clone())),
        }
    }
    objects.containers.retain(|container| !containers.contains(&container.id));
    let Some(store) = objects.stores.iter_mut().find(|store| store.driver == driver.name()) else { return Ok(gone) };
    for id in &containers {
        store.mounts.remove(id);
        gone.insert(Path::new("layerdb/mounts").join(id));
    }
    for image in store.images.iter().filter(|image| images.contains(&image.id)) {
        for kind in ["content", "metadata"] {
            gone.insert(Path::new("imagedb").join(kind).join("sha256").join(image.digits()));
        }
    }
    store.images.retain(|image| !images.contains(&image.id));
    Ok(gone)
}

/// Returns `repositories.json` without the names of images that are left out, by what is gone below `image/DRIVER`; nothing when it is
/// not what Docker writes.
pub(super) fn names_left(json: &[u8], gone: &BTreeSet<PathBuf>) -> Option<Vec<u8>> {
    let mut all: Value = serde_json::from_slice(json).ok()?;
    let of_all = all.get_mut("Repositories")?.as_object_mut()?;
    let is_left = |id: &Value| {
        let digits = id.as_str().and_then(|id| id.strip_prefix("sha256:")).unwrap_or_default();
        !gone.contains(&Path::new("imagedb/content/sha256").join(digits))
    };
    for names in of_all.values_mut().filter_map(Value::as_object_mut) {
        names.retain(|_, id| is_left(id));
    }
    of_all.retain(|_, names| names.as_object().is_none_or(|names| !names.is_empty()));
    serde_json::to_vec(&all).ok()
}

/// Takes layers out of the objects that no image and no container stands on: caches of builds, and what Docker has begun to remove.
/// Their paths below `image/DRIVER` are added; returns what there is to say of them.
pub(super) fn prune(objects: &mut Objects, driver: Driver, gone: &mut BTreeSet<PathBuf>) -> Vec<String> {
    let mut left = Vec::new();
    let Some(store) = objects.stores.iter_mut().find(|store| store.driver == driver.name()) else { return left };
    let needed = needed(store);
    store.layers.retain(|chain, _| {
        let stays = needed.contains(chain);
        if !stays {
            gone.insert(Path::new("layerdb").join(chain.replacen(':', "/", 1)));
            left.push(format!("layer {chain}: no image and no container that is in it stands on it"));
        }
        stays
    });
    left
}

/// Returns the layers that images and containers stand on.
fn needed(store: &Store) -> BTreeSet<String> {
    let tops = store.images.iter().filter_map(Image::top);
    let tops = tops.chain(store.mounts.values().filter_map(|mount| mount.parent.as_deref()));
    let mut needed = BTreeSet::new();
    for top in tops {
        let mut next = Some(top);
        while let Some(chain) = next.filter(|chain| needed.insert((*chain).to_owned())) {
            next = store.layers.get(chain).and_then(|layer| layer.parent.as_deref());
        }
    }
    needed
}

/// A directory of the root, or a name in one.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) tree: Tree,
    pub(super) from: Resolved,
}

/// Opens a path of the root, of single names; through no link.
pub(super) fn open(root: &Path, path: &Path) -> Result<Open, String> {
    let folder = path.iter().fold(source::opened(root), |folder, name| folder.and_then(|folder| folder.enter(name)));
    of_folder(folder.map_err(|e| e.to_string())?, OsStr::new("/"))
}

/// Opens one name in a folder, or with `/` all of it.
pub(super) fn of_folder(folder: Folder, name: &OsStr) -> Result<Open, String> {
    let tree = Tree::new(vec![Layer::new(folder, Marks::None).map_err(|e| e.to_string())?]);
    let from = tree.resolve(Path::new(name), Follow::Parents).map_err(|why| why.to_string())?;
    Ok(Open { tree, from })
}

/// The folders of the root that stay what they are.
pub(super) fn directories(root: &Path, driver: Driver) -> Vec<(String, Owner)> {
    let owner = |path: &Path| {
        let folder =
            path.iter().fold(source::opened(root), |folder, name| folder.and_then(|folder| folder.enter(name)));
        let status = folder.and_then(|folder| folder.own_status()).ok()?;
        Some(Owner { mode: status.mode, uid: status.uid, gid: status.gid })
    };
    let places = [("", ""), (CONTAINERS, CONTAINERS), ("image", "image"), (VOLUMES, VOLUMES), (LAYERS, driver.name())];
    places.into_iter().filter_map(|(name, path)| Some((name.to_owned(), owner(Path::new(path))?))).collect()
}

/// Whether a container is saved: it has a folder, and the driver has its layer.
pub(super) fn is_taken(container: &Container, store: &Store) -> bool {
    is_id(&container.id)
        && !container.config.is_null()
        && (container.driver() == Some(store.driver.as_str()) || store.mounts.contains_key(&container.id))
}

/// The volumes of a root.
#[derive(Debug, Default)]
pub(super) struct Volumes {
    /// Those with files in the root.
    pub(super) taken: Vec<String>,
    /// What is none, and why.
    pub(super) left: Vec<String>,
    /// What cannot be looked at, by path below the root.
    pub(super) unread: Vec<Problem>,
}

/// Returns the volumes whose directory is in the root. One without `_data` has no files there.
pub(super) fn volumes(root: &Path) -> Volumes {
    let mut all = Volumes::default();
    let unread = |path: &Path, why: String| Problem { path: path.to_owned(), why };
    let place = Path::new(VOLUMES);
    let folder = match source::opened(root).and_then(|root| root.enter(OsStr::new(VOLUMES))) {
        Ok(folder) => folder,
        Err(e) if e.errno == Errno::ENOENT => return all,
        Err(e) => return Volumes { unread: vec![unread(place, e.to_string())], ..all },
    };
    let mut names = match folder.names() {
        Ok(names) => names,
        Err(e) => return Volumes { unread: vec![unread(place, e.to_string())], ..all },
    };
    names.sort();
    for name in &names {
        let data = match folder.status(name) {
            Ok(Some(found)) if found.is_directory() => {
                folder.enter(name).and_then(|volume| volume.status(OsStr::new(DATA)))
            }
            Ok(_) => continue,
            Err(e) => Err(e),
        };
        let is_one = |name: &&str| is_volume_name(name) && *name != DATABASE;
        match (data, name.to_str().filter(is_one)) {
            (Err(e), _) => all.unread.push(unread(&place.join(name), e.to_string())),
            (Ok(_), None) => all.left.push(format!("volumes/{}: Docker gives no volume such a name", name.display())),
            (Ok(Some(data)), Some(name)) if data.is_directory() => all.taken.push(name.to_owned()),
            (Ok(_), Some(name)) => all.left.push(format!("volume {name}: its {DATA} is no directory")),
        }
    }
    all
}

/// Says what of a root is not saved.
pub(super) fn left_out(objects: &Objects, driver: Driver) -> Vec<String> {
    let mut left = Vec::new();
    for volume in &objects.volumes {
        match &volume.data {
            Data::Elsewhere(place) => left.push(format!("the files of volume {}: {place}", volume.name)),
            Data::Here(names) if names.first().map(String::as_str) != Some(VOLUMES) => {
                left.push(format!("volume {}, in {}: one of a Docker before 1.9", volume.name, names.join("/")));
            }
            Data::Missing if !volume.users.is_empty() => {
                let users: BTreeSet<_> =
                    volume.users.iter().map(|user| user.name.as_deref().unwrap_or(&user.container)).collect();
                let users = users.into_iter().collect::<Vec<_>>().join(", ");
                left.push(format!("volume {}, which {users} has mounted: it is missing in the root", volume.name));
            }
            Data::Here(_) | Data::Missing => {}
        }
    }
    let of_none = objects.containers.iter().filter(|container| !is_id(&container.id));
    left.extend(of_none.map(|container| format!("{CONTAINERS}/{}: its name is no id", container.id)));
    let Ok(root) = source::opened(&objects.path) else { return left };
    let inside = |names: &[&str]| {
        let start = root.enter(OsStr::new("."));
        let folder = names.iter().fold(start, |folder, name| folder.and_then(|folder| folder.enter(OsStr::new(name))));
        folder.and_then(|folder| folder.names()).unwrap_or_default()
    };
    let mut names = root.names().unwrap_or_default();
    names.sort();
    for name in names.iter().filter_map(|name| name.to_str()) {
        let is_known = [CONTAINERS, "image", "network", VOLUMES, driver.name()].contains(&name);
        if is_known || MADE_ANEW.contains(&name) || name.starts_with(".dmpool") {
            continue;
        }
        let is_folder =
            root.status(OsStr::new(name)).ok().flatten().is_some_and(|found| found.kind == FileKind::Directory);
        let has = inside(&[name]);
        let why = match name {
            _ if is_folder && has.is_empty() => continue,
            "plugins" if !has.iter().any(|name| name.to_str().is_some_and(is_id)) => continue,
            "plugins" => "Docker's plugins: they are installed anew",
            "swarm" => "this machine's place in a swarm",
            "buildkit" | "builder" => "a cache of builds",
            "trust" => "keys of images' signatures",
            other if Driver::named(other).is_some() => "layers of another storage driver",
            _ => "nothing of Docker's that is known",
        };
        left.push(format!("{name}: {why}"));
    }
    let others = inside(&["image"]).into_iter().filter(|name| name != driver.name());
    left.extend(others.map(|name| format!("image/{}: images of another storage driver", name.display())));
    left
}
