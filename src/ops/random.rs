//! Random bits from the kernel.

use std::fs::File;
use std::io::Read;

use anyhow::{Context, Result};

/// Returns 128 random bits.
///
/// # Errors
/// When /dev/urandom cannot be read.
pub fn bits() -> Result<u128> {
    let mut bytes = [0_u8; 16];
    File::open("/dev/urandom").and_then(|mut f| f.read_exact(&mut bytes)).context("reading /dev/urandom")?;
    Ok(u128::from_le_bytes(bytes))
}
