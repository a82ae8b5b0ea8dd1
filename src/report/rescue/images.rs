//! The images of a root, as `docker images` prints them.

use std::collections::BTreeSet;

use serde::Serialize;

use super::words::{self, ProblemOf, cell};
use crate::engine::docker_objects::{Image, Objects, Store, Time};
use crate::engine::docker_root::Problem;
use crate::report::docker_info::UNKNOWN;
use crate::report::human::docker_image_size;
use crate::report::json::{FORMAT, document};
use crate::units::Bytes;

const HEADINGS: [&str; 5] = ["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE"];
const NONE: &str = "<none>";

/// Returns the table, the newest image first, of each driver that has images; below it what could not be read. Without
/// `all` those that only others are built on are left out, as Docker does.
pub fn text(objects: &Objects, now: Time, all: bool, whole: bool) -> String {
    let mut text = String::new();
    for store in with_images(objects) {
        text.push_str(&heading(objects, store, &text));
        let rows: Vec<_> = shown(store, all).flat_map(|image| rows(store, image, now, whole)).collect();
        text.push_str(&words::columns(&HEADINGS, &rows));
    }
    if text.is_empty() {
        text = words::columns(&HEADINGS, &[]);
    }
    text.push_str(&broken(objects));
    text
}

/// The stores that have images; a driver that only has containers' layers has none to show.
pub(super) fn with_images(objects: &Objects) -> impl Iterator<Item = &Store> {
    objects.stores.iter().filter(|store| !store.images.is_empty() || !store.layers.is_empty())
}

/// Which driver's images follow, where several have some.
pub(super) fn heading(objects: &Objects, store: &Store, before: &str) -> String {
    let blank = if before.is_empty() { "" } else { "\n" };
    match with_images(objects).count() {
        0 | 1 => String::new(),
        _ => format!("{blank}{}:\n", cell(&store.driver)),
    }
}

/// What is not whole, and what could not be read.
pub(super) fn broken(objects: &Objects) -> String {
    let of_images = all(objects).flat_map(|(_, image)| {
        let name = image.tags.first().map_or_else(|| words::id(&image.id, false), |tag| cell(tag));
        image.problems.iter().map(move |problem| format!("image {name}: {}", words::problem(problem)))
    });
    let of_layers = objects.stores.iter().flat_map(|store| store.layers.values()).flat_map(|layer| {
        let id = words::id(&layer.chain, false);
        layer.problems.iter().map(move |problem| format!("layer {id}: {}", words::problem(problem)))
    });
    let lines: Vec<_> = of_images.chain(of_layers).collect();
    let of_root: Vec<_> = of_root(objects).map(words::problem).collect();
    words::section("not whole", &lines) + &words::section("could not be read", &of_root)
}

/// Returns what is damaged or missing of images and layers.
pub fn problems(objects: &Objects) -> usize {
    let of_images: usize = all(objects).map(|(_, image)| image.problems.len()).sum();
    let layers = objects.stores.iter().flat_map(|store| store.layers.values());
    of_images + layers.map(|layer| layer.problems.len()).sum::<usize>() + of_root(objects).count()
}

fn of_root(objects: &Objects) -> impl Iterator<Item = &Problem> {
    let others = ["volumes", "network", "containers"].map(|name| objects.path.join(name));
    objects.problems.iter().filter(move |problem| others.iter().all(|other| !problem.path.starts_with(other)))
}

fn all(objects: &Objects) -> impl Iterator<Item = (&Store, &Image)> {
    objects.stores.iter().flat_map(|store| store.images.iter().map(move |image| (store, image)))
}

/// Without `all`, images with a name and those that no other was built on (`Images`, daemon/images/images.go).
fn shown(store: &Store, all: bool) -> impl Iterator<Item = &Image> {
    let parents: BTreeSet<&str> = store.images.iter().filter_map(|image| image.parent.as_deref()).collect();
    let is_below = |image: &Image| parents.contains(image.id.as_str());
    let mut images: Vec<_> = store
        .images
        .iter()
        .filter(|image| all || !image.tags.is_empty() || !image.digests.is_empty() || !is_below(image))
        .collect();
    images.sort_by_key(|image| std::cmp::Reverse(image.created()));
    images.into_iter()
}

/// One row for each tag; one for a repository that the image has by its digest alone.
fn rows(store: &Store, image: &Image, now: Time, whole: bool) -> Vec<[String; 5]> {
    let size = image.size(&store.layers).map_or_else(|| UNKNOWN.to_owned(), docker_image_size);
    let row = |repository: &str, tag: &str| {
        let created = words::ago(now, image.created());
        [cell(repository), cell(tag), words::id(&image.id, whole), created, size.clone()]
    };
    let mut rows: Vec<_> = image
        .tags
        .iter()
        .map(|tag| {
            let (repository, tag) = tag.rsplit_once(':').unwrap_or((tag, NONE));
            row(repository, tag)
        })
        .collect();
    if rows.is_empty() {
        let repositories = image.digests.iter().filter_map(|digest| digest.split_once('@'));
        rows.extend(repositories.map(|(repository, _)| row(repository, NONE)));
    }
    if rows.is_empty() {
        rows.push(row(NONE, NONE));
    }
    rows
}

/// Returns the same as JSON, with all images.
pub fn json(objects: &Objects) -> String {
    let of_store = |store: &Store| StoreOf {
        driver: store.driver.clone(),
        images: store.images.iter().map(|image| ImageOf::of(store, image)).collect(),
        layers: store.layers.values().map(LayerOf::of).collect(),
        without_name: store.nameless(&objects.containers, &objects.volumes).into_iter().map(str::to_owned).collect(),
    };
    document(&List {
        format: FORMAT,
        root: objects.path.display().to_string(),
        drivers: objects.stores.iter().map(of_store).collect(),
        problems: ProblemOf::all(of_root(objects)),
    })
}

#[derive(Serialize)]
struct List {
    format: u32,
    root: String,
    drivers: Vec<StoreOf>,
    problems: Vec<ProblemOf>,
}

#[derive(Serialize)]
struct StoreOf {
    driver: String,
    images: Vec<ImageOf>,
    layers: Vec<LayerOf>,
    without_name: Vec<String>,
}

#[derive(Serialize)]
struct ImageOf {
    id: String,
    tags: Vec<String>,
    digests: Vec<String>,
    parent: Option<String>,
    created: Option<String>,
    size: Option<Bytes>,
    layers: Vec<Option<String>>,
    problems: Vec<ProblemOf>,
}

impl ImageOf {
    fn of(store: &Store, image: &Image) -> Self {
        Self {
            id: image.id.clone(),
            tags: image.tags.clone(),
            digests: image.digests.clone(),
            parent: image.parent.clone(),
            created: image.created().map(Time::with_nanoseconds),
            size: image.size(&store.layers),
            layers: image.layers.iter().map(|part| part.chain.clone()).collect(),
            problems: ProblemOf::all(&image.problems),
        }
    }
}

#[derive(Serialize)]
struct LayerOf {
    id: String,
    diff_id: Option<String>,
    parent: Option<String>,
    cache_id: Option<String>,
    size: Option<Bytes>,
    tar_split: bool,
    problems: Vec<ProblemOf>,
}

impl LayerOf {
    fn of(layer: &crate::engine::docker_objects::Layer) -> Self {
        Self {
            id: layer.chain.clone(),
            diff_id: layer.diff.clone(),
            parent: layer.parent.clone(),
            cache_id: layer.cache_id.clone(),
            size: layer.size,
            tar_split: layer.tar_split,
            problems: ProblemOf::all(&layer.problems),
        }
    }
}
