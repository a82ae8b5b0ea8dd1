//! Device numbers.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

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

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::*;

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
