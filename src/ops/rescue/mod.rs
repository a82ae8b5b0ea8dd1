//! What a Docker root has when no daemon can be asked: its containers, images and volumes, and by which names they are meant.
//!
//! Nothing in the root is written, no lock is taken, and reading leaves no access time.

pub mod copy;
pub mod logs;
pub mod save;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use nix::unistd::geteuid;

use crate::engine::docker_objects::{self, Container, Image, Objects, Store, Time, digits};
use crate::engine::docker_root::Problem;
use crate::engine::roots;
use crate::engine::small_file::Directory;
use crate::error::{Failure, Kind, Outcome};
use crate::kernel::apart;
use crate::ops::contents::source::{self, Reach};
use crate::ops::contents::sweep;
use crate::ops::{State, docker, history};
use crate::process::{again, as_root, quote};

/// Returns the path of the root that is meant: the one named with `--root`, else the one that this machine's Docker uses.
pub fn root(state: &State) -> PathBuf {
    state.docker_root.clone().unwrap_or_else(roots::in_use)
}

/// Reads the root that is meant; before that, removes what a command that was killed has left on this machine.
///
/// # Errors
/// Refused when it cannot be opened, hangs, or has nothing of what Docker keeps in one.
pub fn open(state: &State) -> Outcome<Objects> {
    sweep();
    let path = root(state);
    // Of a root that only root may reach, or a daemon's that only root may see, nobody else can tell that it is not there.
    let elsewhere = || match &state.docker_root {
        _ if !geteuid().is_root() => as_root(),
        Some(_) => format!("ls -ld {}    # shows what is there", quote(&path.to_string_lossy())),
        None => format!("{} --root DIR    # when it is elsewhere", again()),
    };
    docker::answers(&path).map_err(|why| docker::unreadable(&Problem { path: path.clone(), why }))?;
    // Also the times of symbolic links stay, where this process may see to that.
    let directory = apart::untouched(&path).map(|folder| Directory::of(folder.into(), path.clone()));
    let objects = directory.or_else(|_| Directory::open(&path)).and_then(|root| docker_objects::read_in(&root));
    let objects = objects.map_err(|e| {
        Failure::refused(format!("cannot read the Docker root `{}`", path.display())).next(elsewhere()).because(e)
    })?;
    if objects.is_empty() && objects.problems.is_empty() {
        if let Some(remapped) = remapped(&path) {
            return Err(Failure::refused(format!("`{}` has a root in it, and is none itself", path.display()))
                .fact("found", format!("{}, of a Docker with userns-remap", remapped.display()))
                .next(format!("dmpool rescue ps --root {}", quote(&remapped.to_string_lossy()))));
        }
        return Err(Failure::refused(format!("`{}` is no Docker root", path.display()))
            .fact(
                "found",
                "neither containers/ nor image/ nor volumes/ nor a storage driver's folder with anything in it",
            )
            .next(elsewhere()));
    }
    Ok(objects)
}

/// Returns the root in a directory that a Docker with `userns-remap` keeps there, called `UID.GID` by the user that containers'
/// root is (`setupDaemonRoot`, daemon/daemon_unix.go).
fn remapped(path: &Path) -> Option<PathBuf> {
    let folder = Directory::open(path).ok()?;
    let numbers = |name: &str| {
        let (uid, gid) = name.split_once('.')?;
        uid.parse::<u32>().ok().and(gid.parse::<u32>().ok())
    };
    let names = folder.names().ok()?.into_iter().filter_map(|name| name.into_string().ok());
    names.filter(|name| numbers(name).is_some()).find_map(|name| {
        let path = path.join(name);
        let has_some = docker_objects::read(&path).is_ok_and(|objects| !objects.is_empty());
        has_some.then_some(path)
    })
}

/// As [`open`], and notes where Docker's records of thin devices and the pool do not agree, as far as that can be read.
///
/// # Errors
/// As [`open`].
pub fn open_with_pool(state: &State) -> Outcome<Objects> {
    let mut objects = open(state)?;
    source::compare(&mut objects, &Reach { state: state.clone(), ..Reach::default() });
    Ok(objects)
}

/// Returns the time, as Docker's files have it.
pub fn now() -> Time {
    Time::new(i64::try_from(history::now().0).unwrap_or(i64::MAX), 0)
}

/// Returns the container of that name, full id, or beginning of an id that no other has, as Docker takes it
/// (`GetContainer`, daemon/container.go): an id before a name before a beginning.
///
/// # Errors
/// Refused when there is none; a usage error when it may be several.
pub fn container<'a>(objects: &'a Objects, name: &str) -> Outcome<&'a Container> {
    match containers(objects, name).as_slice() {
        [only] => Ok(only),
        [] => {
            let known: Vec<_> = objects.containers.iter().filter_map(Container::name).collect();
            Err(no_such("container", name, &known).next(format!("dmpool rescue ps{}", with_root(objects))))
        }
        several => {
            let labels: Vec<_> = several.iter().map(|container| label(container)).collect();
            Err(ambiguous("container", name, &labels))
        }
    }
}

fn containers<'a>(objects: &'a Objects, name: &str) -> Vec<&'a Container> {
    let of = |is_it: &dyn Fn(&Container) -> bool| -> Vec<&'a Container> {
        objects.containers.iter().filter(|container| is_it(container)).collect()
    };
    let plain = name.strip_prefix('/').unwrap_or(name);
    let by_id = || of(&|container| container.id == name);
    let by_name = || of(&|container| container.name() == Some(plain));
    let by_prefix = || of(&|container| !name.is_empty() && container.id.starts_with(name));
    first_of(&[&by_id, &by_name, &by_prefix])
}

/// Returns the image of that name, tag, digest, full id, or beginning of an id that no other has (`GetImage`,
/// daemon/images/image.go); `latest` is the tag when none is named. One that several storage drivers have is the same one.
///
/// # Errors
/// Refused when there is none; a usage error when it may be several.
pub fn image<'a>(objects: &'a Objects, name: &str) -> Outcome<(&'a Store, &'a Image)> {
    let found = images(objects, name);
    let ids: BTreeSet<&str> = found.iter().map(|(_, image)| image.id.as_str()).collect();
    match (found.first(), ids.len()) {
        (Some(first), 1) => Ok(*first),
        (None, _) => {
            let all = objects.stores.iter().flat_map(|store| &store.images).flat_map(|image| &image.tags);
            let known: Vec<_> = all.map(String::as_str).collect();
            Err(no_such("image", name, &known).next(format!("dmpool rescue images -a{}", with_root(objects))))
        }
        (Some(_), _) => {
            let labels: Vec<_> = ids.into_iter().map(|id| digits(id).chars().take(12).collect()).collect();
            Err(ambiguous("image", name, &labels))
        }
    }
}

fn images<'a>(objects: &'a Objects, name: &str) -> Vec<(&'a Store, &'a Image)> {
    let of = |is_it: &dyn Fn(&Image) -> bool| -> Vec<(&'a Store, &'a Image)> {
        let all = objects.stores.iter().flat_map(|store| store.images.iter().map(move |image| (store, image)));
        all.filter(|(_, image)| is_it(image)).collect()
    };
    let wanted = familiar(name);
    let tagged = if wanted.contains('@') || has_tag(&wanted) { wanted.clone() } else { format!("{wanted}:latest") };
    let by_id = || of(&|image| image.id == name || image.digits() == name);
    let by_name = || of(&|image| image.tags.iter().chain(&image.digests).any(|known| familiar(known) == tagged));
    let by_prefix = || of(&|image| !digits(name).is_empty() && image.digits().starts_with(digits(name)));
    first_of(&[&by_id, &by_name, &by_prefix])
}

/// What the first way finds that finds anything.
fn first_of<T>(ways: &[&dyn Fn() -> Vec<T>]) -> Vec<T> {
    ways.iter().map(|way| way()).find(|found| !found.is_empty()).unwrap_or_default()
}

/// Whether a reference has a tag: the colon before a registry's port stands before a slash.
fn has_tag(reference: &str) -> bool {
    reference.rsplit('/').next().is_some_and(|last| last.contains(':'))
}

/// Returns a reference as people write it: without Docker's own registry and its `library/`.
pub fn familiar(reference: &str) -> String {
    let host = ["docker.io/", "index.docker.io/"].into_iter().find_map(|host| reference.strip_prefix(host));
    let name = host.unwrap_or(reference);
    name.strip_prefix("library/").unwrap_or(name).to_owned()
}

/// What `inspect` was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// A container.
    Container,
    /// An image.
    Image,
}

/// A container or an image.
#[derive(Clone, Copy, Debug)]
pub enum Object<'a> {
    /// A container.
    Container(&'a Container),
    /// An image, and the store that it is in.
    Image(&'a Store, &'a Image),
}

/// Returns the container or the image of that name, the container first, as `docker inspect` does.
///
/// # Errors
/// As [`container`] and [`image`].
pub fn object<'a>(objects: &'a Objects, name: &str, only: Option<Type>) -> Outcome<Object<'a>> {
    let of_image = || image(objects, name).map(|(store, image)| Object::Image(store, image));
    match only {
        Some(Type::Image) => of_image(),
        Some(Type::Container) => container(objects, name).map(Object::Container),
        None if containers(objects, name).is_empty() && !images(objects, name).is_empty() => of_image(),
        None => match container(objects, name) {
            Err(failure) if failure.kind == Kind::Refused => {
                Err(Failure { what: format!("no such container and no such image: `{name}`"), ..failure })
            }
            other => other.map(Object::Container),
        },
    }
}

/// Returns what a person calls a container: its name, and the beginning of its id.
pub fn label(container: &Container) -> String {
    let short: String = container.id.chars().take(12).collect();
    match container.name() {
        Some(name) => format!("{name} ({short})"),
        None => short,
    }
}

fn no_such(what: &str, name: &str, known: &[&str]) -> Failure {
    let failure = Failure::refused(format!("no such {what}: `{name}`"));
    match known {
        [] => failure.fact("found", format!("no {what} that has a name")),
        few @ ([_] | [_, _] | [_, _, _]) => failure.fact("found", few.join(", ")),
        many => failure.fact("found", format!("{} with other names", many.len())),
    }
}

fn ambiguous(what: &str, name: &str, labels: &[String]) -> Failure {
    Failure::new(Kind::Usage, format!("which {what} is meant is not clear: several ids begin with `{name}`"))
        .fact("found", labels.join(", "))
        .next("name one by more digits of its id")
}

/// Returns what a printed command needs to mean the same root: nothing for the usual one.
pub fn with_root(objects: &Objects) -> String {
    if objects.path == roots::in_use() {
        String::new()
    } else {
        format!(" --root {}", quote(&objects.path.to_string_lossy()))
    }
}

/// Says that not everything is shown as it was; nothing when it is. Each of the problems is named in what was printed.
pub fn not_whole(what: &str, problems: usize) -> Vec<Failure> {
    if problems == 0 {
        return Vec::new();
    }
    let each = if problems == 1 { "one thing" } else { "each" };
    let count = if problems == 1 { "1 thing is".to_owned() } else { format!("{problems} things are") };
    vec![
        Failure::new(Kind::Damaged, format!("{what} not whole: {count} damaged or missing in the root"))
            .fact("state", "the rest is shown; nothing was written")
            .next(format!("what is said above of {each}")),
    ]
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests;
