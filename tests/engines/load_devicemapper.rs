//! A whole Docker root out of an archive, onto a pool of devicemapper's on new files.

use std::fs;
use std::path::Path;
use std::time::Duration;

use lab::guest::boot;
use lab::guest::disk::Kind;
use lab::guest::docker::{Config, DAEMON_JSON, Docker};
use lab::guest::menagerie::{Menagerie, names};
use lab::guest::run::Cmd;
use serde_json::{Value, json};

use crate::migrate::without_backups;
use crate::migrate_overlay2::small;
use crate::rescue_devicemapper::assert_nothing_left;
use crate::save_load::Saved;

/// What every load onto it begins with.
const LOAD: [&str; 3] = ["load", "--driver", "devicemapper"];

fn config(root: &Path) -> Config {
    Config::new(root).option("dm.loopdatasize=400M").option("dm.loopmetadatasize=16M").option("dm.basesize=1G")
}

/// Changes what Docker is told.
fn tell(change: impl Fn(&mut Value)) {
    let mut told: Value = serde_json::from_slice(&fs::read(DAEMON_JSON).unwrap()).unwrap();
    change(&mut told);
    fs::write(DAEMON_JSON, told.to_string()).unwrap();
}

/// Tells Docker these storage options, while something is done.
fn while_told(options: &Value, act: impl FnOnce()) {
    let before = fs::read(DAEMON_JSON).unwrap();
    tell(|told| told["storage-opts"] = options.clone());
    act();
    fs::write(DAEMON_JSON, before).unwrap();
}

impl Saved {
    #[track_caller]
    fn load(&self, args: &[&str], fault: &str, code: i32) -> String {
        let said = self.dmpool(&[&LOAD, args].concat(), fault, code);
        // A device that has no table yet is the next one's to remove.
        if !fault.contains("before-device") {
            assert_nothing_left(&self.root);
        }
        said
    }

    /// The root goes elsewhere. A Docker that has ended in a hurry leaves it mounted on itself.
    fn is_set_aside(&self) {
        let to = self.path("root.before");
        if fs::rename(&self.root, &to).is_err() {
            Cmd::new("umount").arg(&self.root).run().checked().unwrap();
            fs::rename(&self.root, &to).unwrap();
        }
    }

    /// Every reason not to do it, with nothing made.
    fn is_refused(&self, archive: &str) {
        let other = self.dmpool(&["load", "--yes", archive], "", 3);
        assert!(other.contains("--driver devicemapper makes a root for that"), "{other}");
        assert!(self.dmpool(&["load", "--yes", "--base-size", "2G", archive], "", 2).contains("overlay2 has none"));
        let twice = self.load(&["--yes", "--base-size", "2G", archive], "", 3);
        assert!(twice.contains("dm.basesize=1G; --base-size 2G"), "{twice}");
        while_told(&json!(["dm.thinpooldev=/dev/mapper/p0"]), || {
            let named = self.load(&["--yes", archive], "", 3);
            assert!(named.contains("the pool p0") && named.contains("dmpool migrate --name"), "{named}");
        });
        while_told(&json!([]), || {
            // All is unpacked before that is seen.
            if boot::full() {
                let small = self.load(&["--yes", "--fs", "ext4", "--base-size", "12M", archive], "", 3);
                assert!(small.contains("does not fit into its volume") && small.contains("--base-size 1G"), "{small}");
            }
            let short = self.load(&["--yes", "--data-size", "8M", archive], "", 3);
            assert!(short.contains("100.0 GiB long when it starts") && short.contains("dm.loopdatasize=8M"), "{short}");
            let none = self.load(&["--yes", "--fs", "xfs", "--base-size", "16M", archive], "", 3);
            assert!(none.contains("no xfs of 16.0 MiB can be made"), "{none}");
        });
        while_told(&json!(["dm.loopdatasize=8M"]), || {
            let full = self.load(&["--yes", archive], "", 3);
            assert!(full.contains("does not fit into the pool") && full.contains("dm.loopdatasize=1G"), "{full}");
        });
        tell(|told| told["storage-driver"] = json!("overlay2"));
        let overlay2 = self.load(&["--yes", archive], "", 3);
        tell(|told| told["storage-driver"] = json!("devicemapper"));
        assert!(overlay2.contains("Docker is told the storage driver overlay2"), "{overlay2}");
        assert!(!self.root.exists());
    }

    /// Docker goes on with it as with what it has made itself.
    fn goes_on(&self, docker: &Docker) {
        let said = |args: &[&str]| docker.cmd(args.iter().copied()).run().checked().unwrap().stdout;
        assert_eq!(docker.storage_value("Base Device Size").unwrap(), "1.074GB");
        let data = docker.storage_value("Data loop file").unwrap();
        assert_eq!(Path::new(&data), self.root.join("devicemapper/devicemapper/data"));
        said(&["start", "odd"]);
        assert_eq!(docker.exec("odd", &["cat", "/img/touched"]).checked().unwrap().stdout, "7");
        docker.exec("odd", &["sh", "-c", "echo more >/more"]).checked().unwrap();
        assert!(said(&["diff", "odd"]).lines().any(|line| line == "A /more"));
        said(&["commit", "--pause=false", "odd", "image:3"]);
        assert_eq!(said(&["run", "--rm", "--network", "none", "image:3", "cat", "/more"]), "more\n");
        said(&["rm", "-f", "base"]);
    }
}

#[test]
fn a_root_is_loaded_onto_devicemapper() {
    boot::time_limit(Duration::from_secs(900));
    let (saved, mut docker) = Saved::new(Kind::Ext4, config, small);
    let archive = saved.path("root.tar");
    docker.stop().unwrap();
    std::mem::forget(docker);
    saved.dmpool(&["save", &archive], "", 0);
    saved.is_set_aside();
    saved.is_refused(&archive);
    let dry = saved.load(&["--dry-run", &archive], "", 0);
    assert!(dry.contains("for the storage driver devicemapper") && dry.contains("an xfs of 1.0 GiB"), "{dry}");
    assert!(!saved.root.exists());
    // Killed in the middle of a volume, and when some names are in place.
    let deaths: &[&str] = if boot::full() {
        &[
            "2:layer:die",
            "1:before-device:die",
            "1:after-device:die",
            "2:after-device:die",
            "4:before-device:die",
            "4:after-device:die",
            "7:after-device:die",
            "9:layer:die",
            "12:layer:die",
            "17:layer:die",
            "1:before:die",
            "1:after:die",
            "3:after:die",
        ]
    } else {
        // Between two renames: where a root is loaded for overlay2.
        &["7:after-device:die"]
    };
    for death in deaths {
        println!("{death}");
        saved.load(&["--yes", &archive], death, 9);
    }
    let failed = saved.load(&["--yes", &archive], "9:layer:fail", 1);
    assert!(failed.contains("nothing was put in place"), "{failed}");
    // The first of those that were killed has made the root.
    assert_eq!(fs::read_dir(&saved.root).unwrap().count(), 0);
    let said = saved.load(&["--yes", &archive], "", 0);
    assert!(said.contains("loaded 3 containers, 8 layers, 1 volume"), "{said}");
    let again = saved.load(&["--yes", &archive], "", 3);
    assert!(again.contains("it is not empty"), "{again}");
    let docker = saved.starts("devicemapper");
    saved.goes_on(&docker);
    drop(docker);
    without_backups();
}

/// Layers that were directories become volumes.
#[test]
fn a_root_of_overlay2_is_loaded_onto_devicemapper() {
    if !boot::full() {
        boot::skip("takes minutes; --full");
    }
    boot::time_limit(Duration::from_secs(900));
    let overlay2 = |root: &Path| Config { driver: "overlay2".to_owned(), options: Vec::new(), ..Config::new(root) };
    let (saved, mut docker) = Saved::new(Kind::Ext4, overlay2, small);
    let archive = saved.path("root.tar");
    docker.stop().unwrap();
    std::mem::forget(docker);
    saved.dmpool(&["save", &archive], "", 0);
    saved.is_set_aside();
    tell(|told| {
        told["storage-driver"] = json!("devicemapper");
        told["storage-opts"] = json!(["dm.loopdatasize=400M", "dm.loopmetadatasize=16M", "dm.basesize=1G"]);
    });
    let said = saved.load(&["--yes", &archive], "", 0);
    assert!(said.contains("loaded 3 containers, 8 layers, 1 volume"), "{said}");
    let docker = saved.starts("devicemapper");
    saved.goes_on(&docker);
    drop(docker);
    without_backups();
}

/// Dear: with one of everything, through a pipe; larger, on the other file system.
#[test]
fn one_of_everything_is_loaded_onto_devicemapper() {
    if !boot::full() {
        boot::skip("takes minutes; --full");
    }
    boot::time_limit(Duration::from_secs(1800));
    let made = |docker: &Docker| Menagerie::make(docker, 60).unwrap();
    let (saved, mut docker) = Saved::new(Kind::Xfs, |root| Menagerie::config("devicemapper", root), made);
    docker.stop().unwrap();
    std::mem::forget(docker);
    let archive = saved.path("root.tar");
    let ran = saved.piped(&format!("DMPOOL save --include-binds - > {archive}"));
    assert!(ran.ok(), "{ran}");
    saved.is_set_aside();
    tell(|told| told["storage-opts"] = json!(["dm.loopdatasize=3G", "dm.loopmetadatasize=32M"]));
    let ran = saved.piped(&format!(
        "cat {archive} | DMPOOL load --driver devicemapper --base-size 3G --fs ext4 --data-size 3G --metadata-size 32M --yes -"
    ));
    assert!(ran.ok(), "{ran}");
    println!("{ran}");
    assert_nothing_left(&saved.root);
    let docker = saved.starts("devicemapper");
    assert_eq!(docker.storage_value("Base Device Size").unwrap(), "3.221GB");
    assert_eq!(docker.storage_value("Backing Filesystem").unwrap(), "ext4");
    docker.cmd(["start", names::CHANGED]).run().checked().unwrap();
}
