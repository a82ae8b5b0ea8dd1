//! Labels of dmpool on devices.

use std::path::Path;

use dmpool::kernel::block;
use dmpool::kernel::disks::label::{self, Claim};
use dmpool::pool::label::{DeviceUuid, Label, Leg, Purpose, Segment};
use dmpool::pool::{Behaviour, PoolName, PoolUuid};
use dmpool::units::{BlockSize, DataBlocks, Sectors};

/// A pool on that one device: 4 MiB of metadata, 4 MiB of room, 16 MiB of data.
pub fn label(pool: &str, device: u128, sequence: u64) -> Label {
    let device = DeviceUuid::from_random(device);
    let segment = |purpose, start_mib: u64, mib: u64| Segment {
        purpose,
        length: Sectors::new(mib * 2048),
        legs: vec![Leg { device, start: Sectors::new(start_mib * 2048) }],
        chunk: None,
    };
    Label {
        sequence,
        pool: PoolUuid::from_random(0xfeed),
        name: PoolName::new(pool).unwrap(),
        device,
        behaviour: Behaviour { block_size: BlockSize::DEFAULT, low_water: DataBlocks::new(1024), features: Vec::new() },
        map: vec![segment(Purpose::Metadata, 1, 4), segment(Purpose::Room, 5, 4), segment(Purpose::Data, 9, 16)],
    }
}

/// Writes the first label of such a pool.
pub fn write(on: &Path, pool: &str, device: u128) {
    let bytes = label(pool, device, 1).encode().unwrap();
    label::write(block::devno_of(on).unwrap(), 0, &bytes, Claim::Free).unwrap();
}
