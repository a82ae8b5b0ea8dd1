//! Pools on real disks, and volumes in them, over boots in which the disks are found in other places, one is missing, and
//! one is there twice.

use std::fs;
use std::path::{Path, PathBuf};

use lab::guest::boot::{self, Disks};
use lab::guest::disk::{Kind, Mounted};
use lab::guest::run::Cmd;
use lab::guest::sys;

use crate::case::died;
use crate::support::{Bench, exists};

/// On two disks, striped over two, on one.
const POOLS: [&str; 3] = ["dmpool-test-two", "dmpool-test-stripe", "dmpool-test-one"];

/// A partition of a disk by the name that it has in every boot.
fn part(disk: &Path, number: u32) -> String {
    format!("{}-part{number}", disk.display())
}

fn volume(pool: &str, name: &str) -> PathBuf {
    PathBuf::from(format!("/dev/mapper/{pool}-{name}"))
}

fn mounted(bench: &Bench, pool: &str, name: &str) -> Mounted {
    Mounted::mount(&volume(pool, name), &bench.sweep.path("mnt"), "defaults").unwrap()
}

/// Writes a file that no other is like, and returns its checksum.
fn write(on: &Mounted) -> String {
    let of = format!("of={}", on.dir().join("file").display());
    Cmd::new("dd").args(["if=/dev/urandom", &of, "bs=1M", "count=8", "conv=fsync"]).run().checked().unwrap();
    sum(on)
}

fn sum(on: &Mounted) -> String {
    let ran = Cmd::new("sha256sum").arg(on.dir().join("file")).run().checked().unwrap();
    ran.stdout.split(' ').next().unwrap().to_owned()
}

fn names(bench: &Bench, pool: &str) -> Vec<String> {
    let listed = bench.ok(&["thin", "list", pool, "--format", "json"]);
    let json: serde_json::Value = serde_json::from_str(&listed).unwrap();
    let pool = &json["pools"][0];
    assert!(pool["remarks"].as_array().unwrap().is_empty(), "{json:#}");
    let volumes = pool["volumes"].as_array().unwrap().iter();
    volumes.map(|volume| volume["name"].as_str().unwrap().to_owned()).collect()
}

/// Makes the pools, and on each a volume with a file.
fn make(bench: &Bench) {
    let [first, second, third] = [0, 1, 2].map(boot::by_id);
    for disk in [&first, &second] {
        let table = "label: gpt\nsize=512M\nsize=1G\n";
        Cmd::new("sfdisk").arg("--quiet").arg(disk).stdin(table).run().checked().unwrap();
    }
    sys::settle();
    let [two, stripe, one] = POOLS;
    bench.ok(&["create", two, "--metadata-device", &part(&first, 1), "--data-device", &part(&second, 1)]);
    let striped = ["--data-device", &part(&first, 2), "--data-device", &part(&second, 2), "--stripe"];
    bench.ok(&[["create", stripe].as_slice(), &striped].concat());
    bench.ok(&["create", one, "--data-device", third.to_str().unwrap(), "--data-size", "1G"]);
    for pool in POOLS {
        bench.ok(&["thin", "create", pool, "web", "--size", "128M"]);
        let mounted = Mounted::format(Kind::Ext4, &volume(pool, "web"), &bench.sweep.path("mnt")).unwrap();
        boot::remember(&format!("{pool}-web"), &write(&mounted));
        mounted.unmount().unwrap();
    }
}

/// What else is done to volumes, on the pool on two disks.
fn use_volumes(bench: &Bench) {
    let pool = POOLS[0];
    let on = mounted(bench, pool, "web");
    let before = sum(&on);
    bench.ok(&["thin", "snapshot", pool, "web", "before"]);
    boot::remember(&format!("{pool}-before"), &before);
    boot::remember(&format!("{pool}-web"), &write(&on));
    bench.ok(&["thin", "grow", pool, "web", "+64M"]);
    on.unmount().unwrap();
    bench.ok(&["thin", "create", pool, "gone", "--size", "1M"]);
    bench.ok(&["thin", "remove", pool, "gone", "--yes"]);
    bench.ok(&["deactivate", pool]);
    assert!(!exists(&format!("{pool}-web")));
    bench.ok(&["activate", pool]);
}

/// Pool and volumes are up with what was written.
#[track_caller]
fn is_whole(bench: &Bench, pool: &str) {
    let wanted: &[&str] = if pool == POOLS[0] { &["web", "before"] } else { &["web"] };
    let mut found = names(bench, pool);
    found.sort_by_key(|name| wanted.iter().position(|wanted| name == wanted));
    assert_eq!(found, wanted, "{pool}");
    for name in wanted {
        let on = mounted(bench, pool, name);
        assert_eq!(Some(sum(&on)), boot::recall(&format!("{pool}-{name}")), "{pool} {name}");
        on.unmount().unwrap();
    }
}

/// What lies on a disk that is not as it must be stays down, and each refusal says these; what does not is up.
#[track_caller]
fn stays_down(bench: &Bench, said: &[[String; 2]; 2], why: &str) {
    let ran = bench.run(&["activate", "--all"]);
    assert!(ran.code() == Some(5) && ran.stderr.contains("2 of 3 pools did not come up"), "{ran}");
    for (pool, said) in POOLS.iter().zip(said) {
        let refused = bench.run(&["activate", pool]);
        assert_eq!(refused.code(), Some(3), "{refused}");
        for words in [why, "nothing was touched"].into_iter().chain(said.iter().map(String::as_str)) {
            assert!(refused.stderr.contains(words), "`{words}` is missing: {refused}");
        }
        assert!(!exists(pool) && !exists(&format!("{pool}_tdata")) && !exists(&format!("{pool}-web")));
        let told = bench.run(&["status", pool]);
        assert!(told.code() == Some(5) || told.stdout.contains("not active"), "{told}");
    }
    is_whole(bench, POOLS[2]);
}

#[test]
fn pools_on_disks_and_their_volumes_are_found_in_other_places_and_nowhere_else() {
    let bench = Bench::with_faults().at(Path::new("/var/tmp/dmpool-test-swapped"));
    let [first, second] = [0, 1].map(boot::by_id);
    let first_is = || boot::scratch_disk(0).unwrap().display().to_string();
    match boot::phase() {
        0 => {
            make(&bench);
            use_volumes(&bench);
            boot::remember("first", &first_is());
            boot::reboot_with(Disks::in_order(&[1, 2, 0]));
        }
        1 => {
            assert_ne!(boot::recall("first"), Some(first_is()));
            bench.ok(&["activate", "--all"]);
            POOLS.iter().for_each(|pool| is_whole(&bench, pool));
            boot::power_cut_with(Disks::in_order(&[2, 0]));
        }
        2 => {
            let missing = [1, 2].map(|number| [part(&second, number), "is missing".to_owned()]);
            stays_down(&bench, &missing, "as it was called last");
            boot::reboot_with(Disks::in_order(&[0, 1, 2]).with_copy_of(0));
        }
        3 => {
            let twice = [1, 2].map(|number| [part(&first, number), part(&boot::copy_by_id(0), number)]);
            stays_down(&bench, &twice, "one is a copy of the other");
            boot::reboot_with(Disks::in_order(&[2, 1, 0]));
        }
        _ => {
            bench.ok(&["activate", "--all"]);
            POOLS.iter().for_each(|pool| is_whole(&bench, pool));
            for (fault, verb, is_there) in [("3:after:die", "undo", false), ("4:after:die", "continue", true)] {
                let args = ["thin", "create", POOLS[1], "half", "--size", "1M"];
                let ran = bench.cmd(&args).env("DMPOOL_FAULT", fault).run();
                assert!(died(&ran), "{ran}");
                bench.ok(&[verb]);
                assert_eq!(names(&bench, POOLS[1]).contains(&"half".to_owned()), is_there, "{fault}");
            }
            for pool in POOLS {
                bench.ok(&["destroy", pool, "--with-volumes", "--yes"]);
            }
            assert_eq!(fs::read_dir(bench.state.join("volumes")).unwrap().count(), 0);
        }
    }
}
