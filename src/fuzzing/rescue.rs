//! What stands beside the files of containers and layers.

use std::path::{Component, Path};

use super::text;
use crate::ops::contents::archive::Acl;
use crate::ops::contents::layer::Piece;
use crate::ops::contents::source::{Head, aufs_layers, cache_id, lower_links};
use crate::ops::root_archive;
use crate::ops::volumes_of_docker::{Entries, Manifest, Sums, parse_records, parse_time};

/// An ACL has as many entries in words as in bytes.
pub(super) fn acl(bytes: &[u8]) -> bool {
    let Some(acl) = Acl::parse(bytes) else { return false };
    let written = acl.to_string();
    let entries = written.split(',').filter(|entry| !entry.is_empty()).count();
    assert_eq!(bytes.len(), 4 + 8 * entries, "{written}");
    entries > 0
}

/// What is read of the layers below one leads nowhere but to names in the driver's folder.
pub(super) fn layer_chain(bytes: &[u8]) -> bool {
    let text = text(bytes);
    let linked: Vec<String> = lower_links(&text).into_iter().flatten().collect();
    let listed: Vec<String> = aufs_layers(&text).into_iter().flatten().collect();
    let led: Vec<String> = text.lines().filter_map(|line| cache_id(Path::new(line))).collect();
    for name in linked.iter().chain(&listed).chain(&led) {
        let parts = Path::new(name).components().count();
        assert!(parts == 1 && !name.contains(['/', '.', '\0']), "{name:?}");
    }
    !(linked.is_empty() && listed.is_empty() && led.is_empty())
}

/// The first 4096 bytes of a device: which file system, and how long.
pub(super) fn file_system_head(bytes: &[u8]) -> bool {
    let found = Head::parse(bytes);
    // Nothing behind what was read decides.
    let longer = [bytes, &[0xff; 16]].concat();
    assert!(bytes.len() < 4096 || Head::parse(&longer) == found);
    found.is_some_and(|head| head.length.get() > 0)
}

/// A line of what stands beside a layer's files is never longer than what it says, and a file has bytes.
pub(super) fn tar_split(bytes: &[u8]) -> bool {
    let pieces = bytes.split(|byte| *byte == b'\n').filter_map(|line| Some((line, Piece::parse(line).ok()?)));
    let mut count = 0;
    for (line, piece) in pieces {
        match &piece {
            Piece::Bytes(found) => assert!(found.len() <= line.len()),
            Piece::File { size, .. } => assert!(*size > 0 && piece.length() == *size),
            Piece::Nothing => assert_eq!(piece.length(), 0),
        }
        count += 1;
    }
    count > 0
}

/// No entry leads out of an archive, none takes more bytes than there are; volumes have names that are one name.
pub(super) fn volumes_archive(bytes: &[u8]) -> bool {
    let _ = Sums::parse(bytes);
    let _ = parse_records(bytes);
    let _ = parse_time(bytes).map(|time| assert!(time.nanoseconds < 1_000_000_000));
    if let Ok(manifest) = Manifest::parse(bytes) {
        for volume in &manifest.volumes {
            assert_eq!(Path::new(&volume.name).components().count(), 1);
        }
        return true;
    }
    let mut entries = Entries::new(bytes);
    let mut count = 0;
    while let Ok(Some(entry)) = entries.next_entry() {
        for path in std::iter::once(&entry.path).chain(&entry.original) {
            assert!(path.components().all(|part| matches!(part, Component::Normal(_))), "{path:?}");
        }
        let Ok(content) = entries.whole(bytes.len() as u64) else { break };
        assert!(entry.extents.iter().all(|(start, length)| start + length <= entry.status.size));
        assert_eq!(entry.extents.iter().map(|(_, length)| length).sum::<u64>(), content.len() as u64);
        count += 1;
    }
    count > 0
}

/// Every part of an archive of a root has a place of its own, which leads nowhere else, and is no part of another's.
pub(super) fn root_archive(bytes: &[u8]) -> bool {
    if let Ok(sums) = root_archive::Sums::parse(bytes) {
        assert_eq!(
            serde_json::to_vec(&sums).map(|written| root_archive::Sums::parse(&written).ok()).ok(),
            Some(Some(sums))
        );
        return true;
    }
    let Ok(contents) = root_archive::Contents::parse(bytes) else { return false };
    let places: Vec<_> = contents.items.iter().map(root_archive::Item::place).collect();
    for (at, place) in places.iter().enumerate() {
        assert!(place.components().all(|part| matches!(part, Component::Normal(_))), "{place:?}");
        assert!(
            places.iter().skip(at + 1).all(|other| !other.starts_with(place) && !place.starts_with(other)),
            "{place:?}"
        );
        assert!(contents.items.get(at).is_some_and(|item| !item.to_string().contains(char::is_control)));
    }
    true
}
