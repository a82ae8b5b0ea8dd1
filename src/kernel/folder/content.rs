//! The bytes of a file: where they are, and as many of them as can be read.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::os::unix::fs::FileExt;

use nix::errno::Errno;
use nix::sys::stat::fstat;
use nix::unistd::{Whence, lseek64};

use super::Status;
use crate::kernel::{Called, KernelError, errno_from};

/// How much is read at once.
const PIECE: usize = 256 << 10;
/// What is tried alone where a piece cannot be read: no file system has smaller blocks that matter.
const SMALL: usize = 4 << 10;
/// The most extents a file is told in. Go's archive/tar, which is Docker's, reads a map of a sparse file up to 1 MiB.
const MOST: usize = 16 << 10;

/// An open file's bytes.
#[derive(Debug)]
pub struct Content {
    file: File,
    size: u64,
    extents: Vec<Range<u64>>,
}

/// What was filled with zeros, since it could not be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Filled {
    /// How many bytes.
    pub bytes: u64,
    /// Where the first of them is.
    pub first: u64,
    /// What the kernel said; nothing when the file has become shorter.
    pub errno: Option<Errno>,
}

impl Content {
    /// Looks where the file has data.
    ///
    /// # Errors
    /// As fstat(2). A file system that does not know holes has none.
    pub fn of(file: File) -> Result<Self, KernelError> {
        let status = Status::of(&fstat(&file).called("fstat", "an open file")?);
        let size = status.size;
        // Asked only where there can be one.
        let extents = if status.allocated < size { extents(&file, size) } else { whole(size) };
        Ok(Self { file, size, extents })
    }

    /// Returns its length in bytes when it was opened.
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Returns where it has data, in order and apart from each other; the rest reads as zeros.
    pub fn extents(&self) -> &[Range<u64>] {
        &self.extents
    }

    /// Whether it has holes.
    pub fn is_sparse(&self) -> bool {
        self.extents != whole(self.size)
    }

    /// Hands the data over, extent after extent and always all of it: what cannot be read is zeros, and is told.
    ///
    /// # Errors
    /// What `take` returned; nothing more is read then.
    pub fn read(&self, take: &mut dyn FnMut(u64, &[u8]) -> io::Result<()>) -> io::Result<Filled> {
        let mut buffer = vec![0; PIECE.min(usize::try_from(self.size).unwrap_or(PIECE))];
        let mut filled = Filled::default();
        for extent in &self.extents {
            let mut at = extent.start;
            while at < extent.end {
                let length = usize::try_from(extent.end - at).unwrap_or(PIECE).min(buffer.len());
                let Some(piece) = buffer.get_mut(..length) else { break };
                self.fill(at, piece, &mut filled);
                take(at, piece)?;
                at += length as u64;
            }
        }
        Ok(filled)
    }

    /// Whether another file has the same bytes, holes read as zeros.
    ///
    /// # Errors
    /// When a part of either cannot be read, or has become shorter.
    pub fn is_same(&self, other: &Self) -> io::Result<bool> {
        if self.size != other.size {
            return Ok(false);
        }
        let (mut own, mut others) = (vec![0; PIECE], vec![0; PIECE]);
        let mut filled = Filled::default();
        let mut at = 0;
        while let Some(data) = [self.data_from(at), other.data_from(at)].into_iter().flatten().min() {
            let length = usize::try_from(self.size - data).unwrap_or(PIECE).min(PIECE);
            let (Some(own), Some(others)) = (own.get_mut(..length), others.get_mut(..length)) else { break };
            self.fill(data, own, &mut filled);
            other.fill(data, others, &mut filled);
            if filled.bytes > 0 {
                return Err(filled.errno.unwrap_or(Errno::EIO).into());
            }
            if own != others {
                return Ok(false);
            }
            at = data + length as u64;
        }
        Ok(true)
    }

    /// Returns where the first data from there on is.
    fn data_from(&self, at: u64) -> Option<u64> {
        let extent = self.extents.get(self.extents.partition_point(|extent| extent.end <= at))?;
        Some(extent.start.max(at))
    }

    fn fill(&self, at: u64, piece: &mut [u8], filled: &mut Filled) {
        if read_whole_at(&self.file, at, piece).is_ok() {
            return;
        }
        let mut offset = at;
        for small in piece.chunks_mut(SMALL) {
            if let Err((read, errno)) = read_whole_at(&self.file, offset, small) {
                let lost = small.get_mut(read..).unwrap_or_default();
                lost.fill(0);
                if filled.bytes == 0 {
                    *filled = Filled { bytes: 0, first: offset + read as u64, errno };
                }
                filled.bytes += lost.len() as u64;
            }
            offset += small.len() as u64;
        }
    }
}

/// Reads all of it, or returns how much was read and why no more.
fn read_whole_at(file: &File, at: u64, piece: &mut [u8]) -> Result<(), (usize, Option<Errno>)> {
    let mut read = 0;
    while let Some(rest) = piece.get_mut(read..)
        && !rest.is_empty()
    {
        match file.read_at(rest, at + read as u64) {
            Ok(0) => return Err((read, None)),
            Ok(count) => read += count,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err((read, Some(errno_from(&e)))),
        }
    }
    Ok(())
}

fn whole(size: u64) -> Vec<Range<u64>> {
    if size == 0 { Vec::new() } else { std::iter::once(0..size).collect() }
}

fn extents(file: &File, size: u64) -> Vec<Range<u64>> {
    let mut found: Vec<Range<u64>> = Vec::new();
    // Holes up to this length count as data; grows when there are too many.
    let mut smallest = 0;
    let mut at = 0;
    while at < size {
        let data = match seek(file, at, Whence::SeekData) {
            Ok(data) if (at..size).contains(&data) => data,
            // No data any more.
            Err(Errno::ENXIO) | Ok(_) => break,
            Err(_) => {
                found.push(at..size);
                break;
            }
        };
        let end = seek(file, data, Whence::SeekHole).ok().filter(|end| *end > data).unwrap_or(size).min(size);
        match found.last_mut() {
            Some(last) if data - last.end <= smallest => last.end = end,
            _ => found.push(data..end),
        }
        while found.len() > MOST {
            smallest = (smallest * 2).max(SMALL as u64);
            found = joined(found, smallest);
        }
        at = end;
    }
    found
}

fn seek(file: &File, at: u64, whence: Whence) -> Result<u64, Errno> {
    let found = lseek64(file, i64::try_from(at).map_err(|_| Errno::EOVERFLOW)?, whence)?;
    u64::try_from(found).map_err(|_| Errno::EOVERFLOW)
}

fn joined(extents: Vec<Range<u64>>, smallest: u64) -> Vec<Range<u64>> {
    let mut all: Vec<Range<u64>> = Vec::with_capacity(extents.len());
    for extent in extents {
        match all.last_mut() {
            Some(last) if extent.start - last.end <= smallest => last.end = extent.end,
            _ => all.push(extent),
        }
    }
    all
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn content(file: &File) -> Content {
        Content::of(file.try_clone().unwrap()).unwrap()
    }

    #[test]
    fn data_is_found_between_holes() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(1 << 40).unwrap();
        assert_eq!(content(&file).extents(), []);
        assert!(content(&file).is_sparse());
        for at in [0, 1 << 30, (1 << 40) - 4096] {
            file.write_all_at(&[7; 4096], at).unwrap();
        }
        let found = content(&file);
        let starts: Vec<u64> = found.extents().iter().map(|e| e.start).collect();
        assert_eq!(starts, [0, 1 << 30, (1 << 40) - 4096]);
        let mut read = Vec::new();
        let filled = found.read(&mut |at, bytes| {
            read.push((at, bytes.to_vec()));
            Ok(())
        });
        assert_eq!(filled.unwrap(), Filled::default());
        assert!(read.iter().all(|(_, bytes)| bytes.iter().all(|b| *b == 7)), "{read:?}");
        assert_eq!(read.len(), 3);
    }

    #[test]
    fn holes_are_zeros_and_one_other_byte_is_found() {
        let made = |places: &[(u64, u8)]| {
            let file = tempfile::tempfile().unwrap();
            file.set_len(10 << 20).unwrap();
            places.iter().for_each(|(at, byte)| file.write_all_at(&[*byte; 5000], *at).unwrap());
            content(&file)
        };
        let one = made(&[(0, 7), (5 << 20, 8)]);
        assert!(one.is_same(&made(&[(0, 7), (1 << 20, 0), (5 << 20, 8)])).unwrap());
        for other in [&[(0, 7)][..], &[(0, 7), (5 << 20, 9)], &[(0, 7), (5 << 20, 8), ((10 << 20) - 5000, 1)]] {
            assert!(!one.is_same(&made(other)).unwrap() && !made(other).is_same(&one).unwrap());
        }
        assert!(!one.is_same(&content(&tempfile::tempfile().unwrap())).unwrap());
    }

    #[test]
    fn what_is_gone_when_it_is_read_is_zeros_and_is_told() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&[7; 10_000], 0).unwrap();
        let found = content(&file);
        assert!(!found.is_sparse());
        file.set_len(5_000).unwrap();
        let mut read = Vec::new();
        let filled = found.read(&mut |_, bytes| {
            read.extend_from_slice(bytes);
            Ok(())
        });
        assert_eq!(filled.unwrap(), Filled { bytes: 5_000, first: 5_000, errno: None });
        assert_eq!(read, [vec![7; 5_000], vec![0; 5_000]].concat());
    }

    #[test]
    fn what_the_kernel_does_not_give_up_is_zeros_and_is_told() {
        // Its first page is in no process: EIO, as from a disk that is broken there.
        let file = File::open("/proc/self/mem").unwrap();
        let extents = std::iter::once(0..10_000).collect();
        let mut read = Vec::new();
        let filled = Content { file, size: 10_000, extents }.read(&mut |_, bytes| {
            read.extend_from_slice(bytes);
            Ok(())
        });
        assert_eq!(filled.unwrap(), Filled { bytes: 10_000, first: 0, errno: Some(Errno::EIO) });
        assert_eq!(read, vec![0; 10_000]);
    }

    #[test]
    fn a_file_with_many_holes_is_told_in_a_bounded_number_of_extents() {
        let file = tempfile::tempfile().unwrap();
        let count = MOST as u64 + 2_000;
        // The longer holes stay.
        let place = |number: u64| number * 8192 + if number > 1_000 { 1 << 30 } else { 0 };
        for number in 0..count {
            file.write_all_at(&[7], place(number)).unwrap();
        }
        let found = content(&file);
        assert!((2..=MOST).contains(&found.extents().len()), "{}", found.extents().len());
        for number in 0..count {
            let at = place(number);
            let holding = found.extents().partition_point(|e| e.end <= at);
            assert!(found.extents().get(holding).is_some_and(|e| e.contains(&at)));
        }
    }
}
