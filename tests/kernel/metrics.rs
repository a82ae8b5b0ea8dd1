//! `dmpool metrics`: what it writes where, and what it remembers.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use lab::guest::disk::LoopDisk;
use lab::guest::run::Cmd;
use serde_json::{Value, json};

use crate::support::Bench;

/// The value of a sample.
fn value<'t>(text: &'t str, series: &str) -> Option<&'t str> {
    text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))
}

fn now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
}

#[test]
fn metrics_are_whole_and_the_history_tells_when_a_pool_is_full() {
    let bench = Bench::new();
    let pool = bench.create();
    let labels = format!("{{pool=\"{pool}\",root=\"\",user=\"unknown\"}}");
    let first = bench.ok(&["metrics"]);
    Cmd::new("promtool").args(["check", "metrics"]).stdin(first.clone()).run().checked().unwrap();
    assert_eq!(value(&first, &format!("dmpool_pool_data_size_bytes{labels}")), Some("1073741824"));
    assert_eq!(value(&first, "dmpool_run_success"), Some("1"));
    assert_eq!(value(&first, "dmpool_history_success"), Some("1"));
    assert!(!first.contains("dmpool_pool_time_to_full_seconds"), "nothing is known yet, and nothing is said");
    // Findings that only `health` looks for: of the pool, and of the machine.
    let boot = format!(
        "dmpool_pool_findings{{pool=\"{pool}\",root=\"\",user=\"unknown\",key=\"no_boot_activation\",severity=\"warning\"}}"
    );
    assert_eq!(value(&first, &boot), Some("1"), "{first}");
    let stray = "dmpool_machine_findings{severity=\"warning\"}";
    assert_eq!(value(&first, stray), Some("0"), "{first}");
    {
        let deleted = bench.dir.join("deleted");
        let _loop = LoopDisk::create(&deleted, 16 << 20).unwrap();
        fs::remove_file(&deleted).unwrap();
        assert_eq!(value(&bench.ok(&["metrics"]), stray), Some("1"));
    }
    let written: u64 = value(&first, "dmpool_run_timestamp_seconds").unwrap().parse().unwrap();
    assert!(now().abs_diff(written) < 3600);
    assert!(bench.ok(&["status", &pool]).contains("Growth: unknown"));

    // Ten days in which it lost 48 MiB a day to somebody who has deleted it all since: what counts is the days.
    let file = bench.state.join("history.json");
    let mut history: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    let total = 1_u64 << 30;
    let metadata = history["pools"][0]["points"][0][3].clone();
    let days =
        (1..40).rev().map(|n: u64| json!([now() - n * 21_600, (40 - n) * (12 << 20), total, metadata, 16 << 20, null]));
    history["pools"][0]["points"] = days.collect();
    fs::write(&file, history.to_string()).unwrap();
    let second = bench.ok(&["metrics"]);
    Cmd::new("promtool").args(["check", "metrics"]).stdin(second.clone()).run().checked().unwrap();
    let growth = format!("dmpool_pool_data_growth_bytes_per_second{labels}");
    assert_eq!(value(&second, &growth), Some("582.542"), "48 MiB a day");
    let seconds: u64 = value(&second, &format!("dmpool_pool_time_to_full_seconds{labels}")).unwrap().parse().unwrap();
    assert_eq!(seconds / 86_400, 21, "1 GiB at 48 MiB a day");
    let status = bench.ok(&["status", &pool]);
    assert!(status.contains("Growth: 48.0 MiB a day, full in 21 days (the pool's data)"), "{status}");
    assert!(bench.ok(&["list"]).contains("21 days"));
    let list: Value = serde_json::from_str(&bench.ok(&["list", "--format", "json"])).unwrap();
    assert_eq!(list["pools"][0]["full"]["limit"], "pool");
    assert_eq!(list["hostname"].as_str(), Some(Cmd::new("uname").arg("-n").run().stdout.trim()));
    let saved = bench.dir.join("list.json");
    fs::write(&saved, list.to_string()).unwrap();
    let merged = bench.ok(&["list", "--from", saved.to_str().unwrap()]);
    assert!(merged.contains("21 days") && merged.contains(&pool), "{merged}");

    // Inactive, it is told from its superblock; `status` and `list` have written nothing.
    let before = fs::read(&file).unwrap();
    bench.ok(&["deactivate", &pool]);
    bench.ok(&["status", &pool]);
    assert_eq!(fs::read(&file).unwrap(), before);
    let down = bench.ok(&["metrics"]);
    assert_eq!(value(&down, &format!("dmpool_pool_active{labels}")), Some("0"));
    assert_eq!(value(&down, &format!("dmpool_pool_data_size_bytes{labels}")), Some("1073741824"));
    assert!(!down.contains("dmpool_pool_mode"), "a pool that is not active has no mode");
    bench.ok(&["activate", &pool]);
    bench.ok(&["destroy", &pool, "--yes", "--with-volumes"]);
    assert_eq!(value(&bench.ok(&["metrics"]), "dmpool_pools"), Some("0"));
}

#[test]
fn a_history_that_cannot_be_used_is_named_and_stops_no_metrics() {
    let bench = Bench::new();
    let pool = bench.create();
    bench.ok(&["metrics"]);
    let file = bench.state.join("history.json");
    let good = fs::read_to_string(&file).unwrap();
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o7777, 0o600);

    // Torn: named, begun anew, and well again with the next run.
    fs::write(&file, &good[..good.len() / 2]).unwrap();
    assert!(bench.ok(&["status", &pool]).contains("Not Read: the history"));
    let ran = bench.run(&["metrics"]);
    assert_eq!(ran.code(), Some(5), "{ran}");
    assert!(ran.stderr.contains("was damaged and is begun anew"), "{ran}");
    assert_eq!(value(&ran.stdout, "dmpool_history_success"), Some("0"));
    assert!(ran.stdout.contains("dmpool_pool_data_used_bytes"), "{ran}");
    bench.ok(&["metrics"]);

    // While another run has it: this one's point is lost, and it says so.
    let lock = std::path::Path::new("/run/dmpool/lock/history.lock");
    let before = fs::read(&file).unwrap();
    let words = ["--state-dir", bench.state.to_str().unwrap(), "metrics"];
    let ran = Cmd::new("flock").arg(lock).arg("dmpool").args(words).run();
    assert!(ran.code() == Some(5) && ran.stderr.contains("another dmpool is at work"), "{ran}");
    assert!(ran.stdout.contains("dmpool_pool_data_used_bytes"), "{ran}");
    assert_eq!(fs::read(&file).unwrap(), before);

    // A newer dmpool's: named, and left alone.
    let newer = good.replace("\"format\":1", "\"format\":7");
    fs::write(&file, &newer).unwrap();
    let ran = bench.run(&["metrics"]);
    assert!(ran.code() == Some(5) && ran.stderr.contains("a newer dmpool wrote it"), "{ran}");
    assert_eq!(fs::read_to_string(&file).unwrap(), newer);
    bench.ok(&["destroy", &pool, "--yes", "--with-volumes"]);
}

#[test]
fn the_file_is_replaced_whole_or_not_at_all() {
    let bench = Bench::new();
    let pool = bench.create();
    let file = bench.dir.join("dmpool.prom");
    let path = file.to_str().unwrap();
    fs::write(&file, "old\n").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(bench.ok(&["metrics", "-o", path]), "");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o7777, 0o644, "node_exporter is not root");
    let whole = fs::read_to_string(&file).unwrap();
    assert!(whole.ends_with('\n') && whole.contains(&pool));

    // No link is followed, no device replaced.
    let link = bench.dir.join("link.prom");
    symlink(&file, &link).unwrap();
    let null = "/dev/null";
    for (target, why) in
        [(link.to_str().unwrap(), "a symbolic link"), (null, "no regular file"), ("/etc", "no regular file")]
    {
        let ran = bench.run(&["metrics", "-o", target]);
        assert!(ran.code() == Some(3) && ran.stderr.contains(why), "{target}: {ran}");
    }
    assert!(link.is_symlink() && fs::metadata(null).is_ok_and(|found| !found.is_file()));
    assert_eq!(fs::read_to_string(&file).unwrap(), whole);

    // A full file system: the old file stays, and nothing beside it.
    let small = bench.sweep.subdir("small").unwrap();
    let at = small.to_str().unwrap();
    Cmd::new("mount").args(["-t", "tmpfs", "-o", "size=64k", "tmpfs", at]).run().checked().unwrap();
    let target = small.join("dmpool.prom");
    fs::write(&target, "old\n").unwrap();
    let filled = fs::write(small.join("filler"), vec![1_u8; 128 << 10]);
    let ran = bench.run(&["metrics", "-o", target.to_str().unwrap()]);
    let (left, names) = (fs::read_to_string(&target).unwrap(), fs::read_dir(&small).unwrap().count());
    Cmd::new("umount").arg(at).run().checked().unwrap();
    assert!(filled.is_err(), "it is full");
    assert!(ran.code() == Some(1) && ran.stderr.contains("ENOSPC"), "{ran}");
    assert_eq!((left.as_str(), names), ("old\n", 2));
    let target = bench.dir.join("no/such/dmpool.prom");
    let ran = bench.run(&["metrics", "-o", target.to_str().unwrap()]);
    assert_eq!(ran.code(), Some(1), "{ran}");
    let make = ran.stderr.lines().find_map(|line| line.trim().strip_prefix("next:")).unwrap();
    Cmd::new("sh").args(["-c", make]).run().checked().unwrap();
    bench.ok(&["metrics", "-o", target.to_str().unwrap()]);
    bench.ok(&["destroy", &pool, "--yes", "--with-volumes"]);
}
