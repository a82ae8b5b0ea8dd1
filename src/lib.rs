//! dmpool: owning device-mapper thin pools.

pub mod cli;
pub mod engine;
pub mod error;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod kernel;
pub mod metadata;
pub mod ops;
pub mod pool;
pub mod process;
pub mod report;
pub mod units;
