//! Every write to a pool's disk, labels torn besides, is played back: wherever a power cut falls, the pool comes up with a
//! size that it had, or, before it was made, the refusal says why.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use dmpool::pool::label::{SLOT_BYTES, SLOTS};
use lab::guest::boot;
use lab::guest::disk::LoopDisk;
use lab::guest::log_writes::{Flags, Log, Replay};
use lab::guest::run::Cmd;
use lab::guest::wrap::{Behaviour, Wrapped};

use crate::support::Bench;

const M: u64 = 1 << 20;

/// The metadata of the pool, as it is made and as it grows: a label each time.
const SIZES: [u64; 3] = [4 * M, 5 * M, 6 * M];

#[test]
fn the_pool_comes_up_whatever_write_to_its_disk_was_torn() {
    boot::stop_udev();
    boot::time_limit(Duration::from_secs(900));
    let bench = Bench::new();
    let (disk, copy) = (bench.sweep.path("disk"), bench.sweep.path("copy"));
    let log_disk = LoopDisk::create(&bench.sweep.path("log"), 256 * M).unwrap();
    record(&bench, &disk, &log_disk);
    File::create(&copy).unwrap().set_len(128 * M).unwrap();
    let log = Log::open(log_disk.device()).unwrap();
    let marks = ["made", "grown", "regrown"].map(|mark| log.mark(mark).unwrap());
    let mut replay = Replay::new(&log, &copy).unwrap();
    let (mut seen, mut torn) = (BTreeSet::new(), 0);
    loop {
        let before = SLOTS.map(|slot| bytes(&copy, slot.get()));
        let Some(entry) = replay.step().unwrap() else { break };
        let stage = marks.iter().filter(|mark| replay.done() >= **mark).count();
        for (slot, old) in SLOTS.iter().zip(&before) {
            let new = bytes(&copy, slot.get());
            if new == *old {
                continue;
            }
            // A disk writes whole sectors.
            for sectors in [1, 4, 7] {
                let half = [&new[..sectors * 512], &old[sectors * 512..]].concat();
                put(&copy, slot.get(), &half);
                comes_up(&bench, &copy, stage, &format!("entry {}, {sectors} sectors of a label", replay.done()));
                torn += 1;
            }
            put(&copy, slot.get(), &new);
        }
        let settles = entry.mark.is_some() || entry.flags.has(Flags::FLUSH) || entry.flags.has(Flags::FUA);
        let looks = [bytes(&copy, SLOTS[0].get()), bytes(&copy, SLOTS[1].get()), bytes(&copy, M)];
        if settles && seen.insert((stage, looks)) {
            comes_up(&bench, &copy, stage, &format!("entry {}", replay.done()));
        }
    }
    println!("  {} states, {torn} torn labels", seen.len());
    assert!(seen.len() > 4 && torn >= 9, "three labels are written, and superblocks");
}

/// Lets dmpool make a pool on a disk whose writes are logged, and give it more metadata twice.
fn record(bench: &Bench, disk: &Path, log: &LoopDisk) {
    let below = LoopDisk::create(disk, 128 * M).unwrap();
    let name = bench.sweep.name("logged");
    let wrapped = Wrapped::new(&name, below.device(), &Behaviour::LogWrites(log.device().into())).unwrap();
    let (pool, device) = (bench.pool(), wrapped.device());
    bench.ok(&["create", &pool, "--data-device", device.to_str().unwrap()]);
    wrapped.mark("made").unwrap();
    for (size, mark) in SIZES[1..].iter().zip(["grown", "regrown"]) {
        bench.ok(&["grow", &pool, "--metadata", &size.to_string()]);
        wrapped.mark(mark).unwrap();
    }
    bench.ok(&["deactivate", &pool]);
    wrapped.remove().unwrap();
}

/// The pool has one of the sizes that it may have by then; before it was made, it may be refused with the reason.
fn comes_up(bench: &Bench, copy: &Path, stage: usize, what: &str) {
    let trial = bench.sweep.path("trial");
    Cmd::new("cp").arg("--sparse=always").arg(copy).arg(&trial).run().checked().unwrap();
    let _attached = LoopDisk::attach(&trial).unwrap();
    let ran = bench.run(&["activate", &bench.pool()]);
    if stage == 0 && !ran.ok() {
        let says = ["none of its devices is here", "is blank", "label", "superblock"];
        assert!(ran.code() == Some(3) && says.iter().any(|why| ran.stderr.contains(why)), "after {what}: {ran}");
        return;
    }
    assert!(ran.ok(), "after {what}: {ran}");
    let (from, to) = (stage.saturating_sub(1), stage.min(SIZES.len() - 1));
    let size = bench.number("/pool/metadata/total");
    assert!(SIZES[from..=to].contains(&size), "after {what}: {size} of {:?}", &SIZES[from..=to]);
    bench.ok(&["deactivate", &bench.pool()]);
}

fn bytes(path: &Path, at: u64) -> Vec<u8> {
    let mut bytes = vec![0; SLOT_BYTES];
    File::open(path).unwrap().read_exact_at(&mut bytes, at).unwrap();
    bytes
}

fn put(path: &Path, at: u64, bytes: &[u8]) {
    OpenOptions::new().write(true).open(path).unwrap().write_all_at(bytes, at).unwrap();
}
