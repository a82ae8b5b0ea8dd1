//! A real Docker gets a larger base device: every image and container with it, and nothing else changes.

use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use lab::guest::boot;
use lab::guest::disk::{Kind, Mounted};
use lab::guest::docker::{Config, Docker, IMAGE, get};
use lab::guest::run::Cmd;
use lab::guest::sys::{self, dmsetup};

use crate::migrate::{WAITS, by_scripts, told_of, without_backups};
use crate::support::Bench;

const DAEMON_JSON: &str = "/etc/docker/daemon.json";
const M: u64 = 1 << 20;

/// What of `docker inspect` a larger base does not change.
pub(crate) const SAME: [&str; 7] =
    ["/Id", "/Image", "/Config", "/HostConfig", "/Mounts", "/State/ExitCode", "/GraphDriver/Data/DeviceId"];

/// How long Docker says that a container's device is.
pub(crate) fn device_size(name: &str) -> u64 {
    let (_, body) = get(&format!("/containers/{name}/json")).unwrap();
    let inspect: serde_json::Value = serde_json::from_slice(&body).unwrap();
    inspect.pointer("/GraphDriver/Data/DeviceSize").unwrap().as_str().unwrap().parse().unwrap()
}

/// How large the file system is in which a new container finds itself, in bytes.
pub(crate) fn inside(docker: &Docker, image: &str) -> u64 {
    let ran = docker.cmd(["run", "--rm", image, "df", "-kP", "/"]).run().checked().unwrap();
    let line = ran.stdout.lines().last().unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

pub(crate) fn images(docker: &Docker) -> String {
    let format = "{{.ID}} {{.Repository}}:{{.Tag}} {{.Size}}";
    docker.cmd(["images", "-a", "--no-trunc", "--format", format]).run().checked().unwrap().stdout
}

/// Makes an image, one of what a container has changed, and containers: of the base's size, and larger.
pub(crate) fn fill(docker: &Docker) {
    docker.busybox(&[]).unwrap();
    let change = "echo precious > /kept; rm /bin/zcat; dd if=/dev/urandom of=/noise bs=1M count=3; mkfifo /fifo";
    docker.cmd(["run", "--name", "kept", IMAGE, "sh", "-c", change]).run().checked().unwrap();
    docker.cmd(["commit", "kept", "dmpool-test-two:1"]).run().checked().unwrap();
    let size = ["run", "--name", "big", "--storage-opt", "size=2G", "dmpool-test-two:1", "sh", "-c"];
    let fill = "dd if=/dev/urandom of=/more bs=1M count=4; echo 7 > /seven; exit 7";
    assert_eq!(docker.cmd([&size[..], &[fill]].concat()).run().code(), Some(7));
}

/// Looks at every file system of the pool with its own program, and at how long it is; nothing of the pool may be mounted.
pub(crate) fn sound(bench: &Bench, docker: &Docker, base: u64) {
    let pool = docker.storage_value("Pool Name").unwrap();
    let records = docker.root().join("devicemapper/metadata");
    let mut seen = 0;
    for entry in fs::read_dir(records).unwrap() {
        let record: serde_json::Value = serde_json::from_slice(&fs::read(entry.unwrap().path()).unwrap()).unwrap();
        let (Some(id), Some(size)) =
            (record.pointer("/device_id"), record.pointer("/size").and_then(serde_json::Value::as_u64))
        else {
            continue;
        };
        assert!(size >= base, "{record}");
        let name = bench.sweep.name("look");
        let table = format!("0 {} thin /dev/mapper/{pool} {id}", size / 512);
        dmsetup(["create", &name, "--table", &table]).run().checked().unwrap();
        sys::settle();
        let node = format!("/dev/mapper/{name}");
        let mut head = vec![0; 4096];
        fs::File::open(&node).unwrap().read_exact(&mut head).unwrap();
        let (program, args, length) = if head.starts_with(b"XFSB") {
            let blocks = u64::from_be_bytes(head[8..16].try_into().unwrap());
            ("xfs_repair", ["-n", &node], blocks * 4096)
        } else {
            let blocks = u64::from(u32::from_le_bytes(head[1028..1032].try_into().unwrap()));
            ("e2fsck", ["-fn", &node], blocks << 10 << u32::from_le_bytes(head[1048..1052].try_into().unwrap()))
        };
        let ran = Cmd::new(program).args(args).limit(Duration::from_secs(120)).run();
        assert!(ran.ok(), "{record}: {ran}");
        assert!((size - 16 * M..=size).contains(&length), "{record}: {length}");
        dmsetup(["remove", "--retry", &name]).run().checked().unwrap();
        seen += 1;
    }
    assert!(seen >= 6, "{seen} volumes");
}

/// A sum over a file that may be longer than there is memory, and is mostly holes.
fn sum(path: &Path) -> u32 {
    let (mut file, mut piece, none) = (fs::File::open(path).unwrap(), vec![0; 1 << 20], vec![0; 1 << 20]);
    let mut sum = 0;
    for number in 0_u64.. {
        let length = file.read(&mut piece).unwrap();
        if length == 0 {
            break;
        }
        if piece[..length] != none[..length] {
            sum = crc32c::crc32c_append(crc32c::crc32c_append(sum, &number.to_le_bytes()), &piece[..length]);
        }
    }
    sum
}

/// What must be the same again when it is taken back.
pub(crate) fn picture(root: &Path) -> String {
    let home = root.join("devicemapper");
    let texts = |folder: &Path| {
        let mut names: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        names.sort();
        let of = |path: &Path| if path.is_dir() { 0 } else { crc32c::crc32c(&fs::read(path).unwrap()) };
        names.iter().map(|path| format!("{} {:08x}\n", path.display(), of(path))).collect::<String>()
    };
    let pool = sum(&home.join("devicemapper/metadata"));
    // A device that was read through goes with its last user, a moment after who read; one that stays is in the picture.
    let until = Instant::now() + Duration::from_secs(20);
    let names = loop {
        let names = sys::dm_names().unwrap();
        if !names.iter().any(|name| name.starts_with("dmpool-rescue-")) || Instant::now() > until {
            break names;
        }
        std::thread::sleep(Duration::from_millis(100));
    };
    let daemon_json = fs::read_to_string(DAEMON_JSON).unwrap();
    format!("{}{}{pool:08x}\n{names:?}\n{daemon_json}", texts(&home), texts(&home.join("metadata")))
}

/// Dies, or fails, between two file systems that are grown, of ext4; then it is taken back, and in the end finished.
#[test]
fn a_growth_that_ends_in_the_middle_is_taken_back_or_finished() {
    if !boot::full() {
        boot::skip("minutes: with --full");
    }
    boot::time_limit(Duration::from_secs(600));
    let bench = Bench::with_faults();
    let disk = Mounted::format(Kind::Xfs, &boot::scratch_disks()[0], &bench.sweep.path("docker")).unwrap();
    let root = disk.dir().join("root");
    let bench = bench.at(disk.dir());
    let sizes = ["dm.loopdatasize=2G", "dm.loopmetadatasize=16M", "dm.basesize=500M", "dm.fs=ext4"];
    let config = sizes.iter().fold(Config::new(&root), |config, option| config.option(option));
    let mut docker = Docker::start(config).unwrap();
    fill(&docker);
    let names = ["kept", "big"];
    let was = names.map(|name| told_of(&docker, name, &SAME));
    let had = images(&docker);
    docker.stop().unwrap();
    without_backups();
    let before = picture(&root);
    let args = ["migrate", "--base-size", "1G", "--yes"];
    let with_fault = |fault: &str| bench.cmd(&args).env("DMPOOL_FAULT", fault).run();
    let failed = with_fault("2:layer:fail");
    assert!(!failed.ok() && failed.stderr.contains("growing") || failed.stderr.contains("asked for"), "{failed}");
    without_backups();
    assert_eq!(picture(&root), before);
    for verb in ["undo", "continue"] {
        let died = with_fault("2:layer:die");
        assert!(!died.ok(), "{died}");
        let ended = bench.run(&[verb]);
        assert!(ended.ok(), "{verb}: {ended}");
        if verb == "undo" {
            without_backups();
            assert_eq!(picture(&root), before);
        }
    }
    docker.up().unwrap();
    assert_eq!(docker.storage_value("Base Device Size").unwrap(), "1.074GB");
    assert_eq!(docker.storage_value("Backing Filesystem").unwrap(), "ext4");
    checked(&docker, &was, &names, &had);
    sound(&bench, &docker, 1 << 30);
    let size = inside(&docker, IMAGE);
    assert!((900 * M..1024 * M).contains(&size), "{size}");

    // Larger once more, and into a pool of dmpool's own.
    docker.stop().unwrap();
    let (pool, dir) = (bench.pool(), bench.dir.to_str().unwrap().to_owned());
    let place = ["--name", &pool, "--dir", &dir, "--data-size", "2G", "--metadata-size", "16M", "--block-size", "512K"];
    let before = picture(&root);
    let ran = bench.run(&[&["migrate", "--base-size", "2G", "--yes"], &place[..]].concat());
    assert!(ran.ok(), "{ran}");
    println!("{ran}");
    // It has ended, and nobody has started Docker since.
    assert!(bench.ok(&["undo"]).starts_with("taken back"));
    assert_eq!(picture(&root), before);
    bench.ok(&[&["migrate", "--base-size", "2G", "--yes"], &place[..]].concat());
    docker.up().unwrap();
    assert_eq!(docker.storage_value("Pool Name").unwrap(), pool);
    assert_eq!(docker.storage_value("Base Device Size").unwrap(), "2.147GB");
    checked(&docker, &was, &names, &had);
    sound(&bench, &docker, 2 << 30);
    docker.stop().unwrap();
    bench.ok(&["destroy", &pool, "--with-volumes", "--yes"]);
    without_backups();
}

pub(crate) fn checked(docker: &Docker, was: &[String], names: &[&str], had: &str) {
    for (was, name) in was.iter().zip(names) {
        assert_eq!(&told_of(docker, name, &SAME), was, "{name}");
    }
    assert_eq!(images(docker), had);
}

#[test]
fn a_larger_base_device_makes_images_and_containers_larger() {
    let bench = Bench::new();
    let disk = Mounted::format(Kind::Xfs, &boot::scratch_disks()[0], &bench.sweep.path("docker")).unwrap();
    let root = disk.dir().join("root");
    let bench = bench.at(disk.dir());
    let docker = Docker::start(Config::new(&root).option("dm.basesize=500M")).unwrap();
    fill(&docker);
    docker.run_detached(&["--name", "web"], &WAITS).unwrap();
    assert!(docker.exec("web", &["sh", "-c", "echo by hand > /by-hand"]).ok());
    let names = ["kept", "big"];
    let was = names.map(|name| told_of(&docker, name, &SAME));
    let had = images(&docker);
    assert!(inside(&docker, IMAGE) < 500 * M);

    let [stop, start] = by_scripts(&bench);
    let ways = ["--stop-command", &stop, "--start-command", &start];
    let args = [&["migrate", "--base-size", "1G"], &ways[..]].concat();
    let described = bench.ok(&[&args[..], &["--dry-run"]].concat());
    println!("{described}");
    assert!(described.contains("containers that are larger stay so: big (2.0 GiB)"), "{described}");
    let ran = bench.run(&[&args[..], &["--yes"]].concat());
    assert!(ran.ok(), "{ran}");
    println!("{ran}");
    let took = |pool: &str| {
        let home = root.join("devicemapper");
        let folder = fs::read_dir(&home).unwrap().map(|entry| entry.unwrap().path());
        let is = |path: &Path| {
            path.file_name().unwrap().to_str().unwrap().starts_with("devicemapper")
                && path.to_str().unwrap().ends_with(pool)
        };
        fs::metadata(folder.into_iter().find(|path| is(path)).unwrap().join("data")).unwrap().blocks() << 9
    };
    println!("data: {} before, {} then", took(".old"), took("devicemapper"));

    assert!(fs::read_to_string(DAEMON_JSON).unwrap().contains("dm.basesize=1G"));
    assert_eq!(docker.storage_value("Base Device Size").unwrap(), "1.074GB");
    checked(&docker, &was, &names, &had);
    assert_eq!(docker.exec("web", &["cat", "/by-hand"]).stdout, "by hand\n");
    docker.cmd(["stop", "-t", "5", "web"]).run().checked().unwrap();
    sound(&bench, &docker, 1 << 30);
    assert_eq!([device_size("kept"), device_size("big")], [1 << 30, 2 << 30]);
    for image in [IMAGE, "dmpool-test-two:1"] {
        let size = inside(&docker, image);
        assert!((900 * M..1024 * M).contains(&size), "{image}: {size}");
    }
    assert_eq!(docker.cmd(["start", "-a", "big"]).run().code(), Some(7));
    Cmd::new(&stop).run().checked().unwrap();
    without_backups();
}
