//! How a pool is laid on devices, and how its map grows. What is in a map never moves: the data device is its segments for
//! data behind each other, so that only the last of them may become longer.

use super::{AREA, DeviceUuid, Leg, Purpose, Segment};
use crate::units::Sectors;

/// Everything begins and ends on a whole MiB, which suits every disk and every chunk.
const GRAIN: u64 = 2048;

/// A device, and how much of it there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// The device.
    pub device: DeviceUuid,
    /// How long it is.
    pub length: Sectors,
}

/// Returns the map of a new pool: metadata and room for it first on their device, the rest of `data` for data. With a
/// chunk the data is striped over its devices, else it goes to one after the other. Nothing when it does not fit.
pub fn lay_out(
    metadata: DeviceUuid,
    size: Sectors,
    room: Sectors,
    data: &[Space],
    chunk: Option<Sectors>,
) -> Option<Vec<Segment>> {
    let (size, room) = (round_up(size)?, round_up(room)?);
    let start = AREA.sectors().get();
    let mut map = vec![linear(Purpose::Metadata, metadata, start, size)];
    if room > 0 {
        map.push(linear(Purpose::Room, metadata, start.checked_add(size)?, room));
    }
    let behind = start.checked_add(size)?.checked_add(room)?;
    let free = |space: &Space| {
        let from = if space.device == metadata { behind } else { start };
        let length = round_down(space.length.get().saturating_sub(from));
        (length > 0).then_some((space.device, from, length))
    };
    let free: Vec<_> = data.iter().map(free).collect::<Option<_>>()?;
    let shortest = free.iter().map(|(_, _, length)| *length).min()?;
    match chunk.filter(|_| free.len() > 1) {
        None => map.extend(free.into_iter().map(|(on, from, length)| linear(Purpose::Data, on, from, length))),
        Some(chunk) => {
            let width = shortest - shortest.checked_rem(chunk.get())?;
            let length = Sectors::new(width.checked_mul(u64::try_from(free.len()).ok()?)?);
            let legs = free.iter().map(|(device, from, _)| Leg { device: *device, start: Sectors::new(*from) });
            map.push(Segment { purpose: Purpose::Data, length, legs: legs.collect(), chunk: Some(chunk) });
        }
    }
    map.iter().all(|segment| segment.length.get() > 0).then_some(map)
}

/// Returns the map with what a device has behind everything of the pool given to the data: of a new device all of it, of
/// one that was made larger what it has gained. Nothing when that is less than a MiB.
pub fn add_data(map: &[Segment], space: Space) -> Option<Vec<Segment>> {
    let taken = map.iter().filter_map(Segment::extents).flatten().filter(|(on, _)| *on == space.device);
    let end = taken.map(|(_, range)| range.end).max().unwrap_or(0).max(AREA.sectors().get());
    let more = Sectors::new(round_down(space.length.get().saturating_sub(end)));
    if more.get() == 0 {
        return None;
    }
    let mut map = map.to_vec();
    let last = map.iter_mut().rfind(|segment| segment.purpose == Purpose::Data);
    match last.filter(|last| ends_at(last, space.device, end)) {
        Some(last) => last.length = last.length.checked_add(more)?,
        None => map.push(linear(Purpose::Data, space.device, end, more.get())),
    }
    Some(map)
}

/// Returns the map with that much of the room behind the metadata given to it. Nothing when there is not so much.
pub fn grow_metadata(map: &[Segment], by: Sectors) -> Option<Vec<Segment>> {
    let by = round_up(by)?;
    let mut map = map.to_vec();
    let metadata = map.iter().rposition(|segment| segment.purpose == Purpose::Metadata)?;
    let room = map.iter().position(|segment| segment.purpose == Purpose::Room)?;
    let [leg] = map.get(room)?.legs.as_slice() else { return None };
    let (device, start, left) = (leg.device, leg.start.get(), map.get(room)?.length.get().checked_sub(by)?);
    if !ends_at(map.get(metadata)?, device, start) {
        return None;
    }
    let last = map.get_mut(metadata)?;
    last.length = last.length.checked_add(Sectors::new(by))?;
    if left == 0 {
        map.remove(room);
    } else if let Some(segment) = map.get_mut(room) {
        *segment = linear(Purpose::Room, device, start.checked_add(by)?, left);
    }
    Some(map)
}

fn linear(purpose: Purpose, device: DeviceUuid, start: u64, length: u64) -> Segment {
    let legs = vec![Leg { device, start: Sectors::new(start) }];
    Segment { purpose, length: Sectors::new(length), legs, chunk: None }
}

/// Whether a segment is on that device alone and ends there.
fn ends_at(segment: &Segment, device: DeviceUuid, end: u64) -> bool {
    let extents = segment.extents().unwrap_or_default();
    matches!(extents.as_slice(), [(on, range)] if *on == device && range.end == end)
}

const fn round_down(sectors: u64) -> u64 {
    sectors - sectors % GRAIN
}

fn round_up(sectors: Sectors) -> Option<u64> {
    sectors.get().checked_next_multiple_of(GRAIN)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MIB: u64 = 2048;

    fn space(device: u128, mib: u64) -> Space {
        Space { device: DeviceUuid::from_random(device), length: Sectors::new(mib * MIB + 7) }
    }

    fn mib(count: u64) -> Sectors {
        Sectors::new(count * MIB)
    }

    /// Each segment: its purpose, length in MiB, and of each leg device and MiB where it begins.
    fn drawn(map: &[Segment]) -> Vec<String> {
        let leg = |leg: &Leg| format!("{}@{}", leg.device.to_string().trim_start_matches('0'), leg.start.get() / MIB);
        let drawn = map.iter().map(|s| {
            let legs: Vec<_> = s.legs.iter().map(leg).collect();
            format!("{:?} {} on {}", s.purpose, s.length.get() / MIB, legs.join(" "))
        });
        drawn.collect()
    }

    #[test]
    fn pools_are_laid_out_as_the_document_draws_them() {
        let one = DeviceUuid::from_random(1);
        let map = lay_out(one, mib(16), mib(48), &[space(1, 1000)], None).unwrap();
        assert_eq!(drawn(&map), ["Metadata 16 on 1@1", "Room 48 on 1@17", "Data 935 on 1@65"]);
        let map = lay_out(one, mib(16), mib(0), &[space(2, 1000), space(3, 500)], None).unwrap();
        assert_eq!(drawn(&map), ["Metadata 16 on 1@1", "Data 999 on 2@1", "Data 499 on 3@1"]);
        let striped = [space(1, 1000), space(2, 1200), space(3, 800)];
        let map = lay_out(one, mib(16), mib(48), &striped, Some(Sectors::new(128))).unwrap();
        assert_eq!(drawn(&map)[2..], ["Data 2397 on 1@65 2@1 3@1"]);
        assert_eq!(lay_out(one, mib(16), mib(48), &[space(1, 65)], None), None, "there is no room for data");
        assert_eq!(lay_out(one, mib(16), mib(48), &[], None), None);
    }

    #[test]
    fn only_the_end_of_the_data_becomes_longer() {
        let one = DeviceUuid::from_random(1);
        let map = lay_out(one, mib(16), mib(48), &[space(1, 1000)], None).unwrap();
        let larger = add_data(&map, space(1, 1500)).unwrap();
        assert_eq!(drawn(&larger)[2..], ["Data 1435 on 1@65"]);
        let two = add_data(&larger, space(2, 100)).unwrap();
        assert_eq!(drawn(&two)[2..], ["Data 1435 on 1@65", "Data 99 on 2@1"]);
        // The first device is not the end of the data any more.
        let three = add_data(&two, space(1, 2000)).unwrap();
        assert_eq!(drawn(&three)[2..], ["Data 1435 on 1@65", "Data 99 on 2@1", "Data 500 on 1@1500"]);
        assert_eq!(add_data(&three, space(1, 2000)), None, "there is nothing more");
    }

    #[test]
    fn metadata_grows_into_its_room_and_no_farther() {
        let one = DeviceUuid::from_random(1);
        let map = lay_out(one, mib(16), mib(48), &[space(1, 1000)], None).unwrap();
        let grown = grow_metadata(&map, mib(40)).unwrap();
        assert_eq!(drawn(&grown), ["Metadata 56 on 1@1", "Room 8 on 1@57", "Data 935 on 1@65"]);
        assert_eq!(grow_metadata(&grown, mib(9)), None);
        let full = grow_metadata(&grown, mib(8)).unwrap();
        assert_eq!(drawn(&full), ["Metadata 64 on 1@1", "Data 935 on 1@65"]);
        assert_eq!(grow_metadata(&full, mib(1)), None);
    }

    proptest! {
        /// Whatever a pool is grown by, what it had stays where it was, and its label can be written.
        #[test]
        fn nothing_ever_moves(
            lengths in prop::collection::vec(100_u64..5000, 1..5),
            striped in any::<bool>(),
            changes in prop::collection::vec((0_u128..7, 1_u64..6000), 0..12),
        ) {
            let spaces: Vec<_> = lengths.iter().zip(1..).map(|(mib, device)| space(device, *mib)).collect();
            let chunk = striped.then(|| Sectors::new(128));
            let mut map = lay_out(DeviceUuid::from_random(1), mib(4), mib(60), &spaces, chunk).unwrap();
            for (device, amount) in changes {
                let next = match device {
                    0 => grow_metadata(&map, mib(amount % 64 + 1)),
                    device => add_data(&map, space(device, amount)),
                };
                let Some(next) = next else { continue };
                for purpose in [Purpose::Metadata, Purpose::Data] {
                    let of = |map: &[Segment]| map.iter().filter(|s| s.purpose == purpose).cloned().collect::<Vec<_>>();
                    let (before, after) = (of(&map), of(&next));
                    let (last, whole) = before.split_last().unwrap();
                    prop_assert_eq!(whole, &after[..whole.len()]);
                    let grown = &after[whole.len()];
                    prop_assert_eq!(&last.legs, &grown.legs);
                    prop_assert!(grown.length >= last.length);
                }
                map = next;
            }
            prop_assert!(super::super::tests::label(map).encode().is_ok());
        }
    }
}
