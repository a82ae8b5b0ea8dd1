//! Where a pool's parts go on its devices: the map of a new pool, and that of one that has been given more.
//!
//! Everything begins and ends on a MiB of its device, so that it lies well on whatever sectors or stripes that has; a piece of
//! data is a whole number of blocks, so that no block lies on two devices.

use std::collections::BTreeMap;

use super::{AREA, DeviceUuid, Label, Leg, Purpose, Segment};
use crate::pool::sizing;
use crate::units::{BlockSize, Bytes, DataBlocks, MAX_META_BLOCKS, Sectors};

/// What everything is aligned to.
const GRAIN: u64 = 2048;

/// A device and its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Which.
    pub device: DeviceUuid,
    /// How long it is.
    pub length: Sectors,
}

/// What a new pool shall lie on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The devices for data, in their order.
    pub data: Vec<Extent>,
    /// The one for metadata; without it the first for data.
    pub metadata: Option<Extent>,
    /// How large the metadata shall be; nothing for what the data needs.
    pub metadata_size: Option<Bytes>,
    /// How much goes to a device before it is the next one's turn.
    pub chunk: Option<Sectors>,
    /// The length of a data block.
    pub block: BlockSize,
}

/// What a device is too small for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooSmall {
    /// Which device.
    pub device: DeviceUuid,
    /// How long it must be at least.
    pub needed: Bytes,
}

/// A piece of a device of dm, as a line of its table has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Where on the dm device it begins.
    pub start: Sectors,
    /// How long it is.
    pub length: Sectors,
    /// Where it is.
    pub legs: Vec<Leg>,
    /// How much of it goes to a leg before it is the next one's turn; nothing for one leg.
    pub chunk: Option<Sectors>,
}

const fn down(sectors: u64, unit: u64) -> u64 {
    match sectors.checked_rem(unit) {
        Some(rest) => sectors - rest,
        None => sectors,
    }
}

/// Returns the smallest length that is a whole number of both: pieces are whole blocks, and whole chunks on each leg.
fn whole(block: BlockSize, chunk: Option<Sectors>, legs: usize) -> u64 {
    let (mut a, mut b) = (block.sectors().get(), GRAIN);
    if let Some(chunk) = chunk {
        b = u64::try_from(legs).unwrap_or(1).saturating_mul(chunk.get().max(1)).max(1);
    }
    let product = a.saturating_mul(b);
    while b != 0 {
        (a, b) = (b, a % b);
    }
    product / a.max(1)
}

/// Returns the map of a new pool: metadata, room for it to grow into, and data to the end of the devices, however much of
/// it the pool shall use at first.
///
/// # Errors
/// Which device is too small.
pub fn of_new(wanted: &Wanted) -> Result<Vec<Segment>, TooSmall> {
    let first = AREA.sectors().get();
    let end = |extent: &Extent| down(extent.length.get(), GRAIN);
    let Some(carrier) = wanted.metadata.or_else(|| wanted.data.first().copied()) else { return Ok(Vec::new()) };
    let on_devices: u64 = wanted.data.iter().map(|e| end(e).saturating_sub(first)).fold(0, u64::saturating_add);
    let free = end(&carrier).saturating_sub(first);
    let (metadata, room) = metadata_of(wanted, free, wanted.block.blocks_in(Sectors::new(on_devices)));
    let too_small =
        |device, needed: u64| TooSmall { device, needed: Sectors::new(needed.next_multiple_of(GRAIN)).bytes() };
    if free < metadata + room {
        return Err(too_small(carrier.device, first + metadata + room));
    }
    let mut map = vec![one(Purpose::Metadata, carrier.device, first, metadata)];
    if room > 0 {
        map.push(one(Purpose::Room, carrier.device, first + metadata, room));
    }
    let behind = |e: &Extent| if e.device == carrier.device { first + metadata + room } else { first };
    let places: Vec<_> = wanted.data.iter().map(|e| (e.device, behind(e), end(e).saturating_sub(behind(e)))).collect();
    let unit = whole(wanted.block, wanted.chunk, places.len());
    let count = u64::try_from(places.len()).unwrap_or(u64::MAX);
    if let (Some(chunk), [_, _, ..]) = (wanted.chunk, places.as_slice()) {
        let shortest = places.iter().min_by_key(|(_, _, left)| *left).copied().unwrap_or((carrier.device, 0, 0));
        let length = down(shortest.2.saturating_mul(count), unit);
        if length == 0 {
            return Err(too_small(shortest.0, shortest.1 + unit.div_ceil(count)));
        }
        let legs = places.iter().map(|(device, from, _)| Leg { device: *device, start: Sectors::new(*from) }).collect();
        map.push(Segment { purpose: Purpose::Data, length: Sectors::new(length), legs, chunk: Some(chunk) });
        return Ok(map);
    }
    for (device, from, left) in places {
        match down(left, unit) {
            0 => return Err(too_small(device, from + unit)),
            length => map.push(one(Purpose::Data, device, from, length)),
        }
    }
    Ok(map)
}

/// Returns how many sectors of a device, which has so many free, go to metadata, and how many are kept free behind it.
fn metadata_of(wanted: &Wanted, free: u64, data: DataBlocks) -> (u64, u64) {
    let most = down(MAX_META_BLOCKS.bytes().sectors().get(), GRAIN);
    let size = |bytes: Bytes| bytes.sectors().get().next_multiple_of(GRAIN).min(most);
    if wanted.metadata.is_some() {
        // A device of its own is the metadata's, as much of it as the kernel uses.
        let all = free.min(most);
        let least = size(sizing::metadata_for(data).bytes());
        let metadata = wanted.metadata_size.map_or(all.max(least), size);
        return (metadata, all.saturating_sub(metadata));
    }
    let metadata = size(wanted.metadata_size.unwrap_or_else(|| sizing::metadata_on_devices(data).bytes()));
    let room = metadata.saturating_mul(sizing::ROOM_FACTOR).min(most - metadata);
    (metadata, down(room.min(free / sizing::MOST_ROOM), GRAIN))
}

fn one(purpose: Purpose, device: DeviceUuid, start: u64, length: u64) -> Segment {
    let legs = vec![Leg { device, start: Sectors::new(start) }];
    Segment { purpose, length: Sectors::new(length), legs, chunk: None }
}

/// Returns the map with all that its devices have free given to data: those that have been enlarged, and those that have
/// been added (they are in `lengths` and not in the map). A device for metadata alone gives nothing.
pub fn with_more_data(label: &Label, lengths: &BTreeMap<DeviceUuid, Sectors>) -> Vec<Segment> {
    let mut map = label.map.clone();
    let block = label.behaviour.block_size;
    lengthen_the_last(&mut map, lengths, block);
    let unit = whole(block, None, 1);
    let mut appended = Vec::new();
    for (device, length) in lengths {
        // What is left on a device of stripes waits for the others to be enlarged.
        let stripes = map.iter().any(|s| s.chunk.is_some() && s.legs.iter().any(|leg| leg.device == *device));
        let more = down(free(&map, *device, *length), unit);
        if more > 0 && !stripes && !is_metadata_alone(label, *device) {
            appended.push(one(Purpose::Data, *device, end(&map, *device), more));
        }
    }
    map.extend(appended);
    map
}

/// Lengthens the last piece of data, where nothing is behind it on any of its devices.
fn lengthen_the_last(map: &mut [Segment], lengths: &BTreeMap<DeviceUuid, Sectors>, block: BlockSize) {
    let Some(last) = map.iter().rfind(|segment| segment.purpose == Purpose::Data) else { return };
    let extents = last.extents().unwrap_or_default();
    if extents.iter().any(|(device, range)| end(map, *device) != range.end) {
        return;
    }
    let each = extents.iter().map(|(device, _)| free(map, *device, lengths.get(device).copied().unwrap_or_default()));
    let legs = u64::try_from(extents.len()).unwrap_or(u64::MAX);
    let more = down(each.min().unwrap_or(0).saturating_mul(legs), whole(block, last.chunk, extents.len()));
    if let Some(last) = map.iter_mut().rfind(|segment| segment.purpose == Purpose::Data) {
        last.length = Sectors::new(last.length.get().saturating_add(more));
    }
}

/// Returns where on a device the map ends.
fn end(map: &[Segment], device: DeviceUuid) -> u64 {
    let extents = map.iter().filter_map(Segment::extents).flatten().filter(|(on, _)| *on == device);
    extents.map(|(_, range)| range.end).max().unwrap_or(AREA.sectors().get())
}

fn free(map: &[Segment], device: DeviceUuid, length: Sectors) -> u64 {
    down(length.get(), GRAIN).saturating_sub(end(map, device))
}

/// Whether the map has nothing but metadata, or room for it, on a device; not for one that it does not have.
fn is_metadata_alone(label: &Label, device: DeviceUuid) -> bool {
    let mut of_it = label.map.iter().filter(|s| s.legs.iter().any(|leg| leg.device == device)).peekable();
    of_it.peek().is_some() && of_it.all(|s| s.purpose != Purpose::Data)
}

/// Returns the map with metadata of at least that length, taken from the room behind it; nothing when that is too small.
pub fn with_more_metadata(label: &Label, to: Sectors) -> Option<Vec<Segment>> {
    let more = to.get().next_multiple_of(GRAIN).saturating_sub(label.length(Purpose::Metadata).get());
    let mut map = label.map.clone();
    if more == 0 {
        return Some(map);
    }
    let metadata = map.iter().rposition(|s| s.purpose == Purpose::Metadata)?;
    let end = map.get(metadata)?.extents()?.pop()?;
    let room = map.iter().position(|s| {
        s.purpose == Purpose::Room && s.legs.first().is_some_and(|l| (l.device, l.start.get()) == (end.0, end.1.end))
    })?;
    let left = map.get(room)?.length.get().checked_sub(more)?;
    let grown = map.get_mut(metadata)?;
    grown.length = Sectors::new(grown.length.get() + more);
    if left == 0 {
        map.remove(room);
    } else {
        let kept = map.get_mut(room)?;
        kept.length = Sectors::new(left);
        let start = kept.legs.first_mut()?;
        start.start = Sectors::new(start.start.get() + more);
    }
    Some(map)
}

/// Returns the map with what a device for metadata alone has gained kept free behind the metadata.
pub fn with_more_room(label: &Label, lengths: &BTreeMap<DeviceUuid, Sectors>) -> Vec<Segment> {
    let mut map = label.map.clone();
    for (device, length) in lengths {
        let (from, more) = (end(&map, *device), free(&map, *device, *length));
        if more == 0 || !is_metadata_alone(label, *device) {
            continue;
        }
        let ends_there = |s: &&mut Segment| {
            s.purpose == Purpose::Room
                && s.extents().is_some_and(|e| e.iter().any(|(on, r)| on == device && r.end == from))
        };
        match map.iter_mut().find(ends_there) {
            Some(room) => room.length = Sectors::new(room.length.get().saturating_add(more)),
            None => map.push(one(Purpose::Room, *device, from, more)),
        }
    }
    map
}

/// Returns the most metadata that the map has place for, as the kernel uses it.
pub fn most_metadata(label: &Label) -> Bytes {
    let both = label.length(Purpose::Metadata).get().saturating_add(label.length(Purpose::Room).get());
    Sectors::new(both).meta_blocks().min(MAX_META_BLOCKS).bytes()
}

/// Returns the pieces of a dm device of that purpose and length, in their order; shorter where the map ends. The last one of
/// stripes is a whole number of chunks on each leg, as dm wants it.
pub fn pieces(map: &[Segment], purpose: Purpose, length: Sectors) -> Vec<Piece> {
    let mut start = 0;
    let mut found = Vec::new();
    for segment in map.iter().filter(|segment| segment.purpose == purpose) {
        let left = length.get().saturating_sub(start);
        if left == 0 {
            break;
        }
        let unit = segment.chunk.map_or(1, |chunk| {
            chunk.get().saturating_mul(u64::try_from(segment.legs.len()).unwrap_or(u64::MAX)).max(1)
        });
        let taken = left.checked_next_multiple_of(unit).unwrap_or(u64::MAX).min(segment.length.get());
        found.push(Piece {
            start: Sectors::new(start),
            length: Sectors::new(taken),
            legs: segment.legs.clone(),
            chunk: segment.chunk,
        });
        start += taken;
    }
    found
}

#[cfg(test)]
#[path = "layout_tests.rs"]
mod tests;
