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
use crate::support::lvm::lvm_ok;
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
    let (table_on, of_lvm) = (disk("table", 560, 64), disk("pv", 630, 64));
    sh(&format!("echo 'size=32M' | sfdisk -q --no-reread --no-tell-kernel -X dos {}", table_on.path()));
    lvm_ok(&["pvcreate", "-y", &of_lvm.path()]);
    let mut alone = Table::with(Scope::new().tree(bench.sweep.dir()).content(labelled.path()));
    alone.refuse([refuse("another pool's label", &labelled.path(), &["of dmpool's pool", &spare, "dmpool destroy"])]);
    alone.end();
    // The same bytes on another disk, as a SAN makes them.
    let clone = disk("clone", 700, 64);
    sh(&format!("dd if={} of={} bs=1M iflag=direct oflag=direct status=none", labelled.path(), clone.path()));
    let (strange, path) = (disk("strange", 770, 64), disk("path", 840, 64));
    sh(&format!("printf data | dd of={} bs=1 seek=40M conv=notrunc,fsync status=none", strange.path()));
    let multipath = bench.sweep.name("mpath");
    let line = format!("0 131072 linear {} 0", path.path());
    dmsetup(["create", &multipath, "--uuid", &format!("mpath-{multipath}"), "--table", &line]).run().checked().unwrap();
    let member = disk("md", 980, 64);
    let has_md = Cmd::new("modprobe").arg("raid1").run().ok();
    if has_md {
        let make = "mdadm --create /dev/md117 --run --level=1 --raid-devices=2 --metadata=1.2 --assume-clean";
        sh(&format!("{make} {} missing", member.path()));
    }
    let root = Cmd::new("findmnt").args(["-no", "SOURCE", "/"]).run().checked().unwrap().stdout.trim().to_owned();
    let under = ["the root file system lies on it", "dmpool disks"];
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
        refuse("a label that a copy has too", &labelled.path(), &["of dmpool's pool", &spare, "it is a copy of"]),
        refuse("another pool's superblock", &thin.path(), &["metadata of a thin pool", "--wipe"]),
        refuse("a partition table", &table_on.path(), &["a partition table (dos)", "--wipe"]),
        refuse("of LVM", &of_lvm.path(), &["a physical volume of LVM (LVM2_member)", "--wipe"]),
        refuse("a copy of a labelled disk", &clone.path(), &[&spare, "also:", "it is a copy of", &labelled.path()]),
        refuse(
            "what nobody knows",
            &strange.path(),
            &["it is not blank", "the first at byte 41943040", "--wipe takes it"],
        ),
        refuse("a path", &path.path(), &["it is a path of the multipath device", &multipath, "instead"]),
        refuse("under /", &root, &under),
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
    let of_a_raid = refuse("of a RAID", &member.path(), &["held by md117", "also:", "a member of an md RAID"]);
    table.refuse(has_md.then_some(of_a_raid).into_iter().chain([
        grow(&["--add-device", &pool.path()], &["held by"]),
        grow(&["--add-device", &formatted.path()], &["ext4", "--wipe"]),
        grow(&["--add-device", &strange.path()], &["it is not blank", "--wipe takes it"]),
        grow(&["--add-device", &fine_path, "--add-device", &fine_path], &["named twice"]),
        grow(&["--metadata", "1G"], &["less than 1.0 GiB", "--metadata 7M"]),
        grow(&["1G"], &["less than 1.0 GiB", "--add-device"]),
    ]));
    table.end();
    dmsetup(["remove", "--retry", &multipath]).run().checked().unwrap();
    lvm_ok(&["pvremove", "-ff", "-y", &of_lvm.path()]);
    if has_md {
        sh("mdadm --stop /dev/md117");
    }
    drop((clone, member));
    sh(&format!("swapoff {}", swap.path()));
    dmsetup(["remove", "--retry", &volume]).run().checked().unwrap();
    drop(upper);
    for pool in [&other, &spare] {
        bench.ok(&["destroy", pool, "--yes", "--with-volumes"]);
    }
}
