//! Device numbers.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A block device's number, written `253:2`, as the kernel prints it in tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DevNo {
    /// Which driver.
    pub major: u32,
    /// Which of the driver's devices.
    pub minor: u32,
}

/// A text that is not `MAJOR:MINOR`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotADevNo(String);

impl fmt::Display for NotADevNo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is not a device number (MAJOR:MINOR)", self.0)
    }
}

impl std::error::Error for NotADevNo {}

impl fmt::Display for DevNo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.major, self.minor)
    }
}

impl FromStr for DevNo {
    type Err = NotADevNo;

    fn from_str(text: &str) -> Result<Self, NotADevNo> {
        let fail = || NotADevNo(text.to_owned());
        let (major, minor) = text.split_once(':').ok_or_else(fail)?;
        Ok(Self { major: major.parse().map_err(|_| fail())?, minor: minor.parse().map_err(|_| fail())? })
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
