//! How long each volume is.

use std::collections::BTreeMap;

use crate::engine::bookkeeping::Device;
use crate::engine::docker_objects::{Container, Fields, Objects};
use crate::engine::options::ram_in_bytes;
use crate::units::Bytes;

/// Returns how long each volume shall be, by Docker's names: as the base device; those of a container that was told to be longer
/// (`--storage-opt size=`), as it was told, or as its record says, where that cannot be read.
pub(in crate::ops) fn sizes(
    objects: &Objects,
    volumes: &BTreeMap<String, Device>,
    base: Bytes,
) -> BTreeMap<String, Bytes> {
    let mut sizes: BTreeMap<String, Bytes> = volumes.keys().map(|name| (name.clone(), base)).collect();
    for container in &objects.containers {
        let (Some(told), Some(mount)) = (told(container), &container.mount) else { continue };
        let told = ram_in_bytes(told);
        for name in [&mount.init_id, &mount.mount_id].into_iter().flatten() {
            let Some(own) = told.or_else(|| volumes.get(name).map(|device| device.size)) else { continue };
            sizes.entry(name.clone()).and_modify(|size| *size = own.max(*size));
        }
    }
    sizes
}

/// Returns the first container whose size cannot be read, by its name, and what it was told.
pub(super) fn unread(objects: &Objects) -> Option<(&str, &str)> {
    let told = |container| told(container).filter(|text| ram_in_bytes(text).is_none());
    objects.containers.iter().find_map(|one| Some((one.name().unwrap_or(&one.id), told(one)?)))
}

/// Returns how large a container was told to be; Docker takes the key in either case (`parseStorageOpt`, graphdriver/devmapper/driver.go).
fn told(container: &Container) -> Option<&str> {
    let mut told = container.host_config.entries(&["StorageOpt"]).filter(|(key, _)| key.eq_ignore_ascii_case("size"));
    told.find_map(|(_, size)| size.as_str().filter(|size| !size.is_empty()))
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
        let all = [("2G", 2048), ("1.5G", 1024), ("", 1024), ("100M", 1024), ("much", 700)];
        for (number, (told, was)) in all.into_iter().enumerate() {
            let id = number.to_string().repeat(64);
            let [folder, mount] =
                ["containers", "image/devicemapper/layerdb/mounts"].map(|at| temp.path().join(at).join(&id));
            fs::create_dir_all(&folder).unwrap();
            fs::create_dir_all(&mount).unwrap();
            fs::write(folder.join("config.v2.json"), format!(r#"{{"ID":"{id}","Driver":"devicemapper"}}"#)).unwrap();
            fs::write(folder.join("hostconfig.json"), format!(r#"{{"StorageOpt":{{"Size":"{told}"}}}}"#)).unwrap();
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
        assert_eq!(sizes(500), [2048, 2048, 1536, 1536, 500, 500, 500, 500, 700, 700]);
        assert_eq!(sizes(1800), [2048, 2048, 1800, 1800, 1800, 1800, 1800, 1800, 1800, 1800]);
        assert_eq!(unread(&objects).map(|(_, told)| told), Some("much"));
    }
}
