//! Which Docker root a pool belongs to: by what the kernel says is under the pool and on it, before any name.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::engine::docker_root::{DockerRoot, LeadsTo, LoopLink};
use crate::kernel::block;
use crate::kernel::loopdev::LoopInfo;
use crate::ops::sight::{self, Live};
use crate::pool::{DevNo, Tie};

/// What carries a live pool, and what stands on it, as far as it tells whose it is.
#[derive(Clone, Debug)]
pub struct Ground {
    /// Its data device and its metadata device, as its table names them.
    devices: [DevNo; 2],
    /// What is behind those that are loop devices.
    loops: [Option<LoopInfo>; 2],
    /// The dm names of some devices that stand on it.
    volumes: Vec<String>,
}

/// How many devices on a pool are asked for their names: all that one user makes begin alike.
const VOLUMES: usize = 8;

impl Ground {
    /// Of a pool whose table cannot be understood: no device has the number 0:0.
    pub const fn unknown() -> Self {
        let none = DevNo { major: 0, minor: 0 };
        Self { devices: [none, none], loops: [None, None], volumes: Vec::new() }
    }

    /// Looks at a live pool.
    pub fn of(live: &Live) -> Self {
        let devices = [live.table.data, live.table.metadata];
        // Through the linear devices that dmpool, or somebody else, may have put in between.
        let below = devices.map(|device| match block::slaves(device).unwrap_or_default().as_slice() {
            [only] => *only,
            _ => device,
        });
        let volumes = block::holders(live.info.devno).unwrap_or_default();
        Self {
            devices,
            loops: sight::loops_at(below).map(|info| info.ok().flatten()),
            volumes: volumes.into_iter().take(VOLUMES).filter_map(dm_name).collect(),
        }
    }

    /// Returns what is behind its loop devices.
    pub fn loops(&self) -> Vec<LoopInfo> {
        self.loops.iter().flatten().cloned().collect()
    }

    /// Returns where the files behind its loop devices are, as the kernel names them.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.loops.iter().flatten().filter_map(|info| info.backing_path.as_deref())
    }

    /// Returns whether some volume on it has a name of that beginning.
    pub fn has_volumes_of(&self, prefix: &str) -> bool {
        self.volumes.iter().any(|name| name.starts_with(prefix))
    }

    /// Returns whether Docker's names are on it: its own, or its volumes'.
    pub fn looks_like_dockers(&self, name: &str) -> bool {
        name.starts_with("docker-") || self.has_volumes_of("docker-")
    }
}

/// Returns how a pool belongs to a root, or nothing when it does not. `ground` is there for a live pool.
pub fn tie(root: &DockerRoot, name: &str, ground: Option<&Ground>) -> Option<Tie> {
    let named = root.options.known().and_then(|options| options.named_pool());
    let by_ground = || ground.and_then(|ground| by_files(root, ground).or_else(|| by_devices(root, ground)));
    let by_name = || (root.own_pool() == name).then_some(Tie::Name);
    let by_rest = || ground.and_then(|ground| by_deleted_file(root, ground).or_else(|| by_volumes(root, ground)));
    let by_setup = || (root.pool().as_deref() == Some(name)).then_some(Tie::Options);
    let (tie, is_named) = match named == Some(name) {
        true => (Tie::Options, true),
        false => (by_ground().or_else(by_name).or_else(by_rest).or_else(by_setup)?, false),
    };
    // Docker uses another pool, or another driver, and what it used before is still there.
    let another = named.is_some() && !is_named && tie != Tie::Volumes || root.other_driver().is_some();
    Some(if another { Tie::Before } else { tie })
}

fn by_files(root: &DockerRoot, ground: &Ground) -> Option<Tie> {
    let pairs = [(&root.data_file, &root.data_link), (&root.metadata_file, &root.metadata_link)];
    let is_behind = |(info, (path, link)): (&Option<LoopInfo>, (&Option<PathBuf>, &Option<LoopLink>))| {
        info.as_ref().zip(path.as_deref()).is_some_and(|(info, path)| is_backed_by(info, path, link.as_ref()))
    };
    ground.loops.iter().zip(pairs).any(is_behind).then_some(Tie::Files)
}

fn is_backed_by(info: &LoopInfo, path: &Path, link: Option<&LoopLink>) -> bool {
    match link.map(|link| &link.leads_to) {
        Some(LeadsTo::Nothing(_)) => false,
        Some(LeadsTo::Device(rdev)) => info.backing_rdev == Some(DevNo::from_dev_t(*rdev)),
        Some(LeadsTo::File) | None => fs::metadata(path).is_ok_and(|found| {
            let same_path = || info.backing_path.as_deref() == Some(path) && !info.deleted;
            // Files of btrfs have another device number for stat(2) than for the kernel.
            info.backing_inode == found.ino() && (info.backing_dev.dev_t() == found.dev() || same_path())
        }),
    }
}

fn by_devices(root: &DockerRoot, ground: &Ground) -> Option<Tie> {
    let options = root.options.known()?;
    let named = [&options.data_device, &options.metadata_device];
    let is_it = |(device, path): (&DevNo, &Option<String>)| {
        path.as_deref().is_some_and(|path| block::devno_of(Path::new(path)).is_ok_and(|named| named == *device))
    };
    ground.devices.iter().zip(named).any(is_it).then_some(Tie::Devices)
}

fn by_deleted_file(root: &DockerRoot, ground: &Ground) -> Option<Tie> {
    let files = root.path.join("devicemapper/devicemapper");
    let was_here = |info: &LoopInfo| {
        let path = info.backing_path.as_deref();
        info.deleted && [files.join("data"), files.join("metadata")].iter().any(|own| path == Some(own))
    };
    ground.loops.iter().flatten().any(was_here).then_some(Tie::DeletedFile)
}

fn by_volumes(root: &DockerRoot, ground: &Ground) -> Option<Tie> {
    ground.has_volumes_of(&format!("{}-", root.device_prefix)).then_some(Tie::Volumes)
}

/// Returns the dm name of a device, when it is one of device-mapper's.
pub fn dm_name(device: DevNo) -> Option<String> {
    block::attribute(device, "dm/name")
}

/// Returns the dm name of a device that is a logical volume of LVM's; nothing for any other.
pub fn volume_of_lvm(device: DevNo) -> Option<String> {
    block::attribute(device, "dm/uuid")?.starts_with("LVM-").then(|| dm_name(device)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::samples::docker_root;

    #[test]
    fn a_pool_of_a_docker_that_uses_another_driver_now_is_from_before() {
        let root = docker_root();
        let name = root.own_pool();
        assert_eq!(tie(&root, &name, None), Some(Tie::Name));
        assert_eq!(tie(&root, "other", None), None);
        for (driver, expected) in [("overlay2", Tie::Before), ("devicemapper", Tie::Name)] {
            let told = DockerRoot { storage_driver: Some(driver.to_owned()), ..root.clone() };
            assert_eq!(tie(&told, &name, None), Some(expected), "{driver}");
        }
    }
}
