//! How much room a pool has to grow, and what a size argument comes to.

use crate::ops::grow::part_of;
use crate::ops::steps::Part;
use crate::pool::{Carrier, PoolReport};
use crate::units::{Bytes, MAX_META_BLOCKS, Sectors, Share, SizeArg};

/// What one part of a pool has, and what is beneath it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// How large the part is now.
    pub size: Bytes,
    /// Free on the file system under its loop file; nothing when it has none.
    pub host_free: Option<Bytes>,
    /// What sparse files of pools on that file system, its own and others', may still take of it.
    pub promised: Bytes,
    /// The largest it can be; nothing when nothing but what lies beneath limits it.
    pub most: Option<Bytes>,
    /// How large the disk beneath is, when one stands in its loop file's place, or no loop file is beneath.
    pub disk: Option<Bytes>,
    /// What the volume group has left for the LV beneath, when one is.
    pub group: Option<GroupRoom>,
}

/// What a volume group has for an LV beneath a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupRoom {
    /// Free.
    pub free: Bytes,
    /// In all.
    pub size: Bytes,
    /// The length of an extent.
    pub extent: Bytes,
    /// Whether `max` takes it: of LVs that LVM made for this pool, not of those that somebody else has made.
    pub is_its: bool,
}

impl GroupRoom {
    /// Returns how many bytes a share of the group is.
    fn share(self, share: Share) -> Option<Bytes> {
        let extents = |bytes: Bytes| bytes.get().checked_div(self.extent.get());
        let taken = share.extents(extents(self.free)?, extents(self.size)?);
        taken.checked_mul(self.extent.get()).map(Bytes::new)
    }
}

impl Room {
    /// Returns what the file system has beyond what is promised already.
    pub fn unpromised(&self) -> Bytes {
        self.host_free.unwrap_or_default().saturating_sub(self.promised)
    }

    /// Returns the largest size that the file system, the disk, or the pool's own volume group can really carry.
    pub fn max(&self) -> Bytes {
        let more = self.group.filter(|group| group.is_its).map(|group| group.free).unwrap_or_default();
        let carried = Bytes::new(self.carried().get().saturating_add(more.get()));
        self.most.map_or(carried, |most| carried.min(most))
    }

    /// Returns the same of the file system or the disk as it is now.
    pub fn carried(&self) -> Bytes {
        let on_file = || Bytes::new(self.size.get().saturating_add(self.unpromised().get()));
        self.disk.unwrap_or_else(on_file)
    }
}

/// Returns the room of one part, where other pools' files on its file system may still take `others`; nothing when the
/// pool's sizes are not known.
pub fn room(report: &PoolReport, part: Part, others: Bytes) -> Option<Room> {
    let space = match part {
        Part::Data => report.data_space()?,
        Part::Metadata => report.metadata_space()?,
    };
    let file = part_of(report, part).loop_file();
    let host = file.and_then(|f| f.host.as_ref());
    let both = [report.data.loop_file(), report.metadata.loop_file()];
    let on_host = |f: &&crate::pool::LoopFile| matches!((&f.host, host), (Some(a), Some(b)) if a.device == b.device);
    let promised = both.into_iter().flatten().filter(on_host).filter_map(crate::pool::LoopFile::promised);
    Some(Room {
        size: space.total,
        host_free: host.map(|h| h.free),
        promised: Bytes::new(promised.fold(others.get(), |sum, next| sum.saturating_add(next.get()))),
        most: (part == Part::Metadata).then_some(MAX_META_BLOCKS.bytes()),
        disk: match &part_of(report, part).carrier {
            Carrier::LoopOverDevice { disk, .. } => disk.size,
            Carrier::Device { .. } => part_of(report, part).size.map(Sectors::bytes),
            Carrier::Loop { .. } | Carrier::Devices { .. } | Carrier::Unknown => None,
        },
        group: None,
    })
}

/// Returns the size that an argument means, rounded up to whole blocks (`max` and shares down); nothing when it does not fit
/// 64 bits, or is a share where there is no volume group.
pub fn wanted(size: SizeArg, room: &Room, block: Bytes) -> Option<Bytes> {
    let whole = |bytes: u64| bytes.checked_next_multiple_of(block.get()).map(Bytes::new);
    match size {
        SizeArg::To(bytes) => whole(bytes.get()),
        SizeArg::By(bytes) => whole(room.size.get().checked_add(bytes.get())?),
        SizeArg::ByPercent(percent) => {
            let more = u128::from(room.size.get()) * u128::from(percent) / 100;
            whole(room.size.get().checked_add(u64::try_from(more).ok()?)?)
        }
        SizeArg::ByShare(share) => {
            let to = room.size.checked_add(room.group?.share(share)?)?;
            Some(Bytes::new((to.get() / block.get() * block.get()).max(room.size.get())))
        }
        SizeArg::Max => {
            let gib = Bytes::GIB.get();
            let max = room.max().get();
            let is_whole = room.disk.is_some() || room.most.is_some_and(|most| max == most.get());
            let unit = if max >= gib && !is_whole { gib.max(block.get()) } else { block.get() };
            Some(Bytes::new((max / unit * unit).max(room.size.get())))
        }
    }
    .filter(|bytes| bytes.get() < 1 << 63)
}

#[cfg(test)]
mod tests {
    use super::*;

    const G: u64 = 1 << 30;

    fn room(size: u64, free: u64, promised: u64) -> Room {
        Room {
            size: Bytes::new(size),
            host_free: Some(Bytes::new(free)),
            promised: Bytes::new(promised),
            most: None,
            disk: None,
            group: None,
        }
    }

    #[test]
    fn size_arguments_come_to_whole_blocks() {
        let block = Bytes::new(65536);
        let r = room(100 * G, 50 * G + 5, 10 * G);
        for (arg, bytes) in [
            (SizeArg::To(Bytes::new(200 * G)), 200 * G),
            (SizeArg::To(Bytes::new(200 * G + 1)), 200 * G + 65536),
            (SizeArg::By(Bytes::new(G)), 101 * G),
            (SizeArg::ByPercent(20), 120 * G),
            (SizeArg::Max, 140 * G),
        ] {
            assert_eq!(wanted(arg, &r, block), Some(Bytes::new(bytes)), "{arg:?}");
        }
        assert_eq!(wanted(SizeArg::By(Bytes::new(u64::MAX)), &r, block), None);
        assert_eq!(wanted(SizeArg::To(Bytes::new((1 << 63) - 1)), &r, block), None);
    }

    #[test]
    fn max_of_a_disk_is_its_last_whole_block() {
        let disk = Room { disk: Some(Bytes::new(20 * G + 70_000)), host_free: None, ..room(10 * G, 0, 0) };
        assert_eq!(wanted(SizeArg::Max, &disk, Bytes::new(65536)), Some(Bytes::new(20 * G + 65536)));
        let same = Room { disk: Some(Bytes::new(10 * G)), ..disk };
        assert_eq!(wanted(SizeArg::Max, &same, Bytes::new(65536)), Some(Bytes::new(10 * G)));
    }

    #[test]
    fn an_lv_has_what_its_group_has_left() {
        let group = |is_its| GroupRoom {
            free: Bytes::new(6 * G),
            size: Bytes::new(20 * G),
            extent: Bytes::new(4 << 20),
            is_its,
        };
        let lv = |is_its| Room {
            disk: Some(Bytes::new(12 * G)),
            host_free: None,
            group: Some(group(is_its)),
            ..room(10 * G, 0, 0)
        };
        let block = Bytes::new(65536);
        let arg = |text: &str| SizeArg::parse(text).unwrap_or(SizeArg::Max);
        assert_eq!(wanted(arg("+50%FREE"), &lv(false), block), Some(Bytes::new(13 * G)));
        assert_eq!(wanted(arg("+10%VG"), &lv(true), block), Some(Bytes::new(12 * G)));
        assert_eq!(wanted(arg("+1%FREE"), &lv(true), Bytes::GIB), Some(Bytes::new(10 * G)));
        assert_eq!(wanted(SizeArg::Max, &lv(true), block), Some(Bytes::new(18 * G)));
        assert_eq!(wanted(SizeArg::Max, &lv(false), block), Some(Bytes::new(12 * G)));
        assert_eq!(wanted(arg("+50%FREE"), &room(10 * G, 0, 0), block), None);
    }

    #[test]
    fn max_of_a_full_host_is_what_there_is() {
        assert_eq!(wanted(SizeArg::Max, &room(100 * G, 5 * G, 50 * G), Bytes::new(65536)), Some(Bytes::new(100 * G)));
    }
}
