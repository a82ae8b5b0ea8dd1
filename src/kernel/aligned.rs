//! Memory that O_DIRECT takes, filled and written again and again: a copy of a terabyte needs no more of it than one of a file.

use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;

use anyhow::{Context, Result};
use nix::errno::Errno;

use super::Called;

/// What O_DIRECT wants buffers to begin at: no device has larger logical blocks.
const ALIGNMENT: usize = 4096;

/// A buffer of a fixed length.
#[derive(Debug)]
pub struct Aligned {
    memory: Vec<u8>,
    start: usize,
}

impl Aligned {
    /// Returns one of zeros.
    pub fn new(length: usize) -> Self {
        let memory = vec![0; length + ALIGNMENT];
        let start = memory.as_ptr().align_offset(ALIGNMENT);
        Self { memory, start }
    }

    /// Returns its first bytes; fewer when it has no more.
    pub fn bytes(&self, length: usize) -> &[u8] {
        let rest = self.memory.get(self.start..).unwrap_or_default();
        rest.get(..length).unwrap_or(rest)
    }

    /// Returns its first bytes, to be written; fewer when it has no more.
    pub fn bytes_mut(&mut self, length: usize) -> &mut [u8] {
        let start = self.start;
        let end = self.memory.len().min(start.saturating_add(length));
        self.memory.get_mut(start..end).unwrap_or_default()
    }
}

/// Fills a part of such a buffer from a file or device. Offset and length are multiples of 4096 where that is open with O_DIRECT.
///
/// # Errors
/// What the read said; EIO where the file ends before.
pub fn fill(into: &mut [u8], file: &File, offset: u64) -> Result<()> {
    let length = into.len();
    let context = || format!("reading {length} bytes at {offset}");
    let mut done = 0;
    while let Some(rest) = into.get_mut(done..).filter(|rest| !rest.is_empty()) {
        let at = offset.saturating_add(u64::try_from(done)?);
        match file.read_at(rest, at) {
            Ok(0) => {
                return Err(Errno::EIO).called("pread", format!("byte {at}, where it ends")).with_context(context);
            }
            Ok(read) => done += read,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e).called("pread", format!("byte {at}")).with_context(context),
        }
    }
    Ok(())
}

/// Writes such a buffer, or its beginning, to a file or device; as [`fill`].
///
/// # Errors
/// What the write said.
pub fn put(from: &[u8], file: &File, offset: u64) -> Result<()> {
    let context = || format!("writing {} bytes at {offset}", from.len());
    let mut done = 0;
    while let Some(rest) = from.get(done..).filter(|rest| !rest.is_empty()) {
        let at = offset.saturating_add(u64::try_from(done)?);
        match file.write_at(rest, at) {
            Ok(0) => return Err(Errno::EIO).called("pwrite", format!("byte {at}")).with_context(context),
            Ok(written) => done += written,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e).called("pwrite", format!("byte {at}")).with_context(context),
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_is_read_again_and_an_early_end_is_an_error() {
        let mut buffer = Aligned::new(8192);
        assert_eq!(buffer.bytes(4096).as_ptr().align_offset(ALIGNMENT), 0);
        buffer.bytes_mut(8192).fill(7);
        let file = tempfile::tempfile().unwrap();
        put(buffer.bytes(8192), &file, 4096).unwrap();
        let mut other = Aligned::new(12_288);
        fill(other.bytes_mut(12_288), &file, 0).unwrap();
        assert_eq!(other.bytes(12_288).iter().map(|byte| usize::from(*byte)).sum::<usize>(), 7 * 8192);
        let why = fill(other.bytes_mut(12_288), &file, 4096).unwrap_err();
        assert!(format!("{why:#}").contains("where it ends"), "{why:#}");
    }
}
