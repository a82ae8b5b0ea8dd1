//! The machine goes down in the middle of operations: reboots at chosen steps, power cuts at random moments. Files,
//! registry and journal are on an ext4 on a disk that outlives it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lab::guest::boot;
use lab::guest::disk::{Kind, Mounted};
use lab::guest::sys::dmsetup;
use lab::guest::writer::{Plan, Writer, acknowledged, tally_up_to};

use crate::case::died;
use crate::chance::Chance;
use crate::operation::check;
use crate::support::{Bench, volume};

const M: u64 = 1 << 20;

/// The steps at which an operation dies, and with which command it is ended after the reboot.
const REBOOTS: [Reboot; 8] = [
    Reboot { operation: "create", fault: "3:after:die", verb: "continue" },
    Reboot { operation: "create", fault: "6:after:die", verb: "undo" },
    Reboot { operation: "create", fault: "7:after:die", verb: "continue" },
    Reboot { operation: "grow", fault: "1:after:die", verb: "undo" },
    Reboot { operation: "grow", fault: "3:after:die", verb: "continue" },
    Reboot { operation: "grow", fault: "4:after:die", verb: "continue" },
    Reboot { operation: "deactivate", fault: "1:after:die", verb: "undo" },
    Reboot { operation: "destroy", fault: "2:after:die", verb: "undo" },
];

struct Reboot {
    operation: &'static str,
    fault: &'static str,
    verb: &'static str,
}

#[test]
fn an_operation_that_died_is_ended_after_a_reboot() {
    let phase = usize::try_from(boot::phase()).unwrap();
    let bench = Bench::with_faults();
    let disk = Disk::mounted(&bench, phase == 0);
    let bench = bench.at(disk.mounted.dir());
    if let Some(before) = phase.checked_sub(1).and_then(|n| REBOOTS.get(n)) {
        before.ended(&bench);
    }
    let Some(next) = REBOOTS.get(phase) else { return };
    println!("  {} {}, reboot, {}", next.operation, next.fault, next.verb);
    next.die(&bench);
    boot::reboot();
}

impl Reboot {
    /// Whether the pool is there before the operation begins, and after it was taken back.
    fn is_there_before(&self) -> bool {
        self.operation != "create"
    }

    fn die(&self, bench: &Bench) {
        let pool = bench.pool();
        let registered = bench.state.join("registry").join(format!("{pool}.toml")).exists();
        if registered && !self.is_there_before() {
            bench.ok(&["destroy", &pool, "--yes", "--with-volumes"]);
        } else if !registered && self.is_there_before() {
            bench.create();
        }
        let to = format!("{}", bench_size(bench).unwrap_or_default() + 64 * M);
        let args = match self.operation {
            "create" => create_args(bench, &pool),
            "grow" => vec!["grow", &pool, &to].into_iter().map(str::to_owned).collect(),
            "destroy" => ["destroy", &pool, "--yes"].map(str::to_owned).into(),
            other => [other, &pool].map(str::to_owned).into(),
        };
        boot::remember("size", &bench_size(bench).unwrap_or(1 << 30).to_string());
        let args: Vec<_> = args.iter().map(String::as_str).collect();
        let ran = bench.cmd(&args).env("DMPOOL_FAULT", self.fault).run();
        assert!(died(&ran), "{ran}");
    }

    /// Boot activation brings up what was last whole; then the operation is ended.
    fn ended(&self, bench: &Bench) {
        let pool = bench.pool();
        let size: u64 = boot::recall("size").unwrap().parse().unwrap();
        let activated = bench.run(&["activate", "--all"]);
        assert!(activated.ok(), "{activated}");
        let registered = bench.state.join("registry").join(format!("{pool}.toml")).exists();
        assert_eq!(active(&pool), registered, "{activated}");
        if registered {
            assert!(activated.stderr.contains("was interrupted; the pool"), "{activated}");
        }
        if let Some(found) = bench_size(bench).filter(|_| self.operation == "grow") {
            let grown = self.fault.starts_with("4:");
            assert_eq!(found, if grown { size + 64 * M } else { size }, "{activated}");
        }
        let ran = bench.run(&[self.verb]);
        assert!(ran.ok(), "{ran}");
        let there = self.verb == "continue" || self.is_there_before();
        assert_eq!(active(&pool), there, "{} {} then {}: {ran}", self.operation, self.fault, self.verb);
        if there {
            let grown = self.operation == "grow" && self.verb == "continue";
            let wanted = if grown { size + 64 * M } else { size };
            assert_eq!(bench_size(bench), Some(wanted), "{ran}");
            assert_eq!(fs::metadata(bench.file("data")).unwrap().len(), wanted, "{ran}");
        } else {
            assert_eq!(fs::read_dir(&bench.dir).unwrap().count(), 0, "{ran}");
        }
        assert_eq!(fs::read_dir(bench.state.join("journal")).unwrap().count(), 0, "{ran}");
    }
}

/// How often the power is cut.
const CUTS: usize = 5;

#[test]
fn power_cuts_at_random_moments_lose_nothing() {
    let phase = usize::try_from(boot::phase()).unwrap();
    let bench = Bench::new();
    let disk = Disk::mounted(&bench, phase == 0);
    let bench = bench.at(disk.mounted.dir());
    let acks = boot::scratch_disks().swap_remove(1);
    if phase > 0 {
        after_a_cut(&bench, &acks, if phase.is_multiple_of(2) { "undo" } else { "continue" });
    }
    if phase == CUTS {
        bench.ok(&["deactivate", &bench.pool()]);
        return;
    }
    let pool = bench.pool();
    if phase == 0 {
        bench.create();
    }
    let (mounted, plan) = volume_of(&bench, &acks, phase);
    let _writer = Writer::start(plan).unwrap();
    let _mounted = mounted;
    intend(&bench, 0);
    let delay = Duration::from_millis(200) + Chance::new().within(Duration::from_millis(2500));
    println!("  the power is cut after {} ms", delay.as_millis());
    boot::power_cut_after(delay);
    let other = bench.sweep.name("other");
    loop {
        intend(&bench, 0);
        let args = create_args(&bench, &other);
        bench.ok(&args.iter().map(String::as_str).collect::<Vec<_>>());
        let to = intend(&bench, 16 * M).to_string();
        bench.ok(&["grow", &pool, "--overcommit", &to]);
        intend(&bench, 0);
        bench.ok(&["grow", &pool, "--overcommit", "--metadata", "+1M"]);
        bench.ok(&["destroy", &other, "--yes", "--with-volumes"]);
    }
}

/// Notes the sizes that the pool may have from now on, outside the guest; returns the larger one.
fn intend(bench: &Bench, more: u64) -> u64 {
    let size = bench_size(bench).unwrap();
    boot::remember("sizes", &format!("{size} {}", size + more));
    size + more
}

fn after_a_cut(bench: &Bench, acks: &Path, verb: &str) {
    let pool = bench.pool();
    let notes = boot::recall("sizes").unwrap();
    let sizes: Vec<u64> = notes.split(' ').map(|size| size.parse().unwrap()).collect();
    let activated = bench.run(&["activate", "--all"]);
    assert!(activated.ok(), "{activated}");
    let size = bench_size(bench).unwrap();
    assert!(sizes.contains(&size), "{size} is neither the old nor the new one, {sizes:?}");
    let journals = fs::read_dir(bench.state.join("journal")).unwrap();
    let journals: Vec<_> = journals.map(|j| j.unwrap().file_name().into_string().unwrap()).collect();
    println!("  after the cut: {size} of {sizes:?}, {journals:?}, then {verb}");
    if let Some(id) = journals.iter().find_map(|name| name.strip_suffix(".journal")) {
        assert!(bench.ok(&["list"]).contains(id));
        if id.starts_with(&format!("{pool}-")) {
            assert!(activated.stderr.contains(&format!("`{id}` was interrupted; the pool comes up")), "{activated}");
        }
        // A destroy whose pool has come up again at boot is finished only for who says so.
        let ran = bench.run(if verb == "continue" { &["continue", "--yes"] } else { &["undo"] });
        assert!(ran.ok(), "{ran}");
        let rest = fs::read_dir(bench.state.join("journal")).unwrap();
        assert!(rest.into_iter().all(|f| !f.unwrap().file_name().to_string_lossy().ends_with(".journal")), "{ran}");
    }
    let size = bench_size(bench).unwrap();
    assert!(sizes.contains(&size), "{size} is neither the old nor the new one, {sizes:?}");
    assert!(fs::metadata(bench.file("data")).unwrap().len() >= size);
    whole_or_gone(bench, &bench.sweep.name("other"));

    // Everything that the writer was promised is there.
    let (mounted, plan) = volume_of(bench, acks, usize::MAX);
    let (last, run) = acknowledged(acks).unwrap();
    let checked = tally_up_to(&plan, last, run).verify(&plan).unwrap();
    assert!(checked > 0);
    mounted.unmount().unwrap();
    let name = bench.sweep.name("v");
    check(Kind::Ext4, &Path::new("/dev/mapper").join(&name));
    dmsetup(["remove", "--retry", &name]).run().checked().unwrap();
}

/// A pool that was made and destroyed meanwhile is one of the two.
fn whole_or_gone(bench: &Bench, pool: &str) {
    let registered = bench.state.join("registry").join(format!("{pool}.toml")).exists();
    let folder = bench.dir.join(pool);
    assert_eq!(registered, active(pool), "{pool}");
    if registered {
        bench.ok(&["destroy", pool, "--yes", "--with-volumes"]);
    } else if folder.exists() {
        // A destroy that could not be taken back any more leaves what it had not deleted yet.
        assert!(!folder.join("data").exists(), "{pool} is not registered and has its data");
        fs::remove_dir_all(folder).unwrap();
    }
}

/// The file system on the pool's volume, made in the first phase, with the writer's plan for it.
fn volume_of(bench: &Bench, acks: &Path, phase: usize) -> (Mounted, Plan) {
    let (pool, name, dir) = (bench.pool(), bench.sweep.name("v"), bench.sweep.path("volume"));
    let mounted = if phase == 0 {
        Mounted::format(Kind::Ext4, &volume(&pool, 0, &name, 128 * M), &dir).unwrap()
    } else {
        let table = format!("0 {} thin /dev/mapper/{pool} 0", 128 * M / 512);
        dmsetup(["create", &name, "--table", &table]).run().checked().unwrap();
        Mounted::mount(&Path::new("/dev/mapper").join(&name), &dir, "defaults").unwrap()
    };
    let plan = Plan { acks: Some(acks.to_owned()), ..Plan::new(mounted.dir().join("written")) };
    (mounted, plan)
}

/// The disk that outlives the machine, on a path that stays the same: the registry names files by their paths.
struct Disk {
    mounted: Mounted,
}

impl Disk {
    fn mounted(bench: &Bench, blank: bool) -> Self {
        let device = boot::scratch_disks().swap_remove(0);
        let dir = PathBuf::from("/var/tmp").join(bench.sweep.name("disk"));
        let mounted = if blank {
            Mounted::format(Kind::Ext4, &device, &dir).unwrap()
        } else {
            Mounted::mount(&device, &dir, "defaults").unwrap()
        };
        Self { mounted }
    }
}

fn create_args(bench: &Bench, pool: &str) -> Vec<String> {
    let dir = bench.dir.to_str().unwrap();
    ["create", pool, "--dir", dir, "--data-size", "1G", "--metadata-size", "16M"].map(str::to_owned).into()
}

fn active(pool: &str) -> bool {
    Path::new("/dev/mapper").join(pool).exists()
}

/// The pool's data size when it is active.
fn bench_size(bench: &Bench) -> Option<u64> {
    active(&bench.pool()).then(|| bench.number("/pool/data/total"))
}
