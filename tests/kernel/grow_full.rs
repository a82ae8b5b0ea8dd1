//! Growing is the rescue: of a full pool within and after its grace, of full metadata, of pools made by hand.

use std::path::Path;
use std::time::{Duration, Instant};

use dmpool::kernel::dm::{Dm, DmId};
use lab::guest::run::{Cmd, Running};

use crate::support::pools::{HandMade, NoSpaceTimeout};
use crate::support::{Bench, volume};

const M: u64 = 1 << 20;

/// A pool's status as JSON.
fn status(bench: &Bench, pool: &str) -> serde_json::Value {
    serde_json::from_str(&bench.ok(&["status", pool, "--format", "json"])).unwrap()
}

/// Writes that many MiB to a device, past the page cache.
fn write(device: &Path, mebibytes: u64) -> Running {
    let count = format!("count={mebibytes}");
    let cmd = Cmd::new("dd").args(["if=/dev/zero", "bs=1M", "oflag=direct", &count]);
    cmd.arg(format!("of={}", device.display())).limit(Duration::from_secs(120)).start().unwrap()
}

/// Waits until the pool's status has that word under that key.
fn wait_for(bench: &Bench, pool: &str, key: &str, wanted: &serde_json::Value) {
    let until = Instant::now() + Duration::from_secs(50);
    loop {
        let found = status(bench, pool);
        if found.pointer(key) == Some(wanted) {
            return;
        }
        assert!(Instant::now() < until, "{key} does not become {wanted}: {found:#}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_full_pool_is_rescued_within_its_grace_without_an_error() {
    let bench = Bench::new();
    let other = HandMade::new(&bench, "full", 64 * M, 8 * M);
    let device = volume(&other.name, 0, &bench.sweep.name("v"), 256 * M);
    let writer = write(&device, 100);
    wait_for(&bench, &other.name, "/pool/mode", &"out_of_data_space".into());
    bench.ok(&["grow", &other.name, "256M"]);
    let ended = writer.wait();
    assert!(ended.ok(), "the writer saw an error: {ended}");
    let after = status(&bench, &other.name);
    assert_eq!(after.pointer("/pool/mode"), Some(&"rw".into()));
    assert_eq!(after.pointer("/pool/data/total"), Some(&(256 * M).into()));
}

#[test]
fn a_pool_that_gave_up_is_rescued_and_the_loss_is_told() {
    let bench = Bench::new();
    let other = HandMade::new(&bench, "full", 64 * M, 8 * M);
    let device = volume(&other.name, 0, &bench.sweep.name("v"), 256 * M);
    let timeout = NoSpaceTimeout::seconds(1);
    let ended = write(&device, 100).wait();
    assert!(!ended.ok() && ended.stderr.contains("No space left"), "{ended}");
    drop(timeout);
    assert_eq!(status(&bench, &other.name).pointer("/pool/gave_up_queueing"), Some(&true.into()));
    let ran = bench.run(&["grow", &other.name, "256M"]);
    assert!(ran.ok() && ran.stderr.contains("acknowledged were lost"), "{ran}");
    let after = status(&bench, &other.name);
    assert_eq!(after.pointer("/pool/mode"), Some(&"rw".into()));
    assert_eq!(after.pointer("/pool/gave_up_queueing"), Some(&false.into()));
    let ended = write(&device, 100).wait();
    assert!(ended.ok(), "{ended}");
}

#[test]
fn full_metadata_is_rescued() {
    let bench = Bench::new();
    let other = HandMade::new(&bench, "full", 64 * M, 2 * M);
    let dm = Dm::open().unwrap();
    let id = DmId::name(&other.name);
    // Each volume takes a block of metadata; the kernel refuses messages once the pool is read-only.
    let made = (0..2000).take_while(|n| dm.message(&id, &format!("create_thin {n}")).is_ok()).count();
    let full = status(&bench, &other.name);
    assert_eq!(full.pointer("/pool/mode"), Some(&"ro".into()), "after {made} volumes: {full:#}");
    bench.ok(&["grow", &other.name, "--metadata", "16M"]);
    let after = status(&bench, &other.name);
    assert_eq!(after.pointer("/pool/mode"), Some(&"rw".into()));
    assert_eq!(after.pointer("/pool/metadata/total"), Some(&(16 * M).into()));
    dm.message(&id, "create_thin 5000").unwrap();
}
