//! The layers of a driver and the containers' own: `image/DRIVER/layerdb` (layer/filestore.go).
//!
//! ```text
//! sha256/CHAIN/diff, cache-id, size        and parent, for all but the lowest; tar-split.json.gz
//! mounts/CONTAINER/mount-id                and init-id, parent
//! ```
//!
//! `cache-id` and `mount-id` are the names by which the driver has the files.

use std::collections::BTreeMap;

use super::reader::Reader;
use crate::engine::docker_root::Problem;
use crate::engine::small_file::Directory;
use crate::units::Bytes;

/// A layer of images.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// Its id in the database, `sha256:…`: of itself and all below it. Before Docker 1.10 the image's id.
    pub chain: String,
    /// The digest of its files as a tar; nothing before Docker 1.10.
    pub diff: Option<String>,
    /// The layer below it.
    pub parent: Option<String>,
    /// The driver's name for it.
    pub cache_id: Option<String>,
    /// What its files have, without those of the layers below.
    pub size: Option<Bytes>,
    /// Whether there is what its tar can be put together from again, byte for byte.
    pub tar_split: bool,
    /// What could not be read of it, or is missing.
    pub problems: Vec<Problem>,
}

/// A container's own layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// The driver's name for it; nothing when it could not be read.
    pub mount_id: Option<String>,
    /// The driver's name for the layer between it and the image, with `/etc/hosts` and its like.
    pub init_id: Option<String>,
    /// The uppermost layer of the image.
    pub parent: Option<String>,
    /// What could not be read of it.
    pub problems: Vec<Problem>,
}

/// Whether a text is a digest, as Docker names layers and images.
pub(super) fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:")
        .is_some_and(|hex| !hex.is_empty() && hex.len() <= 64 && hex.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// Reads the layers in `image/DRIVER/layerdb`, by chain id.
pub(super) fn layers(images: &Directory, reader: &mut Reader) -> BTreeMap<String, Layer> {
    let Some(database) = reader.folders(images, &["layerdb", "sha256"]) else { return BTreeMap::new() };
    let names = reader.names(&database);
    names.into_iter().map(|name| layer(&database, &name, reader)).map(|layer| (layer.chain.clone(), layer)).collect()
}

fn layer(database: &Directory, name: &str, reader: &mut Reader) -> Layer {
    let (found, problems) = reader.apart(|reader| {
        let folder = reader.folder(database, name)?;
        let diff = digest(&folder, "diff", reader);
        let parent = digest(&folder, "parent", reader);
        let cache_id = reader.name(&folder, "cache-id");
        let size = reader.line(&folder, "size");
        let bytes = size.as_ref().and_then(|size| size.parse().ok().map(Bytes::new));
        if size.is_some() && bytes.is_none() {
            reader.problem(&folder, Some("size"), "it is no number of bytes".to_owned());
        }
        for (file, is_there) in [("diff", diff.is_some()), ("cache-id", cache_id.is_some()), ("size", size.is_some())] {
            if !is_there && matches!(folder.kind(file), Ok(None)) {
                reader.problem(&folder, Some(file), "it is missing".to_owned());
            }
        }
        let tar_split = !matches!(folder.kind("tar-split.json.gz"), Ok(None) | Err(_));
        Some((diff, parent, cache_id, bytes, tar_split))
    });
    let (diff, parent, cache_id, size, tar_split) = found.unwrap_or_default();
    Layer { chain: format!("sha256:{name}"), diff, parent, cache_id, size, tar_split, problems }
}

fn digest(folder: &Directory, name: &str, reader: &mut Reader) -> Option<String> {
    let line = reader.line(folder, name)?;
    if is_digest(&line) {
        return Some(line);
    }
    reader.problem(folder, Some(name), format!("`{line}` is no digest"));
    None
}

/// Reads the containers' own layers, by container.
pub(super) fn mounts(images: &Directory, reader: &mut Reader) -> BTreeMap<String, Mount> {
    let Some(database) = reader.folders(images, &["layerdb", "mounts"]) else { return BTreeMap::new() };
    let names = reader.names(&database);
    names.into_iter().map(|name| (name.clone(), mount(&database, &name, reader))).collect()
}

fn mount(database: &Directory, name: &str, reader: &mut Reader) -> Mount {
    let (found, problems) = reader.apart(|reader| {
        let folder = reader.folder(database, name)?;
        let mount_id = reader.name(&folder, "mount-id");
        if mount_id.is_none() && matches!(folder.kind("mount-id"), Ok(None)) {
            reader.problem(&folder, Some("mount-id"), "it is missing".to_owned());
        }
        Some((mount_id, reader.name(&folder, "init-id"), digest(&folder, "parent", reader)))
    });
    let (mount_id, init_id, parent) = found.unwrap_or_default();
    Mount { mount_id, init_id, parent, problems }
}
