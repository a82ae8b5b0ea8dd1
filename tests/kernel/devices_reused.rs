//! Disks that somebody else uses, or that are gone, by the time an interrupted operation is ended: nothing is written on
//! them, and the journal can be closed.

use std::fs;
use std::path::Path;

use lab::guest::boot::{self, Disks};
use lab::guest::run::{Cmd, Ran};

use crate::case::died;
use crate::support::Bench;
use crate::support::linear::Disk;

/// What is said of such a disk.
const STAYS: &str = "by now; it stays";

fn sh(line: &str) -> String {
    Cmd::new("sh").args(["-c", line]).run().checked().unwrap().stdout
}

fn zero(disk: &Disk) {
    sh(&format!("dd if=/dev/zero of={} bs=1M count=40 oflag=direct status=none", disk.path()));
}

fn sum(disk: &Disk) -> String {
    sh(&format!("dd if={} bs=1M iflag=direct status=none | md5sum", disk.path()))
}

/// Puts a file system with a file on a disk, as its owner would, and returns the checksum of the disk.
fn reuse(bench: &Bench, disk: &Disk) -> String {
    let (path, on) = (disk.path(), bench.sweep.path("mnt"));
    let on = on.display();
    sh(&format!(
        "mkfs.ext4 -q -F {path} && mkdir -p {on} && mount {path} {on} && seq 100000 > {on}/file && umount {on} && sync"
    ));
    sum(disk)
}

#[track_caller]
fn is_whole(disk: &Disk, before: &str, case: &str) {
    assert_eq!(sum(disk), before, "{case}");
    sh(&format!("e2fsck -fn {} 2>&1", disk.path()));
}

fn dies(bench: &Bench, args: &[&str], fault: &str) {
    let ran = bench.cmd(args).env("DMPOOL_FAULT", fault).run();
    assert!(died(&ran), "{fault}: {ran}");
}

/// Takes back what was interrupted: that is closed, and says this.
#[track_caller]
fn undone(bench: &Bench, says: &str) -> Ran {
    let ran = bench.run(&["undo"]);
    assert!(ran.ok() && ran.stdout.contains(says), "`{says}`: {ran}");
    bench.ok(&["continue"]);
    ran
}

#[test]
fn what_somebody_has_put_on_a_disk_since_is_not_written_over() {
    let bench = Bench::with_faults();
    let below = boot::scratch_disks().swap_remove(0);
    let [disk, other] = [("a", 0), ("b", 40)].map(|(name, at)| Disk::new(&bench.sweep.name(name), &below, at, 40));
    let (pool, path, other_path) = (bench.pool(), disk.path(), other.path());
    let create = ["create", &pool, "--data-device", &path];
    for (fault, goes_on) in [("1:after:die", false), ("1:after:die", true), ("2:after:die", true)] {
        zero(&disk);
        dies(&bench, &create, fault);
        let before = reuse(&bench, &disk);
        if goes_on {
            let ran = bench.run(&["continue"]);
            assert!(ran.code() == Some(4) && ran.stderr.contains("dmpool undo"), "{fault}: {ran}");
            is_whole(&disk, &before, fault);
        }
        undone(&bench, STAYS);
        is_whole(&disk, &before, fault);
    }

    // The other disk has again what it had.
    sh(&format!("yes mine | dd of={other_path} bs=1M count=40 iflag=fullblock conv=fsync status=none"));
    zero(&disk);
    let had = sum(&other);
    let apart = ["create", &pool, "--metadata-device", &other_path, "--data-device", &path, "--wipe"];
    dies(&bench, &apart, "2:after:die");
    let before = reuse(&bench, &disk);
    assert_ne!(sum(&other), had);
    undone(&bench, STAYS);
    is_whole(&disk, &before, "apart");
    assert_eq!(sum(&other), had);

    // Another pool has it by now, which no journal of this state directory tells of.
    let elsewhere = bench.sweep.subdir("elsewhere").unwrap();
    let name = bench.sweep.name("other");
    let run_elsewhere = |args: &[&str]| {
        let cmd = Cmd::new("dmpool").arg("--state-dir").arg(&elsewhere).args(args);
        cmd.run().checked().unwrap()
    };
    for fault in ["1:before:die", "1:after:die"] {
        zero(&disk);
        sh(&format!("yes mine | dd of={path} bs=1M count=2 iflag=fullblock conv=fsync status=none"));
        dies(&bench, &[&create[..], &["--wipe"]].concat(), fault);
        run_elsewhere(&["create", &name, "--data-device", &path, "--wipe"]);
        let before = sum(&disk);
        undone(&bench, "");
        assert_eq!(sum(&disk), before, "{fault}: the other pool has it");
        run_elsewhere(&["destroy", &name, "--yes"]);
    }

    for verb in ["undo", "continue"] {
        zero(&disk);
        bench.ok(&create);
        let described = bench.ok(&["destroy", &pool, "--dry-run"]);
        let step = described.lines().find(|line| line.contains("erase the label")).unwrap().trim().split('.').next();
        dies(&bench, &["destroy", &pool, "--yes"], &format!("{}:after:die", step.unwrap()));
        let before = reuse(&bench, &disk);
        match verb {
            "undo" => drop(undone(&bench, STAYS)),
            // The label was erased before that, so that nothing is left to say.
            _ => drop(bench.ok(&[verb, "--yes"])),
        }
        is_whole(&disk, &before, verb);
    }

    // Its label outlasts a partition table that somebody has written since; the pool does not come up over it.
    zero(&disk);
    bench.ok(&create);
    bench.ok(&["deactivate", &pool]);
    let sign =
        |bytes: &str| sh(&format!("printf '{bytes}' | dd of={path} bs=1 seek=510 conv=notrunc,fsync status=none"));
    sign(r"\125\252");
    let before = sum(&disk);
    let refused = bench.run(&["activate", &pool]);
    let says = format!("something else is on {path} by now");
    assert!(refused.code() == Some(3) && refused.stderr.contains(&says), "{refused}");
    assert_eq!(sum(&disk), before);
    sign(r"\0\0");
    bench.ok(&["activate", &pool]);
    bench.ok(&["destroy", &pool, "--yes"]);

    // An ephemeral pool whose disk was taken while it was made anew is not kept from being ended.
    zero(&disk);
    bench.ok(&["create", &pool, "--data-device", &path, "--ephemeral"]);
    bench.ok(&["deactivate", &pool]);
    zero(&disk);
    dies(&bench, &["activate", &pool], "1:after:die");
    let before = reuse(&bench, &disk);
    let refused = bench.run(&["activate", &pool]);
    assert!(refused.code() == Some(3) && refused.stderr.contains("somebody else's by now"), "{refused}");
    undone(&bench, STAYS);
    is_whole(&disk, &before, "ephemeral");
    bench.ok(&["destroy", &pool, "--yes", "--with-volumes"]);

    // One of two came back blank: the way out that is said is one.
    for disk in [&disk, &other] {
        zero(disk);
    }
    let two = ["create", &pool, "--data-device", &path, "--data-device", &other_path, "--ephemeral"];
    bench.ok(&two);
    bench.ok(&["deactivate", &pool]);
    zero(&disk);
    let refused = bench.run(&["activate", &pool]);
    let says = ["some of its devices came back blank", &format!("dmpool destroy {pool} ")];
    assert!(refused.code() == Some(3) && says.iter().all(|words| refused.stderr.contains(words)), "{refused}");
    let destroyed = bench.run(&["destroy", &pool, "--yes", "--with-volumes"]);
    assert!(destroyed.ok() && destroyed.stderr.contains("nothing is erased there"), "{destroyed}");
    let left = bench.run(&two);
    assert!(left.ok() || left.stderr.contains("--wipe takes it"), "{left}");
    bench.ok(&[&two[..], &["--wipe", "--ensure"]].concat());
    bench.ok(&["destroy", &pool, "--yes"]);

    // One that is gone keeps its label, which is said. The first would still be seen on the disk below it.
    zero(&other);
    bench.ok(&["create", &pool, "--data-device", &other_path]);
    dies(&bench, &["destroy", &pool, "--yes"], "4:after:die");
    drop(other);
    let ran = bench.run(&["continue", "--yes"]);
    let says = ["superblock", "label"].map(|what| format!("is not here any more: its {what} may still be on it"));
    assert!(ran.ok() && says.iter().all(|words| ran.stderr.contains(words)), "{ran}");
    zero(&Disk::new(&bench.sweep.name("b"), &below, 40, 40));
}

#[test]
fn a_create_whose_disk_is_gone_after_a_reboot_can_be_taken_back() {
    let bench = Bench::with_faults().at(Path::new("/var/tmp/dmpool-test-gone"));
    let journals = bench.state.join("journal");
    let pools = [("dmpool-test-cleared", "1:after:die", 1), ("dmpool-test-labelled", "2:after:die", 2)];
    match boot::phase() {
        0 => {
            for (pool, fault, disk) in pools {
                let disk = boot::by_id(disk);
                dies(&bench, &["create", pool, "--data-device", disk.to_str().unwrap(), "--data-size", "1G"], fault);
            }
            boot::reboot_with(Disks::in_order(&[0]));
        }
        _ => {
            let found = fs::read_dir(&journals).unwrap().map(|entry| entry.unwrap().path());
            let ids: Vec<_> = found.map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned()).collect();
            assert_eq!(ids.len(), pools.len());
            for id in ids {
                let ran = bench.run(&["undo", &id]);
                assert!(ran.ok() && ran.stdout.contains("is not here; nothing on it was taken back"), "{ran}");
            }
            assert_eq!(fs::read_dir(&journals).unwrap().count(), 0);
            for (pool, ..) in pools {
                let disk = boot::by_id(0);
                bench.ok(&["create", pool, "--data-device", disk.to_str().unwrap(), "--data-size", "1G", "--dry-run"]);
            }
        }
    }
}
