//! What lies on the pool itself: an operation that suspends it must not need any of that.

use std::fs;
use std::path::{Path, PathBuf};

use crate::kernel::{beneath, block, loopdev};
use crate::ops::State;
use crate::pool::DevNo;

/// How deep devices are followed downwards: more storeys than anyone builds.
const DEPTH: usize = 16;

/// Returns which of dmpool's own needs lie on a device: its state, its binary, what it prints to.
pub fn needs_on(state: &State, device: DevNo) -> Vec<PathBuf> {
    let mut needs = vec![state.registry.clone(), state.volumes.clone(), state.journals.clone(), state.locks.clone()];
    needs.extend(["/proc/self/exe", "/proc/self/fd/1", "/proc/self/fd/2"].map(PathBuf::from));
    needs.retain(|path| lies_on(path, device));
    needs.into_iter().map(|path| fs::read_link(&path).unwrap_or(path)).collect()
}

/// Returns whether a file, or the nearest folder of it that is there, is on a file system on that device.
pub fn lies_on(path: &Path, device: DevNo) -> bool {
    path_stands_on(path, device, DEPTH)
}

fn path_stands_on(path: &Path, device: DevNo, depth: usize) -> bool {
    let there = path.ancestors().find(|p| fs::metadata(p).is_ok());
    there.is_some_and(|there| beneath::devices_of(there).into_iter().any(|upper| stands_on(upper, device, depth)))
}

/// Returns whether a device stands on another, through slaves and loop files.
fn stands_on(upper: DevNo, device: DevNo, depth: usize) -> bool {
    if upper == device {
        return true;
    }
    let Some(depth) = depth.checked_sub(1) else { return false };
    if let Ok(Some(info)) = loopdev::info(upper) {
        return match info.backing_path {
            // A number of no device: where the file is tells more.
            Some(path) if info.backing_dev.major == 0 => path_stands_on(&path, device, depth),
            _ => stands_on(info.backing_dev, device, depth),
        };
    }
    block::slaves(upper).unwrap_or_default().into_iter().any(|below| stands_on(below, device, depth))
}
