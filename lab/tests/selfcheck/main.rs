//! The lab's own suite: what every other guest suite relies on, seen from inside a guest.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stdout, reason = "tests")]

use std::fs;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use lab::guest::boot::{self, Disks};

fn output_of(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().unwrap();
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_kernel_has_every_target_that_tests_use() {
    let targets = output_of("dmsetup", &["targets"]);
    for target in ["thin-pool", "thin", "snapshot-origin", "flakey", "log-writes", "delay", "linear", "error"] {
        assert!(targets.lines().any(|l| l.starts_with(&format!("{target} "))), "{target} is not in\n{targets}");
    }
}

#[test]
fn lane_and_kernel_are_what_they_say() {
    assert_eq!(boot::kernel(), output_of("uname", &["-r"]).trim());
    if boot::lane() == "uml" {
        assert!(fs::read_to_string("/proc/cpuinfo").unwrap().contains("User Mode Linux"));
    }
}

#[test]
fn scratch_disks_are_there_and_blank() {
    if boot::lane() == "native" {
        boot::skip("the disks of this machine are not the lab's");
    }
    let disks = boot::scratch_disks();
    assert!(disks.len() >= 3, "{disks:?}");
    let mut largest = 0;
    for disk in disks {
        let mut file = fs::File::open(&disk).unwrap();
        let mut first = vec![1; 1 << 20];
        file.read_exact(&mut first).unwrap();
        assert!(first.iter().all(|b| *b == 0), "{} is not blank", disk.display());
        assert_eq!(partitions(&disk), 0, "{}: the kernel has partitions", disk.display());
        largest = largest.max(file.seek(SeekFrom::End(0)).unwrap());
    }
    assert!(largest >= 400_000_000_000);
}

#[test]
fn scratch_disks_are_blank_again_1_after_one_test_wrote_them() {
    if boot::lane() == "native" {
        boot::skip("the disks of this machine are not the lab's");
    }
    let disk = &boot::scratch_disks()[0];
    write_first_block(disk);
    // A table of one partition: 1 MiB at 1 MiB.
    let mut sector = [0; 512];
    sector[446 + 4] = 0x83;
    sector[446 + 8..446 + 12].copy_from_slice(&2048_u32.to_le_bytes());
    sector[446 + 12..446 + 16].copy_from_slice(&2048_u32.to_le_bytes());
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    fs::OpenOptions::new().write(true).open(disk).unwrap().write_all_at(&sector, 0).unwrap();
    assert!(Command::new("blockdev").arg("--rereadpt").arg(disk).status().unwrap().success());
    assert_eq!(partitions(disk), 1);
}

#[test]
fn scratch_disks_are_blank_again_2_when_the_next_begins() {
    scratch_disks_are_there_and_blank();
}

/// How many partitions the kernel knows of a disk.
fn partitions(disk: &Path) -> usize {
    let name = fs::canonicalize(disk).unwrap().file_name().unwrap().to_owned();
    let below = fs::read_dir(Path::new("/sys/block").join(name)).unwrap();
    below.filter(|entry| entry.as_ref().unwrap().path().join("partition").exists()).count()
}

fn write_first_block(disk: &Path) {
    let file = fs::OpenOptions::new().write(true).open(disk).unwrap();
    file.write_all_at(&[7; 4096], 0).unwrap();
    file.sync_all().unwrap();
}

#[test]
fn a_reboot_keeps_notes_disks_and_files() {
    let kept = Path::new("/var/dmpool-test-kept");
    let disk = &boot::scratch_disks()[1];
    match boot::phase() {
        0 => {
            assert_eq!(boot::recall("colour"), None);
            boot::remember("colour", "green\n\"quoted\"");
            // Not synced: a clean reboot must not lose it.
            fs::write(kept, "kept").unwrap();
            write_first_block(disk);
            boot::reboot()
        }
        1 => boot::reboot(),
        phase => {
            assert_eq!(phase, 2);
            assert_eq!(boot::recall("colour").as_deref(), Some("green\n\"quoted\""));
            assert_eq!(fs::read_to_string(kept).unwrap(), "kept");
            assert_eq!(fs::read(disk_start(disk)).unwrap(), [7; 4096]);
        }
    }
}

/// A copy of a disk's first block.
fn disk_start(disk: &Path) -> &'static Path {
    let copy = Path::new("/run/dmpool-test-start");
    let mut block = vec![0; 4096];
    fs::File::open(disk).unwrap().read_exact_at(&mut block, 0).unwrap();
    fs::write(copy, block).unwrap();
    copy
}

#[test]
fn scratch_disks_are_found_in_other_places_are_missing_and_are_there_twice() {
    let start = |disk: &Path| fs::read(disk_start(disk)).unwrap();
    let places = || boot::scratch_disks().iter().map(|disk| disk.display().to_string()).collect::<Vec<_>>().join(" ");
    match boot::phase() {
        0 => {
            for (number, disk) in (1..).zip(boot::scratch_disks()) {
                let file = fs::OpenOptions::new().write(true).open(disk).unwrap();
                file.write_all_at(&[number; 4096], 0).unwrap();
                file.sync_all().unwrap();
            }
            boot::remember("places", &places());
            boot::reboot_with(Disks::in_order(&[2, 0, 1]));
        }
        1 => {
            assert_ne!(boot::recall("places"), Some(places()));
            for (number, disk) in boot::scratch_disks().iter().enumerate() {
                assert_eq!(start(disk)[0], u8::try_from(number).unwrap() + 1);
                assert_eq!(boot::by_id(number).canonicalize().unwrap(), *disk);
            }
            boot::power_cut_with(Disks::in_order(&[1, 2]).with_copy_of(1));
        }
        _ => {
            assert_eq!((boot::scratch_disk(0), boot::scratch_disks().len()), (None, 2));
            assert!(!boot::by_id(0).exists());
            let (copy, second) = (boot::copy_by_id(1).canonicalize().unwrap(), boot::scratch_disk(1).unwrap());
            assert_ne!(copy, second);
            assert_eq!(start(&copy), [2; 4096]);
            write_first_block(&second);
            assert_eq!(start(&copy), [2; 4096], "it is a disk of its own");
        }
    }
}

#[test]
fn scratch_disks_are_in_their_places_again_when_the_next_test_begins() {
    if boot::lane() == "native" {
        boot::skip("the disks of this machine are not the lab's");
    }
    let disks = boot::scratch_disks();
    assert!(disks.is_sorted() && disks.len() == 3, "{disks:?}");
}

#[test]
fn a_power_cut_loses_what_was_not_synced_and_nothing_else() {
    let (synced, unsynced) = (Path::new("/var/dmpool-test-synced"), Path::new("/var/dmpool-test-unsynced"));
    if boot::phase() == 0 {
        let mut file = fs::File::create(synced).unwrap();
        file.write_all(b"synced").unwrap();
        file.sync_all().unwrap();
        fs::File::open("/var").unwrap().sync_all().unwrap();
        fs::write(unsynced, "unsynced").unwrap();
        boot::power_cut();
    }
    assert_eq!(fs::read_to_string(synced).unwrap(), "synced");
    let lost = fs::read_to_string(unsynced).unwrap_or_default();
    assert_eq!(lost, "", "a file that nobody synced survived a power cut");
}

#[test]
fn a_power_cut_comes_while_the_test_works() {
    if boot::phase() == 0 {
        boot::power_cut_after(Duration::from_millis(300));
        loop {
            thread::sleep(Duration::from_millis(10));
        }
    }
    assert_eq!(boot::phase(), 1);
}

#[test]
fn udev_can_go_and_come_back() {
    assert!(boot::have_udev());
    boot::stop_udev();
    assert!(!boot::have_udev());
    boot::start_udev();
    assert!(boot::have_udev());
}

#[test]
fn udev_makes_nodes_of_dm_devices() {
    output_of("dmsetup", &["create", "dmpool-test-node", "--table", "0 8 zero"]);
    let there = Path::new("/dev/mapper/dmpool-test-node").exists();
    output_of("dmsetup", &["remove", "dmpool-test-node"]);
    assert!(there);
}

#[test]
fn programs_are_on_the_path() {
    assert!(output_of("dmpool", &["--version"]).starts_with("dmpool "));
}

#[test]
fn a_skip_is_not_a_pass() {
    println!("its reason is shown in the list");
    boot::skip("this test only shows that a skip is counted as one");
}
