#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, symlink};
use std::path::Path;

use nix::sys::stat::{Mode, SFlag, mknod};
use proptest::prelude::*;

use super::*;
use crate::kernel::folder::{FileKind, Folder, Status, Time};
use crate::ops::contents::tree::{Entry, Follow, Layer, Links, Marks, Tree, Walk};
use crate::process;

fn tree(path: &Path) -> Tree {
    Tree::new(vec![Layer::new(Folder::open(path).unwrap(), Marks::None).unwrap()])
}

/// Everything there is to know of the entries below a path.
fn picture(path: &Path) -> BTreeMap<String, String> {
    let tree = tree(path);
    let mut links = Links::default();
    let mut all = BTreeMap::new();
    for entry in Walk::below(&tree, Path::new(""), &tree.root_node().unwrap()) {
        let Entry { path, node } = entry.unwrap();
        let Status { kind, mode, uid, gid, modified, device, links: count, .. } = node.status;
        let first = links.met(&path, &node.status);
        let mut text = format!("{kind:?} {mode:o} {uid}:{gid} {modified:?} {first:?}");
        match kind {
            FileKind::File => {
                let content = node.content().unwrap();
                let mut sum = crc32c::crc32c(b"");
                let add = &mut |at: u64, bytes: &[u8]| {
                    // Blocks that are all zeros may have become holes, and holes zeros.
                    for (number, block) in bytes.chunks(512).enumerate().filter(|(_, b)| b.iter().any(|x| *x != 0)) {
                        sum = crc32c::crc32c_append(sum, &(at + number as u64 * 512).to_le_bytes());
                        sum = crc32c::crc32c_append(sum, block);
                    }
                    Ok(())
                };
                content.read(add).unwrap();
                let sparse = node.status.allocated < content.size() / 2;
                text += &format!(" {} {sum:x} {count} {sparse}", content.size());
            }
            FileKind::Link => text += &format!(" {:?}", node.target().unwrap()),
            FileKind::Block | FileKind::Character => text += &format!(" {device}"),
            FileKind::Directory | FileKind::Fifo | FileKind::Socket => {}
        }
        text += &format!(" {:?}", node.attributes(&tree).unwrap());
        all.insert(shown(&path), text);
    }
    all
}

fn packed(path: &Path, told: &mut Vec<Remark>) -> Vec<u8> {
    let tree = tree(path);
    let mut bytes = Vec::new();
    let mut writer = Writer::new(&mut bytes);
    let root = tree.resolve(Path::new("/"), Follow::Last).unwrap();
    pack(&tree, &root, Path::new(""), &mut writer, &mut |remark| told.push(remark)).unwrap();
    writer.finish().unwrap();
    bytes
}

/// GNU tar gives everything back that is there.
fn extract(archive: &[u8], dir: &Path) {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    std::io::Write::write_all(&mut file, archive).unwrap();
    let options = ["--xattrs", "--xattrs-include=*", "--acls", "--same-owner", "-xpf"].map(OsStr::new);
    let rest = [file.path().as_os_str(), OsStr::new("-C"), dir.as_os_str()];
    process::run("tar", &[options.as_slice(), &rest].concat()).unwrap();
}

fn set_time(path: &Path, seconds: i64, nanoseconds: u32) {
    let folder = Folder::open(path.parent().unwrap()).unwrap();
    folder.set_modified(path.file_name().unwrap(), Time { seconds, nanoseconds }).unwrap();
}

/// `user::rwx,user:5:r--,group::r--,mask::r--,other::---`
fn acl() -> Vec<u8> {
    let mut bytes = 2_u32.to_le_bytes().to_vec();
    for (tag, may, id) in
        [(1_u16, 7_u16, u32::MAX), (2, 4, 5), (4, 4, u32::MAX), (0x10, 4, u32::MAX), (0x20, 0, u32::MAX)]
    {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(may.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    bytes
}

const CAPABILITY: &[u8] = &[1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// A tree of all that is odd. Needs root, and a file system with attributes and ACLs.
fn odd_tree(root: &Path) {
    let at = |name: &str| root.join(name);
    let long = "n".repeat(250);
    fs::create_dir_all(at("a/b/c")).unwrap();
    fs::create_dir_all(at(&format!("{long}/{long}"))).unwrap();
    fs::write(at(&format!("{long}/{long}/file")), "deep").unwrap();
    fs::write(root.join(OsStr::from_bytes(b"not-\xff\xfe-text")), "x").unwrap();
    fs::write(root.join(OsStr::from_bytes(&[b"long-".as_slice(), &[0xe4; 200]].concat())), "x").unwrap();
    fs::write(at("new\nline\u{1b}[2J"), "x").unwrap();
    fs::write(at(".wh.honest"), "not a deletion").unwrap();
    fs::write(at("empty"), "").unwrap();
    fs::write(at("a/one"), "several names").unwrap();
    fs::hard_link(at("a/one"), at("a/b/two")).unwrap();
    fs::hard_link(at("a/one"), at("three")).unwrap();
    symlink("../a/one", at("a/link")).unwrap();
    symlink(format!("{long}/{long}/file"), at("long-link")).unwrap();
    fs::hard_link(at("a/link"), at("a/link-too")).unwrap();
    symlink("loop", at("loop")).unwrap();
    let sparse = fs::File::create(at("sparse")).unwrap();
    sparse.set_len(1 << 40).unwrap();
    for place in [0, 5 << 30, (1 << 40) - 4096] {
        sparse.write_all_at(&[7; 4096], place).unwrap();
    }
    fs::File::create(at("hole")).unwrap().set_len(10 << 20).unwrap();
    let tail = fs::File::create(at("tail")).unwrap();
    tail.write_all_at(b"x", 1 << 20).unwrap();
    tail.set_len(9 << 30).unwrap();
    fs::write(at("setuid"), "x").unwrap();
    fs::write(at("capable"), "x").unwrap();
    fs::write(at("acl"), "x").unwrap();
    nix::unistd::mkfifo(&at("fifo"), Mode::S_IRUSR).unwrap();
    let node = |name: &str, kind: SFlag, device| mknod(&at(name), kind, Mode::S_IRUSR, device).unwrap();
    node("null", SFlag::S_IFCHR, nix::sys::stat::makedev(1, 3));
    node("disk", SFlag::S_IFBLK, nix::sys::stat::makedev(259, 1_000_000));
    node("whiteout", SFlag::S_IFCHR, 0);
    let folder = Folder::open(root).unwrap();
    let name = OsStr::new;
    folder.set_owner(name("setuid"), 12, 3_000_000_000).unwrap();
    folder.set_mode(name("setuid"), 0o6755).unwrap();
    folder.set_mode(name("a"), 0o1777).unwrap();
    folder.set_owner(name("long-link"), 7, 8).unwrap();
    let set = |file: &str, key: &str, value: &[u8]| folder.set_attribute(name(file), name(key), value).unwrap();
    set("capable", "security.capability", CAPABILITY);
    set("capable", "trusted.md5", &[0, 1, 2, 255, b'\n']);
    set("capable", "user.with spaces", b"");
    set("a", "user.of-a-directory", b"yes");
    set("long-link", "trusted.of-a-link", b"yes");
    set("acl", "system.posix_acl_access", &acl());
    set("a", "system.posix_acl_default", &acl());
    for (file, seconds, nanoseconds) in [
        ("empty", -1, 500_000_000),
        ("setuid", -86_400 * 365, 0),
        ("capable", 1, 1),
        ("acl", 9_000_000_000, 0),
        ("a/b/c", 1_000_000_000, 123_456_789),
        ("long-link", 2_000, 5),
        ("fifo", 0, 0),
        ("a/b", 77, 7),
        ("a", 66, 6),
    ] {
        set_time(&at(file), seconds, nanoseconds);
    }
}

#[test]
fn all_that_is_odd_comes_out_of_gnu_tar_as_it_was() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    odd_tree(from.path());
    let socket = std::os::unix::net::UnixListener::bind(from.path().join("socket")).unwrap();
    let mut told = Vec::new();
    let bytes = packed(from.path(), &mut told);
    assert_eq!(told, [Remark::Socket("socket".into())]);
    assert!(bytes.len() < 1 << 20, "{}", bytes.len());
    extract(&bytes, to.path());
    fs::remove_file(from.path().join("socket")).unwrap();
    drop(socket);
    let (before, after) = (picture(from.path()), picture(to.path()));
    for (path, text) in &before {
        assert_eq!(after.get(path), Some(text), "{path}");
    }
    assert_eq!(after.len(), before.len());
    // The same in gives the same out.
    assert_eq!(packed(from.path(), &mut Vec::new()), bytes);
}

#[test]
fn all_that_is_odd_is_planted_as_it_was() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    odd_tree(from.path());
    let _socket = std::os::unix::net::UnixListener::bind(from.path().join("socket")).unwrap();
    let folder = Folder::open(to.path().parent().unwrap()).unwrap();
    // What the place itself gives to new files does not stay on them.
    folder.set_attribute(to.path().file_name().unwrap(), OsStr::new("system.posix_acl_default"), &acl()).unwrap();
    let tree = tree(from.path());
    let root = tree.resolve(Path::new("/"), Follow::Last).unwrap();
    for _ in 0..2 {
        let source = Source { is_directory: true, name: None };
        let mut told = Vec::new();
        let made = plant(&tree, &root, Destination::of(to.path(), source).unwrap(), &mut |remark| told.push(remark));
        assert_eq!(told, []);
        let (before, after) = (picture(from.path()), picture(to.path()));
        for (path, text) in &before {
            assert_eq!(after.get(path), Some(text), "{path}");
        }
        assert_eq!((after.len(), usize::try_from(made.unwrap()).unwrap()), (before.len(), before.len()));
    }
}

#[test]
fn what_is_in_the_way_stays_and_is_named() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::create_dir_all(from.path().join("dir/inner")).unwrap();
    fs::write(from.path().join("file"), "new").unwrap();
    fs::write(from.path().join("replaced"), "new").unwrap();
    fs::write(to.path().join("dir"), "a file").unwrap();
    fs::create_dir(to.path().join("file")).unwrap();
    fs::write(to.path().join("elsewhere"), "mine").unwrap();
    symlink("elsewhere", to.path().join("replaced")).unwrap();
    let tree = tree(from.path());
    let root = tree.resolve(Path::new("/"), Follow::Last).unwrap();
    let mut told = Vec::new();
    let to_there = Destination::of(to.path(), Source { is_directory: true, name: None }).unwrap();
    assert_eq!(plant(&tree, &root, to_there, &mut |remark| told.push(remark.to_string())).unwrap(), 1);
    assert_eq!(
        told,
        [
            "`/dir`: it is left out with all in it: a file of that name is in its place",
            "`/file`: it is left out: a directory of that name is in its place",
        ]
    );
    assert_eq!(fs::read_to_string(to.path().join("elsewhere")).unwrap(), "mine");
    assert_eq!(fs::read_to_string(to.path().join("replaced")).unwrap(), "new");
    assert!(!to.path().join("replaced").is_symlink());
}

#[test]
fn destinations_are_those_of_docker_cp() {
    let temp = tempfile::tempdir().unwrap();
    fs::create_dir(temp.path().join("dir")).unwrap();
    fs::write(temp.path().join("file"), "").unwrap();
    symlink("file", temp.path().join("link")).unwrap();
    symlink("nowhere", temp.path().join("dangling")).unwrap();
    let file = Source { is_directory: false, name: Some(OsStr::new("src")) };
    let dir = Source { is_directory: true, name: Some(OsStr::new("src")) };
    let contents = Source { is_directory: true, name: None };
    let real = temp.path().canonicalize().unwrap();
    let to = |path: &str, source| {
        let found = Destination::of(&temp.path().join(path), source);
        found.map(|found| (found.path.strip_prefix(&real).unwrap().to_owned(), found.name)).map_err(|e| e.what)
    };
    let is = |path: &str, name: &str| Ok((path.into(), (!name.is_empty()).then(|| OsString::from(name))));
    assert_eq!(to("dir", file), is("dir", "src"));
    assert_eq!(to("dir/", dir), is("dir", "src"));
    assert_eq!(to("dir", contents), is("dir", ""));
    assert_eq!(to("new", file), is("", "new"));
    assert_eq!(to("new", dir), is("", "new"));
    assert_eq!(to("new/", dir), is("", "new"));
    assert_eq!(to("new/.", contents), is("", "new"));
    assert_eq!(to("file", file), is("", "file"));
    assert_eq!(to("link", file), is("", "file"));
    for (path, source) in
        [("new/", file), ("file", dir), ("file", contents), ("file/", file), ("none/new", file), ("dangling", file)]
    {
        assert!(to(path, source).is_err(), "{path}");
    }
}

#[test]
fn changes_are_those_of_docker_diff() {
    let temp = tempfile::tempdir().unwrap();
    let at = |path: &str| temp.path().join(path);
    for side in ["old", "new"] {
        fs::create_dir_all(at(side).join("etc/deep")).unwrap();
        fs::create_dir_all(at(side).join("same/dir")).unwrap();
        for file in ["etc/deep/touched", "etc/same", "same/dir/x", "moded", "capable", "gone-file"] {
            fs::write(at(side).join(file), "x").unwrap();
            set_time(&at(side).join(file), 1000, 0);
        }
    }
    fs::create_dir_all(at("old/gone-dir/inner")).unwrap();
    fs::create_dir_all(at("old/was-dir/inner")).unwrap();
    fs::write(at("new/was-dir"), "").unwrap();
    fs::write(at("old/was-file"), "").unwrap();
    fs::create_dir_all(at("new/was-file/inner")).unwrap();
    fs::remove_file(at("new/gone-file")).unwrap();
    fs::write(at("new/etc/deep/touched"), "y").unwrap();
    fs::write(at("new/etc/added"), "y").unwrap();
    fs::create_dir_all(at("new/tmp/added")).unwrap();
    // The fraction that an archive has cut off is no change, and the time of a directory is none.
    set_time(&at("new/etc/same"), 1000, 5);
    set_time(&at("new/same/dir"), 5, 5);
    let folder = Folder::open(&at("new")).unwrap();
    folder.set_mode(OsStr::new("moded"), 0o4755).unwrap();
    folder.set_attribute(OsStr::new("capable"), OsStr::new("security.capability"), CAPABILITY).unwrap();
    fs::write(at("new/.wh.odd"), "").unwrap();
    let (old, new) = (tree(&at("old")), tree(&at("new")));
    let told: Vec<String> = changes(&old, &new)
        .map(|change| change.unwrap())
        .map(|change| format!("{} /{}", change.kind.letter(), change.path.display()))
        .collect();
    assert_eq!(
        told,
        [
            "A /.wh.odd",
            "C /capable",
            "C /etc",
            "A /etc/added",
            "C /etc/deep",
            "C /etc/deep/touched",
            "D /gone-dir",
            "D /gone-file",
            "C /moded",
            "A /tmp",
            "A /tmp/added",
            "C /was-dir",
            "C /was-file",
            "A /was-file/inner",
        ]
    );
    let mut bytes = Vec::new();
    let mut writer = Writer::new(&mut bytes);
    let mut said = Vec::new();
    pack_changes(&new, changes(&old, &new), &mut writer, &mut |remark| said.push(remark.to_string())).unwrap();
    writer.finish().unwrap();
    let mut archive = ::tar::Archive::new(bytes.as_slice());
    let names: Vec<String> =
        archive.entries().unwrap().map(|e| e.unwrap().path().unwrap().display().to_string()).collect();
    assert_eq!(
        names,
        [
            "capable",
            "etc/",
            "etc/added",
            "etc/deep/",
            "etc/deep/touched",
            ".wh.gone-dir",
            ".wh.gone-file",
            "moded",
            "tmp/",
            "tmp/added/",
            "was-dir",
            "was-file/",
            "was-file/inner/",
        ]
    );
    assert_eq!(said, ["`/.wh.odd`: it is left out: in a layer its name would mean that another file is deleted"]);
}

#[test]
fn a_file_is_there_when_it_is_whole() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("out.tar");
    fs::write(&path, "before").unwrap();
    let mut output = Output::begin(&path).unwrap();
    std::io::Write::write_all(&mut output, b"half").unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "before");
    let failure = output.broken(&std::io::Error::from_raw_os_error(libc::ENOSPC));
    assert!(failure.source.unwrap().to_string().starts_with("ENOSPC (No space left on device) from write"));
    assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 1);
    let mut output = Output::begin(&path).unwrap();
    std::io::Write::write_all(&mut output, b"whole").unwrap();
    output.finish().unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "whole");
    assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 1);
}

#[test]
fn an_acl_is_written_as_others_read_it() {
    let text = |bytes: &[u8]| Acl::parse(bytes).map(|acl| acl.to_string());
    assert_eq!(text(&acl()).unwrap(), "user::rwx,user:5:r--,group::r--,mask::r--,other::---");
    assert_eq!(text(&acl()[..11]), None);
    assert_eq!(text(&[]), None);
    assert_eq!(text(&[1, 0, 0, 0]), None);
}

/// What a name in a made-up tree is.
#[derive(Clone, Debug)]
enum Made {
    File { bytes: Vec<u8>, hole: u64, mode: u32 },
    Directory { mode: u32 },
    Link(Vec<u8>),
    Second(usize),
}

fn made() -> impl Strategy<Value = Made> {
    let bytes = prop::collection::vec(any::<u8>(), 0..2000);
    prop_oneof![
        4 => (bytes, prop_oneof![Just(0), 0_u64..10_000_000], 0_u32..0o10000)
            .prop_map(|(bytes, hole, mode)| Made::File { bytes, hole, mode }),
        3 => (0_u32..0o10000).prop_map(|mode| Made::Directory { mode }),
        1 => prop::collection::vec(1_u8..=255, 1..300).prop_map(Made::Link),
        1 => any::<usize>().prop_map(Made::Second),
    ]
}

type Described = (Vec<u8>, usize, Made, i64, u32, u32, Vec<(String, Vec<u8>)>);

fn described() -> impl Strategy<Value = Described> {
    let name = prop::collection::vec(any::<u8>().prop_map(|b| if b == 0 || b == b'/' { b'_' } else { b }), 1..255);
    let attributes = prop::collection::vec(
        ("(user|trusted)\\.[a-zA-Z0-9_.%-]{1,20}", prop::collection::vec(any::<u8>(), 0..64)),
        0..3,
    );
    (name, any::<usize>(), made(), -(1_i64 << 31)..(1_i64 << 33), 0_u32..1_000_000_000, any::<u32>(), attributes)
}

/// Makes the tree; times last, since what is made later changes them.
fn lay_out(root: &Path, all: &[Described]) {
    let mut directories = vec![PathBuf::new()];
    let mut files = Vec::new();
    let mut times = Vec::new();
    for (name, parent, made, seconds, nanoseconds, owner, attributes) in all {
        let path = directories[parent % directories.len()].join(OsStr::from_bytes(name));
        let at = root.join(&path);
        if at.symlink_metadata().is_ok() || path == Path::new(".") || path.file_name().is_none() {
            continue;
        }
        let folder = Folder::open(at.parent().unwrap()).unwrap();
        let base = at.file_name().unwrap();
        let mut mode = None;
        match made {
            Made::File { bytes, hole, mode: wanted } => {
                let file = fs::File::create(&at).unwrap();
                file.write_all_at(bytes, *hole).unwrap();
                files.push(path.clone());
                mode = Some(*wanted);
            }
            Made::Directory { mode: wanted } => {
                fs::create_dir(&at).unwrap();
                directories.push(path.clone());
                mode = Some(*wanted);
            }
            Made::Link(target) => symlink(OsStr::from_bytes(target), &at).unwrap(),
            Made::Second(which) => match files.get(which % files.len().max(1)) {
                Some(first) => {
                    fs::hard_link(root.join(first), &at).unwrap();
                    continue;
                }
                None => continue,
            },
        }
        folder.set_owner(base, owner % u32::MAX, owner / 3).unwrap();
        for (key, value) in attributes.iter().filter(|(key, _)| mode.is_some() || key.starts_with("trusted.")) {
            folder.set_attribute(base, OsStr::new(key), value).unwrap();
        }
        mode.iter().for_each(|mode| folder.set_mode(base, *mode).unwrap());
        times.push((at, *seconds, *nanoseconds));
    }
    times.iter().rev().for_each(|(path, seconds, nanoseconds)| set_time(path, *seconds, *nanoseconds));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn any_tree_comes_out_of_gnu_tar_and_of_cp_as_it_was(all in prop::collection::vec(described(), 0..24)) {
        let temp = tempfile::tempdir().unwrap();
        let [from, tar, cp] = ["from", "tar", "cp"].map(|name| temp.path().join(name));
        [&from, &tar].iter().for_each(|dir| fs::create_dir(dir).unwrap());
        lay_out(&from, &all);
        let before = picture(&from);
        let bytes = packed(&from, &mut Vec::new());
        extract(&bytes, &tar);
        prop_assert_eq!(&picture(&tar), &before);
        let tree = tree(&from);
        let root = tree.resolve(Path::new("/"), Follow::Last).unwrap();
        let to = Destination::of(&cp, Source { is_directory: true, name: Some(OsStr::new("from")) }).unwrap();
        let mut told = Vec::new();
        plant(&tree, &root, to, &mut |remark| told.push(remark)).unwrap();
        prop_assert_eq!(told, vec![]);
        prop_assert_eq!(&picture(&cp), &before);
    }
}

#[test]
fn an_attribute_that_no_pax_header_can_have_is_told() {
    let from = tempfile::tempdir().unwrap();
    fs::write(from.path().join("file"), "").unwrap();
    xattr::set(from.path().join("file"), OsStr::from_bytes(b"user.\xff"), b"1").unwrap();
    let mut told = Vec::new();
    packed(from.path(), &mut told);
    let told: Vec<String> = told.iter().map(ToString::to_string).collect();
    assert_eq!(told, ["`/file`: its attribute user.\\xff is left out: its name is no text"]);
}
