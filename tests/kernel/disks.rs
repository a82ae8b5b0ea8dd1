//! `disks` on real devices: each that cannot carry a pool is told so by the right reason, and none is touched.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lab::guest::boot;
use lab::guest::disk::{Kind, LoopDisk, Mounted};
use lab::guest::machine::{Scope, Snapshot, assert_same};
use lab::guest::run::{Cmd, Ran};
use lab::guest::sys::{self, dmsetup};
use serde_json::Value;

use crate::support::Bench;
use crate::support::labels;
use crate::support::pools::HandMade;

const M: u64 = 1 << 20;

/// Long enough for any machine.
const LIMIT: Duration = Duration::from_secs(120);

/// What `disks --all` says of every device.
struct Said {
    ran: Ran,
    disks: BTreeMap<String, Value>,
}

impl Said {
    fn by(bench: &Bench, options: &[&str]) -> Self {
        let args = [&["disks", "--all", "--format", "json"], options].concat();
        let ran = bench.cmd(&args).limit(LIMIT).run();
        let json: Value = serde_json::from_str(&ran.stdout).unwrap_or_else(|e| panic!("{e}: {ran}"));
        let disks = json["disks"].as_array().unwrap().iter();
        let disks = disks.map(|disk| (disk["device"].as_str().unwrap().to_owned(), disk.clone())).collect();
        Self { ran, disks }
    }

    /// All devices can be read.
    #[track_caller]
    fn new(bench: &Bench) -> Self {
        let said = Self::by(bench, &[]);
        assert!(said.ran.ok(), "{}", said.ran);
        said
    }

    #[track_caller]
    fn of(&self, device: &Path) -> &Value {
        let node = fs::canonicalize(device).unwrap();
        self.disks.get(node.to_str().unwrap()).unwrap_or_else(|| panic!("{} is not in {}", node.display(), self.ran))
    }

    /// The device has these reasons and no others, as `key` or `key: words of its sentence`.
    #[track_caller]
    fn is(&self, device: &Path, reasons: &[&str]) {
        let disk = self.of(device);
        let found: Vec<_> = disk["reasons"]
            .as_array()
            .unwrap()
            .iter()
            .map(|why| (why["key"].as_str().unwrap(), why["sentence"].as_str().unwrap()))
            .collect();
        let same = found.len() == reasons.len()
            && found.iter().zip(reasons).all(|((key, sentence), wanted)| {
                let (wanted, words) = wanted.split_once(": ").unwrap_or((wanted, ""));
                *key == wanted && sentence.contains(words)
            });
        assert!(same, "{}: {reasons:?} wanted: {disk:#}", device.display());
        let unknown = !reasons.is_empty() && reasons.iter().all(|why| why.starts_with("not_read"));
        let usable = if unknown { Value::Null } else { reasons.is_empty().into() };
        assert_eq!(disk["usable"], usable, "{}", device.display());
    }
}

/// What `look` does changes nothing of these devices, and makes udev look at none.
fn untouched<T>(devices: &[&Path], look: impl FnOnce() -> T) -> T {
    let scope = devices.iter().fold(Scope::new(), Scope::content);
    sys::settle();
    // The kernel counts what it tells udev, also that a writer has closed a device.
    let told = || fs::read_to_string("/sys/kernel/uevent_seqnum").unwrap();
    let (before, seqnum) = (Snapshot::take(&scope).unwrap(), told());
    let seen = look();
    sys::settle();
    assert_eq!(told(), seqnum, "udev was told of something");
    assert_same(&before, &Snapshot::take(&scope).unwrap());
    seen
}

fn run(program: &str, args: &[&str]) -> String {
    Cmd::new(program).args(args).limit(LIMIT).run().checked().unwrap().stdout
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Undoes what outlives a test that fails.
struct Undo(Vec<(&'static str, Vec<String>)>);

impl Undo {
    fn with(&mut self, program: &'static str, args: &[&str]) {
        self.0.push((program, args.iter().map(|arg| (*arg).to_owned()).collect()));
    }
}

impl Drop for Undo {
    fn drop(&mut self) {
        for (program, args) in self.0.iter().rev() {
            let _ = Cmd::new(program).args(args).limit(LIMIT).run();
        }
    }
}

/// A linear device over the whole of another.
fn linear(bench: &Bench, what: &str, on: &Path) -> PathBuf {
    let name = bench.sweep.name(what);
    let table = format!("0 {} linear {} 0", sys::size_of(on).unwrap() / 512, on.display());
    dmsetup(["create", &name, "--table", &table]).run().checked().unwrap();
    Path::new("/dev/mapper").join(name)
}

#[test]
fn disks_partitions_and_volumes_in_use_are_told_apart_from_free_ones() {
    let bench = Bench::new();
    let disks = boot::scratch_disks();
    let [first, second, third] = disks.as_slice() else { panic!("{disks:?}") };
    let mut undo = Undo(Vec::new());

    // A partition that is mounted, one that is swapped on, one that is free.
    let table = "label: dos\nsize=512MiB\nsize=64MiB\nsize=64MiB\n";
    Cmd::new("sfdisk").args(["--quiet", text(first)]).stdin(table).run().checked().unwrap();
    undo.with("wipefs", &["-a", text(first)]);
    sys::settle();
    let part = |number: u8| {
        let digit = text(first).ends_with(|c: char| c.is_ascii_digit());
        PathBuf::from(format!("{}{}{number}", first.display(), if digit { "p" } else { "" }))
    };
    let mounted = Mounted::format(Kind::Ext4, &part(1), &bench.sweep.path("mounted")).unwrap();
    run("mkswap", &[text(&part(2))]);
    run("swapon", &[text(&part(2))]);
    undo.with("swapoff", &[text(&part(2))]);

    // Two volumes of LVM: one free, and one with something on it.
    let group = bench.sweep.name("vg");
    run("lvm", &["pvcreate", "-y", text(second)]);
    undo.with("lvm", &["pvremove", "-ff", "-y", text(second)]);
    run("lvm", &["vgcreate", "-y", &group, text(second)]);
    undo.with("lvm", &["vgremove", "-f", "-y", &group]);
    for volume in ["free", "taken-one"] {
        run("lvm", &["lvcreate", "-y", "-L", "64M", "-n", volume, &group]);
    }
    let volume = |name: &str| Path::new("/dev/mapper").join(format!("{}-{name}", group.replace('-', "--")));
    let (free, taken) = (volume("free"), volume("taken--one"));
    let upper = linear(&bench, "upper", &taken);
    undo.with("dmsetup", &["remove", "--retry", text(&upper)]);

    let said = untouched(&[&part(3), &free], || Said::new(&bench));
    let on = format!("mounted: its partition {} is mounted on {}", name_of(&part(1)), mounted.dir().display());
    let swap = format!("swap: its partition {} is swapped on", name_of(&part(2)));
    let parts = format!("partitioned: {}, {}, {}", name_of(&part(1)), name_of(&part(2)), name_of(&part(3)));
    said.is(first, &[&on, &swap, &parts, "signature: a partition table (dos)"]);
    said.is(&part(1), &["mounted: it is mounted on", "signature: a file system (ext4)"]);
    said.is(&part(2), &["swap: it is swapped on", "signature: swap space (swap)"]);
    said.is(&part(3), &[]);
    let held = format!("held: it is held by {group}/free, {group}/taken-one");
    said.is(second, &[&held, "signature: a physical volume of LVM (LVM2_member)"]);
    said.is(&free, &[]);
    said.is(&taken, &[&format!("held: it is held by {}", bench.sweep.name("upper"))]);
    said.is(&upper, &[]);
    said.is(third, &[]);
    let lv = said.of(&taken);
    assert_eq!((&lv["kind"], &lv["logical_volume"]), (&"LV".into(), &"taken-one".into()));
    assert_eq!(lv["volume_group"], group.as_str());
    assert_eq!(said.of(&part(1))["disk"], said.of(first)["number"]);
    assert_eq!(said.of(third)["size"].as_u64(), Some(sys::size_of(third).unwrap()));

    let table = bench.ok(&["disks"]);
    let lines: Vec<_> = table.lines().collect();
    assert!(lines[0].starts_with("NAME ") && lines[1].ends_with(" yes"), "{table}");
    let line = |device: &Path| {
        let name = name_of(device);
        lines.iter().position(|line| line.split_whitespace().nth(1) == Some(&name)).unwrap_or_else(|| panic!("{table}"))
    };
    assert!(line(third) < line(first) && lines[line(first)].contains("no: its partition"), "{table}");
}

/// The kernel's name of a device.
fn name_of(device: &Path) -> String {
    fs::canonicalize(device).unwrap().file_name().unwrap().to_str().unwrap().to_owned()
}

#[test]
fn what_is_on_a_device_is_named() {
    let bench = Bench::new();
    let disk = |name: &str, bytes| LoopDisk::create(&bench.sweep.path(name), bytes).unwrap();
    let (blank, small, locked) = (disk("blank", 8 * M), disk("small", M), disk("locked", 8 * M));
    run("blockdev", &["--setro", text(locked.device())]);
    let ext4 = disk("ext4", 8 * M);
    Kind::Ext4.format(ext4.device()).unwrap();
    // Bytes that no program knows.
    let data = disk("data", 8 * M);
    OpenOptions::new().write(true).open(data.device()).unwrap().write_all_at(b"data", 4096).unwrap();

    let labelled = disk("labelled", 8 * M);
    labels::write(labelled.device(), "p0", 1);
    fs::copy(labelled.file(), bench.sweep.path("copy")).unwrap();
    let copy = LoopDisk::attach(&bench.sweep.path("copy")).unwrap();
    let torn = disk("torn", 8 * M);
    labels::write(torn.device(), "p1", 2);
    OpenOptions::new().write(true).open(torn.device()).unwrap().write_all_at(&[0xaa; 512], (600 << 10) + 300).unwrap();

    let pool = HandMade::new(&bench, "pool", 8 * M, 4 * M);
    dmsetup(["message", &pool.name, "0", "create_thin 0"]).run().checked().unwrap();
    let volume = crate::support::volume(&pool.name, 1, &bench.sweep.name("volume"), 16 * M);
    sys::settle();

    let beneath = disk("beneath", 8 * M);
    let above = LoopDisk::attach(beneath.device()).unwrap();
    sys::settle();

    let watched = [&blank, &ext4, &data, &labelled, &torn, &pool.metadata].map(LoopDisk::device);
    let said = untouched(&watched, || Said::new(&bench));
    said.is(blank.device(), &[]);
    said.is(small.device(), &["too_small: it has 1.0 MiB, and 4.0 MiB are the least"]);
    said.is(locked.device(), &["read_only"]);
    said.is(ext4.device(), &["signature: a file system (ext4)"]);
    said.is(data.device(), &["not_blank: 1 of 704 samples are not zeros, the first at byte 4096"]);
    assert_eq!((&said.of(data.device())["blank"], &said.of(blank.device())["blank"]), (&false.into(), &true.into()));
    let label = "label: it carries metadata and data of dmpool's pool `p0`";
    said.is(labelled.device(), &[label, &format!("copy: {}", copy.device().display())]);
    said.is(copy.device(), &[label, &format!("copy: {}", labelled.device().display())]);
    said.is(torn.device(), &["bad_label: its checksum is wrong"]);
    let held = format!("held: it is held by {}", pool.name);
    said.is(pool.metadata.device(), &[&held, "thin_metadata"]);
    said.is(pool.data.device(), &[&held]);
    said.is(
        &Path::new("/dev/mapper").join(&pool.name),
        &[&format!("held: {}", bench.sweep.name("volume")), "thin_pool"],
    );
    said.is(&volume, &["thin_volume"]);
    said.is(beneath.device(), &[&format!("loop_file: {} has it", name_of(above.device()))]);
    said.is(above.device(), &[]);
    run("blockdev", &["--setrw", text(locked.device())]);
}

/// Nothing of a command line opens a device so that it could write.
#[test]
fn devices_are_opened_read_only() {
    let bench = Bench::new();
    let blank = LoopDisk::create(&bench.sweep.path("blank"), 64 * M).unwrap();
    let state = text(&bench.state).to_owned();
    let create = ["dmpool", "--state-dir", &state, "create", "dmpool-test-new", "--data-device", text(blank.device())];
    opens_read_only(&bench, &blank, &["dmpool", "disks", "--all"]);
    opens_read_only(&bench, &blank, &[&create[..], &["--dry-run"]].concat());
    // Where nothing tells what is on it: at its end, or somewhere in the middle.
    for (at, first) in [(64 * M - 8, 64 * M - 4096), (33 * M, 33 * M)] {
        OpenOptions::new().write(true).open(blank.device()).unwrap().write_all_at(b"data", at).unwrap();
        let said = opens_read_only(&bench, &blank, &create);
        assert_eq!(said.code(), Some(3), "{said}");
        assert!(
            said.stderr.contains(&format!("the first at byte {first}")) && said.stderr.contains("--wipe"),
            "{said}"
        );
    }
    assert_eq!(fs::read_dir(&bench.state).unwrap().count(), 0, "nothing is begun");

    // As in a container that has no /sys.
    let line = "mount -t tmpfs none /sys && exec dmpool disks";
    let ran = Cmd::new("unshare").args(["-m", "sh", "-c", line]).run();
    assert!(ran.code() == Some(5) && ran.stderr.contains("/sys/class/block is not there"), "{ran}");
}

/// Runs a program, which opens a device, and nothing of it or any other so that it could write.
fn opens_read_only(bench: &Bench, blank: &LoopDisk, program: &[&str]) -> Ran {
    let log = bench.sweep.path("calls");
    let ran =
        Cmd::new("strace").args(["-f", "-e", "trace=open,openat", "-o", text(&log)]).args(program).limit(LIMIT).run();
    let calls = fs::read_to_string(&log).unwrap();
    let of_devices: Vec<_> = calls.lines().filter(|line| line.contains("\"/dev/")).collect();
    let number = dmpool::kernel::block::devno_of(blank.device()).unwrap();
    let nodes = [format!("\"/dev/block/{number}\""), format!("\"{}\"", blank.device().display())];
    let of_it = of_devices.iter().filter(|line| nodes.iter().any(|node| line.contains(node)));
    assert!(of_it.clone().any(|line| line.contains("O_EXCL")) && of_it.count() > 2, "{of_devices:#?}");
    let harmless = |line: &&&str| line.contains("\"/dev/null\"") || line.contains("\"/dev/mapper/control\"");
    let writing = |line: &&&str| line.contains("O_RDWR") || line.contains("O_WRONLY");
    let wrong: Vec<_> = of_devices.iter().filter(writing).filter(|line| !harmless(line)).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    ran
}

#[test]
fn members_of_a_raid_are_told_running_and_stopped() {
    let bench = Bench::new();
    if !Cmd::new("modprobe").arg("raid1").run().ok() {
        boot::skip("this kernel has no md RAID");
    }
    let members = ["one", "two"].map(|name| LoopDisk::create(&bench.sweep.path(name), 64 * M).unwrap());
    let [one, two] = members.each_ref().map(|member| text(member.device()));
    let mut undo = Undo(Vec::new());
    undo.with("mdadm", &["--stop", "/dev/md117"]);
    let create =
        ["--create", "/dev/md117", "--run", "--level=1", "--raid-devices=2", "--metadata=1.2", "--assume-clean"];
    run("mdadm", &[&create[..], &[one, two]].concat());
    sys::settle();
    let said = Said::new(&bench);
    let member = "signature: a member of an md RAID (linux_raid_member";
    said.is(members[0].device(), &["held: it is held by md117", member]);
    said.is(Path::new("/dev/md117"), &[]);
    assert_eq!(said.of(Path::new("/dev/md117"))["md_level"], "raid1");
    run("mdadm", &["--stop", "/dev/md117"]);
    sys::settle();
    Said::new(&bench).is(members[1].device(), &[member]);
}

/// Two that hang, of which one is seen to be suspended, and one is behind a file system.
#[test]
fn what_hangs_is_named_and_keeps_nobody() {
    let bench = Bench::new();
    let disk = LoopDisk::create(&bench.sweep.path("disk"), 256 * M).unwrap();
    let host = linear(&bench, "host", disk.device());
    let mounted = Mounted::format(Kind::Ext4, &host, &bench.sweep.path("mounted")).unwrap();
    let file = mounted.dir().join("dmpool-test-file");
    let behind = LoopDisk::create(&file, 64 * M).unwrap();
    OpenOptions::new().write(true).open(&file).unwrap().write_all_at(&[7; 65536], 0).unwrap();
    let over = linear(&bench, "over", behind.device());
    let blank = LoopDisk::create(&bench.sweep.path("blank"), 64 * M).unwrap();
    sys::settle();
    Cmd::new("sync").run().checked().unwrap();
    fs::write("/proc/sys/vm/drop_caches", "3").unwrap();
    dmsetup(["suspend", text(&host)]).run().checked().unwrap();

    let said = Said::by(&bench, &["--timeout", "2"]);
    assert_eq!(said.ran.code(), Some(5), "{}", said.ran);
    said.is(blank.device(), &[]);
    said.is(&host, &[&format!("mounted: {}", mounted.dir().display()), "not_read: it is suspended"]);
    said.is(behind.device(), &[&format!("held: {}", bench.sweep.name("over")), "not_read: did not answer within 2 s"]);
    said.is(&over, &["not_read: did not answer within 2 s"]);
    for device in [&host, &over] {
        assert!(said.ran.stderr.contains(&format!("cannot tell what is on {}", device.display())), "{}", said.ran);
    }
    assert!(said.ran.stderr.contains(&format!("dmsetup resume {}", bench.sweep.name("host"))), "{}", said.ran);

    dmsetup(["resume", text(&host)]).run().checked().unwrap();
    sys::settle();
    let said = Said::new(&bench);
    said.is(&over, &["not_blank: first at byte 0"]);
    assert_eq!(said.of(&over)["blank"], false);
    dmsetup(["remove", "--retry", text(&over)]).run().checked().unwrap();
    drop(behind);
    mounted.unmount().unwrap();
    dmsetup(["remove", "--retry", text(&host)]).run().checked().unwrap();
}

/// Without the program that knows the formats nothing is taken for empty.
#[test]
fn without_wipefs_nothing_is_usable() {
    let bench = Bench::new();
    let blank = LoopDisk::create(&bench.sweep.path("blank"), 64 * M).unwrap();
    let empty = bench.sweep.subdir("bin").unwrap();
    let program = run("sh", &["-c", "command -v dmpool"]);
    let args = ["-i", &format!("PATH={}", empty.display()), program.trim(), "disks", "--all", "--format", "json"];
    let ran = Cmd::new("env").args(args).run();
    assert_eq!(ran.code(), Some(5), "{ran}");
    assert!(ran.stderr.contains("wipefs (of util-linux) is not installed"), "{ran}");
    let json: Value = serde_json::from_str(&ran.stdout).unwrap();
    let disks = json["disks"].as_array().unwrap();
    assert!(disks.iter().all(|disk| disk["usable"] != true), "{json:#}");
    let it = disks.iter().find(|disk| disk["device"] == text(blank.device())).unwrap();
    assert_eq!((&it["usable"], &it["signatures"]), (&Value::Null, &Value::Null));
}

/// A label is written where nobody has the device, in turn to both slots, and what is on it counts at once.
#[test]
fn labels_are_written_and_read_back() {
    use dmpool::kernel::disks::label::{self, Claim};
    use dmpool::kernel::{self, block};
    use dmpool::pool::label::Slots;

    let bench = Bench::new();
    let disk = LoopDisk::create(&bench.sweep.path("disk"), 64 * M).unwrap();
    let devno = block::devno_of(disk.device()).unwrap();
    let slots = || {
        let [first, second] = label::read(devno).unwrap();
        Slots::decode([&first, &second])
    };
    assert_eq!(slots().newest(), Ok(None));
    for sequence in 1..=3 {
        let new = labels::label("p0", 1, sequence);
        let slot = slots().next();
        label::write(devno, slot, &new.encode().unwrap(), Claim::Free).unwrap();
        assert_eq!(slots().newest(), Ok(Some(&new)), "in slot {slot}");
    }
    let upper = linear(&bench, "upper", disk.device());
    let new = labels::label("p0", 1, 4);
    let bytes = new.encode().unwrap();
    let refused = label::write(devno, slots().next(), &bytes, Claim::Free).unwrap_err();
    assert_eq!(kernel::errno_of(&refused), Some(nix::errno::Errno::EBUSY));
    assert_eq!(slots().newest().unwrap().unwrap().sequence, 3);
    label::write(devno, slots().next(), &bytes, Claim::Pool).unwrap();
    assert_eq!(slots().newest(), Ok(Some(&new)));
    sys::settle();
    dmsetup(["remove", "--retry", text(&upper)]).run().checked().unwrap();
}
