//! Bad input to `thin`: names, sizes, volumes in use, pools that are not as they must be or not dmpool's.

use std::fs;

use lab::guest::disk::{Kind, Mounted, fill};
use lab::guest::run::Cmd;
use lab::guest::sys::dmsetup;

use crate::support::Bench;
use crate::support::pools::{HandMade, NoSpaceTimeout, set_needs_check};
use crate::support::refusals::{REFUSED, Row, Table, USAGE, row};

const M: u64 = 1 << 20;

/// A bench with its pool and a volume `web` of 16 MiB.
fn bench() -> (Bench, String) {
    let bench = Bench::new();
    let pool = bench.create();
    bench.ok(&["thin", "create", &pool, "web", "--size", "16M"]);
    (bench, pool)
}

/// The four commands that change volumes, on a pool in a state in which none of them may.
fn all(bench: &Bench, what: &str, pool: &str, says: &[&str]) -> Vec<Row> {
    let commands: [&[&str]; 4] = [
        &["thin", "create", pool, "new", "--size", "1M"],
        &["thin", "snapshot", pool, "web", "new"],
        &["thin", "grow", pool, "web", "32M"],
        &["thin", "remove", pool, "web", "--yes"],
    ];
    let row = |args: &&[&str]| row(&format!("{}: {what}", args[1]), bench.cmd(args), REFUSED, says.iter().copied());
    commands.iter().map(row).collect()
}

#[test]
fn names_and_sizes_of_volumes_that_cannot_be_are_refused() {
    let (bench, pool) = bench();
    let create = |name: &str, size: &str| bench.cmd(&["thin", "create", &pool, name, "--size", size]);
    let grow = |name: &str, size: &str| bench.cmd(&["thin", "grow", &pool, name, size]);
    let long = "a".repeat(120);
    let taken = format!("{pool}-taken");
    dmsetup(["create", &taken, "--table", "0 8 zero"]).run().checked().unwrap();
    let no_web = format!("dmpool thin list {pool}");
    let mut table = Table::new(&bench);
    table.refuse([
        row("create: size 0", create("x", "0"), USAGE, ["it is zero"]),
        row("create: size negative", create("x", "-1G"), USAGE, ["it is negative"]),
        row("create: bad name", create("../x", "1G"), USAGE, ["not a volume name"]),
        row("create: a size for a name", create("20G", "1G"), USAGE, ["read it as a size"]),
        row(
            "adopt: no such volume",
            bench.cmd(&["thin", "adopt", &pool, "9"]),
            REFUSED,
            ["no volume with the id 9", "web"],
        ),
        row("adopt: what is known", bench.cmd(&["thin", "adopt", &pool, "1"]), REFUSED, ["already, as `web`"]),
        row("create: past any device", create("x", "9223372036854775807"), REFUSED, ["larger than any device"]),
        row("create: volume is there", create("web", "1G"), REFUSED, ["has a volume of that name", "another name"]),
        row("create: device is there", create("taken", "1G"), REFUSED, ["is called", &taken, "dmsetup info"]),
        row("create: name too long", create(&long, "1G"), REFUSED, ["is too long", "at most 127"]),
        row(
            "snapshot: no origin",
            bench.cmd(&["thin", "snapshot", &pool, "none", "x"]),
            REFUSED,
            ["no volume `none`", "web"],
        ),
        row(
            "snapshot: name is there",
            bench.cmd(&["thin", "snapshot", &pool, "web", "web"]),
            REFUSED,
            ["of that name"],
        ),
        row("grow: no volume", grow("none", "1G"), REFUSED, ["no volume `none`", "web", &no_web]),
        row("grow: smaller", grow("web", "8M"), REFUSED, ["not made smaller", "16.0 MiB", "8.0 MiB"]),
        row("grow: a share", grow("web", "+20%"), REFUSED, ["has no share", "+10G"]),
        row("grow: past any device", grow("web", "+9223372036854775807"), REFUSED, ["larger than any device"]),
        row("remove: no volume", bench.cmd(&["thin", "remove", &pool, "none", "--yes"]), REFUSED, ["no volume `none`"]),
        row("remove: nobody to ask", bench.cmd(&["thin", "remove", &pool, "web"]), REFUSED, ["say --yes"]),
        row("list: no pool", bench.cmd(&["thin", "list", "none"]), REFUSED, ["there is no pool `none`"]),
    ]);
    table.end();
}

#[test]
fn volumes_in_use_or_in_other_hands_are_refused() {
    let (bench, pool) = bench();
    let web = format!("{pool}-web");
    let remove = |what: &str, says: &[&str]| {
        row(
            &format!("remove: {what}"),
            bench.cmd(&["thin", "remove", &pool, "web", "--yes"]),
            REFUSED,
            says.iter().copied(),
        )
    };
    let mut table = Table::new(&bench);
    let path = std::path::Path::new("/dev/mapper").join(&web);
    let mounted = Mounted::format(Kind::Ext4, &path, &bench.sweep.path("mnt")).unwrap();
    let at = format!("mount {}", mounted.dir().display());
    table.refuse([remove("mounted", &["open 1 time", &at, "umount"])]);
    mounted.unmount().unwrap();
    let upper = format!("{pool}-upper");
    dmsetup(["create", &upper, "--table", &format!("0 8 linear {} 0", path.display())]).run().checked().unwrap();
    table.refuse([remove("a device stands on it", &["open 1 time", &upper])]);
    dmsetup(["remove", "--retry", &upper]).run().checked().unwrap();

    dmsetup(["suspend", &web]).run().checked().unwrap();
    let [_, snapshot, grow, remove_it] =
        <[Row; 4]>::try_from(all(&bench, "suspended volume", &pool, &["left it suspended", "dmsetup resume"]))
            .unwrap_or_else(|_| panic!("four rows"));
    table.refuse([snapshot, grow, remove_it]);
    dmsetup(["resume", &web]).run().checked().unwrap();

    dmsetup(["remove", "--retry", &web]).run().checked().unwrap();
    let by_hand = bench.sweep.name("hand");
    let line = format!("0 32768 thin /dev/mapper/{pool} 1");
    dmsetup(["create", &by_hand, "--table", &line]).run().checked().unwrap();
    let says = ["active as", by_hand.as_str(), "dmpool did not make", "dmsetup remove"];
    let [_, snapshot, grow, remove_it] = <[Row; 4]>::try_from(all(&bench, "active by another hand", &pool, &says))
        .unwrap_or_else(|_| panic!("four rows"));
    table.refuse([snapshot, grow, remove_it]);
    dmsetup(["remove", "--retry", &by_hand]).run().checked().unwrap();
    table.end();
}

#[test]
fn pools_that_take_no_change_of_their_volumes_are_refused() {
    let (bench, pool) = bench();
    let mut table = Table::new(&bench);
    dmsetup(["suspend", &pool]).run().checked().unwrap();
    table.refuse(all(&bench, "suspended pool", &pool, &["left the pool suspended", "dmsetup resume"]));
    dmsetup(["resume", &pool]).run().checked().unwrap();

    let record = bench.state.join("volumes").join(format!("{pool}.toml"));
    let good = fs::read_to_string(&record).unwrap();
    for (what, text, why) in [
        ("corrupt", "\u{1}[[[".to_owned(), "it is not TOML"),
        ("newer", "format = 99\n".to_owned(), "a newer dmpool wrote it"),
        ("another pool's", good.replace(&pool, "another"), "another pool, `another`"),
    ] {
        fs::write(&record, text).unwrap();
        let create = bench.cmd(&["thin", "create", &pool, "new", "--size", "1M"]);
        let says = ["cannot use the registry's", why, ".broken"];
        table.refuse([row(&format!("create: record {what}"), create, REFUSED, says)]);
    }
    fs::write(&record, good.replace("transaction = 1", "transaction = 4")).unwrap();
    table.refuse(all(&bench, "another transaction id", &pool, &["do not belong together", "dmpool thin adopt"]));
    fs::write(&record, good).unwrap();

    let config = std::path::Path::new("/etc/containerd/config.toml");
    fs::create_dir_all(config.parent().unwrap()).unwrap();
    let plugin = "[plugins.\"io.containerd.snapshotter.v1.devmapper\"]";
    fs::write(config, format!("version = 2\n{plugin}\npool_name = \"{pool}\"\nroot_path = \"/var/lib/x\"\n")).unwrap();
    table.refuse(all(&bench, "containerd's", &pool, &["containerd uses the pool", "config.toml"]));
    fs::remove_file(config).unwrap();

    // Docker has not met it: what it would find here it would not start with.
    let config = std::path::Path::new("/etc/docker/daemon.json");
    fs::create_dir_all(config.parent().unwrap()).unwrap();
    let before = fs::read(config).ok();
    fs::write(config, format!("{{\"storage-opts\": [\"dm.thinpooldev=/dev/mapper/{pool}\"]}}")).unwrap();
    let listed = bench.ok(&["list"]);
    let line = listed.lines().find(|line| line.starts_with(&pool)).unwrap_or_else(|| panic!("{listed}"));
    assert!(line.contains("docker (configured)"), "{listed}");
    let status = bench.run(&["status", "docker"]);
    assert!(status.stdout.contains(&pool) && status.stdout.contains("once that is started"), "{status}");
    assert_eq!(bench.json().matches("\"user_known_by\": \"configured\"").count(), 1);
    let says = ["Docker is told to use the pool", "daemon.json", "take dm.thinpooldev="];
    let mut rows = all(&bench, "one that Docker is told of", &pool, &says);
    rows.push(row("adopt: one that Docker is told of", bench.cmd(&["thin", "adopt", &pool]), REFUSED, says));
    table.refuse(rows);
    match before {
        Some(bytes) => fs::write(config, bytes).unwrap(),
        None => fs::remove_file(config).unwrap(),
    }

    bench.ok(&["deactivate", &pool]);
    table.refuse(all(&bench, "inactive", &pool, &["is not active", "dmpool activate"]));
    set_needs_check(&bench.file("metadata"));
    bench.ok(&["activate", &pool]);
    table.refuse(all(&bench, "needs_check", &pool, &["needs a check", "dmpool health"]));

    let other = HandMade::new(&bench, "other", 64 * M, 8 * M);
    let mut rows = all(&bench, "not made by dmpool", &other.name, &["dmpool did not make that pool", "dmpool list"]);
    rows.push(row(
        "list: not made by dmpool",
        bench.cmd(&["thin", "list", &other.name]),
        REFUSED,
        ["dmpool did not make that pool"],
    ));
    table.refuse(rows);
    table.end();
}

#[test]
fn full_and_failed_pools_are_refused() {
    let bench = Bench::new();
    let _timeout = NoSpaceTimeout::seconds(1);
    let (pool, dir) = (bench.pool(), bench.dir.to_str().unwrap().to_owned());
    bench.ok(&["create", &pool, "--dir", &dir, "--data-size", "16M", "--metadata-size", "2M", "--no-zero"]);
    let made = bench.run(&["thin", "create", &pool, "web", "--size", "64M"]);
    assert!(made.ok() && made.stderr.contains("does not zero blocks"), "{made}");
    let of = format!("of=/dev/mapper/{pool}-web");
    let written = Cmd::new("dd").args(["if=/dev/zero", "bs=1M", "count=20", "oflag=direct", &of]).run();
    assert!(!written.ok(), "{written}");
    let mut table = Table::new(&bench);
    let mut rows = all(&bench, "full", &pool, &["the pool is full", "dmpool grow"]);
    rows.pop();
    table.refuse(rows);
    // What frees space goes on working.
    bench.ok(&["thin", "remove", &pool, "web", "--yes"]);
    assert_eq!(bench.number("/pool/data/used"), 0);
    bench.ok(&["thin", "create", &pool, "web", "--size", "1M"]);

    // A pool that the kernel made read-only takes no message.
    dmsetup(["suspend", &pool]).run().checked().unwrap();
    let line = dmsetup(["table", &pool]).run().checked().unwrap().stdout;
    let read_only = line.trim().replace(" 1 skip_block_zeroing", " 2 skip_block_zeroing read_only");
    dmsetup(["load", &pool, "--table", &read_only]).run().checked().unwrap();
    dmsetup(["resume", &pool]).run().checked().unwrap();
    table.refuse(all(&bench, "read-only", &pool, &["the pool is read-only", "--metadata +1G"]));
    table.end();
}

#[test]
fn a_record_that_cannot_be_written_is_told_before_anything_is_begun() {
    let (bench, pool) = bench();
    let place = Mounted::tmpfs(&bench.sweep.path("small"), M).unwrap();
    let home = bench.state.join("volumes");
    let record = fs::read(home.join(format!("{pool}.toml"))).unwrap();
    fs::write(place.dir().join(format!("{pool}.toml")), record).unwrap();
    Cmd::new("mount").args(["--bind"]).arg(place.dir()).arg(&home).run().checked().unwrap();
    let filler = fill(place.dir()).unwrap();
    let mut table = Table::new(&bench);
    table.refuse(all(&bench, "disk of the record full", &pool, &["is full", "free:", "make room on"]));
    fs::remove_file(filler).unwrap();
    Cmd::new("umount").arg(&home).run().checked().unwrap();
    table.end();
}
