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

use crate::migrate::{by_scripts, entries, script, without_backups};
use crate::migrate_overlay2::{assert_is_the_same_but, small};
use crate::rescue_devicemapper::assert_nothing_left;
use crate::support::Bench;

/// What the word begins with that keeps Docker from starting.
const HELD: &str = "dmpool has stopped this Docker";

pub(crate) struct Saved {
    bench: Bench,
    disk: Mounted,
    pub(crate) root: PathBuf,
    pub(crate) truth: Menagerie,
    /// What stops Docker and what starts it.
    ways: [String; 2],
}

impl Saved {
    /// With a Docker that runs.
    pub(crate) fn new(kind: Kind, config: impl Fn(&Path) -> Config, fill: fn(&Docker) -> Menagerie) -> (Self, Docker) {
        let bench = Bench::with_faults();
        let disk = Mounted::format(kind, &boot::scratch_disks()[0], &bench.sweep.path("save")).unwrap();
        let root = disk.dir().join("root");
        let docker = Docker::start(config(&root)).unwrap();
        let truth = fill(&docker);
        let ways = by_scripts(&bench);
        (Self { bench, disk, root, truth, ways }, docker)
    }

    /// Stops a Docker whoever has started it. The root is another one's by the time in which this one would take it down.
    fn stop(&self, docker: Docker) {
        Cmd::new(&self.ways[0]).run().checked().unwrap();
        std::mem::forget(docker);
    }

    #[track_caller]
    fn save_running(&self, args: &[&str], fault: &str, code: i32) -> String {
        let [stop, start] = &self.ways;
        let ways = ["--stop-command", stop, "--start-command", start];
        self.dmpool(&[&["save"], args, &ways[..]].concat(), fault, code)
    }

    /// What is beside the archives that is none.
    fn unfinished(&self) -> usize {
        let names = fs::read_dir(self.disk.dir()).unwrap().map(|entry| entry.unwrap().file_name());
        names.filter(|name| name.to_string_lossy().contains(".dmpool-")).count()
    }

    /// Docker answers, and what ran in it runs.
    #[track_caller]
    fn runs_again(&self, docker: &Docker) {
        for name in ["base", "odd"] {
            docker.exec(name, &["sh", "-c", ":"]).checked().unwrap();
        }
        let told = fs::read_to_string(DAEMON_JSON).unwrap();
        assert!(!told.contains(HELD) && self.unfinished() == 0, "{told}");
        assert!(self.dmpool(&["undo"], "", 0).contains("nothing was interrupted"));
    }

    /// Docker is stopped for it, and started again, also when dmpool is killed in the middle.
    fn while_docker_runs(&self, docker: &Docker, archive: &str) {
        let piped = self.save_running(&["-", "--yes"], "", 3);
        assert!(piped.contains("name a file"), "{piped}");
        let nowhere = self.save_running(&[&self.path("none/root.tar"), "--yes"], "", 3);
        assert!(nowhere.contains("mkdir -p"), "{nowhere}");
        let unasked = self.save_running(&[archive], "", 3);
        assert!(unasked.contains("it must be confirmed") && unasked.contains("with Docker stopped"), "{unasked}");
        let dry = self.save_running(&[archive, "--dry-run"], "", 0);
        assert!(dry.contains("5. write ") && dry.contains("docker start "), "{dry}");
        self.runs_again(docker);
        self.save_running(&[archive, "--yes"], "2:layer:die", 9);
        assert!(!Path::new(archive).exists() && self.unfinished() == 1);
        assert!(!docker.cmd(["version"]).run().ok());
        let finished = self.dmpool(&["continue"], "", 0);
        assert!(finished.contains("saved 3 containers, 8 layers, 1 volume"), "{finished}");
        self.runs_again(docker);
        let bytes = fs::read(archive).unwrap();
        assert!(!bytes.windows(HELD.len()).any(|found| found == HELD.as_bytes()), "the hold is in the archive");
    }

    /// One root after the other: what is loaded for overlay2 is saved from there.
    fn goes_on_from_overlay2(&self, mut docker: Docker) {
        let of = |docker: &Docker| {
            let said = |args: &[&str]| docker.cmd(args.iter().copied()).run().checked().unwrap().stdout;
            // `docker diff` lists as it meets: in the order of the directory.
            let changes = said(&["diff", "odd"]);
            let mut changes: Vec<_> = changes.lines().collect();
            changes.sort_unstable();
            [said(&["ps", "-aq", "--no-trunc"]), said(&["images", "-aq", "--no-trunc"]), changes.join("\n")]
        };
        let before = of(&docker);
        let starts_odd = |docker: &Docker| {
            docker.cmd(["start", "odd"]).run().checked().unwrap();
            assert_eq!(docker.exec("odd", &["cat", "/img/touched"]).checked().unwrap().stdout, "7");
        };
        starts_odd(&docker);
        if boot::full() {
            let running = self.path("running.tar");
            self.save_running(&[&running, "--yes"], "", 0);
            assert_eq!(of(&docker), before);
            self.dmpool(&["load", "--check", &running], "", 0);
            Cmd::new(&self.ways[0]).run().checked().unwrap();
        } else {
            docker.stop().unwrap();
        }
        let archive = self.path("second.tar");
        let dry = self.dmpool(&["save", &archive, "--dry-run"], "", 0);
        assert!(dry.contains("would save 3 containers") && !Path::new(&archive).exists(), "{dry}");
        self.dmpool(&["save", &archive], "", 0);
        // Another Docker on it: with --full.
        if !boot::full() {
            self.dmpool(&["load", "--check", &archive], "", 0);
            drop(docker);
            without_backups();
            return;
        }
        std::mem::forget(docker);
        fs::rename(&self.root, self.path("root.first")).unwrap();
        let loaded = self.dmpool(&["load", "--yes", &archive], "", 0);
        assert!(loaded.contains("next: service docker start    # its root is "), "{loaded}");
        let config = Config { driver: "overlay2".to_owned(), ..Config::new(&self.root) };
        let docker = Docker::start_as_told(config, None).unwrap();
        assert_eq!(of(&docker), before);
        starts_odd(&docker);
        drop(docker);
        without_backups();
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.disk.dir().join(name).to_str().unwrap().to_owned()
    }

    #[track_caller]
    pub(crate) fn dmpool(&self, args: &[&str], fault: &str, code: i32) -> String {
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
    pub(crate) fn starts(&self, driver: &str) -> Docker {
        let config = Config { driver: driver.to_owned(), ..Config::new(&self.root) };
        let docker = Docker::start_as_told(config, None).unwrap();
        let mut found = Menagerie::of(&docker).unwrap();
        assert_eq!(docker.storage_value("Storage Driver").unwrap(), driver);
        if driver == self.truth.driver {
            of_another_pool(&self.truth, &mut found);
        }
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

    pub(crate) fn piped(&self, line: &str) -> Ran {
        let line = line.replace("DMPOOL", &format!("dmpool --root {}", self.root.display()));
        Cmd::new("bash").args(["-o", "pipefail", "-c", &line]).limit(std::time::Duration::from_secs(600)).run()
    }
}

/// Takes out of what Docker says how volumes are called, which id they have, and how long they are: each pool has its own.
fn of_another_pool(truth: &Menagerie, found: &mut Menagerie) {
    let own = |was: &Value, is: &mut Value| {
        assert_eq!(was["GraphDriver"]["Name"], is["GraphDriver"]["Name"]);
        is["GraphDriver"] = was["GraphDriver"].clone();
    };
    for is in &mut found.containers {
        own(&truth.container(&is.name).unwrap().inspect, &mut is.inspect);
    }
    for is in &mut found.images {
        own(&truth.images.iter().find(|was| was.id == is.id).unwrap().inspect, &mut is.inspect);
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
    let (saved, docker) = Saved::new(Kind::Ext4, config, made);
    let archive = saved.path("root.tar");
    saved.while_docker_runs(&docker, &archive);
    saved.stop(docker);
    let before = Inventory::of(&saved.root).unwrap();
    let said = saved.dmpool(&["save", &saved.path("down.tar")], "", 0);
    assert!(said.contains("saved 3 containers, 8 layers, 1 volume"), "{said}");
    let inside = saved.dmpool(&["save", &format!("{}/in.tar", saved.root.display())], "", 3);
    assert!(inside.contains("in the Docker root itself") && inside.contains("name a file elsewhere"), "{inside}");
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
    saved.goes_on_from_overlay2(saved.starts("overlay2"));
}

/// A root whose containers run, on loop files.
fn running() -> (Saved, Docker) {
    let config = |root: &Path| {
        Config::new(root).option("dm.loopdatasize=400M").option("dm.loopmetadatasize=16M").option("dm.basesize=1G")
    };
    let made = |docker: &Docker| {
        small(docker);
        let random = ["dd", "if=/dev/urandom", "of=/random", "bs=64k", "count=32"];
        docker.exec("odd", &random).checked().unwrap();
        Menagerie::of(docker).unwrap()
    };
    Saved::new(Kind::Ext4, config, made)
}

/// Dear: it ends at each step; Docker runs again each time, with what ran in it.
#[test]
fn a_save_that_ends_at_any_step_leaves_a_docker_that_runs() {
    if !boot::full() {
        boot::skip("takes minutes; --full");
    }
    boot::time_limit(std::time::Duration::from_secs(1800));
    let (saved, docker) = running();
    let archive = saved.path("root.tar");
    let dry = saved.save_running(&[&archive, "--dry-run"], "", 0);
    let is_step =
        |line: &&str| line.trim_start().split_once(". ").is_some_and(|(number, _)| number.parse::<usize>().is_ok());
    let steps = dry.lines().filter(is_step).count();
    assert_eq!(steps, 7, "{dry}");
    for step in 1..=steps {
        for (point, verb) in [("before", "continue"), ("after", "undo"), ("after:fail", "")] {
            let case = format!("step {step}, {point}, {verb}");
            let _ = fs::remove_file(&archive);
            let (fault, code) = match verb {
                // Docker serves by then: who undoes is told to go on.
                "" if step == steps => continue,
                "" => (format!("{step}:{point}"), 1),
                _ => (format!("{step}:{point}:die"), 9),
            };
            let said = saved.save_running(&[&archive, "--yes"], &fault, code);
            match verb {
                "" if step < 5 => assert!(said.contains("the machine is as it was"), "{case}: {said}"),
                // Nobody throws a whole archive away.
                "" => assert!(said.contains("root.tar is whole, and stays"), "{case}: {said}"),
                "undo" if step == steps => {
                    let refused = saved.dmpool(&["undo"], "", 3);
                    assert!(refused.contains("the archive is written, and Docker runs again"), "{case}: {refused}");
                    saved.dmpool(&["continue"], "", 0);
                }
                verb => drop(saved.dmpool(&[verb], "", 0)),
            }
            saved.runs_again(&docker);
            let is_whole = Path::new(&archive).exists();
            assert!(is_whole || verb != "continue" && step < 6, "{case}");
            if is_whole {
                saved.dmpool(&["load", "--check", &archive], "", 0);
            }
        }
    }
    Cmd::new(&saved.ways[0]).run().checked().unwrap();
    drop(docker);
    without_backups();
}

/// Dear: where the archive has no room, which is known before Docker is stopped; and where somebody takes the room meanwhile.
#[test]
fn a_save_without_room_leaves_a_docker_that_runs() {
    if !boot::full() {
        boot::skip("takes a minute; --full");
    }
    let (mut saved, docker) = running();
    let archive = saved.path("root.tar");
    saved.save_running(&[&archive, "--yes"], "", 0);
    let length = fs::metadata(&archive).unwrap().len();
    let place = saved.path("full");
    fs::create_dir(&place).unwrap();
    let into = format!("{place}/a.tar");
    let mount = |size: u64| {
        let size = format!("size={size}");
        Cmd::new("mount").args(["-t", "tmpfs", "-o", &size, "none", &place]).run().checked().unwrap();
    };
    let daemon = || {
        let began =
            docker.cmd(["inspect", "-f", "{{.State.StartedAt}}", "base", "odd"]).run().checked().unwrap().stdout;
        (fs::read_to_string("/var/run/docker.pid").unwrap(), began)
    };
    let before = daemon();
    // `odd` alone has changed more than is free.
    mount(1 << 20);
    let refused = saved.save_running(&[&into, "--yes"], "", 3);
    assert!(refused.contains(&format!("the file system at {place} is too small")), "{refused}");
    assert!(refused.contains("nothing was touched"), "{refused}");
    assert_eq!(daemon(), before);
    Cmd::new("umount").arg(&place).run().checked().unwrap();
    // Room there is, until Docker stops.
    mount(length + (1 << 20));
    let fill = format!("dd if=/dev/zero of={place}/fill bs=1k count=1536 2>/dev/null; exec {}", saved.ways[0]);
    let stop = std::mem::replace(&mut saved.ways[0], script(saved.bench.sweep.path("fill"), &fill));
    let full = saved.save_running(&[&into, "--yes"], "", 1);
    assert!(full.contains("ENOSPC") && full.contains("the machine is as it was"), "{full}");
    assert!(full.contains("next:") && full.contains("run the same command again"), "{full}");
    assert_eq!(entries(Path::new(&place)), ["fill"]);
    Cmd::new("umount").arg(&place).run().checked().unwrap();
    saved.runs_again(&docker);
    Cmd::new(stop).run().checked().unwrap();
    drop(docker);
    without_backups();
}

/// Dear: with one of everything, through a pipe.
#[test]
fn one_of_everything_is_saved_and_loaded() {
    if !boot::full() {
        boot::skip("takes minutes; --full");
    }
    boot::time_limit(std::time::Duration::from_secs(1800));
    let made = |docker: &Docker| Menagerie::make(docker, 60).unwrap();
    let (saved, mut docker) = Saved::new(Kind::Xfs, |root| Menagerie::config("devicemapper", root), made);
    docker.stop().unwrap();
    std::mem::forget(docker);
    let archive = saved.path("root.tar");
    let ran = saved.piped(&format!("DMPOOL save --include-binds - > {archive}"));
    assert!(ran.ok(), "{ran}");
    println!("{ran}");
    saved.move_away();
    let ran = saved.piped(&format!("cat {archive} | DMPOOL load --yes -"));
    assert!(ran.ok(), "{ran}");
    println!("{ran}");
    let docker = saved.starts("overlay2");
    docker.cmd(["start", names::CHANGED]).run().checked().unwrap();
}
