//! A Docker root for the storage driver overlay2 out of an archive, where there is none.

use std::collections::BTreeSet;
use std::fs::{self, File, Permissions};
use std::io::{BufReader, Seek, SeekFrom};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::unistd::geteuid;
use sha2::{Digest, Sha256};

use super::at_rest::docker_is_down;
use super::check::{can_be_read_twice, checked, failed, opened};
use super::contents::{Contents, Item, LAYERS, VOLUMES};
use super::place::Staging;
use super::powers::Powers;
use super::vacant;
use super::walk::{Wrong, walk};
use super::whole;
use crate::engine::configuration::Configuration;
use crate::engine::docker_objects::{self, CONTAINERS, DATA, Data, Objects, is_id};
use crate::engine::driver::Driver;
use crate::error::{Failure, Kind, Outcome};
use crate::kernel::folder::Folder;
use crate::kernel::fs::{make_dir, read_limited, sync_file_system, write_alike};
use crate::kernel::interrupt::{Held, UntilSignal};
use crate::kernel::mounts;
use crate::ops::contents::archive::Remark;
use crate::ops::contents::overlay2::{self, Ground, dress_layers, parts_of, with_driver};
use crate::ops::fault::{self, Point};
use crate::ops::progress::{Progress, Watcher};
use crate::ops::rescue::copy::may_hold;
use crate::ops::volumes_of_docker::{Entries, Entry, Stop, Unpack};
use crate::process::{as_root, quote};
use crate::units::Bytes;

/// The driver that the root is made for.
const DRIVER: Driver = Driver::Overlay2;
/// What is put in place, in that order; the last is only set aside.
const NAMES: [&str; 6] = ["overlay2", VOLUMES, "network", "image", CONTAINERS, "buildkit"];
/// The networks that every Docker makes.
const MADE_BY_DOCKER: [&str; 3] = ["bridge", "host", "none"];
/// No record of Docker's is longer.
const LONGEST: Bytes = Bytes::new(16 << 20);
/// How many things are named.
const NAMED: usize = 10;

/// An archive that can be loaded.
#[derive(Debug)]
pub struct Load {
    root: PathBuf,
    input: PathBuf,
    from: File,
    /// What is in it, when it was read already.
    contents: Option<Contents>,
    /// What is to be known beforehand.
    pub notes: Vec<String>,
    /// What its containers may do to the host once Docker starts; nothing is known of those in a pipe.
    pub powers: Vec<String>,
}

/// What was loaded.
#[derive(Debug)]
pub struct Loaded {
    /// What was in the archive.
    pub contents: Contents,
    /// How many images there are.
    pub images: usize,
    /// Layers whose tar does not come out as Docker's digest of it says, and why.
    pub differing: Vec<String>,
    /// What the containers may do to the host once Docker starts.
    pub powers: Vec<String>,
}

/// Looks whether an archive can be loaded into a root; `-` is standard input, which is read only by [`Load::run`]. A file is read
/// whole, and its checksums are compared.
///
/// # Errors
/// Refused when the archive is damaged, the root has anything already, Docker runs on it, or overlay2 cannot be there.
pub fn load(root: &Path, input: &Path) -> Outcome<Load> {
    let refuse = |why: String| {
        Failure::refused(format!("cannot load into the Docker root `{}`: {why}", root.display()))
            .fact("state", "nothing was touched")
    };
    if !geteuid().is_root() {
        return Err(refuse("only root may make one".to_owned()).next(as_root()));
    }
    let root = &std::path::absolute(root).map_err(|e| refuse("its path cannot be told".to_owned()).because(e))?;
    docker_is_down(root, &refuse)?;
    let mut notes = told(root, &refuse)?;
    let there = existing(root);
    let objects =
        docker_objects::read(there).map_err(|e| refuse("what is there cannot be read".to_owned()).because(e))?;
    let ground = Ground::look(&objects);
    if Staging::is_left_in(root) {
        notes.push("a load before this one was killed: what it has put in place is taken back first".to_owned());
    } else {
        if there == root {
            has_nothing(&objects, &refuse)?;
            may_be_renamed(root, &refuse)?;
        }
        ground.may_have_overlay2(there, &refuse)?;
    }
    let mut from = opened(input)?;
    let mut load =
        Load { root: root.clone(), input: input.to_owned(), from, contents: None, notes, powers: Vec::new() };
    from = load.from.try_clone().map_err(|e| refuse("the archive cannot be read".to_owned()).because(e))?;
    if can_be_read_twice(&mut from) {
        let is_roomy = |contents: &Contents| match Staging::has_leavings_in(root) {
            // They take room, and are removed before anything is made; whether there is enough is looked at then.
            true => Ok(()),
            false => load.has_room(contents).map_err(Wrong::Told),
        };
        let mut powers = Powers::default();
        let mut look = |item: &Item, entry: &Entry, entries: &mut Entries<_>| Ok(powers.look(item, entry, entries)?);
        let contents = checked(&from, &mut |contents| is_roomy(contents), &mut look);
        load.powers = powers.lines();
        load.contents = Some(contents.map_err(|wrong| failed(input, wrong))?);
    }
    Ok(load)
}

/// Returns the directory itself, or the nearest above that is there.
fn existing(root: &Path) -> &Path {
    root.ancestors().find(|path| path.is_dir()).unwrap_or(Path::new("/"))
}

/// Whether two paths are one directory, or would be once it is made.
fn is_same(one: &Path, other: &Path) -> bool {
    let identity = |path: &Path| path.metadata().ok().map(|found| (found.dev(), found.ino()));
    let below = |path: &Path| {
        let there = existing(path);
        Some((identity(there)?, path.strip_prefix(there).ok()?.to_owned()))
    };
    one == other || below(one).is_some_and(|one| below(other) == Some(one))
}

/// Refuses where Docker would start with another storage driver; says where it will look elsewhere.
fn told(root: &Path, refuse: &dyn Fn(String) -> Failure) -> Outcome<Vec<String>> {
    let next = Configuration::of_next(Path::new("/"));
    let other = next.root();
    if !is_same(&other, root) {
        return Ok(vec![format!("Docker is told the root {}: tell it data-root {}", other.display(), root.display())]);
    }
    let change =
        "have \"storage-driver\": \"overlay2\" in /etc/docker/daemon.json, without storage-opts of another driver";
    if let Some(driver) = next.driver().filter(|driver| *driver != DRIVER.name()) {
        return Err(refuse(format!("Docker is told the storage driver {driver}, and would not show what is loaded"))
            .next(change));
    }
    if let Some(option) = next.given_options().into_iter().find(|option| option.starts_with("dm.")) {
        return Err(refuse(
            "Docker is told an option of devicemapper's, with which overlay2 does not start".to_owned(),
        )
        .fact("found", option)
        .next(change));
    }
    Ok(Vec::new())
}

/// Refuses a root in which anything is.
fn has_nothing(objects: &Objects, refuse: &dyn Fn(String) -> Failure) -> Outcome<()> {
    let mut has = Vec::new();
    for store in &objects.stores {
        let (images, containers) = (store.images.len(), store.mounts.len());
        has.push(format!("{images} images and {containers} containers of {}", store.driver));
    }
    has.extend(
        objects.containers.iter().map(|container| format!("container {}", crate::ops::rescue::label(container))),
    );
    let volumes = objects.volumes.iter().filter(|volume| volume.data != Data::Missing);
    has.extend(volumes.map(|volume| format!("volume {}", volume.name)));
    let networks = objects.networks.iter().filter(|network| !MADE_BY_DOCKER.contains(&network.name.as_str()));
    has.extend(networks.map(|network| format!("network {}", network.name)));
    let others = objects.drivers.iter().filter(|driver| **driver != DRIVER);
    has.extend(others.map(|driver| format!("files of the storage driver {driver}")));
    has.extend(objects.problems.iter().map(|problem| format!("{}: {}", problem.path.display(), problem.why)));
    // What is in its place is removed, so the names that Docker would know are not enough.
    if has.is_empty() {
        has = vacant::others(&objects.path, &NAMES, NAMED + 1);
    }
    if has.is_empty() {
        return Ok(());
    }
    let more = has.len().saturating_sub(NAMED);
    let failure = has.iter().take(NAMED).fold(refuse("it is not empty".to_owned()), |f, has| f.fact("found", has));
    let failure = if more > 0 { failure.fact("found", format!("{more} more")) } else { failure };
    let root = quote(&objects.path.to_string_lossy());
    Err(failure.next(format!("name another root with --root, or set this one aside:  mv {root} {root}.before")))
}

/// Refuses what cannot be renamed, or would lead elsewhere.
fn may_be_renamed(root: &Path, refuse: &dyn Fn(String) -> Failure) -> Outcome<()> {
    let mounts = mounts::own().unwrap_or_default();
    for name in NAMES {
        let path = root.join(name);
        let Ok(found) = path.symlink_metadata() else { continue };
        let what = match () {
            () if found.is_symlink() => "a symbolic link",
            () if !found.is_dir() => "no directory",
            () if mounts.iter().any(|mount| mount.mount_point == path) => "a mount point",
            () => continue,
        };
        return Err(refuse("what is there cannot be renamed".to_owned())
            .fact("found", format!("{} is {what}", path.display()))
            .next("put a plain directory in its place"));
    }
    Ok(())
}

impl Load {
    /// Returns what will be loaded, and what not, as far as that is known: of a pipe nothing.
    pub const fn contents(&self) -> Option<&Contents> {
        self.contents.as_ref()
    }

    /// Returns the root.
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn has_room(&self, contents: &Contents) -> Outcome<()> {
        may_hold(Bytes::new(contents.bytes), existing(&self.root), &self.root)
    }

    /// Makes the root.
    ///
    /// # Errors
    /// When anything of the archive is not what it was, or cannot be made or kept exactly: nothing is in place then.
    pub fn run(mut self, watcher: &Watcher) -> Outcome<Loaded> {
        let held = Held::hold().map_err(|e| Failure::failed("cannot hold back signals").because(e))?;
        if self.contents.is_some() {
            self.from.seek(SeekFrom::Start(0)).map_err(|e| self.failed(e.into()))?;
        }
        let staging = Staging::begin(&self.root).map_err(|e| self.failed(e))?;
        // What was half in place is gone only now.
        let refuse = |why: String| {
            Failure::refused(format!("cannot load into the Docker root `{}`: {why}", self.root.display()))
                .fact("state", "nothing was put in place; what was made is removed")
        };
        let objects = docker_objects::read(&self.root).map_err(|e| self.failed(e.into()))?;
        has_nothing(&objects, &refuse)?;
        may_be_renamed(&self.root, &refuse)?;
        Ground::look(&objects).may_have_overlay2(&self.root, &refuse)?;
        let new = staging.new_root();
        let contents = self.unpack(&new, &held, watcher)?;
        let bad = |e: anyhow::Error| {
            Failure::refused(format!("cannot load `{}`: {e:#}", self.input.display()))
                .fact("state", "nothing was put in place; what was made is removed")
        };
        let loaded = complete(&new, contents, &held, watcher).map_err(bad)?;
        sync_file_system(&new).map_err(|e| self.failed(e))?;
        docker_is_down(&self.root, &refuse)?;
        staging.place(&NAMES).map_err(|e| self.failed(e))?;
        Ok(loaded)
    }

    fn failed(&self, error: anyhow::Error) -> Failure {
        let failure = Failure::failed(format!("cannot load into `{}`", self.root.display())).because(error);
        if Staging::is_left_in(&self.root) {
            failure
                .fact("state", "only a part of an archive may be in place: do not start Docker there")
                .next("dmpool load FILE, once what is said above is mended: it takes that part back first")
        } else {
            failure.fact("state", "nothing was put in place")
        }
    }

    fn unpack(&self, new: &Path, held: &Held, watcher: &Watcher) -> Outcome<Contents> {
        let mut making = Making { new, held, current: None, lost: Vec::new(), layers: 0, done: 0, total: 0, watcher };
        let from = BufReader::with_capacity(256 << 10, UntilSignal { held, from: &self.from });
        let making_of = std::cell::RefCell::new(&mut making);
        let walked = walk(
            from,
            &mut |contents| {
                self.has_room(contents).map_err(Wrong::Told)?;
                making_of.borrow_mut().begin(contents)
            },
            &mut |item, entry, entries| making_of.borrow_mut().entry(item, entry, entries),
        );
        let walked = walked.and_then(|contents| making.finish().map(|()| contents));
        walked.map_err(|wrong| match (held.take(), wrong) {
            (Some(_), Wrong::Stop(_)) => failed(&self.input, Stop::Signal.into()),
            (_, wrong) => failed(&self.input, wrong),
        })
    }
}

/// The files of a root, as they come.
struct Making<'a> {
    new: &'a Path,
    held: &'a Held,
    current: Option<(PathBuf, Unpack)>,
    lost: Vec<String>,
    layers: usize,
    done: u64,
    total: u64,
    watcher: &'a Watcher,
}

impl Making<'_> {
    fn begin(&mut self, contents: &Contents) -> Result<(), Wrong> {
        self.total = contents.bytes.max(1);
        let make = |name: &str, of: &str| -> Result<()> {
            let path = self.new.join(name);
            make_dir(&path, 0o700)?;
            if let Some(owner) = contents.directories.get(of) {
                chown(&path, Some(owner.uid), Some(owner.gid))?;
                fs::set_permissions(&path, Permissions::from_mode(owner.mode & 0o7777))?;
            }
            Ok(())
        };
        let all = [("overlay2", LAYERS), (VOLUMES, VOLUMES), ("image", "image"), (CONTAINERS, CONTAINERS)];
        all.iter().try_for_each(|(name, of)| make(name, of)).map_err(told_of)
    }

    /// Returns the directory that an item is made in; nothing of what is for people.
    fn base(&self, item: &Item) -> Result<Option<Folder>, Wrong> {
        let path = match item {
            Item::Host | Item::Bind { .. } => return Ok(None),
            Item::Network => self.new.to_owned(),
            Item::Image => self.new.join("image"),
            Item::VolumeDatabase | Item::Volume { .. } => self.new.join(VOLUMES),
            Item::Container { .. } => self.new.join(CONTAINERS),
            Item::Layer { id, .. } => {
                let path = self.new.join(DRIVER.name()).join(id);
                make_dir(&path, 0o700).map_err(told_of)?;
                path
            }
        };
        Ok(Some(Folder::open(&path).map_err(Stop::Kernel)?))
    }

    fn entry<R: std::io::Read>(&mut self, item: &Item, entry: &Entry, entries: &mut Entries<R>) -> Result<(), Wrong> {
        let place = item.place();
        if self.current.as_ref().is_none_or(|(of, _)| *of != place) {
            self.finish()?;
            let Some(base) = self.base(item)? else { return Ok(()) };
            self.current = Some((place.clone(), Unpack::new(base, &place)));
        }
        let Some((_, unpack)) = &mut self.current else { return Ok(()) };
        let lost = &mut self.lost;
        unpack.entry(entry, entries, self.held, &mut |remark: Remark| lost.push(remark.to_string()))?;
        let bytes: u64 = entry.extents.iter().map(|(_, length)| length).sum();
        self.done = self.done.saturating_add(bytes);
        let (done, total) = (Bytes::new(self.done.min(self.total)), Bytes::new(self.total));
        self.watcher.tell(&Progress { what: "loading", done, total });
        Ok(())
    }

    /// Ends an item. What cannot be kept exactly ends the whole.
    fn finish(&mut self) -> Result<(), Wrong> {
        let Some((place, mut unpack)) = self.current.take() else { return Ok(()) };
        let lost = &mut self.lost;
        unpack.end(&mut |remark: Remark| lost.push(remark.to_string()))?;
        if place.starts_with(LAYERS) {
            fault::reached(self.layers, Point::Layer).map_err(told_of)?;
            self.layers += 1;
        }
        if self.lost.is_empty() {
            return Ok(());
        }
        let failure = Failure::failed("cannot load the archive: not all of it can be made here as it was")
            .fact("state", "nothing was put in place; what was made is removed");
        Err(Wrong::Told(self.lost.iter().take(NAMED).fold(failure, |failure, why| failure.fact("found", why))))
    }
}

fn told_of(error: anyhow::Error) -> Wrong {
    let failure = Failure::failed("cannot load the archive").because(error);
    Wrong::Told(failure.fact("state", "nothing was put in place; what was made is removed"))
}

/// Makes a root of Docker's of the files: the driver's own, and its name in each container. Then looks whether it is one.
fn complete(new: &Path, contents: Contents, held: &Held, watcher: &Watcher) -> Result<Loaded> {
    fs::rename(new.join("image/image"), new.join("image").join(DRIVER.name()))?;
    for item in &contents.items {
        if let Item::Container { id, .. } = item {
            let path = new.join(CONTAINERS).join(id).join("config.v2.json");
            let bytes = read_limited(&path, LONGEST)?.with_context(|| format!("{item} has no config.v2.json"))?;
            let text = String::from_utf8(bytes).with_context(|| format!("{item}: config.v2.json is no text"))?;
            let other = with_driver(&text, DRIVER.name()).with_context(|| format!("{item}: config.v2.json"))?;
            if other != text {
                write_alike(&path, other.as_bytes(), &path, 0o600)?;
            }
        }
    }
    let objects = docker_objects::read(new)?;
    // What dmpool cannot read Docker may read otherwise.
    let unread = whole::unread(&objects, DRIVER).into_iter();
    let unread: Vec<_> = unread.map(|problem| format!("{}: {}", problem.path.display(), problem.why)).collect();
    let wrong: Vec<_> = unread.into_iter().chain(whole::broken_containers(&objects, DRIVER)).take(NAMED).collect();
    anyhow::ensure!(wrong.is_empty(), "{}", wrong.join("; "));
    for item in &contents.items {
        if let Item::Volume { .. } = item {
            let data = new.join(item.place()).join(DATA);
            anyhow::ensure!(
                data.symlink_metadata().is_ok_and(|found| found.is_dir()),
                "{item} has no directory {DATA}"
            );
        }
    }
    let parts = parts_of(&objects, DRIVER)
        .map_err(|broken| anyhow::anyhow!("{}", broken.into_iter().take(NAMED).collect::<Vec<_>>().join("; ")))?;
    let needed: BTreeSet<&str> = parts.iter().map(|part| part.id.as_str()).collect();
    for item in &contents.items {
        if let Item::Layer { id, .. } = item {
            anyhow::ensure!(needed.contains(id.as_str()), "{item} is no layer of its images and containers");
        }
    }
    let images = images(new, &objects)?;
    dress_layers(new, &parts)?;
    let mut differing = Vec::new();
    let total = Bytes::new(contents.bytes.max(1));
    for (number, part) in parts.iter().enumerate() {
        anyhow::ensure!(!held.came(), "a signal came");
        if let Some(chain) = &part.chain
            && let Err(why) = overlay2::digest(&objects, DRIVER, chain, new, &part.id)
        {
            differing.push(format!("{}: {why}", part.whose));
        }
        let (number, all) = (number as u64 + 1, parts.len() as u64);
        let done = if number == all { total } else { Bytes::new(total.get() / all * number) };
        watcher.tell(&Progress { what: "comparing layers", done, total });
    }
    let powers = Powers::of_all(&objects.containers).lines();
    Ok(Loaded { contents, images, differing, powers })
}

/// Looks whether each image's configuration has the digest that is its id; returns how many there are.
fn images(new: &Path, objects: &Objects) -> Result<usize> {
    let stores = objects.stores.iter().filter(|store| store.driver == DRIVER.name());
    let images: Vec<_> = stores.flat_map(|store| &store.images).collect();
    for image in &images {
        let label = image.tags.first().map_or(image.digits(), String::as_str);
        anyhow::ensure!(is_id(image.digits()), "image {label}: its id is none");
        let content = new.join("image").join(DRIVER.name()).join("imagedb/content/sha256").join(image.digits());
        let bytes = read_limited(&content, LONGEST)?.with_context(|| format!("image {label} has no configuration"))?;
        let found = format!("{:x}", Sha256::digest(&bytes));
        anyhow::ensure!(
            found == image.digits(),
            "image {label} cannot be loaded: its configuration is not what its id says"
        );
    }
    Ok(images.len())
}

/// Says that not every layer is what Docker's digest of it says.
///
/// # Errors
/// [`Kind::Damaged`] when there is any.
pub fn outcome(loaded: &Loaded) -> Outcome<()> {
    if loaded.differing.is_empty() {
        return Ok(());
    }
    let failure = Failure::new(Kind::Damaged, "loaded, and not every layer is byte for byte what its image was");
    let failure = loaded.differing.iter().take(NAMED).fold(failure, |failure, why| failure.fact("found", why));
    Err(failure
        .fact("state", "all that the archive has is in place; `docker save` and `docker push` refuse these layers"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_root_is_the_same_by_whatever_path() {
        let temp = tempfile::tempdir().unwrap();
        let [data, link] = ["data", "link"].map(|name| temp.path().join(name));
        fs::create_dir(&data).unwrap();
        std::os::unix::fs::symlink(&data, &link).unwrap();
        assert!(is_same(&data, &link) && is_same(&data.join("docker"), &link.join("docker")));
        assert!(!is_same(&data, temp.path()) && !is_same(&data.join("docker"), &link.join("other")));
        fs::create_dir(data.join("docker")).unwrap();
        assert!(is_same(&data.join("docker"), &link.join("docker")) && !is_same(&data, &data.join("docker")));
    }
}
