use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt};

use lab::guest::disk::{LoopDisk, Mounted};
use lab::guest::machine::{Scope, Snapshot};
use lab::guest::sweep::{Sweep, leftovers};
use lab::guest::sys;
use lab::guest::wrap::{Behaviour, Wrapped};

const MIB: u64 = 1 << 20;

#[test]
fn every_kind_of_change_is_seen() {
    let sweep = Sweep::new().unwrap();
    let disk = LoopDisk::create(&sweep.path("disk"), 16 * MIB).unwrap();
    let wrapped = Wrapped::new(&sweep.name("under"), disk.device(), &Behaviour::Linear).unwrap();
    let tree = sweep.subdir("tree").unwrap();
    fs::write(tree.join("file"), "a").unwrap();
    let scope = Scope::new().content(wrapped.device()).tree(&tree);
    let before = Snapshot::take(&scope).unwrap();
    assert_eq!(before.diff(&Snapshot::take(&scope).unwrap()), "", "nothing happened, nothing is seen");

    let sees = |what: &str, section: &str| {
        let diff = before.diff(&Snapshot::take(&scope).unwrap());
        assert!(diff.contains(section), "{what}: `{section}` is not in:\n{diff}");
    };
    let second = LoopDisk::create(&sweep.path("second"), MIB).unwrap();
    sees("a loop device", "loop devices:");
    drop(second);
    let mounted = Mounted::tmpfs(&sweep.path("mnt"), MIB).unwrap();
    sees("a mount", "mounts:");
    mounted.unmount().unwrap();
    fs::write(tree.join("file"), "b").unwrap();
    sees("a file", "tree ");
    fs::write(tree.join("file"), "a").unwrap();
    fs::set_permissions(&tree, fs::Permissions::from_mode(0o711)).unwrap();
    sees("a mode", "tree ");
    fs::set_permissions(&tree, fs::Permissions::from_mode(0o755)).unwrap();
    // Below the wrapped device, which the page cache of that device knows nothing of.
    fs::File::options().write(true).open(disk.file()).unwrap().write_all_at(b"x", 5 * MIB).unwrap();
    sees("a byte of a device", "content of ");
    wrapped.become_(&Behaviour::Error).unwrap();
    sees("a table", "dm tables:");
}

#[test]
fn the_sweep_takes_away_even_what_hangs() {
    let sweep = Sweep::new().unwrap();
    let disk = LoopDisk::create(&sweep.path("disk"), 64 * MIB).unwrap();
    let lower = Wrapped::new(&sweep.name("lower"), disk.device(), &Behaviour::Linear).unwrap();
    let upper = Wrapped::new(&sweep.name("upper"), &lower.device(), &Behaviour::Linear).unwrap();
    let mounted = Mounted::format(lab::guest::disk::Kind::Ext4, &upper.device(), &sweep.path("mnt")).unwrap();
    fs::write(mounted.dir().join("file"), "dirty").unwrap();
    sys::dmsetup(["suspend", "--nolockfs", &sweep.name("lower")]).run().checked().unwrap();
    assert_eq!(leftovers().len(), 4, "{:?}", leftovers());
    // As after a test that died without its drops.
    std::mem::forget((mounted, upper, lower, disk));
    drop(sweep);
    assert_eq!(leftovers(), Vec::<String>::new());
}
