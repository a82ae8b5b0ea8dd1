//! How large a pool's metadata should be, and what the kernel takes of it for itself.

use crate::units::{BlockSize, Bytes, DataBlocks, MAX_META_BLOCKS, MIN_META_BLOCKS, MetaBlocks};

/// Docker's size for the metadata of a loop-file pool (`defaultMetaDataLoopbackSize`,
/// daemon/graphdriver/devmapper/deviceset.go): far more than the rule asks for 100 GiB, in a sparse file.
pub const DEFAULT_METADATA: Bytes = Bytes::new(2 << 30);

/// Docker's size for the data (`defaultDataLoopbackSize`).
pub const DEFAULT_DATA: Bytes = Bytes::new(100 << 30);

/// Docker's low water mark, in blocks (`CreatePool`, pkg/devicemapper/devmapper.go).
pub const DEFAULT_LOW_WATER: DataBlocks = DataBlocks::new(32768);

/// Returns the metadata that the kernel's rule wants for that much data: 48 bytes for every data block, at least
/// 2 MiB (Documentation/admin-guide/device-mapper/thin-provisioning.rst), at most what the kernel uses.
pub fn metadata_for(data: DataBlocks) -> MetaBlocks {
    let blocks = data.get().saturating_mul(48).div_ceil(crate::units::META_BLOCK_BYTES);
    MetaBlocks::new(blocks.clamp(MIN_META_BLOCKS.get(), MAX_META_BLOCKS.get()))
}

/// Returns the metadata size for a new pool: Docker's 2 GiB, or twice the kernel's rule where that is more, since
/// snapshots need more than the rule counts.
pub fn default_metadata(data: Bytes, block_size: BlockSize) -> Bytes {
    let rule = metadata_for(block_size.blocks_in(data.sectors())).bytes();
    let doubled = Bytes::new(rule.get().saturating_mul(2).min(MAX_META_BLOCKS.bytes().get()));
    doubled.max(DEFAULT_METADATA)
}

/// How many times the metadata of a new pool on devices is kept free behind it, and what share of its device that is at
/// most: metadata can be given more later, and a device with data behind it could not give any.
pub const ROOM_FACTOR: u64 = 3;
/// See [`ROOM_FACTOR`].
pub const MOST_ROOM: u64 = 16;

/// Returns the metadata for a new pool on devices, where it is not sparse: twice the kernel's rule, since snapshots need more
/// than the rule counts, and at least 4 MiB.
pub fn metadata_on_devices(data: DataBlocks) -> MetaBlocks {
    let doubled = metadata_for(data).get().saturating_mul(2);
    MetaBlocks::new(doubled.min(MAX_META_BLOCKS.get()))
}

/// Returns how many metadata blocks newer kernels count as used before anything is stored: min(4096, total / 10)
/// (`__set_metadata_reserve`, drivers/md/dm-thin-metadata.c; our experiment: a fresh 2 GiB says 4246 of 524288).
pub fn metadata_reserve(total: MetaBlocks) -> MetaBlocks {
    MetaBlocks::new((total.get() / 10).min(4096))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rule_at_known_sizes() {
        // 100 GiB of 64 KiB blocks: 1638400 blocks, 75 MiB.
        assert_eq!(metadata_for(DataBlocks::new(1_638_400)), MetaBlocks::new(19_200));
        assert_eq!(metadata_for(DataBlocks::new(1)), MIN_META_BLOCKS);
        assert_eq!(metadata_for(DataBlocks::new(u64::MAX)), MAX_META_BLOCKS);
    }

    #[test]
    fn dockers_default_stands_until_the_rule_wants_more() {
        let block = BlockSize::DEFAULT;
        assert_eq!(default_metadata(Bytes::new(100 << 30), block), DEFAULT_METADATA);
        assert_eq!(default_metadata(Bytes::new(8 << 40), block).get(), (8_u64 << 40) / 65536 * 96);
        assert_eq!(default_metadata(Bytes::new(1 << 55), block), MAX_META_BLOCKS.bytes());
    }

    #[test]
    fn on_devices_the_rule_is_doubled() {
        assert_eq!(metadata_on_devices(DataBlocks::new(1)).bytes(), Bytes::new(4 << 20));
        // 1 TiB of 64 KiB blocks: 1.5 GiB.
        assert_eq!(metadata_on_devices(DataBlocks::new(1 << 24)).bytes(), Bytes::new(3 << 29));
        assert_eq!(metadata_on_devices(DataBlocks::new(u64::MAX)), MAX_META_BLOCKS);
    }

    #[test]
    fn the_reserve_of_a_fresh_2_gib_device() {
        assert_eq!(metadata_reserve(MetaBlocks::new(524_288)), MetaBlocks::new(4096));
        assert_eq!(metadata_reserve(MetaBlocks::new(512)), MetaBlocks::new(51));
    }
}
