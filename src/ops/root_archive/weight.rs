//! What an archive's files take beside the bytes that it tells.

use super::contents::Item;
use crate::ops::volumes_of_docker::Entry;
use crate::units::Bytes;

/// What a file takes at most beside its bytes: its last block is not full, and it has an inode.
const EACH: u64 = 4096 + 512;

/// What was counted while an archive was read.
#[derive(Debug, Default)]
pub(super) struct Weight {
    entries: u64,
    largest: u64,
    /// The layer that is gone through, and how much of it there was.
    current: Option<(String, u64)>,
}

impl Weight {
    /// Counts an entry.
    pub(super) fn look(&mut self, item: &Item, entry: &Entry) {
        let bytes = entry.extents.iter().fold(EACH, |sum, (_, length)| sum.saturating_add(*length));
        self.add(item, bytes);
    }

    fn add(&mut self, item: &Item, bytes: u64) {
        self.entries = self.entries.saturating_add(1);
        let Item::Layer { id, .. } = item else { return };
        let before = self.current.take().filter(|(layer, _)| layer == id).map_or(0, |(_, before)| before);
        let now = before.saturating_add(bytes);
        self.largest = self.largest.max(now);
        self.current = Some((id.clone(), now));
    }

    /// Returns what all entries take beside their bytes.
    pub(super) const fn of_entries(&self) -> Bytes {
        Bytes::new(self.entries.saturating_mul(EACH))
    }

    /// Returns how much the largest layer takes.
    pub(super) const fn largest_layer(&self) -> Bytes {
        Bytes::new(self.largest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_layer_is_found_and_every_entry_counts() {
        let layer = |id: &str| Item::Layer { id: id.to_owned(), of: "image a".to_owned() };
        let mut weight = Weight::default();
        for (item, bytes) in
            [(layer("a"), 5), (layer("b"), 4), (layer("b"), 3), (layer("c"), 6), (Item::Image, 100), (Item::Host, 9)]
        {
            weight.add(&item, bytes);
        }
        assert_eq!(weight.largest_layer(), Bytes::new(7));
        assert_eq!(weight.of_entries(), Bytes::new(6 * EACH));
    }
}
