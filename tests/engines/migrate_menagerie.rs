//! A running Docker with one of everything goes through every kind of pool, and is what it was after each.

use std::time::{Duration, Instant};

use lab::guest::boot;
use lab::guest::disk::{Kind, Mounted};
use lab::guest::docker::Docker;
use lab::guest::menagerie::Menagerie;
use lab::guest::run::Cmd;

use crate::migrate::{by_scripts, without_backups};
use crate::migrate_overlay2::assert_is_the_same;
use crate::support::Bench;
use crate::support::lvm::Group;

/// The names of what runs, or is paused.
fn running(of: &Menagerie) -> Vec<(&str, &str)> {
    let alive = of.containers.iter().filter(|container| ["running", "paused"].contains(&container.state()));
    alive.map(|container| (container.name.as_str(), container.state())).collect()
}

#[test]
fn one_of_everything_goes_through_every_kind_of_pool() {
    if !boot::full() {
        boot::skip("minutes: with --full");
    }
    boot::time_limit(Duration::from_secs(3600));
    let bench = Bench::new();
    let [docker_disk, data_disk, group_disk] = [2, 0, 1].map(|at| boot::scratch_disks()[at].clone());
    let disk = Mounted::format(Kind::Xfs, &docker_disk, &bench.sweep.path("docker")).unwrap();
    let bench = bench.at(disk.dir());
    let docker = Docker::start(Menagerie::config("devicemapper", disk.dir().join("root"))).unwrap();
    let truth = Menagerie::make(&docker, 60).unwrap();
    let [stop, start] = by_scripts(&bench);
    let group = Group::on(&bench, "vg", &group_disk);
    let [on_disk, on_lvs] = ["on-disk", "on-lvs"].map(|what| bench.sweep.name(what));
    let ways: [&[&str]; 6] = [
        &["--data-size", "200G"],
        &["--block-size", "512K"],
        &["--data-size", "50G"],
        &["--name", &on_disk, "--data-device", data_disk.to_str().unwrap(), "--wipe"],
        &["--name", &on_lvs, "--vg", &group.name, "--data-size", "6G"],
        &["--to-driver", "overlay2"],
    ];
    for way in ways {
        let began = Instant::now();
        let args = [&["migrate"], way, &["--stop-command", &stop, "--start-command", &start, "--yes"]].concat();
        let ran = bench.cmd(&args).limit(Duration::from_secs(900)).run();
        println!("{:.1} s\n{ran}", began.elapsed().as_secs_f32());
        assert!(ran.ok(), "{ran}");
        let found = Menagerie::of(&docker).unwrap();
        assert_eq!(running(&found), running(&truth), "{way:?}");
        assert_is_the_same(&truth, &found, &docker);
    }
    Cmd::new(&stop).run().checked().unwrap();
    for pool in [&on_lvs, &on_disk] {
        bench.ok(&["destroy", pool, "--with-volumes", "--yes"]);
    }
    without_backups();
}
