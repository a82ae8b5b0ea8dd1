//! A Docker root as an archive. Nothing in it is written.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use nix::unistd::geteuid;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::at_rest::{docker_is_down, no_container_runs};
use super::binds::binds;
use super::changed::{Changed, changed};
use super::contents::{CONTENTS, Contents, Item, SUMS, Sums, VOLUMES};
use super::docker_needs::is_of_images;
use super::host::{Told, host};
use super::room::room;
use super::taken::{self, Open};
use super::whole;
use crate::engine::docker_objects::{Container, Objects};
use crate::engine::docker_root::Problem;
use crate::engine::driver::Driver;
use crate::error::{Failure, Outcome};
use crate::kernel::folder::{FileKind, Time};
use crate::kernel::fs::read_limited;
use crate::ops::contents::archive::{
    Member, OnBelow, Remark, Taken, Tell, Writer, made, measure, pack_layer, pack_some,
};
use crate::ops::contents::overlay2::{Opener, Part, always, parts_of};
use crate::ops::contents::source::{Reach, opened};
use crate::ops::contents::tree::{Entry, Lost};
use crate::ops::fault::{self, Point};
use crate::ops::progress::{Progress, Watcher};
use crate::ops::rescue::copy::may_write;
use crate::ops::rescue::with_root;
use crate::ops::volumes_of_docker::LONGEST_PATH;
use crate::process::{as_root, quote};
use crate::units::Bytes;

/// What images are called.
const NAMES: &str = "repositories.json";
const LONGEST_NAMES: Bytes = Bytes::new(32 << 20);
/// What an item counts for beside its files.
const ITEM: u64 = 64 << 10;
/// How many broken things are named.
const NAMED: usize = 10;
pub(super) const NEVER: Time = Time { seconds: 0, nanoseconds: 0 };

/// What is saved of a root.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Options {
    /// The storage driver, where several have images.
    pub driver: Option<String>,
    /// Containers and images that are left out, by name.
    pub without: Vec<String>,
    /// Whether what cannot be read whole is left out or filled with zeros, and told; else it ends the whole.
    pub damaged: bool,
    /// Whether directories of the host that containers have mounted are in it, too.
    pub include_binds: bool,
    /// The file that it goes to; nothing for a pipe.
    pub file: Option<PathBuf>,
}

/// What an archive is made of.
#[derive(Debug)]
pub struct Save<'a> {
    objects: Objects,
    driver: Driver,
    parts: Vec<Part>,
    reach: &'a Reach,
    contents: Contents,
    /// How large each item is, as far as that is known before it is opened.
    sizes: Vec<u64>,
    /// What of `image/DRIVER` is left out.
    gone: BTreeSet<PathBuf>,
    /// What is left out because it cannot be read, by path below the root.
    unread: Vec<Problem>,
    damaged: bool,
    /// What images are called, when some are left out.
    names: Option<Vec<u8>>,
    /// How Docker is told when nobody holds it.
    told: Told,
}

/// Why there is no archive.
#[derive(Debug)]
pub enum Unsaved {
    /// What it is written to takes no more.
    Output(io::Error),
    /// What is saved is not whole.
    Source(Failure),
}

impl From<io::Error> for Unsaved {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

/// Finds what there is to be saved of a root that nobody changes.
///
/// # Errors
/// Refused when Docker runs on the root, something in it is broken, or the archive has no room.
pub fn save<'a>(objects: Objects, reach: &'a Reach, options: &Options) -> Outcome<Save<'a>> {
    let root = objects.path.clone();
    let refuse = |why: String| refusal(&root, &why);
    docker_is_down(&root, &refuse)?;
    let save = look(objects, reach, options)?;
    if let Some((file, folder)) = options.file.as_ref().and_then(|file| Some((file, folder_of(file)?))) {
        room(Bytes::new(save.contents.bytes), &folder, file)?;
    }
    no_container_runs(&root, save.driver, &refuse)?;
    Ok(save)
}

fn refusal(root: &Path, why: &str) -> Failure {
    Failure::refused(format!("cannot save the Docker root `{}`: {why}", root.display()))
        .fact("state", "nothing was written")
}

/// Finds what there is to be saved, as it is in this moment.
///
/// # Errors
/// As [`save`], but for a Docker that runs, and for the room.
pub(super) fn look<'a>(mut objects: Objects, reach: &'a Reach, options: &Options) -> Outcome<Save<'a>> {
    let root = objects.path.clone();
    let refuse = |why: String| refusal(&root, &why);
    if !geteuid().is_root() {
        return Err(refuse("only root may read all of it".to_owned()).next(as_root()));
    }
    let driver = taken::driver(&objects, options.driver.as_deref(), &refuse)?;
    let mut left_out = taken::left_out(&objects, driver);
    let mut gone = taken::without(&mut objects, driver, &options.without)?;
    left_out.extend(taken::prune(&mut objects, driver, &mut gone));
    let volumes = taken::volumes(&root);
    left_out.extend(volumes.left.iter().cloned());
    let parts = parts_of(&objects, driver);
    let lone = whole::broken_containers(&objects, driver);
    let parts = match parts {
        Ok(parts) if lone.is_empty() => Ok(parts),
        parts => Err(parts.err().into_iter().flatten().chain(lone).collect::<Vec<_>>()),
    };
    let parts = parts.map_err(|broken| {
        let more = broken.len().saturating_sub(NAMED);
        let failure = refuse("not all of it is whole".to_owned());
        let failure = broken.iter().take(NAMED).fold(failure, |failure, why| failure.fact("found", why));
        let failure = if more > 0 { failure.fact("found", format!("{more} more")) } else { failure };
        failure.next(format!(
            "leave out what needs it with --without NAME; dmpool{} rescue images --tree shows what is there",
            with_root(&objects)
        ))
    })?;
    let mut unread = whole::unread(&objects, driver);
    for problem in volumes.unread {
        if unread.iter().all(|known| known.path != problem.path) {
            unread.push(problem);
        }
    }
    if let (Some(first), false) = (unread.first(), options.damaged) {
        let says = |problem: &Problem| format!("{}: {}", root.join(&problem.path).display(), problem.why);
        let failure = refuse("not all of it can be read".to_owned());
        let failure = unread.iter().take(NAMED).fold(failure, |failure, problem| failure.fact("found", says(problem)));
        let more = unread.len().saturating_sub(NAMED);
        let failure = if more > 0 { failure.fact("found", format!("{more} more")) } else { failure };
        let place = quote(&root.join(&first.path).to_string_lossy());
        return Err(
            failure.next(format!("ls -ld {place}    # mend it; or say --damaged: it is left out then, and named"))
        );
    }
    let archive = options.file.as_deref().and_then(folder_of);
    if let Some(directory) = &archive {
        let elsewhere = "name a file elsewhere; where Docker is down, - writes to a pipe";
        may_write(&objects, directory).map_err(|failure| failure.next(elsewhere))?;
    }
    let mut contents = contents(&objects, driver, &parts, options.include_binds, archive.as_deref());
    contents.left_out.extend(left_out);
    let of_volumes = volumes.taken.into_iter().map(|name| Item::Volume { name });
    let before = contents.items.iter().position(|item| matches!(item, Item::Bind { .. }));
    let before = before.unwrap_or(contents.items.len());
    contents.items.splice(before..before, of_volumes);
    let is_unread = |item: &Item| match item {
        Item::Network | Item::VolumeDatabase => unread.iter().any(|problem| problem.path.starts_with(item.place())),
        _ => false,
    };
    contents.items.retain(|item| !is_unread(item));
    let lost = unread.iter().map(|problem| format!("{}: {}", problem.path.display(), problem.why));
    contents.left_out.extend(lost);
    let sizes: Vec<u64> = contents.items.iter().map(|item| size(&objects, driver, &parts, &contents, item)).collect();
    contents.bytes = sizes.iter().fold(0, |sum, size| sum.saturating_add(*size));
    let names = root.join("image").join(driver.name()).join(NAMES);
    let names = (!options.without.is_empty()).then(|| read_limited(&names, LONGEST_NAMES).ok().flatten()).flatten();
    let names = names.and_then(|json| taken::names_left(&json, &gone));
    let (damaged, told) = (options.damaged, Told::default());
    Ok(Save { objects, driver, parts, reach, contents, sizes, gone, unread, damaged, names, told })
}

/// Returns the folder of a file, when it is there.
fn folder_of(file: &Path) -> Option<PathBuf> {
    file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new(".")).canonicalize().ok()
}

fn contents(
    objects: &Objects,
    driver: Driver,
    parts: &[Part],
    include_binds: bool,
    archive: Option<&Path>,
) -> Contents {
    let root = &objects.path;
    let mut contents = Contents::of(root.clone(), driver.name().to_owned());
    contents.directories = taken::directories(root, driver).into_iter().collect();
    let is_there = |name: &str| root.join(name).symlink_metadata().is_ok();
    contents.items.extend([Item::Host, Item::Image]);
    contents.items.extend(is_there("network").then_some(Item::Network));
    contents.items.extend(is_there("volumes/metadata.db").then_some(Item::VolumeDatabase));
    let store = objects.stores.iter().find(|store| store.driver == driver.name());
    let is_taken = |container: &&Container| store.is_some_and(|store| taken::is_taken(container, store));
    let containers = || objects.containers.iter().filter(is_taken);
    contents.items.extend(
        containers()
            .map(|container| Item::Container { id: container.id.clone(), name: container.name().map(str::to_owned) }),
    );
    let others = objects.containers.iter().filter(|container| !is_taken(container) && !container.config.is_null());
    contents.left_out.extend(others.map(|container| {
        let label = crate::ops::rescue::label(container);
        format!("container {label}: another storage driver has its layer")
    }));
    contents.items.extend(parts.iter().map(|part| Item::Layer { id: part.id.clone(), of: part.whose.clone() }));
    contents.binds = binds(objects, containers(), include_binds, archive);
    let saved = contents.binds.iter().enumerate().filter(|(_, bind)| bind.left_out.is_none());
    let saved: Vec<_> = saved.map(|(number, _)| Item::Bind { number }).collect();
    contents.items.extend(saved);
    contents
}

/// Returns how many bytes an item has, as far as that is known without opening its layer.
fn size(objects: &Objects, driver: Driver, parts: &[Part], contents: &Contents, item: &Item) -> u64 {
    let open = match item {
        Item::Host | Item::Image | Item::Network | Item::VolumeDatabase => return 0,
        Item::Layer { id, .. } => {
            let chain = parts.iter().find(|part| part.id == *id).and_then(|part| part.chain.as_ref());
            let store = objects.stores.iter().find(|store| store.driver == driver.name());
            let layer = chain.and_then(|chain| store?.layers.get(chain));
            return layer.and_then(|layer| layer.size).map_or(0, Bytes::get);
        }
        Item::Container { .. } | Item::Volume { .. } => taken::open(&objects.path, &item.place()).ok(),
        Item::Bind { number } => contents.binds.get(*number).and_then(|bind| of_host(&bind.source).ok()),
    };
    open.map_or(0, |open| measure(&open.tree, &open.from).bytes.get())
}

/// Opens a directory or a file of the host.
fn of_host(source: &Path) -> Result<Open, String> {
    let real = source.canonicalize().map_err(|e| e.to_string())?;
    if real.is_dir() {
        return taken::of_folder(opened(&real).map_err(|e| e.to_string())?, OsStr::new("/"));
    }
    let (parent, name) = (real.parent().unwrap_or(Path::new("/")), real.file_name().unwrap_or_default());
    taken::of_folder(opened(parent).map_err(|e| e.to_string())?, name)
}

impl Save<'_> {
    /// Returns what is in it.
    pub const fn contents(&self) -> &Contents {
        &self.contents
    }

    /// Returns how much of it is known without opening layers, but for containers and volumes that are gone when it is written.
    pub(super) fn bytes(&self, gone: &[&str], volumes: &BTreeSet<&str>) -> Bytes {
        let stays = |item: &Item| match item {
            Item::Container { id, .. } => !gone.contains(&id.as_str()),
            Item::Volume { name } => !volumes.contains(name.as_str()),
            _ => true,
        };
        let sizes = self.contents.items.iter().zip(&self.sizes).filter(|(item, _)| stays(item));
        Bytes::new(sizes.fold(0, |sum, (_, size)| sum.saturating_add(*size)))
    }

    /// Measures what containers have changed, but for those of `without`, which is not in the size that the contents tell; says whether
    /// it was measured just now.
    ///
    /// # Errors
    /// When somebody wanted an end.
    pub(super) fn changed(&self, without: &[&str], watcher: &Watcher) -> anyhow::Result<(Changed, bool)> {
        changed(&self.objects, self.driver, &self.parts, self.reach, without, watcher)
    }

    /// Returns the same with what Docker is told by when nobody holds it: the files of the host have the hold in them.
    #[must_use]
    pub(in crate::ops) fn with_told(self, told: Told) -> Self {
        Self { told, ..self }
    }

    /// Returns how many layers are in it.
    pub(super) const fn layers(&self) -> usize {
        self.parts.len()
    }

    /// Writes the archive. What is left out is told.
    ///
    /// # Errors
    /// When it cannot be written, or something cannot be read whole and that was not asked for: what was written is no archive then.
    pub fn write<W: Write>(&self, out: &mut Writer<W>, watcher: &Watcher, tell: &mut Tell<'_>) -> Result<(), Unsaved> {
        let text = serde_json::to_vec(&self.contents).map_err(io::Error::from)?;
        file(out, Path::new(CONTENTS), &text)?;
        for problem in &self.unread {
            tell(Remark::Lost(Lost { path: problem.path.clone(), why: problem.why.clone() }));
        }
        let mut sums = BTreeMap::new();
        // What a container has changed is known only when it is read: each item counts for something besides.
        let sizes = || self.sizes.iter().map(|size| size.saturating_add(ITEM));
        let total = Bytes::new(sizes().fold(0, u64::saturating_add));
        let mut before = 0_u64;
        let mut opener = Opener::new(&self.objects.path, self.driver, self.reach);
        let mut layers = 0;
        for (item, size) in self.contents.items.iter().zip(sizes()) {
            let (start, done) = (before, Cell::new(0_u64));
            let mut lost = Vec::new();
            let place = item.place();
            let mut said = |remark: Remark| match remark {
                Remark::Lost(found) if !self.damaged => lost.push(format!("{item}: {}", Remark::Lost(found))),
                Remark::Lost(found) => tell(Remark::Lost(Lost { path: place.join(found.path), why: found.why })),
                Remark::Socket(path) => tell(Remark::Socket(place.join(path))),
                Remark::Reached(how) => tell(Remark::Reached(how)),
            };
            let counts = |bytes: u64| {
                done.set(done.get().saturating_add(bytes));
                let done = Bytes::new(start.saturating_add(done.get().min(size.saturating_sub(1))));
                watcher.tell(&Progress { what: "saving", done, total });
            };
            let summed = Summed { out: out.inner()?, sum: Sha256::new(), counts: &counts };
            let mut part = Writer::within(summed, LONGEST_PATH);
            self.item(item, &place, &mut opener, &mut part, &mut said).map_err(|unsaved| match unsaved {
                Unsaved::Output(e) if e.kind() == io::ErrorKind::InvalidInput => {
                    Unsaved::Source(self.failure(&format!("{item}: {e}")).next("shorten it, or leave out what has it"))
                }
                unsaved => unsaved,
            })?;
            let sum = std::mem::take(&mut part.inner()?.sum);
            if !lost.is_empty() {
                return Err(Unsaved::Source(self.not_whole(&lost)));
            }
            if matches!(item, Item::Layer { .. }) {
                let failed = |e: anyhow::Error| Unsaved::Source(self.failure(&format!("{e:#}")));
                fault::reached(layers, Point::Layer).map_err(failed)?;
                layers += 1;
            }
            before = before.saturating_add(size);
            sums.insert(place.to_string_lossy().into_owned(), format!("{:x}", sum.finalize()));
        }
        let sums = Sums::new(format!("{:x}", Sha256::digest(&text)), sums);
        file(out, Path::new(SUMS), &serde_json::to_vec(&sums).map_err(io::Error::from)?)?;
        watcher.tell(&Progress { what: "saving", done: total, total });
        let refuse = |why: String| self.failure(&why);
        docker_is_down(&self.objects.path, &refuse)
            .and_then(|()| no_container_runs(&self.objects.path, self.driver, &refuse))
            .map_err(Unsaved::Source)
    }

    fn failure(&self, why: &str) -> Failure {
        Failure::failed(format!("cannot save the Docker root `{}`: {why}", self.objects.path.display()))
            .fact("state", "what was written is removed; the root is as it was")
    }

    fn not_whole(&self, lost: &[String]) -> Failure {
        let failure = self.failure("not all of it can be read whole");
        let more = lost.len().saturating_sub(NAMED);
        let failure = lost.iter().take(NAMED).fold(failure, |failure, why| failure.fact("found", why));
        let failure = if more > 0 { failure.fact("found", format!("{more} more")) } else { failure };
        failure.next(
            "leave out what needs it with --without NAME, or say --damaged: it is left out or zeros then, and named",
        )
    }

    fn item<W: Write>(
        &self,
        item: &Item,
        place: &Path,
        opener: &mut Opener<'_>,
        out: &mut Writer<W>,
        tell: &mut Tell<'_>,
    ) -> Result<(), Unsaved> {
        let root = &self.objects.path;
        let open = match item {
            Item::Host => return Ok(host(place, &self.told, out)?),
            Item::Layer { id, .. } => return self.layer(id, place, opener, out, tell),
            Item::Image => taken::open(root, &Path::new("image").join(self.driver.name())),
            Item::VolumeDatabase => crate::ops::contents::source::opened(root)
                .and_then(|root| root.enter(OsStr::new(VOLUMES)))
                .map_err(|e| e.to_string())
                .and_then(|volumes| taken::of_folder(volumes, place.file_name().unwrap_or_default())),
            Item::Network | Item::Container { .. } | Item::Volume { .. } => taken::open(root, place),
            Item::Bind { number } => match self.contents.binds.get(*number) {
                Some(bind) => of_host(&bind.source),
                None => return Ok(()),
            },
        };
        let Open { tree, from } = open.map_err(|why| Unsaved::Source(self.failure(&format!("{item}: {why}"))))?;
        let file_system = from.node.status.file_system;
        let mut notes = Vec::new();
        let mut taken = |entry: &Entry| {
            let kind = entry.node.status.kind;
            let is_unread = |home: &Path| self.unread.iter().any(|problem| problem.path == home.join(&entry.path));
            let is_gone = match item {
                Item::Image => {
                    let home = Path::new("image").join(self.driver.name());
                    self.gone.contains(&entry.path) || !is_of_images(&entry.path) || is_unread(&home)
                }
                Item::Volume { .. } => is_unread(place),
                // What was mounted for the container while it ran.
                Item::Container { .. } => entry.path == Path::new("mounts"),
                _ => false,
            };
            let names = self.names.as_ref().filter(|_| matches!(item, Item::Image) && entry.path == Path::new(NAMES));
            if is_gone {
                Taken::Nothing
            } else if let Some(names) = names {
                Taken::Instead(names.clone())
            } else if !item.is_users() && !matches!(kind, FileKind::File | FileKind::Directory) {
                notes.push(format!(
                    "{item}: `{}` is neither a file nor a directory, and left out",
                    entry.path.display()
                ));
                Taken::Nothing
            } else if entry.node.status.file_system != file_system && kind == FileKind::Directory {
                let path = entry.path.display();
                notes.push(format!("{item}: `{path}` is empty in it: another file system is mounted there"));
                Taken::Empty
            } else {
                Taken::Whole
            }
        };
        pack_some(&tree, &from, place, out, tell, &mut taken)?;
        notes.into_iter().for_each(|note| tell(Remark::Reached(note)));
        Ok(())
    }

    fn layer<W: Write>(
        &self,
        id: &str,
        place: &Path,
        opener: &mut Opener<'_>,
        out: &mut Writer<W>,
        tell: &mut Tell<'_>,
    ) -> Result<(), Unsaved> {
        let Some(part) = self.parts.iter().find(|part| part.id == id) else { return Ok(()) };
        let unread = |e: anyhow::Error| {
            let next = format!(
                "leave out what needs it with --without NAME; dmpool{} rescue images --tree shows what is there",
                with_root(&self.objects)
            );
            Unsaved::Source(self.failure(&format!("{} cannot be read", part.whose)).because(e).next(next))
        };
        let old = match part.below.split_first() {
            Some((beneath, below)) => Some(opener.open(beneath, below).map_err(unread)?),
            None => None,
        };
        let new = opener.open(&part.id, &part.below).map_err(unread)?;
        let always = always(&self.objects, self.driver, part).map_err(unread)?;
        let layer = OnBelow { old: old.as_deref(), new: &new, always: &|path| always.contains(path) };
        Ok(pack_layer(layer, place, out, tell)?)
    }
}

pub(super) fn file<W: Write>(out: &mut Writer<W>, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let status = made(FileKind::File, 0o600, NEVER);
    out.bytes(Member { path, status: &status, attributes: &[] }, bytes)
}

/// Sums up and counts what it hands on.
struct Summed<'c, W> {
    out: W,
    sum: Sha256,
    counts: &'c dyn Fn(u64),
}

impl<W: Write> Write for Summed<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.sum.update(bytes.get(..written).unwrap_or_default());
        (self.counts)(written as u64);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
