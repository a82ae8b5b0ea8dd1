//! Every write to a pool's disks, labels torn besides, is played back: wherever a power cut falls, the pool comes up with a
//! size that it had, or, before it was made, the refusal says why; and what was interrupted can be ended either way.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use dmpool::pool::label::{SLOT_BYTES, SLOTS};
use lab::guest::boot;
use lab::guest::disk::{Kind, LoopDisk, Mounted};
use lab::guest::log_writes::{Flags, Log, Replay};
use lab::guest::run::Cmd;
use lab::guest::sys::dmsetup;
use lab::guest::wrap::{Behaviour, Wrapped};

use crate::support::linear::Disk;
use crate::support::{Bench, exists};

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
    copy_sparse(copy, &trial);
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

/// Where the parts of one disk begin, in MiB, whose writes are logged in the order in which they were made: dmpool's own
/// state, and three disks for a pool. What is before them is nobody's.
const PARTS: [(&str, u64, u64); 4] = [("state", 8, 24), ("a", 40, 8), ("b", 56, 32), ("c", 96, 32)];

/// What each disk of data holds.
const DATA: u64 = 31 * M;

/// Brings up the parts of the disk, dmpool's own state mounted.
struct Machine {
    bench: Bench,
    state: Mounted,
    disks: Vec<Disk>,
}

impl Machine {
    fn new(bench: Bench, below: &Path, dir: &Path) -> Self {
        let part = |(name, start, mib)| Disk::new(&bench.sweep.name(name), below, start, mib);
        let disks: Vec<_> = PARTS.into_iter().map(part).collect();
        let state = Mounted::mount(Path::new(&disks[0].path()), dir, "defaults").unwrap();
        Self { bench: bench.at(dir), state, disks }
    }

    fn path(&self, part: usize) -> String {
        self.disks[part].path()
    }

    fn down(self) -> Bench {
        let Self { bench, state, disks } = self;
        state.unmount().unwrap();
        drop(disks);
        bench
    }
}

#[test]
fn a_pool_on_several_disks_is_made_grown_and_destroyed_whatever_write_was_torn() {
    boot::stop_udev();
    boot::time_limit(Duration::from_secs(900));
    let bench = Bench::new();
    let [disk, copy, trial, dir] = ["disk", "copy", "trial", "mounted"].map(|name| bench.sweep.path(name));
    let below = LoopDisk::create(&disk, 128 * M).unwrap();
    put(&disk, 0, &[7; SLOT_BYTES]);
    let state = Disk::new(&bench.sweep.name(PARTS[0].0), below.device(), PARTS[0].1, PARTS[0].2);
    Kind::Ext4.format(Path::new(&state.path())).unwrap();
    drop(state);
    Cmd::new("sync").run().checked().unwrap();
    copy_sparse(&disk, &copy);
    let log_disk = LoopDisk::create(&bench.sweep.path("log"), 256 * M).unwrap();
    let mut bench = record_all(bench, &below, &log_disk, &dir);
    drop(below);

    let log = Log::open(log_disk.device()).unwrap();
    let marks = ["made", "added", "destroyed"].map(|mark| log.mark(mark).unwrap());
    let mut replay = Replay::new(&log, &copy).unwrap();
    let (mut seen, mut torn) = (BTreeSet::new(), 0);
    let (mut ways, mut thirds) = (["continue", "undo"].into_iter().cycle(), (0..3).cycle());
    loop {
        let before = blocks(&copy);
        let Some(entry) = replay.step().unwrap() else { break };
        let stage = marks.iter().filter(|mark| replay.done() >= **mark).count();
        let mut tries = Vec::new();
        for ((at, new), (_, old)) in blocks(&copy).iter().zip(&before).filter(|(new, old)| new != old) {
            // A label is within a sector, which a disk writes whole, or so it should. What the kernel writes into its
            // superblock it reads again itself.
            let is_label = SLOTS.iter().any(|slot| PARTS.iter().any(|(_, start, _)| start * M + slot.get() == *at));
            for cut in if boot::full() { [40, 300, 512].as_slice() } else { &[300] } {
                let half = [&new[..*cut], &old[*cut..]].concat();
                if (is_label || new.iter().all(|byte| *byte == 0)) && half != *new && half != *old {
                    tries.push((format!("{cut} bytes at {at}"), Some((*at, half))));
                }
            }
        }
        torn += tries.len();
        let settles = entry.mark.is_some() || entry.flags.has(Flags::FLUSH) || entry.flags.has(Flags::FUA);
        let (labels, superblock) = (blocks(&copy), blocks(&copy).pop().unwrap().1);
        let labels = labels.into_iter().take(2 * PARTS[1..].len()).collect::<Vec<_>>();
        let has_superblock = superblock.iter().any(|byte| *byte != 0);
        if settles && seen.insert((stage, has_superblock, labels)) {
            tries.push((String::new(), None));
        }
        // CI has time for every third of them.
        for (what, half) in tries.into_iter().filter(|_| thirds.next() == Some(0) || boot::full()) {
            for verb in ways.by_ref().take(if boot::full() { 2 } else { 1 }) {
                copy_sparse(&copy, &trial);
                if let Some((at, half)) = &half {
                    put(&trial, *at, half);
                }
                let attached = LoopDisk::attach(&trial).unwrap();
                let machine = Machine::new(bench, attached.device(), &dir);
                machine.is_whole(verb, stage, &format!("entry {} {what}, {verb}", replay.done()));
                bench = machine.down();
                drop(attached);
                assert_eq!(bytes(&trial, 0), [7; SLOT_BYTES], "nobody's bytes");
            }
        }
    }
    println!("  {} states, {torn} torn blocks", seen.len());
    assert!(seen.len() > 10 && torn >= 8, "five labels are written, and three erased with the superblock");
}

/// Lets dmpool make a pool on two disks, add a third one, and destroy it, with all writes in one log.
fn record_all(bench: Bench, below: &LoopDisk, log: &LoopDisk, dir: &Path) -> Bench {
    let name = bench.sweep.name("logged");
    let wrapped = Wrapped::new(&name, below.device(), &Behaviour::LogWrites(log.device().into())).unwrap();
    let machine = Machine::new(bench, &wrapped.device(), dir);
    let (bench, pool) = (&machine.bench, machine.bench.pool());
    bench.ok(&machine.create(&pool).each_ref().map(String::as_str));
    wrapped.mark("made").unwrap();
    bench.ok(&["grow", &pool, "--add-device", &machine.path(3)]);
    wrapped.mark("added").unwrap();
    bench.ok(&["destroy", &pool, "--yes"]);
    wrapped.mark("destroyed").unwrap();
    let bench = machine.down();
    wrapped.remove().unwrap();
    bench
}

impl Machine {
    fn create(&self, pool: &str) -> [String; 8] {
        let [metadata, data] = [1, 2].map(|part| self.path(part));
        ["create", pool, "--metadata-device", &metadata, "--data-device", &data, "--metadata-size", "4M"]
            .map(str::to_owned)
    }

    /// The machine boots, and what was interrupted is ended: there is a whole pool, or none and its disks are free.
    fn is_whole(&self, verb: &str, stage: usize, case: &str) {
        let (bench, pool) = (&self.bench, self.bench.pool());
        let journals = || std::fs::read_dir(bench.state.join("journal")).map_or(0, Iterator::count);
        let is_there = || bench.state.join("registry").join(format!("{pool}.toml")).exists();
        println!("  after {case}: stage {stage}");
        let activated = bench.run(&["activate", "--all"]);
        assert!(activated.ok() && exists(&pool) == is_there(), "after {case}: {activated}");
        assert!(is_there() || stage != 1, "after {case}: made, and forgotten");
        if journals() > 0 {
            let ended = bench.run(if verb == "continue" { &["continue", "--yes"] } else { &["undo"] });
            assert!(ended.ok() && journals() == 0, "after {case}: {ended}");
            // Nobody has asked for less, or for more, than the end or the beginning.
            let is_made = (verb == "undo") == (stage == 2);
            assert!(stage == 1 || is_there() == is_made, "after {case}: {ended}");
        }
        if !is_there() {
            let again = self.create(&bench.sweep.name("other"));
            let free = bench.cmd(&again.each_ref().map(String::as_str)).args(["--wipe", "--dry-run"]).run();
            assert!(free.ok(), "after {case}: {free}");
            return;
        }
        bench.ok(&["activate", &pool]);
        let size = bench.number("/pool/data/total");
        let sizes: &[u64] = match stage {
            0 => &[DATA],
            1 => &[DATA, 2 * DATA],
            _ => &[2 * DATA],
        };
        assert!(sizes.contains(&size), "after {case}: {size} of {sizes:?}");
        let devices = [pool.clone(), format!("{pool}_tdata"), format!("{pool}_tmeta")];
        dmsetup(["remove", "--retry"].into_iter().chain(devices.iter().map(String::as_str))).run().checked().unwrap();
    }
}

/// What makes the disks a pool: their labels, and the superblock.
fn blocks(disk: &Path) -> Vec<(u64, Vec<u8>)> {
    let slots = |(_, start, _): &(&str, u64, u64)| SLOTS.map(|slot| start * M + slot.get());
    let labels = PARTS[1..].iter().flat_map(slots);
    let all = labels.chain([PARTS[1].1 * M + M]);
    all.map(|at| (at, bytes(disk, at))).collect()
}

fn copy_sparse(from: &Path, to: &Path) {
    Cmd::new("cp").arg("--sparse=always").arg(from).arg(to).run().checked().unwrap();
}
