//! dmpool: owning device-mapper thin pools.

pub mod error;
pub mod kernel;
pub mod pool;
pub mod process;
pub mod units;
