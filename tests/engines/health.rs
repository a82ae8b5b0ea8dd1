//! `health` beside a real Docker: what Docker refuses, what it would delete, what does not come back, why it is down.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use lab::guest::boot;
use lab::guest::docker::IMAGE;
use lab::guest::run::Cmd;

use crate::host::{Disk, Host};
use crate::support::Bench;
use crate::support::health::{Said, paste, while_stopped};
use crate::support::pools::set_needs_check;

const M: u64 = 1 << 20;
const LOG: &str = "/var/log/docker.log";

impl Host {
    #[track_caller]
    fn health(&self) -> Said {
        Said::about(&self.bench, "docker", &[])
    }
}

#[test]
fn health_of_docker_pool() {
    // Docker is started a dozen times.
    boot::time_limit(Duration::from_secs(600));
    let mut host = Host::new(Bench::new(), Disk::Large, &["dm.basesize=1G", "dm.loopdatasize=1G"]);
    let fat = host.docker.run_detached(&["--name", "fat"], &["sleep", "100000"]).unwrap();
    let well = host.health();
    assert_eq!(well.code, 0);
    well.sentence("loop_files", "info");
    assert!(well.sentence("retries_forever", "info").contains("container `fat`"));

    // Below Docker's minimum the next container is refused; the way out is the size from which on it is not.
    let left = host.number("/pool/data/free") - 90 * M;
    let count = format!("count={}", left / M);
    let filled = host.docker.exec(&fat, &["dd", "if=/dev/zero", "of=/data/f", "bs=1M", &count, "conv=fsync"]);
    assert!(filled.ok(), "{filled}");
    let refused = host.docker.cmd(["create", IMAGE, "sh"]).run();
    assert!(!refused.ok() && refused.stderr.contains("less than minimum required"), "{refused}");
    let said = host.health();
    assert_eq!(said.code, 2);
    assert!(said.sentence("minimum_free", "critical").contains("the next docker pull or run fails: Docker keeps 10%"));
    let way = said.way("minimum_free", "critical");
    let grown = host.bench.run(&way.split(' ').skip(1).collect::<Vec<_>>());
    assert!(grown.ok(), "{way}: {grown}");
    host.health().without("minimum_free");
    host.docker.cmd(["create", IMAGE, "sh"]).run().checked().unwrap();
    let wide = ["create", "--storage-opt", "size=2G", "--name", "wide", IMAGE, "sh"];
    host.docker.cmd(wide).run().checked().unwrap();
    assert!(host.health().sentence("above_base_size", "info").contains("which has 1.0 GiB: container `wide`;"));
    host.docker.cmd(["rm", "-f", "wide"]).run().checked().unwrap();
    host.health().without("above_base_size");
    host.docker.cmd(["rm", "-f", "fat"]).run().checked().unwrap();

    files_deleted_under_docker_come_back(&mut host);
    a_daemon_that_does_nothing_is_told(&host);
    a_container_resized_by_hand_comes_back(&mut host);
    what_docker_would_delete_is_told(&mut host);
    records_that_docker_does_not_start_with(&mut host);
    a_check_lets_docker_write_again(&mut host);
    why_docker_does_not_start(&mut host);
}

/// Deleted under a running Docker, they are copied back while the pool waits; started again, Docker has what it had.
fn files_deleted_under_docker_come_back(host: &mut Host) {
    let kept = host.docker.run_detached(&["--name", "kept"], &["sleep", "100000"]).unwrap();
    let made = host.docker.exec(&kept, &["dd", "if=/dev/urandom", "of=/data/f", "bs=1M", "count=5", "conv=fsync"]);
    assert!(made.ok(), "{made}");
    let sum = |host: &Host| host.docker.exec("kept", &["md5sum", "/data/f"]).checked().unwrap().stdout;
    let before = sum(host);
    host.docker.cmd(["stop", "-t", "1", "kept"]).run().checked().unwrap();
    for name in ["data", "metadata"] {
        fs::remove_file(host.file(name)).unwrap();
    }
    let told = host.health();
    assert!(told.by_hand("deleted_file", "critical").contains("leave Docker running"));
    let way = told.way("deleted_file", "critical");
    let (copied, again) = way.rsplit_once(" && ").unwrap();
    assert!(again.contains("docker") && again.contains("restart"), "{way}");
    paste(copied);
    host.docker.stop().unwrap();
    host.docker.up().unwrap();
    host.health().without("deleted_file");
    host.docker.cmd(["start", "kept"]).run().checked().unwrap();
    assert_eq!(sum(host), before);
    host.docker.cmd(["rm", "-f", "kept"]).run().checked().unwrap();
}

/// One that was stopped, and one of whose threads wait for a file system that somebody has frozen.
fn a_daemon_that_does_nothing_is_told(host: &Host) {
    host.health().without("docker_hung");
    paste("kill -STOP $(cat /var/run/docker.pid)");
    let stopped = host.health();
    paste("kill -CONT $(cat /var/run/docker.pid)");
    assert_eq!(stopped.code, 2);
    assert!(stopped.sentence("docker_hung", "critical").contains("was stopped by a signal"));
    assert!(stopped.way("docker_hung", "critical").starts_with("kill -CONT "));
    host.health().without("docker_hung");

    let frozen = host.docker.root().parent().unwrap().display().to_string();
    paste(&format!("sync && fsfreeze -f {frozen}"));
    let create = host.docker.cmd(["create", "--name", "late", IMAGE, "sh"]).start();
    let until = Instant::now() + Duration::from_secs(60);
    let waits = loop {
        let told = host.bench.run(&["health", "docker"]);
        if told.stdout.contains("wait in the kernel: docker commands may hang") || Instant::now() > until {
            break told;
        }
    };
    paste(&format!("fsfreeze -u {frozen}"));
    let created = create.unwrap().wait();
    assert!(waits.stdout.contains("WARNING: ") && waits.stdout.contains("/task/*/stack    # "), "{waits}");
    assert!(created.ok(), "{created}");
    host.docker.cmd(["rm", "late"]).run().checked().unwrap();
    host.health().without("docker_hung");
}

/// The recipe of many blog posts: a longer table, and the file system grown into it. Docker's own file still has the
/// old size, and the container does not start again until the way out is gone.
fn a_container_resized_by_hand_comes_back(host: &mut Host) {
    let id = host.docker.run_detached(&["--name", "web"], &["sleep", "100000"]).unwrap();
    let inspected = |format: &str| {
        let cmd = host.docker.cmd(["inspect", "-f", format, &id]);
        cmd.run().checked().unwrap().stdout.trim().to_owned()
    };
    let device = inspected("{{.GraphDriver.Data.DeviceName}}");
    let mount = host.docker.root().join("devicemapper/mnt").join(device.rsplit('-').next().unwrap());
    let sectors = 2048 * M / 512;
    paste(&format!(
        "dmsetup table {device} | awk '{{ $2 = {sectors}; print }}' | dmsetup load {device} && dmsetup resume {device}"
    ));
    let told = host.health();
    assert!(told.sentence("sizes_disagree", "warning").contains("the device of container `web` has 2.0 GiB"));
    Cmd::new("xfs_growfs").arg(&mount).run().checked().unwrap();
    // The new size goes to its place on the disk when the log is written back.
    for freeze in ["-f", "-u"] {
        Cmd::new("fsfreeze").arg(freeze).arg(&mount).run().checked().unwrap();
    }
    let told = host.health();
    assert_eq!(told.code, 2);
    let sentence = told.sentence("sizes_disagree", "critical");
    assert!(sentence.contains("container `web` was resized by hand to 2.0 GiB"), "{sentence}");
    assert!(sentence.contains("Docker's file says 1.0 GiB"), "{sentence}");
    let way = told.way("sizes_disagree", "critical");

    host.docker.stop().unwrap();
    host.docker.up().unwrap();
    let lost = host.docker.cmd(["start", "web"]).run();
    assert!(!lost.ok(), "what is told comes true: {lost}");
    host.docker.stop().unwrap();
    paste(while_stopped(&way));
    host.docker.up().unwrap();
    host.docker.cmd(["start", "web"]).run().checked().unwrap();
    host.health().without("sizes_disagree");
    host.docker.cmd(["rm", "-f", "web"]).run().checked().unwrap();
}

fn what_docker_would_delete_is_told(host: &mut Host) {
    let file = host.docker.root().join("devicemapper/metadata/transaction-metadata");
    host.docker.stop().unwrap();
    let kept = fs::read_to_string(&file).unwrap();
    let before = host.health();
    assert_eq!(before.code, 3, "it is not active");
    before.without("transaction_ahead");
    before.without("mismatch");
    let mut json: serde_json::Value = serde_json::from_str(&kept).unwrap();
    let open = json["open_transaction_id"].as_u64().unwrap();
    json["open_transaction_id"] = (open + 6).into();
    json["device_hash"] = "aa".into();
    fs::write(&file, json.to_string()).unwrap();
    let told = host.health();
    assert_eq!(told.code, 2);
    let sentence = told.sentence("transaction_ahead", "critical");
    assert!(
        sentence.contains(&format!("is {}, the pool's is {open}: Docker deletes device aa", open + 6)),
        "{sentence}"
    );
    assert!(told.way("transaction_ahead", "critical").starts_with("cp -a "));
    fs::write(&file, kept).unwrap();
    host.health().without("transaction_ahead");
}

/// Records that no Docker reads, and two with one device. What is moved away is only what cannot be read.
fn records_that_docker_does_not_start_with(host: &mut Host) {
    let folder = host.docker.root().join("devicemapper/metadata");
    let record = fs::read(folder.join("base")).unwrap();
    for (name, bytes) in [("aa", &b"garbage"[..]), ("bb", br#"{"device_id":16777216,"size":1,"transaction_id":1}"#)] {
        fs::write(folder.join(name), bytes).unwrap();
        assert!(host.docker.up().is_err(), "Docker starts with {name}");
        host.docker.stop().unwrap();
        let told = host.health();
        let sentence = told.sentence("damaged_record", "critical");
        assert!(sentence.contains(&format!("cannot read: {name}: ")), "{sentence}");
        paste(while_stopped(&told.other_way("damaged_record", "critical")));
    }
    fs::write(folder.join("cc"), &record).unwrap();
    let told = host.health();
    let sentence = told.sentence("duplicate_device", "critical");
    assert!(sentence.ends_with("cc: its device id 1 is that of base too"), "{sentence}");
    paste(&told.way("duplicate_device", "critical"));
    assert_eq!(fs::read(folder.with_file_name("metadata.before").join("base")).unwrap(), record);
    fs::remove_file(folder.join("cc")).unwrap();
    host.docker.up().unwrap();
    host.health().without("damaged_record");
    host.health().without("duplicate_device");
}

/// As the kernel leaves it after a failed write of metadata, with Docker up and down.
fn a_check_lets_docker_write_again(host: &mut Host) {
    host.docker.cmd(["create", "--name", "kept", IMAGE, "sh"]).run().checked().unwrap();
    let metadata = host.file("metadata");
    host.docker.stop().unwrap();
    set_needs_check(&metadata);
    let down = host.health().way("needs_check", "critical");
    // Docker starts on it, and cannot do anything that writes.
    host.docker.up().unwrap();
    let told = host.health();
    assert_eq!(told.code, 2);
    let pasted = told.way("needs_check", "critical");
    // Killed, it leaves its pool up.
    host.docker.kill().unwrap();
    assert_eq!(host.json("/pool/activity"), "active");
    paste(while_stopped(&pasted));
    host.health().without("needs_check");
    paste(&told.other_way("needs_check", "critical"));
    set_needs_check(&metadata);
    paste(&down);
    host.docker.up().unwrap();
    host.health().without("needs_check");
    host.docker.cmd(["rm", "kept"]).run().checked().unwrap();
    host.docker.stop().unwrap();
}

/// Starts that fail, with the daemon's own words in the file where an init script keeps them.
fn why_docker_does_not_start(host: &mut Host) {
    let before = fs::read(LOG).ok();
    let pool = host.bench.sweep.name("nope");
    let config = format!(r#"{{"data-root": "{}"}}"#, host.docker.root().display());
    let other = host.bench.sweep.path("daemon.json");
    fs::write(&other, config).unwrap();
    let missing = format!("dm.thinpooldev=/dev/mapper/{pool}");
    let driver =
        ["--storage-driver=devicemapper", "--storage-opt", "dm.override_udev_sync_check=true", "--storage-opt"];
    for (config, option, said) in [
        (Path::new(lab::guest::docker::DAEMON_JSON), "dm.basesize=1G", "on the command line and in daemon.json"),
        (other.as_path(), missing.as_str(), "the pool that it was told to use is not there"),
    ] {
        let mut cmd = Cmd::new("dockerd").arg("--config-file").arg(config).args(["--iptables=false", "--bridge=none"]);
        let own = if config == other { &driver[..] } else { &driver[3..] };
        cmd = cmd.args(own).arg(option).limit(Duration::from_secs(60));
        let ended = cmd.run();
        assert!(!ended.ok(), "{ended}");
        fs::write(LOG, &ended.stderr).unwrap();
        let told = host.health();
        assert_eq!(told.code, 2, "{ended}");
        let sentence = told.sentence("docker_down", "critical");
        assert!(sentence.contains("Docker does not start") && sentence.contains(said), "{sentence}");
    }
    base_device_of_another_pool(host);
    host.docker.up().unwrap();
    host.health().without("docker_down");
    match before {
        Some(bytes) => fs::write(LOG, bytes).unwrap(),
        None => fs::remove_file(LOG).unwrap(),
    }
}

/// Docker on a pool that is not its own: the base device is not there. Its bookkeeping is put back afterwards: Docker
/// rolls its last transaction back on the way.
fn base_device_of_another_pool(host: &mut Host) {
    let metadata = host.docker.root().join("devicemapper/metadata");
    let kept = host.bench.sweep.path("metadata");
    Cmd::new("cp").arg("-a").arg(&metadata).arg(&kept).run().checked().unwrap();
    let pool = host.bench.create();
    let option = format!("dm.thinpooldev=/dev/mapper/{pool}");
    let root = host.docker.root().to_str().unwrap().to_owned();
    let config = host.bench.sweep.path("empty.json");
    fs::write(&config, "{}").unwrap();
    let ended = Cmd::new("dockerd")
        .arg("--config-file")
        .arg(&config)
        .args(["--iptables=false", "--bridge=none", "--storage-driver=devicemapper", "--data-root", &root])
        .args(["--storage-opt", "dm.override_udev_sync_check=true"])
        .args(["--storage-opt", &option])
        .limit(Duration::from_secs(60))
        .run();
    fs::write(LOG, &ended.stderr).unwrap();
    let told = host.health();
    let sentence = told.sentence("docker_down", "critical");
    assert!(sentence.contains("base device"), "{sentence}: {ended}");
    Cmd::new("sh")
        .args(["-c", "rm -rf \"$1\" && cp -a \"$2\" \"$1\"", "-"])
        .arg(&metadata)
        .arg(&kept)
        .run()
        .checked()
        .unwrap();
    host.bench.ok(&["destroy", &pool, "--yes", "--with-volumes"]);
}
