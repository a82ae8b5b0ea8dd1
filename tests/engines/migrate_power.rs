//! The power is cut in the middle of a migration onto other loop files, with Docker down.

use std::path::Path;
use std::time::{Duration, Instant};

use lab::guest::boot;
use lab::guest::disk::{Kind, Mounted};
use lab::guest::docker::{Config, Docker, IMAGE};
use lab::guest::run::Cmd;
use lab::guest::sys;

use crate::migrate::{entries, of_container, without_backups};
use crate::support::Bench;

/// A migration, on a machine that does other things too.
const LONG: Duration = Duration::from_secs(240);
/// How often the power is cut, each time a bit later.
const CUTS: u32 = 6;
/// Where Docker's root, registry and journal are in each boot.
const MOUNT: &str = "/var/tmp/dmpool-test-cut";

#[test]
fn the_power_is_cut() {
    if !boot::full() {
        boot::skip("minutes: with --full");
    }
    boot::time_limit(Duration::from_secs(1800));
    let phase = boot::phase();
    let device = &boot::scratch_disks()[0];
    let disk = match phase {
        0 => Mounted::format(Kind::Xfs, device, Path::new(MOUNT)).unwrap(),
        _ => Mounted::mount(device, Path::new(MOUNT), "defaults").unwrap(),
    };
    let bench = Bench::new().at(disk.dir());
    let config = Config::new(disk.dir().join("root")).option("dm.basesize=500M").option("dm.loopdatasize=2G");
    let config = config.option("dm.loopmetadatasize=16M");
    let docker = if phase == 0 {
        let docker = Docker::start(config).unwrap();
        docker.busybox(&[]).unwrap();
        let make = "echo precious > /kept; dd if=/dev/urandom of=/noise bs=1M count=24 2>/dev/null; rm /bin/df; sync";
        docker.run_detached(&["--name", "kept"], &["sh", "-c", make]).unwrap();
        docker.cmd(["wait", "kept"]).run().checked().unwrap();
        boot::remember("contents", &of_container(&docker, "kept"));
        docker
    } else {
        let docker = after_a_cut(&bench, config, if phase.is_multiple_of(2) { "undo" } else { "continue" });
        if phase == CUTS {
            return drop(docker);
        }
        docker
    };
    down(docker);
    let migrate = |to: &str| {
        let began = Instant::now();
        bench.cmd(&["migrate", "--data-size", to, "--yes"]).limit(LONG).run().checked().unwrap();
        began.elapsed()
    };
    let whole = if phase == 0 {
        let whole = migrate("3G").as_millis();
        boot::remember("whole", &whole.to_string());
        whole
    } else {
        boot::recall("whole").unwrap().parse().unwrap()
    };
    Cmd::new("sync").run().checked().unwrap();
    let delay = Duration::from_millis(u64::try_from(whole).unwrap() * u64::from(2 * phase + 1) / u64::from(2 * CUTS));
    println!("  the power is cut after {} of {whole} ms", delay.as_millis());
    boot::power_cut_after(delay);
    for to in ["2G", "3G"].iter().cycle() {
        migrate(to);
    }
}

/// Stops Docker, with all that it has told.
fn down(mut docker: Docker) {
    docker.stop().unwrap();
    // Dropped, it would take its containers and its configuration away.
    std::mem::forget(docker);
}

/// Ends what was interrupted; Docker has then what it had.
fn after_a_cut(bench: &Bench, config: Config, verb: &str) -> Docker {
    let journals = entries(&bench.state.join("journal"));
    let ended = bench.cmd(&[verb]).limit(LONG).run();
    println!("  after the cut: {journals:?}, {ended}");
    // There is nothing to be taken back of a migration that has ended.
    assert!(ended.ok() || journals.is_empty(), "{ended}");
    assert_eq!(entries(&bench.state.join("journal")), Vec::<String>::new());
    let docker = Docker::start_as_told(config, None).unwrap();
    assert_eq!(Some(of_container(&docker, "kept")), boot::recall("contents"));
    docker.cmd(["run", "--rm", "--network", "none", IMAGE, "echo", "new"]).run().checked().unwrap();
    bench.ok(&["migrate", "--delete-old", "--yes"]);
    let home = entries(&docker.root().join("devicemapper"));
    assert_eq!(home, ["devicemapper", "metadata", "mnt"]);
    assert!(sys::loops().unwrap().len() == 2, "{:?}", sys::loops());
    without_backups();
    docker
}
