//! From devicemapper to overlay2, with no Docker's help: the real dockerd on either side.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use lab::guest::boot;
use lab::guest::disk::{Kind, Mounted};
use lab::guest::docker::{Config, DAEMON_JSON, Docker, IMAGE};
use lab::guest::inventory::{Except, Field, Inventory};
use lab::guest::menagerie::{Container, Menagerie, names, served};
use serde_json::Value;

use crate::migrate::WAITS;
use crate::migrate_guide::on_a_terminal;
use crate::rescue_devicemapper::assert_nothing_left;
use crate::rescue_files::{acl, change_more, change_once, fill_image, mounted};
use crate::support::Bench;

/// A migration of one of everything, on a machine that does other things too.
const LONG: Duration = Duration::from_secs(600);
/// Fields of `docker inspect` that are of the start before.
const OF_THE_START: [&str; 4] = ["State", "ExecIDs", "NetworkSettings", "RestartCount"];
/// Those that are of the driver.
const OF_THE_DRIVER: [&str; 2] = ["Driver", "GraphDriver"];

fn said(inspect: &Value, one_driver: bool) -> Value {
    let mut inspect = inspect.clone();
    let fields = inspect.as_object_mut().unwrap();
    let of_the_driver = OF_THE_DRIVER.iter().filter(|_| !one_driver);
    OF_THE_START.iter().chain(of_the_driver).for_each(|field| drop(fields.remove(*field)));
    // Docker keeps these, and links, without an order.
    if let Some(mounts) = fields.get_mut("Mounts").and_then(Value::as_array_mut) {
        mounts.sort_by_key(|mount| mount["Destination"].to_string());
    }
    if let Some(links) = inspect.pointer_mut("/HostConfig/Links").and_then(Value::as_array_mut) {
        links.sort_by_key(Value::to_string);
    }
    inspect
}

/// How one ended that nobody starts: when, with what.
fn end(container: &Container) -> Option<Value> {
    let started_by_docker =
        container.inspect.pointer("/HostConfig/RestartPolicy/Name").is_some_and(|name| name != "no");
    let ended = !["running", "paused"].contains(&container.state()) && !started_by_docker;
    ended.then(|| container.inspect["State"].clone())
}

/// What a network is, but for what Docker says only after a start; it makes its own bridge's anew in each.
fn networks(of: &Menagerie) -> Vec<String> {
    let told = |network: &Value| {
        let fields = ["/Name", "/Driver", "/Internal", "/Options", "/Labels", "/IPAM/Config/0/Subnet"];
        let ids = ["/Id", "/Created"].iter().filter(|_| network["Name"] != "bridge");
        let told = fields.iter().chain(ids).map(|field| format!("{field} {:?}", network.pointer(field)));
        told.collect::<Vec<_>>().join(" ")
    };
    let mut networks: Vec<_> = of.networks.as_array().unwrap().iter().map(told).collect();
    networks.sort();
    networks
}

/// Who comes to the web server gets the page that was written into it, and the file that was made by hand is there.
fn assert_serves(docker: &Docker) {
    assert_eq!(served().unwrap(), names::WRITTEN);
    let by_hand = docker.exec(names::WEB, &["cat", "/tmp/by-hand.txt"]).checked().unwrap();
    assert_eq!(by_hand.stdout, "made by hand\n");
}

/// Everything that Docker and its files say is what it was.
pub(crate) fn assert_is_the_same(truth: &Menagerie, found: &Menagerie, docker: &Docker) {
    assert_is_the_same_but(truth, found, docker, &Except::nothing().field(Field::DirectorySize));
}

/// As [`assert_is_the_same`], but for what a way of copying cannot keep; a name of a socket has that word in it.
pub(crate) fn assert_is_the_same_but(truth: &Menagerie, found: &Menagerie, docker: &Docker, but: &Except) {
    let differences = truth.differences(found, but);
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    assert_eq!(truth.containers.len(), found.containers.len());
    let one_driver = truth.driver == found.driver;
    for was in &truth.containers {
        let is = found.container(&was.name).unwrap();
        assert_eq!(was.id, is.id);
        assert_eq!(said(&was.inspect, one_driver), said(&is.inspect, one_driver), "{}", was.name);
        // One that ran has ended since, with its Docker.
        if let Some(ended) = end(was) {
            assert_eq!(Some(ended), end(is), "{}", was.name);
        }
        let [before, after] = [was, is].map(|container| container.changes.iter().collect::<BTreeSet<_>>());
        let missing: Vec<_> = before.difference(&after).filter(|line| !line.contains("socket")).collect();
        // overlay2 tells a directory by its time, too.
        let more: Vec<_> = after.difference(&before).filter(|line| !line.starts_with("C ")).collect();
        assert!(missing.is_empty() && more.is_empty(), "{}: {missing:?} {more:?}", was.name);
        if !["running", "paused"].contains(&was.state()) {
            assert_eq!((&was.stdout, &was.stderr), (&is.stdout, &is.stderr), "{}", was.name);
        }
    }
    let saved = docker.root().with_file_name("saved.tar");
    let ids = |of: &Menagerie| of.images.iter().map(|image| image.id.clone()).collect::<BTreeSet<_>>();
    assert_eq!(ids(truth), ids(found));
    for was in &truth.images {
        let is = found.images.iter().find(|image| image.id == was.id).unwrap();
        assert_eq!(said(&was.inspect, one_driver), said(&is.inspect, one_driver));
        assert_eq!(was.history, is.history);
        // Each layer's tar has the digest that Docker has of it, or this fails.
        docker.cmd(["save", "-o", saved.to_str().unwrap(), &was.id]).run().checked().unwrap();
    }
    fs::remove_file(saved).unwrap();
    assert_eq!(networks(truth), networks(found));
    if truth.container(names::WEB).is_ok_and(|web| web.state() == "running") {
        assert_serves(docker);
    }
    assert_eq!(truth.volume_list, found.volume_list);
}

struct Laps(Instant);

impl Laps {
    fn lap(&mut self, what: &str) {
        println!("{what}: {:.1} s", self.0.elapsed().as_secs_f32());
        self.0 = Instant::now();
    }
}

/// Two images on each other, and a container with all that is odd: its volumes are those that a copy gets wrong.
pub(crate) fn small(docker: &Docker) -> Menagerie {
    docker.busybox(&[]).unwrap();
    docker.run_detached(&["--name", "base", "--volume", "data:/data"], &WAITS).unwrap();
    fill_image(&mounted(docker, "base"));
    change_once(&mounted(docker, "base"));
    fs::write(mounted(docker, "base").join("data/file"), "in a volume").unwrap();
    docker.cmd(["commit", "--pause=false", "base", "image:2"]).run().checked().unwrap();
    docker.cmd(["run", "-d", "--network", "none", "--name", "odd", "image:2"]).args(WAITS).run().checked().unwrap();
    let at = mounted(docker, "odd");
    change_more(&at);
    // Written in place, as long as it was, and its time put back.
    let path = at.join("img/touched");
    let before = fs::metadata(&path).unwrap().modified().unwrap();
    fs::OpenOptions::new().write(true).open(&path).unwrap().write_all(b"7").unwrap();
    fs::File::options().write(true).open(&path).unwrap().set_modified(before).unwrap();
    // Another name for a file of the image, and one name less.
    fs::hard_link(at.join("img/changed"), at.join("changed-too")).unwrap();
    fs::remove_file(at.join("img/kept-too")).unwrap();
    docker.cmd(["create", "--network", "none", "--name", "new", "image:2", "true"]).run().checked().unwrap();
    docker.cmd(["exec", "odd", "sync"]).run().checked().unwrap();
    Menagerie::of(docker).unwrap()
}

/// A Docker that has stopped, and what it was.
struct Stopped {
    bench: Bench,
    disk: Mounted,
    root: PathBuf,
    truth: Menagerie,
    laps: Laps,
}

impl Stopped {
    fn new(kind: Kind, config: fn(&Path) -> Config, fill: fn(&Docker) -> Menagerie) -> Self {
        let mut laps = Laps(Instant::now());
        let bench = Bench::with_faults();
        let disk = Mounted::format(kind, &boot::scratch_disks()[0], &bench.sweep.path("migrate")).unwrap();
        let root = disk.dir().join("root");
        let mut docker = Docker::start(config(&root)).unwrap();
        let truth = fill(&docker);
        docker.stop().unwrap();
        // The root is another Docker's by the time in which this one would take it down.
        std::mem::forget(docker);
        laps.lap("made");
        Self { bench, disk, root, truth, laps }
    }

    fn dmpool(&mut self, args: &[&str], fault: &str, code: i32) -> String {
        let ran = self.bench.cmd(args).env("DMPOOL_FAULT", fault).limit(LONG).run();
        self.laps.lap(&args.join(" "));
        println!("{ran}");
        match code {
            9 => assert_eq!(ran.code(), None, "{ran}"),
            code => assert_eq!(ran.code(), Some(code), "{ran}"),
        }
        format!("{}{}", ran.stdout, ran.stderr)
    }

    fn migrate(&mut self, fault: &str, code: i32) -> String {
        let root = self.root.to_str().unwrap().to_owned();
        self.dmpool(&["migrate", &root, "--to-driver", "overlay2", "--offline", "--yes"], fault, code)
    }

    fn picture(&self) -> (Inventory, String) {
        (Inventory::of(&self.root).unwrap(), fs::read_to_string(DAEMON_JSON).unwrap())
    }

    /// Nothing is there that was not, and nothing is another.
    fn assert_is_as_before(&self, (root, json): &(Inventory, String)) {
        // A configuration that was written twice says what it said.
        let but = Except::nothing().field(Field::DirectorySize).field(Field::Time);
        root.assert_is(&Inventory::of(&self.root).unwrap(), &but);
        assert_eq!(*json, fs::read_to_string(DAEMON_JSON).unwrap());
        assert_nothing_left(&self.root);
    }

    /// A copy would have the default ACL of the directory in all that is made, and is refused before anything is stopped.
    fn refuses_what_a_copy_would_inherit(&mut self, root: &str) {
        let key = "system.posix_acl_default";
        xattr::set(root, key, &acl()).unwrap();
        let refused = self.dmpool(&["migrate", root, "--to-driver", "overlay2", "--dry-run"], "", 3);
        assert!(refused.contains("default ACL") && refused.contains("setfacl -k"), "{refused}");
        xattr::remove(root, key).unwrap();
    }

    /// What Docker had written down of each container lies beside the journal, as it was before.
    fn has_kept_every_configuration(&self) {
        let kept = fs::read_dir(self.bench.state.join("saved")).unwrap().map(|entry| entry.unwrap().path());
        let kept: Vec<_> = kept.filter(|path| path.is_dir()).collect();
        let [kept] = kept.as_slice() else { panic!("{kept:?}") };
        let root = kept.join("files").join(self.root.strip_prefix("/").unwrap());
        for container in &self.truth.containers {
            let path = Path::new("containers").join(&container.id).join("config.v2.json");
            let [was, is] = [&root, &self.root].map(|root| fs::read_to_string(root.join(&path)).unwrap());
            let [old, new] = ["devicemapper", "overlay2"].map(|driver| format!("\"Driver\":\"{driver}\""));
            assert!(was.contains(&old) && was.replace(&old, &new) == is, "{was}\n{is}");
        }
    }

    /// Starts Docker on the copy, and looks whether all is as it was.
    fn starts_on_overlay2(&mut self) -> Docker {
        let json = fs::read_to_string(DAEMON_JSON).unwrap();
        assert!(json.contains("\"overlay2\"") && !json.contains("dm."), "{json}");
        let config = Config { driver: "overlay2".to_owned(), bridge: true, ..Config::new(&self.root) };
        let docker = Docker::start_as_told(config, None).unwrap();
        let found = Menagerie::of(&docker).unwrap();
        self.laps.lap("found");
        assert_eq!(docker.storage_value("Storage Driver").unwrap(), "overlay2");
        assert_is_the_same(&self.truth, &found, &docker);
        self.laps.lap("compared");
        docker
    }

    /// What is new is made, and a build goes on where the old one ended.
    fn builds(&mut self, docker: &Docker) {
        let context = self.disk.dir().join("context");
        fs::create_dir(&context).unwrap();
        fs::write(context.join("Dockerfile"), format!("FROM {IMAGE}\nRUN echo more >/more\n")).unwrap();
        let build = ["build", "--network", "none", "--tag", "dmpool-test-more:1", context.to_str().unwrap()];
        docker.cmd(build).run().checked().unwrap();
        let run = ["run", "--rm", "--network", "none", "dmpool-test-more:1", "cat", "/more"];
        assert_eq!(docker.cmd(run).run().checked().unwrap().stdout, "more\n");
        self.laps.lap("used");
    }
}

#[test]
fn a_dead_docker_comes_to_overlay2() {
    boot::time_limit(Duration::from_secs(900));
    let config = |root: &Path| {
        Config::new(root).option("dm.loopdatasize=400M").option("dm.loopmetadatasize=16M").option("dm.basesize=1G")
    };
    let mut stopped = Stopped::new(if boot::full() { Kind::Xfs } else { Kind::Ext4 }, config, small);
    let before = stopped.picture();
    let root = stopped.root.to_str().unwrap().to_owned();
    let dry = stopped.dmpool(&["migrate", &root, "--to-driver", "overlay2", "--dry-run"], "", 0);
    assert!(dry.contains("layers, about") && dry.contains("rename what was copied"), "{dry}");
    assert!(dry.contains("buildkit set aside"), "{dry}");
    stopped.refuses_what_a_copy_would_inherit(&root);
    stopped.assert_is_as_before(&before);
    // Everything is in its place, and one step later it would have been done.
    stopped.migrate("8:after:die", 9);
    let held = stopped.migrate("", 3);
    assert!(held.contains("dmpool undo"), "{held}");
    // As a Docker does that was started, and that nobody used.
    fs::create_dir(stopped.root.join("buildkit")).unwrap();
    fs::write(stopped.root.join("buildkit/cache.db"), "new").unwrap();
    stopped.dmpool(&["undo"], "", 0);
    stopped.assert_is_as_before(&before);
    if boot::full() {
        let failed = stopped.migrate("6:after:fail", 1);
        assert!(failed.contains("everything that had been done was taken back"), "{failed}");
        stopped.assert_is_as_before(&before);
        for step in 1..=9 {
            stopped.migrate(&format!("{step}:before:die"), 9);
            stopped.dmpool(&["undo"], &format!("{step}:after-revert:die"), 9);
            stopped.dmpool(&["undo"], "", 0);
            stopped.assert_is_as_before(&before);
        }
    }
    // Killed after the second layer, it goes on with the third.
    stopped.migrate("2:layer:die", 9);
    let layers = || -> Vec<(PathBuf, SystemTime)> {
        let left = fs::read_dir(&root).unwrap().map(|entry| entry.unwrap().path());
        let own = left.into_iter().find(|path| path.to_string_lossy().contains("dmpool-migrate-")).unwrap();
        let whole = fs::read_dir(own.join("whole")).unwrap().map(|entry| entry.unwrap());
        whole.map(|entry| (entry.path(), entry.metadata().unwrap().modified().unwrap())).collect()
    };
    let whole = layers();
    assert_eq!(whole.len(), 2);
    stopped.dmpool(&["continue"], "", 0);
    assert!(whole.iter().all(|layer| layers().contains(layer)));
    assert_nothing_left(&stopped.root);
    stopped.has_kept_every_configuration();
    let again = stopped.migrate("", 3);
    assert!(again.contains("it was migrated already") && again.contains("dmpool undo leads back"), "{again}");
    let docker = stopped.starts_on_overlay2();
    let again = ["--to-driver", "overlay2", "--stop-command", "true", "--start-command", "true", "--yes"];
    let again = stopped.dmpool(&[&["migrate", root.as_str()], &again[..]].concat(), "", 3);
    assert!(again.contains("Docker runs on overlay2") && again.contains("dmpool migrate --delete-old"), "{again}");
    let asked = on_a_terminal(&stopped.bench, &["migrate", &root], &[("migrated already", "")]);
    assert!(asked.code() == Some(3) && !asked.stdout.contains("What shall it become?"), "{asked}");
    assert!(asked.stdout.contains("dmpool migrate --delete-old"), "{asked}");
    docker.cmd(["start", "odd"]).run().checked().unwrap();
    assert_eq!(docker.exec("odd", &["cat", "/img/touched"]).checked().unwrap().stdout, "7");
    if boot::full() {
        stopped.builds(&docker);
    }
}

/// What devicemapper has left beside it is carried nowhere; and one that is told of another pool than it uses is told so, and not to leave it.
#[test]
fn a_docker_on_a_third_driver_is_let_be() {
    if !boot::full() {
        boot::skip("a minute: with --full");
    }
    let config = |root: &Path| {
        Config::new(root).option("dm.loopdatasize=400M").option("dm.loopmetadatasize=16M").option("dm.basesize=1G")
    };
    let mut stopped = Stopped::new(Kind::Xfs, config, small);
    let root = stopped.root.to_str().unwrap().to_owned();
    let refused = |stopped: &mut Stopped, what: &[&str], why: &str| {
        let ways = ["--stop-command", "true", "--start-command", "true"];
        let said = stopped.dmpool(&[&["migrate", &root, "--yes"], what, &ways[..]].concat(), "", 3);
        assert!(said.contains(why) && said.contains("nothing was touched"), "{said}");
        let asked = on_a_terminal(&stopped.bench, &[&["migrate", root.as_str()], &ways[..]].concat(), &[(why, "")]);
        assert!(asked.code() == Some(3) && !asked.stdout.contains("What shall it become?"), "{asked}");
        asked.stdout
    };
    let mut docker =
        Docker::start(Config { driver: "vfs".to_owned(), options: Vec::new(), ..Config::new(&stopped.root) }).unwrap();
    for what in [&["--to-driver", "overlay2"][..], &["--data-size", "3G"]] {
        let said = refused(&mut stopped, what, "Docker runs on the vfs driver");
        assert!(said.contains("rescue images"), "{said}");
    }
    docker.stop().unwrap();
    std::mem::forget(docker);

    let docker = Docker::start(config(&stopped.root)).unwrap();
    let json = fs::read_to_string(DAEMON_JSON).unwrap();
    fs::write(DAEMON_JSON, json.replace("dm.basesize=1G", "dm.thinpooldev=/dev/mapper/other")).unwrap();
    let said = refused(&mut stopped, &["--data-size", "3G"], "Docker has not been started with what it is told now");
    assert!(said.contains("make the configuration say what the pool is"), "{said}");
    fs::write(DAEMON_JSON, json).unwrap();
    drop(docker);
}

/// Dear: with one of everything.
#[test]
fn one_of_everything_comes_to_overlay2() {
    if !boot::full() {
        boot::skip("takes minutes; --full");
    }
    boot::time_limit(Duration::from_secs(1800));
    let made = |docker: &Docker| Menagerie::make(docker, 60).unwrap();
    let mut stopped = Stopped::new(Kind::Xfs, |root| Menagerie::config("devicemapper", root), made);
    stopped.migrate("", 0);
    let docker = stopped.starts_on_overlay2();
    docker.cmd(["start", names::CHANGED]).run().checked().unwrap();
    stopped.builds(&docker);
}
