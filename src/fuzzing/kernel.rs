//! Texts and answers of the kernel.

use super::text;
use crate::kernel::disks::signatures;
use crate::kernel::dm::{header, open};
use crate::kernel::fs::facts;
use crate::kernel::{holders, identity, lock, loopdev, mounts, udev};

pub(super) fn mountinfo(bytes: &[u8]) {
    let lines = bytes.split(|b| *b == b'\n').count();
    let mounts = mounts::parse(bytes);
    assert!(mounts.len() <= lines);
    for mount in &mounts {
        let found = mounts::mount_of(&mounts, &mount.mount_point);
        assert!(found.is_some_and(|found| mount.mount_point.starts_with(&found.mount_point)));
    }
}

/// What a kernel's answer to a device-mapper ioctl begins with.
pub(super) fn dm_answer(bytes: &[u8]) {
    let info = header::info_in(bytes);
    assert!(!info.name.contains('\0') && info.uuid.is_none_or(|uuid| !uuid.is_empty() && !uuid.contains('\0')));
}

pub(super) fn backing_file(bytes: &[u8]) {
    let (path, _) = loopdev::parse_backing_file(bytes);
    assert!(path.as_os_str().len() <= bytes.len());
}

/// The small texts of /proc, /lib/modules and of dmpool's lock files.
pub(super) fn proc(bytes: &[u8]) {
    let text = text(bytes);
    assert!(holders::parse_swaps(bytes).len() <= text.lines().count());
    let _ = (facts::parse_limits(&text), identity::has_capability(&text, 21), open::misc_minor(&text, "device-mapper"));
    let _ = (identity::lists_module(&text, "dm_thin_pool"), udev::cookie_semaphores(&text));
    assert_eq!(lock::parse_holder(&text, |_| None).pid, None);
    let _ = lock::parse_holder(&text, |_| Some("dmpool".to_owned()));
}

/// What wipefs prints.
pub(super) fn signatures(bytes: &[u8]) {
    let text = text(bytes);
    let found = signatures::parse(&text);
    assert!(found.len() <= text.lines().count());
    assert!(found.iter().all(|signature| !signature.words().is_empty() && !signature.kind.contains(',')));
}
