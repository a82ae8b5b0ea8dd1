//! Whatever hangs, `health` answers: with what it saw, and UNKNOWN for the rest.

use std::fs;
use std::path::Path;
use std::time::Duration;

use lab::guest::disk::{Kind, LoopDisk, Mounted};
use lab::guest::docker::DAEMON_JSON;
use lab::guest::run::Cmd;
use lab::guest::sys::dmsetup;

use crate::support::Bench;
use crate::support::health::Said;
use crate::support::pools::HandMade;

const M: u64 = 1 << 20;

/// Long enough for any machine; what hangs, hangs longer.
const LIMIT: Duration = Duration::from_secs(100);

/// Resumes a device, whatever happens: what waits for it would keep the guest.
struct Suspended(String);

impl Suspended {
    fn new(name: &str) -> Self {
        dmsetup(["suspend", name]).run().checked().unwrap();
        Self(name.to_owned())
    }
}

impl Drop for Suspended {
    fn drop(&mut self) {
        let _ = dmsetup(["resume", &self.0]).run();
    }
}

/// A commit that waits for the metadata device holds the pool's lock, and the status ioctl waits for that.
#[test]
fn a_status_that_hangs_is_unknown_in_time() {
    let bench = Bench::new();
    let pool = bench.create();
    let metadata = Suspended::new(&format!("{pool}_tmeta"));
    let message = dmsetup(["message", &pool, "0", "create_thin 7"]).limit(LIMIT).start().unwrap();
    std::thread::sleep(Duration::from_millis(300));
    let said = Said::of(bench.cmd(&["health", &pool, "--format", "json", "--timeout", "2"]).limit(LIMIT));
    assert_eq!(said.code, 3);
    assert!(said.sentence("not_seen", "unknown").contains("did not answer within"));
    let line = bench.cmd(&["health", &pool, "--format", "nagios", "--timeout", "1"]).limit(LIMIT).run();
    assert_eq!(line.code(), Some(3), "{line}");
    assert!(line.stdout.starts_with("DMPOOL UNKNOWN - ") && line.stdout.lines().count() == 1, "{line}");
    // One pool that hangs is not all of them.
    let other = HandMade::new(&bench, "well", 64 * M, 8 * M);
    let both = Said::of(bench.cmd(&["health", "--format", "json", "--timeout", "8"]).limit(LIMIT));
    assert_eq!(both.code, 3);
    assert!(both.knows(&other.name) && !both.knows(&pool), "the other pool is told");
    drop(other);
    drop(metadata);
    assert!(message.wait().ok());
    Said::about(&bench, &pool, &[]).without("not_seen");
}

/// Several that hang take their time once: the one that is well is told, and so is each that hangs, by its name.
#[test]
fn pools_that_hang_keep_no_other_from_being_seen() {
    let bench = Bench::new();
    let dir = bench.dir.to_str().unwrap();
    let names = ["a", "b", "c", "d", "e"].map(|letter| bench.sweep.name(letter));
    let hang = |name: &String| {
        bench.ok(&["create", name, "--dir", dir, "--data-size", "64M", "--metadata-size", "8M"]);
        let metadata = Suspended::new(&format!("{name}_tmeta"));
        (metadata, dmsetup(["message", name, "0", "create_thin 7"]).limit(LIMIT).start().unwrap())
    };
    let hung = names.each_ref().map(hang);
    // Its name comes after theirs.
    let well = HandMade::new(&bench, "well", 64 * M, 8 * M);
    std::thread::sleep(Duration::from_millis(300));
    let all = Said::of(bench.cmd(&["health", "--format", "json", "--timeout", "8"]).limit(LIMIT));
    assert_eq!(all.code, 3);
    assert!(all.knows(&well.name));
    all.about_pool(&well.name, "loop_files");
    for name in &names {
        assert!(all.about_pool(name, "not_seen").contains("did not answer within"), "{name}");
    }
    drop(well);
    for (metadata, message) in hung {
        drop(metadata);
        assert!(message.wait().ok());
    }
}

/// The file system under the loop files does not answer: nothing of it is in memory, and its disk is suspended.
#[test]
fn a_file_system_that_hangs_is_unknown_in_time() {
    let bench = Bench::new();
    let disk = LoopDisk::create(&bench.sweep.path("disk"), 256 * M).unwrap();
    let name = bench.sweep.name("host");
    let table = format!("0 {} linear {} 0", 256 * M / 512, disk.device().display());
    dmsetup(["create", &name, "--table", &table]).run().checked().unwrap();
    let device = std::path::Path::new("/dev/mapper").join(&name);
    let host = Mounted::format(Kind::Ext4, &device, &bench.sweep.path("host")).unwrap();
    let pool = bench.pool();
    let dir = host.dir().to_str().unwrap();
    bench.ok(&["create", &pool, "--data-size", "128M", "--metadata-size", "8M", "--dir", dir]);
    bench.ok(&["deactivate", &pool]);
    Cmd::new("sync").run().checked().unwrap();
    fs::write("/proc/sys/vm/drop_caches", "3").unwrap();
    let suspended = Suspended::new(&name);
    let file = format!("{dir}/{pool}/");
    let said = Said::of(bench.cmd(&["health", "--format", "json", "--timeout", "8"]).limit(LIMIT));
    assert_eq!(said.code, 3);
    let sentence = said.sentence("not_seen", "unknown");
    assert!(sentence.contains(&file) && sentence.contains("the kernel did not answer within"), "{sentence}");
    for args in [vec!["status", &pool], vec!["list"]] {
        let ran = bench.cmd(&args).limit(LIMIT).run();
        assert!(ran.ok() && ran.stdout.contains(&pool) && ran.stdout.contains("UNKNOWN"), "{ran}");
        assert!(args.len() == 1 || ran.stdout.contains(&file), "{ran}");
    }
    drop(suspended);
    let after = Said::about(&bench, &pool, &[]);
    after.without("not_seen");
    bench.ok(&["destroy", &pool, "--yes", "--with-volumes"]);
    host.unmount().unwrap();
    dmsetup(["remove", "--retry", &name]).run().checked().unwrap();
}

/// Docker's root, which `daemon.json` names, does not answer; a pool of dmpool's is told all the same.
#[test]
fn a_docker_root_that_hangs_hides_no_other_pool() {
    let bench = Bench::new();
    let pool = bench.create();
    let disk = LoopDisk::create(&bench.sweep.path("disk"), 256 * M).unwrap();
    let name = bench.sweep.name("host");
    let table = format!("0 {} linear {} 0", 256 * M / 512, disk.device().display());
    dmsetup(["create", &name, "--table", &table]).run().checked().unwrap();
    let device = std::path::Path::new("/dev/mapper").join(&name);
    let host = Mounted::format(Kind::Ext4, &device, &bench.sweep.path("host")).unwrap();
    let root = host.dir().join("docker");
    fs::create_dir_all(root.join("devicemapper/devicemapper")).unwrap();
    fs::write(root.join("devicemapper/devicemapper/data"), "").unwrap();
    let config = Replaced::with(DAEMON_JSON, &format!(r#"{{"data-root": "{}"}}"#, root.display()));
    // What ext4's journal still holds is not dropped with the caches.
    host.unmount().unwrap();
    let host = Mounted::mount(&device, &bench.sweep.path("host"), "defaults").unwrap();
    let suspended = Suspended::new(&name);

    let place = root.to_str().unwrap();
    let list = bench.cmd(&["list"]).limit(LIMIT).run();
    assert!(list.code() == Some(5) && list.stdout.contains(&pool), "{list}");
    assert!(list.stderr.contains(place) && list.stderr.contains("did not answer within"), "{list}");
    // It has a shorter limit for each question.
    let said = Said::of(bench.cmd(&["health", "--format", "json", "--timeout", "4"]).limit(LIMIT));
    assert!(said.code == 3 && said.knows(&pool));
    assert!(said.sentence("not_seen", "unknown").contains(place));
    for named in [place, "docker"] {
        let said = Said::about(&bench, named, &["--timeout", "4"]);
        assert!(said.sentence("not_seen", "unknown").contains(place), "{named}");
    }

    drop(suspended);
    assert!(bench.ok(&["list"]).contains(&pool));
    drop(config);
    bench.ok(&["destroy", &pool, "--yes", "--with-volumes"]);
    host.unmount().unwrap();
    dmsetup(["remove", "--retry", &name]).run().checked().unwrap();
}

/// A file of the machine with another text, until this is dropped.
struct Replaced(&'static str, Option<Vec<u8>>);

impl Replaced {
    fn with(path: &'static str, text: &str) -> Self {
        let before = fs::read(path).ok();
        fs::create_dir_all(Path::new(path).parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        Self(path, before)
    }
}

impl Drop for Replaced {
    fn drop(&mut self) {
        let _ = match &self.1 {
            Some(text) => fs::write(self.0, text),
            None => fs::remove_file(self.0),
        };
    }
}
