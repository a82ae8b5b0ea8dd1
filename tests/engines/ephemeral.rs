//! Ephemeral pools: their disks come back blank, as a cloud's instance store does.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lab::guest::boot;
use lab::guest::docker::DAEMON_JSON;
use lab::guest::run::Cmd;
use lab::guest::sys;

use crate::handover::{CONTAINERD, Containerd, Kept, image};
use crate::host::assert_refused;
use crate::support::Bench;
use crate::support::at_boot::AtBoot;
use crate::support::linear::Disk;

const IMAGE: &str = "docker.io/dmpool-test/bb:1";

/// As the machine's owner finds the disk when it was stopped and started.
fn blank(disk: &Disk) {
    let of = format!("of={}", disk.path());
    Cmd::new("dd").args(["if=/dev/zero", &of, "bs=1M", "count=128", "conv=fsync"]).run().checked().unwrap();
}

fn runs(containerd: &Containerd, container: &str) {
    let run = ["run", "--rm", "--snapshotter", "devmapper", IMAGE, container];
    let ran = containerd.ctr(&run).args(["/bin/busybox", "echo", "here"]).run().checked().unwrap();
    assert_eq!(ran.stdout.trim(), "here", "{ran}");
}

/// The files below a folder that were set aside.
fn set_aside(folder: &Path) -> Vec<PathBuf> {
    let found = Cmd::new("find").arg(folder).args(["-name", "*.before-2*"]).run().checked().unwrap();
    found.stdout.lines().map(PathBuf::from).collect()
}

#[test]
fn containerd_works_on_an_ephemeral_pool_whose_disk_came_back_blank() {
    boot::time_limit(Duration::from_secs(600));
    let (bench, _at_boot) = (Bench::with_faults(), AtBoot::none());
    let below = boot::scratch_disks().swap_remove(0);
    let disk = Disk::new(&bench.sweep.name("disk"), &below, 64, 128);
    let (pool, dir) = (bench.pool(), bench.sweep.dir().display().to_string());
    let section = "[plugins.\"io.containerd.snapshotter.v1.devmapper\"]\n  base_image_size = \"64MB\"";
    let text = format!(
        "version = 2\nroot = \"{dir}/root\"\nstate = \"{dir}/state\"\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n\n\
         [grpc]\n  address = \"{dir}/containerd.sock\"\n\n{section}\n"
    );
    let _config = Kept::new(CONTAINERD, &text);
    let create = ["create", &pool, "--data-device", &disk.path(), "--ephemeral"];
    let docker = bench.cmd(&create).args(["--for", "docker"]).run();
    assert_refused(&docker, 3, &["not for Docker"]);
    let for_containerd = || bench.cmd(&create).args(["--for", "containerd"]).run();
    let json = Kept::new(DAEMON_JSON, "{\"storage-opts\": [");
    assert_refused(&for_containerd(), 3, &["it cannot be told whether Docker is to use", DAEMON_JSON]);
    drop(json);
    let made = for_containerd().checked().unwrap();
    assert!(made.stderr.contains("containerd uses the pool"), "{made}");
    let shown = bench.ok(&["show", "--toml", &pool]);
    assert!(shown.contains("ephemeral = true\n") && shown.contains(&disk.path()), "{shown}");
    let other = bench.run(&["create", &pool, "--data-device", &disk.path(), "--ensure"]);
    assert_refused(&other, 3, &["ephemeral: yes is there, no is wanted"]);

    let archive = image(bench.sweep.dir(), &["busybox"]);
    let import = |containerd: &Containerd| {
        containerd.ctr(&["images", "import", "--snapshotter", "devmapper"]).arg(&archive).run().checked().unwrap();
    };
    let containerd = Containerd::start(&bench);
    import(&containerd);
    runs(&containerd, "one");
    drop(containerd);
    let root = bench.sweep.dir().join("root");

    // What is not blank, and what is there, stays.
    bench.ok(&["deactivate", &pool]);
    blank(&disk);
    Cmd::new("mkfs.ext4").args(["-q", "-F", &disk.path()]).run().checked().unwrap();
    let is_refused = |said: &[&str]| {
        let ran = bench.run(&["activate", "--all", "--wait", "1h"]);
        assert!(ran.code() == Some(5) && said.iter().all(|word| ran.stderr.contains(word)), "{said:?}: {ran}");
        assert!(!sys::dm_exists(&pool).unwrap() && set_aside(&root).is_empty(), "{said:?}");
    };
    is_refused(&["cannot be taken", "ext4"]);
    blank(&disk);
    let byte = format!("printf x | dd of={} bs=1 seek=70000 conv=notrunc,fsync", disk.path());
    Cmd::new("sh").args(["-c", &byte]).run().checked().unwrap();
    is_refused(&["it is not blank", "at byte 69632"]);
    blank(&disk);
    let json = Kept::new(DAEMON_JSON, &format!("{{\"storage-opts\": [\"dm.thinpooldev=/dev/mapper/{pool}\"]}}\n"));
    is_refused(&["Docker is told of it"]);
    drop(json);
    let json = Kept::new(DAEMON_JSON, "{\"storage-opts\": [");
    is_refused(&["it cannot be told whether Docker is to use it", DAEMON_JSON]);
    drop(json);
    let toml = Kept::new(CONTAINERD, "version = ");
    is_refused(&["it cannot be told whether containerd is to use it", CONTAINERD]);
    drop(toml);
    let containerd = Containerd::start(&bench);
    is_refused(&["containerd has databases open", "systemctl stop containerd"]);
    drop(containerd);

    every_step(&bench, &disk, &root);
    let containerd = Containerd::start(&bench);
    import(&containerd);
    runs(&containerd, "two");
    // With what another snapshotter has, containerd's own database stays.
    containerd.ctr(&["images", "import", "--snapshotter", "overlayfs"]).arg(&archive).run().checked().unwrap();
    drop(containerd);
    bench.ok(&["deactivate", &pool]);
    blank(&disk);
    let ran = bench.run(&["activate", &pool]).checked().unwrap();
    assert!(ran.stderr.contains("names snapshots of other snapshotters too"), "{ran}");
    assert!(root.join("io.containerd.metadata.v1.bolt/meta.db").exists());
    let containerd = Containerd::start(&bench);
    containerd.ctr(&["images", "rm", "--sync", IMAGE]).run().checked().unwrap();
    import(&containerd);
    runs(&containerd, "three");
    drop(containerd);

    // A pool that is not ephemeral is never made anew.
    bench.ok(&["destroy", &pool, "--yes", "--with-volumes"]);
    blank(&disk);
    bench.ok(&["create", &pool, "--data-device", &disk.path()]);
    bench.ok(&["deactivate", &pool]);
    blank(&disk);
    let ran = bench.run(&["activate", &pool]);
    assert_refused(&ran, 3, &["none of its devices is here"]);
    bench.ok(&["destroy", &pool, "--yes", "--keep-data"]);
}

/// Each step of making it anew dies, and is taken back or finished.
fn every_step(bench: &Bench, disk: &Disk, root: &Path) {
    let pool = bench.pool();
    let described = bench.ok(&["activate", &pool, "--dry-run"]);
    let is_step =
        |line: &&str| line.trim_start().split_once(". ").is_some_and(|(number, _)| number.parse::<usize>().is_ok());
    let steps = described.lines().filter(is_step).count();
    assert!(steps > 5 && described.contains("came back blank"), "{described}");
    let registry = bench.state.join("registry").join(format!("{pool}.toml"));
    let before = fs::read_to_string(&registry).unwrap();
    // In CI every other one, which dies and fails in turn.
    let each = if boot::full() { 1 } else { 2 };
    for (number, step) in (1..=steps).step_by(each).enumerate() {
        let fault = |point: &str, how: &str| {
            let cmd = bench.cmd(&["activate", "--all"]).env("DMPOOL_FAULT", format!("{step}:{point}:{how}"));
            (format!("{step}:{point}:{how}"), cmd.run())
        };
        let is_as_it_was = |case: &str| {
            assert!(!sys::dm_exists(&pool).unwrap() && set_aside(root).is_empty(), "{case}");
            assert_eq!(fs::read_to_string(&registry).unwrap(), before, "{case}");
        };
        let (case, ran) = match number % 2 {
            1 => fault("after", "fail"),
            _ => fault("after", "die"),
        };
        if number % 2 == 0 {
            assert!(bench.ok(&["undo"]).starts_with("taken back"), "{case}: {ran}");
        }
        is_as_it_was(&case);
    }
    let ran = bench.cmd(&["activate", "--all"]).env("DMPOOL_FAULT", format!("{}:before:die", steps - 1)).run();
    let again = bench.run(&["activate", "--all"]);
    assert!(again.stderr.contains("dmpool continue"), "{ran}{again}");
    bench.ok(&["continue"]);
    bench.ok(&["deactivate", &pool]);
    blank(disk);
    let ran = bench.run(&["activate", "--all"]);
    assert!(ran.ok() && ran.stderr.contains("came back blank: it is made anew"), "{ran}");
    assert!(sys::dm_exists(&pool).unwrap() && !set_aside(root).is_empty(), "{ran}");
    bench.ok(&["deactivate", &pool]);
    let ran = bench.run(&["activate", "--all"]);
    assert!(ran.ok() && !ran.stderr.contains("anew"), "{ran}");
}
