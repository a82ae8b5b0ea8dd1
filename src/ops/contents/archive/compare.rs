//! Two trees, compared to the last attribute.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, DefaultHasher};
use std::path::PathBuf;

use super::changes::{Change, ChangeKind, changes_by};
use crate::kernel::folder::{Attribute, FileKind, Status, Time};
use crate::ops::contents::tree::{Entry, Tree};

/// An attribute that a file gets from where it is: a label of SELinux.
pub(super) const OF_THE_PLACE: &str = "security.selinux";

/// What of an entry is another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Difference {
    /// Where.
    pub(crate) path: PathBuf,
    /// What: fields, each in a word or a few.
    pub(crate) what: String,
}

/// How much was compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Compared {
    /// Entries that both have.
    pub(crate) entries: u64,
    /// How many differ, are missing, or could not be compared.
    pub(crate) differences: u64,
}

/// Whether an entry is as it was, so that it need not be written: what a snapshot of a file system has inherited, or what
/// agrees in every byte and attribute.
pub(super) fn is_same(old: &Tree, before: &Entry, new: &Tree, now: &Entry) -> Result<bool, String> {
    let (was, is) = (&before.node.status, &now.node.status);
    if is.is_directory() {
        return Ok(was.is_directory() && same_status(was, is) && attributes(old, before)? == attributes(new, now)?);
    }
    if is_inherited(was, is) {
        return Ok(true);
    }
    // Names of one file are written together or not at all.
    if !seems_inherited(was, is) && (was.links > 1 || is.links > 1 || !same_status(was, is)) {
        return Ok(false);
    }
    Ok(attributes(old, before)? == attributes(new, now)? && same_content(before, now)?)
}

/// Whether a file is the very one that a snapshot of a file system has inherited. The kernel sets the time of change with everything that
/// changes, a link that is made or removed included.
pub(super) fn is_inherited(was: &Status, is: &Status) -> bool {
    seems_inherited(was, is) && tells_changes(is)
}

/// Whether the time of change tells two changes apart. An ext4 with inodes of 128 bytes has whole seconds: two layers may be written in one.
const fn tells_changes(status: &Status) -> bool {
    status.changed.nanoseconds != 0
}

fn seems_inherited(was: &Status, is: &Status) -> bool {
    let own = |status: &Status| (status.inode, status.changed, status.links, status.allocated);
    same_status(was, is) && own(was) == own(is)
}

fn same_status(one: &Status, other: &Status) -> bool {
    let of = |status: &Status| {
        let size = if status.is_directory() { 0 } else { status.size };
        (status.kind, status.mode, status.uid, status.gid, status.device, status.modified, size)
    };
    of(one) == of(other)
}

fn attributes(tree: &Tree, entry: &Entry) -> Result<Vec<Attribute>, String> {
    let mut found = entry.node.attributes(tree).map_err(|e| format!("its attributes cannot be compared: {e}"))?;
    found.retain(|(name, _)| name != OF_THE_PLACE);
    Ok(found)
}

pub(super) fn same_content(before: &Entry, now: &Entry) -> Result<bool, String> {
    match now.node.status.kind {
        FileKind::File => {
            let of = |entry: &Entry| entry.node.content().map_err(|e| format!("it cannot be read: {e}"));
            let (was, is) = (of(before)?, of(now)?);
            was.is_same(&is).map_err(|e| format!("it cannot be read: {e}"))
        }
        FileKind::Link => {
            let of = |entry: &Entry| entry.node.target().map_err(|e| format!("it cannot be read: {e}"));
            Ok(of(before)? == of(now)?)
        }
        _ => Ok(true),
    }
}

/// Compares two trees: kind, mode, owner, size, time of change of the content, attributes with the ACLs among them, links,
/// which names are one file, and every byte. Told is each difference. `goes_on` is asked at each entry.
///
/// # Errors
/// When nothing more is to be compared, as `goes_on` says.
pub(crate) fn compare(
    old: &Tree,
    new: &Tree,
    goes_on: &dyn Fn() -> anyhow::Result<()>,
    tell: &mut dyn FnMut(Difference),
) -> anyhow::Result<Compared> {
    let differing = |before: &Entry, now: &Entry| differing(old, before, new, now, true);
    compare_by(old, new, goes_on, tell, &differing)
}

/// As [`compare`], with the flags of chattr(1). Content that is in `known`, by the inodes of both and when these were changed, is not read
/// again; what was read is put there.
///
/// # Errors
/// As [`compare`].
pub(crate) fn compare_with_flags(
    old: &Tree,
    new: &Tree,
    known: &mut HashSet<u64>,
    goes_on: &dyn Fn() -> anyhow::Result<()>,
    tell: &mut dyn FnMut(Difference),
) -> anyhow::Result<Compared> {
    let known = std::cell::RefCell::new(known);
    let differing = |before: &Entry, now: &Entry| {
        let pair = [before, now].map(|entry| {
            let status = &entry.node.status;
            let time = |time: Time| (time.seconds, time.nanoseconds);
            (status.inode, time(status.changed), time(status.modified), status.size)
        });
        let pair = std::hash::BuildHasher::hash_one(&BuildHasherDefault::<DefaultHasher>::default(), pair);
        let is_file = now.node.status.kind == FileKind::File;
        let tells = [before, now].iter().all(|entry| tells_changes(&entry.node.status));
        let is_known = is_file && tells && known.borrow().contains(&pair);
        let mut what = differing(old, before, new, now, !is_known)?;
        let flags = |entry: &Entry| entry.node.flags().map_err(|e| format!("its flags cannot be read: {e}"));
        if flags(before)? != flags(now)? {
            what.push("flags");
        }
        if is_file && what.is_empty() {
            known.borrow_mut().insert(pair);
        }
        Ok(what)
    };
    compare_by(old, new, goes_on, tell, &differing)
}

/// Says what of an entry is another.
type Differing<'a> = dyn Fn(&Entry, &Entry) -> Result<Vec<&'static str>, String> + 'a;

fn compare_by(
    old: &Tree,
    new: &Tree,
    goes_on: &dyn Fn() -> anyhow::Result<()>,
    tell: &mut dyn FnMut(Difference),
    differing: &Differing<'_>,
) -> anyhow::Result<Compared> {
    let entries = std::cell::Cell::new(0);
    let names = std::cell::RefCell::new((Names::default(), Names::default()));
    let found = std::cell::RefCell::new(HashMap::<PathBuf, String>::new());
    let stopped = std::cell::RefCell::new(None);
    let differ = |before: &Entry, now: &Entry| -> Result<bool, String> {
        if let Err(e) = goes_on() {
            stopped.borrow_mut().get_or_insert(e);
        }
        entries.set(entries.get() + 1);
        let mut what = differing(before, now)?;
        let (olds, news) = &mut *names.borrow_mut();
        if olds.first(before) != news.first(now) {
            what.push("which names are one file");
        }
        let differs = !what.is_empty();
        if differs {
            found.borrow_mut().insert(now.path.clone(), what.join(", "));
        }
        Ok(differs)
    };
    let mut compared = Compared::default();
    let mut say = |path: PathBuf, what: String| {
        compared.differences += 1;
        tell(Difference { path, what });
    };
    if let (Ok(was), Ok(is)) = (old.root_node(), new.root_node()) {
        let root = |node| Entry { path: PathBuf::new(), node };
        match differing(&root(was), &root(is)) {
            Ok(what) if what.is_empty() => {}
            Ok(what) => say(PathBuf::new(), what.join(", ")),
            Err(why) => say(PathBuf::new(), why),
        }
    }
    for change in changes_by(old, new, differ) {
        if let Some(e) = stopped.borrow_mut().take() {
            return Err(e);
        }
        match change {
            Ok(Change { kind: ChangeKind::Added, path, .. }) => say(path, "it was not there".to_owned()),
            Ok(Change { kind: ChangeKind::Deleted, path, .. }) => say(path, "it is missing".to_owned()),
            // A directory is told for what is in it, too.
            Ok(Change { kind: ChangeKind::Changed, path, .. }) => {
                let what = found.borrow_mut().remove(&path);
                what.into_iter().for_each(|what| say(path.clone(), what));
            }
            Err(lost) => say(lost.path, lost.why),
        }
    }
    compared.entries = entries.get();
    Ok(compared)
}

fn differing(old: &Tree, before: &Entry, new: &Tree, now: &Entry, reads: bool) -> Result<Vec<&'static str>, String> {
    let (was, is) = (&before.node.status, &now.node.status);
    if was.kind != is.kind {
        return Ok(vec!["kind"]);
    }
    let is_link = is.kind == FileKind::Link;
    let mut what = Vec::new();
    let mut add = |differs: bool, word: &'static str| what.extend(differs.then_some(word));
    add(was.mode != is.mode && !is_link, "mode");
    add((was.uid, was.gid) != (is.uid, is.gid), "owner");
    add(was.size != is.size && !is.is_directory(), "size");
    add(was.modified != is.modified, "time");
    add(was.device != is.device, "device");
    add(attributes(old, before)? != attributes(new, now)?, "attributes");
    add(reads && !same_content(before, now)?, if is_link { "where it leads" } else { "content" });
    Ok(what)
}

/// The first name of each file that may have several.
#[derive(Default)]
struct Names {
    first: HashMap<(u64, u64), PathBuf>,
}

impl Names {
    fn first(&mut self, entry: &Entry) -> PathBuf {
        let status = &entry.node.status;
        if status.links < 2 || status.is_directory() {
            return entry.path.clone();
        }
        self.first.entry(status.identity()).or_insert_with(|| entry.path.clone()).clone()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::kernel::folder::Folder;
    use crate::ops::contents::tree::{Layer, Marks};

    #[test]
    fn a_time_of_whole_seconds_does_not_say_that_nothing_was_written() {
        let temp = tempfile::tempdir().unwrap();
        let [old, new] = ["old", "new"].map(|name| {
            let path = temp.path().join(name);
            std::fs::create_dir(&path).unwrap();
            std::fs::write(path.join("VERSION"), name).unwrap();
            std::fs::write(path.join("same"), "same").unwrap();
            Tree::new(vec![Layer::new(Folder::open(&path).unwrap(), Marks::None).unwrap()])
        });
        let entry = |tree: &Tree, path: &str| Entry { path: path.into(), node: tree.node(Path::new(path)).unwrap() };
        for (path, nanoseconds, links, same) in
            [("VERSION", 0, 1, false), ("VERSION", 0, 2, false), ("same", 0, 2, true), ("VERSION", 1, 1, true)]
        {
            let (mut before, mut now) = (entry(&old, path), entry(&new, path));
            // As a snapshot has a file that the next layer has unlinked and made again in the same inode.
            before.node.status.changed.nanoseconds = nanoseconds;
            before.node.status.links = links;
            now.node.status = before.node.status;
            let found = is_same(&old, &before, &new, &now).unwrap();
            assert_eq!((path, nanoseconds, links, found), (path, nanoseconds, links, same));
        }
    }
}
