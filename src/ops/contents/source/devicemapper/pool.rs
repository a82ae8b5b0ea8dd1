//! A pool that is put together of Docker's data, read-only, and a copy of its metadata.

use anyhow::{Context, Result, bail};

use super::metadata::Copy;
use super::parts::Parts;
use crate::kernel::dm::{Dm, DmId, TargetLine};
use crate::kernel::loopdev;
use crate::metadata::Superblock;
use crate::ops::contents::passing::Device;
use crate::pool::{DevNo, PoolStatus, PoolTable, THIN_POOL};
use crate::units::{DataBlocks, Sectors};

/// The pool, and whoever it stands on.
#[derive(Debug)]
pub(super) struct Pool<'d> {
    pool: Device<'d>,
}

impl<'d> Pool<'d> {
    pub(super) fn devno(&self) -> DevNo {
        self.pool.devno
    }

    /// Puts it together.
    pub(super) fn on(dm: &'d Dm, parts: &Parts, metadata: &Copy) -> Result<Self> {
        let data = &parts.data;
        let superblock = metadata.superblock()?;
        let copy = metadata.attach()?;
        let held = match data.devno {
            Some(_) => None,
            None => Some(loopdev::attach(&data.file, &data.path, true, true)?),
        };
        let on = data.devno.or(held.as_ref().map(|held| held.devno)).context("the data has no device")?;
        let table = table(&superblock, copy.devno, on)?;
        let line = TargetLine {
            start: Sectors::new(0),
            length: table.length,
            kind: THIN_POOL.to_owned(),
            params: table.params(),
        };
        let pool = Device::make(dm, "pool", &[line], false)?;
        let status = dm.status(&DmId::name(&pool.name))?;
        let status = status.first().map(|line| line.params.clone()).unwrap_or_default();
        match PoolStatus::parse(&status) {
            PoolStatus::Working(_) => Ok(Self { pool }),
            _ => bail!("the kernel gives the pool the status `{status}`"),
        }
    }
}

/// As long as the metadata says: with another length the kernel would want to write it down.
fn table(superblock: &Superblock, metadata: DevNo, data: DevNo) -> Result<PoolTable> {
    Ok(PoolTable {
        length: superblock.length().context("the superblock counts too many blocks")?,
        metadata,
        data,
        block_size: superblock.block_size,
        low_water: DataBlocks::new(0),
        features: ["skip_block_zeroing", "read_only"].map(str::to_owned).to_vec(),
    })
}
