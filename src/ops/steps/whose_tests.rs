#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use super::*;

const POOL: u128 = 7;

fn pool() -> PoolUuid {
    PoolUuid::from_random(POOL)
}

fn is_its_at(at: u64, found: &[u8], before: &[u8]) -> bool {
    is_its(Bytes::new(at), found, before, &pool(), DeviceUuid::from_random(1))
}

#[test]
fn what_was_there_and_zeros_are_its_in_any_mix_of_pieces() {
    let before: Vec<u8> = (1..=4).flat_map(|number| vec![number; SLOT_BYTES]).collect();
    for keeps in 0..16_u8 {
        let mut found = before.clone();
        for piece in (0..4).filter(|piece| keeps & 1 << piece == 0) {
            found[piece * SLOT_BYTES..][..SLOT_BYTES].fill(0);
        }
        assert!(is_its_at(0, &found, &before), "{keeps:b}");
        found[SLOT_BYTES + 7] = 99;
        assert!(!is_its_at(0, &found, &before), "{keeps:b}");
    }
}

#[test]
fn one_foreign_byte_makes_a_blank_device_somebody_elses() {
    let blank = vec![0; usize::try_from(AREA.get()).unwrap() + SLOT_BYTES];
    assert!(is_its_at(0, &blank, &blank));
    let slots = SLOTS.map(|slot| usize::try_from(slot.get()).unwrap());
    for at in [0, 1024, slots[0], slots[1] + 4095, blank.len() - 1] {
        let mut found = blank.clone();
        found[at] = 1;
        assert!(!is_its_at(0, &found, &blank), "{at}");
    }
}

#[test]
fn a_torn_slot_is_made_of_sectors_of_its_labels() {
    let (old, new) = (vec![1; SLOT_BYTES], vec![2; SLOT_BYTES]);
    let mut torn = old.clone();
    torn[..SECTOR].copy_from_slice(&new[..SECTOR]);
    torn[SECTOR..2 * SECTOR].fill(0);
    assert!(is_mix(&torn, &[&old, &new], SECTOR) && !is_mix(&torn, &[&old], SECTOR));
    torn[3] = 1;
    assert!(!is_mix(&torn, &[&old, &new], SECTOR));
    assert!(is_slot(&[0; SLOT_BYTES], &[]) && !is_slot(&old, &[]) && !may_be_erased(&old, &[]));
}
