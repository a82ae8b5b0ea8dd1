//! `migrate` as somebody at a terminal has it, and what is deleted when it is over.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use lab::guest::boot;
use lab::guest::disk::{Kind, Mounted};
use lab::guest::docker::{Config, Docker};
use lab::guest::run::{Cmd, Ran};

use crate::host::assert_refused;
use crate::migrate::{WAITS, by_scripts, entries, of_container, without_backups};
use crate::support::Bench;

/// Runs a command line on a terminal on which that is typed, with a second between the lines.
fn on_a_terminal(bench: &Bench, args: &[&str], typed: &[&str]) -> Ran {
    let line = bench.cmd(args).line().to_owned();
    let typed: Vec<_> = typed.iter().map(|line| format!("sleep 1; printf '{line}' >&3")).collect();
    // The end of its input would be typed as Ctrl-D: it stays open until the program has ended.
    let all = format!(
        "trap '' PIPE; f=$(mktemp -u); mkfifo $f; script -qec '{line}' /dev/null <$f & s=$!; exec 3>$f; rm $f; {}; wait $s",
        typed.join("; ")
    );
    Cmd::new("bash").args(["-c", &all]).run()
}

fn olds(docker: &Docker) -> Vec<PathBuf> {
    let home = docker.root().join("devicemapper");
    entries(&home).into_iter().filter(|name| name.ends_with(".old")).map(|name| home.join(name)).collect()
}

#[test]
fn somebody_at_a_terminal_is_asked_and_deletes_the_old_pool_in_the_end() {
    let bench = Bench::new();
    let disk = Mounted::format(Kind::Xfs, &boot::scratch_disks()[0], &bench.sweep.path("docker")).unwrap();
    let bench = bench.at(disk.dir());
    let config = Config::new(disk.dir().join("root"))
        .option("dm.basesize=1G")
        .option("dm.loopdatasize=2G")
        .option("dm.loopmetadatasize=16M");
    let mut docker = Docker::start(config).unwrap();
    docker.busybox(&[]).unwrap();
    docker.run_detached(&["--name", "web"], &WAITS).unwrap();
    assert!(docker.exec("web", &["sh", "-c", "echo by hand > /by-hand; sync"]).ok());
    let web = of_container(&docker, "web");
    let [stop, start] = by_scripts(&bench);

    let unasked = bench.run(&["migrate"]);
    assert_refused(&unasked, 2, &["nothing says what the pool shall become", "--to-driver overlay2", "on a terminal"]);
    assert_refused(&bench.run(&["migrate", "--delete-old"]), 3, &["none is known that has ended"]);

    let pid = fs::read_to_string("/var/run/docker.pid").unwrap();
    let interrupted = on_a_terminal(&bench, &["migrate"], &["1\\n", "\\003"]);
    assert!(!interrupted.ok() && interrupted.stdout.contains("How large shall its data be?"), "{interrupted}");
    assert_eq!(fs::read_to_string("/var/run/docker.pid").unwrap(), pid);
    let no = ["1\\n", "3G\\n", "512K\\n", &format!("{stop}\\n"), &format!("{start}\\n"), "n\\n"];
    let no = on_a_terminal(&bench, &["migrate"], &no);
    assert!(no.code() == Some(3) && no.stdout.contains("the answer was not yes"), "{no}");
    assert_eq!((olds(&docker), fs::read_to_string("/var/run/docker.pid").unwrap()), (Vec::new(), pid));

    let answers = ["7\\n", "1\\n", "1M\\n", "3G\\n", "512K\\n", &format!("{stop}\\n"), &format!("{start}\\n"), "y\\n"];
    let ran = on_a_terminal(&bench, &["migrate"], &answers);
    println!("{ran}");
    assert!(ran.ok(), "{ran}");
    for said in [
        "nothing is copied and nothing stops:  dmpool grow docker SIZE",
        "`7` is not 1 to 5",
        "are in use",
        "was started by hand",
        &format!("--data-size 3G --block-size 512K --stop-command {stop} --start-command {start} --yes"),
        "the container web, then Docker. Go on? [y/N]",
        "done: migrate the pool",
        "dmpool migrate --delete-old",
    ] {
        assert!(ran.stdout.contains(said), "{said}: {ran}");
    }
    assert_eq!(docker.exec("web", &["cat", "/by-hand"]).stdout, "by hand\n");
    assert_eq!(docker.storage_value("Data Space Total").unwrap(), "3.221GB");

    // With Docker down: until it has run on the new pool the old one is all that is known to be good.
    Cmd::new(&stop).run().checked().unwrap();
    bench.ok(&["migrate", "--data-size", "2G", "--yes"]);
    assert_eq!(olds(&docker).len(), 2);
    let delete = ["migrate", "--delete-old", "--yes"];
    assert_refused(&bench.run(&delete), 3, &["Docker has not run since", "start Docker"]);
    docker.up().unwrap();
    let [first, last] = [0, 1].map(|at| olds(&docker)[at].clone());
    let attached = Cmd::new("losetup").args(["-f", "--show"]).arg(last.join("data")).run().checked().unwrap().stdout;
    assert_refused(&bench.run(&delete), 3, &["is still in use", attached.trim(), "losetup -d"]);
    Cmd::new("losetup").args(["-d", attached.trim()]).run().checked().unwrap();
    let inside = first.join("mounted");
    fs::create_dir(&inside).unwrap();
    Cmd::new("mount").args(["--bind", "/etc"]).arg(&inside).run().checked().unwrap();
    assert_refused(&bench.run(&delete), 3, &["is still in use", "a file system is mounted at", "umount"]);
    Cmd::new("umount").arg(&inside).run().checked().unwrap();
    symlink("/etc", first.join("link")).unwrap();
    let dry = bench.ok(&["migrate", "--delete-old", "--dry-run"]);
    assert!(dry.contains(first.to_str().unwrap()) && dry.contains("no way back"), "{dry}");
    assert_refused(&bench.run(&["migrate", "--delete-old"]), 3, &["it must be confirmed"]);
    let deleted = on_a_terminal(&bench, &["migrate", "--delete-old"], &["y\\n"]);
    println!("{deleted}");
    assert!(deleted.ok() && deleted.stdout.contains("That does not come back; it gives"), "{deleted}");
    assert_eq!(olds(&docker), Vec::<PathBuf>::new());
    assert!(fs::metadata("/etc/passwd").is_ok());
    assert!(bench.ok(&delete).contains("there is nothing to do"));
    assert!(!bench.run(&["undo"]).stderr.contains("a migration has ended"));

    docker.cmd(["start", "web"]).run().checked().unwrap();
    assert_eq!(of_container(&docker, "web"), web);
    without_backups();
}
