//! Files out of the containers of a devicemapper root: running, copied away in the middle, stopped, damaged.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use dmpool::metadata::{Superblock, mapping};
use dmpool::units::MetaBlock;
use lab::guest::boot;
use lab::guest::disk::{Kind, LoopDisk, Mounted};
use lab::guest::docker::{Config, Docker};
use lab::guest::run::Cmd;
use lab::guest::sys;

use crate::rescue_files::{
    assert_same, change_more, change_once, escaped, extract, fill_image, lines, mounted, picture, rescue, said,
};
use crate::support::Bench;

const BLOCK: usize = 4096;
/// As of a process that was killed while it made it.
pub(crate) const LEFT: &str = "dmpool-rescue-4194303-1-0-thin";

/// What is there of rescue's own: devices, and loop devices on what is in memory or below a root.
pub(crate) fn left(root: &Path) -> Vec<String> {
    let devices = sys::dm_names().unwrap().into_iter().filter(|name| name.starts_with("dmpool-rescue-"));
    let loops = sys::loops().unwrap().into_iter().map(|found| format!("{found:?}"));
    let loops = loops.filter(|found| found.contains("memfd") || found.contains(root.to_str().unwrap()));
    let mounts = sys::mounts().unwrap().into_iter().map(|found| format!("{found:?}"));
    devices.chain(loops).chain(mounts.filter(|found| found.contains("dmpool-rescue-"))).collect()
}

/// The kernel takes it down by itself, soon after the process has ended.
pub(crate) fn assert_nothing_left(root: &Path) {
    let until = Instant::now() + Duration::from_secs(20);
    while !left(root).is_empty() {
        assert!(Instant::now() < until, "{:?}", left(root));
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Overwrites a metadata file's block, with its checksum when there is a salt for it.
pub(crate) fn patch(metadata: &Path, block: u64, salt: Option<u32>, change: impl Fn(&mut [u8])) {
    let file = File::options().read(true).write(true).open(metadata).unwrap();
    let mut bytes = vec![0; BLOCK];
    let at = block * BLOCK as u64;
    file.read_exact_at(&mut bytes, at).unwrap();
    change(&mut bytes);
    if let Some(salt) = salt {
        let sum = crc32c::crc32c(&bytes[4..]) ^ u32::MAX ^ salt;
        bytes[..4].copy_from_slice(&sum.to_le_bytes());
    }
    file.write_all_at(&bytes, at).unwrap();
    file.sync_all().unwrap();
}

/// Begins an export that stands still in the middle, since nobody reads it.
fn half_exported(root: &Path) -> std::process::Child {
    let mut child = rescue(root, &["export", "odd"]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut first = [0; 512];
    child.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
    assert!(!left(root).is_empty());
    child
}

fn listed(root: &Path, args: &[&str]) -> (Option<i32>, String) {
    let output = rescue(root, args).output().unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
}

fn output(command: &mut Command) -> (Option<i32>, String) {
    let output = command.output().unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

type Picture = BTreeMap<String, String>;

/// The ways around the kernel, the root and Docker's records; `other` is a directory to be made beside the root.
fn userspace_and_elsewhere(dead: &Path, before: &Picture, other: &Path, odd: &Picture) {
    fs::create_dir_all(other).unwrap();
    mapping_is_what_thin_dump_says(&dead.join("devicemapper/devicemapper/metadata"));
    let out = other.join("out");
    let here = other.to_str().unwrap();
    let notes = extract(&mut rescue(dead, &["export", "odd", "--userspace", "--work-dir", here]), &out.join("image"));
    assert!(notes.contains(&format!("a file without a name in {here}")), "{notes}");
    assert!(notes.contains("its log is replayed in the image, not on the volume"), "{notes}");
    assert_same(odd, &picture(&out.join("image/odd")), "userspace");
    let (code, text) = output(&mut rescue(dead, &["cp", "odd:/img/kept", here, "--userspace"]));
    assert!(code == Some(0) && text.contains("a file without a name in /"), "{text}");
    fs::remove_file(other.join("kept")).unwrap();
    assert_same(before, &picture(dead), "the dead root");
    assert_eq!(fs::read_dir(other).unwrap().count(), 1, "no image is left");
    let small = Mounted::tmpfs(&other.join("small"), 1 << 20).unwrap();
    let inside = dead.join("tmp");
    for (place, why) in [(small.dir(), "is too small"), (inside.as_path(), "it is in the Docker root")] {
        let dir = place.to_str().unwrap();
        let (code, text) = output(&mut rescue(dead, &["cp", "odd:/odd", "-", "--userspace", "--work-dir", dir]));
        assert!(code == Some(3) && text.contains(why) && text.contains("--work-dir DIR"), "{text}");
    }
    small.unmount().unwrap();

    // Of a loop file only the images are left, somewhere else.
    for part in ["data", "metadata"] {
        fs::rename(dead.join("devicemapper/devicemapper").join(part), other.join(part)).unwrap();
    }
    let (code, text) = output(&mut rescue(dead, &["cp", "odd:/odd", "-"]));
    assert!(code == Some(3) && text.contains("with --data and --metadata"), "{text}");
    let [data, metadata] = ["data", "metadata"].map(|part| other.join(part).to_str().unwrap().to_owned());
    for more in [&[][..], &["--userspace"][..]] {
        let to = out.join(format!("named{}", more.len()));
        let named = ["cp", "odd:/odd", to.to_str().unwrap(), "--data", &data, "--metadata", &metadata];
        let (code, text) = output(rescue(dead, &named).args(more));
        assert_eq!(code, Some(0), "{text}");
        assert_same(odd, &picture(&to), "named");
    }
    for part in ["data", "metadata"] {
        fs::rename(other.join(part), dead.join("devicemapper/devicemapper").join(part)).unwrap();
    }

    // Docker's records are gone, all of them, or one is empty.
    let records = dead.join("devicemapper/metadata");
    let (code, text) = listed(dead, &["images"]);
    assert!(code == Some(0) && !text.contains("not whole") && !text.contains("could not be read"), "{text}");
    fs::rename(&records, other.join("records")).unwrap();
    let (code, text) = listed(dead, &["images"]);
    assert!(
        code == Some(5)
            && text.contains("no record names ")
            && text.contains(" volumes that the pool has, with the ids 1, 2, "),
        "{text}"
    );
    let notes = extract(&mut rescue(dead, &["export", "odd"]), &out.join("unrecorded"));
    assert!(notes.contains("since it was made when container odd ("), "{notes}");
    assert_same(odd, &picture(&out.join("unrecorded/odd")), "no records");
    let (code, text) = output(&mut rescue(dead, &["cp", "base:/img", out.join("base").to_str().unwrap()]));
    assert!(code == Some(0) && text.contains("since it was made when container base ("), "{text}");
    assert_eq!(fs::read_to_string(out.join("base/changed")).unwrap(), "1");
    // Those of images are known by their files, and proved by their digests.
    let saved = other.join("saved.tar");
    let (code, text) = output(&mut rescue(dead, &["save", "image:2", "-o", saved.to_str().unwrap()]));
    assert_eq!(code, Some(0), "{text}");
    fs::remove_file(saved).unwrap();
    fs::rename(other.join("records"), &records).unwrap();
    let id = fs::read_dir(dead.join("containers")).unwrap().map(|entry| entry.unwrap().file_name());
    let id = id.into_iter().find(|id| {
        let config = dead.join("containers").join(id).join("config.v2.json");
        fs::read_to_string(config).unwrap().contains("\"/odd\"")
    });
    let mount = dead.join("image/devicemapper/layerdb/mounts").join(id.unwrap()).join("mount-id");
    let record = records.join(fs::read_to_string(mount).unwrap());
    let text = fs::read(&record).unwrap();
    let device: serde_json::Value = serde_json::from_slice(&text).unwrap();
    let other_id = String::from_utf8(text.clone()).unwrap().replace(&format!(":{},", device["device_id"]), ":4711,");
    fs::write(&record, other_id).unwrap();
    let (code, said) = listed(dead, &["ps"]);
    assert!(code == Some(5) && said.contains("the pool has no volume 4711, which is its"), "{said}");
    assert!(said.contains(&format!("a volume that the pool has, with the id {}", device["device_id"])), "{said}");
    fs::write(&record, "").unwrap();
    let (code, text_of) = output(&mut rescue(dead, &["cp", "odd:/img/changed", out.to_str().unwrap()]));
    assert!(code == Some(0) && text_of.contains("since it was made when container odd ("), "{text_of}");
    assert_eq!(fs::read_to_string(out.join("changed")).unwrap(), "22");
    fs::write(&record, text).unwrap();
    fs::remove_dir_all(other).unwrap();
    assert_nothing_left(dead);
}

/// What the metadata maps, by volume: the block, where it is in the data, and how many follow.
fn mapping_is_what_thin_dump_says(metadata: &Path) {
    let file = File::open(metadata).unwrap();
    let mut read = |at: MetaBlock| {
        let mut block = vec![0; BLOCK];
        file.read_exact_at(&mut block, at.get() * BLOCK as u64).map_err(|e| e.to_string())?;
        Ok(block)
    };
    let superblock = Superblock::parse(&read(MetaBlock::new(0)).unwrap()).unwrap();
    let mut found = BTreeSet::new();
    for (id, root) in mapping::roots(&superblock, &mut read).unwrap() {
        for run in mapping::runs(&superblock, root, &mut read) {
            let run = run.unwrap();
            let blocks = 0..run.length.get();
            found.extend(blocks.map(|block| (id, run.begin.get() + block, run.data.get() + block)));
        }
    }
    let dumped = Cmd::new("thin_dump").arg(metadata).run().checked().unwrap().stdout;
    let mut said = BTreeSet::new();
    let mut volume = 0;
    for line in dumped.lines() {
        let number = |key: &str| -> Option<u64> {
            let rest = line.split_once(&format!(" {key}=\""))?.1;
            rest.split('"').next()?.parse().ok()
        };
        volume = number("dev_id").unwrap_or(volume);
        if let (Some(block), Some(data)) = (number("origin_block"), number("data_block")) {
            said.insert((volume, block, data));
        }
        if let (Some(block), Some(data), Some(length)) =
            (number("origin_begin"), number("data_begin"), number("length"))
        {
            said.extend((0..length).map(|next| (volume, block + next, data + next)));
        }
    }
    assert!(found == said && found.len() > 1000, "{} and {}", found.len(), said.len());
}

/// Pool, volume, and what is above it, each before it has a table and when it is there: whatever command comes next, of whatever
/// root, removes what is left.
fn killed_at_each_device(dead: &Path, out: &Path) {
    let other = out.join("overlay2-root");
    fs::create_dir_all(other.join("overlay2/l")).unwrap();
    fs::create_dir_all(other.join("containers")).unwrap();
    let next: [(&Path, &[&str]); 6] = [
        (dead, &["rescue", "ps"]),
        (dead, &["rescue", "images"]),
        (dead, &["volumes", "list"]),
        (&other, &["rescue", "ps"]),
        (&other, &["volumes", "list"]),
        (dead, &["rescue", "run-line", "odd"]),
    ];
    let places =
        (0..3).flat_map(|device| ["before", "after"].map(|point| format!("{}:{point}-device:die", device + 1)));
    for (place, (root, args)) in places.zip(next) {
        let mut command = Command::new("dmpool-faults");
        command.env("DMPOOL_FAULT", &place).arg("--root").arg(dead).args(["rescue", "cp", "odd:/img/kept"]).arg(out);
        let ended = command.output().unwrap().status;
        assert_eq!(ended.signal(), Some(9), "{place}: {ended}");
        assert!(!left(dead).is_empty(), "{place}");
        let ran = Command::new("dmpool").arg("--root").arg(root).args(args).output().unwrap();
        assert!(matches!(ran.status.code(), Some(0 | 3)), "{place}: {ran:?}");
        assert_nothing_left(dead);
    }
    fs::remove_dir_all(other).unwrap();
}

/// The kernel's modules of device-mapper.
fn loaded() -> Vec<String> {
    let text = fs::read_to_string("/proc/modules").unwrap();
    let names = text.lines().filter_map(|line| line.split(' ').next());
    names.filter(|name| name.starts_with("dm_")).map(str::to_owned).collect()
}

/// Runs it while the kernel has no target for thin pools, or no device-mapper at all; there is no device.
fn without(modules: &[String], run: impl FnOnce()) {
    const LOADER: &str = "/proc/sys/kernel/modprobe";
    let before = fs::read_to_string(LOADER).unwrap();
    // Some stand on others.
    for _ in 0..modules.len() {
        for module in modules.iter().filter(|module| loaded().contains(module)) {
            let _ = Cmd::new("rmmod").arg(module).run();
        }
    }
    assert!(!loaded().iter().any(|module| modules.contains(module)), "{:?}", loaded());
    fs::write(LOADER, "/bin/false").unwrap();
    let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run));
    fs::write(LOADER, before.trim()).unwrap();
    Cmd::new("modprobe").arg("-a").args(modules).run().checked().unwrap();
    ran.unwrap();
}

/// The data and the metadata on disks of their own, ext4 on the volumes.
#[test]
fn files_of_a_dead_pool_on_disks_are_what_they_were() {
    let bench = Bench::new();
    let disk = Mounted::format(Kind::Ext4, &boot::scratch_disks()[0], &bench.sweep.path("rescue")).unwrap();
    let root = disk.dir().join("root");
    let [data, metadata] = [("data-disk", 300), ("metadata-disk", 16)]
        .map(|(name, size)| LoopDisk::create(&disk.dir().join(name), size << 20).unwrap());
    let devices = [("dm.datadev", &data), ("dm.metadatadev", &metadata)];
    let config = devices.iter().fold(Config::new(&root).option("dm.fs=ext4"), |config, (option, disk)| {
        config.option(&format!("{option}={}", disk.device().display()))
    });
    let mut docker = Docker::start(config).unwrap();
    docker.busybox(&[]).unwrap();
    docker.run_detached(&["--name", "odd"], &["sleep", "100000"]).unwrap();
    fill_image(&mounted(&docker, "odd"));
    change_once(&mounted(&docker, "odd"));
    change_more(&mounted(&docker, "odd"));
    let odd = picture(&mounted(&docker, "odd").join("odd"));
    docker.stop().unwrap();
    let sums = || [&data, &metadata].map(|disk| Cmd::new("sha256sum").arg(disk.file()).run().checked().unwrap().stdout);
    let (before, on_disks) = (picture(&root), sums());
    let out = disk.dir().join("out");
    let [data_at, metadata_at] = [&data, &metadata].map(|disk| disk.device().to_str().unwrap());
    let named = ["--data", data_at, "--metadata", metadata_at, "--userspace"];
    fs::create_dir(&out).unwrap();
    for (name, more) in [("configured", &[][..]), ("userspace", &["--userspace"][..]), ("named", &named[..])] {
        let to = out.join(name);
        let (code, text) = output(rescue(&root, &["cp", "odd:/odd", to.to_str().unwrap()]).args(more));
        assert_eq!(code, Some(0), "{text}");
        assert_same(&odd, &picture(&to), name);
    }
    assert_same(&before, &picture(&root), "the root");
    assert_eq!(on_disks, sums());
    assert_nothing_left(&root);
    docker.up().unwrap();
    docker.cmd(["rm", "-f", "odd"]).run().checked().unwrap();
}

/// A Docker on loop files that runs, and what is in the container `odd`, of the image `image:2`.
struct Running {
    docker: Docker,
    disk: Mounted,
    root: PathBuf,
    out: PathBuf,
    /// Of `/odd` and of `/img`.
    odd: Picture,
    image: Picture,
    diff: String,
    // Goes last.
    _bench: Bench,
}

impl Running {
    fn start() -> Self {
        let bench = Bench::new();
        let disk = Mounted::format(Kind::Xfs, &boot::scratch_disks()[0], &bench.sweep.path("rescue")).unwrap();
        let root = disk.dir().join("root");
        let config = Config::new(&root).option("dm.loopdatasize=300M").option("dm.loopmetadatasize=16M");
        let docker = Docker::start(config).unwrap();
        docker.busybox(&[]).unwrap();
        let sleep = ["sleep", "100000"];
        docker.run_detached(&["--name", "base"], &sleep).unwrap();
        fill_image(&mounted(&docker, "base"));
        change_once(&mounted(&docker, "base"));
        docker.cmd(["commit", "--pause=false", "base", "image:2"]).run().checked().unwrap();
        docker.cmd(["run", "-d", "--network", "none", "--name", "odd", "image:2"]).args(sleep).run().checked().unwrap();
        let at = mounted(&docker, "odd");
        // Enough that an export does not fit a pipe.
        fs::write(at.join("large"), vec![7; 1 << 20]).unwrap();
        change_more(&at);
        let (odd, image) = (picture(&at.join("odd")), picture(&at.join("img")));
        let diff = docker.cmd(["diff", "odd"]).run().checked().unwrap().stdout;
        nix::unistd::sync();
        let out = disk.dir().join("out");
        Self { docker, disk, root, out, odd, image, diff, _bench: bench }
    }

    fn end(self) {
        let Self { docker, disk, .. } = self;
        drop(docker);
        drop(disk);
    }
}

#[test]
fn files_of_a_dead_devicemapper_are_what_they_were() {
    let running = Running::start();
    let Running { docker, disk, root, out, odd, image, .. } = &running;

    // As a power cut leaves it: the log of the file system is not empty.
    let dead = disk.dir().join("dead");
    let pool = docker.pool().unwrap();
    sys::dmsetup(["suspend", &pool]).run().checked().unwrap();
    let copied = Cmd::new("cp").args(["-ax", "--sparse=always"]).arg(root).arg(&dead).run();
    sys::dmsetup(["resume", &pool]).run().checked().unwrap();
    copied.checked().unwrap();
    let before = picture(&dead);
    let notes = extract(&mut rescue(&dead, &["export", "odd"]), &out.join("dead"));
    assert!(notes.contains("its log is replayed in memory, not on the volume"), "{notes}");
    assert_same(odd, &picture(&out.join("dead/odd")), "dead");
    assert_same(image, &picture(&out.join("dead/img")), "dead");
    said(&mut rescue(&dead, &["cp", "odd:/odd", out.to_str().unwrap()]));
    assert_same(odd, &picture(&out.join("odd")), "dead");
    assert_same(&before, &picture(&dead), "the dead root");
    assert_nothing_left(&dead);

    userspace_and_elsewhere(&dead, &before, &disk.dir().join("else"), odd);
    killed_at_each_device(&dead, out);
    running.end();
}

#[test]
fn files_of_a_devicemapper_that_runs_and_stops_are_what_they_were() {
    let mut running = Running::start();
    let Running { docker, root, out, odd, diff, .. } = &mut running;

    // What is mounted is read where it is mounted, and /proc of the container is not among it.
    let notes = extract(&mut rescue(root, &["export", "odd"]), &out.join("live"));
    assert!(notes.contains("is mounted (at ") && notes.contains("may change meanwhile"), "{notes}");
    assert_same(odd, &picture(&out.join("live/odd")), "live");
    assert_eq!(fs::read_dir(out.join("live/proc")).unwrap().count(), 0);
    assert_eq!(lines(&said(&mut rescue(root, &["diff", "odd"]))), escaped(&lines(diff)));

    // The pool is Docker's, and active; the container is not mounted.
    docker.cmd(["stop", "-t", "0", "odd"]).run().checked().unwrap();
    let notes = extract(&mut rescue(root, &["export", "odd"]), &out.join("active"));
    assert_eq!(notes, "note: `/odd/socket` is a socket and left out\n");
    assert_same(odd, &picture(&out.join("active/odd")), "active");
    assert_nothing_left(Path::new("/nowhere"));

    // Stopped as it should be: nothing to replay.
    docker.stop().unwrap();
    let before = picture(root);
    let notes = extract(&mut rescue(root, &["export", "odd"]), &out.join("stopped"));
    assert_eq!(notes, "note: `/odd/socket` is a socket and left out\n");
    assert_same(odd, &picture(&out.join("stopped/odd")), "stopped");
    assert_eq!(lines(&said(&mut rescue(root, &["diff", "odd"]))), escaped(&lines(diff)));

    // Killed, or asked to end, in the middle.
    for signal in ["-KILL", "-INT"] {
        let mut child = half_exported(root);
        Cmd::new("kill").args([signal, &child.id().to_string()]).run().checked().unwrap();
        child.wait().unwrap();
        assert_nothing_left(root);
    }
    assert_same(&before, &picture(root), "the stopped root");
    for (name, modules, why) in [
        ("no-dm-thin", vec!["dm_thin_pool".to_owned()], "does not take the pool"),
        ("no-dm", loaded(), "device-mapper, the module `dm_mod`"),
    ] {
        without(&modules, || {
            let (code, text) = output(&mut rescue(root, &["cp", "odd:/odd", out.join(name).to_str().unwrap()]));
            assert_eq!(code, Some(0), "{text}");
            assert!(text.contains("is read without device-mapper") && text.contains(why), "{text}");
            assert_same(odd, &picture(&out.join(name)), name);
        });
    }
    assert_same(&before, &picture(root), "the stopped root");
    assert_nothing_left(root);
    docker.up().unwrap();
    docker.cmd(["rm", "-f", "odd", "base"]).run().checked().unwrap();
    running.end();
}
