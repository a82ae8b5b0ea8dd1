use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::time::Duration;

use lab::guest::disk::{Kind, LoopDisk, Mounted, fill};
use lab::guest::sweep::Sweep;
use lab::guest::sys;
use lab::guest::wrap::{Behaviour, Wrapped};

const MIB: u64 = 1 << 20;

/// Writes one block of `byte` at the beginning, and syncs.
fn put(device: &std::path::Path, byte: u8) -> std::io::Result<()> {
    let file = OpenOptions::new().write(true).open(device)?;
    file.write_all_at(&[byte; 4096], 0)?;
    file.sync_all()
}

/// The first byte, read around the page cache.
fn first(device: &std::path::Path) -> std::io::Result<u8> {
    let mut space = vec![0u8; 8192];
    let skip = space.as_ptr().align_offset(4096);
    let file = OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open(device)?;
    file.read_exact_at(&mut space[skip..skip + 4096], 0)?;
    Ok(space[skip])
}

#[test]
fn a_loop_disk_carries_file_systems_and_grows() {
    let sweep = Sweep::new().unwrap();
    let disk = LoopDisk::create(&sweep.path("disk"), 400 * MIB).unwrap();
    assert_eq!(sys::size_of(disk.device()).unwrap(), 400 * MIB);
    for kind in [Kind::Ext4, Kind::Xfs] {
        let mounted = Mounted::format(kind, disk.device(), &sweep.path("mnt")).unwrap();
        let found = sys::mounts().unwrap().into_iter().find(|m| m.point == mounted.dir()).unwrap();
        assert_eq!(found.kind, kind.name());
        fs::write(mounted.dir().join("file"), "text").unwrap();
        mounted.set_read_only(true).unwrap();
        let refused = fs::write(mounted.dir().join("file"), "other").unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
        mounted.set_read_only(false).unwrap();
        let busy = File::open(mounted.dir().join("file")).unwrap();
        drop(busy);
        mounted.unmount().unwrap();
    }
    disk.resize(500 * MIB).unwrap();
    assert_eq!(sys::size_of(disk.device()).unwrap(), 500 * MIB);
    let device = disk.device().to_owned();
    drop(disk);
    assert!(sys::loops().unwrap().iter().all(|l| l.device != device), "detached when dropped");
}

#[test]
fn a_small_tmpfs_fills_up() {
    let sweep = Sweep::new().unwrap();
    let small = Mounted::tmpfs(&sweep.path("small"), 2 * MIB).unwrap();
    let filler = fill(small.dir()).unwrap();
    let full = fs::write(small.dir().join("one-more"), [1; 8192]).unwrap_err();
    assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
    fs::remove_file(filler).unwrap();
    fs::write(small.dir().join("one-more"), [1; 8192]).unwrap();
}

#[test]
fn a_wrapped_disk_behaves_as_it_is_told() {
    let sweep = Sweep::new().unwrap();
    let disk = LoopDisk::create(&sweep.path("disk"), 16 * MIB).unwrap();
    let wrapped = Wrapped::new(&sweep.name("wrap"), disk.device(), &Behaviour::Linear).unwrap();
    let device = wrapped.device();
    put(&device, 1).unwrap();
    assert_eq!(first(&device).unwrap(), 1);

    wrapped.become_(&Behaviour::DropWrites).unwrap();
    put(&device, 2).unwrap();
    assert_eq!(first(&device).unwrap(), 1, "a dropped write is acknowledged and not there");

    wrapped.become_(&Behaviour::ErrorWrites).unwrap();
    assert_eq!(put(&device, 3).unwrap_err().raw_os_error(), Some(libc::EIO));
    assert_eq!(first(&device).unwrap(), 1);

    wrapped.become_(&Behaviour::Error).unwrap();
    assert_eq!(first(&device).unwrap_err().raw_os_error(), Some(libc::EIO));

    wrapped.become_(&Behaviour::Linear).unwrap();
    put(&device, 4).unwrap();
    assert_eq!(first(&device).unwrap(), 4, "good again");

    let wait = Duration::from_millis(200);
    wrapped.become_(&Behaviour::Delay { read: wait, write: Duration::ZERO }).unwrap();
    let began = std::time::Instant::now();
    assert_eq!(first(&device).unwrap(), 4);
    // A lower bound is no race: dm-delay never answers early.
    assert!(began.elapsed() >= wait, "the delay is there");
    wrapped.remove().unwrap();
}

#[test]
fn a_table_that_is_refused_leaves_the_old_behaviour() {
    let sweep = Sweep::new().unwrap();
    let disk = LoopDisk::create(&sweep.path("disk"), 16 * MIB).unwrap();
    let wrapped = Wrapped::new(&sweep.name("wrap"), disk.device(), &Behaviour::Linear).unwrap();
    assert!(wrapped.become_(&Behaviour::LogWrites("/dev/no-such-device".into())).is_err());
    put(&wrapped.device(), 7).unwrap();
    let mut byte = [0];
    File::open(wrapped.device()).unwrap().read_exact(&mut byte).unwrap();
    assert_eq!(byte, [7]);
    assert!(Wrapped::new("unswept", disk.device(), &Behaviour::Linear).is_err(), "only names that are swept");
}

#[test]
fn nothing_outside_the_prefix_is_made() {
    let unswept = std::path::Path::new("/var/tmp/not-a-test-name");
    assert!(LoopDisk::create(unswept, MIB).is_err());
    assert!(!unswept.exists());
}
