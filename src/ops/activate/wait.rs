//! Trying again what is late: a pool comes up as soon as all of it is there, and none waits for another.

use std::time::{Duration, Instant};

use crate::error::{Failure, Outcome};
use crate::kernel::arrivals::Arrivals;
use crate::kernel::critical;
use crate::ops::Done;
use crate::ops::activate::Disks;
use crate::pool::PoolName;

/// What there is to tell of a pool.
#[derive(Debug)]
pub enum News {
    /// It is late: the names of what is waited for. Told once.
    Late(Vec<String>),
    /// It is up, or would be.
    Up(Done),
    /// It stays down.
    Down(Failure),
}

/// How long after the first look disks may come that nothing else tells of.
const SETTLED: Duration = Duration::from_secs(10);

/// Makes an attempt at each pool, and another whenever something may have come, until `limit` is over: of those only that are
/// late. Returns the signal that ended the waiting, if one did. With no time each has one attempt.
///
/// # Errors
/// What `tell` returns: nothing more is tried then.
pub fn each(
    pools: Vec<PoolName>,
    limit: Duration,
    mut attempt: impl FnMut(&PoolName, Disks) -> Outcome<Done>,
    mut tell: impl FnMut(&PoolName, News) -> Outcome<()>,
) -> Outcome<Option<&'static str>> {
    let begun = Instant::now();
    let (until, settled) = (begun + limit, begun + limit.min(SETTLED));
    // Before the first look, so that nothing comes unseen.
    let arrivals = (!limit.is_zero()).then(Arrivals::listen);
    let mut down: Vec<(PoolName, bool)> = pools.into_iter().map(|pool| (pool, false)).collect();
    loop {
        let signal = arrivals.as_ref().and_then(|_| critical::wanted_end());
        let is_over = signal.is_some() || Instant::now() >= until;
        let disks = if Instant::now() >= settled { Disks::AreHere } else { Disks::MayCome };
        let mut late = Vec::new();
        for (pool, told) in down {
            match attempt(&pool, disks) {
                Ok(done) => tell(&pool, News::Up(done))?,
                Err(failure) if failure.awaits.is_empty() || is_over => tell(&pool, News::Down(failure))?,
                Err(failure) => {
                    if !told {
                        tell(&pool, News::Late(failure.awaits))?;
                    }
                    late.push((pool, true));
                }
            }
        }
        down = late;
        match &arrivals {
            Some(arrivals) if !down.is_empty() => {
                let next = if disks == Disks::MayCome { settled } else { until };
                arrivals.wait(next.saturating_duration_since(Instant::now()));
            }
            _ => return Ok(signal),
        }
    }
}
