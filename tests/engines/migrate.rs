//! The pool of a real Docker becomes another one, with everything in it.

use std::fs;
use std::io::Read;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use lab::guest::boot;
use lab::guest::disk::{Kind, Mounted};
use lab::guest::docker::{Config, Docker, get};
use lab::guest::run::Cmd;
use lab::guest::sys::{self, dmsetup};

use crate::host::assert_refused;
use crate::migrate_prepared::is_for_nothing_else;
use crate::support::Bench;
use crate::support::lvm::Group;

/// What `docker inspect` says that nobody may change.
const SAME: [&str; 11] = [
    "/Id",
    "/Created",
    "/Path",
    "/Args",
    "/Image",
    "/Name",
    "/Config",
    "/HostConfig",
    "/Mounts",
    "/GraphDriver",
    "/Driver",
];
const DAEMON_JSON: &str = "/etc/docker/daemon.json";
/// Runs until it is told to end, and ends at once.
pub(crate) const WAITS: [&str; 3] = ["sh", "-c", "trap 'exit 0' TERM; sleep 100000 & wait"];

/// What Docker says of a container, and everything in it.
pub(crate) fn of_container(docker: &Docker, name: &str) -> String {
    told_of(docker, name, &SAME)
}

/// What Docker says of a container under these keys.
pub(crate) fn said_of(name: &str, fields: &[&str]) -> String {
    let (status, body) = get(&format!("/containers/{name}/json")).unwrap();
    assert_eq!(status, 200, "{name}");
    let mut inspect: serde_json::Value = serde_json::from_slice(&body).unwrap();
    // Docker keeps them without an order.
    if let Some(mounts) = inspect.pointer_mut("/Mounts").and_then(serde_json::Value::as_array_mut) {
        mounts.sort_by_key(|mount| mount["Destination"].to_string());
    }
    let said: Vec<_> = fields.iter().map(|field| format!("{field} {:?}", inspect.pointer(field))).collect();
    said.join("\n")
}

/// What Docker says of a container under these keys, what it has changed, and the sum of all that is in it.
pub(crate) fn told_of(docker: &Docker, name: &str, fields: &[&str]) -> String {
    let said = said_of(name, fields);
    let diff = docker.cmd(["diff", name]).run().checked().unwrap().stdout;
    let mut diff: Vec<_> = diff.lines().collect();
    diff.sort_unstable();
    let sum = format!("docker export {name} | sha256sum");
    let sum = Cmd::new("sh").args(["-c", &sum]).run().checked().unwrap().stdout;
    format!("{said}\n{}\n{sum}", diff.join("\n"))
}

/// What Docker says of all that is not running, and of its images.
fn of_docker(docker: &Docker) -> String {
    let images = docker.cmd(["images", "-a", "--no-trunc", "--format", "{{.ID}} {{.Repository}}:{{.Tag}}"]).run();
    let containers = ["done", "two"].map(|name| of_container(docker, name));
    format!("{}{}", images.checked().unwrap().stdout, containers.join("\n"))
}

pub(crate) fn script(path: PathBuf, text: &str) -> String {
    fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path.to_str().unwrap().to_owned()
}

/// What stops Docker where no init does, and what starts it.
pub(crate) fn by_scripts(bench: &Bench) -> [String; 2] {
    let stop = "pid=$(cat /var/run/docker.pid); kill $pid; while grep -q dockerd /proc/$pid/comm 2>/dev/null && ! grep -q 'State:.Z' /proc/$pid/status; do sleep 0.1; done";
    let start = "setsid dockerd </dev/null >>/var/log/dmpool-test-dockerd.log 2>&1 &";
    [script(bench.sweep.path("stop"), stop), script(bench.sweep.path("start"), start)]
}

/// Takes away what dmpool has kept of Docker's configuration.
pub(crate) fn without_backups() {
    for name in entries(Path::new("/etc/docker")) {
        if name.contains("before-dmpool") {
            fs::remove_file(Path::new("/etc/docker").join(name)).unwrap();
        }
    }
}

pub(crate) fn entries(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// What is refused with Docker up, before anything is stopped.
fn while_docker_runs(bench: &Bench, docker: &Docker, args: &[&str]) {
    let ways = ["--stop-command", "true", "--start-command", "true"];
    let args = [args, &ways[..]].concat();
    let pool = docker.storage_value("Pool Name").unwrap();
    let name = bench.sweep.name("foreign");
    let table = format!("0 2097152 thin /dev/mapper/{pool} 1");
    dmsetup(["create", &name, "--table", &table]).run().checked().unwrap();
    sys::settle();
    let open = fs::File::open(Path::new("/dev/mapper").join(&name)).unwrap();
    assert_refused(&bench.run(&args), 3, &[&name, "is in use, and not by Docker"]);
    drop(open);
    bench.ok(&[&args[..], &["--dry-run"]].concat());
    let larger = bench.ok(&[&["migrate", "--data-size", "200G", "--dry-run"], &ways[..]].concat());
    let grow =
        larger.split_once("for that:  dmpool ").and_then(|(_, rest)| rest.split_once("    # does it")).unwrap().0;
    bench.ok(&grow.split(' ').chain(["--dry-run"]).collect::<Vec<_>>());
    dmsetup(["remove", "--retry", &name]).run().checked().unwrap();
    let daemon_json = fs::read_to_string(DAEMON_JSON).unwrap();
    for other in ["dm.thinpooldev=/dev/mapper/other", "dm.datadev=/dev/sdz"] {
        let text = daemon_json.replace("dm.basesize=1G", other);
        assert_ne!(text, daemon_json);
        fs::write(DAEMON_JSON, &text).unwrap();
        assert_refused(&bench.run(&args), 3, &["has not been started with what it is told"]);
        let named = ["migrate", "--name", "never", "--dir", bench.dir.to_str().unwrap()];
        let named = [&named[..], &ways].concat();
        assert_refused(&bench.run(&named), 3, &["has not been started with what it is told"]);
    }
    let text = daemon_json.replace("\"devicemapper\"", "\"overlay2\"");
    fs::write(DAEMON_JSON, text).unwrap();
    assert_refused(&bench.run(&args), 3, &["overlay2 driver when it starts"]);
    fs::write(DAEMON_JSON, daemon_json).unwrap();
}

/// Nobody has started Docker on what was made: `undo` takes it back, but not over what somebody else has written since.
fn taken_back_although_it_has_ended(bench: &Bench, root: &Path, untouched: &str) {
    let told = fs::read_to_string(DAEMON_JSON).unwrap();
    fs::write(DAEMON_JSON, told.replace("512K", "1M")).unwrap();
    assert_refused(&bench.run(&["undo"]), 3, &["daemon.json was changed since", "take that change back"]);
    fs::write(DAEMON_JSON, told).unwrap();
    let metadata = root.join("devicemapper/devicemapper/metadata");
    let superblock = beginning(&metadata, 4096);
    let other = bench.sweep.path("superblock");
    fs::write(&other, with_next_transaction(&superblock)).unwrap();
    let write = |from: &Path| {
        let [from, to] = [("if", from), ("of", &metadata)].map(|(word, path)| format!("{word}={}", path.display()));
        Cmd::new("dd").args([&from, &to, "bs=4096", "count=1", "conv=notrunc"]).run().checked().unwrap();
    };
    write(&other);
    assert_refused(&bench.run(&["undo"]), 3, &["the new pool is not as it was left", "transaction id"]);
    fs::write(&other, &superblock).unwrap();
    write(&other);
    let described = bench.ok(&["undo", "--dry-run"]);
    assert!(described.contains("would take back") && described.contains("given its name again"), "{described}");
    let undone = bench.run(&["undo"]);
    assert!(undone.ok() && undone.stdout.starts_with("taken back: migrate"), "{undone}");
    assert!(undone.stderr.contains("nobody has started Docker"), "{undone}");
    assert_eq!(picture(root), untouched);
    assert_eq!(bench.run(&["undo"]).stdout, "nothing was interrupted: there is nothing to do\n");
}

/// A thin pool's superblock with its transaction id one more, and the sum that fits (drivers/md/dm-thin-metadata.c).
fn with_next_transaction(superblock: &[u8]) -> Vec<u8> {
    let mut bytes = superblock.to_vec();
    bytes[48] += 1;
    let sum = !crc32c::crc32c(&bytes[4..]) ^ 160_774;
    bytes[..4].copy_from_slice(&sum.to_le_bytes());
    bytes
}

#[test]
fn a_loop_pool_migrates_to_other_blocks_and_then_to_a_pool_of_its_own() {
    let bench = Bench::new();
    let disk = Mounted::format(Kind::Xfs, &boot::scratch_disks()[0], &bench.sweep.path("docker")).unwrap();
    let root = disk.dir().join("root");
    let bench = bench.at(disk.dir());
    let mut docker = Docker::start(Config::new(&root).option("dm.basesize=1G")).unwrap();
    docker.busybox(&[]).unwrap();
    docker.run_detached(&["--name", "web"], &WAITS).unwrap();
    let by_hand = "echo by hand > /by-hand; rm /bin/zcat; dd if=/dev/urandom of=/noise bs=1M count=5 2>/dev/null; sync";
    assert!(docker.exec("web", &["sh", "-c", by_hand]).ok());
    docker.cmd(["commit", "web", "dmpool-test-two:1"]).run().checked().unwrap();
    let in_two = "echo two > /two; rm /by-hand; dd if=/dev/urandom of=/noise bs=4k seek=3 count=2 conv=notrunc";
    docker.cmd(["run", "--name", "two", "dmpool-test-two:1", "sh", "-c", in_two]).run().checked().unwrap();
    docker.run_detached(&["--name", "done"], &["sh", "-c", "echo precious > /kept"]).unwrap();
    docker.cmd(["stop", "web"]).run().checked().unwrap();
    docker.cmd(["wait", "done"]).run().checked().unwrap();
    let pool = docker.storage_value("Pool Name").unwrap();
    let before = of_docker(&docker);
    let web = of_container(&docker, "web");
    let args = ["migrate", "--data-size", "200G", "--block-size", "512K"];
    while_docker_runs(&bench, &docker, &args);
    // It dies, and leaves its pool up.
    docker.kill().unwrap();
    let up = bench.run(&args);
    assert_refused(&up, 3, &["Docker is down, and its pool", "dmsetup remove"]);
    dmsetup(["remove", &pool]).run().checked().unwrap();

    let described = bench.ok(&[&args[..], &["--dry-run"]].concat());
    println!("{described}");
    let unasked = bench.run(&args);
    assert!(!unasked.ok() && unasked.stderr.contains("say --yes"), "{unasked}");
    let untouched = picture(&root);
    let ran = bench.run(&[&args[..], &["--yes"]].concat());
    assert!(ran.ok(), "{ran}");
    println!("{ran}");
    assert!(ran.stderr.contains("step 1 of ") && ran.stderr.contains(": see that Docker is down"), "{ran}");
    assert!(ran.stderr.contains("everything leads back:  dmpool undo"), "{ran}");
    assert!(ran.stderr.contains("more is promised than is there"), "{ran}");
    taken_back_although_it_has_ended(&bench, &root, &untouched);
    let larger = bench.ok(&["migrate", "--data-size", "200G", "--dry-run"]);
    assert!(larger.contains("once Docker is up:  dmpool grow docker 200G"), "{larger}");
    // By a link to where its disk is mounted it is the same root.
    let link = bench.sweep.path("link");
    symlink(disk.dir(), &link).unwrap();
    bench.ok(&[&args[..], &[link.join("root").to_str().unwrap(), "--yes"]].concat());
    docker.up().unwrap();
    assert_eq!(docker.storage_value("Data Space Total").unwrap(), "214.7GB");
    assert_eq!(docker.storage_value("Pool Blocksize").unwrap(), "524.3kB");
    assert_eq!(of_docker(&docker), before);
    assert_eq!(of_container(&docker, "web"), web);
    docker.cmd(["run", "--rm", "dmpool-test-two:1", "cat", "/by-hand"]).run().checked().unwrap();
    let names = entries(&root.join("devicemapper"));
    assert!(names.iter().any(|name| name.ends_with(".old")), "{names:?}");

    let elsewhere = bench.run(&["undo"]);
    assert!(
        elsewhere.stderr.contains(".old, as it was") && elsewhere.stderr.contains("with sizes and blocks"),
        "{elsewhere}"
    );

    // Docker runs, and is stopped and started.
    let [stop, start] = by_scripts(&bench);
    let ways = ["--stop-command", &stop, "--start-command", &start];
    docker.cmd(["start", "web"]).run().checked().unwrap();
    let (pool, dir) = (bench.pool(), bench.dir.to_str().unwrap().to_owned());
    let target = ["--name", &pool, "--dir", &dir, "--data-size", "20G", "--metadata-size", "64M"];
    bench.ok(&[&["migrate", "docker", "--prepare"], &target[..], &ways].concat());
    is_for_nothing_else(&bench, &pool, &["--dir", &dir, "--data-size", "1G"]);
    let ran = bench.run(&[&["migrate", "docker"], &target[..], &ways, &["--yes"]].concat());
    assert!(ran.ok(), "{ran}");
    println!("{ran}");
    assert_eq!(docker.exec("web", &["cat", "/by-hand"]).stdout, "by hand\n");
    assert_eq!(docker.storage_value("Pool Name").unwrap(), pool);
    assert_eq!(docker.storage_value("Data Space Total").unwrap(), "21.47GB");
    assert_eq!(of_docker(&docker), before);
    docker.cmd(["run", "--rm", "dmpool-test-two:1", "cat", "/by-hand"]).run().checked().unwrap();
    let undone = bench.run(&["undo"]);
    assert!(undone.stderr.contains("--name OTHER") && undone.stdout.contains("nothing was interrupted"), "{undone}");
    Cmd::new(&stop).run().checked().unwrap();
    bench.ok(&["destroy", &pool, "--with-volumes", "--yes"]);
    without_backups();
}

/// One pool after the other under a Docker that runs: smaller loop files, a disk, LVs, and no pool at all.
#[test]
fn a_running_docker_is_carried_to_less_to_a_disk_to_lvs_and_to_overlay2() {
    if !boot::full() {
        boot::skip("minutes: with --full");
    }
    boot::time_limit(Duration::from_secs(900));
    let bench = Bench::new();
    let [docker_disk, data_disk, group_disk] = [0, 1, 2].map(|at| boot::scratch_disks()[at].clone());
    let disk = Mounted::format(Kind::Xfs, &docker_disk, &bench.sweep.path("docker")).unwrap();
    let bench = bench.at(disk.dir());
    let config = Config::new(disk.dir().join("root")).option("dm.basesize=1G").option("dm.loopdatasize=200G");
    let docker = Docker::start(config).unwrap();
    docker.busybox(&[]).unwrap();
    docker.run_detached(&["--name", "web"], &WAITS).unwrap();
    assert!(docker.exec("web", &["sh", "-c", "echo by hand > /by-hand; rm /bin/zcat; sync"]).ok());
    docker.cmd(["commit", "web", "dmpool-test-two:1"]).run().checked().unwrap();
    for name in ["done", "two"] {
        docker
            .cmd(["run", "--name", name, "dmpool-test-two:1", "sh", "-c", "echo precious > /kept"])
            .run()
            .checked()
            .unwrap();
    }
    let before = of_docker(&docker);
    let [stop, start] = by_scripts(&bench);
    let group = Group::on(&bench, "vg", &group_disk);
    let [on_disk, on_lvs] = ["on-disk", "on-lvs"].map(|what| bench.sweep.name(what));
    let ways: [&[&str]; 4] = [
        &["--data-size", "50G"],
        &["--name", &on_disk, "--data-device", data_disk.to_str().unwrap(), "--block-size", "512K", "--wipe"],
        &["--name", &on_lvs, "--vg", &group.name, "--data-size", "4G"],
        &["--to-driver", "overlay2"],
    ];
    for way in ways {
        let args = match way.contains(&"overlay2") {
            false => [&["migrate"], way, &["--stop-command", &stop, "--start-command", &start, "--yes"]].concat(),
            // An init script stops only what it has started.
            true => {
                Cmd::new(&stop).run().checked().unwrap();
                Cmd::new("service").args(["docker", "start"]).run().checked().unwrap();
                until_it_answers();
                docker.cmd(["start", "web"]).run().checked().unwrap();
                [&["migrate"], way, &["--yes"]].concat()
            }
        };
        let ran = bench.run(&args);
        assert!(ran.ok(), "{ran}");
        println!("{ran}");
        assert_eq!(docker.exec("web", &["cat", "/by-hand"]).stdout, "by hand\n", "{way:?}");
        assert_eq!(ran.stderr.contains("service docker stop"), way.contains(&"overlay2"), "{ran}");
        if way.contains(&"--data-size") && !way.contains(&"--vg") {
            assert_eq!(docker.storage_value("Data Space Total").unwrap(), "53.69GB");
        }
        if !way.contains(&"overlay2") {
            assert_eq!(of_docker(&docker), before, "{way:?}");
        }
        docker.cmd(["run", "--rm", "dmpool-test-two:1", "cat", "/by-hand"]).run().checked().unwrap();
    }
    let ids = |of: &str| of.lines().filter(|line| line.starts_with("/Id ")).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(ids(&of_docker(&docker)), ids(&before));
    Cmd::new(&stop).run().checked().unwrap();
    for pool in [&on_lvs, &on_disk] {
        bench.ok(&["destroy", pool, "--with-volumes", "--yes"]);
    }
    without_backups();
}

/// The first bytes of a file, which may be long and sparse.
fn beginning(path: &Path, length: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    fs::File::open(path).unwrap().take(length).read_to_end(&mut bytes).unwrap();
    bytes
}

pub(crate) fn until_it_answers() {
    let until = Instant::now() + Duration::from_secs(120);
    while !get("/_ping").is_ok_and(|(status, _)| status == 200) {
        assert!(Instant::now() < until, "Docker does not answer");
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// What must be the same again when a migration is taken back.
fn picture(root: &Path) -> String {
    let home = root.join("devicemapper");
    let metadata = beginning(&home.join("devicemapper/metadata"), 16 << 20);
    let daemon_json = fs::read_to_string("/etc/docker/daemon.json").unwrap_or_default();
    format!(
        "{:?} {:?} {:08x} {daemon_json} {:?} {:?}",
        entries(&home),
        entries(&home.join("devicemapper")),
        crc32c::crc32c(&metadata),
        lab::guest::sys::dm_names().unwrap(),
        entries(Path::new("/etc/docker")),
    )
}

/// Dies, or fails, at each step; then it is finished in one case and taken back in another.
#[test]
fn a_migration_that_ends_at_any_step_is_finished_or_taken_back() {
    if !boot::full() {
        boot::skip("minutes: with --full");
    }
    boot::time_limit(Duration::from_secs(900));
    let bench = Bench::with_faults();
    let disk = Mounted::format(Kind::Xfs, &boot::scratch_disks()[0], &bench.sweep.path("docker")).unwrap();
    let root = disk.dir().join("root");
    let bench = bench.at(disk.dir());
    let config =
        Config::new(&root).option("dm.basesize=1G").option("dm.loopdatasize=2G").option("dm.loopmetadatasize=16M");
    let mut docker = Docker::start(config).unwrap();
    docker.busybox(&[]).unwrap();
    docker.run_detached(&["--name", "kept"], &["sh", "-c", "echo precious > /kept; sync"]).unwrap();
    docker.cmd(["wait", "kept"]).run().checked().unwrap();
    let diff = docker.cmd(["diff", "kept"]).run().checked().unwrap().stdout;
    docker.stop().unwrap();
    let args = ["migrate", "--data-size", "3G", "--metadata-size", "16M", "--block-size", "512K", "--yes"];
    let dry = bench.ok(&[&args[..], &["--dry-run"]].concat());
    let is_step =
        |line: &&str| line.trim_start().split_once(". ").is_some_and(|(number, _)| number.parse::<usize>().is_ok());
    let steps = dry.lines().filter(is_step).count();
    assert!(steps > 6, "{dry}");
    let saved = disk.dir().join("saved");
    let copy = |from: &Path, to: &Path| {
        let _ = fs::remove_dir_all(to);
        Cmd::new("cp").args(["-a", "--sparse=always"]).arg(from).arg(to).run().checked().unwrap();
    };
    copy(&root.join("devicemapper"), &saved);
    let daemon_json = fs::read("/etc/docker/daemon.json").unwrap();
    without_backups();
    let before = picture(&root);
    let cases = [("after:fail", ""), ("after:die", "undo"), ("before:die", "continue")];
    for step in 1..=steps {
        for (fault, verb) in cases {
            let case = format!("step {step}, {fault}, {verb}");
            let ran = bench.cmd(&args).env("DMPOOL_FAULT", format!("{step}:{fault}")).run();
            assert!(!ran.ok(), "{case}: {ran}");
            if !verb.is_empty() {
                let ended = bench.run(&[verb]);
                assert!(ended.ok(), "{case}: {ended}");
            }
            if verb != "continue" {
                assert_eq!(bench.run(&["undo"]).stdout, "nothing was interrupted: there is nothing to do\n", "{case}");
                assert_eq!(picture(&root), before, "{case}");
                continue;
            }
            let home = root.join("devicemapper");
            assert_eq!(fs::metadata(home.join("devicemapper/data")).unwrap().len(), 3 << 30, "{case}");
            assert!(fs::read_to_string("/etc/docker/daemon.json").unwrap().contains("dm.blocksize=512K"), "{case}");
            if step < steps {
                assert!(bench.ok(&["undo"]).starts_with("taken back"), "{case}");
                assert_eq!(picture(&root), before, "{case}");
            } else {
                docker.up().unwrap();
                assert_eq!(docker.cmd(["diff", "kept"]).run().checked().unwrap().stdout, diff, "{case}");
                assert!(docker.cmd(["start", "-a", "kept"]).run().ok(), "{case}");
                docker.stop().unwrap();
            }
            let _ = fs::remove_dir_all(&home);
            Cmd::new("mkdir").arg(&home).run().checked().unwrap();
            Cmd::new("cp").args(["-a", "--sparse=always"]).arg(saved.join(".")).arg(&home).run().checked().unwrap();
            fs::write("/etc/docker/daemon.json", &daemon_json).unwrap();
            without_backups();
        }
    }
}
