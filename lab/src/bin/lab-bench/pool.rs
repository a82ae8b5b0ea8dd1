//! A pool of Docker's shape, made by hand: nobody's in particular, so that every way to grow it does the same work.

use std::path::Path;

use anyhow::{Context, Result};
use lab::guest::disk::LoopDisk;
use lab::guest::sys;

use crate::ioctl::Control;

pub(crate) const MIB: u64 = 1 << 20;
/// Its dm name.
pub(crate) const POOL: &str = "dmpool-test-bench-pool";
/// Its one thin volume from the start, 256 MiB.
pub(crate) const VOLUME: &str = "dmpool-test-bench-volume";

/// A thin pool on two loop devices.
#[derive(Debug)]
pub(crate) struct Pool {
    pub(crate) data: LoopDisk,
    metadata: LoopDisk,
    /// Length of the data.
    pub(crate) bytes: u64,
    pub(crate) control: Control,
}

impl Pool {
    /// Makes its files in `dir`, 1 GiB of data, and the pool with its volume.
    pub(crate) fn create(dir: &Path) -> Result<Self> {
        let bytes = 1024 * MIB;
        let data = LoopDisk::create(&dir.join("data"), bytes)?;
        let metadata = LoopDisk::create(&dir.join("metadata"), 64 * MIB)?;
        let pool = Self { data, metadata, bytes, control: Control::open()? };
        let table = format!("0 {} thin-pool {}", bytes / 512, pool.params());
        sys::dmsetup(["create", POOL, "--table", &table]).run().checked()?;
        pool.control.message(POOL, "create_thin 0")?;
        let table = format!("0 {} thin /dev/mapper/{POOL} 0", 256 * MIB / 512);
        sys::dmsetup(["create", VOLUME, "--table", &table]).run().checked()?;
        sys::settle();
        Ok(pool)
    }

    /// The parameters of Docker's own table, whatever the length.
    pub(crate) fn params(&self) -> String {
        format!("{} {} 128 32768 1 skip_block_zeroing", self.metadata.device().display(), self.data.device().display())
    }

    /// The length of the live table, in bytes.
    pub(crate) fn live_bytes(&self) -> Result<u64> {
        let table = sys::dmsetup(["table", POOL]).run().checked()?.stdout;
        let sectors = table.split(' ').nth(1).and_then(|sectors| sectors.parse::<u64>().ok());
        Ok(sectors.with_context(|| format!("no length in the table {table:?}"))? * 512)
    }

    /// Takes it down; its files stay.
    pub(crate) fn remove(self) -> Result<()> {
        for name in [VOLUME, POOL] {
            sys::dmsetup(["remove", "--retry", name]).run().checked()?;
        }
        Ok(())
    }
}
