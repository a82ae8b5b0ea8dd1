//! Two Docker daemons on one machine, each with a root of its own: none of them is the one that `docker` means.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use lab::guest::boot;
use lab::guest::disk::{Kind, Mounted};
use lab::guest::docker::{storage_block, take_down};
use lab::guest::run::{Cmd, Ran, Running};
use lab::guest::sys;
use nix::sys::signal::Signal;

use crate::host::{G, assert_refused};
use crate::support::Bench;
use crate::support::health::{Said, paste};

const PATIENCE: Duration = Duration::from_secs(180);
/// Only for what a socket's name has room for.
const RUN: &str = "/run/dmpool-test";

/// A daemon with nothing in the usual places. Dropped, it is ended; what it leaves is taken away.
struct Daemon {
    root: PathBuf,
    run: PathBuf,
    process: Running,
}

impl Daemon {
    fn start(dir: &Path, name: &str) -> Self {
        let (root, run) = (dir.join(name), PathBuf::from(format!("{RUN}-{name}")));
        for dir in [&root, &run] {
            fs::create_dir_all(dir).unwrap();
        }
        let place = run.display();
        let mut line = format!(
            "exec dockerd --data-root {} --exec-root {place}/exec --pidfile {place}/pid --host unix://{place}/sock \
             --bridge none --iptables=false --storage-driver devicemapper --storage-opt dm.basesize=1G",
            root.display()
        );
        if !sys::udev_answers() {
            line.push_str(" --storage-opt dm.override_udev_sync_check=true");
        }
        let line = format!("{line} >>{} 2>&1", dir.join(format!("{name}.log")).display());
        let process = Cmd::new("sh").args(["-c", &line]).limit(Duration::from_secs(86400)).start().unwrap();
        Self { root, run, process }
    }

    fn info(&self) -> Ran {
        Cmd::new("docker").arg("-H").arg(format!("unix://{}/sock", self.run.display())).arg("info").run()
    }

    fn block(&self) -> String {
        let until = Instant::now() + PATIENCE;
        loop {
            let info = self.info();
            if let (true, Some(block)) = (info.ok(), storage_block(&info.stdout)) {
                return block;
            }
            assert!(Instant::now() < until, "{info}: {}", fs::read_to_string(self.root.with_extension("log")).unwrap());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn root(&self) -> &str {
        self.root.to_str().unwrap()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.process.signal(Signal::SIGTERM);
        let until = Instant::now() + Duration::from_secs(60);
        while self.process.alive() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(50));
        }
        self.process.signal(Signal::SIGKILL);
        take_down(&self.root);
        let _ = fs::remove_dir_all(&self.run);
    }
}

fn whose(bench: &Bench, argument: &str) -> serde_json::Value {
    let text = bench.ok(&["status", argument, "--format", "json"]);
    serde_json::from_str::<serde_json::Value>(&text).unwrap()["pool"].clone()
}

#[test]
fn each_of_two_daemons_has_its_pool_and_commands_name_it_by_its_root() {
    let bench = Bench::new();
    let disk = Mounted::format(Kind::Xfs, &boot::scratch_disks()[2], &bench.sweep.path("two")).unwrap();
    let daemons = ["one", "two"].map(|name| Daemon::start(disk.dir(), name));
    let blocks = [daemons[0].block(), daemons[1].block()];

    let refused = bench.run(&["status", "docker"]);
    assert_refused(&refused, 2, &["several Docker roots", daemons[0].root(), daemons[1].root()]);
    let list = bench.ok(&["list"]);
    let health = Said::of(bench.cmd(&["health", "--format", "json"]));
    for (daemon, block) in daemons.iter().zip(&blocks) {
        let root = daemon.root();
        assert_eq!(&bench.ok(&["status", root, "--format", "docker"]), block, "{root}");
        let by_root = whose(&bench, root);
        let name = by_root["name"].as_str().unwrap();
        assert!(block.contains(&format!("Pool Name: {name}\n")), "{block}");
        assert!(list.lines().any(|line| line.contains(name) && line.contains(root)), "{list}");
        for key in ["docker_root", "user_known_by", "findings"] {
            assert_eq!(by_root[key], whose(&bench, name)[key], "{key} of {root}, by root and by name");
        }
        assert!(health.knows(name), "{root}");
    }

    for (n, daemon) in daemons.iter().enumerate() {
        let sizes = || daemons.each_ref().map(|d| whose(&bench, d.root())["data"]["total"].as_u64().unwrap());
        let before = sizes();
        let choices = bench.ok(&["grow", daemon.root()]);
        let printed = choices.lines().map(str::trim).find_map(|line| line.strip_suffix("    # doubled")).unwrap();
        assert!(printed.contains(daemon.root()), "{choices}");
        paste(printed);
        let mut expected = before;
        expected[n] = 200 * G;
        assert_eq!(sizes(), expected, "{printed}");
        assert_eq!(bench.ok(&["status", daemon.root(), "--format", "docker"]), daemon.block());
    }
}
