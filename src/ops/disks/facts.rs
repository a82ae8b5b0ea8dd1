//! What decides whether a device can carry a pool, as it was read.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;

use crate::kernel::disks::content::{self, Head};
use crate::kernel::disks::{Roots, inventory, signatures};
use crate::kernel::dm::{Dm, DmId};
use crate::kernel::{DevNo, block, holders, loopdev, mounts};
use crate::metadata::{BadSuperblock, Superblock};
use crate::pool::THIN_POOL;
use crate::pool::disk::{BlockDevice, Kind, Samples, Signature};
use crate::pool::label::{BadLabel, Label, Slots};

/// What is said where signatures cannot be asked for.
pub(super) const NO_WIPEFS: &str = "the program wipefs (of util-linux) is not installed";

/// All that decides.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Every device, by number.
    pub devices: Vec<BlockDevice>,
    /// Where devices are mounted.
    pub mounts: BTreeMap<DevNo, Vec<Mounted>>,
    /// What is swapped on.
    pub swaps: BTreeSet<DevNo>,
    /// Devices that loop devices have as their file: the loop device's name.
    pub loop_files: BTreeMap<DevNo, String>,
    /// The devices with the root file system.
    pub roots: BTreeSet<DevNo>,
    /// The targets in the tables of dm devices.
    pub targets: BTreeMap<DevNo, BTreeSet<String>>,
    /// What is on devices; nothing of those that there is no sense in reading.
    pub contents: BTreeMap<DevNo, Result<Content, String>>,
}

/// A mount of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mounted {
    /// Where, as that namespace sees it.
    pub on: PathBuf,
    /// Whose mount namespace it is, when it is not this one: `dockerd (process 512)`.
    pub elsewhere: Option<String>,
}

/// What is on a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    /// Whether the kernel has it open for somebody alone.
    pub claimed: bool,
    /// Whether anything is on it, known or not.
    pub samples: Samples,
    /// Whether a superblock of a thin pool is behind the place of the label.
    pub former: bool,
    /// dmpool's label.
    pub label: Result<Option<Label>, BadLabel>,
    /// A thin pool's metadata; the inner is what is wrong with it.
    pub thin_metadata: Option<Result<(), BadSuperblock>>,
    /// What libblkid knows; or why that is not known.
    pub signatures: Result<Vec<Signature>, String>,
}

impl Facts {
    /// Returns a device.
    pub fn device(&self, devno: DevNo) -> Option<&BlockDevice> {
        self.devices.iter().find(|device| device.devno == devno)
    }

    /// Returns everything that a device stands on, however deep: slaves, and the disks of partitions.
    pub fn beneath(&self, devno: DevNo) -> BTreeSet<DevNo> {
        let mut found = BTreeSet::new();
        let mut next = vec![devno];
        while let Some(device) = next.pop().and_then(|devno| self.device(devno)) {
            next.extend(device.slaves.iter().chain(&device.disk).copied().filter(|devno| found.insert(*devno)));
        }
        found
    }

    /// Returns the multipath device that has this one as a path.
    pub fn multipath_over(&self, device: &BlockDevice) -> Option<&BlockDevice> {
        let upper = |device: &BlockDevice| {
            let holders = device.holders.iter().filter_map(|holder| self.device(*holder));
            holders.into_iter().find(|holder| matches!(holder.kind, Kind::Multipath { .. }))
        };
        upper(device).or_else(|| upper(self.device(device.disk?)?))
    }

    /// Returns the targets of a dm device that has one of them.
    pub fn has_target(&self, devno: DevNo, kind: &str) -> bool {
        self.targets.get(&devno).is_some_and(|kinds| kinds.contains(kind))
    }
}

/// Reads all of it, the contents only of those devices when some are named. Each has that long to answer, all at the same time, and its signatures as long again.
///
/// # Errors
/// When sysfs or /proc cannot be read. What a device does not say is in the facts.
pub fn look(roots: &Roots, dm: Option<&Dm>, only: Option<&[DevNo]>, limit: Duration) -> Result<Facts> {
    let mut facts = Facts { devices: inventory(roots)?, ..Facts::default() };
    mounted(&mut facts)?;
    facts.swaps = holders::swaps()?.iter().filter_map(|path| block::devno_of(path).ok()).collect();
    for info in loopdev::list()? {
        facts.loop_files.extend(info.backing_rdev.map(|on| (on, format!("loop{}", info.devno.minor))));
    }
    if let Some(dm) = dm {
        for device in dm.list()? {
            // One that goes meanwhile has no table.
            let Ok(lines) = dm.table(&DmId::DevNo(device.devno)) else { continue };
            facts.targets.insert(device.devno, lines.into_iter().map(|line| line.kind).collect());
        }
    }
    facts.contents = contents(&facts, &roots.dev, only, limit);
    Ok(facts)
}

fn mounted(facts: &mut Facts) -> Result<()> {
    let own = mounts::own_namespace();
    let everywhere = mounts::everywhere()?;
    for device in &facts.devices {
        let of_it = everywhere.iter().filter(|seen| seen.mount.is_of(device.devno));
        let (mine, theirs): (Vec<_>, Vec<_>) = of_it.partition(|seen| Some(&seen.namespace) == own.as_ref());
        let mut found: Vec<Mounted> = Vec::new();
        for (seen, elsewhere) in mine.iter().map(|seen| (seen, false)).chain(theirs.iter().map(|seen| (seen, true))) {
            let on = seen.mount.mount_point.clone();
            // What every service has in a namespace of its own is one mount to people.
            if found.iter().all(|mounted| mounted.on != on) {
                let elsewhere = elsewhere.then(|| format!("{} (process {})", seen.comm, seen.pid));
                found.push(Mounted { on, elsewhere });
            }
        }
        if found.iter().any(|mounted| mounted.on == Path::new("/") && mounted.elsewhere.is_none()) {
            facts.roots.insert(device.devno);
        }
        if !found.is_empty() {
            facts.mounts.insert(device.devno, found);
        }
    }
    Ok(())
}

/// Why a device is not read: nothing on it could decide, or its reader would hang.
fn no_sense(facts: &Facts, device: &BlockDevice) -> bool {
    let kind = matches!(device.kind, Kind::Memory | Kind::Optical | Kind::Floppy);
    let thin = facts.has_target(device.devno, THIN_POOL) || facts.has_target(device.devno, "thin");
    // Of several paths the device above them is read: one that sleeps answers with errors.
    kind || thin || device.size.get() == 0 || facts.multipath_over(device).is_some()
}

fn contents(
    facts: &Facts,
    dev: &Path,
    only: Option<&[DevNo]>,
    limit: Duration,
) -> BTreeMap<DevNo, Result<Content, String>> {
    let mut contents = BTreeMap::new();
    let mut asked = Vec::new();
    let wanted = |device: &&BlockDevice| only.is_none_or(|only| only.contains(&device.devno));
    for device in facts.devices.iter().filter(wanted).filter(|device| !no_sense(facts, device)) {
        let beneath = facts.beneath(device.devno).into_iter().filter_map(|devno| facts.device(devno));
        match beneath.into_iter().chain([device]).find(|device| device.suspended) {
            Some(asleep) if asleep.devno == device.devno => {
                contents.insert(device.devno, Err("it is suspended, and a reader would wait".to_owned()));
            }
            Some(asleep) => {
                let why = format!("{}, which it stands on, is suspended", asleep.called());
                contents.insert(device.devno, Err(why));
            }
            None => asked.push(device),
        }
    }
    let heads = heads(&asked, limit);
    // Programs are started after the last fork that is ours: they are waited for in threads.
    for (device, head) in asked.into_iter().zip(heads) {
        let content = head.map(|head| of(head, signatures(&dev.join(&device.name), limit)));
        contents.insert(device.devno, content);
    }
    contents
}

/// Asks the disks first, then the partitions of those that have answered.
fn heads(asked: &[&BlockDevice], limit: Duration) -> Vec<Result<Head, String>> {
    let ask = |devices: Vec<DevNo>| -> BTreeMap<DevNo, Result<Head, String>> {
        let heads = content::heads(&devices, limit);
        devices.into_iter().zip(heads).collect()
    };
    let mut heads = ask(asked.iter().filter(|device| device.disk.is_none()).map(|device| device.devno).collect());
    let silent = |device: &BlockDevice| device.disk.is_some_and(|disk| heads.get(&disk).is_some_and(Result::is_err));
    let (silent, parts): (Vec<&BlockDevice>, Vec<&BlockDevice>) =
        asked.iter().copied().filter(|device| device.disk.is_some()).partition(|device| silent(device));
    heads.extend(ask(parts.iter().map(|device| device.devno).collect()));
    let of_silent = || Err("the disk that it is on could not be read".to_owned());
    heads.extend(silent.iter().map(|device| (device.devno, of_silent())));
    asked.iter().map(|device| heads.remove(&device.devno).unwrap_or_else(of_silent)).collect()
}

fn signatures(node: &Path, limit: Duration) -> Result<Vec<Signature>, String> {
    signatures::on(node, limit).map_err(|e| if e.missing { NO_WIPEFS.to_owned() } else { e.to_string() })
}

fn of(head: Head, signatures: Result<Vec<Signature>, String>) -> Content {
    let (claimed, samples) = (head.claimed, head.samples);
    let former = head.behind.is_some_and(|behind| Superblock::parse(&behind).is_ok());
    let Some(bytes) = head.bytes else {
        return Content { claimed, samples, former, label: Ok(None), thin_metadata: None, signatures };
    };
    let [first, second] = &bytes.slots;
    let label = match Slots::decode([first, second]).newest() {
        Ok(label) => Ok(label.cloned()),
        // The device ends before its slots.
        Err(BadLabel::Short(_)) => Ok(None),
        Err(bad) => Err(bad),
    };
    let thin_metadata = match Superblock::parse(&bytes.first) {
        Ok(_) => Some(Ok(())),
        Err(BadSuperblock::Zero | BadSuperblock::Short(_) | BadSuperblock::Magic(_)) => None,
        Err(bad) => Some(Err(bad)),
    };
    Content { claimed, samples, former, label, thin_metadata, signatures }
}
