#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use proptest::prelude::*;

use super::*;
use crate::pool::label::Label;
use crate::pool::{Behaviour, PoolName, PoolUuid};

const MIB: u64 = 2048;

fn extent(device: u128, mib: u64) -> Extent {
    Extent { device: DeviceUuid::from_random(device), length: Sectors::new(mib * MIB) }
}

fn wanted(data: &[Extent]) -> Wanted {
    Wanted { data: data.to_vec(), metadata: None, metadata_size: None, chunk: None, block: BlockSize::DEFAULT }
}

fn label(wanted: &Wanted) -> Label {
    let first = wanted.metadata.unwrap_or(*wanted.data.first().unwrap());
    Label {
        sequence: 1,
        pool: PoolUuid::from_random(1),
        name: PoolName::new("p0").unwrap(),
        device: first.device,
        behaviour: Behaviour { block_size: wanted.block, low_water: DataBlocks::new(1), features: Vec::new() },
        map: of_new(wanted).unwrap(),
    }
}

/// The map in MiB: `metadata 1:1+16` is a piece on device 1 at 1 MiB of 16 MiB.
fn drawn(map: &[Segment]) -> Vec<String> {
    let word = |purpose| match purpose {
        Purpose::Metadata => "metadata",
        Purpose::Room => "room",
        Purpose::Data => "data",
    };
    let leg =
        |leg: &Leg| format!("{}:{}", u128::from_str_radix(&leg.device.to_string(), 16).unwrap(), leg.start.get() / MIB);
    let legs = |s: &Segment| s.legs.iter().map(leg).collect::<Vec<_>>().join(",");
    map.iter().map(|s| format!("{} {}+{}", word(s.purpose), legs(s), s.length.get() / MIB)).collect()
}

#[test]
fn the_layouts_of_the_document() {
    let one = wanted(&[extent(1, 1024)]);
    assert_eq!(drawn(&label(&one).map), ["metadata 1:1+4", "room 1:5+12", "data 1:17+1007"]);
    let two = Wanted { metadata: Some(extent(1, 64)), ..wanted(&[extent(2, 1024)]) };
    assert_eq!(drawn(&label(&two).map), ["metadata 1:1+63", "data 2:1+1023"]);
    let chosen = Wanted { metadata_size: Some(Bytes::new(16 << 20)), ..two };
    assert_eq!(drawn(&label(&chosen).map), ["metadata 1:1+16", "room 1:17+47", "data 2:1+1023"]);
    let several = wanted(&[extent(1, 1024), extent(2, 100)]);
    assert_eq!(drawn(&label(&several).map), ["metadata 1:1+4", "room 1:5+12", "data 1:17+1007", "data 2:1+99"]);
    let striped =
        Wanted { chunk: Some(Sectors::new(128)), ..wanted(&[extent(1, 1024), extent(2, 2000), extent(3, 2000)]) };
    assert_eq!(drawn(&label(&striped).map), ["metadata 1:1+8", "room 1:9+24", "data 1:33,2:1,3:1+2973"]);
}

#[test]
fn metadata_has_no_more_than_the_kernel_uses() {
    let huge = Wanted { metadata: Some(extent(1, 20 << 10)), ..wanted(&[extent(2, 1024)]) };
    assert_eq!(drawn(&label(&huge).map), ["metadata 1:1+16256", "data 2:1+1023"]);
}

#[test]
fn a_device_that_is_too_small_is_named() {
    let small = |wanted: &Wanted| of_new(wanted).unwrap_err();
    let needed = |device, mib: u64| TooSmall { device: DeviceUuid::from_random(device), needed: Bytes::new(mib << 20) };
    assert_eq!(small(&wanted(&[extent(1, 4)])), needed(1, 5));
    assert_eq!(small(&wanted(&[extent(1, 5)])), needed(1, 6));
    assert_eq!(small(&wanted(&[extent(1, 100), extent(2, 1)])), needed(2, 2));
    let metadata = Wanted { metadata: Some(extent(1, 2)), ..wanted(&[extent(2, 100)]) };
    assert_eq!(small(&metadata), needed(1, 3));
    let striped = Wanted { chunk: Some(Sectors::new(128)), ..wanted(&[extent(1, 100), extent(2, 1)]) };
    assert_eq!(small(&striped), needed(2, 2));
}

#[test]
fn what_devices_have_more_goes_to_data() {
    let grown = |wanted: &Wanted, now: &[Extent]| {
        let lengths = now.iter().map(|e| (e.device, e.length)).collect();
        drawn(&with_more_data(&label(wanted), &lengths))
    };
    let one = wanted(&[extent(1, 1024)]);
    assert_eq!(grown(&one, &[extent(1, 2048)])[2], "data 1:17+2031");
    assert_eq!(grown(&one, &[extent(1, 1024), extent(2, 100)])[2..], ["data 1:17+1007", "data 2:1+99"]);
    // The first of two cannot become longer: the second stands behind it.
    let two = wanted(&[extent(1, 1024), extent(2, 100)]);
    let after = grown(&two, &[extent(1, 2048), extent(2, 200)]);
    assert_eq!(after[2..], ["data 1:17+1007", "data 2:1+199", "data 1:1024+1024"]);
    let striped = Wanted { chunk: Some(Sectors::new(128)), ..wanted(&[extent(1, 1024), extent(2, 1024)]) };
    assert_eq!(grown(&striped, &[extent(1, 2048), extent(2, 1024)])[2], "data 1:17,2:1+2046");
    assert_eq!(grown(&striped, &[extent(1, 2048), extent(2, 2048)])[2], "data 1:17,2:1+4062");
    let apart = Wanted { metadata: Some(extent(1, 64)), ..wanted(&[extent(2, 1024)]) };
    assert_eq!(grown(&apart, &[extent(1, 512), extent(2, 1024)]), ["metadata 1:1+63", "data 2:1+1023"]);
}

#[test]
fn metadata_grows_into_its_room() {
    let label = label(&wanted(&[extent(1, 1024)]));
    let to = |mib: u64| with_more_metadata(&label, Sectors::new(mib * MIB)).map(|map| drawn(&map));
    assert_eq!(to(3).unwrap()[..2], ["metadata 1:1+4", "room 1:5+12"]);
    assert_eq!(to(6).unwrap()[..2], ["metadata 1:1+6", "room 1:7+10"]);
    assert_eq!(to(16).unwrap()[..2], ["metadata 1:1+16", "data 1:17+1007"]);
    assert_eq!(to(17), None);
    assert_eq!(most_metadata(&label), Bytes::new(16 << 20));
}

#[test]
fn a_device_for_metadata_that_was_enlarged_has_more_room() {
    let apart = Wanted { metadata: Some(extent(1, 64)), ..wanted(&[extent(2, 1024)]) };
    let lengths = [extent(1, 100), extent(2, 2048)].map(|e| (e.device, e.length)).into();
    let map = with_more_room(&label(&apart), &lengths);
    assert_eq!(drawn(&map), ["metadata 1:1+63", "data 2:1+1023", "room 1:64+36"]);
    let chosen = Wanted { metadata_size: Some(Bytes::new(16 << 20)), ..apart };
    assert_eq!(drawn(&with_more_room(&label(&chosen), &lengths))[1], "room 1:17+83");
}

fn some_devices() -> impl Strategy<Value = Wanted> {
    let data = prop::collection::vec(1_u64..5000, 1..5);
    (data, prop::option::of(1_u64..200), prop::option::of(1_u64..64), 1_u64..40, prop::option::of(1_u64..40)).prop_map(
        |(data, metadata, chunk, blocks, size)| Wanted {
            data: (10..).zip(data).map(|(device, mib)| extent(device, mib)).collect(),
            metadata: metadata.map(|mib| extent(1, mib)),
            metadata_size: size.map(|mib| Bytes::new(mib << 20)),
            chunk: chunk.map(|n| Sectors::new(n * 8)),
            block: BlockSize::new(Sectors::new(blocks * 128)).unwrap(),
        },
    )
}

proptest! {
    #[test]
    fn every_map_is_one_that_a_label_takes(wanted in some_devices(), more in prop::collection::vec(0_u64..1000, 6)) {
        let mut lengths: BTreeMap<_, _> = wanted.data.iter().chain(&wanted.metadata).map(|e| (e.device, e.length)).collect();
        let Ok(map) = of_new(&wanted) else { return Ok(()) };
        let mut label = Label { map, ..label(&self::wanted(&[extent(10, 1000)])) };
        label.device = *label.devices().first().unwrap();
        label.behaviour.block_size = wanted.block;
        prop_assert_eq!(label.devices().len(), lengths.len());
        let before = label.clone();
        for (length, mib) in lengths.values_mut().zip(&more) {
            *length = Sectors::new(length.get() + mib * MIB);
        }
        lengths.insert(DeviceUuid::from_random(99), Sectors::new(more.iter().sum::<u64>() * MIB));
        label.map = with_more_data(&label, &lengths);
        for label in [&before, &label] {
            prop_assert!(label.encode().is_ok(), "{:?}", label.encode());
            for device in label.devices() {
                prop_assert!(label.end_on(device) <= lengths[&device]);
            }
        }
        // What the pool has stays where it is.
        for purpose in [Purpose::Metadata, Purpose::Data] {
            let length = before.length(purpose);
            prop_assert_eq!(pieces(&label.map, purpose, length), pieces(&before.map, purpose, length));
        }
    }

    #[test]
    fn pieces_stand_behind_each_other(wanted in some_devices(), length in 1_u64..20_000_000) {
        let Ok(map) = of_new(&wanted) else { return Ok(()) };
        let all: u64 = map.iter().filter(|s| s.purpose == Purpose::Data).map(|s| s.length.get()).sum();
        let mut at = 0;
        for piece in pieces(&map, Purpose::Data, Sectors::new(length)) {
            prop_assert_eq!(piece.start.get(), at);
            at += piece.length.get();
        }
        prop_assert!(at >= length.min(all) && at <= all);
    }
}
