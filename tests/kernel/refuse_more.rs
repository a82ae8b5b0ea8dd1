//! Bad input, part 4: LVM's pools, a pool that has failed, and who holds a pool open from elsewhere.

use std::fs;
use std::time::Duration;

use lab::guest::disk::{Kind, LoopDisk};
use lab::guest::run::Cmd;
use lab::guest::sys::{self, dmsetup};

use crate::support::refusals::{REFUSED, Table, row};
use crate::support::{Bench, volume};

const M: u64 = 1 << 20;

fn lvm(args: &[&str]) -> String {
    Cmd::new("lvm").args(args).limit(Duration::from_secs(120)).run().checked().unwrap().stdout
}

/// A pool that LVM made and runs; taken apart again at the end.
pub struct LvmPool {
    disk: LoopDisk,
    group: String,
}

impl LvmPool {
    pub fn new(bench: &Bench) -> Self {
        let disk = LoopDisk::create(&bench.sweep.path("pv"), 512 * M).unwrap();
        let group = bench.sweep.name("vg");
        let device = disk.device().to_str().unwrap().to_owned();
        lvm(&["vgcreate", "-y", &group, &device]);
        let pool = Self { disk, group };
        // LVM activates the thin-pool target itself, under -tpool, once the pool has a volume.
        lvm(&["lvcreate", "-y", "--type", "thin-pool", "-L", "64M", "-n", "pool", &pool.group]);
        lvm(&["lvcreate", "-y", "-V", "32M", "-n", "volume", "--thinpool", &format!("{}/pool", pool.group)]);
        // udev's rules have LVM activate a group when its disk is seen: late, that would undo what a test takes down.
        sys::settle();
        pool
    }

    pub fn group(&self) -> &str {
        &self.group
    }

    pub fn name(&self) -> String {
        format!("{}-pool-tpool", self.group.replace('-', "--"))
    }
}

impl Drop for LvmPool {
    fn drop(&mut self) {
        let _ = Cmd::new("lvm").args(["vgremove", "-f", "-y", &self.group]).limit(Duration::from_secs(120)).run();
        let _ = Cmd::new("lvm").args(["pvremove", "-f", "-y"]).arg(self.disk.device()).run();
    }
}

#[test]
fn pools_of_lvm_are_shown_and_refused_as_lvm_would() {
    let bench = Bench::new();
    let lvm = LvmPool::new(&bench);
    let name = lvm.name();
    let shown = bench.ok(&["status", &name]);
    assert!(shown.contains("made by LVM"), "{shown}");
    let mut table = Table::new(&bench);
    table.refuse([
        row(
            "grow: LVM's pool",
            bench.cmd(&["grow", &name, "1G"]),
            REFUSED,
            ["too little left", &format!("vgextend {} ", lvm.group())],
        ),
        row(
            "grow: LVM's metadata",
            bench.cmd(&["grow", &name, "--metadata", "20G"]),
            REFUSED,
            ["no more than 15.875 GiB"],
        ),
        row("destroy: LVM's pool", bench.cmd(&["destroy", &name, "--yes"]), REFUSED, ["dmpool did not make it"]),
    ]);
    table.end();
}

#[test]
fn a_pool_that_has_failed_is_refused_as_such() {
    let bench = Bench::new();
    let pool = bench.create();
    let metadata = format!("{pool}_tmeta");
    let table = dmsetup(["table", &metadata]).run().checked().unwrap().stdout;
    let become_ = |table: &str| {
        dmsetup(["suspend", "--noflush", &metadata]).run().checked().unwrap();
        dmsetup(["load", &metadata, "--table", table]).run().checked().unwrap();
        dmsetup(["resume", &metadata]).run().checked().unwrap();
    };
    let sectors = 16 * M / 512;
    become_(&format!("0 {sectors} error"));
    // What the kernel cannot commit makes it give up.
    let _ = dmsetup(["message", &pool, "0", "create_thin 0"]).run();
    let _ = dmsetup(["status", &pool]).run();
    let mut rows = Table::new(&bench);
    rows.refuse([row(
        "grow: failed",
        bench.cmd(&["grow", &pool, "2G"]),
        REFUSED,
        ["cannot grow the data of pool", &pool],
    )]);
    rows.end();
    let shown = bench.ok(&["status", &pool]);
    assert!(shown.contains("CRITICAL"), "{shown}");
    become_(table.trim());
    bench.ok(&["deactivate", &pool]);
}

#[test]
fn a_mount_in_another_namespace_is_named() {
    let bench = Bench::new();
    let pool = bench.create();
    let name = bench.sweep.name("v");
    let device = volume(&pool, 0, &name, 256 * M);
    Kind::Ext4.format(&device).unwrap();
    let dir = bench.sweep.subdir("elsewhere").unwrap();
    // Read-only: a file system that may write changes the pool while it is compared.
    let mount = format!("mount -o ro {} {} && exec sleep 1000", device.display(), dir.display());
    let process =
        Cmd::new("unshare").args(["--mount", "--propagation", "private", "sh", "-c", &mount]).start().unwrap();
    while !fs::read_to_string(format!("/proc/{}/comm", process.pid())).is_ok_and(|name| name.trim() == "sleep") {
        std::thread::sleep(Duration::from_millis(10));
    }
    let says = [name.clone(), dir.display().to_string(), "mount namespace of sleep".to_owned()];
    let mut table = Table::new(&bench);
    table.refuse([row("destroy: mounted elsewhere", bench.cmd(&["destroy", &pool, "--yes"]), REFUSED, says)]);
    let _ = process.kill();

    // Unmounted with -l while somebody is in it: no table of mounts has it any more.
    let within =
        format!("mount -o ro {0} {1} && cd {1} && umount -l . && exec sleep 1000", device.display(), dir.display());
    let process = Cmd::new("sh").args(["-c", &within]).start().unwrap();
    while !fs::read_to_string(format!("/proc/{}/comm", process.pid())).is_ok_and(|name| name.trim() == "sleep") {
        std::thread::sleep(Duration::from_millis(10));
    }
    let says = [name.clone(), format!("process {} (sleep)", process.pid()), "unmounted with -l".to_owned()];
    table.refuse([row("deactivate: unmounted with -l", bench.cmd(&["deactivate", &pool]), REFUSED, says)]);
    let _ = process.kill();

    // In a namespace that only a file keeps.
    let keep = "mount --make-private --bind \"$0\" \"$0\" 2>/dev/null; \
                unshare --mount=\"$0/ns\" --propagation private mount -o ro \"$1\" \"$2\"";
    let folder = bench.sweep.subdir("namespaces").unwrap();
    fs::write(folder.join("ns"), "").unwrap();
    Cmd::new("sh").args(["-c", keep]).arg(&folder).arg(&device).arg(&dir).run().checked().unwrap();
    let says = ["perhaps a mount in the namespace".to_owned(), folder.join("ns").display().to_string()];
    table.refuse([row("deactivate: kept", bench.cmd(&["deactivate", &pool]), REFUSED, says)]);
    table.end();
    Cmd::new("umount").arg(folder.join("ns")).run().checked().unwrap();
    let _ = Cmd::new("umount").arg(&folder).run();
    dmsetup(["remove", "--retry", &name]).run().checked().unwrap();
    bench.ok(&["destroy", &pool, "--yes", "--with-volumes"]);
}
