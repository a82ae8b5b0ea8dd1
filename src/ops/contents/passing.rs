//! Devices that are there as long as something of them is read or written.

use std::fs::File;
use std::path::Path;
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Result, bail};

use crate::kernel::dm::{Dm, DmDevice, DmId, TargetLine};
use crate::kernel::{block, identity, processes, udev};
use crate::ops::fault::{self, Point};
use crate::pool::DevNo;

/// What their names begin with: `dmpool-rescue-PID-STARTED-NUMBER-WHAT`.
const PREFIX: &str = "dmpool-rescue-";

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// A device that goes with its last user. Dropped, it stays for those who have it open by then: a mount, a device on it.
#[derive(Debug)]
pub(in crate::ops::contents) struct Device<'d> {
    dm: &'d Dm,
    pub(in crate::ops::contents) name: String,
    pub(in crate::ops::contents) devno: DevNo,
}

impl<'d> Device<'d> {
    /// Makes it, with a node.
    pub(in crate::ops::contents) fn make(
        dm: &'d Dm,
        what: &str,
        lines: &[TargetLine],
        read_only: bool,
    ) -> Result<Self> {
        let (device, number) = Self::loaded(dm, what, lines, read_only)?;
        device.resumed(number)?;
        Ok(device)
    }

    /// Makes it, not yet resumed; returns its number, too.
    fn loaded(dm: &'d Dm, what: &str, lines: &[TargetLine], read_only: bool) -> Result<(Self, usize)> {
        let own = process::id();
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}{own}-{}-{number}-{what}", processes::started(own).unwrap_or_default());
        let devno = dm.create(&name, None)?;
        let device = Self { dm, name, devno };
        let number = usize::try_from(number)?;
        fault::reached(number, Point::BeforeDevice)?;
        dm.load(&DmId::name(&device.name), lines, read_only)?;
        Ok((device, number))
    }

    fn resumed(&self, number: usize) -> Result<()> {
        self.dm.resume_private(&DmId::name(&self.name))?;
        udev::ensure_node(&self.name, self.devno)?;
        fault::reached(number, Point::AfterDevice)
    }
}

/// A device that is there until it is closed, or this process ends, in whatever way.
#[derive(Debug)]
pub(in crate::ops::contents) struct Kept<'d> {
    // The first to go: what is removed is closed.
    pub(in crate::ops::contents) file: File,
    pub(in crate::ops::contents) device: Device<'d>,
}

impl<'d> Kept<'d> {
    /// Makes it, with a node. It is marked to go with its last user before it is one that another device or a mount can have.
    pub(in crate::ops::contents) fn make(
        dm: &'d Dm,
        what: &str,
        lines: &[TargetLine],
        read_only: bool,
    ) -> Result<Self> {
        // Newer kernels have nothing to be opened before there is a table.
        let (device, number) = Device::loaded(dm, what, lines, read_only)?;
        let kept = Self { file: block::open_by_devno(device.devno, false)?, device };
        // Where the kernel cannot wait, it is removed when this goes, or swept.
        let _ = dm.remove_when_closed(&DmId::name(&kept.device.name));
        kept.device.resumed(number)?;
        Ok(kept)
    }

    /// Closes it, and waits until it is gone.
    ///
    /// # Errors
    /// When somebody has it open.
    pub(in crate::ops::contents) fn close(self) -> Result<()> {
        let (dm, name) = (self.device.dm, self.device.name.clone());
        drop(self);
        is_gone(&format!("the device {name}"), &mut || Ok(dm.info(&DmId::name(&name))?.is_none()))
    }
}

/// Waits until something is gone that the kernel takes away by itself.
///
/// # Errors
/// When it stays.
pub(in crate::ops::contents) fn is_gone(what: &str, gone: &mut dyn FnMut() -> Result<bool>) -> Result<()> {
    /// How often it is looked, and how long is waited in between: udev looks into what was written.
    const LOOKS: u32 = 500;
    const BETWEEN: Duration = Duration::from_millis(20);
    for _ in 0..LOOKS {
        if gone()? {
            return Ok(());
        }
        std::thread::sleep(BETWEEN);
    }
    bail!("{what} is still there: somebody has it open")
}

impl Drop for Device<'_> {
    fn drop(&mut self) {
        // What cannot be removed here is swept by the next command.
        let _ = self.dm.remove_when_closed(&DmId::name(&self.name));
        let _ = udev::remove_node(&self.name, self.devno);
    }
}

/// Removes devices of processes that were killed while they made them; a kernel that has no device-mapper yet is not asked to
/// load it.
pub(in crate::ops) fn sweep() {
    if !identity::is_root() || !Path::new("/sys/class/misc/device-mapper").exists() {
        return;
    }
    let Ok(dm) = Dm::open() else { return };
    let left = || -> Vec<DmDevice> {
        let devices = dm.list().unwrap_or_default().into_iter();
        devices.filter(|device| is_left(&device.name, processes::started)).collect()
    };
    rounds(left, |device| {
        let _ = dm.remove_when_closed(&DmId::name(&device.name));
        let _ = udev::remove_node(&device.name, device.devno);
    });
}

/// Removes what is left again as long as there is less of it than before: a pool can be removed only once its volumes are, where the kernel
/// does not wait for that by itself.
fn rounds<T>(left: impl Fn() -> Vec<T>, remove: impl Fn(&T)) {
    let mut before = usize::MAX;
    loop {
        let devices = left();
        if devices.is_empty() || devices.len() >= before {
            return;
        }
        before = devices.len();
        devices.iter().for_each(&remove);
    }
}

/// Whether a name is of a process that is no more: its id may be another's by now.
fn is_left(name: &str, started: impl Fn(u32) -> Option<u64>) -> bool {
    let mut parts = name.strip_prefix(PREFIX).into_iter().flat_map(|rest| rest.split('-'));
    let pid = parts.next().and_then(|pid| pid.parse().ok());
    let when: Option<u64> = parts.next().and_then(|when| when.parse().ok());
    match (pid, when) {
        (Some(pid), Some(when)) => started(pid) != Some(when),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_on_another_is_removed_before_it() {
        use std::cell::RefCell;
        let there = RefCell::new(vec!["pool", "volume", "held"]);
        let remove = |device: &&str| {
            let may = match *device {
                "pool" => !there.borrow().contains(&"volume"),
                device => device != "held",
            };
            there.borrow_mut().retain(|other| other != device || !may);
        };
        rounds(|| there.borrow().clone(), remove);
        assert_eq!(*there.borrow(), ["held"]);
    }

    #[test]
    fn only_the_devices_of_processes_that_ended_are_swept() {
        let started = |pid: u32| (pid == 7).then_some(70);
        assert!(is_left("dmpool-rescue-8-70-0-pool", started));
        assert!(is_left("dmpool-rescue-7-69-0-pool", started));
        assert!(!is_left("dmpool-rescue-7-70-0-pool", started));
        for other in ["dmpool-rescue-", "dmpool-rescue-x-1-0-pool", "dmpool-rescue-8", "docker-8:1-2-pool", ""] {
            assert!(!is_left(other, started), "{other}");
        }
    }
}
