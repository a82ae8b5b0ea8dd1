//! Whether a file system has room for an archive.

use std::path::Path;

use crate::error::Outcome;
use crate::kernel::fs::FsFacts;
use crate::ops::rescue::copy::may_hold;
use crate::units::Bytes;

/// File systems that may write less than they are given.
const COMPRESSING: [&str; 2] = ["btrfs", "zfs"];

/// Returns what should be known of the room for so much in a folder, a sentence.
///
/// # Errors
/// Refused where there is too little; what may compress may still have enough, and that is what is returned.
pub(super) fn room(needed: Bytes, folder: &Path, file: &Path) -> Outcome<Option<String>> {
    let Err(failure) = may_hold(needed, folder, file) else { return Ok(None) };
    let facts = FsFacts::of(folder).ok().filter(|facts| COMPRESSING.contains(&facts.fs_type.as_str()));
    match facts {
        Some(facts) => Ok(Some(said(&facts, needed))),
        None => Err(failure),
    }
}

fn said(facts: &FsFacts, needed: Bytes) -> String {
    let FsFacts { mount_point, fs_type, free, .. } = facts;
    let (at, free, needed) = (mount_point.display(), free.human(), needed.human());
    format!(
        "the file system at {at} has {free} free, and {needed} are to be written: enough only if {fs_type} compresses them"
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn too_little_room_is_refused_or_said() {
        let temp = tempfile::tempdir_in("/var/tmp").unwrap();
        let file = temp.path().join("root.tar");
        assert_eq!(room(Bytes::new(0), temp.path(), &file).unwrap(), None);
        let facts = FsFacts::of(temp.path()).unwrap();
        match room(Bytes::new(u64::MAX), temp.path(), &file) {
            Ok(said) => assert!(said.is_some() && COMPRESSING.contains(&facts.fs_type.as_str()), "{facts:?}"),
            Err(_) => assert!(!COMPRESSING.contains(&facts.fs_type.as_str()), "{facts:?}"),
        }
        let zfs = FsFacts { fs_type: "zfs".to_owned(), free: Bytes::new(1 << 30), ..facts };
        let told = said(&zfs, Bytes::new(20 << 30));
        assert!(
            told.ends_with("has 1.0 GiB free, and 20.0 GiB are to be written: enough only if zfs compresses them"),
            "{told}"
        );
    }
}
