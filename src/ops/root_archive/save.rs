//! A Docker root as an archive. Nothing in it is written.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use nix::unistd::geteuid;
use sha2::{Digest, Sha256};

use super::binds::binds;
use super::contents::{CONTENTS, Contents, Item, SUMS, Sums, VOLUMES};
use super::taken::{self, Open};
use crate::engine::docker_objects::{Container, Objects};
use crate::engine::driver::Driver;
use crate::engine::roots;
use crate::error::{Failure, Outcome};
use crate::kernel::folder::{FileKind, Time};
use crate::kernel::fs::read_limited;
use crate::kernel::mounts;
use crate::ops::contents::archive::{
    Member, OnBelow, Remark, Taken, Tell, Writer, made, measure, pack_layer, pack_some,
};
use crate::ops::contents::overlay2::{Opener, Part, always, parts_of};
use crate::ops::contents::source::{Reach, opened};
use crate::ops::contents::tree::{Entry, Lost};
use crate::ops::daemon::kept::{SOURCES, firewall};
use crate::ops::progress::{Progress, Watcher};
use crate::ops::rescue::copy::{may_hold, may_write};
use crate::ops::rescue::with_root;
use crate::process::{as_root, quote};
use crate::units::Bytes;

/// No configuration of the host's is longer.
const LONGEST: Bytes = Bytes::new(16 << 20);
/// What an item counts for beside its files.
const ITEM: u64 = 64 << 10;
/// How many broken things are named.
const NAMED: usize = 10;
const NEVER: Time = Time { seconds: 0, nanoseconds: 0 };

/// What is saved of a root.
#[derive(Clone, Debug, Default)]
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
    damaged: bool,
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

/// Finds what there is to be saved.
///
/// # Errors
/// Refused when Docker runs on the root, something in it is broken, or the archive has no room.
pub fn save<'a>(mut objects: Objects, reach: &'a Reach, options: &Options) -> Outcome<Save<'a>> {
    let root = objects.path.clone();
    let refuse = |why: String| {
        Failure::refused(format!("cannot save the Docker root `{}`: {why}", root.display()))
            .fact("state", "nothing was written")
    };
    if !geteuid().is_root() {
        return Err(refuse("only root may read all of it".to_owned()).next(as_root()));
    }
    docker_is_down(&root, &refuse)?;
    let driver = taken::driver(&objects, options.driver.as_deref(), &refuse)?;
    nothing_is_mounted(&root, driver, &refuse)?;
    let left_out = taken::left_out(&objects, driver);
    let gone = taken::without(&mut objects, driver, &options.without)?;
    let parts = parts_of(&objects, driver).map_err(|broken| {
        let more = broken.len().saturating_sub(NAMED);
        let failure = refuse("not all of it is whole".to_owned());
        let failure = broken.iter().take(NAMED).fold(failure, |failure, why| failure.fact("found", why));
        let failure = if more > 0 { failure.fact("found", format!("{more} more")) } else { failure };
        failure.next(format!(
            "leave out what needs it with --without NAME; dmpool{} rescue images --tree shows what is there",
            with_root(&objects)
        ))
    })?;
    let archive = options
        .file
        .as_deref()
        .map(|file| file.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new(".")));
    let archive = archive.and_then(|directory| directory.canonicalize().ok());
    if let Some(directory) = &archive {
        may_write(&objects, directory)?;
    }
    let mut contents = contents(&objects, driver, &parts, left_out, options.include_binds, archive.as_deref());
    let sizes: Vec<u64> = contents.items.iter().map(|item| size(&objects, driver, &parts, &contents, item)).collect();
    contents.bytes = sizes.iter().fold(0, |sum, size| sum.saturating_add(*size));
    if let (Some(file), Some(directory)) = (&options.file, &archive) {
        may_hold(Bytes::new(contents.bytes), directory, file)?;
    }
    Ok(Save { objects, driver, parts, reach, contents, sizes, gone, damaged: options.damaged })
}

/// Refuses a root on which Docker runs: what its containers write meanwhile would be half of it in the archive.
pub(super) fn docker_is_down(root: &Path, refuse: &dyn Fn(String) -> Failure) -> Outcome<()> {
    if roots::runs_on(root) {
        return Err(refuse("its Docker runs".to_owned()).next("systemctl stop docker.socket docker.service"));
    }
    Ok(())
}

/// Refuses a root of overlay2 some of whose containers are mounted: they may run without Docker. A thin volume that is mounted is
/// refused when it is opened.
fn nothing_is_mounted(root: &Path, driver: Driver, refuse: &dyn Fn(String) -> Failure) -> Outcome<()> {
    let layers = root.join(driver.name());
    let mounts = mounts::own().unwrap_or_default();
    let is_container = |place: &Path| place.starts_with(&layers) && place.ends_with("merged");
    match mounts.iter().map(|mount| &mount.mount_point).find(|place| is_container(place)) {
        None => Ok(()),
        Some(place) => Err(refuse("a container's files are mounted, and may change meanwhile".to_owned())
            .fact("found", place.display().to_string())
            .next(format!("stop the container; when none runs:  umount {}", quote(&place.to_string_lossy())))),
    }
}

fn contents(
    objects: &Objects,
    driver: Driver,
    parts: &[Part],
    left_out: Vec<String>,
    include_binds: bool,
    archive: Option<&Path>,
) -> Contents {
    let root = &objects.path;
    let mut contents = Contents::of(root.clone(), driver.name().to_owned());
    contents.left_out = left_out;
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
    let (volumes, left) = taken::volumes(root);
    contents.left_out.extend(left);
    contents.items.extend(volumes.into_iter().map(|name| Item::Volume { name }));
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

    /// Writes the archive. What is left out is told.
    ///
    /// # Errors
    /// When it cannot be written, or something cannot be read whole and that was not asked for: what was written is no archive then.
    pub fn write<W: Write>(&self, out: &mut Writer<W>, watcher: &Watcher, tell: &mut Tell<'_>) -> Result<(), Unsaved> {
        let text = serde_json::to_vec(&self.contents).map_err(io::Error::from)?;
        file(out, Path::new(CONTENTS), &text)?;
        let mut sums = BTreeMap::new();
        // What a container has changed is known only when it is read: each item counts for something besides.
        let sizes = || self.sizes.iter().map(|size| size.saturating_add(ITEM));
        let total = Bytes::new(sizes().fold(0, u64::saturating_add));
        let mut before = 0_u64;
        let mut opener = Opener::new(&self.objects.path, self.driver, self.reach);
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
            let mut part = Writer::new(Summed { out: out.inner()?, sum: Sha256::new(), counts: &counts });
            self.item(item, &place, &mut opener, &mut part, &mut said)?;
            let sum = std::mem::take(&mut part.inner()?.sum);
            if !lost.is_empty() {
                return Err(Unsaved::Source(self.not_whole(&lost)));
            }
            before = before.saturating_add(size);
            sums.insert(place.to_string_lossy().into_owned(), format!("{:x}", sum.finalize()));
        }
        let sums = Sums::new(format!("{:x}", Sha256::digest(&text)), sums);
        file(out, Path::new(SUMS), &serde_json::to_vec(&sums).map_err(io::Error::from)?)?;
        watcher.tell(&Progress { what: "saving", done: total, total });
        docker_is_down(&self.objects.path, &|why| self.failure(&why)).map_err(Unsaved::Source)
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
            Item::Host => return Ok(host(place, out)?),
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
            let is_gone = match item {
                Item::Image => self.gone.contains(&entry.path),
                // What was mounted for the container while it ran.
                Item::Container { .. } => entry.path == Path::new("mounts"),
                _ => false,
            };
            if is_gone {
                Taken::Nothing
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

/// Writes what says on this host how Docker is told.
fn host<W: Write>(place: &Path, out: &mut Writer<W>) -> io::Result<()> {
    let mut files = BTreeMap::new();
    let mut next: Vec<PathBuf> = SOURCES.iter().map(PathBuf::from).collect();
    while let Some(path) = next.pop() {
        match path.symlink_metadata() {
            Ok(found) if found.is_dir() => {
                next.extend(path.read_dir()?.flatten().map(|entry| entry.path()));
            }
            Ok(found) if found.is_file() => {
                let bytes = read_limited(&path, LONGEST).map_err(|e| io::Error::other(format!("{e:#}")))?;
                files.extend(bytes.map(|bytes| (path, bytes)));
            }
            _ => {}
        }
    }
    files.insert(PathBuf::from("/iptables-save"), firewall().into_bytes());
    let folder = made(FileKind::Directory, 0o700, NEVER);
    let mut made_before = BTreeSet::new();
    let mut directory = |path: &Path, out: &mut Writer<W>| {
        if made_before.insert(path.to_owned()) {
            out.other(Member { path, status: &folder, attributes: &[] }, None)
        } else {
            Ok(())
        }
    };
    directory(place, out)?;
    for (path, bytes) in &files {
        let path = place.join(path.strip_prefix("/").unwrap_or(path));
        let mut above: Vec<&Path> = path.ancestors().skip(1).take_while(|above| *above != place).collect();
        above.reverse();
        for above in above {
            directory(above, out)?;
        }
        file(out, &path, bytes)?;
    }
    Ok(())
}

fn file<W: Write>(out: &mut Writer<W>, path: &Path, bytes: &[u8]) -> io::Result<()> {
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
