//! Bad input, part 2: pools, files and state that are not as they should be.

use std::fs::{self, File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process;

use lab::guest::disk::{Kind, LoopDisk, Mounted, fill};
use lab::guest::run::Cmd;
use lab::guest::sys::dmsetup;

use crate::support::health::{Said, paste};
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
    table.refuse([grow("needs_check", &["needs a check", &format!("dmpool health {pool}    # ")])]);
    table.end();
}

/// The command that a refusal ends with, as it is pasted.
fn next_of(refused: &lab::guest::run::Ran) -> String {
    let next = refused.stderr.lines().find_map(|line| line.trim().strip_prefix("next:"));
    next.unwrap_or_else(|| panic!("{refused}")).trim().to_owned()
}

/// What a pool has in files that were deleted is not lost by taking it down, and comes back while it is in use.
#[test]
fn files_that_were_deleted_or_replaced_are_brought_back_before_a_pool_goes() {
    let bench = Bench::new();
    let pool = bench.create();
    bench.ok(&["thin", "create", &pool, "v", "--size", "256M"]);
    let device = std::path::PathBuf::from(format!("/dev/mapper/{pool}-v"));
    let dir = bench.sweep.path("mnt");
    let mounted = Mounted::format(Kind::Ext4, &device, &dir).unwrap();
    let file = mounted.dir().join("file");
    fs::write(&file, vec![7; 5 << 20]).unwrap();
    let refused = |args: &[&str], says: &[&str]| {
        let ran = bench.run(args);
        let lacks = says.iter().find(|words| !ran.stderr.contains(**words));
        assert!(ran.code() == Some(REFUSED) && lacks.is_none(), "{lacks:?}: {ran}");
        next_of(&ran)
    };
    let deactivate = ["deactivate", &pool];
    let is_whole = || {
        Said::about(&bench, &pool, &[]).without("deleted_file");
        for which in ["data", "metadata"] {
            let found = fs::metadata(bench.file(which)).unwrap();
            assert_eq!(found.permissions().mode() & 0o7777, 0o600);
        }
    };

    // All of it, with the folder; the file system on it is in use all the while.
    fs::remove_dir_all(bench.dir.join(&pool)).unwrap();
    let health = Said::about(&bench, &pool, &[]).way("deleted_file", "critical");
    assert!(!health.contains("remove"), "{health}");
    refused(&["destroy", &pool, "--keep-data", "--with-volumes", "--yes"], &["its files were deleted", "dd if="]);
    let next = refused(&deactivate, &["its files were deleted", "/dev/loop", "dd if="]);
    assert_eq!(next.split("    # ").next(), Some(health.as_str()));
    // Broken off in the copy, as by a connection that is lost.
    let bin = bench.sweep.path("bin");
    fs::create_dir(&bin).unwrap();
    fs::write(bin.join("dd"), "#!/bin/sh\nkill -HUP $PPID\n").unwrap();
    fs::set_permissions(bin.join("dd"), fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    assert!(!Cmd::new("sh").args(["-c", &next]).env("PATH", &path).run().ok());
    let suspended = ["info", "-c", "--noheadings", "-o", "suspended", &pool];
    assert_eq!(dmsetup(suspended).run().checked().unwrap().stdout.trim(), "Active");
    paste(&next);
    is_whole();

    // One of them, with another file in its place; or with a link to what somebody has open of it, which is no name.
    for link in [false, true] {
        let open = File::open(bench.file("data")).unwrap();
        fs::remove_file(bench.file("data")).unwrap();
        match link {
            true => symlink(format!("/proc/{}/fd/{}", process::id(), open.as_raw_fd()), bench.file("data")).unwrap(),
            false => fs::write(bench.file("data"), "another").unwrap(),
        }
        refused(&["destroy", &pool, "--with-volumes", "--yes"], &["is open"]);
        let next = refused(&deactivate, &["its data file", "was deleted", "mv "]);
        let health = Said::about(&bench, &pool, &[]).way("deleted_file", "critical");
        assert_eq!(next.split("    # ").next(), Some(health.as_str()));
        paste(&next);
        is_whole();
        assert!(link || fs::read(bench.file("data.other")).unwrap() == b"another");
        fs::remove_file(bench.file("data.other")).unwrap();
    }

    // Moved away, and an older copy put back.
    let away = bench.sweep.path("away");
    fs::rename(bench.file("metadata"), &away).unwrap();
    fs::copy(&away, bench.file("metadata")).unwrap();
    paste(&refused(&deactivate, &["is another file than its metadata", away.to_str().unwrap()]));
    fs::remove_file(bench.file("metadata.other")).unwrap();

    assert_eq!(fs::read(&file).unwrap(), vec![7; 5 << 20]);
    mounted.unmount().unwrap();
    fs::rename(bench.file("metadata"), &away).unwrap();
    let ran = bench.run(&deactivate);
    assert!(ran.ok() && ran.stderr.contains("activate looks for it at"), "{ran}");
    fs::rename(&away, bench.file("metadata")).unwrap();
    bench.ok(&["activate", &pool]);
    let mounted = Mounted::mount(&device, &dir, "defaults").unwrap();
    assert_eq!(fs::read(mounted.dir().join("file")).unwrap(), vec![7; 5 << 20]);
    mounted.unmount().unwrap();
    lab::guest::run::Cmd::new("fsck.ext4").args(["-f", "-n"]).arg(&device).run().checked().unwrap();

    // What was interrupted is not ended by losing it either.
    let faults = |args: &[&str]| Cmd::new("dmpool-faults").arg("--state-dir").arg(&bench.state).args(args);
    assert!(!faults(&deactivate).env("DMPOOL_FAULT", "1:after:die").run().ok());
    fs::rename(bench.file("data"), &away).unwrap();
    let unlinked = bench.sweep.path("unlinked");
    fs::hard_link(&away, &unlinked).unwrap();
    fs::remove_file(&away).unwrap();
    refused(&["continue"], &["its data file", "was deleted"]);
    bench.ok(&["undo"]);
    refused(&deactivate, &["its data file", "was deleted"]);
    // Put back by another name of the same file, it is where it was.
    fs::hard_link(&unlinked, bench.file("data")).unwrap();
    fs::remove_file(&unlinked).unwrap();
    Said::about(&bench, &pool, &[]).without("deleted_file");
    bench.ok(&deactivate);

    // What has the place of a file that was to be deleted is not deleted in its stead, and where it is not known whether
    // that is deleted nothing is said of it.
    let destroy = ["destroy", &pool, "--with-volumes", "--yes"];
    let dies_before = |line: &str| {
        let plan = bench.ok(&["destroy", &pool, "--with-volumes", "--dry-run"]);
        let step = plan.lines().find(|text| text.contains(line)).unwrap().trim().split('.').next().unwrap().to_owned();
        assert!(!faults(&destroy).env("DMPOOL_FAULT", format!("{step}:before:die")).run().ok());
    };
    dies_before("delete the file");
    let folder = bench.file("data").parent().unwrap().to_owned();
    fs::rename(&folder, bench.sweep.path("unmounted")).unwrap();
    for verb in [["undo"].as_slice(), &["continue", "--yes"]] {
        let ran = bench.run(verb);
        assert!(ran.code() == Some(4) && ran.stderr.contains("is its file system mounted?"), "{ran}");
    }
    fs::rename(bench.sweep.path("unmounted"), &folder).unwrap();
    bench.ok(&["undo"]);
    bench.ok(&["activate", &pool]);

    // Deleted before: it is gone as soon as its device is, and until then both ways are open.
    fs::rename(bench.file("data"), &away).unwrap();
    fs::hard_link(&away, &unlinked).unwrap();
    fs::remove_file(&away).unwrap();
    dies_before(&format!("remove the device {pool}_tdata, and with it the deleted file"));
    let asked = bench.run(&["continue"]);
    assert!(asked.code() == Some(REFUSED) && asked.stderr.contains("--yes"), "{asked}");
    bench.ok(&["undo"]);
    dies_before(&format!("remove the device {pool}_tmeta"));
    let undone = bench.run(&["undo"]);
    let says = format!("stands: the file {} is deleted", bench.file("data").display());
    assert!(undone.ok() && undone.stdout.contains(&says), "{undone}");
    // By its other name it is there.
    fs::rename(&unlinked, bench.file("data")).unwrap();
    // What was still up has stayed; the refusal says how it goes.
    let half = bench.run(&["activate", &pool]);
    let goes = format!("dmsetup remove {pool}_tmeta");
    assert!(half.code() == Some(REFUSED) && half.stderr.contains(&goes), "{half}");
    Cmd::new("dmsetup").args(["remove", "--retry", &format!("{pool}_tmeta")]).run().checked().unwrap();
    bench.ok(&["activate", &pool]);
    bench.ok(&deactivate);

    dies_before("delete the file");
    fs::rename(bench.file("data"), &away).unwrap();
    fs::write(bench.file("data"), "another").unwrap();
    let ran = bench.run(&["continue", "--yes"]);
    assert!(ran.ok() && ran.stderr.contains("is another file than the pool's by now; it stays"), "{ran}");
    assert_eq!(fs::read(bench.file("data")).unwrap(), b"another");
    assert!(away.exists() && !bench.file("metadata").exists());
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
        ["is deleted", "dmpool health"],
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
    bench.ok(&["destroy", &pool, "--yes", "--with-volumes"]);
}
