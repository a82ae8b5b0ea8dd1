//! A dm device over another one, whose behaviour a test can change while it is in use.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::sys::{self, PREFIX};

/// How the device treats what is asked of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Behaviour {
    /// Passes everything on.
    Linear,
    /// Every read and write is an I/O error (dm-error).
    Error,
    /// Reads are passed on, writes are taken and thrown away (dm-flakey `drop_writes`).
    DropWrites,
    /// Reads are passed on, writes are I/O errors (dm-flakey `error_writes`).
    ErrorWrites,
    /// Good for `up` seconds, then every I/O is an error for `down` seconds, and again (dm-flakey).
    Flakey {
        /// Seconds.
        up: u32,
        /// Seconds.
        down: u32,
    },
    /// Waits before it passes on (dm-delay).
    Delay {
        /// Before a read.
        read: Duration,
        /// Before a write or flush.
        write: Duration,
    },
    /// Passes on, and logs every write to this device (dm-log-writes, read by [`super::log_writes`]). Switched to a
    /// second time, the log begins anew.
    LogWrites(PathBuf),
}

impl Behaviour {
    /// The dm table line for `sectors` sectors of `below`.
    fn table(&self, below: &Path, sectors: u64) -> String {
        let below = below.display();
        // An up time of 0 means "down from now on"; the down time only says when the next round of the same begins.
        let down = "0 3600";
        match self {
            Self::Linear => format!("0 {sectors} linear {below} 0"),
            Self::Error => format!("0 {sectors} error"),
            Self::DropWrites => format!("0 {sectors} flakey {below} 0 {down} 1 drop_writes"),
            Self::ErrorWrites => format!("0 {sectors} flakey {below} 0 {down} 1 error_writes"),
            Self::Flakey { up, down } => format!("0 {sectors} flakey {below} 0 {up} {down}"),
            Self::Delay { read, write } => {
                format!("0 {sectors} delay {below} 0 {} {below} 0 {}", read.as_millis(), write.as_millis())
            }
            Self::LogWrites(log) => format!("0 {sectors} log-writes {below} {}", log.display()),
        }
    }
}

/// The wrapping device, removed when dropped.
#[derive(Debug)]
pub struct Wrapped {
    name: String,
    below: PathBuf,
    sectors: u64,
}

impl Wrapped {
    /// Makes `/dev/mapper/NAME` over the whole of `below`.
    ///
    /// # Errors
    /// When the name does not begin with `dmpool-test-`, or dmsetup fails.
    pub fn new(name: &str, below: &Path, behaviour: &Behaviour) -> Result<Self> {
        ensure!(name.starts_with(PREFIX), "{name} is not named {PREFIX}*");
        let sectors = sys::size_of(below)? / 512;
        let table = behaviour.table(below, sectors);
        sys::dmsetup(["create", name, "--table", &table]).run().checked()?;
        sys::settle();
        Ok(Self { name: name.into(), below: below.into(), sectors })
    }

    /// `/dev/mapper/NAME`.
    #[must_use]
    pub fn device(&self) -> PathBuf {
        Path::new("/dev/mapper").join(&self.name)
    }

    /// The dm name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Behaves like this from now on. I/O under way ends in the old way; nothing above is frozen or flushed, since a
    /// device that fails could not be.
    ///
    /// # Errors
    /// When dmsetup fails; the old behaviour then goes on.
    pub fn become_(&self, behaviour: &Behaviour) -> Result<()> {
        let table = behaviour.table(&self.below, self.sectors);
        sys::dmsetup(["load", &self.name, "--table", &table]).run().checked()?;
        let resumed = sys::dmsetup(["resume", "--nolockfs", &self.name]).run();
        if !resumed.ok() {
            let _ = sys::dmsetup(["clear", &self.name]).run();
            let _ = sys::dmsetup(["resume", &self.name]).run();
        }
        resumed.checked().with_context(|| format!("cannot switch {} to {behaviour:?}", self.name))?;
        Ok(())
    }

    /// Puts a mark into the log of a device that logs its writes.
    ///
    /// # Errors
    /// When it does not log, dmsetup fails, or the text is not one word: the kernel takes no other.
    pub fn mark(&self, text: &str) -> Result<()> {
        ensure!(!text.is_empty() && !text.contains(char::is_whitespace), "a mark is one word, not {text:?}");
        sys::dmsetup(["message", &self.name, "0", "mark", text]).run().checked()?;
        Ok(())
    }

    /// Removes it now. After this a log of writes is whole: the kernel writes what is pending and an end mark.
    ///
    /// # Errors
    /// When it is in use; it stays then, for [`super::sweep`].
    pub fn remove(self) -> Result<()> {
        let ran = sys::dmsetup(["remove", "--retry", &self.name]).run();
        std::mem::forget(self);
        ran.checked().map(drop)
    }
}

impl Drop for Wrapped {
    fn drop(&mut self) {
        let _ = sys::dmsetup(["remove", "--retry", &self.name]).run();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_what_the_kernel_documents() {
        let table = |behaviour: Behaviour| behaviour.table(Path::new("/dev/x"), 2048);
        assert_eq!(table(Behaviour::Linear), "0 2048 linear /dev/x 0");
        assert_eq!(table(Behaviour::Error), "0 2048 error");
        assert_eq!(table(Behaviour::DropWrites), "0 2048 flakey /dev/x 0 0 3600 1 drop_writes");
        assert_eq!(table(Behaviour::Flakey { up: 5, down: 1 }), "0 2048 flakey /dev/x 0 5 1");
        let delay = Behaviour::Delay { read: Duration::ZERO, write: Duration::from_millis(20) };
        assert_eq!(table(delay), "0 2048 delay /dev/x 0 0 /dev/x 0 20");
        assert_eq!(table(Behaviour::LogWrites("/dev/log".into())), "0 2048 log-writes /dev/x /dev/log");
    }
}
