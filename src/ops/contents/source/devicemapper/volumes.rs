//! How the volumes of a root's pool are reached.

use std::cell::OnceCell;
use std::collections::BTreeMap;

use anyhow::Result;

use super::metadata::{Check, Copy};
use super::parts::Parts;
use super::{Said, Volume, files_in, filesystem, image, live, pool, unread};
use crate::engine::docker_root::DockerRoot;
use crate::error::{Failure, Outcome};
use crate::kernel::dm::{Dm, DmUnavailable};
use crate::kernel::folder::Folder;
use crate::kernel::interrupt::Held;
use crate::metadata::{Details, devices};
use crate::ops::contents::source::{Place, Reach};
use crate::process::{as_root, quote};
use crate::units::Bytes;
use live::Gives;

/// The ways to them.
pub(super) struct Volumes<'a> {
    place: &'a Place<'a>,
    root: &'a DockerRoot,
    dm: Option<&'a Dm>,
    held: &'a Held,
    /// The pool, when it is active, and what can be read of it.
    live: Option<(live::Pool, Gives)>,
    apart: OnceCell<(Parts, Copy)>,
}

/// Opens device-mapper; nothing where the kernel has none, and that is said.
pub(super) fn device_mapper(place: &Place<'_>, said: &mut Said) -> Outcome<Option<Dm>> {
    match Dm::open() {
        Ok(dm) => Ok(Some(dm)),
        Err(e @ DmUnavailable::NotRoot) => Err(place.refused(&e).fact("state", "nothing was touched").next(as_root())),
        Err(_) if place.reach.userspace => Ok(None),
        Err(e) => {
            said.notes.push(e.to_string());
            Ok(None)
        }
    }
}

/// What is said of an image out of metadata that may be damaged.
const USED: &str = "of it only what says which blocks this volume has is used";

/// Why the kernel did not read a volume.
enum Unread {
    /// It does not take the pool.
    Pool(anyhow::Error),
    /// It does, and the volume cannot be read.
    Volume(anyhow::Error),
}

impl<'a> Volumes<'a> {
    pub(super) fn of(
        place: &'a Place<'a>,
        root: &'a DockerRoot,
        dm: Option<&'a Dm>,
        held: &'a Held,
        said: &mut Said,
    ) -> Outcome<Self> {
        let Reach { data, metadata, .. } = place.reach;
        // What was named is somewhere else, or the device of no pool yet.
        let is_elsewhere = data.is_some() && metadata.is_some();
        let live = match dm.filter(|_| !is_elsewhere) {
            Some(dm) => live::Pool::of(dm, root).map_err(|e| unread(place, e))?,
            None => None,
        };
        let live = dm.zip(live).map(|(dm, live)| {
            let gives = live.gives(dm);
            (live, gives)
        });
        if let Some((live, Gives::Nothing(why))) = &live {
            said.notes.push(format!(
                "the pool `{}` gives nothing ({}): its data is read with a copy of its metadata",
                live.name, why.words
            ));
        }
        Ok(Self { place, root, dm, held, live, apart: OnceCell::new() })
    }

    /// Returns device-mapper and the pool, when that is active and its volumes can be read.
    fn working(&self) -> Option<(&'a Dm, &live::Pool)> {
        let (live, gives) = self.live.as_ref()?;
        let is_read = !matches!(gives, Gives::Nothing(_)) && !self.place.reach.userspace;
        self.dm.filter(|_| is_read).map(|dm| (dm, live))
    }

    /// Returns the files of a layer.
    pub(super) fn files(&self, volume: Volume, said: &mut Said) -> Outcome<Folder> {
        if let Some((dm, (live, gives))) = self.dm.zip(self.live.as_ref())
            && let Some(found) = live.mounted(dm, volume.id, self.place.id).map_err(|e| unread(self.place, e))?
        {
            let files = match gives {
                _ if self.place.reach.userspace => Err("--userspace was given".to_owned()),
                Gives::All => found.files(),
                Gives::Volumes(why) | Gives::Nothing(why) => Err(why.words.clone()),
            };
            said.mounted = Some(found.whose.clone());
            let layer = format!("layer `{}` is mounted ({})", self.place.id, found.whose);
            match files {
                Ok(files) => {
                    said.notes.push(format!("{layer}: it is read as it is there, and may change meanwhile"));
                    return Ok(files);
                }
                Err(why) => said.lost.push(format!(
                    "{layer}, and is not read there, because {why}: what is not written out yet may be missing"
                )),
            }
        }
        files_in(&self.file_system(volume, said)?).map_err(|e| unread(self.place, e))
    }

    /// Returns the root of the file system on a volume.
    pub(super) fn file_system(&self, volume: Volume, said: &mut Said) -> Outcome<Folder> {
        if let Some((dm, live)) = self.working() {
            match filesystem::on_thin(dm, live.devno, volume, said) {
                // What a pool that is hurt does not give, a repaired copy of its metadata may.
                Err(e) if matches!(self.live, Some((_, Gives::Volumes(_)))) => {
                    said.notes.push(format!("the pool `{}` does not give volume {}: {e:#}", live.name, volume.id));
                }
                found => return found.map_err(|e| unread(self.place, e)),
            }
        }
        let (parts, copy) = self.apart()?;
        said.notes.extend(parts.note.clone());
        said.notes.extend(copy.unread.clone());
        if let Some((live, _)) = self.live.as_ref().filter(|(_, gives)| gives.may_write()) {
            said.lost.push(format!(
                "the pool `{}` is active, and a copy of its metadata is read: what is written to it meanwhile may be missing or torn",
                live.name
            ));
        }
        let of = |failure: Failure| failure.fact("metadata", parts.metadata.path.display().to_string());
        let first = match self.read(parts, copy, volume, said) {
            Ok(folder) => return Ok(folder),
            Err(Unread::Volume(e)) if e.is::<Failure>() => return Err(unread(self.place, e)),
            Err(first) => first,
        };
        let check = copy.checked();
        let (first, is_refused) = match first {
            Unread::Pool(e) => (e, true),
            Unread::Volume(e) => (e, false),
        };
        let found = format!("{first:#}");
        let mut last = first;
        if matches!(check, Check::Damaged) {
            match copy.repaired().and_then(|repaired| self.read(parts, &repaired, volume, said).map_err(Unread::why)) {
                Ok(folder) => {
                    said.lost.push(format!(
                        "the pool's metadata is damaged ({found}): this is read with what thin_repair made of a copy of it"
                    ));
                    return Ok(folder);
                }
                Err(e) => last = e,
            }
        }
        // Which blocks a volume has, is said apart from all else of it.
        if (is_refused || !matches!(check, Check::Whole))
            && let Ok(folder) = self.in_image(parts, copy, volume, said)
        {
            match &check {
                Check::Whole => said.notes.push(format!("the kernel does not take the pool: {found}")),
                Check::NotDone(why) if is_refused => said.notes.push(format!(
                    "the kernel does not take the pool: {found}; whether its metadata is whole was not looked at: {why}"
                )),
                Check::NotDone(why) => said.lost.push(format!(
                    "the kernel does not read volume {} ({found}), and whether the pool's metadata is whole was not looked at ({why}): {USED}",
                    volume.id
                )),
                Check::Damaged => said.lost.push(format!("the pool's metadata is damaged ({found}): {USED}")),
            }
            return Ok(folder);
        }
        let failure = of(unread(self.place, last));
        Err(match check {
            Check::Whole => failure,
            Check::NotDone(why) => {
                failure.fact("found", format!("whether its metadata is whole was not looked at: {why}"))
            }
            Check::Damaged => failure
                .fact("found", format!("{found}; and no repaired copy of the metadata does better"))
                .next(format!("thin_check {}", quote(&parts.metadata.path.to_string_lossy()))),
        })
    }

    fn read(&self, parts: &Parts, copy: &Copy, volume: Volume, said: &mut Said) -> Result<Folder, Unread> {
        let Some(dm) = self.dm.filter(|_| !self.place.reach.userspace) else {
            return self.in_image(parts, copy, volume, said).map_err(Unread::Volume);
        };
        let pool = pool::Pool::on(dm, parts, copy).map_err(Unread::Pool)?;
        filesystem::on_thin(dm, pool.devno(), volume, said).map_err(Unread::Volume)
    }

    fn in_image(&self, parts: &Parts, copy: &Copy, volume: Volume, said: &mut Said) -> Result<Folder> {
        let image = image::of(self.place, parts, copy, volume, self.held, said)?;
        filesystem::in_image(&image, volume, said)
    }

    fn apart(&self) -> Outcome<&(Parts, Copy)> {
        if let Some(apart) = self.apart.get() {
            return Ok(apart);
        }
        let parts = Parts::of(self.place, self.root, self.dm, self.live.as_ref().map(|(live, _)| live))?;
        parts.answer(self.place)?;
        let copy = Copy::of(&parts.metadata, self.held)
            .map_err(|e| unread(self.place, e).fact("metadata", parts.metadata.path.display().to_string()))?;
        Ok(self.apart.get_or_init(|| (parts, copy)))
    }

    /// # Errors
    /// When a signal has come that asks the process to end.
    pub(super) fn may_go_on(&self) -> Outcome<()> {
        if self.held.came() { Err(self.place.refused("a signal came")) } else { Ok(()) }
    }

    /// Returns what the metadata says of every volume, by its id.
    pub(super) fn all(&self) -> Outcome<BTreeMap<u64, Details>> {
        let (_, copy) = self.apart()?;
        let all = || -> Result<_> { Ok(devices(&copy.superblock()?, |at| copy.block(at))?) };
        all().map_err(|e| unread(self.place, e))
    }

    /// Returns what the file system on a volume says of itself; nothing when there is none that is known.
    pub(super) fn head(&self, id: u32) -> Result<Option<filesystem::Head>> {
        if let Some((dm, live)) = self.working() {
            return filesystem::head_on_thin(dm, live.devno, id);
        }
        let (parts, copy) = self.apart()?;
        let mapped = image::Mapped::of(copy, Volume { id, size: Bytes::default() })?;
        let bytes = mapped.head(&parts.data, filesystem::HEAD)?;
        Ok(bytes.and_then(|bytes| filesystem::Head::parse(&bytes)))
    }
}

impl Unread {
    fn why(self) -> anyhow::Error {
        match self {
            Self::Pool(e) | Self::Volume(e) => e,
        }
    }
}
