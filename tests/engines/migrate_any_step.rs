//! The migration of a Docker that runs dies at each of its steps, onto each kind of pool and onto overlay2: it is taken back, dies
//! there once more, and is finished; and nothing is left behind.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use lab::guest::boot;
use lab::guest::disk::{Kind, Mounted};
use lab::guest::docker::{Config, DAEMON_JSON, Docker, IMAGE};
use lab::guest::run::{Cmd, Ran};
use lab::guest::sys::{self, dmsetup};

use crate::migrate::{WAITS, by_scripts, entries, said_of, told_of, until_it_answers, without_backups};
use crate::support::Bench;
use crate::support::lvm::Group;

/// Stopping and starting Docker and its container has its own time.
const LONG: Duration = Duration::from_secs(240);
/// What of `docker inspect` no migration changes, a larger base device's either.
const SAME: [&str; 9] = [
    "/Id",
    "/Created",
    "/Image",
    "/Name",
    "/Config",
    "/HostConfig",
    "/Mounts",
    "/State/Status",
    "/GraphDriver/Data/DeviceId",
];
/// What a change of the driver changes neither.
const SAME_IN_OVERLAY2: [&str; 8] =
    ["/Id", "/Created", "/Image", "/Name", "/Config", "/HostConfig", "/Mounts", "/State/Status"];
/// Each target's steps go in so many tests, each of them far from the limit of a test also on a slow machine.
const PARTS: usize = 5;
const CONTAINERS: [&str; 2] = ["web", "kept"];

struct Running {
    bench: Bench,
    disk: Mounted,
    docker: Docker,
    ways: [String; 2],
    /// What the names of the pools begin with that are made.
    pools: String,
    /// What counts of a container.
    of_container: fn(&Docker, &str) -> String,
    contents: String,
}

impl Running {
    fn new(of_container: fn(&Docker, &str) -> String) -> Self {
        if !boot::full() {
            boot::skip("minutes: with --full");
        }
        boot::time_limit(Duration::from_secs(900));
        let bench = Bench::with_faults();
        let disk = Mounted::format(Kind::Xfs, &boot::scratch_disks()[0], &bench.sweep.path("docker")).unwrap();
        let bench = bench.at(disk.dir());
        let sizes = ["dm.basesize=500M", "dm.loopdatasize=2G", "dm.loopmetadatasize=16M"];
        let config = sizes.iter().fold(Config::new(disk.dir().join("root")), |config, option| config.option(option));
        let docker = Docker::start(config).unwrap();
        docker.busybox(&[]).unwrap();
        docker.cmd(["network", "create", "--subnet", "10.77.0.0/24", "between"]).run().checked().unwrap();
        let run = ["run", "-d", "--name", "web", "--stop-timeout", "5", "--network", "between"];
        let volumes = ["--volume", "data:/data", "--volume", "/nameless", IMAGE];
        docker.cmd([&run[..], &volumes, &WAITS].concat()).run().checked().unwrap();
        assert!(
            docker
                .exec("web", &["sh", "-c", "echo by hand | tee /by-hand /data/own >/nameless/other; rm /bin/df; sync"])
                .ok()
        );
        docker.cmd(["commit", "web", "dmpool-test-two:1"]).run().checked().unwrap();
        let kept = [
            "run",
            "--name",
            "kept",
            "--network",
            "none",
            "dmpool-test-two:1",
            "sh",
            "-c",
            "echo precious > /kept; exit 3",
        ];
        assert_eq!(docker.cmd(kept).run().code(), Some(3));
        let ways = by_scripts(&bench);
        without_backups();
        let pools = bench.sweep.name("to");
        let mut running = Self { bench, disk, docker, ways, pools, of_container, contents: String::new() };
        running.contents = running.contents();
        running
    }

    /// What its users have: images, containers and all in them, volumes, networks.
    fn contents(&self) -> String {
        let said = |args: &[&str]| self.docker.cmd(args.iter().copied()).run().checked().unwrap().stdout;
        let of_volumes = "find . -type f ! -name metadata.db | sort | xargs sha256sum";
        let of_volumes = Cmd::new("sh").args(["-c", of_volumes]).dir(self.docker.root().join("volumes"));
        [
            said(&["images", "-a", "--no-trunc", "--format", "{{.ID}} {{.Repository}}:{{.Tag}}"]),
            said(&["network", "ls", "--no-trunc", "--filter", "type=custom"]),
            said(&["volume", "ls"]),
            of_volumes.run().checked().unwrap().stdout,
            CONTAINERS.map(|name| (self.of_container)(&self.docker, name)).join("\n"),
        ]
        .join("\n")
    }

    /// The ids of the volumes that the pool has.
    fn ids(&self) -> Vec<String> {
        let pool = self.docker.pool().unwrap();
        let table = dmsetup(["table", &pool]).run().checked().unwrap().stdout;
        let metadata = format!("/dev/block/{}", table.split(' ').nth(3).unwrap());
        dmsetup(["message", &pool, "0", "reserve_metadata_snap"]).run().checked().unwrap();
        let dumped = Cmd::new("thin_dump").args(["-m", &metadata]).run();
        dmsetup(["message", &pool, "0", "release_metadata_snap"]).run().checked().unwrap();
        let dumped = dumped.checked().unwrap().stdout;
        let ids = dumped.split("dev_id=\"").skip(1).map(|rest| rest.split('"').next().unwrap().to_owned());
        ids.collect()
    }

    /// What no migration may leave more of, with Docker running: mounts, holds, journals, what brings pools up.
    fn around(&self) -> String {
        let root = self.docker.root();
        let of_a_driver =
            |point: &Path| ["devicemapper/mnt", "overlay2"].iter().any(|at| point.starts_with(root.join(at)));
        let mounts = sys::mounts().unwrap().into_iter().map(|mount| mount.point);
        let mounts = mounts.filter(|point| point.starts_with(self.disk.dir()));
        let (of_containers, mut mounts): (Vec<_>, Vec<_>) = mounts.partition(|point| of_a_driver(point));
        mounts.sort();
        let devices = sys::dm_names().unwrap().into_iter().filter(|name| !self.is_of_a_pool(name));
        let (of_docker, devices): (Vec<_>, Vec<_>) = devices.partition(|name| name.starts_with("docker-"));
        let on_devices = of_containers.iter().filter(|point| point.starts_with(root.join("devicemapper"))).count();
        assert_eq!(of_docker.len(), on_devices, "{of_docker:?}, {of_containers:?}");
        let there = |path: &Path| if path.is_dir() { entries(path) } else { Vec::new() };
        let [holds, journals] = ["hold", "journal"].map(|name| there(&self.bench.state.join(name)));
        let folders = ["/etc/systemd/system", "/run/systemd/system", "/tmp", "/var/tmp", "/etc/docker"];
        let mut folders = folders.map(|path| there(Path::new(path)));
        // A dockerd whose containerd is slow to answer has it write down its stacks, and starts another.
        folders.iter_mut().for_each(|names| names.retain(|name| !name.ends_with(".stacks.log")));
        // Every start of a container gives its interface another name.
        let interfaces = entries(Path::new("/sys/class/net"));
        let interfaces: Vec<_> =
            interfaces.iter().map(|name| if name.starts_with("veth") { "veth" } else { name.as_str() }).collect();
        let own = Cmd::new("find").arg(root).args(["-xdev", "-maxdepth", "3", "-name", "*dmpool*"]);
        let own = own.run().checked().unwrap().stdout;
        let containers = of_containers.len();
        format!("{containers}\n{mounts:?}\n{devices:?}\n{holds:?}\n{journals:?}\n{folders:?}\n{interfaces:?}\n{own}")
    }

    fn is_of_a_pool(&self, name: &str) -> bool {
        is_below(name, &self.bench.sweep.name("")) || name.starts_with("docker-") && name.ends_with("-pool")
    }

    /// What must be the same again when a migration is taken back.
    fn picture(&self, target: Option<&Path>) -> String {
        let home = self.docker.root().join("devicemapper");
        let own = if home.join("devicemapper").is_dir() { entries(&home.join("devicemapper")) } else { Vec::new() };
        let loops: Vec<_> = sys::loops().unwrap().into_iter().map(|found| found.file).collect();
        let told = fs::read_to_string(DAEMON_JSON).unwrap();
        let registry = self.bench.state.join("registry");
        let registry = if registry.is_dir() { entries(&registry) } else { Vec::new() };
        // What was on it, as far as anything that brings devices up at boot would look.
        let on = target.map(|target| Cmd::new("wipefs").arg("-p").arg(target).run().checked().unwrap().stdout);
        let init = entries(Path::new("/etc/init.d"));
        let volumes = Cmd::new("lvs").args(["--noheadings", "-o", "lv_full_name"]).run().stdout;
        let mut devices = sys::dm_names().unwrap();
        devices.sort();
        format!(
            "{}\n{:?}\n{:?}\n{own:?}\n{loops:?}\n{told}\n{registry:?}\n{init:?}\n{on:?}\n{volumes}\n{devices:?}\n{:?}",
            self.around(),
            entries(self.docker.root()),
            entries(&home),
            self.ids(),
        )
    }

    fn dmpool(&self, args: &[&str], fault: &str) -> Ran {
        self.bench.cmd(args).env("DMPOOL_FAULT", fault).limit(LONG).run()
    }

    /// Every fifth step, from the first one on that is named; `way` is what is asked for when so many migrations have ended, and the
    /// device that is taken.
    fn dies_at_steps_from(&self, first: usize, way: impl Fn(usize) -> (Vec<String>, Option<String>)) {
        let (kept, ids) = (self.around(), self.ids());
        for (ended, step) in (first..).step_by(PARTS).enumerate() {
            let (words, target) = way(ended);
            if !self.dies_at(step, &words, target.as_deref().map(Path::new)) {
                break;
            }
            assert_eq!(self.ids(), ids, "{words:?}");
            self.takes_the_old_away(ended);
            assert_same(&self.around(), &kept, &format!("{words:?}"));
        }
        Cmd::new(&self.ways[0]).run().checked().unwrap();
        let registry = self.bench.state.join("registry");
        for entry in if registry.is_dir() { entries(&registry) } else { Vec::new() } {
            self.bench.ok(&["destroy", entry.trim_end_matches(".toml"), "--with-volumes", "--yes"]);
        }
    }

    /// Dies after a step, is taken back, dies before it, is finished. Returns whether there is such a step.
    fn dies_at(&self, step: usize, words: &[String], target: Option<&Path>) -> bool {
        let began = Instant::now();
        let stop = ["--stop-command", &self.ways[0], "--start-command", &self.ways[1], "--yes"];
        let args: Vec<_> = std::iter::once("migrate").chain(words.iter().map(String::as_str)).chain(stop).collect();
        let steps = steps_of(&self.bench.ok(&[&args[..], &["--dry-run"]].concat()));
        assert!(steps > 9, "{steps} steps");
        if step > steps {
            return false;
        }
        let before = self.picture(target);
        let case = format!("step {step} of {steps}, {words:?}");
        let died = self.dmpool(&args, &format!("{step}:after:die"));
        assert_eq!(died.code(), None, "{case}: {died}");
        let undone = self.dmpool(&["undo"], "");
        if step == steps {
            // Its users have had it.
            assert!(!undone.ok() && undone.stderr.contains("dmpool continue"), "{case}: {undone}");
        } else {
            assert!(undone.ok(), "{case}: {undone}");
            without_backups();
            assert_same(&self.picture(target), &before, &case);
            assert_same(&self.contents(), &self.contents, &case);
            let died = self.dmpool(&args, &format!("{step}:before:die"));
            assert_eq!(died.code(), None, "{case}: {died}");
        }
        let finished = self.dmpool(&["continue", "--yes"], "");
        assert!(finished.ok(), "{case}: {finished}");
        without_backups();
        assert_same(&self.contents(), &self.contents, &case);
        println!("{case}: {} s", began.elapsed().as_secs());
        true
    }

    /// Only what was made in place of what was there before is there.
    fn takes_the_old_away(&self, ended: usize) {
        let driver = self.docker.storage_value("Storage Driver").unwrap();
        let pool = self.docker.pool().unwrap_or(driver);
        let former = format!("{}-{}", self.pools, ended.wrapping_sub(1));
        if sys::dm_exists(&former).unwrap() {
            self.bench.ok(&["destroy", &former, "--with-volumes", "--yes"]);
        } else {
            self.bench.ok(&["migrate", "--delete-old", "--yes"]);
        }
        let devices = sys::dm_names().unwrap();
        let others: Vec<_> =
            devices.iter().filter(|name| is_below(name, &self.pools) && !is_below(name, &pool)).collect();
        assert!(others.is_empty(), "{others:?} beside {pool}");
        let loops = sys::loops().unwrap().len();
        assert_eq!(loops, if pool.starts_with("docker-") { 2 } else { 0 }, "{:?}", sys::loops());
    }
}

#[track_caller]
fn assert_same(is: &str, was: &str, case: &str) {
    let only_in = |of: &str, other: &str| {
        let lines = of.lines().filter(|line| other.lines().all(|there| there != *line));
        lines.map(str::to_owned).collect::<Vec<_>>().join("\n")
    };
    assert!(is == was, "{case}:\nis\n{}\nwas\n{}", only_in(is, was), only_in(was, is));
}

/// Whether a device is of what has a name that begins so, also where LVM has made it: that doubles each dash of a name.
fn is_below(device: &str, name: &str) -> bool {
    device.starts_with(name) || device.contains(&format!("-{}", name.replace('-', "--")))
}

fn steps_of(plan: &str) -> usize {
    let number = |line: &str| line.trim_start().split_once(". ").and_then(|(number, _)| number.parse::<usize>().ok());
    plan.lines().filter_map(number).max().unwrap_or_else(|| panic!("{plan}"))
}

fn words<const N: usize>(words: [&str; N]) -> Vec<String> {
    words.map(str::to_owned).into()
}

fn on_a_pool(docker: &Docker, name: &str) -> String {
    told_of(docker, name, &SAME)
}

/// Without what the drivers themselves differ in: what counts as a change, and the order of directories.
fn on_any_driver(docker: &Docker, name: &str) -> String {
    let exported = docker.root().with_file_name("exported");
    fs::create_dir(&exported).unwrap();
    let list = "tar -x && find . -printf '%p %y %m %U %G %l\\n' | sort && find . -type f -print0 | sort -z | xargs -0 sha256sum";
    let line = format!("set -o pipefail; docker export {name} | (cd {}; {list})", exported.display());
    let listed = Cmd::new("bash").args(["-c", &line]).run().checked().unwrap().stdout;
    fs::remove_dir_all(&exported).unwrap();
    format!("{}\n{listed}", said_of(name, &SAME_IN_OVERLAY2))
}

fn onto_loop_files(first: usize) {
    let running = Running::new(on_a_pool);
    running.dies_at_steps_from(first, |ended| {
        let [size, block] = if ended % 2 == 0 { ["3G", "512K"] } else { ["2G", "64K"] };
        (words(["--data-size", size, "--block-size", block]), None)
    });
}

fn onto_a_larger_base_device(first: usize) {
    let running = Running::new(on_a_pool);
    running.dies_at_steps_from(first, |ended| (words(["--base-size", &format!("{}M", 532 + 32 * ended)]), None));
}

fn onto_a_disk(first: usize) {
    let running = Running::new(on_a_pool);
    let disks = boot::scratch_disks();
    running.dies_at_steps_from(first, |ended| {
        let disk = disks[1 + ended % 2].to_str().unwrap();
        let name = format!("{}-{ended}", running.pools);
        (words(["--name", &name, "--data-device", disk, "--wipe"]), Some(disk.to_owned()))
    });
}

fn onto_logical_volumes(first: usize) {
    let running = Running::new(on_a_pool);
    let group = Group::on(&running.bench, "vg", &boot::scratch_disks()[1]);
    running.dies_at_steps_from(first, |ended| {
        let name = format!("{}-{ended}", running.pools);
        (words(["--name", &name, "--vg", &group.name, "--data-size", "2G"]), None)
    });
}

/// There is no way back: each time what there was at first is put back by hand.
fn onto_overlay2(first: usize) {
    let running = Running::new(on_any_driver);
    let root = running.docker.root().to_owned();
    let [saved, told] = [root.with_file_name("saved"), PathBuf::from(DAEMON_JSON)];
    let stop = || drop(Cmd::new(&running.ways[0]).run().checked().unwrap());
    let copy = |from: &Path, to: &Path| {
        Cmd::new("cp").args(["-a", "--sparse=always"]).arg(from).arg(to).run().checked().unwrap();
    };
    let start = || {
        Cmd::new(&running.ways[1]).run().checked().unwrap();
        until_it_answers();
        running.docker.cmd(["start", "web"]).run().checked().unwrap();
    };
    let daemon_json = fs::read(&told).unwrap();
    stop();
    copy(&root, &saved);
    start();
    let kept = running.around();
    for step in (first..).step_by(PARTS) {
        if !running.dies_at(step, &words(["--to-driver", "overlay2"]), None) {
            break;
        }
        running.takes_the_old_away(0);
        assert_same(&running.around(), &kept, &format!("step {step}"));
        stop();
        fs::remove_dir_all(&root).unwrap();
        copy(&saved, &root);
        fs::write(&told, &daemon_json).unwrap();
        start();
    }
    stop();
}

macro_rules! in_parts {
    ($($target:ident)*) => { $(mod $target {
        #[test]
        fn part_1() {
            super::$target(1);
        }

        #[test]
        fn part_2() {
            super::$target(2);
        }

        #[test]
        fn part_3() {
            super::$target(3);
        }

        #[test]
        fn part_4() {
            super::$target(4);
        }

        #[test]
        fn part_5() {
            super::$target(super::PARTS);
        }
    })* };
}

in_parts!(onto_loop_files onto_a_larger_base_device onto_a_disk onto_logical_volumes onto_overlay2);
