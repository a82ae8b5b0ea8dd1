#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::cast_possible_truncation, reason = "tests")]

use proptest::prelude::*;

use super::*;

const PAGE: usize = 4096;

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

fn header(page: &mut [u8], id: u64, flags: u16, count: usize) {
    put(page, 0, &id.to_le_bytes());
    put(page, 8, &flags.to_le_bytes());
    put(page, 10, &u16::try_from(count).unwrap().to_le_bytes());
}

/// A leaf page of keys and values, each with its flag; exactly as long as it must be.
fn leaf(id: u64, items: &[(&str, u32, &[u8])]) -> Vec<u8> {
    let length: usize = items.iter().map(|(key, _, value)| 16 + key.len() + value.len()).sum();
    let mut page = vec![0; HEADER + length];
    header(&mut page, id, LEAF, items.len());
    let mut data = HEADER + 16 * items.len();
    for (n, (key, flags, value)) in items.iter().enumerate() {
        let entry = HEADER + 16 * n;
        let fields = [*flags, (data - entry) as u32, key.len() as u32, value.len() as u32];
        for (n, field) in fields.iter().enumerate() {
            put(&mut page, entry + 4 * n, &field.to_le_bytes());
        }
        put(&mut page, data, key.as_bytes());
        put(&mut page, data + key.len(), value);
        data += key.len() + value.len();
    }
    page
}

fn meta_page(id: u64, transaction: u64, root: u64) -> Vec<u8> {
    let mut page = vec![0; PAGE];
    header(&mut page, id, 4, 0);
    put(&mut page, 16, &MAGIC.to_le_bytes());
    put(&mut page, 20, &VERSION.to_le_bytes());
    put(&mut page, 24, &4096_u32.to_le_bytes());
    put(&mut page, 32, &root.to_le_bytes());
    put(&mut page, 64, &transaction.to_le_bytes());
    let sum = fnv_1a(&page[16..16 + SUMMED]);
    put(&mut page, 72, &sum.to_le_bytes());
    page
}

/// A database with one bucket of values, in a page of its own below a branch.
pub(crate) fn database(bucket: &str, values: &[(&str, &[u8])]) -> Vec<u8> {
    let mut bytes = [meta_page(0, 6, 9), meta_page(1, 7, 2)].concat();
    let mut inner = 3_u64.to_le_bytes().to_vec();
    inner.extend([0; 8]);
    bytes.extend(leaf(2, &[("an inline one", 1, &inline()), (bucket, 1, &inner)]));
    bytes.resize(3 * PAGE, 0);
    let mut branch = vec![0; PAGE];
    header(&mut branch, 3, BRANCH, 1);
    put(&mut branch, HEADER + 8, &4_u64.to_le_bytes());
    bytes.extend(branch);
    let items: Vec<_> = values.iter().map(|(key, value)| (*key, 0, *value)).collect();
    let mut page = leaf(4, &items);
    let pages = page.len().div_ceil(PAGE);
    page.resize(pages * PAGE, 0);
    put(&mut page, 12, &(pages as u32 - 1).to_le_bytes());
    bytes.extend(page);
    bytes
}

fn inline() -> Vec<u8> {
    let mut value = vec![0; 16];
    value.extend(leaf(0, &[("k", 0, b"v")]));
    value
}

fn values(bytes: &[u8], bucket: &str) -> Result<Vec<(String, String)>, BadBolt> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let found = Bolt::parse(bytes)?.root().bucket(bucket)?.ok_or(BadBolt::NoMeta)?;
    let pair = |(key, item): (&[u8], Item<'_>)| match item {
        Item::Value(value) => (text(key), text(value)),
        Item::Bucket(_) => (text(key), "a bucket".to_owned()),
    };
    Ok(found.items()?.into_iter().map(pair).collect())
}

#[test]
fn branches_leaves_overflow_and_inline_buckets_are_read() {
    let long = "x".repeat(9000);
    let bytes = database("devices", &[("a", b"1"), ("b", long.as_bytes())]);
    let expected = [("a".to_owned(), "1".to_owned()), ("b".to_owned(), long)];
    assert_eq!(values(&bytes, "devices").unwrap(), expected);
    assert_eq!(values(&bytes, "an inline one").unwrap(), [("k".to_owned(), "v".to_owned())]);
    assert_eq!(Bolt::parse(&bytes).unwrap().transaction(), 7);
}

#[test]
fn the_newest_whole_meta_counts() {
    let mut bytes = database("devices", &[("a", b"1")]);
    put(&mut bytes, PAGE + 64, &99_u64.to_le_bytes());
    assert_eq!(Bolt::parse(&bytes).unwrap().transaction(), 6, "the second one was torn");
    assert_eq!(values(&bytes, "devices"), Err(BadBolt::Page(9)), "and the first one is of an older state");
    let mut bytes = database("devices", &[("a", b"1")]);
    bytes[..PAGE].fill(0);
    assert_eq!(values(&bytes, "devices").unwrap().len(), 1, "the first one was lost");
    bytes[PAGE..2 * PAGE].fill(0);
    assert_eq!(values(&bytes, "devices"), Err(BadBolt::NoMeta));
}

#[test]
fn a_tree_that_leads_back_into_itself_ends() {
    let mut bytes = database("devices", &[("a", b"1")]);
    put(&mut bytes, 3 * PAGE + HEADER + 8, &3_u64.to_le_bytes());
    assert_eq!(values(&bytes, "devices"), Err(BadBolt::Endless));
    put(&mut bytes, 3 * PAGE + HEADER + 8, &(u64::MAX / 4096).to_le_bytes());
    assert!(matches!(values(&bytes, "devices"), Err(BadBolt::Page(_))));
}

proptest! {
    #[test]
    fn no_damage_makes_it_panic_or_run_for_ever(
        damage in proptest::collection::vec((8192_usize..20480, any::<u8>()), 1..40),
        length in 0_usize..20480,
    ) {
        let mut bytes = database("devices", &[("a", b"1"), ("b", b"22")]);
        for (at, byte) in damage {
            if let Some(slot) = bytes.get_mut(at) {
                *slot = byte;
            }
        }
        let _ = values(&bytes, "devices");
        bytes.truncate(length);
        let _ = values(&bytes, "devices");
    }

    #[test]
    fn headers_and_entries_of_any_kind_never_panic(
        damage in proptest::collection::vec((0_usize..3, 0_usize..80, any::<u8>()), 1..30),
    ) {
        let mut bytes = database("devices", &[("a", b"1"), ("b", b"22")]);
        for (page, at, byte) in damage {
            bytes[(2 + page) * PAGE + at] = byte;
        }
        let _ = values(&bytes, "devices");
        let _ = values(&bytes, "an inline one");
    }
}

#[test]
fn what_is_read_again_and_again_comes_to_an_end() {
    let bytes = database("devices", &[("a", b"1"), ("b", b"22")]);
    let bolt = Bolt::parse(&bytes).unwrap();
    bolt.items.set(7);
    let devices = bolt.root().bucket("devices").unwrap().unwrap();
    assert_eq!(devices.value("b").unwrap(), Some(&b"22"[..]));
    assert_eq!(devices.items().map(|items| items.len()), Ok(2));
    assert_eq!(devices.items().map(|items| items.len()).err(), Some(BadBolt::TooMany));
}
