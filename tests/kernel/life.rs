//! The life of a loop-file pool: made, used, grown, down, up, destroyed.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use lab::guest::disk::{Kind, Mounted};
use lab::guest::sys::dmsetup;

use crate::support::{Bench, exists, volume};

const G: u64 = 1 << 30;

#[test]
fn a_pool_is_made_used_grown_taken_down_brought_up_and_destroyed() {
    let bench = Bench::new();
    let pool = bench.create();
    let said = bench.ok(&["status", &pool]);
    assert!(said.contains(&format!("Pool Name: {pool}")), "{said}");
    for which in ["data", "metadata"] {
        let found = fs::metadata(bench.file(which)).unwrap();
        assert_eq!(found.permissions().mode() & 0o7777, 0o600);
        assert!(found.blocks() * 512 < 16 << 20, "{which} is sparse: {} blocks", found.blocks());
    }
    assert_eq!(fs::metadata(bench.dir.join(&pool)).unwrap().permissions().mode() & 0o7777, 0o700);

    let name = bench.sweep.name("v");
    let device = volume(&pool, 0, &name, G / 2);
    let mounted = Mounted::format(Kind::Ext4, &device, &bench.sweep.path("mnt")).unwrap();
    fs::write(mounted.dir().join("file"), vec![7; 1 << 20]).unwrap();

    bench.ok(&["grow", &pool, "2G"]);
    assert_eq!(bench.number("/pool/data/total"), 2 * G);
    bench.ok(&["grow", &pool, "--metadata", "32M"]);
    assert_eq!(bench.number("/pool/metadata/total"), 32 << 20);
    assert_eq!(fs::read(mounted.dir().join("file")).unwrap(), vec![7; 1 << 20]);

    let refused = bench.run(&["deactivate", &pool]);
    assert_eq!(refused.code(), Some(3), "{refused}");
    assert!(refused.stderr.contains(&name) && refused.stderr.contains("mnt"), "{refused}");

    mounted.unmount().unwrap();
    dmsetup(["remove", &name]).run().checked().unwrap();
    bench.ok(&["deactivate", &pool]);
    assert!(!exists(&pool) && !exists(&format!("{pool}_tdata")) && !exists(&format!("{pool}_tmeta")));
    assert_eq!(bench.number("/pool/data/total"), 2 * G, "from the superblock");

    bench.ok(&["activate", &pool]);
    assert_eq!(bench.number("/pool/data/total"), 2 * G);
    let table = format!("0 {} thin /dev/mapper/{pool} 0", G / 2 / 512);
    dmsetup(["create", &name, "--table", &table]).run().checked().unwrap();
    let mounted = Mounted::mount(&device, &bench.sweep.path("mnt"), "rw").unwrap();
    assert_eq!(fs::read(mounted.dir().join("file")).unwrap(), vec![7; 1 << 20]);
    mounted.unmount().unwrap();
    dmsetup(["remove", &name]).run().checked().unwrap();

    bench.ok(&["destroy", &pool, "--yes", "--with-volumes"]);
    assert!(!exists(&pool) && !bench.dir.join(&pool).exists());
    assert_eq!(fs::read_dir(bench.state.join("registry")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(bench.state.join("journal")).unwrap().count(), 0);
}
