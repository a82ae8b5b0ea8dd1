//! A whole Docker root in an archive, and another Docker on what is made of it.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use lab::guest::boot;
use lab::guest::disk::{Kind, Mounted};
use lab::guest::docker::{Config, DAEMON_JSON, Docker};
use lab::guest::inventory::{Except, Field, Inventory, Kind as File};
use lab::guest::menagerie::{Menagerie, names};
use lab::guest::run::{Cmd, Ran};
use serde_json::{Value, json};

use crate::migrate_overlay2::{assert_is_the_same_but, small};
use crate::rescue_devicemapper::assert_nothing_left;
use crate::support::Bench;

struct Saved {
    bench: Bench,
    disk: Mounted,
    root: PathBuf,
    truth: Menagerie,
}

impl Saved {
    /// A Docker that has stopped.
    fn new(kind: Kind, config: impl Fn(&Path) -> Config, fill: fn(&Docker) -> Menagerie) -> Self {
        let bench = Bench::with_faults();
        let disk = Mounted::format(kind, &boot::scratch_disks()[0], &bench.sweep.path("save")).unwrap();
        let root = disk.dir().join("root");
        let mut docker = Docker::start(config(&root)).unwrap();
        let truth = fill(&docker);
        let saved = Self { bench, disk, root, truth };
        let refused = saved.dmpool(&["save", "-o", "/tmp/none.tar"], "", 3);
        assert!(refused.contains("its Docker runs") && refused.contains("systemctl stop docker"), "{refused}");
        docker.stop().unwrap();
        // The root is another Docker's by the time in which this one would take it down.
        std::mem::forget(docker);
        saved
    }

    fn path(&self, name: &str) -> String {
        self.disk.dir().join(name).to_str().unwrap().to_owned()
    }

    #[track_caller]
    fn dmpool(&self, args: &[&str], fault: &str, code: i32) -> String {
        let root = ["--root", self.root.to_str().unwrap()];
        let ran = self.bench.cmd(&[&root, args].concat()).env("DMPOOL_FAULT", fault).run();
        println!("{ran}");
        match code {
            9 => assert_eq!(ran.code(), None, "{ran}"),
            code => assert_eq!(ran.code(), Some(code), "{ran}"),
        }
        format!("{}{}", ran.stdout, ran.stderr)
    }

    /// Tells Docker overlay2, on a root that is not there.
    fn move_away(&self) {
        fs::rename(&self.root, self.path("root.before")).unwrap();
        let mut told: Value = serde_json::from_slice(&fs::read(DAEMON_JSON).unwrap()).unwrap();
        told["storage-driver"] = json!("overlay2");
        told["storage-opts"] = json!([]);
        fs::write(DAEMON_JSON, told.to_string()).unwrap();
    }

    /// Starts Docker on what was loaded, and looks whether all is as it was.
    fn starts(&self) -> Docker {
        let config = Config { driver: "overlay2".to_owned(), ..Config::new(&self.root) };
        let docker = Docker::start_as_told(config, None).unwrap();
        let found = Menagerie::of(&docker).unwrap();
        assert_eq!(docker.storage_value("Storage Driver").unwrap(), "overlay2");
        let but = Except::nothing().field(Field::DirectorySize).kind(File::Socket);
        assert_is_the_same_but(&self.truth, &found, &docker, &but);
        docker
    }

    /// A file system that ends in the middle of the archive takes nothing.
    fn meets_a_full_disk(&self, archive: &str) {
        let first = fs::read(archive).unwrap();
        let start = first.iter().position(|b| *b == b'{').unwrap();
        let contents = serde_json::Deserializer::from_slice(&first[start..]).into_iter::<Value>().next();
        let bytes = contents.unwrap().unwrap()["bytes"].as_u64().unwrap();
        let room = first.len() as u64 - (512 << 10);
        assert!(room > bytes, "{room} of {bytes}: it would be refused beforehand");
        let place = self.path("full");
        fs::create_dir(&place).unwrap();
        let size = format!("size={room}");
        Cmd::new("mount").args(["-t", "tmpfs", "-o", &size, "none", &place]).run().checked().unwrap();
        let full = self.dmpool(&["save", &format!("{place}/a.tar")], "", 1);
        assert!(full.contains("ENOSPC") && full.contains("what was written is removed"), "{full}");
        assert_eq!(fs::read_dir(&place).unwrap().count(), 0);
        Cmd::new("umount").arg(&place).run().checked().unwrap();
    }

    /// What is damaged is named, and nothing is made of it.
    fn names_what_is_damaged(&self, archive: &str) {
        let bytes = fs::read(archive).unwrap();
        let find = |what: &[u8]| bytes.windows(what.len()).position(|found| found == what).unwrap();
        let bad = self.path("bad.tar");
        let damaged = |at: usize, says: &[&str]| {
            fs::write(&bad, &bytes).unwrap();
            let file = fs::OpenOptions::new().write(true).open(&bad).unwrap();
            file.write_all_at(&[bytes[at] ^ 1], at as u64).unwrap();
            for args in [vec!["load", "--check", &bad], vec!["load", "--yes", &bad]] {
                let said = self.dmpool(&args, "", 3);
                assert!(says.iter().all(|says| said.contains(says)), "{says:?}: {said}");
            }
            assert!(!self.root.exists());
        };
        // What is in the one volume.
        damaged(find(b"of-the-volume"), &["volume data is damaged: its checksum is wrong"]);
        for length in [bytes.len() / 2, bytes.len() - 1024, 700].into_iter().take(if boot::full() { 3 } else { 1 }) {
            fs::write(&bad, &bytes[..length]).unwrap();
            let cut = self.dmpool(&["load", "--yes", &bad], "", 3);
            assert!(cut.contains("cut off"), "{cut}");
            // What comes through a pipe is made aside, and gone.
            let piped = self.piped(&format!("head -c {length} {archive} | DMPOOL load --yes -"));
            assert!(piped.code() == Some(3) && piped.stderr.contains("cut off"), "{piped}");
            assert!(!self.root.exists());
        }
        if !boot::full() {
            return;
        }
        damaged(find(b"\"storage-driver\""), &["the host's files is damaged"]);
        damaged(find(b"volumes/data/_data/own"), &["volume data: ", "checksum of a header is wrong"]);
        let sums = bytes.windows(7).rposition(|found| found == b"\"items\"").unwrap() + 20;
        damaged(sums, &["dmpool-root-sums.json"]);
    }

    fn piped(&self, line: &str) -> Ran {
        let line = line.replace("DMPOOL", &format!("dmpool --root {}", self.root.display()));
        Cmd::new("bash").args(["-o", "pipefail", "-c", &line]).limit(std::time::Duration::from_secs(600)).run()
    }
}

#[test]
fn a_root_is_saved_and_loaded() {
    boot::time_limit(std::time::Duration::from_secs(900));
    let config = |root: &Path| {
        Config::new(root).option("dm.loopdatasize=400M").option("dm.loopmetadatasize=16M").option("dm.basesize=1G")
    };
    let made = |docker: &Docker| {
        small(docker);
        // More than Docker has written down of.
        let random = ["dd", "if=/dev/urandom", "of=/random", "bs=64k", "count=32"];
        docker.exec("odd", &random).checked().unwrap();
        docker.exec("base", &["sh", "-c", "echo -n of-the-volume >/data/own"]).checked().unwrap();
        docker.exec("odd", &["sync"]).checked().unwrap();
        Menagerie::of(docker).unwrap()
    };
    let saved = Saved::new(Kind::Ext4, config, made);
    let before = Inventory::of(&saved.root).unwrap();
    let archive = saved.path("root.tar");
    let said = saved.dmpool(&["save", &archive], "", 0);
    assert!(said.contains("saved 3 containers, 8 layers, 1 volume"), "{said}");
    assert!(
        saved
            .dmpool(&["save", &format!("{}/in.tar", saved.root.display())], "", 3)
            .contains("in the Docker root itself")
    );
    saved.meets_a_full_disk(&archive);
    before.assert_is(&Inventory::of(&saved.root).unwrap(), &Except::nothing());
    assert_nothing_left(&saved.root);
    let there = saved.dmpool(&["load", "--yes", &archive], "", 3);
    assert!(there.contains("storage driver devicemapper"), "{there}");
    saved.move_away();
    saved.names_what_is_damaged(&archive);
    let dry = saved.dmpool(&["load", "--dry-run", &archive], "", 0);
    assert!(dry.contains("load 3 containers") && !saved.root.exists(), "{dry}");
    // Killed while it unpacks, and at each rename.
    saved.dmpool(&["load", "--yes", &archive], "2:layer:die", 9);
    for rename in if boot::full() { 1..=5 } else { 4..=5 } {
        for point in ["before", "after"] {
            saved.dmpool(&["load", "--yes", &archive], &format!("{rename}:{point}:die"), 9);
        }
    }
    // The last of them had come to its end but for its own directory.
    let full = saved.dmpool(&["load", "--yes", &archive], "", 3);
    assert!(full.contains("it is not empty") && full.contains("of overlay2"), "{full}");
    let docker = saved.starts();
    docker.cmd(["start", "odd"]).run().checked().unwrap();
    assert_eq!(docker.exec("odd", &["cat", "/img/touched"]).checked().unwrap().stdout, "7");
}

/// Dear: with one of everything, through a pipe.
#[test]
fn one_of_everything_is_saved_and_loaded() {
    if !boot::full() {
        boot::skip("takes minutes; --full");
    }
    boot::time_limit(std::time::Duration::from_secs(1800));
    let made = |docker: &Docker| Menagerie::make(docker, 60).unwrap();
    let saved = Saved::new(Kind::Xfs, |root| Menagerie::config("devicemapper", root), made);
    let archive = saved.path("root.tar");
    let ran = saved.piped(&format!("DMPOOL save --include-binds - > {archive}"));
    assert!(ran.ok(), "{ran}");
    println!("{ran}");
    saved.move_away();
    let ran = saved.piped(&format!("cat {archive} | DMPOOL load --yes -"));
    assert!(ran.ok(), "{ran}");
    println!("{ran}");
    let docker = saved.starts();
    docker.cmd(["start", names::CHANGED]).run().checked().unwrap();
}
