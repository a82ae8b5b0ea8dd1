//! Whether what was unpacked is a root of Docker's, and what is written in it for its storage driver.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use super::contents::{Contents, Item};
use super::whole;
use crate::engine::docker_objects::{self, CONTAINERS, DATA, Objects, is_id};
use crate::engine::driver::Driver;
use crate::kernel::fs::{read_limited, write_alike};
use crate::ops::contents::overlay2::{Part, parts_of, with_driver};
use crate::units::Bytes;

/// No record of Docker's is longer.
const LONGEST: Bytes = Bytes::new(16 << 20);
/// The storage driver that has layers as they are unpacked.
pub(super) const UNPACKED: Driver = Driver::Overlay2;
/// How many things are named.
const NAMED: usize = 10;

/// A root with the files of its layers beside each other.
#[derive(Debug)]
pub(super) struct Complete {
    /// What Docker has written of it.
    pub(super) objects: Objects,
    /// Its layers, those beneath first.
    pub(super) parts: Vec<Part>,
    /// How many images it has.
    pub(super) images: usize,
}

/// Makes a root of Docker's of the files, and looks whether it is one: for overlay2, whose layers are directories.
///
/// # Errors
/// What of it is not whole, or not what it says.
pub(super) fn complete(new: &Path, contents: &Contents) -> Result<Complete> {
    named(new, contents, "image", UNPACKED)?;
    let (objects, parts) = read(new, UNPACKED)?;
    for item in &contents.items {
        if let Item::Volume { .. } = item {
            let data = new.join(item.place()).join(DATA);
            anyhow::ensure!(
                data.symlink_metadata().is_ok_and(|found| found.is_dir()),
                "{item} has no directory {DATA}"
            );
        }
    }
    let needed: BTreeSet<&str> = parts.iter().map(|part| part.id.as_str()).collect();
    for item in &contents.items {
        if let Item::Layer { id, .. } = item {
            anyhow::ensure!(needed.contains(id.as_str()), "{item} is no layer of its images and containers");
        }
    }
    let images = images(new, &objects)?;
    Ok(Complete { objects, parts, images })
}

/// Writes the storage driver's name where it stands: over the database of images and layers, which is called `image` or as another
/// driver's, and in each container.
///
/// # Errors
/// When something cannot be written, or a container has no configuration.
pub(super) fn named(new: &Path, contents: &Contents, image: &str, driver: Driver) -> Result<()> {
    fs::rename(new.join("image").join(image), new.join("image").join(driver.name()))?;
    for item in &contents.items {
        if let Item::Container { id, .. } = item {
            let path = new.join(CONTAINERS).join(id).join("config.v2.json");
            let bytes = read_limited(&path, LONGEST)?.with_context(|| format!("{item} has no config.v2.json"))?;
            let text = String::from_utf8(bytes).with_context(|| format!("{item}: config.v2.json is no text"))?;
            let other = with_driver(&text, driver.name()).with_context(|| format!("{item}: config.v2.json"))?;
            if other != text {
                write_alike(&path, other.as_bytes(), &path, 0o600)?;
            }
        }
    }
    Ok(())
}

/// Reads what is made as any root, with its layers, those beneath first.
///
/// # Errors
/// What of it is not whole.
pub(super) fn read(new: &Path, driver: Driver) -> Result<(Objects, Vec<Part>)> {
    let objects = docker_objects::read(new)?;
    // What dmpool cannot read Docker may read otherwise.
    let unread = whole::unread(&objects, driver).into_iter();
    let unread: Vec<_> = unread.map(|problem| format!("{}: {}", problem.path.display(), problem.why)).collect();
    let wrong: Vec<_> = unread.into_iter().chain(whole::broken_containers(&objects, driver)).take(NAMED).collect();
    anyhow::ensure!(wrong.is_empty(), "{}", wrong.join("; "));
    let parts = parts_of(&objects, driver)
        .map_err(|broken| anyhow::anyhow!("{}", broken.into_iter().take(NAMED).collect::<Vec<_>>().join("; ")))?;
    Ok((objects, parts))
}

/// Looks whether each image's configuration has the digest that is its id; returns how many there are.
fn images(new: &Path, objects: &Objects) -> Result<usize> {
    let stores = objects.stores.iter().filter(|store| store.driver == UNPACKED.name());
    let images: Vec<_> = stores.flat_map(|store| &store.images).collect();
    for image in &images {
        let label = image.tags.first().map_or(image.digits(), String::as_str);
        anyhow::ensure!(is_id(image.digits()), "image {label}: its id is none");
        let content = new.join("image").join(UNPACKED.name()).join("imagedb/content/sha256").join(image.digits());
        let bytes = read_limited(&content, LONGEST)?.with_context(|| format!("image {label} has no configuration"))?;
        let found = format!("{:x}", Sha256::digest(&bytes));
        anyhow::ensure!(
            found == image.digits(),
            "image {label} cannot be loaded: its configuration is not what its id says"
        );
    }
    Ok(images.len())
}
