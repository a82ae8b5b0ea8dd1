//! Steps that bring a volume's device up and make it, and the file system on it, longer.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::kernel::block;
use crate::kernel::dm::{DmId, TargetLine};
use crate::kernel::mounts::{self, Mount};
use crate::ops::filesystem;
use crate::ops::steps::devices::{Seen, bring_up, made_before, remove_ours, sole_line};
use crate::ops::steps::swap::{goes_on_with, reload_sentence, swap};
use crate::ops::steps::{Act, Attempt, Kit, Reverted, WayBack};
use crate::pool::{DevNo, THIN, VolumeId};
use crate::process;
use crate::units::{Bytes, Sectors};

/// A file system may leave as much at the end as does not make a group of its own.
const REMAINDER: Bytes = Bytes::new(16 << 20);

/// Makes a volume's device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MapVolume {
    /// Its dm name.
    pub name: String,
    /// Its dm uuid.
    pub uuid: String,
    /// The pool's dm name.
    pub pool: String,
    /// The volume.
    pub id: VolumeId,
    /// How long it is.
    pub length: Sectors,
}

/// Gives a volume's device its new length.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadVolume {
    /// Its dm name.
    pub name: String,
    /// Its dm uuid.
    pub uuid: String,
    /// How long it is.
    pub from: Sectors,
    /// How long it shall be.
    pub to: Sectors,
}

/// Lets the mounted file system on a volume take the new length, by its own program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrowFileSystem {
    /// The volume's dm name.
    pub name: String,
    /// What the file system is, as the mount says: `ext4`, `xfs`.
    pub kind: String,
    /// Where it is mounted.
    pub mount: PathBuf,
    /// How large it was.
    pub had: Bytes,
    /// How long the volume is then.
    pub to: Bytes,
}

impl Act for MapVolume {
    fn sentence(&self) -> String {
        format!("make the device {} of the volume {}, {}", self.name, self.id, self.length.bytes().human())
    }

    fn lasts(&self) -> bool {
        false
    }

    fn way_back(&self) -> WayBack {
        WayBack::By("removed")
    }

    fn apply(&self, kit: &Kit, attempt: Attempt) -> Result<()> {
        if made_before(self, kit, attempt, &self.name, &self.uuid)? {
            return Ok(());
        }
        // A death between create and load leaves an empty device, which nobody else takes away.
        let there = kit.dm.info(&DmId::name(&self.name))?;
        if there.is_some_and(|info| !info.live_table && info.uuid.as_ref() == Some(&self.uuid)) {
            remove_ours(&kit.dm, &self.name, &self.uuid)?;
        }
        let pool = kit.dm.info(&DmId::name(&self.pool))?;
        let pool = pool.with_context(|| format!("looking for the pool `{}`: no such device", self.pool))?;
        let line = TargetLine {
            start: Sectors::new(0),
            length: self.length,
            kind: THIN.to_owned(),
            params: format!("{} {}", pool.devno, self.id),
        };
        bring_up(&kit.dm, &self.name, &self.uuid, &[line], Seen::Public)
    }

    fn verify(&self, kit: &Kit) -> Result<()> {
        let line = sole_line(&kit.dm, &self.name, &self.uuid)?;
        ensure!(line.kind == THIN, "`{}` is a {} device", self.name, line.kind);
        let id = line.params.split_whitespace().nth(1).unwrap_or_default();
        ensure!(id == self.id.to_string(), "`{}` is the volume {id}, not {}", self.name, self.id);
        ensure!(line.length >= self.length, "`{}` has {}, not {}", self.name, line.length, self.length);
        Ok(())
    }

    fn revert(&self, kit: &Kit) -> Result<Reverted> {
        remove_ours(&kit.dm, &self.name, &self.uuid)?;
        Ok(Reverted::Gone)
    }
}

impl ReloadVolume {
    /// Loads the device's live table with another length and makes it live.
    fn reload(&self, kit: &Kit, length: Sectors) -> Result<()> {
        let id = DmId::name(&self.name);
        let info = kit.dm.info(&id)?.with_context(|| format!("looking for `{}`: no such device", self.name))?;
        ensure!(info.uuid.as_deref() == Some(&self.uuid), "`{}` is not the device that dmpool made", self.name);
        let lines = kit.dm.table(&id)?;
        let [line] = lines.as_slice() else { bail!("`{}` has a table of {} lines", self.name, lines.len()) };
        ensure!(line.kind == THIN, "`{}` is a {} device", self.name, line.kind);
        if info.inactive_table {
            // A death between load and resume leaves one, which the next resume of anybody's would make live.
            kit.dm.clear(&id)?;
        }
        let new = TargetLine { length, ..line.clone() };
        if *line != new {
            swap(kit, &info, std::slice::from_ref(line), &[new])?;
        } else if info.suspended {
            kit.dm.resume(&id)?;
        }
        Ok(())
    }

    /// Returns the device, when it is there: after a reboot it comes up with the length that the record says.
    fn device(&self, kit: &Kit) -> Result<Option<DevNo>> {
        Ok(kit.dm.info(&DmId::name(&self.name))?.map(|info| info.devno))
    }
}

impl Act for ReloadVolume {
    fn sentence(&self) -> String {
        reload_sentence(&format!("device {}", self.name), [self.from, self.to])
    }

    fn lasts(&self) -> bool {
        false
    }

    fn way_back(&self) -> WayBack {
        WayBack::By("reloaded with the old length, as long as no file system on it has grown")
    }

    fn apply(&self, kit: &Kit, attempt: Attempt) -> Result<()> {
        if attempt == Attempt::Again && self.device(kit)?.is_none() {
            return Ok(());
        }
        self.reload(kit, self.to)
    }

    fn verify(&self, kit: &Kit) -> Result<()> {
        kit.dm.info(&DmId::name(&self.name))?.map_or(Ok(()), |info| goes_on_with(&info, self.to))
    }

    fn revert(&self, kit: &Kit) -> Result<Reverted> {
        let Some(info) = kit.dm.info(&DmId::name(&self.name))? else { return Ok(Reverted::Gone) };
        if info.suspended {
            // Whoever reads it would wait; it runs with whichever table is live.
            kit.dm.clear(&DmId::name(&self.name))?;
            kit.dm.resume(&DmId::name(&self.name))?;
        }
        let grown = filesystem::on(info.devno)?.is_some_and(|found| found.size > self.from.bytes());
        if grown && block::size(info.devno)? > self.from {
            return Ok(Reverted::Stands(format!(
                "`{}` keeps its new length: the file system on it uses it",
                self.name
            )));
        }
        self.reload(kit, self.from)?;
        Ok(Reverted::Gone)
    }
}

impl GrowFileSystem {
    fn program(&self, mount: &Path) -> (&'static str, String) {
        grower(&self.kind, &self.name, &mount.to_string_lossy())
    }

    /// Returns where the file system is mounted now, best where it was, and how large it is.
    fn now(&self, kit: &Kit) -> Result<Option<(PathBuf, Bytes)>> {
        let Some(info) = kit.dm.info(&DmId::name(&self.name))? else { return Ok(None) };
        let of_it = |m: &Mount| m.devno == info.devno && m.fs_type == self.kind;
        let mut here: Vec<_> = mounts::own()?.into_iter().filter(of_it).map(|m| m.mount_point).collect();
        here.sort_by_key(|mount| *mount != self.mount);
        let Some(mount) = here.into_iter().next() else { return Ok(None) };
        Ok(filesystem::on(info.devno)?.map(|found| (mount, found.size)))
    }

    fn mounted(&self, kit: &Kit) -> Result<(PathBuf, Bytes)> {
        self.now(kit)?.with_context(|| {
            format!(
                "the {} of `{}` is not mounted any more: its program grows it only while it is",
                self.kind, self.name
            )
        })
    }
}

/// Returns the program that lets a mounted file system take the whole of its device, with its argument.
pub fn grower(kind: &str, device: &str, mount: &str) -> (&'static str, String) {
    match kind {
        "xfs" => ("xfs_growfs", mount.to_owned()),
        _ => ("resize2fs", format!("/dev/mapper/{device}")),
    }
}

impl Act for GrowFileSystem {
    fn sentence(&self) -> String {
        let (program, argument) = self.program(&self.mount);
        format!("let the {} on {} take it: {program} {}", self.kind, self.mount.display(), process::quote(&argument))
    }

    fn lasts(&self) -> bool {
        true
    }

    fn way_back(&self) -> WayBack {
        WayBack::None
    }

    fn apply(&self, kit: &Kit, _: Attempt) -> Result<()> {
        let (mount, _) = self.mounted(kit)?;
        let (program, argument) = self.program(&mount);
        process::run(program, &[argument])?;
        Ok(())
    }

    fn verify(&self, kit: &Kit) -> Result<()> {
        let (mount, now) = self.mounted(kit)?;
        let grown = now > self.had || self.to.saturating_sub(self.had) < REMAINDER;
        ensure!(grown, "the file system on {} has {} as before", mount.display(), now.exact());
        Ok(())
    }

    fn stands(&self, kit: &Kit) -> Result<bool> {
        Ok(self.now(kit)?.is_none_or(|(_, now)| now > self.had))
    }

    fn revert(&self, kit: &Kit) -> Result<Reverted> {
        Ok(match self.now(kit)? {
            Some((_, now)) if now <= self.had => Reverted::Gone,
            Some((mount, now)) => {
                Reverted::Stands(format!("the file system on {} has {} now", mount.display(), now.human()))
            }
            // Its journal may have more than its superblock says.
            None => Reverted::Stands(format!(
                "`{}` keeps its new length: whether its file system has it now is known only while that is mounted",
                self.name
            )),
        })
    }
}
