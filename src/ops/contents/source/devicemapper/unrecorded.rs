//! Volumes of which Docker's records are gone, and which layers they are.
//!
//! The file `id` beside a layer's `rootfs` has the name of the layer that it was written in first, and snapshots inherit it
//! (`Get`, graphdriver/devmapper/driver.go): it tells the lowest layer of an image, the first of those that have it, and no
//! other. The other layers are known by having all files that Docker's list of them (`tar-split.json.gz`) names: whether they
//! come out as they were, their digest says. A container is known by the time of its `/.dockerenv`, which Docker makes anew
//! for every container (`Setup`, daemon/initlayer) right after it has noted when it was created.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::Read;

use super::volumes::Volumes;
use super::{Said, Volume, files_in};
use crate::engine::docker_objects::{self, Container, Objects, Store, Time, is_id};
use crate::error::{Failure, Outcome};
use crate::kernel::folder::Folder;
use crate::ops::contents::layer::is_in;
use crate::ops::contents::source::Place;
use crate::ops::contents::tree::{Layer, Marks, Tree};
use crate::ops::rescue::label;
use crate::units::Bytes;

/// The longest that Docker may have taken from noting the time to making the file, in seconds.
const SLOWEST: u64 = 600;

/// Those that were looked into.
#[derive(Debug, Default)]
pub struct Seen(RefCell<Option<Vec<Unrecorded>>>);

/// A volume without a record.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Unrecorded {
    id: u32,
    size: Bytes,
    /// The pool's transaction that made it.
    transaction: u64,
    /// What its `id` says.
    named: Option<String>,
    /// When its `/.dockerenv` was made.
    made: Option<Time>,
}

/// Finds the volume of a layer whose record says nothing.
pub(super) fn find(place: &Place<'_>, volumes: &Volumes<'_>, why: &str, said: &mut Said) -> Outcome<Volume> {
    let refused = |found: String| refused(place, why, found);
    let objects = docker_objects::read(place.root).map_err(|e| refused(e.to_string()))?;
    let seen = look(place, volumes)?;
    let (volume, how) = match containers_of(&objects, place.id).as_slice() {
        [container] => of_container(&objects, container, place.id, &seen).map_err(refused)?,
        _ => of_image(place, volumes, &objects, &seen).map_err(refused)?,
    };
    said.notes.push(format!("{why}: volume {} is taken for layer `{}`, since {how}", volume.id, place.id));
    Ok(Volume { id: volume.id, size: volume.size })
}

fn refused(place: &Place<'_>, why: &str, found: String) -> Failure {
    place
        .refused("nothing says which thin device it is")
        .fact("found", why.to_owned())
        .fact("found", found)
        .fact("state", "nothing was touched")
        .next("dmpool rescue images --tree    # shows which layers have a device")
}

/// Looks into every volume that no record names; once for all layers.
fn look(place: &Place<'_>, volumes: &Volumes<'_>) -> Outcome<Vec<Unrecorded>> {
    if let Some(seen) = place.reach.unrecorded.0.borrow().as_ref() {
        return Ok(seen.clone());
    }
    let known = super::recorded(place.root);
    let mut seen = Vec::new();
    for (id, details) in volumes.all()? {
        let Some(id) = u32::try_from(id).ok().filter(|_| !known.contains(&id)) else { continue };
        let Ok(Some(head)) = volumes.head(id) else { continue };
        let volume = Volume { id, size: head.length };
        // What is on it may be anything: what cannot be looked into is not what is looked for.
        let Ok(root) = volumes.file_system(volume, &mut Said::default()) else {
            volumes.may_go_on()?;
            continue;
        };
        let made = files_in(&root).ok().and_then(|files| files.status(OsStr::new(".dockerenv")).ok().flatten());
        seen.push(Unrecorded {
            id,
            size: head.length,
            transaction: details.transaction_id,
            named: name_in(&root),
            made: made.map(|status| Time::new(status.modified.seconds, status.modified.nanoseconds)),
        });
    }
    *place.reach.unrecorded.0.borrow_mut() = Some(seen.clone());
    Ok(seen)
}

fn name_in(root: &Folder) -> Option<String> {
    let mut name = String::new();
    root.file(OsStr::new("id")).ok()?.take(80).read_to_string(&mut name).ok()?;
    Some(name.trim().to_owned()).filter(|name| is_id(name.strip_suffix("-init").unwrap_or(name)))
}

fn containers_of<'a>(objects: &'a Objects, layer: &str) -> Vec<&'a Container> {
    objects.containers.iter().filter(|container| layers(container).contains(&layer)).collect()
}

/// What a container's layers are called, in the order in which they were made.
fn layers(container: &Container) -> Vec<&str> {
    let mount = container.mount.iter();
    mount.flat_map(|mount| [mount.init_id.as_deref(), mount.mount_id.as_deref()]).flatten().collect()
}

/// The first volume that has the layer's name is the one that it was written in. Else it is the first that has all its files:
/// those made of it have them, too.
fn of_image<'a>(
    place: &Place<'_>,
    volumes: &Volumes<'_>,
    objects: &Objects,
    seen: &'a [Unrecorded],
) -> Result<(&'a Unrecorded, String), String> {
    let mut all: Vec<_> = seen.iter().collect();
    all.sort_by_key(|volume| volume.transaction);
    if let Some(first) = all.iter().find(|volume| volume.named.as_deref() == Some(place.id)) {
        return Ok((first, "it is the first that has the layer's id in it".to_owned()));
    }
    let of_store =
        |store: &'_ Store| store.layers.values().position(|layer| layer.cache_id.as_deref() == Some(place.id));
    let found = objects.stores.iter().find_map(|store| Some((store, store.layers.values().nth(of_store(store)?)?)));
    let Some((store, layer)) = found else { return Err("nothing says what was in it".to_owned()) };
    let has_it = |volume: &&&Unrecorded| {
        let of_it = Volume { id: volume.id, size: volume.size };
        let files = volumes.file_system(of_it, &mut Said::default()).ok().and_then(|root| files_in(&root).ok());
        let layer_of = files.and_then(|files| Layer::new(files, Marks::None).ok());
        layer_of.is_some_and(|files| is_in(objects, store, layer, Tree::new(vec![files])))
    };
    match all.iter().find(has_it) {
        Some(first) => Ok((first, "it is the first that has all files of that layer".to_owned())),
        None => Err(format!("none of the {} volumes without a record has all files of that layer", seen.len())),
    }
}

/// A container's volumes are those whose `/.dockerenv` was made after it was created, and before any other was.
fn of_container<'a>(
    objects: &Objects,
    container: &Container,
    layer: &str,
    seen: &'a [Unrecorded],
) -> Result<(&'a Unrecorded, String), String> {
    let Some(own) = container.created() else { return Err("nothing says when its container was created".to_owned()) };
    let others = objects.containers.iter().filter(|other| other.id != container.id).filter_map(Container::created);
    let next = others.filter(|other| *other >= own).min();
    let is_its = |made: Time| made >= own && next.is_none_or(|next| made < next) && made.since(own) <= SLOWEST;
    let mut groups: BTreeMap<Time, Vec<&Unrecorded>> = BTreeMap::new();
    for volume in seen {
        if let Some(made) = volume.made.filter(|made| is_its(*made)) {
            groups.entry(made).or_default().push(volume);
        }
    }
    let store = objects.store_of(container);
    let has_record = |name: &str| store.is_some_and(|store| store.devices.contains_key(name));
    let wanted: Vec<_> = layers(container).into_iter().filter(|name| !has_record(name)).collect();
    let mut groups = groups.into_values();
    let (Some(mut group), None) = (groups.next(), groups.next()) else {
        return Err(format!(
            "not one of the {} volumes without a record alone was made when container {} was",
            seen.len(),
            label(container)
        ));
    };
    group.sort_by_key(|volume| volume.transaction);
    let place = wanted.iter().position(|name| *name == layer);
    match place.and_then(|place| group.get(place)).filter(|_| group.len() == wanted.len()) {
        Some(volume) => Ok((*volume, format!("it was made when container {} was, and no other", label(container)))),
        None => Err(format!(
            "{} volumes without a record were made when container {} was, and {} are missing",
            group.len(),
            label(container),
            wanted.len()
        )),
    }
}
