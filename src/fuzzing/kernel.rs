//! Texts and answers of the kernel.

use super::text;
use crate::engine::stuck::Thread;
use crate::kernel::disks::signatures;
use crate::kernel::dm::{header, open};
use crate::kernel::fs::facts;
use crate::kernel::{holders, identity, lock, loopdev, mounts, udev};

pub(super) fn mountinfo(bytes: &[u8]) -> bool {
    let lines = bytes.split(|b| *b == b'\n').count();
    let mounts = mounts::parse(bytes);
    assert!(mounts.len() <= lines);
    for mount in &mounts {
        let found = mounts::mount_of(&mounts, &mount.mount_point);
        assert!(found.is_some_and(|found| mount.mount_point.starts_with(&found.mount_point)));
    }
    !mounts.is_empty()
}

/// What a kernel's answer to a device-mapper ioctl begins with.
pub(super) fn dm_answer(bytes: &[u8]) -> bool {
    let info = header::info_in(bytes);
    assert!(!info.name.contains('\0') && info.uuid.is_none_or(|uuid| !uuid.is_empty() && !uuid.contains('\0')));
    !info.name.is_empty()
}

pub(super) fn backing_file(bytes: &[u8]) -> bool {
    let (path, _) = loopdev::parse_backing_file(bytes);
    assert!(path.as_os_str().len() <= bytes.len());
    true
}

/// The small texts of /proc, /lib/modules and of dmpool's lock files.
pub(super) fn proc(bytes: &[u8]) -> bool {
    let text = text(bytes);
    let swaps = holders::parse_swaps(bytes).len();
    assert!(swaps <= text.lines().count());
    assert_eq!(lock::parse_holder(&text, |_| None).pid, None);
    let holder = lock::parse_holder(&text, |_| Some("dmpool".to_owned())).pid.is_some();
    let numbers = [facts::parse_limits(&text).is_some(), open::misc_minor(&text, "device-mapper").is_some()];
    let set = [identity::has_capability(&text, 21), identity::lists_module(&text, "dm_thin_pool")];
    let thread = Thread::parse(&text).is_some();
    let cookies = !udev::cookie_semaphores(&text).is_empty();
    swaps > 0 || holder || cookies || thread || numbers.contains(&true) || set.contains(&true)
}

/// What wipefs prints.
pub(super) fn signatures(bytes: &[u8]) -> bool {
    let text = text(bytes);
    let found = signatures::parse(&text);
    assert!(found.len() <= text.lines().count());
    assert!(found.iter().all(|signature| !signature.words().is_empty() && !signature.kind.contains(',')));
    !found.is_empty()
}
