//! Docker's volumes, whether a daemon runs or not.

mod entries;
pub mod list;
mod manifest;
mod restore;
pub mod save;
mod unpack;

pub(in crate::ops) use entries::LONGEST_PATH;
pub use entries::{Entries, Entry, parse_records, parse_time};
pub(in crate::ops) use manifest::is_volume_name;
pub use manifest::{Manifest, Sums};
pub use restore::{Restored, into, restore};
pub(in crate::ops) use unpack::{Stop, Unpack};

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]
mod tests;
