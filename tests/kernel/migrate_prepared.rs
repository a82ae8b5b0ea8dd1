//! What `migrate --prepare` rests on, as the kernel does it: which blocks of a volume in use are never written again.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

use dmpool::kernel::block;
use dmpool::kernel::dm::Dm;
use dmpool::metadata::{mapping, times};
use dmpool::ops::migrate::blocks::{Origin, Source};
use dmpool::units::{META_BLOCK_BYTES, MetaBlock};
use lab::guest::run::Cmd;
use lab::guest::sys::dmsetup;

use crate::support::Bench;
use crate::support::pools::HandMade;

const BLOCK: u64 = 64 << 10;
const M: u64 = 1 << 20;

/// What a volume maps: by the block in it, the data block and its time. And when it was shared last.
fn mapped(pool: &str, metadata: &Path, id: u64) -> (BTreeMap<u64, (u64, u32)>, u32) {
    // The kernel commits with that.
    dmsetup(["status", pool]).run().checked().unwrap();
    let source = Source::open(&Dm::open().unwrap(), &Origin::Pool(pool.to_owned())).unwrap();
    let file = block::open_direct(block::devno_of(metadata).unwrap()).unwrap();
    let read =
        |at: MetaBlock| block::read_direct(&file, at.get() * META_BLOCK_BYTES, 4096).map_err(|e| format!("{e:#}"));
    let superblock = &source.metadata.superblock;
    let root = source.metadata.roots().unwrap()[&id];
    let mut found = BTreeMap::new();
    for run in mapping::runs(superblock, root, read) {
        let run = run.unwrap();
        for at in 0..run.length.get() {
            found.insert(run.begin.get() + at, (run.data.get() + at, run.time));
        }
    }
    (found, times(superblock, read).unwrap()[&id].snapshotted)
}

fn write(device: &Path, at: u64, byte: u8, length: u64) {
    let file = OpenOptions::new().write(true).open(device).unwrap();
    file.write_all_at(&vec![byte; usize::try_from(length).unwrap()], at * BLOCK).unwrap();
    file.sync_all().unwrap();
}

/// What the data holds at a block, read past the page cache, as the copy reads it.
fn held(data: &File, at: u64) -> u8 {
    let bytes = block::read_direct(data, at * BLOCK, 4096).unwrap();
    assert!(bytes.iter().all(|byte| *byte == bytes[0]));
    bytes[0]
}

#[test]
fn a_block_with_a_time_before_its_volume_was_shared_is_never_written_again() {
    let bench = Bench::new();
    let pool = HandMade::new(&bench, "facts", 2 * M, 4 * M);
    let message = |text: &str| drop(dmsetup(["message", &pool.name, "0", text]).run().checked().unwrap());
    let name = bench.sweep.name("thin");
    let device = Path::new("/dev/mapper").join(&name);
    let up = |id: u32| {
        let table = format!("0 {} thin /dev/mapper/{} {id}", 16 * M / 512, pool.name);
        dmsetup(["create", &name, "--table", &table]).run().checked().unwrap();
    };
    let down = || drop(dmsetup(["remove", "--retry", &name]).run().checked().unwrap());
    let look = || mapped(&pool.name, pool.metadata.device(), 1);
    let data = block::open_direct(block::devno_of(pool.data.device()).unwrap()).unwrap();

    message("create_thin 1");
    up(1);
    (0..8).for_each(|at| write(&device, at, 1, BLOCK));
    let (own, shared) = look();
    assert!(own.values().all(|(_, time)| *time >= shared), "nothing was shared: {own:?} {shared}");
    (0..8).for_each(|at| write(&device, at, 2, BLOCK));
    assert_eq!(look().0, own, "what is its own is written in its place, and the metadata does not tell");
    assert!(own.values().all(|(block, _)| held(&data, *block) == 2));

    // Shared, and then its own again: the snapshot goes before anything is written.
    dmsetup(["suspend", &name]).run().checked().unwrap();
    message("create_snap 2 1");
    dmsetup(["resume", &name]).run().checked().unwrap();
    message("delete 2");
    let (same, shared) = look();
    assert_eq!(same, own);
    assert!(same.values().all(|(_, time)| *time < shared), "all of it was shared: {same:?} {shared}");
    (0..4).for_each(|at| write(&device, at, 3, BLOCK));
    write(&device, 4, 3, 4096);
    let (now, _) = look();
    for at in 0..8 {
        let ((before, time), (after, then)) = (own[&at], now[&at]);
        assert_eq!((before, time) == (after, then), at > 4, "place {at}");
        // Where it was written to goes another block, with a later time; a block that is free by now may be that one.
        assert!(at > 4 || then > time, "place {at}: {then} after {time}");
    }
    (5..8).for_each(|at| assert_eq!(held(&data, own[&at].0), 2, "place {at}"));
    (0..4).for_each(|at| assert_eq!(held(&data, now[&at].0), 3, "place {at}"));

    // A block that is given up and given out again has another time: the pool is so small that it must be.
    let mut again = 0;
    for _ in 0..5 {
        Cmd::new("blkdiscard").args(["-o", "0", "-l", "1M"]).arg(&device).run().checked().unwrap();
        look();
        (0..8).for_each(|at| write(&device, at, 4, BLOCK));
        let (now, _) = look();
        again += now.values().filter(|(block, _)| own.values().any(|(before, _)| before == block)).count();
        assert!(now.values().all(|mapped| own.values().all(|before| before != mapped)), "{own:?} {now:?}");
    }
    assert!(again > 0, "none of {own:?} was given out again");
    down();
}
