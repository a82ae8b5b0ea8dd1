//! Volumes out of an archive, into a Docker root: beside what is there, never into it.
//!
//! Everything is made in a directory of its own in the root first, and a volume gets its place by one rename once its sum
//! was found right. With Docker up it is Docker that makes the volume, and its empty `_data` that is replaced.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{BufReader, Read, Seek, SeekFrom, stdin};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::unistd::geteuid;
use sha2::{Digest, Sha256};

use super::LONGEST_PATH;
use super::entries::{Entries, Entry};
use super::manifest::{Described, LONGEST, MANIFEST, Manifest, SUMS, Sums};
use super::save::place;
use super::unpack::{Stop, Unpack};
use crate::engine::docker_objects::{DATA, Data, Objects};
use crate::engine::roots;
use crate::error::{Failure, Kind, Outcome};
use crate::kernel::Called;
use crate::kernel::folder::Folder;
use crate::kernel::fs::sync_file_system;
use crate::kernel::interrupt::{Held, UntilSignal};
use crate::ops::contents::archive::{Remark, Tell};
use crate::ops::contents::sweep;
use crate::ops::contents::tree::{Lost, shown};
use crate::ops::daemon::stop_command;
use crate::ops::rescue::copy::may_hold;
use crate::ops::rescue::with_root;
use crate::process::{as_root, quote, run_within};
use crate::units::Bytes;

const STAGING: &str = ".dmpool-restore-";
const VOLUMES: &str = "volumes";
/// For what Docker does at once.
const LIMIT: Duration = Duration::from_secs(60);

/// A volume that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// Its name.
    pub name: String,
    /// How many entries it has, with its own directory.
    pub entries: u64,
    /// The containers that will see it.
    pub users: Vec<String>,
}

/// Restores all volumes of an archive; `-` is standard input. A file is read and its sums are compared before anything is
/// made; what comes through a pipe becomes a volume only once its sum was found right.
///
/// # Errors
/// Refused when the archive is damaged, a volume of that name is there, or there is no room; failed when nothing was
/// restored; damaged when only the first volumes were.
pub fn restore(objects: &Objects, input: &Path, tell: &mut Tell<'_>) -> Outcome<Vec<Restored>> {
    if !geteuid().is_root() {
        return Err(Failure::refused("cannot restore volumes: only root may give files their owners")
            .fact("state", "nothing was touched")
            .next(as_root()));
    }
    let docker = roots::runs_on(&objects.path);
    if docker {
        docker_is_asked(objects)?;
    }
    if input == Path::new("-") {
        let input_of = stdin().as_fd().try_clone_to_owned();
        let from = input_of.map_err(|e| Failure::failed("cannot read standard input").because(e))?;
        return Restore { objects, docker, input }.run(File::from(from), tell);
    }
    let unread = |e: crate::kernel::KernelError| {
        Failure::refused(format!("cannot read `{}`", input.display())).because(e).fact("state", "nothing was touched")
    };
    let mut file = File::open(input).called("open", input.display()).map_err(unread)?;
    let restore = Restore { objects, docker, input };
    if file.seek(SeekFrom::Start(0)).is_ok() {
        let checked = walk(
            BufReader::with_capacity(256 << 10, &file),
            &mut |manifest| restore.may(manifest).map_err(Wrong::Told),
            &mut |_, _, _| Ok(()),
        );
        checked.map_err(|wrong| restore.refused(wrong))?;
        file.seek(SeekFrom::Start(0)).called("lseek", input.display()).map_err(unread)?;
    }
    restore.run(file, tell)
}

/// The `docker` that is typed must be that of the root.
fn docker_is_asked(objects: &Objects) -> Outcome<()> {
    let refused = |why: String| {
        Failure::refused("cannot restore volumes: Docker runs on this root, and cannot be told of them")
            .fact("cause", why)
            .fact("state", "nothing was touched")
            .next(stop_command(&objects.path))
    };
    let asked = run_within("docker", &["info", "--format", "{{.DockerRootDir}}"], LIMIT, 4096);
    let answer = asked.map_err(|e| refused(e.to_string()))?;
    let root = PathBuf::from(String::from_utf8_lossy(&answer).trim().to_owned());
    match root.canonicalize() {
        Ok(root) if root == objects.path => Ok(()),
        _ => Err(refused(format!("`docker` talks to one whose root is {}", root.display()))),
    }
}

/// Why an archive is not gone through.
enum Wrong {
    Stop(Stop),
    Told(Failure),
}

impl From<Stop> for Wrong {
    fn from(stop: Stop) -> Self {
        Self::Stop(stop)
    }
}

impl From<String> for Wrong {
    fn from(bad: String) -> Self {
        Self::Stop(Stop::Bad(bad))
    }
}

type OnManifest<'a> = dyn FnMut(&Manifest) -> Result<(), Wrong> + 'a;
type OnEntry<'a, R> = dyn FnMut(&Described, &Entry, &mut Entries<R>) -> Result<(), Wrong> + 'a;

/// Goes through an archive from its beginning to its end, and compares its sums.
fn walk<R: Read>(from: R, on_manifest: &mut OnManifest<'_>, on_entry: &mut OnEntry<'_, R>) -> Result<Manifest, Wrong> {
    let mut entries = Entries::new(from);
    let is_first = |entry: &Entry| entry.path == Path::new(MANIFEST);
    if !entries.next_entry()?.is_some_and(|entry| is_first(&entry)) {
        return Err(format!("it is no archive of volumes: it does not begin with {MANIFEST}").into());
    }
    let bytes = entries.whole(LONGEST)?;
    let manifest = Manifest::parse(&bytes)?;
    on_manifest(&manifest)?;
    let mut found = BTreeMap::new();
    let mut rest = manifest.volumes.iter();
    let mut volume: Option<&Described> = None;
    loop {
        let entry = entries.next_entry()?.ok_or_else(|| format!("it is cut off: {SUMS} is missing"))?;
        if entry.path.as_os_str().len() > LONGEST_PATH {
            return Err(format!("a path in it is longer than {LONGEST_PATH} bytes").into());
        }
        let is_end = entry.path == Path::new(SUMS);
        if is_end || !volume.is_some_and(|volume| entry.path.starts_with(place(&volume.name))) {
            let sum = entries.sum_before();
            found.extend(volume.map(|volume| (volume.name.clone(), sum)));
            volume = rest.next();
            if is_end {
                break;
            }
            if !volume.is_some_and(|volume| entry.path == place(&volume.name) && entry.status.is_directory()) {
                return Err(format!("its entry `{}` is not where it belongs", shown(&entry.path)).into());
            }
        }
        if let Some(volume) = volume {
            on_entry(volume, &entry, &mut entries)?;
        }
    }
    let sums = Sums::parse(&entries.whole(LONGEST)?)?;
    if let Some(missing) = volume {
        return Err(format!("it has no files of volume `{}`", missing.name).into());
    }
    if entries.next_entry()?.is_some() {
        return Err("something follows after its end".to_owned().into());
    }
    if format!("{:x}", Sha256::digest(&bytes)) != sums.manifest {
        return Err(format!("the sum of {MANIFEST} is wrong").into());
    }
    match manifest.volumes.iter().find(|volume| found.get(&volume.name) != sums.volumes.get(&volume.name)) {
        Some(wrong) => Err(format!("the sum of volume `{}` is wrong", wrong.name).into()),
        None => Ok(manifest),
    }
}

struct Restore<'a> {
    objects: &'a Objects,
    docker: bool,
    input: &'a Path,
}

impl Restore<'_> {
    /// Refuses what is in the way.
    fn may(&self, manifest: &Manifest) -> Outcome<()> {
        let volumes = self.objects.path.join(VOLUMES);
        let is_there = |volume: &&Described| {
            let known = self.objects.volumes.iter().find(|known| known.name == volume.name);
            known.is_some_and(|known| known.data != Data::Missing)
                || volumes.join(&volume.name).symlink_metadata().is_ok()
        };
        let there: Vec<_> = manifest.volumes.iter().filter(is_there).map(|volume| volume.name.as_str()).collect();
        if let Some(first) = there.first() {
            return Err(Failure::refused(format!("cannot restore volume `{first}`: there is one of that name"))
                .fact("found", there.join(", "))
                .fact("state", "nothing was restored")
                .next(format!("dmpool volumes list{}    # shows what is in it", with_root(self.objects))));
        }
        let needed = manifest.volumes.iter().fold(0, |sum: u64, volume| sum.saturating_add(volume.bytes));
        may_hold(Bytes::new(needed), &self.objects.path, &volumes)
    }

    fn refused(&self, wrong: Wrong) -> Failure {
        match wrong {
            Wrong::Told(failure) => failure,
            Wrong::Stop(Stop::Bad(why)) => {
                Failure::refused(format!("cannot restore from `{}`: {why}", self.input.display()))
                    .fact("state", "nothing was restored")
            }
            Wrong::Stop(Stop::Kernel(e)) => Failure::failed(format!("cannot restore from `{}`", self.input.display()))
                .because(e)
                .fact("state", "nothing was restored; what was made is removed"),
            Wrong::Stop(Stop::Signal) => Failure::failed("did not restore: a signal came")
                .fact("state", "nothing was restored; what was made is removed"),
        }
    }

    fn run(&self, from: File, tell: &mut Tell<'_>) -> Outcome<Vec<Restored>> {
        let held = Held::hold().map_err(|e| Failure::failed("cannot hold back signals").because(e))?;
        let staging = Staging::make(&self.objects.path).map_err(|e| self.refused(Stop::Kernel(e).into()))?;
        let mut made: BTreeMap<String, u64> = BTreeMap::new();
        let mut current: Option<(String, Unpack)> = None;
        let walked = walk(
            BufReader::with_capacity(256 << 10, UntilSignal { held: &held, from }),
            &mut |manifest| self.may(manifest).map_err(Wrong::Told),
            &mut |volume, entry, entries| {
                if current.as_ref().is_none_or(|(name, _)| *name != volume.name) {
                    finish(&mut current, &mut made, tell)?;
                    let folder = staging.volume(&volume.name).map_err(Stop::Kernel)?;
                    current = Some((volume.name.clone(), Unpack::new(folder, &place(&volume.name))));
                }
                match &mut current {
                    Some((_, unpack)) => Ok(unpack.entry(entry, entries, &held, tell)?),
                    None => Ok(()),
                }
            },
        );
        let walked = walked.and_then(|manifest| finish(&mut current, &mut made, tell).map(|()| manifest));
        let manifest = walked.map_err(|wrong| match (held.take(), wrong) {
            (Some(_), Wrong::Stop(_)) => self.refused(Stop::Signal.into()),
            (_, wrong) => self.refused(wrong),
        })?;
        sync_file_system(&staging.path).map_err(|e| Failure::failed("cannot sync what was restored").because(e))?;
        let mut restored = Vec::new();
        for volume in &manifest.volumes {
            self.put_in_place(&staging, volume, tell).map_err(|failure| match restored.as_slice() {
                [] => failure.fact("state", "nothing was restored"),
                some => {
                    let names: Vec<&str> = some.iter().map(|restored: &Restored| restored.name.as_str()).collect();
                    Failure { kind: Kind::Damaged, ..failure }
                        .fact("state", format!("restored is {}", names.join(", ")))
                }
            })?;
            restored.push(self.restored(volume, made.get(&volume.name).copied().unwrap_or(0)));
        }
        sync_file_system(&staging.path).map_err(|e| Failure::failed("cannot sync what was restored").because(e))?;
        Ok(restored)
    }

    /// Gives a volume its place, where Docker finds it: what has no entry in its database it takes for what the local
    /// driver lists when it starts (volume/local/local.go).
    fn put_in_place(&self, staging: &Staging, volume: &Described, tell: &mut Tell<'_>) -> Outcome<()> {
        let name = &volume.name;
        let failed = |why: String| Failure::failed(format!("cannot restore volume `{name}`: {why}"));
        let from = staging.path.join(name);
        let to = self.objects.path.join(VOLUMES).join(name);
        if self.docker {
            let mut words = vec!["volume".to_owned(), "create".to_owned()];
            for (option, values) in [("--label", &volume.labels), ("--opt", &volume.options)] {
                words.extend(values.iter().flat_map(|(key, value)| [option.to_owned(), format!("{key}={value}")]));
            }
            words.extend(["--".to_owned(), name.clone()]);
            run_within("docker", &words, LIMIT, 4096).map_err(|e| failed(e.to_string()))?;
            // Fails unless it is empty.
            let renamed = fs::rename(from.join(DATA), to.join(DATA)).called("rename", to.join(DATA).display());
            return renamed.map_err(|e| {
                let failure = failed("its files stay out of it".to_owned()).because(e);
                match taken_back(name, &to.join(DATA)) {
                    Ok(()) => failure,
                    Err(why) => failure.fact("found", format!("Docker's volume `{name}`, made for it, stays: {why}")),
                }
            });
        }
        let renamed = fs::rename(&from, &to).called("rename", to.display());
        renamed.map_err(|e| failed("it cannot be put in its place".to_owned()).because(e))?;
        for (what, values) in [("label", &volume.labels), ("option", &volume.options)] {
            for (key, value) in values {
                let lost = format!("its {what} {key}={value} is left out: only a Docker that runs can write it down");
                tell(Remark::Lost(Lost::new(&Path::new(VOLUMES).join(name), lost.escape_debug().to_string())));
            }
        }
        Ok(())
    }

    fn restored(&self, volume: &Described, entries: u64) -> Restored {
        let known = self.objects.volumes.iter().find(|known| known.name == volume.name);
        let users = known.into_iter().flat_map(|known| &known.users);
        let users = users.map(|user| user.name.clone().unwrap_or_else(|| user.container.clone())).collect();
        Restored { name: volume.name.clone(), entries, users }
    }
}

/// Removes a volume that Docker has made and nobody has put anything into.
fn taken_back(name: &str, data: &Path) -> Result<(), String> {
    if fs::read_dir(data).map_err(|e| e.to_string())?.next().is_some() {
        return Err("somebody has put files into it".to_owned());
    }
    run_within("docker", &["volume", "rm", "--", name], LIMIT, 4096).map(drop).map_err(|e| e.to_string())
}

fn finish(
    current: &mut Option<(String, Unpack)>,
    made: &mut BTreeMap<String, u64>,
    tell: &mut Tell<'_>,
) -> Result<(), Wrong> {
    if let Some((name, mut unpack)) = current.take() {
        unpack.end(tell)?;
        made.insert(name, unpack.made);
    }
    Ok(())
}

/// A directory in the root, on the file system of its volumes; gone when this is.
struct Staging {
    path: PathBuf,
    folder: Folder,
}

impl Staging {
    fn make(root: &Path) -> Result<Self, crate::kernel::KernelError> {
        let parent = Folder::open(root)?;
        // Docker takes every directory in `volumes` for a volume: it is made beside that.
        for left in parent.names()? {
            let id = left.to_str().and_then(|left| left.strip_prefix(STAGING));
            if id.is_some_and(|id| !id.is_empty() && !Path::new("/proc").join(id).exists()) {
                let _ = fs::remove_dir_all(root.join(&left));
            }
        }
        let name = format!("{STAGING}{}", std::process::id());
        parent.make_folder(OsStr::new(&name))?;
        Ok(Self { path: root.join(&name), folder: parent.enter(OsStr::new(&name))? })
    }

    fn volume(&self, name: &str) -> Result<Folder, crate::kernel::KernelError> {
        self.folder.make_folder(OsStr::new(name))?;
        self.folder.enter(OsStr::new(name))
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Reads the root that volumes are restored into: one in which Docker has run, be it that nothing is in it. Before that, removes
/// what a command that was killed has left on this machine.
///
/// # Errors
/// Refused when it has no place for volumes.
pub fn into(root: &Path) -> Outcome<Objects> {
    sweep();
    let objects = crate::engine::docker_objects::read(root).map_err(|e| {
        Failure::refused(format!("cannot read the Docker root `{}`", root.display()))
            .because(e)
            .next("dmpool volumes restore FILE --root DIR    # when it is elsewhere")
    })?;
    let volumes = objects.path.join(VOLUMES);
    if volumes.symlink_metadata().is_ok_and(|found| found.is_dir()) {
        return Ok(objects);
    }
    Err(Failure::refused(format!("cannot restore into `{}`: it is no Docker root", root.display()))
        .fact("found", format!("no directory {}", volumes.display()))
        .fact("state", "nothing was touched")
        .next(format!("mkdir -m 0701 {}    # when Docker is to find them there", quote(&volumes.to_string_lossy()))))
}
