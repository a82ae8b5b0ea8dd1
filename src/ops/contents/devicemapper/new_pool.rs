//! A pool on new loop files, as Docker makes one, that is up only while its volumes are made.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::kernel::dm::{Dm, DmId, TargetLine};
use crate::kernel::fs::{create_file_durably, make_dir};
use crate::kernel::{loopdev, udev};
use crate::ops::contents::passing::{Kept, is_gone};
use crate::ops::sight;
use crate::pool::{DevNo, Mode, PoolTable, THIN, THIN_POOL, Working};
use crate::units::{BlockSize, Bytes, DataBlocks, Sectors};

/// The files, as Docker calls them (`initDevmapper`, daemon/graphdriver/devmapper/deviceset.go).
const DATA: &str = "data";
const METADATA: &str = "metadata";

/// The pool. It goes with this, and with this process, whatever ends that.
#[derive(Debug)]
pub(super) struct NewPool<'d> {
    dm: &'d Dm,
    pool: Kept<'d>,
    files: [(PathBuf, File); 2],
}

/// A volume of it that is there until it is closed.
#[derive(Debug)]
pub(super) struct Volume<'d> {
    kept: Kept<'d>,
}

impl<'d> NewPool<'d> {
    /// Makes the files in a folder that is made for them, and the pool on them.
    ///
    /// # Errors
    /// When the file system does not hold such files, or the kernel makes no pool of them.
    pub(super) fn make(dm: &'d Dm, folder: &Path, data: Bytes, metadata: Bytes, block: BlockSize) -> Result<Self> {
        make_dir(folder, 0o700)?;
        let of = |name: &str, length: Bytes| -> Result<(PathBuf, File)> {
            let path = folder.join(name);
            let file = create_file_durably(&path, length)?;
            Ok((path, file))
        };
        let files = [of(METADATA, metadata)?, of(DATA, data)?];
        let [of_metadata, of_data] = &files;
        let attach = |(path, file): &(PathBuf, File)| loopdev::attach(file, path, true, false);
        let (under_metadata, under_data) = (attach(of_metadata)?, attach(of_data)?);
        let table = PoolTable {
            length: data.sectors(),
            metadata: under_metadata.devno,
            data: under_data.devno,
            block_size: block,
            low_water: DataBlocks::new(0),
            // Docker's own waits for room; this one says at once that there is none.
            features: ["skip_block_zeroing", "error_if_no_space"].map(str::to_owned).to_vec(),
        };
        let line = TargetLine {
            start: Sectors::new(0),
            length: table.length,
            kind: THIN_POOL.to_owned(),
            params: table.params(),
        };
        let pool = Kept::make(dm, "pool", &[line], false)?;
        Ok(Self { dm, pool, files })
    }

    fn message(&self, message: &str) -> Result<()> {
        self.dm.message(&DmId::name(&self.pool.device.name), message).map(drop)
    }

    /// Makes a volume: a snapshot of another one, of which nothing may be active, or one with nothing in it.
    ///
    /// # Errors
    /// When the kernel does not.
    pub(super) fn create(&self, id: u32, of: Option<u32>) -> Result<()> {
        self.message(&of.map_or_else(|| format!("create_thin {id}"), |of| format!("create_snap {id} {of}")))
    }

    /// Returns a volume's device.
    ///
    /// # Errors
    /// When the kernel makes none.
    pub(super) fn volume(&self, id: u32, size: Bytes, read_only: bool) -> Result<Volume<'d>> {
        let params = format!("{} {id}", self.pool.device.devno);
        let line = TargetLine { start: Sectors::new(0), length: size.sectors(), kind: THIN.to_owned(), params };
        let kept = Kept::make(self.dm, "thin", &[line], read_only)?;
        Ok(Volume { kept })
    }

    /// Returns how it is.
    ///
    /// # Errors
    /// When it does not work.
    pub(super) fn working(&self) -> Result<Working> {
        let status = sight::status(self.dm, &self.pool.device.name)?;
        let working = status.working().cloned();
        working.with_context(|| format!("the kernel gives the new pool the status {status:?}"))
    }

    /// Fails when not all that was written into it is there.
    ///
    /// # Errors
    /// When it is full, or cannot be written any more.
    pub(super) fn is_well(&self) -> Result<()> {
        let working = self.working()?;
        ensure!(!is_full(&working), "the new pool is full");
        ensure!(
            working.mode.is_none_or(|mode| mode == Mode::ReadWrite),
            "the new pool can be written no more: {working:?}"
        );
        Ok(())
    }

    /// Gives it the transaction id of the last volume, with which all is on its disk, and takes it down.
    ///
    /// # Errors
    /// When the kernel does not, or somebody has it open.
    pub(super) fn finish(self, transaction: u64) -> Result<()> {
        self.message(&format!("set_transaction_id 0 {transaction}"))?;
        let now = self.working()?.transaction_id;
        ensure!(now == transaction, "the new pool has the transaction id {now}, not {transaction}");
        let Self { pool, files, .. } = self;
        pool.close()?;
        for (path, file) in files {
            file.sync_all().with_context(|| format!("writing out {}", path.display()))?;
            let found = file.metadata().with_context(|| format!("looking at {}", path.display()))?;
            let (dev, inode) = (DevNo::from_dev_t(found.dev()), found.ino());
            is_gone(&format!("the loop device of {}", path.display()), &mut || {
                Ok(loopdev::users_of(dev, inode)?.is_empty())
            })?;
        }
        Ok(())
    }
}

/// Whether no block is left.
pub(super) fn is_full(working: &Working) -> bool {
    working.data_used >= working.data_total
}

impl Volume<'_> {
    /// Returns its node.
    pub(super) fn node(&self) -> PathBuf {
        udev::node(&self.kept.device.name)
    }

    /// Returns it open to be read.
    pub(super) const fn file(&self) -> &File {
        &self.kept.file
    }

    /// Takes its device away.
    ///
    /// # Errors
    /// When somebody has it open.
    pub(super) fn close(self) -> Result<()> {
        self.kept.close()
    }
}
