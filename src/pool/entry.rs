//! A pool as the registry keeps it: how it is put together, and nothing that the pool itself knows better.
//!
//! There is no size here: how large the pool is, its superblock says, and where on its devices it lies, their labels do.
//! So a machine that dies while a pool grows comes up with the size the pool last had, and no file has to agree with
//! another.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::pool::label::DeviceUuid;
use crate::pool::{Place, PoolName, PoolUuid, Spec};
use crate::units::{BlockSize, Bytes, DataBlocks};

/// The registry's newest format. A file with a higher number is refused.
pub const FORMAT: u32 = 4;

/// The format of a pool on files: an older dmpool reads it too.
const FORMAT_OF_FILES: u32 = 1;

/// That of a pool on devices that is not made anew.
const FORMAT_OF_DEVICES: u32 = 2;

/// That of an ephemeral one.
const FORMAT_OF_EPHEMERAL: u32 = 3;

/// One file under `/etc/dmpool/pools`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub struct Entry {
    /// The pool's name; also the file's, with `.toml`.
    pub name: PoolName,
    /// The pool's identity.
    pub uuid: PoolUuid,
    /// What the pool does.
    pub pool: Behaviour,
    /// Where it is kept.
    pub store: Store,
    /// What it is made of again when its devices come back blank; nothing for a pool that is not ephemeral.
    pub ephemeral: Option<Ephemeral>,
    /// The Docker root whose migration to it is prepared: until then it is for nothing else.
    pub prepared: Option<PathBuf>,
}

/// How an ephemeral pool was asked for: what its labels said is gone with what was on its devices.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ephemeral {
    /// The devices for data, by the names that were given: whatever has these names then is taken, if it is blank.
    pub data: Vec<PathBuf>,
    /// The one for metadata, when it is one of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<PathBuf>,
    /// The bytes of data that go to a device before it is the next one's turn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stripe: Option<Bytes>,
    /// The bytes of data that were asked for; without them all that there is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_size: Option<Bytes>,
    /// The bytes of metadata that were asked for; without them what the data needs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata_size: Option<Bytes>,
    /// How large the devices were, that for metadata first: one of another size that has a name by then is not taken.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub device_sizes: Vec<Bytes>,
}

/// What stands in the pool's table beside its devices and its length.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Behaviour {
    /// The length of a data block, in sectors.
    pub block_size: BlockSize,
    /// With this many blocks left the kernel sends one event.
    pub low_water: DataBlocks,
    /// The feature words of its table.
    pub features: Vec<String>,
}

/// Where a pool is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Store {
    /// In two loop files.
    Files {
        /// The one with its metadata.
        metadata: FileStore,
        /// The one with its data.
        data: FileStore,
    },
    /// On devices that dmpool has formatted: their labels say which part is where.
    Devices(Vec<DeviceStore>),
}

/// A loop file that one of a pool's two devices is kept in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileStore {
    /// The loop file.
    pub file: PathBuf,
    /// Whether it was given all its blocks when it was made, and is given them when it grows.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub preallocated: bool,
}

/// A device that a pool lies on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeviceStore {
    /// What it is found by: the identity in its label.
    pub uuid: DeviceUuid,
    /// What it was called when it was last written down: for messages, never to find it by.
    pub path: PathBuf,
}

/// The file, as TOML has it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    format: u32,
    name: PoolName,
    uuid: PoolUuid,
    pool: Behaviour,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    metadata: Option<FileStore>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    data: Option<FileStore>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    devices: Vec<DeviceStore>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ephemeral: Option<Ephemeral>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    prepared_for: Option<PathBuf>,
}

impl From<Entry> for Written {
    fn from(entry: Entry) -> Self {
        let Entry { name, uuid, pool, store, ephemeral, prepared: prepared_for } = entry;
        let (format, metadata, data, devices) = match store {
            Store::Files { metadata, data } => (FORMAT_OF_FILES, Some(metadata), Some(data), Vec::new()),
            Store::Devices(devices) if ephemeral.is_some() => (FORMAT_OF_EPHEMERAL, None, None, devices),
            Store::Devices(devices) => (FORMAT_OF_DEVICES, None, None, devices),
        };
        let format = if prepared_for.is_some() { FORMAT } else { format };
        Self { format, name, uuid, pool, metadata, data, devices, ephemeral, prepared_for }
    }
}

impl TryFrom<Written> for Entry {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        let Written { format, name, uuid, pool, metadata, data, devices, ephemeral, prepared_for } = written;
        let store = match (metadata, data, devices) {
            (Some(metadata), Some(data), devices) if devices.is_empty() => Store::Files { metadata, data },
            (None, None, devices) if !devices.is_empty() && format >= FORMAT_OF_DEVICES => Store::Devices(devices),
            (None, _, devices) if devices.is_empty() => return Err("missing field `metadata`".to_owned()),
            (_, None, devices) if devices.is_empty() => return Err("missing field `data`".to_owned()),
            _ => return Err(format!("format {format} has either `metadata` and `data`, or `devices`")),
        };
        if ephemeral.is_some() && !(format >= FORMAT_OF_EPHEMERAL && matches!(store, Store::Devices(_))) {
            return Err(format!("format {format} has no `ephemeral` there"));
        }
        if prepared_for.is_some() && format < FORMAT {
            return Err(format!("format {format} has no `prepared_for`"));
        }
        Ok(Self { name, uuid, pool, store, ephemeral, prepared: prepared_for })
    }
}

impl Entry {
    /// Returns the loop files, metadata first; nothing for a pool on devices.
    pub const fn files(&self) -> Option<[&FileStore; 2]> {
        match &self.store {
            Store::Files { metadata, data } => Some([metadata, data]),
            Store::Devices(_) => None,
        }
    }

    /// Returns what makes it again when its devices come back blank; nothing for a pool that is not ephemeral.
    pub fn again(&self) -> Option<Spec> {
        let Ephemeral { data, metadata, stripe, data_size, metadata_size, device_sizes: _ } = self.ephemeral.clone()?;
        let has = |word: &str| self.pool.features.iter().any(|feature| feature == word);
        Some(Spec {
            name: self.name.clone(),
            data_size,
            metadata_size,
            block_size: self.pool.block_size,
            low_water: self.pool.low_water,
            zero: !has("skip_block_zeroing"),
            error_when_full: has("error_if_no_space"),
            discard: !has("ignore_discard"),
            ephemeral: true,
            on: Place::Devices { data, metadata, stripe },
        })
    }

    /// Returns the devices; none for a pool in files.
    pub fn devices(&self) -> &[DeviceStore] {
        match &self.store {
            Store::Files { .. } => &[],
            Store::Devices(devices) => devices,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::pool::samples::entry as on_files;

    fn entry(store: Store) -> Entry {
        Entry { store, ..on_files() }
    }

    fn on_devices() -> Entry {
        let device = |bits, path: &str| DeviceStore { uuid: DeviceUuid::from_random(bits), path: path.into() };
        entry(Store::Devices(vec![device(1, "/dev/disk/by-id/wwn-0x1"), device(2, "/dev/disk/by-id/wwn-0x2")]))
    }

    #[test]
    fn a_pool_in_files_is_written_as_format_1_has_it() {
        let text = toml::to_string_pretty(&on_files()).unwrap();
        let first = "format = 1\nname = \"p0\"\nuuid = \"00000000000000000000000000000007\"\n\n[pool]\nblock_size = 128\n\
                     low_water = 32768\nfeatures = [\"skip_block_zeroing\"]\n\n[metadata]\nfile = \"/srv/p0/metadata\"\n\n\
                     [data]\nfile = \"/srv/p0/data\"\n";
        assert_eq!(text, first);
        assert_eq!(toml::from_str(&text), Ok(on_files()));
    }

    #[test]
    fn a_pool_on_devices_comes_back_as_it_was_written() {
        let text = toml::to_string_pretty(&on_devices()).unwrap();
        assert!(text.starts_with("format = 2\n") && text.contains("[[devices]]\nuuid = \"0000"), "{text}");
        assert_eq!(toml::from_str(&text), Ok(on_devices()));
        let json = serde_json::to_string(&on_devices()).unwrap();
        assert_eq!(serde_json::from_str::<Entry>(&json).unwrap(), on_devices());
    }

    #[test]
    fn an_ephemeral_one_says_what_it_is_made_of_again() {
        let ephemeral = Ephemeral {
            data: vec!["/dev/disk/by-path/pci-0000:00:1f.0-nvme-1".into()],
            metadata: None,
            stripe: Some(Bytes::new(65536)),
            data_size: None,
            metadata_size: Some(Bytes::new(1 << 30)),
            device_sizes: vec![Bytes::new(1 << 40)],
        };
        let entry = Entry { ephemeral: Some(ephemeral), ..on_devices() };
        let text = toml::to_string_pretty(&entry).unwrap();
        assert!(text.starts_with("format = 3\n"), "{text}");
        assert_eq!(toml::from_str(&text), Ok(entry.clone()));
        let again = entry.again().unwrap();
        assert_eq!((again.features(), again.metadata_size), (entry.pool.features, Some(Bytes::new(1 << 30))));
        assert_eq!(on_devices().again(), None);
        let error = toml::from_str::<Entry>(&text.replace("format = 3", "format = 2")).unwrap_err().to_string();
        assert!(error.contains("no `ephemeral`"), "{error}");
    }

    #[test]
    fn a_prepared_one_says_for_which_root() {
        let entry = Entry { prepared: Some("/var/lib/docker".into()), ..on_devices() };
        let text = toml::to_string_pretty(&entry).unwrap();
        assert!(text.starts_with("format = 4\n"), "{text}");
        assert_eq!(toml::from_str(&text), Ok(entry));
        let error = toml::from_str::<Entry>(&text.replace("format = 4", "format = 2")).unwrap_err().to_string();
        assert!(error.contains("no `prepared_for`"), "{error}");
    }

    #[test]
    fn it_is_in_files_or_on_devices() {
        let (files, devices) = (toml::to_string(&on_files()).unwrap(), toml::to_string(&on_devices()).unwrap());
        let both =
            format!("{files}{}", devices.split_once("[[devices]]").map(|(_, d)| format!("[[devices]]{d}")).unwrap());
        for (text, why) in [
            (both, "either `metadata` and `data`, or `devices`"),
            (devices.replace("format = 2", "format = 1"), "either `metadata` and `data`, or `devices`"),
            (files.replace("[data]", "[dato]"), "unknown field"),
            (files.split("[data]").next().unwrap().to_owned(), "missing field `data`"),
        ] {
            let error = toml::from_str::<Entry>(&text).unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
