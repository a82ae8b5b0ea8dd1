//! Pools and damage that dmpool did not make.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

use lab::guest::disk::LoopDisk;
use lab::guest::sys::dmsetup;

use super::Bench;

/// A pool made by hand: its table names the loop devices directly, as Docker's does.
pub struct HandMade {
    pub name: String,
    pub data: LoopDisk,
    #[allow(dead_code, reason = "held: its loop device goes with it")]
    pub metadata: LoopDisk,
}

impl HandMade {
    /// Makes the pool `dmpool-test-WHAT`, its files in the bench's directory; sizes in bytes.
    pub fn new(bench: &Bench, what: &str, data_size: u64, metadata_size: u64) -> Self {
        Self::at(bench, &bench.dir, what, data_size, metadata_size)
    }

    /// Likewise, its files in another directory.
    pub fn at(bench: &Bench, dir: &Path, what: &str, data_size: u64, metadata_size: u64) -> Self {
        let file = |part: &str, size| LoopDisk::create(&dir.join(format!("{what}-{part}")), size).unwrap();
        let (data, metadata) = (file("data", data_size), file("metadata", metadata_size));
        let name = bench.sweep.name(what);
        let (below, sectors) = (data.device().display(), data_size / 512);
        let table = format!("0 {sectors} thin-pool {} {below} 128 0 1 skip_block_zeroing", metadata.device().display());
        dmsetup(["create", &name, "--table", &table]).run().checked().unwrap();
        Self { name, data, metadata }
    }
}

impl Drop for HandMade {
    fn drop(&mut self) {
        // The loop devices go next, and cannot while the pool is there. What stays is swept.
        let _ = dmsetup(["remove", "--retry", &self.name]).run();
    }
}

/// Sets `needs_check` in the superblock of a metadata file or device, as the kernel does after a failed write.
///
/// Flags at 4, and at 0 their checksum: CRC-32C of the rest, not inverted, salted with 160774 (dm-thin-metadata.c).
pub fn set_needs_check(metadata: &Path) {
    let file = OpenOptions::new().read(true).write(true).open(metadata).unwrap();
    let mut block = [0; 4096];
    file.read_exact_at(&mut block, 0).unwrap();
    block[4] |= 1;
    let sum = crc32c::crc32c(&block[4..]) ^ u32::MAX ^ 160_774;
    block[..4].copy_from_slice(&sum.to_le_bytes());
    file.write_all_at(&block, 0).unwrap();
    file.sync_all().unwrap();
}

/// How long a full pool queues writes, for as long as this lives; then as before.
pub struct NoSpaceTimeout {
    before: String,
}

const NO_SPACE_TIMEOUT: &str = "/sys/module/dm_thin_pool/parameters/no_space_timeout";

impl NoSpaceTimeout {
    pub fn seconds(seconds: u32) -> Self {
        let before = fs::read_to_string(NO_SPACE_TIMEOUT).unwrap();
        fs::write(NO_SPACE_TIMEOUT, seconds.to_string()).unwrap();
        Self { before }
    }
}

impl Drop for NoSpaceTimeout {
    fn drop(&mut self) {
        let _ = fs::write(NO_SPACE_TIMEOUT, self.before.trim());
    }
}
