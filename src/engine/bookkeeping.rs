//! The JSON files that Docker's devicemapper driver keeps under `<root>/devicemapper/metadata`.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::units::Bytes;

/// The name of the file about the base device.
pub const BASE: &str = "base";
/// The name of the file about the whole set (`deviceSetMetaFile`, daemon/graphdriver/devmapper/deviceset.go).
pub const DEVICE_SET: &str = "deviceset-metadata";
/// The name of the file about the open transaction (`transactionMetaFile`, the same).
pub const TRANSACTION: &str = "transaction-metadata";

/// The largest id a thin device can have (24 bits, `MAX_DEV_ID` in drivers/md/dm-thin.c).
pub const MAX_DEVICE_ID: u32 = 0x00ff_ffff;

/// One thin device as Docker knows it (`devInfo`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Its id in the pool.
    #[serde(rename = "device_id")]
    pub id: u32,
    /// Its virtual size.
    pub size: Bytes,
    /// The transaction that made it.
    pub transaction_id: u64,
    /// Whether it holds a file system of its own making; true for the base device only.
    #[serde(default)]
    pub initialized: bool,
    /// Whether it is to be deleted once nobody uses it (deferred deletion).
    #[serde(default)]
    pub deleted: bool,
}

/// What Docker keeps about the set as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceSet {
    /// The id that the next device is tried with.
    pub next_device_id: u32,
    /// The UUID of the file system on the base device; empty in roots of Docker before 1.7.
    #[serde(rename = "BaseDeviceUUID", default)]
    pub base_uuid: String,
    /// The type of the file system on the base device: `xfs`, `ext4`; empty in roots of Docker before 1.9.1.
    #[serde(rename = "BaseDeviceFilesystem", default)]
    pub base_filesystem: String,
}

/// The transaction that Docker opened last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transaction {
    /// Its id. A Docker that starts on a pool with a smaller one takes it for interrupted and deletes the device.
    #[serde(rename = "open_transaction_id")]
    pub id: u64,
    /// The name of the device it was opened for.
    #[serde(default)]
    pub device_hash: String,
    /// The id of that device.
    #[serde(default)]
    pub device_id: u32,
}

/// Why a file of Docker's bookkeeping says nothing.
#[derive(Debug)]
pub enum BadFile {
    /// It has no bytes, or only NUL bytes: what a power cut leaves of a file that was not synced.
    Empty,
    /// It is not the JSON that Docker writes.
    Json(serde_json::Error),
    /// Its device id does not fit 24 bits.
    DeviceId(u32),
}

impl fmt::Display for BadFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => write!(f, "it is empty or holds NUL bytes only"),
            Self::Json(error) => write!(f, "it is not what Docker writes: {error}"),
            Self::DeviceId(id) => write!(f, "its device id {id} is larger than {MAX_DEVICE_ID}"),
        }
    }
}

impl std::error::Error for BadFile {}

impl Device {
    /// Reads a device's file.
    ///
    /// # Errors
    /// When the bytes are none, not JSON of that shape, or hold an id that no thin device can have.
    pub fn parse(bytes: &[u8]) -> Result<Self, BadFile> {
        let device: Self = from_json(bytes)?;
        if device.id > MAX_DEVICE_ID { Err(BadFile::DeviceId(device.id)) } else { Ok(device) }
    }

    /// Returns a device's file with another size, and all else as it is.
    ///
    /// # Errors
    /// As [`Self::parse`].
    pub fn with_size(bytes: &[u8], size: Bytes) -> Result<Vec<u8>, BadFile> {
        Self::parse(bytes)?;
        let mut record: serde_json::Map<String, serde_json::Value> = from_json(bytes)?;
        record.insert("size".to_owned(), size.get().into());
        serde_json::to_vec(&record).map_err(BadFile::Json)
    }
}

impl DeviceSet {
    /// Reads `deviceset-metadata`.
    ///
    /// # Errors
    /// When the bytes are none or not JSON of that shape.
    pub fn parse(bytes: &[u8]) -> Result<Self, BadFile> {
        from_json(bytes)
    }
}

impl DeviceSet {
    /// Returns `deviceset-metadata` with another base device's UUID and file system, and all else as it is.
    ///
    /// # Errors
    /// As [`Self::parse`].
    pub fn with_base(bytes: &[u8], uuid: &str, file_system: &str) -> Result<Vec<u8>, BadFile> {
        Self::parse(bytes)?;
        let mut record: serde_json::Map<String, serde_json::Value> = from_json(bytes)?;
        record.insert("BaseDeviceUUID".to_owned(), uuid.into());
        record.insert("BaseDeviceFilesystem".to_owned(), file_system.into());
        serde_json::to_vec(&record).map_err(BadFile::Json)
    }
}

impl Transaction {
    /// Reads `transaction-metadata`.
    ///
    /// # Errors
    /// When the bytes are none or not JSON of that shape.
    pub fn parse(bytes: &[u8]) -> Result<Self, BadFile> {
        from_json(bytes)
    }
}

/// Reads one of Docker's small JSON files.
///
/// # Errors
/// When the bytes are none or not JSON of that shape.
pub(super) fn from_json<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, BadFile> {
    if bytes.iter().all(|b| *b == 0) {
        return Err(BadFile::Empty);
    }
    serde_json::from_slice(bytes).map_err(BadFile::Json)
}

/// Returns whether a file of that name in the directory is about a device; the rest Docker passes over too
/// (`deviceFileWalkFunction`): temporary files, migrated ones, and the two files about the whole set.
pub fn is_device_file(name: &str) -> bool {
    !name.starts_with('.') && !name.ends_with(".migrated") && name != DEVICE_SET && name != TRANSACTION
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DEVICE: &[u8] =
        br#"{"device_id":21,"size":10737418240,"transaction_id":21,"initialized":false,"deleted":false}"#;

    #[test]
    fn the_files_of_docker_20_10_are_read() {
        let device = Device::parse(DEVICE).unwrap();
        assert_eq!((device.id, device.size, device.transaction_id), (21, Bytes::new(10 << 30), 21));
        assert!(!device.initialized && !device.deleted);

        let set = DeviceSet::parse(
            br#"{"next_device_id":6,"BaseDeviceUUID":"24cb4d5f-0bd5-46c4-a9b1-3e0ad3ba3d2d","BaseDeviceFilesystem":"xfs"}"#,
        )
        .unwrap();
        assert_eq!((set.next_device_id, set.base_filesystem.as_str()), (6, "xfs"));

        let open = Transaction::parse(br#"{"open_transaction_id":133,"device_hash":"ab","device_id":7}"#).unwrap();
        assert_eq!((open.id, open.device_id), (133, 7));
    }

    #[test]
    fn another_size_changes_nothing_else() {
        let other = Device::with_size(DEVICE, Bytes::new(50 << 30)).unwrap();
        let wanted = String::from_utf8(DEVICE.to_vec()).unwrap().replace("10737418240", "53687091200");
        assert_eq!(String::from_utf8(other).unwrap(), wanted);
        let unknown = br#"{"size":5,"device_id":1,"transaction_id":18446744073709551615,"of_later":{"b":1,"a":[2]}}"#;
        let other = Device::with_size(unknown, Bytes::new(6)).unwrap();
        assert_eq!(String::from_utf8(other).unwrap(), std::str::from_utf8(unknown).unwrap().replace(":5,", ":6,"));
        assert!(Device::with_size(b"{}", Bytes::new(6)).is_err());
    }

    #[test]
    fn a_file_a_power_cut_left_empty_is_named_as_that() {
        assert!(matches!(Device::parse(b""), Err(BadFile::Empty)));
        assert!(matches!(DeviceSet::parse(&[0; 64]), Err(BadFile::Empty)));
    }

    #[test]
    fn an_id_that_no_thin_device_can_have_is_refused() {
        let bad = br#"{"device_id":16777216,"size":1,"transaction_id":1}"#;
        assert!(matches!(Device::parse(bad), Err(BadFile::DeviceId(16_777_216))));
        assert!(Device::parse(br#"{"device_id":-1,"size":1,"transaction_id":1}"#).is_err());
    }

    #[test]
    fn another_base_device_changes_nothing_else_of_the_set() {
        let before = br#"{"next_device_id":7,"BaseDeviceUUID":"a","BaseDeviceFilesystem":"xfs","other":1}"#;
        let after = DeviceSet::with_base(before, "b", "ext4").unwrap();
        let text = String::from_utf8(after).unwrap();
        assert_eq!(text, r#"{"next_device_id":7,"BaseDeviceUUID":"b","BaseDeviceFilesystem":"ext4","other":1}"#);
        assert!(DeviceSet::with_base(b"", "b", "ext4").is_err());
    }

    #[test]
    fn only_device_files_are_counted_as_devices() {
        assert!(is_device_file(BASE));
        assert!(is_device_file("439a80d5-init"));
        for other in [".tmp123", "json.migrated", DEVICE_SET, TRANSACTION] {
            assert!(!is_device_file(other), "{other}");
        }
    }

    proptest! {
        #[test]
        fn bytes_of_any_kind_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = (Device::parse(&bytes), DeviceSet::parse(&bytes), Transaction::parse(&bytes));
        }

        #[test]
        fn a_truncated_file_is_an_error(length in 0..DEVICE.len()) {
            prop_assert!(Device::parse(DEVICE.get(..length).unwrap()).is_err());
        }
    }
}
