//! Loop devices that keep files which nobody can see any more: what `rm -rf` of a Docker root leaves, and why it frees
//! nothing.

use std::path::Path;

use crate::kernel::{block, loopdev, mounts};
use crate::pool::{DevNo, Finding, Key, PoolReport, Severity};
use crate::process::quote;
use crate::units::Bytes;

/// A loop device on a deleted file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stray {
    device: DevNo,
    /// Its node.
    node: String,
    /// The path that the file had.
    path: String,
    /// How long the device is.
    size: Bytes,
    /// Whether another device stands on it, or it is mounted.
    held: bool,
}

/// Looks for them.
pub(super) fn look() -> Vec<Stray> {
    let all = loopdev::list().unwrap_or_default();
    all.into_iter()
        .filter(|info| info.deleted)
        .map(|info| Stray {
            device: info.devno,
            node: info.path().to_string_lossy().into_owned(),
            path: info.backing_path.as_deref().unwrap_or(Path::new("?")).to_string_lossy().into_owned(),
            size: info.size.bytes(),
            held: block::holders(info.devno).map_or(true, |holders| !holders.is_empty()) || mounted(info.devno),
        })
        .collect()
}

fn mounted(device: DevNo) -> bool {
    mounts::own().map_or(true, |mounts| mounts.iter().any(|mount| mount.devno == device))
}

/// Judges those that belong to no pool that is known; a pool's own are judged with it.
pub(super) fn judge(pools: &[&PoolReport], strays: &[Stray]) -> Vec<Finding> {
    let of_pool = |device: DevNo| {
        pools.iter().any(|pool| {
            let table = pool.table.as_ref();
            let node = |backing: &crate::pool::Backing| match &backing.carrier {
                crate::pool::Carrier::Loop { device: Some(path), .. } => {
                    path.ends_with(format!("loop{}", device.minor))
                }
                _ => false,
            };
            table.is_some_and(|t| t.data == device || t.metadata == device) || node(&pool.data) || node(&pool.metadata)
        })
    };
    let finding = |stray: &Stray| {
        let Stray { node, path, size, held, .. } = stray;
        let sentence = format!("loop device {node} keeps the deleted file {path}, of {}", size.human());
        let finding = Finding::new(Key::StrayLoop, Severity::Warning, node, sentence);
        if *held {
            finding.run(format!("lsblk {}", quote(node)), "online; shows what stands on it, and where it is mounted")
        } else {
            finding.run(format!("losetup -d {}", quote(node)), "online; the file is gone then, and its space free")
        }
    };
    strays.iter().filter(|stray| !of_pool(stray.device)).map(finding).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use super::*;
    use crate::report::samples::docker_pool;

    #[test]
    fn only_those_of_no_pool_are_told() {
        let stray = |minor, held| Stray {
            device: DevNo { major: 7, minor },
            node: format!("/dev/loop{minor}"),
            path: "/var/lib/docker/devicemapper/devicemapper/data".to_owned(),
            size: Bytes::new(100 << 30),
            held,
        };
        let pool = docker_pool("0 1/2 3/4", 0);
        let found = judge(&[&pool], &[stray(0, true), stray(1, true), stray(2, false), stray(3, true)]);
        assert_eq!(found.len(), 2, "{found:?}");
        assert_eq!(found[0].ways[0].command.as_deref().unwrap(), "losetup -d /dev/loop2");
        assert_eq!(found[1].ways[0].command.as_deref(), Some("lsblk /dev/loop3"));
    }
}
