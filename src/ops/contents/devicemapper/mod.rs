//! Volumes of a devicemapper pool, each with a file system of its own, written by files.
//!
//! ```text
//! file system made    as Docker makes one for its base device
//! with_root           mounted where nobody sees it, longer if need be, handed over, written out
//! apply               what one tree has changed of another, done to the volume that holds the other
//! make                a pool on new files, with a volume for each of a root's layers, and Docker's records
//! ```

mod fits;
mod made;
mod new_pool;
mod sizes;
mod tried;

use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::engine::version::Version;
use crate::kernel::folder::Folder;
use crate::kernel::fs::{longer_ext4, longer_xfs, sync_open};
use crate::kernel::{apart, identity};
use crate::ops::contents::archive::{Onto, Remark, plant_onto};
use crate::ops::contents::tree::Tree;
use crate::process;
use crate::units::Bytes;

pub(in crate::ops) use fits::{Fits, LONGEST, Unmade};
pub(in crate::ops) use made::{BESIDE, Source, Wanted, make, may_be_named};
pub(in crate::ops) use sizes::sizes;
pub(in crate::ops) use tried::{Tried, needed};

/// The directory that mkfs makes for what e2fsck finds.
pub(in crate::ops) const FOUND: &str = "lost+found";
/// How many losses are named.
const NAMED: usize = 5;
/// The first kernel that reads what mkfs.xfs makes without these options.
const CHECKS: Version = Version::new(3, 16);
const WITHOUT: [&str; 2] = ["-m", "crc=0,finobt=0"];

/// The file system in a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Inner {
    /// XFS.
    Xfs,
    /// ext4.
    Ext4,
}

impl Inner {
    /// Returns its name, as `dm.fs` has it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Xfs => "xfs",
            Self::Ext4 => "ext4",
        }
    }

    /// Returns the one of that name.
    pub fn named(name: &str) -> Option<Self> {
        [Self::Xfs, Self::Ext4].into_iter().find(|inner| inner.name() == name)
    }

    /// Returns the programs that make it.
    pub const fn programs(self) -> &'static [&'static str] {
        match self {
            Self::Xfs => &["mkfs.xfs"],
            Self::Ext4 => &["mkfs.ext4", "tune2fs"],
        }
    }

    /// Makes one on a device, as Docker does for its base device, with its `dm.mkfsarg` (`createFilesystem`,
    /// daemon/graphdriver/devmapper/deviceset.go).
    ///
    /// # Errors
    /// When a program is not there, or does not make it.
    pub(in crate::ops) fn make(self, device: &Path, arguments: &[String]) -> Result<()> {
        let device = device.to_str().context("the device's name is no text")?;
        let run = |program: &str, options: &[&str]| {
            let arguments = arguments.iter().map(String::as_str).filter(|_| program != "tune2fs");
            let all: Vec<&str> = options.iter().copied().chain(arguments).chain([device]).collect();
            process::run(program, &all).map(drop)
        };
        let make = || match self {
            Self::Xfs => {
                let kernel = identity::kernel_release().ok();
                let is_old = kernel.as_deref().and_then(Version::parse).is_some_and(|kernel| kernel < CHECKS);
                run("mkfs.xfs", if is_old { &WITHOUT } else { &[] })
            }
            Self::Ext4 => {
                let made = run("mkfs.ext4", &["-E", "nodiscard,lazy_itable_init=0,lazy_journal_init=0"]);
                made.or_else(|_| run("mkfs.ext4", &["-E", "nodiscard,lazy_itable_init=0"]))?;
                run("tune2fs", &["-c", "-1", "-i", "0"])
            }
        };
        make().with_context(|| format!("making a file system on {device}"))
    }

    /// Mounts the file system on a device where nobody sees it, makes it as long as `longer` if that is said, and hands over its root. What was
    /// done is written out, and it is unmounted when nobody has any of it open.
    ///
    /// # Errors
    /// As mount(2); what `act` failed with; when it cannot be written out.
    pub(in crate::ops) fn with_root<T>(
        self,
        device: &Path,
        longer: Option<Bytes>,
        act: impl FnOnce(&Folder) -> Result<T>,
    ) -> Result<T> {
        let root = apart::mounted_to_write(device, self.name(), self.options())?;
        match (self, longer) {
            (Self::Xfs, Some(to)) => longer_xfs(&root, to)?,
            (Self::Ext4, Some(to)) => longer_ext4(&root, to)?,
            (_, None) => {}
        }
        let done = act(&root)?;
        // When it is unmounted nobody is told what could not be written.
        sync_open(&root)?;
        Ok(done)
    }

    /// Mounts it to be read, and returns its root.
    ///
    /// # Errors
    /// As mount(2).
    pub(in crate::ops) fn to_read(self, device: &Path) -> Result<Folder> {
        Ok(apart::mounted(device, self.name(), self.options())?)
    }

    /// All volumes have the UUID of the one that they are snapshots of.
    const fn options(self) -> &'static str {
        match self {
            Self::Xfs => "nouuid",
            Self::Ext4 => "",
        }
    }
}

/// Does to a folder that holds what `old` has whatever makes `new` of that, but for paths of which `stays` says so: these, and what is
/// below them, are left as they are there. Files that both have stay the same files, so that a snapshot goes on sharing them.
///
/// # Errors
/// When anything cannot be read or kept, each by name; when nothing more can be written, or a signal comes.
pub(in crate::ops) fn apply(old: &Tree, new: &Tree, to: &Folder, stays: &dyn Fn(&Path) -> bool) -> Result<()> {
    let mut lost = Vec::new();
    let mut more = 0;
    let mut tell = |remark: Remark| {
        if lost.len() < NAMED { lost.push(remark.to_string()) } else { more += 1 }
    };
    plant_onto(&Onto { old, new, stays }, to, &mut tell)?;
    if !lost.is_empty() {
        let more = if more == 0 { String::new() } else { format!("; and {more} more") };
        bail!("{}{more}", lost.join("; "));
    }
    Ok(())
}
