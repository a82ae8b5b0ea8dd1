//! The volumes of a pool: made, written, snapshotted and grown while they are in use, removed.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lab::guest::disk::{Kind, Mounted};
use lab::guest::run::{Cmd, End};
use lab::guest::sys::dmsetup;
use lab::guest::writer::{Plan, Writer};
use nix::libc::SIGKILL;

use crate::operation::check;
use crate::support::{Bench, exists};

const M: u64 = 1 << 20;

fn device(pool: &str, name: &str) -> PathBuf {
    Path::new("/dev/mapper").join(format!("{pool}-{name}"))
}

/// One volume as `thin list --format json` tells.
fn listed(bench: &Bench, pool: &str, name: &str) -> serde_json::Value {
    let text = bench.ok(&["thin", "list", pool, "--format", "json"]);
    let whole: serde_json::Value = serde_json::from_str(&text).unwrap();
    let volumes = whole["pools"][0]["volumes"].as_array().unwrap();
    volumes.iter().find(|volume| volume["name"] == name).cloned().unwrap_or_else(|| panic!("{name} in {text}"))
}

#[test]
fn volumes_go_and_come_with_their_pool() {
    let bench = Bench::new();
    let pool = bench.create();
    assert!(bench.ok(&["thin", "list", &pool]).contains("has no volumes"));
    let said = bench.ok(&["thin", "create", &pool, "web", "--size", "100000001"]);
    assert!(said.contains(&format!("/dev/mapper/{pool}-web")), "{said}");
    assert_eq!(listed(&bench, &pool, "web")["size"], 1526 * 65536, "whole blocks");
    let over = bench.run(&["thin", "create", &pool, "big", "--size", "2G", "--no-activate"]);
    assert!(over.ok() && over.stderr.contains("promise 2.1 GiB together, the pool has 1.0 GiB"), "{over}");
    assert!(!exists(&format!("{pool}-big")));

    let mounted = Mounted::format(Kind::Ext4, &device(&pool, "web"), &bench.sweep.path("web")).unwrap();
    fs::write(mounted.dir().join("file"), vec![7; 1 << 20]).unwrap();
    let web = listed(&bench, &pool, "web");
    assert_eq!((&web["mounts"][0], &web["in_pool"]), (&serde_json::json!(mounted.dir()), &true.into()));
    assert!(web["mapped"].as_u64().unwrap() > 0, "{web}");
    let refused = bench.run(&["deactivate", &pool]);
    assert_eq!(refused.code(), Some(3), "{refused}");
    assert!(refused.stderr.contains("unmount what is on its volumes"), "{refused}");
    mounted.unmount().unwrap();

    // By hand, as the pool's own words allow: named, and left alone.
    dmsetup(["message", &pool, "0", "create_thin 77"]).run().checked().unwrap();
    let text = bench.ok(&["thin", "list"]);
    assert!(text.contains("the volume with id 77") && text.contains("is not one that dmpool made"), "{text}");

    bench.ok(&["deactivate", &pool]);
    assert!(!exists(&pool) && !exists(&format!("{pool}-web")));
    assert!(bench.ok(&["thin", "list", &pool]).contains("the pool is not active"));
    bench.ok(&["activate", &pool]);
    assert!(exists(&format!("{pool}-big")), "activate brings up all volumes");
    dmsetup(["remove", &format!("{pool}-web")]).run().checked().unwrap();
    bench.ok(&["activate", &pool]);
    let mounted = Mounted::mount(&device(&pool, "web"), &bench.sweep.path("web"), "rw").unwrap();
    assert_eq!(fs::read(mounted.dir().join("file")).unwrap(), vec![7; 1 << 20]);
    mounted.unmount().unwrap();

    bench.ok(&["thin", "create", &pool, "next", "--size", "1M"]);
    assert_eq!(listed(&bench, &pool, "next")["id"], 78, "above every id that the pool has");
    bench.ok(&["thin", "rm", &pool, "web", "--yes"]);
    assert!(!exists(&format!("{pool}-web")));
    let text = bench.ok(&["thin", "list", &pool]);
    assert!(!text.contains("web") && text.contains("next"), "{text}");

    let kept = bench.run(&["destroy", &pool, "--yes"]);
    assert_eq!(kept.code(), Some(3), "{kept}");
    assert!(kept.stderr.contains("it has 3 volumes") && kept.stderr.contains("next (1.0 MiB, "), "{kept}");
    let plan = bench.ok(&["destroy", &pool, "--dry-run", "--with-volumes"]);
    assert!(plan.contains("with it go 3 volumes: ") && plan.contains("id 77 (") && plan.contains("in use"), "{plan}");
    // Without its record, or its entry's, the pool itself says what it has.
    let record = bench.state.join("volumes").join(format!("{pool}.toml"));
    let text = fs::read(&record).unwrap();
    fs::remove_file(&record).unwrap();
    for down in [false, true] {
        if down {
            for name in ["big", "next"] {
                dmsetup(["remove", "--retry", &format!("{pool}-{name}")]).run().checked().unwrap();
            }
            bench.ok(&["deactivate", &pool]);
        }
        let refused = bench.run(&["destroy", &pool, "--yes"]);
        let says = "3 volumes that dmpool has no record of";
        assert!(refused.code() == Some(3) && refused.stderr.contains(says), "{refused}");
    }
    // A superblock of zeros says nothing of volumes.
    let metadata = OpenOptions::new().read(true).write(true).open(bench.file("metadata")).unwrap();
    let mut superblock = [0; 4096];
    metadata.read_exact_at(&mut superblock, 0).unwrap();
    metadata.write_all_at(&[0; 4096], 0).unwrap();
    let refused = bench.run(&["destroy", &pool, "--yes"]);
    let says = ["cannot be told which volumes it has", "all zeros", "--with-volumes"];
    assert!(refused.code() == Some(3) && says.iter().all(|words| refused.stderr.contains(words)), "{refused}");
    metadata.write_all_at(&superblock, 0).unwrap();
    fs::write(&record, text).unwrap();
    bench.ok(&["destroy", &pool, "--yes", "--with-volumes"]);
    assert!(!exists(&pool) && fs::read_dir(bench.state.join("volumes")).unwrap().next().is_none());
}

#[test]
fn a_volume_that_cannot_come_up_keeps_nothing_else_down() {
    let bench = Bench::new();
    let pool = bench.create();
    for name in ["a", "b", "c"] {
        bench.ok(&["thin", "create", &pool, name, "--size", "1M"]);
    }
    bench.ok(&["deactivate", &pool]);
    let other = format!("{pool}-a");
    dmsetup(["create", &other, "--table", "0 8 zero"]).run().checked().unwrap();
    let record = bench.state.join("volumes").join(format!("{pool}.toml"));
    let good = fs::read_to_string(&record).unwrap();
    fs::write(&record, good.replace("id = 2", "id = 9")).unwrap();
    let ran = bench.run(&["activate", &pool]);
    assert!(ran.ok(), "{ran}");
    assert!(ran.stderr.contains("volume `a` does not come up: another device is called"), "{ran}");
    assert!(ran.stderr.contains("volume `b` does not come up: the pool does not have it any more"), "{ran}");
    assert!(exists(&format!("{pool}-c")) && !exists(&format!("{pool}-b")));
    let text = bench.ok(&["thin", "list", &pool]);
    assert!(text.contains("does not have the volume `b` (id 9)") && text.contains("id 2,"), "{text}");
    dmsetup(["remove", "--retry", &other]).run().checked().unwrap();

    fs::write(&record, good.replace("transaction = 3", "transaction = 8")).unwrap();
    bench.ok(&["deactivate", &pool]);
    let ran = bench.run(&["activate", &pool]);
    assert!(ran.ok() && ran.stderr.contains("its volumes do not come up: the pool has the transaction id 3"), "{ran}");
    // An older record: `c` was made later, and is not whatever has its id.
    fs::write(&record, good.replace("transaction = 3", "transaction = 1")).unwrap();
    let ran = bench.run(&["thin", "adopt", &pool]);
    let says =
        ["`b` (id 2, 1.0 MiB), which is taken over", "`c` (id 3, 1.0 MiB), which is not", "the id 3 is `thin-3`"];
    assert!(ran.ok() && says.iter().all(|words| ran.stderr.contains(words)), "{ran}");
    assert_eq!(listed(&bench, &pool, "thin-3")["id"], 3);
    fs::write(&record, good).unwrap();
    bench.ok(&["activate", &pool]);
    for name in ["a", "b", "c"] {
        assert!(exists(&format!("{pool}-{name}")));
    }
    bench.ok(&["destroy", &pool, "--yes", "--with-volumes"]);
}

/// Snapshots of a file system that is written all the while: each is clean as it is, and has what was acknowledged.
#[test]
fn a_snapshot_of_a_mounted_file_system_under_a_writer_is_whole() {
    let bench = Bench::new();
    let pool = bench.create();
    for kind in [Kind::Ext4, Kind::Xfs] {
        let size = if kind == Kind::Xfs { "320M" } else { "128M" };
        let name = kind.name();
        bench.ok(&["thin", "create", &pool, name, "--size", size]);
        let mounted = Mounted::format(kind, &device(&pool, name), &bench.sweep.path(name)).unwrap();
        let plan = Plan { slots: 4096, pause: Duration::from_millis(2), ..Plan::new(mounted.dir().join("written")) };
        let writer = Writer::start(plan.clone()).unwrap();
        writer.wait_for(5, Duration::from_secs(60)).unwrap();
        let before = writer.tally();
        let snapshot = format!("{name}-snap");
        bench.ok(&["thin", "snapshot", &pool, name, &snapshot]);
        assert_eq!(listed(&bench, &pool, &snapshot)["origin"], name);
        writer.wait_for(before.ops + 5, Duration::from_secs(60)).unwrap();
        let tally = writer.stop(Duration::from_secs(60)).unwrap();
        assert_eq!(tally.errors, 0, "{:?}", tally.error_texts);
        tally.verify(&plan).unwrap();

        let copy = device(&pool, &snapshot);
        // Held still when it was taken: an ext4 needs no journal, an XFS only its unmount record.
        if kind == Kind::Ext4 {
            check(kind, &copy);
        }
        let options = if kind == Kind::Xfs { "nouuid" } else { "rw" };
        let seen = Mounted::mount(&copy, &bench.sweep.path(&snapshot), options).unwrap();
        before.verify(&Plan { path: seen.dir().join("written"), ..plan }).unwrap();
        seen.unmount().unwrap();
        check(kind, &copy);
        mounted.unmount().unwrap();
    }
    bench.ok(&["destroy", &pool, "--yes", "--with-volumes"]);
}

#[test]
fn a_volume_grows_with_the_file_system_that_is_mounted_on_it() {
    let bench = Bench::new();
    let pool = bench.create();
    for kind in [Kind::Ext4, Kind::Xfs] {
        let (from, to) = if kind == Kind::Xfs { ("320M", 640 * M) } else { ("64M", 256 * M) };
        let name = kind.name();
        bench.ok(&["thin", "create", &pool, name, "--size", from]);
        let mounted = Mounted::format(kind, &device(&pool, name), &bench.sweep.path(name)).unwrap();
        let plan = Plan { pause: Duration::from_millis(10), ..Plan::new(mounted.dir().join("written")) };
        let writer = Writer::start(plan.clone()).unwrap();
        writer.wait_for(1, Duration::from_secs(60)).unwrap();
        bench.ok(&["thin", "grow", &pool, name, &to.to_string()]);
        let tally = writer.stop(Duration::from_secs(60)).unwrap();
        assert_eq!(tally.errors, 0, "{:?}", tally.error_texts);
        tally.verify(&plan).unwrap();
        let space = nix::sys::statvfs::statvfs(mounted.dir()).unwrap();
        assert!(space.blocks() * space.fragment_size() > to * 3 / 4, "{} blocks", space.blocks());
        let same = bench.ok(&["thin", "grow", &pool, name, &to.to_string()]);
        assert!(same.contains("unchanged"), "{same}");

        let left = bench.run(&["thin", "grow", &pool, name, "+64M", "--no-file-system"]);
        assert!(left.ok() && left.stderr.contains("is not grown:  "), "{left}");
        mounted.unmount().unwrap();
        let left = bench.run(&["thin", "grow", &pool, name, "+1M"]);
        assert!(left.ok() && left.stderr.contains("mount it, then"), "{left}");
        check(kind, &device(&pool, name));
        assert_eq!(listed(&bench, &pool, name)["size"], to + 65 * M);
    }
    bench.ok(&["deactivate", &pool]);
    bench.ok(&["activate", &pool]);
    assert_eq!(listed(&bench, &pool, "ext4")["size"], 321 * M);
    bench.ok(&["destroy", &pool, "--yes", "--with-volumes"]);
}

/// dmpool is killed in the moment in which the origin is suspended: its guardian resumes it, and the writer goes on.
#[test]
fn a_death_while_the_origin_is_suspended_leaves_it_running() {
    let bench = Bench::with_faults();
    let pool = bench.create();
    bench.ok(&["thin", "create", &pool, "web", "--size", "64M"]);
    let mounted = Mounted::format(Kind::Ext4, &device(&pool, "web"), &bench.sweep.path("web")).unwrap();
    let writer = Writer::start(Plan::new(mounted.dir().join("written"))).unwrap();
    for verb in ["continue", "undo"] {
        let ran = bench.cmd(&["thin", "snapshot", &pool, "web", "snap"]).env("DMPOOL_FAULT", "suspended:die").run();
        assert_eq!(ran.end, End::Signal(SIGKILL), "{ran}");
        let now = writer.tally().ops;
        writer.wait_for(now + 3, Duration::from_secs(60)).unwrap();
        let ran = bench.run(&[verb]);
        assert!(ran.ok(), "{ran}");
        assert_eq!(exists(&format!("{pool}-snap")), verb == "continue");
        if verb == "continue" {
            check(Kind::Ext4, &device(&pool, "snap"));
            bench.ok(&["thin", "remove", &pool, "snap", "--yes"]);
        }
    }
    let tally = writer.stop(Duration::from_secs(60)).unwrap();
    assert_eq!(tally.errors, 0, "{:?}", tally.error_texts);
    mounted.unmount().unwrap();
    bench.ok(&["destroy", &pool, "--yes", "--with-volumes"]);
}

/// What an interrupted command made and somebody has used since is not deleted by taking it back.
#[test]
fn a_volume_that_was_used_since_is_not_taken_back() {
    let bench = Bench::with_faults();
    let pool = bench.create();
    let create = ["thin", "create", &pool, "web", "--size", "16M"];
    let ran = bench.cmd(&create).env("DMPOOL_FAULT", "3:after:die").run();
    assert_eq!(ran.end, End::Signal(SIGKILL), "{ran}");
    let of = format!("of=/dev/mapper/{pool}-web");
    Cmd::new("dd").args(["if=/dev/zero", "bs=64K", "count=1", "oflag=direct", &of]).run().checked().unwrap();
    let refused = bench.run(&["undo"]);
    assert_eq!(refused.code(), Some(3), "{refused}");
    assert!(refused.stderr.contains("has been used since") && refused.stderr.contains("dmpool continue"), "{refused}");
    bench.ok(&["continue"]);

    let remove = ["thin", "remove", &pool, "web", "--yes"];
    let ran = bench.cmd(&remove).env("DMPOOL_FAULT", "2:after:die").run();
    assert_eq!(ran.end, End::Signal(SIGKILL), "{ran}");
    let table = format!("0 {} thin /dev/mapper/{pool} 1", 16 * M / 512);
    let uuid = format!("DMPOOL-{}-volume-1", pool_uuid(&bench, &pool));
    dmsetup(["create", &format!("{pool}-web"), "-u", &uuid, "--table", &table]).run().checked().unwrap();
    let refused = bench.run(&["continue"]);
    assert_eq!(refused.code(), Some(3), "{refused}");
    assert!(refused.stderr.contains("brought it up since") && refused.stderr.contains("--used-since"), "{refused}");
    let unattended = bench.run(&["continue", "--yes"]);
    assert!(unattended.code() == Some(3) && unattended.stderr.contains("brought it up since"), "{unattended}");
    bench.ok(&["continue", "--yes", "--used-since"]);
    assert!(bench.ok(&["thin", "list", &pool]).contains("has no volumes"));
    bench.ok(&["destroy", &pool, "--yes", "--with-volumes"]);
}

fn pool_uuid(bench: &Bench, pool: &str) -> String {
    let entry = fs::read_to_string(bench.state.join("registry").join(format!("{pool}.toml"))).unwrap();
    let line = entry.lines().find_map(|line| line.strip_prefix("uuid = \"")).unwrap();
    line.trim_end_matches('"').to_owned()
}
