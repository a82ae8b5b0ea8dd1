//! The kernel boundary: the only ioctls and the only `unsafe` of dmpool.
//!
//! Two storeys. `raw` below speaks system calls and is where every `unsafe` stands; the files above it speak of
//! targets, loop devices, mounts and holders. Values and errors go out of here, never a foreign crate's type.
//!
//! Everything runs on kernel 3.10 too; what is newer has a fallback beside it.

use std::fmt;
use std::fs as std_fs;
use std::io::{self, Read};
use std::path::Path;

use nix::errno::Errno;

pub mod aligned;
pub mod apart;
pub mod arrivals;
pub mod ask;
pub mod beneath;
pub mod block;
pub mod critical;
pub mod disks;
pub mod dm;
pub mod folder;
pub mod fs;
pub mod holders;
pub mod identity;
pub mod interrupt;
pub mod lock;
pub mod loopdev;
pub mod memory;
pub mod mounts;
pub mod processes;
mod raw;
pub mod udev;

pub use crate::pool::DevNo;

/// A system call that failed: the root cause of every error that this folder returns for one.
///
/// An operation gets at it with `error.downcast_ref::<KernelError>()`, to branch on `errno`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelError {
    /// What the kernel answered.
    pub errno: Errno,
    /// The call by the kernel's name: `DM_TABLE_LOAD`, `open`.
    pub call: &'static str,
    /// What it was called on: `p0 (253:2)`, a path.
    pub object: String,
}

impl fmt::Display for KernelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // `{:?}` of an `Errno` is its symbol, EBUSY.
        write!(f, "{:?} ({}) from {} on {}", self.errno, self.errno.desc(), self.call, self.object)
    }
}

impl std::error::Error for KernelError {}

/// Returns the kernel's answer beneath `error`, when it was the kernel that said no.
pub fn errno_of(error: &anyhow::Error) -> Option<Errno> {
    error.downcast_ref::<KernelError>().map(|e| e.errno)
}

/// Turns what a call returned into a [`KernelError`] that names the call and its object.
pub(crate) trait Called<T> {
    fn called(self, call: &'static str, object: impl fmt::Display) -> Result<T, KernelError>;
}

impl<T> Called<T> for Result<T, Errno> {
    fn called(self, call: &'static str, object: impl fmt::Display) -> Result<T, KernelError> {
        self.map_err(|errno| KernelError { errno, call, object: object.to_string() })
    }
}

impl<T> Called<T> for io::Result<T> {
    fn called(self, call: &'static str, object: impl fmt::Display) -> Result<T, KernelError> {
        self.map_err(|e| errno_from(&e)).called(call, object)
    }
}

/// Returns the errno of an I/O error. The few that std makes up itself: a name with a NUL is EINVAL, a short read EIO.
fn errno_from(error: &io::Error) -> Errno {
    match error.raw_os_error() {
        Some(number) => Errno::from_raw(number),
        None if error.kind() == io::ErrorKind::InvalidInput => Errno::EINVAL,
        None => Errno::EIO,
    }
}

/// Reads a small text of /proc or /sys; nothing when it is not there (any more).
///
/// # Errors
/// When it is there and cannot be read.
fn read_if_there(path: &Path) -> Result<Option<String>, KernelError> {
    match read_whole(path) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).trim_end().to_owned())),
        Err(e) if is_gone(&e) => Ok(None),
        Err(e) => Err(e).called("read", path.display()),
    }
}

/// Reads a file of the kernel's own, whose length nothing tells beforehand: a page and more at a time, where the standard
/// library would ask for the length, and begin with 32 bytes.
fn read_whole(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(4096);
    std_fs::File::open(path)?.take(u64::MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Whether the error only says that the object is not there, or went away meanwhile.
fn is_gone(error: &io::Error) -> bool {
    matches!(errno_from(error), Errno::ENOENT | Errno::ENOTDIR | Errno::ENODEV | Errno::ENXIO | Errno::ESRCH)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_the_errno_the_call_and_the_object() {
        let error = Err::<(), _>(Errno::EBUSY).called("DM_TABLE_LOAD", "p0 (253:2)").unwrap_err();
        assert_eq!(error.to_string(), "EBUSY (Device or resource busy) from DM_TABLE_LOAD on p0 (253:2)");
        let above = anyhow::Error::new(error).context("loading the table of `p0`");
        assert_eq!(errno_of(&above), Some(Errno::EBUSY));
    }
}
