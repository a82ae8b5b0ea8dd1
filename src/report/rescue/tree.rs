//! The tree of a root's layers, as `docker images --tree` drew that of images until Docker 1.6.

use std::collections::{BTreeMap, BTreeSet};

use super::images::{broken, heading, with_images};
use super::words::{self, cell};
use crate::engine::docker_objects::{Image, Layer, Objects, Store};
use crate::report::docker_info::UNKNOWN;
use crate::report::human::{Spacing, docker_size};
use crate::units::Bytes;

/// Returns the tree of each driver, and below it what the driver has that nothing names, and what could not be read.
pub fn text(objects: &Objects, whole: bool) -> String {
    let mut text = String::new();
    for store in with_images(objects) {
        text.push_str(&heading(objects, store, &text));
        text.push_str(&Tree::of(store, whole).drawn());
    }
    for store in &objects.stores {
        let names: Vec<_> = store
            .nameless(&objects.containers, &objects.volumes)
            .into_iter()
            .map(|name| if whole { cell(name) } else { shortened(name) })
            .collect();
        text.push_str(&words::section(&format!("{} has layers without a name", cell(&store.driver)), &names));
    }
    text.push_str(&broken(objects));
    text
}

/// The beginning of a layer's name, with what tells a container's first layer from its own.
fn shortened(name: &str) -> String {
    let (id, rest) = name.split_once('-').map_or((name, ""), |(id, rest)| (id, rest));
    let end = if rest.is_empty() { String::new() } else { format!("-{rest}") };
    format!("{}{}", words::id(id, false), cell(&end))
}

/// Docker puts no more than 125 layers above each other.
const DEEPEST: usize = 200;

struct Tree<'a> {
    store: &'a Store,
    whole: bool,
    above: BTreeMap<Option<&'a str>, Vec<&'a Layer>>,
    images: BTreeMap<&'a str, Vec<&'a Image>>,
}

impl<'a> Tree<'a> {
    fn of(store: &'a Store, whole: bool) -> Self {
        let mut above: BTreeMap<Option<&str>, Vec<&Layer>> = BTreeMap::new();
        for layer in store.layers.values() {
            // One whose parent is gone stands at the root, so that it is seen.
            let parent = layer.parent.as_deref().filter(|parent| store.layers.contains_key(*parent));
            above.entry(parent).or_default().push(layer);
        }
        let mut images: BTreeMap<&str, Vec<&Image>> = BTreeMap::new();
        for image in &store.images {
            images.entry(image.top().unwrap_or_default()).or_default().push(image);
        }
        Self { store, whole, above, images }
    }

    fn drawn(&self) -> String {
        let mut text = String::new();
        let mut seen = BTreeSet::new();
        // What is still to be drawn, the next one last: a layer, what stands before it, whether it is the last of its kind,
        // and the size of what lies below it.
        let mut open: Vec<(&Layer, String, bool, Option<Bytes>)> = Vec::new();
        self.put(&mut open, None, "", Some(Bytes::new(0)));
        while let Some((layer, prefix, is_last, below)) = open.pop() {
            seen.insert(layer.chain.as_str());
            let size = below.zip(layer.size).and_then(|(below, size)| below.checked_add(size));
            let sign = if is_last { "└─" } else { "├─" };
            text.push_str(&format!("{prefix}{sign}{}\n", self.node(layer, size)));
            if prefix.chars().count() / 2 >= DEEPEST {
                continue;
            }
            let prefix = format!("{prefix}{}", if is_last { "  " } else { "│ " });
            self.put(&mut open, Some(&layer.chain), &prefix, size);
        }
        for layer in self.store.layers.values().filter(|layer| !seen.contains(layer.chain.as_str())) {
            text.push_str(&format!(
                "└─{} (its parents are too many, or lead round in circles)\n",
                self.node(layer, None)
            ));
        }
        text
    }

    fn put(
        &self,
        open: &mut Vec<(&'a Layer, String, bool, Option<Bytes>)>,
        parent: Option<&str>,
        prefix: &str,
        below: Option<Bytes>,
    ) {
        let layers = self.above.get(&parent).map_or(&[][..], Vec::as_slice);
        for (at, layer) in layers.iter().enumerate().rev() {
            open.push((layer, prefix.to_owned(), at + 1 == layers.len(), below));
        }
    }

    /// `4986bf8c1536 Virtual Size: 2.433 MB Tags: busybox:latest`; an image without a name by its id.
    fn node(&self, layer: &Layer, size: Option<Bytes>) -> String {
        let size = size.map_or_else(|| UNKNOWN.to_owned(), |size| docker_size(size, Spacing::Space));
        let mut line = format!("{} Virtual Size: {size}", words::id(&layer.chain, self.whole));
        let images = self.images.get(layer.chain.as_str()).map_or(&[][..], Vec::as_slice);
        let tags: Vec<_> = images.iter().flat_map(|image| &image.tags).map(|tag| cell(tag)).collect();
        if !tags.is_empty() {
            line.push_str(&format!(" Tags: {}", tags.join(", ")));
        }
        // Before Docker 1.10 a layer is an image, and has its id.
        let nameless = images.iter().filter(|image| image.tags.is_empty() && image.id != layer.chain);
        let nameless: Vec<_> = nameless.map(|image| words::id(&image.id, self.whole)).collect();
        if !nameless.is_empty() {
            line.push_str(&format!(" Images: {}", nameless.join(", ")));
        }
        line
    }
}
