//! `migrate` as somebody at a terminal has it, and what is deleted when it is over.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::time::Duration;

use lab::guest::boot;
use lab::guest::disk::{Kind, Mounted};
use lab::guest::docker::{Config, Docker, get};
use lab::guest::run::{Cmd, Ran};

use crate::host::assert_refused;
use crate::migrate::{WAITS, by_scripts, entries, of_container, without_backups};
use crate::support::Bench;

/// Runs a command line on a terminal; each is typed once the words before it are shown.
pub(crate) fn on_a_terminal(bench: &Bench, args: &[&str], typed: &[(&str, &str)]) -> Ran {
    with_fault(bench, "", args, typed)
}

fn with_fault(bench: &Bench, fault: &str, args: &[&str], typed: &[(&str, &str)]) -> Ran {
    let line = bench.cmd(args).line().to_owned();
    let wait = |(shown, typed): &(&str, &str)| {
        format!("until grep -qF '{shown}' $d/shown; do sleep 0.1; done; printf '{typed}' >&3")
    };
    let typed: Vec<_> = typed.iter().map(wait).collect();
    // Open for both, the terminal's input has no end; nobody ignores Ctrl-C who is not in the background; and no shell answers it instead.
    let all = format!(
        "d=$(mktemp -d); : >$d/shown; mkfifo $d/typed; {{ exec 3>$d/typed; {}; }} & script -qefc 'exec {line}' $d/shown <>$d/typed; \
         c=$?; kill $! 2>/dev/null; rm -r $d; exit $c",
        typed.join("; ")
    );
    Cmd::new("bash")
        .args(["-c", &all])
        .env("TERM", "xterm")
        .env("DMPOOL_FAULT", fault)
        .limit(Duration::from_secs(90))
        .run()
}

fn olds(docker: &Docker) -> Vec<PathBuf> {
    let home = docker.root().join("devicemapper");
    entries(&home).into_iter().filter(|name| name.ends_with(".old")).map(|name| home.join(name)).collect()
}

#[test]
fn somebody_at_a_terminal_is_asked_and_deletes_the_old_pool_in_the_end() {
    let bench = Bench::with_faults();
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
    docker.run_detached(&["--rm", "--name", "job", "-v", "/x"], &WAITS).unwrap();
    assert!(docker.exec("job", &["sh", "-c", "echo kept > /by-hand; cp /by-hand /x/file"]).ok());
    let [stop, start] = by_scripts(&bench);

    let unasked = bench.run(&["migrate"]);
    assert_refused(&unasked, 2, &["nothing says what the pool shall become", "--to-driver overlay2", "on a terminal"]);
    assert_refused(&bench.run(&["migrate", "--delete-old"]), 3, &["none is known that has ended"]);

    let pid = fs::read_to_string("/var/run/docker.pid").unwrap();
    let interrupted = on_a_terminal(&bench, &["migrate"], &[("1 to 5", "1\\n"), ("How large", "\\003")]);
    assert!(!interrupted.ok() && interrupted.stdout.contains("How large shall its data be?"), "{interrupted}");
    assert_eq!((olds(&docker), fs::read_to_string("/var/run/docker.pid").unwrap()), (Vec::new(), pid));
    // Nobody knows that this one was not started by the init script that is there too.
    let asks = ["migrate", "--stop-command", &stop, "--start-command", &start];
    let answers = [
        ("1 to 5", "7\\n"),
        ("is not 1 to 5", "1\\n"),
        ("How large", "1M\\n"),
        ("are in use", "3G\\n"),
        ("How long", "512K\\n"),
        ("base device", "\\n"),
        ("1 to 3", "1\\n"),
        ("another command later?", "n\\n"),
        ("Go on?", "y\\n"),
        ("copying volumes", "\\003"),
    ];
    // The copy waits for Ctrl-C behind its second volume.
    let ran = with_fault(&bench, "2:layer:wait", &asks, &answers);
    println!("{ran}");
    assert_eq!(ran.code(), Some(4), "{ran}");
    for said in [
        "nothing is copied and nothing stops:  dmpool grow docker SIZE",
        "`7` is not 1 to 5",
        "are in use",
        &format!(
            "migrate --stop-command {stop} --start-command {start} --data-size 3G --block-size 512K --keep-rm --yes"
        ),
        "  job (with its volume at /x)",
        "2 containers (job, which is saved first and gone then, web), then Docker. Go on? [y/N]",
        "saving the container job as saved-job",
        "dmpool migrate --delete-old",
        "step 1 of ",
        "  stopping the container web",
        "interrupted by SIGINT",
        "dmpool continue",
    ] {
        assert!(ran.stdout.contains(said), "{said}: {ran}");
    }
    let shown = ran.stdout;
    assert!(get("/_ping").is_err(), "it is held meanwhile");
    // Whatever would be answered.
    let held = on_a_terminal(&bench, &["migrate"], &[("dmpool continue", "")]);
    assert!(held.code() == Some(3) && !held.stdout.contains("What shall it become?"), "{held}");
    assert!(held.stdout.contains("dmpool continue"), "{held}");
    let ran = bench.run(&["continue"]);
    println!("{ran}");
    assert!(ran.ok() && ran.stdout.contains("finished: migrate the pool"), "{ran}");
    assert!(ran.stderr.contains("  starting the container web"), "{ran}");
    assert!(ran.stdout.contains("`job` was saved as `saved-job`:  docker start saved-job"), "{ran}");
    docker.cmd(["start", "saved-job"]).run().checked().unwrap();
    assert_eq!(docker.exec("saved-job", &["cat", "/by-hand", "/x/file"]).stdout, "kept\nkept\n");
    assert_eq!(docker.exec("web", &["cat", "/by-hand"]).stdout, "by hand\n");
    assert_eq!(docker.storage_value("Data Space Total").unwrap(), "3.221GB");
    assert!(!ran.stdout.contains("with Docker stopped"), "{ran}");
    let was_shown = shown.split_once("Go on?").unwrap().0;
    assert!(was_shown.contains("with Docker stopped"), "{was_shown}");
    for old in olds(&docker) {
        assert!(was_shown.contains(&format!("aside, as {}", old.display())), "{old:?}: {was_shown}");
    }

    let delete = ["migrate", "--delete-old", "--yes"];
    // With Docker down: until it has run on the new pool the old one is all that is known to be good.
    if boot::full() {
        Cmd::new(&stop).run().checked().unwrap();
        bench.ok(&["migrate", "--data-size", "2G", "--yes"]);
        assert_eq!(olds(&docker).len(), 2);
        assert_refused(&bench.run(&delete), 3, &["Docker does not answer on what was made", "start Docker"]);
        docker.up().unwrap();
    }
    let all = olds(&docker);
    let (first, last) = (all[0].clone(), all[all.len() - 1].clone());
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
    let unasked = bench.run(&["migrate", "--delete-old"]);
    assert!(unasked.code() == Some(3) && unasked.stderr.contains("it must be confirmed"), "{unasked}");
    let kept = on_a_terminal(&bench, &["migrate", "--delete-old"], &[("Go on?", "n\\n")]);
    println!("{kept}");
    assert!(kept.code() == Some(3) && kept.stdout.contains("That does not come back; it gives"), "{kept}");
    let die = |at: &str| bench.cmd(&delete).env("DMPOOL_FAULT", at).run();
    assert!(!die("1:before:die").ok());
    assert!(bench.ok(&["undo"]).contains("taken back"));
    assert_eq!(olds(&docker), all);
    assert!(!die("1:after:die").ok());
    assert_eq!(olds(&docker).len(), all.len() - 1);
    assert_refused(&bench.run(&delete), 3, &["was interrupted", "dmpool continue"]);
    bench.ok(&["continue", "--yes"]);
    assert_eq!(olds(&docker), Vec::<PathBuf>::new());
    assert!(fs::metadata("/etc/passwd").is_ok());
    assert!(bench.ok(&delete).contains("there is nothing to do"));
    assert!(!bench.run(&["undo"]).stderr.contains("a migration has ended"));

    docker.cmd(["start", "web"]).run().checked().unwrap();
    assert_eq!(of_container(&docker, "web"), web);
    Cmd::new(&stop).run().checked().unwrap();
    without_backups();
}
