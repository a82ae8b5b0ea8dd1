//! Bad input, part 3: dmpool's own files, and another dmpool.

use std::fs;
use std::os::unix::fs::MetadataExt;

use lab::guest::disk::{Kind, LoopDisk, Mounted, fill};
use lab::guest::run::Cmd;
use lab::guest::sys::dmsetup;

use crate::support::pools::HandMade;
use crate::support::refusals::{REFUSED, Row, Table, row};
use crate::support::{Bench, volume};

const M: u64 = 1 << 20;

/// A pool is suspended for a moment when it grows: nothing that dmpool writes or reads then may be on it, whatever number
/// the file system in between makes up.
#[test]
fn a_pool_that_carries_the_state_directory_is_refused() {
    let bench = Bench::new();
    let pool = HandMade::new(&bench, "under", 256 * M, 8 * M);
    let name = bench.sweep.name("v");
    let device = volume(&pool.name, 0, &name, 128 * M);
    let on_it = Mounted::format(Kind::Ext4, &device, &bench.sweep.path("on-it")).unwrap();
    let overlay = Mounted::overlay(on_it.dir(), &bench.sweep.path("overlay")).unwrap();
    let inner = LoopDisk::create(&overlay.dir().join("disk"), 32 * M).unwrap();
    let inner = (Mounted::format(Kind::Ext4, inner.device(), &bench.sweep.path("inner")).unwrap(), inner);
    let table = || dmsetup(["table", &pool.name]).run().checked().unwrap().stdout;
    let before = table();
    // The file systems write to the pool by themselves: only the pool is compared.
    for dir in [&on_it, &overlay, &inner.0] {
        let state = dir.dir().join("state");
        let args = ["grow", &pool.name, "--overcommit", "+16M"];
        let ran = Cmd::new("dmpool").arg("--state-dir").arg(&state).args(args).run();
        let says = ran.stderr.contains("dmpool itself needs files that lie on it");
        assert!(ran.code() == Some(REFUSED) && says && ran.stderr.contains(&state.display().to_string()), "{ran}");
    }
    assert_eq!(table(), before);
    inner.0.unmount().unwrap();
    drop(inner.1);
    overlay.unmount().unwrap();
    on_it.unmount().unwrap();
    dmsetup(["remove", "--retry", &name]).run().checked().unwrap();
}

#[test]
fn registry_files_and_journals_that_cannot_be_used_are_refused() {
    let bench = Bench::new();
    let pool = bench.create();
    let mut table = Table::new(&bench);

    let path = bench.state.join("registry").join(format!("{pool}.toml"));
    let good = fs::read_to_string(&path).unwrap();
    let cut = &good[..good.len() / 2];
    for (what, text, why) in [
        ("corrupt", "\u{1}[[[", "it is not TOML"),
        ("newer", "format = 99\n", "a newer dmpool wrote it"),
        ("truncated", cut, ""),
        ("foreign", "answer = 42\n", "dmpool did not write it"),
        ("another pool's", &good.replace(&format!("\"{pool}\""), "\"another\""), "the entry of pool `another`"),
    ] {
        fs::write(&path, text).unwrap();
        let commands: [&[&str]; 4] =
            [&["grow", &pool, "2G"], &["activate", &pool], &["deactivate", &pool], &["destroy", &pool, "--yes"]];
        table.refuse(commands.map(|args| {
            let says = ["cannot use the registry's", why, "was not changed", ".broken"];
            row(&format!("{}: registry file: {what}", args[0]), bench.cmd(args), REFUSED, says)
        }));
    }
    fs::write(&path, &good).unwrap();

    let journals = bench.state.join("journal");
    let journal = journals.join("x.journal");
    for (what, bytes, why) in [
        ("corrupt", "dmpool-journal 1\n00000000 {}\n00000000 {}\n", "is damaged"),
        ("newer", "dmpool-journal 99\n", "a newer dmpool wrote it"),
        ("truncated", "dmpool-journal 1\n", "is damaged"),
        ("empty", "", "does not begin as a journal"),
        ("foreign", "#!/bin/sh\n", "does not begin as a journal"),
    ] {
        fs::write(&journal, bytes).unwrap();
        let commands: [&[&str]; 5] =
            [&["grow", &pool, "2G"], &["deactivate", &pool], &["destroy", &pool, "--yes"], &["continue"], &["undo"]];
        table.refuse(commands.map(|args| {
            let says = ["cannot use the journal", why, "was not changed", ".broken"];
            row(&format!("{}: journal: {what}", args[0]), bench.cmd(args), REFUSED, says)
        }));
        assert!(bench.run(&["status", &pool]).ok(), "reading works");
    }
    fs::remove_file(&journal).unwrap();
    table.end();
}

/// A command line that holds a lock file as another dmpool would, and says who it is.
fn held(path: &std::path::Path) -> lab::guest::run::Running {
    let script = format!("echo $$ dmpool grow elsewhere > {0}; exec 9<> {0}; flock 9; exec sleep 1000", path.display());
    let holder = Cmd::new("sh").args(["-c", &script]).start().unwrap();
    while !fs::read_to_string(format!("/proc/{}/comm", holder.pid())).is_ok_and(|name| name.trim() == "sleep") {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    holder
}

#[test]
fn a_second_dmpool_is_told_of_the_first() {
    let bench = Bench::new();
    let pool = bench.create();
    let locks = std::path::Path::new("/run/dmpool/lock");
    fs::create_dir_all(locks).unwrap();
    let found = fs::metadata(bench.file("metadata")).unwrap();
    let own = locks.join(format!("file-{}-{}.lock", found.dev(), found.ino()));
    let mut table = Table::new(&bench);
    let rows = |commands: &[&[&str]], pid: u32| -> Vec<Row> {
        let by = format!("process {pid}");
        let says = ["another dmpool is at work", by.as_str(), "dmpool grow elsewhere", "wait for it"];
        commands
            .iter()
            .map(|args| row(&format!("{}: a second dmpool", args[0]), bench.cmd(args), REFUSED, says))
            .collect()
    };
    let first = held(&own);
    table.refuse(rows(&[&["grow", &pool, "2G"], &["deactivate", &pool], &["destroy", &pool, "--yes"]], first.pid()));
    let _ = first.kill();
    let first = held(&locks.join("existence.lock"));
    let dir = bench.dir.to_str().unwrap();
    table.refuse(rows(&[&["create", "dmpool-test-new", "--data-size", "1G", "--dir", dir]], first.pid()));
    let _ = first.kill();
    table.end();
}

#[test]
fn a_full_state_disk_is_told_before_anything_is_begun() {
    let bench = Bench::new();
    let place = Mounted::tmpfs(&bench.sweep.path("small"), 2 << 20).unwrap();
    let cmd = |args: &[&str]| Cmd::new("dmpool").arg("--state-dir").arg(place.dir()).args(args);
    let dir = bench.dir.to_str().unwrap();
    let pool = bench.pool();
    cmd(&["create", &pool, "--data-size", "1G", "--dir", dir]).run().checked().unwrap();
    let filler = fill(place.dir()).unwrap();
    let mut table = Table::with(lab::guest::machine::Scope::new().tree(bench.sweep.dir()));
    let mount = place.dir().to_str().unwrap();
    let commands: [&[&str]; 3] = [&["grow", &pool, "2G"], &["deactivate", &pool], &["destroy", &pool, "--yes"]];
    table.refuse(commands.map(|args| {
        let says = ["journal cannot be written", "ENOSPC", "nothing was begun", "free:", "make room on", mount];
        row(&format!("{}: state disk full", args[0]), cmd(args), REFUSED, says)
    }));
    let create: &[&str] = &["create", "dmpool-test-new", "--data-size", "1G", "--dir", dir];
    let says = ["where it would be registered, is full", "free:", "make room on", mount];
    table.refuse([row("create: state disk full", cmd(create), REFUSED, says)]);
    fs::remove_file(filler).unwrap();

    place.set_read_only(true).unwrap();
    table.refuse([
        row("grow: state disk read-only", cmd(&["grow", &pool, "2G"]), REFUSED, ["EROFS", "remount,rw", mount]),
        row("create: state disk read-only", cmd(create), REFUSED, ["registered, is read-only", "remount,rw", mount]),
    ]);
    place.set_read_only(false).unwrap();
    table.end();
    cmd(&["destroy", &pool, "--yes"]).run().checked().unwrap();
}

/// The registry and the journals may be on two disks, as /etc and /var are.
#[test]
fn a_full_registry_disk_is_told_before_anything_is_begun() {
    let bench = Bench::new();
    let registry = Mounted::tmpfs(&bench.state.join("registry"), 1 << 20).unwrap();
    let pool = bench.create();
    fill(registry.dir()).unwrap();
    let dir = bench.dir.to_str().unwrap();
    let create = bench.cmd(&["create", "dmpool-test-new", "--data-size", "1G", "--dir", dir]);
    let mut table = Table::new(&bench);
    table.refuse([row("create: registry's disk full", create, REFUSED, ["is full", "free:", "make room on"])]);
    table.end();
    // What is there can be taken away all the same.
    bench.ok(&["destroy", &pool, "--yes", "--with-volumes"]);
}
