//! How much a tree is, before it is copied.

use super::Change;
use crate::kernel::folder::{FileKind, Status};
use crate::ops::contents::tree::{Links, Resolved, Tree, Walk};
use crate::units::Bytes;

/// How much there is below a path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Measure {
    /// Every entry.
    pub entries: u64,
    /// The bytes of files, without holes; a file with several names counts once.
    pub bytes: Bytes,
}

/// Returns how many bytes of files, without holes, are among changes; a file with several names counts once.
pub fn measure_changes(changes: impl Iterator<Item = Change>) -> Bytes {
    let mut links = Links::default();
    let entries = changes.filter_map(|change| change.entry);
    let files = entries.filter(|entry| {
        let status = &entry.node.status;
        status.kind == FileKind::File && links.met(&entry.path, status).is_none()
    });
    Bytes::new(files.fold(0, |sum, entry| sum.saturating_add(data(&entry.node.status))))
}

/// Bytes without holes.
fn data(status: &Status) -> u64 {
    status.allocated.min(status.size)
}

/// Returns how much there is below a path. What cannot be read counts as nothing: it will not be copied either.
pub fn measure(tree: &Tree, from: &Resolved) -> Measure {
    let mut links = Links::default();
    let mut found = Measure::default();
    let mut add = |path: &std::path::Path, status: &Status| {
        found.entries += 1;
        if status.kind == FileKind::File && links.met(path, status).is_none() {
            found.bytes = Bytes::new(found.bytes.get().saturating_add(data(status)));
        }
    };
    add(&from.path, &from.node.status);
    if from.node.status.is_directory() {
        for entry in Walk::below(tree, &from.path, &from.node).flatten() {
            add(&entry.path, &entry.node.status);
        }
    }
    found
}
