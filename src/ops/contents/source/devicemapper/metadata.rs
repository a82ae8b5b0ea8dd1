//! A copy of a pool's metadata, in memory.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use super::image::Unread;
use super::parts::Part;
use crate::kernel::folder::Content;
use crate::kernel::interrupt::Held;
use crate::kernel::loopdev::{self, LoopHeld};
use crate::kernel::{block, memory};
use crate::metadata::{BLOCK, Superblock};
use crate::process;
use crate::units::{Bytes, META_BLOCK_BYTES, MetaBlock};

/// How much of a device is read at once.
const PIECE: usize = 1 << 20;
/// How often it is copied when it changes meanwhile.
const TIMES: usize = 3;
/// The kernel uses no more of a metadata device (`THIN_METADATA_MAX_SECTORS`, 255 bitmaps): what is longer is cut.
const LONGEST: u64 = 255 * 16_320 * META_BLOCK_BYTES;

/// A copy.
#[derive(Debug)]
pub(super) struct Copy {
    pub(super) file: File,
    /// How many of its bytes are not zeros.
    kept: u64,
    /// What could not be read, and is zeros.
    pub(super) unread: Option<String>,
}

/// What `thin_check` says of one.
#[derive(Debug)]
pub(super) enum Check {
    Whole,
    Damaged,
    /// It says nothing, and why.
    NotDone(String),
}

impl Copy {
    /// Copies what is in use of a file or a device; again while somebody writes to it.
    pub(super) fn of(part: &Part, held: &Held) -> Result<Self> {
        for _ in 0..TIMES {
            let copy = Self::once(part, held)?;
            let mut copied = vec![0; BLOCK];
            let is_copied = copy.file.read_exact_at(&mut copied, 0).is_ok();
            if !is_copied || copied == Unread::default().read(&part.file, 0, BLOCK) {
                return Ok(copy);
            }
        }
        bail!("copying the metadata into memory: somebody has changed it meanwhile, {TIMES} times in a row")
    }

    fn once(part: &Part, held: &Held) -> Result<Self> {
        let source = part.file.try_clone().context("opening the metadata")?;
        let limit = Bytes::new(memory::available()?.get() / 2);
        let is_file = source.metadata().context("looking at the metadata")?.is_file();
        let length = if is_file { source.metadata()?.len() } else { block::size_of(&source)?.get() };
        let length = length.min(LONGEST) / META_BLOCK_BYTES * META_BLOCK_BYTES;
        let file = memory::file("dmpool-rescue-metadata", Bytes::new(length))?;
        let mut kept = 0;
        let mut take = |at: u64, bytes: &[u8]| -> io::Result<()> {
            if held.came() {
                return Err(io::Error::other("a signal came"));
            }
            for (number, block) in bytes.chunks(BLOCK).enumerate() {
                let at = at + (number * BLOCK) as u64;
                if at < length && block.iter().any(|byte| *byte != 0) {
                    kept += block.len() as u64;
                    if kept > limit.get() {
                        return Err(io::Error::other(format!("it takes more than {}, half the memory", limit.human())));
                    }
                    file.write_all_at(block, at)?;
                }
            }
            Ok(())
        };
        // What cannot be read is zeros, as checksums will tell where it is in use.
        let bytes = if is_file {
            Content::of(source)?.read(&mut take).map(|filled| filled.bytes)
        } else {
            read(&source, length, &mut take)
        };
        let unread = match bytes.context("copying the metadata into memory")? {
            0 => None,
            bytes => Some(format!(
                "{bytes} bytes of the metadata could not be read from {}, and are zeros in its copy",
                part.path.display()
            )),
        };
        Ok(Self { file, kept, unread })
    }

    /// Reads its superblock, and gives it the length that this counts.
    pub(super) fn superblock(&self) -> Result<Superblock> {
        let mut bytes = vec![0; BLOCK];
        self.file.read_exact_at(&mut bytes, 0).context("reading the copied superblock")?;
        let superblock = Superblock::parse(&bytes).context("reading the superblock")?;
        let length = superblock.metadata_total.get().saturating_mul(META_BLOCK_BYTES);
        ensure!(length <= LONGEST, "the superblock counts {} metadata blocks", superblock.metadata_total.get());
        self.file.set_len(length).context("cutting the copy to its length")?;
        Ok(superblock)
    }

    /// Returns a block of it.
    pub(super) fn block(&self, at: MetaBlock) -> Result<Vec<u8>, String> {
        let mut bytes = vec![0; BLOCK];
        let offset = at.get().checked_mul(META_BLOCK_BYTES).ok_or("it is beyond the end")?;
        self.file.read_exact_at(&mut bytes, offset).map_err(|e| e.to_string())?;
        Ok(bytes)
    }

    /// Attaches it to a loop device, which goes with its last user.
    pub(super) fn attach(&self) -> Result<LoopHeld> {
        loopdev::attach(&self.file, Path::new("dmpool-rescue-metadata"), true, false)
    }

    /// Looks whether it is whole, with `thin_check`.
    pub(super) fn checked(&self) -> Check {
        // These programs read past the page cache, which a file in memory cannot.
        let held = match self.attach() {
            Ok(held) => held,
            Err(e) => return Check::NotDone(format!("{e:#}")),
        };
        match process::run("thin_check", &[OsStr::new("-q"), held.path.as_os_str()]) {
            Ok(_) => Check::Whole,
            Err(e) if e.missing => Check::NotDone("thin_check is not installed".to_owned()),
            Err(_) => Check::Damaged,
        }
    }

    /// Repairs it with `thin_repair`, into another copy.
    pub(super) fn repaired(&self) -> Result<Self> {
        let length = self.file.metadata().context("looking at the copy")?.len();
        let room = Bytes::new(memory::available()?.get() / 2);
        ensure!(self.kept <= room.get(), "a repaired copy may take more than {}, half the memory", room.human());
        let file = memory::file("dmpool-rescue-repaired", Bytes::new(length))?;
        let repaired = Self { file, kept: self.kept, unread: None };
        let (from, to) = (self.attach()?, repaired.attach()?);
        let [input, output] = ["-i", "-o"].map(OsStr::new);
        process::run("thin_repair", &[input, from.path.as_os_str(), output, to.path.as_os_str()])?;
        Ok(repaired)
    }
}

/// Past the page cache, where a device is open for it: the kernel writes a pool's metadata past it, too. Returns how many bytes could
/// not be read.
fn read(source: &File, length: u64, take: &mut dyn FnMut(u64, &[u8]) -> io::Result<()>) -> io::Result<u64> {
    let mut unread = Unread::default();
    let mut at = 0;
    while at < length {
        let wanted = usize::try_from(length - at).unwrap_or(PIECE).min(PIECE);
        take(at, &unread.read(source, at, wanted))?;
        at += wanted as u64;
    }
    Ok(unread.bytes)
}
