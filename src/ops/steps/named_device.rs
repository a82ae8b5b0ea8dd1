//! A device by the name that it had when an operation was planned, and whether it can be no other.

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Error, Result};
use nix::errno::Errno;
use serde::{Deserialize, Serialize};

use crate::kernel::{block, errno_of, identity};
use crate::pool::{DevNo, disk};
use crate::units::Bytes;

/// A device as it was called when an operation was planned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedDevice {
    /// Its name: the best that it has.
    pub path: PathBuf,
    /// How long it was.
    pub length: Bytes,
    /// The boot in which it was called so, when that name can be another device's in the next (`/dev/sdb`).
    pub boot: Option<String>,
}

impl NamedDevice {
    /// Takes a device by the best name that it has.
    ///
    /// # Errors
    /// When the kernel does not tell which boot this is.
    pub fn of(path: &Path, length: Bytes) -> Result<Self> {
        let boot = if disk::rank(path).is_none() { Some(identity::boot_id()?) } else { None };
        Ok(Self { path: path.to_owned(), length, boot })
    }

    /// Returns the number of the device that has the name; the inner error says why that is not the one that was meant, or
    /// may not be.
    ///
    /// # Errors
    /// When it cannot be looked at.
    pub(super) fn here(&self) -> Result<Result<DevNo, String>> {
        let path = self.path.display();
        if let Some(boot) = &self.boot
            && identity::boot_id()? != *boot
        {
            let why = "may be another device since the machine was booted: it has no name that lasts";
            return Ok(Err(format!("{path} {why}")));
        }
        let gone = |why: Error| match errno_of(&why) {
            Some(Errno::ENOENT | Errno::ENOTDIR | Errno::ENOTBLK | Errno::ENODEV) => {
                Ok(Err(format!("{path} is not here")))
            }
            _ => Err(why),
        };
        let found = block::devno_of(&self.path).and_then(|devno| Ok((devno, block::size(devno)?.bytes())));
        match found {
            Ok((devno, length)) if length == self.length => Ok(Ok(devno)),
            Ok((_, length)) => Ok(Err(format!("{path} is another device: it has {}", length.exact()))),
            Err(why) => gone(why),
        }
    }

    /// Returns the number of the device that has the name, as far as it is here and can be told.
    pub fn number(&self) -> Option<DevNo> {
        self.here().ok()?.ok()
    }

    /// Returns the number of the device that has the name, when it can be no other than the one that was meant.
    ///
    /// # Errors
    /// When there is none, or it may be another by now.
    pub(super) fn devno(&self) -> Result<DevNo> {
        self.here()?.map_err(Error::msg)
    }
}

impl fmt::Display for NamedDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path.display().fmt(f)
    }
}
