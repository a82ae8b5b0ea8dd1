//! Writing Docker's and containerd's configuration: text in, text out; nothing here changes a file.
//!
//! What is not asked for stays as it is, byte for byte. What came out is read again, by the same readers that say how the
//! engine will be started, and is refused unless it says just what was wanted.

mod command_line;
pub mod containerd;
pub mod docker;
mod env_file;
pub mod hold;
pub(crate) mod json;
mod unit;

use std::io;
use std::path::{Path, PathBuf};

use super::small_file;

/// A file that is to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edit {
    /// Which, as the engine names it; it may be a symbolic link.
    pub path: PathBuf,
    /// What it says now; nothing when it is not there.
    pub before: Option<String>,
    /// What it shall say.
    pub after: String,
}

/// Why a configuration is not written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Obstacle {
    /// The reason, as it follows a colon.
    pub why: String,
    /// What was found, if more is to be said.
    pub found: Option<String>,
    /// What to do about it.
    pub next: String,
}

impl Obstacle {
    fn new(why: impl Into<String>, next: impl Into<String>) -> Self {
        Self { why: why.into(), found: None, next: next.into() }
    }

    fn found(mut self, found: impl Into<String>) -> Self {
        self.found = Some(found.into());
        self
    }
}

/// No configuration in use comes near this; a journal has to hold the old and the new one.
const LARGEST: u64 = 256 << 10;

/// Returns what a file says; nothing when it is not there.
///
/// # Errors
/// When it cannot be read, or is no text.
pub fn text_of(path: &Path) -> Result<Option<String>, Obstacle> {
    let unreadable = |why: String| {
        let next = format!("mend {}, then run this again", path.display());
        Obstacle::new(format!("`{}` cannot be read", path.display()), next).found(why)
    };
    match small_file::read_at(path, LARGEST) {
        Ok(bytes) => String::from_utf8(bytes).map(Some).map_err(|_| unreadable("it is no text".to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(unreadable(error.to_string())),
    }
}
