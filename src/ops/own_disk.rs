//! The disk that dmpool's own files are on: the registry, the journals, the locks.

use std::path::Path;

use nix::errno::Errno;

use crate::error::{Failure, Outcome};
use crate::kernel;
use crate::kernel::fs::FsFacts;
use crate::units::Bytes;

/// What must be free for dmpool's own files: a journal with its records, an entry, a lock.
const ENOUGH: Bytes = Bytes::new(256 << 10);

/// Returns the refusal of an operation for which a file of dmpool's own could not be written; nothing was begun.
pub fn refusal(what: String, folder: &Path, why: anyhow::Error) -> Failure {
    let errno = kernel::errno_of(&why);
    let mut failure = Failure::refused(what).fact("state", "nothing was begun").because(why);
    let there = there(folder).display();
    let Ok(fs) = FsFacts::of(self::there(folder)) else {
        return failure.next(format!("ls -ld {there}    # shows what is in the way"));
    };
    let mount = fs.mount_point.display();
    if matches!(errno, Some(Errno::ENOSPC | Errno::EDQUOT)) {
        failure = failure.fact("free", format!("{} on {mount} ({})", fs.available.exact(), fs.fs_type));
        return failure.next(way_out_of_full(&fs));
    }
    if errno == Some(Errno::EROFS) {
        return failure.next(format!("mount -o remount,rw {mount}"));
    }
    failure.next(format!("ls -ld {there}; findmnt -T {there}    # show what is in the way"))
}

/// Refuses when a folder of dmpool's own is on a file system that takes no more files.
///
/// # Errors
/// Refused with what is free.
pub fn takes_files(fs: &FsFacts, folder: &Path, refuse: &impl Fn(String) -> Failure) -> Outcome<()> {
    let (path, mount) = (folder.display(), fs.mount_point.display());
    if fs.read_only {
        return Err(refuse(format!("the file system of `{path}`, where it would be registered, is read-only"))
            .fact("found", format!("{} on {mount}", fs.fs_type))
            .next(format!("mount -o remount,rw {mount}")));
    }
    if fs.free < ENOUGH {
        return Err(refuse(format!("the file system of `{path}`, where it would be registered, is full"))
            .fact("free", format!("{} on {mount} ({})", fs.free.exact(), fs.fs_type))
            .next(way_out_of_full(fs)));
    }
    Ok(())
}

fn way_out_of_full(fs: &FsFacts) -> String {
    format!(
        "make room on {}: {} are enough, to write down what is done so that it can be taken back",
        fs.mount_point.display(),
        ENOUGH.human()
    )
}

/// Returns a folder, or the nearest one above it that is there.
pub fn there(folder: &Path) -> &Path {
    folder.ancestors().find(|path| path.symlink_metadata().is_ok()).unwrap_or(folder)
}
