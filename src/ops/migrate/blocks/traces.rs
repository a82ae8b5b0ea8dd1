//! Where a pool lies that was prepared, and what tells whether somebody has written to it since.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use super::fill::Mark;
use super::record::{self, Record};
use super::source::is_free;
use crate::kernel::dm::Dm;
use crate::kernel::fs as durable;
use crate::metadata::Superblock;
use crate::ops::{members, sight};
use crate::pool::PoolName;
use crate::units::Bytes;

/// A pool of dmpool's own that was prepared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Own {
    /// Its name.
    pub name: PoolName,
    /// What was asked for, as options of a command line.
    pub asked: String,
    /// Its files, metadata and data; nothing of one on devices, which is found by its labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<[PathBuf; 2]>,
}

/// What tells whether somebody has written to a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    inode: u64,
    length: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// What tells whether somebody has written to a pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Traces {
    /// Its files, metadata and data.
    Files([Stamp; 2]),
    /// The sum of the first block of its metadata: nothing goes into a pool without a commit, and each writes another one.
    Devices {
        /// That sum.
        superblock: u32,
    },
}

fn stamp(path: &Path) -> Result<Stamp> {
    let found = fs::symlink_metadata(path).with_context(|| format!("looking at {}", path.display()))?;
    ensure!(found.is_file(), "{} is no file", path.display());
    let modified = (found.mtime(), found.mtime_nsec());
    Ok(Stamp { inode: found.ino(), length: found.len(), modified, changed: (found.ctime(), found.ctime_nsec()) })
}

impl Traces {
    /// Takes those of files, metadata and data.
    pub(super) fn of_files([metadata, data]: [PathBuf; 2]) -> Result<Self> {
        Ok(Self::Files([stamp(&metadata)?, stamp(&data)?]))
    }

    /// Whether the data that others were taken of is the same.
    pub(super) fn has_same_data(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Files([_, data]), Self::Files([_, other])) => data == other,
            // Its metadata would tell.
            (Self::Devices { .. }, Self::Devices { .. }) => true,
            _ => false,
        }
    }
}

impl Record {
    /// Returns the new pool's files, metadata and data; nothing of one on devices.
    pub fn files(&self, home: &Path) -> Option<[PathBuf; 2]> {
        match &self.own {
            None => Some(record::files(home)),
            Some(own) => own.files.clone(),
        }
    }

    /// Returns what tells whether somebody writes to it from now on.
    ///
    /// # Errors
    /// When it is not there, or cannot be read.
    pub fn traces(&self, dm: &Dm, home: &Path) -> Result<Traces> {
        if let Some(files) = self.files(home) {
            return Traces::of_files(files);
        }
        let block = members::metadata_block(&members::assembled(dm, &self.uuid)?, 0)?;
        Ok(Traces::Devices { superblock: crc32c::crc32c(&block) })
    }

    /// Makes what was written to its files durable; the kernel has done so with devices.
    pub(super) fn write_out(&self, home: &Path) -> Result<()> {
        for path in self.files(home).into_iter().flatten() {
            is_free(&path)?;
            durable::open_existing(&path)?.sync_all().with_context(|| format!("writing out {}", path.display()))?;
        }
        Ok(())
    }

    /// Returns the superblock of the new pool, which is down.
    ///
    /// # Errors
    /// When it cannot be read, or is none.
    pub fn superblock(&self, dm: &Dm, home: &Path) -> Result<Superblock> {
        let read = match self.files(home) {
            Some([metadata, _]) => sight::superblock_in(&metadata)?,
            None => members::superblock(&members::assembled(dm, &self.uuid)?)?,
        };
        read.context("reading the superblock of what was prepared")
    }

    /// Returns how many of its volumes are whole in the new pool, of one that never came to its end: none when the pool holds something else.
    pub fn begun(&self, dm: &Dm, home: &Path) -> u32 {
        let found = self.superblock(dm, home).ok().and_then(|superblock| Mark::of(superblock.transaction_id));
        found.filter(|mark| mark.seal == self.seal).map_or(0, |mark| mark.whole)
    }

    /// Returns it as a migration takes it that goes on from so many whole volumes.
    pub fn half(&self, whole: u32) -> Self {
        Self { begun: Some(whole), ..self.clone() }
    }

    /// Returns how much of it is there: volumes, and bytes on the disk.
    ///
    /// # Errors
    /// When it cannot be looked at.
    pub fn ready(&self, dm: &Dm, home: &Path) -> Result<(usize, Bytes)> {
        let bytes = match self.files(home) {
            Some([_, data]) => durable::allocated(&data)?,
            None => {
                let superblock = self.superblock(dm, home)?;
                superblock.block_size.bytes_of(superblock.data_used)
            }
        };
        Ok((self.volumes.iter().filter(|volume| volume.is_whole).count(), bytes))
    }
}
