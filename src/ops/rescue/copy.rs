//! Files out of a container whose Docker does not run.

use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::{label, with_root};
use crate::engine::docker_objects::{CONTAINERS, Container, Data, Objects, Volume};
use crate::error::{Failure, Outcome};
use crate::kernel::KernelError;
use crate::kernel::folder::Folder;
use crate::kernel::fs::FsFacts;
use crate::ops::contents::archive::{self, Change, Destination, Remark, Source, Tell, Writer, measure};
use crate::ops::contents::source::{self, Below, Opened, Reach};
use crate::ops::contents::tree::{Follow, Layer, Lost, Marks, Resolved, Tree, Unresolved, shown};
use crate::process::quote;
use crate::units::Bytes;

/// Files that Docker makes beside a container's configuration and mounts into it.
const MADE_BY_DOCKER: [(&str, &str); 3] =
    [("etc/hostname", "hostname"), ("etc/hosts", "hosts"), ("etc/resolv.conf", "resolv.conf")];

/// Opens a container's files, without what is mounted into it.
///
/// # Errors
/// Refused when nothing says which layer is its own, or it cannot be opened.
pub fn files(objects: &Objects, container: &Container, reach: &Reach) -> Outcome<Opened> {
    layer(objects, container, reach, container.mount.as_ref().and_then(|mount| mount.mount_id.as_deref()))
}

/// Opens what a container's files were before it was first started.
///
/// # Errors
/// As [`files`].
pub fn files_before(objects: &Objects, container: &Container, reach: &Reach) -> Outcome<Opened> {
    layer(objects, container, reach, container.mount.as_ref().and_then(|mount| mount.init_id.as_deref()))
}

fn layer(objects: &Objects, container: &Container, reach: &Reach, id: Option<&str>) -> Outcome<Opened> {
    let driver = objects.store_of(container).map(|store| store.driver.as_str()).or_else(|| container.driver());
    let (Some(driver), Some(id)) = (driver, id) else {
        let why = container.problems.first().map(|problem| format!("{}: {}", problem.path.display(), problem.why));
        return Err(Failure::refused(format!(
            "cannot reach the files of container `{}`: nothing says which layer is its own",
            label(container)
        ))
        .fact("found", why.unwrap_or_else(|| "no layer of it in the root".to_owned()))
        .next(format!("dmpool rescue images --tree{}", with_root(objects))));
    };
    let below = container
        .mount
        .as_ref()
        .zip(objects.store_of(container))
        .map(|(mount, store)| Below::mount(store, mount, id, objects.image_of(container).map(|(_, image)| image)));
    source::open(&objects.path, driver, id, &below.unwrap_or_default(), reach).map_err(|failure| {
        let what = format!("cannot reach the files of container `{}`: {}", label(container), failure.what);
        Failure { what, ..failure }
    })
}

/// Opens a container's files with its volumes, as `docker cp` sees them. A directory of the host that is mounted into it is
/// not this root's, and told of where it is.
///
/// # Errors
/// As [`files`].
pub fn files_with_volumes(objects: &Objects, container: &Container, reach: &Reach) -> Outcome<Opened> {
    let mut opened = files(objects, container, reach)?;
    let root = source::opened(&objects.path);
    for (path, name) in MADE_BY_DOCKER {
        let Ok(folder) = within(&root, &[CONTAINERS, &container.id]) else { break };
        if matches!(folder.status(OsStr::new(name)), Ok(Some(_)))
            && let Ok(layer) = Layer::new(folder, Marks::None)
        {
            opened.tree.mount(Path::new(path), layer, OsStr::new(name));
        }
    }
    let mut points = container.mount_points();
    // One may lie in another.
    points.sort_by_key(|point| Path::new(point.destination).components().count());
    for point in points {
        let volume = point.volume.and_then(|name| objects.volumes.iter().find(|volume| volume.name == name));
        if let Some(why) = volume.and_then(Volume::unknown_options) {
            opened.lost.push(format!("the volume at {} may have its files elsewhere: {why}", point.destination));
        }
        let names = match volume.map(|volume| &volume.data) {
            Some(Data::Here(names)) => names,
            Some(Data::Elsewhere(place)) => {
                opened.lost.push(format!("the volume at {} is not in this root: {place}", point.destination));
                continue;
            }
            Some(Data::Missing) => {
                opened.lost.push(format!("the volume at {} is missing", point.destination));
                continue;
            }
            // A directory of the host: whoever wants it copies it from there.
            None => continue,
        };
        match within(&root, names).and_then(|folder| Layer::new(folder, Marks::None).map_err(|e| e.to_string())) {
            Ok(layer) => opened.tree.mount(Path::new(point.destination), layer, OsStr::new(".")),
            Err(e) => opened.lost.push(format!("the volume at {} cannot be read: {e}", point.destination)),
        }
    }
    Ok(opened)
}

/// Opens a folder of the root, where that could be opened.
fn within(root: &Result<Folder, KernelError>, names: &[impl AsRef<OsStr>]) -> Result<Folder, String> {
    let root = root.as_ref().map_err(ToString::to_string)?;
    let mut folder = root.enter(OsStr::new(".")).map_err(|e| e.to_string())?;
    for name in names {
        folder = folder.enter(name.as_ref()).map_err(|e| e.to_string())?;
    }
    Ok(folder)
}

/// What `cp` was asked for.
#[derive(Clone, Debug)]
pub struct Wanted<'a> {
    /// The path in the container.
    pub path: &'a Path,
    /// Whether a link that the path ends in is followed.
    pub follow: Follow,
}

/// A path in a container, found.
#[derive(Debug)]
pub struct Picked {
    tree: Tree,
    from: Resolved,
    /// What it is called where it is copied to; nothing when only what is in it is copied.
    name: Option<OsString>,
    lost: Vec<String>,
    notes: Vec<String>,
}

/// Finds a path in a container, as `docker cp` does: links lead where they led in it.
///
/// # Errors
/// Refused when the container's files are not reached, or there is no such path.
pub fn pick(objects: &Objects, container: &Container, wanted: &Wanted<'_>, reach: &Reach) -> Outcome<Picked> {
    let Opened { tree, lost, notes, .. } = files_with_volumes(objects, container, reach)?;
    let from = tree.resolve(wanted.path, wanted.follow).map_err(|why| {
        let failure = Failure::refused(format!(
            "cannot copy `{}` of container `{}`: {why}",
            shown(wanted.path),
            label(container)
        ));
        let host = on_host(container, &tree, wanted.path);
        match (why, host) {
            (_, Some(host)) => failure.fact("found", host),
            (Unresolved::Missing(_), None) => failure.next(format!(
                "dmpool rescue diff {}{}    # shows what it has added",
                quote(container.name().unwrap_or(&container.id)),
                with_root(objects)
            )),
            _ => failure,
        }
    })?;
    let contents = from.path.as_os_str().is_empty() || wanted.path.as_os_str().as_encoded_bytes().ends_with(b"/.");
    let name = wanted.path.file_name().or_else(|| from.path.file_name()).map(ToOwned::to_owned);
    let lost = lost.into_iter().chain(from_host(container, &tree, &from.path)).collect();
    Ok(Picked { tree, from, name: name.filter(|_| !contents), lost, notes })
}

/// Says where a path is on the host, when a directory of the host is mounted at it or above.
fn on_host(container: &Container, tree: &Tree, path: &Path) -> Option<String> {
    let path = tree.mount_point(path);
    of_host(container, tree).into_iter().find(|(destination, _)| path.starts_with(destination)).map(|(_, said)| said)
}

/// Says what of a path is the host's, at it, above or below.
fn from_host(container: &Container, tree: &Tree, path: &Path) -> Vec<String> {
    let is_there = |destination: &Path| path.starts_with(destination) || destination.starts_with(path);
    of_host(container, tree)
        .into_iter()
        .filter(|(destination, _)| is_there(destination))
        .map(|(_, said)| said)
        .collect()
}

/// Returns where directories of the host are mounted into a container, without the leading slash, and the words for it.
fn of_host(container: &Container, tree: &Tree) -> Vec<(PathBuf, String)> {
    let points = container.mount_points().into_iter().filter(|point| point.volume.is_none());
    points
        .map(|point| {
            let from = point.source.unwrap_or("a directory");
            let said = format!("{} is {from} of the host: copy it from there", point.destination);
            (tree.mount_point(Path::new(point.destination)), said)
        })
        .collect()
}

impl Picked {
    /// Copies it to a directory, by `docker cp`'s rules. Returns how many entries were made.
    ///
    /// # Errors
    /// Refused where `docker cp` refuses, in the Docker root itself, and where there is no room; damaged when it was stopped
    /// midway.
    pub fn to_directory(&self, objects: &Objects, dest: &Path, tell: &mut Tell<'_>) -> Outcome<u64> {
        let source = Source { is_directory: self.from.node.status.is_directory(), name: self.name.as_deref() };
        let to = Destination::of(dest, source)?;
        may_write(objects, &to.path)?;
        has_room(&self.tree, &self.from, &to.path, dest)?;
        self.say(tell);
        archive::plant(&self.tree, &self.from, to, tell)
    }

    /// Writes it as a tar archive.
    ///
    /// # Errors
    /// When the archive cannot be written.
    pub fn to_archive<W: Write>(&self, out: &mut Writer<W>, tell: &mut Tell<'_>) -> io::Result<()> {
        self.say(tell);
        // `.` and what is in it, as `tar -C DIR -c .` has it.
        let name = self.name.clone().unwrap_or_else(|| OsString::from("."));
        archive::pack(&self.tree, &self.from, Path::new(&name), out, tell)
    }

    fn say(&self, tell: &mut Tell<'_>) {
        say(&self.lost, &self.notes, tell);
    }
}

/// A container's whole files, or its changes, to be written as an archive.
#[derive(Debug)]
pub struct Export {
    after: Opened,
    /// What they are compared with, for its changes alone.
    before: Option<Opened>,
}

/// Opens what an archive of a container is made of.
///
/// # Errors
/// As [`files`].
pub fn export(objects: &Objects, container: &Container, changes_only: bool, reach: &Reach) -> Outcome<Export> {
    let before = if changes_only { Some(files_before(objects, container, reach)?) } else { None };
    Ok(Export { after: files(objects, container, reach)?, before })
}

impl Export {
    /// Refuses a file that cannot hold the archive, or lies in the Docker root itself.
    ///
    /// # Errors
    /// Refused with what is needed and free.
    pub fn may_go_to(&self, objects: &Objects, file: &Path) -> Outcome<()> {
        let parent = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // Where there is no such directory, that is said when the file is made.
        let Ok(parent) = parent.canonicalize() else { return Ok(()) };
        may_write(objects, &parent)?;
        if let Some(before) = &self.before {
            let changed = archive::changes(&before.tree, &self.after.tree).flatten();
            return may_hold(archive::measure_changes(changed), &parent, file);
        }
        match self.after.tree.resolve(Path::new("/"), Follow::Last) {
            Ok(root) => has_room(&self.after.tree, &root, &parent, file),
            Err(_) => Ok(()),
        }
    }

    /// Writes it.
    ///
    /// # Errors
    /// When the archive cannot be written.
    pub fn write<W: Write>(&self, out: &mut Writer<W>, tell: &mut Tell<'_>) -> io::Result<()> {
        if let Some(before) = &self.before {
            say_both(before, &self.after, tell);
            let changes = archive::changes(&before.tree, &self.after.tree);
            return archive::pack_changes(&self.after.tree, changes, out, tell);
        }
        say(&self.after.lost, &self.after.notes, tell);
        match self.after.tree.resolve(Path::new("/"), Follow::Last) {
            Ok(root) => archive::pack(&self.after.tree, &root, Path::new(""), out, tell),
            Err(why) => {
                tell(Remark::Lost(Lost::new(Path::new(""), why.to_string())));
                Ok(())
            }
        }
    }
}

/// Hands over what a container has changed of its image, one after the other, until `take` says that it is enough.
///
/// # Errors
/// As [`files`].
pub fn diff(
    objects: &Objects,
    container: &Container,
    reach: &Reach,
    take: &mut dyn FnMut(Change) -> bool,
    tell: &mut Tell<'_>,
) -> Outcome<()> {
    let (before, after) = (files_before(objects, container, reach)?, files(objects, container, reach)?);
    say_both(&before, &after, tell);
    for change in archive::changes(&before.tree, &after.tree) {
        match change {
            Ok(change) => {
                if !take(change) {
                    break;
                }
            }
            Err(lost) => tell(Remark::Lost(lost)),
        }
    }
    Ok(())
}

fn say(lost: &[String], notes: &[String], tell: &mut Tell<'_>) {
    notes.iter().for_each(|note| tell(Remark::Reached(note.clone())));
    lost.iter().for_each(|why| tell(Remark::Lost(Lost::new(Path::new(""), why.clone()))));
}

/// What is missing of either makes their difference untrue; most of it is missing of both.
fn say_both(before: &Opened, after: &Opened, tell: &mut Tell<'_>) {
    say(&after.lost, &after.notes, tell);
    let lost: Vec<String> = before.lost.iter().filter(|why| !after.lost.contains(why)).cloned().collect();
    say(&lost, &[], tell);
}

/// The source is never written.
pub(crate) fn may_write(objects: &Objects, directory: &Path) -> Outcome<()> {
    if !directory.starts_with(&objects.path) {
        return Ok(());
    }
    Err(Failure::refused(format!("cannot write into `{}`: it is in the Docker root itself", directory.display()))
        .fact("root", objects.path.display().to_string())
        .fact("state", "nothing was touched")
        .next("name a place on another file system; -o - writes to a pipe"))
}

fn has_room(tree: &Tree, from: &Resolved, place: &Path, named: &Path) -> Outcome<()> {
    may_hold(measure(tree, from).bytes, place, named)
}

/// Refuses what is larger than the room at a place.
pub(crate) fn may_hold(needed: Bytes, place: &Path, named: &Path) -> Outcome<()> {
    // What cannot be known is met when it is written.
    let Ok(facts) = FsFacts::of(place) else { return Ok(()) };
    // Where the whole has no size (ramfs), what is free has none either.
    if needed <= facts.free || facts.total.get() == 0 {
        return Ok(());
    }
    let mount: PathBuf = facts.mount_point;
    Err(Failure::refused(format!(
        "cannot copy to `{}`: the file system at {} is too small",
        named.display(),
        mount.display()
    ))
    .fact("needed", needed.exact())
    .fact("free", facts.free.exact())
    .fact("state", "nothing was touched")
    .next("name a place on another file system"))
}
