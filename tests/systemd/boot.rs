//! A machine that boots: its pools are there before Docker and containerd are started.

use std::fs;
use std::path::Path;
use std::time::Duration;

use lab::guest::boot;
use lab::guest::docker::{Config, DAEMON_JSON, Docker, IMAGE};
use lab::guest::run::Cmd;
use lab::guest::sys;

use crate::support::at_boot::AtBoot;

const CONTAINERD: &str = "/etc/containerd/config.toml";
/// On the root's file system, which outlives the boot; not where sweeps look.
const STATE: &str = "/var/lib/dmpool-test-boot";
const ROOT: &str = "/var/lib/dmpool-test-docker";
const UNIT: &str = "dmpool-activate-var-lib-dmpool-test-boot.service";
const DOCKERS: &str = "dmpool-test-docker";
const CONTAINERDS: &str = "dmpool-test-containerd";

/// A pool whose disk comes when its unit waits for it.
const LATE: &str = "dmpool-test-late";
const LATE_UNIT: &str = "dmpool-test-late.service";

/// The command that makes the late disk.
fn late_disk() -> String {
    let below = &boot::scratch_disks()[2];
    format!("dmsetup create {LATE}-disk --table '0 262144 linear {} 131072'", below.display())
}

fn dmpool(args: &[&str]) -> String {
    let dmpool = Cmd::new("dmpool").args(["--state-dir", STATE]).args(args);
    dmpool.limit(Duration::from_secs(300)).run().checked().unwrap().stdout
}

fn systemctl(args: &[&str]) -> String {
    Cmd::new("systemctl").args(args).limit(Duration::from_secs(300)).run().checked().unwrap().stdout
}

/// When something happened to a unit, in microseconds of this boot.
fn moment(unit: &str, what: &str) -> u64 {
    let property = format!("{what}TimestampMonotonic");
    systemctl(&["show", "--value", "--property", &property, unit]).trim().parse().unwrap()
}

#[test]
fn pools_are_there_before_docker_and_containerd_when_the_machine_boots() {
    // An emulated CPU, and two boots.
    boot::time_limit(Duration::from_secs(900));
    match boot::phase() {
        0 => {
            made_for_engines();
            boot::reboot()
        }
        _ => there_before_engines(),
    }
}

fn made_for_engines() {
    drop(AtBoot::none());
    let _ = fs::remove_dir_all(STATE);
    fs::create_dir_all(STATE).unwrap();
    fs::create_dir_all(ROOT).unwrap();
    boot::remember("containerd", &fs::read_to_string(CONTAINERD).unwrap());
    systemctl(&["stop", "docker.socket", "docker.service"]);
    let json = format!(
        "{{\"data-root\": \"{ROOT}\", \"iptables\": false, \"bridge\": \"none\", \"storage-opts\": [\"dm.basesize=1G\"]}}\n"
    );
    fs::create_dir_all("/etc/docker").unwrap();
    fs::write(DAEMON_JSON, json).unwrap();
    let disks = boot::scratch_disks();
    let make =
        |pool, disk: &Path, engine| dmpool(&["create", pool, "--data-device", disk.to_str().unwrap(), "--for", engine]);
    make(DOCKERS, &disks[0], "docker");
    make(CONTAINERDS, &disks[1], "containerd");
    assert_eq!(systemctl(&["is-enabled", UNIT]).trim(), "enabled");
    Cmd::new("sh").args(["-c", &late_disk()]).run().checked().unwrap();
    dmpool(&["create", LATE, "--data-device", &format!("/dev/mapper/{LATE}-disk")]);
    let comes = format!(
        "[Unit]\nDefaultDependencies=no\n[Service]\nType=oneshot\n\
         ExecStart=/bin/sh -c \"until journalctl -b -u {UNIT} | grep -q 'waiting up to'; do sleep 0.2; done; {}\"\n\
         [Install]\nWantedBy={UNIT}\n",
        late_disk()
    );
    fs::write(Path::new("/etc/systemd/system").join(LATE_UNIT), comes).unwrap();
    systemctl(&["enable", LATE_UNIT]);
    let unit = Path::new("/etc/systemd/system").join(UNIT);
    let verified = Cmd::new("systemd-analyze").args(["verify", "--man=no"]).arg(&unit).run().checked().unwrap();
    assert_eq!(verified.stderr, "", "{verified}");

    let docker = Docker::start_as_told(Config { systemd: true, ..Config::new(ROOT) }, None).unwrap();
    assert_eq!(docker.pool().unwrap(), DOCKERS);
    docker.busybox(&[]).unwrap();
    // It goes down with the machine.
    std::mem::forget(docker);
}

fn there_before_engines() {
    let result = systemctl(&["show", "--value", "--property", "Result", UNIT]);
    let journal = || Cmd::new("journalctl").args(["-b", "--no-pager", "-n", "200"]).run().stdout;
    assert_eq!(result.trim(), "success", "{}", journal());
    let up = moment(UNIT, "ExecMainExit");
    for engine in ["docker.service", "containerd.service"] {
        let started = moment(engine, "ExecMainStart");
        println!("pools up at {up} us, {engine} started at {started} us");
        assert!(up > 0 && up < started, "{engine}: {}", journal());
    }
    let cycles = Cmd::new("journalctl").args(["-b", "--no-pager", "--grep", "ordering cycle"]).run();
    assert!(!cycles.stdout.contains("cycle on"), "{cycles}");
    assert!([DOCKERS, CONTAINERDS, LATE].iter().all(|pool| sys::dm_exists(pool).unwrap()), "{}", journal());
    let waited = Cmd::new("journalctl").args(["-b", "--no-pager", "-u", UNIT]).run();
    let says = format!("/dev/mapper/{LATE}-disk (pool `{LATE}`)");
    assert!(waited.stdout.contains(&says), "{waited}");

    let docker = Docker::start_as_told(Config { systemd: true, ..Config::new(ROOT) }, None);
    let docker = docker.unwrap();
    assert_eq!(docker.pool().unwrap(), DOCKERS);
    let images = docker.cmd(["images", "-q", IMAGE]).run().checked().unwrap();
    assert_eq!(images.stdout.lines().count(), 1, "{images}");
    let plugins = Cmd::new("ctr").args(["plugins", "ls"]).limit(Duration::from_secs(60)).run().checked().unwrap();
    let plugin = plugins.stdout.lines().find(|line| line.contains("devmapper")).unwrap();
    assert!(plugin.trim_end().ends_with("ok"), "{plugins}");
    assert!(dmpool(&["activate", "--all", "--at-boot"]).contains("just so: unchanged"));

    drop(docker);
    fs::write(CONTAINERD, boot::recall("containerd").unwrap()).unwrap();
    systemctl(&["restart", "containerd.service"]);
    drop(AtBoot::none());
    for pool in [DOCKERS, CONTAINERDS, LATE] {
        dmpool(&["destroy", pool, "--yes", "--with-volumes"]);
    }
    systemctl(&["disable", LATE_UNIT]);
    fs::remove_file(Path::new("/etc/systemd/system").join(LATE_UNIT)).unwrap();
    sys::dmsetup(["remove", "--retry", &format!("{LATE}-disk")]).run().checked().unwrap();
    let _ = fs::remove_file(format!("{CONTAINERD}.before-dmpool"));
    let _ = fs::remove_file(format!("{DAEMON_JSON}.before-dmpool"));
    let _ = fs::remove_dir_all("/var/lib/containerd/io.containerd.snapshotter.v1.devmapper");
    for folder in [STATE, ROOT] {
        fs::remove_dir_all(folder).unwrap();
    }
}
