//! Most of a pool is copied while Docker runs, and only what has changed since while it is down.

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::time::Duration;

use lab::guest::boot;
use lab::guest::disk::{Kind, Mounted};
use lab::guest::docker::{Config, Docker};
use lab::guest::run::{Cmd, Ran};

use crate::host::assert_refused;
use crate::migrate::{WAITS, by_scripts, entries, of_container, without_backups};
use crate::support::Bench;
use crate::support::lvm::Group;

const M: u64 = 1 << 20;
/// Writes new blocks and old ones, until it is told to be still; then it waits.
const WRITES: [&str; 3] = [
    "sh",
    "-c",
    "trap exit TERM; i=0; while :; do i=$((i + 1)); [ -e /still ] || { dd if=/dev/urandom of=/data/$((i % 5)) bs=64k count=2; \
     dd if=/dev/urandom of=/data/new bs=4k seek=$((i * 16)) count=1; sync; } 2>/dev/null; sleep 1; done",
];

fn docker_in(disk: &Mounted) -> Docker {
    let config = Config::new(disk.dir().join("root")).option("dm.basesize=1G");
    let config = config.option("dm.loopdatasize=4G").option("dm.loopmetadatasize=16M");
    let docker = Docker::start(config).unwrap();
    docker.busybox(&[]).unwrap();
    docker
}

/// An image on the other one with so many MiB of its own, and a container of it: from then on its layer is shared.
fn image(docker: &Docker, from: &str, name: &str, mib: u32) {
    let noise = format!("dd if=/dev/urandom of=/noise-{name} bs=1M count={mib} 2>/dev/null; echo {name} > /name; sync");
    let tag = format!("dmpool-test-{name}:1");
    docker.cmd(["run", "--name", name, from, "sh", "-c", &noise]).run().checked().unwrap();
    docker.cmd(["commit", name, &tag]).run().checked().unwrap();
    docker.cmd(["rm", name]).run().checked().unwrap();
    docker.cmd(["create", "--name", name, &tag, "cat", "/name"]).run().checked().unwrap();
}

/// How many bytes a run of dmpool's has copied.
fn copied(ran: &Ran) -> u64 {
    let Some(line) = ran.stderr.lines().rfind(|line| line.starts_with("copying volumes: ")) else { return 0 };
    let (_, total) = line.split_once(" of ").unwrap();
    let (number, unit) = total.split_once(' ').unwrap();
    let unit = match unit {
        "bytes" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        other => panic!("{other}"),
    };
    let scale = if number.contains('.') { 10 } else { 1 };
    (number.replace('.', "").parse::<u64>().unwrap() << unit) / scale
}

fn ok(ran: Ran) -> Ran {
    assert!(ran.ok(), "{ran}");
    println!("{ran}");
    ran
}

fn no_journal(bench: &Bench) {
    let journals = fs::read_dir(bench.state.join("journal")).map_or(0, Iterator::count);
    assert_eq!(journals, 0, "no journal stays");
}

#[test]
fn what_was_prepared_is_not_copied_again_while_docker_is_down() {
    boot::time_limit(Duration::from_secs(600));
    let bench = Bench::new();
    let disk = Mounted::format(Kind::Xfs, &boot::scratch_disks()[0], &bench.sweep.path("docker")).unwrap();
    let bench = bench.at(disk.dir());
    let docker = docker_in(&disk);
    let home = disk.dir().join("root/devicemapper");
    image(&docker, "dmpool-test-busybox:1", "one", 8);
    docker.cmd(["create", "--name", "gone", "dmpool-test-one:1", "cat", "/name"]).run().checked().unwrap();
    docker.run_detached(&["--name", "web"], &WRITES).unwrap();
    let [stop, start] = by_scripts(&bench);
    let ways = ["--stop-command", &stop, "--start-command", &start];
    let prepare = [&["migrate", "--prepare", "--data-size", "6G"], &ways[..]].concat();
    let untold = bench.run(&[&["migrate", "--prepare"], &ways[..]].concat());
    assert_refused(&untold, 2, &["nothing says what the pool shall become"]);
    let first = ok(bench.run(&prepare));
    let next = format!(
        "next: dmpool migrate --data-size 6G --stop-command {stop} --start-command {start}    # when Docker may"
    );
    assert!(copied(&first) > 8 * M && first.stdout.contains(&next), "{next}");
    assert!(!first.stdout.contains(".old") && first.stdout.matches("with Docker stopped").count() == 1, "{first}");
    no_journal(&bench);

    // Docker goes on, and its pool can be grown.
    bench.ok(&["grow", "docker", "5G"]);
    docker.cmd(["rm", "gone"]).run().checked().unwrap();
    image(&docker, "dmpool-test-one:1", "later", 1);
    let second = ok(bench.run(&prepare));
    assert!(copied(&second) < copied(&first), "only what is new");

    let late = ["run", "--name", "late", "dmpool-test-later:1", "sh", "-c", "echo late > /name; rm /noise-one"];
    docker.cmd(late).run().checked().unwrap();
    assert!(docker.exec("web", &["sh", "-c", "touch /still; sleep 2; sync"]).ok());
    let contents = |docker: &Docker| ["web", "one", "late"].map(|name| of_container(docker, name));
    let before = contents(&docker);
    // Containers and Docker have their own time to stop and to start in it.
    let switch = [&["migrate"], &ways[..], &["--yes"]].concat();
    let switched = ok(bench.cmd(&switch).limit(Duration::from_secs(180)).run());
    assert!(switched.stderr.contains("volumes were prepared") && switched.stderr.contains("are left to copy"));
    let (left, all) = (copied(&switched), copied(&first) + copied(&second));
    assert!(left > 0 && left * 2 < all, "{left} of {all} are copied while Docker is down");
    assert_eq!(docker.storage_value("Data Space Total").unwrap(), "6.442GB");
    assert_eq!(contents(&docker), before);
    let left = entries(&home);
    assert!(!left.iter().any(|name| name.contains("prepared")), "{left:?}");
    docker.cmd(["run", "--rm", "dmpool-test-one:1", "cat", "/noise-one"]).run().checked().unwrap();
    Cmd::new(&stop).run().checked().unwrap();
    without_backups();
}

#[test]
fn a_disk_is_prepared_switched_to_and_left_again_for_new_loop_files() {
    if !boot::full() {
        boot::skip("minutes: with --full");
    }
    boot::time_limit(Duration::from_secs(600));
    let bench = Bench::new();
    let scratch = boot::scratch_disks();
    let disk = Mounted::format(Kind::Xfs, &scratch[0], &bench.sweep.path("docker")).unwrap();
    let bench = bench.at(disk.dir());
    let docker = docker_in(&disk);
    image(&docker, "dmpool-test-busybox:1", "one", 8);
    image(&docker, "dmpool-test-one:1", "later", 1);
    docker.run_detached(&["--name", "web"], &WAITS).unwrap();
    let [stop, start] = by_scripts(&bench);
    let ways = ["--stop-command", &stop, "--start-command", &start];
    let (pool, device) = (bench.sweep.name("on-disk"), scratch[1].display().to_string());
    let target = ["migrate", "--name", &pool, "--data-device", &device, "--wipe", "--prepare"];
    let first = ok(bench.run(&[&target[..], &ways].concat()));
    assert!(copied(&first) > 8 * M);
    no_journal(&bench);
    is_for_nothing_else(&bench, &pool, &["--data-device", &device]);
    assert!(docker.exec("web", &["sh", "-c", "dd if=/dev/urandom of=/data/more bs=64k count=8; sync"]).ok());
    image(&docker, "dmpool-test-later:1", "last", 1);
    let second = ok(bench.run(&[&["migrate", "--prepare"], &ways[..]].concat()));
    assert!(copied(&second) > 0 && copied(&second) * 2 < copied(&first), "only what is new");
    let contents = || ["web", "one", "later", "last"].map(|name| of_container(&docker, name));
    let before = contents();
    let switch = [&["migrate"], &ways[..], &["--yes"]].concat();
    let switched = ok(bench.cmd(&switch).limit(Duration::from_secs(180)).run());
    let (left, all) = (copied(&switched), copied(&first) + copied(&second));
    assert!(left * 2 < all, "{left} of {all} are copied while Docker is down");
    assert_eq!(docker.storage_value("Pool Name").unwrap(), pool);
    assert_eq!(contents(), before);
    let left = entries(&docker.root().join("devicemapper"));
    assert!(!left.iter().any(|name| name.contains("prepared")), "{left:?}");
    docker.cmd(["run", "--rm", "dmpool-test-last:1", "cat", "/noise-last"]).run().checked().unwrap();

    let back = [&["migrate", "--data-size", "5G"], &ways[..], &["--yes"]].concat();
    ok(bench.cmd(&back).limit(Duration::from_secs(180)).run());
    assert_eq!(docker.storage_value("Data Space Total").unwrap(), "5.369GB");
    assert!(docker.storage_value("Data loop file").unwrap().ends_with("devicemapper/devicemapper/data"));
    assert_eq!(contents(), before);
    let told = fs::read_to_string("/etc/docker/daemon.json").unwrap();
    assert!(!told.contains("dm.thinpooldev") && told.contains("dm.basesize=1G"), "{told}");
    Cmd::new(&stop).run().checked().unwrap();
    bench.ok(&["destroy", &pool, "--with-volumes", "--yes"]);
    without_backups();
}

/// What is prepared is shown as that, and nobody else gets it.
pub(crate) fn is_for_nothing_else(bench: &Bench, pool: &str, place: &[&str]) {
    for args in [
        &["activate", pool][..],
        &["destroy", pool, "--yes"],
        &["grow", pool, "max"],
        &["thin", "create", pool, "web", "--size", "1M"],
        &[&["create", pool], place, &["--ensure"]].concat(),
    ] {
        assert_refused(&bench.run(args), 3, &["a migration into it is prepared", "--drop-prepared"]);
    }
    let other = bench.run(&["migrate", "--prepare", "--name", "dmpool-test-other", "--dir", "/var/tmp"]);
    assert_refused(&other, 3, &["another target was prepared", "--drop-prepared"]);
    bench.ok(&["activate", "--all"]);
    let list = bench.ok(&["list"]);
    let line = list.lines().find(|line| line.starts_with(pool)).unwrap_or_else(|| panic!("{list}"));
    assert!(line.contains("docker (prepared)") && line.contains("inactive"), "{line}");
    let status = bench.ok(&["status", pool]);
    assert!(status.contains("once the migration that is prepared has ended"), "{status}");
}

/// Somebody writes to what was prepared, and hides it; and another target is asked for.
fn spoilt(bench: &Bench, home: &Path, prepare: &[&str], ways: &[&str]) {
    let data = home.join("devicemapper.dmpool-prepared/data");
    let before = fs::metadata(&data).unwrap();
    let file = fs::OpenOptions::new().write(true).open(&data).unwrap();
    file.write_all_at(&[7; 4096], 2 * M).unwrap();
    file.set_modified(before.modified().unwrap()).unwrap();
    drop(file);
    assert_eq!(fs::metadata(&data).unwrap().mtime(), before.mtime());
    let switch = bench.run(&[&["migrate"], ways, &["--yes"]].concat());
    assert_refused(&switch, 3, &["somebody has written to its files since", "--drop-prepared"]);
    let other = bench.run(&[&["migrate", "--data-size", "7G"], ways, &["--dry-run"]].concat());
    assert_refused(&other, 3, &["another target was prepared", "--drop-prepared"]);
    let anew = ok(bench.run(prepare));
    assert!(anew.stdout.contains("all is prepared anew") && copied(&anew) > 12 * M);
}

fn in_nobodys_way(bench: &Bench, docker: &Docker, size: &str) {
    no_journal(bench);
    docker.cmd(["run", "--rm", "dmpool-test-one:1", "cat", "/name"]).run().checked().unwrap();
    bench.ok(&["grow", "docker", size]);
}

/// Dies in the preparing, and in the switch.
#[test]
fn a_death_in_preparing_is_in_nobodys_way() {
    if !boot::full() {
        boot::skip("minutes: with --full");
    }
    boot::time_limit(Duration::from_secs(900));
    let bench = Bench::with_faults();
    let disk = Mounted::format(Kind::Xfs, &boot::scratch_disks()[0], &bench.sweep.path("docker")).unwrap();
    let bench = bench.at(disk.dir());
    let docker = docker_in(&disk);
    let home = disk.dir().join("root/devicemapper");
    image(&docker, "dmpool-test-busybox:1", "one", 12);
    image(&docker, "dmpool-test-one:1", "two", 4);
    let [stop, start] = by_scripts(&bench);
    let ways = ["--stop-command", &stop, "--start-command", &start];
    let prepare = [&["migrate", "--prepare", "--data-size", "8G"], &ways[..]].concat();
    let die = |args: &[&str], fault: &str| {
        let ran = bench.cmd(args).env("DMPOOL_FAULT", fault).run();
        assert!(!ran.ok() && ran.stdout.is_empty(), "{fault}: {ran}");
    };
    assert_eq!(bench.ok(&["migrate", "--drop-prepared"]), "nothing was prepared: there is nothing to do\n");
    let dry = bench.ok(&[&prepare[..], &["--dry-run"]].concat());
    assert!(dry.ends_with("nothing was changed\n") && entries(&home).len() == 3, "{dry} {:?}", entries(&home));
    let all = copied(&ok(bench.run(&prepare)));
    spoilt(&bench, &home, &prepare, &ways);
    ok(bench.run(&["migrate", "--drop-prepared"]));
    assert_eq!(entries(&home).len(), 3, "{:?}", entries(&home));
    for (number, fault) in
        ["1:before:die", "2:before:die", "2:layer:die", "3:before:die", "3:before:fail"].iter().enumerate()
    {
        die(&prepare, fault);
        in_nobodys_way(&bench, &docker, &format!("{}M", 4200 + number * 50));
        if *fault == "2:layer:die" {
            // Given up.
            let half = bench.ok(&[&["migrate"], &ways[..], &["--dry-run"]].concat());
            assert!(
                half.contains("never came to its end") && half.contains("--prepare  first makes that less"),
                "{half}"
            );
            ok(bench.run(&["migrate", "--drop-prepared"]));
            assert_eq!(entries(&home).len(), 3, "{:?}", entries(&home));
        } else {
            // Gone on from, and brought up to date.
            let ended = ok(bench.run(&prepare));
            if fault.starts_with("3:") {
                assert_eq!(copied(&ended), 0, "{fault}: {ended}");
            }
            image(&docker, "dmpool-test-one:1", &format!("more-{number}"), 1);
            assert!(copied(&ok(bench.run(&prepare))) < all);
            ok(bench.run(&["migrate", "--drop-prepared"]));
        }
    }
    ok(bench.run(&prepare));
    let names = ["one", "two"];
    let contents = |docker: &Docker| names.map(|name| of_container(docker, name));
    let before = contents(&docker);
    let switch = [&["migrate"], &ways[..], &["--yes"]].concat();
    // Before anything was written to it, what was prepared stays.
    let copies = step_of(&bench.ok(&[&switch[..], &["--dry-run"]].concat()), "what has changed since it was prepared");
    die(&switch, &format!("{copies}:before:fail"));
    assert!(home.join("devicemapper.dmpool-prepared/data").exists());
    die(&switch, &format!("{copies}:after:die"));
    ok(bench.run(&["undo"]));
    assert_eq!(contents(&docker), before);
    assert_eq!(entries(&home).len(), 3, "{:?}", entries(&home));
    ok(bench.run(&prepare));
    // Whichever volume has changed is the first to be written.
    die(&switch, &(1..40).map(|number| format!("{number}:layer:die")).collect::<Vec<_>>().join(","));
    ok(bench.run(&["continue"]));
    assert_eq!(docker.storage_value("Data Space Total").unwrap(), "8.59GB");
    assert_eq!(contents(&docker), before);
    Cmd::new(&stop).run().checked().unwrap();
    without_backups();
}

/// Dies in the making and in the filling of a pool of dmpool's own, on a disk, on LVs and in files, and in the switch to it.
#[test]
fn a_death_in_preparing_a_pool_of_its_own_loses_nothing() {
    if !boot::full() {
        boot::skip("minutes: with --full");
    }
    boot::time_limit(Duration::from_secs(1500));
    let bench = Bench::with_faults();
    let disk = Mounted::format(Kind::Xfs, &boot::scratch_disks()[0], &bench.sweep.path("docker")).unwrap();
    let bench = bench.at(disk.dir());
    let docker = docker_in(&disk);
    let home = disk.dir().join("root/devicemapper");
    image(&docker, "dmpool-test-busybox:1", "one", 12);
    image(&docker, "dmpool-test-one:1", "two", 4);
    let before = ["one", "two"].map(|name| of_container(&docker, name));
    let same = || assert_eq!(["one", "two"].map(|name| of_container(&docker, name)), before);
    let [stop, start] = by_scripts(&bench);
    let ways = ["--stop-command", &stop, "--start-command", &start];
    let group = Group::on(&bench, "vg", &boot::scratch_disks()[2]);
    let (device, dir) = (boot::scratch_disks()[1].display().to_string(), bench.dir.display().to_string());
    let [on_disk, on_lvs, in_files] = ["on-disk", "on-lvs", "in-files"].map(|what| bench.sweep.name(what));
    let die = |args: &[&str], fault: &str| {
        let ran = bench.cmd(args).env("DMPOOL_FAULT", fault).limit(Duration::from_secs(180)).run();
        assert!(!ran.ok() && ran.stdout.is_empty(), "{fault}: {ran}");
    };
    let prepared =
        |pool: &str| bench.ok(&["list"]).lines().any(|line| line.starts_with(pool) && line.contains("(prepared)"));
    let switch = [&["migrate"], &ways[..], &["--yes"]].concat();
    let targets: [&[&str]; 3] = [
        &["--name", &on_disk, "--data-device", &device, "--wipe"],
        &["--name", &on_lvs, "--vg", &group.name, "--data-size", "3G"],
        // With the old pool, which grows meanwhile, it has room on its disk.
        &["--name", &in_files, "--dir", &dir, "--data-size", "2G", "--metadata-size", "16M"],
    ];
    for (number, target) in targets.iter().enumerate() {
        let pool = target[1];
        let first = [&["migrate", "--prepare"], &target[..], &ways[..]].concat();
        let again = [&["migrate", "--prepare"], &ways[..]].concat();
        // While it is made: the journal is open, and leads both ways.
        die(&first, "2:after:die");
        assert_refused(&bench.run(&first), 3, &["interrupted", "dmpool undo"]);
        ok(bench.run(&["undo"]));
        assert!(!prepared(pool) && !bench.ok(&["list"]).contains(pool));
        die(&first, "3:before:die");
        ok(bench.run(&["continue"]));
        assert!(prepared(pool), "{pool}");
        // It is filled, and that ends in the middle.
        die(&again, "2:layer:die");
        in_nobodys_way(&bench, &docker, &format!("{}M", 4200 + number * 100));
        ok(bench.run(&again));
        image(&docker, "dmpool-test-one:1", &format!("more-{number}"), 1);
        for fault in ["1:before:die", "2:before:die", "3:before:die"] {
            die(&again, fault);
            no_journal(&bench);
        }
        ok(bench.run(&["migrate", "--drop-prepared"]));
        assert!(!bench.ok(&["list"]).contains(pool) && entries(&home).len() == 3, "{:?}", entries(&home));
        // The switch is taken back: what was prepared stays, and is copied anew.
        ok(bench.run(&first));
        let copies =
            step_of(&bench.ok(&[&switch[..], &["--dry-run"]].concat()), "what has changed since it was prepared");
        die(&switch, &format!("{copies}:after:die"));
        ok(bench.run(&["undo"]));
        same();
        assert!(prepared(pool), "{pool}");
        if number < 2 {
            ok(bench.run(&["migrate", "--drop-prepared"]));
            assert!(!bench.ok(&["list"]).contains(pool), "{pool}");
        }
    }
    assert!(group.names().is_empty());
    // Half prepared, and switched to all the same.
    image(&docker, "dmpool-test-one:1", "last", 1);
    die(&[&["migrate", "--prepare"], &ways[..]].concat(), "2:layer:die");
    let half = bench.ok(&[&switch[..], &["--dry-run"]].concat());
    assert!(half.contains("never came to its end"), "{half}");
    ok(bench.cmd(&switch).limit(Duration::from_secs(180)).run());
    assert_eq!(docker.storage_value("Pool Name").unwrap(), in_files);
    same();
    Cmd::new(&stop).run().checked().unwrap();
    bench.ok(&["destroy", &in_files, "--with-volumes", "--yes"]);
    without_backups();
}

/// What was prepared on a disk and on LVs outlives the machine: nothing brings it up but who switches to it.
#[test]
fn what_was_prepared_is_there_after_a_reboot() {
    if !boot::full() {
        boot::skip("minutes: with --full");
    }
    boot::time_limit(Duration::from_secs(600));
    let place = Path::new("/var/tmp/dmpool-test-prepared-docker");
    let scratch = boot::scratch_disks();
    let disk = match boot::phase() {
        0 => Mounted::format(Kind::Xfs, &scratch[0], place).unwrap(),
        _ => Mounted::mount(&scratch[0], place, "defaults").unwrap(),
    };
    let bench = Bench::new().at(disk.dir());
    let (pool, kept) = ("dmpool-test-prepared", disk.dir().join("before"));
    let [stop, start] = by_scripts(&bench);
    let ways = ["--stop-command", &stop, "--start-command", &start];
    if boot::phase() == 0 {
        let mut docker = docker_in(&disk);
        image(&docker, "dmpool-test-busybox:1", "one", 8);
        fs::write(&kept, of_container(&docker, "one")).unwrap();
        let device = scratch[1].display().to_string();
        let target = ["migrate", "--prepare", "--name", pool, "--data-device", &device, "--wipe"];
        ok(bench.run(&[&target[..], &ways].concat()));
        docker.stop().unwrap();
        boot::reboot();
    }
    let config = Config::new(disk.dir().join("root")).option("dm.basesize=1G");
    let config = config.option("dm.loopdatasize=4G").option("dm.loopmetadatasize=16M");
    let docker = Docker::start(config).unwrap();
    bench.ok(&["activate", "--all"]);
    assert!(bench.ok(&["list"]).lines().any(|line| line.starts_with(pool) && line.contains("inactive")));
    let switched = ok(bench.cmd(&[&["migrate"], &ways[..], &["--yes"]].concat()).limit(Duration::from_secs(180)).run());
    assert!(copied(&switched) < 8 * M, "{switched}");
    assert_eq!(docker.storage_value("Pool Name").unwrap(), pool);
    assert_eq!(of_container(&docker, "one"), fs::read_to_string(&kept).unwrap());
    Cmd::new(&stop).run().checked().unwrap();
    bench.ok(&["destroy", pool, "--with-volumes", "--yes"]);
    without_backups();
}

/// The number of the step that says so.
fn step_of(plan: &str, says: &str) -> usize {
    let line = plan.lines().find(|line| line.contains(says)).unwrap_or_else(|| panic!("{plan}"));
    line.trim_start().split_once('.').unwrap().0.parse().unwrap()
}
