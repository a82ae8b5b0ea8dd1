//! Every write that create, grow, registry and journal made to their disk is played back: wherever a power cut falls,
//! the machine comes up, the pool has its old or its new size, and dmpool tells which.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lab::guest::boot;
use lab::guest::disk::{Kind, LoopDisk, Mounted};
use lab::guest::log_writes::{Flags, Log, Replay};
use lab::guest::run::Cmd;
use lab::guest::sys::dmsetup;
use lab::guest::wrap::{Behaviour, Wrapped};

use crate::support::{Bench, volume};

const M: u64 = 1 << 20;
const DISK: u64 = 128 * M;

/// Data and metadata of the pool, before and after they are grown.
const DATA: [u64; 2] = [32 * M, 64 * M];
const METADATA: [u64; 2] = [4 * M, 5 * M];

/// What is written to the pool's volume before it grows, and how much of it.
const WRITTEN: u8 = 0xa7;
const AMOUNT: u64 = 256 << 10;

#[test]
fn the_machine_comes_up_after_every_write_that_dmpool_made() {
    // Some hundred devices come and go here; waiting for udev over each would take minutes.
    boot::stop_udev();
    boot::time_limit(Duration::from_secs(900));
    let bench = Bench::new();
    let (disk, copy) = (bench.sweep.path("disk"), bench.sweep.path("replayed"));
    let below = LoopDisk::create(&disk, DISK).unwrap();
    Kind::Ext4.format(below.device()).unwrap();
    Cmd::new("sync").run().checked().unwrap();
    copy_sparse(&disk, &copy);
    let log_disk = LoopDisk::create(&bench.sweep.path("log"), 512 * M).unwrap();
    let dir = bench.sweep.path("mounted");
    let bench = record(bench, &below, &log_disk, &dir);

    let log = Log::open(log_disk.device()).unwrap();
    let at = |mark: &str| log.mark(mark).unwrap_or_else(|| panic!("no mark `{mark}`"));
    let marks = Marks {
        created: at("created"),
        written: at("written"),
        grown: at("grown"),
        metadata_grown: at("metadata-grown"),
    };
    let mut replay = Replay::new(&log, &copy).unwrap();
    let mut seen = BTreeSet::new();
    let mut entries = 0;
    while let Some(entry) = replay.step().unwrap() {
        if entry.mark.is_none() && entry.bytes == 0 {
            continue;
        }
        // What lies between two flushes may reach the disk in any order; CI has time for the flushes.
        let settles = entry.mark.is_some() || entry.flags.has(Flags::FLUSH) || entry.flags.has(Flags::FUA);
        if !settles && !boot::full() {
            continue;
        }
        entries += 1;
        // Mounting replays the file system's own journal: on a copy, so that the next entry finds what it must.
        let trial = bench.sweep.path("trial");
        copy_sparse(&copy, &trial);
        let device = LoopDisk::attach(&trial).unwrap();
        let mounted = Mounted::mount(device.device(), &dir, "defaults").unwrap();
        let moment = Moment { bench: &bench, marks: &marks, done: replay.done(), number: seen.len() };
        // Between two syncs most writes change nothing that can be seen: each state is gone through once.
        if seen.insert((moment.stage(), moment.fingerprint())) {
            moment.comes_up();
        }
        mounted.unmount().unwrap();
        drop(device);
    }
    println!("  {entries} writes and marks, {} different states", seen.len());
    assert!(seen.len() > 20, "create and grow sync more often than that");
}

/// Lets dmpool make a pool on a disk whose writes are logged, and grow it.
fn record(bench: Bench, below: &LoopDisk, log: &LoopDisk, dir: &Path) -> Bench {
    let logged = bench.sweep.name("logged");
    let wrapped = Wrapped::new(&logged, below.device(), &Behaviour::LogWrites(log.device().into())).unwrap();
    let mounted = Mounted::mount(&wrapped.device(), dir, "defaults").unwrap();
    let bench = bench.at(mounted.dir());
    Cmd::new("sync").run().checked().unwrap();
    let (pool, base) = (bench.pool(), bench.dir.to_str().unwrap().to_owned());
    let [size, metadata] = [DATA[0], METADATA[0]].map(|size| size.to_string());
    bench.ok(&["create", &pool, "--dir", &base, "--data-size", &size, "--metadata-size", &metadata]);
    wrapped.mark("created").unwrap();
    let name = bench.sweep.name("v");
    let device = volume(&pool, 0, &name, M);
    let amount = usize::try_from(AMOUNT).unwrap();
    fs::write(&device, vec![WRITTEN; amount]).unwrap();
    fs::File::open(&device).unwrap().sync_all().unwrap();
    dmsetup(["remove", "--retry", &name]).run().checked().unwrap();
    wrapped.mark("written").unwrap();
    bench.ok(&["grow", &pool, "--overcommit", &DATA[1].to_string()]);
    wrapped.mark("grown").unwrap();
    bench.ok(&["grow", &pool, "--overcommit", "--metadata", &METADATA[1].to_string()]);
    wrapped.mark("metadata-grown").unwrap();
    bench.ok(&["deactivate", &pool]);
    mounted.unmount().unwrap();
    wrapped.remove().unwrap();
    bench
}

/// How many entries there are up to the end of each operation.
struct Marks {
    created: usize,
    written: usize,
    grown: usize,
    metadata_grown: usize,
}

/// The disk as a power cut after some entry leaves it, mounted.
struct Moment<'t> {
    bench: &'t Bench,
    marks: &'t Marks,
    done: usize,
    number: usize,
}

impl Moment<'_> {
    /// How many of the operations had returned by then.
    fn stage(&self) -> usize {
        let Marks { created, written, grown, metadata_grown } = *self.marks;
        [created, written, grown, metadata_grown].into_iter().filter(|mark| self.done >= *mark).count()
    }

    /// What dmpool will see: registry, journals, lengths, the pool's superblock.
    fn fingerprint(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for folder in ["registry", "journal"] {
            for path in files_in(&self.bench.state.join(folder)) {
                bytes.extend(path.to_string_lossy().bytes());
                bytes.extend(fs::read(path).unwrap());
            }
        }
        for path in [self.bench.dir.join(self.bench.pool()), self.bench.file("metadata"), self.bench.file("data")] {
            let length = fs::metadata(&path).map_or(u64::MAX, |found| found.len());
            bytes.extend(length.to_le_bytes());
        }
        if let Ok(file) = fs::File::open(self.bench.file("metadata")) {
            file.take(4096).read_to_end(&mut bytes).unwrap();
        }
        bytes
    }

    fn comes_up(&self) {
        let (bench, pool) = (self.bench, self.bench.pool());
        let journals = self.journals();
        println!("  after entry {}: stage {}, {journals:?}", self.done, self.stage());
        let listed = bench.ok(&["list"]);
        assert!(journals.iter().all(|id| listed.contains(id)), "{journals:?}: {listed}");
        let activated = bench.run(&["activate", "--all"]);
        assert!(activated.ok(), "after entry {}: {activated}", self.done);
        assert_eq!(active(&pool), self.is_registered(), "after entry {}: {activated}", self.done);
        assert!(self.is_registered() || self.stage() < 1, "created, and forgotten: entry {}", self.done);
        if self.is_registered() {
            let told = |id: &String| activated.stderr.contains(&format!("`{id}` was interrupted; the pool"));
            assert!(journals.iter().all(told), "after entry {}: {activated}", self.done);
            self.has_one_of_its_sizes();
        }
        if !journals.is_empty() {
            let verb = if self.number.is_multiple_of(2) { "continue" } else { "undo" };
            let ran = bench.run(if verb == "continue" { &["continue", "--yes"] } else { &["undo"] });
            assert!(ran.ok(), "after entry {}: {ran}", self.done);
            assert!(self.journals().is_empty(), "after entry {}: {ran}", self.done);
            if self.stage() < 1 {
                assert_eq!(active(&pool), verb == "continue", "after entry {}: {ran}", self.done);
            }
        }
        if !self.is_registered() {
            assert!(!bench.dir.join(&pool).exists(), "after entry {}: something is left of the pool", self.done);
            return;
        }
        if !active(&pool) {
            // An interrupted deactivate was continued.
            bench.ok(&["activate", &pool]);
        }
        if !journals.is_empty() {
            self.has_one_of_its_sizes();
        }
        self.has_what_was_written();
        let devices = [pool.clone(), format!("{pool}_tdata"), format!("{pool}_tmeta")];
        dmsetup(["remove", "--retry"].into_iter().chain(devices.iter().map(String::as_str))).run().checked().unwrap();
    }

    /// Between two marks it may have either size; from the mark on only the new one.
    fn has_one_of_its_sizes(&self) {
        let status: serde_json::Value = serde_json::from_str(&self.bench.json()).unwrap();
        let total = |part: &str| status.pointer(&format!("/pool/{part}/total")).and_then(serde_json::Value::as_u64);
        let sizes = ["data", "metadata"].map(|part| total(part).unwrap());
        let data: &[u64] = match self.stage() {
            0 | 1 => &DATA[..1],
            2 => &DATA,
            _ => &DATA[1..],
        };
        let metadata: &[u64] = match self.stage() {
            0..=2 => &METADATA[..1],
            3 => &METADATA,
            _ => &METADATA[1..],
        };
        assert!(data.contains(&sizes[0]), "after entry {}: data {sizes:?}", self.done);
        assert!(metadata.contains(&sizes[1]), "after entry {}: metadata {sizes:?}", self.done);
    }

    fn has_what_was_written(&self) {
        // Every few states: the others differ in what stands beside the pool.
        if self.stage() < 2 || !self.number.is_multiple_of(5) {
            return;
        }
        let (pool, name) = (self.bench.pool(), self.bench.sweep.name("v"));
        let table = format!("0 {} thin /dev/mapper/{pool} 0", M / 512);
        dmsetup(["create", &name, "--table", &table]).run().checked().unwrap();
        let mut bytes = Vec::new();
        let device = fs::File::open(Path::new("/dev/mapper").join(&name)).unwrap();
        device.take(AMOUNT).read_to_end(&mut bytes).unwrap();
        assert!(bytes.iter().all(|byte| *byte == WRITTEN), "after entry {}: what was written is gone", self.done);
        dmsetup(["remove", "--retry", &name]).run().checked().unwrap();
    }

    fn is_registered(&self) -> bool {
        self.bench.state.join("registry").join(format!("{}.toml", self.bench.pool())).exists()
    }

    fn journals(&self) -> Vec<String> {
        let files = files_in(&self.bench.state.join("journal"));
        let names = files.iter().filter_map(|path| path.file_name()?.to_str()?.strip_suffix(".journal"));
        names.map(str::to_owned).collect()
    }
}

fn active(pool: &str) -> bool {
    Path::new("/dev/mapper").join(pool).exists()
}

fn files_in(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(folder).into_iter().flatten().map(|f| f.unwrap().path()).collect();
    files.sort();
    files
}

fn copy_sparse(from: &Path, to: &Path) {
    Cmd::new("cp").arg("--sparse=always").arg(from).arg(to).run().checked().unwrap();
}
