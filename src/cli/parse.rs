//! Values of arguments.

use crate::ops::Change;
use crate::pool::{PoolName, VolumeName};
use crate::report::docker_info::Version;
use crate::units::{BlockSize, Bytes, DataBlocks, SizeArg};

/// Reads a size such as 100G.
pub(super) fn size(text: &str) -> Result<Bytes, String> {
    Bytes::parse(text).map_err(|e| e.to_string())
}

/// Reads a size, +SIZE, +N% or max.
pub(super) fn size_arg(text: &str) -> Result<SizeArg, String> {
    SizeArg::parse(text).map_err(|e| e.to_string())
}

/// Reads a block size such as 64K.
pub(super) fn block_size(text: &str) -> Result<BlockSize, String> {
    let bytes = size(text)?;
    if bytes.sectors().bytes() != bytes {
        return Err(format!("{} bytes are no whole number of sectors", bytes.get()));
    }
    BlockSize::new(bytes.sectors()).map_err(|e| e.to_string())
}

/// Reads a number of data blocks.
pub(super) fn blocks(text: &str) -> Result<DataBlocks, String> {
    text.parse().map(DataBlocks::new).map_err(|_| format!("`{text}` is not a number of blocks"))
}

/// Reads a version of Docker such as 20.10.
pub(super) fn docker_version(text: &str) -> Result<Version, String> {
    Version::parse(text).ok_or_else(|| format!("`{text}` is no version of Docker such as 1.13 or 20.10"))
}

/// Reads the name of a pool to be made.
pub(super) fn pool_name(text: &str) -> Result<PoolName, String> {
    PoolName::new(text).map_err(|e| e.to_string())
}

/// Reads the name of a volume.
pub(super) fn volume_name(text: &str) -> Result<VolumeName, String> {
    VolumeName::new(text).map_err(|e| e.to_string())
}

/// Returns whether something is carried out or only described.
pub(super) const fn change(dry_run: bool) -> Change {
    if dry_run { Change::Describe } else { Change::Make }
}
