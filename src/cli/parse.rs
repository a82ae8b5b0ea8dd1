//! Values of arguments.

use std::time::Duration;

use crate::ops::Change;
use crate::pool::{PoolName, VolumeId, VolumeName};
use crate::report::docker_info::Version;
use crate::units::{BlockSize, Bytes, DataBlocks, NewSize, SizeArg};

/// Reads a time such as 60s.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|e| e.to_string())
}

/// Reads a size such as 100G.
pub(super) fn size(text: &str) -> Result<Bytes, String> {
    Bytes::parse(text).map_err(|e| e.to_string())
}

/// Reads a size such as 100G, or a share of a volume group such as 50%FREE.
pub(super) fn new_size(text: &str) -> Result<NewSize, String> {
    NewSize::parse(text).map_err(|e| e.to_string())
}

/// Reads a size, +SIZE, +N% or max.
pub(super) fn size_arg(text: &str) -> Result<SizeArg, String> {
    SizeArg::parse(text).map_err(|e| e.to_string())
}

/// Reads a block size such as 64K.
pub(super) fn block_size(text: &str) -> Result<BlockSize, String> {
    BlockSize::of_bytes(size(text)?).map_err(|e| e.to_string())
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
    PoolName::of_new(text).map_err(|e| e.to_string())
}

/// Reads the id of a volume.
pub(super) fn volume_id(text: &str) -> Result<VolumeId, String> {
    text.parse().ok().and_then(VolumeId::new).ok_or_else(|| format!("`{text}` is no id: 0 to {}", VolumeId::MAX))
}

/// Reads the name of a volume to be made.
pub(super) fn new_volume_name(text: &str) -> Result<VolumeName, String> {
    VolumeName::of_new(text).map_err(|e| e.to_string())
}

/// Reads the name of a volume.
pub(super) fn volume_name(text: &str) -> Result<VolumeName, String> {
    VolumeName::new(text).map_err(|e| e.to_string())
}

/// Returns whether something is carried out or only described.
pub(super) const fn change(dry_run: bool) -> Change {
    if dry_run { Change::Describe } else { Change::Make }
}
