//! How fast a pool fills, and when it will be full: from what was seen of it at earlier times.
//!
//! The rate is a median over all pairs of moments, so that one image that was pulled, or one prune, weighs little: it
//! shows while it is near the middle of the time looked at. Of the last week and the last month the faster one counts.

use std::fmt;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::pool::{Limit, PoolReport};
use crate::units::Bytes;

const DAY: u64 = 86_400;
/// Of each such span one point is kept, the last.
const SLOT: u64 = DAY / 4;
/// How far back the points go.
const KEPT: u64 = 30 * DAY;
/// The spans whose rates are compared.
const WINDOWS: [u64; 2] = [7 * DAY, KEPT];
/// Fewer points, or a shorter time between the first and the last, say nothing.
const FEWEST: usize = 4;
/// What lies beyond is not foretold.
const HORIZON: u64 = 3650 * DAY;
/// Before 2025 no clock of a machine with dmpool is right: it was not set yet.
const CLOCK_IS_SET: u64 = 1_735_689_600;

/// The most points that are kept of one pool.
pub const MOST_POINTS: usize = 121;

/// A moment, in seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Moment(pub u64);

/// In RFC 3339, UTC: `2026-11-21T04:00:00Z`.
impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The year 9999 is the format's last.
        let seconds = Duration::from_secs(self.0.min(253_402_300_799));
        humantime::format_rfc3339_seconds(SystemTime::UNIX_EPOCH + seconds).fmt(f)
    }
}

/// What was seen of a pool at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point {
    /// When.
    pub at: Moment,
    /// Data in use.
    pub data_used: Bytes,
    /// Data in all.
    pub data_total: Bytes,
    /// Metadata in use.
    pub metadata_used: Bytes,
    /// Metadata in all.
    pub metadata_total: Bytes,
    /// What was free on the file system under the data's loop file, when there is one.
    pub host_free: Option<Bytes>,
}

/// A rate; less than zero when it shrinks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BytesPerDay(i64);

/// When a pool will be full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Full {
    /// Too little is known.
    #[default]
    Unknown,
    /// Nothing grows, or so slowly that it takes more than ten years.
    NotFilling,
    /// When a limit is met.
    In {
        /// Which one is met first.
        limit: Limit,
        /// In how many seconds; 0 when it is met already.
        seconds: u64,
    },
}

/// How fast a pool fills, and when it will be full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Forecast {
    /// How fast its data grows; nothing when too little is known.
    pub data: Option<BytesPerDay>,
    /// How fast its metadata grows.
    pub metadata: Option<BytesPerDay>,
    /// When it meets its first limit.
    pub full: Full,
}

impl BytesPerDay {
    /// Takes a number of bytes a day.
    pub const fn new(bytes: i64) -> Self {
        Self(bytes)
    }

    /// Returns the bare number.
    pub const fn get(self) -> i64 {
        self.0
    }

    /// Returns the seconds until so many bytes have come; nothing when they never do.
    fn seconds_for(self, bytes: Bytes) -> Option<u64> {
        let per_day = u128::try_from(self.0).ok().filter(|rate| *rate > 0)?;
        u64::try_from(u128::from(bytes.get()) * u128::from(DAY) / per_day).ok()
    }
}

impl fmt::Display for BytesPerDay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        write!(f, "{sign}{} a day", Bytes::new(self.0.unsigned_abs()).human())
    }
}

impl Full {
    /// Returns the seconds until then, when they are known.
    pub const fn seconds(self) -> Option<u64> {
        match self {
            Self::In { seconds, .. } => Some(seconds),
            Self::Unknown | Self::NotFilling => None,
        }
    }
}

impl Point {
    /// Returns what is to be remembered of a pool; nothing when its spaces are not known.
    pub fn of(pool: &PoolReport, at: Moment) -> Option<Self> {
        let (data, metadata) = (pool.data_space()?, pool.metadata_space()?);
        Some(Self {
            at,
            data_used: data.used,
            data_total: data.total,
            metadata_used: metadata.used,
            metadata_total: metadata.total,
            host_free: host_free(pool),
        })
    }

    const fn slot(&self) -> u64 {
        self.at.0 / SLOT
    }

    /// Whether it cannot be of the same pool as an earlier one: pools do not shrink.
    fn is_of_another_pool(&self, earlier: &Self) -> bool {
        self.data_total < earlier.data_total || self.metadata_total < earlier.metadata_total
    }
}

/// What is free under a file that can still grow: one that has all its blocks needs nothing of its file system.
fn host_free(pool: &PoolReport) -> Option<Bytes> {
    let file = pool.data.loop_file()?;
    let is_sparse = file.promised().is_none_or(|promised| promised > Bytes::new(0));
    file.host.as_ref().filter(|_| is_sparse).map(|host| host.free)
}

/// Adds a point to those of a pool, and drops what is no longer to be kept: what is older than 30 days, what is later
/// than the new point (the clock was put back), what was seen of a larger pool (of the same name, and gone), and all but
/// the last point of each quarter of a day. A clock that was never set adds nothing.
pub fn record(points: &mut Vec<Point>, new: Point) {
    if new.at.0 < CLOCK_IS_SET {
        return;
    }
    points.retain(|p| p.at < new.at && p.at.0 >= new.at.0.saturating_sub(KEPT) && p.slot() != new.slot());
    if points.iter().any(|p| new.is_of_another_pool(p)) {
        points.clear();
    }
    points.push(new);
    points.sort_by_key(|p| p.at);
    points.dedup_by_key(|p| p.slot());
}

/// Returns whether nothing was added for so long that the pool is forgotten.
pub fn is_forgotten(points: &[Point], now: Moment) -> bool {
    now.0 >= CLOCK_IS_SET && points.iter().all(|p| p.at.0 < now.0.saturating_sub(KEPT))
}

/// Returns how fast a pool fills and when it is full: the rates from its points, the rest from what it is now.
pub fn forecast(points: &[Point], pool: &PoolReport, now: Moment) -> Forecast {
    let Some(current) = Point::of(pool, now) else { return Forecast::default() };
    let earlier = points.iter().filter(|p| p.at < now && now.0 - p.at.0 <= KEPT);
    let mut seen: Vec<Point> = earlier.copied().chain([current]).collect();
    if seen.iter().any(|p| current.is_of_another_pool(p)) {
        seen.clear();
    }
    seen.sort_by_key(|p| p.at);
    let data = rate(&seen, |p| Some(i128::from(p.data_used.get())));
    let metadata = rate(&seen, |p| Some(i128::from(p.metadata_used.get())));
    let host = rate(&seen, |p| p.host_free.map(|free| -i128::from(free.get())));
    let (of_data, left) = pool.data_limit().map_or((Limit::Pool, None), |(limit, left)| (limit, Some(left)));
    let limits = [
        (of_data, left, data),
        (Limit::Metadata, pool.metadata_left(), metadata),
        (Limit::HostFileSystem, current.host_free, host),
    ];
    Forecast { data, metadata, full: first(&limits) }
}

/// Which limit is met first, of what is left until each and how fast that goes.
fn first(limits: &[(Limit, Option<Bytes>, Option<BytesPerDay>)]) -> Full {
    let met = limits.iter().filter_map(|(limit, left, rate)| {
        let left = (*left)?;
        let seconds = if left.get() == 0 { Some(0) } else { (*rate)?.seconds_for(left) };
        seconds.filter(|seconds| *seconds <= HORIZON).map(|seconds| (seconds, *limit))
    });
    match met.min_by_key(|(seconds, _)| *seconds) {
        Some((seconds, limit)) => Full::In { limit, seconds },
        None if limits.iter().any(|(_, left, rate)| left.is_some() && rate.is_none()) => Full::Unknown,
        None => Full::NotFilling,
    }
}

/// The faster of the rates over the windows, of a value that points have.
fn rate(points: &[Point], value: impl Fn(&Point) -> Option<i128>) -> Option<BytesPerDay> {
    let last = points.last()?.at;
    let values: Vec<(u64, i128)> = points.iter().filter_map(|p| Some((p.at.0, value(p)?))).collect();
    let of_window = |window: u64| {
        let within: Vec<_> = values.iter().copied().filter(|(at, _)| last.0 - at <= window).collect();
        median_slope(&within)
    };
    WINDOWS.into_iter().filter_map(of_window).max().map(BytesPerDay)
}

/// The median of the slopes between any two points, in units a day (Theil and Sen's estimate); nothing for fewer than
/// four points, or less than a day.
fn median_slope(points: &[(u64, i128)]) -> Option<i64> {
    let span = points.last()?.0 - points.first()?.0;
    if points.len() < FEWEST || span < DAY {
        return None;
    }
    let mut slopes = Vec::with_capacity(points.len() * points.len() / 2);
    for (number, (from, before)) in points.iter().enumerate() {
        for (to, after) in points.iter().skip(number + 1).filter(|(to, _)| to > from) {
            slopes.push((after - before) * i128::from(DAY) / i128::from(to - from));
        }
    }
    let middle = slopes.len() / 2;
    let median = *slopes.select_nth_unstable(middle).1;
    i64::try_from(median).ok().or(Some(if median < 0 { i64::MIN } else { i64::MAX }))
}

#[cfg(test)]
#[path = "growth_tests.rs"]
mod tests;
