//! A Docker root with one of everything, read by `rescue` while its Docker runs, after it was killed, after a power cut in
//! the middle of writes, and damaged: all beside the truth that was taken while it was well.

mod damaged;
mod ended;
mod loaded;
mod shape;
mod told;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use lab::guest::boot;
use lab::guest::disk::{Kind, Mounted};
use lab::guest::docker::{DAEMON_JSON, Docker, find};
use lab::guest::inventory::{Except, Field, Inventory, Kind as Type, TOP};
use lab::guest::menagerie::{Menagerie, names};
use nix::dir::Dir;
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::{Mode, fstat, fstatat};

use crate::rescue_devicemapper::assert_nothing_left;
use crate::rescue_files::extract;
use crate::support::Bench;
use damaged::Cases;
use shape::{Disks, Shape};

/// The same in every boot: Docker writes paths down.
const MOUNT: &str = "/var/tmp/dmpool-test-dead-docker";
/// A container that writes while everything ends; files of [`WRITTEN`] bytes, each synced before the next.
const WRITER: &str = "writer";
const WRITTEN: usize = 64 << 10;

/// A root that nobody may change, and where to put what comes out of it.
#[derive(Clone)]
struct Source<'a> {
    root: PathBuf,
    out: PathBuf,
    /// What else it is made of.
    disks: Option<&'a Disks>,
    /// What commands that read files are told.
    reach: Vec<String>,
    /// Nothing while its Docker works in it.
    still: Option<BTreeMap<PathBuf, String>>,
}

/// How a command ended.
struct Ended {
    line: String,
    code: Option<i32>,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

impl Ended {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    fn error(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    #[track_caller]
    fn whole(self) -> Self {
        assert_eq!(self.code, Some(0), "{}: {}", self.line, self.error());
        self
    }

    /// Ended as told, and said each of the words.
    #[track_caller]
    fn says(self, code: i32, words: &[&str]) -> Self {
        assert_eq!(self.code, Some(code), "{}: {}\n{}", self.line, self.text(), self.error());
        let said = self.text() + &self.error();
        for word in words {
            assert!(said.contains(word), "{}: no {word:?} in {said}", self.line);
        }
        self
    }
}

impl<'a> Source<'a> {
    fn live(root: &Path, out: &Path) -> Self {
        Self { root: root.to_owned(), out: out.to_owned(), disks: None, reach: Vec::new(), still: None }
    }

    fn dead(root: &Path, out: &Path) -> Self {
        Self::live(root, out).watched()
    }

    fn on(self, disks: &'a Disks, reach: Vec<String>) -> Self {
        Self { disks: Some(disks), reach, ..self }.watched()
    }

    /// From now on nobody may change it.
    fn watched(self) -> Self {
        let still = Some(self.picture());
        Self { still, ..self }
    }

    fn picture(&self) -> BTreeMap<PathBuf, String> {
        let mut picture = still(&self.root);
        picture.extend(self.disks.into_iter().flat_map(Disks::written));
        picture
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("dmpool");
        command.arg("--root").arg(&self.root).args(args);
        if let ["rescue", "cp" | "export" | "diff" | "save", ..] = args {
            command.args(&self.reach);
        }
        command
    }

    /// Runs a command; the root must be after it what it was before, down to the access times, and nothing written to its disks.
    #[track_caller]
    fn run(&self, args: &[&str]) -> Ended {
        let output = self.command(args).output().unwrap();
        self.assert_still(&args.join(" "));
        Ended { line: args.join(" "), code: output.status.code(), stdout: output.stdout, stderr: output.stderr }
    }

    #[track_caller]
    fn assert_still(&self, after: &str) {
        let Some(before) = &self.still else { return };
        let now = self.picture();
        for (path, was) in before {
            assert_eq!(now.get(path), Some(was), "{} after {after}", path.display());
        }
        assert_eq!(now.len(), before.len(), "something is new after {after}");
    }

    /// What `export` and `tar` make of a container; what was said of it.
    fn exported(&self, id: &str) -> (Inventory, String) {
        let to = self.out.join("exported");
        let notes = extract(&mut self.command(&["rescue", "export", id]), &to);
        self.assert_still("export");
        let found = Inventory::of(&to).unwrap();
        fs::remove_dir_all(&to).unwrap();
        (found, notes)
    }

    /// What `cp` of the whole container makes; it must end with that code, and say these words.
    #[track_caller]
    fn copied(&self, id: &str, code: i32, words: &[&str]) -> Inventory {
        let to = self.out.join("copied");
        let ended = self.run(&["rescue", "cp", &format!("{id}:/."), to.to_str().unwrap()]);
        ended.says(code, words);
        let found = Inventory::of(&to).unwrap();
        fs::remove_dir_all(&to).unwrap();
        found
    }
}

/// No archive has the top itself, sockets, or the size of a directory.
fn archived() -> Except {
    Except::nothing().path(TOP).kind(Type::Socket).field(Field::DirectorySize)
}

/// As an archive has it, and with the files that Docker mounts into every container.
fn as_cp_sees() -> Except {
    ["etc/hostname", "etc/hosts", "etc/resolv.conf"].into_iter().fold(archived(), Except::path)
}

/// Status of everything in a directory, its access times too; looking changes none of it.
fn still(top: &Path) -> BTreeMap<PathBuf, String> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_NOATIME | OFlag::O_CLOEXEC;
    let mut found = BTreeMap::new();
    let dir = Dir::open(top, flags, Mode::empty()).unwrap();
    let device = fstat(&dir).unwrap().st_dev;
    let mut folders = vec![(PathBuf::new(), dir)];
    while let Some((path, mut folder)) = folders.pop() {
        let names: Vec<_> = folder.iter().map(|entry| entry.unwrap().file_name().to_owned()).collect();
        for name in
            names.iter().map(AsRef::as_ref).filter(|name: &&std::ffi::CStr| !matches!(name.to_bytes(), b"." | b".."))
        {
            let s = fstatat(&folder, name, AtFlags::AT_SYMLINK_NOFOLLOW).unwrap();
            let here = path.join(std::os::unix::ffi::OsStrExt::from_bytes(name.to_bytes()) as &std::ffi::OsStr);
            let times = [(s.st_atime, s.st_atime_nsec), (s.st_mtime, s.st_mtime_nsec), (s.st_ctime, s.st_ctime_nsec)];
            let text = format!(
                "{} {:o} {} {}:{} {} {} {times:?}",
                s.st_ino, s.st_mode, s.st_nlink, s.st_uid, s.st_gid, s.st_size, s.st_blocks
            );
            found.insert(here.clone(), text);
            if s.st_mode & libc::S_IFMT == libc::S_IFDIR && s.st_dev == device {
                folders.push((here, Dir::openat(&folder, name, flags, Mode::empty()).unwrap()));
            }
        }
    }
    found
}

/// What fails does not keep the rest from being tried: the root is dear.
struct Stages {
    begun: Instant,
    failed: Vec<String>,
}

impl Stages {
    fn new() -> Self {
        Self { begun: Instant::now(), failed: Vec::new() }
    }

    fn run(&mut self, what: &str, stage: impl FnOnce()) {
        if let Err(why) = catch_unwind(AssertUnwindSafe(stage)) {
            let why = why.downcast_ref::<String>().map(String::as_str).or(why.downcast_ref::<&str>().copied());
            self.failed.push(format!("{what}: {}", why.unwrap_or_default()));
        }
        println!("  {:>4} s  {what}", self.begun.elapsed().as_secs());
    }

    #[track_caller]
    fn all_went_well(self) {
        assert!(self.failed.is_empty(), "{}", self.failed.join("\n\n"));
    }
}

/// What is looked at in one guest.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    /// What is said of it, and what Docker takes of what comes out.
    Words,
    /// What comes out of it, whole and damaged.
    Files,
}

/// Everything of a part, with a power cut between its halves.
fn everything_comes_out(shape: Shape, part: Part) {
    if boot::full() {
        boot::time_limit(Duration::from_secs(900));
    }
    let bench = Bench::new();
    match boot::phase() {
        0 => read_beside_docker(shape, part),
        _ => read_after_the_power_cut(shape, part),
    }
    drop(bench);
}

fn read_beside_docker(shape: Shape, part: Part) {
    let mut stages = Stages::new();
    let disk = Mounted::format(Kind::Xfs, &boot::scratch_disks()[0], Path::new(MOUNT)).unwrap();
    let root = disk.dir().join("root");
    let mut disks = Disks::of(shape);
    if shape == Shape::Named {
        disks.activate();
    }
    let mut docker = Docker::start(shape.config(&root)).unwrap();
    // The next boot finds this Docker's devices by it.
    fs::File::open(DAEMON_JSON).unwrap().sync_all().unwrap();
    let small = match boot::full() {
        true if shape == Shape::Files => 10_000,
        true => 1000,
        false => 200,
    };
    let made = Menagerie::make(&docker, small).unwrap();
    made.save(&disk.dir().join("truth")).unwrap();
    // A power cut leaves no more than that of it.
    nix::unistd::sync();
    stages.run("made", || ());
    let out = disk.dir().join("out");
    fs::create_dir(&out).unwrap();
    let source = Source::live(&root, &out);
    if part == Part::Words {
        stages.run("told as Docker tells it", || {
            let words = told::words(&source, &made);
            fs::write(disk.dir().join("words"), serde_json::to_vec(&words).unwrap()).unwrap();
            told::as_docker_tells(&source, &docker, &made);
        });
        stages.run("made again by its run-line", || loaded::run_lines_make_them_again(&source, &docker, &made));
    }
    let written = write(&docker);
    docker.kill().unwrap();
    // What runs is mounted, what does not is not; both are read beside the dead daemon and its living containers.
    stages.run("read after kill -9", || {
        let most = if boot::full() { 3 } else { 2 };
        for name in [names::WEB, names::CHANGED, names::TERMINAL].into_iter().take(most) {
            let container = made.container(name).unwrap();
            let (found, notes) = source.exported(&container.id);
            container.root.assert_is(&found, &archived());
            let is_mounted = shape != Shape::Overlay2 && name != names::CHANGED;
            assert_eq!(notes.contains("may change meanwhile"), is_mounted, "{notes}");
        }
        assert_written(&source.copied(WRITER, 0, &[]), &source, written);
        assert_nothing_left(Path::new("/nowhere"));
    });
    boot::remember("failed", &stages.failed.join("\n\n"));
    boot::remember("written", &written.to_string());
    boot::power_cut();
}

fn read_after_the_power_cut(shape: Shape, part: Part) {
    let mut stages = Stages::new();
    stages.failed.extend(boot::recall("failed").filter(|failed| !failed.is_empty()));
    let disk = Mounted::mount(&boot::scratch_disks()[0], Path::new(MOUNT), "strictatime").unwrap();
    let (root, out) = (disk.dir().join("root"), disk.dir().join("out"));
    let made = Menagerie::load(&disk.dir().join("truth")).unwrap();
    let base = out.join("base");
    damaged::copy(&root, &base);
    let mut disks = Disks::of(shape);
    let (before, sums) = (Inventory::of(&root).unwrap(), disks.sums());
    let reach = if shape == Shape::Named { disks.named() } else { Vec::new() };
    let source = Source::live(&root, &out).on(&disks, reach);
    match part {
        Part::Words => {
            stages.run("told as before", || {
                let words = serde_json::from_slice(&fs::read(disk.dir().join("words")).unwrap()).unwrap();
                told::as_before(&source, &made, &words);
            });
            stages.run("images and volumes are loaded", || loaded::images_and_volumes(&source, shape, &made));
            stages.run("ended in the middle", || ended::in_the_middle(&source, &made));
        }
        Part::Files => {
            stages.run("every container is exported", || every_container(&source, &made));
            stages.run("what was synced is there", || {
                let written = boot::recall("written").unwrap().parse().unwrap();
                assert_written(&source.copied(WRITER, 0, &[]), &source, written);
                assert_nothing_left(&root);
            });
            damaged::root(&mut Cases { stages: &mut stages, source: &source, base: &base, shape, made: &made });
        }
    }
    stages.run("the source is what it was", || {
        source.assert_still("all of it");
        before.assert_is(&Inventory::of(&root).unwrap(), &Except::nothing());
        assert_eq!(disks.sums(), sums);
    });
    if part == Part::Files && shape != Shape::Overlay2 {
        damaged::pool(&mut Cases { stages: &mut stages, source: &source, base: &base, shape, made: &made });
    }
    if shape == Shape::Named {
        stages.run("its pool is not active", || {
            let ended = Source::dead(&root, &out).run(&["rescue", "export", WRITER]);
            ended.says(3, &["is not active", "neither dmpool's registry nor LVM on this machine has it", "--metadata"]);
        });
        drop(source);
        disks.activate();
        let source = Source::live(&root, &out).on(&disks, Vec::new());
        stages.run("its pool is active", || every_container(&source, &made));
    }
    fs::remove_dir_all(&out).unwrap();
    stages.all_went_well();
}

/// A run of CI's measure has time for some.
fn every_container(source: &Source<'_>, made: &Menagerie) {
    let mut differing = Vec::new();
    let some = [names::ODD, names::CHANGED, names::TERMINAL];
    for container in made.containers.iter().filter(|c| boot::full() || some.contains(&c.name.as_str())) {
        let (found, _) = source.exported(&container.id);
        let lines = container.root.differences(&found, &archived());
        differing.extend(lines.into_iter().map(|line| format!("{}: {line}", container.name)));
    }
    assert!(differing.is_empty(), "{}", differing.join("\n"));
}

/// Starts the container that writes; returns how many files it has synced by now.
fn write(docker: &Docker) -> usize {
    let script = "mkdir /written; n=0; while :; do dd if=/bin/busybox of=/written/$n bs=65536 skip=$((n % 20)) count=1 \
                  conv=fsync && echo $n; n=$((n + 1)); done";
    docker.run_detached(&["--name", WRITER, "--log-driver", "json-file"], &["sh", "-c", script]).unwrap();
    let until = Instant::now() + Duration::from_secs(120);
    loop {
        let said = docker.cmd(["logs", WRITER]).run().stdout.lines().count();
        if said >= 5 {
            return said;
        }
        assert!(Instant::now() < until, "{WRITER} does not write");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Whatever was synced is there, bit for bit.
#[track_caller]
fn assert_written(found: &Inventory, source: &Source<'_>, written: usize) {
    let busybox = fs::File::open(find("busybox").unwrap()).unwrap();
    let expected = source.out.join("expected");
    for number in 0..written {
        let mut bytes = vec![0; WRITTEN];
        let read = busybox.read_at(&mut bytes, (number % 20 * WRITTEN) as u64).unwrap();
        fs::write(&expected, &bytes[..read]).unwrap();
        let entry = found.get(format!("written/{number}")).unwrap_or_else(|| panic!("{number} of {written} is gone"));
        assert_eq!(entry.content, Some(lab::guest::machine::content_hash(&expected).unwrap()), "{number} of {written}");
    }
    fs::remove_file(&expected).unwrap();
}

/// The rest of them have minutes.
fn only_in_full() {
    if !boot::full() {
        boot::skip("minutes; the files on loop devices are for every run: with --full");
    }
}

#[test]
fn files_of_docker_on_loop_files_come_out() {
    everything_comes_out(Shape::Files, Part::Files);
}

#[test]
fn words_of_docker_on_loop_files_come_out() {
    only_in_full();
    everything_comes_out(Shape::Files, Part::Words);
}

#[test]
fn files_of_docker_on_devices_come_out() {
    only_in_full();
    everything_comes_out(Shape::Devices, Part::Files);
}

#[test]
fn files_of_docker_on_a_pool_of_another_come_out() {
    only_in_full();
    everything_comes_out(Shape::Named, Part::Files);
}

#[test]
fn files_of_docker_on_overlay2_come_out() {
    only_in_full();
    everything_comes_out(Shape::Overlay2, Part::Files);
}

#[test]
fn words_of_docker_on_overlay2_come_out() {
    only_in_full();
    everything_comes_out(Shape::Overlay2, Part::Words);
}
