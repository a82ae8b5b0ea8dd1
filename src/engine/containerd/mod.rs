//! containerd's devmapper snapshotter: its configuration, and the database of its devices, both only read.

pub mod bolt;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use bolt::{BadBolt, Bolt, Item};
use serde::Deserialize;
use toml::{Table, Value};

use super::docker_root::Problem;
use super::small_file;
use super::start::below;

/// Where containerd reads its configuration when `--config` names no other.
pub const CONFIG: &str = "/etc/containerd/config.toml";
/// `root` when the configuration has none.
const ROOT: &str = "/var/lib/containerd";
/// The plugin's name in configurations of version 2 and 3, and that of its directory; version 1 has the second.
const PLUGIN: [&str; 2] = ["io.containerd.snapshotter.v1.devmapper", "devmapper"];

/// No configuration in use comes near this.
const LARGEST_CONFIG: u64 = 4 << 20;
/// The database of a hundred thousand devices has some 50 MB.
const LARGEST_DATABASE: u64 = 256 << 20;
/// How often a database is read again that was written meanwhile.
const ATTEMPTS: u32 = 5;
/// The bytes that hold both meta pages, whatever the size of pages.
const METAS: u64 = 2 * 65536;

/// The snapshotter as it is configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshotter {
    /// The configuration that says so.
    pub config: PathBuf,
    /// `pool_name`: the pool's dm name.
    pub pool: String,
    /// `root_path`: where its databases are.
    pub root_path: PathBuf,
}

/// One thin device as containerd knows it (`DeviceInfo`, snapshots/devmapper/device_info.go).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Device {
    /// Its dm name.
    pub name: String,
    /// Its id in the pool.
    #[serde(rename = "device_id")]
    pub id: u32,
    /// Its virtual size in bytes.
    pub size: u64,
    /// The device that it is a snapshot of; empty for none.
    #[serde(default, rename = "parent_name")]
    pub parent: String,
    /// Its state, by number.
    pub state: u8,
    /// What went wrong with it last; empty for nothing.
    #[serde(default)]
    pub error: String,
}

/// The names of states, in order (`DeviceState`).
const STATES: [&str; 14] = [
    "Unknown",
    "Creating",
    "Created",
    "Activating",
    "Activated",
    "Suspending",
    "Suspended",
    "Resuming",
    "Resumed",
    "Deactivating",
    "Deactivated",
    "Removing",
    "Removed",
    "Faulty",
];

impl Device {
    /// Returns containerd's name for its state.
    pub fn state_name(&self) -> &'static str {
        STATES.get(usize::from(self.state)).copied().unwrap_or("Unknown")
    }
}

/// Why a configuration says nothing.
#[derive(Debug)]
pub enum BadConfig {
    /// It is no TOML.
    Toml(Box<toml::de::Error>),
    /// A setting is not of the kind that it must be.
    Kind(&'static str),
}

impl fmt::Display for BadConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Toml(error) => write!(f, "it is not what containerd reads: {}", error.message()),
            Self::Kind(key) => write!(f, "its {key} is not what containerd reads"),
        }
    }
}

impl std::error::Error for BadConfig {}

/// Returns pool and `root_path` that a configuration of version 1, 2 or 3 gives the snapshotter; nothing when it does not
/// give it a pool, without which containerd passes the snapshotter over.
///
/// # Errors
/// When the text is no TOML, or a setting is of another kind.
pub fn parse(text: &str) -> Result<Option<(String, PathBuf)>, BadConfig> {
    let config: Table = text.parse().map_err(|e| BadConfig::Toml(Box::new(e)))?;
    let string = |table: &Table, key: &'static str| match table.get(key) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone()).filter(|text| !text.is_empty())),
        Some(_) => Err(BadConfig::Kind(key)),
    };
    let Some(plugins) = config.get("plugins") else { return Ok(None) };
    let plugins = plugins.as_table().ok_or(BadConfig::Kind("plugins"))?;
    let Some(plugin) = PLUGIN.into_iter().find_map(|name| plugins.get(name)) else { return Ok(None) };
    let plugin = plugin.as_table().ok_or(BadConfig::Kind("plugins"))?;
    let Some(pool) = string(plugin, "pool_name")? else { return Ok(None) };
    let root = string(&config, "root")?.unwrap_or_else(|| ROOT.to_owned());
    let own = string(plugin, "root_path")?.map_or_else(|| Path::new(&root).join(PLUGIN[0]), PathBuf::from);
    Ok(Some((pool, own)))
}

/// Returns the snapshotter of the machine whose root directory that is (`/`); nothing when containerd has none.
///
/// # Errors
/// When its configuration is there and cannot be read.
pub fn find(base: &Path) -> Result<Option<Snapshotter>, Problem> {
    let config = below(base, Path::new(CONFIG));
    let problem = |why: String| Problem { path: config.clone(), why };
    let bytes = match small_file::read_at(&config, LARGEST_CONFIG) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(problem(error.to_string())),
    };
    let text = String::from_utf8(bytes).map_err(|_| problem("it is no text".to_owned()))?;
    let found = parse(&text).map_err(|error| problem(error.to_string()))?;
    Ok(found.map(|(pool, root_path)| Snapshotter { config: config.clone(), pool, root_path }))
}

impl Snapshotter {
    /// Returns where the database of its devices is.
    pub fn database(&self) -> PathBuf {
        self.root_path.join(format!("{}.db", self.pool))
    }

    /// Returns the devices that containerd knows, by name. Its file lock is not taken: a file that is written while it is
    /// read is read again.
    ///
    /// # Errors
    /// When the database is not there, cannot be read, is damaged, or is written all the time.
    pub fn devices(&self) -> Result<Vec<Device>, Problem> {
        let path = self.database();
        let problem = |why: String| Problem { path: path.clone(), why };
        for _ in 0..ATTEMPTS {
            let bytes = small_file::read_at(&path, LARGEST_DATABASE).map_err(|e| problem(e.to_string()))?;
            let devices = devices_in(&bytes);
            let now = newest(&path).map_err(|e| problem(e.to_string()))?;
            if Bolt::parse(&bytes).ok().map(|bolt| bolt.transaction()) == now {
                return devices.map_err(problem);
            }
        }
        Err(problem("it was written each time that it was read".to_owned()))
    }
}

/// Returns the last transaction in a database as it is now.
fn newest(path: &Path) -> io::Result<Option<u64>> {
    use std::io::Read;
    let mut metas = Vec::new();
    std::fs::File::open(path)?.take(METAS).read_to_end(&mut metas)?;
    Ok(Bolt::parse(&metas).ok().map(|bolt| bolt.transaction()))
}

/// Returns the devices in a database's bytes; what is wrong otherwise.
pub(crate) fn devices_in(bytes: &[u8]) -> Result<Vec<Device>, String> {
    let read = || -> Result<Vec<_>, BadBolt> {
        match Bolt::parse(bytes)?.root().bucket("devices")? {
            Some(bucket) => bucket.items(),
            None => Ok(Vec::new()),
        }
    };
    let items = read().map_err(|bad| bad.to_string())?;
    let device = |(key, item): (&[u8], Item<'_>)| match item {
        Item::Value(json) => serde_json::from_slice(json)
            .map_err(|error| format!("the device `{}` in it: {error}", String::from_utf8_lossy(key))),
        Item::Bucket(_) => Err("its devices are not what containerd writes".to_owned()),
    };
    items.into_iter().map(device).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn configurations_of_all_versions_are_read() {
        let own = PathBuf::from("/var/lib/containerd/io.containerd.snapshotter.v1.devmapper");
        for (text, found) in [
            ("[plugins.devmapper]\npool_name = \"p\"\nroot_path = \"/srv/dm\"", Some(("p", PathBuf::from("/srv/dm")))),
            (
                "version = 2\n[plugins.\"io.containerd.snapshotter.v1.devmapper\"]\npool_name = \"cpool\"\nbase_image_size = \"1GB\"",
                Some(("cpool", own.clone())),
            ),
            (
                "version = 3\nroot = '/data'\n[plugins.'io.containerd.snapshotter.v1.devmapper']\npool_name = 'p'",
                Some(("p", PathBuf::from("/data/io.containerd.snapshotter.v1.devmapper"))),
            ),
            ("version = 2\n[plugins.\"io.containerd.snapshotter.v1.devmapper\"]\npool_name = \"\"", None),
            ("version = 2", None),
            ("", None),
        ] {
            assert_eq!(parse(text).unwrap(), found.map(|(pool, root)| (pool.to_owned(), root)), "{text}");
        }
        for broken in ["{", "plugins = 7", "[plugins.devmapper]\npool_name = 7", "[plugins]\ndevmapper = 1"] {
            assert!(parse(broken).is_err(), "{broken}");
        }
    }

    #[test]
    fn a_machine_with_a_snapshotter_and_its_devices() {
        let temp = tempfile::tempdir().unwrap();
        assert_eq!(find(temp.path()).unwrap(), None);
        let config = temp.path().join("etc/containerd/config.toml");
        fs::create_dir_all(config.parent().unwrap()).unwrap();
        let root = temp.path().join("dm");
        fs::write(&config, format!("[plugins.devmapper]\npool_name='cpool'\nroot_path='{}'", root.display())).unwrap();
        let found = find(temp.path()).unwrap().unwrap();
        assert_eq!((found.pool.as_str(), &found.config), ("cpool", &config));
        assert!(found.devices().unwrap_err().why.contains("No such file"));
        fs::create_dir(&root).unwrap();
        let json = br#"{"device_id":1,"size":1073741824,"name":"cpool-snap-1","parent_name":"","state":4,"error":""}"#;
        fs::write(found.database(), bolt::tests::database("devices", &[("cpool-snap-1", json)])).unwrap();
        let devices = found.devices().unwrap();
        assert_eq!((devices[0].id, devices[0].state_name()), (1, "Activated"));
        fs::write(found.database(), bolt::tests::database("devices", &[("x", b"{}")])).unwrap();
        assert!(found.devices().unwrap_err().why.contains("the device `x`"));
        fs::write(found.database(), b"").unwrap();
        assert!(found.devices().unwrap_err().why.contains("no bolt database"));
        fs::write(&config, [0xff]).unwrap();
        assert_eq!(find(temp.path()).unwrap_err().why, "it is no text");
    }

    proptest! {
        #[test]
        fn no_configuration_makes_it_panic(text in "[\\PC\n\\[\\]=\"']{0,80}") {
            let _ = parse(&text);
        }
    }
}
