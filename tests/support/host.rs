//! A machine with Docker on a pool of its own, a dmpool beside it, and a container that writes.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use lab::guest::boot;
use lab::guest::disk::{Kind, Mounted};
use lab::guest::docker::{Config, Docker, IMAGE, find};
use lab::guest::run::Ran;
use lab::guest::writer::{Plan, Tally};

use crate::support::Bench;

pub const G: u64 = 1 << 30;

/// Where the file system with Docker's root is mounted: the same in every boot of a test, since Docker writes paths down.
const MOUNT: &str = "/var/tmp/dmpool-test-docker";

/// How long the writer in a container may take for a few writes on a slow machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// Which of the guest's disks Docker's root is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disk {
    /// 400 GB: Docker's 100 GB pool fits, and one of 200 GB does.
    Large,
    /// 8 GiB: Docker's pool promises more than there is from the beginning.
    Small,
}

/// Docker, the disk under it, and dmpool. Taken down in this order.
pub struct Host {
    pub docker: Docker,
    disk: Mounted,
    pub bench: Bench,
}

impl Host {
    /// Docker with these storage options on a new file system, with the image [`lab::guest::docker::IMAGE`].
    pub fn new(bench: Bench, disk: Disk, options: &[&str]) -> Self {
        let disk = Mounted::format(Kind::Xfs, &device(disk), Path::new(MOUNT)).unwrap();
        let host = Self::start(bench, disk, options);
        host.docker.busybox(&[&find("lab-writer").unwrap()]).unwrap();
        host
    }

    /// The same with something done to Docker's root, which is empty, before the daemon starts.
    pub fn prepared(bench: Bench, disk: Disk, options: &[&str], prepare: impl FnOnce(&Path)) -> Self {
        let mounted = Mounted::format(Kind::Xfs, &device(disk), Path::new(MOUNT)).unwrap();
        let root = mounted.dir().join("root");
        fs::create_dir_all(&root).unwrap();
        prepare(&root);
        let host = Self::start(bench, mounted, options);
        host.docker.busybox(&[&find("lab-writer").unwrap()]).unwrap();
        host
    }

    /// One that is there already.
    pub fn of(docker: Docker, disk: Mounted, bench: Bench) -> Self {
        Self { docker, disk, bench }
    }

    /// The same machine after a reboot.
    pub fn again(bench: Bench, disk: Disk, options: &[&str]) -> Self {
        let disk = Mounted::mount(&device(disk), Path::new(MOUNT), "defaults").unwrap();
        Self::start(bench, disk, options)
    }

    /// Docker by the configuration that the test has written, which names `root` on the disk as its root. Taken down, it
    /// leaves no configuration.
    pub fn told(bench: Bench, disk: Mounted) -> Self {
        let docker = Docker::start_as_told(Config::new(disk.dir().join("root")), None).unwrap();
        Self { docker, disk, bench }
    }

    fn start(bench: Bench, disk: Mounted, options: &[&str]) -> Self {
        // sd_booted(3): the same daemon by its unit and socket where the guest has systemd.
        let systemd = Path::new("/run/systemd/system").exists();
        let config = Config { systemd, ..Config::new(disk.dir().join("root")) };
        let config = options.iter().fold(config, |config, option| config.option(option));
        Self { docker: Docker::start(config).unwrap(), disk, bench }
    }

    /// The name of Docker's pool.
    pub fn pool(&self) -> String {
        self.docker.pool().unwrap()
    }

    /// A loop file of Docker's pool: `data` or `metadata`.
    pub fn file(&self, which: &str) -> PathBuf {
        self.docker.root().join("devicemapper/devicemapper").join(which)
    }

    /// What `dmpool status docker --format docker` prints.
    pub fn block(&self) -> String {
        self.bench.ok(&["status", "docker", "--format", "docker"])
    }

    /// A value of `dmpool status docker --format json`.
    pub fn json(&self, pointer: &str) -> serde_json::Value {
        let text = self.bench.ok(&["status", "docker", "--format", "json"]);
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        json.pointer(pointer).cloned().unwrap_or_else(|| panic!("no {pointer} in {json:#}"))
    }

    /// A number in it.
    pub fn number(&self, pointer: &str) -> u64 {
        self.json(pointer).as_u64().unwrap_or_else(|| panic!("{pointer} is no number"))
    }

    /// How large Docker's pool is: its data in bytes.
    pub fn size(&self) -> u64 {
        self.number("/pool/data/total")
    }

    /// Fails the test unless Docker and dmpool print the same block. Docker is asked before and after: it goes on
    /// working for a moment after a command has come back.
    #[track_caller]
    pub fn assert_parity(&self) {
        let ours = |()| (self.docker.storage_block().unwrap(), self.block(), self.docker.storage_block().unwrap());
        let until = Instant::now() + PATIENCE;
        loop {
            let (before, block, after) = ours(());
            if before == after {
                assert_eq!(block, after, "dmpool's block is on the left, docker info's on the right");
                return;
            }
            assert!(Instant::now() < until, "docker info never came to rest:\n{before}\n{after}");
        }
    }

    /// Starts a container that writes and syncs `slots` blocks in turn, for ever, and waits until it has begun.
    pub fn writer(&self, name: &str, slots: u64) -> ContainerWriter {
        let writer = self.idle_writer(name, slots);
        writer.start(self);
        writer
    }

    /// Such a container that was made before a reboot, and does not run.
    pub fn writer_from_before(&self, name: &str, slots: u64) -> ContainerWriter {
        ContainerWriter { name: name.to_owned(), reports: self.disk.dir().join("reports"), slots }
    }

    /// Makes such a container without starting it: a pool that is nearly full has no room for new ones.
    pub fn idle_writer(&self, name: &str, slots: u64) -> ContainerWriter {
        let reports = self.disk.dir().join("reports");
        fs::create_dir_all(&reports).unwrap();
        let (volume, report) = (format!("{}:/reports", reports.display()), format!("/reports/{name}.json"));
        let create = ["create", "--network", "none", "-v", &volume, "--name", name, IMAGE];
        let slot = slots.to_string();
        let command = ["lab-writer", "/data/written", "--slots", &slot, "--report", &report];
        self.docker.cmd(create).args(command).run().checked().unwrap();
        ContainerWriter { name: name.to_owned(), reports, slots }
    }
}

/// The disk's device.
pub fn device(disk: Disk) -> PathBuf {
    let disks = boot::scratch_disks();
    disks[if disk == Disk::Large { 2 } else { 0 }].clone()
}

/// A container that writes and syncs.
pub struct ContainerWriter {
    name: String,
    reports: PathBuf,
    slots: u64,
}

impl ContainerWriter {
    /// Starts it, and waits until it has written.
    #[track_caller]
    pub fn start(&self, host: &Host) {
        let _ = fs::remove_file(self.report_file());
        host.docker.cmd(["start", &self.name]).run().checked().unwrap();
        self.writes(5);
    }

    /// What it last reported, if it has.
    fn report(&self) -> Option<Tally> {
        serde_json::from_slice(&fs::read(self.report_file()).ok()?).ok()
    }

    fn report_file(&self) -> PathBuf {
        self.reports.join(format!("{}.json", self.name))
    }

    /// What it last reported.
    pub fn tally(&self) -> Tally {
        self.report().unwrap_or_else(|| panic!("the writer {} left no report", self.name))
    }

    /// Waits until it has written `more` blocks and returns its report, which has no error in it.
    #[track_caller]
    pub fn writes(&self, more: u64) -> Tally {
        let goal = self.report().map_or(0, |tally| tally.ops) + more;
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(tally) = self.report().filter(|tally| tally.ops >= goal) {
                assert_eq!(tally.errors, 0, "{:?}", tally.error_texts);
                return tally;
            }
            assert!(Instant::now() < until, "the writer {} does not go on: {:?}", self.name, self.report());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Ends it, and fails the test unless every write that it was promised is in its file.
    #[track_caller]
    pub fn stop_and_verify(&self, host: &Host) -> Tally {
        host.docker.cmd(["stop", &self.name]).run().checked().unwrap();
        let tally = self.tally();
        assert_eq!(tally.errors, 0, "{:?}", tally.error_texts);
        self.verify(host, &tally);
        tally
    }

    /// Fails the test unless every write that it was promised is in its file. Its container must not run.
    #[track_caller]
    pub fn verify(&self, host: &Host, tally: &Tally) {
        let copy = self.reports.join("written");
        let from = format!("{}:/data/written", self.name);
        host.docker.cmd(["cp", &from]).arg(&copy).run().checked().unwrap();
        let checked = tally.verify(&Plan { slots: self.slots, ..Plan::new(&copy) }).unwrap();
        assert!(checked > 0, "nothing was acknowledged");
        fs::remove_file(copy).unwrap();
    }
}

/// Fails the test unless dmpool refused with that exit code and said all of these.
#[track_caller]
pub fn assert_refused(ran: &Ran, code: i32, said: &[&str]) {
    assert_eq!(ran.code(), Some(code), "{ran}");
    assert!(ran.stderr.starts_with("dmpool: "), "{ran}");
    for words in said {
        assert!(ran.stderr.contains(words), "`{words}` is missing: {ran}");
    }
}
