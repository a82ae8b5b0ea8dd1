//! Whether anything is on a device that no program has a format for: what is read of it, and what that said.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::pool::label::AREA;
use crate::units::Bytes;

/// The pieces that are looked at, each zeros or not.
pub const SAMPLE: u64 = 4096;

/// How many of them, at the most, are spread over the whole device.
const SPREAD: u64 = 256;

/// How much of the end is read whole: DRBD, md and others keep there what they need.
const END: u64 = 1 << 20;

/// What was found in the samples of a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Samples {
    /// How many were read.
    pub read: u64,
    /// How many of them are not all zeros.
    pub used: u64,
    /// Where the first of those begins; 0 when there is none.
    pub first: Bytes,
    /// How many were not read: there was no time, or somebody has the device.
    pub left: u64,
}

impl Samples {
    /// Returns the parts of a device of that length which are read, in their order, none twice: what a label and a superblock
    /// behind it would take, the last MiB, and samples evenly between.
    pub fn places(size: Bytes) -> Vec<Range<u64>> {
        let size = size.get();
        let spread = (0..SPREAD).map(|number| {
            let at = u128::from(size) * u128::from(number) / u128::from(SPREAD);
            let at = u64::try_from(at).unwrap_or(size) / SAMPLE * SAMPLE;
            at..at.saturating_add(SAMPLE)
        });
        let end = size.saturating_sub(END) / SAMPLE * SAMPLE..size;
        let mut places: Vec<Range<u64>> = Vec::new();
        let all = std::iter::once(0..AREA.get().saturating_add(SAMPLE)).chain(spread).chain([end]);
        let mut all: Vec<_> = all.map(|place| place.start.min(size)..place.end.min(size)).collect();
        all.sort_by_key(|place| place.start);
        for place in all {
            match places.last_mut() {
                Some(last) if place.start <= last.end => last.end = last.end.max(place.end),
                _ => places.push(place),
            }
        }
        places.retain(|place| !place.is_empty());
        places
    }

    /// Returns whether all of it was zeros; nothing when that is so only as far as it was read.
    pub const fn blank(&self) -> Option<bool> {
        match (self.used, self.left) {
            (0, 0) => Some(true),
            (0, _) => None,
            _ => Some(false),
        }
    }

    /// Counts a place that is not read.
    pub fn leave(&mut self, place: &Range<u64>) {
        let length = place.end.saturating_sub(place.start);
        self.left = self.left.saturating_add(length.div_ceil(SAMPLE));
    }

    /// Adds what was read from a byte on.
    pub fn add(&mut self, from: u64, bytes: &[u8]) {
        let length = usize::try_from(SAMPLE).unwrap_or(usize::MAX);
        for (at, sample) in (from..).step_by(length).zip(bytes.chunks(length)) {
            self.read = self.read.saturating_add(1);
            if sample.iter().any(|byte| *byte != 0) {
                let at = Bytes::new(at);
                self.first = if self.used == 0 { at } else { self.first.min(at) };
                self.used = self.used.saturating_add(1);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const M: u64 = 1 << 20;

    #[test]
    fn a_small_device_is_read_whole_and_a_large_one_from_end_to_end() {
        assert_eq!(Samples::places(Bytes::new(0)), []);
        assert!(Samples::places(Bytes::new(2 * M)).iter().eq(std::iter::once(&(0..2 * M))));
        let large = Samples::places(Bytes::new(1 << 40));
        assert_eq!(large.first(), Some(&(0..M + SAMPLE)));
        assert_eq!(large.get(1), Some(&((4 << 30)..(4 << 30) + SAMPLE)));
        assert_eq!(large.last(), Some(&((1 << 40) - M..1 << 40)));
        assert_eq!(large.len(), 257);
    }

    #[test]
    fn what_is_not_zero_is_counted_and_the_first_of_it_told() {
        let mut samples = Samples::default();
        samples.add(0, &[0; 8192]);
        samples.add(4 * M, &[[0; 4096].as_slice(), &[0, 1]].concat());
        samples.add(M, &[[0; 4096], [7; 4096], [0; 4096]].concat());
        assert_eq!(samples, Samples { read: 7, used: 2, first: Bytes::new(M + 4096), left: 0 });
        assert_eq!((samples.blank(), Samples::default().blank()), (Some(false), Some(true)));
        let mut cut = Samples::default();
        cut.add(0, &[0; 8192]);
        cut.leave(&(M..M + 4097));
        assert_eq!((cut, cut.blank()), (Samples { read: 2, left: 2, ..Samples::default() }, None));
    }

    proptest! {
        #[test]
        fn places_stay_on_the_device_and_cover_both_ends(size in prop_oneof![0_u64..64 * M, any::<u64>()]) {
            let places = Samples::places(Bytes::new(size));
            prop_assert!(places.iter().zip(places.iter().skip(1)).all(|(one, next)| one.end < next.start));
            prop_assert!(places.iter().all(|place| place.start % SAMPLE == 0 && place.start < place.end));
            prop_assert_eq!(places.first().map_or(0, |place| place.start), 0);
            prop_assert_eq!(places.last().map_or(0, |place| place.end), size);
            prop_assert!(places.iter().map(|place| place.end - place.start).sum::<u64>() <= 4 * M);
        }
    }
}
