//! What `health` hears of LVM about its pools, what can be had there, and that the ways out lead out.

use std::fs;
use std::path::{Path, PathBuf};

use lab::guest::disk::LoopDisk;
use lab::guest::run::Cmd;
use lab::guest::sys::dmsetup;

use crate::health::lvm_run;
use crate::refuse_more::LvmPool;
use crate::support::Bench;
use crate::support::health::{Said, paste};
use crate::support::pools::set_needs_check;

const M: u64 = 1 << 20;
const WARNING: i32 = 1;
const UNKNOWN: i32 = 3;

/// A file of the machine's, put back at the end.
struct Kept {
    path: PathBuf,
    bytes: Vec<u8>,
}

impl Kept {
    fn new(path: &str) -> Self {
        Self { path: path.into(), bytes: fs::read(path).unwrap() }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let _ = fs::write(&self.path, &self.bytes);
    }
}

/// A file that is out of its place as long as this lives.
struct Away(PathBuf);

impl Away {
    fn new(path: &str) -> Self {
        fs::rename(path, format!("{path}.away")).unwrap();
        Self(path.into())
    }
}

impl Drop for Away {
    fn drop(&mut self) {
        let _ = fs::rename(format!("{}.away", self.0.display()), &self.0);
    }
}

fn write(device: &Path, mebibytes: u64) {
    let count = format!("count={mebibytes}");
    let of = format!("of={}", device.display());
    Cmd::new("dd").args(["if=/dev/zero", "bs=1M", "oflag=direct", &count, &of]).run().checked().unwrap();
}

#[test]
fn health_of_lvm_pools() {
    let bench = Bench::new();
    let lvm = LvmPool::new(&bench);
    let (name, group) = (lvm.name(), lvm.group());
    let about = |more: &[&str]| Said::about(&bench, &name, more);
    write(&Path::new("/dev").join(group).join("volume"), 24);
    let said = about(&[]);
    assert_eq!(said.code, WARNING);
    said.without("not_seen");
    said.without("volume_group_full");
    said.without("thin_check_missing");
    // LVM's own defaults: at 100 % in use, which is never.
    assert!(said.sentence("autoextend_off", "warning").contains("100%"));
    assert_eq!(said.binds_first(&name), ("pool".to_owned(), 40 * M));

    lvm_run(&["lvchange", "--monitor", "n", &format!("{group}/pool")]);
    let unwatched = about(&[]);
    paste(&unwatched.way("not_monitored", "warning"));
    about(&[]).without("not_monitored");

    let profile = Path::new("/etc/lvm/profile/thin-autoextend-80.profile");
    paste(&said.way("autoextend_off", "warning"));
    let extended = about(&["-w", "30"]);
    extended.without("autoextend_off");
    let (limit, after) = extended.binds_first(&name);
    assert!(limit == "volume_group" && after > 400 * M, "{limit} {after}");
    let sentence = extended.sentence("data_use", "warning");
    assert!(sentence.contains("37% of its data is used") && sentence.contains("LVM adds up to"), "{sentence}");
    // What runs no programs does not say what LVM will do.
    let text = bench.ok(&["status", &name]);
    assert!(text.contains("the pool's data, after 40.0 MiB (41943040 bytes) more, unless LVM extends it\n"), "{text}");
    let metrics = bench.ok(&["metrics"]);
    let available =
        metrics.lines().find(|line| line.starts_with("dmpool_pool_available_bytes{") && line.contains(&name));
    assert!(available.unwrap().ends_with(&format!(" {after}")), "{available:?}");
    lvm_run(&["lvchange", "--detachprofile", &format!("{group}/pool")]);
    fs::remove_file(profile).unwrap();
    about(&[]).sentence("autoextend_off", "warning");

    // A file of LVM's that only LVM knows how to read, and one that LVM cannot read either.
    let local = Kept::new("/etc/lvm/lvmlocal.conf");
    fs::write(&local.path, "activation { thin_pool_autoextend_threshold = 62 }\n").unwrap();
    about(&[]).without("autoextend_off");
    drop(local);
    let conf = Kept::new("/etc/lvm/lvm.conf");
    fs::write(&conf.path, "not LVM's\n").unwrap();
    let unknown = about(&[]);
    drop(conf);
    assert_eq!(unknown.code, UNKNOWN);
    assert!(unknown.sentence("not_seen", "unknown").contains("what LVM says of it"));
    unknown.without("autoextend_off");
    assert_eq!(unknown.binds_first(&name).0, "pool");

    let program = Away::new("/usr/sbin/thin_check");
    let missing = about(&[]);
    drop(program);
    assert!(missing.sentence("thin_check_missing", "warning").contains("/usr/sbin/thin_check is not there"));
    assert_eq!(missing.way("thin_check_missing", "warning"), "apt-get install -y thin-provisioning-tools");
    about(&[]).without("thin_check_missing");
}

#[test]
fn health_of_a_full_volume_group() {
    let bench = Bench::new();
    let lvm = LvmPool::new(&bench);
    let (name, group) = (lvm.name(), lvm.group());
    let about = |more: &[&str]| Said::about(&bench, &name, more);
    lvm_run(&["lvcreate", "-y", "-l", "100%FREE", "-n", "rest", group]);
    let full = about(&[]);
    assert!(
        full.sentence("volume_group_full", "warning")
            .starts_with(&format!("its volume group {group} has 0 bytes left, less than the 12.8 MiB"))
    );
    assert!(full.by_hand("volume_group_full", "warning").contains(&format!("vgextend {group} ")));
    lvm_run(&["lvreduce", "-f", "-y", "-L", "-8M", &format!("{group}/rest")]);
    paste(&about(&[]).other_way("volume_group_full", "warning"));
    assert_eq!(about(&[]).binds_first(&name), ("pool".to_owned(), 72 * M));

    let disk = LoopDisk::create(&bench.sweep.path("more"), 4096 * M).unwrap();
    lvm_run(&["vgextend", "-y", group, disk.device().to_str().unwrap()]);
    let roomy = about(&["-w", "1", "-c", "99", "--metadata-warning", "1"]);
    roomy.without("volume_group_full");
    write(&Path::new("/dev").join(group).join("volume"), 24);
    let used = about(&["-w", "1", "-c", "99", "--metadata-warning", "1"]);
    for key in ["data_use", "metadata_use"] {
        paste(&used.way(key, "warning"));
    }
    assert_eq!(about(&[]).binds_first(&name), ("pool".to_owned(), (1024 + 72 - 24) * M));
    // The group goes before the disk does.
    drop(lvm);
    let _ = Cmd::new("lvm").args(["pvremove", "-f", "-y"]).arg(disk.device()).run();
}

/// Flagged as the kernel does it, while the pool is down; LVM brings it up unchecked when it is told to.
#[test]
fn health_of_an_lvm_pool_that_needs_a_check() {
    let bench = Bench::new();
    let lvm = LvmPool::new(&bench);
    let (name, group) = (lvm.name(), lvm.group());
    let (pool, volume) = (format!("{group}/pool"), format!("{group}/volume"));
    let below = dmsetup(["table", &name.replace("-tpool", "_tmeta")]).run().checked().unwrap().stdout;
    for lv in [&volume, &pool] {
        lvm_run(&["lvchange", "-an", lv]);
    }
    let devices = || dmsetup(["ls"]).run().checked().unwrap().stdout;
    assert!(!devices().contains(&name), "LVM has taken it down: {}", devices());
    let window = bench.sweep.name("window");
    dmsetup(["create", &window, "--table", below.trim()]).run().checked().unwrap();
    set_needs_check(&Path::new("/dev/mapper").join(&window));
    dmsetup(["remove", "--retry", &window]).run().checked().unwrap();
    assert!(!devices().contains(&name), "nobody else has brought it up meanwhile: {}", devices());
    for lv in [&pool, &volume] {
        lvm_run(&["lvchange", "-ay", "--config", "global { thin_check_executable = \"\" }", lv]);
    }
    let status = dmsetup(["status", &name]).run().checked().unwrap().stdout;
    assert!(status.contains(" needs_check "), "the kernel has read the flag: {status}{}{below}", devices());
    let about = || Said::about(&bench, &name, &[]);
    let check = about();
    check.sentence("needs_check", "critical");
    paste(&check.way("needs_check", "critical"));
    about().without("needs_check");
    paste(&check.other_way("needs_check", "critical"));
    about().without("needs_check");
    assert!(Path::new("/dev").join(&volume).exists(), "its volumes are there again");
}
