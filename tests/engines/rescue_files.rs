//! What `rescue` gets out of a stopped Docker's containers, beside what the running one had and said.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use lab::guest::boot;
use lab::guest::disk::{Kind, Mounted};
use lab::guest::docker::{Config, Docker};
use lab::guest::inventory::attributes;
use lab::guest::run::Cmd;
use nix::sys::stat::{Mode, SFlag, makedev, mknod};

use crate::support::Bench;

/// A file with one hole, or two.
const SPARSE: u64 = 64 << 20;

/// Everything there is to know below a folder, by path.
pub(crate) fn picture(root: &Path) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    let mut first = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(root).unwrap().as_os_str().as_bytes().escape_ascii().to_string();
            let found = path.symlink_metadata().unwrap();
            let kind = found.file_type();
            if kind.is_socket() {
                continue;
            }
            let time = (found.mtime(), found.mtime_nsec());
            let mut text = format!("{:o} {}:{} {time:?}", found.mode(), found.uid(), found.gid());
            if kind.is_dir() {
                folders.push(path.clone());
            } else if kind.is_symlink() {
                text += &format!(" {:?}", fs::read_link(&path).unwrap());
            } else if kind.is_file() {
                let sum = crc32c::crc32c(&fs::read(&path).unwrap());
                text += &format!(" {} {sum:x}", found.len());
                first.entry(found.ino()).or_insert_with(Vec::new).push(name.clone());
            } else {
                text += &format!(" {:x}", found.rdev());
            }
            text += &format!(" {:?}", attributes(&path).unwrap());
            all.insert(name, text);
        }
    }
    let names = first.into_values().filter(|names| names.len() > 1).map(|mut names| {
        names.sort();
        format!("{names:?}")
    });
    let mut names: Vec<_> = names.collect();
    names.sort();
    all.insert("(one file)".to_owned(), names.join(" "));
    all
}

pub(crate) fn assert_same(before: &BTreeMap<String, String>, after: &BTreeMap<String, String>, what: &str) {
    for (path, text) in before {
        assert_eq!(after.get(path), Some(text), "{path}, {what}");
    }
    let more: Vec<_> = after.keys().filter(|path| !before.contains_key(*path)).collect();
    assert!(more.is_empty(), "{more:?}, {what}");
}

/// What the image has, beside busybox.
pub(crate) fn fill_image(at: &Path) {
    for (path, text) in [
        ("img/kept", "1"),
        ("img/touched", "1"),
        ("img/gone", "1"),
        ("img/changed", "1"),
        ("away/deep/x", "1"),
        ("anew/old", "1"),
    ] {
        fs::create_dir_all(at.join(path).parent().unwrap()).unwrap();
        fs::write(at.join(path), text).unwrap();
    }
    fs::hard_link(at.join("img/kept"), at.join("img/kept-too")).unwrap();
}

/// What its first container does, of which a second layer is made.
pub(crate) fn change_once(at: &Path) {
    fs::remove_dir_all(at.join("away")).unwrap();
    fs::write(at.join("img/second"), "2").unwrap();
    fs::remove_file(at.join("bin/df")).unwrap();
}

/// What the second one does: all that is odd, through the file system that Docker has mounted.
pub(crate) fn change_more(at: &Path) {
    fs::remove_file(at.join("img/gone")).unwrap();
    fs::write(at.join("img/changed"), "22").unwrap();
    fs::set_permissions(at.join("img/second"), fs::Permissions::from_mode(0o4711)).unwrap();
    fs::remove_dir_all(at.join("anew")).unwrap();
    fs::create_dir(at.join("anew")).unwrap();
    fs::write(at.join("anew/new"), "2").unwrap();
    fs::create_dir(at.join("away")).unwrap();
    let odd = at.join("odd");
    fs::create_dir_all(odd.join("a/b")).unwrap();
    fs::write(odd.join("one"), "several names").unwrap();
    fs::hard_link(odd.join("one"), odd.join("a/b/two")).unwrap();
    symlink("../../etc", odd.join("a/link")).unwrap();
    fs::write(odd.join("n".repeat(250)), "long").unwrap();
    fs::write(odd.join(OsStr::from_bytes(b"not-\xff-text")), "x").unwrap();
    fs::write(odd.join(".wh.honest"), "x").unwrap();
    nix::unistd::mkfifo(&odd.join("fifo"), Mode::S_IRUSR).unwrap();
    mknod(&odd.join("null"), SFlag::S_IFCHR, Mode::S_IRUSR, makedev(1, 3)).unwrap();
    drop(std::os::unix::net::UnixListener::bind(odd.join("socket")).unwrap());
    let sparse = fs::File::create(odd.join("sparse")).unwrap();
    sparse.set_len(SPARSE).unwrap();
    sparse.write_all_at(b"middle", SPARSE / 2).unwrap();
    let file = odd.join("attributes");
    fs::write(&file, "x").unwrap();
    std::os::unix::fs::chown(&file, Some(12), Some(3_000_000)).unwrap();
    let capability = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let acl = acl();
    for (key, value) in [
        ("user.mine", &b"1"[..]),
        ("trusted.root", &[0, 255]),
        ("security.capability", &capability),
        ("system.posix_acl_access", &acl),
    ] {
        xattr::set(&file, key, value).unwrap();
    }
    xattr::set(odd.join("a"), "system.posix_acl_default", &acl).unwrap();
    for number in 0..200 {
        fs::write(odd.join(format!("a/b/{number}")), number.to_string()).unwrap();
    }
    for (path, time) in [("odd/one", "@-86400.5"), ("odd/attributes", "@1000000000.123456789"), ("odd/a", "@0")] {
        Cmd::new("touch").args(["-d", time]).arg(at.join(path)).run().checked().unwrap();
    }
}

/// An ACL, as the kernel takes it: for the owner, a user, a group, the mask and others.
pub(crate) fn acl() -> Vec<u8> {
    let mut acl = 2_u32.to_le_bytes().to_vec();
    for (tag, may, id) in [(1_u16, 6_u16, u32::MAX), (2, 4, 5), (4, 4, u32::MAX), (16, 4, u32::MAX), (32, 0, u32::MAX)]
    {
        acl.extend([&tag.to_le_bytes()[..], &may.to_le_bytes(), &id.to_le_bytes()].concat());
    }
    acl
}

/// Runs `from | to` and returns the standard errors.
fn pipe(from: &mut Command, to: &mut Command) -> String {
    let mut source = from.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let sink = to.stdin(source.stdout.take().unwrap()).stderr(Stdio::piped()).output().unwrap();
    let source = source.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&[source.stderr, sink.stderr].concat()).into_owned();
    assert!(source.status.success() && sink.status.success(), "{said}");
    said
}

pub(crate) fn extract(from: &mut Command, to: &Path) -> String {
    fs::create_dir_all(to).unwrap();
    let options = ["--warning=no-timestamp", "--xattrs", "--xattrs-include=*", "--acls", "-xpf", "-", "-C"];
    pipe(from, Command::new("tar").args(options).arg(to))
}

fn dmpool(root: &Path) -> Command {
    let mut command = Command::new("dmpool");
    command.arg("--root").arg(root);
    command
}

pub(crate) fn rescue(root: &Path, args: &[&str]) -> Command {
    let mut command = dmpool(root);
    command.arg("rescue").args(args);
    command
}

pub(crate) fn said(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    String::from_utf8(output.stdout).unwrap()
}

pub(crate) fn lines(text: &str) -> Vec<&str> {
    let mut lines: Vec<_> = text.lines().collect();
    lines.sort_unstable();
    lines
}

/// Where Docker has a running container's files.
pub(crate) fn mounted(docker: &Docker, container: &str) -> PathBuf {
    let pid = docker.cmd(["inspect", "-f", "{{.State.Pid}}", container]).run().checked().unwrap();
    PathBuf::from(format!("/proc/{}/root", pid.stdout.trim()))
}

#[test]
fn files_of_a_stopped_docker_are_what_they_were() {
    let bench = Bench::new();
    let disk = Mounted::format(Kind::Xfs, &boot::scratch_disks()[0], &bench.sweep.path("rescue")).unwrap();
    let driver = "overlay2";
    let root = disk.dir().join(driver);
    let config = Config { driver: driver.to_owned(), ..Config::new(&root) };
    let mut docker = Docker::start(config).unwrap();
    docker.busybox(&[]).unwrap();
    let sleep = ["sleep", "100000"];
    docker.run_detached(&["--name", "base"], &sleep).unwrap();
    fill_image(&mounted(&docker, "base"));
    docker.cmd(["commit", "--pause=false", "base", "image:1"]).run().checked().unwrap();
    docker.cmd(["run", "-d", "--network", "none", "--name", "first", "image:1"]).args(sleep).run().checked().unwrap();
    change_once(&mounted(&docker, "first"));
    docker.cmd(["commit", "--pause=false", "first", "image:2"]).run().checked().unwrap();
    let options = ["run", "-d", "--network", "none", "--name", "odd", "-v", "named:/volume", "image:2"];
    docker.cmd(options).args(sleep).run().checked().unwrap();
    let at = mounted(&docker, "odd");
    change_more(&at);
    fs::write(at.join("volume/row"), "in a volume").unwrap();
    // Copied up, and what it was: no change, also to Docker, though overlayfs could tell.
    let touched = at.join("img/touched");
    fs::set_permissions(&touched, touched.metadata().unwrap().permissions()).unwrap();
    let (odd, image) = (picture(&at.join("odd")), picture(&at.join("img")));
    let diff = docker.cmd(["diff", "odd"]).run().checked().unwrap().stdout;
    let tar = disk.dir().join(format!("{driver}-docker.tar"));
    docker.cmd(["export", "odd", "-o"]).arg(&tar).run().checked().unwrap();
    let listed = Cmd::new("tar").arg("-tf").arg(&tar).run().checked().unwrap().stdout;
    let ids = image_ids(&docker);
    docker.stop().unwrap();
    fs::remove_file(&tar).unwrap();

    let before = picture(&root);
    let out = disk.dir().join(format!("{driver}-out"));
    let notes = extract(&mut rescue(&root, &["export", "odd"]), &out.join("export"));
    assert_eq!(notes, "note: `/odd/socket` is a socket and left out\n", "{driver}");
    assert_same(&odd, &picture(&out.join("export/odd")), driver);
    assert_same(&image, &picture(&out.join("export/img")), driver);
    let ours = out.join("export.tar");
    said(&mut rescue(&root, &["export", "odd", "-o", ours.to_str().unwrap()]));
    let exported = Cmd::new("tar").arg("-tf").arg(&ours).run().checked().unwrap().stdout;
    assert_eq!(exported, listed, "{driver}");
    assert!(fs::metadata(&ours).unwrap().len() < SPARSE / 2, "{driver}: holes are written out");

    assert_eq!(lines(&said(&mut rescue(&root, &["diff", "odd"]))), escaped(&lines(&diff)), "{driver}");
    said(&mut rescue(&root, &["cp", "odd:/odd", out.to_str().unwrap()]));
    assert_same(&odd, &picture(&out.join("odd")), driver);
    said(&mut rescue(&root, &["cp", "odd:/volume/.", out.join("volume").to_str().unwrap()]));
    assert_eq!(fs::read_to_string(out.join("volume/row")).unwrap(), "in a volume");
    extract(&mut rescue(&root, &["cp", "odd:/odd/.", "-"]), &out.join("stream"));
    assert_same(&odd, &picture(&out.join("stream")), driver);
    let layer = out.join("layer.tar");
    let mut changes = rescue(&root, &["export", "--changes-only", "odd", "-o", layer.to_str().unwrap()]);
    let output = changes.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(5), "{stderr}");
    assert!(stderr.contains("`/odd/.wh.honest`: it is left out: in a layer its name would mean"), "{stderr}");
    let names = Cmd::new("tar").arg("-tf").arg(&layer).run().checked().unwrap().stdout;
    for name in ["img/.wh.gone", "img/changed", "anew/new", "odd/a/b/two", "away/"] {
        assert!(names.lines().any(|line| line == name), "{driver}: {name} in {names}");
    }
    let images = out.join("images.tar");
    said(&mut rescue(&root, &["save", "image", "dmpool-test-busybox:1", "-o", images.to_str().unwrap()]));
    let volumes = out.join("volumes.tar");
    said(dmpool(&root).args(["volumes", "save", "named", "-o"]).arg(&volumes));
    assert_same(&before, &picture(&root), &format!("the root of {driver}"));
    images_are_loaded(&disk.dir().join("fresh"), &images, &ids, &volumes);

    // A file system of its own below the root is read, and not the folder under it.
    let inner = Mounted::tmpfs(&root.join("volumes/named"), 1 << 20).unwrap();
    fs::create_dir(inner.dir().join("_data")).unwrap();
    let link = inner.dir().join("_data/link");
    symlink("row", &link).unwrap();
    said(&mut rescue(&root, &["cp", "odd:/volume/.", out.join("inner").to_str().unwrap()]));
    said(dmpool(&root).args(["volumes", "list"]));
    assert_eq!(fs::read_link(out.join("inner/link")).unwrap(), Path::new("row"));
    inner.unmount().unwrap();

    // Docker reads what was written.
    docker.up().unwrap();
    docker.cmd(["import"]).arg(&ours).arg("again:1").run().checked().unwrap();
    docker.cmd(["run", "-d", "--network", "none", "--name", "again", "again:1"]).args(sleep).run().checked().unwrap();
    let again = picture(&mounted(&docker, "again").join("img"));
    assert_same(&image, &again, &format!("imported again by Docker's {driver}"));
    let size = fs::metadata(mounted(&docker, "again").join("odd/sparse")).unwrap().len();
    assert_eq!(size, SPARSE);
    docker.cmd(["rm", "-f", "again", "odd", "first", "base"]).run().checked().unwrap();
    drop(docker);
    fs::remove_dir_all(&out).unwrap();
}

/// Names and whole ids, sorted.
fn image_ids(docker: &Docker) -> Vec<String> {
    let format = "{{.Repository}}:{{.Tag}} {{.ID}}";
    let listed = docker.cmd(["images", "--no-trunc", "--format", format]).run().checked().unwrap().stdout;
    lines(&listed).into_iter().map(str::to_owned).collect()
}

/// A Docker that has nothing takes what was saved, calls it the same, and runs it; volumes are restored while it is up, and
/// while it is stopped.
fn images_are_loaded(root: &Path, archive: &Path, ids: &[String], volumes: &Path) {
    let mut fresh = Docker::start(Config { driver: "overlay2".to_owned(), ..Config::new(root) }).unwrap();
    fresh.cmd(["load", "-i"]).arg(archive).run().checked().unwrap();
    assert_eq!(image_ids(&fresh), ids);
    let list = ["run", "--rm", "--network", "none", "image:2", "ls", "/img", "/bin/df", "/away"];
    let ran = fresh.cmd(list).run();
    assert!(ran.stdout.contains("second") && ran.stderr.matches("No such file").count() == 2, "{ran}");
    let read = ["run", "--rm", "--network", "none", "-v", "named:/v", "image:2", "cat", "/v/row"];
    let told = said(dmpool(root).args(["volumes", "restore"]).arg(volumes));
    assert_eq!(told, "restored volume `named`: 2 entries\n");
    assert_eq!(fresh.cmd(read).run().checked().unwrap().stdout, "in a volume");
    let again = dmpool(root).args(["volumes", "restore"]).arg(volumes).output().unwrap();
    assert_eq!(again.status.code(), Some(3), "{again:?}");
    fresh.cmd(["volume", "rm", "named"]).run().checked().unwrap();
    fresh.stop().unwrap();
    let told = said(dmpool(root).args(["volumes", "restore", "-"]).stdin(fs::File::open(volumes).unwrap()));
    assert_eq!(told, "restored volume `named`: 2 entries\n");
    fresh.up().unwrap();
    let listed = fresh.cmd(["volume", "ls", "-q"]).run().checked().unwrap().stdout;
    assert_eq!(listed, "named\n");
    assert_eq!(fresh.cmd(read).run().checked().unwrap().stdout, "in a volume");
}

/// Docker prints names as they are.
pub(crate) fn escaped(lines: &[&str]) -> Vec<String> {
    lines.iter().map(|line| line.replace('\u{fffd}', "\\xff")).collect()
}
