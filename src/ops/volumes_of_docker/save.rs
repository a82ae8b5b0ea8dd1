//! Volumes as an archive.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::LONGEST_PATH;
use super::manifest::{Described, MANIFEST, Manifest, SUMS, Sums};
use crate::engine::docker_objects::{Container, DATA, Data, LOCAL, Objects, State, Volume};
use crate::engine::roots;
use crate::error::{Failure, Outcome};
use crate::kernel::folder::{FileKind, Time};
use crate::ops::contents::archive::{Member, Remark, Tell, Writer, made, measure, pack};
use crate::ops::contents::source;
use crate::ops::contents::tree::{Follow, Layer, Lost, Marks, Resolved, Tree};
use crate::ops::rescue::copy::{may_hold, may_write};
use crate::ops::rescue::with_root;
use crate::units::Bytes;

/// What an archive of volumes is made of.
#[derive(Debug)]
pub struct Save<'a> {
    objects: &'a Objects,
    volumes: Vec<Open<'a>>,
    manifest: Manifest,
    /// Which containers may be writing, in words.
    pub in_use: Vec<String>,
}

#[derive(Debug)]
struct Open<'a> {
    volume: &'a Volume,
    tree: Tree,
    from: Resolved,
}

/// Opens volumes by their names.
///
/// # Errors
/// Refused, with all that are wrong, when there is none of that name, or its files are not in the root.
pub fn save<'a>(objects: &'a Objects, names: &[String]) -> Outcome<Save<'a>> {
    let mut volumes: Vec<Open<'a>> = Vec::new();
    let mut wrong = Vec::new();
    for name in names {
        if volumes.iter().any(|known| known.volume.name == *name) {
            continue;
        }
        match open(objects, name) {
            Ok(volume) => volumes.push(volume),
            Err(why) => wrong.push(format!("volume `{name}`: {why}")),
        }
    }
    let mut wrong = wrong.into_iter();
    if let Some(first) = wrong.next() {
        let failure = Failure::refused(format!("cannot save {first}"));
        return Err(wrong
            .fold(failure, |failure, why| failure.fact("found", why))
            .fact("state", "nothing was written")
            .next(format!("dmpool volumes list{}", with_root(objects))));
    }
    let described = volumes.iter().map(Open::described).collect();
    let docker_runs = roots::runs_on(&objects.path);
    let in_use =
        if docker_runs { volumes.iter().flat_map(|open| used(objects, open.volume)).collect() } else { Vec::new() };
    Ok(Save { objects, volumes, manifest: Manifest::new(described), in_use })
}

fn open<'a>(objects: &'a Objects, name: &str) -> Result<Open<'a>, String> {
    let volume = objects.volumes.iter().find(|volume| volume.name == name).ok_or("there is none of that name")?;
    if volume.driver != LOCAL {
        return Err(format!("the driver {} has its files, not this root", volume.driver));
    }
    let names = match &volume.data {
        Data::Here(names) => names,
        Data::Elsewhere(place) => return Err(format!("its files are not in this root: {place}")),
        Data::Missing => return Err("its files are missing".to_owned()),
    };
    if let Some(why) = volume.unknown_options() {
        return Err(format!("whether its files are in this root is not known: {why}"));
    }
    // An archive with such a one could not be restored.
    if let Some(option) = volume.options.keys().find(|option| *option != "size") {
        return Err(format!("its files are not in this root: it was made with the option {option}"));
    }
    let root = source::opened(&objects.path);
    let folder = names.iter().fold(root, |folder, name| folder.and_then(|folder| folder.enter(OsStr::new(name))));
    let layer = folder.and_then(|folder| Layer::new(folder, Marks::None)).map_err(|e| e.to_string())?;
    let tree = Tree::new(vec![layer]);
    let from = tree.resolve(Path::new("/"), Follow::Last).map_err(|why| why.to_string())?;
    Ok(Open { volume, tree, from })
}

impl Open<'_> {
    fn described(&self) -> Described {
        let Volume { name, driver, labels, options, .. } = self.volume;
        let bytes = measure(&self.tree, &self.from).bytes.get();
        Described {
            name: name.clone(),
            driver: driver.clone(),
            labels: labels.clone(),
            options: options.clone(),
            bytes,
        }
    }
}

/// Says which running containers have a volume.
fn used(objects: &Objects, volume: &Volume) -> Vec<String> {
    let runs = |id: &str| {
        let found = objects.containers.iter().find(|container| container.id == id);
        found
            .map(Container::state)
            .is_some_and(|state| matches!(state, State::Running | State::Paused | State::Restarting))
    };
    let users = volume.users.iter().filter(|user| user.writable && runs(&user.container));
    users
        .map(|user| {
            let name = user.name.as_deref().unwrap_or(&user.container);
            format!("volume `{}` is in use: container {name} may write while it is saved", volume.name)
        })
        .collect()
}

/// Where a volume's files are in the archive.
pub(super) fn place(name: &str) -> PathBuf {
    Path::new("volumes").join(name).join(DATA)
}

impl Save<'_> {
    /// Refuses a file that cannot hold the archive, or lies in the Docker root itself.
    ///
    /// # Errors
    /// Refused with what is needed and free.
    pub fn may_go_to(&self, file: &Path) -> Outcome<()> {
        let parent = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // Where there is no such directory, that is said when the file is made.
        let Ok(parent) = parent.canonicalize() else { return Ok(()) };
        may_write(self.objects, &parent)?;
        let needed = self.manifest.volumes.iter().fold(0, |sum: u64, volume| sum.saturating_add(volume.bytes));
        may_hold(Bytes::new(needed), &parent, file)
    }

    /// Writes the archive. What cannot be read is told.
    ///
    /// # Errors
    /// When it cannot be written, or a path in it is longer than Linux takes one in a call.
    pub fn write<W: Write>(&self, out: &mut Writer<W>, tell: &mut Tell<'_>) -> io::Result<()> {
        let manifest = serde_json::to_vec(&self.manifest)?;
        file(out, MANIFEST, &manifest)?;
        let mut sums = BTreeMap::new();
        for Open { volume, tree, from } in &self.volumes {
            let name = place(&volume.name);
            let mut part = Writer::within(Summed { out: out.inner()?, sum: Sha256::new() }, LONGEST_PATH);
            let mut tell = |remark| {
                tell(match remark {
                    Remark::Lost(lost) => Remark::Lost(Lost { path: name.join(lost.path), why: lost.why }),
                    Remark::Socket(path) => Remark::Socket(name.join(path)),
                    Remark::Reached(how) => Remark::Reached(how),
                });
            };
            pack(tree, from, &name, &mut part, &mut tell)?;
            let sum = std::mem::take(&mut part.inner()?.sum);
            sums.insert(volume.name.clone(), format!("{:x}", sum.finalize()));
        }
        let sums = Sums::new(format!("{:x}", Sha256::digest(&manifest)), sums);
        file(out, SUMS, &serde_json::to_vec(&sums)?)
    }
}

fn file<W: Write>(out: &mut Writer<W>, name: &str, bytes: &[u8]) -> io::Result<()> {
    let status = made(FileKind::File, 0o600, Time { seconds: 0, nanoseconds: 0 });
    out.bytes(Member { path: Path::new(name), status: &status, attributes: &[] }, bytes)
}

/// Sums up what it hands on.
struct Summed<W> {
    out: W,
    sum: Sha256,
}

impl<W: Write> Write for Summed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.sum.update(bytes.get(..written).unwrap_or_default());
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
