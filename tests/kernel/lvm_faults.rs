//! What LVM does for a pool fails and dies at every step: it is finished in one case and taken back in another, and LVM is
//! then as it was.

use std::time::Duration;

use lab::guest::boot;
use lab::guest::run::{Cmd, Ran};
use lab::guest::sys::dmsetup;

use crate::case::died;
use crate::each_step::{CASES, Doing, MORE};
use crate::picture::picture;
use crate::support::lvm::{Group, by_hand, lvm_ok};
use crate::support::{Bench, exists};

/// On a machine that is busy with other things.
const SLOW: Duration = Duration::from_secs(900);

const M: u64 = 1 << 20;

/// What is done, and what must be there for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Does {
    Create,
    GrowData,
    GrowMetadata,
    Activate,
    Deactivate,
    /// An LV is added to the pool.
    AddVolume,
    Destroy,
    /// LVM's own thin pool.
    GrowThinPool,
    /// A pool that somebody has made on LVs, without labels.
    GrowByHand,
}

const ALL: [Does; 9] = [
    Does::Create,
    Does::GrowData,
    Does::GrowMetadata,
    Does::Activate,
    Does::Deactivate,
    Does::AddVolume,
    Does::Destroy,
    Does::GrowThinPool,
    Does::GrowByHand,
];

struct Subject {
    bench: Bench,
    group: Group,
    does: Does,
}

impl Subject {
    fn new(does: Does) -> Self {
        let bench = Bench::with_faults();
        let group = Group::new(&bench, "vg", 512);
        group.volume("theirs", 4);
        match does {
            Does::GrowThinPool => {
                lvm_ok(&["lvcreate", "-y", "--type", "thin-pool", "-L", "64M", "-n", "thin", &group.name]);
            }
            Does::AddVolume => drop(group.volume("added", 8)),
            Does::GrowByHand => {
                by_hand(&bench.pool(), &group.volume("data", 64), &group.volume("meta", 8), 64);
            }
            _ => {}
        }
        Self { bench, group, does }
    }

    /// The dm name of the pool that it is about.
    fn pool(&self) -> String {
        match self.does {
            Does::GrowThinPool => format!("{}-thin", self.group.name.replace('-', "--")),
            _ => self.bench.pool(),
        }
    }

    fn is_made_by_dmpool(&self) -> bool {
        !matches!(self.does, Does::GrowThinPool | Does::GrowByHand)
    }

    fn total(&self, part: &str) -> u64 {
        let json = self.bench.ok(&["status", &self.pool(), "--format", "json"]);
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        json.pointer(&format!("/pool/{part}/total")).and_then(serde_json::Value::as_u64).unwrap()
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
        let (pool, group) = (self.pool(), &self.group.name);
        let added = format!("/dev/{group}/added");
        let words = match self.does {
            Does::Create => vec!["create", &pool, "--vg", group, "--data-size", "16M"],
            Does::GrowData | Does::GrowThinPool | Does::GrowByHand => vec!["grow", &pool, "+8M"],
            Does::GrowMetadata => vec!["grow", &pool, "--metadata", "+4M"],
            Does::Activate => vec!["activate", &pool],
            Does::Deactivate => vec!["deactivate", &pool],
            Does::AddVolume => vec!["grow", &pool, "--add-device", &added, "--wipe"],
            Does::Destroy => vec!["destroy", &pool, "--yes"],
        };
        words.into_iter().map(str::to_owned).collect()
    }

    fn prepare(&self) {
        let pool = self.bench.pool();
        let is_there = self.bench.state.join("registry").join(format!("{pool}.toml")).exists();
        match self.does {
            Does::Create if is_there => drop(self.bench.ok(&["destroy", &pool, "--yes", "--with-volumes"])),
            Does::AddVolume if is_there && self.total("data") != 16 * M => {
                self.bench.ok(&["destroy", &pool, "--yes", "--with-volumes"]);
                return self.prepare();
            }
            Does::Create | Does::GrowThinPool | Does::GrowByHand => {}
            _ if !is_there => {
                drop(self.bench.ok(&["create", &pool, "--vg", &self.group.name, "--data-size", "16M"]));
            }
            _ => {}
        }
        if self.does == Does::Activate && exists(&pool) {
            self.bench.ok(&["deactivate", &pool]);
        }
        if self.does == Does::Deactivate {
            self.bench.ok(&["activate", &pool]);
        }
        if self.does == Does::Activate {
            lvm_ok(&["vgchange", "-an", &self.group.name]);
        }
    }

    /// The machine, and what LVM has.
    fn picture(&self) -> String {
        let fields = "lv_name,lv_size,lv_active,seg_count,tags";
        let volumes = lvm_ok(&["lvs", "-a", "--noheadings", "--units", "b", "-o", fields, &self.group.name]);
        let tagged = |line: &str| line.split("dmpool.device.").next().unwrap_or_default().trim().to_owned();
        let mut lines: Vec<_> = volumes.lines().map(tagged).collect();
        lines.push(format!("free {}", self.group.free()));
        format!("{}\n{}", picture(&self.bench), lines.join("\n"))
    }

    fn sizes(&self) -> (u64, u64) {
        match self.does {
            Does::Create | Does::Activate => (0, 0),
            _ => (self.total("data"), self.total("metadata")),
        }
    }

    fn is_at_the_end(&self, case: &str, (data, metadata): (u64, u64)) {
        let pool = self.bench.pool();
        match self.does {
            Does::Create => assert_eq!(self.bench.number("/pool/data/total"), 16 * M, "{case}"),
            Does::GrowData | Does::GrowThinPool | Does::GrowByHand => {
                assert_eq!(self.sizes(), (data + 8 * M, metadata), "{case}");
            }
            Does::GrowMetadata => assert_eq!(self.sizes(), (data, metadata + 4 * M), "{case}"),
            Does::Activate => drop(self.bench.ok(&["activate", &pool])),
            Does::Deactivate => assert!(!exists(&pool), "{case}"),
            // All but the label's MiB, and what the LV of the data had left.
            Does::AddVolume => assert_eq!(self.sizes(), (data + 10 * M, metadata), "{case}"),
            Does::Destroy => return assert_eq!(self.group.names(), ["theirs"], "{case}"),
        }
        if self.is_made_by_dmpool() {
            self.bench.ok(&["deactivate", &pool]);
            self.bench.ok(&["activate", &pool]);
        }
    }

    /// What LVM has removed, and what a pool has taken.
    fn may_stand(&self, _: usize, _: usize) -> bool {
        !matches!(self.does, Does::Create | Does::Activate | Does::Deactivate)
    }

    fn is_given_up(&self, case: &str, ended: &Ran, sizes: (u64, u64)) {
        if self.does != Does::Destroy {
            assert!(ended.stdout.contains("has its new"), "{case}: {ended}");
            return self.is_at_the_end(case, sizes);
        }
        // One LV is gone for good: the other is named, with the command that removes it.
        assert!(ended.stdout.contains("is removed"), "{case}: {ended}");
        for name in self.group.names().into_iter().filter(|name| name != "theirs") {
            let word = self.group.word(&name);
            assert!(ended.stdout.contains(&format!("lvremove {word}")), "{ended}");
            lvm_ok(&["lvremove", "-y", &word]);
        }
    }
}

#[test]
fn what_lvm_does_for_pools_fails_and_dies_at_every_step() {
    boot::time_limit(SLOW);
    for does in ALL {
        every_step(does);
    }
}

#[test]
fn what_somebody_has_put_on_an_lv_stays() {
    let subject = Subject::new(Does::Create);
    let word = subject.group.word(&format!("{}_meta", subject.bench.pool()));
    assert!(died(&subject.run(&subject.args(), Some("1:after:die"))));
    let sum = || {
        let line = format!("dd if=/dev/{word} bs=1M iflag=direct status=none | md5sum");
        Cmd::new("sh").args(["-c", &line]).run().checked().unwrap().stdout
    };
    Cmd::new("mkfs.ext4").args(["-q", "-F", &format!("/dev/{word}")]).run().checked().unwrap();
    let before = sum();
    let refused = subject.bench.run(&["continue"]);
    assert!(refused.code() == Some(4) && refused.stderr.contains("by now; it stays"), "{refused}");
    assert_eq!(sum(), before);
    let undone = subject.bench.run(&["undo"]);
    assert!(undone.ok() && undone.stdout.contains("by now; it stays: a file system (ext4)"), "{undone}");
    assert_eq!(sum(), before);
    lvm_ok(&["lvremove", "-f", "-y", &word]);
    assert_eq!(subject.group.names(), ["theirs"]);

    // It is not active any more, as after a reboot; or what is on it has no format.
    let ext4 = format!("mkfs.ext4 -q -F /dev/{word} && lvchange -an {word}");
    let raw = format!("yes mine | dd of=/dev/{word} bs=4k count=1 iflag=fullblock conv=fsync status=none");
    for (fills, says) in [(ext4, "a file system (ext4)"), (raw, "it does not begin with zeros")] {
        assert!(died(&subject.run(&subject.args(), Some("1:after:die"))));
        Cmd::new("sh").args(["-c", &fills]).run().checked().unwrap();
        let undone = subject.bench.run(&["undo"]);
        let says = [&format!("by now; it stays: {says}"), &format!("lvremove {word}")];
        assert!(undone.ok() && says.iter().all(|words| undone.stdout.contains(*words)), "{undone}");
        lvm_ok(&["lvremove", "-f", "-y", &word]);
    }

    // A destroy that is finished later removes none that somebody has taken since its label went.
    let (pool, group) = (subject.bench.pool(), &subject.group.name);
    for verb in [["continue", "--yes"].as_slice(), &["undo"]] {
        subject.bench.ok(&["create", &pool, "--vg", group, "--data-size", "16M"]);
        let plan = subject.bench.ok(&["destroy", &pool, "--dry-run"]);
        let last = plan.lines().filter_map(|line| line.trim().split_once(". erase the label")).next_back().unwrap().0;
        let dies = ["destroy", &pool, "--yes"].map(str::to_owned);
        assert!(died(&subject.run(&dies, Some(&format!("{last}:after:die")))));
        Cmd::new("sh")
            .args(["-c", &format!("mkfs.ext4 -q -F /dev/{word} && lvchange -an {word}")])
            .run()
            .checked()
            .unwrap();
        let ran = subject.bench.run(verb);
        match verb {
            ["undo"] => assert!(ran.ok() && ran.stdout.contains("by now; it stays"), "{ran}"),
            _ => {
                assert!(ran.code() == Some(4) && ran.stderr.contains("it stays: a file system (ext4)"), "{ran}");
                assert!(ran.stderr.contains(&format!("lvremove {word}")), "{ran}");
            }
        }
        assert!(subject.group.names().iter().any(|name| word.ends_with(name.as_str())), "{ran}");
        lvm_ok(&["lvremove", "-f", "-y", &word]);
        let _ = subject.bench.run(&["continue", "--yes"]);
        for name in subject.group.names().into_iter().filter(|name| name != "theirs") {
            lvm_ok(&["lvremove", "-f", "-y", &subject.group.word(&name)]);
        }
    }
}

fn every_step(does: Does) {
    let subject = Subject::new(does);
    subject.prepare();
    let steps = subject.steps();
    println!("  {does:?}: {steps} steps");
    for step in 1..=steps {
        // What follows the LVs' own steps is the same on any disk: in CI the last of it, and every one of LVM's, has one case.
        let of_lvm = match does {
            Does::Create => step <= 2 || step == steps,
            Does::GrowData | Does::GrowMetadata => step <= 2,
            Does::Activate | Does::GrowThinPool => true,
            Does::GrowByHand | Does::Deactivate => step == 1,
            Does::AddVolume => step <= 2,
            Does::Destroy => step + 2 > steps,
        };
        let some = CASES.iter().cycle().skip(step).take(usize::from(of_lvm));
        let all = CASES.iter().chain(&MORE).take(if boot::full() { CASES.len() + MORE.len() } else { 0 });
        for &case in some.chain(all) {
            subject.case((step, steps), case);
        }
    }
    if subject.is_made_by_dmpool() {
        let _ = subject.bench.run(&["activate", &subject.pool()]);
        let _ = subject.bench.run(&["destroy", &subject.pool(), "--yes"]);
    } else if does == Does::GrowByHand {
        dmsetup(["remove", "--retry", &subject.pool()]).run().checked().unwrap();
    }
}
