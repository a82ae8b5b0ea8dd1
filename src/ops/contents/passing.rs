//! Devices that are there as long as something of them is read.

use std::path::Path;
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::Result;

use crate::kernel::dm::{Dm, DmId, TargetLine};
use crate::kernel::{identity, processes, udev};
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
        let own = process::id();
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}{own}-{}-{number}-{what}", processes::started(own).unwrap_or_default());
        let devno = dm.create(&name, None)?;
        let device = Self { dm, name, devno };
        fault::reached(usize::try_from(number)?, Point::BeforeDevice)?;
        let id = DmId::name(&device.name);
        dm.load(&id, lines, read_only)?;
        dm.resume_private(&id)?;
        udev::ensure_node(&device.name, devno)?;
        fault::reached(usize::try_from(number)?, Point::AfterDevice)?;
        Ok(device)
    }
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
    let Ok(devices) = dm.list() else { return };
    for device in devices {
        if is_left(&device.name, processes::started) {
            let _ = dm.remove_when_closed(&DmId::name(&device.name));
            let _ = udev::remove_node(&device.name, device.devno);
        }
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
