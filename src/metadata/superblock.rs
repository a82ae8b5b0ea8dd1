//! Block 0 of the metadata device: the commit point, and enough to know how large and how full the pool is.
//!
//! Layout (`struct thin_disk_superblock`, drivers/md/dm-thin-metadata.c), little endian, one 4096-byte block:
//! checksum at 0, flags at 4, its own block number at 8, magic at 32, version at 40, time at 44, transaction id at 48, held root
//! at 56, the two space map roots at 64 and 192 (of each: blocks in all, blocks in use), data block size in sectors
//! at 336, metadata block size in sectors at 340, metadata blocks when it was formatted or resized at 344; the root of the
//! tree with the volumes' mappings at 320, of the one with their details at 328.

use std::fmt;

use crate::units::{BlockSize, DataBlocks, META_BLOCK_BYTES, MetaBlock, MetaBlocks, Sectors};

/// Bytes in a superblock.
pub const BLOCK: usize = 4096;

/// `THIN_SUPERBLOCK_MAGIC`
pub const MAGIC: u64 = 27_022_010;

/// `SUPERBLOCK_CSUM_XOR`
const CHECKSUM_SALT: u32 = 160_774;

/// `THIN_METADATA_NEEDS_CHECK_FLAG`, bit 0 of the flags.
const NEEDS_CHECK: u32 = 1;

/// How full one of the two spaces is, as its space map's root says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpaceMap {
    /// Blocks in all.
    pub total: u64,
    /// Blocks in use.
    pub used: u64,
}

/// What a superblock says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Superblock {
    /// Whether the kernel wants the metadata checked before it writes again.
    pub needs_check: bool,
    /// The format's version: 1 or 2.
    pub version: u32,
    /// The pool's time: how many snapshots were ever made in it.
    pub time: u32,
    /// The number that the pool's user counts its changes with.
    pub transaction_id: u64,
    /// Where the metadata snapshot is, when one is held.
    pub held_root: Option<MetaBlock>,
    /// The length of a data block.
    pub block_size: BlockSize,
    /// Data blocks in all.
    pub data_total: DataBlocks,
    /// Data blocks in use.
    pub data_used: DataBlocks,
    /// Metadata blocks in all.
    pub metadata_total: MetaBlocks,
    /// Metadata blocks in use, without the reserve that a running kernel adds.
    pub metadata_used: MetaBlocks,
    /// Where the tree begins that has the details of each volume.
    pub details_root: MetaBlock,
    /// Where the tree begins that has the root of each volume's mappings.
    pub mapping_root: MetaBlock,
}

/// Why a block is not a thin pool's superblock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BadSuperblock {
    /// The block is all zeros: it was never written, or erased.
    Zero,
    /// There are fewer bytes than a block has.
    Short(usize),
    /// The magic number is another one.
    Magic(u64),
    /// The checksum is wrong.
    Checksum {
        /// What stands there.
        found: u32,
        /// What the bytes give.
        computed: u32,
    },
    /// A version that dmpool does not know.
    Version(u32),
    /// A field that no kernel would have written.
    Field(String),
}

impl fmt::Display for BadSuperblock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Zero => f.write_str("it is all zeros: no pool was ever active on it, or it was erased"),
            Self::Short(bytes) => write!(f, "it has {bytes} bytes of {BLOCK}"),
            Self::Magic(found) => write!(f, "its magic is {found}, not {MAGIC}: this is no thin pool's metadata"),
            Self::Checksum { found, computed } => {
                write!(f, "its checksum is {found:#010x}, its bytes give {computed:#010x}")
            }
            Self::Version(version) => write!(f, "its version is {version}; dmpool knows 1 and 2"),
            Self::Field(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for BadSuperblock {}

impl Superblock {
    /// Reads block 0 of a metadata device.
    ///
    /// # Errors
    /// When the bytes are not a superblock, or not a whole one.
    pub fn parse(block: &[u8]) -> Result<Self, BadSuperblock> {
        let block = block.get(..BLOCK).ok_or(BadSuperblock::Short(block.len()))?;
        if block.iter().all(|b| *b == 0) {
            return Err(BadSuperblock::Zero);
        }
        let magic = u64_at(block, 32)?;
        if magic != MAGIC {
            return Err(BadSuperblock::Magic(magic));
        }
        let found = u32_at(block, 0)?;
        let computed = checksum(block);
        if found != computed {
            return Err(BadSuperblock::Checksum { found, computed });
        }
        let version = u32_at(block, 40)?;
        if !matches!(version, 1 | 2) {
            return Err(BadSuperblock::Version(version));
        }
        let sectors = Sectors::new(u32_at(block, 336)?.into());
        let block_size = BlockSize::new(sectors).map_err(|e| BadSuperblock::Field(e.to_string()))?;
        let metadata_block = Sectors::new(u32_at(block, 340)?.into());
        if metadata_block.bytes().get() != META_BLOCK_BYTES {
            return Err(BadSuperblock::Field(format!("its metadata block size is {metadata_block}, not 8")));
        }
        let data = space_map(block, 64, "data")?;
        let metadata = space_map(block, 192, "metadata")?;
        let held_root = u64_at(block, 56)?;
        Ok(Self {
            needs_check: u32_at(block, 4)? & NEEDS_CHECK != 0,
            version,
            time: u32_at(block, 44)?,
            transaction_id: u64_at(block, 48)?,
            held_root: (held_root != 0).then(|| MetaBlock::new(held_root)),
            block_size,
            data_total: DataBlocks::new(data.total),
            data_used: DataBlocks::new(data.used),
            metadata_total: MetaBlocks::new(metadata.total),
            metadata_used: MetaBlocks::new(metadata.used),
            details_root: MetaBlock::new(u64_at(block, 328)?),
            mapping_root: MetaBlock::new(u64_at(block, 320)?),
        })
    }

    /// Returns how long the pool is, or nothing when the blocks it counts do not fit 64 bits of sectors.
    pub fn length(&self) -> Option<Sectors> {
        self.data_total.get().checked_mul(self.block_size.sectors().get()).map(Sectors::new)
    }
}

fn space_map(block: &[u8], at: usize, what: &str) -> Result<SpaceMap, BadSuperblock> {
    let map = SpaceMap { total: u64_at(block, at)?, used: u64_at(block, at + 8)? };
    if map.used > map.total {
        return Err(BadSuperblock::Field(format!("it counts {} of {} {what} blocks as used", map.used, map.total)));
    }
    Ok(map)
}

/// The kernel's `dm_bm_checksum`: CRC-32C without the final inversion, salted by the kind of block.
pub(crate) fn salted(block: &[u8], salt: u32) -> u32 {
    crc32c::crc32c(block.get(4..).unwrap_or_default()) ^ u32::MAX ^ salt
}

pub(crate) fn checksum(block: &[u8]) -> u32 {
    salted(block, CHECKSUM_SALT)
}

fn u32_at(block: &[u8], at: usize) -> Result<u32, BadSuperblock> {
    let bytes = block.get(at..at + 4).and_then(|b| b.try_into().ok()).ok_or(BadSuperblock::Short(block.len()))?;
    Ok(u32::from_le_bytes(bytes))
}

fn u64_at(block: &[u8], at: usize) -> Result<u64, BadSuperblock> {
    let bytes = block.get(at..at + 8).and_then(|b| b.try_into().ok()).ok_or(BadSuperblock::Short(block.len()))?;
    Ok(u64::from_le_bytes(bytes))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// One of 64 metadata blocks, with the trees of details and of mappings there.
    pub(in crate::metadata) fn with_roots(details: u64, mappings: u64) -> Superblock {
        let (details_root, mapping_root) = (MetaBlock::new(details), MetaBlock::new(mappings));
        let metadata_total = MetaBlocks::new(64);
        let data_total = DataBlocks::new(16_384);
        Superblock { metadata_total, data_total, details_root, mapping_root, ..Superblock::parse(&sample()).unwrap() }
    }

    fn sealed(mut block: Vec<u8>) -> Vec<u8> {
        let sum = checksum(&block);
        block[..4].copy_from_slice(&sum.to_le_bytes());
        block
    }

    fn sample() -> Vec<u8> {
        let mut b = vec![0; BLOCK];
        b[32..40].copy_from_slice(&MAGIC.to_le_bytes());
        b[40..44].copy_from_slice(&2_u32.to_le_bytes());
        b[48..56].copy_from_slice(&133_u64.to_le_bytes());
        b[64..72].copy_from_slice(&1_638_400_u64.to_le_bytes());
        b[72..80].copy_from_slice(&1083_u64.to_le_bytes());
        b[192..200].copy_from_slice(&524_288_u64.to_le_bytes());
        b[200..208].copy_from_slice(&150_u64.to_le_bytes());
        b[336..340].copy_from_slice(&128_u32.to_le_bytes());
        b[340..344].copy_from_slice(&8_u32.to_le_bytes());
        sealed(b)
    }

    #[test]
    fn a_superblock_is_read() {
        let sb = Superblock::parse(&sample()).unwrap();
        assert_eq!(sb.transaction_id, 133);
        assert_eq!(sb.length(), Some(Sectors::new(209_715_200)));
        assert_eq!((sb.data_used.get(), sb.metadata_used.get()), (1083, 150));
        assert!(!sb.needs_check);
        assert_eq!(sb.held_root, None);
    }

    #[test]
    fn damage_is_named() {
        assert_eq!(Superblock::parse(&[0; BLOCK]), Err(BadSuperblock::Zero));
        assert_eq!(Superblock::parse(&[1; 100]), Err(BadSuperblock::Short(100)));
        assert!(matches!(Superblock::parse(&[1; BLOCK]), Err(BadSuperblock::Magic(_))));
        let mut torn = sample();
        torn[500] ^= 1;
        assert!(matches!(Superblock::parse(&torn), Err(BadSuperblock::Checksum { .. })));
        let mut newer = sample();
        newer[40] = 3;
        assert_eq!(Superblock::parse(&sealed(newer)), Err(BadSuperblock::Version(3)));
        let mut overfull = sample();
        overfull[72..80].copy_from_slice(&u64::MAX.to_le_bytes());
        assert!(matches!(Superblock::parse(&sealed(overfull)), Err(BadSuperblock::Field(_))));
    }

    #[test]
    fn needs_check_is_bit_0() {
        let mut flagged = sample();
        flagged[4] = 1;
        assert!(Superblock::parse(&sealed(flagged)).unwrap().needs_check);
    }

    proptest! {
        #[test]
        fn any_bytes_give_an_answer(at in 0_usize..BLOCK, byte in any::<u8>(), seal in any::<bool>()) {
            let mut block = sample();
            block[at] = byte;
            let _ = Superblock::parse(&if seal { sealed(block) } else { block });
        }
    }
}
