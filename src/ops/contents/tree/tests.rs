#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::fs;
use std::os::unix::fs::symlink;

use nix::sys::stat::{Mode, SFlag, mknod};
use tempfile::TempDir;

use super::*;

const OVERLAY: Marks = Marks::Overlay(Namespace::Trusted);

struct Case {
    temp: TempDir,
    layers: Vec<Marks>,
}

impl Case {
    fn new(layers: &[Marks]) -> Self {
        let temp = tempfile::tempdir().unwrap();
        for number in 0..layers.len() {
            fs::create_dir(temp.path().join(number.to_string())).unwrap();
        }
        Self { temp, layers: layers.to_vec() }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.temp.path().join(path)
    }

    fn dir(&self, path: &str) -> &Self {
        fs::create_dir_all(self.at(path)).unwrap();
        self
    }

    fn file(&self, path: &str) -> &Self {
        fs::create_dir_all(self.at(path).parent().unwrap()).unwrap();
        fs::write(self.at(path), path).unwrap();
        self
    }

    fn whiteout(&self, path: &str) -> &Self {
        fs::create_dir_all(self.at(path).parent().unwrap()).unwrap();
        mknod(&self.at(path), SFlag::S_IFCHR, Mode::empty(), 0).unwrap();
        self
    }

    fn mark(&self, path: &str, name: &str, value: &str) -> &Self {
        xattr::set(self.at(path), name, value.as_bytes()).unwrap();
        self
    }

    fn tree(&self) -> Tree {
        let layer = |(number, marks): (usize, &Marks)| {
            Layer::new(Folder::open(&self.at(&number.to_string())).unwrap(), *marks).unwrap()
        };
        Tree::new(self.layers.iter().enumerate().map(layer).collect())
    }

    /// Every entry, files with what is in them.
    fn all(&self) -> Vec<String> {
        let tree = self.tree();
        let root = tree.root_node().unwrap();
        let shown = |entry: Result<Entry, Lost>| {
            let entry = match entry {
                Ok(entry) => entry,
                Err(lost) => return format!("{}: {}", lost.path.display(), lost.why),
            };
            let path = entry.path.display().to_string();
            match entry.node.status.kind {
                FileKind::Directory => format!("{path}/"),
                FileKind::File => match entry.node.content() {
                    Ok(content) => {
                        let mut bytes = Vec::new();
                        let take = &mut |_, piece: &[u8]| {
                            bytes.extend_from_slice(piece);
                            Ok(())
                        };
                        content.read(take).unwrap();
                        format!("{path}={}", String::from_utf8(bytes).unwrap())
                    }
                    Err(e) => format!("{path}: {e}"),
                },
                _ => path,
            }
        };
        Walk::below(&tree, Path::new(""), &root).map(shown).collect()
    }
}

use crate::kernel::folder::FileKind;

#[test]
fn one_directory_is_walked_as_docker_does() {
    let case = Case::new(&[Marks::None]);
    case.file("0/a/z").file("0/a.txt").file("0/a/b/c").dir("0/empty").whiteout("0/.wh.device").file("0/.wh.file");
    assert_eq!(
        case.all(),
        [".wh.device", ".wh.file=0/.wh.file", "a/", "a/b/", "a/b/c=0/a/b/c", "a/z=0/a/z", "a.txt=0/a.txt", "empty/"]
    );
}

#[test]
fn overlays_are_merged_as_the_kernel_does() {
    let case = Case::new(&[OVERLAY, OVERLAY, OVERLAY]);
    case.file("2/etc/passwd").file("2/etc/group").file("2/etc/deep/a").file("2/gone/x").file("2/was-dir/x");
    case.file("2/was-file").file("2/covered/old").file("2/bin/zcat");
    case.file("1/etc/passwd").whiteout("1/etc/group").whiteout("1/gone").file("1/covered/middle");
    case.whiteout("0/bin/zcat")
        .file("0/was-dir")
        .dir("0/was-file")
        .file("0/covered/new")
        .dir("0/gone")
        .file("0/gone/y");
    case.mark("0/covered", "trusted.overlay.opaque", "y").mark("0/covered", "user.overlay.opaque", "y");
    // A container's own, without a meaning for this kernel.
    case.dir("0/etc").mark("0/etc", "user.overlay.opaque", "y").mark("0/etc", "user.kept", "1");
    assert_eq!(
        case.all(),
        [
            "bin/",
            "covered/",
            "covered/new=0/covered/new",
            "etc/",
            "etc/deep/",
            "etc/deep/a=2/etc/deep/a",
            "etc/passwd=1/etc/passwd",
            "gone/",
            "gone/y=0/gone/y",
            "was-dir=0/was-dir",
            "was-file/",
        ]
    );
    let tree = case.tree();
    let attributes = |path: &str| tree.node(Path::new(path)).unwrap().attributes(&tree).unwrap();
    let names: Vec<OsString> = attributes("etc").into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["user.kept", "user.overlay.opaque"]);
    assert_eq!(attributes("covered"), [("user.overlay.opaque".into(), b"y".to_vec())]);
}

#[test]
fn moved_directories_and_copied_metadata_lead_to_what_lies_beneath() {
    let case = Case::new(&[OVERLAY, OVERLAY, OVERLAY]);
    case.file("2/a/old/x").file("1/a/old/y").dir("0/b/new").mark("0/b/new", "trusted.overlay.redirect", "/a/old");
    case.whiteout("0/a/old").dir("0/c/renamed").mark("0/c/renamed", "trusted.overlay.redirect", "before");
    case.file("2/c/before/z").whiteout("0/c/before");
    // Nowhere, and out of the layer.
    case.dir("0/d").mark("0/d", "trusted.overlay.redirect", "/../../etc");
    case.dir("0/e").mark("0/e", "trusted.overlay.redirect", "../a");
    case.file("1/meta");
    // With a block of its own, as many attributes need.
    fs::write(case.at("0/meta"), [0; 6]).unwrap();
    fs::File::create(case.at("0/lost")).unwrap().set_len(6).unwrap();
    case.mark("0/meta", "trusted.overlay.metacopy", "").mark("0/lost", "trusted.overlay.metacopy", "");
    let all = case.all();
    assert_eq!(
        all[..10],
        [
            "a/",
            "b/",
            "b/new/",
            "b/new/x=2/a/old/x",
            "b/new/y=1/a/old/y",
            "c/",
            "c/renamed/",
            "c/renamed/z=2/c/before/z",
            "d/",
            "e/",
        ]
    );
    assert!(all[10].starts_with("e: what lies beneath cannot be read: EINVAL"), "{all:?}");
    assert_eq!(all[11], "lost: ENODATA (No data available) from open on lost");
    assert_eq!(all[12..], ["meta=1/meta"]);
}

#[test]
fn aufs_names_its_deletions() {
    let case = Case::new(&[Marks::Aufs, Marks::Aufs, Marks::Aufs]);
    case.file("2/etc/passwd").file("2/etc/group").file("2/covered/old").file("2/gone/x").file("2/back");
    case.file("1/.wh.back").file("1/etc/.wh.group").file("1/covered/.wh..wh..opq").file("1/covered/new");
    case.file("0/.wh.gone").file("0/back").file("0/.wh..wh.plnk/12.13").file("0/.wh..wh.aufs").file("0/covered/newer");
    assert_eq!(
        case.all(),
        [
            "back=0/back",
            "covered/",
            "covered/new=1/covered/new",
            "covered/newer=0/covered/newer",
            "etc/",
            "etc/passwd=2/etc/passwd"
        ]
    );
    case.file("0/.wh..wh..opq");
    assert_eq!(case.all(), ["back=0/back", "covered/", "covered/newer=0/covered/newer"]);
}

#[test]
fn five_thousand_levels_are_walked_with_few_folders_open() {
    let case = Case::new(&[Marks::None, Marks::None]);
    for layer in ["0", "1"] {
        let mut at = Folder::open(&case.at(layer)).unwrap();
        for _ in 0..5000 {
            at.make_folder(OsStr::new("d")).unwrap();
            at.make_file(OsStr::new(layer)).unwrap();
            at = at.enter(OsStr::new("d")).unwrap();
        }
    }
    let tree = case.tree();
    let root = tree.root_node().unwrap();
    let mut walk = Walk::below(&tree, Path::new(""), &root);
    let (mut count, mut most) = (0, 0);
    while let Some(entry) = walk.next() {
        entry.unwrap();
        count += 1;
        most = most.max(walk.open);
    }
    assert_eq!(count, 15_000);
    assert!(most <= OPEN_AT_MOST, "{most}");
    remove_deep(case);
}

const OPEN_AT_MOST: usize = 210;

/// The standard library's removal recurses.
fn remove_deep(case: Case) {
    let path = case.temp.keep();
    crate::process::run("rm", &["-rf".as_ref(), path.as_os_str()]).unwrap();
}

#[test]
fn paths_lead_where_they_led_in_the_container() {
    let case = Case::new(&[OVERLAY, OVERLAY]);
    case.file("1/usr/bin/tool").file("0/etc/real");
    for (link, target) in
        [("0/bin", "usr/bin"), ("0/out", "../../../etc/real"), ("0/loop", "loop"), ("0/usr", "/nowhere")]
    {
        if link != "0/usr" {
            symlink(target, case.at(link)).unwrap();
        }
    }
    symlink("/bin", case.at("0/abs")).unwrap();
    let tree = case.tree();
    let resolved = |path: &str, follow| tree.resolve(Path::new(path), follow).map(|found| found.path);
    let at = |path: &str| Ok(PathBuf::from(path));
    assert_eq!(resolved("/abs/tool", Follow::Parents), at("usr/bin/tool"));
    assert_eq!(resolved("/bin", Follow::Parents), at("bin"));
    assert_eq!(resolved("/bin/", Follow::Parents), at("usr/bin"));
    assert_eq!(resolved("bin/.", Follow::Parents), at("usr/bin"));
    assert_eq!(resolved("/bin", Follow::Last), at("usr/bin"));
    assert_eq!(resolved("/out", Follow::Last), at("etc/real"));
    assert_eq!(resolved("/../../etc/../etc/real", Follow::Last), at("etc/real"));
    assert_eq!(resolved("/", Follow::Last), at(""));
    assert_eq!(resolved("/loop", Follow::Last), Err(Unresolved::TooManyLinks));
    assert_eq!(resolved("/loop", Follow::Parents), at("loop"));
    assert_eq!(resolved("/etc/none", Follow::Last), Err(Unresolved::Missing("etc/none".into())));
    assert_eq!(resolved("/etc/real/x", Follow::Last), Err(Unresolved::NotADirectory("etc/real".into())));
    assert_eq!(resolved("/etc/real/", Follow::Last), Err(Unresolved::NotADirectory("etc/real".into())));
}

#[test]
fn names_are_shown_so_that_they_cannot_steer_a_terminal() {
    let name = PathBuf::from(std::ffi::OsStr::from_bytes(b"a\xffb\nc\x1b[2Jd"));
    assert_eq!(shown(&name), "a\\xffb\\nc\\u{1b}[2Jd");
}

use std::os::unix::ffi::OsStrExt;
