//! Every shape of pool that Docker can have beside its two loop files: shown as `docker info` shows it, and told for what
//! it is, with the daemon up and down.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lab::guest::boot;
use lab::guest::disk::{Kind, LoopDisk, Mounted};
use lab::guest::docker::{Config, Docker, find, pairs};
use lab::guest::run::Cmd;
use lab::guest::sys::{self, dmsetup};

use crate::host::{Disk, G, Host, assert_refused};
use crate::support::Bench;
use crate::support::health::{Said, paste};
use crate::support::lvm::{Group, lvm_ok};

const M: u64 = 1 << 20;

/// What only a daemon that runs can tell, or a pool that is active.
const OF_A_LIVE_ONE: [&str; 6] = [
    "Udev Sync Supported",
    "Deferred Removal Enabled",
    "Deferred Deletion Enabled",
    "Library Version",
    "Data file",
    "Metadata file",
];

/// A disk: a linear device on the machine's second spare one.
pub struct Disklet(String);

impl Disklet {
    /// Makes it, `from` bytes into the spare disk, with zeroes at its beginning.
    pub fn new(bench: &Bench, what: &str, from: u64, size: u64) -> Self {
        let name = bench.sweep.name(what);
        dmsetup(["create", &name, "--table", &table(from, size)]).run().checked().unwrap();
        sys::settle();
        let disklet = Self(name);
        let (of, bs) = (format!("of={}", disklet.path().display()), "bs=1M");
        Cmd::new("dd").args(["if=/dev/zero", &of, bs, "count=1", "conv=fsync"]).run().checked().unwrap();
        disklet
    }

    pub fn path(&self) -> PathBuf {
        Path::new("/dev/mapper").join(&self.0)
    }
}

impl Drop for Disklet {
    fn drop(&mut self) {
        let _ = dmsetup(["remove", "--retry", &self.0]).run();
    }
}

fn table(from: u64, size: u64) -> String {
    format!("0 {} linear {} {}", size / 512, boot::scratch_disks()[1].display(), from / 512)
}

/// Fails the test unless dmpool says with Docker stopped what `docker info` said the moment before. `told` is what is known
/// all the same of what only a live one tells.
#[track_caller]
fn assert_same_when_stopped(host: &mut Host, told: &[&str]) {
    host.assert_parity();
    let before = pairs(&host.docker.storage_block().unwrap());
    host.docker.stop().unwrap();
    let after = pairs(&host.block());
    assert_eq!(before.len(), after.len(), "{before:#?} {after:#?}");
    for (before, after) in before.iter().zip(&after) {
        let key = before.0.as_str();
        let is_unknown = OF_A_LIVE_ONE.contains(&key) && !told.contains(&key);
        assert!(before == after || is_unknown && before.0 == after.0, "{before:?} became {after:?}");
    }
}

#[test]
fn docker_on_a_link_to_an_lv_is_told_and_grows_with_it() {
    let bench = Bench::new();
    let group = Group::on(&bench, "vg", &boot::scratch_disks()[1]);
    let target = group.volume("linked", 3 * 1024);
    let link = |root: &Path| {
        let files = root.join("devicemapper/devicemapper");
        fs::create_dir_all(&files).unwrap();
        symlink(&target, files.join("data")).unwrap();
    };
    // With any other size Docker would want to make the "file" longer, and the disk would not let it.
    let mut host = Host::prepared(bench, Disk::Small, &["dm.basesize=1G", "dm.loopdatasize=0"], link);
    host.assert_parity();
    assert_eq!(host.json("/pool/user_known_by"), "files");
    assert_eq!(host.json("/pool/data/link/target"), target);
    assert_eq!((host.number("/pool/data/disk/size"), host.json("/pool/data/file")), (3 * G, serde_json::Value::Null));
    let text = host.bench.ok(&["status", "docker"]);
    let line = format!(" Data Link: {} -> {target}\n", host.file("data").display());
    assert!(text.contains(&line), "{text}");

    let refused = host.bench.run(&["grow", "docker", "100G"]);
    assert_refused(&refused, 3, &["too little left", "vgextend"]);
    let unchanged = host.bench.run(&["grow", "docker", "max"]);
    assert!(unchanged.ok() && format!("{}{}", unchanged.stdout, unchanged.stderr).contains("unchanged"), "{unchanged}");
    lvm_ok(&["lvextend", "-L", "4G", &group.word("linked")]);
    let described = host.bench.ok(&["grow", "docker", "max", "--dry-run"]);
    assert!(!described.contains("extend the"), "it has been made longer already: {described}");
    host.bench.ok(&["grow", "docker", "max"]);
    assert_eq!(host.size(), 4 * G);
    let writer = host.writer("writer", 64);
    host.bench.ok(&["grow", "docker", "+512M"]);
    assert_eq!((host.size(), group.size("linked")), (4 * G + 512 * M, 4608));
    writer.writes(5);
    writer.stop_and_verify(&host);
    assert_same_when_stopped(&mut host, &[]);
    assert_eq!(host.number("/pool/data/disk/size"), 4 * G + 512 * M);
    host.docker.up().unwrap();
    assert_eq!(host.size(), 4 * G + 512 * M);
    host.assert_parity();
    drop(host);
    drop(group);
}

#[test]
fn docker_on_lvs_of_its_own_is_told_by_them_and_grows_with_them() {
    let bench = Bench::new();
    let group = Group::on(&bench, "vg", &boot::scratch_disks()[1]);
    let (data, metadata) = (group.volume("data", 2 * 1024), group.volume("meta", 128));
    let options = [format!("dm.datadev={data}"), format!("dm.metadatadev={metadata}")];
    let options: Vec<&str> = options.iter().map(String::as_str).chain(["dm.basesize=1G"]).collect();
    let mut host = Host::prepared(bench, Disk::Small, &options, |_| {});
    host.assert_parity();
    assert_eq!((host.json("/pool/maker"), host.json("/pool/user")), ("docker".into(), "docker".into()));
    assert_eq!(host.json("/pool/user_known_by"), "devices");
    let writer = host.writer("writer", 64);
    host.bench.ok(&["grow", "docker", "3G"]);
    host.bench.ok(&["grow", "docker", "--metadata", "192M"]);
    writer.writes(5);
    assert_eq!((host.size(), host.number("/pool/metadata/total")), (3 * G, 192 * M));
    assert_eq!(host.docker.storage_value("Data Space Total").unwrap(), "3.221GB");
    assert_eq!((group.size("data"), group.size("meta")), (3 * 1024, 192));
    writer.stop_and_verify(&host);
    assert_same_when_stopped(&mut host, &["Data file", "Metadata file"]);
    assert_eq!(host.json("/pool/activity"), "inactive");
    // Nobody claims them: a pool that Docker migrates to is put elsewhere all the same.
    for device in [&data, &metadata] {
        let taken = host.bench.run(&["migrate", "--name", "never", "--data-device", device, "--wipe", "--yes"]);
        assert_refused(&taken, 3, &["the old pool lies on it"]);
    }
    let to_files = host.bench.ok(&["migrate", "--block-size", "512K", "--dry-run"]);
    assert!(to_files.contains("to new loop files") && to_files.contains("data stays where it is"), "{to_files}");
    // Docker makes the pool anew, with the length that the LVs have.
    host.docker.up().unwrap();
    assert_eq!(host.size(), 3 * G);
    drop(host);
    drop(group);
}

/// Made for Docker in a volume group with one command, and grown under a container.
#[test]
fn docker_on_lvs_that_were_made_for_it_grows_with_them() {
    let bench = Bench::new();
    let group = Group::on(&bench, "vg", &boot::scratch_disks()[1]);
    let pool = bench.pool();
    let json = Path::new("/etc/docker/daemon.json");
    let before = fs::read(json).ok();
    let root = bench.sweep.subdir("docker").unwrap();
    let mounted = Mounted::format(Kind::Xfs, &boot::scratch_disks()[0], &root).unwrap();
    let udev = if sys::udev_answers() { "dm.min_free_space=5%" } else { "dm.override_udev_sync_check=true" };
    fs::create_dir_all("/etc/docker").unwrap();
    let text = serde_json::json!({
        "data-root": mounted.dir(), "iptables": false, "bridge": "none", "storage-opts": [udev, "dm.basesize=1G"],
    });
    fs::write(json, text.to_string()).unwrap();
    let create = ["create", &pool, "--vg", &group.name, "--data-size", "25%FREE", "--for", "docker"];
    bench.ok(&create);
    let again = bench.ok(&[&create[..], &["--ensure"]].concat());
    assert!(again.contains("unchanged"), "{again}");
    let docker = Docker::start_as_told(Config::new(mounted.dir()), before).unwrap();
    docker.busybox(&[&find("lab-writer").unwrap()]).unwrap();
    let host = Host::of(docker, mounted, bench);
    let writer = host.writer("writer", 64);
    let size = host.size();
    host.bench.ok(&["grow", "docker", "+1G"]);
    host.bench.ok(&["grow", "docker", "--metadata", "+16M"]);
    writer.writes(5);
    assert_eq!(host.size(), size + G);
    writer.stop_and_verify(&host);
    host.assert_parity();
    let Host { mut docker, bench, .. } = host;
    docker.stop().unwrap();
    drop(docker);
    bench.ok(&["destroy", &pool, "--yes", "--with-volumes"]);
    assert!(group.names().is_empty());
    let _ = fs::remove_file("/etc/docker/daemon.json.before-dmpool");
}

#[test]
fn docker_on_a_pool_of_dmpools_is_its_user_also_when_it_is_full() {
    let bench = Bench::new();
    let (pool, dir) = (bench.pool(), bench.dir.to_str().unwrap().to_owned());
    let sizes = ["--data-size", "512M", "--metadata-size", "16M", "--when-full", "error", "--no-zero"];
    bench.cmd(&["create", &pool, "--dir", &dir]).args(sizes).run().checked().unwrap();
    let thin_pool = format!("dm.thinpooldev=/dev/mapper/{pool}");
    let files = |root: &Path| root.join("devicemapper/devicemapper");
    let old = |root: &Path| {
        fs::create_dir_all(files(root)).unwrap();
        for name in ["data", "metadata"] {
            fs::write(files(root).join(name), "as Docker left it").unwrap();
        }
    };
    let host = Host::prepared(bench, Disk::Small, &[&thin_pool, "dm.basesize=1G"], old);
    host.assert_parity();
    let about = || Said::about(&host.bench, &pool, &[]);
    let told = about();
    paste(&told.way("old_loop_files", "warning"));
    about().without("old_loop_files");
    assert!(files(host.docker.root()).join("data.old").exists());
    assert_eq!(host.block().lines().filter(|line| line.contains("file:")).count(), 0, "no file lines");
    let whose = ["maker", "user", "user_known_by"].map(|key| host.json(&format!("/pool/{key}")));
    assert_eq!(whose, ["dmpool", "docker", "options"]);
    let list = host.bench.ok(&["list"]);
    assert!(list.contains(&pool) && list.contains(host.docker.root().to_str().unwrap()), "{list}");

    let id = host.docker.run_detached(&["--name", "fat"], &["sleep", "100000"]).unwrap();
    let filled = host.docker.exec(&id, &["dd", "if=/dev/zero", "of=/data/fat", "bs=1M", "count=700", "conv=fsync"]);
    assert!(!filled.ok(), "{filled}");
    assert_eq!(host.json("/pool/mode"), "out_of_data_space");
    host.assert_parity();
    host.bench.ok(&["grow", "docker", "1G"]);
    host.assert_parity();
    host.docker.cmd(["rm", "-f", "fat"]).run().checked().unwrap();
    host.assert_parity();

    // Its options are in a file, and the pool stays without a daemon.
    let Host { mut docker, bench, .. } = host;
    docker.stop().unwrap();
    let status = bench.ok(&["status", "docker"]);
    assert!(status.contains("no daemon runs") && status.contains(&pool), "{status}");
    drop(docker);
    bench.ok(&["destroy", &pool, "--yes", "--with-volumes"]);
}

#[test]
fn docker_root_that_was_moved_under_its_live_pool_is_still_the_pools() {
    let mut host = Host::new(Bench::new(), Disk::Large, &["dm.basesize=1G"]);
    let (pool, root) = (host.pool(), host.docker.root().to_owned());
    host.docker.kill().unwrap();
    let whose = |host: &Host, name: &str| {
        let json: serde_json::Value =
            serde_json::from_str(&host.bench.ok(&["status", name, "--format", "json"])).unwrap();
        ["name", "docker_root", "user_known_by"].map(|key| json["pool"][key].as_str().unwrap_or("null").to_owned())
    };
    let place = root.to_str().unwrap().to_owned();
    assert_eq!(whose(&host, "docker"), [&pool, &place, "files"]);

    // Copied back by hand, say: the same files in a directory with another number, so that the name no longer fits.
    let (home, old) = (root.join("devicemapper"), root.join("old"));
    fs::rename(&home, &old).unwrap();
    fs::create_dir(&home).unwrap();
    for name in ["devicemapper", "metadata"] {
        fs::rename(old.join(name), home.join(name)).unwrap();
    }
    for name in ["docker", &pool, &place] {
        assert_eq!(whose(&host, name), [&pool, &place, "files"], "{name}");
    }
    assert_eq!(host.bench.ok(&["list"]).lines().count(), 2, "one pool, and no second one by its new name");

    // Deleted under the pool, which is still its root's; and put back from another name of the same files.
    for name in ["data", "metadata"] {
        fs::hard_link(host.file(name), root.join(name)).unwrap();
        fs::remove_file(host.file(name)).unwrap();
    }
    assert_eq!(whose(&host, &pool), [&pool, &place, "deleted_file"]);
    let text = host.bench.ok(&["status", "docker"]);
    assert!(text.contains("deleted: its blocks go when the pool does"), "{text}");
    for name in ["data", "metadata"] {
        fs::rename(root.join(name), host.file(name)).unwrap();
    }
    assert_eq!(whose(&host, &pool), [&pool, &place, "files"]);

    // Somewhere else, where no configuration says that there is a root. Docker mounts its root on itself, and without
    // that mount the kernel has no name for the files.
    let elsewhere = root.with_file_name("elsewhere");
    Cmd::new("umount").arg("-l").arg(&root).run().checked().unwrap();
    fs::rename(&root, &elsewhere).unwrap();
    let there = elsewhere.to_str().unwrap();
    let status = host.bench.ok(&["status", "--root", there]);
    assert!(status.contains(&pool) && status.contains(&format!("Docker Root: {there} (")), "{status}");
    symlink("elsewhere", &root).unwrap();
    assert_eq!(whose(&host, "docker"), [&pool, there, "files"], "behind a link");
}

#[test]
fn docker_on_overlay2_is_told_by_that_name_and_has_no_pool() {
    let bench = Bench::new();
    let mounted = Mounted::format(Kind::Xfs, &boot::scratch_disks()[0], &bench.sweep.path("overlay")).unwrap();
    let root = mounted.dir().join("root");
    let config = Config { driver: "overlay2".to_owned(), ..Config::new(&root) };
    let mut docker = Docker::start(config).unwrap();
    docker.busybox(&[]).unwrap();
    for state in ["running", "stopped"] {
        let place = root.to_str().unwrap();
        for args in [&["status", "docker"][..], &["status"], &["status", place], &["status", "--root", place]] {
            let refused = bench.run(args);
            assert_refused(&refused, 3, &["overlay2", place, "there is no thin pool", "df -h"]);
        }
        assert_eq!(bench.ok(&["list"]), "no thin pools on this machine\n", "{state}");
        if state == "running" {
            docker.stop().unwrap();
        }
    }

    // What Docker left when it was given another driver: a pool that it no longer uses, and nothing to be woken for.
    let files = root.join("devicemapper/devicemapper");
    fs::create_dir_all(&files).unwrap();
    {
        let [data, metadata] = [("data", 64 << 20), ("metadata", 8 << 20)]
            .map(|(name, size)| LoopDisk::create(&files.join(name), size).unwrap());
        let name = bench.sweep.name("before");
        let table = format!("0 131072 thin-pool {} {} 128 0", metadata.device().display(), data.device().display());
        dmsetup(["create", &name, "--table", &table]).run().checked().unwrap();
        dmsetup(["remove", "--retry", &name]).run().checked().unwrap();
    }
    for state in ["stopped", "running"] {
        if state == "running" {
            docker.up().unwrap();
        }
        let said = Said::about(&bench, "docker", &[]);
        assert_eq!(said.code, 0, "{state}");
        said.sentence("inactive", "info");
        let text = bench.ok(&["status", "docker"]);
        assert!(
            text.contains("used by nobody that dmpool knows") && text.contains("; Docker uses the overlay2 driver")
        );
    }
}

/// Docker's own LVM pool, taken away with its volume group.
struct VolumeGroup;

impl Drop for VolumeGroup {
    fn drop(&mut self) {
        let _ = Cmd::new("vgremove").args(["-ff", "-y", "docker"]).limit(Duration::from_secs(60)).run();
        let _ = Cmd::new("pvremove").arg("-ff").arg("-y").arg(&boot::scratch_disks()[1]).run();
        let _ = fs::remove_file("/etc/lvm/profile/docker-thinpool.profile");
    }
}

#[test]
fn docker_on_an_lvm_pool_of_its_own_making_is_told_by_its_setup() {
    let bench = Bench::new();
    let group = VolumeGroup;
    let device = format!("dm.directlvm_device={}", boot::scratch_disks()[1].display());
    let options = [&device, "dm.directlvm_device_force=true", "dm.basesize=1G"];
    let mut host = Host::prepared(bench, Disk::Small, &options, |_| {});
    host.assert_parity();
    assert_eq!(host.pool(), "docker-thinpool");
    let whose = ["maker", "user", "user_known_by"].map(|key| host.json(&format!("/pool/{key}")));
    assert_eq!(whose, ["lvm", "docker", "options"]);
    let refused = host.bench.run(&["grow", "docker", "+1G"]);
    assert_refused(&refused, 3, &["too little left", "vgextend docker "]);
    let (size, writer) = (host.size(), host.writer("writer", 64));
    host.bench.ok(&["grow", "docker", "+64M"]);
    host.bench.ok(&["grow", "docker", "--metadata", "+4M"]);
    writer.writes(5);
    assert_eq!(host.size(), size + 64 * M);
    writer.stop_and_verify(&host);
    host.docker.stop().unwrap();
    assert_eq!(host.json("/pool/name"), "docker-thinpool");
    drop(host);
    drop(group);
}
