//! Docker and containerd on pools on real disks: grown under a container that writes, and found again after a boot in which
//! the disks have other names.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use lab::guest::boot::{self, Disks};
use lab::guest::disk::{Kind, Mounted};
use lab::guest::docker::{Config, DAEMON_JSON, Docker, IMAGE, find};
use lab::guest::run::Cmd;
use lab::guest::sys;
use lab::guest::writer::{Plan, Tally};

use crate::handover::{Containerd, image, udev_option};
use crate::host::{G, Host, assert_refused};
use crate::support::Bench;
use crate::support::health::{Said, paste};

/// What outlives a boot: registry and journals, and where Docker's root is mounted.
const STATE: &str = "/var/tmp/dmpool-test-swapped";
const MOUNT: &str = "/var/tmp/dmpool-test-swapped/docker";

/// How many blocks the containers write in turn.
const SLOTS: u64 = 256;

/// The third disk, with Docker's root on it.
fn root_disk() -> Mounted {
    let disk = boot::scratch_disk(2).unwrap();
    match boot::phase() {
        0 => Mounted::format(Kind::Xfs, &disk, Path::new(MOUNT)).unwrap(),
        _ => Mounted::mount(&disk, Path::new(MOUNT), "defaults").unwrap(),
    }
}

/// Writes Docker's configuration, with these storage options.
fn configure(disk: &Mounted, options: &[&str]) {
    fs::create_dir_all(disk.dir().join("root")).unwrap();
    fs::create_dir_all("/etc/docker").unwrap();
    let options = [&[udev_option(), "dm.basesize=1G"], options].concat();
    let json = serde_json::json!({
        "data-root": disk.dir().join("root"), "iptables": false, "bridge": "none",
        "storage-driver": "devicemapper", "storage-opts": options,
    });
    fs::write(DAEMON_JSON, json.to_string()).unwrap();
}

/// Two of the guest's disks by the names that stay.
fn disks() -> [String; 2] {
    [0, 1].map(|number| boot::by_id(number).to_str().unwrap().to_owned())
}

/// Makes what is to be found again: an image, a container with a file, and one that has written all through `grow`.
fn use_docker(host: &Host, grow: impl FnOnce(&dyn Fn())) {
    host.docker.busybox(&[&find("lab-writer").unwrap()]).unwrap();
    host.docker.run_detached(&["--name", "kept"], &["sh", "-c", "echo here >/data/file; sync"]).unwrap();
    host.docker.cmd(["wait", "kept"]).run().checked().unwrap();
    let writer = host.writer("writer", SLOTS);
    grow(&|| drop(writer.writes(5)));
    writer.stop_and_verify(host);
    boot::remember("has", &has(host));
}

/// Images and containers, by their ids.
fn has(host: &Host) -> String {
    let list = |what: &[&str]| host.docker.cmd(what).run().checked().unwrap().stdout;
    format!("{} {}", list(&["images", "-q", "--no-trunc"]), list(&["ps", "-aq", "--no-trunc"]))
}

/// All of that is there, with what was written, and new containers can be made.
#[track_caller]
fn has_everything(host: &Host) {
    assert_eq!(Some(has(host)), boot::recall("has"));
    let copied = host.bench.sweep.path("copied");
    host.docker.cmd(["cp", "kept:/data/file"]).arg(&copied).run().checked().unwrap();
    assert_eq!(fs::read_to_string(copied).unwrap(), "here\n");
    let writer = host.writer_from_before("writer", SLOTS);
    writer.verify(host, &writer.tally());
    let ran = host.docker.cmd(["run", "--rm", "--network", "none", IMAGE, "echo", "new"]).run().checked().unwrap();
    assert_eq!(ran.stdout, "new\n");
}

#[test]
fn docker_on_disks_of_dmpools_has_everything_when_they_have_other_names() {
    let bench = Bench::new().at(Path::new(STATE));
    let (pool, [first, second], disk) = (bench.pool(), disks(), root_disk());
    if boot::phase() == 0 {
        configure(&disk, &[]);
        bench.ok(&["create", &pool, "--data-device", &first, "--data-size", "1G", "--for", "docker"]);
        let mut host = Host::told(bench, disk);
        assert_eq!(host.pool(), pool);
        use_docker(&host, |writes| {
            for args in [["+1G"].as_slice(), &["--add-device", &second], &["max"]] {
                let before = host.size();
                host.bench.ok(&[["grow", &pool].as_slice(), args].concat());
                writes();
                assert!(host.size() > before || args == ["max"], "{args:?}");
            }
        });
        assert!(host.size() > 15 * G);
        // Its volumes are Docker's, whether it runs or not.
        for _ in ["running", "stopped"] {
            let thin = host.bench.run(&["thin", "create", &pool, "web", "--size", "1G"]);
            assert_refused(&thin, 3, &["Docker uses the pool", MOUNT]);
            host.docker.stop().unwrap();
        }
        boot::reboot_with(Disks::in_order(&[1, 0, 2]));
    }
    bench.ok(&["activate", "--all"]);
    let host = Host::told(bench, disk);
    assert_eq!(host.pool(), pool);
    has_everything(&host);
    host.assert_parity();
    let Host { docker, bench, .. } = host;
    drop(docker);
    bench.ok(&["destroy", &pool, "--yes", "--with-volumes"]);
}

#[test]
fn containerd_on_disks_of_dmpools_has_everything_when_they_have_other_names() {
    let dir = Path::new(STATE);
    let bench = Bench::new().at(dir);
    let (pool, [first, second]) = (bench.pool(), disks());
    let (report, one) = (dir.join("reports/writer.json"), "docker.io/dmpool-test/bb:1");
    let run = ["run", "--snapshotter", "devmapper"];
    let tally = || serde_json::from_slice::<Tally>(&fs::read(&report).ok()?).ok();
    let writes = |more: u64| {
        let goal = tally().map_or(0, |tally| tally.ops) + more;
        let until = std::time::Instant::now() + std::time::Duration::from_secs(120);
        while tally().is_none_or(|tally| tally.ops < goal) {
            assert!(std::time::Instant::now() < until, "the writer does not go on: {:?}", tally());
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    };
    if boot::phase() == 0 {
        fs::create_dir_all(report.parent().unwrap()).unwrap();
        fs::create_dir_all("/etc/containerd").unwrap();
        let text = format!(
            "version = 2\nroot = \"{0}/root\"\nstate = \"/run/dmpool-test-containerd\"\n\
             disabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\naddress = \"/run/dmpool-test-containerd.sock\"\n\
             [plugins.\"io.containerd.snapshotter.v1.devmapper\"]\nbase_image_size = \"128MB\"\n",
            dir.display()
        );
        fs::write("/etc/containerd/config.toml", text).unwrap();
        bench.ok(&["create", &pool, "--data-device", &first, "--data-size", "1G", "--for", "containerd"]);
        let containerd = Containerd::at(Path::new("/run/dmpool-test-containerd.sock"), &dir.join("log"), &pool);
        let archive = image(bench.sweep.dir(), &["busybox", "lab-writer"]);
        containerd.ctr(&["images", "import", "--snapshotter", "devmapper"]).arg(&archive).run().checked().unwrap();
        let said = ["/bin/busybox", "sh", "-c", "/bin/busybox cat /file; echo here >/file; /bin/busybox sync"];
        containerd.ctr(&run).args([one, "kept"]).args(said).run().checked().unwrap();
        let mount = format!("type=bind,src={},dst=/reports,options=rbind:rw", report.parent().unwrap().display());
        let slots = SLOTS.to_string();
        let writer = ["/bin/lab-writer", "/written", "--slots", &slots, "--report", "/reports/writer.json"];
        containerd.ctr(&run).args(["--detach", "--mount", &mount, one, "writer"]).args(writer).run().checked().unwrap();
        writes(5);
        for args in [["+1G"].as_slice(), &["--add-device", &second], &["max"]] {
            bench.ok(&[["grow", &pool].as_slice(), args].concat());
            writes(5);
        }
        assert!(bench.number("/pool/data/total") > 15 * G);
        let thin = bench.run(&["thin", "create", &pool, "web", "--size", "1G"]);
        assert_refused(&thin, 3, &["containerd uses the pool", "/etc/containerd/config.toml"]);
        containerd.ctr(&["task", "kill", "--signal", "SIGTERM", "writer"]).run().checked().unwrap();
        while containerd.ctr(&["task", "ls"]).run().checked().unwrap().stdout.contains("RUNNING") {
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        assert_eq!(tally().unwrap().errors, 0);
        boot::reboot_with(Disks::in_order(&[1, 0, 2]));
    }
    bench.ok(&["activate", "--all"]);
    let containerd = Containerd::at(Path::new("/run/dmpool-test-containerd.sock"), &dir.join("log"), &pool);
    let ctr = |args: &[&str]| containerd.ctr(args).run().checked().unwrap().stdout;
    let containers = ctr(&["containers", "ls"]);
    assert!(containers.contains("kept") && containers.contains("writer"), "{containers}");
    assert!(ctr(&["images", "ls"]).contains(one));
    assert_eq!(ctr(&["task", "start", "kept"]), "here\n");
    let status: serde_json::Value = serde_json::from_str(&bench.json()).unwrap();
    let devices = status["pool"]["containerd_devices"].as_array().unwrap();
    let of_writer = devices.iter().find(|device| device["owner"]["container"] == "writer").unwrap();
    let device = Path::new("/dev/mapper").join(of_writer["name"].as_str().unwrap());
    let mounted = Mounted::mount(&device, &bench.sweep.path("writer"), "ro").unwrap();
    let checked = tally().unwrap().verify(&Plan { slots: SLOTS, ..Plan::new(mounted.dir().join("written")) }).unwrap();
    assert!(checked > 0, "nothing was acknowledged");
    mounted.unmount().unwrap();
    containerd.ctr(&run).args(["--rm", one, "new", "/bin/busybox", "true"]).run().checked().unwrap();
    drop(containerd);
    bench.ok(&["destroy", &pool, "--yes", "--with-volumes"]);
}

/// Changes a disk's partitions; also of one that is in use.
fn partition(disk: usize, table: &str, options: &[&str]) {
    let disk = boot::scratch_disk(disk).unwrap();
    Cmd::new("sfdisk").arg("--quiet").args(options).arg(&disk).stdin(table).run().checked().unwrap();
    Cmd::new("partx").arg("--update").arg(&disk).run().checked().unwrap();
    sys::settle();
}

/// The partition under Docker's data is made longer, and the pool with it.
fn enlarged(host: &Host) {
    partition(1, "size=4G\n", &["--partno", "1", "--no-reread", "--force"]);
    host.bench.ok(&["grow", "docker", "max"]);
    assert_eq!(host.size(), 4 * G);
}

/// Docker does not start: what it reads is another disk.
#[track_caller]
fn does_not_start(disk: &Mounted) {
    let before = fs::read(DAEMON_JSON).ok();
    let started = Docker::start_as_told(Config::new(disk.dir().join("root")), before);
    assert!(started.is_err(), "Docker started on another disk");
}

#[test]
fn docker_on_a_link_to_a_disk_is_told_that_another_disk_may_have_its_name() {
    let bench = Bench::new().at(Path::new(STATE));
    let disk = root_disk();
    let link = disk.dir().join("root/devicemapper/devicemapper/data");
    let relink = format!("ln -sfn {}-part1 {}", boot::by_id(1).display(), link.display());
    if boot::phase() == 0 {
        configure(&disk, &["dm.loopdatasize=0"]);
        (0..2).for_each(|number| partition(number, "label: gpt\nsize=3G\n", &[]));
        fs::create_dir_all(link.parent().unwrap()).unwrap();
        // As people find it in lsblk.
        symlink(format!("{}1", boot::scratch_disk(1).unwrap().display()), &link).unwrap();
        let mut host = Host::told(bench, disk);
        use_docker(&host, |writes| {
            enlarged(&host);
            writes();
        });
        let told = Said::about(&host.bench, "docker", &[]);
        assert_eq!(told.other_way("symlinked_device", "critical"), relink);
        host.docker.stop().unwrap();
        boot::reboot_with(Disks::in_order(&[1, 0, 2]));
    }
    // The name is the other disk's now, and nothing that is offered would make it Docker's for good.
    let told = Said::about(&bench, "docker", &[]);
    assert!(told.sentence("symlinked_device", "critical").contains("since a boot"));
    assert!(told.by_hand("symlinked_device", "critical").contains("find out which disk"));
    assert!(!bench.run(&["health", "docker"]).stdout.contains("virtio-lab-scratch"));
    does_not_start(&disk);
    paste(&relink);
    let host = Host::told(bench, disk);
    has_everything(&host);
    assert_eq!(host.size(), 4 * G);
    Said::about(&host.bench, "docker", &[]).without("symlinked_device");
}

#[test]
fn docker_on_devices_of_its_own_is_told_the_names_by_which_it_finds_them_again() {
    let bench = Bench::new().at(Path::new(STATE));
    let disk = root_disk();
    if boot::phase() == 0 {
        let [metadata, data] = [0, 1].map(|number| boot::scratch_disk(number).unwrap());
        partition(1, "label: gpt\nsize=3G\n", &[]);
        let options = [format!("dm.datadev={}1", data.display()), format!("dm.metadatadev={}", metadata.display())];
        configure(&disk, &options.each_ref().map(String::as_str));
        let mut host = Host::told(bench, disk);
        use_docker(&host, |writes| {
            enlarged(&host);
            writes();
        });
        // Each way out is followed to the letter.
        for _ in &options {
            let way = Said::about(&host.bench, "docker", &[]).by_hand("unstable_name", "critical");
            let (option, path) =
                way.strip_prefix("write ").and_then(|way| way.split_once(" in the place of ")).unwrap();
            let (key, path) = (option.split_once('=').unwrap().0, path.split(' ').next().unwrap());
            let text = fs::read_to_string(DAEMON_JSON).unwrap();
            fs::write(DAEMON_JSON, text.replace(&format!("{key}={path}"), option)).unwrap();
        }
        host.docker.stop().unwrap();
        host.docker.up().unwrap();
        Said::about(&host.bench, "docker", &[]).without("unstable_name");
        host.docker.stop().unwrap();
        boot::reboot_with(Disks::in_order(&[1, 0, 2]));
    }
    let host = Host::told(bench, disk);
    has_everything(&host);
}
