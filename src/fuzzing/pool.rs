//! What the kernel says of pools, and what people write as sizes and numbers.

use super::text;
use crate::metadata::{BLOCK, Superblock, superblock};
use crate::ops::health::volumes;
use crate::pool::label::{Label, SLOT_BYTES, Slots};
use crate::pool::{DevNo, PoolStatus, PoolTable};
use crate::units::{Bytes, Sectors, SizeArg};

pub(super) fn size(bytes: &[u8]) {
    let text = text(bytes);
    if let Ok(size) = Bytes::parse(&text) {
        assert_eq!(Bytes::parse(&size.get().to_string()), Ok(size));
        assert!(!size.human().is_empty() && size.exact().starts_with(&size.human()));
        assert_eq!(SizeArg::parse(&text), Ok(SizeArg::To(size)));
        assert_eq!(SizeArg::parse(&format!("+{}", size.get())), Ok(SizeArg::By(size)));
    }
    let _ = SizeArg::parse(&text);
}

pub(super) fn device_number(bytes: &[u8]) {
    if let Ok(number) = text(bytes).parse::<DevNo>() {
        assert_eq!(number.to_string().parse(), Ok(number));
    }
}

pub(super) fn pool_table(bytes: &[u8]) {
    let length = Sectors::new(209_715_200);
    if let Ok(table) = PoolTable::parse(length, &text(bytes)) {
        assert_eq!(PoolTable::parse(length, &table.params()), Ok(table));
    }
}

/// The status of a pool and of a thin volume.
pub(super) fn pool_status(bytes: &[u8]) {
    let text = text(bytes);
    let status = PoolStatus::parse(&text);
    if matches!(status, PoolStatus::Working(_)) {
        assert_eq!(PoolStatus::parse(&text.split_whitespace().collect::<Vec<_>>().join(" ")), status);
    }
    let _ = (volumes::parse_status(&text, Bytes::new(65536)), volumes::pool_of(&text));
}

/// The bytes, filled up with zeros to a block; as they are, and with the checksum that belongs to them.
pub(super) fn superblock(bytes: &[u8]) {
    let _ = Superblock::parse(bytes);
    let mut block = bytes.to_vec();
    block.resize(BLOCK, 0);
    let sum = superblock::checksum(&block).to_le_bytes();
    block.splice(..sum.len(), sum);
    if let Ok(read) = Superblock::parse(&block) {
        assert!(read.data_used <= read.data_total && read.metadata_used <= read.metadata_total);
        let _ = read.length();
    }
}

/// The bytes, filled up with zeros to a slot; as they are, and with the checksum that belongs to them.
pub(super) fn label(bytes: &[u8]) {
    let _ = Slots::decode([bytes, bytes]).newest();
    let mut slot = bytes.to_vec();
    slot.resize(SLOT_BYTES, 0);
    let sum = crc32c::crc32c(slot.get(20..).unwrap_or_default()).to_le_bytes();
    slot.splice(16..16 + sum.len(), sum);
    if let Ok(label) = Label::decode(&slot) {
        assert_eq!(label.encode(), Ok(slot));
        assert!(label.devices().contains(&label.device) && label.role().is_some());
    }
}
