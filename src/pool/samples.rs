//! Values of this folder that tests begin with.

use super::disk::{BlockDevice, Kind};
use super::{Behaviour, DevNo, Entry, FileStore, PoolName, PoolUuid, Store};
use crate::units::{BlockSize, Bytes, DataBlocks};

/// A device of 1 GiB with number `8:MINOR`, of which nothing else is known.
pub(crate) fn block_device(name: &str, minor: u32, kind: Kind) -> BlockDevice {
    BlockDevice {
        name: name.to_owned(),
        devno: DevNo::new(8, minor),
        size: Bytes::GIB,
        logical_sector: None,
        physical_sector: None,
        read_only: false,
        removable: false,
        rotational: None,
        kind,
        names: Vec::new(),
        model: None,
        serial: None,
        wwn: None,
        slaves: Vec::new(),
        holders: Vec::new(),
        disk: None,
        partitions: Vec::new(),
        suspended: false,
    }
}

/// The entry of a pool `p0` on two files below /srv/p0.
pub(crate) fn entry() -> Entry {
    let file = |name: &str| FileStore { file: format!("/srv/p0/{name}").into(), preallocated: false };
    Entry {
        name: PoolName::new("p0").unwrap_or_else(|why| unreachable!("{why}")),
        uuid: PoolUuid::from_random(7),
        pool: Behaviour {
            block_size: BlockSize::DEFAULT,
            low_water: DataBlocks::new(32768),
            features: vec!["skip_block_zeroing".to_owned()],
        },
        store: Store::Files { metadata: file("metadata"), data: file("data") },
        ephemeral: None,
        prepared: None,
    }
}
