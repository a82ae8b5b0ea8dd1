//! How long each volume is.

use std::collections::BTreeMap;

use crate::engine::bookkeeping::Device;
use crate::engine::docker_objects::{Fields, Objects};
use crate::units::Bytes;

/// Returns how long each volume shall be, by Docker's names: as the base device; those of a container that was told to be longer
/// (`--storage-opt size=`), as it was told, or as its record says, where that is no whole number.
pub(in crate::ops) fn sizes(
    objects: &Objects,
    volumes: &BTreeMap<String, Device>,
    base: Bytes,
) -> BTreeMap<String, Bytes> {
    let mut sizes: BTreeMap<String, Bytes> = volumes.keys().map(|name| (name.clone(), base)).collect();
    for container in &objects.containers {
        let told = container.host_config.text(&["StorageOpt", "size"]);
        let (Some(told), Some(mount)) = (told, &container.mount) else { continue };
        // Docker takes fractions (units.RAMInBytes).
        let told = Bytes::parse(told).ok();
        for name in [&mount.init_id, &mount.mount_id].into_iter().flatten() {
            let Some(own) = told.or_else(|| volumes.get(name).map(|device| device.size)) else { continue };
            sizes.entry(name.clone()).and_modify(|size| *size = own.max(*size));
        }
    }
    sizes
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::fs;

    use super::*;
    use crate::engine::docker_objects;

    #[test]
    fn a_container_is_as_large_as_it_was_told() {
        let temp = tempfile::tempdir().unwrap();
        let mut volumes = BTreeMap::new();
        for (number, (told, was)) in [("2G", 2048), ("1.5G", 1536), ("", 1024), ("100M", 1024)].into_iter().enumerate()
        {
            let id = number.to_string().repeat(64);
            let [folder, mount] =
                ["containers", "image/devicemapper/layerdb/mounts"].map(|at| temp.path().join(at).join(&id));
            fs::create_dir_all(&folder).unwrap();
            fs::create_dir_all(&mount).unwrap();
            fs::write(folder.join("config.v2.json"), format!(r#"{{"ID":"{id}","Driver":"devicemapper"}}"#)).unwrap();
            fs::write(folder.join("hostconfig.json"), format!(r#"{{"StorageOpt":{{"size":"{told}"}}}}"#)).unwrap();
            for (file, name) in [("mount-id", number.to_string()), ("init-id", format!("{number}-init"))] {
                fs::write(mount.join(file), &name).unwrap();
                let size = Bytes::new(was << 20);
                let device = Device { id: 1, size, transaction_id: 1, initialized: false, deleted: false };
                volumes.insert(name, device);
            }
        }
        let objects = docker_objects::read(temp.path()).unwrap();
        let sizes = |base: u64| -> Vec<u64> {
            sizes(&objects, &volumes, Bytes::new(base << 20)).values().map(|size| size.get() >> 20).collect()
        };
        assert_eq!(sizes(500), [2048, 2048, 1536, 1536, 500, 500, 500, 500]);
        assert_eq!(sizes(1800), [2048, 2048, 1800, 1800, 1800, 1800, 1800, 1800]);
    }
}
