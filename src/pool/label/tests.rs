#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use proptest::prelude::*;

use super::*;
use crate::pool::DevNo;
use crate::units::{BlockSize, DataBlocks};

const MIB: u64 = 2048;

fn leg(device: u128, start_mib: u64) -> Leg {
    Leg { device: DeviceUuid(device), start: Sectors::new(start_mib * MIB) }
}

fn linear(purpose: Purpose, device: u128, start_mib: u64, mib: u64) -> Segment {
    Segment { purpose, length: Sectors::new(mib * MIB), legs: vec![leg(device, start_mib)], chunk: None }
}

pub(super) fn label(map: Vec<Segment>) -> Label {
    Label {
        sequence: 7,
        pool: PoolUuid::from_random(0xfeed),
        name: PoolName::new("p0").unwrap(),
        device: DeviceUuid(1),
        behaviour: Behaviour {
            block_size: BlockSize::DEFAULT,
            low_water: DataBlocks::new(1024),
            features: vec!["skip_block_zeroing".to_owned(), "error_if_no_space".to_owned()],
        },
        map,
    }
}

/// One device: the label, 16 MiB of metadata, 48 MiB for it to grow into, data.
fn on_one() -> Label {
    label(vec![
        linear(Purpose::Metadata, 1, 1, 16),
        linear(Purpose::Room, 1, 17, 48),
        linear(Purpose::Data, 1, 65, 1000),
    ])
}

fn striped() -> Label {
    let data = Segment {
        purpose: Purpose::Data,
        length: Sectors::new(300 * MIB),
        legs: vec![leg(2, 1), leg(3, 1), leg(4, 1)],
        chunk: Some(Sectors::new(128)),
    };
    label(vec![linear(Purpose::Metadata, 1, 1, 16), data, linear(Purpose::Data, 5, 1, 500)])
}

#[test]
fn labels_come_back_as_they_were_written() {
    for label in [on_one(), striped()] {
        let bytes = label.encode().unwrap();
        assert_eq!(bytes.len(), SLOT_BYTES);
        assert_eq!(Label::decode(&bytes), Ok(label));
    }
    assert_eq!(on_one().role(), Some(Role::Both));
    assert_eq!(striped().role(), Some(Role::Metadata));
    assert_eq!(striped().length(Purpose::Data), Sectors::new(800 * MIB));
    assert_eq!(striped().end_on(DeviceUuid(3)), Sectors::new(101 * MIB));
    assert_eq!(striped().devices().len(), 5);
}

/// The offsets of docs/label-format.md, read by hand.
#[test]
fn the_bytes_are_where_the_document_says() {
    let bytes = on_one().encode().unwrap();
    assert_eq!(&bytes[0..16], b"dmpool-label\n\0\0\0");
    assert_eq!(bytes[16..20], crc32c::crc32c(&bytes[20..]).to_le_bytes());
    assert_eq!((bytes[20], bytes[24], bytes[47], bytes[63]), (1, 7, 0xed, 1));
    assert_eq!((bytes[64], bytes[65], bytes[66], bytes[68], bytes[73], bytes[80]), (3, 2, 3, 128, 4, 0b1001));
    assert_eq!(&bytes[128..131], b"p0\0");
    assert_eq!((bytes[256], bytes[257], bytes[256 + 40], bytes[256 + 80]), (1, 1, 2, 3));
    assert!(bytes[256 + 120..].iter().all(|b| *b == 0));
}

/// Labels that a script has put together from the document.
#[test]
fn what_another_hand_has_written_is_read() {
    let seeds = [
        (include_bytes!("../../../fuzz/seeds/label/one-device").to_vec(), on_one()),
        (include_bytes!("../../../fuzz/seeds/label/striped").to_vec(), striped()),
    ];
    for (mut bytes, label) in seeds {
        bytes.resize(SLOT_BYTES, 0);
        assert_eq!(Label::decode(&sealed(bytes, 20, 1)), Ok(label));
    }
}

#[test]
fn what_no_dmpool_would_have_written_is_neither_written_nor_read() {
    let cases = [
        (vec![], "no metadata"),
        (vec![linear(Purpose::Metadata, 1, 1, 16)], "no data"),
        (vec![linear(Purpose::Metadata, 2, 1, 16), linear(Purpose::Data, 2, 17, 1)], "the device that it is on"),
        (vec![linear(Purpose::Metadata, 1, 0, 16), linear(Purpose::Data, 1, 17, 1)], "where the label itself is"),
        (vec![linear(Purpose::Metadata, 1, 1, 16), linear(Purpose::Data, 1, 16, 1)], "overlap"),
        (vec![linear(Purpose::Metadata, 1, 1, 0), linear(Purpose::Data, 1, 16, 1)], "it is empty"),
    ];
    for (map, why) in cases {
        let error = label(map).encode().unwrap_err();
        assert!(error.to_string().contains(why), "{error}");
    }
    let mut uneven = striped();
    uneven.map[1].length = Sectors::new(300 * MIB + 3);
    assert!(uneven.encode().unwrap_err().to_string().contains("whole number of chunks"));
    let mut beyond = on_one();
    beyond.map[2].length = Sectors::new(u64::MAX);
    assert!(beyond.encode().unwrap_err().to_string().contains("beyond any device"));
    let pieces = (0..200).map(|i| linear(Purpose::Data, 1, 100 + i, 1));
    let many = label([linear(Purpose::Metadata, 1, 1, 16)].into_iter().chain(pieces).collect());
    assert!(matches!(many.encode(), Err(TooLarge::Map(8296))));
    let mut odd = on_one();
    odd.behaviour.features.push("read_only".to_owned());
    assert!(odd.encode().unwrap_err().to_string().contains("`read_only`"));
}

/// Changes bytes as a program that knows the format would, with the checksum that belongs to them.
fn sealed(mut bytes: Vec<u8>, at: usize, value: u8) -> Vec<u8> {
    bytes[at] = value;
    let sum = crc32c::crc32c(&bytes[20..]);
    bytes[16..20].copy_from_slice(&sum.to_le_bytes());
    bytes
}

#[test]
fn a_newer_format_is_refused_by_its_number() {
    let bytes = sealed(on_one().encode().unwrap(), 20, 2);
    assert_eq!(Label::decode(&bytes), Err(BadLabel::Newer(2)));
    let old = on_one().encode().unwrap();
    // Also where the other slot could be read: it is the older one.
    assert_eq!(Slots::decode([&old, &bytes]).newest(), Err(BadLabel::Newer(2)));
}

#[test]
fn fields_that_are_not_known_are_refused() {
    let whole = on_one().encode().unwrap();
    for (at, value, why) in [
        (64, 1, "role and map disagree"),
        (65, 121, "its name has 121 bytes"),
        (68, 1, "not a block size"),
        (81, 1, "its features"),
        (90, 1, "where format 1 has none"),
        (128, b'/', "not a pool name"),
        (256, 9, "a segment for 9"),
        (257, 0, "a segment for 0"),
        (265, 0, "it is empty"),
        (258, 1, "where format 1 has none"),
        (66, 200, "a segment for 0"),
        (4095, 1, "where format 1 has none"),
    ] {
        let error = Label::decode(&sealed(whole.clone(), at, value)).unwrap_err().to_string();
        assert!(error.contains(why), "byte {at}: {error}");
    }
}

#[test]
fn the_newest_slot_counts_and_the_other_is_written_next() {
    let blank = vec![0; SLOT_BYTES];
    let at = |sequence| Label { sequence, ..on_one() }.encode().unwrap();
    let newest = |a: &[u8], b: &[u8]| {
        let slots = Slots::decode([a, b]);
        (slots.newest().map(|label| label.map(|l| l.sequence)), slots.next())
    };
    let torn = {
        let mut bytes = at(9);
        bytes[2000..].fill(0xaa);
        bytes
    };
    assert_eq!(newest(&blank, &blank), (Ok(None), 0));
    assert_eq!(newest(&at(1), &blank), (Ok(Some(1)), 1));
    assert_eq!(newest(&at(1), &at(2)), (Ok(Some(2)), 0));
    assert_eq!(newest(&at(3), &at(2)), (Ok(Some(3)), 1));
    assert_eq!(newest(&torn, &at(8)), (Ok(Some(8)), 0));
    assert_eq!(newest(&at(8), &torn), (Ok(Some(8)), 1));
    assert_eq!(newest(&torn, &blank), (Err(BadLabel::Checksum), 0));
    assert_eq!(newest(&blank, &torn), (Err(BadLabel::Checksum), 0));
    let other = Label { pool: PoolUuid::from_random(1), sequence: 50, ..on_one() }.encode().unwrap();
    assert_eq!(newest(&at(1), &other).0, Err(BadLabel::Disagree));
}

fn member(minor: u32, device: u128, sequence: u64, map: &Label) -> Member {
    let label = Label { device: DeviceUuid(device), sequence, ..map.clone() };
    Member { devno: DevNo::new(8, minor), name: format!("sd{minor}"), length: Sectors::new(2000 * MIB), label }
}

#[test]
fn a_pool_is_put_together_from_the_newest_map() {
    let old = label(vec![linear(Purpose::Metadata, 1, 1, 16), linear(Purpose::Data, 2, 1, 500)]);
    let mut new = old.clone();
    new.map.push(linear(Purpose::Data, 3, 1, 500));
    let members = [member(0, 3, 8, &new), member(16, 1, 7, &old), member(32, 2, 7, &old), member(48, 9, 2, &old)];
    let pool = assemble(&members).unwrap();
    assert_eq!(pool.label.map, new.map);
    assert_eq!(pool.devices.get(&DeviceUuid(3)), Some(&DevNo::new(8, 0)));
    assert_eq!(pool.behind, [DevNo::new(8, 16), DevNo::new(8, 32)]);
    assert_eq!(assemble(&members[1..]).unwrap().label.map, old.map, "without the new device the old map is whole");
}

#[test]
fn what_does_not_come_to_a_pool_says_why() {
    let two = label(vec![linear(Purpose::Metadata, 1, 1, 16), linear(Purpose::Data, 2, 1, 500)]);
    let (first, second) = (member(0, 1, 7, &two), member(16, 2, 7, &two));
    assert_eq!(assemble(&[]), Err(Unassembled::None));
    assert_eq!(assemble(std::slice::from_ref(&first)), Err(Unassembled::Missing(vec![DeviceUuid(2)])));
    let copy = member(32, 2, 6, &two);
    let error = assemble(&[first.clone(), second.clone(), copy]).unwrap_err();
    assert_eq!(error.to_string(), "sd16 and sd32 have one label: one is a copy of the other");
    let mut shorter = second.clone();
    shorter.length = Sectors::new(400 * MIB);
    assert!(assemble(&[first.clone(), shorter]).unwrap_err().to_string().contains("sd16 has 400.0 MiB"));
    let mut other = second;
    other.label.map[1].length = Sectors::new(499 * MIB);
    assert!(matches!(assemble(&[first, other]), Err(Unassembled::Disagree { .. })));
}

prop_compose! {
    /// A map of devices that are filled one piece behind the other.
    fn any_map()(pieces in prop::collection::vec((0_u8..3, 1_u128..6, 1_u64..5000), 0..60), stripes in 0_usize..6)
        -> Vec<Segment>
    {
        let mut end = [1_u64; 6];
        let mut map = vec![linear(Purpose::Metadata, 1, 1, 2), linear(Purpose::Data, 1, 3, 1)];
        end[1] = 4;
        for (purpose, device, mib) in pieces {
            let place = &mut end[usize::try_from(device).unwrap()];
            let purpose = [Purpose::Metadata, Purpose::Room, Purpose::Data][usize::from(purpose)];
            map.push(linear(purpose, device, *place, mib));
            *place += mib;
        }
        if stripes > 1 {
            let legs: Vec<_> = (0..stripes).map(|i| leg(100 + u128::try_from(i).unwrap(), 1)).collect();
            let length = Sectors::new(u64::try_from(stripes).unwrap() * 128 * 10);
            map.push(Segment { purpose: Purpose::Data, length, legs, chunk: Some(Sectors::new(128)) });
        }
        map
    }
}

proptest! {
    #[test]
    fn any_label_comes_back(map in any_map(), sequence in any::<u64>(), pool in any::<u128>(), name in "[a-z0-9][a-z0-9_.-]{0,110}") {
        let label = Label { sequence, pool: PoolUuid::from_random(pool), name: PoolName::new(&format!("{name}x")).unwrap(), ..label(map) };
        prop_assert_eq!(Label::decode(&label.encode().unwrap()), Ok(label));
    }

    #[test]
    fn any_flipped_bit_is_found(map in any_map(), at in 0_usize..SLOT_BYTES, bit in 0_u8..8) {
        let mut bytes = label(map).encode().unwrap();
        bytes[at] ^= 1 << bit;
        let wanted = if at < 16 { BadLabel::Absent } else { BadLabel::Checksum };
        prop_assert_eq!(Label::decode(&bytes), Err(wanted));
    }

    #[test]
    fn any_end_is_found(length in 0_usize..SLOT_BYTES) {
        let bytes = on_one().encode().unwrap();
        prop_assert_eq!(Label::decode(&bytes[..length]), Err(BadLabel::Short(length)));
        // Where the rest was not written, the old bytes stand.
        let mut torn = bytes.clone();
        torn[length..].fill(0xff);
        prop_assert!(Label::decode(&torn).is_err());
    }

    /// Whatever somebody who knows the checksum writes: an answer, and one that can be written again.
    #[test]
    fn any_bytes_give_an_answer(at in 20_usize..600, value in any::<u8>(), more in prop::collection::vec((20_usize..400, any::<u8>()), 0..6)) {
        let bytes = sealed(striped().encode().unwrap(), at, value);
        let bytes = more.into_iter().fold(bytes, |bytes, (at, value)| sealed(bytes, at, value));
        if let Ok(label) = Label::decode(&bytes) {
            prop_assert_eq!(label.encode().unwrap(), bytes);
        }
    }
}
