//! Docker's volumes, whether a daemon runs or not.

pub mod list;
