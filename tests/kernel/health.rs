//! What `health` finds in real pools, one trouble after the other, and that its ways out lead out.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use dmpool::kernel::dm::{Dm, DmId};
use lab::guest::disk::{Kind, LoopDisk, Mounted};
use lab::guest::run::Cmd;
use lab::guest::sys::dmsetup;

use crate::refuse_more::LvmPool;
use crate::support::health::{Said, paste};
use crate::support::pools::{HandMade, NoSpaceTimeout, set_needs_check};
use crate::support::{Bench, volume};

const M: u64 = 1 << 20;
const OK: i32 = 0;
const WARNING: i32 = 1;
const CRITICAL: i32 = 2;
const UNKNOWN: i32 = 3;

fn run(args: &[&str]) {
    dmsetup(args.iter()).run().checked().unwrap();
}

/// Writes that many MiB to a device past the page cache; whether it could.
fn write(device: &std::path::Path, mebibytes: u64) -> bool {
    let count = format!("count={mebibytes}");
    let cmd = Cmd::new("dd").args(["if=/dev/zero", "bs=1M", "oflag=direct", &count]);
    cmd.arg(format!("of={}", device.display())).limit(Duration::from_secs(120)).run().ok()
}

#[test]
fn health_of_a_pool_through_its_troubles() {
    let bench = Bench::new();
    let none = bench.run(&["health"]);
    assert_eq!(none.code(), Some(UNKNOWN), "{none}");
    let none = bench.run(&["health", "--no-pool", "ok", "--format", "nagios"]);
    assert!(none.code() == Some(OK) && none.stdout == "DMPOOL OK - there is no thin pool\n", "{none}");

    let other = HandMade::new(&bench, "sick", 512 * M, 8 * M);
    let pool = other.name.as_str();
    let about = |more: &[&str]| Said::about(&bench, pool, more);
    let missing = bench.run(&["health", "dmpool-test-nobody"]);
    assert!(missing.code() == Some(UNKNOWN) && missing.stdout.contains("dmpool-test-nobody"), "{missing}");
    let well = about(&[]);
    assert_eq!(well.code, OK);
    well.sentence("loop_files", "info");
    let quiet = bench.run(&["health", pool, "-q"]);
    assert!(quiet.ok() && quiet.stdout.is_empty(), "{quiet}");

    let name = bench.sweep.name("v");
    let device = volume(pool, 0, &name, 1024 * M);
    assert!(write(&device, 64));
    assert!(about(&[]).sentence("overcommit", "info").contains("its active volume may take 1.0 GiB"));
    let used = about(&["-w", "12", "-c", "13%"]);
    assert_eq!(used.code, WARNING);
    assert!(used.sentence("data_use", "warning").contains("12% of its data is used, 64.0 MiB of 512.0 MiB"));
    assert_eq!(about(&["-w", "11", "-c", "12"]).code, CRITICAL);
    about(&["--metadata-warning", "1", "--metadata-critical", "1"]).sentence("metadata_use", "critical");
    let line = bench.run(&["health", pool, "--format", "nagios", "-w", "12", "-c", "13"]);
    let values = format!("'{pool} data'=67108864B;64424509;69793218;0;536870912 '{pool} metadata'=");
    assert!(line.stdout.starts_with(&format!("DMPOOL WARNING - {pool}: 12%")), "{line}");
    assert!(line.stdout.contains(&values) && line.stdout.lines().count() == 1, "{line}");

    run(&["message", pool, "0", "reserve_metadata_snap"]);
    let held = about(&[]);
    assert_eq!(held.code, WARNING);
    paste(&held.way("metadata_snapshot", "warning"));
    about(&[]).without("metadata_snapshot");

    run(&["suspend", pool]);
    let suspended = about(&[]);
    assert_eq!(suspended.code, CRITICAL);
    // Who is not root sees that too, and says what he could not see.
    let user = Said::of(bench.cmd(&["health", "--format", "json"]).user(65534, 65534));
    assert_eq!(user.code, CRITICAL);
    user.sentence("suspended", "critical");
    assert!(user.sentence("not_seen", "unknown").contains("only be used by root"));
    paste(&suspended.way("suspended", "critical"));
    let user = Said::of(bench.cmd(&["health", "--format", "json"]).user(65534, 65534));
    assert_eq!(user.code, UNKNOWN);
    user.without("suspended");

    let data = OpenOptions::new().write(true).open(other.data.file()).unwrap();
    data.set_len(100 * M).unwrap();
    let short = about(&[]);
    assert_eq!(short.code, CRITICAL);
    assert!(short.by_hand("short_file", "critical").contains("from a backup"));
    paste(&short.other_way("short_file", "critical"));
    about(&[]).without("short_file");

    // A reader that goes away changes nothing.
    let piped = Cmd::new("bash").args(["-c", "\"$@\" | true; exit ${PIPESTATUS[0]}", "-", "dmpool"]);
    let piped = piped.args(["health", pool, "-w", "11", "-c", "12"]).run();
    assert_eq!(piped.code(), Some(CRITICAL), "{piped}");
    // One that cannot take it is told so: only what is critical stays what it is.
    for (critical, code) in [("12", CRITICAL), ("13", UNKNOWN)] {
        let full = Cmd::new("bash").args(["-c", "\"$@\" > /dev/full", "-", "dmpool"]);
        let full = full.args(["health", pool, "-w", "11", "-c", critical]).run();
        assert_eq!(full.code(), Some(code), "{full}");
        assert!(full.stderr.starts_with("dmpool: cannot write the output\n"), "{full}");
    }

    fs::remove_file(other.data.file()).unwrap();
    let deleted = about(&[]);
    assert_eq!(deleted.code, CRITICAL);
    assert!(deleted.sentence("deleted_file", "critical").contains("was deleted while in use"));
    assert!(deleted.by_hand("deleted_file", "critical").contains("leave the pool active"));
    paste(&deleted.way("deleted_file", "critical"));
    assert_eq!(fs::metadata(other.data.file()).unwrap().len(), 512 * M);
    run(&["remove", "--retry", &name]);
    // What `rm -rf` of a root leaves: nobody uses it, and its space comes back.
    paste(&about(&[]).other_way("deleted_file", "critical"));
    let stray = Said::of(bench.cmd(&["health", "--format", "json", "--no-pool", "ok"]));
    assert_eq!(stray.code, WARNING);
    paste(&stray.way("stray_loop", "warning"));
    Said::of(bench.cmd(&["health", "--format", "json", "--no-pool", "ok"])).without("stray_loop");
}

#[test]
fn health_of_a_full_pool() {
    let bench = Bench::new();
    let other = HandMade::new(&bench, "full", 64 * M, 8 * M);
    let name = bench.sweep.name("v");
    let device = volume(&other.name, 0, &name, 256 * M);
    let about = || Said::about(&bench, &other.name, &[]);
    let mut writer = Cmd::new("dd")
        .args(["if=/dev/zero", "bs=1M", "oflag=direct", "count=70"])
        .arg(format!("of={}", device.display()))
        .limit(Duration::from_secs(120))
        .start()
        .unwrap();
    let until = Instant::now() + Duration::from_secs(50);
    while !bench.ok(&["status", &other.name]).contains("it is full") {
        assert!(Instant::now() < until && writer.alive(), "the pool does not fill up");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(about().way("full", "critical").starts_with("dmpool grow"));
    let grow = bench.run(&["grow", &other.name, "128M"]);
    assert!(grow.ok() && writer.wait().ok(), "{grow}");
    about().without("full");

    let timeout = NoSpaceTimeout::seconds(1);
    assert!(!write(&device, 150));
    drop(timeout);
    let lost = about();
    assert_eq!(lost.code, CRITICAL);
    let sentence = lost.sentence("lost_writes", "critical");
    assert!(
        sentence.contains("acknowledged writes were lost; on it: volume `") && sentence.contains(&name),
        "{sentence}"
    );
    // With its volume gone the pool goes at once.
    run(&["remove", "--retry", &name]);
}

#[test]
fn health_of_metadata_and_of_a_pool_that_is_down() {
    let bench = Bench::new();
    let small = HandMade::new(&bench, "small", 64 * M, 2 * M);
    let (dm, id) = (Dm::open().unwrap(), DmId::name(&small.name));
    let full = (0..2000).take_while(|n| dm.message(&id, &format!("create_thin {n}")).is_ok());
    assert!(full.count() > 10);
    let said = Said::about(&bench, &small.name, &[]);
    assert_eq!(said.code, CRITICAL);
    assert!(said.sentence("read_only", "critical").contains("its metadata is full"));
    let way = said.way("read_only", "critical");
    assert!(way.starts_with("dmpool grow ") && way.contains(" --metadata +1G"), "{way}");
    bench.ok(&["grow", &small.name, "--metadata", "16M"]);
    Said::about(&bench, &small.name, &[]).without("read_only");

    let pool = bench.create();
    let about = || Said::about(&bench, &pool, &[]);
    let boot = about();
    assert_eq!(boot.code, WARNING);
    assert_eq!(boot.way("no_boot_activation", "warning"), "dmpool activate --all --at-boot");
    let name = bench.sweep.name("v");
    assert!(write(&volume(&pool, 0, &name, 256 * M), 100));
    dmsetup(["remove", "--retry", &name]).run().checked().unwrap();
    bench.ok(&["deactivate", &pool]);
    let down = about();
    assert_eq!(down.code, UNKNOWN);
    assert_eq!(down.way("inactive", "unknown"), format!("dmpool activate {pool}"));

    // New metadata over old data, and a data file that is empty under old metadata.
    let kept = fs::read(bench.file("metadata")).unwrap();
    fs::write(bench.file("metadata"), vec![0; kept.len()]).unwrap();
    assert!(about().sentence("mismatch", "critical").contains("was never written or was erased, and its data file"));
    fs::write(bench.file("metadata"), &kept).unwrap();
    about().without("mismatch");
    let data = OpenOptions::new().write(true).open(bench.file("data")).unwrap();
    data.set_len(0).unwrap();
    data.set_len(1024 * M).unwrap();
    assert!(about().sentence("mismatch", "critical").contains("maps 100.0 MiB, and its data file"));

    set_needs_check(&bench.file("metadata"));
    let down = about().way("needs_check", "critical");
    bench.ok(&["activate", &pool]);
    let check = about();
    assert_eq!(check.code, CRITICAL);
    let with_state = |way: &str| way.replace("dmpool ", &format!("dmpool --state-dir {} ", bench.state.display()));
    paste(&with_state(&check.way("needs_check", "critical")));
    about().without("needs_check");
    // A pool that is down is checked where it is; the repair makes metadata that the pool takes.
    bench.ok(&["deactivate", &pool]);
    set_needs_check(&bench.file("metadata"));
    paste(&check.other_way("needs_check", "critical"));
    set_needs_check(&bench.file("metadata"));
    paste(&down);
    about().without("needs_check");
    bench.ok(&["activate", &pool]);
    assert_eq!(bench.number("/pool/data/used"), 100 * M);
}

/// Its loop devices go away with it, and are not in its table again by themselves.
#[test]
fn a_pool_of_somebody_is_checked_and_brought_back_with_its_loop_devices() {
    let bench = Bench::new();
    let made = HandMade::new(&bench, "odd", 64 * M, 8 * M);
    let name = made.name.clone();
    let [data, metadata] = [&made.data, &made.metadata].map(|disk| disk.file().to_owned());
    drop(made);
    let _taken_down = Removed([bench.sweep.name("v"), name.clone()]);
    set_needs_check(&metadata);
    let attach = |file: &std::path::Path| format!("$(losetup --find --show {})", file.display());
    paste(&format!(
        "m={} && d={} && dmsetup create {name} --table \
         \"0 {} thin-pool $m $d 128 0 1 skip_block_zeroing\" && losetup -d $m $d",
        attach(&metadata),
        attach(&data),
        64 * M / 512
    ));
    let attached = || Cmd::new("losetup").args(["-n", "-O", "BACK-FILE"]).run().stdout;
    let told = Said::about(&bench, &name, &[]);
    let second = bench.create();
    // Without a name each command is printed as it would be with one.
    let which = bench.run(&["status", "--format", "docker"]);
    assert_eq!(which.code(), Some(2), "{which}");
    for pool in [&name, &second] {
        let again = format!(" dmpool --state-dir {} status {pool} --format docker\n", bench.state.display());
        assert!(which.stderr.contains(&again), "{which}");
        paste(&again);
    }
    bench.ok(&["destroy", &second, "--yes", "--with-volumes"]);

    paste(&told.way("needs_check", "critical"));
    let back = Said::about(&bench, &name, &[]);
    back.without("needs_check");
    assert_eq!(back.code, OK);
    volume(&name, 0, &bench.sweep.name("v"), M);
    for file in [&data, &metadata] {
        assert_eq!(attached().matches(file.to_str().unwrap()).count(), 1, "{}", attached());
    }
    run(&["remove", "--retry", &bench.sweep.name("v")]);
    run(&["remove", "--retry", &name]);
    let until = Instant::now() + Duration::from_secs(20);
    while [&data, &metadata].iter().any(|file| attached().contains(file.to_str().unwrap())) {
        assert!(Instant::now() < until, "they stay: {}", attached());
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn health_of_file_systems_on_volumes() {
    let bench = Bench::new();
    let pool = bench.create();
    let name = bench.sweep.name("v");
    let device = volume(&pool, 0, &name, 400 * M);
    let mounted = Mounted::format(Kind::Xfs, &device, &bench.sweep.path("mnt")).unwrap();
    let about = |more: &[&str]| Said::about(&bench, &pool, more);
    assert!(about(&[]).sentence("retries_forever", "info").contains(&name));
    let used = about(&["-w", "1", "-c", "90"]);
    used.sentence("retries_forever", "warning");
    paste(&used.way("retries_forever", "warning"));
    about(&["-w", "1", "-c", "90"]).without("retries_forever");
    mounted.unmount().unwrap();
    about(&[]).without("sizes_disagree");

    // Somebody loaded a table that is shorter than what is on the volume.
    let shorter = format!("dmsetup table {name} | awk '{{ $2 = 204800; print }}' | dmsetup load {name}");
    paste(&format!("{shorter} && dmsetup resume {name}"));
    let cut = about(&[]);
    assert_eq!(cut.code, CRITICAL);
    assert!(cut.sentence("sizes_disagree", "critical").contains("400.0 MiB (419430400 bytes)"));
    paste(&cut.way("sizes_disagree", "critical"));
    about(&[]).without("sizes_disagree");
    Mounted::mount(&device, &bench.sweep.path("mnt"), "defaults").unwrap();

    about(&[]).without("volume_use");
    let whole = volume(&pool, 1, &bench.sweep.name("whole"), 64 * M);
    assert!(write(&whole, 64));
    about(&[]).without("volume_use");
    Cmd::new("mkfs.ext4").args(["-q", "-E", "nodiscard"]).arg(&whole).run().checked().unwrap();
    assert!(about(&[]).sentence("volume_use", "warning").contains("100% of its own 64.0 MiB"));
}

/// A pool by hand on two LVs: its way out is a larger LV and the pool's own table with its length.
#[test]
fn health_of_a_pool_on_devices() {
    let bench = Bench::new();
    let lvm = LvmPool::new(&bench);
    let group = lvm.group();
    for (name, size) in [("data", "64M"), ("meta", "4M")] {
        lvm_run(&["lvcreate", "-y", "-W", "y", "-L", size, "-n", name, group]);
    }
    let pool = bench.sweep.name("onlv");
    let table = format!("0 131072 thin-pool /dev/{group}/meta /dev/{group}/data 128 0 1 skip_block_zeroing");
    run(&["create", &pool, "--table", &table]);
    let name = bench.sweep.name("v");
    assert!(write(&volume(&pool, 0, &name, 64 * M), 16));
    // grow has LVM extend the LV; what it has already is taken first.
    let near = || Said::about(&bench, &pool, &["-w", "20"]).way("data_use", "warning");
    assert!(near().starts_with(&format!("dmpool grow {pool} +")), "{}", near());
    lvm_run(&["lvextend", "-L", "128M", &format!("{group}/data")]);
    assert_eq!(near(), format!("dmpool grow {pool} max"));
    paste(&near());
    assert!(Said::about(&bench, &pool, &["-w", "12"]).sentence("data_use", "warning").contains("of 128.0 MiB"));
    for device in [&name, &pool] {
        run(&["remove", "--retry", device]);
    }
}

pub fn lvm_run(args: &[&str]) {
    Cmd::new("lvm").args(args).limit(Duration::from_secs(120)).run().checked().unwrap();
}

/// The loop device goes with the sweep; a stray of another test would be told too.
#[test]
fn health_of_a_loop_device_on_a_deleted_file() {
    let bench = Bench::new();
    let disk = LoopDisk::create(&bench.sweep.path("gone"), 16 * M).unwrap();
    let other = bench.sweep.path("other");
    fs::hard_link(disk.file(), &other).unwrap();
    fs::remove_file(disk.file()).unwrap();
    let said = || Said::of(bench.cmd(&["health", "--format", "json", "--no-pool", "ok"]));
    assert_eq!(said().code, WARNING);
    assert!(said().sentence("stray_loop", "warning").contains("keeps the deleted file"));
    // For the kernel it stays deleted, and is not.
    fs::hard_link(&other, disk.file()).unwrap();
    said().without("stray_loop");
}

/// A Docker root laid out by hand, on a file system that fills up before the pool does.
#[test]
fn health_says_what_fills_the_host_and_whose_writes_were_lost() {
    let bench = Bench::new();
    let disk = LoopDisk::create(&bench.sweep.path("disk"), 340 * M).unwrap();
    let host = Mounted::format(Kind::Ext4, disk.device(), &bench.sweep.path("host")).unwrap();
    let root = host.dir().join("docker");
    let put = |path: &str, text: &[u8]| {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    put("containers/c1/config.v2.json", br#"{"Name": "/web"}"#);
    put("containers/c1/c1-json.log", &vec![b'x'; 70 << 20]);
    put("image/devicemapper/layerdb/mounts/c1/mount-id", b"aa");
    put("devicemapper/metadata/base", br#"{"device_id":2,"size":536870912,"transaction_id":1,"initialized":true}"#);
    put("devicemapper/metadata/aa", br#"{"device_id":1,"size":536870912,"transaction_id":2}"#);
    put("devicemapper/metadata/deviceset-metadata", br#"{"next_device_id":2}"#);
    put("devicemapper/metadata/transaction-metadata", br#"{"open_transaction_id":0}"#);
    put("volumes/v/_data/file", &[b'x'; 5 << 20]);
    let home = root.join("devicemapper");
    fs::create_dir(home.join("devicemapper")).unwrap();
    let data = LoopDisk::create(&home.join("devicemapper/data"), 256 * M).unwrap();
    let metadata = LoopDisk::create(&home.join("devicemapper/metadata"), 8 * M).unwrap();
    let prefix = docker_prefix(&home);
    let pool = format!("{prefix}-pool");
    let _taken_down = Removed([format!("{prefix}-aa"), pool.clone()]);
    let table = format!("{} {} 128 0 1 skip_block_zeroing", metadata.device().display(), data.device().display());
    run(&["create", &pool, "--table", &format!("0 {} thin-pool {table}", 256 * M / 512)]);
    let volume = volume(&pool, 1, &format!("{prefix}-aa"), 512 * M);
    assert!(write(&volume, 190));

    let about = || Said::about(&bench, root.to_str().unwrap(), &[]);
    let near = about();
    assert_eq!(near.code, WARNING);
    let sentence = near.sentence("host_file_system", "warning");
    let said =
        ["and the pool may still take 66.0 MiB; on it: the pool's own files 19", "containers' json logs 70.0 MiB"];
    assert!(said.iter().all(|said| sentence.contains(said)) && sentence.contains("volumes 5."), "{sentence}");
    paste(&near.way("host_file_system", "warning"));
    about().without("host_file_system");

    let timeout = NoSpaceTimeout::seconds(1);
    assert!(!write(&volume, 300));
    drop(timeout);
    assert!(about().sentence("lost_writes", "critical").ends_with("on it: container `web`"));
}

/// What blog posts tell people to make: a link to a disk in the data file's place.
#[test]
fn health_of_a_disk_behind_a_link() {
    let bench = Bench::new();
    let home = bench.sweep.path("docker").join("devicemapper");
    fs::create_dir_all(home.join("devicemapper")).unwrap();
    let disk = LoopDisk::create(&bench.sweep.path("disk"), 64 * M).unwrap();
    let link = home.join("devicemapper/data");
    std::os::unix::fs::symlink(disk.device(), &link).unwrap();
    let data = LoopDisk::attach(&link).unwrap();
    let metadata = LoopDisk::create(&home.join("devicemapper/metadata"), 8 * M).unwrap();
    let pool = format!("{}-pool", docker_prefix(&home));
    let _taken_down = Removed([pool.clone(), pool.clone()]);
    let table = format!("{} {} 128 0 1 skip_block_zeroing", metadata.device().display(), data.device().display());
    run(&["create", &pool, "--table", &format!("0 {} thin-pool {table}", 64 * M / 512)]);
    let by_id = std::path::Path::new("/dev/disk/by-id/dmpool-test-disk");
    fs::create_dir_all(by_id.parent().unwrap()).unwrap();
    std::os::unix::fs::symlink(disk.device(), by_id).unwrap();
    let root = home.parent().unwrap().to_str().unwrap();
    let told = Said::about(&bench, root, &[]);
    assert_eq!(told.code, CRITICAL);
    assert!(told.sentence("symlinked_device", "critical").contains("may be another disk"));
    let cure = told.by_hand("symlinked_device", "critical");
    let relink = told.other_way("symlinked_device", "critical");
    assert!(cure.starts_with("add dm.datadev=/dev/disk/by-id/dmpool-test-disk "), "{cure}");
    paste(&relink);
    let cured = Said::about(&bench, root, &[]);
    fs::remove_file(by_id).unwrap();
    cured.without("symlinked_device");
}

/// What Docker calls the devices of the driver's home.
fn docker_prefix(home: &std::path::Path) -> String {
    let found = fs::metadata(home).unwrap();
    let (major, minor) = (nix::sys::stat::major(found.dev()), nix::sys::stat::minor(found.dev()));
    format!("docker-{major}:{minor}-{}", found.ino())
}

/// Devices that have Docker's names, which no sweep takes away.
struct Removed([String; 2]);

impl Drop for Removed {
    fn drop(&mut self) {
        for name in &self.0 {
            let _ = dmsetup(["remove", "--retry", name]).run();
        }
    }
}
