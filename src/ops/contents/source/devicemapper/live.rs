//! A pool that is active: Docker runs, or has died and left it.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};

use super::FILES;
use super::parts::{suspended, suspended_device};
use crate::engine::docker_root::DockerRoot;
use crate::kernel::dm::{Dm, DmId, TargetLine};
use crate::kernel::folder::Folder;
use crate::kernel::mounts::{self, MountSeen};
use crate::kernel::{apart, ask, block, loopdev};
use crate::metadata::BLOCK;
use crate::pool::{DevNo, Mode, PoolStatus, PoolTable, THIN, THIN_POOL};

/// The root's pool, active.
#[derive(Debug)]
pub(super) struct Pool {
    pub(super) name: String,
    pub(super) devno: DevNo,
    /// What it stands on, data and metadata, as far as its table can be read.
    pub(super) devices: Option<[DevNo; 2]>,
}

/// What can be read of a pool, and why no more.
#[derive(Debug)]
pub(super) enum Gives {
    /// All that is on it, where it is mounted, too.
    All,
    /// Its volumes. Who writes to them waits or was refused, and so may be who reads where they are mounted.
    Volumes(Why),
    /// Nothing.
    Nothing(Why),
}

/// Why a pool does not give all.
#[derive(Debug)]
pub(super) struct Why {
    pub(super) words: String,
    /// Whether it may write its metadata, by and by at least.
    may_write: bool,
}

/// Where a layer's file system is mounted, and for whom.
#[derive(Debug)]
pub(super) struct Mounted {
    seen: Vec<MountSeen>,
    is_suspended: bool,
    pub(super) whose: String,
}

impl Gives {
    fn nothing(words: String) -> Self {
        Self::Nothing(Why { words, may_write: true })
    }

    /// Returns why it is not all, in words.
    pub(super) fn why_not_all(self) -> Option<String> {
        match self {
            Self::All => None,
            Self::Volumes(why) | Self::Nothing(why) => Some(why.words),
        }
    }

    /// Whether the pool may write its metadata while that is copied.
    pub(super) const fn may_write(&self) -> bool {
        match self {
            Self::All => true,
            Self::Volumes(why) | Self::Nothing(why) => why.may_write,
        }
    }
}

impl Pool {
    /// Returns the pool that stands on the root's own files, or has the root's name, where this machine's Docker goes by that:
    /// another machine's root may call its pool, or link to a disk, as one here is called.
    pub(super) fn of(dm: &Dm, root: &DockerRoot) -> Result<Option<Self>> {
        let name = root.pool().filter(|_| root.is_this_machines());
        let loops = |file: Option<&PathBuf>| -> Result<Vec<loopdev::LoopInfo>> {
            let follows = root.is_this_machines();
            let found = file.and_then(|file| if follows { file.metadata() } else { file.symlink_metadata() }.ok());
            match found {
                Some(file) if file.is_file() => loopdev::users_of(DevNo::from_dev_t(file.dev()), file.ino()),
                _ => Ok(Vec::new()),
            }
        };
        let (data, metadata) = (loops(root.data_file.as_ref())?, loops(root.metadata_file.as_ref())?);
        for device in dm.list()? {
            let id = DmId::name(&device.name);
            let Some(line) = sole(dm, &id, THIN_POOL) else { continue };
            let table = PoolTable::parse(line.length, &line.params).ok();
            let on_file = || {
                let is_on = |devno: DevNo, loops: &[loopdev::LoopInfo]| {
                    loops.iter().any(|info| info.devno == devno && !info.read_only)
                };
                table.as_ref().is_some_and(|table| is_on(table.data, &data) || is_on(table.metadata, &metadata))
            };
            if name.as_deref() == Some(&device.name) || on_file() {
                let devices = table.map(|table| [table.data, table.metadata]);
                return Ok(Some(Self { name: device.name, devno: device.devno, devices }));
            }
        }
        Ok(None)
    }

    /// Asks how the pool is, in a child: a commit that waits for the metadata's disk keeps the answer waiting.
    pub(super) fn gives(&self, dm: &Dm) -> Gives {
        match dm.info(&DmId::from(self.devno)) {
            Ok(Some(info)) if info.suspended => return Gives::nothing("it is suspended".to_owned()),
            Ok(Some(_)) => {}
            Ok(None) => return Gives::nothing("it is gone".to_owned()),
            Err(e) => return Gives::nothing(format!("{e:#}")),
        }
        if let Some(name) = suspended(self.devno) {
            return Gives::nothing(suspended_device(&name));
        }
        let asked = ask::within_limit(|| {
            let lines = dm.status(&DmId::name(&self.name)).map_err(|e| format!("{e:#}"))?;
            Ok(lines.into_iter().next().map(|line| line.params).unwrap_or_default())
        });
        let line = match asked.and_then(|answer: Result<String, String>| answer) {
            Ok(line) => line,
            Err(why) => return Gives::nothing(why),
        };
        if let Err(why) = self.is_answered_below() {
            return Gives::nothing(why);
        }
        match PoolStatus::parse(&line) {
            PoolStatus::Working(status) => match status.mode {
                Some(mode @ (Mode::ReadOnly | Mode::OutOfDataSpace)) => {
                    let words = format!("its pool is {}", mode.word());
                    Gives::Volumes(Why { words, may_write: mode != Mode::ReadOnly })
                }
                Some(Mode::ReadWrite) | None => Gives::All,
            },
            status => {
                let may_write = matches!(status, PoolStatus::Unreadable(_));
                Gives::Nothing(Why { words: format!("its status is `{line}`"), may_write })
            }
        }
    }

    /// An idle pool says of itself that it is well, whatever it stands on.
    fn is_answered_below(&self) -> Result<(), String> {
        for device in self.devices.into_iter().flatten() {
            let first = || block::open_direct(device).and_then(|file| block::read_direct(&file, 0, BLOCK)).is_ok();
            ask::within_limit(first)
                .map_err(|why| format!("{} does not answer: {why}", block::name(device).unwrap_or_default()))?;
        }
        Ok(())
    }

    /// Returns where a layer's thin device is mounted.
    pub(super) fn mounted(&self, dm: &Dm, id: u32, layer: &str) -> Result<Option<Mounted>> {
        let params = format!("{} {id}", self.devno);
        for device in dm.list()? {
            let Some(line) = sole(dm, &DmId::name(&device.name), THIN) else { continue };
            // All that a pool that has failed lets its volumes say (`thin_status`, drivers/md/dm-thin.c); Docker calls them by the layer.
            let is_its = line.params == "Fail"
                && device.name.ends_with(&format!("-{layer}"))
                && block::slaves(device.devno).is_ok_and(|below| below.contains(&self.devno));
            if line.params != params && !is_its {
                continue;
            }
            let mut seen = mounts::of_device(device.devno)?;
            seen.retain(|seen| is_whole(seen) || seen.mount.root == Path::new("/").join(FILES));
            // Docker's own mount before a container's, where somebody may look on.
            seen.sort_by_key(|seen| !is_whole(seen));
            if let Some(first) = seen.first() {
                let whose = format!("at {} of process {} {}", first.mount.mount_point.display(), first.pid, first.comm);
                let is_suspended = dm.info(&DmId::name(&device.name))?.is_some_and(|info| info.suspended);
                return Ok(Some(Mounted { seen, is_suspended, whose }));
            }
        }
        Ok(None)
    }
}

impl Mounted {
    /// Returns the files, where they can be read: a child tries first, which may wait for ever.
    ///
    /// # Errors
    /// In words: what keeps them from being read.
    pub(super) fn files(&self) -> Result<Folder, String> {
        if self.is_suspended {
            return Err("its device is suspended".to_owned());
        }
        ask::within_limit(|| self.opened().and_then(|files| files.names().map(drop).map_err(|e| e.to_string())))??;
        self.opened()
    }

    fn opened(&self) -> Result<Folder, String> {
        let mut why = "nothing of it is there any more".to_owned();
        for seen in &self.seen {
            match files(seen) {
                Ok(files) => return Ok(files),
                Err(e) => why = e.to_string(),
            }
        }
        Err(why)
    }
}

fn is_whole(seen: &MountSeen) -> bool {
    seen.mount.root == Path::new("/")
}

fn files(seen: &MountSeen) -> Result<Folder> {
    let folder = apart::as_seen_by(seen.pid, &seen.mount.mount_point)?;
    // The path was the process's own to change.
    let found = DevNo::from_dev_t(folder.own_status()?.file_system);
    ensure!(found == seen.mount.devno, "{} is something else by now", seen.mount.mount_point.display());
    if is_whole(seen) { super::files_in(&folder) } else { Ok(folder) }
}

/// Returns the table of a device with one target of that kind.
fn sole(dm: &Dm, id: &DmId, kind: &str) -> Option<TargetLine> {
    let lines = dm.table(id).ok()?;
    match lines.as_slice() {
        [line] if line.kind == kind => Some(line.clone()),
        _ => None,
    }
}
