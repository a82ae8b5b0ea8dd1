//! The life of pools on disks: made, used, grown, down, up under other names, destroyed.

use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use dmpool::pool::label::SLOTS;
use lab::guest::boot;
use lab::guest::disk::{Kind, Mounted};
use lab::guest::run::Cmd;
use lab::guest::sys::dmsetup;

use crate::case::died;
use crate::support::linear::Disk;
use crate::support::{Bench, exists, volume};

const M: u64 = 1 << 20;

/// A file system on a volume of the pool, with a file of 1 MiB in it.
struct Used {
    name: String,
    dir: PathBuf,
}

impl Used {
    fn new(bench: &Bench) -> Self {
        let used = Self::at(bench);
        used.make(bench);
        used
    }

    /// One that is there, or will be.
    fn at(bench: &Bench) -> Self {
        Self { name: bench.sweep.name("v"), dir: bench.sweep.path("mnt") }
    }

    fn make(&self, bench: &Bench) {
        let device = volume(&bench.pool(), 0, &self.name, 128 * M);
        let mounted = Mounted::format(Kind::Ext4, &device, &self.dir).unwrap();
        fs::write(mounted.dir().join("file"), vec![7; 1 << 20]).unwrap();
        mounted.unmount().unwrap();
        self.down();
    }

    fn down(&self) {
        dmsetup(["remove", "--retry", &self.name]).run().checked().unwrap();
    }

    /// What was written is there.
    #[track_caller]
    fn is_there(&self, bench: &Bench) {
        let table = format!("0 {} thin /dev/mapper/{} 0", 128 * M / 512, bench.pool());
        dmsetup(["create", &self.name, "--table", &table]).run().checked().unwrap();
        let device = Path::new("/dev/mapper").join(&self.name);
        let mounted = Mounted::mount(&device, &self.dir, "defaults").unwrap();
        assert_eq!(fs::read(mounted.dir().join("file")).unwrap(), vec![7; 1 << 20]);
        mounted.unmount().unwrap();
        self.down();
    }
}

fn scratch() -> [PathBuf; 3] {
    boot::scratch_disks().try_into().unwrap()
}

#[test]
fn a_pool_on_two_disks_is_found_whatever_they_are_called() {
    let bench = Bench::new();
    let [first, second, _] = scratch();
    let (pool, [a, b]) = (bench.pool(), ["a", "b"].map(|name| bench.sweep.name(name)));
    let disks = (Disk::new(&a, &first, 64, 64), Disk::new(&b, &second, 64, 512));
    let (metadata, data) = (disks.0.path(), disks.1.path());
    bench.ok(&["create", &pool, "--metadata-device", &metadata, "--data-device", &data]);
    assert_eq!(bench.number("/pool/data/total"), 511 * M);
    assert_eq!(bench.number("/pool/metadata/total"), 63 * M);
    let status = bench.ok(&["status", &pool]);
    assert!(status.contains(&data) && status.contains(&metadata), "{status}");
    let used = Used::new(&bench);
    let again = bench.ok(&["create", &pool, "--metadata-device", &metadata, "--data-device", &data, "--ensure"]);
    assert!(again.contains("unchanged"), "{again}");

    bench.ok(&["deactivate", &pool]);
    assert!(!exists(&pool) && !exists(&format!("{pool}_tdata")) && !exists(&format!("{pool}_tmeta")));
    assert_eq!(bench.number("/pool/data/total"), 511 * M, "from the superblock");
    drop(disks);
    let missing = bench.run(&["activate", &pool]);
    assert!(missing.code() == Some(3) && missing.stderr.contains("none of its devices is here"), "{missing}");

    // Each has the other's name now.
    let _disks = (Disk::new(&b, &first, 64, 64), Disk::new(&a, &second, 64, 512));
    bench.ok(&["activate", &pool]);
    used.is_there(&bench);
    bench.ok(&["destroy", &pool, "--yes"]);
    assert_eq!(fs::read_dir(bench.state.join("registry")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(bench.state.join("journal")).unwrap().count(), 0);
    let free = bench.ok(&["create", &pool, "--data-device", &metadata, "--dry-run"]);
    assert!(free.contains("write label 1"), "its disks are free again: {free}");
}

#[test]
fn a_pool_on_one_disk_grows_with_it_and_with_another() {
    let bench = Bench::new();
    let [first, second, _] = scratch();
    let (pool, [a, b]) = (bench.pool(), ["a", "b"].map(|name| bench.sweep.name(name)));
    let disk = Disk::new(&a, &first, 64, 256);
    bench.ok(&["create", &pool, "--data-device", &disk.path()]);
    assert_eq!(bench.number("/pool/metadata/total"), 4 * M);
    assert_eq!(bench.number("/pool/data/total"), (256 - 1 - 4 - 12) * M);
    let used = Used::new(&bench);

    disk.resize(512);
    bench.ok(&["grow", &pool, "max"]);
    assert_eq!(bench.number("/pool/data/total"), (512 - 17) * M);
    bench.ok(&["grow", &pool, "--metadata", "10M"]);
    assert_eq!(bench.number("/pool/metadata/total"), 10 * M);
    let full = bench.run(&["grow", &pool, "--metadata", "17M"]);
    assert!(full.code() == Some(3) && full.stderr.contains("--metadata 16M"), "{full}");

    let other = Disk::new(&b, &second, 64, 100);
    bench.ok(&["grow", &pool, "--add-device", &other.path()]);
    assert_eq!(bench.number("/pool/data/total"), (512 - 17 + 99) * M);
    used.is_there(&bench);
    bench.ok(&["deactivate", &pool]);
    bench.ok(&["activate", &pool]);
    assert_eq!(bench.number("/pool/data/total"), (512 - 17 + 99) * M);
    used.is_there(&bench);
    bench.ok(&["deactivate", &pool]);

    drop(other);
    let missing = bench.run(&["activate", &pool]);
    assert!(missing.code() == Some(3) && missing.stderr.contains("is missing"), "{missing}");
    assert!(missing.stderr.contains(&format!("/dev/mapper/{b}")), "{missing}");
    let copy = Disk::new(&bench.sweep.name("copy"), &first, 64, 512);
    let other = Disk::new(&b, &second, 64, 100);
    let twice = bench.run(&["activate", &pool]);
    assert!(twice.code() == Some(3) && twice.stderr.contains("one is a copy of the other"), "{twice}");
    drop(copy);
    bench.ok(&["activate", &pool]);
    bench.ok(&["destroy", &pool, "--yes"]);
    drop((disk, other));
}

#[test]
fn a_label_that_cannot_be_used_is_named() {
    let bench = Bench::new();
    let [first, ..] = scratch();
    let pool = bench.pool();
    let disk = Disk::new(&bench.sweep.name("a"), &first, 64, 128);
    bench.ok(&["create", &pool, "--data-device", &disk.path()]);
    bench.ok(&["deactivate", &pool]);
    let flip = || {
        let file = OpenOptions::new().read(true).write(true).open(disk.path()).unwrap();
        let (at, mut byte) = (SLOTS[0].get() + 300, [0]);
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[!byte[0]], at).unwrap();
        file.sync_all().unwrap();
    };
    flip();
    let refused = bench.run(&["activate", &pool]);
    let says = [disk.path().as_str(), "label that cannot be used", "checksum", "none of its devices is here"]
        .map(|words| refused.stderr.contains(words));
    assert!(refused.code() == Some(3) && says == [true; 4], "{refused}");
    let destroy = bench.run(&["destroy", &pool, "--yes"]);
    assert!(destroy.code() == Some(3) && destroy.stderr.contains("--keep-data"), "{destroy}");
    flip();
    bench.ok(&["activate", &pool]);
    bench.ok(&["destroy", &pool, "--yes"]);
}

#[test]
fn what_is_shown_makes_it_again_and_brings_it_up_without_dmpool() {
    let bench = Bench::new();
    let [first, second, third] = scratch();
    let (pool, names) = (bench.pool(), ["a", "b", "c"].map(|name| bench.sweep.name(name)));
    let under = [first, second, third];
    let disks: Vec<_> = names.iter().zip(&under).map(|(name, below)| Disk::new(name, below, 64, 128)).collect();
    let paths: Vec<_> = disks.iter().map(Disk::path).collect();
    let devices = paths.iter().flat_map(|path| ["--data-device", path]);
    let made =
        [["create", &pool, "--stripe=64K", "--when-full", "error"].as_slice(), &devices.collect::<Vec<_>>()].concat();
    bench.ok(&made);
    assert_eq!(bench.number("/pool/data/total") % (3 * 65536), 0);
    let used = Used::new(&bench);
    shown(&bench, &used);
    bench.ok(&["destroy", &pool, "--yes"]);

    // And one in files.
    bench.create();
    let used = Used::new(&bench);
    shown(&bench, &used);
    bench.ok(&["destroy", &pool, "--yes"]);
}

fn shown(bench: &Bench, used: &Used) {
    let pool = bench.pool();
    let (file, script) = (bench.sweep.path("pool.toml"), bench.sweep.path("up.sh"));
    fs::write(&file, bench.ok(&["show", "--toml", &pool])).unwrap();
    let again = bench.ok(&["create", "--file", file.to_str().unwrap(), "--ensure"]);
    assert!(again.contains("unchanged"), "{again}");
    let other = fs::read_to_string(&file).unwrap().replace("low_water = 32768", "low_water = 7");
    fs::write(&file, other).unwrap();
    let other = bench.run(&["create", "--file", file.to_str().unwrap(), "--ensure"]);
    assert!(other.code() == Some(3) && other.stderr.contains("low water mark: 32768"), "{other}");

    let table = |name: &str| dmsetup(["table", name]).run().checked().unwrap().stdout;
    let names = [pool.clone(), format!("{pool}_tdata"), format!("{pool}_tmeta")];
    let before = names.each_ref().map(|name| table(name));
    fs::write(&script, bench.ok(&["show", "--commands", &pool])).unwrap();
    bench.ok(&["deactivate", &pool]);
    assert_eq!(
        bench.ok(&["show", "--commands", &pool]),
        fs::read_to_string(&script).unwrap(),
        "of a pool that is down"
    );
    Cmd::new("sh").arg(&script).run().checked().unwrap();
    let shape = |tables: [String; 3]| tables.map(|table| table.replace(|c: char| c.is_ascii_digit(), "").len());
    assert_eq!(shape(names.each_ref().map(|name| table(name))), shape(before));
    used.is_there(bench);
    // To dmpool it is the pool that it knows.
    bench.ok(&["deactivate", &pool]);
    bench.ok(&["activate", &pool]);
    used.is_there(bench);
}

#[test]
fn what_was_on_a_disk_is_kept_when_it_is_wiped() {
    let bench = Bench::new();
    let [first, ..] = scratch();
    let (pool, a) = (bench.pool(), bench.sweep.name("a"));
    let disk = Disk::new(&a, &first, 64, 128);
    Kind::Ext4.format(Path::new(&disk.path())).unwrap();
    let head = || {
        let mut bytes = vec![0; 1 << 20];
        File::open(disk.path()).unwrap().read_exact(&mut bytes).unwrap();
        bytes
    };
    let before = head();
    let refused = bench.run(&["create", &pool, "--data-device", &disk.path()]);
    assert!(refused.code() == Some(3) && refused.stderr.contains("ext4"), "{refused}");
    let made = bench.run(&["create", &pool, "--data-device", &disk.path(), "--wipe"]);
    assert!(made.ok(), "{made}");
    bench.ok(&["destroy", &pool, "--yes"]);
    // The command of the note, as it is printed.
    let line = made.stderr.lines().find_map(|line| line.split_once("come back:  ")).unwrap().1;
    Cmd::new("sh").args(["-c", line]).run().checked().unwrap();
    assert!(head() == before, "what {line} has written");
}

#[test]
fn a_grow_that_a_power_cut_interrupted_is_finished_after_the_boot() {
    let phase = boot::phase();
    let bench = Bench::with_faults();
    let [first, second, third] = scratch();
    let dir = PathBuf::from("/var/tmp").join(bench.sweep.name("state"));
    let kept = match phase {
        0 => Mounted::format(Kind::Ext4, &third, &dir).unwrap(),
        _ => Mounted::mount(&third, &dir, "defaults").unwrap(),
    };
    let bench = bench.at(kept.dir());
    let (pool, [first, second]) = (bench.pool(), [&first, &second].map(|path| path.to_str().unwrap()));
    let used = Used::at(&bench);
    if phase == 0 {
        bench.ok(&["create", &pool, "--data-device", first]);
        used.make(&bench);
        boot::remember("size", &bench.number("/pool/data/total").to_string());
        let args = ["grow", &pool, "--add-device", second];
        let ran = bench.cmd(&args).env("DMPOOL_FAULT", "4:after:die").run();
        assert!(died(&ran), "{ran}");
        boot::power_cut();
    }
    let before: u64 = boot::recall("size").unwrap().parse().unwrap();
    let activated = bench.run(&["activate", "--all"]);
    assert!(activated.ok(), "{activated}");
    used.is_there(&bench);
    let size = || bench.number("/pool/data/total");
    if phase == 1 {
        assert!(activated.stderr.contains("was interrupted; the pool comes up"), "{activated}");
        assert_eq!(size(), before, "{activated}");
        bench.ok(&["continue"]);
        assert_eq!(size(), before + (8 << 30) - M);
        boot::reboot();
    }
    assert_eq!(size(), before + (8 << 30) - M, "{activated}");
    bench.ok(&["destroy", &pool, "--yes"]);
}
