//! Which container a thin device of Docker's belongs to, and what Docker has written down about it.
//!
//! `image/devicemapper/layerdb/mounts/CONTAINER/mount-id` holds the name of the device of a container's own layer;
//! `containers/CONTAINER/config.v2.json` the container's name (layer/filestore.go, daemon/daemon.go).

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::engine::bookkeeping::{self, Device};
use crate::engine::docker_root::DockerRoot;
use crate::engine::small_file::Directory;

/// A layer's name has 64 digits.
const LARGEST_ID: u64 = 256;
/// No container in use has a configuration near this.
const LARGEST_CONFIG: u64 = 1 << 20;
const LARGEST_RECORD: u64 = 64 << 10;

/// What Docker's files say of its devices.
#[derive(Debug, Default)]
pub(crate) struct Owners {
    /// The container's name by its device's.
    names: BTreeMap<String, String>,
    /// Docker's record of each device, by name.
    devices: BTreeMap<String, Device>,
}

#[derive(Deserialize)]
struct Config {
    #[serde(rename = "Name", default)]
    name: String,
}

impl Owners {
    /// Makes them of what a test knows.
    #[cfg(test)]
    pub(super) fn of(names: &[(&str, &str)], devices: Vec<(&str, Device)>) -> Self {
        let names = names.iter().map(|(hash, name)| ((*hash).to_owned(), (*name).to_owned())).collect();
        let devices = devices.into_iter().map(|(hash, device)| (hash.to_owned(), device)).collect();
        Self { names, devices }
    }

    /// Reads them; what cannot be read is left out.
    pub(crate) fn read(root: &DockerRoot) -> Self {
        let Ok(directory) = Directory::open(&root.path) else { return Self::default() };
        let devices = devices(&directory).unwrap_or_default();
        Self { names: names(&directory).unwrap_or_default(), devices }
    }

    /// Returns Docker's record of the device of that name.
    pub(super) fn device(&self, hash: &str) -> Option<&Device> {
        self.devices.get(hash)
    }

    /// Returns all records, by name.
    pub(super) fn devices(&self) -> impl Iterator<Item = (&str, &Device)> {
        self.devices.iter().map(|(hash, device)| (hash.as_str(), device))
    }

    /// Returns the name of the container whose own layer the device is.
    pub(super) fn container(&self, hash: &str) -> Option<&str> {
        self.names.get(hash).map(String::as_str)
    }
}

fn names(root: &Directory) -> std::io::Result<BTreeMap<String, String>> {
    let containers = root.enter("containers")?;
    let mounts = root.enter("image").and_then(|d| d.enter("devicemapper")?.enter("layerdb")?.enter("mounts"));
    let mut names = BTreeMap::new();
    for id in containers.names()?.iter().filter_map(|id| id.to_str()) {
        let config = containers.enter(id).and_then(|c| c.read("config.v2.json", LARGEST_CONFIG));
        let config = config.ok().and_then(|bytes| serde_json::from_slice::<Config>(&bytes).ok());
        // Without its file a container still has its id, as `docker ps` shortens it.
        let name = config.map(|c| c.name.trim_start_matches('/').to_owned()).filter(|name| !name.is_empty());
        let name = name.unwrap_or_else(|| id.chars().take(12).collect());
        let mount = mounts.as_ref().ok().and_then(|m| m.enter(id).ok()?.read("mount-id", LARGEST_ID).ok());
        // Before Docker 1.10 the device had the container's own id.
        let hash = mount.map_or_else(|| id.to_owned(), |bytes| String::from_utf8_lossy(&bytes).trim().to_owned());
        names.insert(hash, name);
    }
    Ok(names)
}

/// Those that can be read; the others are a finding of their own.
fn devices(root: &Directory) -> std::io::Result<BTreeMap<String, Device>> {
    let records = root.enter("devicemapper")?.enter("metadata")?;
    let mut devices = BTreeMap::new();
    for name in records.names()?.iter().filter_map(|name| name.to_str()).filter(|n| bookkeeping::is_device_file(n)) {
        let read = records.read(name, LARGEST_RECORD).ok();
        devices.extend(read.and_then(|bytes| Device::parse(&bytes).ok()).map(|device| (name.to_owned(), device)));
    }
    Ok(devices)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::report::samples::docker_root;
    use crate::units::Bytes;

    fn put(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn containers_are_found_by_their_layers() {
        let temp = tempfile::tempdir().unwrap();
        put(temp.path(), "containers/c1/config.v2.json", r#"{"Name": "/web", "Config": {}}"#);
        put(temp.path(), "image/devicemapper/layerdb/mounts/c1/mount-id", "aa\n");
        put(temp.path(), "containers/c234567890123456/config.v2.json", "not json");
        put(temp.path(), "devicemapper/metadata/aa", r#"{"device_id":7,"size":10737418240,"transaction_id":9}"#);
        put(temp.path(), "devicemapper/metadata/bb", "");
        let owners = Owners::read(&DockerRoot { path: temp.path().to_owned(), ..docker_root() });
        assert_eq!(owners.container("aa"), Some("web"));
        assert_eq!(owners.container("c234567890123456"), Some("c23456789012"));
        assert_eq!(owners.container("bb"), None);
        assert_eq!(owners.device("aa").unwrap().size, Bytes::new(10 << 30));
        assert_eq!(owners.devices().count(), 1);
        let nothing = Owners::read(&DockerRoot { path: temp.path().join("none"), ..docker_root() });
        assert_eq!((nothing.container("aa"), nothing.devices().count()), (None, 0));
    }
}
