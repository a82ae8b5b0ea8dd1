//! An image of a volume: its blocks, read through the pool's metadata without the kernel's device-mapper.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::metadata::Copy;
use super::parts::{Part, Parts};
use super::{Said, Volume, work_dir};
use crate::kernel::interrupt::Held;
use crate::kernel::{block, errno_of, fs};
use crate::metadata::mapping::{self, Run};
use crate::metadata::{BadTree, Superblock};
use crate::ops::contents::source::Place;
use crate::units::{Bytes, DataBlocks, MetaBlock};

/// How much is read at once.
const PIECE: u64 = 1 << 20;
/// What is tried alone where that cannot be read, and what is left out when it is zeros.
const SMALL: usize = 4 << 10;

/// What a volume maps.
pub(super) struct Mapped<'a> {
    copy: &'a Copy,
    superblock: Superblock,
    root: MetaBlock,
    volume: Volume,
}

/// What could not be read, and is zeros.
#[derive(Debug, Default)]
pub(super) struct Unread {
    pub(super) bytes: u64,
    first: u64,
    why: String,
}

impl<'a> Mapped<'a> {
    /// Looks where its tree begins.
    pub(super) fn of(copy: &'a Copy, volume: Volume) -> Result<Self> {
        let superblock = copy.superblock()?;
        let roots =
            mapping::roots(&superblock, |at| copy.block(at)).context("looking for the volume in the metadata")?;
        let root = roots.get(&u64::from(volume.id)).copied();
        let root = root.with_context(|| format!("the pool has no volume {}", volume.id))?;
        Ok(Self { copy, superblock, root, volume })
    }

    fn runs(&self) -> impl Iterator<Item = Result<Run, BadTree>> {
        mapping::runs(&self.superblock, self.root, |at| self.copy.block(at))
    }

    fn bytes(&self, blocks: u64) -> Bytes {
        self.superblock.block_size.bytes_of(DataBlocks::new(blocks))
    }

    /// Returns how many bytes it maps, of its own length; the whole tree is read for it.
    fn size(&self) -> Result<Bytes> {
        let mut sum = 0_u64;
        for run in self.runs() {
            let (_, at, length) = self.place(&run.context("reading where its blocks are")?);
            sum = sum.saturating_add(length.min(self.volume.size.get().saturating_sub(at)));
        }
        Ok(Bytes::new(sum))
    }

    /// Where a run is in the data and in the volume, and how long it is, in bytes.
    fn place(&self, run: &Run) -> (u64, u64, u64) {
        let [data, at, length] =
            [run.data.get(), run.begin.get(), run.length.get()].map(|blocks| self.bytes(blocks).get());
        (data, at, length)
    }

    /// Returns what is at the beginning of the volume; nothing when that was never written.
    pub(super) fn head(&self, data: &Part, length: usize) -> Result<Option<Vec<u8>>> {
        let Some(first) = self.runs().next().transpose()?.filter(|run| run.begin.get() == 0) else { return Ok(None) };
        let (from, ..) = self.place(&first);
        Ok(Some(block::read_direct(&data.file, from, length)?))
    }

    /// Copies it.
    fn copied(&self, data: &Part, image: &File, held: &Held, said: &mut Said) -> Result<()> {
        let mut unread = Unread::default();
        image.set_len(self.volume.size.get()).context("making the image as long as the volume")?;
        for run in self.runs() {
            let (from, to, length) = self.place(&run?);
            let length = length.min(self.volume.size.get().saturating_sub(to));
            let mut done = 0;
            while done < length {
                if held.came() {
                    bail!("a signal came");
                }
                let piece = (length - done).min(PIECE);
                let bytes = unread.read(&data.file, from + done, usize::try_from(piece)?);
                for (number, small) in bytes.chunks(SMALL).enumerate() {
                    if small.iter().any(|byte| *byte != 0) {
                        let at = to + done + (number * SMALL) as u64;
                        image.write_all_at(small, at).context("writing the image")?;
                    }
                }
                done += piece;
            }
        }
        if unread.bytes > 0 {
            said.lost.push(format!(
                "{} bytes of volume {} could not be read from {}, the first at byte {} ({}), and are zeros",
                unread.bytes,
                self.volume.id,
                data.path.display(),
                unread.first,
                unread.why
            ));
        }
        Ok(())
    }
}

impl Unread {
    /// Returns all of it: what cannot be read is zeros, and is counted.
    pub(super) fn read(&mut self, file: &File, from: u64, length: usize) -> Vec<u8> {
        match block::read_direct(file, from, length) {
            Ok(bytes) if bytes.len() == length => return bytes,
            _ => {}
        }
        let mut all = Vec::with_capacity(length);
        while all.len() < length {
            let at = from + all.len() as u64;
            let wanted = SMALL.min(length - all.len());
            let (bytes, why) = match block::read_direct(file, at, wanted) {
                Ok(bytes) => (bytes, "it ends before".to_owned()),
                Err(e) => (Vec::new(), errno_of(&e).map_or_else(|| format!("{e:#}"), |errno| errno.desc().to_owned())),
            };
            if bytes.len() < wanted {
                if self.bytes == 0 {
                    (self.first, self.why) = (at + bytes.len() as u64, why);
                }
                self.bytes += (wanted - bytes.len()) as u64;
            }
            let end = all.len() + wanted;
            all.extend(bytes);
            all.resize(end, 0);
        }
        all
    }
}

/// Copies a volume into a file that goes with the last who has it open.
pub(super) fn of(
    place: &Place<'_>,
    parts: &Parts,
    copy: &Copy,
    volume: Volume,
    held: &Held,
    said: &mut Said,
) -> Result<File> {
    let mapped = Mapped::of(copy, volume)?;
    let size = mapped.size()?;
    let folder: PathBuf = work_dir::choose(place, &parts.data.path, size)?;
    let image = fs::nameless(&folder)?;
    mapped.copied(&parts.data, &image, held, said)?;
    said.notes.push(note(volume, size, &folder));
    Ok(image)
}

fn note(volume: Volume, size: Bytes, folder: &Path) -> String {
    format!(
        "volume {} is read without device-mapper: its {} were copied to a file without a name in {}, which goes with this \
         command",
        volume.id,
        size.human(),
        folder.display()
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn what_a_short_file_lacks_is_zeros_and_counted() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&[7; 10_000], 0).unwrap();
        let mut unread = Unread::default();
        let bytes = unread.read(&file, 4096, 16_384);
        assert_eq!((bytes.len(), bytes.iter().filter(|byte| **byte == 7).count()), (16_384, 10_000 - 4096));
        assert_eq!((unread.bytes, unread.first), (16_384 - 5904, 10_000));
    }
}
