//! What the kernel logged while a test ran.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;

use anyhow::{Context, Result};

/// The kernel log from one moment on.
#[derive(Debug)]
pub struct KernelLog {
    file: File,
}

impl KernelLog {
    /// Begins to listen: only later messages are told.
    ///
    /// # Errors
    /// When /dev/kmsg cannot be opened.
    pub fn from_now() -> Result<Self> {
        let mut file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open("/dev/kmsg")
            .context("cannot open /dev/kmsg")?;
        file.seek(SeekFrom::End(0)).context("cannot go to the end of /dev/kmsg")?;
        Ok(Self { file })
    }

    /// The messages since the start or the last call, oldest first, without priority and time.
    ///
    /// # Errors
    /// When /dev/kmsg cannot be read. Messages that were overwritten before they were read are passed over.
    pub fn lines(&mut self) -> Result<Vec<String>> {
        let mut lines = Vec::new();
        let mut record = vec![0; 8192];
        loop {
            match self.file.read(&mut record) {
                Ok(0) => return Ok(lines),
                Ok(n) => {
                    let text = String::from_utf8_lossy(record.get(..n).unwrap_or_default()).into_owned();
                    lines.extend(message_of(&text).map(str::to_owned));
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(lines),
                // EPIPE: the ring buffer went round; the next read goes on with the oldest that is left.
                Err(e) if e.kind() == ErrorKind::BrokenPipe => {}
                Err(e) => return Err(e).context("cannot read /dev/kmsg"),
            }
        }
    }
}

/// The message of one record, `PRIORITY,SEQUENCE,TIME,FLAGS;MESSAGE` and key lines that begin with a blank.
fn message_of(record: &str) -> Option<&str> {
    record.split_once(';').map(|(_, rest)| rest.split('\n').next().unwrap_or(rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_is_cut_out() {
        let record = "6,339,5140900,-;NET: Registered PF_INET6; family\n SUBSYSTEM=net\n";
        assert_eq!(message_of(record), Some("NET: Registered PF_INET6; family"));
        assert_eq!(message_of("garbage"), None);
    }
}
