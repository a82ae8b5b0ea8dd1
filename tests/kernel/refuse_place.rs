//! Bad input, part 6: file systems that a pool must not lie on.

use std::fs;
use std::path::Path;

use lab::guest::boot;
use lab::guest::disk::{LoopDisk, Mounted};
use lab::guest::run::Cmd;

use crate::support::Bench;
use crate::support::pools::HandMade;
use crate::support::refusals::{REFUSED, Table, row};

const M: u64 = 1 << 20;

#[test]
fn a_file_system_without_sparse_files_is_refused() {
    let bench = Bench::new();
    let disk = LoopDisk::create(&bench.sweep.path("disk"), 64 * M).unwrap();
    Cmd::new("mkfs.vfat").arg(disk.device()).run().checked().unwrap();
    let vfat = Mounted::mount(disk.device(), &bench.sweep.path("vfat"), "defaults").unwrap();
    let create = |args: &[&str]| {
        bench
            .cmd(&["create", "dmpool-test-new", "--data-size", "30M", "--metadata-size", "4M", "--dir"])
            .arg(vfat.dir())
            .args(args)
    };
    let mut table = Table::new(&bench);
    table.refuse([[].as_slice(), &["--preallocate"]].map(|args| {
        let says = ["no sparse files", "no permissions", "vfat", "ext4 or xfs"];
        row(&format!("create: on vfat {}", args.join("")), create(args), REFUSED, says)
    }));
    table.end();
}

#[test]
fn files_of_another_machine_are_refused() {
    let bench = Bench::new();
    let Some(host) = Mounted::hostfs(&bench.sweep.path("host")).unwrap() else {
        boot::skip("only user mode Linux has a file system of its host's");
    };
    let not_own = ["not this machine's own (hostfs)", "next:"];
    let mut table = Table::new(&bench);
    let create = bench.cmd(&["create", "dmpool-test-new", "--data-size", "1G", "--dir"]).arg(host.dir());
    table.refuse([row("create: directory on a network file system", create, REFUSED, not_own)]);

    // A pool that was made on a local disk, and then moved.
    let (pool, dir) = (bench.pool(), bench.dir.to_str().unwrap());
    bench.ok(&["create", &pool, "--dir", dir, "--data-size", "32M", "--metadata-size", "4M"]);
    bench.ok(&["deactivate", &pool]);
    let local = bench.dir.join(&pool);
    Cmd::new("cp").args(["-a", "--sparse=always"]).args([&local, host.dir()]).run().checked().unwrap();
    let entry = bench.state.join("registry").join(format!("{pool}.toml"));
    let text = fs::read_to_string(&entry).unwrap();
    let moved = |path: &Path| path.to_str().unwrap().to_owned();
    fs::write(&entry, text.replace(&moved(&local), &moved(&host.dir().join(&pool)))).unwrap();
    let says = not_own.iter().chain(&["cp --sparse=always"]).copied();
    table.refuse([row("activate: loop file on a network file system", bench.cmd(&["activate", &pool]), REFUSED, says)]);
    fs::write(&entry, text).unwrap();
    bench.ok(&["destroy", &pool, "--yes", "--with-volumes"]);

    // A pool of somebody who did not care.
    let other = HandMade::at(&bench, host.dir(), "other", 64 * M, 8 * M);
    let grow = |what: &str, args: &[&str]| {
        row(
            &format!("grow: {what} on a network file system"),
            bench.cmd(&["grow", &other.name]).args(args),
            REFUSED,
            not_own,
        )
    };
    table.refuse([grow("data", &["128M"]), grow("metadata", &["--metadata", "16M"])]);
    table.end();
}
