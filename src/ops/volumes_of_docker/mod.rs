//! Docker's volumes, whether a daemon runs or not.

mod entries;
pub mod list;
mod manifest;
mod restore;
pub mod save;
mod unpack;

pub use entries::{Entries, Entry, parse_records, parse_time};
pub use manifest::{Manifest, Sums};
pub use restore::{Restored, into, restore};

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]
mod tests;
