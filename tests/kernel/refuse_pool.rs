//! Bad input, part 2: pools, files and state that are not as they should be.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::PermissionsExt;

use lab::guest::disk::{Kind, LoopDisk, Mounted, fill};
use lab::guest::run::Cmd;
use lab::guest::sys::dmsetup;

use crate::support::pools::{HandMade, set_needs_check};
use crate::support::refusals::{REFUSED, Row, Table, row};
use crate::support::{Bench, volume};

const M: u64 = 1 << 20;

/// Deactivate and destroy of a pool, each refused with these words.
fn down<'a>(bench: &'a Bench, what: &'a str, pool: &'a str, says: &'a [&'a str]) -> impl Iterator<Item = Row> + 'a {
    [vec!["deactivate", pool], vec!["destroy", pool, "--yes"]]
        .into_iter()
        .map(move |args| row(&format!("{}: {what}", args[0]), bench.cmd(&args), REFUSED, says.iter().copied()))
}

#[test]
fn bad_directories_are_refused() {
    let bench = Bench::new();
    let sweep = &bench.sweep;
    let file = sweep.path("file");
    fs::write(&file, "x").unwrap();
    let link = sweep.path("link");
    std::os::unix::fs::symlink(&bench.dir, &link).unwrap();
    let open = sweep.subdir("open").unwrap();
    fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
    let there = sweep.subdir("there").unwrap();
    fs::create_dir(there.join("dmpool-test-new")).unwrap();
    fs::write(there.join("dmpool-test-new/data"), "precious").unwrap();
    let full = Mounted::tmpfs(&sweep.path("full"), 20 * M).unwrap();
    fill(full.dir()).unwrap();
    let disk = LoopDisk::create(&sweep.path("disk"), 64 * M).unwrap();
    let read_only = Mounted::format(Kind::Ext4, disk.device(), &sweep.path("read-only")).unwrap();
    read_only.set_read_only(true).unwrap();

    let create =
        |dir: &std::path::Path| bench.cmd(&["create", "dmpool-test-new", "--data-size", "1G", "--dir"]).arg(dir);
    let mut table = Table::new(&bench);
    table.refuse([
        row("directory: missing", create(&sweep.path("none")), REFUSED, ["is missing", "mkdir -m 0700"]),
        row("directory: a file", create(&file), REFUSED, ["is no directory"]),
        row("directory: a symlink", create(&link), REFUSED, ["is a symbolic link"]),
        row("directory: world-writable", create(&open), REFUSED, ["everybody may write", "mode 0777", "chmod o-w"]),
        row("directory: existing files", create(&there), REFUSED, ["is there already", "never writes over a file"]),
        row("directory: full", create(full.dir()), REFUSED, ["is full", "free:", "make room"]),
        row("directory: read-only", create(read_only.dir()), REFUSED, ["is read-only", "remount,rw"]),
        row(
            "directory: file size limit",
            Cmd::new("prlimit")
                .args(["--fsize=104857600", "dmpool", "--state-dir"])
                .arg(&bench.state)
                .args(["create", "dmpool-test-new", "--data-size", "1G", "--dir"])
                .arg(&bench.dir),
            REFUSED,
            ["may not make a file of that length", "100.0 MiB", "ulimit -f unlimited"],
        ),
    ]);
    table.end();
}

#[test]
fn pools_in_a_bad_state_are_refused() {
    let bench = Bench::new();
    let pool = bench.create();
    let mut table = Table::new(&bench);
    let grow = |what: &str, says: &[&str]| {
        row(&format!("grow: {what}"), bench.cmd(&["grow", &pool, "2G"]), REFUSED, says.iter().copied())
    };

    dmsetup(["suspend", &pool]).run().checked().unwrap();
    table.refuse([grow("suspended", &["left it suspended", "dmsetup resume"])]);
    table.refuse(down(&bench, "suspended", &pool, &["suspended", "dmsetup resume"]));
    dmsetup(["resume", &pool]).run().checked().unwrap();

    // A reader of a suspended metadata device waits for ever; dmpool does not.
    let metadata = format!("{pool}_tmeta");
    dmsetup(["suspend", &metadata]).run().checked().unwrap();
    table.refuse([grow("suspended metadata device", &["superblock cannot be read"])]);
    dmsetup(["resume", &metadata]).run().checked().unwrap();

    // `dd seek=` with a number too small: the file of a live pool is cut.
    let data = OpenOptions::new().write(true).open(bench.file("data")).unwrap();
    data.set_len(100 * M).unwrap();
    table.refuse([grow("cut file of a live pool", &["is shorter than", "100.0 MiB", "1.0 GiB"])]);
    data.set_len(1024 * M).unwrap();

    let second = LoopDisk::attach(&bench.file("data")).unwrap();
    table.refuse([grow("file in two loop devices", &["two loop devices", "losetup -d"])]);
    drop(second);

    let volume_name = bench.sweep.name("v");
    volume(&pool, 0, &volume_name, 256 * M);
    table.refuse(down(&bench, "a volume", &pool, &["open 1 time", &volume_name, "dmsetup remove"]));
    dmsetup(["remove", "--retry", &volume_name]).run().checked().unwrap();
    let held = format!("exec sleep 1000 3< /dev/mapper/{pool}");
    let process = Cmd::new("sh").args(["-c", &held]).start().unwrap();
    while !fs::read_to_string(format!("/proc/{}/comm", process.pid())).is_ok_and(|name| name.trim() == "sleep") {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let pid = format!("process {}", process.pid());
    table.refuse(down(&bench, "a process", &pool, &["open 1 time", &pid, "(sleep)"]));
    let _ = process.kill();

    bench.ok(&["deactivate", &pool]);
    let activate = |what: &str, says: &[&str]| {
        row(&format!("activate: {what}"), bench.cmd(&["activate", &pool]), REFUSED, says.iter().copied())
    };
    data.set_len(100 * M).unwrap();
    table.refuse([activate("cut file", &["is shorter than the pool", "1.0 GiB", "100.0 MiB", "truncate -s"])]);
    data.set_len(1024 * M).unwrap();
    let user = LoopDisk::attach(&bench.file("data")).unwrap();
    let device = user.device().to_str().unwrap().to_owned();
    table.refuse([activate("file in use", &["is in use by", &device, "losetup"])]);
    table.refuse([row(
        "destroy: file in use",
        bench.cmd(&["destroy", &pool, "--yes"]),
        REFUSED,
        ["is in use by", &device],
    )]);
    drop(user);
    let away = bench.sweep.path("away");
    fs::rename(bench.file("data"), &away).unwrap();
    table.refuse([activate("deleted file", &["is missing", "put the file back"])]);
    fs::rename(&away, bench.file("data")).unwrap();

    set_needs_check(&bench.file("metadata"));
    bench.ok(&["activate", &pool]);
    table.refuse([grow("needs_check", &["needs a check", "thin_check"])]);
    table.end();
}

#[test]
fn pools_of_others_are_refused() {
    let bench = Bench::new();
    let other = HandMade::new(&bench, "other", 64 * M, 8 * M);
    let mut table = Table::new(&bench);
    table.refuse(down(&bench, "not made by dmpool", &other.name, &["dmpool did not make it", "dmpool list"]));
    fs::remove_file(other.data.file()).unwrap();
    table.refuse([row(
        "grow: deleted file",
        bench.cmd(&["grow", &other.name, "1G"]),
        REFUSED,
        ["is deleted", "copy what is on it"],
    )]);
    table.end();
}

/// The file system under the file is smaller than what the pool may take already: growing gains nothing.
#[test]
fn growth_that_gains_nothing_is_refused_with_both_numbers() {
    let bench = Bench::new();
    let disk = LoopDisk::create(&bench.sweep.path("disk"), 256 * M).unwrap();
    let host = Mounted::format(Kind::Ext4, disk.device(), &bench.sweep.path("host")).unwrap();
    let pool = bench.pool();
    bench.ok(&["create", &pool, "--data-size", "1G", "--metadata-size", "16M", "--dir", host.dir().to_str().unwrap()]);
    let mut table = Table::new(&bench);
    table.refuse([row(
        "grow: the host's file system binds first",
        bench.cmd(&["grow", &pool, "2G"]),
        REFUSED,
        ["nothing would be gained", "free:", "needed:", "--overcommit"],
    )]);
    table.end();
    bench.ok(&["grow", &pool, "2G", "--overcommit"]);
    assert_eq!(bench.number("/pool/data/total"), 2048 * M);
    bench.ok(&["destroy", &pool, "--yes"]);
}
