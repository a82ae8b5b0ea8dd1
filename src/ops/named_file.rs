//! Files that somebody names on the command line: read whole, replaced whole.

use std::fs::File;
use std::io::{Read, stdin};
use std::path::Path;

use nix::errno::Errno;

use crate::error::{Failure, Outcome};
use crate::kernel::{Called, KernelError, errno_of, fs};
use crate::process::quote;
use crate::units::Bytes;

/// Returns the bytes of a file, or of standard input for `-`; pipes are read too. No more than `most` are read.
///
/// # Errors
/// When it cannot be opened or read.
pub fn read(path: &Path, most: Bytes) -> Outcome<Vec<u8>> {
    let unread = |e: KernelError| {
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        Failure::failed(format!("cannot read `{}`", path.display()))
            .next(format!("ls -la {}", quote(&dir.to_string_lossy())))
            .because(e)
    };
    let input: Box<dyn Read> = if path == Path::new("-") {
        Box::new(stdin())
    } else {
        Box::new(File::open(path).called("open", path.display()).map_err(unread)?)
    };
    let mut bytes = Vec::new();
    input.take(most.get()).read_to_end(&mut bytes).called("read", path.display()).map_err(unread)?;
    Ok(bytes)
}

/// Replaces a file whole, or leaves it as it is.
///
/// # Errors
/// When it cannot be written; where its directory is missing, with what makes it.
pub fn replace(path: &Path, bytes: &[u8]) -> Outcome<()> {
    fs::write_replace(path, bytes, 0o644).map_err(|error| not_written(path, error))
}

/// A directory may be missing, as node_exporter's is before it is set up.
fn not_written(path: &Path, error: anyhow::Error) -> Failure {
    let missing = path.parent().filter(|dir| errno_of(&error) == Some(Errno::ENOENT) && !dir.exists());
    let failure = Failure::failed(format!("cannot write `{}`", path.display()));
    match missing {
        Some(dir) => {
            failure.fact("state", "nothing was written").next(format!("mkdir -p {}", quote(&dir.to_string_lossy())))
        }
        None => failure.fact("state", "the file is as it was"),
    }
    .because(error)
}

/// Refuses to put a file in the place of a device, a directory, or a link to somewhere else.
///
/// # Errors
/// Refused with what is there.
pub fn may_replace(path: &Path) -> Outcome<()> {
    match path.symlink_metadata() {
        Ok(found) if found.is_file() => Ok(()),
        Ok(found) => {
            let what = if found.is_symlink() { "a symbolic link" } else { "no regular file" };
            Err(Failure::refused(format!("cannot replace `{}`: it is {what}", path.display()))
                .fact("state", "nothing was touched")
                .next("name the file itself; without -o it goes to standard output"))
        }
        // Whether it can be made is seen when it is made.
        Err(_) => Ok(()),
    }
}
