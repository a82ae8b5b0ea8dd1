//! Pools on disks that no registry here knows: their devices come from another machine, or the entry is lost.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use lab::guest::boot;

use crate::case::died;
use crate::support::linear::Disk;
use crate::support::refusals::{REFUSED, Table, row};
use crate::support::{Bench, exists};

/// The same machine as another one sees it: with a registry of its own.
fn elsewhere(name: &str) -> Bench {
    let bench = Bench::new();
    let base = bench.sweep.path(name);
    bench.at(&base)
}

fn uuid(bench: &Bench) -> String {
    let entry = bench.state.join("registry").join(format!("{}.toml", bench.pool()));
    let entry: toml::Table = fs::read_to_string(entry).unwrap().parse().unwrap();
    entry["uuid"].as_str().unwrap().to_owned()
}

/// The volumes of a pool whose record is lost come back, and nothing in the pool changes.
fn adopts(bench: &Bench, pool: &str) {
    let list = || {
        let listed: serde_json::Value =
            serde_json::from_str(&bench.ok(&["thin", "list", pool, "--format", "json"])).unwrap();
        listed["pools"][0].clone()
    };
    let lost = bench.run(&["thin", "create", pool, "more", "--size", "1M"]);
    assert!(lost.code() == Some(3) && lost.stderr.contains(&format!("dmpool thin adopt {pool}")), "{lost}");
    assert!(!lost.stderr.contains("set_transaction_id"), "{lost}");
    let before = list();
    assert_eq!(before["unknown_volumes"].as_array().unwrap().len(), 2, "{before:#}");
    let short = bench.run(&["thin", "adopt", pool, "1", "--size", "4M"]);
    assert!(short.code() == Some(3) && short.stderr.contains("--size 5184K"), "{short}");
    bench.ok(&["thin", "adopt", pool, "1", "--name", "web", "--size", "16M"]);
    let one = list();
    assert_eq!((one["volumes"].as_array().unwrap().len(), &one["transaction_id"]), (1, &before["transaction_id"]));
    let ran = bench.run(&["thin", "adopt", pool]);
    assert!(
        ran.ok() && ran.stderr.contains("the id 2 is `thin-2`, 64.0 KiB") && ran.stderr.contains("a guess"),
        "{ran}"
    );
    assert!(bench.ok(&["thin", "adopt", pool]).contains("unchanged"));
    bench.ok(&["thin", "grow", pool, "thin-2", "32M"]);
    bench.ok(&["activate", pool]);
    let mut found = [0; 6];
    File::open(format!("/dev/mapper/{pool}-web")).unwrap().read_exact_at(&mut found, 5 << 20).unwrap();
    assert_eq!(&found, b"theirs");

    // Killed in the middle: taken back, and finished.
    let record = bench.state.join("volumes").join(format!("{pool}.toml"));
    let good = fs::read_to_string(&record).unwrap();
    fs::remove_file(&record).unwrap();
    for (fault, verb, names) in [("1:after:die", "undo", 0), ("1:before:die", "continue", 2)] {
        let ran = bench.cmd(&["thin", "adopt", pool]).env("DMPOOL_FAULT", fault).run();
        assert!(died(&ran), "{ran}");
        bench.ok(&[verb]);
        assert_eq!(list()["volumes"].as_array().unwrap().len(), names, "{verb}");
    }
    assert_eq!(list()["volumes"][0]["size"], 16 << 20, "as long as its device, which is up");
    fs::write(&record, good).unwrap();
    bench.ok(&["thin", "create", pool, "more", "--size", "1M"]);
    bench.ok(&["thin", "remove", pool, "more", "--yes"]);
}

#[test]
fn a_pool_whose_labels_are_here_is_registered_when_that_is_said_and_not_before() {
    let (bench, other, third) = (Bench::with_faults(), elsewhere("other"), elsewhere("third"));
    let [first, second, _] = <[PathBuf; 3]>::try_from(boot::scratch_disks()).unwrap();
    let (pool, [a, b]) = (bench.pool(), ["a", "b"].map(|name| bench.sweep.name(name)));
    let disks = [Disk::new(&a, &first, 64, 64), Disk::new(&b, &second, 64, 64)];
    let [path, other_path] = disks.each_ref().map(Disk::path);
    bench.ok(&["create", &pool, "--data-device", &path]);
    bench.ok(&["thin", "create", &pool, "web", "--size", "16M"]);
    let put = |name: &str, at: u64, bytes: &[u8]| {
        let device = OpenOptions::new().write(true).open(format!("/dev/mapper/{pool}-{name}")).unwrap();
        device.write_all_at(bytes, at).unwrap();
        device.sync_all().unwrap();
    };
    put("web", 5 << 20, b"theirs");
    bench.ok(&["thin", "create", &pool, "empty", "--size", "32M"]);
    let (of_pool, total) = (uuid(&bench), bench.number("/pool/data/total"));
    let gone = bench.run(&["destroy", &pool, "--keep-data", "--with-volumes", "--yes"]);
    assert!(gone.ok() && gone.stderr.contains(&format!("dmpool activate {pool} --register")), "{gone}");

    let mut table = Table::new(&bench);
    let says = ["is not registered here, and its labels are", &path, "--register"];
    table.refuse([
        row("activate: labels only", bench.cmd(&["activate", &pool]), REFUSED, says),
        row("activate: by its uuid", bench.cmd(&["activate", &of_pool]), REFUSED, says),
        row("deactivate: labels only", bench.cmd(&["deactivate", &pool]), REFUSED, says),
        row("destroy: labels only", bench.cmd(&["destroy", &pool, "--yes"]), REFUSED, says),
        row("create: on its device", bench.cmd(&["create", "x", "--data-device", &path]), REFUSED, ["--register"]),
        row(
            "register: no labels",
            bench.cmd(&["activate", "none", "--register"]),
            REFUSED,
            ["pool `none`: there is no such pool"],
        ),
    ]);
    let described = bench.ok(&["activate", &pool, "--register", "--dry-run"]);
    assert!(described.contains("register the pool"), "{described}");
    table.end();

    let made = bench.run(&["activate", &pool, "--register"]);
    assert!(made.ok() && made.stdout.contains("registered pool") && made.stderr.contains("thin adopt"), "{made}");
    let health = bench.run(&["health", &pool]);
    assert!(health.stdout.contains("INFO: 2 volumes in it are not in its record"), "{health}");
    adopts(&bench, &pool);

    assert_eq!((bench.number("/pool/data/total"), uuid(&bench)), (total, of_pool.clone()));
    bench.ok(&["activate", &pool, "--register"]);

    // The entry is lost while the pool is up.
    fs::remove_file(bench.state.join("registry").join(format!("{pool}.toml"))).unwrap();
    let health = bench.run(&["health", &pool]);
    let said = format!("$ dmpool activate {pool} --register");
    assert!(health.stdout.contains("WARNING: it is not registered") && health.stdout.contains(&said), "{health}");
    let described = bench.ok(&["activate", &pool, "--register", "--dry-run"]);
    assert!(described.contains("  1. register the pool") && !described.contains("  2. "), "{described}");
    bench.ok(&["activate", &pool, "--register"]);
    bench.ok(&["deactivate", &pool]);

    // The disk of another machine's pool of the same name.
    other.ok(&["create", &pool, "--data-device", &other_path]);
    other.ok(&["deactivate", &pool]);
    let of_other = uuid(&other);
    let mut table = Table::new(&bench);
    table.refuse([
        row(
            "register: name is taken",
            bench.cmd(&["activate", &of_other, "--register"]),
            REFUSED,
            ["another pool of that name is registered"],
        ),
        row(
            "register: labels of several",
            third.cmd(&["activate", &pool, "--register"]),
            REFUSED,
            ["labels of several", &of_pool, &of_other, &path, &other_path],
        ),
    ]);
    table.end();
    third.ok(&["activate", &of_other, "--register"]);
    assert!(exists(&pool) && uuid(&third) == of_other);
    for bench in [&third, &bench] {
        bench.ok(&["destroy", &pool, "--with-volumes", "--yes"]);
    }
    drop(disks);
}
