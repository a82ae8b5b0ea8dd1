//! Files out of a pool that is hurt while its Docker is dead and its containers are not, and off disks that do not give up all
//! of it.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use lab::guest::boot;
use lab::guest::disk::{Kind, LoopDisk, Mounted};
use lab::guest::docker::{Config, Docker};
use lab::guest::run::{Cmd, Ran};
use lab::guest::sys::{self, dmsetup};
use lab::guest::wrap::{Behaviour, Wrapped};

use crate::rescue_devicemapper::assert_nothing_left;
use crate::rescue_files::{assert_same, change_more, change_once, fill_image, mounted, picture};
use crate::support::Bench;
use crate::support::lvm::{Group, lvm_ok};

/// What waits for ever waits longer.
const LIMIT: Duration = Duration::from_secs(100);
const BLOCK: u64 = 4096;
/// Of which no other file has two in a row.
const LARGE: [u8; 16] = *b"sixteen of large";

struct Source<'a> {
    root: &'a Path,
    out: &'a Path,
}

impl Source<'_> {
    fn run(&self, args: &[&str]) -> Ran {
        Cmd::new("dmpool").arg("--root").arg(self.root).args(args).limit(LIMIT).run()
    }

    /// `cp` out of the container ends with that code and says these words; returns what it printed beside them.
    #[track_caller]
    fn cp(&self, path: &str, code: i32, words: &[&str]) {
        let to = self.out.to_str().unwrap();
        let ran = self.run(&["rescue", "cp", &format!("odd:{path}"), to]);
        assert_eq!(ran.code(), Some(code), "{words:?}: {ran}");
        for word in words {
            assert!(ran.stderr.contains(word), "{word}: {ran}");
        }
    }

    #[track_caller]
    fn comes_out(&self, odd: &std::collections::BTreeMap<String, String>, code: i32, words: &[&str]) {
        self.cp("/odd", code, words);
        assert_same(odd, &picture(&self.out.join("odd")), &format!("{words:?}"));
        fs::remove_dir_all(self.out.join("odd")).unwrap();
    }
}

fn pool_status(pool: &str) -> String {
    dmsetup(["status", "--noflush", pool]).run().checked().unwrap().stdout
}

fn is_suspended(name: &str) -> bool {
    let info = dmsetup(["info", "-c", "--noheadings", "-o", "suspended", name]).run().checked().unwrap().stdout;
    info.trim() == "Suspended"
}

/// Gives the pool its table again with one more word.
fn with_feature(pool: &str, features: &str) {
    let table = dmsetup(["table", pool]).run().checked().unwrap().stdout;
    let words: Vec<_> = table.split_whitespace().take(7).collect();
    dmsetup(["suspend", "--noflush", "--nolockfs", pool]).run().checked().unwrap();
    dmsetup(["load", pool, "--table", &format!("{} {features}", words.join(" "))]).run().checked().unwrap();
    dmsetup(["resume", pool]).run().checked().unwrap();
}

/// A device whose sectors `bad` cannot be read.
fn broken(name: &str, below: &Path, bad: std::ops::Range<u64>) {
    let sectors = sys::size_of(below).unwrap() / 512;
    let below = below.display();
    let (length, rest) = (bad.end - bad.start, sectors - bad.end);
    let mut table = format!("{} {length} error\n{} {rest} linear {below} {}\n", bad.start, bad.end, bad.end);
    if bad.start > 0 {
        table = format!("0 {} linear {below} 0\n{table}", bad.start);
    }
    dmsetup(["load", name]).stdin(table).run().checked().unwrap();
    dmsetup(["resume", "--nolockfs", name]).run().checked().unwrap();
    fs::write("/proc/sys/vm/drop_caches", "3").unwrap();
}

/// Where in a file a block of `LARGE` begins, that is the middle of many.
fn place_of_large(disk: &Path) -> u64 {
    let file = File::open(disk).unwrap();
    let is_large = |at: u64| {
        let mut bytes = [0; 4096];
        file.read_exact_at(&mut bytes, at).is_ok() && bytes.chunks(16).all(|piece| piece == LARGE)
    };
    let length = file.metadata().unwrap().len();
    // Docker's pool has blocks of 64 KiB.
    let found = (0..length / 65_536).map(|block| block * 65_536).find(|at| is_large(*at) && is_large(at + 61_440));
    found.expect("the file is on the disk")
}

fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    let until = Instant::now() + LIMIT;
    while !is_so() {
        assert!(Instant::now() < until, "{what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_pool_that_is_hurt_under_a_dead_docker_gives_what_it_has() {
    let bench = Bench::new();
    let name = |word: &str| bench.sweep.name(word);
    let host = Wrapped::new(&name("host"), &boot::scratch_disks()[0], &Behaviour::Linear).unwrap();
    let disk = Mounted::format(Kind::Xfs, &host.device(), &bench.sweep.path("rescue")).unwrap();
    let (root, out) = (disk.dir().join("root"), disk.dir().join("out"));
    fs::create_dir(&out).unwrap();
    let [data_disk, metadata_disk] = [("data-disk", 300), ("metadata-disk", 16)]
        .map(|(name, size)| LoopDisk::create(&disk.dir().join(name), size << 20).unwrap());
    let data = Wrapped::new(&name("data"), data_disk.device(), &Behaviour::Linear).unwrap();
    let metadata = Wrapped::new(&name("metadata"), metadata_disk.device(), &Behaviour::Linear).unwrap();
    let config = Config::new(&root)
        .option(&format!("dm.datadev={}", data.device().display()))
        .option(&format!("dm.metadatadev={}", metadata.device().display()));
    let mut docker = Docker::start(config).unwrap();
    docker.busybox(&[]).unwrap();
    let id = docker.run_detached(&["--name", "odd"], &["sleep", "100000"]).unwrap();
    let at = mounted(&docker, "odd");
    fill_image(&at);
    change_once(&at);
    change_more(&at);
    fs::write(at.join("large"), LARGE.repeat(65_536)).unwrap();
    let odd = picture(&at.join("odd"));
    let pool = docker.pool().unwrap();
    let format = ["inspect", "-f", "{{.GraphDriver.Data.DeviceName}}", "odd"];
    let thin = docker.cmd(format).run().checked().unwrap().stdout.trim().to_owned();
    nix::unistd::sync();
    docker.kill().unwrap();
    let source = Source { root: &root, out: &out };
    let lists = |code: i32| {
        let ran = source.run(&["rescue", "ps"]);
        assert!(ran.code() == Some(code) && ran.stdout.contains("odd"), "{ran}");
        ran.stderr + &ran.stdout
    };

    source.comes_out(&odd, 0, &["may change meanwhile"]);
    dmsetup(["suspend", &thin]).run().checked().unwrap();
    source.comes_out(&odd, 5, &["is not read there, because its device is suspended"]);
    assert!(is_suspended(&thin));
    dmsetup(["resume", &thin]).run().checked().unwrap();
    dmsetup(["suspend", &pool]).run().checked().unwrap();
    source.comes_out(&odd, 5, &["is not read there, because it is suspended", "with a copy of its metadata"]);
    lists(0);
    assert!(is_suspended(&pool));
    dmsetup(["resume", &pool]).run().checked().unwrap();

    // A disk under an idle pool stands still, which the pool itself does not know.
    for (below, code) in [(&data, 0), (&metadata, 5)] {
        dmsetup(["suspend", "--noflush", "--nolockfs", below.name()]).run().checked().unwrap();
        let stands = format!("the device `{}` is suspended", below.name());
        source.cp("/odd", 3, &[&stands, &format!("dmsetup resume {}", below.name())]);
        assert_eq!(lists(code).contains(&stands), code != 0);
        assert!(is_suspended(below.name()) && !is_suspended(&pool));
        dmsetup(["resume", below.name()]).run().checked().unwrap();
    }

    // The metadata's disk stands still, and a change of the pool that waits for it has its lock.
    dmsetup(["suspend", "--noflush", "--nolockfs", metadata.name()]).run().checked().unwrap();
    let message = dmsetup(["message", &pool, "0", "create_thin 60001"]).limit(LIMIT).start().unwrap();
    std::thread::sleep(Duration::from_millis(300));
    let stands = format!("the device `{}` is suspended", metadata.name());
    source.cp("/odd", 3, &[&stands, &format!("dmsetup resume {}", metadata.name())]);
    assert!(lists(5).contains(&stands));
    assert!(is_suspended(metadata.name()));
    dmsetup(["resume", metadata.name()]).run().checked().unwrap();
    assert!(message.wait().ok());
    dmsetup(["message", &pool, "0", "delete 60001"]).run().checked().unwrap();

    // Filled by the container itself: it waits for room, then it is told that there is none.
    let full = format!("of={}", at.join("full").display());
    let writer = Cmd::new("dd").args(["if=/dev/zero", &full, "bs=1M", "conv=fsync"]).limit(LIMIT * 4).start().unwrap();
    wait_for("the pool is not full", || pool_status(&pool).contains("out_of_data_space"));
    let full = ["is not read there, because its pool is out_of_data_space"];
    source.comes_out(&odd, 5, &full);
    lists(0);
    with_feature(&pool, "2 skip_block_zeroing error_if_no_space");
    assert!(!writer.wait().ok());
    assert!(pool_status(&pool).contains("out_of_data_space"), "{}", pool_status(&pool));
    source.comes_out(&odd, 5, &full);
    with_feature(&pool, "2 skip_block_zeroing read_only");
    source.comes_out(&odd, 5, &["is not read there, because its pool is ro"]);

    // A pool that has failed: its metadata could neither be written nor read.
    with_feature(&pool, "1 skip_block_zeroing");
    metadata.become_(&Behaviour::Error).unwrap();
    // Whether the message is told of it or not.
    let _ = dmsetup(["message", &pool, "0", "create_thin 60001"]).run();
    wait_for("the pool does not fail", || pool_status(&pool).contains("Fail"));
    metadata.become_(&Behaviour::Linear).unwrap();
    let failed = ["is not read there, because its status is `Fail`", "with a copy of its metadata"];
    source.comes_out(&odd, 5, &failed);
    lists(0);

    // Blocks of the disks that cannot be read: of a file, of metadata that nobody uses, of metadata that is repaired.
    let place = place_of_large(data_disk.file()) / 512;
    broken(data.name(), data_disk.device(), place + 8..place + 24);
    source.comes_out(&odd, 5, &failed);
    source.cp("/large", 5, &["`/large`", "8192 bytes"]);
    let large = fs::read(out.join("large")).unwrap();
    let zeros = large.chunks(16).filter(|piece| **piece == [0; 16]).count();
    assert_eq!(large.len(), LARGE.len() * 65_536);
    assert_eq!((zeros, large.chunks(16).filter(|piece| **piece == LARGE).count()), (512, 65_536 - 512));
    data.become_(&Behaviour::Linear).unwrap();
    let last = sys::size_of(metadata_disk.device()).unwrap() / 512 - 8;
    broken(metadata.name(), metadata_disk.device(), last - 8..last);
    source.comes_out(&odd, 5, &["4096 bytes of the metadata could not be read", failed[0]]);
    let mut index = [0; 8];
    File::open(metadata_disk.file()).unwrap().read_exact_at(&mut index, 208).unwrap();
    let index = u64::from_le_bytes(index) * BLOCK / 512;
    broken(metadata.name(), metadata_disk.device(), index..index + 8);
    source.comes_out(&odd, 5, &["4096 bytes of the metadata could not be read", "thin_repair made of a copy"]);
    metadata.become_(&Behaviour::Linear).unwrap();

    // A container's own file in the root.
    nix::unistd::syncfs(File::open(&root).unwrap()).unwrap();
    let config = root.join("containers").join(&id).join("config.v2.json");
    let extents = Cmd::new("filefrag").args(["-e", "-b4096"]).arg(&config).run().checked().unwrap().stdout;
    let first = extents.lines().find(|line| line.trim_start().starts_with("0:")).unwrap();
    let physical: u64 = first.split(':').nth(2).unwrap().trim().split('.').next().unwrap().parse().unwrap();
    broken(host.name(), &boot::scratch_disks()[0], physical * 8..physical * 8 + 8);
    let ran = source.run(&["rescue", "ps"]);
    assert!(ran.code() == Some(5) && ran.stdout.contains(&id[..12]), "{ran}");
    assert!((ran.stdout + &ran.stderr).contains("config.v2.json"));
    host.become_(&Behaviour::Linear).unwrap();
    fs::write("/proc/sys/vm/drop_caches", "3").unwrap();
    assert_nothing_left(&root);
    // Nobody else ends it, and it has the volume mounted.
    let container = Path::new("/proc").join(at.iter().nth(2).unwrap());
    Cmd::new("kill").arg("-9").arg(container.file_name().unwrap()).run().checked().unwrap();
    wait_for("the container does not end", || !container.join("root/odd").exists());
    drop(docker);
    fs::remove_dir_all(&out).unwrap();
}

/// Pools that Docker was told of: in files of dmpool's, on its disks, and LVM's. They stay down.
#[test]
fn a_pool_that_docker_was_told_of_is_read_while_it_is_down() {
    if !boot::full() {
        boot::skip("three daemons, one after the other: with --full");
    }
    let bench = Bench::new();
    let disk = Mounted::format(Kind::Xfs, &boot::scratch_disks()[0], &bench.sweep.path("rescue")).unwrap();
    let out = disk.dir().join("out");
    fs::create_dir(&out).unwrap();
    let sizes = ["--data-size", "300M", "--metadata-size", "16M", "--no-zero"];
    let (in_files, on_disks) = (bench.sweep.name("files"), bench.sweep.name("disks"));
    bench.cmd(&["create", &in_files, "--dir", bench.dir.to_str().unwrap()]).args(sizes).run().checked().unwrap();
    let disks = ["one", "two"].map(|name| LoopDisk::create(&disk.dir().join(name), 300 << 20).unwrap());
    let [one, two] = disks.each_ref().map(|disk| disk.device().to_str().unwrap().to_owned());
    bench.ok(&["create", &on_disks, "--data-device", &one, "--data-device", &two, "--no-zero"]);
    let mut group = Group::new(&bench, "vg", 200);
    group.extend(&bench, 200);
    lvm_ok(&["lvcreate", "-y", "--type", "thin-pool", "-L", "300M", "-n", "pool", "-Zn", &group.name]);
    let of_lvm = format!("{}-pool", group.name.replace('-', "--"));
    let dmpool = |word: &'static str, pool: String| move |bench: &Bench| drop(bench.ok(&[word, &pool]));
    let lvm = |how: &'static str, word: String| move |_: &Bench| drop(lvm_ok(&["lvchange", how, "-y", &word]));
    type Turn = Box<dyn Fn(&Bench)>;
    let kinds: [(&str, &String, Turn, Turn); 3] = [
        (
            "from its files",
            &in_files,
            Box::new(dmpool("deactivate", in_files.clone())),
            Box::new(dmpool("activate", in_files.clone())),
        ),
        (
            "as its labels say",
            &on_disks,
            Box::new(dmpool("deactivate", on_disks.clone())),
            Box::new(dmpool("activate", on_disks.clone())),
        ),
        (
            "from its extents",
            &of_lvm,
            Box::new(lvm("-an", group.word("pool"))),
            Box::new(lvm("-ay", group.word("pool"))),
        ),
    ];
    for (how, pool, down, up) in kinds {
        let root = disk.dir().join(pool);
        let config = Config::new(&root).option(&format!("dm.thinpooldev=/dev/mapper/{pool}")).option("dm.basesize=1G");
        let mut docker = Docker::start(config).unwrap();
        docker.busybox(&[]).unwrap();
        docker.run_detached(&["--name", "odd"], &["sleep", "100000"]).unwrap();
        let at = mounted(&docker, "odd");
        fill_image(&at);
        change_once(&at);
        change_more(&at);
        let odd = picture(&at.join("odd"));
        docker.stop().unwrap();
        let (other, to) = (format!("{pool}-other"), out.to_str().unwrap());
        let cp = || bench.cmd(&["--root", root.to_str().unwrap(), "rescue", "cp", "odd:/odd", to]).run();
        dmsetup(["rename", pool, &other]).run().checked().unwrap();
        let ran = cp();
        assert!(ran.code() == Some(3) && ran.stderr.contains("is in use"), "{ran}");
        dmsetup(["rename", &other, pool]).run().checked().unwrap();
        down(&bench);
        assert!(!sys::dm_exists(pool).unwrap());
        let before = picture(&root);
        let ran = cp();
        assert!(ran.ok() && ran.stderr.contains(&format!("is down: it is read {how}")), "{ran}");
        assert_same(&odd, &picture(&out.join("odd")), how);
        assert_same(&before, &picture(&root), how);
        fs::remove_dir_all(out.join("odd")).unwrap();
        assert_nothing_left(&root);
        assert!(!sys::dm_exists(pool).unwrap());
        up(&bench);
        drop(docker);
    }
    for pool in [&in_files, &on_disks] {
        bench.ok(&["destroy", pool, "--yes", "--with-volumes"]);
    }
    drop(group);
    fs::remove_dir_all(&out).unwrap();
}
