//! What the kernel says of pools, and what people write as sizes and numbers.

use std::path::Path;

use super::text;
use crate::metadata::{BLOCK, Superblock, devices, mapping, node, superblock};
use crate::ops::health::volumes;
use crate::pool::label::{Member, SLOT_BYTES, Slots, assemble};
use crate::pool::{DevNo, PoolStatus, PoolTable, Spec};
use crate::units::{BlockSize, Bytes, DataBlocks, MetaBlock, MetaBlocks, Sectors, SizeArg};

pub(super) fn size(bytes: &[u8]) -> bool {
    let text = text(bytes);
    let relative = SizeArg::parse(&text).is_ok();
    if let Ok(size) = Bytes::parse(&text) {
        assert_eq!(Bytes::parse(&size.get().to_string()), Ok(size));
        assert!(!size.human().is_empty() && size.exact().starts_with(&size.human()));
        assert_eq!(SizeArg::parse(&text), Ok(SizeArg::To(size)));
        assert_eq!(SizeArg::parse(&format!("+{}", size.get())), Ok(SizeArg::By(size)));
    }
    relative
}

pub(super) fn device_number(bytes: &[u8]) -> bool {
    let number = text(bytes).parse::<DevNo>();
    assert!(number.iter().all(|number| number.to_string().parse() == Ok(*number)));
    number.is_ok()
}

pub(super) fn pool_table(bytes: &[u8]) -> bool {
    let length = Sectors::new(209_715_200);
    let Ok(table) = PoolTable::parse(length, &text(bytes)) else { return false };
    assert_eq!(PoolTable::parse(length, &table.params()), Ok(table));
    true
}

/// The status of a pool and of a thin volume.
pub(super) fn pool_status(bytes: &[u8]) -> bool {
    let text = text(bytes);
    let status = PoolStatus::parse(&text);
    let works = matches!(status, PoolStatus::Working(_));
    if works {
        assert_eq!(PoolStatus::parse(&text.split_whitespace().collect::<Vec<_>>().join(" ")), status);
    }
    volumes::parse_status(&text, Bytes::new(65536)).is_some() || volumes::pool_of(&text).is_some() || works
}

/// The bytes, filled up with zeros to a block; as they are, and with the checksum that belongs to them.
pub(super) fn superblock(bytes: &[u8]) -> bool {
    let _ = Superblock::parse(bytes);
    let mut block = bytes.to_vec();
    block.resize(BLOCK, 0);
    let sum = superblock::checksum(&block).to_le_bytes();
    block.splice(..sum.len(), sum);
    let Ok(read) = Superblock::parse(&block) else { return false };
    assert!(read.data_used <= read.data_total && read.metadata_used <= read.metadata_total);
    read.length().is_some()
}

/// A pool that somebody has written down.
pub(super) fn pool_spec(bytes: &[u8]) -> bool {
    let default = Path::new("/var/lib/dmpool/pools");
    let Ok(spec) = Spec::parse(&text(bytes), default) else { return false };
    let written = spec.to_toml().map(|text| Spec::parse(&text, Path::new("/elsewhere")));
    assert_eq!(written, Ok(Ok(spec)));
    true
}

/// A slot of a label: the bytes, filled up with zeros, as they are and with the checksum that belongs to them.
pub(super) fn label(bytes: &[u8]) -> bool {
    let mut slot = bytes.to_vec();
    slot.resize(SLOT_BYTES, 0);
    let torn = Slots::decode([bytes, &slot]);
    let sum = crc32c::crc32c(slot.get(20..).unwrap_or_default()).to_le_bytes();
    slot.splice(16..20, sum);
    let whole = Slots::decode([&[], &slot]);
    let mut is_label = false;
    for slots in [torn, whole] {
        assert!(slots.next() < 2);
        let Ok(Some(label)) = slots.newest() else { continue };
        is_label = true;
        assert_eq!(label.encode().as_ref(), Ok(&slot), "a label has one form");
        assert!(label.role().is_some() && label.devices().contains(&label.device));
        let member = |length| Member { devno: DevNo::new(8, 0), name: "sda".to_owned(), length, label: label.clone() };
        let needed = label.end_on(label.device);
        assert_eq!(assemble(&[member(needed)]).is_ok(), label.devices().len() == 1);
        assert!(assemble(&[member(needed.saturating_sub(Sectors::new(1)))]).is_err());
    }
    is_label
}

/// Nodes of the tree of volumes, 128 bytes of each, filled up with zeros; with the numbers and checksums that belong to them.
pub(super) fn volume_tree(bytes: &[u8]) -> bool {
    nodes(bytes, 1, |superblock, read| devices(superblock, read).is_ok())
}

/// Nodes of a tree of mappings, in the same way: the first of them is the root of all volumes and of the one with the id 0.
pub(super) fn mapping_tree(bytes: &[u8]) -> bool {
    // 128 bytes have room for a dozen keys that are not zero; the way to the end of each is nine nodes long at most.
    nodes(bytes, 1 + 13 * 9, |superblock, read| mapping::ends(superblock, read).is_ok());
    nodes(bytes, 2, |superblock, mut read| {
        let roots = mapping::roots(superblock, &mut read);
        assert!(roots.iter().flatten().all(|(_, root)| *root < MetaBlock::new(superblock.metadata_total.get())));
        let mut next = 0;
        let mut mapped = 0;
        for run in mapping::runs(superblock, MetaBlock::new(0), &mut read) {
            let Ok(run) = run else { return false };
            assert!(run.begin.get() >= next && run.length.get() > 0, "{run:?} after {next}");
            assert!(run.data.get() + run.length.get() <= superblock.data_total.get(), "{run:?}");
            next = run.begin.get().saturating_add(run.length.get());
            mapped += run.length.get();
        }
        mapped > 0
    })
}

type ReadNode<'a> = &'a mut dyn FnMut(MetaBlock) -> Result<Vec<u8>, String>;

/// Walks them, which reads each at most that often on an average.
fn nodes(bytes: &[u8], often: u64, walk: impl FnOnce(&Superblock, ReadNode<'_>) -> bool) -> bool {
    let nodes: Vec<&[u8]> = bytes.chunks(128).collect();
    let count = u64::try_from(nodes.len()).unwrap_or(0);
    let superblock = Superblock {
        time: 0,
        needs_check: false,
        version: 2,
        transaction_id: 0,
        held_root: None,
        block_size: BlockSize::DEFAULT,
        data_total: DataBlocks::new(1000),
        data_used: DataBlocks::new(0),
        metadata_total: MetaBlocks::new(count),
        metadata_used: MetaBlocks::new(count),
        details_root: MetaBlock::new(0),
        mapping_root: MetaBlock::new(0),
    };
    let mut read = 0;
    let found = walk(&superblock, &mut |at| {
        read += 1;
        let index = usize::try_from(at.get()).map_err(|e| e.to_string())?;
        let mut block = nodes.get(index).ok_or("it is not there")?.to_vec();
        block.resize(BLOCK, 0);
        block.splice(8..16, at.get().to_le_bytes());
        let sum = superblock::salted(&block, node::CHECKSUM_SALT).to_le_bytes();
        block.splice(..sum.len(), sum);
        Ok(block)
    });
    assert!(read <= often * count, "{read} blocks of {count} were read");
    found
}
