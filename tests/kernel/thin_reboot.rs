//! Volumes outlive the machine: what was made is there after a reboot, what was interrupted is one or the other.

use std::fs;
use std::path::{Path, PathBuf};

use lab::guest::boot;
use lab::guest::disk::{Kind, Mounted};
use lab::guest::run::End;
use nix::libc::SIGKILL;

use crate::support::{Bench, exists};

#[test]
fn volumes_are_there_after_reboot_and_power_cut() {
    let disk = boot::scratch_disks().swap_remove(0);
    let place = PathBuf::from("/var/tmp/dmpool-test-thin-disk");
    let phase = boot::phase();
    let held = match phase {
        0 => Mounted::format(Kind::Ext4, &disk, &place).unwrap(),
        _ => Mounted::mount(&disk, &place, "defaults").unwrap(),
    };
    let bench = Bench::with_faults().at(held.dir());
    let pool = "dmpool-test-thin";
    let up = |name: &str| exists(&format!("{pool}-{name}"));
    let dies = |args: &[&str], fault: &str| {
        let ran = bench.cmd(args).env("DMPOOL_FAULT", fault).run();
        assert_eq!(ran.end, End::Signal(SIGKILL), "{ran}");
    };
    match phase {
        0 => {
            let dir = bench.dir.to_str().unwrap();
            bench.ok(&["create", pool, "--dir", dir, "--data-size", "1G", "--metadata-size", "16M"]);
            bench.ok(&["thin", "create", pool, "web", "--size", "64M"]);
            let web = Path::new("/dev/mapper").join(format!("{pool}-web"));
            let mounted = Mounted::format(Kind::Ext4, &web, &bench.sweep.path("web")).unwrap();
            fs::write(mounted.dir().join("file"), "kept").unwrap();
            bench.ok(&["thin", "snapshot", pool, "web", "snap"]);
            mounted.unmount().unwrap();
            // The pool has its new transaction id, the old state is not struck out yet.
            dies(&["thin", "create", pool, "half", "--size", "1M"], "4:after:die");
            boot::reboot();
        }
        1 => {
            let ran = bench.run(&["activate", "--all"]);
            assert!(ran.ok() && ran.stderr.contains("comes up with the volumes of its transaction id"), "{ran}");
            assert!(up("web") && up("snap") && up("half"));
            let refused = bench.run(&["undo"]);
            assert!(refused.code() == Some(3) && refused.stderr.contains("has been used since"), "{refused}");
            bench.ok(&["continue"]);
            let snap = Path::new("/dev/mapper").join(format!("{pool}-snap"));
            let mounted = Mounted::mount(&snap, &bench.sweep.path("snap"), "rw").unwrap();
            assert_eq!(fs::read_to_string(mounted.dir().join("file")).unwrap(), "kept");
            mounted.unmount().unwrap();
            // Written down and made, and the pool has its old transaction id: it is not there.
            dies(&["thin", "create", pool, "never", "--size", "1M"], "2:after:die");
            boot::power_cut();
        }
        _ => {
            bench.ok(&["activate", "--all"]);
            assert!(up("web") && up("snap") && up("half") && !up("never"));
            bench.ok(&["undo"]);
            let text = bench.ok(&["thin", "list", pool]);
            assert!(text.contains("half") && !text.contains("never") && !text.contains("note:"), "{text}");
            bench.ok(&["destroy", pool, "--yes", "--with-volumes"]);
        }
    }
}
