//! Containers of `--rm` are saved before Docker stops, by which they vanish.

use std::time::Duration;

use lab::guest::boot;
use lab::guest::disk::{Kind, Mounted};
use lab::guest::docker::{Config, Docker, IMAGE};
use lab::guest::run::{Cmd, Ran};

use crate::host::assert_refused;
use crate::migrate::{WAITS, by_scripts, said_of, without_backups};
use crate::support::Bench;

fn start(bench: &Bench, options: &[&str]) -> (Mounted, Docker) {
    let disk = Mounted::format(Kind::Xfs, &boot::scratch_disks()[0], &bench.sweep.path("docker")).unwrap();
    let config = Config::new(disk.dir().join("root")).option("dm.basesize=1G").option("dm.loopmetadatasize=16M");
    let docker = Docker::start(options.iter().fold(config, |config, option| config.option(option))).unwrap();
    docker.busybox(&[]).unwrap();
    (disk, docker)
}

fn sh(docker: &Docker, args: &[&str]) -> String {
    docker.cmd(args).run().checked().unwrap().stdout.trim_end().to_owned()
}

/// A container with a file of its own, and one in a volume that nobody has named.
fn run_job(docker: &Docker, name: &str, args: &[&str]) {
    sh(docker, &[&["run", "-d", "--rm", "--name", name, "-v", "/x"], args, &[IMAGE], &WAITS].concat());
    let write = format!("echo by hand in {name} > /by-hand; echo kept of {name} > /x/file; sync");
    assert!(docker.exec(name, &["sh", "-c", &write]).ok());
}

/// Starts what it was saved as, and finds both files.
fn assert_is_whole(docker: &Docker, saved: &str, name: &str) {
    sh(docker, &["start", saved]);
    let both = docker.exec(saved, &["cat", "/by-hand", "/x/file"]).checked().unwrap().stdout;
    assert_eq!(both, format!("by hand in {name}\nkept of {name}\n"));
}

/// It was tried, and all is as it was.
fn assert_failed(ran: &Ran, said: &[&str]) {
    assert_eq!(ran.code(), Some(1), "{ran}");
    assert!(said.iter().all(|words| ran.stderr.contains(words)), "{said:?}: {ran}");
}

/// All containers, images and volumes that Docker has.
fn there(docker: &Docker) -> [Vec<String>; 3] {
    let all = [
        &["ps", "-a", "--format", "{{.Names}} {{.State}}"][..],
        &["images", "-a", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}"],
        &["volume", "ls", "-q"],
    ];
    all.map(|args| {
        let mut lines: Vec<_> = sh(docker, args).lines().map(str::to_owned).collect();
        lines.sort();
        lines
    })
}

#[test]
fn what_vanishes_is_saved_first_and_can_be_started_again() {
    if !boot::full() {
        boot::skip("a minute: with --full");
    }
    boot::time_limit(Duration::from_secs(600));
    let bench = Bench::with_faults();
    let (disk, docker) = start(&bench, &["dm.loopdatasize=2G"]);
    let bench = bench.at(disk.dir());
    // A volume that nobody has named, attached again by its name: Docker leaves it where it is.
    let attached = sh(&docker, &["volume", "create"]);
    let again = format!("{attached}:/again/");
    let outside = format!("{}:/outside/", bench.dir.display());
    let places = ["-v", &again, "-v", &outside, "--mount", "target=/mounted/", "--tmpfs", "/fast"];
    run_job(&docker, "job", &[&["--network", "none", "-e", "A=b", "--memory", "64m"], &places[..]].concat());
    sh(&docker, &["tag", IMAGE, "saved-job"]);
    let created = ["create", "--rm", "--network", "none", "--name", "Never_ran", "-v", "/y", IMAGE, "true"];
    sh(&docker, &created);
    let never = said_of("Never_ran", &["/Mounts/0/Name"]);
    let its_own = sh(&docker, &["inspect", "-f", "{{(index .Mounts 0).Name}}", "Never_ran"]);
    let kept = ["/Config/Env", "/Config/Cmd", "/Config/Hostname", "/HostConfig/Memory", "/HostConfig/NetworkMode"];
    let was = said_of("job", &kept);
    let [stop, start] = by_scripts(&bench);
    let target = ["migrate", "--data-size", "3G", "--stop-command", &stop, "--start-command", &start];
    let migrate = [&target[..], &["--yes"]].concat();
    assert_refused(&bench.run(&migrate), 3, &["2 containers were made with --rm", "--keep-rm saves them first"]);
    let keep = [&migrate[..], &["--keep-rm"]].concat();
    let before = there(&docker);
    let dry = bench.ok(&[&keep[..], &["--dry-run"]].concat());
    assert!(dry.contains("saved as it is then") && there(&docker) == before, "{dry}");

    // Who dies at it leaves nothing in the way of the next.
    assert!(!bench.cmd(&keep).env("DMPOOL_FAULT", "1:saved:die").run().ok());
    assert_ne!(there(&docker), before);
    let ran = bench.cmd(&keep).limit(Duration::from_secs(300)).run();
    println!("{ran}");
    assert!(ran.ok(), "{ran}");
    assert!(ran.stdout.contains("the container `job` was saved as `saved-job-2`:  docker start saved-job-2"), "{ran}");
    assert!(ran.stdout.contains("`Never_ran` was saved as `saved-never-ran`"), "{ran}");
    assert!(ran.stdout.contains(&its_own) && !ran.stdout.contains(&attached), "{ran}");
    let [containers, images, volumes] = there(&docker);
    assert_eq!(
        (containers.len(), images.len(), volumes.len()),
        (2, before[1].len() + 2, 4),
        "{containers:?} {images:?}"
    );
    assert_eq!(said_of("saved-job-2", &kept), was);
    assert_eq!(said_of("saved-never-ran", &["/Mounts/0/Name"]), never);
    assert_is_whole(&docker, "saved-job-2", "job");
    sh(&docker, &["rm", "-f", "saved-job-2"]);
    without_backups();
}

#[test]
fn what_was_saved_is_all_that_is_left_where_a_migration_fails() {
    if !boot::full() {
        boot::skip("minutes: with --full");
    }
    boot::time_limit(Duration::from_secs(900));
    let bench = Bench::with_faults();
    let (disk, docker) = start(&bench, &["dm.loopdatasize=1G", "dm.min_free_space=40%"]);
    let bench = bench.at(disk.dir());
    sh(&docker, &["network", "create", "net1"]);
    sh(&docker, &["network", "create", "net2"]);
    run_job(&docker, "job", &["--network", "none"]);
    run_job(&docker, "beside", &["--network", "container:job"]);
    run_job(&docker, "linked", &["--network", "net1", "--network-alias", "other"]);
    docker.run_detached(&["--rm", "--name", "reader", "--volumes-from", "beside:ro"], &WAITS).unwrap();
    sh(&docker, &["network", "connect", "net2", "linked"]);
    let [stop, start] = by_scripts(&bench);
    let scripts = ["--stop-command", &stop, "--start-command", &start, "--keep-rm", "--yes"];
    let keep = [&["migrate", "--data-size", "2G"], &scripts[..]].concat();
    let with_fault = |fault: &str| bench.cmd(&keep).env("DMPOOL_FAULT", fault).limit(Duration::from_secs(300)).run();
    let before = there(&docker);

    // As long as they run, nothing of them is left; then it is all that there is.
    assert_failed(&with_fault("4:saved:fail"), &["cannot be saved", "removed again", "a fault was asked for"]);
    assert_eq!(there(&docker), before);
    assert_failed(&with_fault("2:before:fail"), &["a fault was asked for"]);
    assert_eq!(there(&docker), before);
    let failed = with_fault("3:after:fail");
    println!("{failed}");
    assert_failed(&failed, &["`job` is gone", "what was in it before is in `saved-job`:  docker start saved-job"]);
    assert!(failed.stderr.contains("which are gone: `saved-"), "{failed}");
    assert_is_whole(&docker, "saved-job", "job");
    assert_is_whole(&docker, "saved-beside", "beside");
    assert_is_whole(&docker, "saved-linked", "linked");
    sh(&docker, &["start", "saved-reader"]);
    assert_eq!(docker.exec("saved-reader", &["cat", "/x/file"]).stdout, "kept of beside\n");
    assert!(!docker.exec("saved-reader", &["touch", "/x/file"]).ok());
    let networks = sh(
        &docker,
        &["inspect", "-f", "{{range $name, $of := .NetworkSettings.Networks}}{{$name}} {{end}}", "saved-linked"],
    );
    assert_eq!(networks.trim(), "net1 net2");
    sh(&docker, &["rm", "-f", "saved-job", "saved-beside", "saved-linked", "saved-reader"]);

    // What is saved of a root is in its archive.
    run_job(&docker, "job", &["--network", "none"]);
    let archive = bench.dir.join("root.tar");
    let save = [&["save", archive.to_str().unwrap()], &scripts[..]].concat();
    let saved = bench.cmd(&save).limit(Duration::from_secs(300)).run();
    println!("{saved}");
    assert!(saved.ok() && saved.stdout.contains("`job` was saved as `saved-job-2`"), "{saved}");
    let list = Cmd::new("tar").args(["-tf", archive.to_str().unwrap()]).run().checked().unwrap().stdout;
    let id = sh(&docker, &["inspect", "-f", "{{.Id}}", "saved-job-2"]);
    assert!(list.contains(&id), "{list}");
    assert_is_whole(&docker, "saved-job-2", "job");

    sh(&docker, &["rm", "-f", "saved-job-2"]);
    without_backups();
}

#[test]
fn where_there_is_no_room_for_it_nothing_is_touched() {
    if !boot::full() {
        boot::skip("a minute: with --full");
    }
    let bench = Bench::new();
    let (disk, docker) = start(&bench, &["dm.loopdatasize=1G", "dm.min_free_space=40%"]);
    let bench = bench.at(disk.dir());
    let [stop, start] = by_scripts(&bench);
    run_job(&docker, "small", &["--network", "none"]);
    run_job(&docker, "full", &["--network", "none"]);
    let keep =
        ["migrate", "--data-size", "2G", "--stop-command", &stop, "--start-command", &start, "--keep-rm", "--yes"];
    // Once Docker would make it, and the pool be full midway, and once it makes nothing more.
    for (fill, said) in [(400, "is written once more"), (600, "Docker has room for 0")] {
        let fill = format!("dd if=/dev/urandom of=/fill bs=1M count={fill}; sync");
        assert!(docker.exec("full", &["sh", "-c", &fill]).ok());
        let before = there(&docker);
        let failed = bench.run(&keep);
        println!("{failed}");
        assert_failed(&failed, &["cannot be saved", said, "nothing was stopped"]);
        assert_eq!(there(&docker), before);
    }
    sh(&docker, &["rm", "-f", "full", "small"]);
    without_backups();
}
