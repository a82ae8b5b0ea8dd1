//! `status docker --format docker` is the storage block of `docker info`, whatever state Docker is in.

use std::fs;

use lab::guest::docker::{IMAGE, find, pairs};
use lab::guest::run::Cmd;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::host::{Disk, Host};
use crate::support::Bench;

/// What only a daemon that runs can tell.
const OF_THE_DAEMON: [&str; 4] =
    ["Udev Sync Supported", "Deferred Removal Enabled", "Deferred Deletion Enabled", "Library Version"];

/// dockerd stopped as by a debugger: it is there, and answers nobody. It goes on when this is dropped.
struct Hung(Pid);

impl Hung {
    fn daemon() -> Self {
        let pid = fs::read_to_string("/var/run/docker.pid").unwrap().trim().parse().unwrap();
        let pid = Pid::from_raw(pid);
        kill(pid, Signal::SIGSTOP).unwrap();
        Self(pid)
    }
}

impl Drop for Hung {
    fn drop(&mut self) {
        let _ = kill(self.0, Signal::SIGCONT);
    }
}

#[test]
fn the_block_is_docker_infos_in_every_state_of_the_default_pool() {
    let mut host = Host::new(Bench::new(), Disk::Large, &[]);
    host.assert_parity();
    let id = host.docker.run_detached(&["--name", "one"], &["sleep", "100000"]).unwrap();
    assert!(host.docker.exec(&id, &["dd", "if=/dev/zero", "of=/data/zeroes", "bs=1M", "count=20", "conv=fsync"]).ok());
    host.docker.run_detached(&["--name", "two"], &["sleep", "100000"]).unwrap();
    host.assert_parity();

    host.bench.ok(&["grow", "docker", "150G"]);
    host.bench.ok(&["grow", "docker", "--metadata", "3G"]);
    host.assert_parity();

    // A mounted XFS writes now and then by itself, and the numbers move.
    host.docker.cmd(["kill", "one", "two"]).run().checked().unwrap();
    host.assert_parity();
    let before = host.docker.storage_block().unwrap();
    {
        let _hung = Hung::daemon();
        assert_eq!(host.block(), before, "with a daemon that hangs");
        let text = host.bench.ok(&["status", "docker"]);
        assert!(text.contains("Pool Name"), "{text}");
        assert!(host.bench.ok(&["list"]).contains(&pairs(&before)[1].1));
    }
    assert_eq!(host.docker.storage_block().unwrap(), before, "it goes on");

    host.docker.kill().unwrap();
    let ours = pairs(&host.block());
    let theirs = pairs(&before);
    assert_eq!(ours.len(), theirs.len(), "{ours:#?}");
    for (ours, theirs) in ours.iter().zip(&theirs) {
        let unknown = OF_THE_DAEMON.contains(&ours.0.as_str()) && ours.1 == "unknown";
        assert!(ours == theirs || unknown && ours.0 == theirs.0, "{ours:?} instead of {theirs:?}, the daemon killed");
    }
    host.docker.up().unwrap();
    host.assert_parity();

    host.docker.cmd(["rm", "-f", "one", "two"]).run().checked().unwrap();
    host.docker.cmd(["rmi", IMAGE]).run().checked().unwrap();
    host.assert_parity();
}

#[test]
fn the_block_is_docker_infos_with_other_options() {
    let options = [
        "dm.basesize=1500M",
        "dm.fs=ext4",
        "dm.min_free_space=7%",
        "dm.loopdatasize=33333M",
        "dm.loopmetadatasize=777M",
        "dm.blocksize=128K",
        "dm.use_deferred_removal=true",
        "dm.use_deferred_deletion=true",
    ];
    let host = Host::new(Bench::new(), Disk::Large, &options);
    host.assert_parity();
    assert!(host.block().contains("Backing Filesystem: ext4\n"));

    // A device that somebody holds when its container goes is deleted later: a count that Docker keeps in its files.
    let id = host.docker.run_detached(&["--name", "held"], &["sleep", "100000"]).unwrap();
    let layer = host.docker.root().join("image/devicemapper/layerdb/mounts").join(&id).join("mount-id");
    let device = format!("/dev/mapper/{}", host.pool().replace("-pool", &format!("-{}", read(&layer))));
    let mut holder = Cmd::new("sh").args(["-c", &format!("exec sleep 1000 <{device}")]).start().unwrap();
    while fs::read_link(format!("/proc/{}/fd/0", holder.pid())).map_or(true, |at| !at.starts_with("/dev")) {
        assert!(holder.alive(), "{device} cannot be held: {:?}", holder.printed());
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    host.docker.cmd(["rm", "-f", "held"]).run().checked().unwrap();
    assert_eq!(host.docker.storage_value("Deferred Deleted Device Count").unwrap(), "1");
    host.assert_parity();
    let _ = holder.kill();
}

#[test]
fn the_block_is_docker_infos_with_everything_deferred_switched_off() {
    let options = ["dm.basesize=1G", "dm.use_deferred_removal=false", "dm.use_deferred_deletion=false"];
    let host = Host::new(Bench::new(), Disk::Small, &options);
    host.docker.busybox(&[&find("lab-writer").unwrap()]).unwrap();
    host.assert_parity();
    assert!(host.block().contains("Deferred Deletion Enabled: false\n"));
}

fn read(path: &std::path::Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display())).trim().to_owned()
}
