//! A real Docker gets a smaller base device, and another file system in it: what is in every image and container stays what it was.

use std::path::{Path, PathBuf};
use std::time::Duration;

use lab::guest::boot;
use lab::guest::disk::{Kind, Mounted};
use lab::guest::docker::{Config, Docker, IMAGE};
use lab::guest::inventory::attributes;
use lab::guest::run::Cmd;

use crate::host::assert_refused;
use crate::migrate::{WAITS, by_scripts, told_of, without_backups};
use crate::migrate_base::{SAME, checked, device_size, fill, images, inside, picture, sound};
use crate::rescue_files::acl;
use crate::support::Bench;

const M: u64 = 1 << 20;
/// Every file of every volume is written, and read again: no second is meant.
const LIMIT: Duration = Duration::from_secs(400);
const NAMES: [&str; 5] = ["kept", "big", "odd", "one", "two"];

/// The containers; of `one` and `two` CI has the images alone, whose files are those of the containers.
fn names() -> &'static [&'static str] {
    NAMES.get(..if boot::full() { 5 } else { 3 }).unwrap()
}

/// Makes images of layers that take from each other, and a container with what is easily lost.
fn layers(docker: &Docker) {
    let one = "mkdir -p /d/e /dir/deep /moved; echo 1 > /d/e/f; echo 2 > /d/g; ln /d/g /d/h; echo 3 > /gone; echo 4 > /dir/deep/x; \
        echo 5 > /moved/a; ln /moved/a /other-name; dd if=/dev/urandom of=/owned bs=1M count=3; touch -d '2001-02-03 04:05:06' /d";
    let two = "rm -r /d/e /dir /gone; echo file > /dir; ln /d/g /elsewhere; chown 7:7 /owned; mv /moved /again; mv /bin/zcat /zz; \
        mknod /null c 1 3; ln -s nowhere /sym; mkfifo /fifo-of-two; dd if=/dev/zero of=/sparse bs=1 count=1 seek=100M";
    for (name, from, does) in [("one", IMAGE, one), ("two", "dmpool-test-one:1", two)] {
        docker.cmd(["run", "--name", name, from, "sh", "-c", does]).run().checked().unwrap();
        docker.cmd(["commit", name, &format!("dmpool-test-{name}:1")]).run().checked().unwrap();
        if !names().contains(&name) {
            docker.cmd(["rm", name]).run().checked().unwrap();
        }
    }
    let waits = ["run", "-d", "--network", "none", "--name", "odd", "dmpool-test-two:1"];
    docker.cmd([&waits[..], &WAITS].concat()).run().checked().unwrap();
}

fn root_of(docker: &Docker, name: &str) -> PathBuf {
    let pid = docker.cmd(["inspect", "-f", "{{.State.Pid}}", name]).run().checked().unwrap().stdout;
    Path::new("/proc").join(pid.trim()).join("root")
}

/// What no archive of Docker's has: attributes, and flags.
fn make_odd(docker: &Docker) {
    let root = root_of(docker, "odd");
    for (name, key) in [("dir", "user.kept"), ("d", "trusted.kept"), ("owned", "security.capability")] {
        let value: &[u8] =
            if key == "security.capability" { b"\x01\0\0\x02\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0" } else { b"x" };
        xattr::set(root.join(name), key, value).unwrap();
    }
    for (name, kind) in [("owned", "access"), ("again", "default")] {
        xattr::set(root.join(name), format!("system.posix_acl_{kind}"), &acl()).unwrap();
    }
    for (name, flags) in [("sparse", "+d"), ("dir", "+i"), ("again", "+A")] {
        Cmd::new("chattr").args([flags, root.join(name).to_str().unwrap()]).run().checked().unwrap();
    }
}

fn odd(docker: &Docker) -> String {
    let root = root_of(docker, "odd");
    let mut seen = String::new();
    for name in ["dir", "d", "owned", "sparse", "again", "null", "sym"] {
        let path = root.join(name);
        let keys = attributes(&path).unwrap();
        let flags = Cmd::new("lsattr").args(["-d", path.to_str().unwrap()]).run().stdout;
        let flags: String = flags.split(' ').next().unwrap().chars().filter(|flag| "iadA".contains(*flag)).collect();
        seen.push_str(&format!("{name} {keys:?} {flags}\n"));
    }
    seen
}

fn docker_with(bench: &Bench, options: &[&str]) -> (Mounted, Docker) {
    let disk = Mounted::format(Kind::Xfs, &boot::scratch_disks()[0], &bench.sweep.path("docker")).unwrap();
    let sizes = ["dm.loopdatasize=3G", "dm.loopmetadatasize=16M"];
    let config = Config::new(disk.dir().join("root"));
    let config = sizes.iter().chain(options).fold(config, |config, option| config.option(option));
    let docker = Docker::start(config).unwrap();
    fill(&docker);
    layers(&docker);
    make_odd(&docker);
    (disk, docker)
}

/// Stops what looks at the container's own files, so that nothing is mounted.
fn stop_odd(docker: &Docker) {
    docker.cmd(["stop", "-t", "5", "odd"]).run().checked().unwrap();
}

#[test]
fn a_smaller_base_device_and_another_file_system_have_the_same_files() {
    // Both ways, with --full.
    boot::time_limit(Duration::from_secs(if boot::full() { 1200 } else { 600 }));
    let bench = Bench::new();
    let (disk, docker) = docker_with(&bench, &["dm.basesize=1G", "dm.fs=xfs"]);
    let bench = bench.at(disk.dir());
    let was: Vec<_> = names().iter().map(|name| told_of(&docker, name, &SAME)).collect();
    let (had, of_odd) = (images(&docker), odd(&docker));
    println!("{of_odd}");

    let [stop, start] = by_scripts(&bench);
    let ways = ["--stop-command", &stop, "--start-command", &start];
    let migrate = |args: &[&str]| bench.cmd(&[&["migrate"], args, &ways[..]].concat()).limit(LIMIT).run();
    assert_refused(&migrate(&["--base-size", "100M"]), 3, &["no xfs of 100.0 MiB can be made here"]);
    let described = migrate(&["--base-size", "500M", "--dry-run"]);
    println!("{described}");
    assert!(described.ok() && described.stdout.contains("are made anew, each an xfs of 500.0 MiB"), "{described}");
    let size = 500 * M;
    // The second way is the same step with another program: with --full.
    let ways = [(["--base-size", "500M"], "xfs"), (["--fs", "ext4"], "ext4")];
    for (args, inner) in ways.into_iter().take(if boot::full() { 2 } else { 1 }) {
        let ran = migrate(&[&args[..], &["--yes"]].concat());
        assert!(ran.ok(), "{ran}");
        println!("{ran}");
        assert_eq!(docker.storage_value("Base Device Size").unwrap(), "524.3MB");
        assert_eq!(docker.storage_value("Backing Filesystem").unwrap(), inner);
        checked(&docker, &was, names(), &had);
        assert_eq!(odd(&docker), of_odd);
        stop_odd(&docker);
        sound(&bench, &docker, size);
        assert_eq!([device_size("kept"), device_size("big")], [size, 2048 * M]);
        for image in [IMAGE, "dmpool-test-two:1"].into_iter().skip(if boot::full() { 0 } else { 1 }) {
            assert!((350 * M..500 * M).contains(&inside(&docker, image)), "{image}: {}", inside(&docker, image));
        }
        docker.cmd(["start", "odd"]).run().checked().unwrap();
    }
    assert_eq!(docker.cmd(["start", "-a", "big"]).run().code(), Some(7));
    let root = root_of(&docker, "odd");
    Cmd::new("chattr").args(["-i", root.join("dir").to_str().unwrap()]).run().checked().unwrap();
    Cmd::new(&stop).run().checked().unwrap();
    without_backups();
}

/// Dies, or fails, between two volumes and at each step, from ext4 to XFS; then it is taken back, and in the end finished.
#[test]
fn volumes_made_anew_are_taken_back_or_finished_after_a_death() {
    if !boot::full() {
        boot::skip("minutes: with --full");
    }
    boot::time_limit(Duration::from_secs(1800));
    let bench = Bench::with_faults();
    let (disk, mut docker) = docker_with(&bench, &["dm.basesize=1G", "dm.fs=ext4"]);
    let root = disk.dir().join("root");
    let bench = bench.at(disk.dir());
    stop_odd(&docker);
    let was = NAMES.map(|name| told_of(&docker, name, &SAME));
    let had = images(&docker);
    docker.stop().unwrap();
    without_backups();
    let before = picture(&root);
    let args = ["migrate", "--base-size", "400M", "--fs", "xfs", "--yes"];
    let with_fault = |fault: &str| bench.cmd(&args).env("DMPOOL_FAULT", fault).run();
    let failed = with_fault("3:layer:fail");
    assert!(!failed.ok() && failed.stderr.contains("asked for"), "{failed}");
    without_backups();
    assert_eq!(picture(&root), before);
    let described = bench.ok(&[&args[..5], &["--dry-run"]].concat());
    println!("{described}");
    let steps = described.lines().filter(|line| line.trim_start().starts_with(|c: char| c.is_ascii_digit())).count();
    let faults: Vec<String> =
        (1..=steps).flat_map(|step| ["before", "after"].map(|at| format!("{step}:{at}:die"))).collect();
    for fault in faults.iter().map(String::as_str).chain(["1:layer:die", "4:layer:die"]) {
        let died = with_fault(fault);
        assert!(!died.ok(), "{fault}: {died}");
        let undone = bench.run(&["undo"]);
        println!("{fault}: {undone}");
        without_backups();
        assert_eq!(picture(&root), before, "{fault}");
    }
    assert!(!with_fault("4:layer:die").ok());
    let ended = bench.run(&["continue"]);
    assert!(ended.ok(), "{ended}");
    docker.up().unwrap();
    assert_eq!(docker.storage_value("Base Device Size").unwrap(), "419.4MB");
    assert_eq!(docker.storage_value("Backing Filesystem").unwrap(), "xfs");
    checked(&docker, &was, &NAMES, &had);
    sound(&bench, &docker, 400 * M);
    docker.stop().unwrap();
    without_backups();
}

/// What does not fit is found before anything is stopped, and a pool of dmpool's gets it as well.
#[test]
fn volumes_are_made_anew_in_a_pool_of_dmpools() {
    if !boot::full() {
        boot::skip("minutes: with --full");
    }
    boot::time_limit(Duration::from_secs(900));
    let bench = Bench::new();
    let (disk, mut docker) = docker_with(&bench, &["dm.basesize=1G", "dm.fs=xfs"]);
    let bench = bench.at(disk.dir());
    stop_odd(&docker);
    let was = NAMES.map(|name| told_of(&docker, name, &SAME));
    let had = images(&docker);
    let fills = "dd if=/dev/urandom of=/large bs=1M count=250";
    docker.cmd(["run", "--name", "large", IMAGE, "sh", "-c", fills]).run().checked().unwrap();
    docker.stop().unwrap();
    let (pool, dir) = (bench.pool(), bench.dir.to_str().unwrap().to_owned());
    let place = ["--name", &pool, "--dir", &dir, "--data-size", "3G", "--metadata-size", "16M"];
    assert_refused(
        &bench.run(&["migrate", "--base-size", "300M", "--yes"]),
        3,
        &["what is in some volumes does not fit into 300.0 MiB", "container large", "--base-size"],
    );
    let args = [&["migrate", "--base-size", "350M", "--fs", "ext4", "--yes"], &place[..]].concat();
    let ran = bench.cmd(&args).limit(LIMIT).run();
    assert!(ran.ok(), "{ran}");
    println!("{ran}");
    docker.up().unwrap();
    assert_eq!(docker.storage_value("Pool Name").unwrap(), pool);
    assert_eq!(docker.storage_value("Backing Filesystem").unwrap(), "ext4");
    checked(&docker, &was, &NAMES, &had);
    sound(&bench, &docker, 350 * M);
    docker.stop().unwrap();
    bench.ok(&["destroy", &pool, "--with-volumes", "--yes"]);
    without_backups();
}
