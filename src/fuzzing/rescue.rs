//! What stands beside the files of containers and layers.

use crate::ops::contents::archive::Acl;

/// An ACL has as many entries in words as in bytes.
pub(super) fn acl(bytes: &[u8]) -> bool {
    let Some(acl) = Acl::parse(bytes) else { return false };
    let written = acl.to_string();
    let entries = written.split(',').filter(|entry| !entry.is_empty()).count();
    assert_eq!(bytes.len(), 4 + 8 * entries, "{written}");
    entries > 0
}
