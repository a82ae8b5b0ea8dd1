//! Which layers a devicemapper root has, those beneath first.

use std::collections::{BTreeMap, BTreeSet};

use crate::engine::docker_objects::{Image, Objects, Store};
use crate::engine::driver::Driver;

/// Docker stacks no more (layer/layer.go, `maxLayerDepth`).
const DEEPEST: usize = 128;

/// A layer that is to be copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// The driver's name for it.
    pub id: String,
    /// Those beneath, top first.
    pub below: Vec<String>,
    /// Its id in the layer database, when it is an image's.
    pub chain: Option<String>,
    /// Whose it is, in words.
    pub whose: String,
    /// Whether nothing is made on it but containers: what it comes to is compared file by file.
    pub is_top: bool,
}

/// Returns every layer that images and containers of devicemapper have.
///
/// # Errors
/// What is broken or missing, each by name.
pub fn parts(objects: &Objects) -> Result<Vec<Part>, Vec<String>> {
    parts_of(objects, Driver::Devicemapper)
}

/// Returns every layer that images and containers of a storage driver have.
///
/// # Errors
/// As [`parts`].
pub fn parts_of(objects: &Objects, driver: Driver) -> Result<Vec<Part>, Vec<String>> {
    let name = driver.name();
    let mut stores = objects.stores.iter().filter(|store| store.driver == name);
    let Some(store) = stores.next() else {
        return Err(vec![format!("there is no image and no container of {name}")]);
    };
    if store.legacy || stores.next().is_some() {
        return Err(vec!["its images are those of a Docker before 1.10: start a newer one on it once".to_owned()]);
    }
    let mut wrong = broken(objects, store);
    let mut parts = Vec::new();
    let mut below: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for chain in store.layers.keys() {
        layer(store, chain, &mut below, &mut parts, &mut wrong);
    }
    let has_child: BTreeSet<&str> = store.layers.values().filter_map(|layer| layer.parent.as_deref()).collect();
    let tops: BTreeSet<&str> = store.images.iter().filter_map(Image::top).collect();
    for part in &mut parts {
        let chain = part.chain.as_deref().unwrap_or_default();
        part.is_top = tops.contains(chain) || !has_child.contains(chain);
    }
    for (owner, mount) in &store.mounts {
        let container = objects.containers.iter().find(|container| container.id == *owner);
        let whose = match container.and_then(|container| container.name()) {
            Some(name) => format!("container {name}"),
            None => format!("container {}", owner.get(..12).unwrap_or(owner)),
        };
        let Some(id) = &mount.mount_id else { continue };
        let beneath = match &mount.parent {
            Some(chain) => below.get(chain.as_str()).cloned(),
            None => Some(Vec::new()),
        };
        let Some(mut beneath) = beneath else {
            wrong.push(format!("{whose}: the layers of its image are missing"));
            continue;
        };
        if let Some(init) = &mount.init_id {
            let whose = format!("{whose}, before its first start");
            parts.push(Part { id: init.clone(), below: beneath.clone(), chain: None, whose, is_top: false });
            beneath.insert(0, init.clone());
        }
        parts.push(Part { id: id.clone(), below: beneath, chain: None, whose, is_top: true });
    }
    let mut ids = BTreeSet::new();
    wrong.extend(
        parts
            .iter()
            .filter(|part| !ids.insert(&part.id))
            .map(|part| format!("{}: its layer is another's, too", part.whose)),
    );
    wrong.extend(
        parts
            .iter()
            .filter(|part| !is_name(&part.id))
            .map(|part| format!("{}: `{}` is no name of a layer", part.whose, part.id)),
    );
    if wrong.is_empty() { Ok(parts) } else { Err(wrong) }
}

/// Adds a layer after those beneath it.
fn layer<'s>(
    store: &'s Store,
    chain: &'s str,
    below: &mut BTreeMap<&'s str, Vec<String>>,
    parts: &mut Vec<Part>,
    wrong: &mut Vec<String>,
) {
    let mut line = Vec::new();
    let mut next = Some(chain);
    while let Some(chain) = next.filter(|chain| !below.contains_key(chain)) {
        let Some((chain, layer)) = store.layers.get_key_value(chain) else {
            wrong.push(format!("layer {chain}: it is missing"));
            return;
        };
        if line.len() > DEEPEST {
            wrong.push(format!("layer {chain}: those beneath it have no end"));
            return;
        }
        line.push((chain.as_str(), layer));
        next = layer.parent.as_deref();
    }
    let mut beneath = next.and_then(|chain| below.get(chain)).cloned().unwrap_or_default();
    for (chain, layer) in line.into_iter().rev() {
        let Some(id) = &layer.cache_id else { return };
        let whose = format!("layer {}", layer.diff.as_deref().unwrap_or(chain));
        let part = Part { id: id.clone(), below: beneath.clone(), chain: Some(chain.to_owned()), whose, is_top: false };
        parts.push(part);
        beneath.insert(0, id.clone());
        below.insert(chain, beneath.clone());
    }
}

/// What of the objects is not whole, or has no thin device.
fn broken(objects: &Objects, store: &Store) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut say = |what: &str, problems: &[crate::engine::docker_root::Problem]| {
        wrong.extend(problems.iter().map(|problem| format!("{what}: {}: {}", problem.path.display(), problem.why)));
    };
    for image in &store.images {
        say(&format!("image {}", image.tags.first().unwrap_or(&image.id)), &image.problems);
    }
    for layer in store.layers.values() {
        say(&format!("layer {}", layer.chain), &layer.problems);
    }
    for container in objects.containers.iter().filter(|container| store.mounts.contains_key(&container.id)) {
        say(&format!("container {}", container.name().unwrap_or(&container.id)), &container.problems);
    }
    for (id, mount) in &store.mounts {
        if objects.containers.iter().all(|container| container.id != *id) {
            say(&format!("container {id}"), &mount.problems);
        }
    }
    wrong
}

/// Whether overlay2 can have a layer of that name.
pub fn is_name(id: &str) -> bool {
    !id.is_empty()
        && id.len() <= 200
        && id != "l"
        && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}
