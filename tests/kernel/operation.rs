//! The operations that are made to fail and to die, each on a small pool that is made ready again for the next case.

use std::cell::RefCell;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use lab::guest::disk::{Kind, LoopDisk, Mounted};
use lab::guest::run::{Cmd, Ran};
use lab::guest::sys::dmsetup;
use lab::guest::writer::{Plan, Writer};

use crate::picture::picture;
use crate::support::{Bench, volume};

const M: u64 = 1 << 20;

/// One operation on one kind of pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Create,
    GrowData,
    GrowMetadata,
    /// On a pool of somebody else's, directly on loop devices, as Docker makes them.
    GrowDirectData,
    GrowDirectMetadata,
    Activate,
    Deactivate,
    Destroy,
    ThinCreate,
    ThinSnapshot,
    /// With the ext4 that is mounted on the volume.
    ThinGrow,
    ThinRemove,
}

impl Operation {
    pub const fn is_thin(self) -> bool {
        matches!(self, Self::ThinCreate | Self::ThinSnapshot | Self::ThinGrow | Self::ThinRemove)
    }

    pub const fn grows(self) -> bool {
        matches!(self, Self::GrowData | Self::GrowMetadata | Self::GrowDirectData | Self::GrowDirectMetadata)
    }

    const fn is_direct(self) -> bool {
        matches!(self, Self::GrowDirectData | Self::GrowDirectMetadata)
    }

    const fn is_metadata(self) -> bool {
        matches!(self, Self::GrowMetadata | Self::GrowDirectMetadata)
    }
}

/// An operation with the pool it is done on.
pub struct Subject {
    pub bench: Bench,
    pub operation: Operation,
    pub pool: String,
    direct: Option<[LoopDisk; 2]>,
    mounted: RefCell<Option<Mounted>>,
}

impl Subject {
    /// A pool for this operation, on a bench with the binary that has faults, or the one that users get.
    pub fn new(operation: Operation, bench: Bench) -> Self {
        let mut subject = Self { pool: bench.pool(), bench, operation, direct: None, mounted: RefCell::new(None) };
        if operation.is_direct() {
            subject.make_direct();
        } else if operation.grows() || operation.is_thin() {
            subject.create();
        }
        if operation == Operation::ThinSnapshot {
            subject.bench.ok(&["thin", "create", &subject.pool, "origin", "--size", "16M"]);
        }
        subject
    }

    fn create(&self) {
        let args = self.create_args();
        self.bench.ok(&args.iter().map(String::as_str).collect::<Vec<_>>());
    }

    fn create_args(&self) -> Vec<String> {
        let dir = self.bench.dir.to_str().unwrap();
        let words = ["create", &self.pool, "--dir", dir, "--data-size", "512M", "--metadata-size", "4M"];
        words.map(str::to_owned).into()
    }

    fn make_direct(&mut self) {
        fs::create_dir(self.bench.dir.join(&self.pool)).unwrap();
        let disk = |which: &str, size| LoopDisk::create(&self.bench.file(which), size).unwrap();
        let [metadata, data] = [disk("metadata", 4 * M), disk("data", 512 * M)];
        let (metadata_device, data_device) = (metadata.device().display(), data.device().display());
        let sectors = 512 * M / 512;
        let table = format!("0 {sectors} thin-pool {metadata_device} {data_device} 128 32768 1 skip_block_zeroing");
        dmsetup(["create", &self.pool, "--table", &table]).run().checked().unwrap();
        self.direct = Some([metadata, data]);
    }

    pub fn is_registered(&self) -> bool {
        self.bench.state.join("registry").join(format!("{}.toml", self.pool)).exists()
    }

    pub fn is_active(&self) -> bool {
        PathBuf::from("/dev/mapper").join(&self.pool).exists()
    }

    /// Makes the pool what it must be for the operation to begin.
    pub fn prepare(&self) {
        match self.operation {
            Operation::Create if self.is_registered() => {
                self.bench.ok(&["destroy", &self.pool, "--yes", "--with-volumes"]);
            }
            Operation::Activate => {
                self.ensure_created();
                if self.is_active() {
                    self.bench.ok(&["deactivate", &self.pool]);
                }
            }
            Operation::Deactivate | Operation::Destroy => {
                self.ensure_created();
                if !self.is_active() {
                    self.bench.ok(&["activate", &self.pool]);
                }
            }
            Operation::ThinCreate | Operation::ThinSnapshot => self.remove_new(),
            Operation::ThinRemove if !self.has_new() => self.create_new(),
            Operation::ThinGrow => {
                self.remove_new();
                self.create_new();
                let device = PathBuf::from("/dev/mapper").join(format!("{}-new", self.pool));
                let mounted = Mounted::format(Kind::Ext4, &device, &self.bench.sweep.path("grown")).unwrap();
                *self.mounted.borrow_mut() = Some(mounted);
            }
            _ => {}
        }
    }

    /// The volumes that there are, as `thin list` tells.
    pub fn volumes(&self) -> serde_json::Value {
        let listed = self.bench.ok(&["thin", "list", &self.pool, "--format", "json"]);
        serde_json::from_str::<serde_json::Value>(&listed).unwrap()["pools"][0].take()
    }

    fn has_new(&self) -> bool {
        self.volumes()["volumes"].as_array().unwrap().iter().any(|volume| volume["name"] == "new")
    }

    fn create_new(&self) {
        self.bench.ok(&["thin", "create", &self.pool, "new", "--size", "32M"]);
    }

    fn remove_new(&self) {
        if let Some(mounted) = self.mounted.borrow_mut().take() {
            mounted.unmount().unwrap();
        }
        if self.has_new() {
            self.bench.ok(&["thin", "remove", &self.pool, "new", "--yes"]);
        }
    }

    /// Record, pool and kernel have the same volumes, and nothing waits.
    #[track_caller]
    pub fn assert_volumes_agree(&self, case: &str) {
        let volumes = self.volumes();
        let none = |key: &str| volumes[key].as_array().unwrap().is_empty();
        assert!(none("unknown_volumes") && none("remarks"), "{case}: {volumes:#}");
        for volume in volumes["volumes"].as_array().unwrap() {
            assert!(volume["in_pool"] == true && volume["suspended"] != true, "{case}: {volumes:#}");
        }
    }

    fn ensure_created(&self) {
        if !self.is_registered() {
            self.create();
        }
    }

    /// The part's size now, in bytes; 0 where nothing grows.
    pub fn size(&self) -> u64 {
        match self.operation {
            _ if !self.operation.grows() => 0,
            _ if self.operation.is_metadata() => self.bench.number("/pool/metadata/total"),
            _ => self.bench.number("/pool/data/total"),
        }
    }

    /// The command line of the operation on a pool of that size, and the size that it leads to when it grows.
    pub fn next(&self, from: u64) -> (Vec<String>, u64) {
        let step = if self.operation.is_metadata() { M } else { 16 * M };
        let to = from + step;
        let words = match self.operation {
            Operation::Create => return (self.create_args(), 0),
            Operation::Activate => vec!["activate", &self.pool],
            Operation::Deactivate => vec!["deactivate", &self.pool],
            Operation::Destroy => vec!["destroy", &self.pool, "--yes"],
            Operation::ThinCreate => vec!["thin", "create", &self.pool, "new", "--size", "32M"],
            Operation::ThinSnapshot => vec!["thin", "snapshot", &self.pool, "origin", "new"],
            Operation::ThinGrow => vec!["thin", "grow", &self.pool, "new", "64M"],
            Operation::ThinRemove => vec!["thin", "remove", &self.pool, "new", "--yes"],
            Operation::GrowMetadata | Operation::GrowDirectMetadata => {
                vec!["grow", &self.pool, "--overcommit", "--metadata"]
            }
            Operation::GrowData | Operation::GrowDirectData => vec!["grow", &self.pool, "--overcommit"],
        };
        let mut args: Vec<_> = words.into_iter().map(str::to_owned).collect();
        if self.operation.grows() {
            args.push(to.to_string());
        }
        (args, to)
    }

    /// Another command that would change the pool; while the operation is interrupted it has to refuse.
    pub fn another(&self) -> Vec<String> {
        match self.operation {
            Operation::Create | Operation::Destroy => self.create_args(),
            Operation::Activate | Operation::Deactivate => ["destroy", &self.pool, "--yes"].map(str::to_owned).into(),
            _ if self.operation.is_thin() => {
                ["thin", "create", &self.pool, "another", "--size", "1M"].map(str::to_owned).into()
            }
            _ => ["grow", &self.pool, "--overcommit", "+32M"].map(str::to_owned).into(),
        }
    }

    /// How many steps the operation has, as `--dry-run` numbers them.
    pub fn steps(&self) -> usize {
        let (mut args, _) = self.next(self.size());
        args.push("--dry-run".to_owned());
        let said = self.bench.ok(&args.iter().map(String::as_str).collect::<Vec<_>>());
        let is_step =
            |line: &&str| line.trim_start().split_once(". ").is_some_and(|(number, _)| number.parse::<usize>().is_ok());
        said.lines().filter(is_step).count()
    }

    /// The ids of the journals that are there.
    pub fn journals(&self) -> Vec<String> {
        let files = fs::read_dir(self.bench.state.join("journal")).into_iter().flatten();
        let names = files.map(|f| f.unwrap().file_name().into_string().unwrap());
        names.filter_map(|name| name.strip_suffix(".journal").map(str::to_owned)).collect()
    }

    pub fn picture(&self) -> String {
        picture(&self.bench)
    }

    /// Runs dmpool with a fault, or without one.
    pub fn run(&self, args: &[String], fault: Option<&str>) -> Ran {
        let args: Vec<_> = args.iter().map(String::as_str).collect();
        let cmd = self.bench.cmd(&args);
        match fault {
            Some(fault) => cmd.env("DMPOOL_FAULT", fault).run(),
            None => cmd.run(),
        }
    }

    /// The pool and the part's file have that size.
    #[track_caller]
    pub fn assert_size(&self, case: &str, wanted: u64) {
        let which = if self.operation.is_metadata() { "metadata" } else { "data" };
        let file = fs::metadata(self.bench.file(which)).unwrap().len();
        assert_eq!((self.size(), file), (wanted, wanted), "{case}: the pool's size, and its file's");
    }
}

/// A file system on a volume of the pool, written to and synced all the while.
pub struct Busy {
    name: String,
    device: PathBuf,
    kind: Kind,
    mounted: Mounted,
    plan: Plan,
    writer: Writer,
}

impl Busy {
    pub fn on(subject: &Subject, kind: Kind) -> Self {
        let bytes = if kind == Kind::Xfs { 320 * M } else { 128 * M };
        let name = subject.bench.sweep.name("v");
        let device = volume(&subject.pool, 0, &name, bytes);
        let mounted = Mounted::format(kind, &device, &subject.bench.sweep.path("busy")).unwrap();
        let plan = Plan { pause: Duration::from_millis(20), ..Plan::new(mounted.dir().join("written")) };
        let writer = Writer::start(plan.clone()).unwrap();
        Self { name, device, kind, mounted, plan, writer }
    }

    /// Ends the writing: it saw no error, every block it was promised is there, and the file system is clean.
    pub fn finish(self) {
        self.writer.wait_for(1, Duration::from_secs(30)).unwrap();
        let tally = self.writer.stop(Duration::from_secs(30)).unwrap();
        println!("  the writer: {}", tally.line());
        assert_eq!(tally.errors, 0, "{:?}", tally.error_texts);
        tally.verify(&self.plan).unwrap();
        self.mounted.unmount().unwrap();
        check(self.kind, &self.device);
        dmsetup(["remove", "--retry", &self.name]).run().checked().unwrap();
    }
}

/// The file system on a device that is not mounted is clean.
pub fn check(kind: Kind, device: &std::path::Path) {
    let check = match kind {
        Kind::Ext4 => Cmd::new("fsck.ext4").args(["-f", "-n"]),
        Kind::Xfs => Cmd::new("xfs_repair").arg("-n"),
    };
    check.arg(device).run().checked().unwrap();
}
