//! The cure of a link to a disk that may be another one after a boot, followed to the letter.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use lab::guest::docker::{DAEMON_JSON, IMAGE};

use crate::host::{Disk, G, Host};
use crate::shapes::Disklet;
use crate::support::Bench;
use crate::support::health::{Said, paste, while_stopped};

#[test]
fn docker_on_a_link_to_a_disk_keeps_all_it_has_by_the_printed_cure() {
    let bench = Bench::new();
    let disk = Disklet::new(&bench, "renumbered", 0, 3 * G);
    // As `/dev/sdb`: the name that it happens to have in this boot.
    let target: PathBuf = disk.path().canonicalize().unwrap();
    let link = |root: &Path| {
        let files = root.join("devicemapper/devicemapper");
        fs::create_dir_all(&files).unwrap();
        symlink(&target, files.join("data")).unwrap();
    };
    let mut host = Host::prepared(bench, Disk::Small, &["dm.basesize=1G", "dm.loopdatasize=0"], link);
    host.docker.cmd(["create", "--name", "kept", IMAGE, "sh"]).run().checked().unwrap();
    let about = |host: &Host| Said::about(&host.bench, "docker", &[]);
    let has = |host: &Host| {
        let list = |what: &[&str]| host.docker.cmd(what).run().checked().unwrap().stdout;
        (list(&["images", "-q", "--no-trunc"]), list(&["ps", "-aq", "--no-trunc"]), host.json("/pool/data/used"))
    };
    let (before, told) = (has(&host), about(&host));
    let by_hand = told.by_hand("symlinked_device", "critical");
    let option =
        by_hand.strip_prefix("add ").and_then(|rest| rest.split_once(" to Docker's storage options")).unwrap().0;
    assert!(option.starts_with("dm.datadev=/dev/disk/by-id/"), "{by_hand}");
    let mut json: serde_json::Value = serde_json::from_slice(&fs::read(DAEMON_JSON).unwrap()).unwrap();
    json["storage-opts"].as_array_mut().unwrap().push(option.into());
    fs::write(DAEMON_JSON, json.to_string()).unwrap();
    host.docker.stop().unwrap();
    paste(while_stopped(&told.way("symlinked_device", "critical")));
    host.docker.up().unwrap();
    assert_eq!(has(&host), before);
    about(&host).without("symlinked_device");
    host.assert_parity();
    host.docker.cmd(["start", "kept"]).run().checked().unwrap();
    assert!(!host.file("data").exists(), "Docker makes no file in its place");
    drop(host);
    drop(disk);
}
