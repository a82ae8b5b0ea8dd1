//! The images of a driver: `image/DRIVER/imagedb` (image/fs.go) and the names that they have, `repositories.json`
//! (reference/store.go).
//!
//! ```text
//! imagedb/content/sha256/ID                      the image's configuration; ID is its digest
//! imagedb/metadata/sha256/ID/parent              the image that it was built on, when that was here
//! imagedb/metadata/sha256/ID/lastUpdated         when it was last tagged
//! repositories.json    {"Repositories":{"busybox":{"busybox:latest":"sha256:ID","busybox@sha256:…":"sha256:ID"}}}
//! ```

use std::collections::BTreeMap;

use serde_json::Value;

use super::fields::Fields;
use super::layer::{Layer, is_digest};
use super::reader::Reader;
use super::time::Time;
use crate::engine::docker_root::Problem;
use crate::engine::small_file::Directory;
use crate::units::Bytes;

/// One image.
#[derive(Clone, Debug, PartialEq)]
pub struct Image {
    /// Its id, `sha256:…`; 64 digits alone before Docker 1.10.
    pub id: String,
    /// Its configuration whole; null when it could not be read.
    pub config: Value,
    /// The image that it was built on, when that was here.
    pub parent: Option<String>,
    /// The names with a tag that it has: `busybox:latest`.
    pub tags: Vec<String>,
    /// The names with a digest that it has: `busybox@sha256:…`.
    pub digests: Vec<String>,
    /// When it was last tagged.
    pub last_tagged: Option<Time>,
    /// Its layers, the lowest first.
    pub layers: Vec<Part>,
    /// What could not be read of it, or is missing.
    pub problems: Vec<Problem>,
}

/// A layer that an image names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// The digest of its files as a tar.
    pub diff: String,
    /// Its id in the layer database; nothing when it is not there.
    pub chain: Option<String>,
}

impl Image {
    /// Returns the digits of its id.
    pub fn digits(&self) -> &str {
        digits(&self.id)
    }

    /// Returns when it was made.
    pub fn created(&self) -> Option<Time> {
        Time::parse(self.config.text(&["created"])?)
    }

    /// Whether a layer of it is missing.
    pub fn is_short(&self) -> bool {
        self.layers.iter().any(|part| part.chain.is_none())
    }

    /// Returns what all its layers have together; nothing when one is missing or does not say it.
    pub fn size(&self, layers: &BTreeMap<String, Layer>) -> Option<Bytes> {
        self.layers.iter().try_fold(Bytes::new(0), |sum, part| sum.checked_add(layers.get(part.chain.as_ref()?)?.size?))
    }

    /// Returns its uppermost layer's id in the layer database.
    pub fn top(&self) -> Option<&str> {
        self.layers.last()?.chain.as_deref()
    }
}

/// Returns the digits of an id, with or without the algorithm before them.
pub fn digits(id: &str) -> &str {
    id.strip_prefix("sha256:").unwrap_or(id)
}

/// A name for an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Name {
    pub(super) name: String,
    pub(super) image: String,
}

/// Reads the images in `image/DRIVER`, and gives them their names; a name for an image that is not there is a problem.
pub(super) fn images(folder: &Directory, layers: &BTreeMap<String, Layer>, reader: &mut Reader) -> Vec<Image> {
    let mut found = Vec::new();
    if let Some(contents) = reader.folders(folder, &["imagedb", "content", "sha256"]) {
        let metadata = reader.folders(folder, &["imagedb", "metadata", "sha256"]);
        for name in reader.names(&contents) {
            found.push(image(&contents, metadata.as_ref(), &name, layers, reader));
        }
    }
    let names = reader.json(folder, "repositories.json").map(|json| names_in(&json)).unwrap_or_default();
    give_names(&mut found, names, folder, "repositories.json", reader);
    found
}

fn image(
    contents: &Directory,
    metadata: Option<&Directory>,
    name: &str,
    layers: &BTreeMap<String, Layer>,
    reader: &mut Reader,
) -> Image {
    let ((config, parent, updated, parts), problems) = reader.apart(|reader| {
        let config = reader.wanted_json(contents, name).unwrap_or_default();
        let about = metadata.and_then(|metadata| reader.folder(metadata, name));
        let parent = about.as_ref().and_then(|about| reader.line(about, "parent")).filter(|parent| is_digest(parent));
        let updated = about.as_ref().and_then(|about| reader.line(about, "lastUpdated"));
        let parts = parts(&config.texts(&["rootfs", "diff_ids"]), layers);
        if let Some(missing) = parts.iter().find(|part| part.chain.is_none()) {
            let above = parts.iter().filter(|part| part.chain.is_none()).count() - 1;
            let others = if above == 0 { String::new() } else { format!(", with {above} above it") };
            reader.problem(contents, Some(name), format!("its layer {} is missing{others}", missing.diff));
        }
        (config, parent, updated, parts)
    });
    Image {
        id: format!("sha256:{name}"),
        config,
        parent,
        tags: Vec::new(),
        digests: Vec::new(),
        last_tagged: updated.and_then(|text| Time::parse(&text)),
        layers: parts,
        problems,
    }
}

/// Finds the layers of an image from the lowest up: each by its own digest and the layer below it. That they are there
/// says that their chain ids are right; these are digests of digests, and need not be computed.
fn parts(diffs: &[&str], layers: &BTreeMap<String, Layer>) -> Vec<Part> {
    let by_place: BTreeMap<_, _> =
        layers.values().map(|layer| ((layer.parent.as_deref(), layer.diff.as_deref()), &layer.chain)).collect();
    let mut below = Some(None);
    diffs
        .iter()
        .map(|diff| {
            let chain = below.and_then(|parent| by_place.get(&(parent, Some(*diff))));
            below = chain.map(|chain| Some(chain.as_str()));
            Part { diff: (*diff).to_owned(), chain: chain.map(|chain| (*chain).clone()) }
        })
        .collect()
}

/// Returns the names in `repositories.json`, sorted.
pub(super) fn names_in(json: &Value) -> Vec<Name> {
    let references = json.entries(&["Repositories"]).flat_map(|(_, references)| references.entries(&[]));
    let mut names: Vec<_> = references
        .filter_map(|(name, image)| Some(Name { name: name.to_owned(), image: image.as_str()?.to_owned() }))
        .collect();
    names.sort_by(|a, b| a.name.cmp(&b.name));
    names
}

const NOT_THERE: &str = ", which is not there";

/// Whether a problem is only that a name means no image: Docker shows no such name, and goes on.
pub fn is_name_of_nothing(problem: &Problem) -> bool {
    problem.path.ends_with("repositories.json") && problem.why.ends_with(NOT_THERE)
}

/// Gives images their names.
pub(super) fn give_names(images: &mut [Image], names: Vec<Name>, folder: &Directory, file: &str, reader: &mut Reader) {
    let places: BTreeMap<String, usize> = images.iter().enumerate().map(|(at, image)| (image.id.clone(), at)).collect();
    for Name { name, image } in names {
        match places.get(&image).and_then(|at| images.get_mut(*at)) {
            Some(found) if name.contains('@') => found.digests.push(name),
            Some(found) => found.tags.push(name),
            None => reader.problem(folder, Some(file), format!("`{name}` names the image {image}{NOT_THERE}")),
        }
    }
}
