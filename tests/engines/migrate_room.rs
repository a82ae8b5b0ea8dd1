//! Somebody fills the file system on which a pool is migrated, while Docker is down for it.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use lab::guest::boot;
use lab::guest::disk::Kind;
use lab::guest::sys::dmsetup;

use crate::migrate::of_container;
use crate::migrate_trouble::{Trouble, says};
use crate::support::Bench;

/// What is left to others, the journal and the reports among them.
const LEFT: u64 = 2 << 20;
const M: u64 = 1 << 20;

/// Returns a line of a shell's that fills a file system but for that.
fn fills(dir: &Path, name: &str) -> String {
    let dir = dir.display();
    format!(
        "a=$(($(df --output=avail -B1 {dir} | tail -1) - {LEFT})); [ $a -le 0 ] || fallocate -l $a {dir}/filler-{name}"
    )
}

fn available(dir: &Path) -> u64 {
    let found = nix::sys::statvfs::statvfs(dir).unwrap();
    found.blocks_available() * found.fragment_size()
}

/// Fails unless the files of Docker's pool occupy no more than is in use in it.
#[track_caller]
fn occupies_what_is_used(it: &Trouble) {
    let pool = it.docker.pool().unwrap();
    let status = dmsetup(["status", &pool]).run().checked().unwrap().stdout;
    let used = |field: usize| -> u64 {
        let (used, _) = status.split_whitespace().nth(field).unwrap().split_once('/').unwrap();
        used.parse().unwrap()
    };
    let folder = it.docker.root().join("devicemapper/devicemapper");
    let occupied = |name: &str| fs::metadata(folder.join(name)).unwrap().blocks() * 512;
    // Docker and the kernel have written since, and given some of it up.
    let (metadata, data) = (used(4) * 4096, used(5) * 65536);
    assert!(occupied("data") <= data + (8 << 20), "{} of {data}, {status}", occupied("data"));
    assert!(occupied("metadata") <= metadata * 3 / 2 + (256 << 10), "{} of {metadata}", occupied("metadata"));
}

/// Has the container hold several times what is given up at once; returns the sum.
fn with_much_in_it(it: &mut Trouble) -> String {
    let ran = it.docker.exec("web", &["sh", "-c", "dd if=/dev/urandom of=/much bs=1M count=80; sync; md5sum /much"]);
    it.web = of_container(&it.docker, "web");
    ran.checked().unwrap().stdout
}

/// Migrates onto loop files and then to directories, on a disk that somebody fills.
fn the_copy_keeps_its_room(it: &Trouble, much: &str) {
    let dir = it.disk.dir().to_owned();
    let is_there = || assert_eq!(it.docker.exec("web", &["md5sum", "/much"]).checked().unwrap().stdout, much);
    // Again and again, and each time all but what is left to others, from when Docker is stopped on until it is started.
    let (fills_it, at) = (fills(&dir, "$n"), dir.display());
    it.hook(
        "on-stop",
        &format!("( n=0; until [ -e {at}/enough ]; do n=$((n+1)); {fills_it}; sleep 0.1; done; rm {at}/filler-*; rm {at}/enough ) </dev/null >{at}/fills.log 2>&1 &"),
    );
    it.hook("on-start", &format!("touch {at}/enough; while [ -e {at}/enough ]; do sleep 0.05; done"));
    let ran = it.migrate_to(&["--data-size", "3G"], "");
    assert!(ran.ok(), "{ran}\n{}", fs::read_to_string(dir.join("fills.log")).unwrap());
    it.is_as_it_was("3.221GB");
    is_there();
    occupies_what_is_used(it);

    // Once, for directories.
    it.hook("on-stop", &fills(&dir, "once"));
    it.hook("on-start", &format!("rm {at}/filler-*"));
    let ran = it.migrate_to(&["--to-driver", "overlay2"], "");
    assert!(ran.ok(), "{ran}");
    assert!(dir.join("on-stop.done").exists() && dir.join("on-start.done").exists());
    assert_eq!(it.docker.storage_value("Storage Driver").unwrap(), "overlay2");
    is_there();
}

/// Fails unless a disk with no more room than that is refused before anything is stopped.
pub fn is_refused_without_room(it: &Trouble, room: u64) {
    let dir = it.disk.dir();
    let filler = dir.join("filler-before");
    let length = available(dir) - room;
    nix::fcntl::fallocate(
        fs::File::create_new(&filler).unwrap(),
        nix::fcntl::FallocateFlags::empty(),
        0,
        i64::try_from(length).unwrap(),
    )
    .unwrap();
    let pid = fs::read_to_string("/var/run/docker.pid").unwrap();
    for what in [&["--data-size", "3G"], &["--to-driver", "overlay2"]] {
        let ran = it.migrate_to(what, "");
        says(&ran, 3, &["has too little space for", "needed:", "free:"]);
    }
    assert_eq!(fs::read_to_string("/var/run/docker.pid").unwrap(), pid);
    assert_eq!(of_container(&it.docker, "web"), it.web);
    assert!(!it.bench.state.join("journal").exists());
    assert!(available(dir) >= room - M);
    fs::remove_file(filler).unwrap();
}

/// Refuses where there is too little room, and keeps what there is of it.
fn is_refused_or_keeps_its_room(kind: Kind) {
    if !boot::full() {
        boot::skip("minutes: with --full");
    }
    boot::time_limit(Duration::from_secs(900));
    let mut it = Trouble::on(Bench::new(), kind, &boot::scratch_disks()[0]);
    let much = with_much_in_it(&mut it);
    // Less than what the container holds and the metadata need.
    is_refused_without_room(&it, 100 * M);
    the_copy_keeps_its_room(&it, &much);
}

#[test]
fn who_fills_the_disk_while_docker_is_down_does_not_get_the_room_of_the_copy() {
    is_refused_or_keeps_its_room(Kind::Xfs);
}

#[test]
fn who_fills_an_ext4_does_not_get_the_room_of_the_copy() {
    is_refused_or_keeps_its_room(Kind::Ext4);
}

#[test]
fn who_fills_the_disk_after_a_death_is_told_of_or_too_late() {
    if !boot::full() {
        boot::skip("minutes: with --full");
    }
    boot::time_limit(Duration::from_secs(1500));
    let mut it = Trouble::new(Bench::with_faults());
    let dir = it.disk.dir().to_owned();
    let much = with_much_in_it(&mut it);
    let fill = || {
        let line = fills(&dir, "since");
        lab::guest::run::Cmd::new("sh").args(["-c", &line]).run().checked().unwrap();
    };
    let unfill = format!("rm -f {}/filler-*", dir.display());

    // Nobody has touched Docker: there is nothing to be gone on with.
    let pid = fs::read_to_string("/var/run/docker.pid").unwrap();
    let ways: Vec<&str> = it.ways.iter().map(String::as_str).collect();
    let args = [&["migrate", "--data-size", "3G", "--yes"], ways.as_slice()].concat();
    let running = it.bench.cmd(&args).env("DMPOOL_FAULT", "2:after:wait").start().unwrap();
    let journals = || fs::read_dir(it.bench.state.join("journal")).map_or(0, Iterator::count);
    while journals() == 0 {
        std::thread::sleep(Duration::from_millis(50));
    }
    running.signal(nix::sys::signal::Signal::SIGINT);
    says(&running.wait(), 1, &["interrupted by SIGINT", "the machine is as it was"]);
    assert_eq!(fs::read_to_string("/var/run/docker.pid").unwrap(), pid);
    it.is_as_it_was("2.147GB");

    // Containers are stopped, and Docker runs still.
    assert!(!it.migrate_to(&["--data-size", "3G"], "4:before:die").ok());
    fill();
    says(&it.ends("continue"), 4, &["has too little space", "are needed for the copy", "dmpool undo"]);
    assert_eq!(fs::read_to_string("/var/run/docker.pid").unwrap(), pid);
    lab::guest::run::Cmd::new("sh").args(["-c", &unfill]).run().checked().unwrap();
    assert!(it.ends("undo").ok());
    it.is_as_it_was("2.147GB");

    // Directories get their blocks as they are written, and what was reserved has gone with dmpool.
    assert!(!it.migrate_to(&["--to-driver", "overlay2"], "1:layer:die").ok());
    fill();
    says(&it.ends("continue"), 4, &["has too little space", "are needed for the copy", "dmpool undo"]);
    it.hook("on-start", &unfill);
    assert!(it.ends("undo").ok());
    it.is_as_it_was("2.147GB");

    // Loop files have theirs.
    assert!(!it.migrate_to(&["--data-size", "3G"], "2:layer:die").ok());
    fill();
    fs::remove_file(dir.join("on-start.done")).unwrap();
    it.hook("on-start", &unfill);
    let ran = it.ends("continue");
    assert!(ran.ok(), "{ran}");
    it.is_as_it_was("3.221GB");
    occupies_what_is_used(&it);
    assert_eq!(it.docker.exec("web", &["md5sum", "/much"]).checked().unwrap().stdout, much);

    // Files that were prepared, and file systems that are made anew.
    it.migrate_to(&["--prepare", "--data-size", "4G"], "").checked().unwrap();
    for what in [&[][..], &["--fs", "ext4", "--base-size", "900M"]] {
        it.hook("on-stop", &fills(&dir, "once"));
        it.hook("on-start", &unfill);
        let ran = it.migrate_to(what, "");
        assert!(ran.ok(), "{ran}");
        assert_eq!(it.docker.storage_value("Data Space Total").unwrap(), "4.295GB");
        occupies_what_is_used(&it);
        assert_eq!(it.docker.exec("web", &["md5sum", "/much"]).checked().unwrap().stdout, much);
    }
}
