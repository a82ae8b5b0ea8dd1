//! The life of pools on disks: made, used, grown, down, up under other names, destroyed.

use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use dmpool::pool::label::SLOTS;
use lab::guest::boot;
use lab::guest::disk::{Kind, Mounted};
use lab::guest::run::Cmd;
use lab::guest::sys::{self, dmsetup};

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
        fs::write(mounted.dir().join("file"), vec![7; 8 << 20]).unwrap();
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
        assert_eq!(fs::read(mounted.dir().join("file")).unwrap(), vec![7; 8 << 20]);
        mounted.unmount().unwrap();
        self.down();
    }
}

fn scratch() -> [PathBuf; 3] {
    boot::scratch_disks().try_into().unwrap()
}

#[test]
fn a_pool_on_two_disks_is_found_whatever_they_are_called() {
    let bench = Bench::with_faults();
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
    for other in [
        ["--metadata-device", &data, "--data-device", &metadata].as_slice(),
        &["--data-device", &data, "--data-device", &metadata],
        &["--data-device", &data, "--metadata-device", &metadata, "--ephemeral"],
    ] {
        let refused = bench.run(&[&["create", &pool, "--ensure"], other].concat());
        assert!(refused.code() == Some(3) && refused.stderr.contains("is not the same"), "{other:?}: {refused}");
    }

    bench.ok(&["deactivate", &pool]);
    assert!(!exists(&pool) && !exists(&format!("{pool}_tdata")) && !exists(&format!("{pool}_tmeta")));
    assert_eq!(bench.number("/pool/data/total"), 511 * M, "from the superblock");
    let status = bench.ok(&["status", &pool]);
    let said = |key: &str, path: &str| status.contains(&format!("{key}: {path}\n"));
    assert!(said("Data file", &data) && said("Metadata file", &metadata), "{status}");
    drop(disks);
    let missing = bench.run(&["activate", &pool]);
    assert!(missing.code() == Some(3) && missing.stderr.contains("none of its devices is here"), "{missing}");

    // Each has the other's name now.
    let (metadata_disk, _data_disk) = (Disk::new(&b, &first, 64, 64), Disk::new(&a, &second, 64, 512));
    bench.ok(&["activate", &pool]);
    used.is_there(&bench);
    // Interrupted, its disks are nobody else's; taken back, the pool is as it was.
    let destroy = ["destroy", &pool, "--yes", "--with-volumes"];
    let plan = bench.ok(&["destroy", &pool, "--dry-run", "--with-volumes"]);
    let last = plan.lines().filter_map(|line| line.trim().split_once(". erase the label")).next_back().unwrap().0;
    assert!(died(&bench.cmd(&destroy).env("DMPOOL_FAULT", format!("{last}:after:die")).run()));
    let other = bench.run(&["create", "dmpool-test-other", "--data-device", &metadata]);
    assert!(other.code() == Some(3) && other.stderr.contains(&format!("destroy pool `{pool}`")), "{other}");
    bench.ok(&["undo"]);
    used.is_there(&bench);
    // One that is away when it is to be taken back is waited for.
    let superblock = plan.lines().find_map(|line| line.trim().split_once(". erase the superblock")).unwrap().0;
    assert!(died(&bench.cmd(&destroy).env("DMPOOL_FAULT", format!("{superblock}:after:die")).run()));
    drop(metadata_disk);
    let kept = bench.run(&["undo"]);
    let says = [&format!("/dev/mapper/{b} is not here"), "its superblock is kept in", "kept:"];
    assert!(kept.code() == Some(4) && says.iter().all(|words| kept.stderr.contains(*words)), "{kept}");
    let _metadata_disk = Disk::new(&b, &first, 64, 64);
    bench.ok(&["undo"]);
    used.is_there(&bench);
    let down = bench.ok(&["deactivate", &pool]);
    assert!(down.contains("what is on its disks stays"), "{down}");
    bench.ok(&["activate", &pool]);
    what_is_left_up_is_taken(&bench);
    used.is_there(&bench);
    bench.ok(&destroy);
    assert_eq!(fs::read_dir(bench.state.join("registry")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(bench.state.join("journal")).unwrap().count(), 0);
    // By the name that the data's disk had, the metadata's is found now.
    let left = bench.ok(&["create", &pool, "--data-device", &data, "--wipe", "--dry-run"]);
    assert!(!left.contains("is kept"), "nothing of the pool is left at its beginning: {left}");
    let free = bench.ok(&["create", &pool, "--data-device", &metadata, "--wipe", "--dry-run"]);
    assert!(free.contains("write label 1"), "its disks are free again: {free}");
}

/// A device beneath the pool that is up already is the pool's, when it is just so and nobody has it.
fn what_is_left_up_is_taken(bench: &Bench) {
    let (pool, over) = (bench.pool(), bench.sweep.name("over"));
    let parts = ["tdata", "tmeta"].map(|part| format!("{pool}_{part}"));
    for [left, gone] in [parts.each_ref(), [&parts[1], &parts[0]]] {
        dmsetup(["remove", "--retry", &pool, gone]).run().checked().unwrap();
        dmsetup(["create", &over, "--table", &format!("0 8 linear /dev/mapper/{left} 0")]).run().checked().unwrap();
        let held = bench.run(&["activate", &pool]);
        assert!(held.code() == Some(3) && held.stderr.contains(&format!("`{left}` already")), "{held}");
        dmsetup(["remove", "--retry", &over]).run().checked().unwrap();
        let table = dmsetup(["table", left]).run().checked().unwrap().stdout;
        let begins: Vec<_> = table.split_whitespace().skip(2).take(3).collect();
        dmsetup(["reload", left, "--table", &format!("0 8 {}", begins.join(" "))]).run().checked().unwrap();
        dmsetup(["resume", left]).run().checked().unwrap();
        let other = bench.run(&["activate", &pool]);
        assert!(other.code() == Some(3) && other.stderr.contains(&format!("`{left}` already")), "{other}");
        dmsetup(["reload", left, "--table", &table]).run().checked().unwrap();
        dmsetup(["resume", left]).run().checked().unwrap();
        let taken = bench.run(&["activate", &pool]);
        assert!(taken.ok() && taken.stderr.contains(&format!("`{left}` is up already")), "{taken}");
    }
    dmsetup(["remove", "--retry", &pool, &parts[0]]).run().checked().unwrap();
    let dies = bench.cmd(&["activate", &pool]).env("DMPOOL_FAULT", "3:before:die").run();
    assert!(died(&dies), "{dies}");
    bench.ok(&["undo"]);
    assert!(parts.iter().all(|part| !exists(part)));
    bench.ok(&["activate", &pool]);
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

    let says = || bench.run(&["health", &pool, "--warning", "1", "--critical", "1"]).stdout;
    let enlarge = format!("next: enlarge one of the devices that it lies on, then  $ dmpool grow {pool} max");
    assert!(says().contains(&enlarge), "{}", says());
    disk.resize(512);
    assert!(says().contains(&format!("next: $ dmpool grow {pool} max")), "{}", says());
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
    let health = bench.run(&["health", &pool]);
    let says = [
        format!("CRITICAL: a device of it is missing: device 2 of 2, /dev/mapper/{b} (as it was called last)"),
        format!(
            "next: connect it (dmpool disks shows what is here, and how to look again), then  $ dmpool activate {pool}"
        ),
    ];
    assert!(health.code() == Some(2) && says.iter().all(|said| health.stdout.contains(said)), "{health}");
    println!("  {health}");
    let copy = Disk::new(&bench.sweep.name("copy"), &first, 64, 512);
    let other = Disk::new(&b, &second, 64, 100);
    let twice = bench.run(&["activate", &pool]);
    assert!(twice.code() == Some(3) && twice.stderr.contains("one is a copy of the other"), "{twice}");
    drop(copy);
    bench.ok(&["activate", &pool]);
    bench.ok(&["destroy", &pool, "--yes", "--with-volumes"]);
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
    bench.ok(&["destroy", &pool, "--yes", "--with-volumes"]);
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
    shown(&bench, &used, disks.len());
    bench.ok(&["destroy", &pool, "--yes", "--with-volumes"]);

    // And one in files.
    bench.create();
    let used = Used::new(&bench);
    shown(&bench, &used, 0);
    bench.ok(&["destroy", &pool, "--yes", "--with-volumes"]);
}

/// Of a pool on so many devices with a label.
fn shown(bench: &Bench, used: &Used, devices: usize) {
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
    bench.ok(&["thin", "create", &pool, "web", "--size", "8M"]);
    let web = format!("{pool}-web");
    let names = [pool.clone(), format!("{pool}_tdata"), format!("{pool}_tmeta"), web.clone()];
    let before = names.each_ref().map(|name| table(name));
    fs::write(&script, bench.ok(&["show", "--commands", &pool])).unwrap();
    bench.ok(&["deactivate", &pool]);
    assert_eq!(
        bench.ok(&["show", "--commands", &pool]),
        fs::read_to_string(&script).unwrap(),
        "of a pool that is down"
    );
    // Where its superblock is gone, the kernel would make a new pool over whatever is there; and another's would come up as this.
    let text = fs::read_to_string(&script).unwrap();
    let asks = text.split("$(bytes_of ").skip(1).map(|rest| rest.split(')').next().unwrap().split(' '));
    let asks: Vec<_> = asks.map(|mut words| [(); 3].map(|()| words.next().unwrap())).collect();
    let labels = asks.iter().filter(|[_, sector, _]| sector.parse() == Ok(SLOTS[0].sectors().get()));
    let superblock = asks.iter().filter(|[.., bytes]| *bytes == "8");
    assert_eq!((labels.clone().count(), superblock.clone().count()), (devices, 1), "{text}");
    for ([path, sector, _], says) in
        labels.map(|ask| (ask, "does not have its label")).chain(superblock.map(|ask| (ask, "has no superblock")))
    {
        let at = sector.parse::<u64>().unwrap() * 512;
        let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
        let mut block = [0; 4096];
        file.read_exact_at(&mut block, at).unwrap();
        let mut others = block;
        others[47] ^= 1;
        others[39] ^= 1;
        file.write_all_at(&others, at).unwrap();
        file.sync_all().unwrap();
        let refused = Cmd::new("sh").arg(&script).run();
        let said = refused.stderr.contains(says) && refused.stderr.contains("Nothing was made");
        assert!(refused.code() == Some(1) && said, "{refused}");
        assert!(names.iter().all(|name| !exists(name)));
        file.write_all_at(&block, at).unwrap();
        file.sync_all().unwrap();
    }
    if devices == 0 {
        // Something else has the name.
        let loops = || sys::loops().unwrap().len();
        let before = loops();
        dmsetup(["create", &names[1], "--table", "0 8 error"]).run().checked().unwrap();
        assert!(!Cmd::new("sh").arg(&script).run().ok());
        dmsetup(["remove", &names[1]]).run().checked().unwrap();
        assert_eq!(loops(), before + 1, "of the metadata, which is up");
    }
    // Also after it was ended in the middle.
    for _ in 0..2 {
        Cmd::new("sh").arg(&script).run().checked().unwrap();
        dmsetup(["remove", "--retry", &web]).run().checked().unwrap();
    }
    Cmd::new("sh").arg(&script).run().checked().unwrap();
    let shape = |tables: [String; 4]| tables.map(|table| table.replace(|c: char| c.is_ascii_digit(), "").len());
    assert_eq!(shape(names.each_ref().map(|name| table(name))), shape(before));
    used.is_there(bench);
    // To dmpool it is the pool that it knows.
    bench.ok(&["deactivate", &pool]);
    bench.ok(&["activate", &pool]);
    assert!(exists(&web));
    bench.ok(&["thin", "remove", &pool, "web", "--yes"]);
    // An id may be another volume's when an old script is run.
    bench.ok(&["deactivate", &pool]);
    let old = Cmd::new("sh").arg(&script).run();
    assert!(old.code() == Some(1) && old.stderr.contains("they are not those of this script"), "{old}");
    assert!(exists(&pool) && !exists(&web));
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
    let wipe = ["create", &pool, "--data-device", &disk.path(), "--wipe"];
    // The command of the note, as it is printed.
    let back =
        |said: &str| said.lines().find_map(|line| line.split_once("come back:  ")).map(|(_, line)| line.to_owned());
    let described = bench.cmd(&wipe).arg("--dry-run").run();
    let made = bench.run(&wipe);
    assert!(made.ok() && made.stderr.contains("nothing is kept: the pool writes over it"), "{made}");
    bench.ok(&["destroy", &pool, "--yes"]);
    let line = back(&made.stderr).unwrap();
    assert_eq!(back(&described.stdout).as_ref(), Some(&line), "{described}");
    // What was kept before is not written over.
    bench.ok(&wipe);
    bench.ok(&["destroy", &pool, "--yes"]);
    Cmd::new("sh").args(["-c", &line]).run().checked().unwrap();
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
    bench.ok(&["destroy", &pool, "--yes", "--with-volumes"]);
}
