//! Bad input, part 5: a udev that is absent, or that would let every change wait for ever.

use std::fs;
use std::path::Path;
use std::time::Duration;

use lab::guest::boot;
use lab::guest::run::{Cmd, Running};

use crate::support::refusals::{REFUSED, Table, row};
use crate::support::{Bench, exists};

const CONTROL: &str = "/run/udev/control";

/// Every command that changes devices is refused with these words, and reading works.
fn changes_nothing(bench: &Bench, what: &str, says: &[&str]) {
    let (pool, dir) = (bench.pool(), bench.dir.to_str().unwrap());
    let size = bench.number("/pool/data/total");
    let commands: [&[&str]; 5] = [
        &["create", "dmpool-test-new", "--data-size", "1G", "--dir", dir],
        &["grow", &pool, "3G"],
        &["activate", &pool],
        &["deactivate", &pool],
        &["destroy", &pool, "--yes"],
    ];
    let mut table = Table::new(bench);
    table.refuse(commands.map(|args| {
        let says = ["udev does not answer", "reading works"].iter().chain(says).copied();
        row(&format!("{}: {what}", args[0]), bench.cmd(args), REFUSED, says)
    }));
    assert_eq!(bench.number("/pool/data/total"), size, "status reads");
    table.end();
}

#[test]
fn without_udev_all_works_and_with_a_stale_one_nothing_waits() {
    let bench = Bench::new();
    boot::stop_udev();
    let pool = bench.create();
    bench.ok(&["grow", &pool, "2G"]);
    // A socket that nobody listens on, as a udevd that was killed leaves it.
    drop(std::os::unix::net::UnixListener::bind(CONTROL).unwrap());
    changes_nothing(&bench, "udev's socket is stale", &["systemd-udevd"]);
    fs::remove_file(CONTROL).unwrap();
    bench.ok(&["destroy", &pool, "--yes", "--with-volumes"]);
    boot::start_udev();
}

/// A udevd of our own; the machine's is started again when it goes.
struct OtherUdev(Option<Running>);

impl OtherUdev {
    fn start(cmd: Cmd) -> Self {
        boot::stop_udev();
        let started = Self(Some(cmd.start().unwrap()));
        while !boot::have_udev() {
            std::thread::sleep(Duration::from_millis(10));
        }
        started
    }
}

impl Drop for OtherUdev {
    fn drop(&mut self) {
        let _ = self.0.take().map(Running::kill);
        let _ = fs::remove_file(CONTROL);
        boot::start_udev();
    }
}

/// As a container has it that shares /run/udev with its host.
#[test]
fn a_udevd_in_another_ipc_namespace_is_not_waited_for() {
    let bench = Bench::new();
    let pool = bench.create();
    let other = OtherUdev::start(Cmd::new("unshare").args(["--ipc", "/lib/systemd/systemd-udevd"]));
    changes_nothing(&bench, "udevd in another IPC namespace", &["another IPC namespace", "--ipc=host"]);
    drop(other);
    bench.ok(&["destroy", &pool, "--yes", "--with-volumes"]);
}

/// The one rules file that completes cookies, masked while this lives.
struct Masked(&'static Path);

impl Masked {
    fn new() -> Self {
        let path = Path::new("/etc/udev/rules.d/95-dm-notify.rules");
        std::os::unix::fs::symlink("/dev/null", path).unwrap();
        Self(path)
    }
}

impl Drop for Masked {
    fn drop(&mut self) {
        let _ = fs::remove_file(self.0);
    }
}

#[test]
fn a_udevd_without_rules_for_device_mapper_is_not_waited_for() {
    let bench = Bench::new();
    let pool = bench.create();
    let masked = Masked::new();
    changes_nothing(&bench, "udevd without dm's rules", &["udevcomplete", "95-dm-notify.rules"]);
    drop(masked);
    bench.ok(&["destroy", &pool, "--yes", "--with-volumes"]);
}

/// A udevd whose events are held back.
struct Held;

impl Held {
    fn new() -> Self {
        Cmd::new("udevadm").args(["control", "--stop-exec-queue"]).run().checked().unwrap();
        Self
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // One connection at a time waits at its socket; who comes while one does is turned away (EAGAIN), and what was
        // said may be lost: it is said until the queue is empty.
        let says = |args: &[&str]| Cmd::new("udevadm").args(args).run().ok();
        let let_go = || says(&["control", "--start-exec-queue", "--timeout=5"]) && says(&["settle", "--timeout=10"]);
        let mut tries = 0..10;
        while !let_go() && tries.next().is_some() {
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

/// It answers, it has the rules, and it does nothing: that cannot be seen beforehand.
#[test]
fn a_udevd_that_does_nothing_is_waited_for_once_and_told_of() {
    let bench = Bench::new();
    let held = Held::new();
    let (pool, dir) = (bench.pool(), bench.dir.to_str().unwrap());
    let create = ["create", &pool, "--dir", dir, "--data-size", "1G", "--metadata-size", "16M"];
    // The limit of a command: three devices, one of them waited for until patience ends.
    let made = bench.run(&create).checked().unwrap();
    assert!(boot::have_udev(), "the udevd that was held is gone");
    assert!(made.stderr.contains("udev runs but did not do its part"), "{made}");
    assert!(Path::new("/dev/mapper").join(&pool).exists());
    drop(held);
    Cmd::new("udevadm").args(["settle", "--timeout=20"]).run().checked().unwrap();
    let gone = bench.run(&["destroy", &pool, "--yes"]).checked().unwrap();
    assert!(!gone.stderr.contains("udev"), "{gone}");
    assert!(!exists(&pool) && !Path::new("/dev/mapper").join(&pool).exists());
}
