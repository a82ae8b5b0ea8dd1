//! What one tree has changed of another, as `docker diff` says it: Docker compares kind, permissions, owner, device,
//! capabilities, and of what is no directory size and time (pkg/archive/changes.go and changes_unix.go of Docker).

use std::cmp::Ordering;
use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use crate::kernel::folder::{FileKind, Status, Time};
use crate::ops::contents::tree::{Entry, Lost, Tree, Walk};

/// What has become of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ChangeKind {
    /// It is there now.
    Added,
    /// It is another, or something in it is.
    Changed,
    /// It is there no more.
    Deleted,
}

impl ChangeKind {
    /// Returns Docker's letter.
    pub const fn letter(self) -> char {
        match self {
            Self::Added => 'A',
            Self::Changed => 'C',
            Self::Deleted => 'D',
        }
    }
}

/// One change.
#[derive(Clone, Debug)]
pub struct Change {
    /// What has happened.
    pub kind: ChangeKind,
    /// To which path, from the root.
    pub path: PathBuf,
    /// What is there now; nothing of what is deleted, or cannot be found again.
    pub entry: Option<Entry>,
}

/// Returns what `new` has changed of `old`, sorted as trees are walked. Of a directory that was deleted, or replaced by
/// something else, only the directory itself is told. What cannot be compared is told as lost.
pub fn changes<'t>(old: &'t Tree, new: &'t Tree) -> impl Iterator<Item = Result<Change, Lost>> + 't {
    changes_by(old, new, differ_to_docker)
}

/// As [`changes`], with what else is taken for a difference; directories are entered whatever is said of them.
pub(super) fn changes_by<'t>(
    old: &'t Tree,
    new: &'t Tree,
    differ: impl Fn(&Entry, &Entry) -> Result<bool, String> + 't,
) -> impl Iterator<Item = Result<Change, Lost>> + 't {
    let mut problems = VecDeque::new();
    let mut below = |tree: &'t Tree| match tree.root_node() {
        Ok(root) => Some(Walk::below(tree, Path::new(""), &root)),
        Err(e) => {
            problems.push_back(Err(Lost::new(Path::new(""), e.to_string())));
            None
        }
    };
    let (old_walk, new_walk) = (below(old), below(new));
    if !problems.is_empty() {
        return Changes { old: None, new: None, tree: new, differ, ready: problems, above: Vec::new() };
    }
    Changes {
        old: old_walk.map(Side::new),
        new: new_walk.map(Side::new),
        tree: new,
        differ,
        ready: problems,
        above: Vec::new(),
    }
}

/// A walk that can be looked at before it goes on.
struct Side<'t> {
    walk: Walk<'t>,
    peeked: Option<Option<Entry>>,
    lost: Vec<Lost>,
}

impl<'t> Side<'t> {
    const fn new(walk: Walk<'t>) -> Self {
        Self { walk, peeked: None, lost: Vec::new() }
    }

    fn peek(&mut self) -> Option<&Entry> {
        if self.peeked.is_none() {
            let found = loop {
                match self.walk.next() {
                    Some(Ok(entry)) => break Some(entry),
                    Some(Err(lost)) => self.lost.push(lost),
                    None => break None,
                }
            };
            self.peeked = Some(found);
        }
        self.peeked.as_ref().and_then(Option::as_ref)
    }

    fn take(&mut self) -> Option<Entry> {
        self.peek();
        self.peeked.take().flatten()
    }
}

struct Changes<'t, D> {
    old: Option<Side<'t>>,
    new: Option<Side<'t>>,
    tree: &'t Tree,
    differ: D,
    ready: VecDeque<Result<Change, Lost>>,
    /// The directories that the walk is in, and whether each was told.
    above: Vec<(PathBuf, bool)>,
}

impl<D: Fn(&Entry, &Entry) -> Result<bool, String>> Iterator for Changes<'_, D> {
    type Item = Result<Change, Lost>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(ready) = self.ready.pop_front() {
                return Some(ready);
            }
            if !self.step() {
                return self.ready.pop_front();
            }
        }
    }
}

impl<D: Fn(&Entry, &Entry) -> Result<bool, String>> Changes<'_, D> {
    /// Compares one path; says whether there was one.
    fn step(&mut self) -> bool {
        let (Some(old), Some(new)) = (&mut self.old, &mut self.new) else { return false };
        let order = match (old.peek(), new.peek()) {
            (None, None) => None,
            (Some(_), None) => Some(Ordering::Less),
            (None, Some(_)) => Some(Ordering::Greater),
            // By components: a directory, what is in it, and then its siblings.
            (Some(old), Some(new)) => Some(old.path.cmp(&new.path)),
        };
        let (before, now) = match order {
            None => (None, None),
            Some(Ordering::Less) => (old.take(), None),
            Some(Ordering::Greater) => (None, new.take()),
            Some(Ordering::Equal) => (old.take(), new.take()),
        };
        let lost: Vec<Lost> = old.lost.drain(..).chain(new.lost.drain(..)).collect();
        self.ready.extend(lost.into_iter().map(Err));
        let before_is_directory = before.as_ref().is_some_and(|entry| entry.node.status.is_directory());
        match (before, now) {
            (None, None) => {}
            (Some(before), None) => {
                if before_is_directory && let Some(old) = &mut self.old {
                    old.walk.stay_out();
                }
                self.tell(ChangeKind::Deleted, before.path, None);
            }
            (None, Some(now)) => self.tell(ChangeKind::Added, now.path.clone(), Some(now)),
            (Some(before), Some(now)) => self.compare(&before, now),
        }
        order.is_some()
    }

    fn compare(&mut self, before: &Entry, now: Entry) {
        let directories = (before.node.status.is_directory(), now.node.status.is_directory());
        match directories {
            (true, true) if before.node.is_same_on_disk(&now.node) => {
                for side in [&mut self.old, &mut self.new].into_iter().flatten() {
                    side.walk.stay_out();
                }
                return;
            }
            (true, false) => self.old.iter_mut().for_each(|side| side.walk.stay_out()),
            _ => {}
        }
        if before.node.status.identity() == now.node.status.identity() && directories != (true, true) {
            return;
        }
        let differ = match (self.differ)(before, &now) {
            Ok(differ) => differ,
            Err(why) => {
                self.ready.push_back(Err(Lost { path: now.path, why }));
                return;
            }
        };
        if differ {
            self.tell(ChangeKind::Changed, now.path.clone(), Some(now));
        } else if directories == (true, true) {
            self.enter(&now.path, false);
        }
    }

    /// Tells a change, and before it that the directories above have changed: an archive of changes needs them.
    fn tell(&mut self, kind: ChangeKind, path: PathBuf, entry: Option<Entry>) {
        self.leave(&path);
        for (above, told) in &mut self.above {
            if !std::mem::replace(told, true) {
                let entry = self.tree.node(above).ok().map(|node| Entry { path: above.clone(), node });
                self.ready.push_back(Ok(Change { kind: ChangeKind::Changed, path: above.clone(), entry }));
            }
        }
        if entry.as_ref().is_some_and(|entry| entry.node.status.is_directory()) {
            self.enter(&path, true);
        }
        self.ready.push_back(Ok(Change { kind, path, entry }));
    }

    fn enter(&mut self, path: &Path, told: bool) {
        self.leave(path);
        self.above.push((path.to_owned(), told));
    }

    fn leave(&mut self, path: &Path) {
        while self.above.last().is_some_and(|(above, _)| !path.starts_with(above)) {
            self.above.pop();
        }
    }
}

fn differ_to_docker(before: &Entry, now: &Entry) -> Result<bool, String> {
    if differ(&before.node.status, &now.node.status) {
        return Ok(true);
    }
    let capability = |entry: &Entry| {
        let found = entry.node.attribute("security.capability");
        found.map_err(|e| format!("its capabilities cannot be compared: {e}"))
    };
    Ok(capability(before)? != capability(now)?)
}

/// What Docker takes for a difference. Size and time of a directory change with what is in it.
fn differ(before: &Status, now: &Status) -> bool {
    before.kind != now.kind
        || before.mode != now.mode
        || (before.uid, before.gid) != (now.uid, now.gid)
        || before.device != now.device
        || (now.kind != FileKind::Directory && (before.size != now.size || !same_time(before.modified, now.modified)))
}

/// An archive without fractions of seconds has made one of the two.
fn same_time(one: Time, other: Time) -> bool {
    one.seconds == other.seconds
        && (one.nanoseconds == other.nanoseconds || one.nanoseconds == 0 || other.nanoseconds == 0)
}
