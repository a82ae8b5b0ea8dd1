//! The volumes of one pool written into another: the same bytes in each, shared where they were shared, whatever the length of
//! the blocks; and what was begun goes on.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::Path;

use dmpool::engine::bookkeeping::Device;
use dmpool::kernel::dm::Dm;
use dmpool::ops::State;
use dmpool::ops::migrate::blocks::{Family, Mark, Origin, Source, Target, compare, fill, need};
use dmpool::ops::steps::Kit;
use dmpool::units::{BlockSize, Bytes};
use lab::guest::boot;
use lab::guest::run::Cmd;
use lab::guest::sys::dmsetup;

use crate::support::Bench;
use crate::support::pools::HandMade;

const K: u64 = 1 << 10;
const M: u64 = 1 << 20;
/// How long each volume is: no whole number of the larger blocks.
const SIZE: u64 = 24 * M + 192 * K;

/// The volumes: which each is a snapshot of.
const VOLUMES: [(u32, Option<u32>); 5] = [(1, None), (7, Some(1)), (3, Some(7)), (4, Some(7)), (9, None)];

#[test]
fn volumes_are_the_same_in_blocks_of_another_length() {
    let bench = Bench::new();
    let kit = Kit::new(Dm::open().unwrap(), State::below(&bench.state));
    let old = HandMade::new(&bench, "old", 256 * M, 4 * M);
    let before = made(&bench, &old.name);
    let dir = bench.dir.to_str().unwrap();
    // The least regular one first; a whole Docker is carried to blocks of 512K elsewhere.
    let sizes = [("192K", 56 * M), ("512K", 70 * M), ("64K", 44 * M), ("16M", 200 * M)];
    for (block, most) in sizes.into_iter().take(if boot::full() { 4 } else { 1 }) {
        let pool = bench.sweep.name(&format!("n{block}"));
        let args =
            ["create", &pool, "--dir", dir, "--data-size", "384M", "--metadata-size", "4M", "--block-size", block];
        bench.ok(&args);
        let target = Target {
            pool: pool.clone(),
            uuid: uuid(&pool),
            block: BlockSize::of_bytes(Bytes::parse(block).unwrap()).unwrap(),
        };
        let source = Source::idle(&kit.dm, &Origin::Pool(old.name.clone())).unwrap();
        let family = family(&source);
        let needed = need(&source.metadata, &family, target.block).unwrap();
        fill(&kit, &source, &family, &target).unwrap();
        compare(&kit, &source, &family, &target).unwrap();
        let used = used(&pool, block);
        assert!(used <= needed.get() && needed.get() <= most, "{block}: {used} of {needed:?} used");
        for (id, _) in VOLUMES {
            assert!(bytes(&bench, &pool, id) == before[&id], "volume {id} in blocks of {block}");
        }
        if ["192K", "512K"].contains(&block) {
            goes_on(&kit, &bench, &source, &family, &target);
        }
        bench.ok(&["destroy", &pool, "--with-volumes", "--yes"]);
    }
    for (id, _) in VOLUMES {
        assert!(bytes(&bench, &old.name, id) == before[&id], "the old volume {id} is as it was");
    }
}

/// What is not whole is made again, and what is not the same is found.
fn goes_on(kit: &Kit, bench: &Bench, source: &Source, family: &Family, target: &Target) {
    let ids: Vec<_> = family.members.iter().map(|member| member.id.get()).collect();
    let whole = u32::try_from(ids.len()).unwrap();
    assert_eq!(Mark::of(target.transaction(kit).unwrap()).unwrap().whole, whole);
    // As after a death in the copying of the last: it is there, and is not counted.
    target.set_transaction(kit, Mark { seal: source.metadata.seal, whole: whole - 1 }.id()).unwrap();
    spoil(bench, &target.pool, ids[ids.len() - 1]);
    fill(kit, source, family, target).unwrap();
    compare(kit, source, family, target).unwrap();
    spoil(bench, &target.pool, ids[1]);
    let why = format!("{:#}", compare(kit, source, family, target).unwrap_err());
    assert!(why.contains(&format!("volume {}", ids[1])) && why.contains("byte 2097152"), "{why}");
    // Of another state of the old pool nothing is trusted.
    target.set_transaction(kit, Mark { seal: !source.metadata.seal, whole }.id()).unwrap();
    fill(kit, source, family, target).unwrap();
    compare(kit, source, family, target).unwrap();
}

fn family(source: &Source) -> Family {
    let name = |id: u32| if id == 1 { "base".to_owned() } else { format!("layer-{id}") };
    let device = |id| Device { id, size: Bytes::new(SIZE), transaction_id: 1, initialized: false, deleted: false };
    let records: BTreeMap<_, _> = VOLUMES.iter().map(|(id, _)| (name(*id), device(*id))).collect();
    let below = VOLUMES.iter().filter_map(|(id, parent)| Some((name(*id), name((*parent)?)))).collect();
    Family::of(&source.metadata.details().unwrap(), &records, &below)
}

/// Fills the old pool, and returns what each volume holds.
fn made(bench: &Bench, pool: &str) -> BTreeMap<u32, Vec<u8>> {
    for (id, parent) in VOLUMES {
        let make = match parent {
            Some(parent) => format!("create_snap {id} {parent}"),
            None => format!("create_thin {id}"),
        };
        dmsetup(["message", pool, "0", &make]).run().checked().unwrap();
        with_volume(bench, pool, id, |device| {
            let file = OpenOptions::new().write(true).open(device).unwrap();
            let of = |at: u64, length: u64| {
                let mut bytes = vec![0; usize::try_from(length).unwrap()];
                let mut seed = u64::from(id) << 32 | at;
                for chunk in bytes.chunks_mut(8) {
                    seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    chunk.copy_from_slice(&seed.to_le_bytes()[..chunk.len()]);
                }
                file.write_all_at(&bytes, at).unwrap();
            };
            match id {
                1 => [(0, 12 * M), (SIZE - 64 * K, 64 * K)].iter().for_each(|(at, length)| of(*at, *length)),
                // Within a block, over the border of two, and in rows.
                7 => [(4 * K, 4 * K), (1020 * K, 8 * K), (3 * M, M), (20 * M, 300 * K)]
                    .iter()
                    .for_each(|(at, length)| of(*at, *length)),
                3 => (0..40).for_each(|row| of(5 * M + row * 136 * K, 4 * K)),
                4 => of(18 * M, 2 * M),
                _ => [(64 * K, 64 * K), (16 * M, 3 * M)].iter().for_each(|(at, length)| of(*at, *length)),
            }
            file.sync_all().unwrap();
            if id == 3 || id == 4 {
                // Half of a large block, and several of them.
                for range in [["-o", "8M", "-l", "64K"], ["-o", "9M", "-l", "2M"], ["-o", "20M", "-l", "128K"]] {
                    Cmd::new("blkdiscard").args(range).arg(device).run().checked().unwrap();
                }
            }
        });
    }
    VOLUMES.iter().map(|(id, _)| (*id, bytes(bench, pool, *id))).collect()
}

fn with_volume<T>(bench: &Bench, pool: &str, id: u32, look: impl FnOnce(&Path) -> T) -> T {
    let name = bench.sweep.name("look");
    let table = format!("0 {} thin /dev/mapper/{pool} {id}", SIZE / 512);
    dmsetup(["create", &name, "--table", &table]).run().checked().unwrap();
    let found = look(&Path::new("/dev/mapper").join(&name));
    dmsetup(["remove", "--retry", &name]).run().checked().unwrap();
    found
}

fn bytes(bench: &Bench, pool: &str, id: u32) -> Vec<u8> {
    with_volume(bench, pool, id, |device| std::fs::read(device).unwrap())
}

fn spoil(bench: &Bench, pool: &str, id: u32) {
    with_volume(bench, pool, id, |device| {
        let file = OpenOptions::new().write(true).open(device).unwrap();
        file.write_all_at(&[0; 4096], 2 * M).unwrap();
        file.sync_all().unwrap();
    });
}

fn uuid(pool: &str) -> String {
    let ran = dmsetup(["info", "-c", "--noheadings", "-o", "uuid", pool]).run().checked().unwrap();
    ran.stdout.trim().to_owned()
}

fn used(pool: &str, block: &str) -> u64 {
    let ran = dmsetup(["status", pool]).run().checked().unwrap();
    let used = ran.stdout.split_whitespace().nth(5).and_then(|used| used.split('/').next()).unwrap();
    used.parse::<u64>().unwrap() * Bytes::parse(block).unwrap().get()
}
