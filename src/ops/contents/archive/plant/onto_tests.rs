#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use super::*;
use crate::kernel::apart;
use crate::ops::contents::archive::compare::{Difference, compare_with_flags};
use crate::ops::contents::tree::{Layer, Marks};
use crate::process;

fn tree(path: &Path) -> Tree {
    Tree::new(vec![Layer::new(Folder::open(path).unwrap(), Marks::None).unwrap()])
}

fn write(at: &Path, path: &str, text: &str) {
    let path = at.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, text).unwrap();
}

fn copied(from: &Path, to: &Path) {
    process::run("cp", &["-a", "--", from.to_str().unwrap(), to.to_str().unwrap()]).unwrap();
}

/// Does it, and returns what was lost and what differs then.
fn done(temp: &Path) -> (Vec<String>, Vec<String>) {
    let [old, new, to] = ["old", "new", "to"].map(|name| temp.join(name));
    let [old, new] = [&old, &new].map(|path| tree(path));
    let mut lost = Vec::new();
    let onto = Onto { old: &old, new: &new, stays: &|path| path.starts_with("stays") };
    plant_onto(&onto, &Folder::open(&to).unwrap(), &mut |remark| lost.push(remark.to_string())).unwrap();
    let mut differences = Vec::new();
    let mut tell = |Difference { path, what }: Difference| differences.push(format!("{}: {what}", path.display()));
    compare_with_flags(&new, &tree(&to), &mut HashSet::new(), &|| Ok(()), &mut tell).unwrap();
    (lost, differences)
}

#[test]
fn a_folder_becomes_what_the_other_is() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let [old, new, to] = ["old", "new", "to"].map(|name| temp.path().join(name));
    for (path, text) in [
        ("same/file", "1"),
        ("gone/deep/deeper/file", "1"),
        ("to-a-file/x/y", "1"),
        ("to-a-directory", "1"),
        ("in-place", "aa"),
        ("owned", "1"),
        ("links/a", "1"),
        ("links/kept", "2"),
        ("moved/a", "3"),
        ("held/file", "1"),
        ("roamed/x", "5"),
        ("halved/a", "6"),
        ("stays/file", "1"),
    ] {
        write(&old, path, text);
    }
    fs::hard_link(old.join("links/a"), old.join("links/b")).unwrap();
    fs::hard_link(old.join("moved/a"), old.join("links/of-moved")).unwrap();
    fs::hard_link(old.join("halved/a"), old.join("halved/z")).unwrap();
    fs::create_dir(old.join("etc")).unwrap();
    fs::hard_link(old.join("roamed/x"), old.join("etc/x")).unwrap();
    xattr::set(old.join("same"), "user.lost", b"x").unwrap();
    // What is made in it gets an ACL: version 2, then kind, rights and id of each.
    let entries: [(u16, u16, u32); 5] = [(1, 7, !0), (2, 7, 1), (4, 5, !0), (16, 7, !0), (32, 5, !0)];
    let mut acl = 2_u32.to_le_bytes().to_vec();
    for (kind, rights, id) in entries {
        acl.extend([kind, rights].iter().flat_map(|half| half.to_le_bytes()).chain(id.to_le_bytes()));
    }
    xattr::set(old.join("same"), DEFAULT, &acl).unwrap();
    let flags = process::run("chattr", &["+i", old.join("held/file").to_str().unwrap()]).is_ok()
        && process::run("chattr", &["+a", old.join("held").to_str().unwrap()]).is_ok();
    copied(&old, &to);
    if flags {
        for path in ["held/file", "held"] {
            process::run("chattr", &["+i", to.join(path).to_str().unwrap()]).unwrap();
        }
    }
    copied(&old, &new);
    for path in ["gone", "to-a-file"] {
        fs::remove_dir_all(new.join(path)).unwrap();
    }
    fs::remove_file(new.join("to-a-directory")).unwrap();
    for (path, text) in
        [("to-a-file", "1"), ("to-a-directory/x/y", "1"), ("in-place", "bb"), ("same/new", "1"), ("held/file", "22")]
    {
        write(&new, path, text);
    }
    fs::rename(new.join("moved"), new.join("again")).unwrap();
    fs::rename(new.join("roamed"), new.join("roaming")).unwrap();
    // As a snapshot has it: the very file, in a folder that nothing has changed.
    for name in ["etc/x", "roaming/x"] {
        fs::remove_file(new.join(name)).unwrap();
        fs::hard_link(old.join("etc/x"), new.join(name)).unwrap();
    }
    let modified = fs::metadata(old.join("etc")).unwrap().modified().unwrap();
    fs::File::open(new.join("etc")).unwrap().set_modified(modified).unwrap();
    fs::remove_file(new.join("halved/z")).unwrap();
    fs::hard_link(new.join("links/kept"), new.join("same/other-name")).unwrap();
    symlink("elsewhere", new.join("same/link")).unwrap();
    nix::unistd::mkfifo(&new.join("fifo"), nix::sys::stat::Mode::S_IRUSR).unwrap();
    std::os::unix::fs::chown(new.join("owned"), Some(7), Some(7)).unwrap();
    fs::set_permissions(new.join("owned"), fs::Permissions::from_mode(0o4755)).unwrap();
    xattr::remove(new.join("same"), "user.lost").unwrap();
    xattr::remove(new.join("same"), DEFAULT).unwrap();
    xattr::set(new.join("in-place"), "trusted.kept", b"x").unwrap();
    fs::File::create(new.join("sparse")).unwrap().set_len(1 << 40).unwrap();
    if flags {
        process::run("chattr", &["+i", new.join("same/new").to_str().unwrap()]).unwrap();
        process::run("chattr", &["+d", new.join("links").to_str().unwrap()]).unwrap();
        // A folder that nothing else has changed takes a name of a file that was made.
        for at in [&old, &new, &to] {
            process::run("chattr", &["+i", at.join("etc").to_str().unwrap()]).unwrap();
        }
    }
    write(&new, "stays/file", "another");
    let long_ago = std::time::SystemTime::UNIX_EPOCH - std::time::Duration::new(1000, 123);
    for path in ["same", "links", "again"] {
        fs::File::open(new.join(path)).unwrap().set_modified(long_ago).unwrap();
    }
    let inode = |path: &str| fs::metadata(to.join(path)).unwrap().ino();
    let (owned, halved) = (inode("owned"), inode("halved/a"));
    let (lost, differences) = done(temp.path());
    for (at, path) in [(&new, "same/new"), (&to, "same/new"), (&old, "held/file")] {
        let _ = process::run("chattr", &["-i", at.join(path).to_str().unwrap()]);
    }
    for at in [&old, &new, &to] {
        let _ = process::run("chattr", &["-i", at.join("etc").to_str().unwrap()]);
    }
    let _ = process::run("chattr", &["-a", old.join("held").to_str().unwrap()]);
    assert!(lost.is_empty(), "{lost:?}");
    assert_eq!(differences, ["stays/file: size, time, content"], "{differences:?}");
    assert_eq!(inode("owned"), owned, "only its owner has changed");
    assert_eq!(inode("halved/a"), halved, "only its other name is gone");
    assert_eq!(fs::read_dir(&to).unwrap().count(), fs::read_dir(&new).unwrap().count());
}

/// A file system that has room for what is there before and after, and not for both.
#[test]
fn what_goes_makes_room_for_what_comes() {
    let full = match apart::mounted_to_write(Path::new("none"), "tmpfs", "size=8m") {
        Err(e) if e.errno == nix::errno::Errno::EPERM => return,
        full => full.unwrap(),
    };
    let temp = tempfile::tempdir().unwrap();
    let [old, new] = ["old", "new"].map(|name| temp.path().join(name));
    let (large, other) = ("1".repeat(3 << 20), "2".repeat(3 << 20));
    write(&old, "srv/data/large", &large);
    write(&old, "two/a", &large);
    fs::hard_link(old.join("two/a"), old.join("two/z")).unwrap();
    // Moved to where it comes earlier, with a link in its place.
    write(&new, "data/large", &large);
    fs::create_dir(new.join("srv")).unwrap();
    symlink("/data", new.join("srv/data")).unwrap();
    // Changed in place, by two names.
    write(&new, "two/a", &other);
    fs::hard_link(new.join("two/a"), new.join("two/z")).unwrap();
    let nothing = temp.path().join("nothing");
    fs::create_dir(&nothing).unwrap();
    let [nothing, old, new] = [&nothing, &old, &new].map(|path| tree(path));
    for (old, new) in [(&nothing, &old), (&old, &new)] {
        let onto = Onto { old, new, stays: &|_| false };
        plant_onto(&onto, &full, &mut |remark| panic!("{remark}")).unwrap();
    }
    let there = Tree::new(vec![Layer::new(full, Marks::None).unwrap()]);
    let mut tell = |difference: Difference| panic!("{difference:?}");
    compare_with_flags(&new, &there, &mut HashSet::new(), &|| Ok(()), &mut tell).unwrap();
}
