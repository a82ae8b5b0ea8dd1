use std::path::Path;
use std::time::Duration;

use lab::guest::disk::{LoopDisk, Mounted};
use lab::guest::docker::{Config, Docker, find, get, pairs};
use lab::guest::sweep::Sweep;
use lab::guest::sys;
use lab::guest::writer::Tally;

/// The report that `lab-writer` leaves.
fn report(path: &Path) -> Tally {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

#[test]
fn docker_on_its_default_pool_runs_a_container_that_writes() {
    let sweep = Sweep::new().unwrap();
    let disk = LoopDisk::create(&sweep.path("disk"), 6 << 30).unwrap();
    let mounted = Mounted::format(lab::guest::disk::Kind::Ext4, disk.device(), &sweep.path("docker")).unwrap();
    let config = Config::new(mounted.dir().join("root")).option("dm.basesize=1G");
    let mut docker = Docker::start(config).unwrap();
    docker.busybox(&[&find("lab-writer").unwrap()]).unwrap();

    let block = docker.storage_block().unwrap();
    assert_eq!(pairs(&block)[0], ("Storage Driver".into(), "devicemapper".into()));
    assert_eq!(docker.storage_value("Data Space Total").unwrap(), "107.4GB");
    assert!(sys::dm_exists(&docker.pool().unwrap()).unwrap());
    let (status, body) = get("/info").unwrap();
    assert_eq!(status, 200);
    assert!(String::from_utf8_lossy(&body).contains(&docker.pool().unwrap()));

    let reports = sweep.subdir("reports").unwrap();
    let volume = format!("{}:/reports", reports.display());
    let writer = ["lab-writer", "/data/written", "--report", "/reports/tally.json"];
    let id = docker.run_detached(&["-v", &volume, "--name", "writer"], &writer).unwrap();
    assert!(docker.exec("writer", &["ls", "/data"]).ok());
    docker.kill().unwrap();
    docker.up().unwrap();
    docker.cmd(["stop", &id]).limit(Duration::from_secs(60)).run().checked().unwrap();
    let tally = report(&reports.join("tally.json"));
    assert!(tally.ops > 0 && tally.errors == 0, "{tally:?}");
    let pool = docker.pool().unwrap();
    docker.stop().unwrap();
    assert!(!sys::dm_exists(&pool).unwrap(), "a clean stop takes the pool down");
}
