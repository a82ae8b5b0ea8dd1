//! Whether the new pool would be put on what the old one is read from: with Docker down nobody claims that.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::blocks::Origin;
use crate::error::{Failure, Outcome};
use crate::kernel::disks::{Roots, inventory};
use crate::kernel::dm::Dm;
use crate::kernel::{beneath, block, loopdev};
use crate::ops::sight;
use crate::pool::DevNo;

/// What devices stand on, each directly.
type Under = BTreeMap<DevNo, BTreeSet<DevNo>>;

/// Refuses devices that the old pool lies on, or that lie on one of its.
///
/// # Errors
/// Refused with the device; when it cannot be told what lies on what.
pub(super) fn from_old(dm: &Dm, old: &Origin, named: &[&Path], refuse: &impl Fn(String) -> Failure) -> Outcome<()> {
    let look = || -> Result<_> { Ok((under()?, of_origin(dm, old)?)) };
    let (under, old) =
        look().map_err(|e| refuse("it cannot be told what its old pool lies on".to_owned()).because(e))?;
    for path in named {
        // One that is not there is refused by who would take it.
        let Ok(device) = block::devno_of(path) else { continue };
        if let Some((part, _)) = old.iter().find(|(_, devno)| is_shared(&under, *devno, device)) {
            let path = path.display();
            return Err(refuse(format!("`{path}` cannot be taken: the old pool lies on it, and is read from there"))
                .fact("found", format!("{} is a part of the old pool", part.display()))
                .fact("state", "nothing was touched")
                .next("dmpool disks    # name another device"));
        }
    }
    Ok(())
}

/// Returns the devices that a pool lies on, each with the path that leads to it.
fn of_origin(dm: &Dm, old: &Origin) -> Result<Vec<(PathBuf, DevNo)>> {
    let named = |devno: DevNo| (PathBuf::from(format!("/dev/block/{devno}")), devno);
    Ok(match old {
        Origin::Parts { data, metadata } => {
            let of = |path: &PathBuf| match block::devno_of(path) {
                Ok(devno) => vec![(path.clone(), devno)],
                Err(_) => beneath::devices_of(path).into_iter().map(|devno| (path.clone(), devno)).collect(),
            };
            [data, metadata].into_iter().flat_map(of).collect()
        }
        Origin::Pool(name) => {
            let live = sight::live(dm, name)?;
            live.into_iter().flat_map(|live| [live.table.data, live.table.metadata]).map(named).collect()
        }
    })
}

fn under() -> Result<Under> {
    let devices = inventory(&Roots::default())?;
    let mut under: Under = devices
        .iter()
        .map(|device| (device.devno, device.slaves.iter().chain(&device.disk).copied().collect()))
        .collect();
    for info in loopdev::list()? {
        under.entry(info.devno).or_default().insert(info.backing_rdev.unwrap_or(info.backing_dev));
    }
    Ok(under)
}

/// Whether what is written to the one may be a part of the other: one of them is the other, or stands on it.
fn is_shared(under: &Under, one: DevNo, other: DevNo) -> bool {
    below(under, one).contains(&other) || below(under, other).contains(&one)
}

/// Returns a device with everything that it stands on, however deep.
fn below(under: &Under, device: DevNo) -> BTreeSet<DevNo> {
    let mut found = BTreeSet::from([device]);
    let mut next = vec![device];
    while let Some(device) = next.pop() {
        next.extend(under.get(&device).into_iter().flatten().copied().filter(|devno| found.insert(*devno)));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_apart_from_the_old_pool_unless_one_stands_on_the_other() {
        let dev = |minor| DevNo::new(8, minor);
        let (disk, first, second, lv, other_lv, attached) = (dev(16), dev(17), dev(18), dev(40), dev(41), dev(50));
        let under: Under = [
            (disk, vec![]),
            (first, vec![disk]),
            (second, vec![disk]),
            (lv, vec![first]),
            (other_lv, vec![first]),
            (attached, vec![second]),
        ]
        .into_iter()
        .map(|(device, on)| (device, on.into_iter().collect()))
        .collect();
        for (old, named) in [(disk, disk), (disk, first), (first, disk), (lv, disk), (lv, first), (attached, second)] {
            assert!(is_shared(&under, old, named) && is_shared(&under, named, old), "{old} {named}");
        }
        for (old, named) in [(first, second), (lv, other_lv), (lv, second), (attached, first), (dev(99), disk)] {
            assert!(!is_shared(&under, old, named) && !is_shared(&under, named, old), "{old} {named}");
        }
    }
}
