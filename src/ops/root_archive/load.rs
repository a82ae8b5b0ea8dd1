//! A Docker root out of an archive, where there is none.

use std::fs::File;
use std::io::{BufReader, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::unistd::geteuid;

use super::at_rest::docker_is_down;
use super::check::{can_be_read_twice, checked, failed, opened};
use super::complete::complete;
use super::contents::{Contents, Item};
use super::making::Making;
use super::place::Staging;
use super::powers::Powers;
use super::target::{Asked, Next, Steps, Target};
use super::vacant;
use super::walk::{Wrong, walk};
use super::weight::Weight;
use crate::engine::configuration::Configuration;
use crate::engine::docker_objects::{self, Data, Objects};
use crate::error::{Failure, Kind, Outcome};
use crate::kernel::fs::sync_file_system;
use crate::kernel::interrupt::{Held, UntilSignal};
use crate::kernel::mounts;
use crate::ops::State;
use crate::ops::contents::sweep;
use crate::ops::progress::Watcher;
use crate::ops::volumes_of_docker::{Entries, Entry, Stop};
use crate::process::{as_root, quote};

/// The networks that every Docker makes.
const MADE_BY_DOCKER: [&str; 3] = ["bridge", "host", "none"];
/// How many things are named.
const NAMED: usize = 10;

/// An archive that can be loaded.
#[derive(Debug)]
pub struct Load {
    root: PathBuf,
    input: PathBuf,
    from: File,
    target: Target,
    /// What is in it, when it was read already.
    contents: Option<Contents>,
    /// What was counted then.
    weight: Weight,
    /// What is to be known beforehand.
    pub notes: Vec<String>,
    /// What its containers may do to the host once Docker starts; nothing is known of those in a pipe.
    pub powers: Vec<String>,
    /// The command that starts Docker on it; nothing where nobody knows it, or Docker is told another root.
    pub start: Option<String>,
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
/// Refused when the archive is damaged, the root has anything already, Docker runs on it, or the storage driver cannot be there.
pub fn load(root: &Path, input: &Path, asked: &Asked, state: &State) -> Outcome<Load> {
    let refuse = |why: String| {
        Failure::refused(format!("cannot load into the Docker root `{}`: {why}", root.display()))
            .fact("state", "nothing was touched")
    };
    if !geteuid().is_root() {
        return Err(refuse("only root may make one".to_owned()).next(as_root()));
    }
    let root = &std::path::absolute(root).map_err(|e| refuse("its path cannot be told".to_owned()).because(e))?;
    docker_is_down(root, &refuse)?;
    sweep();
    let there = existing(root);
    let (next, mut notes) = told(root);
    let starter = next.configuration.starter.as_ref().filter(|_| next.is_here);
    let start = starter.map(|starter| starter.command("start"));
    let target = Target::of(asked, &next, there, state, &refuse)?;
    notes.extend(target.notes(&next));
    let objects =
        docker_objects::read(there).map_err(|e| refuse("what is there cannot be read".to_owned()).because(e))?;
    if Staging::is_left_in(root) {
        notes.push("a load before this one was killed: what it has put in place is taken back first".to_owned());
    } else {
        if there == root {
            has_nothing(&objects, &target, &refuse)?;
            may_be_renamed(root, &target, &refuse)?;
        }
        target.may_be_there(&objects, there, &refuse)?;
    }
    let mut from = opened(input)?;
    let mut load = Load {
        root: root.clone(),
        input: input.to_owned(),
        from,
        target,
        contents: None,
        weight: Weight::default(),
        notes,
        powers: Vec::new(),
        start,
    };
    from = load.from.try_clone().map_err(|e| refuse("the archive cannot be read".to_owned()).because(e))?;
    if can_be_read_twice(&mut from) {
        let is_roomy = |contents: &Contents| match Staging::has_leavings_in(root) {
            // They take room, and are removed before anything is made; whether there is enough is looked at then.
            true => Ok(()),
            false => load.has_room(contents).map_err(Wrong::Told),
        };
        let (mut powers, mut weight) = (Powers::default(), Weight::default());
        let mut look = |item: &Item, entry: &Entry, entries: &mut Entries<_>| {
            weight.look(item, entry);
            Ok(powers.look(item, entry, entries)?)
        };
        let contents = checked(&from, &mut |contents| is_roomy(contents), &mut look);
        let contents = contents.map_err(|wrong| failed(input, wrong))?;
        load.weight = weight;
        // Once more, with what was counted.
        if !Staging::has_leavings_in(root) {
            load.has_room(&contents)?;
        }
        load.powers = powers.lines();
        load.contents = Some(contents);
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

/// Returns what Docker will be told, and says where it will look elsewhere.
fn told(root: &Path) -> (Next, Vec<String>) {
    let configuration = Configuration::of_next(Path::new("/"));
    let other = configuration.root();
    let is_here = is_same(&other, root);
    let elsewhere = || format!("Docker is told the root {}: tell it data-root {}", other.display(), root.display());
    let notes = if is_here { Vec::new() } else { vec![elsewhere()] };
    (Next { configuration, is_here }, notes)
}

/// Refuses a root in which anything is.
fn has_nothing(objects: &Objects, target: &Target, refuse: &dyn Fn(String) -> Failure) -> Outcome<()> {
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
    let others = objects.drivers.iter().filter(|driver| **driver != target.driver());
    has.extend(others.map(|driver| format!("files of the storage driver {driver}")));
    has.extend(objects.problems.iter().map(|problem| format!("{}: {}", problem.path.display(), problem.why)));
    // What is in its place is removed, so the names that Docker would know are not enough.
    if has.is_empty() {
        has = vacant::others(&objects.path, &target.names(), NAMED + 1);
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
fn may_be_renamed(root: &Path, target: &Target, refuse: &dyn Fn(String) -> Failure) -> Outcome<()> {
    let mounts = mounts::own().unwrap_or_default();
    for name in target.names() {
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

    /// Returns the storage driver that the root is made for.
    pub const fn driver(&self) -> &'static str {
        self.target.driver().name()
    }

    fn has_room(&self, contents: &Contents) -> Outcome<()> {
        self.target.has_room(contents, &self.weight, existing(&self.root), &self.root)
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
        has_nothing(&objects, &self.target, &refuse)?;
        may_be_renamed(&self.root, &self.target, &refuse)?;
        self.target.may_be_there(&objects, &self.root, &refuse)?;
        self.target.begin(&self.root, &refuse)?;
        let new = staging.new_root();
        let contents = self.unpack(&new, &held, watcher)?;
        let bad = |e: anyhow::Error| {
            Failure::refused(format!("cannot load `{}`: {e:#}", self.input.display()))
                .fact("state", "nothing was put in place; what was made is removed")
        };
        let whole = complete(&new, &contents).map_err(bad)?;
        let steps = Steps { held: &held, watcher, bad: &bad };
        // A signal that has ended it would end this process before it could say so.
        let differing = self.target.finish(&new, &whole, &contents, &steps).inspect_err(|_| {
            let _ = held.take();
        })?;
        sync_file_system(&new).map_err(|e| self.failed(e))?;
        docker_is_down(&self.root, &refuse)?;
        staging.place(&self.target.names()).map_err(|e| self.failed(e))?;
        let powers = Powers::of_all(&whole.objects.containers).lines();
        Ok(Loaded { contents, images: whole.images, differing, powers })
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
        let mut making = Making::new(new, self.target.driver(), held, watcher);
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
    use std::fs;

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
