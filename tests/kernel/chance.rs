//! Chance that can be had again: a seed is drawn, printed, and everything else follows from it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A generator of numbers (xorshift64).
pub struct Chance {
    state: u64,
}

impl Chance {
    /// With a seed from the clock, which is printed: a failure is looked into with that number in its place.
    pub fn new() -> Self {
        let seed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().subsec_nanos();
        println!("  chance: the seed is {seed}");
        Self { state: u64::from(seed) | 1 << 40 }
    }

    /// A number below `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state % limit.max(1)
    }

    /// A time shorter than `limit`.
    pub fn within(&mut self, limit: Duration) -> Duration {
        Duration::from_micros(self.below(u64::try_from(limit.as_micros()).unwrap()))
    }
}
