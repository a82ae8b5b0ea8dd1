//! The files of an archive as a root is made of them, one layer beside the other.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::contents::{Contents, Item, LAYERS, VOLUMES};
use super::walk::Wrong;
use crate::engine::docker_objects::CONTAINERS;
use crate::engine::driver::Driver;
use crate::error::Failure;
use crate::kernel::folder::Folder;
use crate::kernel::fs::make_dir;
use crate::kernel::interrupt::Held;
use crate::ops::contents::archive::Remark;
use crate::ops::contents::overlay2;
use crate::ops::fault::{self, Point};
use crate::ops::progress::{Progress, Watcher};
use crate::ops::volumes_of_docker::{Entries, Entry, Stop, Unpack};
use crate::units::Bytes;

/// How many things are named.
const NAMED: usize = 10;

/// The files of a root, as they come.
pub(super) struct Making<'a> {
    new: &'a Path,
    driver: Driver,
    held: &'a Held,
    current: Option<(PathBuf, Unpack)>,
    lost: Vec<String>,
    layers: usize,
    done: u64,
    total: u64,
    watcher: &'a Watcher,
}

impl<'a> Making<'a> {
    /// Begins with nothing, in a directory for a root with that storage driver.
    pub(super) const fn new(new: &'a Path, driver: Driver, held: &'a Held, watcher: &'a Watcher) -> Self {
        Self { new, driver, held, current: None, lost: Vec::new(), layers: 0, done: 0, total: 0, watcher }
    }

    /// Makes the directories that everything is in.
    pub(super) fn begin(&mut self, contents: &Contents) -> Result<(), Wrong> {
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
        let all = [(overlay2::LAYERS, LAYERS), (VOLUMES, VOLUMES), ("image", "image"), (CONTAINERS, CONTAINERS)];
        all.iter().try_for_each(|(name, of)| make(name, of)).map_err(told_of)?;
        if self.driver.name() == overlay2::LAYERS { Ok(()) } else { make(self.driver.name(), LAYERS).map_err(told_of) }
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
                let path = self.new.join(overlay2::LAYERS).join(id);
                make_dir(&path, 0o700).map_err(told_of)?;
                path
            }
        };
        Ok(Some(Folder::open(&path).map_err(Stop::Kernel)?))
    }

    /// Makes one entry.
    pub(super) fn entry<R: std::io::Read>(
        &mut self,
        item: &Item,
        entry: &Entry,
        entries: &mut Entries<R>,
    ) -> Result<(), Wrong> {
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
    pub(super) fn finish(&mut self) -> Result<(), Wrong> {
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
