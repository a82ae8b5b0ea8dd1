//! Writing them.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest, Sha256};

use super::{EMPTY, IMAGE, LAYERS, Opener, Part, WHOLE, read, remove_tree};
use crate::engine::docker_objects::{Objects, Store};
use crate::engine::driver::Driver;
use crate::kernel::folder::Folder;
use crate::kernel::fs::{create_file_durably, make_dir_durably, sync_dir, sync_file_system};
use crate::ops::contents::archive::{Destination, Remark, Upper, plant, plant_upper};
use crate::ops::contents::layer;
use crate::ops::contents::source::Reach;
use crate::ops::contents::tree::{Follow, Layer, Marks, Tree};
use crate::ops::progress::may_go_on;
use crate::units::Bytes;

/// How many losses are named.
const NAMED: usize = 5;

/// Writes every layer that is not whole yet below `to`. `writes` gets how many bytes are written next, `said` how many layers are whole and how
/// many there are, after each.
///
/// # Errors
/// When one cannot be read whole or kept exactly, nothing more can be written, or a signal comes.
pub(in crate::ops) fn copy_layers(
    root: &Path,
    to: &Path,
    reach: &Reach,
    writes: &dyn Fn(u64),
    said: &mut dyn FnMut(usize, usize),
) -> Result<()> {
    let (objects, parts) = read(root)?;
    let owner = fs::metadata(root.join(Driver::Devicemapper.name()))?;
    let place = Place { to, uid: owner.uid(), gid: owner.gid(), mode: owner.mode() & 0o7777 };
    for folder in [to, &to.join(WHOLE), &to.join(EMPTY), &to.join(LAYERS), &to.join(LAYERS).join("l")] {
        make_dir_durably(folder, 0o700)?;
    }
    place.give(&to.join(LAYERS))?;
    place.give(&to.join(LAYERS).join("l"))?;
    let links = links(&parts)?;
    let committed: BTreeSet<&String> = parts.iter().filter_map(|part| part.below.first()).collect();
    let mut opener = Opener::new(root, Driver::Devicemapper, reach);
    for (number, part) in parts.iter().enumerate() {
        may_go_on()?;
        if !to.join(WHOLE).join(&part.id).exists() {
            let is_committed = committed.contains(&part.id);
            one(&objects, part, &links, is_committed, &place, writes, &mut opener)
                .with_context(|| format!("copying {} ({})", part.whose, part.id))?;
        }
        said(number + 1, parts.len());
    }
    Ok(())
}

struct Place<'a> {
    to: &'a Path,
    uid: u32,
    gid: u32,
    mode: u32,
}

impl Place<'_> {
    /// Gives a folder of the driver's the owner and mode of devicemapper's: Docker gives all drivers' the same.
    fn give(&self, folder: &Path) -> Result<()> {
        chown(folder, Some(self.uid), Some(self.gid))?;
        Ok(fs::set_permissions(folder, Permissions::from_mode(self.mode))?)
    }
}

/// Removes the layers that a death has left half made.
///
/// # Errors
/// As [`remove_tree`].
pub(in crate::ops) fn remove_half_made(to: &Path) -> Result<()> {
    let layers = to.join(LAYERS);
    if !layers.exists() {
        return Ok(());
    }
    let names: Vec<_> = fs::read_dir(&layers)?.map(|entry| Ok(entry?.file_name())).collect::<Result<_>>()?;
    let half_made = |name: &&OsString| *name != "l" && !to.join(WHOLE).join(name).exists();
    names.iter().filter(half_made).try_for_each(|name| remove_tree(&layers.join(name)))
}

fn one(
    objects: &Objects,
    part: &Part,
    links: &BTreeMap<&str, String>,
    is_committed: bool,
    place: &Place<'_>,
    writes: &dyn Fn(u64),
    opener: &mut Opener<'_>,
) -> Result<()> {
    let layers = place.to.join(LAYERS);
    let own = layers.join(&part.id);
    // Half made before a death.
    remove_tree(&own)?;
    fs::create_dir(&own)?;
    place.give(&own)?;
    let old = match part.below.split_first() {
        Some((beneath, below)) => opener.open(beneath, below)?,
        None => {
            let empty = Folder::open(&place.to.join(EMPTY))?;
            Rc::new(Tree::new(vec![Layer::new(empty, Marks::None)?]))
        }
    };
    let new = opener.open(&part.id, &part.below)?;
    let always = always(objects, Driver::Devicemapper, part)?;
    let mut lost = Vec::new();
    let mut tell = |remark: Remark| lost.push(remark.to_string());
    let upper = Upper { old: &old, new: &new, always: &|path| always.contains(path), writes };
    plant_upper(&upper, &Folder::open(&own)?, OsStr::new("diff"), &mut tell)?;
    if !lost.is_empty() {
        let more = lost.len().saturating_sub(NAMED);
        lost.truncate(NAMED);
        let more = if more == 0 { String::new() } else { format!("; and {more} more") };
        bail!("{}{more}", lost.join("; "));
    }
    dress(part, links, is_committed, place)?;
    sync_file_system(&own)?;
    create_file_durably(&place.to.join(WHOLE).join(&part.id), Bytes::default()).map(drop)
}

/// Writes what overlay2 keeps beside a layer's files.
fn dress(part: &Part, links: &BTreeMap<&str, String>, is_committed: bool, place: &Place<'_>) -> Result<()> {
    let layers = place.to.join(LAYERS);
    let own = layers.join(&part.id);
    let link = links.get(part.id.as_str()).context("it has no short name")?;
    let write = |name: &str, text: &str, mode: u32| -> Result<()> {
        let path = own.join(name);
        fs::write(&path, text)?;
        Ok(fs::set_permissions(&path, Permissions::from_mode(mode))?)
    };
    write("link", link, 0o644)?;
    if !part.below.is_empty() {
        fs::create_dir(own.join("work"))?;
        place.give(&own.join("work"))?;
        let lower: Vec<String> =
            part.below.iter().filter_map(|id| links.get(id.as_str())).map(|link| format!("l/{link}")).collect();
        ensure!(lower.len() == part.below.len(), "a layer beneath it has no short name");
        write("lower", &lower.join(":"), 0o644)?;
    }
    if is_committed {
        write("committed", "", 0o600)?;
    }
    let short = layers.join("l").join(link);
    if short.symlink_metadata().is_err() {
        symlink(PathBuf::from("..").join(&part.id).join("diff"), &short)?;
    }
    Ok(())
}

/// Makes layers of overlay2 whole of which there is `diff` alone: the other files beside it, the short names, and the owner and mode of
/// each directory, which are those of the driver's own.
///
/// # Errors
/// When one cannot be written.
pub(in crate::ops) fn dress_layers(to: &Path, parts: &[Part]) -> Result<()> {
    let owner = fs::metadata(to.join(LAYERS))?;
    let place = Place { to, uid: owner.uid(), gid: owner.gid(), mode: owner.mode() & 0o7777 };
    make_dir_durably(&to.join(LAYERS).join("l"), 0o700)?;
    place.give(&to.join(LAYERS).join("l"))?;
    let links = links(parts)?;
    let committed: BTreeSet<&String> = parts.iter().filter_map(|part| part.below.first()).collect();
    for part in parts {
        place.give(&to.join(LAYERS).join(&part.id))?;
        dress(part, &links, committed.contains(&part.id), &place).with_context(|| part.whose.clone())?;
    }
    Ok(())
}

/// Returns the files that a layer's tar has, which `docker save` looks for in its own directory alone.
pub(in crate::ops) fn always(objects: &Objects, driver: Driver, part: &Part) -> Result<BTreeSet<PathBuf>> {
    let Some((store, found)) = part.chain.as_ref().and_then(|chain| of_chain(objects, driver, chain)) else {
        return Ok(BTreeSet::new());
    };
    if !found.tar_split {
        return Ok(BTreeSet::new());
    }
    layer::files(objects, store, found).map_err(|why| anyhow::anyhow!(why))
}

/// Returns a layer of the database, and the storage driver's store that it is in.
pub(in crate::ops) fn of_chain<'o>(
    objects: &'o Objects,
    driver: Driver,
    chain: &str,
) -> Option<(&'o Store, &'o crate::engine::docker_objects::Layer)> {
    let store = objects.stores.iter().find(|store| store.driver == driver.name())?;
    Some((store, store.layers.get(chain)?))
}

/// Returns the short name of each layer: 26 letters and digits, as Docker's, but always the same.
fn links(parts: &[Part]) -> Result<BTreeMap<&str, String>> {
    /// Base 32 (RFC 4648).
    const DIGITS: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    const LENGTH: usize = 26;
    let of = |id: &str| -> String {
        let sum = Sha256::digest(id.as_bytes());
        sum.iter()
            .take(LENGTH)
            .filter_map(|byte| DIGITS.get(usize::from(byte % 32)))
            .map(|digit| char::from(*digit))
            .collect()
    };
    let links: BTreeMap<&str, String> = parts.iter().map(|part| (part.id.as_str(), of(&part.id))).collect();
    let apart: BTreeSet<&String> = links.values().collect();
    ensure!(apart.len() == links.len(), "two layers would have one short name");
    Ok(links)
}

/// Copies `image/devicemapper`, which says nothing of the driver but by its own name.
///
/// # Errors
/// As [`copy_layers`].
pub(in crate::ops) fn copy_database(root: &Path, to: &Path) -> Result<()> {
    let image = to.join(IMAGE);
    remove_tree(&image)?;
    let from = Folder::open(&root.join("image"))?;
    let tree = Tree::new(vec![Layer::new(from, Marks::None)?]);
    let name = Path::new(Driver::Devicemapper.name());
    let found =
        tree.resolve(name, Follow::Parents).map_err(|why| anyhow::anyhow!("image/{}: {why}", name.display()))?;
    let destination = Destination { folder: Folder::open(to)?, path: to.to_owned(), name: Some(IMAGE.into()) };
    let mut lost = Vec::new();
    plant(&tree, &found, destination, &mut |remark| lost.push(remark.to_string()))?;
    ensure!(lost.is_empty(), "image/{}: {}", name.display(), lost.join("; "));
    sync_dir(to)
}
