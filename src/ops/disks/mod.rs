//! Which block devices could carry a pool, and why the others could not.
//!
//! [`look`] reads: sysfs, mounts, swaps, tables, and of each device its beginning, in children that can be given up.
//! [`judge`] is pure. Nothing is opened for writing.

mod facts;
mod judge;
mod rescan;

use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;

use crate::error::{self, Failure, Outcome};
use crate::kernel::disks::{self as devices, Roots};
use crate::kernel::dm::Dm;
use crate::kernel::{self, DevNo, block, identity};
use crate::pool::disk::{BlockDevice, Kind, Signature, Unfit};
use crate::process;

pub use facts::{Content, Facts, Mounted, look};
pub use judge::judge;
pub use rescan::{Rescan, rescans};

/// How long a disk may take to answer: one that sleeps needs ten seconds to turn again.
pub const LIMIT: Duration = Duration::from_secs(15);

/// A device, and whether a pool could be put on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// The device.
    pub device: BlockDevice,
    /// Why not, the weightiest reason first.
    pub unfit: Vec<Unfit>,
    /// The signatures that are on it; nothing when it was not asked, or did not say.
    pub signatures: Option<Vec<Signature>>,
    /// Whether all that was read of it is zeros, when it was.
    pub blank: Option<bool>,
}

impl Disk {
    /// Returns whether it can carry a pool; nothing when it is only not known why it should not.
    pub fn usable(&self) -> Option<bool> {
        match self.unfit.as_slice() {
            [] => Some(true),
            reasons if reasons.iter().all(Unfit::is_unknown) => None,
            _ => Some(false),
        }
    }

    /// Returns whether people mean it when they speak of their disks: a disk, partition, md, multipath device or LV, and
    /// whatever else could be used.
    pub fn is_everyday(&self) -> bool {
        let inner = !self.device.holders.is_empty();
        let thin = self.unfit.iter().any(|why| matches!(why, Unfit::ThinPool | Unfit::ThinVolume));
        let kind = match &self.device.kind {
            Kind::Disk | Kind::Partition | Kind::Md { .. } | Kind::Multipath { .. } => true,
            Kind::LogicalVolume { .. } => !thin,
            Kind::Dm { owner, .. } => !thin && !inner && !matches!(owner.as_deref(), Some("LVM" | "DMPOOL")),
            Kind::Loop { .. } | Kind::Memory | Kind::Optical | Kind::Floppy => false,
        };
        kind || self.usable() != Some(false)
    }
}

/// What there is on a machine.
#[derive(Debug)]
pub struct Disks {
    /// Every device: those that can be used, those of which it is not known, the others; each in the order of numbers.
    pub all: Vec<Disk>,
    /// What can be told to look for more.
    pub rescans: Vec<Rescan>,
}

/// Looks at every device.
///
/// # Errors
/// Refused to who is not root; when sysfs or /proc cannot be read.
pub fn disks(limit: Duration) -> Outcome<Disks> {
    let roots = Roots::default();
    // As in a container that was not given them.
    for (path, what) in [(roots.sys.join("class/block"), "-t sysfs sysfs /sys"), (roots.dev, "-t devtmpfs dev /dev")] {
        if !path.is_dir() {
            let why = format!("cannot look at the disks: {} is not there", path.display());
            return Err(Failure::new(error::Kind::Damaged, why).next(format!(
                "mount {what}    or, in a container, give it the host's (-v /sys:/sys -v /dev:/dev --privileged)"
            )));
        }
    }
    among(None, limit)
}

/// Looks at the devices that paths lead to, and at who has them; what is on the others is not read.
///
/// # Errors
/// As [`disks`].
pub fn at(paths: &[&Path], limit: Duration) -> Outcome<Disks> {
    let only: Vec<_> = paths.iter().filter_map(|path| block::devno_of(path).ok()).collect();
    among(Some(&only), limit)
}

fn among(only: Option<&[DevNo]>, limit: Duration) -> Outcome<Disks> {
    if !identity::is_root() {
        return Err(Failure::refused("cannot look at the disks: only root may").next("sudo dmpool disks"));
    }
    let cannot = |e: anyhow::Error| Failure::failed("cannot look at the disks").because(e);
    let roots = Roots::default();
    // A kernel without device-mapper has disks all the same.
    let facts = look(&roots, Dm::open().ok().as_ref(), only, limit).map_err(cannot)?;
    let mut all = judge(&facts);
    all.sort_by_key(|disk| match disk.usable() {
        Some(true) => 0,
        None => 1,
        Some(false) => 2,
    });
    Ok(Disks { rescans: rescans(&devices::rescannable(&roots), &facts.devices), all })
}

impl Disks {
    /// Returns the device that a path leads to.
    ///
    /// # Errors
    /// When it leads to none, as a reason.
    pub fn named(&self, path: &Path) -> Result<&Disk, Unfit> {
        let devno = block::devno_of(path).map_err(|e| match kernel::errno_of(&e) {
            Some(Errno::ENOTBLK) => Unfit::NoBlockDevice,
            _ => Unfit::Missing,
        })?;
        self.all.iter().find(|disk| disk.device.devno == devno).ok_or(Unfit::Missing)
    }

    /// Returns of the devices that are shown those that could not be read, as failures.
    pub fn not_read(&self, shown: &dyn Fn(&Disk) -> bool) -> Vec<Failure> {
        let mut failures = Vec::new();
        let mut without_program = 0;
        for disk in self.all.iter().filter(|disk| shown(disk)) {
            for why in &disk.unfit {
                match why {
                    Unfit::NotRead { why } if why == facts::NO_WIPEFS => without_program += 1,
                    Unfit::NotRead { why } => failures.push(of_one(&disk.device, why)),
                    _ => {}
                }
            }
        }
        if without_program > 0 {
            failures.push(
                Failure::failed(format!("cannot tell what is on {without_program} devices: {}", facts::NO_WIPEFS))
                    .next("yum install util-linux    # or apt-get install util-linux"),
            );
        }
        failures
    }
}

fn of_one(device: &BlockDevice, why: &str) -> Failure {
    let failure = Failure::failed(format!("cannot tell what is on {}: {why}", device.path().display()));
    match device.kind.dm_name().filter(|_| device.suspended) {
        Some(name) => {
            failure.next(format!("dmsetup resume {}    # when whoever suspended it is gone", process::quote(&name)))
        }
        None if why.contains("EPERM") => {
            failure.next("look from outside the container; or give it the disks (docker run --privileged -v /dev:/dev)")
        }
        None => failure.next("dmesg | tail -50"),
    }
}
