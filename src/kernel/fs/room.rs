//! Blocks of a file before anything is written into them, and those that nothing was written into taken from it again.

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use anyhow::Result;
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, PosixFadviseAdvice, fallocate, posix_fadvise};
use nix::unistd::{Whence, lseek};

use crate::kernel::{Called, KernelError};
use crate::units::Bytes;

/// How much is read at once of what seems to be a hole.
const READ: u64 = 1 << 20;

/// Gives a part of a file blocks, and leaves its length and contents alone.
///
/// # Errors
/// As fallocate(2): `ENOSPC`, `EDQUOT`; `EOPNOTSUPP` where the file system cannot.
pub fn give_blocks(file: &File, path: &Path, from: Bytes, length: Bytes) -> Result<(), KernelError> {
    let offset = |bytes: Bytes| i64::try_from(bytes.get()).map_err(|_| Errno::EFBIG);
    let (from, length) = (offset(from), offset(length));
    let give = || loop {
        match fallocate(file, FallocateFlags::FALLOC_FL_KEEP_SIZE, from?, length?) {
            Err(Errno::EINTR) => {}
            given => return given,
        }
    };
    give().called("fallocate", path.display())
}

/// Returns how much an open file occupies.
///
/// # Errors
/// As fstat(2).
pub fn occupies(file: &File, path: &Path) -> Result<Bytes, KernelError> {
    let metadata = file.metadata().called("fstat", path.display())?;
    Ok(Bytes::new(metadata.blocks().saturating_mul(512)))
}

/// Takes the blocks from the beginning of a file that nothing was written into. Nobody may write to it meanwhile; `may_go_on` is asked before each piece.
///
/// Each piece is read before: whatever the file system calls a hole, only zeros become one.
///
/// # Errors
/// When the file cannot be written out, read or made sparse; what `may_go_on` says.
pub fn take_unwritten(file: &File, path: &Path, within: Bytes, may_go_on: &dyn Fn() -> Result<()>) -> Result<()> {
    file.sync_all().called("fsync", path.display())?;
    let end = file.metadata().called("fstat", path.display())?.len().min(within.get());
    let seek = |at: u64, what: Whence| -> Result<Option<u64>> {
        match lseek(file, i64::try_from(at)?, what) {
            Ok(found) => Ok(Some(u64::try_from(found)?)),
            Err(Errno::ENXIO) => Ok(None),
            Err(errno) => Err(errno).called("lseek", path.display()).map_err(Into::into),
        }
    };
    // What was read of an unwritten part counts as data while it is in memory (`mapping_seek_hole_data`, mm/filemap.c).
    let _ = posix_fadvise(file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
    let mut holes = Vec::new();
    let mut at = 0;
    while let Some(hole) = seek(at, Whence::SeekHole)?.filter(|hole| *hole < end) {
        at = seek(hole, Whence::SeekData)?.unwrap_or(end).min(end);
        holes.push((hole, at));
    }
    let mut buffer = vec![0; usize::try_from(READ)?];
    for (from, to) in holes {
        take_zeros(file, path, from, to, &mut buffer, may_go_on)?;
    }
    Ok(file.sync_all().called("fsync", path.display())?)
}

fn take_zeros(
    file: &File,
    path: &Path,
    from: u64,
    to: u64,
    buffer: &mut [u8],
    may_go_on: &dyn Fn() -> Result<()>,
) -> Result<()> {
    // All before `taken` was looked at; what lies between it and `at` is zeros.
    let (mut taken, mut at) = (from, from);
    while at < to {
        may_go_on()?;
        let length = (to - at).min(READ);
        let piece = buffer.get_mut(..usize::try_from(length)?).unwrap_or_default();
        file.read_exact_at(piece, at).called("pread", path.display())?;
        if piece.iter().any(|byte| *byte != 0) {
            punch(file, path, taken, at)?;
            taken = at + length;
        }
        at += length;
    }
    punch(file, path, taken, to)
}

fn punch(file: &File, path: &Path, from: u64, to: u64) -> Result<()> {
    if from >= to {
        return Ok(());
    }
    let how = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    let (from, length) = (i64::try_from(from)?, i64::try_from(to - from)?);
    loop {
        match fallocate(file, how, from, length) {
            Err(Errno::EINTR) => {}
            punched => return Ok(punched.called("fallocate", path.display())?),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn what_is_written_keeps_its_blocks_and_the_rest_gives_them_back() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("data");
        let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
        file.set_len(64 * MIB).unwrap();
        let take = |within: u64| take_unwritten(&file, &path, Bytes::new(within), &|| Ok(()));
        match give_blocks(&file, &path, Bytes::new(0), Bytes::new(16 * MIB)) {
            Err(e) if e.errno == Errno::EOPNOTSUPP => return,
            given => given.unwrap(),
        }
        assert!(occupies(&file, &path).unwrap() >= Bytes::new(16 * MIB));
        file.write_all_at(b"by hand", 3 * MIB + 5).unwrap();
        file.write_all_at(&[7; 4096], 20 * MIB).unwrap();
        file.read_exact_at(&mut vec![0; 1 << 20], 10 * MIB).unwrap();
        take(4 * MIB).unwrap();
        assert!(occupies(&file, &path).unwrap() >= Bytes::new(12 * MIB), "only from its beginning");
        take_unwritten(&file, &path, Bytes::new(64 * MIB), &|| anyhow::bail!("a signal")).unwrap_err();
        take(64 * MIB).unwrap();
        assert!(occupies(&file, &path).unwrap() < Bytes::new(256 << 10));
        let mut found = [0; 7];
        file.read_exact_at(&mut found, 3 * MIB + 5).unwrap();
        assert_eq!((&found, file.metadata().unwrap().len()), (b"by hand", 64 * MIB));
        let mut page = [0; 4096];
        file.read_exact_at(&mut page, 20 * MIB).unwrap();
        assert_eq!(page, [7; 4096]);
    }
}
