//! Images of Docker before 1.10: `graph/ID/json` and `layersize` (graph/graph.go, image/image.go), and the names that they have
//! for a driver, `repositories-DRIVER` (graph/tags.go). Each image is a layer, and the driver calls it by the image's id.
//!
//! Docker 1.10 makes its own files of these and leaves them (migrate/v1/migratev1.go): where it has, they say nothing.

use std::collections::{BTreeMap, BTreeSet};

use super::Store;
use super::fields::Fields;
use super::held::{self, Held};
use super::image::{self, Image, Name, Part};
use super::layer::Layer;
use super::reader::Reader;
use crate::engine::docker_root::Problem;
use crate::engine::driver::Driver;
use crate::engine::small_file::Directory;
use crate::units::Bytes;

const GRAPH: &str = "graph";
const NAMES: &str = "repositories-";
/// More than any driver puts above each other (127, by aufs).
const DEEPEST: usize = 1024;

/// Reads the images of a driver for which there are names, and of the only driver of a root when there are none.
pub(super) fn stores(root: &Directory, drivers: &[Driver], taken: &[Store], reader: &mut Reader) -> Vec<Store> {
    let Some(graph) = reader.folder(root, GRAPH) else { return Vec::new() };
    let ids: Vec<_> = reader.names(&graph).into_iter().filter(|name| name != "_tmp").collect();
    let of_root = root.names().unwrap_or_default();
    let mut found: Vec<_> =
        of_root.iter().filter_map(|name| Some(name.to_str()?.strip_prefix(NAMES)?.to_owned())).collect();
    if found.is_empty() {
        found.extend(drivers.first().map(|driver| driver.name().to_owned()));
    }
    found.retain(|driver| taken.iter().all(|store| store.driver != *driver));
    if found.is_empty() {
        return Vec::new();
    }
    let all: BTreeMap<String, (Image, Layer)> =
        ids.into_iter().map(|id| (id.clone(), one(&graph, &id, reader))).collect();
    found.into_iter().map(|driver| store(root, driver, &all, reader)).collect()
}

fn store(root: &Directory, driver: String, all: &BTreeMap<String, (Image, Layer)>, reader: &mut Reader) -> Store {
    let Held { names: held, devices } = held::by(&driver, root, reader);
    // One graph serves all drivers: an image is this one's when it has its layer.
    let is_of = |id: &String| held.as_ref().is_none_or(|held| held.is_empty() || held.contains(id));
    let of_driver: BTreeMap<_, _> = all.iter().filter(|(id, _)| is_of(id)).collect();
    let layers: BTreeMap<String, Layer> =
        of_driver.values().map(|(_, layer)| (layer.chain.clone(), layer.clone())).collect();
    let mut images: Vec<Image> = of_driver.values().map(|(image, _)| image.clone()).collect();
    for image in &mut images {
        let (parts, why) = parts(image, &layers);
        image.layers = parts;
        image.problems.extend(why.map(|why| Problem { path: root.path().join(GRAPH).join(&image.id), why }));
    }
    let file = format!("{NAMES}{driver}");
    let names = reader.json(root, &file).map(|json| names_in(&json)).unwrap_or_default();
    image::give_names(&mut images, names, root, &file, reader);
    Store { driver, legacy: true, images, layers, mounts: BTreeMap::new(), held, devices }
}

fn one(graph: &Directory, id: &str, reader: &mut Reader) -> (Image, Layer) {
    let ((config, size), problems) = reader.apart(|reader| {
        let Some(folder) = reader.folder(graph, id) else { return Default::default() };
        let size = reader.line(&folder, "layersize").and_then(|size| size.parse().ok().map(Bytes::new));
        (reader.wanted_json(&folder, "json").unwrap_or_default(), size)
    });
    let size = size.or_else(|| u64::try_from(config.number(&["Size"])?).ok().map(Bytes::new));
    let parent = config.text(&["parent"]).map(str::to_owned);
    let layer = Layer {
        chain: id.to_owned(),
        diff: None,
        parent: parent.clone(),
        cache_id: Some(id.to_owned()),
        size,
        tar_split: false,
        problems: Vec::new(),
    };
    let image = Image {
        id: id.to_owned(),
        config,
        parent,
        tags: Vec::new(),
        digests: Vec::new(),
        last_tagged: None,
        layers: Vec::new(),
        problems,
    };
    (image, layer)
}

/// Returns the layers of an image, the lowest first, and what is wrong with them.
fn parts(image: &Image, layers: &BTreeMap<String, Layer>) -> (Vec<Part>, Option<String>) {
    let mut found = Vec::new();
    let mut seen = BTreeSet::new();
    let mut why = None;
    let mut next = Some(image.id.as_str());
    while let Some(id) = next {
        let layer = layers.get(id);
        found.push(Part { diff: id.to_owned(), chain: layer.map(|layer| layer.chain.clone()) });
        match layer {
            None => why = Some(format!("its layer {id} is missing")),
            Some(_) if !seen.insert(id) || found.len() > DEEPEST => {
                why = Some("its layers lead round in circles".to_owned());
                break;
            }
            Some(_) => {}
        }
        next = layer.and_then(|layer| layer.parent.as_deref());
    }
    found.reverse();
    (found, why)
}

/// `{"Repositories":{"busybox":{"latest":"ID"}}}`.
fn names_in(json: &serde_json::Value) -> Vec<Name> {
    let mut names: Vec<_> = json
        .entries(&["Repositories"])
        .flat_map(|(repository, tags)| tags.entries(&[]).map(move |(tag, image)| (repository, tag, image)))
        .filter_map(|(repository, tag, image)| {
            // A digest stands behind an @, a tag behind a colon.
            let sign = if tag.contains(':') { '@' } else { ':' };
            Some(Name { name: format!("{repository}{sign}{tag}"), image: image.as_str()?.to_owned() })
        })
        .collect();
    names.sort_by(|a, b| a.name.cmp(&b.name));
    names
}
