use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use nix::unistd::geteuid;
use serde_json::json;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use super::*;
use crate::engine::docker_objects::read;
use crate::fuzzing::objects::{NOW, root};
use crate::kernel::folder::{FileKind, Status, Time};
use crate::ops::contents::archive::{Member, Remark, Writer, made};
use crate::process;
use crate::report::rescue::volumes;

#[test]
fn volumes_are_told_with_what_they_hold_and_who_used_them() {
    let sandbox = root("20.10");
    for name in 0..12 {
        fs::write(sandbox.root().join(format!("volumes/alone/_data/f{name:02}")), "").unwrap();
    }
    let objects = read(&sandbox.root()).unwrap();
    let text = volumes::text(&objects, &list::list(&objects, false), NOW);
    let row = |name: &str| {
        text.lines().find(|line| line.starts_with(name)).unwrap().split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(row("alone"), "alone local named - - nobody f00 f01 f02 f03 f04 f05 f06 f07 f08 f09 and 3 more");
    assert_eq!(row("named"), "named local named - - side:/data (ro), web:/data file");
    assert!(row("far").contains("elsewhere: :/export, of type nfs"));
    let rows = list::list(&objects, true);
    let json: serde_json::Value = serde_json::from_str(&volumes::json(&objects, &rows)).unwrap();
    let alone = json["volumes"].as_array().unwrap().iter().find(|volume| volume["name"] == "alone").unwrap();
    assert_eq!(
        (&alone["dangling"], &alone["more_names"], &alone["size_is_whole"]),
        (&true.into(), &3.into(), &true.into())
    );
    assert!(alone["changed"].is_string());
    assert_eq!(volumes::problems(&objects, &rows), 0);
}

/// A root with the volumes `db` and `empty`.
fn with_volumes() -> TempDir {
    let temp = tempfile::tempdir().unwrap();
    let data = temp.path().join("volumes/db/_data");
    fs::create_dir_all(data.join("deep/er")).unwrap();
    fs::create_dir_all(temp.path().join("volumes/empty/_data")).unwrap();
    fs::write(data.join("deep/er/row"), "x".repeat(5000)).unwrap();
    fs::hard_link(data.join("deep/er/row"), data.join("zz")).unwrap();
    fs::write(data.join(OsStr::from_bytes(b"no\xfftext")), "").unwrap();
    fs::write(data.join("n".repeat(250)), "long").unwrap();
    symlink("/etc/passwd", data.join("link")).unwrap();
    nix::unistd::mkfifo(&data.join("fifo"), nix::sys::stat::Mode::S_IRUSR).unwrap();
    let sparse = fs::File::create(data.join("sparse")).unwrap();
    sparse.write_all_at(b"middle", 1 << 20).unwrap();
    sparse.set_len(8 << 20).unwrap();
    xattr::set(data.join("zz"), "user.a=%b", b"1\n\0").unwrap();
    std::os::unix::fs::chown(data.join("zz"), Some(12), Some(3_000_000)).unwrap();
    fs::set_permissions(data.join("zz"), fs::Permissions::from_mode(0o4711)).unwrap();
    fs::set_permissions(&data, fs::Permissions::from_mode(0o1777)).unwrap();
    for (path, time) in [("zz", "@-86400.5"), ("deep", "@1000000000.123456789"), ("link", "@5"), ("", "@7")] {
        process::run("touch", &[OsStr::new("-hd"), OsStr::new(time), data.join(path).as_os_str()]).unwrap();
    }
    temp
}

#[test]
fn a_path_that_no_call_takes_is_not_saved() {
    let temp = with_volumes();
    let name = "d".repeat(250);
    let mut folder = std::fs::File::open(temp.path().join("volumes/db/_data")).unwrap();
    for _ in 0..17 {
        nix::sys::stat::mkdirat(&folder, name.as_str(), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let flags = nix::fcntl::OFlag::O_DIRECTORY;
        folder = nix::fcntl::openat(&folder, name.as_str(), flags, nix::sys::stat::Mode::empty()).unwrap().into();
    }
    let objects = read(temp.path()).unwrap();
    let save = save::save(&objects, &["db".to_owned()]).unwrap();
    let mut out = Writer::new(Vec::new());
    let refused = save.write(&mut out, &mut |_| {}).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::InvalidInput, "{refused}");
}

fn save_all(root: &Path, names: &[&str]) -> Result<Vec<u8>, String> {
    let objects = read(root).unwrap();
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let save = save::save(&objects, &names).map_err(|failure| failure.what)?;
    let mut bytes = Vec::new();
    let mut out = Writer::new(&mut bytes);
    save.write(&mut out, &mut |remark| panic!("{remark}")).unwrap();
    out.finish().unwrap();
    Ok(bytes)
}

fn restore_from(bytes: &[u8], root: &Path) -> (Result<Vec<Restored>, String>, Vec<Remark>) {
    fs::create_dir_all(root.join("volumes")).unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), bytes).unwrap();
    let mut told = Vec::new();
    let objects = into(root).unwrap();
    let restored = restore(&objects, file.path(), &mut |remark| told.push(remark)).map_err(|failure| failure.what);
    let left: Vec<_> = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().starts_with('.')), "{left:?}");
    (restored, told)
}

/// What there is to know of everything below a directory, as GNU find says it.
fn picture(at: &Path) -> String {
    let format = "%P %y %m %U:%G %s %T@ %l %n %b\n";
    let words = [at.as_os_str(), OsStr::new("-printf"), OsStr::new(format)];
    let listed = String::from_utf8_lossy(&process::run("find", &words).unwrap()).into_owned();
    let mut lines: Vec<_> = listed.lines().filter(|line| !line.contains(" d ")).collect();
    lines.sort_unstable();
    let modes = process::run(
        "find",
        &[at.as_os_str(), OsStr::new("-type"), OsStr::new("d"), OsStr::new("-printf"), OsStr::new("%P %m %T@\n")],
    );
    format!("{}\n{}", lines.join("\n"), String::from_utf8_lossy(&modes.unwrap()))
}

#[test]
fn volumes_come_back_as_they_were() {
    if !geteuid().is_root() {
        return;
    }
    let (from, to) = (with_volumes(), tempfile::tempdir().unwrap());
    let archive = save_all(from.path(), &["db", "empty", "db"]).unwrap();
    assert_eq!(archive, save_all(from.path(), &["db", "empty"]).unwrap());
    assert!(archive.len() < 100_000, "holes are written out: {}", archive.len());
    let (restored, told) = restore_from(&archive, to.path());
    let restored: Vec<_> = restored.unwrap().into_iter().map(|volume| (volume.name, volume.entries)).collect();
    assert_eq!((restored, told), (vec![("db".to_owned(), 10), ("empty".to_owned(), 1)], vec![]));
    let data = |root: &TempDir| root.path().join("volumes/db/_data");
    assert_eq!(picture(&data(&to)), picture(&data(&from)));
    assert_eq!(xattr::get(data(&to).join("zz"), "user.a=%b").unwrap().unwrap(), b"1\n\0");
    assert_eq!(fs::read(data(&to).join("sparse")).unwrap(), fs::read(data(&from).join("sparse")).unwrap());
    let inode = |name: &str| fs::metadata(data(&to).join(name)).unwrap().ino();
    assert_eq!(inode("zz"), inode("deep/er/row"));
    // What is there is never written to.
    fs::write(data(&to).join("mine"), "").unwrap();
    let before = picture(&to.path().join("volumes"));
    let why = restore_from(&archive, to.path()).0.unwrap_err();
    assert_eq!(why, "cannot restore volume `db`: there is one of that name");
    assert_eq!(picture(&to.path().join("volumes")), before);
}

#[test]
fn a_volume_whose_files_are_elsewhere_is_refused_by_name() {
    let temp = with_volumes();
    let far = temp.path().join("volumes/far");
    fs::create_dir_all(far.join("_data")).unwrap();
    let options = json!({"MountType": "nfs", "MountOpts": "addr=10.0.0.1", "MountDevice": ":/x"});
    fs::write(far.join("opts.json"), options.to_string()).unwrap();
    symlink("/srv", temp.path().join("volumes/linked")).unwrap();
    let why = save_all(temp.path(), &["db", "far"]).unwrap_err();
    assert!(why.starts_with("cannot save volume `far`: its files are not in this root: :/x, of type nfs"), "{why}");
    let why = save_all(temp.path(), &["linked"]).unwrap_err();
    assert!(why.contains("volume `linked`: its files are not in this root: it is a symbolic link"), "{why}");
    // Cut by a power failure: nothing says that these are its files.
    fs::write(far.join("opts.json"), "").unwrap();
    let why = save_all(temp.path(), &["far"]).unwrap_err();
    assert!(why.starts_with("cannot save volume `far`: whether its files are in this root is not known: "), "{why}");
    assert!(why.contains("far/opts.json"), "{why}");
    assert_eq!(save_all(temp.path(), &["none"]).unwrap_err(), "cannot save volume `none`: there is none of that name");
}

/// An archive of the volume `v` with right sums, and entries that somebody made up.
fn made_up(manifest: &serde_json::Value, entries: &[(&str, FileKind, &str)]) -> Vec<u8> {
    fn member<'a>(path: &'a str, status: &'a Status) -> Member<'a> {
        Member { path: Path::new(path), status, attributes: &[] }
    }
    let status = |kind| -> Status { made(kind, 0o700, Time { seconds: 0, nanoseconds: 0 }) };
    let file = status(FileKind::File);
    let mut part = Vec::new();
    let mut out = Writer::new(&mut part);
    for (path, kind, target) in entries {
        let of_entry = status(*kind);
        match kind {
            FileKind::File if !target.is_empty() => {
                out.hard_link(member(path, &of_entry), Path::new(target)).unwrap();
            }
            FileKind::File => out.bytes(member(path, &of_entry), b"content").unwrap(),
            _ => out.other(member(path, &of_entry), Some(Path::new(target))).unwrap(),
        }
    }
    out.inner().unwrap();
    drop(out);
    let manifest = manifest.to_string();
    let hex = |bytes: &[u8]| format!("{:x}", Sha256::digest(bytes));
    let sums = json!({"format": 1, "manifest": hex(manifest.as_bytes()), "volumes": {"v": hex(&part)}}).to_string();
    let mut bytes = Vec::new();
    let mut out = Writer::new(&mut bytes);
    out.bytes(member("dmpool-volumes.json", &file), manifest.as_bytes()).unwrap();
    std::io::Write::write_all(*out.inner().as_mut().unwrap(), &part).unwrap();
    out.bytes(member("dmpool-volumes-sums.json", &file), sums.as_bytes()).unwrap();
    out.finish().unwrap();
    bytes
}

#[test]
fn a_hostile_archive_leads_nowhere_and_leaves_nothing() {
    if !geteuid().is_root() {
        return;
    }
    let named = |name: &str| json!({"format": 1, "volumes": [{"name": name, "driver": "local", "bytes": 0}]});
    let top = ("volumes/v/_data", FileKind::Directory, "");
    let good = made_up(&named("v"), &[top, ("volumes/v/_data/a", FileKind::File, "")]);
    let to = tempfile::tempdir().unwrap();
    assert_eq!(restore_from(&good, to.path()).0.unwrap()[0].entries, 2);
    let link = ("volumes/v/_data/l", FileKind::Link, "/etc");
    for entries in [
        vec![top, ("volumes/v/_data/../../w", FileKind::File, "")],
        vec![top, ("/etc/dmpool-test", FileKind::File, "")],
        vec![top, ("volumes/w/_data", FileKind::Directory, "")],
        vec![top, ("volumes/v/_data/h", FileKind::File, "volumes/w/secret")],
        vec![top, link, ("volumes/v/_data/l/dmpool-test", FileKind::File, "")],
        vec![top, link, ("volumes/v/_data/l", FileKind::Directory, "")],
        vec![top, ("volumes/v/_data/a", FileKind::File, ""), ("volumes/v/_data/a", FileKind::File, "")],
        vec![("volumes/v/_data", FileKind::File, "")],
        vec![("volumes/v", FileKind::Directory, "")],
        vec![],
    ] {
        let to = tempfile::tempdir().unwrap();
        let why = restore_from(&made_up(&named("v"), &entries), to.path()).0.unwrap_err();
        assert!(why.starts_with("cannot restore"), "{why}");
        assert_eq!(fs::read_dir(to.path().join("volumes")).unwrap().count(), 0, "{entries:?}");
    }
    for manifest in [
        named("../x"),
        named(""),
        named(".hidden"),
        json!({"format": 2, "volumes": []}),
        json!({"format": 1, "volumes": [{"name": "v", "driver": "rexray", "bytes": 0}]}),
        json!({"format": 1, "volumes": [{"name": "v", "driver": "local", "bytes": 0, "options": {"type": "nfs"}}]}),
    ] {
        let to = tempfile::tempdir().unwrap();
        restore_from(&made_up(&manifest, &[top]), to.path()).0.unwrap_err();
        assert_eq!(fs::read_dir(to.path().join("volumes")).unwrap().count(), 0, "{manifest}");
    }
    // Any byte but those after the end.
    for at in (0..good.len() - 1024).step_by(97) {
        let mut bytes = good.clone();
        bytes[at] ^= 0x10;
        let to = tempfile::tempdir().unwrap();
        let (restored, _) = restore_from(&bytes, to.path());
        let there = fs::read_dir(to.path().join("volumes")).unwrap().count();
        // Padding behind what is no volume's belongs to nobody.
        assert_eq!(there, usize::from(restored.is_ok()), "{at}");
    }
    restore_from(&good[..good.len() - 2048], tempfile::tempdir().unwrap().path()).0.unwrap_err();
}
