//! Every step of what is done to pools on disks is told to fail and to die; then it is finished in one case and taken back
//! in another. What was at the beginning of the disks is there again when it is taken back.

use std::fs;
use std::path::Path;
use std::time::Duration;

use lab::guest::boot;
use lab::guest::run::Cmd;
use lab::guest::sys::dmsetup;

use crate::each_step::{CASES, Doing, MORE};
use crate::picture::picture;
use crate::support::linear::Disk;
use crate::support::{Bench, exists};

/// On a machine that is busy with other things.
const SLOW: Duration = Duration::from_secs(900);

const M: u64 = 1 << 20;

/// How much data a disk of 40 MiB holds.
const DATA: u64 = 39 * M;

/// What is done, and what must be there for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Does {
    Create,
    CreateOnOne,
    CreateStriped,
    Activate,
    Deactivate,
    Register,
    GrowMetadata,
    AddDevice,
    Destroy,
    /// With its volumes.
    DestroyAll,
}

impl Does {
    fn creates(self) -> bool {
        matches!(self, Self::Create | Self::CreateOnOne | Self::CreateStriped)
    }

    /// Whether its steps are those of another one, so that CI needs not see each.
    fn is_like_another(self) -> bool {
        matches!(self, Self::CreateOnOne | Self::CreateStriped | Self::DestroyAll)
    }
}

struct Subject {
    bench: Bench,
    does: Does,
    disks: [Disk; 3],
}

impl Subject {
    fn new(does: Does) -> Self {
        let bench = Bench::with_faults();
        let below = boot::scratch_disks().swap_remove(0);
        let disk = |name: &str, start| Disk::new(&bench.sweep.name(name), &below, start, 40);
        let disks = [disk("a", 0), disk("b", 40), disk("c", 80)];
        Self { bench, does, disks }
    }

    /// The devices as they are before anything of the pool is on them: blank, with a file system, with bytes that nobody knows.
    fn fresh(&self) {
        for (number, disk) in self.disks.iter().enumerate() {
            // The first one is blank: of it nothing is kept.
            let bytes = if number == 0 { "cat /dev/zero".to_owned() } else { format!("yes disk{number}") };
            let fill = format!("{bytes} | dd of={} bs=1M count=2 iflag=fullblock conv=fsync", disk.path());
            Cmd::new("sh").args(["-c", &fill]).run().checked().unwrap();
        }
        Cmd::new("mkfs.ext4").args(["-q", "-F", &self.disks[1].path()]).run().checked().unwrap();
    }

    fn create_args(&self) -> Vec<String> {
        let [first, second, third] = self.disks.each_ref().map(Disk::path);
        let pool = self.bench.pool();
        let more = match self.does {
            Does::CreateOnOne => vec!["--data-device", &second],
            Does::CreateStriped => {
                vec!["--metadata-device", &first, "--data-device", &second, "--data-device", &third, "--stripe=64K"]
            }
            _ => vec!["--metadata-device", &first, "--data-device", &second],
        };
        let words = ["create", &pool, "--metadata-size", "4M", "--wipe"].into_iter().chain(more);
        words.map(str::to_owned).collect()
    }

    fn ok(&self, args: &[String]) -> String {
        self.bench.ok(&args.iter().map(String::as_str).collect::<Vec<_>>())
    }

    fn is_registered(&self) -> bool {
        self.bench.state.join("registry").join(format!("{}.toml", self.bench.pool())).exists()
    }

    /// How large the metadata is.
    fn metadata(&self) -> u64 {
        if self.is_registered() { self.bench.number("/pool/metadata/total") } else { 0 }
    }
}

impl Doing for Subject {
    fn bench(&self) -> &Bench {
        &self.bench
    }

    fn name(&self) -> String {
        format!("{:?}", self.does)
    }

    fn args(&self) -> Vec<String> {
        let (pool, added) = (self.bench.pool(), self.disks[2].path());
        let words = match self.does {
            Does::Create | Does::CreateOnOne | Does::CreateStriped => return self.create_args(),
            Does::Activate => vec!["activate", &pool],
            Does::Deactivate => vec!["deactivate", &pool],
            Does::Register => vec!["activate", &pool, "--register"],
            Does::GrowMetadata => vec!["grow", &pool, "--metadata", "+1M"],
            Does::AddDevice => vec!["grow", &pool, "--add-device", &added, "--wipe"],
            Does::Destroy => vec!["destroy", &pool, "--yes"],
            Does::DestroyAll => vec!["destroy", &pool, "--yes", "--with-volumes"],
        };
        words.into_iter().map(str::to_owned).collect()
    }

    fn prepare(&self) {
        let pool = self.bench.pool();
        let is_done = match self.does {
            Does::Create | Does::CreateOnOne | Does::CreateStriped => true,
            Does::AddDevice => self.is_registered() && self.bench.number("/pool/data/total") != DATA,
            _ => false,
        };
        if is_done && self.is_registered() {
            self.bench.ok(&["destroy", &pool, "--yes", "--with-volumes"]);
        }
        if self.does.creates() {
            let _ = fs::remove_dir_all(self.bench.state.join("saved"));
            return self.fresh();
        }
        let only_labels = || self.bench.run(&["activate", &pool]).stderr.contains("its labels are");
        if !(self.is_registered() || self.does == Does::Register && only_labels()) {
            self.ok(&self.create_args());
            if self.does == Does::DestroyAll {
                self.bench.ok(&["thin", "create", &pool, "web", "--size", "4M"]);
            }
        }
        if self.does == Does::Register && self.is_registered() {
            self.bench.ok(&["destroy", &pool, "--keep-data", "--yes"]);
        }
        if self.does == Does::Activate && exists(&pool) {
            self.bench.ok(&["deactivate", &pool]);
        }
        if self.does == Does::Deactivate {
            self.bench.ok(&["activate", &pool]);
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

    fn sizes(&self) -> (u64, u64) {
        (0, self.metadata())
    }

    /// The pool comes up with it again.
    fn is_at_the_end(&self, case: &str, (_, metadata): (u64, u64)) {
        let pool = self.bench.pool();
        match self.does {
            Does::Create | Does::Activate | Does::Register => {
                assert_eq!(self.bench.number("/pool/data/total"), DATA, "{case}");
            }
            // What the label, the metadata and room for more of it leave.
            Does::CreateOnOne => assert_eq!(self.bench.number("/pool/data/total"), 33 * M, "{case}"),
            Does::CreateStriped => assert_eq!(self.bench.number("/pool/data/total"), 2 * DATA, "{case}"),
            Does::Deactivate => assert!(!exists(&pool), "{case}"),
            Does::GrowMetadata => assert_eq!(self.metadata(), metadata + M, "{case}"),
            Does::AddDevice => assert_eq!(self.bench.number("/pool/data/total"), 2 * DATA, "{case}"),
            Does::Destroy | Does::DestroyAll => {
                let free =
                    self.bench.run(&["create", &pool, "--data-device", &self.disks[1].path(), "--wipe", "--dry-run"]);
                assert!(free.ok(), "{case}: {free}");
                return;
            }
        }
        self.bench.ok(&["deactivate", &pool]);
        self.bench.ok(&["activate", &pool]);
    }

    /// Only the last step of a grow has no way back.
    fn may_stand(&self, step: usize, steps: usize) -> bool {
        step == steps
    }
}

/// A checksum of the first MiB of a device.
fn head(path: &Path) -> String {
    let line = format!("dd if={} bs=1M count=1 iflag=direct status=none | md5sum", path.display());
    Cmd::new("sh").args(["-c", &line]).run().checked().unwrap().stdout.trim().to_owned()
}

#[test]
fn create_on_disks_fails_and_dies_at_every_step() {
    for does in [Does::Create, Does::CreateOnOne, Does::CreateStriped] {
        every_step(does);
    }
}

#[test]
fn activate_and_deactivate_on_disks_fail_and_die_at_every_step() {
    every_step(Does::Activate);
    every_step(Does::Deactivate);
}

#[test]
fn registering_what_is_on_disks_fails_and_dies_at_every_step() {
    every_step(Does::Register);
}

#[test]
fn growing_metadata_on_disks_fails_and_dies_at_every_step() {
    every_step(Does::GrowMetadata);
}

#[test]
fn adding_a_disk_fails_and_dies_at_every_step() {
    every_step(Does::AddDevice);
}

#[test]
fn destroy_on_disks_fails_and_dies_at_every_step() {
    every_step(Does::Destroy);
    every_step(Does::DestroyAll);
}

fn every_step(does: Does) {
    // With all cases, an operation takes minutes.
    boot::stop_udev();
    boot::time_limit(SLOW);
    let subject = Subject::new(does);
    subject.prepare();
    let steps = subject.steps();
    println!("  {does:?}: {steps} steps");
    assert!(steps > 1, "{does:?}");
    for step in 1..=steps {
        // In CI each step has one of them, and each operation all.
        let is_left_out = does.is_like_another() && !step.is_multiple_of(3);
        let some = CASES.iter().cycle().skip(step).take(usize::from(!is_left_out));
        let all = CASES.iter().chain(&MORE).take(if boot::full() { CASES.len() + MORE.len() } else { 0 });
        for &case in some.chain(all) {
            subject.case((step, steps), case);
        }
    }
    let _ = subject.bench.run(&["destroy", &subject.bench.pool(), "--yes", "--with-volumes"]);
    let _ = dmsetup(["remove", "--retry", &subject.bench.pool()]).run();
}
