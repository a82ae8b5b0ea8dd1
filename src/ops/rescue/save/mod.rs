//! Images as an archive that `docker load` takes: each layer the tar that it once came as, byte for byte.
//!
//! ```text
//! CHAIN/layer.tar, json, VERSION     a layer, once for all images that have it, and what Docker before 1.10 wants of it
//! ID.json                            an image's configuration; ID is its digest
//! manifest.json                      which configuration and which layers make an image, and its names
//! repositories                       the names, for Docker before 1.10
//! ```

mod wanted;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::copy::{may_hold, may_write};
use super::with_root;
use crate::engine::docker_objects::{Fields, Image, Layer, Objects, Store, digits};
use crate::engine::small_file::Directory;
use crate::error::{Failure, Outcome};
use crate::kernel::folder::{FileKind, Time};
use crate::ops::contents::archive::{Member, Writer, made};
use crate::ops::contents::layer::{self, Stop};
use crate::ops::contents::source::Reach;
use crate::units::Bytes;
use wanted::{Wanted, repository};

/// No image's configuration is near this; the reader of a root takes no longer ones.
const LARGEST_CONFIG: u64 = 16 << 20;

/// What an archive of images is made of.
#[derive(Debug)]
pub struct Save<'a> {
    objects: &'a Objects,
    reach: &'a Reach,
    images: Vec<Saved<'a>>,
    layers: Vec<Part<'a>>,
}

#[derive(Debug)]
struct Saved<'a> {
    wanted: Wanted<'a>,
    config: Vec<u8>,
}

/// A layer in the archive.
#[derive(Debug)]
struct Part<'a> {
    store: &'a Store,
    layer: &'a Layer,
    /// The first image that has it.
    image: &'a Image,
    /// What its image is called in messages.
    label: String,
    /// The bytes of its tar.
    length: u64,
    is_top: bool,
}

/// Finds images by the names that `docker save` takes, and sees that each is there whole: its configuration is what its id
/// says, and each layer has what its tar is put together from.
///
/// # Errors
/// Refused when one is not, with all that is missing; as [`super::image`].
pub fn save<'a>(objects: &'a Objects, names: &[String], reach: &'a Reach) -> Outcome<Save<'a>> {
    let mut save = Save { objects, reach, images: Vec::new(), layers: Vec::new() };
    let mut broken = Vec::new();
    for wanted in wanted::wanted(objects, names)? {
        match save.add(&wanted) {
            Ok(config) => save.images.push(Saved { wanted, config }),
            Err(why) => broken.push(format!("image `{}`: {why}", label(&wanted))),
        }
    }
    let mut broken = broken.into_iter();
    let Some(first) = broken.next() else { return Ok(save) };
    let failure = Failure::refused(format!("cannot save {first}"));
    Err(broken
        .fold(failure, |failure, why| failure.fact("found", why))
        .fact("state", "nothing was written")
        .next(format!("dmpool rescue ps{}    # shows what `dmpool rescue export` can get out", with_root(objects))))
}

/// Returns what a message calls an image.
fn label(wanted: &Wanted<'_>) -> String {
    match wanted.tags.first() {
        Some(tag) => tag.clone(),
        None => wanted.image.digits().chars().take(12).collect(),
    }
}

impl<'a> Save<'a> {
    /// Takes an image's layers up, and returns its configuration.
    fn add(&mut self, wanted: &Wanted<'a>) -> Result<Vec<u8>, String> {
        let Wanted { store, image, .. } = wanted;
        if store.legacy {
            return Err("a Docker before 1.10 has it, which kept no digests of layers".to_owned());
        }
        let config = config(self.objects, store, image)?;
        let mut layers = Vec::new();
        for (at, part) in image.layers.iter().enumerate() {
            let found = part.chain.as_ref().and_then(|chain| store.layers.get(chain));
            let layer = found.ok_or_else(|| format!("its layer {} is missing", part.diff))?;
            if self.layers.iter().any(|known| known.layer.chain == layer.chain) {
                continue;
            }
            let of_layer = |why: String| format!("its layer {}: {why}", part.diff);
            if !layer.tar_split {
                return Err(of_layer(
                    "tar-split.json.gz is missing, without which its digest cannot be met".to_owned(),
                ));
            }
            if layer.cache_id.is_none() {
                return Err(of_layer("nothing says which of the driver's it is".to_owned()));
            }
            let length = layer::length(self.objects, store, layer).map_err(of_layer)?;
            let is_top = at + 1 == image.layers.len();
            layers.push(Part { store, layer, image, label: label(wanted), length, is_top });
        }
        self.layers.append(&mut layers);
        Ok(config)
    }

    /// Returns how many bytes the archive will have, but for headers.
    fn length(&self) -> Bytes {
        Bytes::new(self.layers.iter().fold(0, |sum, part| sum.saturating_add(part.length)))
    }

    /// Refuses a file that cannot hold the archive, or lies in the Docker root itself.
    ///
    /// # Errors
    /// Refused with what is needed and free.
    pub fn may_go_to(&self, file: &Path) -> Outcome<()> {
        let parent = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // Where there is no such directory, that is said when the file is made.
        let Ok(parent) = parent.canonicalize() else { return Ok(()) };
        may_write(self.objects, &parent)?;
        may_hold(self.length(), &parent, file)
    }

    /// Writes the archive.
    ///
    /// # Errors
    /// When it cannot be written, or a layer does not come out as it was: what was written is no archive then.
    pub fn write<W: Write>(&self, out: &mut Writer<W>) -> Result<(), Unsaved> {
        for part in &self.layers {
            self.layer(part, out).map_err(|stop| unsaved(part, stop))?;
        }
        for Saved { wanted, config } in &self.images {
            file(out, &config_name(wanted.image), time(wanted.image), config)?;
        }
        file(out, "manifest.json", NEVER, self.manifest().to_string().as_bytes())?;
        let repositories = self.repositories();
        if !repositories.is_empty() {
            file(out, "repositories", NEVER, Value::Object(repositories).to_string().as_bytes())?;
        }
        Ok(())
    }

    fn layer<W: Write>(&self, part: &Part<'_>, out: &mut Writer<W>) -> Result<(), Stop> {
        let folder = PathBuf::from(digits(&part.layer.chain));
        let modified = time(part.image);
        let status = made(FileKind::Directory, 0o755, modified);
        out.other(Member { path: &folder, status: &status, attributes: &[] }, None)?;
        let status = made(FileKind::File, 0o644, modified);
        let [version, json, tar] = ["VERSION", "json", "layer.tar"].map(|name| folder.join(name));
        let member = |path| Member { path, status: &status, attributes: &[] };
        out.bytes(member(&version), b"1.0")?;
        out.bytes(member(&json), part.before_1_10().to_string().as_bytes())?;
        out.stream(member(&tar), part.length, |out| {
            layer::write(self.objects, part.store, part.layer, part.length, self.reach, out)
        })
    }

    fn manifest(&self) -> Value {
        let ids: BTreeSet<&str> = self.images.iter().map(|saved| saved.wanted.image.id.as_str()).collect();
        let of_image = |Saved { wanted, .. }: &Saved<'_>| {
            let chains = wanted.image.layers.iter().filter_map(|part| part.chain.as_deref());
            let layers: Vec<_> = chains.map(|chain| format!("{}/layer.tar", digits(chain))).collect();
            let mut of_image = Map::new();
            of_image.insert("Config".to_owned(), config_name(wanted.image).into());
            of_image.insert("RepoTags".to_owned(), wanted.tags.clone().into());
            of_image.insert("Layers".to_owned(), layers.into());
            // Docker takes one that comes with it.
            if let Some(parent) = wanted.image.parent.as_deref().filter(|parent| ids.contains(parent)) {
                of_image.insert("Parent".to_owned(), parent.into());
            }
            Value::Object(of_image)
        };
        Value::Array(self.images.iter().map(of_image).collect())
    }

    fn repositories(&self) -> Map<String, Value> {
        let mut all: BTreeMap<&str, Map<String, Value>> = BTreeMap::new();
        for Saved { wanted, .. } in &self.images {
            for (name, tag) in wanted.tags.iter().filter_map(|tag| repository(tag)) {
                if let Some(top) = wanted.image.top() {
                    all.entry(name).or_default().insert(tag.to_owned(), digits(top).into());
                }
            }
        }
        all.into_iter().map(|(name, tags)| (name.to_owned(), Value::Object(tags))).collect()
    }
}

impl Part<'_> {
    /// What Docker before 1.10 calls an image: the layer, and, of the uppermost, the image's configuration.
    fn before_1_10(&self) -> Value {
        let config = &self.image.config;
        let mut found = json!({ "id": digits(&self.layer.chain) });
        if let Some(fields) = found.as_object_mut() {
            fields.extend(self.layer.parent.as_deref().map(|parent| ("parent".to_owned(), digits(parent).into())));
            let keys: &[&str] = if self.is_top {
                &[
                    "created",
                    "author",
                    "architecture",
                    "os",
                    "container",
                    "container_config",
                    "docker_version",
                    "config",
                ]
            } else {
                &["created", "architecture", "os"]
            };
            let known = keys.iter().map(|key| (*key, config.at(&[key]))).filter(|(_, value)| !value.is_null());
            fields.extend(known.map(|(key, value)| (key.to_owned(), value.clone())));
        }
        found
    }
}

/// Why no archive was made.
#[derive(Debug)]
pub enum Unsaved {
    /// What it is written to takes no more.
    Output(io::Error),
    /// Something does not come out as it was.
    Source(Failure),
}

impl From<io::Error> for Unsaved {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

fn unsaved(part: &Part<'_>, stop: Stop) -> Unsaved {
    let layer = part.layer.diff.as_deref().unwrap_or(&part.layer.chain);
    let cannot = |why: String| {
        format!("cannot save image `{}`: its layer {layer} does not come out as it was: {why}", part.label)
    };
    let failure = match stop {
        Stop::Output(e) => return Unsaved::Output(e),
        Stop::Source(why) => Failure::failed(cannot(why)),
        Stop::Unreached(failure) => Failure { what: cannot(failure.what.clone()), ..failure },
    };
    let place = format!("{} of the driver {}", part.layer.cache_id.as_deref().unwrap_or("nothing"), part.store.driver);
    Unsaved::Source(failure.fact("layer", place).fact("state", "there is no archive; the source was not written"))
}

const NEVER: Time = Time { seconds: 0, nanoseconds: 0 };

fn time(image: &Image) -> Time {
    image.created().map_or(NEVER, |time| Time { seconds: time.seconds(), nanoseconds: 0 })
}

fn config_name(image: &Image) -> String {
    format!("{}.json", image.digits())
}

fn file<W: Write>(out: &mut Writer<W>, name: &str, modified: Time, bytes: &[u8]) -> io::Result<()> {
    let status = made(FileKind::File, 0o644, modified);
    out.bytes(Member { path: Path::new(name), status: &status, attributes: &[] }, bytes)
}

/// Returns an image's configuration as its file has it, which is what its id is the digest of.
fn config(objects: &Objects, store: &Store, image: &Image) -> Result<Vec<u8>, String> {
    let names = ["image", &store.driver, "imagedb", "content", "sha256"];
    let root = Directory::open(&objects.path);
    let folder = names.iter().fold(root, |folder, name| folder.and_then(|folder| folder.enter(name)));
    let read = folder.and_then(|folder| folder.read(image.digits(), LARGEST_CONFIG));
    let bytes = read.map_err(|e| format!("its configuration cannot be read: {e}"))?;
    let digest = format!("{:x}", Sha256::digest(&bytes));
    if digest != image.digits() {
        return Err(format!("its configuration is damaged: its digest is sha256:{digest}"));
    }
    Ok(bytes)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]
mod tests;
