//! Bad input, part 1: who asks, and what is typed.

use std::fs;

use lab::guest::disk::{LoopDisk, Mounted};
use lab::guest::run::Cmd;
use lab::guest::sys::dmsetup;

use crate::support::Bench;
use crate::support::refusals::{REFUSED, Row, Table, USAGE, row};

/// Every command, as somebody would type it who means this pool.
fn every_command(pool: &str) -> Vec<Vec<&str>> {
    vec![
        vec!["status", pool],
        vec!["list"],
        vec!["create", "dmpool-test-new"],
        vec!["grow", pool, "2G"],
        vec!["activate", pool],
        vec!["deactivate", pool],
        vec!["destroy", pool, "--yes"],
        vec!["continue"],
        vec!["undo"],
    ]
}

/// A dmpool command line behind another program, as `setpriv … dmpool …`.
fn behind(bench: &Bench, program: &[&str], args: &[&str]) -> Cmd {
    Cmd::new(program[0]).args(&program[1..]).args(["dmpool", "--state-dir"]).arg(&bench.state).args(args)
}

#[test]
fn who_may_not_is_refused() {
    let bench = Bench::new();
    let pool = bench.create();
    let mut table = Table::new(&bench);
    let commands = every_command(&pool);
    table.refuse(commands.iter().map(|args| {
        let cmd = bench.cmd(args).user(65534, 65534);
        row(&format!("{}: not root", args[0]), cmd, REFUSED, ["device-mapper", "only be used by root", "sudo dmpool"])
    }));
    // What a container without --privileged has.
    let powerless = ["setpriv", "--bounding-set", "-sys_admin"];
    table.refuse([["status", &pool].as_slice(), &["grow", &pool, "2G"]].map(|args| {
        let cmd = behind(&bench, &powerless, args);
        row(&format!("{}: root without its capability", args[0]), cmd, REFUSED, ["CAP_SYS_ADMIN"])
    }));
    table.end();
}

#[test]
fn a_kernel_without_device_mapper_is_named() {
    let bench = Bench::new();
    let pool = bench.create();
    // What such a machine looks like from a namespace of its own: no control node, and no number for it.
    let misc = bench.sweep.path("misc");
    fs::write(&misc, "237 loop-control\n").unwrap();
    let hide = format!(
        "mount -t tmpfs none /dev/mapper && mount --bind {} /proc/misc && mount -t tmpfs none /sys/module && \
         mount -t tmpfs none /lib/modules && exec dmpool --state-dir {} \"$@\"",
        misc.display(),
        bench.state.display()
    );
    let mut table = Table::new(&bench);
    table.refuse(every_command(&pool).iter().map(|args| {
        let cmd = Cmd::new("unshare").args(["--mount", "sh", "-c", &hide, "sh"]).args(args);
        let says = ["cannot use device-mapper", "no device-mapper", "`dm_mod`", "dm_thin_pool", "kernel"];
        row(&format!("{}: no device-mapper", args[0]), cmd, REFUSED, says)
    }));
    table.end();
}

#[test]
fn bad_names_are_refused() {
    let bench = Bench::new();
    let pool = bench.create();
    let dir = bench.dir.to_str().unwrap().to_owned();
    let mut table = Table::new(&bench);

    let long = "x".repeat(121);
    let bad = [
        ("empty", "", "it is empty"),
        ("long", &long, "120 is the most"),
        ("slash", "a/b", "'/' is neither"),
        ("parent", "..", "begin with a letter"),
        ("blank", "a b", "' ' is neither"),
        ("line end", "a\nb", "is neither"),
        ("not ASCII", "pöl", "'ö' is neither"),
        ("reserved: docker", "docker", "Docker's own pool"),
        ("reserved: a part's", "p_tdata", "_tdata and _tmeta"),
        ("a size", "20G", "read it as a size"),
        ("max", "max", "read it as a size"),
        ("device-mapper's own", "control", "/dev/mapper/control"),
    ];
    table.refuse(bad.iter().flat_map(|(name, text, why)| {
        [row(&format!("create: name: {name}"), bench.cmd(&["create", text, "--dir", &dir]), USAGE, [*why, "pool name"])]
    }));
    // Others give names that dmpool does not: there the answer is that there is no such pool.
    table.refuse(bad.iter().flat_map(|(name, text, _)| {
        let commands: [&[&str]; 2] = [&["activate", text], &["destroy", text, "--yes"]];
        let says = match *text {
            "" => ["is not a device-mapper name or uuid", "next:   dmpool list"],
            "docker" => ["there is no Docker root with a devicemapper pool here", "next:   dmpool status --root DIR"],
            _ => ["there is no such pool", "next:   dmpool list"],
        };
        commands.map(|args| row(&format!("{}: name: {name}", args[0]), bench.cmd(args), REFUSED, says))
    }));
    table.refuse([
        row("create: name: an option", bench.cmd(&["create", "-p0", "--dir", &dir]), USAGE, ["-p", "--help"]),
        row("create: no name", bench.cmd(&["create", "--dir", &dir]), USAGE, ["POOL", "--help"]),
    ]);

    let nobody: [(&str, Vec<&str>); 5] = [
        ("status", vec!["status", "dmpool-test-none"]),
        ("grow", vec!["grow", "dmpool-test-none", "2G"]),
        ("activate", vec!["activate", "dmpool-test-none"]),
        ("deactivate", vec!["deactivate", "dmpool-test-none"]),
        ("destroy", vec!["destroy", "dmpool-test-none", "--yes"]),
    ];
    table.refuse(nobody.iter().map(|(name, args)| {
        let says = ["`dmpool-test-none`", "dmpool list"];
        row(&format!("{name}: no such pool"), bench.cmd(args), REFUSED, says)
    }));
    table.refuse([
        row(
            "grow: a path that is no pool",
            bench.cmd(&["grow", "/nowhere", "2G"]),
            REFUSED,
            ["`/nowhere`", "Docker root"],
        ),
        row(
            "continue: no such journal",
            bench.cmd(&["continue", "p9"]),
            REFUSED,
            ["`p9`", "none at all", "dmpool list"],
        ),
        row("undo: no such journal", bench.cmd(&["undo", "p9"]), REFUSED, ["`p9`", "none at all", "dmpool list"]),
    ]);

    // Taken: by a registered pool, by another device, by a device with a part's name.
    for name in ["taken", "part_tdata", "other_tmeta"] {
        dmsetup(["create", &bench.sweep.name(name), "--table", "0 8 zero"]).run().checked().unwrap();
    }
    let create = |name: &str| bench.cmd(&["create", name, "--dir", &dir, "--data-size", "1G"]);
    let taken = |what: &str, name: &str, device: &str| {
        row(what, create(name), REFUSED, ["a device has that name", device, "choose another name"])
    };
    table.refuse([
        row("create: registered already", create(&pool), REFUSED, ["registered already", "--ensure", pool.as_str()]),
        row(
            "create --ensure: there otherwise",
            bench.cmd(&["create", &pool, "--dir", &dir, "--data-size", "2G", "--metadata-size", "16M", "--ensure"]),
            REFUSED,
            ["is not the same", "1.0 GiB", "2.0 GiB", "dmpool grow"],
        ),
        taken("create: a device's name", "dmpool-test-taken", "`dmpool-test-taken`"),
        taken("create: the data device's name", "dmpool-test-part", "`dmpool-test-part_tdata`"),
        taken("create: the metadata device's name", "dmpool-test-other", "`dmpool-test-other_tmeta`"),
        row(
            "grow: a device that is no pool",
            bench.cmd(&["grow", "dmpool-test-taken", "2G"]),
            REFUSED,
            ["`dmpool-test-taken`", "zero device, no thin pool", "dmpool list"],
        ),
    ]);
    table.end();
}

/// A size, and what is said of it; exit 2 where it is none, 3 where it is one that cannot be had.
fn sizes<'a>(pool: &'a str, cmd: impl Fn(&str) -> Cmd + 'a) -> Vec<Row> {
    let bad = [
        ("zero", "0", "it is zero"),
        ("zero with a unit", "0G", "it is zero"),
        ("negative", "-5G", "-5"),
        ("fractional", "1.5G", "whole number"),
        ("absurd unit", "10Q", "unit"),
        ("no number", "G", "begin with a number"),
        ("a word", "much", "begin with a number"),
        ("empty", "", "it is empty"),
        ("2^63", "9223372036854775808", "2^63"),
        ("2^64 and more", "99999999999999999999", "2^63"),
        ("overflowing", "9000000P", "2^63"),
    ];
    bad.iter().map(|(name, text, why)| row(&format!("{pool}: {name}"), cmd(text), USAGE, [*why])).collect()
}

#[test]
fn bad_sizes_are_refused() {
    let bench = Bench::new();
    let pool = bench.create();
    let dir = bench.dir.to_str().unwrap().to_owned();
    let mut table = Table::new(&bench);
    let create = |args: &[&str]| bench.cmd(&["create", "dmpool-test-new", "--dir", &dir]).args(args);

    table.refuse(sizes("create --data-size", |size| create(&["--data-size", size])));
    table.refuse(sizes("create --metadata-size", |size| create(&["--metadata-size", size])));
    table.refuse(sizes("grow", |size| bench.cmd(&["grow", &pool, size])));
    table.refuse(sizes("grow --metadata", |size| bench.cmd(&["grow", &pool, "--metadata", size])));

    let new = "`dmpool-test-new`";
    table.refuse([
        row(
            "create: less than a block",
            create(&["--data-size", "4K"]),
            REFUSED,
            [new, "less than one block", "64.0 KiB"],
        ),
        row(
            "create: not whole blocks",
            create(&["--data-size", "100001K"]),
            REFUSED,
            [new, "whole number of blocks", "--data-size"],
        ),
        row("create: too little metadata", create(&["--metadata-size", "1M"]), REFUSED, [new, "too small", "2.0 MiB"]),
        row(
            "create: metadata that cannot map the data",
            create(&["--data-size", "1T", "--metadata-size", "16M"]),
            REFUSED,
            [new, "cannot map its data", "--metadata-size", "--block-size"],
        ),
        row(
            "create: metadata beyond 15.875 GiB",
            create(&["--metadata-size", "16G"]),
            REFUSED,
            [new, "15.9 GiB", "17045913600"],
        ),
        row(
            "create: absurd",
            create(&["--data-size", "8191P"]),
            REFUSED,
            [new, "cannot hold a file of that length", "smaller --data-size"],
        ),
        row("create: block size 0", create(&["--block-size", "0"]), USAGE, ["it is zero"]),
        row("create: block size 63K", create(&["--block-size", "63K"]), USAGE, ["not a block size"]),
        row("create: block size 100K", create(&["--block-size", "100K"]), USAGE, ["not a block size"]),
        row("create: block size 2G", create(&["--block-size", "2G"]), USAGE, ["not a block size"]),
        row(
            "create: block size 100 bytes",
            create(&["--block-size", "100"]),
            USAGE,
            ["not a block size", "the nearest is 64K"],
        ),
        row("create: block size 10K", create(&["--block-size", "10K"]), USAGE, ["the nearest is 64K"]),
        row("create: --wipe without disks", create(&["--wipe"]), USAGE, ["--wipe is about disks", "--data-device"]),
        row("create: --stripe with a blank", create(&["--stripe", "64K"]), USAGE, ["tip:", "--stripe=64K"]),
        row("create: low water -1", create(&["--low-water", "-1"]), USAGE, ["`-1` is not a number of blocks"]),
        row("create: low water 1G", create(&["--low-water", "1G"]), USAGE, ["`1G` is not a number of blocks"]),
        row("create: when full", create(&["--when-full", "cry"]), USAGE, ["queue", "error"]),
    ]);

    let grow = |args: &[&str]| bench.cmd(&["grow", &pool]).args(args);
    let named = format!("`{pool}`");
    table.refuse([
        row("grow: smaller than now", grow(&["512M"]), REFUSED, [&named, "cannot be made smaller", "1.0 GiB"]),
        row(
            "grow: metadata smaller than now",
            grow(&["--metadata", "8M"]),
            REFUSED,
            [&named, "cannot be made smaller", "16.0 MiB"],
        ),
        row(
            "grow: metadata beyond 15.875 GiB",
            grow(&["--metadata", "16G"]),
            REFUSED,
            [&named, "15.875 GiB", "--metadata 16256M"],
        ),
        row("grow: by nothing", grow(&["+0"]), USAGE, ["it is zero"]),
        row("grow: a share without +", grow(&["20%"]), USAGE, ["needs a +"]),
        row("grow: an absurd share", grow(&["+99999%"]), USAGE, ["more than +10000%"]),
        row("grow: a sum past 2^63", grow(&["+8191P"]), REFUSED, [&named, "cannot hold a file of that length"]),
        row(
            "grow: longer than the file system's longest",
            grow(&["17T", "--overcommit"]),
            REFUSED,
            [&named, "ext4", "17592186040320"],
        ),
        row("grow: three words", grow(&["2G", "3G"]), USAGE, ["--help"]),
    ]);
    table.end();
}

/// The limit of ext4 with blocks of 1 KiB is 4 TiB, and a pool on it is told so before anything is made.
#[test]
fn a_file_system_with_a_lower_limit_is_told() {
    let bench = Bench::new();
    let disk = LoopDisk::create(&bench.sweep.path("disk"), 64 << 20).unwrap();
    Cmd::new("mkfs.ext4").args(["-q", "-b", "1024"]).arg(disk.device()).run().checked().unwrap();
    let small = Mounted::mount(disk.device(), &bench.sweep.path("small"), "defaults").unwrap();
    let tmpfs = Mounted::tmpfs(&bench.sweep.path("tmpfs"), 64 << 20).unwrap();
    let on =
        |place: &Mounted, args: &[&str]| bench.cmd(&["create", "dmpool-test-new", "--dir"]).arg(place.dir()).args(args);
    let mut table = Table::new(&bench);
    table.refuse([
        row(
            "create: ext4 with blocks of 1 KiB",
            on(&small, &["--data-size", "5T"]),
            REFUSED,
            ["ext4", "4398046510080", "xfs"],
        ),
        // tmpfs takes any length up to 2^63: what is missing there is space.
        row(
            "create: tmpfs, preallocated",
            on(&tmpfs, &["--preallocate"]),
            REFUSED,
            ["too little space", "102.0 GiB", "free:", "--preallocate"],
        ),
    ]);
    table.end();
}
