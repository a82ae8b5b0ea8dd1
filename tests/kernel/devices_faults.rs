//! Every step of what is done to pools on disks is told to fail and to die; then it is finished in one case and taken back
//! in another. What was at the beginning of the disks is there again when it is taken back.

use std::fs;
use std::path::Path;
use std::time::Duration;

use lab::guest::boot;
use lab::guest::run::{Cmd, Ran};
use lab::guest::sys::dmsetup;

use crate::case::died;
use crate::picture::{assert_picture, picture};
use crate::support::linear::Disk;
use crate::support::{Bench, exists};

/// On a machine that is busy with other things.
const SLOW: Duration = Duration::from_secs(900);

const M: u64 = 1 << 20;

/// How much data a disk of 40 MiB holds.
const DATA: u64 = 39 * M;

/// What is done, and what must be there for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doing {
    Create,
    Activate,
    GrowMetadata,
    AddDevice,
    Destroy,
}

struct Subject {
    bench: Bench,
    doing: Doing,
    disks: [Disk; 3],
}

impl Subject {
    fn new(doing: Doing) -> Self {
        let bench = Bench::with_faults();
        let below = boot::scratch_disks().swap_remove(0);
        let disk = |name: &str, start| Disk::new(&bench.sweep.name(name), &below, start, 40);
        let disks = [disk("a", 0), disk("b", 40), disk("c", 80)];
        Self { bench, doing, disks }
    }

    /// The devices as they are before anything of the pool is on them: with bytes that nobody knows, and a file system.
    fn fresh(&self) {
        for (number, disk) in self.disks.iter().enumerate() {
            let fill = format!("yes disk{number} | dd of={} bs=1M count=2 iflag=fullblock conv=fsync", disk.path());
            Cmd::new("sh").args(["-c", &fill]).run().checked().unwrap();
        }
        Cmd::new("mkfs.ext4").args(["-q", "-F", &self.disks[1].path()]).run().checked().unwrap();
    }

    fn create_args(&self) -> Vec<String> {
        let [metadata, data, _] = self.disks.each_ref().map(Disk::path);
        let pool = self.bench.pool();
        ["create", &pool, "--metadata-device", &metadata, "--data-device", &data, "--metadata-size", "4M", "--wipe"]
            .map(str::to_owned)
            .into()
    }

    fn args(&self) -> Vec<String> {
        let (pool, added) = (self.bench.pool(), self.disks[2].path());
        let words = match self.doing {
            Doing::Create => return self.create_args(),
            Doing::Activate => vec!["activate", &pool],
            Doing::GrowMetadata => vec!["grow", &pool, "--metadata", "+1M"],
            Doing::AddDevice => vec!["grow", &pool, "--add-device", &added],
            Doing::Destroy => vec!["destroy", &pool, "--yes"],
        };
        words.into_iter().map(str::to_owned).collect()
    }

    fn ok(&self, args: &[String]) -> String {
        self.bench.ok(&args.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// Makes everything as it must be for the operation to begin.
    fn prepare(&self) {
        let pool = self.bench.pool();
        let is_done = match self.doing {
            Doing::Create => true,
            Doing::AddDevice => self.is_registered() && self.bench.number("/pool/data/total") != DATA,
            Doing::Activate | Doing::GrowMetadata | Doing::Destroy => false,
        };
        if is_done && self.is_registered() {
            self.bench.ok(&["destroy", &pool, "--yes"]);
        }
        if self.doing == Doing::Create {
            let _ = fs::remove_dir_all(self.bench.state.join("saved"));
            return self.fresh();
        }
        if !self.is_registered() {
            self.ok(&self.create_args());
        }
        if self.doing == Doing::Activate && exists(&pool) {
            self.bench.ok(&["deactivate", &pool]);
        }
    }

    fn is_registered(&self) -> bool {
        self.bench.state.join("registry").join(format!("{}.toml", self.bench.pool())).exists()
    }

    fn run(&self, args: &[String], fault: Option<&str>) -> Ran {
        let args: Vec<_> = args.iter().map(String::as_str).collect();
        let cmd = self.bench.cmd(&args);
        match fault {
            Some(fault) => cmd.env("DMPOOL_FAULT", fault).run(),
            None => cmd.run(),
        }
    }

    /// The machine, and what is in the first MiB of the disks: their labels, and what was there before.
    fn picture(&self) -> String {
        let mut lines = picture(&self.bench);
        for disk in &self.disks {
            lines.push_str(&format!("\nhead {} {}", disk.path(), head(Path::new(&disk.path()))));
        }
        lines
    }

    fn steps(&self) -> usize {
        let mut args = self.args();
        args.push("--dry-run".to_owned());
        let is_step =
            |line: &&str| line.trim_start().split_once(". ").is_some_and(|(number, _)| number.parse::<usize>().is_ok());
        self.ok(&args).lines().filter(is_step).count()
    }

    /// How large the metadata is.
    fn metadata(&self) -> u64 {
        if self.is_registered() { self.bench.number("/pool/metadata/total") } else { 0 }
    }

    /// What an undisturbed run leaves; the pool comes up with it again.
    #[track_caller]
    fn is_at_the_end(&self, case: &str, metadata: u64) {
        let pool = self.bench.pool();
        match self.doing {
            Doing::Create | Doing::Activate => assert_eq!(self.bench.number("/pool/data/total"), DATA, "{case}"),
            Doing::GrowMetadata => assert_eq!(self.metadata(), metadata + M, "{case}"),
            Doing::AddDevice => assert_eq!(self.bench.number("/pool/data/total"), 2 * DATA, "{case}"),
            Doing::Destroy => {
                let free = self.bench.run(&["create", &pool, "--data-device", &self.disks[1].path(), "--dry-run"]);
                assert!(free.ok(), "{case}: {free}");
                return;
            }
        }
        self.bench.ok(&["deactivate", &pool]);
        self.bench.ok(&["activate", &pool]);
    }
}

/// A checksum of the first MiB of a device.
fn head(path: &Path) -> String {
    let line = format!("dd if={} bs=1M count=1 iflag=direct status=none | md5sum", path.display());
    Cmd::new("sh").args(["-c", &line]).run().checked().unwrap().stdout.trim().to_owned()
}

#[test]
fn what_is_done_to_pools_on_disks_fails_and_dies_at_every_step() {
    boot::stop_udev();
    boot::time_limit(SLOW);
    for doing in [Doing::Create, Doing::Activate, Doing::GrowMetadata, Doing::AddDevice, Doing::Destroy] {
        every_step(doing);
    }
}

fn every_step(doing: Doing) {
    let subject = Subject::new(doing);
    subject.prepare();
    let steps = subject.steps();
    println!("  {doing:?}: {steps} steps");
    assert!(steps > 1, "{doing:?}");
    let cases = [("after:fail", ""), ("after:die", "undo"), ("before:die", "continue"), ("before:die", "undo")];
    let more = [("before:fail", ""), ("after:die", "continue")];
    for step in 1..=steps {
        // In CI each step has one of them, and each operation all.
        let some = cases.iter().cycle().skip(step).take(1);
        let all = cases.iter().chain(&more).take(if boot::full() { cases.len() + more.len() } else { 0 });
        for (fault, verb) in some.chain(all) {
            case(&subject, step, steps, fault, verb);
        }
    }
    let _ = subject.bench.run(&["destroy", &subject.bench.pool(), "--yes"]);
    let _ = dmsetup(["remove", "--retry", &subject.bench.pool()]).run();
}

fn case(subject: &Subject, step: usize, steps: usize, fault: &str, verb: &str) {
    let fault = format!("{step}:{fault}");
    let name = format!("{:?}: {fault} {verb}", subject.doing);
    subject.prepare();
    let (before, metadata) = (subject.picture(), subject.metadata());
    let ran = subject.run(&subject.args(), Some(&fault));
    if verb.is_empty() {
        // Only the last step of a grow has no way back.
        if ran.code() == Some(4) && step == steps {
            let ran = subject.bench.run(&["continue"]);
            assert!(ran.ok(), "{name}: {ran}");
            return subject.is_at_the_end(&name, metadata);
        }
        assert!(
            ran.code() == Some(1) && ran.stderr.contains("everything that had been done was taken back"),
            "{name}: {ran}"
        );
        return assert_picture(&name, &before, &subject.picture());
    }
    assert!(died(&ran), "{name}: {ran}");
    let ended = subject.bench.run(&[verb]);
    assert!(ended.ok(), "{name}: {ended}");
    if ended.stdout.starts_with("taken back:") {
        assert_eq!(verb, "undo", "{name}: {ended}");
        return assert_picture(&name, &before, &subject.picture());
    }
    assert!(verb == "continue" || ended.stdout.contains("has its new"), "{name}: {ended}");
    subject.is_at_the_end(&name, metadata);
}
