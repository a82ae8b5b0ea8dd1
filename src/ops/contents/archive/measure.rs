//! How much a tree is, before it is copied.

use super::Change;
use crate::kernel::folder::{FileKind, Status};
use crate::ops::contents::tree::{Links, Node, Resolved, Tree, Walk};
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
    Bytes::new(files.fold(0, |sum, entry| sum.saturating_add(data(&entry.node))))
}

/// What a file has allocated from which on it is opened, to see what of it was never written: archives have what reads as data.
const OPENED: u64 = 1 << 20;

/// Bytes without holes.
fn data(node: &Node) -> u64 {
    let Status { allocated, size, .. } = node.status;
    // What has no less allocated than its size is in an archive whole.
    let may_have_unwritten = (OPENED..size).contains(&allocated);
    match may_have_unwritten.then(|| node.content()) {
        Some(Ok(content)) => {
            content.extents().iter().fold(0, |sum, extent| sum.saturating_add(extent.end - extent.start))
        }
        _ => allocated.min(size),
    }
}

/// Returns how much there is below a path. What cannot be read counts as nothing: it will not be copied either.
pub fn measure(tree: &Tree, from: &Resolved) -> Measure {
    let mut links = Links::default();
    let mut found = Measure::default();
    let mut add = |path: &std::path::Path, node: &Node| {
        found.entries += 1;
        let status = &node.status;
        if status.kind == FileKind::File && links.met(path, status).is_none() {
            found.bytes = Bytes::new(found.bytes.get().saturating_add(data(node)));
        }
    };
    add(&from.path, &from.node);
    if from.node.status.is_directory() {
        for entry in Walk::below(tree, &from.path, &from.node).flatten() {
            add(&entry.path, &entry.node);
        }
    }
    found
}
