//! Which images a name on the command line means, and under which names they are saved: `docker save`'s rules
//! (image/tarexport/save.go, `parseNames`).

use crate::engine::docker_objects::{Image, Objects, Store};
use crate::error::Outcome;
use crate::ops::rescue::{familiar, has_tag, image};

/// An image that is to be saved.
#[derive(Clone, Debug)]
pub(super) struct Wanted<'a> {
    pub(super) store: &'a Store,
    pub(super) image: &'a Image,
    /// The names that it is saved with; one that was meant by its id or digest has none.
    pub(super) tags: Vec<String>,
}

/// Finds what names mean: one with a tag that image, one without all that have it with any, an id the image alone.
pub(super) fn wanted<'a>(objects: &'a Objects, names: &[String]) -> Outcome<Vec<Wanted<'a>>> {
    let mut all: Vec<Wanted<'a>> = Vec::new();
    for name in names {
        let plain = familiar(name);
        let of_name = if plain.contains('@') || has_tag(&plain) { Vec::new() } else { tagged(objects, &plain) };
        if of_name.is_empty() {
            let (_, found) = image(objects, name)?;
            let tag = found.tags.iter().map(|tag| familiar(tag)).find(|tag| *tag == plain);
            add(objects, &mut all, found, tag);
        }
        for (found, tag) in of_name {
            add(objects, &mut all, found, Some(tag));
        }
    }
    Ok(all)
}

fn tagged<'a>(objects: &'a Objects, name: &str) -> Vec<(&'a Image, String)> {
    let images = objects.stores.iter().flat_map(|store| &store.images);
    let tags = images.flat_map(|image| image.tags.iter().map(move |tag| (image, familiar(tag))));
    tags.filter(|(_, tag)| repository(tag).is_some_and(|(repository, _)| repository == name)).collect()
}

/// Takes a name with a tag apart.
pub(super) fn repository(tag: &str) -> Option<(&str, &str)> {
    tag.rsplit_once(':').filter(|(_, tag)| !tag.contains('/'))
}

fn add<'a>(objects: &'a Objects, all: &mut Vec<Wanted<'a>>, image: &Image, tag: Option<String>) {
    if let Some(known) = all.iter_mut().find(|known| known.image.id == image.id) {
        known.tags.extend(tag.filter(|tag| !known.tags.contains(tag)));
        return;
    }
    // Several drivers may have it, and one of them whole.
    let stores = objects.stores.iter();
    let mut held: Vec<_> =
        stores.filter_map(|store| Some((store, store.images.iter().find(|held| held.id == image.id)?))).collect();
    held.sort_by_key(|(store, image)| image.is_short() || !image.problems.is_empty() || store.legacy);
    if let Some((store, image)) = held.first() {
        all.push(Wanted { store, image, tags: tag.into_iter().collect() });
    }
}
