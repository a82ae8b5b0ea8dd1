//! The names we give things, and which names a pool may have.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::pool::VolumeId;
use crate::units::SizeArg;

/// The longest name a pool of ours may have. The kernel takes 127 bytes (`DM_NAME_LEN` 128 with its NUL,
/// include/uapi/linux/dm-ioctl.h); the longest suffix, `_tmeta`, must still fit, and so must a file name in the
/// registry (255 bytes) with its temporary suffix.
pub const MAX_NAME: usize = 120;

/// What the dm UUID of everything that dmpool makes begins with.
pub const UUID_PREFIX: &str = "DMPOOL-";

/// The name of a pool that dmpool makes: also a dm name, a file name in the registry and a word in commands.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PoolName(String);

/// Why a text is not a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadName {
    /// The text, shortened when it is long.
    pub text: String,
    /// What it would name: `pool`.
    pub of: &'static str,
    /// What is wrong with it.
    pub why: String,
}

impl fmt::Display for BadName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is not a {} name: {}", self.text, self.of, self.why)
    }
}

impl std::error::Error for BadName {}

impl PoolName {
    /// Takes a name of letters, digits and `_ . -`, beginning with a letter or digit.
    ///
    /// # Errors
    /// When it is empty, longer than [`MAX_NAME`] bytes, has another character, or is a word that commands read
    /// otherwise (`docker`).
    pub fn new(text: &str) -> Result<Self, BadName> {
        check(text, "pool")?;
        let fail = |why: &str| Err(bad(text, "pool", why.to_owned()));
        if text == "docker" {
            return fail("in every command `docker` means Docker's own pool");
        }
        Ok(Self(text.to_owned()))
    }

    /// As [`Self::new`], for a pool that does not exist yet: also nothing that commands or device-mapper take for something else.
    ///
    /// # Errors
    /// As [`Self::new`]; for a size, a number, `max` and `control`.
    pub fn of_new(text: &str) -> Result<Self, BadName> {
        let name = Self::new(text)?;
        check_new(text, "pool")?;
        Ok(name)
    }

    /// Returns the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the dm name of the linear device that carries this pool's data.
    pub fn data_device(&self) -> String {
        format!("{}_tdata", self.0)
    }

    /// Returns the dm name of the linear device that carries this pool's metadata.
    pub fn metadata_device(&self) -> String {
        format!("{}_tmeta", self.0)
    }
}

/// Looks whether a text can be a name of ours: letters, digits and `_ . -`, a letter or digit first.
pub(super) fn check(text: &str, of: &'static str) -> Result<(), BadName> {
    let fail = |why: String| Err(bad(text, of, why));
    if text.is_empty() {
        return fail("it is empty".to_owned());
    }
    if text.len() > MAX_NAME {
        return fail(format!("it has {} bytes, {MAX_NAME} is the most", text.len()));
    }
    if !text.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return fail("it must begin with a letter or a digit".to_owned());
    }
    if let Some(c) = text.chars().find(|c| !c.is_ascii_alphanumeric() && !"_.-".contains(*c)) {
        return fail(format!("{c:?} is neither a letter, a digit, nor one of _ . -"));
    }
    if text.ends_with("_tdata") || text.ends_with("_tmeta") {
        return fail("_tdata and _tmeta end the names of what a pool stands on".to_owned());
    }
    Ok(())
}

/// Looks whether a text can be the name of something new: nothing that is read as a size, and no node of device-mapper's own.
pub(super) fn check_new(text: &str, of: &'static str) -> Result<(), BadName> {
    if SizeArg::parse(text).is_ok() {
        let why = "commands would read it as a size (a size behind an option takes `=` where it may be left out: --stripe=64K)";
        return Err(bad(text, of, why.to_owned()));
    }
    if text == "control" {
        return Err(bad(text, of, "/dev/mapper/control is how device-mapper itself is spoken to".to_owned()));
    }
    Ok(())
}

pub(super) fn bad(text: &str, of: &'static str, why: String) -> BadName {
    let mut short: String = text.chars().take(40).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    BadName { text: short, of, why }
}

impl fmt::Display for PoolName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for PoolName {
    type Error = BadName;

    fn try_from(text: String) -> Result<Self, BadName> {
        Self::new(&text)
    }
}

impl From<PoolName> for String {
    fn from(name: PoolName) -> Self {
        name.0
    }
}

/// The identity of a pool that dmpool made: 128 random bits in hexadecimal, kept in the registry.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PoolUuid(String);

impl PoolUuid {
    /// Takes 128 random bits.
    pub fn from_random(bits: u128) -> Self {
        Self(format!("{bits:032x}"))
    }

    /// Returns the bits.
    pub fn bits(&self) -> u128 {
        // The constructors take nothing but 32 hexadecimal digits.
        u128::from_str_radix(&self.0, 16).unwrap_or_default()
    }

    /// Returns the dm UUID of the pool device.
    pub fn pool(&self) -> String {
        format!("{UUID_PREFIX}{}-pool", self.0)
    }

    /// Returns the dm UUID of the linear device under the data.
    pub fn data(&self) -> String {
        format!("{UUID_PREFIX}{}-tdata", self.0)
    }

    /// Returns the dm UUID of the linear device under the metadata.
    pub fn metadata(&self) -> String {
        format!("{UUID_PREFIX}{}-tmeta", self.0)
    }

    /// Returns the dm UUID of the device of the volume with that id.
    pub fn volume(&self, id: VolumeId) -> String {
        format!("{UUID_PREFIX}{}-volume-{}", self.0, id.get())
    }
}

impl TryFrom<String> for PoolUuid {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit()) {
            Ok(Self(text))
        } else {
            Err(format!("{text:?} is not a pool uuid (32 hexadecimal digits)"))
        }
    }
}

impl From<PoolUuid> for String {
    fn from(uuid: PoolUuid) -> Self {
        uuid.0
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn bad_names_say_why() {
        for (text, why) in [
            ("", "empty"),
            ("docker", "Docker's own pool"),
            ("../etc", "begin with a letter"),
            ("-x", "begin with a letter"),
            ("a/b", "'/'"),
            ("a b", "' '"),
            ("pööl", "'ö'"),
            ("a\n", "'\\n'"),
            ("p_tdata", "what a pool stands on"),
        ] {
            let error = PoolName::new(text).unwrap_err().to_string();
            assert!(error.contains(why), "{text:?}: {error}");
        }
        assert!(PoolName::new(&"a".repeat(MAX_NAME)).is_ok());
        assert!(PoolName::new(&"a".repeat(MAX_NAME + 1)).unwrap_err().why.contains("121 bytes"));
    }

    #[test]
    fn nothing_new_is_called_what_is_read_otherwise() {
        for (text, why) in [
            ("20G", "as a size"),
            ("64k", "as a size"),
            ("2024", "as a size"),
            ("max", "as a size"),
            ("control", "/dev/mapper/control"),
            ("..", "begin with a letter"),
            ("docker", "Docker's own pool"),
        ] {
            let error = PoolName::of_new(text).unwrap_err().to_string();
            assert!(error.contains(why), "{text:?}: {error}");
        }
        for text in ["p20G", "20Gx", "maximum", "1.web"] {
            assert!(PoolName::of_new(text).is_ok(), "{text}");
        }
        assert!(PoolName::new("2024").is_ok(), "what is there goes on");
    }

    #[test]
    fn the_longest_name_still_fits_the_kernel_with_its_suffix() {
        let name = PoolName::new(&"a".repeat(MAX_NAME)).unwrap();
        assert!(name.metadata_device().len() <= 127);
    }
}
