//! What lies on the pool itself: an operation that suspends it must not need any of that.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::kernel::{block, loopdev};
use crate::ops::State;
use crate::pool::DevNo;

/// How deep devices are followed downwards: more storeys than anyone builds.
const DEPTH: usize = 16;

/// Returns which of dmpool's own needs lie on a device: its state, its binary, what it prints to.
pub fn needs_on(state: &State, device: DevNo) -> Vec<PathBuf> {
    let mut needs = vec![state.registry.clone(), state.journals.clone(), state.locks.clone()];
    needs.extend(["/proc/self/exe", "/proc/self/fd/1", "/proc/self/fd/2"].map(PathBuf::from));
    needs.retain(|path| lies_on(path, device));
    needs.into_iter().map(|path| fs::read_link(&path).unwrap_or(path)).collect()
}

/// Returns whether a file, or the nearest folder of it that is there, is on a file system on that device.
pub fn lies_on(path: &Path, device: DevNo) -> bool {
    let there = path.ancestors().find_map(|p| fs::metadata(p).ok());
    there.is_some_and(|found| stands_on(DevNo::from_dev_t(found.dev()), device, DEPTH))
}

/// Returns whether a device stands on another, through slaves and loop files.
fn stands_on(upper: DevNo, device: DevNo, depth: usize) -> bool {
    if upper == device {
        return true;
    }
    let Some(depth) = depth.checked_sub(1) else { return false };
    if let Ok(Some(info)) = loopdev::info(upper) {
        return stands_on(info.backing_dev, device, depth);
    }
    block::slaves(upper).unwrap_or_default().into_iter().any(|below| stands_on(below, device, depth))
}
