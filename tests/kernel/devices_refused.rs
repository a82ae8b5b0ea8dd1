//! Disks that a pool must not be put on: each refused by name, and nothing touched.

use std::fs;
use std::path::Path;

use lab::guest::boot;
use lab::guest::disk::{Kind, LoopDisk, Mounted};
use lab::guest::machine::Scope;
use lab::guest::run::Cmd;
use lab::guest::sys::dmsetup;

use crate::support::Bench;
use crate::support::linear::Disk;
use crate::support::refusals::{REFUSED, Row, Table, USAGE, row};

const M: u64 = 1 << 20;

#[test]
fn disks_that_cannot_be_taken_are_refused() {
    let bench = Bench::new();
    let first = boot::scratch_disks().swap_remove(0);
    let disk = |name: &str, start: u64, mib: u64| Disk::new(&bench.sweep.name(name), &first, start, mib);
    let create = |args: &[&str]| bench.cmd(&[["create", "dmpool-test-new"].as_slice(), args].concat());
    let refuse = |name: &str, device: &str, says: &[&str]| -> Row {
        let says = ["cannot create pool `dmpool-test-new`", device].into_iter().chain(says.iter().copied());
        row(name, create(&["--data-device", device]), REFUSED, says.collect::<Vec<_>>())
    };

    let (fine, small) = (disk("fine", 0, 64), disk("small", 64, 3));
    let (formatted, mounted, swap) = (disk("ext4", 70, 64), disk("mounted", 140, 64), disk("swap", 210, 64));
    let (held, pool, labelled, thin) =
        (disk("held", 280, 64), disk("pool", 350, 64), disk("labelled", 420, 64), disk("thin", 490, 64));
    Kind::Ext4.format(Path::new(&formatted.path())).unwrap();
    let _mounted = Mounted::format(Kind::Ext4, Path::new(&mounted.path()), &bench.sweep.path("mnt")).unwrap();
    let sh = |script: &str| Cmd::new("sh").args(["-c", script]).run().checked().unwrap();
    sh(&format!("mkswap {0} && swapon {0}", swap.path()));
    let upper = Disk::new(&bench.sweep.name("upper"), Path::new(&held.path()), 0, 16);
    let other = bench.pool();
    bench.ok(&["create", &other, "--data-device", &pool.path()]);
    let spare = bench.sweep.name("spare");
    bench.ok(&["create", &spare, "--data-device", &labelled.path()]);
    bench.ok(&["deactivate", &spare]);
    // A pool that was made by hand leaves its superblock in the first block.
    let by_hand = bench.sweep.name("hand");
    let data = LoopDisk::create(&bench.sweep.path("data"), 16 * M).unwrap();
    let table = format!("0 {} thin-pool {} {} 128 0", 16 * M / 512, thin.path(), data.device().display());
    dmsetup(["create", &by_hand, "--table", &table]).run().checked().unwrap();
    dmsetup(["remove", "--retry", &by_hand]).run().checked().unwrap();
    let volume = bench.sweep.name("v");
    crate::support::volume(&other, 0, &volume, 32 * M);
    let read_only = LoopDisk::create(&bench.sweep.path("ro"), 64 * M).unwrap();
    sh(&format!("blockdev --setro {}", read_only.device().display()));
    fs::write(bench.sweep.path("file"), "").unwrap();
    let link = bench.sweep.path("link");
    std::os::unix::fs::symlink(fine.path(), &link).unwrap();

    let scope =
        Scope::new().tree(bench.sweep.dir()).content(fine.path()).content(formatted.path()).content(thin.path());
    let mut table = Table::with(scope.content(labelled.path()));
    let file = bench.sweep.path("file");
    let on_volume = format!("/dev/mapper/{volume}");
    let (fine_path, wiped) = (fine.path(), ["--data-device", &labelled.path(), "--wipe"].map(str::to_owned));
    let of = |args: &[&str], exit, says: &[&str]| row(&args.join(" "), create(args), exit, says.to_vec());
    table.refuse([
        refuse("missing", "/dev/no-such-disk", &["nothing of that name", "dmpool disks"]),
        refuse("no block device", file.to_str().unwrap(), &["no block device"]),
        refuse("a character device", "/dev/null", &["no block device"]),
        refuse("read-only", read_only.device().to_str().unwrap(), &["read-only", "blockdev --setrw"]),
        refuse("too small", &small.path(), &["3.0 MiB", "are the least"]),
        refuse("a file system", &formatted.path(), &["a file system (ext4)", "--wipe"]),
        refuse("mounted", &mounted.path(), &["mounted on", "umount"]),
        refuse("swap", &swap.path(), &["swapped on", "swapoff"]),
        refuse("held", &held.path(), &["held by", &bench.sweep.name("upper")]),
        refuse("a live pool's", &pool.path(), &["held by", "also:", &other]),
        refuse("another pool's label", &labelled.path(), &["of dmpool's pool", &spare, "dmpool destroy"]),
        refuse("another pool's superblock", &thin.path(), &["metadata of a thin pool", "--wipe"]),
        refuse("a thin volume", &on_volume, &["volume of a thin pool"]),
        of(&[&wiped[0], &wiped[1], &wiped[2]], REFUSED, &["of dmpool's pool", &spare]),
        of(&["--data-device", &fine_path, "--metadata-device", &fine_path], REFUSED, &["named twice"]),
        of(
            &["--data-device", &fine_path, "--data-device", link.to_str().unwrap()],
            REFUSED,
            &["named twice", "one device"],
        ),
        of(&["--data-device", &fine_path, "--stripe"], REFUSED, &["two devices", "--data-device"]),
        of(&["--data-device", &fine_path, "--stripe=3K"], REFUSED, &["two devices"]),
        of(&["--data-device", &fine_path, "--data-size", "1G"], REFUSED, &["less than 1.0 GiB", "--data-size 5"]),
        of(&["--data-device", &fine_path, "--metadata-size", "100M"], REFUSED, &["too small", "needed"]),
        of(&["--data-device", &fine_path, "--dir", "/srv"], USAGE, &["--dir"]),
        of(&["--metadata-device", &fine_path], USAGE, &["--data-device"]),
    ]);
    let grow = |args: &[&str], says: &[&str]| {
        let says = [format!(
            "cannot grow the {} of pool `{other}`",
            if args[0] == "--metadata" { "metadata" } else { "data" }
        )]
        .into_iter()
        .chain(says.iter().map(|word| (*word).to_owned()));
        row(
            &args.join(" "),
            bench.cmd(&[["grow", &other].as_slice(), args].concat()),
            REFUSED,
            says.collect::<Vec<_>>(),
        )
    };
    table.refuse([
        grow(&["--add-device", &pool.path()], &["held by"]),
        grow(&["--add-device", &formatted.path()], &["ext4", "--wipe"]),
        grow(&["--add-device", &fine_path, "--add-device", &fine_path], &["named twice"]),
        grow(&["--metadata", "1G"], &["less than 1.0 GiB", "--metadata 7M"]),
        grow(&["1G"], &["less than 1.0 GiB", "--add-device"]),
    ]);
    table.end();
    sh(&format!("swapoff {}", swap.path()));
    dmsetup(["remove", "--retry", &volume]).run().checked().unwrap();
    drop(upper);
    for pool in [&other, &spare] {
        bench.ok(&["destroy", pool, "--yes"]);
    }
}
