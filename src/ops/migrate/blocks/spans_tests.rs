#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const K: u64 = 1 << 16;

/// A volume as its block numbers in the data, by block.
type Blocks = BTreeMap<u64, u64>;

fn extents(blocks: &Blocks, length: u64) -> impl Iterator<Item = Found<Extent>> {
    let extent = move |(at, from): (&u64, &u64)| Ok(Extent { at: at * length, from: from * length, length, time: 0 });
    blocks.iter().map(extent).collect::<Vec<_>>().into_iter()
}

fn works<'b>(child: &'b Blocks, parent: &'b Blocks, old: u64, new: u64) -> impl Iterator<Item = Found<Work>> + use<'b> {
    let ranges = Differences::of(extents(child, old), extents(parent, old)).unwrap();
    Works::of(Whole::of(ranges, new), extents(child, old), new).unwrap()
}

/// What each 64 KiB of a volume hold: a number for what was written, 0 for zeros.
fn held(blocks: &Blocks, old: u64, end: u64) -> Vec<u64> {
    let of = |at: u64| blocks.get(&(at / old)).map_or(0, |from| from * old + at % old + 1);
    (0..end / K).map(|unit| of(unit * K)).collect()
}

fn blocks() -> impl Strategy<Value = Blocks> {
    prop::collection::btree_map(0_u64..40, 0_u64..60, 0..30)
}

proptest! {
    /// The parent with what is to be done to it is the child, for whichever blocks the new pool has.
    #[test]
    fn the_parent_becomes_the_child(parent in blocks(), changed in blocks(), gone in prop::collection::btree_set(0_u64..40, 0..20), sizes in (1_u64..9, prop_oneof![1_u64..9, 60_u64..200])) {
        let (old, new) = (sizes.0 * K, sizes.1 * K);
        let mut child = parent.clone();
        child.retain(|at, _| !gone.contains(at));
        child.extend(changed);
        let end = (40 * old).div_ceil(new) * new;
        let mut volume = held(&parent, old, end);
        let mut last = 0;
        let mut sum = 0;
        for work in works(&child, &parent, old, new) {
            match work.unwrap() {
                Work::Nothing(range) => {
                    assert!(range.start >= last && range.start.is_multiple_of(new) && range.end.is_multiple_of(new));
                    last = range.end;
                    for unit in range.start / K..range.end / K {
                        volume[usize::try_from(unit).unwrap()] = 0;
                    }
                }
                Work::Data { at, length, segments } => {
                    assert!(at >= last && length <= PIECE && length > 0);
                    assert!(new > PIECE || at.is_multiple_of(new) && length.is_multiple_of(new));
                    last = at + length;
                    sum += length;
                    for unit in at / K..last / K {
                        volume[usize::try_from(unit).unwrap()] = 0;
                    }
                    for Segment { to, from, length } in segments {
                        for unit in 0..length / K {
                            volume[usize::try_from((at + to) / K + unit).unwrap()] = from + unit * K + 1;
                        }
                    }
                }
            }
        }
        assert_eq!(volume, held(&child, old, end));
        assert_eq!(written(works(&child, &parent, old, new)).unwrap(), sum);
        assert_eq!(written(works(&child, &child, old, new)).unwrap(), 0);
    }
}

#[test]
fn what_lies_together_is_read_together() {
    let child: Blocks = [(0, 5), (1, 6), (2, 9), (8, 1)].into();
    let found: Vec<_> = works(&child, &Blocks::new(), K, 4 * K).map(Result::unwrap).collect();
    let segment = |to, from, length| Segment { to: to * K, from: from * K, length: length * K };
    let data = |at, segments| Work::Data { at: at * K, length: 4 * K, segments };
    assert_eq!(found, [data(0, vec![segment(0, 5, 2), segment(2, 9, 1)]), data(8, vec![segment(0, 1, 1)]),]);
}

#[test]
fn ranges_of_two_come_in_their_order() {
    let ranges = |of: &[Range<u64>]| of.iter().cloned().map(Ok).collect::<Vec<Found<_>>>().into_iter();
    let (one, other) = (ranges(&[0..1, 6..7]), ranges(&[2..3, 5..9]));
    let all: Vec<_> = Whole::of(Either::of(one, other), 2).map(Result::unwrap).collect();
    assert_eq!(all.len(), 1);
    assert_eq!(all[0], 0..10);
}
