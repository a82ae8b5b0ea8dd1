//! Whose a device is by what is on it: what an operation can itself have put there, or somebody else's.

use anyhow::Result;

use super::format::{PIECE, bytes_of};
use crate::metadata::{BadSuperblock, Superblock};
use crate::pool::label::{AREA, BadLabel, DeviceUuid, Label, SLOT_BYTES, SLOTS};
use crate::pool::{DevNo, PoolUuid};
use crate::units::Bytes;

/// What a disk writes whole or not at all.
const SECTOR: usize = 512;

/// Says that a device is somebody else's.
pub(super) fn sentence(device: &impl std::fmt::Display) -> String {
    format!("something else is on {device} by now; it stays")
}

/// Whether each piece of the bytes is zeros, or the same piece of one of these.
pub(super) fn is_mix(found: &[u8], of: &[&[u8]], piece: usize) -> bool {
    let same =
        |index: usize, piece_of_it: &[u8]| of.iter().any(|one| one.chunks(piece).nth(index) == Some(piece_of_it));
    found.chunks(piece).enumerate().all(|(index, chunk)| is_zeros(chunk) || same(index, chunk))
}

/// Whether bytes are zeros.
pub(super) fn is_zeros(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}

/// Whether bytes are a superblock of the kernel's, whole or damaged.
pub(super) fn is_superblock(bytes: &[u8]) -> bool {
    let bad = Superblock::parse(bytes).err();
    !matches!(bad, Some(BadSuperblock::Zero | BadSuperblock::Short(_) | BadSuperblock::Magic(_)))
}

/// Whether the bytes of a slot can be one of these labels, whole or torn, or none.
pub(super) fn is_slot(bytes: &[u8], labels: &[&Label]) -> bool {
    let known: Vec<_> = labels.iter().filter_map(|label| label.encode().ok()).collect();
    is_mix(bytes, &known.iter().map(Vec::as_slice).collect::<Vec<_>>(), SECTOR)
}

/// Whether the bytes of a slot may go: nothing, one of these labels, or what begins as a label does.
pub(super) fn may_be_erased(bytes: &[u8], labels: &[&Label]) -> bool {
    is_slot(bytes, labels) || !matches!(Label::decode(bytes), Err(BadLabel::Absent | BadLabel::Short(_)))
}

/// Whether there is nothing before [`AREA`] beside what is in the slots of the label: as on every device of a pool.
///
/// # Errors
/// When the device cannot be read so far.
pub(in crate::ops) fn is_bare(device: DevNo) -> Result<bool> {
    let bytes = bytes_of(device, Bytes::new(0), AREA)?;
    let is_in_slot = |at: u64| SLOTS.iter().any(|slot| (slot.get()..slot.get() + SLOT).contains(&at));
    Ok((0_u64..).step_by(SECTOR).zip(bytes.chunks(SECTOR)).all(|(at, sector)| is_in_slot(at) || is_zeros(sector)))
}

const SLOT: u64 = SLOT_BYTES as u64;

/// Whether what is at that byte of a device can have been put there by who made that pool on it, before the pool was used:
/// each piece zeros, what was there before, a label of the device, or the superblock that the kernel writes behind the label.
pub(super) fn is_its(at: Bytes, found: &[u8], before: &[u8], pool: &PoolUuid, device: DeviceUuid) -> bool {
    let pieces = (at.get()..).step_by(usize::try_from(PIECE).unwrap_or(SLOT_BYTES));
    let length = usize::try_from(PIECE).unwrap_or(SLOT_BYTES);
    pieces.zip(found.chunks(length).zip(before.chunks(length))).all(|(at, (found, before))| {
        let is_label = || Label::decode(found).is_ok_and(|label| (&label.pool, label.device) == (pool, device));
        found == before
            || is_zeros(found)
            || SLOTS.iter().any(|slot| slot.get() == at) && is_label()
            || AREA.get() == at && is_superblock(found)
    })
}

#[cfg(test)]
#[path = "whose_tests.rs"]
mod tests;
