//! What one tree has changed of another, as the directory that overlayfs puts over it.

use std::ffi::OsStr;
use std::path::Path;

use anyhow::{Context, Result, bail};

use super::{Ground, Planting, Stop};
use crate::kernel::folder::{Attribute, FileKind, Folder, Time};
use crate::kernel::interrupt::Held;
use crate::ops::contents::archive::changes::{Change, ChangeKind, changes_by};
use crate::ops::contents::archive::compare::{OF_THE_PLACE, is_same};
use crate::ops::contents::archive::{Remark, Tell, made};
use crate::ops::contents::tree::{Entry, Links, Tree};
use crate::ops::progress::may_go_on;

/// What overlayfs reads itself.
const MARKS: &str = "trusted.overlay.";

pub(in crate::ops::contents::archive) const WHITEOUT: &str = "a character device 0:0 is a deletion to overlayfs";

/// Returns why overlayfs cannot hold an entry as it is.
pub(crate) fn unfit(tree: &Tree, entry: &Entry) -> Option<String> {
    if is_whiteout(entry) {
        return Some(WHITEOUT.to_owned());
    }
    let attributes = entry.node.attributes(tree).ok()?;
    let mark = attributes.iter().map(|(name, _)| name).find(|name| is_mark(name))?;
    Some(format!("overlayfs would take its attribute {} for its own", mark.display()))
}

fn is_mark(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(MARKS.as_bytes())
}

/// What is planted.
pub(crate) struct Upper<'a> {
    /// What lies beneath.
    pub(crate) old: &'a Tree,
    /// What the two come to.
    pub(crate) new: &'a Tree,
    /// Files that belong in it although they are those beneath.
    pub(crate) always: &'a dyn Fn(&Path) -> bool,
    /// Gets how many bytes are written next.
    pub(crate) writes: &'a dyn Fn(u64),
}

/// Makes a directory of that name with all that differs. What cannot be kept is told, and missing then.
///
/// # Errors
/// When nothing more can be written, or a signal comes.
pub(crate) fn plant_upper(upper: &Upper<'_>, to: &Folder, name: &OsStr, tell: &mut Tell<'_>) -> Result<()> {
    let held = Held::hold().context("holding back signals")?;
    let mut planting = Planting {
        tree: upper.new,
        tell,
        held: &held,
        inherits: false,
        may_own: true,
        is_upper: true,
        writes: upper.writes,
        links: Links::default(),
        ground: Ground { root: to.enter(OsStr::new("."))?, levels: Vec::new() },
        made: 0,
    };
    match planting.upper(upper, Path::new(name)) {
        Ok(()) => Ok(()),
        Err(Stop::Signal) => {
            may_go_on()?;
            bail!("{} came", held.take().unwrap_or("a signal"))
        }
        Err(Stop::Kernel(e)) => Err(e).context("writing it"),
    }
}

impl Planting<'_, '_> {
    fn upper(&mut self, upper: &Upper<'_>, base: &Path) -> Result<(), Stop> {
        let root = Entry { path: base.to_owned(), node: upper.new.root_node()? };
        if !self.entry(&root, base)? {
            return Ok(());
        }
        let differ = |before: &Entry, now: &Entry| {
            let stays = (upper.always)(&now.path) && now.node.status.kind != FileKind::Directory;
            Ok(stays || !is_same(upper.old, before, upper.new, now)?)
        };
        for change in changes_by(upper.old, upper.new, differ) {
            match change {
                Ok(change) => self.change(&change, base)?,
                Err(lost) => (self.tell)(Remark::Lost(lost)),
            }
        }
        self.leave(0)
    }

    fn change(&mut self, change: &Change, base: &Path) -> Result<(), Stop> {
        let path = base.join(&change.path);
        let parent = path.parent().unwrap_or(base);
        if self.ground.depth_of(parent) == 0 {
            self.lose(&change.path, "it is left out: its directory is not there");
            return Ok(());
        }
        match (&change.entry, change.kind) {
            (Some(entry), ChangeKind::Added | ChangeKind::Changed) if is_whiteout(entry) => {
                self.lose(&change.path, &format!("it is left out: {WHITEOUT}"));
                Ok(())
            }
            (Some(entry), ChangeKind::Added | ChangeKind::Changed) => self.entry(entry, &path).map(drop),
            (None, ChangeKind::Added | ChangeKind::Changed) => {
                self.lose(&change.path, "it is left out: it is not there any more");
                Ok(())
            }
            (_, ChangeKind::Deleted) => {
                self.leave(self.ground.depth_of(parent))?;
                let (folder, name) = (self.ground.folder()?, path.file_name().unwrap_or_default());
                folder.make_node(name, &made(FileKind::Character, 0, Time { seconds: 0, nanoseconds: 0 }))?;
                Ok(folder.set_mode(name, 0)?)
            }
        }
    }

    /// Leaves out what is the place's own, and what overlayfs would take for its own.
    pub(super) fn without_marks(&mut self, entry: &Entry, mut attributes: Vec<Attribute>) -> Vec<Attribute> {
        take_marks(&mut attributes).iter().for_each(|why| self.lose(&entry.path, why));
        attributes
    }
}

/// Takes out what is the place's own, and what overlayfs would take for its own; says each of the latter.
pub(in crate::ops::contents::archive) fn take_marks(attributes: &mut Vec<Attribute>) -> Vec<String> {
    let is_marked = |(name, _): &&Attribute| is_mark(name);
    let said = attributes
        .iter()
        .filter(is_marked)
        .map(|(name, _)| format!("its attribute {} is left out: overlayfs would take it for its own", name.display()));
    let said = said.collect();
    attributes.retain(|(name, _)| name != OF_THE_PLACE && !is_mark(name));
    said
}

pub(in crate::ops::contents::archive) fn is_whiteout(entry: &Entry) -> bool {
    let status = &entry.node.status;
    status.kind == FileKind::Character && status.device == crate::kernel::DevNo::new(0, 0)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use super::*;
    use crate::kernel::folder::Status;
    use crate::ops::contents::archive::changes;
    use crate::ops::contents::archive::compare::compare;
    use crate::ops::contents::tree::{Layer, Marks, Namespace};

    fn layer(path: &Path, marks: Marks) -> Layer {
        Layer::new(Folder::open(path).unwrap(), marks).unwrap()
    }

    /// Plants what differs, and returns what was lost, and how the two together differ from the new one.
    fn planted(temp: &Path, always: &dyn Fn(&Path) -> bool) -> (Vec<String>, Vec<String>) {
        let (old, new, up) = (temp.join("old"), temp.join("new"), temp.join("up"));
        let _ = fs::remove_dir_all(&up);
        fs::create_dir(&up).unwrap();
        let [old_tree, new_tree] = [&old, &new].map(|path| Tree::new(vec![layer(path, Marks::None)]));
        let mut lost = Vec::new();
        let upper = Upper { old: &old_tree, new: &new_tree, always, writes: &|_| () };
        let mut tell = |remark: Remark| lost.push(remark.to_string());
        plant_upper(&upper, &Folder::open(&up).unwrap(), OsStr::new("diff"), &mut tell).unwrap();
        let merged = vec![layer(&up.join("diff"), Marks::Overlay(Namespace::Trusted)), layer(&old, Marks::None)];
        let mut differences = Vec::new();
        let mut tell = |difference: crate::ops::contents::archive::compare::Difference| {
            differences.push(format!("{}: {}", difference.path.display(), difference.what));
        };
        compare(&new_tree, &Tree::new(merged), &|| Ok(()), &mut tell).unwrap();
        (lost, differences)
    }

    fn write(at: &Path, path: &str, text: &str) {
        let path = at.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
    }

    #[test]
    fn what_is_beneath_and_what_is_planted_come_to_the_new_tree() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let temp = tempfile::tempdir().unwrap();
        let [old, new] = ["old", "new"].map(|name| temp.path().join(name));
        for at in [&old, &new] {
            for (path, text) in [("same/file", "1"), ("same/other", "1"), ("in-place", "aa"), ("links/a", "1")] {
                write(at, path, text);
            }
            fs::hard_link(at.join("links/a"), at.join("links/b")).unwrap();
            symlink("same", at.join("link")).unwrap();
            write(at, "time", "1");
        }
        for (path, text) in [
            ("gone/deep/file", "1"),
            ("to-a-file/x", "1"),
            ("to-a-directory", "1"),
            ("again/old", "1"),
            (".wh.gone", "1"),
        ] {
            write(&old, path, text);
        }
        for (path, text) in
            [("to-a-file", "1"), ("to-a-directory/x/y", "1"), ("again/new", "1"), ("same/.wh.honest", "1")]
        {
            write(&new, path, text);
        }
        let _ = fs::remove_dir_all(new.join("to-a-file"));
        write(&new, "to-a-file", "1");
        symlink("elsewhere", new.join("same/new-link")).unwrap();
        nix::unistd::mkfifo(&new.join("fifo"), nix::sys::stat::Mode::S_IRUSR).unwrap();
        fs::hard_link(new.join("same/other"), new.join("links/c")).unwrap();
        xattr::set(new.join("same"), "user.of-a-directory", b"x").unwrap();
        fs::set_permissions(new.join("time"), fs::Permissions::from_mode(0o4755)).unwrap();
        // Each entry of both has one time but for what shall differ.
        let long_ago = std::time::SystemTime::UNIX_EPOCH - std::time::Duration::new(1000, 123);
        for at in [&old, &new] {
            for path in ["same/file", "same/other", "in-place", "links/a", "time"] {
                fs::File::options().write(true).open(at.join(path)).unwrap().set_modified(long_ago).unwrap();
            }
        }
        fs::write(new.join("in-place"), "bb").unwrap();
        fs::File::options().write(true).open(new.join("in-place")).unwrap().set_modified(long_ago).unwrap();
        let (lost, differences) = planted(temp.path(), &|_| false);
        assert!(lost.is_empty() && differences.is_empty(), "{lost:?} {differences:?}");
        let up = temp.path().join("up/diff");
        assert!(!up.join("same/file").exists(), "what is the same is not written");
        assert_eq!(fs::symlink_metadata(up.join("gone")).unwrap().mode() & 0o170_000, 0o020_000);
        assert_eq!(fs::read_to_string(up.join("in-place")).unwrap(), "bb");

        let (lost, differences) = planted(temp.path(), &|path| path == Path::new("same/file"));
        assert!(lost.is_empty() && differences.is_empty() && up.join("same/file").exists());
    }

    #[test]
    fn what_overlayfs_would_take_for_its_own_is_told() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let temp = tempfile::tempdir().unwrap();
        let [old, new] = ["old", "new"].map(|name| temp.path().join(name));
        fs::create_dir(&old).unwrap();
        write(&new, "marked/file", "1");
        let whiteout: Status = made(FileKind::Character, 0, Time { seconds: 0, nanoseconds: 0 });
        Folder::open(&new).unwrap().make_node(OsStr::new("device"), &whiteout).unwrap();
        let may_mark = xattr::set(new.join("marked"), "trusted.overlay.opaque", b"y").is_ok();
        let (lost, differences) = planted(temp.path(), &|_| false);
        let [empty, tree] = [&old, &new].map(|path| Tree::new(vec![layer(path, Marks::None)]));
        let found = changes(&empty, &tree).flatten();
        let found: Vec<_> = found.filter_map(|change| unfit(&tree, &change.entry?)).collect();
        assert_eq!(found.len(), 1 + usize::from(may_mark), "{found:?}");
        assert_eq!(lost.len(), 1 + usize::from(may_mark), "{lost:?}");
        assert_eq!(differences.len(), 1 + usize::from(may_mark), "{differences:?}");
    }
}
