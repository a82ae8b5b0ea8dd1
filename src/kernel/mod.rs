//! The kernel boundary: the only ioctls and the only `unsafe` of dmpool.
//!
//! Two storeys. `raw` below speaks system calls and is where every `unsafe` stands; the files above it speak of
//! targets, loop devices, mounts and holders. Values and errors go out of here, never a foreign crate's type.
//!
//! Everything runs on kernel 3.10 too; what is newer has a fallback beside it.

use std::fmt;
use std::fs as std_fs;
use std::io;
use std::path::Path;
use std::str::FromStr;

use nix::errno::Errno;
use serde::{Deserialize, Serialize};

pub mod block;
pub mod critical;
pub mod dm;
pub mod fs;
pub mod holders;
pub mod identity;
pub mod lock;
pub mod loopdev;
pub mod mounts;
pub mod processes;
mod raw;
pub mod udev;

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

/// A device number: `253:2`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DevNo {
    /// Which driver.
    pub major: u32,
    /// Which of the driver's devices.
    pub minor: u32,
}

impl DevNo {
    /// Takes the two halves.
    pub const fn new(major: u32, minor: u32) -> Self {
        Self { major, minor }
    }

    /// Takes the C library's `dev_t`, as in `st_rdev` and `st_dev`.
    pub const fn from_dev_t(dev: u64) -> Self {
        Self { major: libc::major(dev), minor: libc::minor(dev) }
    }

    /// Returns the C library's `dev_t`.
    pub const fn dev_t(self) -> u64 {
        libc::makedev(self.major, self.minor)
    }

    /// Takes the kernel's own encoding, which the dm and loop ioctls speak (`huge_decode_dev`, linux/kdev_t.h).
    pub(crate) fn from_kernel(dev: u64) -> Self {
        let [b0, b1, b2, b3, ..] = dev.to_le_bytes();
        let dev = u32::from_le_bytes([b0, b1, b2, b3]);
        Self { major: (dev & 0x000f_ff00) >> 8, minor: (dev & 0xff) | ((dev >> 12) & 0x000f_ff00) }
    }

    /// Returns the kernel's own encoding (`huge_encode_dev`, linux/kdev_t.h).
    pub(crate) fn kernel(self) -> u64 {
        u64::from((self.minor & 0xff) | (self.major << 8) | ((self.minor & !0xff) << 12))
    }
}

impl fmt::Display for DevNo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.major, self.minor)
    }
}

/// Why a text is not a device number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotADevNo(String);

impl fmt::Display for NotADevNo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is not a device number (major:minor)", self.0)
    }
}

impl std::error::Error for NotADevNo {}

impl FromStr for DevNo {
    type Err = NotADevNo;

    fn from_str(text: &str) -> Result<Self, NotADevNo> {
        let digits = |t: &str| t.bytes().all(|b| b.is_ascii_digit()).then(|| t.parse().ok()).flatten();
        let (major, minor) = text.split_once(':').ok_or_else(|| NotADevNo(text.to_owned()))?;
        match (digits(major), digits(minor)) {
            (Some(major), Some(minor)) => Ok(Self { major, minor }),
            _ => Err(NotADevNo(text.to_owned())),
        }
    }
}

impl TryFrom<String> for DevNo {
    type Error = NotADevNo;

    fn try_from(text: String) -> Result<Self, NotADevNo> {
        text.parse()
    }
}

impl From<DevNo> for String {
    fn from(devno: DevNo) -> Self {
        devno.to_string()
    }
}

/// Reads a small text of /proc or /sys; nothing when it is not there (any more).
///
/// # Errors
/// When it is there and cannot be read.
fn read_if_there(path: &Path) -> Result<Option<String>, KernelError> {
    match std_fs::read(path) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).trim_end().to_owned())),
        Err(e) if is_gone(&e) => Ok(None),
        Err(e) => Err(e).called("read", path.display()),
    }
}

/// Whether the error only says that the object is not there, or went away meanwhile.
fn is_gone(error: &io::Error) -> bool {
    matches!(errno_from(error), Errno::ENOENT | Errno::ENOTDIR | Errno::ENODEV | Errno::ENXIO | Errno::ESRCH)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_error_names_the_errno_the_call_and_the_object() {
        let error = Err::<(), _>(Errno::EBUSY).called("DM_TABLE_LOAD", "p0 (253:2)").unwrap_err();
        assert_eq!(error.to_string(), "EBUSY (Device or resource busy) from DM_TABLE_LOAD on p0 (253:2)");
        let above = anyhow::Error::new(error).context("loading the table of `p0`");
        assert_eq!(errno_of(&above), Some(Errno::EBUSY));
    }

    #[test]
    fn device_numbers_are_two_numbers() {
        assert_eq!("253:2".parse(), Ok(DevNo::new(253, 2)));
        for bad in ["", ":", "253", "253:", ":2", "+1:2", "1:-2", "1:2:3", " 1:2", "4294967296:0"] {
            assert!(bad.parse::<DevNo>().is_err(), "{bad}");
        }
    }

    proptest! {
        // The kernel has 12 bits of major and 20 of minor (MINORBITS, linux/kdev_t.h).
        #[test]
        fn device_numbers_round_trip(major in 0_u32..1 << 12, minor in 0_u32..1 << 20) {
            let devno = DevNo::new(major, minor);
            prop_assert_eq!(DevNo::from_kernel(devno.kernel()), devno);
            prop_assert_eq!(DevNo::from_dev_t(devno.dev_t()), devno);
            prop_assert_eq!(devno.to_string().parse(), Ok(devno));
        }
    }
}
