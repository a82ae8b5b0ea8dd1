use std::fs;

use lab::guest::disk::{Kind, LoopDisk, Mounted};
use lab::guest::log_writes::{Flags, Log, Replay};
use lab::guest::machine::content_hash;
use lab::guest::run::Cmd;
use lab::guest::sweep::Sweep;
use lab::guest::wrap::{Behaviour, Wrapped};

const MIB: u64 = 1 << 20;

#[test]
fn the_kernels_log_is_played_back_to_each_mark() {
    let sweep = Sweep::new().unwrap();
    let disk = LoopDisk::create(&sweep.path("disk"), 64 * MIB).unwrap();
    let log_disk = LoopDisk::create(&sweep.path("log"), 128 * MIB).unwrap();
    let copy = LoopDisk::create(&sweep.path("copy"), 64 * MIB).unwrap();
    let behaviour = Behaviour::LogWrites(log_disk.device().into());
    let wrapped = Wrapped::new(&sweep.name("logged"), disk.device(), &behaviour).unwrap();

    let mounted = Mounted::format(Kind::Ext4, &wrapped.device(), &sweep.path("mnt")).unwrap();
    for (name, text) in [("one", "first"), ("two", "second")] {
        fs::write(mounted.dir().join(name), text).unwrap();
        fs::File::open(mounted.dir().join(name)).unwrap().sync_all().unwrap();
        fs::File::open(mounted.dir()).unwrap().sync_all().unwrap();
        wrapped.mark(&format!("after-{name}")).unwrap();
    }
    mounted.unmount().unwrap();
    wrapped.remove().unwrap();

    let log = Log::open(log_disk.device()).unwrap();
    let (one, two) = (log.mark("after-one").unwrap(), log.mark("after-two").unwrap());
    assert!(0 < one && one < two && two < log.entries().len(), "{one} {two} {}", log.entries().len());
    assert!(log.entries().iter().any(|e| e.flags.has(Flags::FLUSH) || e.flags.has(Flags::FUA)));
    assert!(log.mark("dm-log-writes-end").is_some(), "the kernel's own end mark");

    let mut replay = Replay::new(&log, copy.device()).unwrap();
    replay.to(one).unwrap();
    assert_eq!(files(&sweep, &copy), ["one"]);
    // Mounting replayed the journal onto the copy; from an untouched one again.
    fs::write(sweep.path("copy2"), "").unwrap();
    fs::File::options().write(true).open(sweep.path("copy2")).unwrap().set_len(64 * MIB).unwrap();
    let mut replay = Replay::new(&log, &sweep.path("copy2")).unwrap();
    replay.to(two).unwrap();
    let fresh = LoopDisk::attach(&sweep.path("copy2")).unwrap();
    assert_eq!(files(&sweep, &fresh), ["one", "two"]);
    drop(fresh);

    fs::File::create_new(sweep.path("copy3")).unwrap().set_len(64 * MIB).unwrap();
    let mut replay = Replay::new(&log, &sweep.path("copy3")).unwrap();
    while replay.step().unwrap().is_some() {}
    assert_eq!(replay.done(), log.entries().len());
    assert_eq!(content_hash(&sweep.path("copy3")).unwrap(), content_hash(disk.file()).unwrap(), "byte for byte");
}

/// The files on it, after its journal was replayed and it was found clean.
fn files(sweep: &Sweep, disk: &LoopDisk) -> Vec<String> {
    let mounted = Mounted::mount(disk.device(), &sweep.path("look"), "defaults").unwrap();
    let mut names: Vec<_> =
        fs::read_dir(mounted.dir()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|name| name != "lost+found");
    names.sort();
    mounted.unmount().unwrap();
    Cmd::new("fsck.ext4").args(["-f", "-n"]).arg(disk.device()).run().checked().unwrap();
    names
}
